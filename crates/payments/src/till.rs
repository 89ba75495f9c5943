//! Where orders, refunds, the ledger and the channels meet.
//!
//! Every change of an order or refund goes through the [`Teller`]: read it, let the rules decide, and in one transaction keep it (if
//! nobody changed it since), its transfers and balances, the answer to the request that made it, and the events. A channel is only called between two transactions, never inside one: first it is kept what is about to be done, then
//! it is done, then it is kept what came of it. Whatever a crash leaves between them stands in the table `work` and is taken up again.

mod close;
mod combined;
mod create;
pub(crate) mod days;
mod fees;
mod look;
mod mixed;
mod notice;
mod page;
pub(crate) mod proposal;
mod receipt;
mod refund;
pub(crate) mod settle;
mod teller;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contracts::ids::OrderId;
use futures::future::BoxFuture;
use rpc::Effect;
use runtime::telemetry::{Counter, Family, Gauge, Labels};
use runtime::{Context, crash, watch};
use store::lease::Leases;
use store::{Db, Read};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Config;
use crate::channel::Channel;
use crate::domain::order::{Change, Order, Rule, State};
use crate::error::{Error, Thing};
use crate::receipts::Tries;
use crate::reconcile::source::{BillSource, Folder};
use crate::repo::requests::{Key, Known};
use crate::repo::{self, orders, requests, work};
use crate::vault::Vault;
use teller::Teller;

pub(crate) use fees::TRANSFERS_MAX as FEES_MAX;
pub(crate) use notice::{NoticeError, number_of};

/// The outbox stream of payments' events.
pub(crate) const STREAM: &str = "payments";

/// How long a waiting call relies on being woken before it looks by itself: another replica may have done it.
const WAIT_POLL: Duration = Duration::from_millis(200);
/// What a call keeps of its deadline to write its answer.
const ANSWER_COST: Duration = Duration::from_millis(50);

/// The till.
pub(crate) struct Till {
    pub(crate) db: Db,
    pub(crate) context: Context,
    pub(crate) config: Config,
    pub(crate) leases: Leases,
    /// This start of this replica, as owner of leases.
    pub(crate) owner: String,
    /// Wakes the worker.
    pub(crate) nudge: Notify,
    channels: BTreeMap<&'static str, Arc<dyn Channel>>,
    /// Where the bills of channels come from.
    bills: BTreeMap<String, Arc<dyn BillSource>>,
    /// Where departments' settlement files lie.
    departments: Option<Folder>,
    vault: Option<Vault>,
    teller: Teller,
    /// Wrong tries on receipts.
    tries: Tries,
    /// Counts changes, for calls that wait for one.
    changes: watch::Sender<u64>,
    states: Family<Labels, Counter>,
    mismatches: Family<Labels, Counter>,
    breaks: Family<Labels, Gauge>,
    break_age: Family<Labels, Gauge>,
    /// Orders, refunds and days that the worker has in hand.
    pub(crate) in_hand: Gauge,
}

impl Till {
    pub(crate) fn new(
        config: Config,
        context: Context,
        db: Db,
        channels: Vec<Arc<dyn Channel>>,
        vault: Option<Vault>,
    ) -> Result<Self, store::Error> {
        let metrics = &context.metrics;
        let seal = vault.as_ref().and_then(Vault::receipts).cloned();
        let teller = Teller::new(&db, &context.tasks, config.worker.pace(), seal);
        Ok(Self {
            leases: Leases::new(&db, &work::SPEC)?,
            owner: format!("payments-{}", context.ids.hex(12)),
            nudge: Notify::new(),
            channels: channels.into_iter().map(|channel| (channel.capabilities().channel, channel)).collect(),
            bills: BTreeMap::new(),
            departments: Some(config.reconcile.departments_dir.clone())
                .filter(|folder| !folder.as_os_str().is_empty())
                .map(Folder),
            vault,
            teller,
            tries: Tries::default(),
            changes: watch::Sender::new(0),
            states: metrics.counter("lastmile_payments_order_states", "Orders that came into a state, by state."),
            mismatches: metrics.counter(
                "lastmile_payments_channel_mismatches",
                "Accounts of a channel that do not fit the order and were not booked; each needs a person.",
            ),
            breaks: metrics
                .gauge("lastmile_payments_breaks", "Breaks of reconciliation that a person has to look at, by kind"),
            break_age: metrics
                .gauge("lastmile_payments_break_age_days", "Days since the oldest open break was first seen, by kind"),
            in_hand: metrics
                .gauge(
                    "lastmile_payments_in_hand",
                    "Orders and refunds that the worker has in hand, when it last looked",
                )
                .get_or_create(&Labels::new())
                .clone(),
            db,
            context,
            config,
        })
    }

    /// The same with where the bills of channels come from.
    #[must_use]
    pub(crate) fn with_bills(self, bills: BTreeMap<String, Arc<dyn BillSource>>) -> Self {
        Self { bills, ..self }
    }

    /// Finds the driver of an order's channel.
    pub(crate) fn channel(&self, name: &str) -> Result<&Arc<dyn Channel>, Error> {
        self.channels.get(name).ok_or(Error::ChannelNotOffered)
    }

    fn now(&self) -> runtime::Timestamp {
        self.context.clock.now()
    }

    /// Reads an order that must be there.
    pub(crate) async fn order(&self, reader: &mut impl Read, id: OrderId) -> Result<Order, Error> {
        let order = orders::get(reader, id).await?;
        order.ok_or_else(|| Error::NotFound { what: Thing::Order, name: id.to_string() })
    }

    /// Changes an order by the rules; hands back how it stands, when that is durable.
    pub(crate) async fn amend(
        &self,
        id: OrderId,
        step: impl Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync + 'static,
    ) -> Result<Order, Error> {
        let dealt = self.teller.change(id, None, step).await?;
        if let Some(before) = dealt.before {
            crash::point("payments.book.after_commit");
            self.changed(&dealt.order, before);
        }
        Ok(dealt.order)
    }

    /// Tells those who wait, and counts.
    fn changed(&self, after: &Order, before: State) {
        if after.state != before {
            self.states.get_or_create(&vec![("state", after.state.to_string().into())]).inc();
        }
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Notes that what a channel says does not fit what we know. Never booked; a person has to look.
    fn mismatch(&self, order: &Order, what: &'static str) {
        let channel = order.terms.merchant.channel.clone();
        self.mismatches.get_or_create(&vec![("channel", channel.into()), ("what", what.into())]).inc();
        tracing::error!(order_id = %order.terms.id, what, "the channel's account does not fit the order");
    }

    /// Finds what is known under a key.
    ///
    /// Errors: RequestIdReused when it stands for another request.
    pub(crate) async fn known(&self, reader: &mut impl Read, key: &Key) -> Result<Option<Known>, Error> {
        let known = requests::get(reader, &key.caller, key.method, &key.request_id).await?;
        match known {
            Some(known) if !known.is_same(key) => Err(Error::RequestIdReused),
            known => Ok(known),
        }
    }

    /// When a call has to stop waiting: at its own deadline, and in any case after the configured time.
    fn deadline(&self) -> Instant {
        let most = later(Instant::now(), self.config.answer_timeout.get());
        let own = rpc::call::deadline().map(|at| at.checked_sub(ANSWER_COST).unwrap_or(at));
        own.map_or(most, |own| own.min(most))
    }

    /// Waits until something changed, or it is time to look again, or the deadline.
    async fn wait(&self, changes: &mut watch::Receiver<u64>, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now()).min(WAIT_POLL);
        let _ = self.context.clock.timeout(left, changes.changed()).await;
    }

    /// Runs an effect to its end, whatever becomes of the call that asked for it.
    async fn to_end<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: BoxFuture<'static, Result<T, Error>>,
    ) -> Result<T, Error> {
        let ended = self.context.tasks.run_to_end(name, effect).await;
        ended.unwrap_or(Err(Error::ChannelUnavailable { effect: Effect::Possible, source: None }))
    }
}

fn later(at: Instant, span: Duration) -> Instant {
    at.checked_add(span).unwrap_or(at)
}

/// Reads a subject of the tables `requests` and `work` as the id that it is.
fn subject<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::from(repo::unreadable("subject")))
}

#[cfg(test)]
mod tests;
