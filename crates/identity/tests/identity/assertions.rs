//! The table of bad assertions: each is refused by the name of what is wrong with it, at both places where one is read.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as B64};
use contracts::identity::v1::IssueTokenRequest;
use identity::config::EntryPoint;
use identity::domain::level::Level;
use rpc::jose::{Curve, SigningKey, VerifyingKey};
use rpc::oauth::{JWT_BEARER, JWT_TYPE, TOKEN_EXCHANGE};
use serde_json::{Value, json};

use crate::rig::{CHANGSHA, NUMBER, Rig, START, told};

const NOW: i64 = START.micros() / 1_000_000;
const ENDPOINT: &str = "https://city.example/oauth2/token";

/// A hand that signs whatever it is given.
struct Hand {
    pair: Ed25519KeyPair,
    kid: String,
}

impl Hand {
    fn of(key: &SigningKey) -> Self {
        let pem = key.to_pem();
        let body: String = pem.expose().lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).expect("base64");
        Self { pair: Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).expect("a key"), kid: key.kid().to_owned() }
    }

    /// Signs a header and claims given as texts, so that they may say anything.
    fn sign(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", B64.encode(header), B64.encode(claims));
        format!("{input}.{}", B64.encode(self.pair.sign(input.as_bytes())))
    }

    fn header(&self) -> Value {
        json!({ "alg": "EdDSA", "kid": self.kid, "typ": "JWT" })
    }
}

/// The claims of a good assertion; those about a citizen are simply more than a client assertion needs.
fn claims(jti: &str) -> Value {
    json!({
        "iss": "wechat", "sub": "wechat", "aud": ENDPOINT, "iat": NOW, "exp": NOW + 60, "jti": jti,
        "level": 3, "name": "张三", "doc_type": "resident_id", "doc_no": NUMBER
    })
}

/// What one row does to header and claims, and the check that must refuse it.
type Row = (&'static str, fn(&mut Value, &mut Value), &'static str);

const ROWS: &[Row] = &[
    ("no algorithm", |h, _| remove(h, "alg"), "header"),
    ("algorithm none", |h, _| h["alg"] = "none".into(), "alg"),
    ("algorithm None", |h, _| h["alg"] = "None".into(), "alg"),
    ("algorithm nOnE", |h, _| h["alg"] = "nOnE".into(), "alg"),
    ("algorithm of a secret", |h, _| h["alg"] = "HS256".into(), "alg"),
    ("RSA", |h, _| h["alg"] = "RS256".into(), "alg"),
    ("another curve", |h, _| h["alg"] = "ES384".into(), "alg"),
    ("the other allowed algorithm", |h, _| h["alg"] = "ES256".into(), "alg"),
    ("algorithm in small letters", |h, _| h["alg"] = "eddsa".into(), "alg"),
    ("algorithm as a list", |h, _| h["alg"] = json!(["EdDSA"]), "header"),
    ("no kid", |h, _| remove(h, "kid"), "kid"),
    ("empty kid", |h, _| h["kid"] = "".into(), "kid"),
    ("kid as a path", |h, _| h["kid"] = "../../dev/null".into(), "kid"),
    ("kid as SQL", |h, _| h["kid"] = "x' OR 1=1 --".into(), "kid"),
    ("kid as an address", |h, _| h["kid"] = "https://evil.example/k".into(), "kid"),
    ("kid of 65 characters", |h, _| h["kid"] = "a".repeat(65).into(), "kid"),
    ("kid as a number", |h, _| h["kid"] = 1.into(), "kid"),
    ("jku", |h, _| h["jku"] = "https://evil.example/jwks".into(), "header_forbidden"),
    ("jwk", |h, _| h["jwk"] = json!({}), "header_forbidden"),
    ("x5u", |h, _| h["x5u"] = "https://evil.example/c".into(), "header_forbidden"),
    ("x5c", |h, _| h["x5c"] = json!([]), "header_forbidden"),
    ("crit", |h, _| h["crit"] = json!(["exp"]), "header_forbidden"),
    ("b64", |h, _| h["b64"] = false.into(), "header_forbidden"),
    ("zip", |h, _| h["zip"] = "DEF".into(), "header_forbidden"),
    ("nested", |h, _| h["cty"] = "JWT".into(), "header"),
    ("typ of a citizen token", |h, _| h["typ"] = "citizen+jwt".into(), "typ"),
    ("typ of an inner token", |h, _| h["typ"] = "inner+jwt".into(), "typ"),
    ("typ as a number", |h, _| h["typ"] = 1.into(), "header"),
    ("a header of 2 KiB", |h, _| h["x"] = "a".repeat(2_048).into(), "size"),
    ("no issuer", |_, c| remove(c, "iss"), "iss"),
    ("another issuer", |_, c| c["iss"] = "alipay".into(), "iss"),
    ("issuer with a slash", |_, c| c["iss"] = "wechat/".into(), "iss"),
    ("issuer in capitals", |_, c| c["iss"] = "WeChat".into(), "iss"),
    ("issuer as a list", |_, c| c["iss"] = json!(["wechat"]), "iss"),
    ("no audience", |_, c| remove(c, "aud"), "aud"),
    ("another audience", |_, c| c["aud"] = "https://other.example/token".into(), "aud"),
    ("the gateway's audience", |_, c| c["aud"] = "gateway".into(), "aud"),
    ("a list of audiences", |_, c| c["aud"] = json!(["identity", "other"]), "aud"),
    ("audience with a slash", |_, c| c["aud"] = format!("{ENDPOINT}/").into(), "aud"),
    ("no subject", |_, c| remove(c, "sub"), "sub"),
    ("empty subject", |_, c| c["sub"] = "".into(), "sub"),
    ("subject as a number", |_, c| c["sub"] = 7.into(), "sub"),
    ("subject with a control character", |_, c| c["sub"] = "we\u{0}chat".into(), "sub"),
    ("no end", |_, c| remove(c, "exp"), "exp"),
    ("end as a text", |_, c| c["exp"] = format!("{}", NOW + 60).into(), "exp"),
    ("end as a fraction", |_, c| c["exp"] = json!(NOW as f64 + 59.5), "exp"),
    ("end in 1e30", |_, c| c["exp"] = json!(1e30), "exp"),
    ("negative end", |_, c| c["exp"] = json!(-1), "exp"),
    ("end null", |_, c| c["exp"] = Value::Null, "exp"),
    ("past", |_, c| set_span(c, NOW - 120, NOW - 60), "exp"),
    ("past by more than the leeway", |_, c| set_span(c, NOW - 60, NOW - 5), "exp"),
    ("living 61 s", |_, c| c["exp"] = json!(NOW + 61), "life"),
    ("living a day", |_, c| c["exp"] = json!(NOW + 86_400), "life"),
    ("ending before it begins", |_, c| set_span(c, NOW + 4, NOW + 3), "life"),
    ("no begin", |_, c| remove(c, "iat"), "iat"),
    ("begin ahead", |_, c| set_span(c, NOW + 30, NOW + 60), "iat"),
    ("begin as a text", |_, c| c["iat"] = format!("{NOW}").into(), "iat"),
    ("not before ahead", |_, c| c["nbf"] = json!(NOW + 30), "nbf"),
    ("not before as a text", |_, c| c["nbf"] = "now".into(), "nbf"),
    ("no jti", |_, c| remove(c, "jti"), "jti"),
    ("empty jti", |_, c| c["jti"] = "".into(), "jti"),
    ("jti as a number", |_, c| c["jti"] = 1.into(), "jti"),
    ("jti of 129 characters", |_, c| c["jti"] = "j".repeat(129).into(), "jti"),
    ("jti with a line break", |_, c| c["jti"] = "a\nb".into(), "jti"),
];

fn remove(object: &mut Value, name: &str) {
    object.as_object_mut().expect("an object").remove(name);
}

fn set_span(claims: &mut Value, iat: i64, exp: i64) {
    claims["iat"] = iat.into();
    claims["exp"] = exp.into();
}

/// Rows whose fault is in the text itself.
fn texts(hand: &Hand) -> Vec<(&'static str, String, &'static str)> {
    let header = hand.header().to_string();
    let good = hand.sign(&header, &claims("texts").to_string());
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts.as_slice() else { panic!("three parts") };
    let zero = B64.encode([0_u8; 64]);
    let der = B64.encode([[0x30, 0x44].as_slice(), &[0; 68]].concat());
    let twice =
        |name: &str, value: &str| claims("twice").to_string().replacen('{', &format!("{{\"{name}\":{value},"), 1);
    let key_twice = header.replacen('{', "{\"kid\":\"other\",", 1);
    vec![
        ("nothing between the dots", "..".to_owned(), "shape"),
        ("one part", "eyJhbGciOiJFZERTQSJ9".to_owned(), "shape"),
        ("two parts", format!("{head}.{body}"), "shape"),
        ("four parts", format!("{good}.{signature}"), "shape"),
        ("five parts, as a sealed text has", format!("{head}..{body}.{body}.{signature}"), "shape"),
        ("padding", format!("{head}=.{body}.{signature}"), "shape"),
        ("a line break", format!("{head}.{body}.{signature}\n"), "shape"),
        ("a space", format!(" {good}"), "shape"),
        ("the other alphabet of base64", format!("{head}.{body}+/.{signature}"), "shape"),
        ("no signature", format!("{head}.{body}."), "shape"),
        ("a signature cut short", good[..good.len() - 2].to_owned(), "signature"),
        ("a signature of zeros", format!("{head}.{body}.{zero}"), "signature"),
        ("a signature in DER", format!("{head}.{body}.{der}"), "signature"),
        ("somebody else's claims", format!("{head}.{}.{signature}", B64.encode(claims("x").to_string())), "signature"),
        ("issuer twice", hand.sign(&header, &twice("iss", "\"alipay\"")), "claims"),
        ("end twice", hand.sign(&header, &twice("exp", "9")), "claims"),
        ("kid twice", hand.sign(&key_twice, &claims("k").to_string()), "header"),
        ("claims as a list", hand.sign(&header, "[]"), "claims"),
        ("claims as a text", hand.sign(&header, "\"iss\""), "claims"),
        ("no JSON", hand.sign(&header, "{"), "claims"),
        ("claims and more", hand.sign(&header, &format!("{} ", claims("m").to_string() + "{}")), "claims"),
        ("header as a list", hand.sign("[]", &claims("h").to_string()), "header"),
        ("no UTF-8", format!("{}.{body}.{signature}", B64.encode([0xff, 0xfe])), "header"),
    ]
}

async fn rig() -> Rig {
    let rig = Rig::bare(|config| config.assertion_audiences = vec![ENDPOINT.to_owned()]).await;
    rig.register_peers().await;
    rig
}

fn exchange(client_assertion: String, subject_token: String) -> IssueTokenRequest {
    IssueTokenRequest {
        grant_type: TOKEN_EXCHANGE.to_owned(),
        client_assertion_type: JWT_BEARER.to_owned(),
        client_assertion,
        subject_token,
        subject_token_type: JWT_TYPE.to_owned(),
        audience: vec![CHANGSHA.to_owned()],
        scope: String::new(),
    }
}

#[tokio::test]
async fn every_bad_assertion_is_refused_by_name_in_both_places() {
    let rig = rig().await;
    let hand = Hand::of(&rig.key_of("wechat"));
    let identity = rig.identity_key(Curve::X25519).await;
    let seal = |text: &str| rpc::jose::seal(text.as_bytes(), "JWT", &identity, &rig.context.ids).expect("seals");
    let good = |jti: &str| hand.sign(&hand.header().to_string(), &claims(jti).to_string());

    let mut rows: Vec<(&str, String, &str)> = ROWS
        .iter()
        .map(|(name, change, check)| {
            let (mut header, mut body) = (hand.header(), claims(name));
            change(&mut header, &mut body);
            (*name, hand.sign(&header.to_string(), &body.to_string()), *check)
        })
        .collect();
    rows.extend(texts(&hand));
    assert!(rows.len() >= 60);

    for (name, token, check) in &rows {
        let as_client = rig.issue(exchange(token.clone(), seal(&good(&format!("{name} 1"))))).await;
        let told_of_client = told(&as_client.expect_err(name));
        assert_eq!(told_of_client, format!("CLIENT_ASSERTION_INVALID {check}"), "as client assertion: {name}");
        let as_real_name = rig.issue(exchange(good(&format!("{name} 2")), seal(token))).await;
        let told_of_real_name = told(&as_real_name.expect_err(name));
        assert_eq!(told_of_real_name, format!("REAL_NAME_ASSERTION_INVALID {check}"), "as real-name assertion: {name}");
    }
    // And the row from which all others differ is good.
    rig.issue(exchange(good("good 1"), seal(&good("good 2")))).await.expect("issues");
}

#[tokio::test]
async fn an_assertion_of_8_kib_is_not_looked_at() {
    let rig = rig().await;
    let hand = Hand::of(&rig.key_of("wechat"));
    let mut long = claims("long");
    long["x"] = "a".repeat(8 * 1_024).into();
    let token = hand.sign(&hand.header().to_string(), &long.to_string());
    let refused = rig.issue(exchange(token, "x".to_owned())).await.expect_err("is refused");
    assert!(refused.is_common("INVALID_REQUEST"), "{refused}");
    assert_eq!(refused.violations()[0].field, "client_assertion");
}

#[tokio::test]
async fn a_key_that_nobody_registered_and_a_suspended_client_get_nothing() {
    let stranger = SigningKey::generate(&runtime::Ids::system(runtime::Clock::system())).expect("a key");
    let jwk = crate::rig::json(&stranger.jwk());
    let rig = Rig::bare(|config| {
        config.entry_points = vec![EntryPoint {
            id: "qq".to_owned(),
            name: "QQ".to_owned(),
            jwks: vec![jwk],
            key_files: Vec::new(),
            scopes: ["query".to_owned()].into(),
            level_max: Level::Face,
            suspended: true,
        }];
    })
    .await;
    let unknown = SigningKey::generate(&rig.context.ids).expect("a key");
    for (id, key, problem) in [("wechat", unknown, "unknown"), ("qq", stranger, "suspended")] {
        let (clock, ids) = (rig.context.clock.clone(), rig.context.ids.clone());
        let request = rpc::oauth::Caller::new(id, key, clock, ids).own_token().expect("signs");
        let refused = rig.issue(request).await.expect_err("is refused");
        assert_eq!(told(&refused), format!("ENTRY_POINT_UNKNOWN {problem}"));
    }
}

#[tokio::test]
async fn an_assertion_speaks_for_its_signer_alone() {
    let rig = Rig::start().await;
    let identity = rig.identity_key(Curve::X25519).await;
    let person = crate::rig::person("o1", NUMBER);
    let mine = rig.caller("wechat").citizen_token(&person, &[CHANGSHA], &identity).expect("signs");
    let theirs = rig.caller("alipay").citizen_token(&person, &[CHANGSHA], &identity).expect("signs");
    let mixed = IssueTokenRequest { subject_token: theirs.subject_token, ..mine };
    let refused = rig.issue(mixed).await.expect_err("is refused");
    assert_eq!(told(&refused), "REAL_NAME_ASSERTION_INVALID iss");
}

#[tokio::test]
async fn what_is_not_sealed_for_identity_is_not_opened() {
    let rig = Rig::start().await;
    let caller = rig.caller("wechat");
    let person = crate::rig::person("o1", NUMBER);
    let foreign = *rig.opening[CHANGSHA].public();
    let identity = rig.identity_key(Curve::X25519).await;
    let good = caller.real_name(&person, &identity).expect("seals");
    let parts: Vec<_> = good.split('.').map(str::to_owned).collect();
    let with_part = |at: usize, text: &str| {
        let mut parts = parts.clone();
        parts[at] = text.to_owned();
        parts.join(".")
    };
    let flipped = {
        let mut cipher = B64.decode(&parts[3]).expect("base64");
        cipher[0] ^= 1;
        B64.encode(cipher)
    };
    for (name, sealed, check) in [
        ("for somebody else", caller.real_name(&person, &foreign).expect("seals"), "sealed_kid"),
        ("in clear", caller.client_assertion().expect("signs"), "sealed_shape"),
        ("with an encrypted key", with_part(1, "AAAA"), "sealed_shape"),
        ("changed", with_part(3, &flipped), "sealed_open"),
        ("with a tag cut short", with_part(4, "AAAA"), "sealed_shape"),
        ("compressed", with_part(0, &B64.encode(r#"{"alg":"ECDH-ES","enc":"A256GCM","zip":"DEF"}"#)), "sealed_header"),
        ("with another cipher", with_part(0, &B64.encode(r#"{"alg":"ECDH-ES","enc":"A128GCM"}"#)), "sealed_header"),
        ("with RSA", with_part(0, &B64.encode(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#)), "sealed_header"),
        ("without an ephemeral key", with_part(0, &B64.encode(r#"{"alg":"ECDH-ES","enc":"A256GCM"}"#)), "sealed_epk"),
    ] {
        let request = exchange(caller.client_assertion().expect("signs"), sealed);
        let refused = rig.issue(request).await.expect_err(name);
        assert_eq!(told(&refused), format!("REAL_NAME_ASSERTION_INVALID {check}"), "{name}");
    }
}

#[tokio::test]
async fn es256_is_as_good_as_eddsa() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).expect("a key");
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(32);
    let key = VerifyingKey::P256 { x: x.try_into().expect("32 bytes"), y: y.try_into().expect("32 bytes") };
    let jwk = crate::rig::json(&key.jwk());
    let rig = Rig::bare(|config| {
        config.entry_points = vec![EntryPoint {
            id: "weibo".to_owned(),
            name: "Weibo".to_owned(),
            jwks: vec![jwk],
            key_files: Vec::new(),
            scopes: ["query".to_owned()].into(),
            level_max: Level::Face,
            suspended: false,
        }];
    })
    .await;
    let sign = |header: Value| {
        let body = json!({
            "iss": "weibo", "sub": "weibo", "aud": "identity", "iat": NOW, "exp": NOW + 60, "jti": header.to_string()
        });
        let input = format!("{}.{}", B64.encode(header.to_string()), B64.encode(body.to_string()));
        let signature = pair.sign(&random, input.as_bytes()).expect("signs");
        format!("{input}.{}", B64.encode(signature))
    };
    let own = |client_assertion| IssueTokenRequest {
        grant_type: rpc::oauth::CLIENT_CREDENTIALS.to_owned(),
        client_assertion_type: JWT_BEARER.to_owned(),
        client_assertion,
        ..IssueTokenRequest::default()
    };
    rig.issue(own(sign(json!({ "alg": "ES256", "kid": key.kid() })))).await.expect("issues");
    let swapped = rig.issue(own(sign(json!({ "alg": "EdDSA", "kid": key.kid() })))).await.expect_err("is refused");
    assert_eq!(told(&swapped), "CLIENT_ASSERTION_INVALID alg");
}
