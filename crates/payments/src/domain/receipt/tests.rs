//! When a receipt is due, how it stands, and what contradicts it. Pure.

use std::time::Duration;

use contracts::money::Currency;

use super::*;
use crate::domain::ledger::Merchant;
use crate::domain::order::{Capture, Terms, TradeType};

const AMOUNT: i64 = 20_000;
/// One second before midnight in Beijing at the end of 2023.
const AT: Timestamp = Timestamp::from_micros(1_704_038_399_000_000);

fn fen(minor: i64) -> Money {
    Money::new(minor, Currency::CNY).expect("in range")
}

fn paid(prefix: Option<&str>) -> Order {
    let terms = Terms {
        id: OrderId::new(0x15),
        caller: "cases".into(),
        request_id: "r".into(),
        case_id: "case".into(),
        payee_id: "traffic-430100".into(),
        amount: fen(AMOUNT),
        merchant: Merchant { channel: "wechatpay".into(), number: "1900000001".into() },
        app_id: "wx0".into(),
        trade_type: TradeType::Native,
        channel_order_no: "0".repeat(32),
        notify_url: "http://h/callbacks".into(),
        description: "fine".into(),
        created_at: AT,
        expire_at: AT,
        payment_code: None,
        receipt_prefix: prefix.map(str::to_owned),
        insured: None,
    };
    let capture = Capture { amount: fen(AMOUNT), transaction: "tx-1".into(), at: AT };
    Order::new(terms, None).captured(&capture).expect("allowed").expect("changes").order
}

fn posted(before: &Order) -> Order {
    before.posted("serial").expect("allowed").expect("changes").order
}

fn receipt() -> Receipt {
    let before = paid(Some("430101"));
    let due = Due::of(&before, &posted(&before), AT).expect("due");
    Receipt { due, number: 1, key_id: "k".into(), check_code: "000000".into() }
}

#[test]
fn the_posting_makes_it_due_and_nothing_else_does() {
    let before = paid(Some("430101"));
    let after = posted(&before);
    let due = Due::of(&before, &after, AT).expect("due");
    assert_eq!((due.code.as_str(), due.day().to_string().as_str()), ("43010123", "2023-12-31"));
    assert_eq!((due.order, due.payee_id.as_str(), due.amount), (after.terms.id, "traffic-430100", fen(AMOUNT)));
    // The year is that of the day in Beijing.
    let next = Due::of(&before, &after, AT.plus(Duration::from_secs(1))).expect("due");
    assert_eq!((next.code.as_str(), next.day().to_string().as_str()), ("43010124", "2024-01-01"));
    assert_eq!(Due::of(&before, &before, AT), None, "paid is not posted");
    assert_eq!(Due::of(&after, &after, AT), None, "it was posted before");
    let without = paid(None);
    assert_eq!(Due::of(&without, &posted(&without), AT), None, "the payee has no receipts");
}

#[test]
fn it_stands_for_what_is_left() {
    let standings = [
        (AMOUNT, Standing::Valid),
        (AMOUNT - 1, Standing::PartlyRefunded),
        (1, Standing::PartlyRefunded),
        (0, Standing::Cancelled),
    ];
    for (settled, standing) in standings {
        assert_eq!(receipt().standing(settled), standing, "{settled}");
    }
}

#[test]
fn what_an_order_and_its_receipt_say_of_each_other() {
    let (before, receipt) = (paid(Some("430101")), receipt());
    let (after, whole) = (posted(&before), Some(fen(AMOUNT)));
    assert_eq!(Receipt::contradiction(&after, whole, Some(&receipt)), None);
    assert_eq!(Receipt::contradiction(&before, None, None), None);
    assert_eq!(Receipt::contradiction(&posted(&paid(None)), whole, None), None);
    assert_eq!(Receipt::contradiction(&after, whole, None), Some("is posted and has no receipt"));
    let uncalled = Some("has a receipt that its state does not call for");
    assert_eq!(Receipt::contradiction(&before, None, Some(&receipt)), uncalled);
    assert_eq!(Receipt::contradiction(&posted(&paid(None)), whole, Some(&receipt)), uncalled);
    let spoil = |spoil: fn(&mut Due)| {
        let mut spoilt = receipt.clone();
        spoil(&mut spoilt.due);
        spoilt
    };
    for spoilt in [
        spoil(|due| due.code = "43010124".into()),
        spoil(|due| due.code = "14010123".into()),
        spoil(|due| due.at = due.at.plus(Duration::from_secs(1))),
        spoil(|due| due.payee_id = "nobody".into()),
        spoil(|due| due.amount = fen(AMOUNT - 1)),
    ] {
        let said = Receipt::contradiction(&after, whole, Some(&spoilt));
        assert_eq!(said, Some("has a receipt that says something else"), "{spoilt:?}");
    }
}

#[test]
fn numbers_go_from_one_to_the_last_without_gaps() {
    let series = |receipts, numbers, last| Series { code: "43010123".into(), receipts, numbers, last };
    assert_eq!(series(3, (1, 3), Some(3)).contradiction(), None);
    for wrong in [
        series(2, (1, 3), Some(3)),
        series(3, (2, 4), Some(4)),
        series(3, (1, 3), Some(4)),
        series(3, (1, 3), Some(2)),
        series(3, (1, 3), None),
    ] {
        assert!(wrong.contradiction().is_some(), "{wrong:?}");
    }
}

#[test]
fn texts_that_are_digits() {
    assert!(is_prefix("430101") && is_digits("00000000", CODE_DIGITS));
    for text in ["", "43010", "4301011", "43010x", "４30101", "-30101"] {
        assert!(!is_prefix(text), "{text}");
    }
    assert_eq!(printed(9_999_999_999).len(), NUMBER_DIGITS);
}
