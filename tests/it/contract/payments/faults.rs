//! A channel that answers badly, late, or not at all: every order and refund still comes to the one right end.

use contracts::payments::v1 as pb;
use pb::{OrderState, RefundState};
use runtime::config::Duration as Span;
use sandbox::{Fault, Operation};

use super::on_each_engine;
use super::rig::{AMOUNT, CHANGSHA, Engine, OTHERS, Rig, jsapi, native, refund, until};

on_each_engine!(
    every_bad_answer_to_a_creation_ends_with_one_order,
    every_bad_answer_to_a_refund_ends_with_one_refund,
    closing_is_confirmed_through_bad_answers,
    an_order_that_nobody_pays_is_closed_at_its_end,
    a_refund_that_the_channel_closes_is_told,
    a_refund_that_reaches_nobody_or_stays_holds_its_money_until_somebody_ends_it,
    certificates_that_cannot_be_had_hold_up_and_lose_nothing,
);

/// What the sandbox can do to an answer.
const BAD: [Fault; 12] = [
    Fault::ErrorAfter,
    Fault::ErrorBefore,
    Fault::Busy,
    Fault::Slow,
    Fault::Hang,
    Fault::DropAfter,
    Fault::DropBefore,
    Fault::GarbleValue,
    Fault::GarbleCut,
    Fault::TooLong,
    Fault::Unsigned,
    Fault::BadSignature,
];

/// Longer than payments waits for the channel.
fn delay(fault: Fault) -> Option<Span> {
    matches!(fault, Fault::Slow).then(|| Span::from_secs(3))
}

async fn every_bad_answer_to_a_creation_ends_with_one_order(engine: Engine) {
    let rig = Rig::new(engine).await;
    for (number, fault) in BAD.into_iter().enumerate() {
        rig.stage(Operation::Order, fault, delay(fault));
        let request = jsapi(&format!("r{number}"));
        let first = rig.create(request.clone()).await.expect_err("no usable answer");
        assert_eq!((first.reason(), first.effect()), ("CHANNEL_UNAVAILABLE", rpc::Effect::Possible), "{fault:?}");
        let order = rig.create_at_last(&request).await;
        assert_eq!(order.state(), OrderState::Waiting, "{fault:?}");
        assert_eq!(rig.journalled("order_created"), number + 1, "{fault:?}: one order there");
        rig.pay(&order, CHANGSHA).await;
        rig.in_state(&order.order_id, OrderState::Paid).await;
    }
    rig.assert_held().await;
}

async fn every_bad_answer_to_a_refund_ends_with_one_refund(engine: Engine) {
    let rig = Rig::new(engine).await;
    for (number, fault) in BAD.into_iter().enumerate() {
        let order = rig.paid(jsapi(&format!("r{number}"))).await;
        rig.stage(Operation::Refund, fault, delay(fault));
        rig.stage(Operation::RefundQuery, fault, delay(fault));
        let record = rig.refund(refund(&format!("f{number}"), &order, AMOUNT)).await.expect("accepts");
        rig.refund_in_state(&record.refund_id, RefundState::Succeeded).await;
        rig.in_state(&order.order_id, OrderState::Refunded).await;
        assert_eq!(rig.journalled("refund_created"), number + 1, "{fault:?}: one refund there");
        rig.sandbox.faults().clear();
    }
    rig.assert_held().await;
}

async fn closing_is_confirmed_through_bad_answers(engine: Engine) {
    let rig = Rig::new(engine).await;
    for (number, fault) in
        [Fault::DropAfter, Fault::DropBefore, Fault::ErrorAfter, Fault::BadSignature].into_iter().enumerate()
    {
        let order = rig.create(jsapi(&format!("r{number}"))).await.expect("creates");
        rig.stage(Operation::Close, fault, None);
        rig.stage(Operation::Query, fault, None);
        let close = format!("c{number}");
        let closed = until("closed", async || {
            Some(rig.close(&close, &order.order_id).await).filter(|order| order.state() == OrderState::Closed)
        });
        closed.await;
        rig.sandbox.faults().clear();
    }
    assert_eq!(rig.journalled("order_closed"), 4);
    rig.assert_held().await;
}

async fn an_order_that_nobody_pays_is_closed_at_its_end(engine: Engine) {
    let rig = Rig::new(engine).await;
    let now = runtime::Clock::system().now().seconds_nanos().0;
    let end = prost_types::Timestamp { seconds: now + 3, nanos: 0 };
    let order = rig.create(pb::CreateOrderRequest { expire_time: Some(end), ..jsapi("r1") }).await.expect("creates");
    rig.in_state(&order.order_id, OrderState::Closed).await;
    rig.assert_held().await;
}

async fn a_refund_that_the_channel_closes_is_told(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.paid(jsapi("r1")).await;
    rig.stage(Operation::Refund, Fault::Closed, None);
    let record = rig.refund(refund("f1", &order, AMOUNT)).await.expect("accepts");
    rig.refund_in_state(&record.refund_id, RefundState::Failed).await;
    let order = rig.in_state(&order.order_id, OrderState::Paid).await;
    assert_eq!(order.refunded.map(|money| money.amount_minor), Some(0));
    let kinds: Vec<_> = rig.events(0, 0).await.iter().map(pb::Event::kind).collect();
    assert_eq!(kinds, [pb::EventKind::OrderPaid, pb::EventKind::RefundFailed]);
    rig.assert_held().await;
}

async fn a_refund_that_reaches_nobody_or_stays_holds_its_money_until_somebody_ends_it(engine: Engine) {
    let rig = Rig::new(engine).await;
    for (number, fault) in [Fault::Abnormal, Fault::Stuck].into_iter().enumerate() {
        let order = rig.paid(jsapi(&format!("r{number}"))).await;
        let told = rig.journalled("notice_ended");
        rig.stage(Operation::Refund, fault, None);
        let record = rig.refund(refund(&format!("f{number}"), &order, AMOUNT)).await.expect("accepts");
        if fault == Fault::Abnormal {
            until("its callback", async || (rig.journalled("notice_ended") > told).then_some(())).await;
        }
        let record = rig.refund_in_state(&record.refund_id, RefundState::Processing).await;
        let again = rig.refund(refund(&format!("g{number}"), &order, 1)).await.expect_err("it may still go back");
        assert_eq!(again.reason(), "REFUND_EXCEEDS_CAPTURE");
        rig.end_refund(&record.refund_id, "SUCCESS").await;
        let record = rig.refund_in_state(&record.refund_id, RefundState::Succeeded).await;
        assert_eq!(record.amount, order.amount);
    }
    let kinds: Vec<_> = rig.events(0, 0).await.iter().map(pb::Event::kind).collect();
    use pb::EventKind::{OrderPaid, RefundSucceeded};
    assert_eq!(kinds, [OrderPaid, RefundSucceeded, OrderPaid, RefundSucceeded]);
    rig.assert_held().await;
}

async fn certificates_that_cannot_be_had_hold_up_and_lose_nothing(engine: Engine) {
    let rig = Rig::new(engine).await;
    rig.stage(Operation::Certificates, Fault::BadSignature, None);
    let fault = rig.create(native("r1")).await.expect_err("the answer cannot be verified");
    assert_eq!((fault.reason(), fault.effect()), ("CHANNEL_UNAVAILABLE", rpc::Effect::Possible));
    let order = rig.create_at_last(&native("r1")).await;
    assert_eq!((order.state(), rig.journalled("order_created")), (OrderState::Waiting, 1));
    rig.pay(&order, OTHERS).await;
    rig.in_state(&order.order_id, OrderState::Paid).await;
    rig.assert_held().await;
}
