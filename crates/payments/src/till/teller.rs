//! The tellers: what concurrent calls change is kept in one transaction.
//!
//! Calls put their deals on the counter. While one batch is being written the next gathers, so that a batch is as large as the load and a
//! lone call waits for nobody. In a batch every deal keeps its own verdict: the rules refuse a deal alone, and where the store refuses the
//! batch, its halves are tried until the one deal is found that it refuses. Nobody is told of anything before it is durable.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use contracts::ids::{OrderId, RefundId};
use contracts::payments::v1 as pb;
use futures::FutureExt;
use futures::future::BoxFuture;
use prost::Message;
use store::lease::Lease;
use store::{Db, Tx};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::page::Page;
use crate::convert;
use crate::domain::order::{Change, Order, Rule, State};
use crate::domain::plan::Pace;
use crate::domain::receipt::Receipt;
use crate::domain::refund::{self, Decided, Refund};
use crate::error::{Error, Thing};
use crate::receipts::Seal;
use crate::repo::requests::{Claim, Key, Known, Name};
use crate::repo::{orders, refunds, requests};

/// Batches that are under way at once at most: while one waits for the disk, the next is entered. More would only be smaller.
const TELLERS: usize = 2;
/// Deals written together at most.
const BATCH_MAX: usize = 256;
/// Deals that wait at most; further callers wait for a place.
const QUEUE_MAX: usize = 1_024;
/// How often a lone deal is tried anew when other replicas keep changing what it is about.
const LONE_TRIES_MAX: u32 = 8;

/// What a call wants changed, by the rules.
type Step = Box<dyn Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync>;

/// The same of a refund, and of its order where that changes too.
type RefundStep = Box<dyn Fn(&Order, &Refund) -> Result<Option<Decided>, Rule> + Send + Sync>;

/// What one call asks for.
struct Deal {
    ask: Ask,
    reply: oneshot::Sender<Result<Told, Error>>,
}

enum Ask {
    /// A new order, under the key of the call that asks for it.
    Open { key: Key, order: Box<Order>, lease: Lease },
    /// The parts of a new combined order, each under a key of its own, and all of it under the key of the call.
    OpenTogether { key: Key, parts: Vec<(Key, Order)>, lease: Lease },
    /// One change for every part of a combined order: all of them, or none.
    Together { parts: Vec<OrderId>, step: Step },
    /// A change of an order; perhaps under a key.
    Change { order: OrderId, step: Step, keyed: Option<Keyed> },
    /// A new refund, under the key of the call that asks for it.
    Refund { key: Key, refund: Box<Refund> },
    /// A change of an order that gives money back by itself, under a key of ours.
    GiveBack { key: Key, refund: Box<Refund>, step: Step },
    /// A change of a refund.
    Follow { order: OrderId, refund: RefundId, step: RefundStep },
}

/// The key of a call, and how its answer is made of the order as it then stands; without that the key is claimed and the answer follows.
pub(super) type Keyed = (Key, Option<Answer>);

/// Writes an answer.
pub(super) type Answer = fn(&Order) -> Result<Vec<u8>, Error>;

/// What became of a deal. It is durable.
#[derive(Clone, Debug)]
enum Told {
    /// The order is there; false when the key stood for one before.
    Opened {
        is_new: bool,
    },
    Changed(Box<Dealt>),
    ChangedTogether(Vec<Dealt>),
}

/// What became of a change.
#[derive(Clone, Debug)]
pub(super) struct Dealt {
    /// The order as it stands.
    pub(super) order: Order,
    /// How it stood before; None where nothing was changed.
    pub(super) before: Option<State>,
    /// The answer of a keyed deal: the first one under its key.
    pub(super) answer: Vec<u8>,
    /// The receipt that its batch issued for the order.
    pub(super) receipt: Option<Receipt>,
}

/// Takes deals.
pub(super) struct Teller(mpsc::Sender<Deal>);

impl Teller {
    /// Opens the counter.
    pub(super) fn new(db: &Db, tasks: &runtime::Tasks, pace: Pace, seal: Option<Seal>) -> Self {
        let (queue, deals) = mpsc::channel(QUEUE_MAX);
        let counter = Arc::new(Counter { db: db.clone(), pace, seal, deals: Mutex::new(deals) });
        for _ in 0..if db.has_one_writer() { 1 } else { TELLERS } {
            tasks.attend("payments.teller", serve(Arc::clone(&counter)));
        }
        Self(queue)
    }

    /// Keeps a new order, which its maker has in hand; false when its key is known.
    ///
    /// Errors: RequestIdReused; the store's, with what may have happened.
    pub(super) async fn open(&self, key: Key, order: Order, lease: Lease) -> Result<bool, Error> {
        match self.ask(Ask::Open { key, order: Box::new(order), lease }).await? {
            Told::Opened { is_new } => Ok(is_new),
            Told::Changed(_) | Told::ChangedTogether(_) => Err(MIXED_UP),
        }
    }

    /// Keeps the parts of a new combined order, which its maker has in hand; false when its key is known.
    ///
    /// Errors: as [`Teller::open`]; RequestIdReused of a part.
    pub(super) async fn open_together(&self, key: Key, parts: Vec<Order>, lease: Lease) -> Result<bool, Error> {
        let keyed = |order: Order| (key.of_part(&order.terms.request_id), order);
        let parts = parts.into_iter().map(keyed).collect();
        match self.ask(Ask::OpenTogether { key, parts, lease }).await? {
            Told::Opened { is_new } => Ok(is_new),
            Told::Changed(_) | Told::ChangedTogether(_) => Err(MIXED_UP),
        }
    }

    /// Changes every part of a combined order by the rules, or none; returns when that is kept, or refused.
    ///
    /// Errors: as [`Teller::change`], of the first part to which they apply.
    pub(super) async fn change_together(
        &self,
        parts: Vec<OrderId>,
        step: impl Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync + 'static,
    ) -> Result<Vec<Dealt>, Error> {
        match self.ask(Ask::Together { parts, step: Box::new(step) }).await? {
            Told::ChangedTogether(dealt) => Ok(dealt),
            Told::Opened { .. } | Told::Changed(_) => Err(MIXED_UP),
        }
    }

    /// Changes an order by the rules; returns when it is kept, or refused.
    ///
    /// Errors: what the rules and the ledger refuse; RequestIdReused; the store's, with what may have happened.
    pub(super) async fn change(
        &self,
        order: OrderId,
        keyed: Option<Keyed>,
        step: impl Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync + 'static,
    ) -> Result<Dealt, Error> {
        self.dealt(Ask::Change { order, step: Box::new(step), keyed }).await
    }

    /// Accepts a refund; returns when it is kept, or refused.
    ///
    /// Errors: as [`Teller::change`].
    pub(super) async fn refund(&self, key: Key, refund: Refund) -> Result<Dealt, Error> {
        self.dealt(Ask::Refund { key, refund: Box::new(refund) }).await
    }

    /// Changes an order by the rules where that brings this refund with it; returns when both are kept, or refused.
    ///
    /// Errors: as [`Teller::change`].
    pub(super) async fn give_back(
        &self,
        key: Key,
        refund: Refund,
        step: impl Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync + 'static,
    ) -> Result<Dealt, Error> {
        self.dealt(Ask::GiveBack { key, refund: Box::new(refund), step: Box::new(step) }).await
    }

    /// Changes a refund by the rules, and its order with it; returns when that is kept, or refused.
    ///
    /// Errors: as [`Teller::change`].
    pub(super) async fn follow(
        &self,
        refund: &Refund,
        step: impl Fn(&Order, &Refund) -> Result<Option<Decided>, Rule> + Send + Sync + 'static,
    ) -> Result<Dealt, Error> {
        self.dealt(Ask::Follow { order: refund.order, refund: refund.id, step: Box::new(step) }).await
    }

    async fn dealt(&self, ask: Ask) -> Result<Dealt, Error> {
        match self.ask(ask).await? {
            Told::Changed(dealt) => Ok(*dealt),
            Told::Opened { .. } | Told::ChangedTogether(_) => Err(MIXED_UP),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Told, Error> {
        let (reply, told) = oneshot::channel();
        let gone = || Error::Internal("the teller has gone").possible();
        self.0.send(Deal { ask, reply }).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

const MIXED_UP: Error = Error::Internal("the teller answered another deal");

/// Where deals are written.
struct Counter {
    db: Db,
    pace: Pace,
    /// The key of receipts.
    seal: Option<Seal>,
    deals: Mutex<mpsc::Receiver<Deal>>,
}

async fn serve(counter: Arc<Counter>) {
    let mut deals = Vec::new();
    while counter.gather(&mut deals).await {
        // A teller that is gone would leave everybody waiting for ever; the transaction that it was in has ended without effect, or
        // stands under the keys of the calls.
        let told = match AssertUnwindSafe(counter.keep(&deals)).catch_unwind().await {
            Ok(told) => told,
            Err(_) => deals.iter().map(|_| Err(Error::Internal("a teller panicked"))).collect(),
        };
        for (deal, told) in deals.drain(..).zip(told) {
            // A caller that has gone finds its answer under its key.
            let _ = deal.reply.send(told);
        }
    }
}

impl Counter {
    /// Takes the next batch; false when no deal will ever come.
    async fn gather(&self, deals: &mut Vec<Deal>) -> bool {
        let mut queue = self.deals.lock().await;
        queue.recv_many(deals, BATCH_MAX).await;
        let mut before = 0;
        // Whoever is ready to come, such as those who were served just now, comes into this batch.
        while before < deals.len() && deals.len() < BATCH_MAX {
            before = deals.len();
            tokio::task::yield_now().await;
            while deals.len() < BATCH_MAX
                && let Ok(deal) = queue.try_recv()
            {
                deals.push(deal);
            }
        }
        !deals.is_empty()
    }

    /// Keeps deals, all in one transaction where nothing stands against it; a verdict for each, in their order.
    fn keep<'a>(&'a self, deals: &'a [Deal]) -> BoxFuture<'a, Vec<Result<Told, Error>>> {
        async move {
            let mut kept = self.try_keep(deals).await;
            if let [_] = deals {
                for _ in 1..LONE_TRIES_MAX {
                    if !matches!(kept, Err(Error::Raced)) {
                        break;
                    }
                    kept = self.try_keep(deals).await;
                }
            }
            match (kept, deals) {
                (Ok(told), _) => told,
                (Err(error), [_, _, ..]) if is_of_one(&error) => {
                    let (first, second) = deals.split_at(deals.len() / 2);
                    let mut told = self.keep(first).await;
                    told.extend(self.keep(second).await);
                    told
                }
                (Err(Error::Store { source, .. }), _) => deals.iter().map(|_| Err(source.clone().into())).collect(),
                (Err(error), _) => vec![Err(error)],
            }
        }
        .boxed()
    }

    async fn try_keep(&self, deals: &[Deal]) -> Result<Vec<Result<Told, Error>>, Error> {
        self.db.transact(async |mut tx: Tx| self.write(&mut tx, deals).await).await
    }

    async fn write(&self, tx: &mut Tx, deals: &[Deal]) -> Result<Vec<Result<Told, Error>>, Error> {
        let orders = orders::lock_all(tx, deals.iter().flat_map(Deal::orders)).await?;
        let refunds = refunds::lock_all(tx, deals.iter().filter_map(Deal::refund)).await?;
        // After the locks: whoever held them may have answered the same request.
        let known = requests::get_all(tx, deals.iter().flat_map(Deal::keys)).await?;
        let mut batch = Batch { page: Page::new(tx.now()?, self.pace), orders, refunds, known };
        let mut told: Vec<_> = deals.iter().map(|deal| batch.enter(&deal.ask)).collect();
        let issued = batch.page.write(tx, self.seal.as_ref()).await?;
        let issued: BTreeMap<_, _> = issued.into_iter().map(|receipt| (receipt.due.order, receipt)).collect();
        for told in &mut told {
            if let Ok(Told::Changed(dealt)) = told {
                dealt.receipt = issued.get(&dealt.order.terms.id).cloned();
            }
        }
        Ok(told)
    }
}

impl Deal {
    fn keys(&self) -> impl Iterator<Item = &Key> {
        let (own, parts) = match &self.ask {
            Ask::Open { key, .. }
            | Ask::Refund { key, .. }
            | Ask::GiveBack { key, .. }
            | Ask::Change { keyed: Some((key, _)), .. } => (Some(key), None),
            Ask::OpenTogether { key, parts, .. } => (Some(key), Some(parts.iter().map(|(key, _)| key))),
            Ask::Change { keyed: None, .. } | Ask::Together { .. } | Ask::Follow { .. } => (None, None),
        };
        own.into_iter().chain(parts.into_iter().flatten())
    }

    fn orders(&self) -> impl Iterator<Item = OrderId> {
        let (own, parts) = match &self.ask {
            Ask::Open { .. } | Ask::OpenTogether { .. } => (None, None),
            Ask::Refund { refund, .. } | Ask::GiveBack { refund, .. } => (Some(refund.order), None),
            Ask::Change { order, .. } | Ask::Follow { order, .. } => (Some(*order), None),
            Ask::Together { parts, .. } => (None, Some(parts.iter().copied())),
        };
        own.into_iter().chain(parts.into_iter().flatten())
    }

    fn refund(&self) -> Option<RefundId> {
        match &self.ask {
            Ask::Follow { refund, .. } => Some(*refund),
            Ask::Open { .. }
            | Ask::OpenTogether { .. }
            | Ask::Together { .. }
            | Ask::Refund { .. }
            | Ask::GiveBack { .. }
            | Ask::Change { .. } => None,
        }
    }
}

/// A batch that is being entered: each deal sees what those before it will have done.
struct Batch {
    page: Page,
    orders: BTreeMap<OrderId, Order>,
    refunds: BTreeMap<RefundId, Refund>,
    known: BTreeMap<Name, Known>,
}

impl Batch {
    fn enter(&mut self, ask: &Ask) -> Result<Told, Error> {
        match ask {
            Ask::Open { key, order, lease } => {
                if self.known(key)?.is_some() {
                    return Ok(Told::Opened { is_new: false });
                }
                self.claim(key, order.terms.id.to_string(), None);
                self.page.open(order, lease);
                self.orders.insert(order.terms.id, (**order).clone());
                Ok(Told::Opened { is_new: true })
            }
            Ask::OpenTogether { key, parts, lease } => self.open_together(key, parts, lease),
            Ask::Together { parts, step } => self.together(parts, step).map(Told::ChangedTogether),
            Ask::Change { order, step, keyed } => {
                self.change(*order, step, keyed.as_ref()).map(|dealt| Told::Changed(Box::new(dealt)))
            }
            Ask::Refund { key, refund } => self.refund(key, refund).map(|dealt| Told::Changed(Box::new(dealt))),
            Ask::GiveBack { key, refund, step } => {
                self.give_back(key, refund, step).map(|dealt| Told::Changed(Box::new(dealt)))
            }
            Ask::Follow { order, refund, step } => {
                self.follow(*order, *refund, step).map(|dealt| Told::Changed(Box::new(dealt)))
            }
        }
    }

    fn open_together(&mut self, key: &Key, parts: &[(Key, Order)], lease: &Lease) -> Result<Told, Error> {
        if self.known(key)?.is_some() {
            return Ok(Told::Opened { is_new: false });
        }
        for (number, (key, _)) in parts.iter().enumerate() {
            match self.known(key) {
                Ok(None) => {}
                Ok(Some(_)) => return Err(Error::RequestIdReused.of_part(number)),
                Err(error) => return Err(error.of_part(number)),
            }
        }
        self.claim(key, lease.key.clone(), None);
        for (key, order) in parts {
            self.claim(key, order.terms.id.to_string(), None);
            self.orders.insert(order.terms.id, order.clone());
        }
        self.page.open_together(parts.iter().map(|(_, order)| order.clone()), lease);
        Ok(Told::Opened { is_new: true })
    }

    /// Nothing is entered before every part has its verdict.
    fn together(&mut self, parts: &[OrderId], step: &Step) -> Result<Vec<Dealt>, Error> {
        let mut changes = Vec::new();
        for (number, id) in parts.iter().enumerate() {
            let order = self.order(*id)?;
            let change = step(&order).map_err(|rule| Error::from(rule).of_part(number))?;
            changes.push((order, change));
        }
        let dealt = self.page.change_together(&changes)?;
        for Dealt { order, .. } in &dealt {
            self.orders.insert(order.terms.id, order.clone());
        }
        Ok(dealt)
    }

    fn change(&mut self, id: OrderId, step: &Step, keyed: Option<&Keyed>) -> Result<Dealt, Error> {
        let known = keyed.map_or(Ok(None), |(key, _)| self.known(key))?;
        let is_known = known.is_some();
        let order = self.order(id)?;
        if let Some(answer) = known.and_then(|known| known.answer) {
            return Ok(Dealt { order, before: None, answer, receipt: None });
        }
        let (order, before) = match step(&order)? {
            None => (order, None),
            Some(change) => (self.page.change(&order, &change, None)?, Some(order.state)),
        };
        let mut answer = None;
        if let Some((key, write)) = keyed.filter(|_| !is_known) {
            answer = write.map(|write| write(&order)).transpose()?;
            self.claim(key, id.to_string(), answer.clone());
        }
        self.orders.insert(id, order.clone());
        Ok(Dealt { order, before, answer: answer.unwrap_or_default(), receipt: None })
    }

    fn refund(&mut self, key: &Key, refund: &Refund) -> Result<Dealt, Error> {
        let known = self.known(key)?;
        let order = self.order(refund.order)?;
        if let Some(answer) = known.and_then(|known| known.answer) {
            return Ok(Dealt { order, before: None, answer, receipt: None });
        }
        let change = refund::accept(&order, refund)?;
        self.accepted(key, refund, &order, &change)
    }

    fn give_back(&mut self, key: &Key, refund: &Refund, step: &Step) -> Result<Dealt, Error> {
        let order = self.order(refund.order)?;
        match step(&order)? {
            Some(change) if self.known(key)?.is_none() => self.accepted(key, refund, &order, &change),
            Some(_) | None => Ok(Dealt { order, before: None, answer: Vec::new(), receipt: None }),
        }
    }

    /// Enters a refund that was accepted, with the change of its order.
    fn accepted(&mut self, key: &Key, refund: &Refund, order: &Order, change: &Change) -> Result<Dealt, Error> {
        let after = self.page.change(order, change, None)?;
        self.page.refund(refund);
        let answer = pb::RefundResponse { refund: Some(convert::refund_record(refund)) }.encode_to_vec();
        self.claim(key, refund.id.to_string(), Some(answer.clone()));
        self.refunds.insert(refund.id, refund.clone());
        self.orders.insert(after.terms.id, after.clone());
        Ok(Dealt { order: after, before: Some(order.state), answer, receipt: None })
    }

    fn follow(&mut self, order: OrderId, id: RefundId, step: &RefundStep) -> Result<Dealt, Error> {
        let order = self.order(order)?;
        let refund = self.refunds.get(&id).cloned();
        let refund = refund.ok_or_else(|| Error::NotFound { what: Thing::Refund, name: id.to_string() })?;
        let Some(decided) = step(&order, &refund)? else {
            return Ok(Dealt { order, before: None, answer: Vec::new(), receipt: None });
        };
        let after = match &decided.change {
            None => order.clone(),
            Some(change) => self.page.change(&order, change, Some(id))?,
        };
        let next = self.page.follow(&refund, &decided.refund);
        self.refunds.insert(id, next);
        self.orders.insert(after.terms.id, after.clone());
        Ok(Dealt { order: after, before: Some(order.state), answer: Vec::new(), receipt: None })
    }

    fn order(&self, id: OrderId) -> Result<Order, Error> {
        let order = self.orders.get(&id).cloned();
        order.ok_or_else(|| Error::NotFound { what: Thing::Order, name: id.to_string() })
    }

    fn known(&self, key: &Key) -> Result<Option<Known>, Error> {
        match self.known.get(&key.name()) {
            Some(known) if !known.is_same(key) => Err(Error::RequestIdReused),
            known => Ok(known.cloned()),
        }
    }

    fn claim(&mut self, key: &Key, subject: String, answer: Option<Vec<u8>>) {
        let claim = Claim { key: key.clone(), subject, answer };
        let known = self.page.claim(claim);
        self.known.insert(key.name(), known);
    }
}

/// Whether one deal of many may be to blame, and the others be kept without it.
fn is_of_one(error: &Error) -> bool {
    match error {
        Error::Store { source, .. } => !source.is_transient() && source.had_no_effect(),
        _ => true,
    }
}
