//! Random interleavings against a model that does one thing after the other.
//!
//! What is asked at once comes into one batch of the teller. It must come out as if it had been asked in some order, one at a time: for each
//! order an order of its calls is searched in which the model answers what the till answered and ends where the till ends. The model knows
//! nothing of the till's rules but what the contract says of them.
//!
//! `bench/model.sh` plays a million operations; an ordinary run plays some thousand. The seed is printed and replays a run.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it tells its seed, and can be told one")]

use std::collections::BTreeMap;

use contracts::ids::OrderId;
use runtime::{Clock, Ids};

use super::*;
use crate::domain::ledger::Merchant as LedgerMerchant;
use crate::domain::order::{Order, State, Tally};
use crate::domain::refund::{Decision, Refund, State as RefundState};
use crate::error::Error;

const OPS: u64 = 4_000;
const SEED: u64 = 1;
/// Orders that are played at a time.
const ORDERS: usize = 4;
/// Calls at once; every order of them is searched.
const AT_ONCE: u64 = 5;
/// Steps after which an order is left as it is.
const STEPS: u32 = 40;

/// An order as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    /// At the channel.
    is_paid_there: bool,
    is_closed_there: bool,
    /// Here.
    is_captured: bool,
    is_closed: bool,
    is_late: bool,
    serial: Option<u64>,
    refunds: BTreeMap<String, (i64, bool, RefundState)>,
    /// Keys of postings that were answered.
    posts: Vec<String>,
}

/// What can be asked at once, and is decided in one moment.
#[derive(Clone, Debug)]
enum Ask {
    /// The creation again, under its key.
    Create,
    Callback,
    Refresh,
    Post {
        key: String,
        serial: u64,
    },
    Refund {
        key: String,
        amount: i64,
        is_after: bool,
    },
}

/// Answered, or the reason why not.
type Outcome = Result<State, String>;

impl Model {
    fn sum(&self, of: impl Fn(bool, RefundState) -> bool) -> i64 {
        self.refunds.values().filter(|(_, is_after, state)| of(*is_after, *state)).map(|(amount, ..)| *amount).sum()
    }

    fn refunding(&self) -> i64 {
        self.sum(|_, state| matches!(state, RefundState::Requested | RefundState::Processing))
    }

    fn refunded(&self) -> i64 {
        self.sum(|_, state| state == RefundState::Succeeded)
    }

    fn before_settlement(&self) -> i64 {
        self.sum(|is_after, state| !is_after && state != RefundState::Failed)
    }

    fn tally(&self) -> Tally {
        let captured = if self.is_captured { AMOUNT } else { 0 };
        let after = self.sum(|is_after, state| is_after && state != RefundState::Failed);
        let posted = if self.serial.is_some() { captured - self.before_settlement() - after } else { 0 };
        Tally { captured, refunding: self.refunding(), refunded: self.refunded(), posted }
    }

    fn state(&self) -> State {
        match () {
            () if !self.is_captured && self.is_closed => State::Closed,
            () if !self.is_captured => State::Waiting,
            () if self.refunding() > 0 => State::Refunding,
            () if self.refunded() == AMOUNT => State::Refunded,
            () if self.is_late => State::Closed,
            () if self.serial.is_some() => State::Posted,
            () => State::Paid,
        }
    }

    /// The channel says how it stands.
    fn hear(&mut self) {
        if self.is_paid_there && !self.is_captured {
            (self.is_captured, self.is_late) = (true, self.is_closed);
        } else if self.is_closed_there && !self.is_paid_there {
            self.is_closed = true;
        }
    }

    fn answer(&mut self, ask: &Ask) -> Outcome {
        match ask {
            Ask::Create => return Ok(State::Waiting),
            // What is told of a callback is that it was heard.
            Ask::Callback => {
                self.hear();
                return Ok(State::Waiting);
            }
            Ask::Refresh => self.hear(),
            Ask::Post { key, .. } if self.posts.contains(key) => return Ok(State::Posted),
            Ask::Post { key, serial } => {
                match (self.serial, self.state()) {
                    (Some(known), _) if known != *serial => return Err("ORDER_POSTED".into()),
                    (Some(_), _) | (None, State::Paid) => {}
                    (None, State::Refunding | State::Refunded) => return Err("ORDER_REFUNDING".into()),
                    (None, _) => return Err("ORDER_NOT_PAID".into()),
                }
                self.serial = Some(*serial);
                self.posts.push(key.clone());
                return Ok(State::Posted);
            }
            Ask::Refund { key, .. } if self.refunds.contains_key(key) => return Ok(State::Refunding),
            Ask::Refund { key, amount, is_after } => {
                let refusal = match (self.is_captured, self.serial.is_some(), is_after) {
                    (false, ..) => "ORDER_NOT_PAID",
                    (true, true, false) => "ORDER_POSTED",
                    (true, false, true) => "ORDER_NOT_POSTED",
                    _ if *amount > AMOUNT - self.refunding() - self.refunded() => "REFUND_EXCEEDS_CAPTURE",
                    _ => "",
                };
                if !refusal.is_empty() {
                    return Err(refusal.into());
                }
                self.refunds.insert(key.clone(), (*amount, *is_after, RefundState::Requested));
                return Ok(State::Refunding);
            }
        }
        Ok(self.state())
    }

    /// Finds an order of the calls in which the model answers the same and ends at `end`.
    fn explain(&self, asked: &[(Ask, Outcome)], end: &(State, Tally)) -> Option<Self> {
        if asked.is_empty() {
            return ((self.state(), self.tally()) == *end).then(|| self.clone());
        }
        (0..asked.len()).find_map(|first| {
            let mut rest = asked.to_vec();
            let (ask, outcome) = rest.remove(first);
            let mut next = self.clone();
            (next.answer(&ask) == outcome).then(|| next.explain(&rest, end)).flatten()
        })
    }
}

/// An order in play.
struct Played {
    name: String,
    /// The same request for ever, also after the order's end.
    expire_at: Timestamp,
    id: OrderId,
    number: String,
    model: Model,
    steps: u32,
}

struct World {
    stage: Stage,
    dice: Ids,
    orders: Vec<Played>,
    /// The answer under each key, for ever.
    answers: std::sync::Mutex<BTreeMap<String, Vec<u8>>>,
    made: u64,
}

impl World {
    fn roll(&self, sides: u64) -> u64 {
        self.dice.below(sides)
    }

    fn one_of<T: Copy>(&self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).expect("small")]
    }

    async fn create(&mut self) {
        self.made += 1;
        let name = format!("order-{}", self.made);
        let expire_at = self.stage.till.now().plus(Duration::from_secs(60 + self.roll(600)));
        let id = self.ask_creation(&name, expire_at).await;
        let number = self.order(id).await.terms.channel_order_no.clone();
        self.orders.push(Played { name, expire_at, id, number, model: Model::default(), steps: 0 });
    }

    async fn ask_creation(&self, name: &str, expire_at: Timestamp) -> OrderId {
        let answer = self.stage.till.create(create_ask(name, expire_at)).await.expect("creates");
        self.same(name, &answer);
        let answer: contracts::payments::v1::CreateOrderResponse = prost::Message::decode(&answer[..]).expect("reads");
        answer.order.expect("an order").order_id.parse().expect("an id")
    }

    /// One key, one answer.
    fn same(&self, key: &str, answer: &[u8]) {
        let mut answers = self.answers.lock().expect("nobody panics here");
        assert_eq!(answers.entry(key.to_owned()).or_insert_with(|| answer.to_vec()), answer, "{key}");
    }

    async fn order(&self, id: OrderId) -> Order {
        self.stage.till.order_now(id).await.expect("is there")
    }

    fn asks(&self, played: &Played) -> Vec<Ask> {
        let number = self.roll(AT_ONCE) + 1;
        let ask = |_| match self.roll(10) {
            0 => Ask::Create,
            1..=2 if played.model.is_paid_there => Ask::Callback,
            3 => Ask::Refresh,
            4..=5 => {
                let serial = self.one_of(&[1, 1, 1, 2]);
                Ask::Post { key: format!("{}-p{}-{serial}", played.name, self.roll(2)), serial }
            }
            _ => {
                let (amount, is_after) =
                    (self.one_of(&[1, AMOUNT / 4, AMOUNT / 2, AMOUNT, AMOUNT + 1]), self.roll(2) == 0);
                let key = format!("{}-f{amount}-{is_after}-{}", played.name, self.roll(3));
                Ask::Refund { key, amount, is_after }
            }
        };
        (0..number).map(ask).collect()
    }

    async fn put(&self, played: &Played, ask: &Ask) -> Outcome {
        let till = &self.stage.till;
        let reason = |error: Error| rpc::Fault::reason(&error).to_owned();
        match ask {
            Ask::Create => {
                assert_eq!(self.ask_creation(&played.name, played.expire_at).await, played.id);
                Ok(State::Waiting)
            }
            Ask::Callback => {
                let merchant = LedgerMerchant { channel: channel::NAME.into(), number: "1900000001".into() };
                let notice = self.stage.played.notice(&played.number).expect("it is paid");
                till.heed(&merchant, notice).await.expect("heeds");
                Ok(State::Waiting)
            }
            Ask::Refresh => till.refresh(played.id).await.map(|order| order.state).map_err(reason),
            Ask::Post { key: name, serial } => {
                let key = key(Method::PostOrder, name);
                let answer = till.post(&key, played.id, &serial.to_string()).await.map_err(reason)?;
                self.same(name, &answer);
                Ok(State::Posted)
            }
            Ask::Refund { key, amount, is_after } => {
                let ask = RefundAsk { is_after_settlement: *is_after, ..refund_ask(key, played.id, *amount) };
                let answer = till.refund(&ask).await.map_err(reason)?;
                self.same(key, &answer);
                Ok(State::Refunding)
            }
        }
    }

    /// Several calls on every order at once; returns how many.
    async fn together(&mut self) -> u64 {
        let asked: Vec<_> = self.orders.iter().map(|played| self.asks(played)).collect();
        let world = &*self;
        let calls = world.orders.iter().zip(&asked).map(|(played, asks)| async move {
            futures::future::join_all(asks.iter().map(|ask| world.put(played, ask))).await
        });
        let outcomes = futures::future::join_all(calls).await;
        let mut count = 0;
        for (at, (asks, outcomes)) in asked.into_iter().zip(outcomes).enumerate() {
            count += asks.len() as u64;
            let end = self.order(self.orders[at].id).await;
            let asked: Vec<_> = asks.into_iter().zip(outcomes).collect();
            let played = &mut self.orders[at];
            let explained = played.model.explain(&asked, &(end.state, end.tally));
            played.model = explained.unwrap_or_else(|| {
                panic!(
                    "no order of these explains {:?} {:?} from {:#?}: {asked:#?}",
                    end.state, end.tally, played.model
                )
            });
            played.steps += 1;
        }
        count
    }

    /// What is done by citizens, the channel and time, one thing at a time.
    async fn alone(&mut self) {
        let at = usize::try_from(self.roll(self.orders.len() as u64)).expect("small");
        let now = self.stage.till.now();
        match self.roll(6) {
            0..=1 => {
                let played = &mut self.orders[at];
                played.model.is_paid_there |= self.stage.played.pay(&played.number, now).is_some();
            }
            2 if self.roll(4) == 0 => self.close(at).await,
            2 if self.orders[at].model.is_closed_there && !self.orders[at].model.is_paid_there => {
                self.stage.played.pay_late(&self.orders[at].number, now);
                self.orders[at].model.is_paid_there = true;
            }
            3 => self.stage.played.decide(self.roll(3) > 0, now),
            _ => {
                let span = Duration::from_secs(self.roll(20) + 1);
                self.stage.pass(span).await;
                self.adopt().await;
            }
        }
    }

    async fn close(&mut self, at: usize) {
        let (id, name) = (self.orders[at].id, format!("{}-close", self.orders[at].name));
        let is_known = self.answers.lock().expect("nobody panics here").contains_key(&name);
        let answer = self.stage.till.close(key(Method::CloseOrder, &name), id).await.expect("answers");
        self.same(&name, &answer);
        let model = &mut self.orders[at].model;
        if !is_known && model.state() == State::Waiting {
            model.is_closed_there |= !model.is_paid_there;
            model.hear();
        }
        let end = self.order(id).await;
        assert_eq!((end.state, end.tally), (self.orders[at].model.state(), self.orders[at].model.tally()));
    }

    /// The worker has worked, or not yet: each order is where it was, or where the channel's word brings it.
    async fn adopt(&mut self) {
        let now = self.stage.till.now();
        for played in &mut self.orders {
            let end = self.stage.till.order_now(played.id).await.expect("is there");
            if end.state != State::Waiting && played.model.state() == State::Waiting {
                let is_over = now >= end.terms.expire_at;
                assert!(played.model.is_paid_there || played.model.is_closed_there || is_over, "nobody closed it");
                played.model.is_closed_there |= !played.model.is_paid_there;
                played.model.hear();
            }
            let mut is_told = BTreeMap::new();
            for name in played.model.refunds.keys() {
                is_told.insert(name.clone(), self.stage.till.refund_by_request("cases", name).await.expect("is there"));
            }
            for (name, refund) in is_told {
                let there =
                    self.stage.played.books().refunds.get(&refund.channel_refund_no()).and_then(|it| it.end.clone());
                let (_, _, state) = played.model.refunds.get_mut(&name).expect("is there");
                assert!(
                    is_step(*state, &refund, there.as_ref()),
                    "{name}: {state:?} became {:?} by {there:?}",
                    refund.state
                );
                *state = refund.state;
            }
            assert_eq!((end.state, end.tally), (played.model.state(), played.model.tally()));
        }
    }
}

/// Whether a refund may have come to where it is: its end is the channel's word and nobody else's, and final.
fn is_step(before: RefundState, refund: &Refund, there: Option<&Decision>) -> bool {
    match (before, refund.state) {
        (RefundState::Succeeded | RefundState::Failed, now) => now == before,
        (_, RefundState::Requested | RefundState::Processing) => true,
        (_, RefundState::Succeeded) => matches!(there, Some(Decision::Succeeded { .. })),
        (_, RefundState::Failed) => matches!(there, Some(Decision::Failed { .. })),
    }
}

async fn play(seed: u64, ops: u64) {
    let dice = Ids::seeded(Clock::system(), seed);
    let mut world = World { stage: Stage::new().await, dice, orders: Vec::new(), answers: Default::default(), made: 0 };
    let mut done = 0;
    while done < ops {
        world.orders.retain(|played| played.steps < STEPS);
        while world.orders.len() < ORDERS {
            world.create().await;
            done += 1;
        }
        done += world.together().await;
        world.alone().await;
        done += 1;
    }
    let report = world.stage.assert_sound().await;
    println!("{done} operations on {} orders and {} refunds, seed {seed}", report.orders, report.refunds);
}

#[test]
fn what_is_asked_at_once_is_answered_as_if_one_after_the_other() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (seed, ops) = (number("MODEL_SEED").unwrap_or(SEED), number("MODEL_OPS").unwrap_or(OPS));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let played = std::panic::AssertUnwindSafe(|| runtime.expect("a runtime").block_on(play(seed, ops)));
    if let Err(panic) = std::panic::catch_unwind(played) {
        eprintln!("MODEL_SEED={seed} replays this failure");
        std::panic::resume_unwind(panic);
    }
}
