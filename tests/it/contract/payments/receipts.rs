//! Receipts, as the citizen's client and the public see them.

use contracts::payments::v1 as pb;
use futures::StreamExt as _;
use futures::future::join_all;
use rpc::{RemoteFault, Retry};
use store::{Tx, params};

use super::on_each_engine;
use super::rig::{AMOUNT, CHANGSHA, Engine, Rig, jsapi, money, native};

on_each_engine!(
    many_postings_at_once_are_numbered_without_gaps,
    a_posting_that_the_store_refuses_takes_no_number,
    a_receipt_is_verified_by_what_its_qr_code_says,
    wrong_tries_on_a_number_end,
    a_payment_code_goes_from_the_order_to_the_receipt,
);

/// More than one batch at PostgreSQL, where two are written at once.
const ORDERS: usize = 60;
/// One that has the shape of the payee's codes.
const PAYMENT_CODE: &str = "43010026010000001013";

impl Rig {
    /// Orders that are paid. Who waits for a payment asks again and again, so that only some do it at once.
    async fn all_paid(&self) -> Vec<pb::Order> {
        let paid = (0..ORDERS).map(|number| self.paid(jsapi(&format!("r{number}"))));
        futures::stream::iter(paid).buffered(8).collect().await
    }

    async fn verify(&self, request: &pb::VerifyReceiptRequest) -> Result<pb::VerifyReceiptResponse, RemoteFault> {
        let answer = self.gateway.clone().verify_receipt(request.clone()).await;
        answer.map(tonic::Response::into_inner).map_err(RemoteFault::from)
    }
}

/// What a QR code asks.
fn scanned(url: &str) -> pb::VerifyReceiptRequest {
    let (page, query) = url.split_once('?').expect("a query");
    assert_eq!(page, "https://city.example/receipts");
    let mut asked = pb::VerifyReceiptRequest { amount: money(0), ..Default::default() };
    let amount = asked.amount.as_mut().expect("set");
    for (key, value) in query.split('&').map(|pair| pair.split_once('=').expect("a pair")) {
        match key {
            "code" => asked.code = value.into(),
            "number" => asked.number = value.into(),
            "check" => asked.check_code = value.into(),
            "amount" => amount.amount_minor = value.parse().expect("a number"),
            "currency" => amount.currency = value.into(),
            "day" => asked.issue_day = value.into(),
            other => panic!("{other}"),
        }
    }
    asked
}

async fn many_postings_at_once_are_numbered_without_gaps(engine: Engine) {
    let rig = Rig::new(engine).await;
    let orders = rig.all_paid().await;
    let posts = orders.iter().enumerate().map(async |(number, order)| {
        // Every third is asked for twice at once, and one key has one receipt.
        let request_id = format!("p{number}");
        let post = || rig.post(&request_id, &order.order_id);
        let posted = if number % 3 == 0 {
            let (first, again) = tokio::join!(post(), post());
            let first = first.expect("posts");
            assert_eq!(again.expect("posts"), first);
            first
        } else {
            post().await.expect("posts")
        };
        posted.receipt.expect("a receipt")
    });
    let mut receipts = join_all(posts).await;
    receipts.sort_by(|one, other| one.number.cmp(&other.number));
    for (number, receipt) in (1..).zip(&receipts) {
        assert_eq!(receipt.number, format!("{number:010}"));
        assert!(receipt.code.starts_with("430101") && receipt.code.len() == 8, "{}", receipt.code);
    }
    assert_eq!(rig.assert_sound().await, 0);
}

/// One deal among many is refused by the store: its batch is tried again in halves, and the numbers it had drawn are drawn again.
async fn a_posting_that_the_store_refuses_takes_no_number(engine: Engine) {
    let rig = Rig::new(engine).await;
    let orders = rig.all_paid().await;
    let bad = ORDERS / 2;
    let sql = async |sql: &'static str| {
        let run = async |mut tx: Tx| tx.execute(sql, params![orders[bad].order_id]).await;
        rig.db.transact(run).await.expect("runs")
    };
    sql("INSERT INTO receipts VALUES ($1, '00000000', 1, '', '', '', 1, 'CNY', 0)").await;
    let posts =
        orders.iter().enumerate().map(async |(number, order)| rig.post(&format!("p{number}"), &order.order_id).await);
    let posts = join_all(posts).await;
    let refused = posts[bad].as_ref().expect_err("has a receipt already");
    assert_eq!(refused.reason(), "INTERNAL");
    assert_eq!(rig.order(&orders[bad].order_id).await.state(), pb::OrderState::Paid);
    let number = |order: &pb::Order| order.receipt.as_ref().expect("a receipt").number.clone();
    let mut numbers: Vec<_> = posts.iter().flatten().map(number).collect();
    numbers.sort();
    let whole = |count: usize| (1..=count).map(|number| format!("{number:010}")).collect::<Vec<_>>();
    assert_eq!(numbers, whole(ORDERS - 1));
    sql("DELETE FROM receipts WHERE order_id = $1").await;
    let last = rig.post(&format!("p{bad}"), &orders[bad].order_id).await.expect("posts under the same key");
    assert_eq!(number(&last), whole(ORDERS)[ORDERS - 1]);
    assert_eq!(rig.assert_sound().await, 0);
}

async fn a_receipt_is_verified_by_what_its_qr_code_says(engine: Engine) {
    let mut rig = Rig::new(engine).await;
    let order = rig.create(jsapi("r1")).await.expect("creates");
    rig.pay(&order, CHANGSHA).await;
    let paid = rig.in_state(&order.order_id, pb::OrderState::Paid).await;
    assert_eq!(paid.receipt, None, "no proof, no receipt");
    let receipt = rig.post("p1", &order.order_id).await.expect("posts").receipt.expect("a receipt");
    assert_eq!(rig.order(&order.order_id).await.receipt, Some(receipt.clone()));
    let right = scanned(&receipt.verify_url);
    assert_eq!((&right.code, &right.number, &right.amount), (&receipt.code, &receipt.number, &receipt.amount));
    let told = rig.verify(&right).await.expect("is ours");
    assert_eq!((told.state(), told.settled), (pb::ReceiptState::Valid, money(AMOUNT)));
    // The key outlives a restart, and so do receipts.
    rig.restart().await;
    rig.verify(&right).await.expect("is ours");
    let other_check = if right.check_code == "000000" { "000001" } else { "000000" };
    let other_day = if right.issue_day == "2026-01-01" { "2026-01-02" } else { "2026-01-01" };
    for wrong in [
        pb::VerifyReceiptRequest { check_code: other_check.into(), ..right.clone() },
        pb::VerifyReceiptRequest { amount: money(AMOUNT - 1), ..right.clone() },
        pb::VerifyReceiptRequest { issue_day: other_day.into(), ..right.clone() },
        pb::VerifyReceiptRequest { number: "0000000002".into(), ..right.clone() },
    ] {
        let fault = rig.verify(&wrong).await.expect_err("is not ours");
        assert_eq!((fault.domain(), fault.reason()), ("payments.lastmile", "RECEIPT_NOT_FOUND"));
    }
    let unfit = pb::VerifyReceiptRequest { check_code: "1".into(), ..right };
    assert_eq!(rig.verify(&unfit).await.expect_err("does not fit").reason(), "INVALID_REQUEST");
    assert_eq!(rig.assert_sound().await, 0);
}

/// Whatever is wrong is answered alike, of a number that nobody has as well.
async fn wrong_tries_on_a_number_end(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.paid(jsapi("r1")).await;
    let receipt = rig.post("p1", &order.order_id).await.expect("posts").receipt.expect("a receipt");
    let right = scanned(&receipt.verify_url);
    let wrong_check = if right.check_code == "000000" { "000001" } else { "000000" };
    let wrong = pb::VerifyReceiptRequest { check_code: wrong_check.into(), ..right.clone() };
    let unknown = pb::VerifyReceiptRequest { number: "0000000002".into(), ..right.clone() };
    let answers = async |asked: &pb::VerifyReceiptRequest| {
        let mut answers = Vec::new();
        for _ in 0..12 {
            let fault = rig.verify(asked).await.expect_err("is not ours");
            let rest = matches!(fault.retry(), Retry::After(_));
            answers.push((fault.reason().to_owned(), fault.message().to_owned(), fault.code(), rest));
        }
        answers
    };
    let [of_wrong, of_unknown] = [answers(&wrong).await, answers(&unknown).await];
    assert_eq!(of_wrong, of_unknown);
    let reasons: Vec<_> = of_wrong.iter().map(|(reason, ..)| reason.as_str()).collect();
    assert_eq!(reasons, [["RECEIPT_NOT_FOUND"; 10].as_slice(), ["RECEIPT_RESTS"; 2].as_slice()].concat());
    assert!(of_wrong[11].3, "it says for how long");
    assert_eq!(rig.verify(&right).await.expect_err("rests too").reason(), "RECEIPT_RESTS");
}

async fn a_payment_code_goes_from_the_order_to_the_receipt(engine: Engine) {
    let rig = Rig::new(engine).await;
    let asked = pb::CreateOrderRequest { payment_code: PAYMENT_CODE.into(), ..jsapi("r1") };
    let order = rig.create(asked.clone()).await.expect("creates");
    assert_eq!(order.payment_code, PAYMENT_CODE);
    rig.pay(&order, CHANGSHA).await;
    rig.in_state(&order.order_id, pb::OrderState::Paid).await;
    let posted = rig.post("p1", &order.order_id).await.expect("posts");
    assert_eq!(posted.payment_code, PAYMENT_CODE);
    assert_eq!(posted.receipt.expect("a receipt").payment_code, PAYMENT_CODE);
    let other = pb::CreateOrderRequest { payment_code: PAYMENT_CODE.replace('3', "4"), ..asked };
    assert_eq!(rig.create(other).await.expect_err("another request").reason(), "REQUEST_ID_REUSED");

    // Of another shape, and of a payee that has none.
    let too_long = "1".repeat(65);
    let unfit = [
        pb::CreateOrderRequest { payment_code: PAYMENT_CODE[1..].into(), ..jsapi("u1") },
        pb::CreateOrderRequest { payment_code: PAYMENT_CODE.replace('3', "X"), ..jsapi("u2") },
        pb::CreateOrderRequest { payment_code: PAYMENT_CODE.into(), ..native("u3") },
        pb::CreateOrderRequest { payment_code: too_long, ..jsapi("u4") },
        pb::CreateOrderRequest { payment_code: "缴".into(), ..jsapi("u5") },
    ];
    for asked in unfit {
        let fault = rig.create(asked).await.expect_err("refused");
        let fields: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            (fault.reason(), fault.effect(), fields),
            ("INVALID_REQUEST", rpc::Effect::None, vec!["payment_code"])
        );
    }
    assert_eq!(rig.assert_sound().await, 0);
}
