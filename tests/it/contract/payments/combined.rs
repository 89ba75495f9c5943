//! Combined orders as the driver asks the sandbox for them: two departments, one payment.

use std::time::Duration;

use contracts::ids::{OrderId, RefundId};
use contracts::money::{Currency, Money};
use payments::channel::wechatpay::{NAME, WechatPay};
use payments::channel::{Channel, ChannelError, OrderStatus, RefundStatus, Whole};
use payments::domain::ledger::Merchant;
use payments::domain::order::{Terms, TradeType};
use payments::domain::refund::{Refund, State};
use runtime::secret::Pii;
use sandbox::{Fault, Operation};

use super::rig::{APP, CHANGSHA, Engine, OTHERS, Rig};

fn merchant(number: &str) -> Merchant {
    Merchant { channel: NAME.into(), number: number.into() }
}

fn whole(number: u128) -> Whole {
    Whole { merchant: merchant(CHANGSHA), channel_order_no: format!("{number:032x}") }
}

/// Two parts of one combined order: 200 yuan for one department, 50 for the other.
fn parts(rig: &Rig, number: u128, trade_type: TradeType) -> Vec<Terms> {
    let now = runtime::Clock::system().now();
    let part = |index: u128, mch_id: &str, minor: i64| {
        let id = OrderId::new(number * 16 + index);
        Terms {
            id,
            caller: "cases".into(),
            request_id: format!("r{number}-{index}"),
            case_id: "case".into(),
            payee_id: "payee".into(),
            amount: Money::new(minor, Currency::CNY).expect("in range"),
            merchant: merchant(mch_id),
            app_id: APP.into(),
            trade_type,
            channel_order_no: format!("{:032x}", id.bits()),
            notify_url: format!("{}/callbacks/{NAME}/{CHANGSHA}", rig.callbacks),
            description: "交通违法罚款".into(),
            created_at: now,
            expire_at: now.plus(Duration::from_secs(600)),
            payment_code: None,
            receipt_prefix: None,
            insured: None,
        }
    };
    vec![part(1, CHANGSHA, 20_000), part(2, OTHERS, 5_000)]
}

async fn statuses(driver: &WechatPay, number: u128, parts: &[Terms]) -> Vec<OrderStatus> {
    driver.query_combined(&whole(number), parts).await.expect("answers")
}

fn is_paid(status: &OrderStatus, minor: i64) -> bool {
    matches!(status, OrderStatus::Paid(capture) if capture.amount.amount_minor() == minor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_combined_order_is_made_and_made_again_unchanged() {
    let rig = Rig::new(Engine::Sqlite).await;
    let driver = rig.driver();
    assert_eq!(driver.capabilities().combine_max, 50);
    for (number, (trade_type, payer)) in [
        (TradeType::Native, None),
        (TradeType::App, None),
        (TradeType::Jsapi, Some("oUpF8")),
        (TradeType::H5, Some("203.0.113.7")),
    ]
    .into_iter()
    .enumerate()
    {
        let number = number as u128 + 1;
        let (parts, payer) = (parts(&rig, number, trade_type), payer.map(|payer| Pii::new(payer.to_owned())));
        let made = driver.create_combined(&whole(number), &parts, payer.as_ref()).await.expect("makes");
        let again = driver.create_combined(&whole(number), &parts, payer.as_ref()).await.expect("makes again");
        assert_eq!((&made.code_url, &made.page_url), (&again.code_url, &again.page_url), "{trade_type}");
        let session =
            [made.jsapi.get("prepayid"), made.jsapi.get("package"), Some(&made.code_url), Some(&made.page_url)];
        assert!(session.into_iter().flatten().any(|text| !text.is_empty()), "{trade_type}: {made:?}");
        assert_eq!(statuses(&driver, number, &parts).await, [OrderStatus::Pending, OrderStatus::Pending]);
    }
    let short = &parts(&rig, 9, TradeType::Native)[..1];
    let refused = driver.create_combined(&whole(9), short, None).await;
    assert!(matches!(refused, Err(ChannelError::Refused { .. })), "one order is no combined one: {refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_payment_pays_every_part_and_each_is_refunded_by_itself() {
    let rig = Rig::new(Engine::Sqlite).await;
    let (driver, parts) = (rig.driver(), parts(&rig, 1, TradeType::Native));
    rig.stage(Operation::Order, Fault::DropAfter, None);
    let lost = driver.create_combined(&whole(1), &parts, None).await.expect_err("no answer");
    assert!(!lost.had_no_effect());
    let sheet = driver.create_combined(&whole(1), &parts, None).await.expect("makes");
    let pay = sandbox::Pay { code_url: Some(sheet.code_url), ..sandbox::Pay::default() };
    rig.sandbox.pay(&pay).await.expect("pays");
    let paid = statuses(&driver, 1, &parts).await;
    assert!(is_paid(&paid[0], 20_000) && is_paid(&paid[1], 5_000), "{paid:?}");
    let backwards: Vec<_> = parts.iter().rev().cloned().collect();
    assert!(is_paid(&statuses(&driver, 1, &backwards).await[0], 5_000), "in the order that was asked");

    let refund = Refund {
        id: RefundId::new(7),
        order: parts[1].id,
        caller: "cases".into(),
        request_id: "f".into(),
        amount: Money::new(5_000, Currency::CNY).expect("in range"),
        reason: "rejected".into(),
        created_at: parts[1].created_at,
        send_by: parts[1].created_at,
        is_after_settlement: false,
        legs: None,
        insurance_returned_at: None,
        version: 1,
        state: State::Requested,
        is_sent: true,
        channel_refund: None,
        success_at: None,
        refusal: None,
    };
    let told = driver.refund(&parts[1], &refund).await.expect("takes it");
    assert!(matches!(told, RefundStatus::Processing { .. }), "{told:?}");
    let closed = driver.close_combined(&whole(1), &parts).await.expect_err("it is paid");
    assert!(matches!(closed, ChannelError::Refused { .. }), "{closed:?}");
    rig.stage(Operation::Query, Fault::GarbleValue, None);
    driver.query_combined(&whole(1), &parts).await.expect_err("not usable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_combined_order_is_closed_as_a_whole_and_known_by_its_own_number_alone() {
    let rig = Rig::new(Engine::Sqlite).await;
    let (driver, parts) = (rig.driver(), parts(&rig, 1, TradeType::Native));
    driver.create_combined(&whole(1), &parts, None).await.expect("makes");
    assert!(matches!(driver.query(&parts[0]).await, Err(ChannelError::NotKnown)));
    assert!(matches!(driver.query_combined(&whole(2), &parts).await, Err(ChannelError::NotKnown)));
    driver.query_combined(&whole(1), &parts[..1]).await.expect_err("it has another part");
    driver.close_combined(&whole(1), &parts).await.expect("closes");
    assert_eq!(statuses(&driver, 1, &parts).await, [OrderStatus::Closed, OrderStatus::Closed]);
}
