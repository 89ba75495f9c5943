//! The teller: what concurrent calls change is kept in one transaction.
//!
//! Calls put their deals on the counter. While one batch is being written the next gathers, so that a batch is as large as the load and a
//! lone call waits for nobody. In a batch every deal keeps its own verdict: the rules refuse a deal alone, and where the store refuses the
//! batch, its halves are tried until the one deal is found that it refuses. Nobody is told of anything before it is durable.

use std::collections::BTreeMap;

use contracts::ids::OrderId;
use futures::FutureExt;
use futures::future::BoxFuture;
use store::{Db, Tx};
use tokio::sync::{mpsc, oneshot};

use super::page::Page;
use crate::domain::order::{Change, Order, Rule, State};
use crate::domain::plan::Pace;
use crate::error::{Error, Thing};
use crate::repo::requests::{Key, Known, Name};
use crate::repo::{orders, requests};

/// Deals written together at most.
const BATCH_MAX: usize = 256;
/// Deals that wait at most; further callers wait for a place.
const QUEUE_MAX: usize = 1_024;

/// What a call wants changed, by the rules.
type Step = Box<dyn Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync>;

/// A change of one order, asked for by one call.
struct Deal {
    order: OrderId,
    step: Step,
    /// The key that the change is asked for under, and how its answer is written.
    keyed: Option<(Key, Answer)>,
    reply: oneshot::Sender<Result<Dealt, Error>>,
}

/// How the answer to a keyed call is made of the order as it then stands.
pub(super) type Answer = fn(&Order) -> Result<Vec<u8>, Error>;

/// What became of a deal. It is durable.
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
    pub(super) fn open(db: &Db, tasks: &runtime::Tasks, pace: Pace) -> Self {
        let (queue, deals) = mpsc::channel(QUEUE_MAX);
        tasks.spawn("payments.teller", serve(Counter { db: db.clone(), pace }, deals));
        Self(queue)
    }

    /// Changes an order by the rules; returns when it is kept, or refused.
    ///
    /// Errors: what the rules and the ledger refuse; RequestIdReused; the store's, with what may have happened.
    pub(super) async fn deal(
        &self,
        order: OrderId,
        keyed: Option<(Key, Answer)>,
        step: impl Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync + 'static,
    ) -> Result<Dealt, Error> {
        let (reply, dealt) = oneshot::channel();
        let gone = || Error::Internal("the teller has gone").possible();
        self.0.send(Deal { order, step: Box::new(step), keyed, reply }).await.map_err(|_| gone())?;
        dealt.await.map_err(|_| gone())?
    }
}

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
    fn keep<'a>(&'a self, deals: &'a [Deal]) -> BoxFuture<'a, Vec<Result<Dealt, Error>>> {
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

    async fn write(&self, tx: &mut Tx, deals: &[Deal]) -> Result<Vec<Result<Dealt, Error>>, Error> {
        let keys = deals.iter().filter_map(|deal| deal.keyed.as_ref().map(|(key, _)| key));
        let mut known = requests::get_all(tx, keys).await?;
        let mut orders = orders::lock_all(tx, deals.iter().map(|deal| deal.order)).await?;
        let mut page = Page::new(tx.now()?, self.pace);
        let told = deals.iter().map(|deal| enter(&mut page, deal, &mut orders, &mut known)).collect();
        page.write(tx).await?;
        Ok(told)
    }
}

/// Enters a deal on the page, after those before it, and tells what will have become of it.
fn enter(
    page: &mut Page,
    deal: &Deal,
    orders: &mut BTreeMap<OrderId, Order>,
    known: &mut BTreeMap<Name, Known>,
) -> Result<Dealt, Error> {
    let order = orders.get(&deal.order);
    let order = order.ok_or_else(|| Error::NotFound { what: Thing::Order, name: deal.order.to_string() });
    if let Some(known) = deal.keyed.as_ref().and_then(|(key, _)| known.get(&key.name())) {
        if !deal.keyed.as_ref().is_some_and(|(key, _)| known.is_same(key)) {
            return Err(Error::RequestIdReused);
        }
        if let Some(answer) = known.answer.clone() {
            return Ok(Dealt { order: order?.clone(), before: None, answer });
        }
    }
    let order = order?.clone();
    let (order, before) = match (deal.step)(&order)? {
        None => (order, None),
        Some(change) => (page.change(&order, &change, None)?, Some(order.state)),
    };
    let mut answer = Vec::new();
    if let Some((key, write)) = &deal.keyed {
        answer = write(&order)?;
        known.insert(key.name(), page.claim(key, &order.terms.id.to_string(), &answer));
    }
    orders.insert(order.terms.id, order.clone());
    Ok(Dealt { order, before, answer })
}

/// Whether one deal of many may be to blame, and the others be kept without it.
fn is_of_one(error: &Error) -> bool {
    match error {
        Error::Store { source, .. } => !source.is_transient() && source.had_no_effect(),
        _ => true,
    }
}
