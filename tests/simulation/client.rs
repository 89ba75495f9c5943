//! A super app's back end on the simulated network: a client of the public port, as patient as the contract asks it to be.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use contracts::cases::v1::case_service_client::CaseServiceClient;
use contracts::department::v1::department_service_client::DepartmentServiceClient;
use contracts::identity::v1::IssueTokenRequest;
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use lastmile_tests::super_app::Citizen;
use rpc::jose::{AgreementPublicKey, Jwks, SigningKey};
use rpc::oauth::Caller;
use rpc::{ClientOptions, Effect, Kind, Mesh, RemoteFault, RemoteOptions, Wire};
use runtime::http::{Client, Options};
use runtime::{Context, Timestamp, secret};
use serde_json::Value;
use tonic::Request;

use crate::hosts::PUBLIC;

/// How long one try may take.
pub(crate) const TRY: Duration = Duration::from_secs(8);
/// Between two tries, before half as much again at random.
const PAUSE: Duration = Duration::from_millis(700);
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// An entry point's back end.
pub(crate) struct App {
    pub(crate) context: Context,
    http: Client,
    mesh: Mesh,
    caller: Caller,
    /// When everybody gives up: long after everything has healed.
    until: Timestamp,
}

/// Whose token a call carries.
pub(crate) struct Bearer<'a> {
    citizen: Option<&'a Citizen>,
    token: RefCell<Option<String>>,
}

/// A call did not come to an answer that says what became of it.
#[derive(Debug)]
pub(crate) enum Stuck {
    /// It was refused for good.
    Refused(RemoteFault),
    /// Nobody answered as long as anybody would wait.
    Silence(String),
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(fault) => write!(f, "refused: {fault:?}"),
            Self::Silence(last) => write!(f, "nobody answers: {last}"),
        }
    }
}

impl Bearer<'_> {
    pub(crate) fn citizen(citizen: &Citizen) -> Bearer<'_> {
        Bearer { citizen: Some(citizen), token: RefCell::default() }
    }

    /// Drops a token that is not taken any more.
    pub(crate) fn refused(&self, status: &tonic::Status) {
        if RemoteFault::from(status).kind() == Kind::Unauthenticated {
            self.token.borrow_mut().take();
        }
    }

    /// The entry point itself.
    pub(crate) fn own() -> Self {
        Self { citizen: None, token: RefCell::default() }
    }
}

impl App {
    /// Waits for the key that identity makes at its first start.
    pub(crate) async fn new(context: &Context, keys: &Path, id: &str, until: Timestamp) -> anyhow::Result<Self> {
        let file = keys.join(format!("{id}.pem"));
        while !file.exists() {
            anyhow::ensure!(context.clock.now() < until, "identity makes no keys");
            context.clock.sleep(Duration::from_millis(50)).await;
        }
        let key = SigningKey::from_pem(secret::read_private_text(&file)?.expose())?;
        let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default());
        for key in ["cases", "identity", "adapter"] {
            mesh.bind_remote(key, &format!("gateway:{PUBLIC}"))?;
        }
        Ok(Self {
            http: Client::new(context.net.clone(), context.clock.clone(), Options::default()),
            caller: Caller::new(id, key, context.clock.clone(), context.ids.clone()),
            context: context.clone(),
            mesh,
            until,
        })
    }

    pub(crate) fn cases(&self) -> CaseServiceClient<Wire> {
        CaseServiceClient::new(self.mesh.wire("cases"))
    }

    pub(crate) fn department(&self) -> DepartmentServiceClient<Wire> {
        DepartmentServiceClient::new(self.mesh.wire("adapter"))
    }

    /// Asks with the bearer's token until there is an answer, or a refusal that asking again does not change.
    pub(crate) async fn ask<M: Clone, T>(
        &self,
        bearer: &Bearer<'_>,
        message: &M,
        call: impl AsyncFn(Request<M>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, Stuck> {
        self.persist(async || {
            let mut request = self.authorized(bearer, message.clone()).await?;
            request.set_timeout(TRY);
            let answer = call(request).await.inspect_err(|status| bearer.refused(status));
            Ok(answer.map_err(RemoteFault::from)?.into_inner())
        })
        .await
    }

    /// The bearer's token; gets one first where there is none.
    pub(crate) async fn token_of(&self, bearer: &Bearer<'_>) -> Result<String, RemoteFault> {
        let known = bearer.token.borrow().clone();
        if let Some(token) = known {
            return Ok(token);
        }
        let token = self.token(bearer.citizen).await?;
        bearer.token.replace(Some(token.clone()));
        Ok(token)
    }

    /// Puts the bearer's token on a message.
    pub(crate) async fn authorized<M>(&self, bearer: &Bearer<'_>, message: M) -> Result<Request<M>, RemoteFault> {
        let token = self.token_of(bearer).await?;
        let mut request = Request::new(message);
        let value = format!("Bearer {token}").parse().map_err(|_| unreachable("token"))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    /// Tries until it is answered.
    pub(crate) async fn persist<T>(&self, attempt: impl AsyncFn() -> Result<T, RemoteFault>) -> Result<T, Stuck> {
        loop {
            let fault = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            if !is_passing(&fault) {
                return Err(Stuck::Refused(fault));
            }
            if self.context.clock.now() > self.until {
                return Err(Stuck::Silence(format!("{fault:?}")));
            }
            self.pause().await;
        }
    }

    pub(crate) async fn pause(&self) {
        let more = self.context.ids.below(u64::try_from(PAUSE.as_millis()).unwrap_or(0) / 2);
        self.context.clock.sleep(PAUSE + Duration::from_millis(more)).await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.context.clock.now() > self.until
    }

    /// One call to the sandbox's control port, which is the citizens' own hands: (status, body).
    pub(crate) async fn control(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        let url = format!("http://sandbox:7500{path}");
        let request = http::Request::builder().method(method).uri(url).header("content-type", "application/json");
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let reply = self.http.send(request.body(body)?, TRY, BODY_BYTES_MAX).await?;
        anyhow::ensure!(!reply.status().is_server_error(), "{}", reply.status());
        Ok((reply.status().as_u16(), serde_json::from_slice(reply.body()).unwrap_or_default()))
    }

    async fn token(&self, citizen: Option<&Citizen>) -> Result<String, RemoteFault> {
        let asked = match citizen {
            Some(citizen) => self.citizen_token(citizen).await,
            None => self.caller.own_token().map_err(Into::into),
        };
        // Without keys there is nothing to sign or to seal for: as when nobody is there.
        let asked: IssueTokenRequest = asked.map_err(|_| unreachable("keys"))?;
        let mut request = Request::new(asked);
        request.set_timeout(TRY);
        let answer = IdentityServiceClient::new(self.mesh.wire("identity")).issue_token(request).await;
        Ok(answer.map_err(RemoteFault::from)?.into_inner().access_token)
    }

    async fn citizen_token(&self, citizen: &Citizen) -> anyhow::Result<IssueTokenRequest> {
        let request = http::Request::get(format!("http://gateway:{PUBLIC}/.well-known/jwks.json"));
        let reply = self.http.send(request.body(Bytes::new())?, TRY, BODY_BYTES_MAX).await?;
        let keys: Jwks = serde_json::from_slice(reply.body())?;
        let identity = keys.keys.iter().find_map(|key| match key.to_agreement_key() {
            Ok(key @ AgreementPublicKey::X25519(_)) => Some(key),
            _ => None,
        });
        let identity = identity.context("the key set has no key to seal for")?;
        let profiles = ["traffic/430100", "traffic/140100"];
        Ok(self.caller.citizen_token(&citizen.person(self.caller.id()), &profiles, &identity)?)
    }
}

/// Whether asking again may bring another answer.
pub(crate) fn is_passing(fault: &RemoteFault) -> bool {
    match fault.kind() {
        Kind::InvalidInput | Kind::Forbidden | Kind::NotFound | Kind::AlreadyExists | Kind::RuleBroken => false,
        Kind::Unsupported | Kind::Internal => false,
        Kind::Unauthenticated | Kind::Conflict | Kind::Exhausted | Kind::Unavailable | Kind::Deadline => true,
    }
}

/// Whether a call ended without an answer: nothing proves that it had no effect.
pub(crate) fn is_lost(status: &tonic::Status) -> bool {
    let fault = RemoteFault::from(status);
    is_passing(&fault) && fault.effect() == Effect::Possible
}

fn unreachable(what: &str) -> RemoteFault {
    RemoteFault::unreachable(what, Effect::None, PAUSE)
}
