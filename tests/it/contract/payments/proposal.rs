//! A refund after settlement, which takes the same words of two persons.

use contracts::payments::v1::{self as pb, RefundState};
use rpc::RemoteFault;
use tonic::Request;

use super::on_each_engine;
use super::rig::{AMOUNT, Engine, Rig, jsapi, money};

on_each_engine!(
    a_payee_gives_back_when_two_persons_say_so,
    what_cannot_go_back_is_refused_at_the_first_word,
    many_who_say_so_at_once_make_one_refund,
);

impl Rig {
    async fn word(
        &self,
        person: &str,
        request_id: &str,
        order_id: &str,
        amount: i64,
        reason: &str,
    ) -> Result<pb::RefundPostedResponse, RemoteFault> {
        let (request_id, order_id, reason) = (request_id.to_owned(), order_id.to_owned(), reason.to_owned());
        let request = pb::RefundPostedRequest { request_id, order_id, amount: money(amount), reason };
        let mut request = Request::new(request);
        request.metadata_mut().insert("played", person.parse().expect("a header"));
        let answer = self.operators.clone().refund_posted(request).await;
        answer.map(tonic::Response::into_inner).map_err(RemoteFault::from)
    }

    async fn posted_order(&self, name: &str) -> pb::Order {
        let order = self.paid(jsapi(name)).await;
        self.post(name, &order.order_id).await.expect("posts")
    }
}

fn reason<T: std::fmt::Debug>(answer: Result<T, RemoteFault>) -> String {
    answer.expect_err("refused").reason().to_owned()
}

async fn a_payee_gives_back_when_two_persons_say_so(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.posted_order("one").await;
    let id = &order.order_id;
    let part = AMOUNT / 4;

    let first = rig.word("operator-1", "1", id, part, "撤销").await.expect("is taken");
    assert!(first.needs_second_person && first.refund.is_none());
    assert_eq!(rig.word("operator-1", "1", id, part, "撤销").await.expect("the same"), first);
    assert_eq!(reason(rig.word("operator-1", "2", id, part, "撤销").await), "SAME_PERSON");
    assert_eq!(reason(rig.word("operator-1", "1", id, part + 1, "撤销").await), "REQUEST_ID_REUSED");
    // Another amount, and another reason, begin anew.
    assert!(rig.word("operator-2", "1", id, part + 1, "撤销").await.expect("is taken").needs_second_person);
    assert!(rig.word("operator-1", "3", id, part + 1, "重复缴款").await.expect("is taken").needs_second_person);
    assert_eq!(rig.balance("payee/traffic-430100").await, (0, AMOUNT), "words of one move nothing");

    let agreed = rig.word("operator-2", "2", id, part + 1, "重复缴款").await.expect("is agreed");
    let record = agreed.refund.clone().expect("a refund");
    assert!(!agreed.needs_second_person && record.after_settlement);
    rig.refund_in_state(&record.refund_id, RefundState::Succeeded).await;
    assert_eq!(rig.word("operator-2", "2", id, part + 1, "重复缴款").await.expect("answers"), agreed, "for ever");
    assert_eq!(rig.balance("payee/traffic-430100").await, (part + 1, AMOUNT));
    // What was agreed is over: the same words are a first one again.
    assert!(rig.word("operator-3", "1", id, part + 1, "重复缴款").await.expect("is taken").needs_second_person);
    rig.assert_sound().await;
}

async fn what_cannot_go_back_is_refused_at_the_first_word(engine: Engine) {
    let rig = Rig::new(engine).await;
    let paid = rig.paid(jsapi("paid")).await;
    assert_eq!(reason(rig.word("operator-1", "1", &paid.order_id, AMOUNT, "撤销").await), "ORDER_NOT_POSTED");
    let posted = rig.posted_order("posted").await;
    let more = rig.word("operator-1", "2", &posted.order_id, AMOUNT + 1, "撤销").await;
    assert_eq!(reason(more), "REFUND_EXCEEDS_CAPTURE");
    let nobody = "ord_00000000000000000000000000000000";
    assert_eq!(reason(rig.word("operator-1", "3", nobody, AMOUNT, "撤销").await), "ORDER_NOT_FOUND");
    assert_eq!(reason(rig.word("operator-1", "4", "ord_1", AMOUNT, "撤销").await), "INVALID_REQUEST");
    assert_eq!(reason(rig.word("operator-1", "5", &posted.order_id, 0, "撤销").await), "INVALID_REQUEST");
    assert_eq!(reason(rig.word("operator-1", "6", &posted.order_id, AMOUNT, "").await), "INVALID_REQUEST");
    // A role is nobody.
    let refused = rig.client.clone().refund_posted(pb::RefundPostedRequest::default()).await.expect_err("refused");
    assert_eq!(RemoteFault::from(&refused).reason(), "CALLER_NOT_ALLOWED");
    // The money may have gone back between the two words.
    assert!(rig.word("operator-1", "7", &posted.order_id, AMOUNT, "撤销").await.expect("is taken").needs_second_person);
    let other = pb::RefundRequest { after_settlement: true, ..super::rig::refund("other", &posted, AMOUNT) };
    let other = rig.refund(other).await.expect("accepts");
    let late = rig.word("operator-2", "7", &posted.order_id, AMOUNT, "撤销").await;
    assert_eq!(reason(late), "REFUND_EXCEEDS_CAPTURE");
    rig.refund_in_state(&other.refund_id, RefundState::Succeeded).await;
    rig.assert_held().await;
}

async fn many_who_say_so_at_once_make_one_refund(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.posted_order("one").await;
    assert!(rig.word("operator-1", "1", &order.order_id, AMOUNT, "撤销").await.expect("is taken").needs_second_person);
    let said = (0..24).map(|_| rig.word("operator-2", "w", &order.order_id, AMOUNT, "撤销"));
    let answers = futures::future::join_all(said).await;
    let first = answers[0].clone().expect("is agreed");
    assert!(answers.iter().all(|answer| answer.as_ref().ok() == Some(&first)), "{answers:#?}");
    rig.refund_in_state(&first.refund.expect("a refund").refund_id, RefundState::Succeeded).await;
    assert_eq!(rig.balance("payee/traffic-430100").await, (AMOUNT, AMOUNT));
    rig.assert_sound().await;
}
