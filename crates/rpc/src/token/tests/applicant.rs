//! What a profile opens, and what it does not.

use serde_json::{Value, json};

use super::forge::{NOW, now, with};
use super::*;
use crate::jose::{AgreementKey, Curve, JweError, seal};

const PROFILE: &str = "traffic/430100";
const ITEM: &str = "traffic.violation";

const QUERY: Asked<'static> = Asked { item: ITEM, region: "430100", operation: "Query" };
const SETTLE: Asked<'static> = Asked { item: ITEM, region: "430100", operation: "SettleBill" };

struct Bench {
    identity: SigningKey,
    gateway: SigningKey,
    cases: SigningKey,
    adapter: SigningKey,
    profile: Arc<AgreementKey>,
    door: ApplicantDoor,
}

impl Bench {
    fn new() -> Self {
        let (identity, gateway, cases, adapter) = (signer(1), signer(2), signer(3), signer(4));
        let ring = KeySet::new()
            .with(IDENTITY, identity.verifying_key())
            .and_then(|ring| ring.with(GATEWAY, gateway.verifying_key()))
            .and_then(|ring| ring.with(CASES, cases.verifying_key()))
            .and_then(|ring| ring.with("adapter/traffic/430100", adapter.verifying_key()))
            .expect("a ring");
        let profile = Arc::new(AgreementKey::generate(Curve::X25519, &ids(5)).expect("a key"));
        let newer = Arc::new(AgreementKey::generate(Curve::X25519, &ids(6)).expect("a key"));
        let opening = vec![newer, profile.clone()];
        let door = ApplicantDoor::new(PROFILE, opening, Arc::new(ring), &Clock::manual(now()).0);
        Self { identity, gateway, cases, adapter, profile, door }
    }

    fn sealed(&self, by: &SigningKey, inner: &Value) -> String {
        let token = by.sign(typ::INNER, inner).expect("signs");
        seal(token.as_bytes(), "JWT", self.profile.public(), &ids(7)).expect("seals")
    }

    fn open(&self, assertion: &str, sealed: &str, asked: Asked<'_>) -> Result<Option<Applicant>, Check> {
        self.door.open(assertion, Some(sealed), asked)
    }
}

fn inner() -> Value {
    json!({
        "iss": "identity", "aud": PROFILE, "sub": "p_1", "level": 3, "consents": [ITEM],
        "attrs": { "name": "张三", "doc_no": "430102199001011234", "plates": ["湘A12345"] },
        "exp": NOW + 900, "iat": NOW, "jti": "i1"
    })
}

fn granted() -> Value {
    let grant = json!({ "case_id": "case_1", "item": ITEM, "operations": ["SettleBill", "InquireBill"] });
    with(with(inner(), "grant", grant), "exp", json!(NOW + 30 * 24 * 3_600))
}

fn assertion(issuer: &str, sealed: &str) -> Value {
    json!({
        "iss": issuer, "aud": PROFILE, "item": ITEM, "region": "430100", "entry_point": "wechat",
        "inner_hash": Assertion::hash_of(sealed), "exp": NOW + 60, "iat": NOW, "jti": "a1"
    })
}

fn signed(key: &SigningKey, claims: &Value) -> String {
    key.sign(typ::ASSERTION, claims).expect("signs")
}

#[test]
fn a_citizen_brought_by_the_gateway_and_a_grant_brought_by_cases_open() {
    let bench = Bench::new();
    let sealed = bench.sealed(&bench.identity, &inner());
    let word = signed(&bench.gateway, &assertion(GATEWAY, &sealed));
    let applicant = bench.open(&word, &sealed, QUERY).expect("opens").expect("a citizen");
    assert_eq!((applicant.subject.as_str(), applicant.level, applicant.entry_point.as_str()), ("p_1", 3, "wechat"));
    assert_eq!(applicant.attributes.plates[0].expose(), "湘A12345");
    assert_eq!(applicant.grant, None);

    let sealed = bench.sealed(&bench.identity, &granted());
    let word = signed(&bench.cases, &assertion(CASES, &sealed));
    let applicant = bench.open(&word, &sealed, SETTLE).expect("opens").expect("a citizen");
    assert_eq!(applicant.grant.expect("a grant").case_id, "case_1");
}

#[test]
fn an_assertion_without_a_citizen_brings_none() {
    let bench = Bench::new();
    let word = signed(&bench.gateway, &with(assertion(GATEWAY, ""), "inner_hash", Value::Null));
    assert_eq!(bench.door.open(&word, None, QUERY), Ok(None));
    let sealed = bench.sealed(&bench.identity, &inner());
    assert_eq!(bench.open(&word, &sealed, QUERY), Err(Check::Binding), "a citizen that the assertion does not name");
    let named = signed(&bench.gateway, &assertion(GATEWAY, &sealed));
    assert_eq!(bench.door.open(&named, None, QUERY), Err(Check::Binding), "a citizen that was left out");
}

#[test]
fn what_does_not_belong_together_stays_shut() {
    let bench = Bench::new();
    let sealed = bench.sealed(&bench.identity, &inner());
    let sound = assertion(GATEWAY, &sealed);
    let word = signed(&bench.gateway, &sound);
    let changed = |name: &str, value: Value| signed(&bench.gateway, &with(sound.clone(), name, value));
    let other_item = Asked { item: "traffic.licence", ..QUERY };
    let other_region = Asked { region: "140100", ..QUERY };
    assert_eq!(bench.open(&word, &sealed, other_item), Err(Check::Item));
    assert_eq!(bench.open(&word, &sealed, other_region), Err(Check::Region));
    assert_eq!(bench.open(&changed("aud", json!("traffic/140100")), &sealed, QUERY), Err(Check::Audience));
    assert_eq!(bench.open(&changed("exp", json!(NOW + 61)), &sealed, QUERY), Err(Check::Life));
    assert_eq!(bench.open(&changed("iss", json!(CASES)), &sealed, QUERY), Err(Check::Issuer));
    let by_adapter = with(sound.clone(), "iss", json!("adapter/traffic/430100"));
    assert_eq!(bench.open(&signed(&bench.adapter, &by_adapter), &sealed, QUERY), Err(Check::Issuer));
    let by_identity = with(sound.clone(), "iss", json!(IDENTITY));
    assert_eq!(bench.open(&signed(&bench.identity, &by_identity), &sealed, QUERY), Err(Check::Issuer));
    let another = bench.sealed(&bench.identity, &with(inner(), "sub", json!("p_2")));
    assert_eq!(bench.open(&word, &another, QUERY), Err(Check::Binding), "another citizen under this assertion");
}

#[test]
fn a_citizen_that_identity_did_not_make_for_this_profile_stays_shut() {
    let bench = Bench::new();
    let try_inner = |by: &SigningKey, inner: &Value| {
        let sealed = bench.sealed(by, inner);
        bench.open(&signed(&bench.gateway, &assertion(GATEWAY, &sealed)), &sealed, QUERY)
    };
    let by_gateway = with(inner(), "iss", json!(GATEWAY));
    assert_eq!(try_inner(&bench.gateway, &by_gateway), Err(Check::Issuer), "a citizen of the gateway's own making");
    assert_eq!(try_inner(&bench.gateway, &inner()), Err(Check::Issuer));
    assert_eq!(try_inner(&bench.identity, &with(inner(), "aud", json!("traffic/140100"))), Err(Check::Audience));
    assert_eq!(try_inner(&bench.identity, &with(inner(), "exp", json!(NOW - 60))), Err(Check::Expiry));

    let elsewhere = AgreementKey::generate(Curve::X25519, &ids(9)).expect("a key");
    let token = bench.identity.sign(typ::INNER, &inner()).expect("signs");
    let sealed = seal(token.as_bytes(), "JWT", elsewhere.public(), &ids(7)).expect("seals");
    let word = signed(&bench.gateway, &assertion(GATEWAY, &sealed));
    assert_eq!(bench.open(&word, &sealed, QUERY), Err(Check::Jwe(JweError::Kid)), "sealed to another profile");
    let bare = bench.identity.sign(typ::INNER, &inner()).expect("signs");
    let word = signed(&bench.gateway, &assertion(GATEWAY, &bare));
    assert_eq!(bench.open(&word, &bare, QUERY), Err(Check::Jwe(JweError::Shape)), "not sealed at all");
}

#[test]
fn a_grant_covers_what_it_says_and_only_for_cases() {
    let bench = Bench::new();
    let try_grant = |by: (&SigningKey, &str), inner: &Value, asked| {
        let sealed = bench.sealed(&bench.identity, inner);
        bench.open(&signed(by.0, &assertion(by.1, &sealed)), &sealed, asked)
    };
    let (cases, gateway) = ((&bench.cases, CASES), (&bench.gateway, GATEWAY));
    let lock = Asked { operation: "LockBill", ..SETTLE };
    assert_eq!(try_grant(cases, &granted(), lock), Err(Check::Grant), "an operation that it does not list");
    let other = json!({ "case_id": "case_1", "item": "traffic.licence", "operations": ["SettleBill"] });
    assert_eq!(try_grant(cases, &with(granted(), "grant", other), SETTLE), Err(Check::Grant), "another item");
    assert_eq!(try_grant(cases, &inner(), SETTLE), Err(Check::Grant), "cases without a grant");
    let short = with(granted(), "exp", json!(NOW + 900));
    assert_eq!(try_grant(gateway, &short, SETTLE), Err(Check::Grant), "the gateway with a grant");
    assert_eq!(try_grant(gateway, &granted(), SETTLE), Err(Check::Life));
    let endless = with(granted(), "exp", json!(NOW + 401 * 24 * 3_600));
    assert_eq!(try_grant(cases, &endless, SETTLE), Err(Check::Life));
}
