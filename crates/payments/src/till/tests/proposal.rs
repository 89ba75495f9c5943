//! Two persons who give back what a payee has: one refund, whatever dies between their words and the answer.

use contracts::payments::v1 as pb;
use futures::FutureExt;
use prost::Message;
use runtime::crash::{Plan, Points};

use super::*;

const POINTS: [&str; 3] =
    ["payments.proposal.after_word", "payments.refund.after_commit", "payments.proposal.after_answer"];

#[tokio::test(start_paused = true)]
async fn two_words_are_one_refund_wherever_the_second_dies() {
    for point in POINTS {
        let stage = Stage::new().await;
        let order = stage.posted("r1").await;
        let ask = |name: &str| RefundAsk {
            is_after_settlement: true,
            key: key(Method::RefundPosted, name),
            ..refund_ask(name, order, AMOUNT)
        };
        let first = stage.till.refund_posted(&ask("one"), "one").await.expect("is taken");
        let first = pb::RefundPostedResponse::decode(&*first).expect("an answer");
        assert!(first.needs_second_person && first.refund.is_none());

        let points = Points::simulated(|_| {});
        points.arm(Plan { point: point.to_owned(), hit: 1 });
        let second = ask("two");
        let life = std::panic::AssertUnwindSafe(points.scope(stage.till.refund_posted(&second, "two"))).catch_unwind();
        let death = life.await.expect_err(point);
        assert!(runtime::crash::is_crash(death.as_ref()), "{point}");

        let answer = stage.till.refund_posted(&second, "two").await.expect("answers");
        let told = pb::RefundPostedResponse::decode(&*answer).expect("an answer");
        assert!(told.refund.is_some() && !told.needs_second_person, "{point}: {told:?}");
        assert_eq!(stage.till.refund_posted(&second, "two").await.expect("the same for ever"), answer);
        let order = stage.till.order_now(order).await.expect("is there");
        assert_eq!((order.tally.refunding, order.tally.posted), (AMOUNT, 0), "{point}");
        assert_eq!(stage.assert_sound().await.open, 1, "{point}: one refund");
    }
}
