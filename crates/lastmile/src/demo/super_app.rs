//! The back end of a super app: a client of the public port, with nothing that a stranger would not have.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use contracts::cases::v1::case_service_client::CaseServiceClient;
use contracts::catalog::v1::catalog_service_client::CatalogServiceClient;
use contracts::department::v1::department_service_client::DepartmentServiceClient;
use contracts::identity::v1::IssueTokenRequest;
use contracts::payments::v1::payment_service_client::PaymentServiceClient;
use rpc::jose::{AgreementPublicKey, Jwks, SigningKey, VerifyingKey};
use rpc::oauth::{Caller, Person};
use runtime::http::{Client, Options};
use runtime::{Context, secret};
use serde::Deserialize;
use tonic::transport::{Channel, Endpoint};

const DEADLINE: Duration = Duration::from_secs(30);
const BODY_BYTES_MAX: usize = 256 * 1024;

/// A super app's back end.
pub(crate) struct SuperApp {
    http: Client,
    base: String,
    channel: Channel,
    caller: Caller,
}

/// A token, as the token endpoint answers.
#[derive(Deserialize)]
pub(crate) struct Token {
    pub(crate) access_token: String,
    pub(crate) expires_in: i64,
}

impl SuperApp {
    /// Takes the entry point's key from the directory that identity made it in.
    pub(crate) fn new(context: &Context, base: &str, entry_point: &str, keys: &Path) -> anyhow::Result<Self> {
        let file = keys.join(format!("{entry_point}.pem"));
        let pem = secret::read_private_text(&file).with_context(|| {
            format!(
                "no key of {entry_point} at {}: is this the data directory of a running `lastmile serve --sandbox`?",
                file.display()
            )
        })?;
        let key = SigningKey::from_pem(pem.expose()).with_context(|| format!("{}", file.display()))?;
        let channel = Endpoint::from_shared(base.to_owned())?.connect_timeout(DEADLINE).connect_lazy();
        Ok(Self {
            http: Client::new(context.net.clone(), context.clock.clone(), Options::default()),
            base: base.to_owned(),
            channel,
            caller: Caller::new(entry_point, key, context.clock.clone(), context.ids.clone()),
        })
    }

    /// The name of the entry point.
    pub(crate) fn id(&self) -> &str {
        self.caller.id()
    }

    /// The entry point's own token, for the catalogue.
    pub(crate) async fn own_token(&self) -> anyhow::Result<Token> {
        self.token(&self.caller.own_token()?).await
    }

    /// A token of a citizen for departments.
    pub(crate) async fn citizen_token(&self, person: &Person, profiles: &[&str]) -> anyhow::Result<Token> {
        let keys = self.jwks().await?;
        let identity = keys.keys.iter().find_map(|key| match key.to_agreement_key() {
            Ok(key @ AgreementPublicKey::X25519(_)) => Some(key),
            _ => None,
        });
        let identity = identity.context("the key set has no key of identity to seal for")?;
        self.token(&self.caller.citizen_token(person, profiles, &identity)?).await
    }

    /// The public key of that id, from the key set.
    pub(crate) async fn verifying_key(&self, kid: &str) -> anyhow::Result<VerifyingKey> {
        let keys = self.jwks().await?;
        let key = keys
            .keys
            .iter()
            .find(|key| key.kid.as_deref() == Some(kid))
            .context("the key set lacks the key of the proof")?;
        Ok(key.to_verifying_key()?)
    }

    pub(crate) fn payments(&self) -> PaymentServiceClient<Channel> {
        PaymentServiceClient::new(self.channel.clone())
    }

    pub(crate) fn catalog(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
    }

    pub(crate) fn department(&self) -> DepartmentServiceClient<Channel> {
        DepartmentServiceClient::new(self.channel.clone())
    }

    pub(crate) fn cases(&self) -> CaseServiceClient<Channel> {
        CaseServiceClient::new(self.channel.clone())
    }

    async fn jwks(&self) -> anyhow::Result<Jwks> {
        let url = format!("{}/.well-known/jwks.json", self.base);
        let reply = self.http.send(http::Request::get(&url).body(Bytes::new())?, DEADLINE, BODY_BYTES_MAX).await;
        let reply =
            reply.with_context(|| format!("nothing answers at {url}: start `lastmile serve --sandbox` first"))?;
        serde_json::from_slice(reply.body()).with_context(|| format!("{url} is no key set"))
    }

    /// Asks the standard token endpoint.
    async fn token(&self, asked: &IssueTokenRequest) -> anyhow::Result<Token> {
        let url = format!("{}/oauth2/token", self.base);
        let request = http::Request::post(&url).header("content-type", "application/x-www-form-urlencoded");
        let reply = self.http.send(request.body(form(asked).into())?, DEADLINE, BODY_BYTES_MAX).await;
        let reply =
            reply.with_context(|| format!("nothing answers at {url}: start `lastmile serve --sandbox` first"))?;
        if !reply.status().is_success() {
            bail!("{url} answers {}: {}", reply.status(), String::from_utf8_lossy(reply.body()));
        }
        serde_json::from_slice(reply.body()).with_context(|| format!("{url} answers with no token"))
    }
}

/// Puts a token and a deadline on a call.
pub(crate) fn authorized<T>(message: T, token: &Token) -> anyhow::Result<tonic::Request<T>> {
    let mut request = unending(message, token)?;
    request.set_timeout(DEADLINE);
    Ok(request)
}

/// Puts a token on a call that streams.
pub(crate) fn unending<T>(message: T, token: &Token) -> anyhow::Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {}", token.access_token).parse()?);
    Ok(request)
}

/// The form that a token request is. Source: RFC 6749, RFC 8693.
fn form(asked: &IssueTokenRequest) -> String {
    let fields = [
        ("grant_type", &asked.grant_type),
        ("client_assertion_type", &asked.client_assertion_type),
        ("client_assertion", &asked.client_assertion),
        ("subject_token", &asked.subject_token),
        ("subject_token_type", &asked.subject_token_type),
        ("scope", &asked.scope),
    ];
    let audiences = asked.audience.iter().map(|audience| ("audience", audience));
    let pairs = fields.into_iter().chain(audiences).filter(|(_, value)| !value.is_empty());
    pairs.map(|(name, value)| format!("{name}={}", urlencoded(value))).collect::<Vec<_>>().join("&")
}

fn urlencoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_back_as_it_was_meant() {
        let asked = IssueTokenRequest {
            grant_type: rpc::oauth::TOKEN_EXCHANGE.to_owned(),
            client_assertion_type: rpc::oauth::JWT_BEARER.to_owned(),
            client_assertion: "a.b-_.c".to_owned(),
            subject_token: "d".to_owned(),
            subject_token_type: rpc::oauth::JWT_TYPE.to_owned(),
            audience: vec!["traffic/430100".to_owned(), "traffic/140100".to_owned()],
            scope: String::new(),
        };
        assert_eq!(rpc::oauth::read_form(form(&asked).as_bytes()), Ok(asked));
    }
}
