//! What one transaction will write: orders with everything that belongs to their changes, each kind in one statement.

use std::collections::{BTreeMap, BTreeSet};

use contracts::ids::{OrderId, RefundId};
use runtime::{Timestamp, crash};
use store::lease::Lease;
use store::{Tx, outbox};

use super::STREAM;
use super::combined::combined_answer;
use super::create::creation_answer;
use super::teller::Dealt;
use crate::convert;
use crate::domain::ledger::Entry;
use crate::domain::order::{Change, Order, State};
use crate::domain::plan::{self, Pace};
use crate::domain::receipt::{Due, Receipt};
use crate::domain::refund::Refund;
use crate::error::Error;
use crate::receipts::Seal;
use crate::repo::requests::{Claim, Known, Method, Name};
use crate::repo::{ledger, orders, receipts, refunds, requests, work};

/// A page of the books that is being filled.
pub(super) struct Page {
    now: Timestamp,
    pace: Pace,
    /// New orders, and new refunds.
    opened: Vec<Order>,
    accepted: Vec<Refund>,
    /// New work.
    begun: Vec<work::New>,
    /// Changed orders as they will stand, with the version that each was read with.
    orders: BTreeMap<OrderId, (i64, Order)>,
    refunds: BTreeMap<RefundId, (i64, Refund)>,
    entries: Vec<Entry>,
    answers: Vec<(Name, Vec<u8>)>,
    claims: Vec<Claim>,
    /// Work that is done, and work that is due from then on.
    done: BTreeSet<String>,
    due: BTreeMap<String, Timestamp>,
    events: Vec<(String, Vec<u8>)>,
    /// Receipts that postings make due, in their order.
    receipts: Vec<Due>,
}

impl Page {
    pub(super) fn new(now: Timestamp, pace: Pace) -> Self {
        Self {
            now,
            pace,
            opened: Vec::new(),
            accepted: Vec::new(),
            begun: Vec::new(),
            orders: BTreeMap::new(),
            refunds: BTreeMap::new(),
            entries: Vec::new(),
            answers: Vec::new(),
            claims: Vec::new(),
            done: BTreeSet::new(),
            due: BTreeMap::new(),
            events: Vec::new(),
            receipts: Vec::new(),
        }
    }

    /// Enters a change of an order as it was read, or as an earlier change on this page left it; hands back how it will stand.
    pub(super) fn change(&mut self, before: &Order, change: &Change, refund: Option<RefundId>) -> Result<Order, Error> {
        let after = Order { version: before.version.saturating_add(1), ..change.order.clone() };
        let terms = &after.terms;
        let subject = terms.id.to_string();
        if after.part.is_none() && is_made(before.state, after.state) {
            let answer = creation_answer(&after)?;
            self.answers.push((Method::CreateOrder.name(&terms.caller, &terms.request_id), answer));
        }
        if after.part.is_some() {
            // It is followed with the whole.
        } else if before.is_open() && !after.is_open() {
            self.due.remove(&subject);
            self.done.insert(subject.clone());
        } else if before.state != after.state && after.is_open() {
            self.due.insert(subject.clone(), plan::next_look(&after, 0, self.now, self.pace));
        }
        self.events
            .extend(change.happenings.iter().map(|what| (subject.clone(), convert::event(&after, refund, *what))));
        self.entries.extend_from_slice(&change.entries);
        self.receipts.extend(Due::of(before, &after, self.now));
        self.orders.entry(terms.id).or_insert_with(|| (before.version, after.clone())).1 = after.clone();
        Ok(after)
    }

    /// Enters the changes of every part of a combined order, as they were read or as an earlier change on this page left them; hands back
    /// how they will stand.
    pub(super) fn change_together(&mut self, changes: &[(Order, Option<Change>)]) -> Result<Vec<Dealt>, Error> {
        let after: Vec<_> = changes.iter().map(|(was, change)| change.as_ref().map_or(was, |to| &to.order)).collect();
        // What can fail comes first, so that nothing is half entered.
        if let Some((was, _)) = changes.iter().zip(&after).find(|((was, _), after)| is_made(was.state, after.state)) {
            let part = was.0.part.as_ref().ok_or(Error::Internal("an order that is no part was changed as one"))?;
            let name = Method::CreateCombinedOrder.name(&was.0.terms.caller, &part.request_id);
            self.answers.push((name, combined_answer(after.iter().copied())?));
        }
        let subject = after.first().map(|order| order.followed_as()).unwrap_or_default();
        let open = after.iter().find(|order| order.is_open());
        let is_moved = changes.iter().zip(&after).any(|((was, _), after)| was.state != after.state);
        match open {
            None if changes.iter().any(|(was, _)| was.is_open()) => {
                self.due.remove(&subject);
                self.done.insert(subject);
            }
            Some(open) if is_moved => {
                self.due.insert(subject, plan::next_look(open, 0, self.now, self.pace));
            }
            Some(_) | None => {}
        }
        let enter = |(was, change): &(Order, Option<Change>)| {
            let (order, before) = match change {
                None => (was.clone(), None),
                Some(change) => (self.change(was, change, None)?, Some(was.state)),
            };
            Ok(Dealt { order, before, answer: Vec::new(), receipt: None })
        };
        changes.iter().map(enter).collect()
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
        self.begun.push(work::New::held(lease));
    }

    /// Enters the parts of a new combined order, which its maker has in hand.
    pub(super) fn open_together(&mut self, parts: impl Iterator<Item = Order>, lease: &Lease) {
        self.opened.extend(parts);
        self.begun.push(work::New::held(lease));
    }

    /// Enters a new refund, for the worker.
    pub(super) fn refund(&mut self, refund: &Refund) {
        self.accepted.push(refund.clone());
        self.begun.push(work::New::due(refund.id.to_string(), self.now));
    }

    /// Enters a change of a refund as it was read, or as an earlier change on this page left it; hands back how it will stand.
    pub(super) fn follow(&mut self, before: &Refund, after: &Refund) -> Refund {
        let after = Refund { version: before.version.saturating_add(1), ..after.clone() };
        if before.is_open() && !after.is_open() {
            self.done.insert(after.id.to_string());
        }
        self.refunds.entry(after.id).or_insert_with(|| (before.version, after.clone())).1 = after.clone();
        after
    }

    /// Writes all of it, in the caller's transaction; hands back the receipts that it issued.
    ///
    /// Errors: Raced when an order was changed, or a key claimed, since it was read; what the ledger refuses.
    pub(super) async fn write(mut self, tx: &mut Tx, seal: Option<&Seal>) -> Result<Vec<Receipt>, Error> {
        // In one order for all replicas, so that two of them cannot wait for each other in a ring.
        self.claims.sort_by_key(|claim| claim.key.name());
        all(requests::claim_all(tx, &self.claims, self.now).await?, self.claims.len())?;
        if !self.opened.is_empty() {
            crash::point("payments.create.after_claim");
            orders::insert_all(tx, &self.opened).await?;
        }
        refunds::insert_all(tx, &self.accepted).await?;
        work::insert_all(tx, &self.begun).await?;
        if !self.opened.is_empty() {
            crash::point("payments.create.before_commit");
        }
        let changed: Vec<_> = self.orders.values().map(|(seen, order)| (*seen, order)).collect();
        if !changed.is_empty() {
            all(orders::update_all(tx, &changed).await?, changed.len())?;
            crash::point("payments.book.after_order");
        }
        let followed: Vec<_> = self.refunds.values().map(|(seen, refund)| (*seen, refund)).collect();
        all(refunds::update_all(tx, &followed).await?, followed.len())?;
        if !self.entries.is_empty() {
            ledger::enter(tx, &self.entries, self.now).await?;
            crash::point("payments.book.after_transfers");
        }
        requests::answer_all(tx, &self.answers).await?;
        work::done_all(tx, &self.done).await?;
        work::follow_all(tx, &self.due).await?;
        // Last, what every batch changes: others wait for it until this transaction has ended.
        if !self.entries.is_empty() {
            ledger::balance(tx, &self.entries).await?;
            crash::point("payments.book.after_balances");
        }
        let mut issued = Vec::new();
        if !self.receipts.is_empty() {
            issued = issue_all(tx, self.receipts, seal).await?;
            crash::point("payments.book.after_receipts");
        }
        outbox::append_all(tx, STREAM, &self.events).await?;
        if !self.events.is_empty() {
            crash::point("payments.book.after_event");
        }
        if !changed.is_empty() {
            crash::point("payments.book.before_commit");
        }
        if !self.accepted.is_empty() {
            crash::point("payments.refund.before_commit");
        }
        Ok(issued)
    }
}

/// Numbers the receipts that are due and keeps them. A transaction that comes to nothing takes its numbers back.
async fn issue_all(tx: &mut Tx, due: Vec<Due>, seal: Option<&Seal>) -> Result<Vec<Receipt>, Error> {
    let seal = seal.ok_or(Error::Internal("receipts are due and there is no key for them"))?;
    let mut counts = BTreeMap::new();
    for due in &due {
        let count = counts.entry(due.code.as_str()).or_insert(0_i64);
        *count = count.saturating_add(1);
    }
    let last = receipts::number_all(tx, &counts).await?;
    let next = |(code, count): (&str, i64)| Some((code.to_owned(), last.get(code)?.checked_sub(count)?));
    let mut numbers: BTreeMap<String, i64> = counts.into_iter().filter_map(next).collect();
    let issue = |due: Due| {
        let number = numbers.get_mut(&due.code).ok_or(Error::Internal("a code of receipts was not numbered"))?;
        *number = number.saturating_add(1);
        Ok(seal.issue(due, *number))
    };
    let issued = due.into_iter().map(issue).collect::<Result<Vec<_>, Error>>()?;
    receipts::insert_all(tx, &issued).await?;
    Ok(issued)
}

/// Whether an order comes to exist at the channel.
fn is_made(before: State, after: State) -> bool {
    before == State::Creating && !matches!(after, State::Creating | State::Refused)
}

fn all(changed: u64, asked: usize) -> Result<(), Error> {
    if usize::try_from(changed) == Ok(asked) { Ok(()) } else { Err(Error::Raced) }
}
