//! Orders that are paid with Alipay, by the gateway and by REST.

use std::time::Duration;

use contracts::payments::v1 as pb;
use pb::{OrderState, RefundState, TradeType};
use runtime::config::Duration as Span;
use sandbox::{AlipayPay, Fault, Operation, Staged};

use super::on_each_engine;
use super::rig::{AMOUNT, APPS, Engine, Rig, native, refund};

on_each_engine!(
    every_way_to_pay_is_paid_and_posted,
    callbacks_lost_doubled_late_and_forged_book_once,
    answers_that_are_lost_or_spoilt_are_found_again,
    money_goes_back_in_parts,
    an_order_that_nobody_opened_is_closed_after_its_end,
    an_order_that_was_opened_is_closed_at_once,
);

/// Through the gateway, and through REST.
const PAYEES: [&str; 2] = ["traffic-430100", "traffic-140100"];

pub(super) fn ask(request_id: &str, payee: &str, trade_type: TradeType) -> pb::CreateOrderRequest {
    pb::CreateOrderRequest {
        payee_id: payee.into(),
        entry_point: "alipay".into(),
        channel: "alipay".into(),
        trade_type: trade_type.into(),
        ..native(request_id)
    }
}

fn stage(rig: &Rig, operation: Operation, fault: Fault) {
    let delay = (fault == Fault::Late || fault == Fault::Slow).then(|| Span::from_secs(1));
    rig.sandbox.faults().stage(Staged { system: "alipay".into(), operation, fault, times: 1, delay }).expect("staged");
}

/// The citizen pays with what the sheet holds.
pub(super) async fn pay(rig: &Rig, order: &pb::Order) -> String {
    let sheet = order.pay_sheet.clone().expect("a sheet");
    let given = |text: String| (!text.is_empty()).then_some(text);
    let pay = AlipayPay {
        qr_code: given(sheet.code_url),
        page_url: given(sheet.page_url),
        order_string: given(sheet.order_string),
        ..AlipayPay::default()
    };
    rig.sandbox.pay_alipay(&pay).await.expect("pays")
}

async fn every_way_to_pay_is_paid_and_posted(engine: Engine) {
    let rig = Rig::new(engine).await;
    for (payee, (_, seller)) in PAYEES.into_iter().zip(APPS) {
        for trade_type in [TradeType::Native, TradeType::App, TradeType::H5, TradeType::Web] {
            let name = format!("{payee}-{}", trade_type.as_str_name());
            let order = rig.create(ask(&name, payee, trade_type)).await.expect("creates");
            assert_eq!(
                (order.state(), order.pay_sheet.as_ref().map(pb::PaySheet::trade_type)),
                (OrderState::Waiting, Some(trade_type))
            );
            let transaction = pay(&rig, &order).await;
            let paid = rig.in_state(&order.order_id, OrderState::Paid).await;
            assert_eq!(paid.channel_transaction, transaction, "{name}");
            rig.post(&format!("post-{name}"), &order.order_id).await.expect("posts");
        }
        assert_eq!(rig.balance(&format!("channel/alipay/{seller}")).await, (4 * AMOUNT, 0));
    }
    assert_eq!(rig.assert_sound().await, 0);
}

async fn callbacks_lost_doubled_late_and_forged_book_once(engine: Engine) {
    let rig = Rig::new(engine).await;
    for fault in [Fault::Lost, Fault::Doubled, Fault::Late, Fault::Forged] {
        stage(&rig, Operation::Notify, fault);
        let order = rig.create(ask(&format!("{fault:?}"), PAYEES[0], TradeType::Native)).await.expect("creates");
        pay(&rig, &order).await;
        rig.in_state(&order.order_id, OrderState::Paid).await;
    }
    assert_eq!(rig.events(0, 0).await.len(), 4);
    assert_eq!(rig.assert_sound().await, 0);
}

async fn answers_that_are_lost_or_spoilt_are_found_again(engine: Engine) {
    let rig = Rig::new(engine).await;
    for payee in PAYEES {
        for fault in [
            Fault::DropBefore,
            Fault::DropAfter,
            Fault::ErrorBefore,
            Fault::ErrorAfter,
            Fault::Busy,
            Fault::Unsigned,
            Fault::BadSignature,
            Fault::GarbleCut,
        ] {
            stage(&rig, Operation::Order, fault);
            let order = rig.create_at_last(&ask(&format!("{payee}-{fault:?}"), payee, TradeType::Native)).await;
            stage(&rig, Operation::Query, fault);
            pay(&rig, &order).await;
            rig.in_state(&order.order_id, OrderState::Paid).await;
            stage(&rig, Operation::Refund, fault);
            let back = rig.refund(refund(&format!("r-{payee}-{fault:?}"), &order, AMOUNT)).await.expect("accepts");
            rig.refund_in_state(&back.refund_id, RefundState::Succeeded).await;
        }
    }
    assert_eq!(rig.assert_sound().await, 0);
}

async fn money_goes_back_in_parts(engine: Engine) {
    let rig = Rig::new(engine).await;
    for payee in PAYEES {
        let order = rig.create(ask(&format!("o-{payee}"), payee, TradeType::Web)).await.expect("creates");
        pay(&rig, &order).await;
        rig.in_state(&order.order_id, OrderState::Paid).await;
        for (number, amount) in [AMOUNT - 300, 200, 100].into_iter().enumerate() {
            if number == 1 {
                stage(&rig, Operation::Refund, Fault::DropAfter);
            }
            let back = rig.refund(refund(&format!("b-{payee}-{number}"), &order, amount)).await.expect("accepts");
            let back = rig.refund_in_state(&back.refund_id, RefundState::Succeeded).await;
            assert!(!back.channel_refund.is_empty());
        }
        assert_eq!(rig.order(&order.order_id).await.state(), OrderState::Refunded);
    }
    assert_eq!(rig.assert_sound().await, 0);
}

async fn an_order_that_nobody_opened_is_closed_after_its_end(engine: Engine) {
    let rig = Rig::with(engine, |config, _| config.worker.quiet = Span::from_secs(1)).await;
    let soon = runtime::Clock::system().now().plus(Duration::from_secs(3)).seconds_nanos();
    let soon = prost_types::Timestamp { seconds: soon.0, nanos: soon.1 };
    let ask = pb::CreateOrderRequest { expire_time: Some(soon), ..ask("r1", PAYEES[0], TradeType::Native) };
    let order = rig.create(ask).await.expect("creates");
    assert!(order.pay_sheet.as_ref().is_some_and(|sheet| sheet.works_until_end));
    assert_eq!(rig.close("c1", &order.order_id).await.state(), OrderState::Waiting);
    rig.in_state(&order.order_id, OrderState::Closed).await;
    assert_eq!(rig.assert_sound().await, 0);
}

async fn an_order_that_was_opened_is_closed_at_once(engine: Engine) {
    let rig = Rig::new(engine).await;
    for payee in PAYEES {
        let order = rig.create(ask(&format!("o-{payee}"), payee, TradeType::H5)).await.expect("creates");
        // Alipay knows it once the citizen has opened it in the app, and not only the browser its page.
        let page_url = order.pay_sheet.clone().expect("a sheet").page_url;
        assert_eq!(rig.control("alipay/open", &serde_json::json!({ "page_url": page_url })).await, 200);
        assert_eq!(rig.close(&format!("c-{payee}"), &order.order_id).await.state(), OrderState::Closed);
    }
    assert_eq!(rig.assert_sound().await, 0);
}
