//! A sandbox, the adapters before it, and callers that hold what gateway and cases hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapter::{Adapters, Config, Endpoint};
use contracts::common::v1::Outcome;
use contracts::department::v1 as pb;
use contracts::department::v1::department_service_client::DepartmentServiceClient;
use invariants::{Call, Deed, Found, Journals, Verdict, World, check_all};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rpc::jose::{AgreementPublicKey, SigningKey, seal};
use rpc::keyring::PublicKey;
use rpc::token::{self, Assertion, Attributes, Grant, Inner, KeySet, Keys, NumericDate, typ};
use rpc::{ClientOptions, Contract, Door, Effect, Readiness, RemoteFault, Role, ServerOptions, Wire};
use runtime::{Context, Timestamp};
use sandbox::people::{self, PersonId};
use tonic::Request;

pub(super) const ITEM: &str = "traffic.violation";
/// Changsha and Taiyuan.
pub(super) const REGIONS: [&str; 2] = ["430100", "140100"];

pub(super) type Client = DepartmentServiceClient<Wire>;

/// Everything that one test needs; it ends with it.
pub(super) struct Rig {
    pub(super) context: Context,
    /// The department's own world: it can go away while the adapter stays.
    outside: Context,
    signers: Signers,
    departments: BTreeMap<String, Served>,
    /// Every settlement that was asked for, and what was said of it.
    calls: Mutex<BTreeMap<(String, String), Call>>,
    dir: tempfile::TempDir,
}

struct Served {
    server: rpc::Server,
    seal: AgreementPublicKey,
    sign: rpc::jose::VerifyingKey,
}

struct Signers {
    identity: SigningKey,
    gateway: SigningKey,
    cases: SigningKey,
}

/// A citizen as identity knows them, and where they have records.
#[derive(Clone, Debug)]
pub(super) struct Citizen {
    pub(super) id: PersonId,
    pub(super) name: String,
    pub(super) number: String,
    /// Plates that identity knows of; none when it knows nothing of plates.
    pub(super) plates: Vec<String>,
}

/// What a caller shows. Each part can be spoilt.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) issuer: &'static str,
    pub(super) profile: String,
    pub(super) item: String,
    pub(super) region: String,
    pub(super) grant: Option<Grant>,
    /// Seconds from now until the assertion ends.
    pub(super) assertion_life: i64,
    pub(super) inner_life: i64,
    pub(super) other_sealed: bool,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.context.tasks.abort();
        self.outside.tasks.abort();
    }
}

impl Rig {
    pub(super) async fn new() -> Self {
        let (context, outside) = (Context::system(), Context::system());
        let dir = tempfile::tempdir().expect("a directory");
        let sandbox = sandbox::start(quiet(dir.path()), outside.clone()).await.expect("the sandbox starts");
        let endpoint = |endpoint: String| Endpoint { endpoint, sandbox: true, settings: BTreeMap::new() };
        let at = sandbox.addresses;
        let config = Config {
            departments_dir: root().join("departments"),
            keys_dir: dir.path().join("keys"),
            profiles: BTreeMap::from([
                ("traffic/430100".to_owned(), endpoint(format!("http://{}", at.police_430100))),
                ("traffic/140100".to_owned(), endpoint(at.police_140100.to_string())),
            ]),
        };
        let generate = || SigningKey::generate(&context.ids).expect("a key");
        let signers = Signers { identity: generate(), gateway: generate(), cases: generate() };
        let departments = serve(&config, &context, &signers);
        Self { context, outside, signers, departments, calls: Mutex::default(), dir }
    }

    /// The end of a fault test: by what the departments wrote down no record and no order was posted twice, what was said to be done is
    /// done, and what had no answer was found to be done or never to have happened.
    ///
    /// Shape: there is no ledger and no case here; what those would tell is not judged, and not called held. Where nothing was posted
    /// nothing can be shown of it.
    pub(super) async fn assert_held(&self) {
        let calls: Vec<_> = self.calls.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let world = World {
            journals: Some(Journals::read(&self.dir.path().join("sandbox")).expect("journals")),
            calls: Some(calls.clone()),
            ..World::at(self.context.clock.now())
        };
        let report = check_all(&world).await.expect("reads");
        let is_done = |call: &Call| !call.answers.is_empty() || matches!(call.found, Some(Found::Done(_)));
        let mut required = Vec::new();
        required.extend(calls.iter().any(is_done).then_some(["I3", "I5"]).into_iter().flatten());
        required.extend(calls.iter().any(|call| !call.answers.is_empty()).then_some("I2"));
        required.extend(calls.iter().any(|call| call.lost > 0 || call.found.is_some()).then_some("I4"));
        assert!(!required.is_empty(), "a fault test that shows nothing:\n{report}");
        report.require(&required).expect("nothing broke");
        for (id, why) in [("I1", "there is no ledger here"), ("I6", "nobody here consumes events")] {
            assert_eq!(report.verdict(id), Some(&Verdict::NotJudged(why)), "{report}");
        }
    }

    /// Keeps what was said of a settlement: by the department's answer, or by an inquiry.
    fn note(&self, region: &str, key: &str, change: impl FnOnce(&mut Call)) {
        let (caller, request_id) = (format!("traffic/{region}"), format!("{key}-settle"));
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || Call {
            deed: Deed::Settlement,
            caller: caller.clone(),
            request_id: request_id.clone(),
            ..Call::default()
        };
        change(calls.entry((caller.clone(), request_id.clone())).or_insert_with(first));
    }

    /// Takes the departments away.
    pub(super) async fn stop_sandbox(&self) {
        self.outside.tasks.abort();
        assert!(self.outside.tasks.wait(Duration::from_secs(20)).await, "the sandbox stops");
    }

    /// A client in the name of a role, to the department of a region.
    pub(super) fn client(&self, region: &str, caller: Role) -> Client {
        let served = self.served(region);
        let name = format!("adapter/traffic/{region}");
        let options = ClientOptions::default();
        Client::new(Wire::local(&name, served.server.clone(), None, caller, &self.context, &options))
    }

    /// The key that verifies a region's proofs.
    pub(super) fn proof_key(&self, region: &str) -> rpc::jose::VerifyingKey {
        self.served(region).sign
    }

    fn served(&self, region: &str) -> &Served {
        self.departments.get(&format!("adapter/traffic/{region}")).expect("a department")
    }

    /// What the gateway shows for a citizen.
    pub(super) fn by_gateway(&self, region: &str) -> Shown {
        Shown {
            issuer: token::GATEWAY,
            profile: format!("traffic/{region}"),
            item: ITEM.into(),
            region: region.into(),
            grant: None,
            assertion_life: 50,
            inner_life: 600,
            other_sealed: false,
        }
    }

    /// What cases shows for a citizen, for every operation of a payment.
    pub(super) fn by_cases(&self, region: &str) -> Shown {
        let operations = ["LockBill", "ReleaseBill", "SettleBill", "InquireBill"].map(str::to_owned).to_vec();
        let grant = Grant { case_id: "case_1".into(), item: ITEM.into(), operations };
        Shown { issuer: token::CASES, grant: Some(grant), inner_life: 86_400, ..self.by_gateway(region) }
    }

    /// Puts a request into the envelope that a caller shows for a citizen.
    pub(super) fn envelope<T>(&self, message: T, citizen: &Citizen, shown: &Shown) -> Request<T> {
        let now = self.context.clock.now();
        let ahead = |seconds: i64| NumericDate::of(Timestamp::from_micros(now.micros() + seconds * 1_000_000));
        let attrs = Attributes {
            name: Some(citizen.name.clone().into()),
            doc_type: Some("resident_id".into()),
            doc_no: Some(citizen.number.clone().into()),
            plates: citizen.plates.iter().cloned().map(Into::into).collect(),
            ..Attributes::default()
        };
        let inner = Inner {
            iss: token::IDENTITY.into(),
            aud: shown.profile.clone(),
            sub: "pseudonym".into(),
            attrs,
            level: 3,
            consents: vec![ITEM.into()],
            exp: ahead(shown.inner_life),
            iat: NumericDate::of(now),
            jti: self.context.ids.hex(16),
            grant: shown.grant.clone(),
        };
        let region = shown.profile.strip_prefix("traffic/").expect("a traffic profile");
        let signed = self.signers.identity.sign(typ::INNER, &inner).expect("signs");
        let sealed = seal(signed.as_bytes(), "JWT", &self.served(region).seal, &self.context.ids).expect("seals");
        let named = if shown.other_sealed { "another".to_owned() } else { sealed.clone() };
        let assertion = Assertion {
            iss: shown.issuer.into(),
            aud: shown.profile.clone(),
            item: shown.item.clone(),
            region: shown.region.clone(),
            entry_point: "wechat".into(),
            inner_hash: Some(Assertion::hash_of(&named)),
            exp: ahead(shown.assertion_life),
            iat: ahead(shown.assertion_life.min(0) - 1),
            jti: self.context.ids.hex(16),
        };
        let signer = if shown.issuer == token::CASES { &self.signers.cases } else { &self.signers.gateway };
        let assertion = signer.sign(typ::ASSERTION, &assertion).expect("signs");
        let mut request = Request::new(message);
        request.metadata_mut().insert(token::ASSERTION_HEADER, assertion.parse().expect("a header"));
        request.metadata_mut().insert(token::SEALED_HEADER, sealed.parse().expect("a header"));
        request
    }
}

/// A sandbox on free ports.
fn quiet(dir: &Path) -> sandbox::Config {
    let mut config = sandbox::Config { data_dir: dir.to_owned(), ..sandbox::Config::default() };
    for listen in [
        &mut config.control.listen,
        &mut config.wechatpay.listen,
        &mut config.police_430100.listen,
        &mut config.police_140100.listen,
    ] {
        *listen = "127.0.0.1:0".into();
    }
    config
}

fn serve(config: &Config, context: &Context, signers: &Signers) -> BTreeMap<String, Served> {
    let adapters = Adapters::build(config, context).unwrap_or_else(|error| panic!("{error}"));
    let own = adapters.own_keys();
    let ring = KeySet::new()
        .with(token::IDENTITY, signers.identity.verifying_key())
        .and_then(|ring| ring.with(token::GATEWAY, signers.gateway.verifying_key()))
        .and_then(|ring| ring.with(token::CASES, signers.cases.verifying_key()))
        .expect("three owners");
    let ring: Arc<dyn Keys> = Arc::new(ring);
    let contract = Contract::lastmile().expect("the contract is sound");
    let departments = adapters.departments(&ring, &Readiness::always()).into_iter().map(|department| {
        let routes = department.mounted.routes;
        let server = rpc::stack::server(routes, Door::Mesh, contract, context, &ServerOptions::default());
        let (mut seal, mut sign) = (None, None);
        for key in own.iter().filter(|key| key.owner == department.mesh_key) {
            match key.key {
                PublicKey::Seal(key) => seal = Some(key),
                PublicKey::Verify(key) => sign = Some(key),
            }
        }
        let (seal, sign) = (seal.expect("a sealing key"), sign.expect("a signing key"));
        (department.mesh_key, Served { server, seal, sign })
    });
    departments.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A citizen of the sandbox.
pub(super) fn citizen(kind: people::Kind, index: u32) -> Citizen {
    let id = PersonId { kind, index };
    let person = people::person(id).expect("a person");
    Citizen { id, name: person.name, number: person.number, plates: Vec::new() }
}

/// The owner of a magic plate: operation, fault, copy.
pub(super) fn magic(operation: u32, fault: u32, copy: u32) -> Citizen {
    citizen(people::Kind::Magic, operation * 1_000 + fault * 10 + copy)
}

/// An item's own fields, all of them text.
pub(super) fn input(fields: &[(&str, &str)]) -> Option<Struct> {
    let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), text(value)));
    Some(Struct { fields: fields.collect() })
}

/// A field of a struct, by its path.
pub(super) fn at<'s>(fields: &'s Struct, path: &str) -> Option<&'s Kind> {
    let mut parts = path.split('.');
    let mut value = fields.fields.get(parts.next()?)?;
    for part in parts {
        value = match value.kind.as_ref()? {
            Kind::StructValue(inner) => inner.fields.get(part)?,
            Kind::ListValue(list) => list.values.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    value.kind.as_ref()
}

pub(super) fn text<'s>(fields: &'s Struct, path: &str) -> &'s str {
    match at(fields, path) {
        Some(Kind::StringValue(text)) => text,
        other => panic!("{path}: {other:?}"),
    }
}

pub(super) fn number(fields: &Struct, path: &str) -> i64 {
    match at(fields, path) {
        Some(Kind::NumberValue(number)) => *number as i64,
        other => panic!("{path}: {other:?}"),
    }
}

pub(super) fn list<'s>(fields: &'s Struct, path: &str) -> Vec<&'s Struct> {
    let Some(Kind::ListValue(list)) = at(fields, path) else { panic!("{path} is no list") };
    let record = |value: &'s Value| match &value.kind {
        Some(Kind::StructValue(record)) => record,
        other => panic!("{path}: {other:?}"),
    };
    list.values.iter().map(record).collect()
}

pub(super) fn query(region: &str, fields: &[(&str, &str)]) -> pb::QueryRequest {
    pb::QueryRequest { item: ITEM.into(), region: region.into(), input: input(fields), ..pb::QueryRequest::default() }
}

pub(super) fn bills(region: &str, fields: &[(&str, &str)]) -> pb::ListBillsRequest {
    let request = pb::ListBillsRequest::default();
    pb::ListBillsRequest { item: ITEM.into(), region: region.into(), input: input(fields), ..request }
}

pub(super) fn lock(region: &str, bill: &pb::Bill, key: &str, hold_until: Timestamp) -> pb::LockBillRequest {
    pb::LockBillRequest {
        item: ITEM.into(),
        region: region.into(),
        request_id: format!("{key}-lock"),
        bill_no: bill.bill_no.clone(),
        record_digest: bill.record_digest.clone(),
        hold_until: Some(rpc::time::to_proto(hold_until)),
        input: input(&[]),
    }
}

pub(super) fn release(region: &str, bill: &pb::Bill, key: &str) -> pb::ReleaseBillRequest {
    pb::ReleaseBillRequest {
        item: ITEM.into(),
        region: region.into(),
        request_id: format!("{key}-release"),
        bill_no: bill.bill_no.clone(),
        lock_request_id: format!("{key}-lock"),
    }
}

pub(super) fn settle(region: &str, bill: &pb::Bill, key: &str, paid: Timestamp) -> pb::SettleBillRequest {
    pb::SettleBillRequest {
        item: ITEM.into(),
        region: region.into(),
        request_id: format!("{key}-settle"),
        bill_no: bill.bill_no.clone(),
        amount: bill.amount.clone(),
        paid_time: Some(rpc::time::to_proto(paid)),
        channel: "wechatpay".into(),
        channel_transaction: "4200001234202611221234567890".into(),
        lock_request_id: format!("{key}-lock"),
        input: input(&[]),
    }
}

pub(super) fn inquire(region: &str, bill: &pb::Bill, key: &str, sent: Timestamp) -> pb::InquireBillRequest {
    pb::InquireBillRequest {
        item: ITEM.into(),
        region: region.into(),
        request_id: format!("{key}-settle"),
        bill_no: bill.bill_no.clone(),
        settle_sent_time: Some(rpc::time::to_proto(sent)),
        amount: bill.amount.clone(),
        input: input(&[]),
    }
}

impl Rig {
    /// The one bill of a magic citizen.
    pub(super) async fn bill(&self, region: &str, citizen: &Citizen) -> pb::Bill {
        let request = self.envelope(bills(region, &[]), citizen, &self.by_gateway(region));
        let listed = self.client(region, Role::Gateway).list_bills(request).await.expect("lists").into_inner();
        assert_eq!(listed.outcome(), Outcome::Done);
        assert_eq!(listed.bills.len(), 1, "{region}: {} has one bill", citizen.id.index);
        listed.bills.into_iter().next().expect("one bill")
    }

    /// Lists and locks the one bill of a citizen.
    pub(super) async fn locked_bill(&self, region: &str, citizen: &Citizen, key: &str) -> pb::Bill {
        let bill = self.bill(region, citizen).await;
        let locked = self.lock(region, citizen, &bill, key).await.expect("locks");
        assert_eq!(locked.outcome(), Outcome::Done, "{region}: {:?}", locked.rejection);
        bill
    }

    pub(super) async fn lock(
        &self,
        region: &str,
        citizen: &Citizen,
        bill: &pb::Bill,
        key: &str,
    ) -> Result<pb::LockBillResponse, tonic::Status> {
        let until = self.context.clock.now().plus(Duration::from_secs(900));
        let request = self.envelope(lock(region, bill, key, until), citizen, &self.by_cases(region));
        self.client(region, Role::Cases).lock_bill(request).await.map(tonic::Response::into_inner)
    }

    pub(super) async fn release(
        &self,
        region: &str,
        citizen: &Citizen,
        bill: &pb::Bill,
        key: &str,
    ) -> Result<pb::ReleaseBillResponse, tonic::Status> {
        let request = self.envelope(release(region, bill, key), citizen, &self.by_cases(region));
        self.client(region, Role::Cases).release_bill(request).await.map(tonic::Response::into_inner)
    }

    pub(super) async fn settle(
        &self,
        region: &str,
        citizen: &Citizen,
        bill: &pb::Bill,
        key: &str,
    ) -> Result<pb::SettleBillResponse, tonic::Status> {
        let paid = self.context.clock.now();
        let request = self.envelope(settle(region, bill, key, paid), citizen, &self.by_cases(region));
        let answer = self.client(region, Role::Cases).settle_bill(request).await.map(tonic::Response::into_inner);
        self.note(region, key, |call| match &answer {
            Ok(answer) => match answer.outcome() {
                Outcome::Done => {
                    call.answers.extend(answer.proof.as_ref().map(|proof| proof.department_serial.clone()))
                }
                Outcome::Rejected => call.found = Some(Found::Never),
                _ => call.lost += 1,
            },
            Err(status) if RemoteFault::from(status).effect() == Effect::Possible => call.lost += 1,
            // Nothing happened, and the error proves it.
            Err(_) => call.found = Some(Found::Never),
        });
        answer
    }

    pub(super) async fn inquire(
        &self,
        region: &str,
        citizen: &Citizen,
        bill: &pb::Bill,
        key: &str,
        sent: Timestamp,
    ) -> Result<pb::InquireBillResponse, tonic::Status> {
        let request = self.envelope(inquire(region, bill, key, sent), citizen, &self.by_cases(region));
        let answer = self.client(region, Role::Cases).inquire_bill(request).await.map(tonic::Response::into_inner);
        if let Ok(answer) = &answer {
            let serial = answer.proof.as_ref().map(|proof| proof.department_serial.clone());
            self.note(region, key, |call| match answer.outcome() {
                Outcome::Done => call.found = serial.map(Found::Done),
                Outcome::Rejected => call.found = Some(Found::Never),
                _ => {}
            });
        }
        answer
    }

    /// Asks until the department has decided.
    pub(super) async fn decided(
        &self,
        region: &str,
        citizen: &Citizen,
        bill: &pb::Bill,
        key: &str,
        sent: Timestamp,
    ) -> pb::InquireBillResponse {
        let deciding = async {
            loop {
                let answer = self.inquire(region, citizen, bill, key, sent).await;
                match answer {
                    Ok(answer) if matches!(answer.outcome(), Outcome::Done | Outcome::Rejected) => return answer,
                    Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), deciding).await.expect("decides within a minute")
    }
}

/// The reason of a refused call.
pub(super) fn reason(status: tonic::Status) -> String {
    rpc::RemoteFault::from(&status).reason().to_owned()
}
