//! What one transaction will write: orders with everything that belongs to their changes, each kind in one statement.

use std::collections::{BTreeMap, BTreeSet};

use contracts::ids::{OrderId, RefundId};
use contracts::payments::v1 as pb;
use prost::Message;
use runtime::{Timestamp, crash};
use store::lease::Lease;
use store::{Tx, outbox};

use super::STREAM;
use crate::convert;
use crate::domain::ledger::Entry;
use crate::domain::order::{Change, Order, State};
use crate::domain::plan::{self, Pace};
use crate::error::Error;
use crate::repo::requests::{Claim, Known, Method, Name};
use crate::repo::{ledger, orders, requests, work};

/// A page of the books that is being filled.
pub(super) struct Page {
    now: Timestamp,
    pace: Pace,
    /// New orders, and who has them in hand.
    opened: Vec<Order>,
    held: Vec<Lease>,
    /// Changed orders as they will stand, with the version that each was read with.
    orders: BTreeMap<OrderId, (i64, Order)>,
    entries: Vec<Entry>,
    answers: Vec<(Name, Vec<u8>)>,
    claims: Vec<Claim>,
    /// Work that is done, and work that is due from then on.
    done: BTreeSet<String>,
    due: BTreeMap<String, Timestamp>,
    events: Vec<(String, Vec<u8>)>,
}

impl Page {
    pub(super) fn new(now: Timestamp, pace: Pace) -> Self {
        Self {
            now,
            pace,
            opened: Vec::new(),
            held: Vec::new(),
            orders: BTreeMap::new(),
            entries: Vec::new(),
            answers: Vec::new(),
            claims: Vec::new(),
            done: BTreeSet::new(),
            due: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Enters a change of an order as it was read, or as an earlier change on this page left it; hands back how it will stand.
    pub(super) fn change(&mut self, before: &Order, change: &Change, refund: Option<RefundId>) -> Result<Order, Error> {
        let after = Order { version: before.version.saturating_add(1), ..change.order.clone() };
        let terms = &after.terms;
        let subject = terms.id.to_string();
        if before.state == State::Creating && !matches!(after.state, State::Creating | State::Refused) {
            let answer = pb::CreateOrderResponse { order: Some(convert::order(&after)?) }.encode_to_vec();
            self.answers.push((Method::CreateOrder.name(&terms.caller, &terms.request_id), answer));
        }
        if before.is_open() && !after.is_open() {
            self.due.remove(&subject);
            self.done.insert(subject.clone());
        } else if before.state != after.state && after.is_open() {
            self.due.insert(subject.clone(), plan::next_look(&after, 0, self.now, self.pace));
        }
        self.events
            .extend(change.happenings.iter().map(|what| (subject.clone(), convert::event(&after, refund, *what))));
        self.entries.extend_from_slice(&change.entries);
        self.orders.entry(terms.id).or_insert_with(|| (before.version, after.clone())).1 = after.clone();
        Ok(after)
    }

    /// Enters what is claimed under a key; hands back what is known under it from then on.
    pub(super) fn claim(&mut self, claim: Claim) -> Known {
        let known = Known::of(&claim);
        self.claims.push(claim);
        known
    }

    /// Enters a new order, which its maker has in hand.
    pub(super) fn open(&mut self, order: &Order, lease: &Lease) {
        self.opened.push(order.clone());
        self.held.push(lease.clone());
    }

    /// Writes all of it, in the caller's transaction.
    ///
    /// Errors: Raced when an order was changed, or a key claimed, since it was read; what the ledger refuses.
    pub(super) async fn write(self, tx: &mut Tx) -> Result<(), Error> {
        all(requests::claim_all(tx, &self.claims, self.now).await?, self.claims.len())?;
        if !self.opened.is_empty() {
            crash::point("payments.create.after_claim");
            orders::insert_all(tx, &self.opened).await?;
            work::insert_held(tx, &self.held).await?;
            crash::point("payments.create.before_commit");
        }
        let changed: Vec<_> = self.orders.values().map(|(seen, order)| (*seen, order)).collect();
        if !changed.is_empty() {
            all(orders::update_all(tx, &changed).await?, changed.len())?;
            crash::point("payments.book.after_order");
        }
        if !self.entries.is_empty() {
            ledger::book(tx, &self.entries, self.now).await?;
            crash::point("payments.book.after_balances");
        }
        requests::answer_all(tx, &self.answers).await?;
        work::done_all(tx, &self.done).await?;
        work::follow_all(tx, &self.due).await?;
        outbox::append_all(tx, STREAM, &self.events).await?;
        if !self.events.is_empty() {
            crash::point("payments.book.after_event");
        }
        if !changed.is_empty() {
            crash::point("payments.book.before_commit");
        }
        Ok(())
    }
}

fn all(changed: u64, asked: usize) -> Result<(), Error> {
    if usize::try_from(changed) == Ok(asked) { Ok(()) } else { Err(Error::Raced) }
}
