//! The audit must see what is wrong: a book is spoilt in one place, and it has to say so.

use store::{Tx, params};

use super::combined::combine_ask;
use super::*;
use crate::domain::ledger::Merchant as LedgerMerchant;

/// Ways to spoil the books of one paid, one posted and one refunded order, and of a combined one that waits.
const SPOILS: [&str; 34] = [
    "UPDATE balances SET credit_posted = credit_posted + 1 WHERE account LIKE 'suspense/%' AND debit_posted = 0",
    "UPDATE balances SET credit_posted = credit_posted + 1 WHERE account LIKE 'payee/%'",
    "UPDATE balances SET debit_pending = 1 WHERE account LIKE 'channel/%'",
    "UPDATE balances SET currency = 'USD' WHERE account LIKE 'payee/%'",
    "DELETE FROM balances WHERE account LIKE 'refunds/%'",
    "DELETE FROM balances WHERE account LIKE 'suspense/%' AND debit_posted = 0",
    "INSERT INTO balances VALUES ('payee/nobody', 0, 'CNY', 0, 0, 1, 0, 0)",
    "DELETE FROM transfers WHERE transfer_id LIKE '%/post'",
    "DELETE FROM transfers WHERE transfer_id LIKE '%/payout'",
    "UPDATE transfers SET amount_minor = amount_minor - 1 WHERE transfer_id LIKE '%/capture'",
    "UPDATE transfers SET credit_account = 'payee/nobody' WHERE transfer_id LIKE '%/post'",
    "UPDATE transfers SET order_id = 'ord_ffffffffffffffffffffffffffffffff' WHERE transfer_id LIKE '%/post'",
    "DELETE FROM transfer_decisions",
    "UPDATE transfer_decisions SET verdict = 'voided'",
    "UPDATE orders SET state = 'paid' WHERE state = 'posted'",
    "UPDATE orders SET refunded_minor = 0 WHERE state = 'refunded'",
    "UPDATE orders SET channel_transaction = NULL WHERE state = 'paid'",
    "UPDATE refunds SET state = 'failed'",
    "DELETE FROM refunds",
    "DELETE FROM outbox_event WHERE seq = 3",
    "DELETE FROM orders WHERE part_number = 3",
    "DELETE FROM orders WHERE part_number = 1",
    "UPDATE orders SET combined_id = NULL WHERE part_number > 1",
    "UPDATE orders SET app_id = 'wx9' WHERE part_number = 2",
    "DELETE FROM receipts",
    "UPDATE receipts SET number = 2",
    "UPDATE receipts SET code = '14010123'",
    "UPDATE receipts SET payee_id = 'nobody'",
    "UPDATE receipts SET amount_minor = amount_minor + 1",
    "UPDATE receipts SET amount_minor = amount_minor - 1",
    "UPDATE receipts SET order_id = 'ord_ffffffffffffffffffffffffffffffff'",
    "UPDATE receipt_codes SET last_number = 2",
    "INSERT INTO receipt_codes VALUES ('43010199', 1)",
    "UPDATE orders SET receipt_prefix = NULL WHERE state = 'posted'",
];

async fn played_out() -> Stage {
    let stage = Stage::new().await;
    let merchant = LedgerMerchant { channel: super::channel::NAME.into(), number: "1900000001".into() };
    let mut ids = Vec::new();
    for name in ["paid", "posted", "refunded"] {
        stage.till.create(create_ask(name, EPOCH.plus(LIFE))).await.expect("creates");
        let order = stage.till.order_by_request("cases", name).await.expect("is there");
        stage.played.pay(&order.terms.channel_order_no, stage.till.now()).expect("pays");
        let notice = stage.played.notice(&order.terms.channel_order_no).expect("paid");
        stage.till.heed(&merchant, notice).await.expect("heeds");
        ids.push(order.terms.id);
    }
    stage.till.create_combined(combine_ask("whole", EPOCH.plus(LIFE))).await.expect("creates");
    stage.till.post(&key(Method::PostOrder, "p"), ids[1], "serial").await.expect("posts");
    stage.till.refund(&refund_ask("f", ids[2], AMOUNT)).await.expect("accepts");
    stage.pass(Duration::from_secs(2)).await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(5)).await;
    stage
}

#[tokio::test(start_paused = true)]
async fn nothing_that_was_spoilt_stays_unseen() {
    let report = played_out().await.assert_sound().await;
    assert_eq!((report.orders, report.refunds, report.transfers, report.open), (6, 1, 6, 3));
    assert_eq!(report.receipts, 1);
    for spoil in SPOILS {
        let stage = played_out().await;
        let spoilt = async |mut tx: Tx| tx.execute(spoil, params![]).await;
        assert!(stage.till.db.transact(spoilt).await.expect(spoil) > 0, "{spoil}: nothing to spoil");
        let report = crate::audit::check(&stage.till.db).await.expect("reads");
        assert!(!report.is_sound(), "not seen: {spoil}");
    }
}
