use super::*;
use crate::config::{EntryPoint, Staff};
use rpc::jose::{AgreementKey, Curve, Jwks, SigningKey};
use rpc::token::Keys;
use runtime::Clock;

fn ids() -> Ids {
    Ids::seeded(Clock::system(), 1)
}

fn entry_point(id: &str, jwks: &[String], key_files: &[PathBuf]) -> EntryPoint {
    EntryPoint {
        id: id.to_owned(),
        name: id.to_owned(),
        jwks: jwks.to_vec(),
        key_files: key_files.to_vec(),
        scopes: ["query".to_owned()].into(),
        level_max: Level::NameId,
        suspended: false,
    }
}

fn json(key: &SigningKey) -> String {
    serde_json::to_string(&key.jwk()).expect("JSON")
}

#[test]
fn clients_are_found_by_each_of_their_keys() {
    let ids = ids();
    let [first, second, clerk] = [(); 3].map(|()| SigningKey::generate(&ids).expect("a key"));
    let dir = tempfile::tempdir().expect("a directory");
    let set = dir.path().join("set.json");
    std::fs::write(&set, serde_json::to_string(&Jwks { keys: vec![second.jwk()] }).expect("JSON")).expect("writes");
    let staff = Staff {
        id: "clerk-9".to_owned(),
        kind: StaffKind::Clerk,
        jwks: vec![json(&clerk)],
        key_files: Vec::new(),
        departments: ["traffic".to_owned()].into(),
        regions: BTreeSet::new(),
        suspended: true,
    };
    let config = Config {
        entry_points: vec![entry_point("wechat", &[json(&first)], &[set])],
        staff: vec![staff],
        ..Config::default()
    };
    let registry = Registry::build(&config, &ids).expect("builds");
    for key in [&first, &second] {
        let found = registry.find(key.kid()).expect("is found");
        assert_eq!((found.owner.as_ref(), found.key), ("wechat", key.verifying_key()));
    }
    let client = registry.client("clerk-9").expect("is found");
    assert_eq!(registry.find(clerk.kid()).expect("is found").owner.as_ref(), "clerk-9");
    assert!(client.suspended && matches!(client.kind, ClientKind::Staff { kind: StaffKind::Clerk, .. }));
    assert!(registry.find("x").is_none() && registry.client("x").is_none());
}

#[test]
fn keys_that_cannot_be_used_refuse_the_start() {
    let ids = ids();
    let key = SigningKey::generate(&ids).expect("a key");
    let private = json(&key).replace("\"kty\"", "\"d\":\"AAAA\",\"kty\"");
    let agreement = AgreementKey::generate(Curve::X25519, &ids).expect("a key");
    let agreement = serde_json::to_string(&agreement.jwk()).expect("JSON");
    for jwk in ["", "{}", &private, &agreement] {
        let config = Config { entry_points: vec![entry_point("wechat", &[jwk.to_owned()], &[])], ..Config::default() };
        assert!(matches!(Registry::build(&config, &ids), Err(RegistryError::Key { .. })), "{jwk}");
    }
    let shared = |id| entry_point(id, &[json(&key)], &[]);
    let config = Config { entry_points: vec![shared("wechat"), shared("qq")], ..Config::default() };
    assert!(matches!(Registry::build(&config, &ids), Err(RegistryError::Shared(..))));
}

#[test]
fn key_files_are_read_in_every_form_and_never_private() {
    // Made by OpenSSL 3: `openssl genpkey` and `openssl pkey -pubout`.
    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAwqSPpSXkoxKBdZ1BPeQ2QSAVYu3jEwU+MsivC3/r3pA=\n-----END PUBLIC KEY-----\n";
    const P256: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbXT5/eRDln3R1i9ajm7ZMQEuOOms\nupbuqkHO6VdMdnj3VWN9qwoZxPzLYaNBWKBoprbHQpjdIm9CWG50KvyW4g==\n-----END PUBLIC KEY-----\n";
    let ids = ids();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key");
    for (pem, kid) in [
        (ED25519, "JqkE7EVeREFjypEuM8W78uX_kiD_mkqey5pDzHRVvGI"),
        (P256, "jVsKQ7gE-bwkBJpo9TKlGdQ6nm-HsrqL8CBp4wbDElY"),
    ] {
        std::fs::write(&path, pem).expect("writes");
        let keys = files::read(&path).expect(pem);
        assert_eq!(keys.iter().map(VerifyingKey::kid).collect::<Vec<_>>(), [kid]);
    }
    let key = SigningKey::generate(&ids).expect("a key");
    std::fs::write(&path, json(&key)).expect("writes");
    assert_eq!(files::read(&path), Ok(vec![key.verifying_key()]));
    for bad in [key.to_pem().expose().as_str(), "", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
        std::fs::write(&path, bad).expect("writes");
        assert!(files::read(&path).is_err());
    }
    assert!(files::read(&dir.path().join("none")).is_err());
}

#[test]
fn the_sandbox_makes_its_clients_once_and_leaves_the_configured_ones_alone() {
    let ids = ids();
    let dir = tempfile::tempdir().expect("a directory");
    let own = SigningKey::generate(&ids).expect("a key");
    let config = Config {
        entry_points: vec![entry_point("qq", &[json(&own)], &[])],
        sandbox_keys_dir: Some(dir.path().join("clients")),
        ..Config::default()
    };
    let made = Registry::build(&config, &ids).expect("builds");
    let read = Registry::build(&config, &ids).expect("builds again");
    assert_eq!(made.keys, read.keys);
    let clients = [&SANDBOX_ENTRY_POINTS[..], &SANDBOX_CLERKS, &SANDBOX_OPERATORS].concat();
    assert_eq!(made.by_id.len(), clients.len());
    assert!(!dir.path().join("clients/qq.pem").exists());
    assert!(std::fs::read_to_string(dir.path().join("clients/SANDBOX.txt")).expect("is there").contains("development"));
    let taobao = AgreementKey::load_or_create(&dir.path().join("clients/taobao.pem"), Curve::P256, &ids);
    let found = made.find(taobao.expect("reads").kid()).expect("is found");
    assert!(found.owner.as_ref() == "taobao" && matches!(found.key, VerifyingKey::P256 { .. }));
}
