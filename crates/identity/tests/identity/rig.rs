use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use contracts::identity::v1::{IssueTokenRequest, IssueTokenResponse, KeyUse, ListKeysRequest, RegisterKeyRequest};
use identity::{Config, Deps};
use rpc::jose::{AgreementKey, AgreementPublicKey, Curve, SigningKey};
use rpc::keyring::{Key, Keys};
use rpc::oauth::{Caller, Person};
use rpc::token::{Attributes, CitizenToken, GATEWAY, IDENTITY, Inner, Rules, Verifier, typ};
use rpc::{ClientOptions, Contract, Door, Mesh, RemoteFault, RemoteOptions, Role, ServerOptions, Wire, stack};
use runtime::clock::ManualClock;
use runtime::secret::Pii;
use runtime::{Clock, Context, Ids, Timestamp};
use store::{Cache, Db};
use tempfile::TempDir;

pub(crate) const CHANGSHA: &str = "traffic/430100";
pub(crate) const TAIYUAN: &str = "traffic/140100";
/// 2026-08-01T00:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_micros(1_785_542_400_000_000);

pub(crate) type Client = IdentityServiceClient<Wire>;

/// One identity with its sandbox clients, two departments and cases.
pub(crate) struct Rig {
    pub(crate) context: Context,
    pub(crate) hand: ManualClock,
    pub(crate) mesh: Mesh,
    pub(crate) dir: TempDir,
    pub(crate) db: Db,
    /// By audience: the keys of what tokens are sealed for.
    pub(crate) opening: BTreeMap<String, AgreementKey>,
}

impl Rig {
    /// On a SQLite file of its own.
    pub(crate) async fn start() -> Self {
        let rig = Self::bare(|_| {}).await;
        rig.register_peers().await;
        rig
    }

    /// Without any peer's keys, with changed settings.
    pub(crate) async fn bare(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", dir.path().join("identity.db").display());
        Self::over(dir, &store::Config::new(url), change).await
    }

    /// On a store of the caller's choice.
    pub(crate) async fn over(dir: TempDir, store: &store::Config, change: impl FnOnce(&mut Config)) -> Self {
        let (clock, hand) = Clock::manual(START);
        let context = Context { ids: Ids::system(clock.clone()), clock, ..Context::system() };
        let db = store::open(store, context.clone()).await.expect("opens");
        Self::with(dir, context, hand, db, change).await
    }

    /// As in a simulation: everything that is drawn follows from the seed.
    pub(crate) async fn seeded(seed: u64) -> Self {
        let (clock, hand) = Clock::manual(START);
        let context = Context { ids: Ids::seeded(clock.clone(), seed), clock, ..Context::system() };
        let db = Db::simulated().expect("opens").with_context(context.clone());
        let rig = Self::with(tempfile::tempdir().expect("a directory"), context, hand, db, |_| {}).await;
        rig.register_peers().await;
        rig
    }

    async fn with(dir: TempDir, context: Context, hand: ManualClock, db: Db, change: impl FnOnce(&mut Config)) -> Self {
        let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default());
        let mut opening = BTreeMap::new();
        for audience in [CHANGSHA, TAIYUAN, "cases"] {
            let key = AgreementKey::generate(Curve::X25519, &context.ids).expect("a key");
            opening.insert(audience.to_owned(), key);
        }
        let rig = Self { context, hand, mesh, dir, db, opening };
        rig.mount(change).await;
        rig
    }

    /// Mounts identity, or mounts it again in place of the one before, as a process that remembers nothing.
    pub(crate) async fn mount(&self, change: impl FnOnce(&mut Config)) {
        self.mount_with(Cache::memory(&store::cache::Config::default(), &self.context), change).await;
    }

    pub(crate) async fn mount_with(&self, cache: Cache, change: impl FnOnce(&mut Config)) {
        let mut config = Config {
            keys_dir: self.dir.path().join("keys"),
            sandbox_keys_dir: Some(self.clients_dir()),
            ..Config::default()
        };
        change(&mut config);
        let mut problems = Vec::new();
        config.validate("identity", &mut problems);
        assert_eq!(problems, []);
        let (context, db, mesh) = (self.context.clone(), self.db.clone(), self.mesh.caller(Role::Identity));
        let deps = Deps { context, db, cache, mesh };
        let mounted = identity::mount(config, deps).await.expect("mounts");
        mounted.readiness.check().expect("is ready");
        let contract = Contract::lastmile().expect("the contract is sound");
        let server = stack::server(mounted.routes, Door::Mesh, contract, &self.context, &ServerOptions::default());
        self.mesh.bind(IDENTITY, server, None).expect("identity is a role");
    }

    pub(crate) async fn register_peers(&self) {
        for (audience, key) in &self.opening {
            let owner = if audience == "cases" { audience.clone() } else { format!("adapter/{audience}") };
            let role = rpc::role_of_key(&owner).expect("a role");
            self.register(role, &owner, KeyUse::Seal, &json(&key.jwk())).await.expect("registers");
        }
    }

    pub(crate) async fn register(
        &self,
        role: Role,
        owner: &str,
        key_use: KeyUse,
        jwk_json: &str,
    ) -> Result<contracts::identity::v1::Key, RemoteFault> {
        let request = RegisterKeyRequest { owner: owner.into(), r#use: key_use.into(), jwk_json: jwk_json.into() };
        let answer = self.client(role).register_key(request).await?.into_inner();
        Ok(answer.key.expect("answers with the key"))
    }

    pub(crate) fn client(&self, role: Role) -> Client {
        Client::new(self.mesh.caller(role).wire(IDENTITY))
    }

    pub(crate) fn clients_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("clients")
    }

    /// One of the sandbox's clients.
    pub(crate) fn caller(&self, id: &str) -> Caller {
        Caller::new(id, self.key_of(id), self.context.clock.clone(), self.context.ids.clone())
    }

    pub(crate) fn key_of(&self, id: &str) -> SigningKey {
        read_key(&self.clients_dir().join(format!("{id}.pem")))
    }

    /// The list of keys as a peer has it.
    pub(crate) async fn keys(&self) -> Keys {
        let answer = self.client(Role::Gateway).list_keys(ListKeysRequest { known_version: 0 }).await;
        let answer = answer.expect("answers").into_inner();
        Keys::new(answer.version, answer.keys.iter().map(|key| Key::read(key).expect("is known")))
    }

    /// The key that entry points seal for.
    pub(crate) async fn identity_key(&self, curve: Curve) -> AgreementPublicKey {
        let keys = self.keys().await;
        let found = keys.iter().filter(|key| key.owner == IDENTITY).find_map(|key| match key.key {
            rpc::keyring::PublicKey::Seal(key) if key.curve() == curve => Some(key),
            _ => None,
        });
        found.expect("identity has one of each curve")
    }

    pub(crate) async fn issue(&self, request: IssueTokenRequest) -> Result<IssueTokenResponse, RemoteFault> {
        Ok(self.client(Role::Gateway).issue_token(request).await?.into_inner())
    }

    /// Exchanges a real-name assertion and verifies what comes back, as the gateway would.
    pub(crate) async fn citizen(
        &self,
        entry_point: &str,
        person: &Person,
        profiles: &[&str],
    ) -> (String, CitizenToken) {
        let key = self.identity_key(Curve::X25519).await;
        let request = self.caller(entry_point).citizen_token(person, profiles, &key).expect("signs");
        let token = self.issue(request).await.expect("issues").access_token;
        let verifier = self.verifier(typ::CITIZEN, GATEWAY, rpc::token::ACCESS_LIFE_MAX).await;
        let claims = verifier.verify::<CitizenToken>(&token).expect("verifies").claims;
        (token, claims)
    }

    pub(crate) async fn verifier(&self, typ: &'static str, audience: &str, life_max: Duration) -> Verifier {
        let rules = Rules {
            typ,
            typ_optional: false,
            algorithms: &[rpc::jose::Algorithm::EdDsa],
            issuers: &[IDENTITY],
            audience: audience.to_owned(),
            life_max,
            subject: true,
        };
        Verifier::new(rules, Arc::new(self.keys().await), self.context.clock.clone())
    }

    /// Opens and verifies what was sealed for an audience.
    pub(crate) async fn open(&self, audience: &str, sealed: &str, life_max: Duration) -> Inner {
        let plain = rpc::jose::open(sealed, &self.opening[audience]).expect("opens");
        let text = std::str::from_utf8(plain.expose()).expect("is text");
        self.verifier(typ::INNER, audience, life_max).await.verify::<Inner>(text).expect("verifies").claims
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.context.tasks.abort();
    }
}

pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("JSON")
}

fn read_key(path: &Path) -> SigningKey {
    SigningKey::from_pem(&std::fs::read_to_string(path).expect("is there")).expect("is a key")
}

/// An invented citizen.
pub(crate) fn person(sub: &str, number: &str) -> Person {
    Person {
        sub: sub.to_owned(),
        level: 3,
        consents: vec!["traffic.violation".to_owned()],
        attributes: Attributes {
            name: Some(Pii::new("张三".to_owned())),
            doc_type: Some("resident_id".to_owned()),
            doc_no: Some(Pii::new(number.to_owned())),
            phone: Some(Pii::new("13800008000".to_owned())),
            plates: vec![Pii::new("湘A12345".to_owned())],
            ..Attributes::default()
        },
    }
}

/// A number that keeps GB 11643 and is nobody's.
pub(crate) const NUMBER: &str = "11010519491231002X";

/// A fault in one line, to compare.
pub(crate) fn told(fault: &RemoteFault) -> String {
    let detail = ["check", "assertion", "rule", "problem"].iter().find_map(|key| fault.metadata(key));
    format!("{} {}", fault.reason(), detail.unwrap_or_default()).trim_end().to_owned()
}
