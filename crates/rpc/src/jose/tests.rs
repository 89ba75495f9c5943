use runtime::{Clock, Timestamp};

use super::*;

fn ids(seed: u64) -> runtime::Ids {
    runtime::Ids::seeded(Clock::manual(Timestamp::from_micros(0)).0, seed)
}

/// RFC 8037, appendix A.
const RFC_8037_D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const RFC_8037_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn rfc_8037() -> SigningKey {
    let seed: [u8; 32] = from_base64url(RFC_8037_D).expect("base64url").try_into().expect("32 bytes");
    SigningKey::from_pem(pkcs8::ED25519.pem(&seed).expose()).expect("a key")
}

#[test]
fn rfc_8037_key_thumbprint_and_signature() {
    let key = rfc_8037();
    assert_eq!(key.jwk().x, RFC_8037_X);
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let input = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let expected = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(key.signature(input).expect("signs"), expected);
    assert!(key.verifying_key().verifies(input.as_bytes(), expected));
}

/// RFC 7517, appendix A.1 (the P-256 key); its thumbprint is computed by RFC 7638's rule.
#[test]
fn a_p256_key_reads_and_prints_its_thumbprint() {
    let text = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc"}"#;
    let jwk: Jwk = serde_json::from_str(text).expect("a JWK");
    let key = jwk.to_agreement_key().expect("a key");
    assert_eq!(key.kid(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
    assert_eq!(jwk.to_verifying_key(), Err(JwkError::Unsupported), "its use is enc");
}

#[test]
fn the_same_seed_makes_the_same_keys_and_texts() {
    let make = |seed| {
        let key = AgreementKey::generate(Curve::X25519, &ids(seed)).expect("a key");
        let sealed = seal(b"text", "JWT", key.public(), &ids(seed)).expect("seals");
        let signed =
            SigningKey::generate(&ids(seed)).expect("a key").sign("t", &serde_json::json!({"a": 1})).expect("signs");
        (key.kid().to_owned(), sealed, signed)
    };
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
}

#[test]
fn key_files_are_made_once_private_and_read_back() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("keys/signing.pem");
    let first = SigningKey::load_or_create(&path, &ids(1)).expect("makes");
    let again = SigningKey::load_or_create(&path, &ids(2)).expect("reads");
    assert_eq!(first.kid(), again.kid());
    for curve in [Curve::X25519, Curve::P256] {
        let path = place.path().join(curve.name());
        let first = AgreementKey::load_or_create(&path, curve, &ids(1)).expect("makes");
        let again = AgreementKey::load_or_create(&path, curve, &ids(2)).expect("reads");
        assert_eq!(first.kid(), again.kid());
    }
    assert!(matches!(AgreementKey::load_or_create(&path, Curve::X25519, &ids(1)), Err(KeyError::Format("X25519"))));
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(matches!(SigningKey::load_or_create(&path, &ids(1)), Err(KeyError::File(_))));
}

/// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`: with the public key behind the secret.
#[test]
fn a_p256_key_that_openssl_wrote_is_read() {
    let pem = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgwDm6HlV8UXjE1nBZ
uV0Ojd39LSmQAs2gBoPAjd+TNqqhRANCAATkV00yj2zprpPOSxxHmDAIhBMr8930
+3kU1mfcisEFJMIpoLeLBmOZ5fwy7TKaJlj81ueKxuA01c28Gnmnu0kP
-----END PRIVATE KEY-----
";
    let key = AgreementKey::from_pem(Curve::P256, pem).expect("reads");
    assert_eq!(key.jwk().x, "5FdNMo9s6a6TzkscR5gwCIQTK_Pd9Pt5FNZn3IrBBSQ");
    for bad in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", &pem.replace("MIGH", "MIGI")] {
        assert!(AgreementKey::from_pem(Curve::X25519, bad).is_err());
    }
}

#[test]
fn jwks_that_are_not_plain_public_keys_are_refused() {
    let good = serde_json::to_value(rfc_8037().jwk()).expect("JSON");
    let read = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut value = good.clone();
        change(value.as_object_mut().expect("an object"));
        serde_json::from_value::<Jwk>(value).expect("parses").to_verifying_key()
    };
    assert!(read(&|_| {}).is_ok());
    let set = |name: &'static str, value: &'static str| {
        read(&move |jwk| {
            jwk.insert(name.into(), value.into());
        })
    };
    assert_eq!(set("d", RFC_8037_D), Err(JwkError::Private));
    assert_eq!(set("kid", "another"), Err(JwkError::Kid));
    assert_eq!(set("alg", "ES256"), Err(JwkError::Unsupported));
    assert_eq!(set("use", "enc"), Err(JwkError::Unsupported));
    assert_eq!(set("crv", "Ed448"), Err(JwkError::Unsupported));
    assert_eq!(set("kty", "RSA"), Err(JwkError::Unsupported));
    assert_eq!(set("x", "AAAA"), Err(JwkError::Point));
    assert_eq!(set("x", "not base64!"), Err(JwkError::Point));
    for (first, last) in [(0, 0), (1, 0), (1, 0x80)] {
        let mut small = [0; 32];
        (small[0], small[31]) = (first, last);
        let small = base64url(&small);
        let mut jwk = rfc_8037().jwk();
        jwk.x = small;
        assert_eq!(jwk.to_verifying_key(), Err(JwkError::Point), "a point of small order");
    }
    let printed = serde_json::to_string(&rfc_8037().jwk()).expect("JSON");
    assert!(!printed.contains("\"d\""), "{printed}");
}

#[test]
fn json_that_says_something_twice_is_refused_at_any_depth() {
    for (text, expected) in [
        (r#"{"a":1,"b":2}"#, None),
        (r#"{"a":1,"a":1}"#, Some(JsonError::Duplicate)),
        (r#"{"a":{"b":1,"b":2}}"#, Some(JsonError::Duplicate)),
        (r#"{"a":[{"b":1,"b":2}]}"#, Some(JsonError::Duplicate)),
        (r#"{"a":1,"\u0061":2}"#, Some(JsonError::Duplicate)),
        ("[1]", Some(JsonError::Syntax)),
        ("{} {}", Some(JsonError::Syntax)),
        (r#"{"a":1e999}"#, Some(JsonError::Syntax)),
        (r#"{"a":NaN}"#, Some(JsonError::Syntax)),
        ("{\"a\":\"\\ud800\"}", Some(JsonError::Syntax)),
        ("", Some(JsonError::Syntax)),
    ] {
        assert_eq!(object(text.as_bytes()).err(), expected, "{text}");
    }
    assert_eq!(object(b"{\"a\":\"\xff\"}").err(), Some(JsonError::Syntax));
    assert_eq!(object(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()).err(), Some(JsonError::Syntax));
}
