//! The list of public keys.

use contracts::identity::v1::{KeyUse, ListKeysRequest};
use rpc::jose::{AgreementKey, Curve, SigningKey};
use rpc::keyring::{KeyRing, Options, OwnKey};
use rpc::{RemoteFault, Role};
use std::time::Duration;

use crate::rig::{CHANGSHA, NUMBER, Rig, json, person, told};

#[tokio::test]
async fn a_role_registers_what_is_its_own() {
    let rig = Rig::bare(|_| {}).await;
    let ids = &rig.context.ids;
    let signing = SigningKey::generate(ids).expect("a key");
    let opening = AgreementKey::generate(Curve::X25519, ids).expect("a key");
    let p256 = AgreementKey::generate(Curve::P256, ids).expect("a key");
    let private = json(&signing.jwk()).replacen('{', "{\"d\":\"AAAA\",", 1);
    let misnamed = json(&signing.jwk()).replace(signing.kid(), "x");
    for (role, owner, key_use, jwk, check) in [
        (Role::Cases, "gateway", KeyUse::Sign, json(&signing.jwk()), "owner"),
        (Role::Adapter, "identity", KeyUse::Sign, json(&signing.jwk()), "owner"),
        (Role::Cases, "adapter/traffic/430100", KeyUse::Seal, json(&opening.jwk()), "owner"),
        (Role::Cases, "cases", KeyUse::Sign, private, "private"),
        (Role::Cases, "cases", KeyUse::Sign, misnamed, "kid"),
        (Role::Cases, "cases", KeyUse::Sign, json(&opening.jwk()), "kind"),
        (Role::Cases, "cases", KeyUse::Seal, json(&signing.jwk()), "kind"),
        (Role::Cases, "cases", KeyUse::Seal, json(&p256.jwk()), "kind"),
        (Role::Cases, "cases", KeyUse::Unspecified, json(&signing.jwk()), "kind"),
        (Role::Cases, "cases", KeyUse::Sign, "{}".to_owned(), "kind"),
    ] {
        let refused = rig.register(role, owner, key_use, &jwk).await.expect_err(check);
        assert_eq!(told(&refused), format!("KEY_REFUSED {check}"), "{role:?} {owner} {jwk}");
    }
    let first = rig.register(Role::Cases, "cases", KeyUse::Sign, &json(&signing.jwk())).await.expect("registers");
    rig.hand.advance(Duration::from_secs(60));
    let again = rig.register(Role::Cases, "cases", KeyUse::Sign, &json(&signing.jwk())).await.expect("registers");
    assert_eq!(first, again, "idempotent by the thumbprint");
    let stolen = rig.register(Role::Gateway, "gateway", KeyUse::Sign, &json(&signing.jwk())).await;
    assert_eq!(told(&stolen.expect_err("is refused")), "KEY_REFUSED owned_by_another");
}

#[tokio::test]
async fn roles_that_only_read_register_nothing() {
    let rig = Rig::bare(|_| {}).await;
    let key = SigningKey::generate(&rig.context.ids).expect("a key");
    let refused = rig.register(Role::Payments, "payments", KeyUse::Sign, &json(&key.jwk())).await;
    assert!(refused.expect_err("is refused").is_common("CALLER_NOT_ALLOWED"));
    let refused = rig.client(Role::Sandbox).list_keys(ListKeysRequest { known_version: 0 }).await;
    assert!(RemoteFault::from(refused.expect_err("is refused")).is_common("CALLER_NOT_ALLOWED"));
}

#[tokio::test]
async fn an_owner_has_a_bounded_number_of_keys() {
    let rig = Rig::bare(|_| {}).await;
    let mut kept = 0;
    let refused = loop {
        let key = SigningKey::generate(&rig.context.ids).expect("a key");
        match rig.register(Role::Cases, "cases", KeyUse::Sign, &json(&key.jwk())).await {
            Ok(_) => kept += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((kept, told(&refused).as_str()), (64, "KEY_REFUSED too_many"));
}

#[tokio::test]
async fn the_version_tells_whether_there_is_news() {
    let rig = Rig::bare(|_| {}).await;
    let list = async |known_version| {
        let answer = rig.client(Role::Catalog).list_keys(ListKeysRequest { known_version }).await;
        answer.expect("answers").into_inner()
    };
    let first = list(0).await;
    assert!(first.version > 0 && first.keys.len() == 3);
    let same = list(first.version).await;
    assert_eq!((same.version, same.keys.len()), (first.version, 0));
    rig.register_peers().await;
    let news = list(first.version).await;
    assert!(news.version > first.version && news.keys.len() == 6);
    let owners: Vec<_> = news.keys.iter().map(|key| key.owner.as_str()).collect();
    assert!(owners.is_sorted(), "{owners:?}");
}

#[tokio::test]
async fn a_ring_over_the_real_service_has_everybodys_keys() {
    let rig = Rig::start().await;
    let signing = SigningKey::generate(&rig.context.ids).expect("a key");
    let own = vec![OwnKey::sign("gateway", &signing)];
    let ring = KeyRing::start(&rig.mesh.caller(Role::Gateway), &rig.context, own, Options::default());
    ring.registered(Duration::from_secs(30)).await.expect("registers");
    assert_eq!(ring.seal_key(&format!("adapter/{CHANGSHA}")), Some(*rig.opening[CHANGSHA].public()));
    let (token, _) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await;
    let kid = rpc::jose::parse(&token, 8_192).expect("is a token").header().kid.clone();
    assert!(ring.verify_key("identity", &kid).is_some());
    assert_eq!(rpc::oauth::jwks(&ring.keys()).keys.len(), 3, "identity's three and no other role's");
}

#[tokio::test]
async fn a_new_signing_key_signs_and_the_old_one_still_verifies() {
    let rig = Rig::start().await;
    let (before, _) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await;
    SigningKey::load_or_create(&rig.dir.path().join("keys/sign-2.pem"), &rig.context.ids).expect("makes a key");
    rig.mount(|_| {}).await;
    // `citizen` verifies with the list, which now has both.
    let (after, _) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await;
    let kid = |token: &str| rpc::jose::parse(token, 8_192).expect("is a token").header().kid.clone();
    assert_ne!(kid(&before), kid(&after));
    let keys = rig.keys().await;
    assert!(keys.verify_key("identity", &kid(&before)).is_some());
}
