//! Identity through the public port, as an entry point sees it.

use std::time::Duration;

use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use contracts::identity::v1::{
    IssueTokenRequest, IssueTokenResponse, KeyUse, LinkAccountRequest, ListKeysRequest, RegisterKeyRequest,
};
use futures::future::join_all;
use lastmile_tests::Cluster;
use lastmile_tests::cluster::on_both;
use rpc::RemoteFault;
use rpc::jose::{AgreementPublicKey, Jwks, SigningKey};
use rpc::oauth::{Caller, Person};
use rpc::token::Attributes;
use runtime::http::{Client as Http, Options};
use runtime::secret::Pii;
use runtime::{Clock, Context, Ids};
use tonic::transport::Channel;

const CHANGSHA: &str = "traffic/430100";
const PATIENCE: Duration = Duration::from_secs(10);
const RACERS: usize = 50;

struct Outside {
    identity: IdentityServiceClient<Channel>,
    seal: AgreementPublicKey,
    keys: std::path::PathBuf,
}

impl Outside {
    async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let channel = Channel::from_shared(cluster.public())?.connect_timeout(PATIENCE).connect_lazy();
        let context = Context::system();
        let http = Http::new(context.net.clone(), context.clock.clone(), Options::default());
        let request =
            http::Request::get(format!("{}/.well-known/jwks.json", cluster.public())).body(bytes::Bytes::new())?;
        let answer = http.send(request, PATIENCE, 64 * 1024).await?;
        let jwks: Jwks = serde_json::from_slice(answer.body())?;
        let seal = jwks.keys.iter().find_map(|key| key.to_agreement_key().ok());
        let seal = seal.ok_or_else(|| anyhow::anyhow!("no key to seal for in the JWKS"))?;
        Ok(Self { identity: IdentityServiceClient::new(channel), seal, keys: cluster.client_keys() })
    }

    fn caller(&self, id: &str) -> anyhow::Result<Caller> {
        let key = SigningKey::from_pem(&std::fs::read_to_string(self.keys.join(format!("{id}.pem")))?)?;
        Ok(Caller::new(id, key, Clock::system(), Ids::system(Clock::system())))
    }

    async fn issue(&self, request: IssueTokenRequest) -> Result<IssueTokenResponse, RemoteFault> {
        Ok(self.identity.clone().issue_token(request).await?.into_inner())
    }
}

fn person(number: &str) -> Person {
    let attributes = Attributes {
        name: Some(Pii::new("张三".to_owned())),
        doc_type: Some("resident_id".to_owned()),
        doc_no: Some(Pii::new(number.to_owned())),
        ..Attributes::default()
    };
    Person { sub: "o1".to_owned(), level: 3, consents: Vec::new(), attributes }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, RemoteFault>, reason: &str) -> anyhow::Result<()> {
    match outcome {
        Err(fault) if fault.reason() == reason => Ok(()),
        other => anyhow::bail!("{reason} was expected: {other:?}"),
    }
}

#[test]
fn an_assertion_counts_once_also_among_fifty_at_the_same_moment() {
    on_both(async |cluster| {
        let outside = Outside::of(cluster).await?;
        let request =
            outside.caller("wechat")?.citizen_token(&person("11010519491231002X"), &[CHANGSHA], &outside.seal)?;
        let outcomes = join_all((0..RACERS).map(|_| outside.issue(request.clone()))).await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        anyhow::ensure!(won.len() == 1, "{} won", won.len());
        lost.into_iter().try_for_each(|outcome| refused(outcome, "JTI_REUSED"))
    });
}

#[test]
fn what_is_wrong_is_said_and_nothing_else() {
    on_both(async |cluster| {
        let outside = Outside::of(cluster).await?;
        let wechat = outside.caller("wechat")?;
        let good = || wechat.citizen_token(&person("11010519491231002X"), &[CHANGSHA], &outside.seal);
        let bad_number = wechat.citizen_token(&person("110105194912310021"), &[CHANGSHA], &outside.seal)?;
        let elsewhere = wechat.citizen_token(&person("11010519491231002X"), &["traffic/999999"], &outside.seal)?;
        for (request, reason) in [
            (IssueTokenRequest { grant_type: "password".to_owned(), ..good()? }, "GRANT_TYPE_UNSUPPORTED"),
            (IssueTokenRequest { client_assertion: "a.b.c".to_owned(), ..good()? }, "CLIENT_ASSERTION_INVALID"),
            (IssueTokenRequest { subject_token: "a..b.c.d".to_owned(), ..good()? }, "REAL_NAME_ASSERTION_INVALID"),
            (IssueTokenRequest { scope: "admin".to_owned(), ..good()? }, "SCOPE_REFUSED"),
            (IssueTokenRequest { audience: Vec::new(), ..good()? }, "AUDIENCE_UNKNOWN"),
            (elsewhere, "AUDIENCE_UNKNOWN"),
            (bad_number, "DOCUMENT_NUMBER_INVALID"),
            (IssueTokenRequest::default(), "GRANT_TYPE_UNSUPPORTED"),
        ] {
            let outcome = outside.issue(request).await;
            let shown = format!("{outcome:?}");
            anyhow::ensure!(!shown.contains("110105") && !shown.contains("张三"), "an identifier is in {reason}");
            refused(outcome, reason)?;
        }
        // Somebody whom nobody knows, with a key of their own.
        let clock = Clock::system();
        let key = SigningKey::generate(&Ids::system(clock.clone()))?;
        let nobody = Caller::new("nobody", key, clock.clone(), Ids::system(clock));
        refused(outside.issue(nobody.own_token()?).await, "ENTRY_POINT_UNKNOWN")?;
        outside.issue(good()?).await?;
        Ok(())
    });
}

#[test]
fn what_is_for_roles_alone_is_not_for_the_public() {
    on_both(async |cluster| {
        let mut identity = Outside::of(cluster).await?.identity;
        let listed = identity.list_keys(ListKeysRequest::default()).await.map_err(RemoteFault::from);
        anyhow::ensure!(listed.is_err(), "the public reads the roles' list of keys");
        let key = SigningKey::generate(&Ids::system(Clock::system()))?;
        let jwk_json = serde_json::to_string(&key.jwk())?;
        let register = RegisterKeyRequest { owner: "gateway".to_owned(), r#use: KeyUse::Sign.into(), jwk_json };
        let registered = identity.register_key(register).await.map_err(RemoteFault::from);
        anyhow::ensure!(registered.is_err(), "the public registers a key of the gateway");
        let linked = identity.link_account(LinkAccountRequest::default()).await.map_err(RemoteFault::from);
        anyhow::ensure!(linked.is_err(), "a stranger links accounts");
        Ok(())
    });
}
