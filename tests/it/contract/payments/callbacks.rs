//! What the channel reports, and what others pretend it did.

use bytes::Bytes;
use contracts::payments::v1 as pb;
use http::{Request, StatusCode};
use pb::{EventKind, OrderState, RefundState};
use runtime::config::Duration as Span;
use runtime::http::{Client, Options};
use sandbox::{Fault, Operation};

use super::on_each_engine;
use super::rig::{AMOUNT, CHANGSHA, Engine, Rig, jsapi, refund, until};

on_each_engine!(
    a_callback_that_never_comes_is_not_missed,
    doubled_late_and_forged_ones_book_once,
    a_refunds_callback_decides_it,
    callbacks_in_the_wrong_order_end_alike,
    strangers_are_refused,
);

async fn a_callback_that_never_comes_is_not_missed(engine: Engine) {
    let rig = Rig::new(engine).await;
    rig.stage(Operation::Notify, Fault::Lost, None);
    let order = rig.create(jsapi("r1")).await.expect("creates");
    rig.pay(&order, CHANGSHA).await;
    rig.in_state(&order.order_id, OrderState::Paid).await;
    rig.assert_held().await;
}

async fn doubled_late_and_forged_ones_book_once(engine: Engine) {
    let rig = Rig::new(engine).await;
    let faults = [Fault::Doubled, Fault::Forged, Fault::WrongSerial, Fault::Probe, Fault::Late];
    for (number, fault) in faults.into_iter().enumerate() {
        let delay = (fault == Fault::Late).then(|| Span::from_secs(1));
        rig.stage(Operation::Notify, fault, delay);
        let order = rig.create(jsapi(&format!("r{number}"))).await.expect("creates");
        rig.pay(&order, CHANGSHA).await;
        rig.in_state(&order.order_id, OrderState::Paid).await;
    }
    let events = rig.events(0, 0).await;
    assert_eq!(events.iter().map(pb::Event::kind).collect::<Vec<_>>(), [EventKind::OrderPaid; 5]);
    rig.assert_held().await;
}

async fn a_refunds_callback_decides_it(engine: Engine) {
    let rig = Rig::new(engine).await;
    for (number, (fault, end)) in
        [(None, RefundState::Succeeded), (Some(Fault::Closed), RefundState::Failed)].into_iter().enumerate()
    {
        let order = rig.paid(jsapi(&format!("r{number}"))).await;
        // Nobody answers a question about it: only the callback can tell, the genuine one behind a forged one.
        rig.stage_times(Operation::RefundQuery, Fault::ErrorBefore, 10_000);
        rig.stage(Operation::Notify, Fault::Forged, None);
        if let Some(fault) = fault {
            rig.stage(Operation::Refund, fault, None);
        }
        let record = rig.refund(refund(&format!("f{number}"), &order, AMOUNT)).await.expect("accepts");
        rig.refund_in_state(&record.refund_id, end).await;
        rig.sandbox.faults().clear();
    }
    rig.assert_held().await;
}

/// The channel tells of the payment when it has told of the refund.
async fn callbacks_in_the_wrong_order_end_alike(engine: Engine) {
    let rig = Rig::new(engine).await;
    rig.stage(Operation::Notify, Fault::Reordered, None);
    let order = rig.paid(jsapi("r1")).await;
    let record = rig.refund(refund("f1", &order, AMOUNT)).await.expect("accepts");
    rig.refund_in_state(&record.refund_id, RefundState::Succeeded).await;
    until("both callbacks", async || (rig.journalled("notice_ended") == 2).then_some(())).await;
    assert_eq!(rig.order(&order.order_id).await.state(), OrderState::Refunded);
    let events = rig.events(0, 0).await;
    assert_eq!(events.iter().filter(|event| event.kind() == EventKind::OrderPaid).count(), 1);
    rig.assert_held().await;
}

async fn strangers_are_refused(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.create(jsapi("r1")).await.expect("creates");
    let clock = runtime::Clock::system();
    let (seconds, _) = clock.now().seconds_nanos();
    let client = Client::new(runtime::Net::system(), clock, Options::default());
    let send = async |path: &str, headers: &[(&str, String)], body: &str| {
        let mut request = Request::post(format!("{}{path}", rig.callbacks));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Bytes::copy_from_slice(body.as_bytes())).expect("a request");
        let answer = client.send(request, std::time::Duration::from_secs(5), 4_096).await.expect("answers");
        let told = serde_json::from_slice::<serde_json::Value>(answer.body()).unwrap_or_default();
        (answer.status(), told["code"].as_str().unwrap_or_default().to_owned())
    };
    let signed = |signature: &str, at: i64| {
        vec![
            ("Wechatpay-Timestamp", at.to_string()),
            ("Wechatpay-Nonce", "n".to_owned()),
            ("Wechatpay-Serial", "PUB_KEY_ID_0000000000000000000000".to_owned()),
            ("Wechatpay-Signature", signature.to_owned()),
        ]
    };
    let path = format!("/callbacks/wechatpay/{CHANGSHA}");
    let body = format!("{{\"out_trade_no\":\"{}\"}}", order.channel_order_no);
    let refused = |status: StatusCode, code: &str| (status, code.to_owned());
    assert_eq!(send(&path, &[], &body).await, refused(StatusCode::BAD_REQUEST, "PARAM_ERROR"));
    assert_eq!(send(&path, &signed("AAAA", seconds), &body).await, refused(StatusCode::UNAUTHORIZED, "SIGN_ERROR"));
    assert_eq!(
        send(&path, &signed("AAAA", seconds - 301), &body).await,
        refused(StatusCode::UNAUTHORIZED, "SIGN_ERROR")
    );
    let probe = signed("WECHATPAY/SIGNTEST/AAAA", seconds);
    assert_eq!(send(&path, &probe, &body).await, refused(StatusCode::UNAUTHORIZED, "SIGN_ERROR"));
    let unknown = send("/callbacks/wechatpay/1900000009", &signed("AAAA", seconds), &body).await;
    assert_eq!(unknown, refused(StatusCode::NOT_FOUND, "MERCHANT_UNKNOWN"));
    let (status, _) = send(&path, &signed("AAAA", seconds), &"x".repeat(70_000)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(rig.order(&order.order_id).await.state(), OrderState::Waiting);
    assert_eq!(rig.events(0, 0).await, []);
}
