//! Random interleavings against a model that does one thing after the other.
//!
//! What is asked at once comes into one batch of the teller. It must come out as if it had been asked in some order, one at a time: for each
//! order an order of its calls is searched in which the model answers what the till answered and ends where the till ends. The model knows
//! nothing of the till's rules but what the contract says of them. The channel has mishaps: calls of it that get no answer, and refunds that
//! never reach it and end when the time to send them is over.
//!
//! `bench/model.sh` plays a million operations; an ordinary run plays some thousand. The seed is printed and replays a run.

use std::collections::BTreeMap;

use contracts::ids::OrderId;
use runtime::{Clock, Ids};

use super::channel::{Call, Mishap};
use super::*;
use crate::domain::ledger::Merchant as LedgerMerchant;
use crate::domain::order::{Order, State, Tally};
use crate::domain::refund::{Decision, Refund, State as RefundState};
use crate::error::Error;

const OPS: u64 = 10_000;
const SEED: u64 = 1;
/// Orders that are played at a time.
const ORDERS: usize = 4;
/// Calls at once; every order of them is searched.
const AT_ONCE: u64 = 5;
/// Steps after which an order is left as it is.
const STEPS: u32 = 40;
/// How long a refund may stay with us that does not reach the channel.
const SEND_WITHIN: Duration = Duration::from_secs(20);
/// Calls of the channel that meet a mishap, at most, in one go: enough that a refund runs out of time.
const MISHAPS: u64 = 12;
/// How a call that got no answer from the channel is refused.
const NO_ANSWER: &str = "CHANNEL_UNAVAILABLE";

/// An order as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    /// At the channel.
    is_paid_there: bool,
    is_closed_there: bool,
    /// Here.
    is_closing: bool,
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
            // Who asked the channel and got no answer changed nothing.
            let is_unanswered = matches!(ask, Ask::Refresh) && outcome == Err(NO_ANSWER.to_owned());
            (is_unanswered || next.answer(&ask) == outcome).then(|| next.explain(&rest, end)).flatten()
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
    /// Whether calls of the channel may meet mishaps.
    is_disturbed: bool,
    /// How often what was asked came out how, and what became of orders and refunds.
    seen: BTreeMap<String, u64>,
}

/// What a run of some thousand operations must have seen, or it says little.
const SEEN: [&str; 19] = [
    "Callback",
    "Create",
    "Post",
    "Post ORDER_NOT_PAID",
    "Post ORDER_POSTED",
    "Post ORDER_REFUNDING",
    "Refresh",
    "Refresh CHANNEL_UNAVAILABLE",
    "Refund",
    "Refund ORDER_NOT_PAID",
    "Refund ORDER_NOT_POSTED",
    "Refund ORDER_POSTED",
    "Refund REFUND_EXCEEDS_CAPTURE",
    "closed",
    "closed by time",
    "late money",
    "refund Failed",
    "refund Succeeded",
    "refund not sent in time",
];

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
        if self.roll(4) == 0 {
            self.stage.played.mishap(Call::Create, self.any_mishap());
        }
        let mut made = self.try_creation(&name, expire_at).await;
        while made.is_none() {
            self.pass(Duration::from_secs(1)).await;
            made = self.try_creation(&name, expire_at).await;
        }
        let id = made.expect("it was made at last");
        let number = self.order(id).await.terms.channel_order_no.clone();
        self.orders.push(Played { name, expire_at, id, number, model: Model::default(), steps: 0 });
    }

    /// None while the channel does not answer.
    async fn try_creation(&self, name: &str, expire_at: Timestamp) -> Option<OrderId> {
        let answer = match self.stage.till.create(create_ask(name, expire_at)).await {
            Ok(answer) => answer,
            Err(error) if rpc::Fault::reason(&error) == NO_ANSWER => return None,
            Err(error) => panic!("{name}: {error}"),
        };
        self.same(name, &answer);
        let answer: contracts::payments::v1::CreateOrderResponse = prost::Message::decode(&answer[..]).expect("reads");
        Some(answer.order.expect("an order").order_id.parse().expect("an id"))
    }

    fn any_mishap(&self) -> Mishap {
        self.one_of(&[Mishap::Unreachable, Mishap::LostBefore, Mishap::LostAfter, Mishap::Busy])
    }

    /// The next calls of one kind meet a mishap each.
    fn disturb(&mut self) {
        self.is_disturbed = true;
        let call = self.one_of(&[Call::Query, Call::Close, Call::Refund, Call::Refund, Call::QueryRefund]);
        let mishap = self.any_mishap();
        for _ in 0..=self.roll(MISHAPS) {
            self.stage.played.mishap(call, mishap);
        }
    }

    /// Time passes, and the worker works.
    async fn pass(&mut self, span: Duration) {
        self.stage.pass(span).await;
        self.adopt().await;
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
                assert_eq!(self.try_creation(&played.name, played.expire_at).await, Some(played.id));
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
            for (ask, outcome) in &asked {
                let name = format!("{ask:?}").split(' ').next().unwrap_or_default().to_owned();
                self.see(&outcome.as_ref().map_or_else(|reason| format!("{name} {reason}"), |_| name.clone()));
            }
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

    fn see(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_insert(0) += 1;
    }

    /// What is done by citizens, the channel and time, one thing at a time.
    async fn alone(&mut self) {
        let at = usize::try_from(self.roll(self.orders.len() as u64)).expect("small");
        let now = self.stage.till.now();
        match self.roll(7) {
            0..=1 => {
                let played = &mut self.orders[at];
                played.model.is_paid_there |= self.stage.played.pay(&played.number, now).is_some();
            }
            2 if self.roll(4) == 0 => self.close(at).await,
            2 if self.orders[at].model.is_closed_there && !self.orders[at].model.is_paid_there => {
                self.see("late money");
                self.stage.played.pay_late(&self.orders[at].number, now);
                self.orders[at].model.is_paid_there = true;
            }
            3 => self.stage.played.decide(self.roll(3) > 0, now),
            4 if self.roll(3) == 0 => self.disturb(),
            4 => {
                self.stage.played.calm();
                self.is_disturbed = false;
            }
            _ => self.pass(Duration::from_secs(self.roll(20) + 1)).await,
        }
    }

    async fn close(&mut self, at: usize) {
        let (id, name) = (self.orders[at].id, format!("{}-close", self.orders[at].name));
        let is_known = self.answers.lock().expect("nobody panics here").contains_key(&name);
        let answer = self.stage.till.close(key(Method::CloseOrder, &name), id).await.expect("answers");
        let told: contracts::payments::v1::CloseOrderResponse = prost::Message::decode(&answer[..]).expect("reads");
        // Only the last word is kept.
        let is_final = told.order.expect("an order").state() != contracts::payments::v1::OrderState::Waiting;
        if is_final {
            self.same(&name, &answer);
        }
        let end = self.order(id).await;
        let is_closed_there = self.stage.played.books().orders[&self.orders[at].number].is_closed;
        let model = &mut self.orders[at].model;
        if !is_known && model.state() == State::Waiting {
            assert!(is_final || self.is_disturbed, "the channel answered, and it still waits");
            (model.is_closing, model.is_closed_there) = (true, is_closed_there);
            if is_final {
                assert!(model.is_paid_there || model.is_closed_there, "the channel closed it, or it was paid");
                model.hear();
                self.see("closed");
            }
        }
        let model = &self.orders[at].model;
        assert_eq!((end.state, end.tally), (model.state(), model.tally()));
    }

    /// The worker has worked, or not yet: each order is where it was, or where the channel's word brings it.
    async fn adopt(&mut self) {
        let now = self.stage.till.now();
        let mut seen = Vec::new();
        for played in &mut self.orders {
            let end = self.stage.till.order_now(played.id).await.expect("is there");
            let is_over = now >= end.terms.expire_at;
            if self.stage.played.books().orders[&played.number].is_closed && !played.model.is_closed_there {
                assert!(played.model.is_closing || is_over, "nobody closed it");
                // Perhaps it was not heard here yet.
                played.model.is_closed_there = true;
            }
            if end.state != State::Waiting && played.model.state() == State::Waiting {
                let Model { is_paid_there, is_closed_there, is_closing, .. } = played.model;
                seen.extend((is_over && !is_paid_there).then(|| "closed by time".to_owned()));
                assert!(is_paid_there || is_closed_there || is_closing || is_over, "nobody closed it");
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
                let is_there = self.stage.played.books().refunds.contains_key(&refund.channel_refund_no());
                let is_unsent = !is_there && now >= refund.send_by;
                assert!(
                    is_step(*state, &refund, there.as_ref(), is_unsent),
                    "{name}: {state:?} became {:?} by {there:?}",
                    refund.state
                );
                if *state != refund.state && !refund.is_open() {
                    seen.push(if is_unsent {
                        "refund not sent in time".to_owned()
                    } else {
                        format!("refund {:?}", refund.state)
                    });
                }
                *state = refund.state;
            }
            assert_eq!((end.state, end.tally), (played.model.state(), played.model.tally()));
        }
        seen.iter().for_each(|what| self.see(what));
    }
}

/// Whether a refund may have come to where it is: its end is the channel's word, or that it never came there in time, and final.
fn is_step(before: RefundState, refund: &Refund, there: Option<&Decision>, is_unsent: bool) -> bool {
    match (before, refund.state) {
        (RefundState::Succeeded | RefundState::Failed, now) => now == before,
        (_, RefundState::Requested | RefundState::Processing) => true,
        (_, RefundState::Succeeded) => matches!(there, Some(Decision::Succeeded { .. })),
        (_, RefundState::Failed) => is_unsent || matches!(there, Some(Decision::Failed { .. })),
    }
}

async fn play(seed: u64, ops: u64) {
    let dice = Ids::seeded(Clock::system(), seed);
    let mut stage = Stage::new().await;
    let till = Arc::get_mut(&mut stage.till).expect("nobody else has it yet");
    till.config.worker.refund_send_timeout = Span::from_secs(SEND_WITHIN.as_secs());
    let (orders, answers) = (Vec::new(), std::sync::Mutex::default());
    let mut world = World { stage, dice, orders, answers, made: 0, is_disturbed: false, seen: BTreeMap::new() };
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
    tell(&format!("{done} operations on {} orders and {} refunds, seed {seed}", report.orders, report.refunds));
    tell(&format!("{:#?}", world.seen));
    let missing: Vec<_> = SEEN.iter().filter(|what| !world.seen.contains_key(**what)).collect();
    assert!(missing.is_empty() || ops < OPS, "{missing:?} never happened");
}

fn tell(line: &str) {
    use std::io::Write as _;
    // Nobody may be reading.
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "who plays more of it, or replays one, says so in the environment")]
fn what_is_asked_at_once_is_answered_as_if_one_after_the_other() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (seed, ops) = (number("MODEL_SEED").unwrap_or(SEED), number("MODEL_OPS").unwrap_or(OPS));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let played = std::panic::AssertUnwindSafe(|| runtime.expect("a runtime").block_on(play(seed, ops)));
    if let Err(panic) = std::panic::catch_unwind(played) {
        tell(&format!("MODEL_SEED={seed} replays this failure"));
        std::panic::resume_unwind(panic);
    }
}
