//! The teller: what concurrent calls change is kept in one transaction.
//!
//! Calls put their deals on the counter. While one batch is being written the next gathers, so that a batch is as large as the load and a
//! lone call waits for nobody. In a batch every deal keeps its own verdict: the rules refuse a deal alone, and where the store refuses the
//! batch, its halves are tried until the one deal is found that it refuses. Nobody is told of anything before it is durable.

use std::collections::BTreeMap;

use contracts::ids::OrderId;
use futures::FutureExt;
use futures::future::BoxFuture;
use store::lease::Lease;
use store::{Db, Tx};
use tokio::sync::{mpsc, oneshot};

use super::page::Page;
use crate::domain::order::{Change, Order, Rule, State};
use crate::domain::plan::Pace;
use crate::error::{Error, Thing};
use crate::repo::requests::{Claim, Key, Known, Name};
use crate::repo::{orders, requests};

/// Deals written together at most.
const BATCH_MAX: usize = 256;
/// Deals that wait at most; further callers wait for a place.
const QUEUE_MAX: usize = 1_024;

/// What a call wants changed, by the rules.
type Step = Box<dyn Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync>;

/// What one call asks for.
struct Deal {
    ask: Ask,
    reply: oneshot::Sender<Result<Told, Error>>,
}

enum Ask {
    /// A new order, under the key of the call that asks for it.
    Open { key: Key, order: Box<Order>, lease: Lease },
    /// A change of an order; perhaps under a key, with how its answer is written.
    Change { order: OrderId, step: Step, keyed: Option<(Key, Answer)> },
}

/// How the answer to a keyed call is made of the order as it then stands.
pub(super) type Answer = fn(&Order) -> Result<Vec<u8>, Error>;

/// What became of a deal. It is durable.
#[derive(Clone, Debug)]
enum Told {
    /// The order is there; false when the key stood for one before.
    Opened {
        is_new: bool,
    },
    Changed(Box<Dealt>),
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
}

/// Takes deals.
pub(super) struct Teller(mpsc::Sender<Deal>);

impl Teller {
    /// Opens the counter.
    pub(super) fn new(db: &Db, tasks: &runtime::Tasks, pace: Pace) -> Self {
        let (queue, deals) = mpsc::channel(QUEUE_MAX);
        tasks.spawn("payments.teller", serve(Counter { db: db.clone(), pace }, deals));
        Self(queue)
    }

    /// Keeps a new order, which its maker has in hand; false when its key is known.
    ///
    /// Errors: RequestIdReused; the store's, with what may have happened.
    pub(super) async fn open(&self, key: Key, order: Order, lease: Lease) -> Result<bool, Error> {
        match self.ask(Ask::Open { key, order: Box::new(order), lease }).await? {
            Told::Opened { is_new } => Ok(is_new),
            Told::Changed(_) => Err(MIXED_UP),
        }
    }

    /// Changes an order by the rules; returns when it is kept, or refused.
    ///
    /// Errors: what the rules and the ledger refuse; RequestIdReused; the store's, with what may have happened.
    pub(super) async fn change(
        &self,
        order: OrderId,
        keyed: Option<(Key, Answer)>,
        step: impl Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync + 'static,
    ) -> Result<Dealt, Error> {
        match self.ask(Ask::Change { order, step: Box::new(step), keyed }).await? {
            Told::Changed(dealt) => Ok(*dealt),
            Told::Opened { .. } => Err(MIXED_UP),
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
}

async fn serve(counter: Counter, mut queue: mpsc::Receiver<Deal>) {
    let mut deals = Vec::new();
    while queue.recv_many(&mut deals, BATCH_MAX).await > 0 {
        let told = counter.keep(&deals).await;
        for (deal, told) in deals.drain(..).zip(told) {
            // A caller that has gone finds its answer under its key.
            let _ = deal.reply.send(told);
        }
    }
}

impl Counter {
    /// Keeps deals, all in one transaction where nothing stands against it; a verdict for each, in their order.
    fn keep<'a>(&'a self, deals: &'a [Deal]) -> BoxFuture<'a, Vec<Result<Told, Error>>> {
        async move {
            let kept = self.db.transact(async |mut tx: Tx| self.write(&mut tx, deals).await).await;
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

    async fn write(&self, tx: &mut Tx, deals: &[Deal]) -> Result<Vec<Result<Told, Error>>, Error> {
        let known = requests::get_all(tx, deals.iter().filter_map(Deal::key)).await?;
        let orders = orders::lock_all(tx, deals.iter().filter_map(Deal::changes)).await?;
        let mut batch = Batch { page: Page::new(tx.now()?, self.pace), orders, known };
        let told = deals.iter().map(|deal| batch.enter(&deal.ask)).collect();
        batch.page.write(tx).await?;
        Ok(told)
    }
}

impl Deal {
    fn key(&self) -> Option<&Key> {
        match &self.ask {
            Ask::Open { key, .. } | Ask::Change { keyed: Some((key, _)), .. } => Some(key),
            Ask::Change { keyed: None, .. } => None,
        }
    }

    fn changes(&self) -> Option<OrderId> {
        match &self.ask {
            Ask::Open { .. } => None,
            Ask::Change { order, .. } => Some(*order),
        }
    }
}

/// A batch that is being entered: each deal sees what those before it will have done.
struct Batch {
    page: Page,
    orders: BTreeMap<OrderId, Order>,
    known: BTreeMap<Name, Known>,
}

impl Batch {
    fn enter(&mut self, ask: &Ask) -> Result<Told, Error> {
        match ask {
            Ask::Open { key, order, lease } => {
                if self.known(key)?.is_some() {
                    return Ok(Told::Opened { is_new: false });
                }
                self.claim(key, order, None);
                self.page.open(order, lease);
                self.orders.insert(order.terms.id, (**order).clone());
                Ok(Told::Opened { is_new: true })
            }
            Ask::Change { order, step, keyed } => {
                self.change(*order, step, keyed.as_ref()).map(|dealt| Told::Changed(Box::new(dealt)))
            }
        }
    }

    fn change(&mut self, id: OrderId, step: &Step, keyed: Option<&(Key, Answer)>) -> Result<Dealt, Error> {
        let known = keyed.map_or(Ok(None), |(key, _)| self.known(key))?;
        let order = self.orders.get(&id).cloned();
        let order = order.ok_or_else(|| Error::NotFound { what: Thing::Order, name: id.to_string() })?;
        if let Some(answer) = known.and_then(|known| known.answer) {
            return Ok(Dealt { order, before: None, answer });
        }
        let (order, before) = match step(&order)? {
            None => (order, None),
            Some(change) => (self.page.change(&order, &change, None)?, Some(order.state)),
        };
        let mut answer = Vec::new();
        if let Some((key, write)) = keyed {
            answer = write(&order)?;
            self.claim(key, &order, Some(answer.clone()));
        }
        self.orders.insert(id, order.clone());
        Ok(Dealt { order, before, answer })
    }

    fn known(&self, key: &Key) -> Result<Option<Known>, Error> {
        match self.known.get(&key.name()) {
            Some(known) if !known.is_same(key) => Err(Error::RequestIdReused),
            known => Ok(known.cloned()),
        }
    }

    fn claim(&mut self, key: &Key, order: &Order, answer: Option<Vec<u8>>) {
        let claim = Claim { key: key.clone(), subject: order.terms.id.to_string(), answer };
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
