//! What a citizen token tells to whom.

use std::collections::BTreeSet;
use std::time::Duration;

use contracts::identity::v1::IssueTokenRequest;
use identity::config::{Attribute, Audience};
use rpc::jose::{AgreementKey, Curve, JweError};
use rpc::token::{ACCESS_LIFE_MAX, Attributes, EntryPointToken, GATEWAY, StaffKind, StaffToken, TOKEN_BYTES_MAX, typ};
use runtime::secret::Pii;

use crate::rig::{CHANGSHA, NUMBER, Rig, TAIYUAN, person, told};

const OTHER_NUMBER: &str = "440524188001010014";

#[tokio::test]
async fn two_entry_points_cannot_join_a_citizen_and_cases_can() {
    let rig = Rig::start().await;
    let zhang = person("o1", NUMBER);
    let (_, at_wechat) = rig.citizen("wechat", &zhang, &[CHANGSHA, TAIYUAN]).await;
    let (_, at_alipay) = rig.citizen("alipay", &person("2088", NUMBER), &[CHANGSHA]).await;
    let (_, again) = rig.citizen("wechat", &zhang, &[CHANGSHA]).await;
    let (_, other) = rig.citizen("wechat", &person("o2", OTHER_NUMBER), &[CHANGSHA]).await;

    assert_eq!(at_wechat.sub, again.sub);
    assert_ne!(at_wechat.jti, again.jti);
    let mut subjects = BTreeSet::from([at_wechat.sub.clone(), at_alipay.sub.clone(), other.sub.clone()]);
    let mut cases = Vec::new();
    for token in [&at_wechat, &at_alipay, &other] {
        cases.push(rig.open("cases", &token.sealed["cases"], ACCESS_LIFE_MAX).await);
    }
    assert_eq!(cases[0].sub, cases[1].sub, "one citizen's cases join across entry points");
    assert_ne!(cases[0].sub, cases[2].sub);
    assert_eq!(cases[0].attrs, Attributes::default(), "cases learns nothing else");
    subjects.extend([cases[0].sub.clone(), cases[2].sub.clone()]);

    let changsha = rig.open(CHANGSHA, &at_wechat.sealed[CHANGSHA], ACCESS_LIFE_MAX).await;
    let taiyuan = rig.open(TAIYUAN, &at_wechat.sealed[TAIYUAN], ACCESS_LIFE_MAX).await;
    let by_alipay = rig.open(CHANGSHA, &at_alipay.sealed[CHANGSHA], ACCESS_LIFE_MAX).await;
    assert_eq!(changsha.sub, by_alipay.sub, "a department knows its own citizen");
    subjects.extend([changsha.sub, taiyuan.sub]);
    assert_eq!(subjects.len(), 7, "no two sectors share a subject");
}

#[tokio::test]
async fn a_token_says_what_the_contract_promises() {
    let rig = Rig::start().await;
    let (text, token) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await;
    assert!(text.len() <= TOKEN_BYTES_MAX);
    assert_eq!((token.iss.as_str(), token.aud.as_str(), token.act.sub.as_str()), ("identity", "gateway", "wechat"));
    assert_eq!((token.level, token.consents.as_slice()), (3, &["traffic.violation".to_owned()][..]));
    assert_eq!(token.exp.time().since(token.iat.time()), Duration::from_secs(900));
    assert_eq!(token.nbf, token.iat);
    assert_eq!(token.scope, "book handle inform pay query");
    let audiences: Vec<_> = token.sealed.keys().map(String::as_str).collect();
    assert_eq!(audiences, ["cases", "identity", CHANGSHA]);

    let inner = rig.open(CHANGSHA, &token.sealed[CHANGSHA], ACCESS_LIFE_MAX).await;
    assert_eq!((inner.iss.as_str(), inner.aud.as_str(), inner.level), ("identity", CHANGSHA, 3));
    assert_eq!((inner.exp, inner.grant), (token.exp, None));
    let told = Attributes {
        name: Some(Pii::new("张三".to_owned())),
        doc_type: Some("resident_id".to_owned()),
        doc_no: Some(Pii::new(NUMBER.to_owned())),
        ..Attributes::default()
    };
    assert_eq!(inner.attrs, told, "name, document type and number, and not the phone or the plates");
    // A department cannot open what is sealed for another.
    let (_, both) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA, TAIYUAN]).await;
    let wrong = rpc::jose::open(&both.sealed[TAIYUAN], &rig.opening[CHANGSHA]);
    assert_eq!(wrong.map(drop), Err(JweError::Kid));
}

#[tokio::test]
async fn a_p256_sealing_and_a_number_of_fifteen_digits_are_the_same_citizen() {
    let rig = Rig::start().await;
    let key = rig.identity_key(Curve::P256).await;
    let request = |number| rig.caller("qq").citizen_token(&person("q", number), &[CHANGSHA], &key).expect("signs");
    let mut subjects = BTreeSet::new();
    for number in ["610104620927690", "610104196209276908"] {
        let token = rig.issue(request(number)).await.expect("issues").access_token;
        let verifier = rig.verifier(typ::CITIZEN, GATEWAY, ACCESS_LIFE_MAX).await;
        let claims = verifier.verify::<rpc::token::CitizenToken>(&token).expect("verifies").claims;
        let inner = rig.open(CHANGSHA, &claims.sealed[CHANGSHA], ACCESS_LIFE_MAX).await;
        assert_eq!(inner.attrs.doc_no, Some(Pii::new("610104196209276908".to_owned())));
        subjects.insert(claims.sub);
    }
    assert_eq!(subjects.len(), 1);
}

#[tokio::test]
async fn a_profile_gets_the_attributes_that_its_settings_name() {
    let rig = Rig::bare(|config| {
        let plates = Audience { attributes: [Attribute::Plates, Attribute::Phone].into() };
        config.audiences.insert(CHANGSHA.to_owned(), plates);
    })
    .await;
    rig.register_peers().await;
    let (_, token) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await;
    let inner = rig.open(CHANGSHA, &token.sealed[CHANGSHA], ACCESS_LIFE_MAX).await;
    assert_eq!(inner.attrs.plates, [Pii::new("湘A12345".to_owned())]);
    assert!(inner.attrs.phone.is_some() && inner.attrs.name.is_none() && inner.attrs.doc_no.is_none());
}

#[tokio::test]
async fn an_impossible_number_is_refused_by_its_rule() {
    let rig = Rig::start().await;
    let key = rig.identity_key(Curve::X25519).await;
    for (number, rule) in [
        ("11010519491231002", "length"),
        ("1101051949123100XX", "character"),
        ("999999194912310020", "region"),
        ("110105202608020020", "birth_date"),
        ("110105194912310021", "check_character"),
    ] {
        let request = rig.caller("wechat").citizen_token(&person("o1", number), &[CHANGSHA], &key).expect("signs");
        let refused = rig.issue(request).await.expect_err("is refused");
        assert_eq!(told(&refused), format!("DOCUMENT_NUMBER_INVALID {rule}"));
        assert!(!format!("{refused:?}").contains(number), "the number is not repeated");
    }
}

#[tokio::test]
async fn claims_that_are_missing_are_named() {
    let rig = Rig::start().await;
    let key = rig.identity_key(Curve::X25519).await;
    let mut nameless = person("o1", NUMBER);
    nameless.attributes.name = None;
    let mut levelless = person("o1", NUMBER);
    levelless.level = 0;
    for (person, check) in [(nameless, "name"), (levelless, "level")] {
        let request = rig.caller("wechat").citizen_token(&person, &[CHANGSHA], &key).expect("signs");
        let refused = rig.issue(request).await.expect_err("is refused");
        assert_eq!(told(&refused), format!("REAL_NAME_ASSERTION_INVALID {check}"));
    }
}

#[tokio::test]
async fn audiences_are_known_profiles_few_and_short() {
    let rig = Rig::start().await;
    let key = rig.identity_key(Curve::X25519).await;
    let asked = |profiles: &[&str]| rig.caller("wechat").citizen_token(&person("o1", NUMBER), profiles, &key);
    let nine: Vec<String> = (0..9).map(|n| format!("traffic/43010{n}")).collect();
    let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
    for (profiles, problem) in [
        (&[][..], "missing"),
        (&nine, "too_many"),
        (&[CHANGSHA, CHANGSHA], "too_many"),
        (&["identity"], "malformed"),
        (&["adapter/traffic/430100"], "malformed"),
        (&["traffic/999999"], "unknown"),
    ] {
        let refused = rig.issue(asked(profiles).expect("signs")).await.expect_err(problem);
        assert_eq!(told(&refused), format!("AUDIENCE_UNKNOWN {problem}"));
    }
}

#[tokio::test]
async fn a_token_that_would_not_fit_a_header_is_refused_with_its_length() {
    let rig = Rig::start().await;
    let profiles: Vec<String> = (0..8).map(|n| format!("library/43010{n}")).collect();
    for profile in &profiles {
        let key = AgreementKey::generate(Curve::X25519, &rig.context.ids).expect("a key");
        let (owner, jwk) = (format!("adapter/{profile}"), crate::rig::json(&key.jwk()));
        rig.register(rpc::Role::Adapter, &owner, contracts::identity::v1::KeyUse::Seal, &jwk).await.expect("registers");
    }
    let key = rig.identity_key(Curve::X25519).await;
    let mut fitted = 0;
    for count in 1..=8 {
        let profiles: Vec<&str> = profiles.iter().take(count).map(String::as_str).collect();
        let request = rig.caller("wechat").citizen_token(&person("o1", NUMBER), &profiles, &key).expect("signs");
        match rig.issue(request).await {
            Ok(token) => {
                assert!(token.access_token.len() <= TOKEN_BYTES_MAX);
                fitted = count;
            }
            Err(refused) => {
                assert_eq!(told(&refused), "AUDIENCE_UNKNOWN too_long");
                assert!(refused.message().contains("8 KiB") && refused.message().contains("fewer profiles"));
            }
        }
    }
    assert!((3..8).contains(&fitted), "{fitted} profiles fit");
}

#[tokio::test]
async fn no_citizen_token_leaves_before_cases_has_a_key() {
    let rig = Rig::bare(|_| {}).await;
    let changsha = crate::rig::json(&rig.opening[CHANGSHA].jwk());
    let owner = format!("adapter/{CHANGSHA}");
    rig.register(rpc::Role::Adapter, &owner, contracts::identity::v1::KeyUse::Seal, &changsha)
        .await
        .expect("registers");
    let key = rig.identity_key(Curve::X25519).await;
    let request = rig.caller("wechat").citizen_token(&person("o1", NUMBER), &[CHANGSHA], &key).expect("signs");
    let refused = rig.issue(request).await.expect_err("is refused");
    assert!(refused.is_common("PEER_UNAVAILABLE") && refused.metadata("peer") == Some("cases"), "{refused}");
    assert!(matches!(refused.retry(), rpc::Retry::After(_)));
}

#[tokio::test]
async fn entry_points_and_clerks_get_tokens_of_their_own_kinds() {
    let rig = Rig::start().await;
    let own = rig.issue(rig.caller("wechat").own_token().expect("signs")).await.expect("issues");
    assert_eq!((own.token_type.as_str(), own.expires_in_seconds), ("Bearer", 900));
    assert_eq!(own.scope, "book handle inform pay query");
    let verifier = rig.verifier(typ::ENTRY_POINT, GATEWAY, ACCESS_LIFE_MAX).await;
    let claims = verifier.verify::<EntryPointToken>(&own.access_token).expect("verifies").claims;
    assert_eq!((claims.sub.as_str(), claims.scope), ("wechat", own.scope));

    let clerk = rig.issue(rig.caller("clerk-1").own_token().expect("signs")).await.expect("issues");
    let verifier = rig.verifier(typ::STAFF, GATEWAY, ACCESS_LIFE_MAX).await;
    let claims = verifier.verify::<StaffToken>(&clerk.access_token).expect("verifies").claims;
    assert_eq!((claims.sub.as_str(), claims.kind), ("clerk-1", StaffKind::Clerk));
    assert_eq!(
        (claims.departments, claims.regions),
        (vec!["traffic".to_owned()], vec!["140100".into(), "430100".into()])
    );
    assert!(verifier.verify::<StaffToken>(&own.access_token).is_err(), "one kind is never taken for another");

    let key = rig.identity_key(Curve::X25519).await;
    let exchange = rig.caller("clerk-1").citizen_token(&person("o1", NUMBER), &[CHANGSHA], &key).expect("signs");
    assert_eq!(told(&rig.issue(exchange).await.expect_err("is refused")), "ENTRY_POINT_UNKNOWN no_entry_point");
}

#[tokio::test]
async fn scopes_are_granted_as_asked_and_never_beyond() {
    let rig = Rig::start().await;
    let asked = |id: &str, scope: &str| {
        let request = rig.caller(id).own_token().expect("signs");
        rig.issue(IssueTokenRequest { scope: scope.to_owned(), ..request })
    };
    assert_eq!(asked("wechat", "query pay").await.expect("issues").scope, "pay query");
    assert_eq!(told(&asked("wechat", "query admin").await.expect_err("is refused")), "SCOPE_REFUSED");
    assert_eq!(told(&asked("clerk-1", "query").await.expect_err("is refused")), "SCOPE_REFUSED");
}

#[tokio::test]
async fn a_request_that_breaks_the_contract_names_every_field() {
    let rig = Rig::start().await;
    let refused = rig.issue(IssueTokenRequest { grant_type: "password".to_owned(), ..Default::default() }).await;
    assert_eq!(told(&refused.expect_err("is refused")), "GRANT_TYPE_UNSUPPORTED");
    for (grant_type, fields) in [
        (
            rpc::oauth::TOKEN_EXCHANGE,
            vec!["client_assertion_type", "client_assertion", "subject_token_type", "subject_token"],
        ),
        (rpc::oauth::CLIENT_CREDENTIALS, vec!["client_assertion_type", "client_assertion", "audience"]),
    ] {
        let audience = vec![CHANGSHA.to_owned()];
        let refused =
            rig.issue(IssueTokenRequest { grant_type: grant_type.to_owned(), audience, ..Default::default() });
        let refused = refused.await.expect_err("is refused");
        let named: Vec<_> = refused.violations().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, fields);
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_same_token() {
    let mut tokens = Vec::new();
    for seed in [7, 7, 8] {
        let rig = Rig::seeded(seed).await;
        tokens.push(rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await.0);
    }
    assert_eq!(tokens[0], tokens[1], "a simulation replays");
    assert_ne!(tokens[0], tokens[2]);
}
