//! Orders of a channel that knows them only once their payer has opened them.

use std::time::Duration;

use contracts::ids::OrderId;
use contracts::payments::v1 as pb;
use pb::OrderState;
use prost::Message;

use super::{LIFE, Stage, create_ask, key};
use crate::domain::order::State;
use crate::repo::requests::Method;

/// The quiet time of the settings, and the longest pause between two looks.
const QUIET: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(60);

struct Waiting {
    stage: Stage,
    id: OrderId,
    number: String,
}

impl Waiting {
    /// An order that waits for its payer, who has not opened it.
    async fn new() -> Self {
        let stage = Stage::new().await;
        stage.played.be_lazy();
        let answer = stage.till.create(create_ask("r1", stage.till.now().plus(LIFE))).await.expect("creates");
        let answer = pb::CreateOrderResponse::decode(answer.as_slice()).expect("an answer").order.expect("an order");
        assert_eq!(answer.state(), OrderState::Waiting);
        assert!(answer.pay_sheet.as_ref().is_some_and(|sheet| sheet.works_until_end), "the caller is told");
        let id = answer.order_id.parse().expect("an id");
        Self { stage, id, number: answer.channel_order_no }
    }

    async fn close(&self, request_id: &str) -> OrderState {
        let answer = self.stage.till.close(key(Method::CloseOrder, request_id), self.id).await.expect("answers");
        pb::CloseOrderResponse::decode(answer.as_slice()).expect("an answer").order.expect("an order").state()
    }

    async fn state(&self) -> State {
        self.stage.till.order_now(self.id).await.expect("reads").state
    }

    /// Passes the time until `before` the order's end.
    async fn near_the_end(&self, before: Duration) {
        let end = self.stage.till.order_now(self.id).await.expect("reads").terms.expire_at;
        self.stage.pass(end.minus(before).since(self.stage.till.now())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_opened_waits_until_its_end_and_the_quiet_time_after_it() {
    let waiting = Waiting::new().await;
    assert_eq!(waiting.close("c1").await, OrderState::Waiting, "the citizen still has the sheet");
    waiting.near_the_end(Duration::from_secs(2)).await;
    assert_eq!(waiting.close("c2").await, OrderState::Waiting);
    waiting.stage.pass(QUIET).await;
    assert_eq!(waiting.close("c3").await, OrderState::Waiting, "what was opened in the last moment may be under way");
    waiting.stage.pass(Duration::from_secs(2)).await;
    assert_eq!(waiting.close("c4").await, OrderState::Closed);
    waiting.stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn the_worker_alone_closes_it_too() {
    let waiting = Waiting::new().await;
    waiting.near_the_end(Duration::ZERO).await;
    assert_eq!(waiting.state().await, State::Waiting);
    waiting.stage.pass(QUIET + PAUSE).await;
    assert_eq!(waiting.state().await, State::Closed);
    assert_eq!(waiting.stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_opened_is_closed_when_that_is_asked() {
    let waiting = Waiting::new().await;
    assert!(waiting.stage.played.open(&waiting.number, waiting.stage.till.now()));
    assert_eq!(waiting.close("c1").await, OrderState::Closed);
    waiting.stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_paid_after_closing_was_asked_is_paid() {
    let waiting = Waiting::new().await;
    assert_eq!(waiting.close("c1").await, OrderState::Waiting);
    waiting.stage.played.pay(&waiting.number, waiting.stage.till.now()).expect("the sheet still works");
    assert_eq!(waiting.close("c2").await, OrderState::Paid);
    waiting.stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_was_opened_in_the_last_moment_is_closed_there_and_not_forgotten_here() {
    let waiting = Waiting::new().await;
    waiting.near_the_end(Duration::from_secs(1)).await;
    assert!(waiting.stage.played.open(&waiting.number, waiting.stage.till.now()));
    waiting.stage.pass(QUIET + PAUSE).await;
    assert_eq!(waiting.state().await, State::Closed);
    assert!(waiting.stage.played.books().orders[&waiting.number].is_closed, "at the channel, where it was open");
    waiting.stage.assert_sound().await;
}
