//! Lives of a host that dies at a named point: everything in memory is gone, the store and the channel remember.
//!
//! Each life is a runtime of its own; dropping it is the death. Citizens and cases go on asking with the same keys until they have
//! their answers. In the end every invariant must hold that speaks of payments, and every answer given twice must have been the same.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use contracts::ids::OrderId;
use contracts::payments::v1 as pb;
use futures::FutureExt;
use invariants::Deed;
use prost::Message;
use runtime::crash::Plan;
use tokio_util::sync::CancellationToken;

use super::asked::Asked;
use super::channel::{Call, Mishap};
use super::combined::combine_ask;
use super::mixed::{a_part_of, legs_of, mixed_ask, mixed_refund};
use super::*;
use crate::channel::Notice;
use crate::domain::insurance::MixType;
use crate::domain::ledger::Merchant as LedgerMerchant;
use crate::domain::order::State;
use crate::error::Error;

const SCRIPTS: usize = 10;
const TRIES_MAX: usize = 400;
const LIVES_MAX: usize = 6;

/// What outlives the host.
struct World {
    db: Db,
    played: Played,
    dir: tempfile::TempDir,
    asked: Asked,
    now: Mutex<Timestamp>,
    script: Script,
}

/// What each case does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// Has an order paid by itself.
    Alone,
    /// Has three orders paid at once.
    Together,
    /// Has an order of which insurance pays a part.
    Mixed,
}

impl World {
    fn new(script: Script) -> Self {
        let played = Played::default();
        for (call, mishap) in [
            (Call::CreateTogether, Mishap::LostAfter),
            (Call::CreateTogether, Mishap::Refused),
            (Call::CreateTogether, Mishap::LostBefore),
            (Call::QueryTogether, Mishap::LostBefore),
            (Call::CloseTogether, Mishap::LostAfter),
            (Call::Create, Mishap::LostAfter),
            (Call::Create, Mishap::Refused),
            (Call::Create, Mishap::LostBefore),
            (Call::Query, Mishap::LostBefore),
            (Call::Close, Mishap::LostAfter),
            (Call::Refund, Mishap::LostAfter),
            (Call::Refund, Mishap::Refused),
        ] {
            played.mishap(call, mishap);
        }
        let dir = tempfile::tempdir().expect("a directory");
        let db = Db::simulated().expect("a store");
        Self { db, played, dir, asked: Asked::default(), now: Mutex::new(EPOCH), script }
    }

    /// One life: until everything is done (true) or the host dies (false).
    fn live(&self, plan: Option<Plan>) -> (bool, BTreeMap<&'static str, u32>) {
        let died = CancellationToken::new();
        let death = died.clone();
        let points = Points::simulated(move |_| death.cancel());
        if let Some(plan) = plan {
            points.arm(plan);
        }
        let host = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let done = host.expect("a runtime").block_on(async {
            let born = *self.now.lock().expect("unpoisoned");
            let context = Context::simulated(born, 7, Net::system(), points.clone());
            self.db.with_context(context.clone()).migrate(crate::MIGRATIONS).await.expect("migrates");
            let till = till(&self.db, &context, &self.played, &self.dir);
            context.tasks.spawn("worker", crate::worker::run(till.clone()));
            let everything = std::panic::AssertUnwindSafe(points.scope(self.everything(&till))).catch_unwind();
            let done = tokio::select! {
                () = died.cancelled() => false,
                ended = everything => match ended {
                    Ok(()) => true,
                    Err(payload) if runtime::crash::is_crash(payload.as_ref()) => false,
                    Err(payload) => std::panic::resume_unwind(payload),
                },
            };
            *self.now.lock().expect("unpoisoned") = context.clock.now();
            done
        });
        (done, points.hits())
    }

    async fn everything(&self, till: &Arc<Till>) {
        let script = async |number| match self.script {
            Script::Alone => self.script_alone(till, number).await,
            Script::Together => self.script_together(till, number).await,
            Script::Mixed => self.script_mixed(till, number).await,
        };
        let scripts = futures::future::join_all((0..SCRIPTS).map(script));
        let bank = async {
            loop {
                till.context.clock.sleep(Duration::from_secs(1)).await;
                self.played.decide(true, till.now());
            }
        };
        tokio::select! {
            _ = scripts => {}
            () = bank => {}
        }
    }

    /// What one case does with its order, from the beginning in every life.
    async fn script_alone(&self, till: &Arc<Till>, number: usize) {
        let id = |what: &str| format!("{what}-{number}");
        let expire_at = EPOCH.plus(LIFE);
        let order = Some(Deed::Order);
        let answer = self.told(till, order, &id("create"), || till.create(create_ask(&id("create"), expire_at))).await;
        let Some(answer) = answer else { return };
        let order = pb::CreateOrderResponse::decode(answer.as_slice()).expect("decodes").order.expect("an order");
        let order_id: OrderId = order.order_id.parse().expect("an id");
        if number % 5 == 2 {
            let close = || till.close(key(Method::CloseOrder, &id("close")), order_id);
            self.finally(till, order_id, close, |state| state == State::Closed).await;
            return;
        }
        self.played.pay(&order.channel_order_no, till.now());
        if number % 5 != 1 {
            self.until(till, || self.heed(till, &order.channel_order_no)).await;
        }
        let is_paid = |state| !matches!(state, State::Waiting | State::Creating);
        self.finally(till, order_id, async || Ok(Vec::new()), is_paid).await;
        if number % 5 == 1 || number % 5 == 3 {
            let amount = if number % 5 == 1 { AMOUNT } else { AMOUNT / 4 };
            let ask = refund_ask(&id("refund"), order_id, amount);
            self.told(till, Some(Deed::Refund), &id("refund"), || till.refund(&ask)).await;
            let is_decided = |state| state != State::Refunding;
            self.finally(till, order_id, async || Ok(Vec::new()), is_decided).await;
        }
        let post = key(Method::PostOrder, &id("post"));
        self.told(till, None, &id("post"), || till.post(&post, order_id, "serial")).await;
    }

    /// The same with orders that are paid at once: one is given back or closed, another posted.
    async fn script_together(&self, till: &Arc<Till>, number: usize) {
        let id = |what: &str| format!("{what}-{number}");
        let whole = id("whole");
        let ask = || combine_ask(&whole, EPOCH.plus(LIFE));
        for part in &ask().parts {
            self.asked.asks(Some(Deed::Order), &part.key.request_id);
        }
        let answer = self.told(till, None, &whole, || till.create_combined(ask())).await;
        let Some(answer) = answer else { return };
        let whole = pb::CreateCombinedOrderResponse::decode(answer.as_slice()).expect("decodes").combined_order;
        let whole = whole.expect("a combined order");
        for part in &whole.parts {
            let answer = pb::CreateOrderResponse { order: Some(part.clone()) };
            self.asked.told(&part.request_id, answer.encode_to_vec());
        }
        let ids: Vec<OrderId> = whole.parts.iter().map(|part| part.order_id.parse().expect("an id")).collect();
        if number % 5 == 2 {
            let close = || till.close(key(Method::CloseOrder, &id("close")), ids[1]);
            self.finally(till, ids[1], close, |state| state == State::Closed).await;
            for part in ids {
                self.finally(till, part, async || Ok(Vec::new()), |state| state == State::Closed).await;
            }
            return;
        }
        self.played.pay_together(&whole.channel_order_no, till.now());
        if number % 5 != 1 {
            self.until(till, || self.heed_together(till, &whole.channel_order_no)).await;
        }
        for part in &ids {
            let is_paid = |state| !matches!(state, State::Waiting | State::Creating);
            self.finally(till, *part, async || Ok(Vec::new()), is_paid).await;
        }
        let refund = refund_ask(&id("refund"), ids[0], AMOUNT);
        self.told(till, Some(Deed::Refund), &id("refund"), || till.refund(&refund)).await;
        self.finally(till, ids[0], async || Ok(Vec::new()), |state| state != State::Refunding).await;
        let post = key(Method::PostOrder, &id("post"));
        self.told(till, None, &id("post"), || till.post(&post, ids[1], "serial")).await;
    }

    /// The same with orders of which insurance pays a part: refunds of one leg or both, and halves that go back by themselves.
    async fn script_mixed(&self, till: &Arc<Till>, number: usize) {
        let id = |what: &str| format!("{what}-{number}");
        let mix = [MixType::CashAndInsurance, MixType::InsuranceOnly, MixType::CashOnly][number % 3];
        let ask = || mixed_ask(&id("create"), mix, EPOCH.plus(LIFE));
        let answer = self.told(till, Some(Deed::Order), &id("create"), || till.create(ask())).await;
        let Some(answer) = answer else { return };
        let order = pb::CreateOrderResponse::decode(answer.as_slice()).expect("decodes").order.expect("an order");
        let order_id: OrderId = order.order_id.parse().expect("an id");
        if number % 5 == 2 {
            let close = || till.close(key(Method::CloseOrder, &id("close")), order_id);
            self.finally(till, order_id, close, |state| state == State::Closed).await;
            return;
        }
        let is_half = number % 5 == 4 && mix == MixType::CashAndInsurance;
        let is_paid = self.played.books().orders[&order.channel_order_no].paid.is_some();
        if is_half && !is_paid {
            self.played.break_off(&order.channel_order_no, true, number.is_multiple_of(2), till.now());
        } else {
            self.played.pay(&order.channel_order_no, till.now());
        }
        if number % 5 != 1 {
            let hint = || async {
                let merchant = LedgerMerchant { channel: super::channel::NAME.into(), number: "1900000001".into() };
                let notice = Notice::Mixed { channel_order_no: order.channel_order_no.clone() };
                till.heed(&merchant, notice).await.map_err(|_| ())
            };
            self.until(till, hint).await;
        }
        if is_half {
            // Closed where the channel refused to give it back: then a person has to.
            let is_over = |state| matches!(state, State::Refunded | State::Closed);
            self.finally(till, order_id, async || Ok(Vec::new()), is_over).await;
            return;
        }
        let is_paid = |state| !matches!(state, State::Waiting | State::Creating);
        self.finally(till, order_id, async || Ok(Vec::new()), is_paid).await;
        if number % 5 == 1 || number % 5 == 3 {
            let legs = if number % 5 == 1 { legs_of(mix) } else { a_part_of(mix) };
            let ask = mixed_refund(&id("refund"), order_id, legs);
            self.told(till, Some(Deed::Refund), &id("refund"), || till.refund(&ask)).await;
            self.finally(till, order_id, async || Ok(Vec::new()), |state| state != State::Refunding).await;
        }
        let post = key(Method::PostOrder, &id("post"));
        self.told(till, None, &id("post"), || till.post(&post, order_id, "serial")).await;
    }

    async fn heed_together(&self, till: &Arc<Till>, whole_no: &str) -> Result<(), ()> {
        let merchant = LedgerMerchant { channel: super::channel::NAME.into(), number: "1900000001".into() };
        match self.played.notice_together(whole_no) {
            Some((_, notice)) => till.heed(&merchant, notice).await.map_err(|_| ()),
            None => Ok(()),
        }
    }

    async fn heed(&self, till: &Arc<Till>, order_no: &str) -> Result<(), ()> {
        let merchant = LedgerMerchant { channel: super::channel::NAME.into(), number: "1900000001".into() };
        match self.played.notice(order_no) {
            Some(notice) => till.heed(&merchant, notice).await.map_err(|_| ()),
            None => Ok(()),
        }
    }

    async fn until<F: Future<Output = Result<(), ()>>>(&self, till: &Arc<Till>, act: impl Fn() -> F) {
        for _ in 0..TRIES_MAX {
            if act().await.is_ok() {
                return;
            }
            till.context.clock.sleep(Duration::from_millis(500)).await;
        }
        panic!("never done");
    }

    /// Asks with one key until there is an answer; None for a refusal, which is one too. An answer is the same for ever.
    async fn told<F: Future<Output = Result<Vec<u8>, Error>>>(
        &self,
        till: &Arc<Till>,
        deed: Option<Deed>,
        name: &str,
        ask: impl Fn() -> F,
    ) -> Option<Vec<u8>> {
        for _ in 0..TRIES_MAX {
            self.asked.asks(deed, name);
            let (answer, is_done) = match ask().await {
                Ok(answer) => (answer, true),
                Err(Error::ChannelRefused { code }) => (code.into_bytes(), false),
                Err(Error::Rule(rule)) => (rule.to_string().into_bytes(), false),
                Err(Error::ChannelUnavailable { .. } | Error::Store { .. }) => {
                    till.context.clock.sleep(Duration::from_millis(500)).await;
                    continue;
                }
                Err(error) => panic!("{name}: {error:?}"),
            };
            self.asked.told(name, answer.clone());
            return is_done.then_some(answer);
        }
        panic!("{name}: never answered");
    }

    async fn finally<F: Future<Output = Result<Vec<u8>, Error>>>(
        &self,
        till: &Arc<Till>,
        id: OrderId,
        act: impl Fn() -> F,
        is_there: impl Fn(State) -> bool,
    ) {
        for _ in 0..TRIES_MAX {
            // What it answers is looked at in the order.
            let _ = act().await;
            let order = till.order(&mut till.db.read().await.expect("reads"), id).await.expect("is there");
            if is_there(order.state) {
                return;
            }
            till.context.clock.sleep(Duration::from_millis(500)).await;
        }
        panic!("{id}: never got there");
    }

    /// Lives on until everything is done, then holds the books against each other.
    fn finish(&self, plans: &[Plan]) -> BTreeMap<&'static str, u32> {
        let mut hits = BTreeMap::new();
        for life in 0..LIVES_MAX {
            let (done, passed) = self.live(plans.get(life).cloned());
            for (point, number) in passed {
                *hits.entry(point).or_insert(0) += number;
            }
            if done {
                assert!(life >= plans.len(), "a plan did not fire: {:?}", plans.get(life));
                self.check();
                return hits;
            }
        }
        panic!("it never ended");
    }

    /// In a life of its own, which knows what the ones before have kept.
    fn check(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let now = *self.now.lock().expect("unpoisoned");
            let context = Context::simulated(now, 7, Net::system(), Points::simulated(|_| {}));
            self.asked.assert_held(&till(&self.db, &context, &self.played, &self.dir), &self.played).await;
        });
    }
}

fn plan(point: &str, hit: u32) -> Plan {
    Plan { point: point.to_owned(), hit }
}

fn passed(script: Script) -> BTreeMap<&'static str, u32> {
    let hits = World::new(script).finish(&[]);
    hits.into_iter().filter(|(point, _)| point.starts_with("payments.")).collect()
}

#[test]
fn every_point_is_passed_by_an_ordinary_run() {
    let mut named = crate::CRASH_POINTS.to_vec();
    named.sort_unstable();
    for script in [Script::Alone, Script::Together, Script::Mixed] {
        let passed: Vec<_> = passed(script).into_keys().collect();
        assert_eq!(passed, named, "{script:?}: the list is what the code passes, no more and no less");
    }
}

/// A host dies at every point, thrice; the next one at another.
fn die_everywhere(script: Script) {
    let hits = passed(script);
    for (index, point) in crate::CRASH_POINTS.iter().enumerate() {
        let most = hits.get(point).copied().unwrap_or(0);
        for hit in [1, most / 2 + 1, most] {
            // The second life dies too, somewhere else, before it has put things right.
            let other = crate::CRASH_POINTS[(index * 7 + 3) % crate::CRASH_POINTS.len()];
            let world = World::new(script);
            let (done, _) = world.live(Some(plan(point, hit)));
            assert!(!done, "{script:?}: {point}:{hit} did not fire");
            let _ = world.live(Some(plan(other, 1)));
            world.finish(&[]);
        }
    }
}

#[test]
fn dying_at_any_point_loses_nothing_and_doubles_nothing() {
    die_everywhere(Script::Alone);
}

#[test]
fn dying_at_any_point_of_a_mixed_order_halves_no_leg() {
    die_everywhere(Script::Mixed);
}

#[test]
fn dying_at_any_point_of_a_combined_order_halves_nothing_either() {
    die_everywhere(Script::Together);
}
