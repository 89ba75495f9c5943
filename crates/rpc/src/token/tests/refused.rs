//! The table: each bad token, by name, with the check that refuses it.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};

use super::forge::{EcKey, NOW, citizen, client, now, signed, with};
use super::*;
use crate::jose::base64url;

/// Name, token, the check that refuses it.
type Row = (&'static str, String, &'static str);

struct Bench {
    identity: SigningKey,
    gateway: SigningKey,
    entry: SigningKey,
    ec: EcKey,
    keys: KeySet,
}

impl Bench {
    fn new() -> Self {
        let (identity, gateway, entry, ec) = (signer(1), signer(2), signer(3), EcKey::generate());
        let ring = KeySet::new()
            .with(IDENTITY, identity.verifying_key())
            .and_then(|ring| ring.with(GATEWAY, gateway.verifying_key()))
            .and_then(|ring| ring.with("wechat", entry.verifying_key()))
            .and_then(|ring| ring.with("alipay", ec.public));
        Self { identity, gateway, entry, ec, keys: ring.expect("a ring") }
    }

    fn verifier(&self, rules: Rules) -> Verifier {
        Verifier::new(rules, Arc::new(self.keys.clone()), Clock::manual(now()).0)
    }

    fn check_citizen(&self, token: &str) -> &'static str {
        named(self.verifier(citizen_rules()).verify::<CitizenToken>(token))
    }

    fn check_client(&self, token: &str) -> &'static str {
        named(self.verifier(client_rules()).verify::<ClientAssertion>(token))
    }

    fn header(&self) -> Value {
        json!({ "alg": "EdDSA", "kid": self.identity.kid(), "typ": typ::CITIZEN })
    }

    /// A citizen token with sound claims under this header.
    fn under(&self, header: &Value) -> String {
        signed(&self.identity, &header.to_string(), &citizen().to_string())
    }

    /// A citizen token with this payload under a sound header.
    fn of(&self, payload: &str) -> String {
        signed(&self.identity, &self.header().to_string(), payload)
    }

    /// A citizen token with one claim changed.
    fn claim(&self, name: &str, value: Value) -> String {
        self.of(&with(citizen(), name, value).to_string())
    }
}

fn named<C>(result: Result<Verified<C>, Check>) -> &'static str {
    match result {
        Ok(_) => "accepted",
        Err(check) => check.name(),
    }
}

#[test]
fn every_bad_token_is_refused_by_its_check() {
    let bench = Bench::new();
    let good = bench.under(&bench.header());
    assert_eq!(bench.check_citizen(&good), "accepted");
    let rows: Vec<Row> = [
        algorithms(&bench),
        key_ids(&bench),
        headers(&bench),
        shapes(&bench, &good),
        signatures(&bench, &good),
        times(&bench),
        parties(&bench),
        contents(&bench),
    ]
    .concat();
    let mut names: Vec<_> = rows.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows.len(), "each has a name of its own");
    assert!(rows.len() >= 60, "{} bad tokens", rows.len());
    let wrong: Vec<_> = rows
        .iter()
        .map(|(name, token, expected)| (*name, bench.check_citizen(token), *expected))
        .filter(|(_, got, expected)| got != expected)
        .collect();
    assert!(wrong.is_empty(), "(name, got, expected): {wrong:#?}");
}

fn algorithms(bench: &Bench) -> Vec<Row> {
    let alg = |alg: Value| bench.under(&with(bench.header(), "alg", alg));
    let hs256 = {
        let header = with(bench.header(), "alg", json!("HS256"));
        let input =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(citizen().to_string().as_bytes()));
        let public = crate::jose::from_base64url(&bench.identity.jwk().x).expect("base64url");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), input.as_bytes());
        format!("{input}.{}", base64url(tag.as_ref()))
    };
    let none = {
        let header = json!({ "alg": "none", "typ": typ::CITIZEN });
        format!("{}.{}.", base64url(header.to_string().as_bytes()), base64url(citizen().to_string().as_bytes()))
    };
    let es256_header = with(with(bench.header(), "alg", json!("ES256")), "kid", json!(bench.ec.public.kid()));
    vec![
        ("alg none without signature", none, "shape"),
        ("alg none with a signature", alg(json!("none")), "alg"),
        ("alg None", alg(json!("None")), "alg"),
        ("alg nOnE", alg(json!("nOnE")), "alg"),
        ("HS256 keyed with the public key", hs256, "alg"),
        ("alg RS256", alg(json!("RS256")), "alg"),
        ("alg PS256", alg(json!("PS256")), "alg"),
        ("alg ES384", alg(json!("ES384")), "alg"),
        ("alg Ed25519 in place of EdDSA", alg(json!("Ed25519")), "alg"),
        ("alg eddsa in small letters", alg(json!("eddsa")), "alg"),
        ("alg ES256 over the Ed25519 key", alg(json!("ES256")), "alg"),
        (
            "a sound ES256 token where only EdDSA is read",
            bench.ec.token(&es256_header.to_string(), &citizen().to_string()),
            "alg",
        ),
        ("no alg", alg(Value::Null), "header"),
        ("alg a number", alg(json!(0)), "header"),
        ("alg a list", alg(json!(["EdDSA"])), "header"),
    ]
}

fn key_ids(bench: &Bench) -> Vec<Row> {
    let kid = |kid: Value| bench.under(&with(bench.header(), "kid", kid));
    let own = bench.identity.kid();
    let twice = format!(r#"{{"alg":"EdDSA","kid":"{own}","kid":"{own}","typ":"{}"}}"#, typ::CITIZEN);
    let long = "A".repeat(1024 * 1024);
    vec![
        ("no kid", kid(Value::Null), "kid"),
        ("kid a number", kid(json!(7)), "kid"),
        ("kid empty", kid(json!("")), "kid"),
        ("kid a path", kid(json!("../../dev/null")), "kid"),
        ("kid SQL", kid(json!("' OR 1=1 --")), "kid"),
        ("kid a URL", kid(json!("https://example.com/key")), "kid"),
        ("kid with NUL", kid(json!("a\0b")), "kid"),
        ("kid of 65 characters", kid(json!("a".repeat(65))), "kid"),
        ("kid of 1 MiB", kid(json!(long)), "size"),
        ("kid unknown", kid(json!("unknown")), "key"),
        ("kid of another key", kid(json!(bench.gateway.kid())), "signature"),
        ("kid of a key of the other algorithm", kid(json!(bench.ec.public.kid())), "alg"),
        ("kid twice", signed(&bench.identity, &twice, &citizen().to_string()), "header"),
        ("kid with other letter case", kid(json!(own.to_uppercase())), "key"),
    ]
}

fn headers(bench: &Bench) -> Vec<Row> {
    let and = |name: &str, value: Value| bench.under(&with(bench.header(), name, value));
    let raw = |header: &str| signed(&bench.identity, header, &citizen().to_string());
    let own_key = serde_json::to_value(bench.identity.jwk()).expect("JSON");
    let sound = bench.header().to_string();
    vec![
        ("jku", and("jku", json!("https://example.com/jwks.json")), "header_forbidden"),
        ("jwk", and("jwk", own_key), "header_forbidden"),
        ("x5u", and("x5u", json!("https://example.com/cert.pem")), "header_forbidden"),
        ("x5c", and("x5c", json!(["MIIB"])), "header_forbidden"),
        ("crit", and("crit", json!(["exp"])), "header_forbidden"),
        ("crit empty", and("crit", json!([])), "header_forbidden"),
        ("b64 false", and("b64", json!(false)), "header_forbidden"),
        ("zip", and("zip", json!("DEF")), "header_forbidden"),
        ("cty JWT", and("cty", json!("JWT")), "header"),
        ("enc, as if sealed", and("enc", json!("A256GCM")), "header"),
        ("header a list", raw("[]"), "header"),
        ("header no JSON", raw("{alg:EdDSA}"), "header"),
        ("header with more behind it", raw(&format!("{sound}{sound}")), "header"),
        ("header longer than 1 KiB", and("pad", json!("x".repeat(1_024))), "size"),
        ("typ missing", and("typ", Value::Null), "typ"),
        ("typ JWT", and("typ", json!("JWT")), "typ"),
        ("typ of a sealed token", and("typ", json!(typ::INNER)), "typ"),
        ("typ of an assertion", and("typ", json!(typ::ASSERTION)), "typ"),
        ("typ in capitals", and("typ", json!(typ::CITIZEN.to_uppercase())), "typ"),
        ("typ a number", and("typ", json!(1)), "header"),
    ]
}

fn shapes(bench: &Bench, good: &str) -> Vec<Row> {
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else { panic!("three parts") };
    let nested = signed(&bench.identity, &bench.header().to_string(), good);
    // One byte past a multiple of three: its padded form ends in two equals signs.
    let text = citizen().to_string();
    let padded = URL_SAFE.encode(format!("{text}{}", " ".repeat(3 - (text.len() + 2) % 3)));
    let plus = STANDARD.encode([0xfb_u8, 0xff, 0xfe]);
    // The last character of 64 bytes carries four bits that mean nothing; strict readers want them zero.
    let (head, last) = signature.split_at(signature.len() - 1);
    let next = char::from(last.as_bytes()[0] + 1);
    vec![
        ("empty", String::new(), "shape"),
        ("one part", header.to_string(), "shape"),
        ("two parts", format!("{header}.{payload}"), "shape"),
        ("four parts", format!("{good}.{signature}"), "shape"),
        ("five parts, as a JWE", format!("{header}..AAAA.{payload}.{signature}"), "shape"),
        ("only dots", "..".into(), "shape"),
        ("empty payload", format!("{header}..{signature}"), "shape"),
        ("empty signature", format!("{header}.{payload}."), "shape"),
        ("blank before", format!(" {good}"), "shape"),
        ("line break behind", format!("{good}\n"), "shape"),
        ("line break inside", format!("{header}.{}\n{}.{signature}", &payload[..8], &payload[8..]), "shape"),
        ("padding on the signature", format!("{header}.{payload}.{signature}=="), "shape"),
        ("padding on the payload", format!("{header}.{padded}.{signature}"), "shape"),
        ("the other base64 alphabet", format!("{header}.{plus}.{signature}"), "shape"),
        ("bits left over at the end", format!("{header}.{payload}.{head}{next}"), "shape"),
        ("percent encoding", format!("{header}%2e{payload}%2e{signature}"), "shape"),
        ("not ASCII", format!("{header}.{payload}é.{signature}"), "shape"),
        ("payload cut short", format!("{header}.{}.{signature}", &payload[..payload.len() - 4]), "signature"),
        ("longer than 8 KiB", bench.claim("pad", json!("x".repeat(9_000))), "size"),
        ("1 MiB", "A".repeat(1024 * 1024), "size"),
        ("a token within a token", nested, "claims"),
    ]
}

fn signatures(bench: &Bench, good: &str) -> Vec<Row> {
    let (input, signature) = good.rsplit_once('.').expect("parts");
    let raw = crate::jose::from_base64url(signature).expect("base64url");
    let with_raw = |raw: &[u8]| format!("{input}.{}", base64url(raw));
    let flipped = |at: usize| {
        let mut raw = raw.clone();
        raw[at] ^= 1;
        with_raw(&raw)
    };
    let mut identity_point = [0_u8; 64];
    identity_point[0] = 1;
    let (header, _) = input.split_once('.').expect("parts");
    let richer = base64url(with(citizen(), "level", json!(4)).to_string().as_bytes());
    let other_kid = with(bench.header(), "kid", json!(bench.identity.kid()));
    vec![
        ("first bit of R changed", flipped(0), "signature"),
        ("first bit of S changed", flipped(32), "signature"),
        ("last bit of S changed", flipped(63), "signature"),
        ("S plus the group's order", with_raw(&plus_order(&raw)), "signature"),
        ("all zero", with_raw(&[0; 64]), "signature"),
        ("all ones", with_raw(&[0xff; 64]), "signature"),
        ("R of small order, S zero", with_raw(&identity_point), "signature"),
        ("63 bytes", with_raw(&raw[..63]), "signature"),
        ("65 bytes", with_raw(&[raw.as_slice(), &[0]].concat()), "signature"),
        ("signature of another payload", format!("{header}.{richer}.{signature}"), "signature"),
        (
            "signed by another key under this kid",
            signed(&bench.gateway, &other_kid.to_string(), &citizen().to_string()),
            "signature",
        ),
    ]
}

/// Adds the order of the group to S: the same equation holds, and a lax reader takes it for another token.
fn plus_order(signature: &[u8]) -> Vec<u8> {
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").expect("hex");
    let mut sum = signature.to_vec();
    let mut carry = 0_u16;
    for (byte, add) in sum[32..].iter_mut().zip(&order) {
        carry += u16::from(*byte) + u16::from(*add);
        *byte = (carry & 0xff) as u8;
        carry >>= 8;
    }
    sum
}

fn times(bench: &Bench) -> Vec<Row> {
    let both = |exp: i64, iat: i64| bench.of(&with(with(citizen(), "exp", json!(exp)), "iat", json!(iat)).to_string());
    let raw_exp = |text: &str| {
        bench.of(&citizen().to_string().replace(&format!("\"exp\":{}", NOW + 900), &format!("\"exp\":{text}")))
    };
    vec![
        ("no exp", bench.claim("exp", Value::Null), "exp"),
        ("exp a text", bench.claim("exp", json!((NOW + 900).to_string())), "exp"),
        ("exp a fraction", raw_exp("1800000900.5"), "exp"),
        ("exp a whole number written as a fraction", raw_exp("1800000900.0"), "exp"),
        ("exp with an exponent", raw_exp("18e8"), "exp"),
        ("exp 1e30", raw_exp("1e30"), "exp"),
        ("exp 1e999", raw_exp("1e999"), "claims"),
        ("exp negative", bench.claim("exp", json!(-1)), "exp"),
        ("exp zero", bench.claim("exp", json!(0)), "exp"),
        ("exp null", raw_exp("null"), "exp"),
        ("exp true", bench.claim("exp", json!(true)), "exp"),
        ("exp beyond the year 9999", bench.claim("exp", json!(253_402_300_800_u64)), "exp"),
        ("exp 2^64", raw_exp("18446744073709551616"), "exp"),
        ("expired by the leeway", both(NOW - 5, NOW - 600), "exp"),
        ("nbf ahead", bench.claim("nbf", json!(NOW + 6)), "nbf"),
        ("nbf a text", bench.claim("nbf", json!("0")), "nbf"),
        ("no iat", bench.claim("iat", Value::Null), "iat"),
        ("iat ahead", bench.claim("iat", json!(NOW + 6)), "iat"),
        ("iat a text", bench.claim("iat", json!("0")), "iat"),
        ("lives 901 seconds", both(NOW + 900, NOW - 1), "life"),
        ("ends before it begins", both(NOW - 1, NOW), "life"),
        ("ends as it begins", both(NOW, NOW), "life"),
    ]
}

fn parties(bench: &Bench) -> Vec<Row> {
    let claim = |name: &str, value: Value| bench.claim(name, value);
    let as_gateway = with(bench.header(), "kid", json!(bench.gateway.kid()));
    vec![
        ("no iss", claim("iss", Value::Null), "iss"),
        ("iss another", claim("iss", json!("gateway")), "iss"),
        ("iss with a slash behind", claim("iss", json!("identity/")), "iss"),
        ("iss in capitals", claim("iss", json!("Identity")), "iss"),
        ("iss a list", claim("iss", json!(["identity"])), "iss"),
        (
            "a citizen made by the gateway",
            signed(&bench.gateway, &as_gateway.to_string(), &citizen().to_string()),
            "iss",
        ),
        ("no aud", claim("aud", Value::Null), "aud"),
        ("aud another", claim("aud", json!("cases")), "aud"),
        ("aud a list with the right one", claim("aud", json!(["gateway"])), "aud"),
        ("aud with more behind", claim("aud", json!("gateway2")), "aud"),
        ("aud empty", claim("aud", json!("")), "aud"),
        ("no sub", claim("sub", Value::Null), "sub"),
        ("sub empty", claim("sub", json!("")), "sub"),
        ("sub a number", claim("sub", json!(1)), "sub"),
        ("sub with NUL", claim("sub", json!("a\0")), "sub"),
        ("sub of 257 bytes", claim("sub", json!("a".repeat(257))), "sub"),
        ("no jti", claim("jti", Value::Null), "jti"),
        ("jti empty", claim("jti", json!("")), "jti"),
        ("jti a number", claim("jti", json!(1)), "jti"),
        ("jti of 129 bytes", claim("jti", json!("a".repeat(129))), "jti"),
    ]
}

fn contents(bench: &Bench) -> Vec<Row> {
    let sound = citizen().to_string();
    let and = |more: &str| bench.of(&format!("{}{more}}}", &sound[..sound.len() - 1]));
    vec![
        ("sub twice", and(r#","sub":"c_2""#), "claims"),
        ("sub twice by escape", and(r#","\u0073ub":"c_2""#), "claims"),
        ("act's sub twice", bench.of(&sound.replace(r#"{"sub":"wechat"}"#, r#"{"sub":"a","sub":"b"}"#)), "claims"),
        ("payload a list", bench.of("[]"), "claims"),
        ("payload a text", bench.of("\"x\""), "claims"),
        ("payload no JSON", bench.of("{"), "claims"),
        ("more behind the payload", bench.of(&format!("{sound}{{}}")), "claims"),
        ("no act", bench.claim("act", Value::Null), "claims"),
        ("act a text", bench.claim("act", json!("wechat")), "claims"),
        ("no level", bench.claim("level", Value::Null), "claims"),
        ("level a text", bench.claim("level", json!("3")), "claims"),
        ("level 256", bench.claim("level", json!(256)), "claims"),
        ("consents a text", bench.claim("consents", json!("all")), "claims"),
        ("sealed a list", bench.claim("sealed", json!([])), "claims"),
    ]
}

#[test]
fn client_assertions_of_both_algorithms_are_read_and_bad_ones_refused() {
    let bench = Bench::new();
    let ed = |typ: &str| format!(r#"{{"alg":"EdDSA","kid":"{}"{typ}}}"#, bench.entry.kid());
    let ec = format!(r#"{{"alg":"ES256","kid":"{}","typ":"JWT"}}"#, bench.ec.public.kid());
    let payload = client().to_string();
    let of_alipay = with(with(client(), "iss", json!("alipay")), "sub", json!("alipay")).to_string();
    for typ in ["", r#","typ":"JWT""#, r#","typ":"client-authentication+jwt""#] {
        assert_eq!(bench.check_client(&signed(&bench.entry, &ed(typ), &payload)), "accepted", "{typ}");
    }
    assert_eq!(bench.check_client(&bench.ec.token(&ec, &of_alipay)), "accepted");
    let forged = |change: fn(Vec<u8>, Vec<u8>) -> Vec<u8>| bench.ec.with_signature(&ec, &of_alipay, change);
    let swapped = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, bench.entry.kid());
    let rows = [
        ("another's name", bench.ec.token(&ec, &payload), "iss"),
        ("DER in place of raw", forged(|_, der| der), "signature"),
        ("r zero", forged(|raw, _| [&[0; 32], &raw[32..]].concat()), "signature"),
        ("s zero", forged(|raw, _| [&raw[..32], &[0; 32]].concat()), "signature"),
        ("r and s zero", forged(|_, _| vec![0; 64]), "signature"),
        ("r and s all ones", forged(|_, _| vec![0xff; 64]), "signature"),
        ("r and s swapped", forged(|raw, _| [&raw[32..], &raw[..32]].concat()), "signature"),
        ("EdDSA header over the P-256 key", signed(&bench.entry, &ec.replace("ES256", "EdDSA"), &of_alipay), "alg"),
        ("ES256 header over the Ed25519 key", bench.ec.token(&swapped, &payload), "alg"),
        ("typ of another kind", signed(&bench.entry, &ed(r#","typ":"citizen+jwt""#), &payload), "typ"),
        (
            "lives 61 seconds",
            signed(&bench.entry, &ed(""), &with(client(), "exp", json!(NOW + 61)).to_string()),
            "life",
        ),
        ("for the gateway", signed(&bench.entry, &ed(""), &with(client(), "aud", json!("gateway")).to_string()), "aud"),
    ];
    for (name, token, expected) in rows {
        assert_eq!(bench.check_client(&token), expected, "{name}");
    }
}
