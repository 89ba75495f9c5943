//! Keys, names, pages and refusals.

use std::collections::BTreeSet;

use contracts::payments::v1 as pb;
use lastmile_tests::golden;
use pb::OrderState;
use store::{At, Fault};
use tonic::Code;

use super::on_each_engine;
use super::rig::{AMOUNT, CHANGSHA, Engine, Rig, STRANGER, code, in_seconds, jsapi, native, refund, until};

on_each_engine!(
    fifty_at_once_have_one_effect,
    what_competes_never_gives_out_more_than_came_in,
    after_settlement_the_payee_gives_back,
    a_key_is_not_reused,
    what_is_wrong_is_refused_with_its_reason,
    a_store_that_fails_says_what_may_have_happened,
    things_are_found_by_their_request,
    transfers_are_paged,
);

async fn fifty_at_once_have_one_effect(engine: Engine) {
    let rig = Rig::new(engine).await;
    let answers = futures::future::join_all((0..50).map(|_| rig.create(jsapi("same")))).await;
    let order = answers[0].clone().expect("creates");
    assert!(answers.into_iter().all(|answer| answer.expect("answers") == order));
    assert_eq!(rig.journalled("order_created"), 1);
    rig.pay(&order, CHANGSHA).await;
    rig.in_state(&order.order_id, OrderState::Paid).await;

    let refunds = futures::future::join_all((0..50).map(|_| rig.refund(refund("back", &order, AMOUNT / 2)))).await;
    let first = refunds[0].clone().expect("accepts");
    assert!(refunds.into_iter().all(|answer| answer.expect("answers") == first));
    rig.refund_in_state(&first.refund_id, pb::RefundState::Succeeded).await;
    assert_eq!(rig.journalled("refund_created"), 1);
    rig.in_state(&order.order_id, OrderState::Paid).await;

    let posted = futures::future::join_all((0..50).map(|_| rig.post("post", &order.order_id))).await;
    let first = posted[0].clone().expect("posts");
    assert!(posted.into_iter().all(|answer| answer.expect("answers") == first));
    assert_eq!(rig.balance("payee/traffic-430100").await, (0, AMOUNT / 2));
    assert_eq!(rig.assert_sound().await, 0);
}

async fn what_competes_never_gives_out_more_than_came_in(engine: Engine) {
    let rig = Rig::new(engine).await;
    for round in 0..3 {
        let order = rig.paid(jsapi(&format!("r{round}"))).await;
        let post = async |number: usize| rig.post(&format!("p{round}-{number}"), &order.order_id).await.is_ok();
        let back = async |number: usize| {
            let request = refund(&format!("f{round}-{number}"), &order, AMOUNT / 4);
            rig.refund(request).await.ok().map(|record| record.refund_id)
        };
        let posts = futures::future::join_all((0..5).map(post));
        let (refunds, posts) = tokio::join!(futures::future::join_all((0..20).map(back)), posts);
        let refunds: Vec<_> = refunds.into_iter().flatten().collect();
        for refund_id in &refunds {
            rig.refund_in_state(refund_id, pb::RefundState::Succeeded).await;
        }
        let is_posted = posts.contains(&true);
        assert!(
            refunds.len() <= 4 && (!is_posted || refunds.len() < 4),
            "{} refunds, posted: {is_posted}",
            refunds.len()
        );
        assert!(is_posted || refunds.len() == 4, "somebody must have got it all");
        let taken = i64::try_from(refunds.len()).expect("small") * (AMOUNT / 4);
        let suspense = rig.balance(&format!("suspense/{}", order.order_id)).await;
        assert_eq!(suspense, (if is_posted { AMOUNT } else { taken }, AMOUNT));
        rig.assert_sound().await;
    }
}

/// What went to the payee comes back at its cost: in parts, never more than it got, and the channel sends it to the citizen.
async fn after_settlement_the_payee_gives_back(engine: Engine) {
    let rig = Rig::new(engine).await;
    let given_back = |request_id: &str, order: &pb::Order, amount: i64| pb::RefundRequest {
        after_settlement: true,
        ..refund(request_id, order, amount)
    };
    let order = rig.paid(jsapi("r")).await;
    let early = rig.refund(given_back("early", &order, 1)).await.expect_err("not posted");
    assert_eq!(early.reason(), "ORDER_NOT_POSTED");
    rig.post("p", &order.order_id).await.expect("posts");
    let part = rig.refund(given_back("part", &order, AMOUNT / 4)).await.expect("accepts");
    assert!(part.after_settlement && part.send_by_time.is_some());
    let more = rig.refund(given_back("more", &order, AMOUNT)).await.expect_err("too much");
    assert_eq!(more.reason(), "REFUND_EXCEEDS_CAPTURE");
    rig.refund_in_state(&part.refund_id, pb::RefundState::Succeeded).await;
    rig.in_state(&order.order_id, OrderState::Posted).await;
    assert_eq!(rig.balance("payee/traffic-430100").await, (AMOUNT / 4, AMOUNT));
    rig.post("p", &order.order_id).await.expect("the same answer");
    let rest = rig.refund(given_back("rest", &order, AMOUNT - AMOUNT / 4)).await.expect("accepts");
    rig.refund_in_state(&rest.refund_id, pb::RefundState::Succeeded).await;
    rig.in_state(&order.order_id, OrderState::Refunded).await;
    assert_eq!(rig.balance("payee/traffic-430100").await, (AMOUNT, AMOUNT));
    assert_eq!(rig.journalled("refund_created"), 2);
    assert_eq!(rig.assert_sound().await, 0);
}

async fn a_key_is_not_reused(engine: Engine) {
    let rig = Rig::new(engine).await;
    rig.create(jsapi("r1")).await.expect("creates");
    let other = pb::CreateOrderRequest { description: "other".into(), ..jsapi("r1") };
    let fault = rig.create(other).await.expect_err("refused");
    assert_eq!(
        (code(&fault), fault.domain(), fault.reason()),
        (Code::FailedPrecondition, "common.lastmile", "REQUEST_ID_REUSED")
    );
    assert_eq!(fault.effect(), rpc::Effect::None);
    let order = rig.paid(jsapi("r2")).await;
    rig.refund(refund("f1", &order, 1)).await.expect("accepts");
    let fault = rig.refund(refund("f1", &order, 2)).await.expect_err("refused");
    assert_eq!(fault.reason(), "REQUEST_ID_REUSED");
    assert_eq!(rig.order(&order.order_id).await.refunded.map(|money| money.amount_minor), Some(1));
}

async fn what_is_wrong_is_refused_with_its_reason(engine: Engine) {
    let rig = Rig::new(engine).await;
    let refused = async |request| {
        let fault = rig.create(request).await.expect_err("refused");
        assert_eq!(fault.effect(), rpc::Effect::None);
        (code(&fault), fault.reason().to_owned())
    };
    let rule = |reason: &str| (Code::FailedPrecondition, reason.to_owned());
    let payee = pb::CreateOrderRequest { payee_id: "traffic-999999".into(), ..jsapi("r") };
    assert_eq!(refused(payee).await, rule("PAYEE_UNKNOWN"));
    let channel = pb::CreateOrderRequest { channel: "alipay".into(), ..jsapi("r") };
    assert_eq!(refused(channel).await, rule("CHANNEL_NOT_OFFERED"));
    let entry_point = pb::CreateOrderRequest { entry_point: "weibo".into(), ..jsapi("r") };
    assert_eq!(refused(entry_point).await, rule("MERCHANT_UNKNOWN"));
    // What the channel itself refuses, for good: its word is the answer, the same for every try, and nothing was made there.
    let strangers = || pb::CreateOrderRequest { entry_point: STRANGER.into(), ..jsapi("stranger") };
    for _ in 0..2 {
        let answer = rig.client.clone().create_order(strangers()).await;
        let told = [("channelCode", "APPID_MCHID_NOT_MATCH")];
        golden::refused(answer, "payments CHANNEL_REFUSED", &told).expect("is refused by the channel");
    }
    assert_eq!(rig.journalled("order_created"), 0);
    let past = pb::CreateOrderRequest { expire_time: Some(in_seconds(-60)), ..jsapi("r") };
    assert_eq!(refused(past).await, (Code::InvalidArgument, "INVALID_REQUEST".into()));
    assert_eq!(refused(pb::CreateOrderRequest::default()).await, (Code::InvalidArgument, "INVALID_REQUEST".into()));

    let order = rig.create(jsapi("r")).await.expect("the key is still free");
    assert_eq!(rig.post("p", &order.order_id).await.expect_err("refused").reason(), "ORDER_NOT_PAID");
    assert_eq!(rig.refund(refund("f", &order, 1)).await.expect_err("refused").reason(), "ORDER_NOT_PAID");
    rig.pay(&order, CHANGSHA).await;
    rig.in_state(&order.order_id, OrderState::Paid).await;
    rig.post("p", &order.order_id).await.expect("the same key, now that it is paid");
    assert_eq!(rig.refund(refund("f", &order, 1)).await.expect_err("refused").reason(), "ORDER_POSTED");
}

/// A transaction that did not begin had no effect; one whose commit was not answered may have had it, and asking again tells.
async fn a_store_that_fails_says_what_may_have_happened(engine: Engine) {
    let rig = Rig::new(engine).await;
    for (number, (fault, at, effect)) in
        [(Fault::Fail, At::Begin, "NONE"), (Fault::Tear, At::AfterCommit, "POSSIBLE")].into_iter().enumerate()
    {
        let request = |attempt: usize| jsapi(&format!("r{number}-{attempt}"));
        let attempts = std::sync::atomic::AtomicUsize::new(0);
        // The worker uses the store as well: sometimes it is the one whose transaction suffers.
        let suffered = until("the caller's transaction fails", async || {
            let attempt = attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            rig.faults.arm(fault, at);
            let answer = rig.client.clone().create_order(request(attempt)).await;
            rig.faults.disarm();
            let status = answer.err()?;
            golden::keeps_to_its_row(&status, "common STORE_UNAVAILABLE", &[("effect", effect)]).expect("its row");
            Some(attempt)
        });
        let order = rig.create_at_last(&request(suffered.await)).await;
        assert_eq!(order.state(), OrderState::Waiting, "{fault:?}");
    }
    rig.assert_sound().await;
}

async fn things_are_found_by_their_request(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.paid(jsapi("r1")).await;
    let record = rig.refund(refund("f1", &order, 1)).await.expect("accepts");
    let (mut client, mut operators) = (rig.client.clone(), rig.operators.clone());
    let by_request = pb::GetOrderRequest { order_id: String::new(), request_id: "r1".into() };
    let found = client.get_order(by_request).await.expect("found").into_inner().order.expect("an order");
    assert_eq!(found.order_id, order.order_id);
    let by_request = pb::GetRefundRequest { refund_id: String::new(), request_id: "f1".into() };
    let found = client.get_refund(by_request).await.expect("found").into_inner().refund.expect("a refund");
    assert_eq!(found.refund_id, record.refund_id);

    let missing = |status: tonic::Status| (status.code(), rpc::RemoteFault::from(&status).reason().to_owned());
    let by_request = pb::GetOrderRequest { order_id: String::new(), request_id: "f1".into() };
    let status = client.get_order(by_request).await.expect_err("another method's key");
    assert_eq!(missing(status), (Code::NotFound, "ORDER_NOT_FOUND".into()));
    let by_id =
        pb::GetRefundRequest { refund_id: "rfd_00000000000000000000000000000000".into(), request_id: String::new() };
    let status = client.get_refund(by_id).await.expect_err("none");
    assert_eq!(missing(status), (Code::NotFound, "REFUND_NOT_FOUND".into()));
    let status =
        operators.get_account(pb::GetAccountRequest { account: "payee/nobody".into() }).await.expect_err("none");
    assert_eq!(missing(status), (Code::NotFound, "ACCOUNT_NOT_FOUND".into()));
    let status =
        operators.get_account(pb::GetAccountRequest { account: "bank/x".into() }).await.expect_err("no account");
    assert_eq!(status.code(), Code::InvalidArgument);
}

async fn transfers_are_paged(engine: Engine) {
    let rig = Rig::new(engine).await;
    let orders = futures::future::join_all((0..3).map(|number| rig.paid(jsapi(&format!("r{number}"))))).await;
    futures::future::join_all(orders.iter().map(|order| rig.post(&order.order_id[4..], &order.order_id))).await;
    rig.create(native("other")).await.expect("creates");

    let list = async |account: &str, order_id: &str, page_token: String| {
        let request =
            pb::ListTransfersRequest { account: account.into(), order_id: order_id.into(), page_size: 1, page_token };
        rig.operators.clone().list_transfers(request).await.expect("lists").into_inner()
    };
    let all = async |account: &str, order_id: &str| {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let page = list(account, order_id, token).await;
            assert!(page.transfers.len() <= 1);
            found.extend(page.transfers);
            if page.next_page_token.is_empty() {
                return found;
            }
            token = page.next_page_token;
        }
    };
    let merchant = format!("channel/wechatpay/{CHANGSHA}");
    let captures = all(&merchant, "").await;
    assert_eq!(captures.len(), 3);
    assert!(captures.is_sorted_by_key(|transfer| transfer.commit_time.map(|at| (at.seconds, at.nanos))));
    let ids: BTreeSet<_> = captures.iter().map(|transfer| transfer.transfer_id.clone()).collect();
    assert_eq!(ids, orders.iter().map(|order| format!("{}/capture", order.order_id)).collect());
    assert_eq!(all("payee/traffic-430100", "").await.len(), 3);
    let of_order = all("", &orders[0].order_id).await;
    assert_eq!(of_order.iter().map(|transfer| transfer.state.as_str()).collect::<Vec<_>>(), ["posted", "posted"]);
    assert_eq!(all(&merchant, &orders[0].order_id).await.len(), 1);
}
