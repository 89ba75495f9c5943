//! Bad tokens by name, and what a profile opens.

mod applicant;
mod forge;
mod refused;

use forge::{ids, now};

use super::*;
use runtime::Clock;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::jose::{Algorithm, SigningKey};

fn signer(seed: u64) -> SigningKey {
    SigningKey::generate(&ids(seed)).expect("a key")
}

/// The gateway's reading of citizen tokens.
fn citizen_rules() -> Rules {
    Rules {
        typ: typ::CITIZEN,
        typ_optional: false,
        algorithms: &[Algorithm::EdDsa],
        issuers: &[IDENTITY],
        audience: GATEWAY.into(),
        life_max: ACCESS_LIFE_MAX,
        subject: true,
    }
}

/// identity's reading of client assertions.
fn client_rules() -> Rules {
    Rules {
        typ: typ::CLIENT_ASSERTION,
        typ_optional: true,
        algorithms: &[Algorithm::EdDsa, Algorithm::Es256],
        issuers: &[],
        audience: IDENTITY.into(),
        life_max: ASSERTION_LIFE_MAX,
        subject: true,
    }
}

/// Keys that are replaced as a whole.
struct Replaced(RwLock<KeySet>);

impl Keys for Replaced {
    fn find(&self, kid: &str) -> Option<Key> {
        self.0.read().expect("not poisoned").find(kid)
    }
}

#[test]
fn a_key_that_was_rotated_out_verifies_nothing() {
    let (old, new) = (signer(1), signer(2));
    let keys = Arc::new(Replaced(RwLock::new(KeySet::new().with(IDENTITY, old.verifying_key()).expect("adds"))));
    let (clock, _) = Clock::manual(now());
    let verifier = Verifier::new(citizen_rules(), keys.clone(), clock);
    let token = old.sign(typ::CITIZEN, &forge::citizen()).expect("signs");
    assert!(verifier.verify::<CitizenToken>(&token).is_ok());
    *keys.0.write().expect("not poisoned") = KeySet::new().with(IDENTITY, new.verifying_key()).expect("adds");
    assert_eq!(verifier.verify::<CitizenToken>(&token).err(), Some(Check::Key));
    let token = new.sign(typ::CITIZEN, &forge::citizen()).expect("signs");
    assert!(verifier.verify::<CitizenToken>(&token).is_ok());
}

#[test]
fn a_token_lives_from_nbf_to_exp_give_or_take_the_leeway() {
    let key = signer(1);
    let keys = KeySet::new().with(IDENTITY, key.verifying_key()).expect("adds");
    let (clock, hand) = Clock::manual(now());
    let verifier = Verifier::new(citizen_rules(), Arc::new(keys), clock);
    let token = key.sign(typ::CITIZEN, &forge::citizen()).expect("signs");
    let at = |seconds: i64| {
        let micros = now().micros() + seconds * 1_000_000;
        hand.set(runtime::Timestamp::from_micros(micros));
        verifier.verify::<CitizenToken>(&token).err()
    };
    for (seconds, expected) in
        [(-6, Some(Check::NotBefore)), (-5, None), (0, None), (899, None), (904, None), (905, Some(Check::Expiry))]
    {
        assert_eq!(at(seconds), expected, "{seconds} s after its begin");
    }
}

#[test]
fn one_key_never_speaks_for_two() {
    let key = signer(1).verifying_key();
    let mut ring = KeySet::new();
    ring.add("gateway", key).expect("adds");
    ring.add("gateway", key).expect("the same again");
    assert!(matches!(ring.add("cases", key), Err(KeySetError::Owned { .. })));
    assert_eq!(ring.len(), 1);
}

#[test]
fn a_bearer_header_is_read_once_and_strictly() {
    let read = |values: &[&str]| {
        let mut headers = http::HeaderMap::new();
        for value in values {
            headers.append("authorization", value.parse().expect("a value"));
        }
        bearer(&headers).map(str::to_owned)
    };
    assert_eq!(read(&["Bearer abc"]).as_deref(), Some("abc"));
    assert_eq!(read(&["bearer abc"]).as_deref(), Some("abc"));
    for bad in [&[][..], &["abc"], &["Basic abc"], &["Bearer "], &["Bearer a", "Bearer a"]] {
        assert_eq!(read(bad), None, "{bad:?}");
    }
}

#[test]
fn claims_print_no_person() {
    let attributes = Attributes {
        name: Some("张三丰".to_owned().into()),
        doc_no: Some("430102199001011234".to_owned().into()),
        plates: vec!["湘A12345".to_owned().into()],
        accounts: vec![Account { kind: "water".into(), number: "777".to_owned().into() }],
        ..Attributes::default()
    };
    let printed = format!("{attributes:?}");
    for person in ["张三丰", "430102", "湘A", "777"] {
        assert!(!printed.contains(person), "{printed}");
    }
    let sealed = serde_json::to_string(&attributes).expect("JSON");
    assert_eq!(serde_json::from_str::<Attributes>(&sealed).expect("reads back"), attributes);
    assert_eq!(LEEWAY, Duration::from_secs(5));
}
