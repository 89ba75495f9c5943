//! Case grants.

use std::time::Duration;

use contracts::identity::v1::{IssueCaseGrantRequest, IssueCaseGrantResponse};
use rpc::token::{GRANT_LIFE_MAX, Grant};
use rpc::{RemoteFault, Role};
use runtime::secret::Pii;

use crate::rig::{CHANGSHA, NUMBER, Rig, START, TAIYUAN, person, told};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn ask(citizen_token: &str) -> IssueCaseGrantRequest {
    IssueCaseGrantRequest {
        request_id: "case_1".to_owned(),
        citizen_token: citizen_token.to_owned(),
        profile: CHANGSHA.to_owned(),
        item: "traffic.violation".to_owned(),
        operations: vec!["SettleBill".to_owned(), "InquireBill".to_owned()],
        valid_until: Some(rpc::time::to_proto(START.plus(90 * DAY))),
    }
}

async fn grant(rig: &Rig, request: IssueCaseGrantRequest) -> Result<IssueCaseGrantResponse, RemoteFault> {
    Ok(rig.client(Role::Cases).issue_case_grant(request).await?.into_inner())
}

#[tokio::test]
async fn a_grant_tells_the_profile_the_same_citizen_for_one_case_until_its_end() {
    let rig = Rig::start().await;
    let (text, token) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await;
    let answer = grant(&rig, ask(&text)).await.expect("grants");
    assert_eq!(answer.expire_time, ask(&text).valid_until);
    let inner = rig.open(CHANGSHA, &answer.grant, GRANT_LIFE_MAX).await;
    let under_token = rig.open(CHANGSHA, &token.sealed[CHANGSHA], GRANT_LIFE_MAX).await;
    assert_eq!(inner.sub, under_token.sub);
    assert_eq!(inner.attrs, under_token.attrs);
    assert_eq!(inner.attrs.doc_no, Some(Pii::new(NUMBER.to_owned())));
    assert_eq!(inner.exp.time(), START.plus(90 * DAY));
    let expected = Grant {
        case_id: "case_1".to_owned(),
        item: "traffic.violation".to_owned(),
        operations: vec!["SettleBill".to_owned(), "InquireBill".to_owned()],
    };
    assert_eq!(inner.grant, Some(expected));
}

#[tokio::test]
async fn the_same_request_gets_the_same_grant_also_after_the_tokens_end() {
    let rig = Rig::start().await;
    let (text, _) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await;
    let first = grant(&rig, ask(&text)).await.expect("grants");
    rig.hand.advance(Duration::from_secs(3_600));
    assert_eq!(grant(&rig, ask(&text)).await.expect("grants again"), first);
    // The citizen came back with a new token before cases had the answer.
    let (renewed, _) = rig.citizen("alipay", &person("a", NUMBER), &[CHANGSHA]).await;
    assert_eq!(grant(&rig, ask(&renewed)).await.expect("grants again"), first);

    let other_item = IssueCaseGrantRequest { item: "traffic.licence".to_owned(), ..ask(&text) };
    assert!(grant(&rig, other_item).await.expect_err("is refused").is_common("REQUEST_ID_REUSED"));
    let (somebody, _) = rig.citizen("wechat", &person("o2", "440524188001010014"), &[CHANGSHA]).await;
    assert!(grant(&rig, ask(&somebody)).await.expect_err("is refused").is_common("REQUEST_ID_REUSED"));
}

#[tokio::test]
async fn only_a_living_citizen_token_of_the_addressed_profile_is_exchanged() {
    let rig = Rig::start().await;
    let (text, _) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await;
    let own = rig.issue(rig.caller("wechat").own_token().expect("signs")).await.expect("issues").access_token;
    let elsewhere = IssueCaseGrantRequest { profile: TAIYUAN.to_owned(), ..ask(&text) };
    let cut = text[..text.len() - 2].to_owned();
    for (request, check) in [(elsewhere, "aud"), (ask(&own), "typ"), (ask(&cut), "signature"), (ask("x"), "shape")] {
        assert_eq!(told(&grant(&rig, request).await.expect_err("is refused")), format!("TOKEN_INVALID {check}"));
    }
    rig.hand.advance(Duration::from_secs(906));
    assert_eq!(told(&grant(&rig, ask(&text)).await.expect_err("is refused")), "TOKEN_INVALID exp");
}

#[tokio::test]
async fn cases_alone_may_ask() {
    let rig = Rig::start().await;
    let (text, _) = rig.citizen("wechat", &person("o1", NUMBER), &[CHANGSHA]).await;
    for role in [Role::Gateway, Role::Adapter, Role::Payments] {
        let refused = rig.client(role).issue_case_grant(ask(&text)).await.expect_err("is refused");
        assert!(RemoteFault::from(&refused).is_common("CALLER_NOT_ALLOWED"));
    }
}

#[tokio::test]
async fn a_request_that_breaks_the_contract_names_every_field() {
    let rig = Rig::start().await;
    let nothing = grant(&rig, IssueCaseGrantRequest::default()).await.expect_err("is refused");
    let named: Vec<_> = nothing.violations().iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(named, ["request_id", "citizen_token", "profile", "item", "operations", "valid_until"]);
    let until = |at| Some(rpc::time::to_proto(at));
    for (request, field) in [
        (IssueCaseGrantRequest { operations: vec!["DropTables".to_owned()], ..ask("x") }, "operations"),
        (IssueCaseGrantRequest { valid_until: until(START), ..ask("x") }, "valid_until"),
        (IssueCaseGrantRequest { valid_until: until(START.plus(401 * DAY)), ..ask("x") }, "valid_until"),
    ] {
        let refused = grant(&rig, request).await.expect_err("is refused");
        let named: Vec<_> = refused.violations().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, [field]);
    }
}
