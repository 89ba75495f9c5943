//! Bills as the driver fetches them from the sandbox.

use std::os::unix::fs::PermissionsExt as _;

use contracts::payments::v1 as pb;
use jiff::civil::Date;
use payments::channel::{BillKind, Channel as _, ChannelError};
use payments::reconcile;
use pb::RefundState;
use sandbox::{Fault, Operation};

use super::alipay;
use super::rig::{AMOUNT, APPS, CHANGSHA, Engine, OTHERS, Rig, jsapi, refund};

/// The day in Beijing.
fn day(at: Option<prost_types::Timestamp>) -> Date {
    let at = jiff::Timestamp::from_second(at.expect("a time").seconds).expect("in range");
    jiff::tz::Offset::constant(8).to_datetime(at).date()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bill_is_fetched_whole_private_and_of_its_merchant_alone() {
    let rig = Rig::new(Engine::Sqlite).await;
    let order = rig.paid(jsapi("r1")).await;
    let asked = rig.refund(refund("f1", &order, AMOUNT / 4)).await.expect("accepts");
    let refunded = rig.refund_in_state(&asked.refund_id, RefundState::Succeeded).await;
    let (driver, file) = (rig.driver(), rig.file("bill.csv"));
    let refund_no = asked.refund_id.trim_start_matches("rfd_");
    for (kind, day, rows) in [
        (BillKind::Trades, day(order.paid_time), vec![format!("`{},`", order.channel_order_no)]),
        (BillKind::Trades, day(refunded.success_time), vec![format!("`{refund_no},`50.00,`")]),
        (
            BillKind::Funds,
            day(order.paid_time),
            vec![format!(",`收入,`200.00,`200.00,`"), order.channel_order_no.clone()],
        ),
        (BillKind::Funds, day(refunded.success_time), vec![format!(",`支出,`50.00,`150.00,`"), refund_no.to_owned()]),
    ] {
        let size = driver.bill(CHANGSHA, day, kind, &file).await.expect("fetches");
        let text = std::fs::read_to_string(&file).expect("is there");
        assert!(text.len() as u64 == size && text.starts_with('\u{feff}') && text.ends_with("\r\n"), "{text}");
        for row in rows {
            assert!(text.contains(&row), "{kind:?}: {row} is not in {text}");
        }
        let mode = std::fs::metadata(&file).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it says who paid");
        std::fs::remove_file(&file).expect("removes");
    }
    let nothing = driver.bill(OTHERS, day(order.paid_time), BillKind::Trades, &file).await;
    assert!(matches!(nothing, Err(ChannelError::NotKnown)), "nobody paid that merchant: {nothing:?}");
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bill_that_is_not_wechats_is_not_kept() {
    let rig = Rig::new(Engine::Sqlite).await;
    let order = rig.paid(jsapi("r1")).await;
    let (driver, file, day) = (rig.driver(), rig.file("bill.csv"), day(order.paid_time));
    for (operation, fault) in [
        (Operation::Bill, Fault::BadSignature),
        (Operation::Bill, Fault::Unsigned),
        (Operation::Bill, Fault::GarbleValue),
        (Operation::Bill, Fault::Busy),
        (Operation::Download, Fault::GarbleValue),
        (Operation::Download, Fault::GarbleCut),
        (Operation::Download, Fault::TooLong),
        (Operation::Download, Fault::DropAfter),
        (Operation::Download, Fault::ErrorBefore),
    ] {
        rig.stage(operation, fault, None);
        driver.bill(CHANGSHA, day, BillKind::Trades, &file).await.expect_err("not usable");
        let left = std::fs::read_dir(file.parent().expect("a directory")).expect("reads");
        let left: Vec<_> = left
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name.as_encoded_bytes().starts_with(b"bill"))
            .collect();
        assert!(left.is_empty(), "{operation:?} {fault:?} left {left:?}");
    }
    driver.bill(CHANGSHA, day, BillKind::Trades, &file).await.expect("fetches");
    let mut small = rig.settings();
    small.bill_max = runtime::config::ByteSize::from_bytes(600);
    let error = rig.driver_with(small).bill(CHANGSHA, day, BillKind::Trades, &rig.file("bill2.csv")).await;
    error.expect_err("larger than it may be when unpacked");
    assert!(!rig.file("bill2.csv").exists() && !rig.file("bill2.csv.part").exists());
}

/// What each channel says of today, in the form of its own bill, is what the ledger says of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channels_own_bills_agree_with_the_ledger() {
    let rig = Rig::new(Engine::Sqlite).await;
    let by_wechat = rig.paid(jsapi("w")).await;
    let by_alipay = rig.create(alipay::ask("a", "traffic-430100", pb::TradeType::Native)).await.expect("creates");
    alipay::pay(&rig, &by_alipay).await;
    let by_alipay = rig.in_state(&by_alipay.order_id, pb::OrderState::Paid).await;
    for (name, order) in [("fw", &by_wechat), ("fa", &by_alipay)] {
        let back = rig.refund(refund(name, order, AMOUNT / 4)).await.expect("accepts");
        rig.refund_in_state(&back.refund_id, RefundState::Succeeded).await;
    }
    let day = day(by_wechat.paid_time);
    let [ledger, wechat, ali] = ["ledger.csv", "wechat.csv", "alipay.zip"].map(|name| rig.file(name));
    reconcile::ledger::export(&rig.db, day, &reconcile::ledger::Scope::default(), &ledger, |_| {})
        .await
        .expect("exports");
    rig.driver().bill(CHANGSHA, day, BillKind::Trades, &wechat).await.expect("fetches");
    rig.alipay().bill(APPS[0].1, day, BillKind::Trades, &ali).await.expect("fetches");
    let funds = rig.alipay().bill(APPS[0].1, day, BillKind::Funds, &rig.file("funds")).await;
    assert!(matches!(funds, Err(ChannelError::Refused { .. })), "what is not declared is not asked for: {funds:?}");
    let options = reconcile::Options {
        day: Some(day),
        cut_off: reconcile::CUT_OFF,
        files: vec![ledger, wechat, ali],
        carry_to: None,
        scratch: None,
    };
    let mut breaks = Vec::new();
    let found = |one: &reconcile::Break| {
        breaks.push(format!("{one:?}"));
        Ok(())
    };
    let (_, totals) = reconcile::run(&options, found, |_| {}).expect("reconciles");
    assert_eq!(breaks, Vec::<String>::new());
    // Two payments and two refunds, each on two sides.
    assert_eq!(totals.agreed + totals.carried, 4);
}
