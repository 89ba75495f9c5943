use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use contracts::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use contracts::identity::v1::{
    CreateMandateRequest, CreateMandateResponse, GrantConsentRequest, GrantConsentResponse, IssueCaseGrantRequest,
    IssueCaseGrantResponse, IssueTokenRequest, IssueTokenResponse, LinkAccountRequest, LinkAccountResponse,
    ListConsentsRequest, ListConsentsResponse, ListKeysResponse, ListLinksRequest, ListLinksResponse,
    ListMandatesRequest, ListMandatesResponse, MatchIdentityRequest, MatchIdentityResponse, RegisterKeyResponse,
    RevokeConsentRequest, RevokeConsentResponse, RevokeMandateRequest, RevokeMandateResponse, UnlinkAccountRequest,
    UnlinkAccountResponse,
};
use runtime::Ids;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::*;
use crate::jose::{AgreementKey, Curve, SigningKey};
use crate::{
    ClientOptions, Contract, Door, Principal, RemoteOptions, Role, ServerOptions, not_served, principal, stack,
};

const SECOND: Duration = Duration::from_secs(1);

/// The two methods that a ring calls, over a list in memory.
#[derive(Clone, Default)]
struct Registrar(Arc<Mutex<List>>, Arc<AtomicUsize>);

#[derive(Default)]
struct List {
    version: i64,
    keys: Vec<Kept>,
}

type Kept = contracts::identity::v1::Key;

impl Registrar {
    fn forget(&self) {
        let mut list = self.0.lock().expect("no test panics in it");
        list.keys.clear();
        list.version += 1;
    }
}

#[tonic::async_trait]
impl IdentityService for Registrar {
    async fn register_key(
        &self,
        request: Request<RegisterKeyRequest>,
    ) -> Result<Response<RegisterKeyResponse>, Status> {
        assert_eq!(principal(&request), &Principal::Role(Role::Cases));
        let RegisterKeyRequest { owner, r#use, jwk_json } = request.into_inner();
        let create_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        let key = Kept { owner, r#use, jwk_json, create_time };
        let mut list = self.0.lock().expect("no test panics in it");
        list.keys.push(key.clone());
        list.version += 1;
        Ok(Response::new(RegisterKeyResponse { key: Some(key) }))
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Result<Response<ListKeysResponse>, Status> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let list = self.0.lock().expect("no test panics in it");
        let known = request.into_inner().known_version == list.version;
        let keys = if known { Vec::new() } else { list.keys.clone() };
        Ok(Response::new(ListKeysResponse { keys, version: list.version }))
    }

    async fn issue_token(&self, _: Request<IssueTokenRequest>) -> Result<Response<IssueTokenResponse>, Status> {
        not_served()
    }
    async fn issue_case_grant(
        &self,
        _: Request<IssueCaseGrantRequest>,
    ) -> Result<Response<IssueCaseGrantResponse>, Status> {
        not_served()
    }
    async fn match_identity(
        &self,
        _: Request<MatchIdentityRequest>,
    ) -> Result<Response<MatchIdentityResponse>, Status> {
        not_served()
    }
    async fn link_account(&self, _: Request<LinkAccountRequest>) -> Result<Response<LinkAccountResponse>, Status> {
        not_served()
    }
    async fn unlink_account(
        &self,
        _: Request<UnlinkAccountRequest>,
    ) -> Result<Response<UnlinkAccountResponse>, Status> {
        not_served()
    }
    async fn list_links(&self, _: Request<ListLinksRequest>) -> Result<Response<ListLinksResponse>, Status> {
        not_served()
    }
    async fn grant_consent(&self, _: Request<GrantConsentRequest>) -> Result<Response<GrantConsentResponse>, Status> {
        not_served()
    }
    async fn revoke_consent(
        &self,
        _: Request<RevokeConsentRequest>,
    ) -> Result<Response<RevokeConsentResponse>, Status> {
        not_served()
    }
    async fn list_consents(&self, _: Request<ListConsentsRequest>) -> Result<Response<ListConsentsResponse>, Status> {
        not_served()
    }
    async fn create_mandate(
        &self,
        _: Request<CreateMandateRequest>,
    ) -> Result<Response<CreateMandateResponse>, Status> {
        not_served()
    }
    async fn revoke_mandate(
        &self,
        _: Request<RevokeMandateRequest>,
    ) -> Result<Response<RevokeMandateResponse>, Status> {
        not_served()
    }
    async fn list_mandates(&self, _: Request<ListMandatesRequest>) -> Result<Response<ListMandatesResponse>, Status> {
        not_served()
    }
}

struct World {
    context: Context,
    mesh: Mesh,
    registrar: Registrar,
}

impl World {
    fn new() -> Self {
        let context = Context::system();
        let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default());
        Self { context, mesh, registrar: Registrar::default() }
    }

    fn bind(&self) {
        let routes = Routes::new(IdentityServiceServer::new(self.registrar.clone()));
        let contract = Contract::lastmile().expect("the contract is sound");
        let server = stack::server(routes, Door::Mesh, contract, &self.context, &ServerOptions::default());
        self.mesh.bind("identity", server, None).expect("identity is a role");
    }

    fn ring(&self, own: Vec<OwnKey>, options: Options) -> KeyRing {
        KeyRing::start(&self.mesh.caller(Role::Cases), &self.context, own, options)
    }
}

fn own(ids: &Ids) -> (Vec<OwnKey>, SigningKey, AgreementKey) {
    let signing = SigningKey::generate(ids).expect("a key");
    let opening = AgreementKey::generate(Curve::X25519, ids).expect("a key");
    (vec![OwnKey::sign("cases", &signing), OwnKey::seal("cases", &opening)], signing, opening)
}

#[tokio::test(start_paused = true)]
async fn own_keys_are_registered_once_identity_is_there() {
    let world = World::new();
    let (keys, signing, opening) = own(&world.context.ids);
    let ring = world.ring(keys, Options::default());
    assert!(ring.registered(SECOND).await.is_err(), "nobody is there");
    assert_eq!(ring.age(), None);
    world.bind();
    ring.registered(10 * SECOND).await.expect("registers");
    assert_eq!(ring.verify_key("cases", signing.kid()), Some(signing.verifying_key()));
    assert_eq!(ring.seal_key("cases"), Some(*opening.public()));
    assert_eq!(ring.verify_key("gateway", signing.kid()), None);
    assert_eq!(ring.verify_key("cases", "x"), None);
    let found = token::Keys::find(&ring, signing.kid()).expect("verifiers find it");
    assert_eq!((found.key, found.owner.as_ref()), (signing.verifying_key(), "cases"));
    assert!(ring.is_registered() && ring.age().is_some());
    assert_eq!(world.registrar.0.lock().expect("no test panics in it").keys.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_lost_an_own_key_gets_it_again() {
    let world = World::new();
    world.bind();
    let (keys, signing, _) = own(&world.context.ids);
    let ring = world.ring(keys, Options::default());
    ring.registered(10 * SECOND).await.expect("registers");
    let version = ring.keys().version();
    world.registrar.forget();
    ring.newer_than(version + 1, 10 * SECOND).await.expect("sees the new list");
    ring.registered(10 * SECOND).await.expect("registers again");
    assert!(ring.verify_key("cases", signing.kid()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_hint_brings_a_poll_soon_and_many_hints_bring_one() {
    let world = World::new();
    world.bind();
    let ring = world.ring(Vec::new(), Options { poll: 1_000 * SECOND, ..Options::default() });
    world.context.clock.sleep(SECOND).await;
    let before = world.registrar.1.load(Ordering::SeqCst);
    for _ in 0..100 {
        ring.hint();
    }
    world.context.clock.sleep(SECOND).await;
    assert_eq!(world.registrar.1.load(Ordering::SeqCst), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_has_brings_a_poll() {
    let world = World::new();
    world.bind();
    let ring = world.ring(Vec::new(), Options { poll: 1_000 * SECOND, ..Options::default() });
    world.context.clock.sleep(SECOND).await;
    let before = world.registrar.1.load(Ordering::SeqCst);
    assert_eq!(token::Keys::find(&ring, "x"), None);
    world.context.clock.sleep(SECOND).await;
    assert_eq!(world.registrar.1.load(Ordering::SeqCst), before + 1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_anew_sees_a_key_that_was_registered_a_moment_ago() {
    let world = World::new();
    world.bind();
    let ring = world.ring(Vec::new(), Options { poll: 1_000 * SECOND, ..Options::default() });
    world.context.clock.sleep(SECOND).await;
    let (keys, signing, _) = own(&world.context.ids);
    let other = world.ring(keys, Options::default());
    other.registered(SECOND).await.expect("registers");
    assert_eq!(ring.verify_key("cases", signing.kid()), None, "the list is from before");
    let before = world.registrar.1.load(Ordering::SeqCst);
    futures::future::join_all((0..100).map(|_| ring.read_anew(SECOND))).await.into_iter().for_each(|anew| {
        anew.expect("identity answers");
    });
    assert!(ring.verify_key("cases", signing.kid()).is_some());
    assert_eq!(world.registrar.1.load(Ordering::SeqCst), before + 1, "all who ask share one call");

    let alone = World::new().ring(Vec::new(), Options::default());
    assert!(alone.read_anew(SECOND).await.is_err(), "nobody is there");
}

#[tokio::test(start_paused = true)]
async fn the_pause_grows_while_identity_is_away_and_stays_bounded() {
    let world = World::new();
    let ring = world.ring(Vec::new(), Options::default());
    let pauses: Vec<_> = (0..40).map(|failures| ring.pause(failures)).collect();
    assert!(pauses[1] < Duration::from_millis(126) && pauses[2] >= Duration::from_millis(200));
    assert!(pauses[39] >= 5 * SECOND && pauses[39] <= Duration::from_millis(6_250));
    assert!(pauses[0] >= 2 * SECOND && pauses[0] <= Duration::from_millis(2_500));
}

#[tokio::test(start_paused = true)]
async fn a_role_restarts_with_its_last_list_while_identity_is_down() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { file: Some(dir.path().join("state/keys.json")), ..Options::default() };
    let world = World::new();
    world.bind();
    let (keys, signing, opening) = own(&world.context.ids);
    let ring = world.ring(keys.clone(), options.clone());
    ring.registered(10 * SECOND).await.expect("registers");

    let alone = World::new();
    let restarted = alone.ring(keys.clone(), options.clone());
    assert_eq!(restarted.verify_key("cases", signing.kid()), Some(signing.verifying_key()));
    assert_eq!(restarted.seal_key("cases"), Some(*opening.public()));
    assert_eq!(restarted.keys().version(), ring.keys().version());
    assert!(restarted.is_registered() && restarted.age().is_some());

    std::fs::write(options.file.clone().expect("is set"), b"{\"format\":1").expect("writes");
    let damaged = alone.ring(keys, options);
    assert_eq!(damaged.verify_key("cases", signing.kid()), None);
}

#[test]
fn a_list_from_a_file_that_others_can_write_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("keys.json");
    let ids = Ids::system(runtime::Clock::system());
    let signing = SigningKey::generate(&ids).expect("a key");
    let OwnKey { owner, key } = OwnKey::sign("identity", &signing);
    let keys = Keys::new(7, [Key { owner, key, created: Timestamp::from_micros(1) }]);
    file::save(&path, &keys, Timestamp::from_micros(2)).expect("saves");
    assert_eq!(file::load(&path).expect("loads").keys.version(), 7);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    assert!(file::load(&path).is_none());
}

#[test]
fn of_several_keys_to_seal_for_the_newest_is_taken() {
    let ids = Ids::system(runtime::Clock::system());
    let keys: Vec<_> = (1..=3).map(|_| AgreementKey::generate(Curve::X25519, &ids).expect("a key")).collect();
    let listed = [2, 3, 1].iter().zip(&keys).map(|(created, key)| {
        let OwnKey { owner, key } = OwnKey::seal("cases", key);
        Key { owner, key, created: Timestamp::from_micros(*created) }
    });
    let list = Keys::new(1, listed);
    assert_eq!(list.seal_key("cases"), Some(*keys[1].public()));
    assert_eq!(list.iter().count(), 3);
}

#[test]
fn a_key_of_an_unknown_kind_costs_no_other() {
    let ids = Ids::system(runtime::Clock::system());
    let signing = SigningKey::generate(&ids).expect("a key");
    let OwnKey { owner, key } = OwnKey::sign("identity", &signing);
    let good = Key { owner, key, created: Timestamp::from_micros(1) }.to_proto();
    let rsa = Kept { jwk_json: r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(), ..good.clone() };
    let future = Kept { r#use: 9, ..good.clone() };
    let list = Keys::read(&ListKeysResponse { keys: vec![rsa, future, good], version: 1 });
    assert_eq!(list.iter().count(), 1);
}
