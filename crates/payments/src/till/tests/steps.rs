//! Single steps: what becomes of an order or refund when the channel behaves, and when it does not.

use contracts::ids::OrderId;
use contracts::payments::v1 as pb;
use prost::Message;
use rpc::{Effect, Fault};
use store::{At, Fault as StoreFault, Faults};

use super::channel::{Call, Mishap};
use super::*;
use crate::channel::Notice;
use crate::domain::ledger::Merchant as LedgerMerchant;
use crate::domain::order::{Order, State};
use crate::domain::refund::{Decision, State as RefundState};
use crate::error::Error;
use crate::till::NoticeError;

type Created = Result<pb::Order, Error>;

impl Stage {
    async fn create(&self, request_id: &str) -> Created {
        let ask = create_ask(request_id, EPOCH.plus(LIFE));
        let answer = self.till.create(ask).await?;
        Ok(pb::CreateOrderResponse::decode(answer.as_slice()).expect("decodes").order.expect("an order"))
    }

    async fn paid(&self, request_id: &str) -> OrderId {
        let order = self.create(request_id).await.expect("creates");
        self.played.pay(&order.channel_order_no, self.till.now()).expect("pays");
        self.heed(&order.channel_order_no).await.expect("heeds");
        order.order_id.parse().expect("an id")
    }

    async fn heed(&self, order_no: &str) -> Result<(), NoticeError> {
        let notice = self.played.notice(order_no).expect("paid");
        self.till.heed(&merchant(), notice).await
    }

    async fn order(&self, id: &str) -> Order {
        let mut reader = self.till.db.read().await.expect("reads");
        self.till.order(&mut reader, id.parse().expect("an id")).await.expect("is there")
    }

    pub(super) async fn order_of(&self, request_id: &str) -> Order {
        self.till.order_by_request("cases", request_id).await.expect("is there")
    }

    pub(super) async fn close(&self, request_id: &str, id: OrderId) -> pb::OrderState {
        let answer = self.till.close(key(Method::CloseOrder, request_id), id).await.expect("answers");
        pb::CloseOrderResponse::decode(answer.as_slice()).expect("decodes").order.expect("an order").state()
    }

    pub(super) async fn refund_state(&self, request_id: &str) -> RefundState {
        self.till.refund_by_request("cases", request_id).await.expect("is there").state
    }

    pub(super) async fn events(&self) -> Vec<pb::EventKind> {
        let mut reader = self.till.db.read().await.expect("reads");
        let kept = store::outbox::read_after(&mut reader, crate::till::STREAM, 0, 100).await.expect("reads");
        kept.iter().map(|kept| crate::convert::kept_event(kept).expect("decodes").kind()).collect()
    }
}

pub(super) fn merchant() -> LedgerMerchant {
    LedgerMerchant { channel: super::channel::NAME.into(), number: "1900000001".into() }
}

#[tokio::test(start_paused = true)]
async fn an_order_is_created_paid_and_posted() {
    let stage = Stage::new().await;
    let order = stage.create("r1").await.expect("creates");
    assert_eq!(order.state(), pb::OrderState::Waiting);
    assert_eq!(order.pay_sheet.expect("a sheet").jsapi["package"], format!("prepay_id={}", order.channel_order_no));
    assert_eq!(stage.order(&order.order_id).await.payer_sealed, None, "the payer is erased");
    assert_eq!(stage.played.books().payers, ["oUpF8"]);

    stage.played.pay(&order.channel_order_no, stage.till.now()).expect("pays");
    stage.heed(&order.channel_order_no).await.expect("heeds");
    stage.heed(&order.channel_order_no).await.expect("a duplicate is normal");
    let id: OrderId = order.order_id.parse().expect("an id");
    let post = key(Method::PostOrder, "p1");
    let first = stage.till.post(&post, id, "serial-1").await.expect("posts");
    assert_eq!(stage.till.post(&post, id, "serial-1").await.expect("answers"), first);
    assert_eq!(stage.order(&order.order_id).await.state, State::Posted);
    assert_eq!(stage.events().await, [pb::EventKind::OrderPaid, pb::EventKind::OrderPosted]);
    let report = stage.assert_sound().await;
    assert_eq!((report.orders, report.transfers, report.open), (1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn fifty_at_once_are_one_order_and_fifty_equal_answers() {
    let stage = Stage::new().await;
    let answers = futures::future::join_all((0..50).map(|_| stage.create("same"))).await;
    let first = answers[0].as_ref().expect("creates");
    assert!(answers.iter().all(|answer| answer.as_ref().expect("answers") == first));
    assert_eq!(stage.played.count(Call::Create), 1);
    stage.paid("other").await;
    assert_eq!(&stage.create("same").await.expect("answers"), first, "for ever");
    assert_eq!(stage.assert_sound().await.orders, 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_stands_for_one_request() {
    let stage = Stage::new().await;
    stage.create("r1").await.expect("creates");
    let mut other = create_ask("r1", EPOCH.plus(LIFE));
    other.key.digest = [8; 32];
    assert!(matches!(stage.till.create(other).await, Err(Error::RequestIdReused)));
    assert_eq!(stage.assert_sound().await.orders, 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_settings_do_not_know_is_refused_before_anything_is_kept() {
    let stage = Stage::new().await;
    let refused = async |spoil: fn(&mut CreateAsk)| {
        let mut ask = create_ask("r1", EPOCH.plus(LIFE));
        spoil(&mut ask);
        let error = stage.till.create(ask).await.expect_err("refused");
        assert_eq!(error.effect(), Effect::None);
        error.reason()
    };
    assert_eq!(refused(|ask| ask.payee_id = "x".into()).await, "PAYEE_UNKNOWN");
    assert_eq!(refused(|ask| ask.channel = "alipay".into()).await, "CHANNEL_NOT_OFFERED");
    assert_eq!(refused(|ask| ask.trade_type = TradeType::Native).await, "CHANNEL_NOT_OFFERED");
    assert_eq!(refused(|ask| ask.entry_point = "weibo".into()).await, "MERCHANT_UNKNOWN");
    assert_eq!(refused(|ask| ask.expire_at = EPOCH).await, "INVALID_REQUEST");
    assert_eq!(refused(|ask| ask.amount = fen(1_000_001)).await, "INVALID_REQUEST");
    assert_eq!(stage.assert_sound().await.orders, 0);
    assert_eq!(stage.create("r1").await.expect("the key is still free").state(), pb::OrderState::Waiting);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_told_again() {
    let stage = Stage::new().await;
    stage.played.mishap(Call::Create, Mishap::Refused);
    for _ in 0..2 {
        let error = stage.create("r1").await.expect_err("refused");
        assert!(matches!(error, Error::ChannelRefused { code } if code == "PARAM_ERROR"));
    }
    let order = stage.order_of("r1").await;
    assert_eq!((order.state, order.payer_sealed), (State::Refused, None));
    assert_eq!(stage.played.count(Call::Create), 1);
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_creation_without_an_answer_is_repeated_unchanged_until_there_is_one() {
    for mishap in [Mishap::Unreachable, Mishap::LostBefore, Mishap::LostAfter, Mishap::Busy] {
        let stage = Stage::new().await;
        stage.played.mishap(Call::Create, mishap);
        let error = stage.create("r1").await.expect_err("no answer");
        assert_eq!((error.reason(), error.effect()), ("CHANNEL_UNAVAILABLE", Effect::Possible), "{mishap:?}");
        let order = stage.order_of("r1").await;
        assert_eq!(order.state, State::Creating);
        assert!(order.payer_sealed.is_some(), "still needed");
        assert_eq!(order.is_sent, !matches!(mishap, Mishap::Unreachable | Mishap::Busy));
        stage.pass(Duration::from_secs(3)).await;
        let order = stage.create("r1").await.expect("the worker has it");
        assert_eq!(order.state(), pb::OrderState::Waiting);
        assert_eq!(stage.played.books().orders.len(), 1);
        stage.assert_sound().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_duplicate_gets_the_answer_that_the_worker_brings() {
    let stage = Stage::new().await;
    stage.played.mishap(Call::Create, Mishap::LostAfter);
    stage.create("r1").await.expect_err("no answer");
    let (answer, ()) = tokio::join!(stage.create("r1"), stage.pass(Duration::from_secs(4)));
    assert_eq!(answer.expect("answers").state(), pb::OrderState::Waiting);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_repetition_is_held_against_what_the_channel_has() {
    // The first call was done and its answer lost; the second is refused: there can be no pay sheet, so the order must end.
    let stage = Stage::new().await;
    stage.played.mishap(Call::Create, Mishap::LostAfter);
    stage.create("r1").await.expect_err("no answer");
    stage.played.mishap(Call::Create, Mishap::Refused);
    stage.pass(Duration::from_secs(3)).await;
    assert_eq!(stage.create("r1").await.expect("answers").state(), pb::OrderState::Closed);
    // The first call never arrived: then the refusal is the whole truth.
    stage.played.mishap(Call::Create, Mishap::LostBefore);
    stage.create("r2").await.expect_err("no answer");
    stage.played.mishap(Call::Create, Mishap::Refused);
    stage.pass(Duration::from_secs(3)).await;
    assert!(matches!(stage.create("r2").await, Err(Error::ChannelRefused { .. })));
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn money_that_no_callback_tells_of_is_found_by_asking() {
    let stage = Stage::new().await;
    let order = stage.create("r1").await.expect("creates");
    stage.played.pay(&order.channel_order_no, stage.till.now()).expect("pays");
    stage.pass(Duration::from_secs(3)).await;
    assert_eq!(stage.order(&order.order_id).await.state, State::Paid);
    assert_eq!(stage.events().await, [pb::EventKind::OrderPaid]);
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_callback_may_come_before_the_answer_to_the_creation() {
    let stage = Stage::new().await;
    stage.played.mishap(Call::Create, Mishap::LostAfter);
    stage.create("r1").await.expect_err("no answer");
    let order = stage.order_of("r1").await;
    stage.played.pay(&order.terms.channel_order_no, stage.till.now()).expect("pays");
    stage.heed(&order.terms.channel_order_no).await.expect("heeds");
    assert_eq!(stage.create("r1").await.expect("answers").state(), pb::OrderState::Paid);
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_does_not_fit_is_not_booked() {
    let stage = Stage::new().await;
    let order = stage.create("r1").await.expect("creates");
    let order_no = order.channel_order_no.clone();
    let capture = stage.played.pay(&order_no, stage.till.now()).expect("pays");
    let tell = async |order_no: &str, app_id: &str, amount: i64, merchant: LedgerMerchant| {
        let capture = crate::domain::order::Capture { amount: fen(amount), ..capture.clone() };
        let (channel_order_no, app_id) = (order_no.to_owned(), app_id.to_owned());
        stage.till.heed(&merchant, Notice::Paid { channel_order_no, app_id, capture }).await
    };
    let other = LedgerMerchant { number: "1900000002".into(), ..merchant() };
    assert!(matches!(tell(&order_no, "wx0", AMOUNT - 1, merchant()).await, Err(NoticeError::Differs("amount"))));
    assert!(matches!(tell(&order_no, "wx1", AMOUNT, merchant()).await, Err(NoticeError::Differs("app_id"))));
    assert!(matches!(tell("nobody", "wx0", AMOUNT, merchant()).await, Err(NoticeError::Unknown)));
    assert!(matches!(tell(&order_no, "wx0", AMOUNT, other).await, Err(NoticeError::Differs("merchant"))));
    assert_eq!(stage.order(&order.order_id).await.state, State::Waiting);
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn closing_is_answered_when_the_channel_has_confirmed() {
    let stage = Stage::new().await;
    let order = stage.create("r1").await.expect("creates");
    let id: OrderId = order.order_id.parse().expect("an id");
    stage.played.mishap(Call::Close, Mishap::LostBefore);
    assert_eq!(stage.close("c1", id).await, pb::OrderState::Waiting, "not confirmed");
    assert_eq!(stage.close("c1", id).await, pb::OrderState::Closed, "the same key asks on until it is final");
    assert_eq!(stage.close("c1", id).await, pb::OrderState::Closed);
    assert_eq!(stage.close("c2", id).await, pb::OrderState::Closed);
    assert_eq!(stage.played.count(Call::Close), 2);
    assert_eq!(stage.events().await, [pb::EventKind::OrderClosed]);
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn closing_answers_paid_when_the_money_was_first() {
    let stage = Stage::new().await;
    let order = stage.create("r1").await.expect("creates");
    stage.played.pay(&order.channel_order_no, stage.till.now()).expect("pays");
    let id: OrderId = order.order_id.parse().expect("an id");
    assert_eq!(stage.close("c1", id).await, pb::OrderState::Paid);
    assert_eq!(stage.events().await, [pb::EventKind::OrderPaid]);
    stage.till.post(&key(Method::PostOrder, "p1"), id, "s").await.expect("posts");
    assert_eq!(stage.close("c1", id).await, pb::OrderState::Paid, "the answer stays as it was");
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_may_be_on_its_way_is_made_certain_before_it_is_closed() {
    let stage = Stage::new().await;
    stage.played.mishap(Call::Create, Mishap::LostBefore);
    stage.create("r1").await.expect_err("no answer");
    let id = stage.order_of("r1").await.terms.id;
    assert_eq!(stage.close("c1", id).await, pb::OrderState::Closed);
    assert_eq!((stage.played.count(Call::Create), stage.played.count(Call::Close)), (2, 1));
    // One that certainly never left is closed without asking anybody.
    stage.played.mishap(Call::Create, Mishap::Unreachable);
    stage.create("r2").await.expect_err("no answer");
    let id = stage.order_of("r2").await.terms.id;
    assert_eq!(stage.close("c2", id).await, pb::OrderState::Closed);
    assert_eq!((stage.played.count(Call::Create), stage.played.count(Call::Close)), (3, 1));
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_nobody_pays_is_closed_at_its_end() {
    let stage = Stage::new().await;
    let order = stage.create("r1").await.expect("creates");
    stage.pass(LIFE).await;
    stage.pass(Duration::from_secs(2)).await;
    assert_eq!(stage.order(&order.order_id).await.state, State::Closed);
    assert!(stage.played.count(Call::Query) < 30, "with backoff");
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_never_came_to_exist_is_closed_after_the_quiet_time() {
    let stage = Stage::new().await;
    for _ in 0..200 {
        stage.played.mishap(Call::Create, Mishap::LostBefore);
    }
    stage.create("r1").await.expect_err("no answer");
    stage.pass(LIFE).await;
    assert_eq!(stage.order_of("r1").await.state, State::Creating, "what is on its way may still arrive");
    stage.pass(Duration::from_secs(200)).await;
    assert_eq!(stage.order_of("r1").await.state, State::Closed);
    assert_eq!(stage.create("r1").await.expect("answers").state(), pb::OrderState::Closed);
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn late_money_is_told_and_can_go_back() {
    let stage = Stage::new().await;
    let order = stage.create("r1").await.expect("creates");
    let id: OrderId = order.order_id.parse().expect("an id");
    assert_eq!(stage.close("c1", id).await, pb::OrderState::Closed);
    stage.played.pay_late(&order.channel_order_no, stage.till.now());
    let order = stage.till.refresh(id).await.expect("asks");
    assert_eq!((order.state, order.is_late), (State::Closed, true));
    assert_eq!(stage.events().await, [pb::EventKind::OrderClosed, pb::EventKind::LateMoney]);
    stage.till.refund(&refund_ask("f1", id, AMOUNT)).await.expect("accepts");
    stage.pass(Duration::from_secs(2)).await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(5)).await;
    assert_eq!(stage.refund_state("f1").await, RefundState::Succeeded);
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn refunds_never_exceed_what_came_in() {
    let stage = Stage::new().await;
    let id = stage.paid("r1").await;
    let asks: Vec<_> = (0..20).map(|number| refund_ask(&format!("f{number}"), id, AMOUNT / 4)).collect();
    let outcomes = futures::future::join_all(asks.iter().map(|ask| stage.till.refund(ask))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 4);
    let refused = outcomes.into_iter().filter_map(Result::err).map(|error| error.reason());
    assert!(refused.into_iter().all(|reason| reason == "REFUND_EXCEEDS_CAPTURE"));
    stage.pass(Duration::from_secs(2)).await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(5)).await;
    let order = stage.order(&id.to_string()).await;
    assert_eq!((order.state, order.tally.refunded), (State::Refunded, AMOUNT));
    let post = stage.till.post(&key(Method::PostOrder, "p1"), id, "s").await;
    assert_eq!(post.expect_err("refused").reason(), "ORDER_REFUNDING");
    assert_eq!(stage.assert_sound().await.refunds, 4);
}

#[tokio::test(start_paused = true)]
async fn a_refund_without_an_answer_is_asked_for_and_sent_once() {
    for mishap in [Mishap::Unreachable, Mishap::LostBefore, Mishap::LostAfter, Mishap::Busy] {
        let stage = Stage::new().await;
        let id = stage.paid("r1").await;
        stage.played.mishap(Call::Refund, mishap);
        let first = stage.till.refund(&refund_ask("f1", id, AMOUNT)).await.expect("accepts");
        stage.pass(Duration::from_secs(1)).await;
        assert_eq!(stage.refund_state("f1").await, RefundState::Requested, "{mishap:?}");
        stage.pass(Duration::from_secs(5)).await;
        assert_eq!(stage.refund_state("f1").await, RefundState::Processing, "{mishap:?}");
        assert_eq!(stage.played.books().refunds.len(), 1);
        stage.played.decide(true, stage.till.now());
        stage.pass(Duration::from_secs(10)).await;
        assert_eq!(stage.refund_state("f1").await, RefundState::Succeeded);
        assert_eq!(stage.till.refund(&refund_ask("f1", id, AMOUNT)).await.expect("answers"), first, "for ever");
        assert_eq!(stage.order(&id.to_string()).await.state, State::Refunded);
        stage.assert_sound().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refund_that_fails_gives_the_money_back_to_the_order() {
    let stage = Stage::new().await;
    let id = stage.paid("r1").await;
    stage.played.mishap(Call::Refund, Mishap::Refused);
    stage.till.refund(&refund_ask("f1", id, AMOUNT)).await.expect("accepts");
    stage.pass(Duration::from_secs(2)).await;
    assert_eq!(stage.refund_state("f1").await, RefundState::Failed);
    assert_eq!(stage.order(&id.to_string()).await.state, State::Paid);
    stage.till.post(&key(Method::PostOrder, "p1"), id, "s").await.expect("posts");
    let refund = stage.till.refund(&refund_ask("f2", id, 1)).await;
    assert_eq!(refund.expect_err("refused").reason(), "ORDER_POSTED");
    let events = [pb::EventKind::OrderPaid, pb::EventKind::RefundFailed, pb::EventKind::OrderPosted];
    assert_eq!(stage.events().await, events);
    stage.assert_sound().await;
}

/// A reservation ends at its time when the channel never heard of the refund, and only then.
#[tokio::test(start_paused = true)]
async fn a_refund_that_never_reaches_the_channel_ends_by_itself() {
    for (mishap, expected) in [(Mishap::Busy, RefundState::Failed), (Mishap::LostBefore, RefundState::Requested)] {
        let stage = Stage::new().await;
        let id = stage.paid("r1").await;
        for _ in 0..1_000 {
            stage.played.mishap(Call::Refund, mishap);
        }
        stage.till.refund(&refund_ask("f1", id, AMOUNT)).await.expect("accepts");
        stage.pass(Duration::from_secs(3_500)).await;
        assert_eq!(stage.refund_state("f1").await, RefundState::Requested);
        assert_eq!(stage.order(&id.to_string()).await.state, State::Refunding);
        stage.pass(Duration::from_secs(200)).await;
        assert_eq!(stage.refund_state("f1").await, expected, "{mishap:?}");
        if expected == RefundState::Failed {
            stage.till.post(&key(Method::PostOrder, "p1"), id, "s").await.expect("the money is free again");
            stage.assert_sound().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_told_end_of_a_refund_is_booked_once_when_it_fits_and_never_when_it_does_not() {
    let stage = Stage::new().await;
    let id = stage.paid("r1").await;
    stage.till.refund(&refund_ask("f1", id, AMOUNT / 4)).await.expect("accepts");
    stage.pass(Duration::from_secs(1)).await;
    assert_eq!(stage.refund_state("f1").await, RefundState::Processing);
    let order_no = stage.order(&id.to_string()).await.terms.channel_order_no.clone();
    let refund_no = stage.till.refund_by_request("cases", "f1").await.expect("is there").channel_refund_no();
    let asked = stage.played.count(Call::QueryRefund);
    let succeeded = Decision::Succeeded { channel_refund: "wx-1".into(), at: stage.till.now() };
    let told = |decision: Decision, spoil: fn(&mut String, &mut String, &mut i64, &mut LedgerMerchant)| {
        let (mut order_no, mut refund_no) = (order_no.clone(), refund_no.clone());
        let (mut amount, mut merchant) = (AMOUNT / 4, merchant());
        spoil(&mut order_no, &mut refund_no, &mut amount, &mut merchant);
        let notice = Notice::RefundDecided {
            channel_order_no: order_no,
            channel_refund_no: refund_no,
            amount_minor: amount,
            decision,
        };
        let till = Arc::clone(&stage.till);
        async move { till.heed(&merchant, notice).await }
    };
    let unfit = told(succeeded.clone(), |_, _, amount, _| *amount += 1).await;
    assert!(matches!(unfit, Err(NoticeError::Differs("amount.refund"))));
    let unfit = told(succeeded.clone(), |order_no, _, _, _| order_no.push('0')).await;
    assert!(matches!(unfit, Err(NoticeError::Differs("out_trade_no"))));
    let unfit = told(succeeded.clone(), |_, _, _, merchant| merchant.number.push('0')).await;
    assert!(matches!(unfit, Err(NoticeError::Differs("merchant"))));
    let strange = told(succeeded.clone(), |_, refund_no, _, _| *refund_no = "r".into()).await;
    assert!(matches!(strange, Err(NoticeError::Unknown)));
    let strange = told(succeeded.clone(), |_, refund_no, _, _| *refund_no = "f".repeat(32)).await;
    assert!(matches!(strange, Err(NoticeError::Unknown)));
    assert_eq!(stage.refund_state("f1").await, RefundState::Processing, "nothing of that was booked");

    for _ in 0..2 {
        told(succeeded.clone(), |_, _, _, _| {}).await.expect("heeds, and a duplicate is normal");
    }
    assert_eq!(stage.refund_state("f1").await, RefundState::Succeeded);
    assert_eq!(stage.played.count(Call::QueryRefund), asked, "it was not asked for");
    let opposite = told(Decision::Failed { code: "CLOSED".into() }, |_, _, _, _| {}).await;
    assert!(matches!(opposite, Err(NoticeError::Differs("refund status"))), "never one thing and then the other");
    assert_eq!(stage.events().await, [pb::EventKind::OrderPaid, pb::EventKind::RefundSucceeded]);
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hint_about_a_refund_makes_it_asked_for_at_once() {
    let stage = Stage::new().await;
    let id = stage.paid("r1").await;
    stage.till.refund(&refund_ask("f1", id, AMOUNT)).await.expect("accepts");
    // So long that the pause between two questions is at its longest.
    stage.pass(Duration::from_secs(300)).await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(1)).await;
    assert_eq!(stage.refund_state("f1").await, RefundState::Processing);
    let channel_refund_no = stage.till.refund_by_request("cases", "f1").await.expect("is there").channel_refund_no();
    stage.till.heed(&merchant(), Notice::Refund { channel_refund_no }).await.expect("heeds");
    stage.pass(Duration::from_secs(1)).await;
    assert_eq!(stage.refund_state("f1").await, RefundState::Succeeded);
    let unknown = Notice::Refund { channel_refund_no: "0".repeat(32) };
    assert!(matches!(stage.till.heed(&merchant(), unknown).await, Err(NoticeError::Unknown)));
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_is_no_lost_order() {
    for at in [At::BeforeCommit, At::AfterCommit] {
        let faults = Faults::new();
        let stage = Stage::with_faults(&faults).await;
        faults.arm(StoreFault::Tear, at);
        let error = stage.create("r1").await.expect_err("the commit's answer is lost");
        assert_eq!((error.reason(), error.effect()), ("STORE_UNAVAILABLE", Effect::Possible));
        assert_eq!(faults.struck(), 1);
        stage.pass(Duration::from_secs(40)).await;
        let order = stage.create("r1").await.expect("asked again");
        assert_eq!(order.state(), pb::OrderState::Waiting);
        let id = stage.paid("r1").await;
        faults.arm(StoreFault::Tear, at);
        let post = key(Method::PostOrder, "p1");
        stage.till.post(&post, id, "s").await.expect_err("the commit's answer is lost");
        stage.till.post(&post, id, "s").await.expect("asked again");
        assert_eq!(stage.assert_sound().await.orders, 1);
    }
}
