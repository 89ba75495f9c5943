//! Receipts: issued with the posting and never without, numbered without gaps, and true only when all of them is.

use contracts::ids::OrderId;
use contracts::payments::v1 as pb;
use futures::future::join_all;
use pb::ReceiptState::{Cancelled, PartlyRefunded, Valid};
use prost::Message;
use rpc::{Fault as _, Retry};

use super::*;
use crate::channel::Notice;
use crate::convert::VerifyAsk;
use crate::error::Error;
use crate::receipts::TRIES_MAX;

const ORDERS: usize = 40;
/// A payment code of the sandbox's own layout.
const PAYMENT_CODE: &str = "43010023000000000017";

impl Stage {
    /// An order that is paid.
    async fn owed(&self, request_id: &str, ask: impl FnOnce(&mut CreateAsk)) -> OrderId {
        let mut create = create_ask(request_id, EPOCH.plus(LIFE));
        ask(&mut create);
        self.till.create(create).await.expect("creates");
        let order = self.till.order_by_request("cases", request_id).await.expect("is there");
        let order_no = &order.terms.channel_order_no;
        self.played.pay(order_no, self.till.now()).expect("pays");
        let notice = self.played.notice(order_no).expect("paid");
        self.till.heed(&order.terms.merchant, notice).await.expect("heeds");
        order.terms.id
    }

    async fn post_as(&self, number: usize, order: OrderId) -> Result<pb::Order, Error> {
        let answer = self.till.post(&key(Method::PostOrder, &format!("p{number}")), order, "serial").await?;
        Ok(pb::PostOrderResponse::decode(answer.as_slice()).expect("decodes").order.expect("an order"))
    }

    async fn now(&self, order: OrderId) -> pb::Order {
        let order = self.till.order(&mut self.till.db.read().await.expect("reads"), order).await.expect("is there");
        self.till.told(&order).await.expect("is told")
    }

    async fn refunded(&self, request_id: &str, order: OrderId, amount: i64) {
        let ask = RefundAsk { is_after_settlement: true, ..refund_ask(request_id, order, amount) };
        self.till.refund(&ask).await.expect("accepts");
        self.pass(Duration::from_secs(2)).await;
        self.played.decide(true, self.till.now());
        self.pass(Duration::from_secs(5)).await;
    }
}

/// What is printed on a receipt, asked.
fn printed(receipt: &pb::Receipt) -> VerifyAsk {
    let request = pb::VerifyReceiptRequest {
        code: receipt.code.clone(),
        number: receipt.number.clone(),
        check_code: receipt.check_code.clone(),
        amount: receipt.amount.clone(),
        issue_day: receipt.issue_day.clone(),
    };
    crate::convert::verify(request).expect("fits the contract")
}

#[tokio::test(start_paused = true)]
async fn a_receipt_comes_with_the_posting_and_says_what_was_posted() {
    let stage = Stage::new().await;
    let order = stage.owed("r", |ask| ask.payment_code = Some(PAYMENT_CODE.into())).await;
    assert_eq!(stage.now(order).await.receipt, None);
    let told = stage.post_as(1, order).await.expect("posts");
    let receipt = told.receipt.clone().expect("a receipt");
    assert_eq!((receipt.code.as_str(), receipt.number.as_str()), ("43010123", "0000000001"));
    assert_eq!((receipt.payee_id.as_str(), receipt.issue_day.as_str()), ("traffic-430100", "2023-11-15"));
    assert_eq!((receipt.payment_code.as_str(), receipt.department_serial.as_str()), (PAYMENT_CODE, "serial"));
    assert_eq!((receipt.amount.clone(), receipt.state()), (Some(fen(AMOUNT).into()), Valid));
    let check = &receipt.check_code;
    let query = format!("code=43010123&number=0000000001&check={check}&amount=20000&currency=CNY&day=2023-11-15");
    assert_eq!(receipt.verify_url, format!("https://city.example/receipts?{query}"));
    let verified = stage.till.verify(&printed(&receipt)).await.expect("is ours");
    assert_eq!((verified.state(), verified.payee_id.as_str()), (Valid, "traffic-430100"));
    assert_eq!(verified.settled, Some(fen(AMOUNT).into()));
    assert_eq!(stage.post_as(1, order).await.expect("the same for ever"), told);
    assert_eq!(stage.now(order).await, told);
    assert_eq!(stage.assert_sound().await.receipts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_payee_without_receipts_has_none() {
    let stage = Stage::new().await;
    let order = stage.owed("r", |ask| ask.payee_id = "traffic-110000".into()).await;
    let told = stage.post_as(1, order).await.expect("posts");
    assert_eq!((told.receipt, told.settled), (None, Some(fen(AMOUNT).into())));
    assert_eq!(stage.assert_sound().await.receipts, 0);
}

/// The postings come in few batches; one deal among them is refused by the store, so that a batch is tried again in halves.
#[tokio::test(start_paused = true)]
async fn receipts_of_a_batch_are_numbered_without_gaps() {
    let stage = Stage::new().await;
    let mut orders = Vec::new();
    for number in 0..ORDERS {
        let payee = if number % 4 == 3 { "traffic-140100" } else { "traffic-430100" };
        orders.push(stage.owed(&format!("r{number}"), |ask| ask.payee_id = payee.into()).await);
    }
    // It tells the payment of another order.
    stage.till.create(create_ask("bad", EPOCH.plus(LIFE))).await.expect("creates");
    let bad = stage.till.order_by_request("cases", "bad").await.expect("is there");
    let told = stage.till.order(&mut stage.till.db.read().await.expect("reads"), orders[0]).await.expect("is there");
    let Some(Notice::Paid { capture, .. }) = stage.played.notice(&told.terms.channel_order_no) else { panic!("paid") };
    let (channel_order_no, app_id) = (bad.terms.channel_order_no.clone(), bad.terms.app_id.clone());
    let bad = stage.till.heed(&bad.terms.merchant, Notice::Paid { channel_order_no, app_id, capture });
    let posts = |range: std::ops::Range<usize>| {
        join_all(range.map(|number| stage.post_as(number, orders[number])).collect::<Vec<_>>())
    };
    let before = stage.till.db.meter().counts().commits;
    let (first, bad, rest) = tokio::join!(posts(0..ORDERS / 2), bad, posts(ORDERS / 2..ORDERS));
    assert!(bad.is_err());
    assert!(stage.till.db.meter().counts().commits - before < ORDERS as u64, "they came together");
    let mut numbers: Vec<_> = first
        .into_iter()
        .chain(rest)
        .map(|told| {
            let receipt = told.expect("posts").receipt.expect("a receipt");
            format!("{}/{}", receipt.code, receipt.number)
        })
        .collect();
    numbers.sort();
    let series =
        |code: &str, count: usize| (1..=count).map(|number| format!("{code}/{number:010}")).collect::<Vec<_>>();
    assert_eq!(numbers, [series("14010123", ORDERS / 4), series("43010123", ORDERS - ORDERS / 4)].concat());
    assert_eq!(stage.assert_sound().await.receipts, ORDERS as u64);
}

#[tokio::test(start_paused = true)]
async fn a_refund_after_settlement_shows_on_the_receipt() {
    let stage = Stage::new().await;
    let order = stage.owed("r", |_| {}).await;
    let kept = stage.post_as(1, order).await.expect("posts");
    for (number, amount, state, rest) in
        [(1, AMOUNT / 4, PartlyRefunded, AMOUNT * 3 / 4), (2, AMOUNT * 3 / 4, Cancelled, 0)]
    {
        stage.refunded(&format!("f{number}"), order, amount).await;
        let receipt = stage.now(order).await.receipt.expect("it stays");
        assert_eq!((receipt.state(), receipt.amount.clone()), (state, Some(fen(AMOUNT).into())));
        let verified = stage.till.verify(&printed(&receipt)).await.expect("is ours");
        assert_eq!((verified.state(), verified.settled), (state, Some(fen(rest).into())));
    }
    assert_eq!(stage.post_as(1, order).await.expect("as it was answered"), kept);
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_but_all_of_a_receipt_is_true_and_trying_is_in_vain() {
    let stage = Stage::new().await;
    let order = stage.owed("r", |_| {}).await;
    let receipt = stage.post_as(1, order).await.expect("posts").receipt.expect("a receipt");
    let right = printed(&receipt);
    let wrong_check = if right.check_code == "000000" { "000001" } else { "000000" };
    let wrong = [
        VerifyAsk { check_code: wrong_check.into(), ..right.clone() },
        VerifyAsk { amount: fen(AMOUNT + 1), ..right.clone() },
        VerifyAsk { day: right.day.tomorrow().expect("a day"), ..right.clone() },
        VerifyAsk { number: 2, ..right.clone() },
        VerifyAsk { code: "14010123".into(), ..right.clone() },
    ];
    for ask in &wrong {
        let error = stage.till.verify(ask).await.expect_err("is not ours");
        let name = format!("{}/{:010}", ask.code, ask.number);
        let told = (error.reason(), error.to_string(), error.details().resource);
        assert_eq!(told, ("RECEIPT_NOT_FOUND", "no such receipt".to_owned(), Some(("receipt", name))));
    }
    // Right answers cost nothing; wrong ones are counted by number, those of numbers that nobody has as well.
    for _ in 0..2 * TRIES_MAX {
        stage.till.verify(&right).await.expect("is ours");
    }
    for (ask, tried) in [(&wrong[0], 3), (&wrong[3], 1)] {
        for _ in tried..TRIES_MAX {
            assert_eq!(stage.till.verify(ask).await.expect_err("wrong").reason(), "RECEIPT_NOT_FOUND");
        }
        let error = stage.till.verify(ask).await.expect_err("rests");
        assert!(error.reason() == "RECEIPT_RESTS" && matches!(error.retry(), Retry::After(_)), "{error}");
    }
    assert_eq!(stage.till.verify(&right).await.expect_err("rests too").reason(), "RECEIPT_RESTS");
    stage.till.context.clock.sleep(Duration::from_secs(2 * 3_600)).await;
    stage.till.verify(&right).await.expect("is ours");
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_was_changed_in_the_store_is_not_ours() {
    let stage = Stage::new().await;
    let order = stage.owed("r", |_| {}).await;
    let receipt = stage.post_as(1, order).await.expect("posts").receipt.expect("a receipt");
    let spoil = "UPDATE receipts SET amount_minor = amount_minor - 1";
    stage.till.db.transact(async |mut tx: Tx| tx.execute(spoil, &[]).await).await.expect("spoils");
    let ask = VerifyAsk { amount: fen(AMOUNT - 1), ..printed(&receipt) };
    assert_eq!(stage.till.verify(&ask).await.expect_err("is not ours").reason(), "RECEIPT_NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn a_payment_code_of_another_shape_is_refused() {
    let stage = Stage::new().await;
    for (payee, code) in [
        ("traffic-430100", "4301002300000000001"),
        ("traffic-430100", "4301002300000000001X"),
        ("traffic-140100", PAYMENT_CODE),
    ] {
        let mut ask = create_ask("r", EPOCH.plus(LIFE));
        (ask.payee_id, ask.payment_code) = (payee.into(), Some(code.into()));
        let error = stage.till.create(ask).await.expect_err("refused");
        assert_eq!((error.reason(), error.details().violations[0].field.as_str()), ("INVALID_REQUEST", "payment_code"));
    }
    stage.owed("r", |ask| ask.payment_code = Some(PAYMENT_CODE.into())).await;
}
