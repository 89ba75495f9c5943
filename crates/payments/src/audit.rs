//! Recomputes the books from their entries.
//!
//! Read-only. For the end of every test that breaks something, and for operators. It trusts no sum: transfers are compared with what
//! orders and refunds say must be there, balances with transfers, debits with credits, events with states.

mod fees;
mod settlements;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use contracts::ids::OrderId;
use contracts::money::Currency;
use contracts::payments::v1::EventKind;
use runtime::Timestamp;
use store::{Db, Reader, outbox};

use crate::convert;
use crate::domain::books;
use crate::domain::ledger::{Account, Balance, Delta, Entry, Standing, Transfer, TransferId, deltas};
use crate::domain::order::Order;
use crate::domain::receipt::Receipt;
use crate::domain::refund::{Refund, State as RefundState};
use crate::repo::ledger::{self, Booked};
use crate::repo::{orders, receipts, refunds};
use crate::till::STREAM;

/// Orders that are looked at together.
const ORDERS_PAGE: u32 = 200;
const BALANCES_PAGE: u32 = 1_000;
/// Problems that are listed; more are counted.
const LISTED_MAX: usize = 1_000;
/// Where the names of suspense accounts begin.
const SUSPENSE: &str = "suspense/";

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Orders looked at.
    pub orders: u64,
    /// Refunds looked at.
    pub refunds: u64,
    /// Settlements looked at.
    pub settlements: u64,
    /// Transfers looked at.
    pub transfers: u64,
    /// Receipts looked at.
    pub receipts: u64,
    /// Orders and refunds that a channel still has to be asked about.
    pub open: u64,
    /// What is wrong, at most 1,000 entries.
    pub problems: Vec<Problem>,
    /// How much is wrong.
    pub problems_total: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Order, transfer or account.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems_total == 0
    }

    fn note(&mut self, subject: impl ToString, what: impl Into<String>) {
        self.problems_total = self.problems_total.saturating_add(1);
        if self.problems.len() < LISTED_MAX {
            self.problems.push(Problem { subject: subject.to_string(), what: what.into() });
        }
    }
}

/// The row of a balance: account and shard.
type RowKey = (Account, i64);

#[derive(Default)]
struct Audit {
    report: Report,
    /// Recomputed rows that are not a single order's.
    totals: BTreeMap<RowKey, (Currency, Balance)>,
    /// Events that the states call for.
    wanted: BTreeMap<i32, u64>,
}

/// Checks everything.
///
/// Shape: page by page in bounded memory; while others write, what is in motion may be reported as wrong, so run it when it is quiet.
/// Errors: only the store's; what is wrong with the books is in the report.
pub async fn check(db: &Db) -> Result<Report, store::Error> {
    verify(db, |_| ControlFlow::Continue(())).await
}

/// Checks everything as [`check`] does, and tells `told` after every page of orders how far it is; it can break off there.
pub async fn verify(db: &Db, mut told: impl FnMut(&Report) -> ControlFlow<()>) -> Result<Report, store::Error> {
    let mut reader = db.read().await?;
    let mut audit = Audit::default();
    let mut after = String::new();
    let mut suspense_rows = 0;
    loop {
        let page = orders::page(&mut reader, &after, ORDERS_PAGE).await?;
        let Some(last) = page.last().map(|order| order.terms.id.to_string()) else { break };
        suspense_rows = audit.page(&mut reader, &page, &after, &last).await?.saturating_add(suspense_rows);
        after = last;
        if told(&audit.report).is_break() {
            return Ok(audit.report);
        }
    }
    audit.settlements(&mut reader).await?;
    audit.fees(&mut reader).await?;
    let kept = u64::try_from(ledger::count(&mut reader).await?).unwrap_or(u64::MAX);
    if kept != audit.report.transfers {
        let strays = kept.abs_diff(audit.report.transfers);
        audit.report.note("transfers", format!("{strays} belong to no order"));
    }
    audit.combined(&mut reader).await?;
    audit.receipts(&mut reader).await?;
    audit.balances(&mut reader, suspense_rows).await?;
    audit.events(&mut reader).await?;
    Ok(audit.report)
}

impl Audit {
    /// Checks a page of orders; returns how many rows of suspense accounts they account for.
    async fn page(
        &mut self,
        reader: &mut Reader,
        page: &[Order],
        after: &str,
        last: &str,
    ) -> Result<u64, store::Error> {
        let mut refunds_of: BTreeMap<OrderId, Vec<Refund>> = BTreeMap::new();
        for refund in refunds::of_orders(reader, after, last).await? {
            refunds_of.entry(refund.order).or_default().push(refund);
        }
        let mut transfers_of: BTreeMap<OrderId, Vec<Booked>> = BTreeMap::new();
        for booked in ledger::of_orders(reader, after, last).await? {
            let Some(order) = booked.transfer.subject.order() else { continue };
            transfers_of.entry(order).or_default().push(booked);
        }
        let mut receipt_of: BTreeMap<OrderId, Receipt> = BTreeMap::new();
        for receipt in receipts::of_orders(reader, after, last).await? {
            receipt_of.insert(receipt.due.order, receipt);
        }
        let suspense = ledger::balances_between(reader, &suspense_of(after), &suspense_of(last)).await?;
        let suspense: BTreeMap<_, _> = suspense.into_iter().map(|row| (row.account, row.balance)).collect();
        let mut rows = 0_u64;
        for order in page {
            let refunds = refunds_of.remove(&order.terms.id).unwrap_or_default();
            let transfers = transfers_of.remove(&order.terms.id).unwrap_or_default();
            let own = self.order(order, &refunds, &transfers);
            let receipt = receipt_of.remove(&order.terms.id);
            let post = TransferId::post(order.terms.id);
            let posted =
                transfers.iter().find(|booked| booked.transfer.id == post).map(|booked| booked.transfer.amount);
            self.report.receipts = self.report.receipts.saturating_add(u64::from(receipt.is_some()));
            if let Some(what) = Receipt::contradiction(order, posted, receipt.as_ref()) {
                self.report.note(order.terms.id, what);
            }
            let kept = suspense.get(&order.suspense()).copied();
            if kept.is_some() {
                rows = rows.saturating_add(1);
            }
            if kept.unwrap_or_default() != own {
                self.report.note(order.suspense(), "the balance is not the sum of the transfers");
            }
        }
        for order in refunds_of.keys().chain(transfers_of.keys()).chain(receipt_of.keys()) {
            self.report.note(order, "has refunds, transfers or a receipt, and is not there");
        }
        Ok(rows)
    }

    /// Checks one order; returns the balance that its suspense account must have.
    fn order(&mut self, order: &Order, refunds: &[Refund], transfers: &[Booked]) -> Balance {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.report.orders = self.report.orders.saturating_add(1);
        self.report.refunds = self.report.refunds.saturating_add(count(refunds.len()));
        self.report.transfers = self.report.transfers.saturating_add(count(transfers.len()));
        let open = refunds.iter().filter(|refund| refund.is_open()).count();
        self.report.open = self.report.open.saturating_add(count(open)).saturating_add(u64::from(order.is_open()));
        for what in books::contradictions(order, refunds) {
            self.report.note(order.terms.id, what);
        }
        let by_id = |found: &[(Transfer, Standing)]| -> BTreeMap<_, _> {
            found.iter().map(|(transfer, standing)| (transfer.id.clone(), (transfer.clone(), *standing))).collect()
        };
        let expected = by_id(&books::expected(order, refunds));
        let found: Vec<_> = transfers.iter().map(|booked| (booked.transfer.clone(), booked.standing)).collect();
        if expected != by_id(&found) {
            self.report.note(order.terms.id, "the transfers are not those that its state calls for");
        }
        self.want(order, refunds);
        self.fold(order, &found)
    }

    /// Adds an order's transfers to the totals; returns those of its own suspense account.
    fn fold(&mut self, order: &Order, found: &[(Transfer, Standing)]) -> Balance {
        let mut own = Balance::default();
        let entries: Vec<_> = found.iter().filter_map(|(transfer, standing)| entry(transfer, *standing)).collect();
        let rows = match deltas(&entries) {
            Ok(rows) => rows,
            Err(error) => {
                self.report.note(order.terms.id, error.to_string());
                return own;
            }
        };
        for row in rows {
            if row.account == order.suspense() {
                own = row.change;
                continue;
            }
            self.total(order.terms.id, row);
        }
        own
    }

    /// Adds what one subject changes to the totals.
    fn total(&mut self, subject: impl ToString, row: Delta) {
        let total = self.totals.entry((row.account, i64::from(row.shard)));
        let total = total.or_insert((row.currency, Balance::default()));
        match total.1.plus(row.change) {
            Some(sum) if total.0 == row.currency => total.1 = sum,
            _ => self.report.note(subject, "sums leave their range, or currencies meet in an account"),
        }
    }

    /// Notes the events that must have been told of an order.
    fn want(&mut self, order: &Order, refunds: &[Refund]) {
        let mut want = |kind: EventKind, number: usize| {
            let wanted = self.wanted.entry(kind.into()).or_insert(0);
            *wanted = wanted.saturating_add(u64::try_from(number).unwrap_or(u64::MAX));
        };
        let refunds_in = |state| refunds.iter().filter(|refund| refund.state == state).count();
        want(EventKind::OrderPaid, usize::from(order.tally.captured > 0 && !order.is_late && !order.is_half()));
        want(EventKind::LateMoney, usize::from(order.is_late));
        want(EventKind::OrderPosted, usize::from(order.is_posted()));
        want(EventKind::RefundSucceeded, refunds_in(RefundState::Succeeded));
        want(EventKind::RefundFailed, refunds_in(RefundState::Failed));
    }

    /// Checks that combined orders have the parts that they were made of.
    async fn combined(&mut self, reader: &mut Reader) -> Result<(), store::Error> {
        let mut after = String::new();
        loop {
            let page = orders::shapes(reader, &after, ORDERS_PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after.clone_from(last);
            for (id, what) in page.iter().filter_map(|(id, shape)| Some((id, shape.contradiction()?))) {
                self.report.note(id, what);
            }
        }
    }

    /// Checks that the receipts of each code have the numbers from 1 to the last one that was given out.
    async fn receipts(&mut self, reader: &mut Reader) -> Result<(), store::Error> {
        let (mut after, mut counted) = (String::new(), 0_i64);
        loop {
            let page = receipts::series(reader, &after, ORDERS_PAGE).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.code);
            for series in &page {
                counted = counted.saturating_add(series.receipts);
                if let Some(what) = series.contradiction() {
                    self.report.note(&series.code, what);
                }
            }
        }
        if u64::try_from(counted) != Ok(self.report.receipts) {
            self.report.note("receipts", "there are some of no order");
        }
        for code in receipts::unused(reader, "", BALANCES_PAGE).await? {
            self.report.note(code, "numbers were given out, and no receipt has them");
        }
        Ok(())
    }

    /// Compares the balance rows with the totals, and debits with credits.
    async fn balances(&mut self, reader: &mut Reader, suspense_rows: u64) -> Result<(), store::Error> {
        let mut sums: BTreeMap<Currency, (i128, i128)> = BTreeMap::new();
        let mut after = (String::new(), -1);
        let mut suspense_found = 0_u64;
        loop {
            let page = ledger::balances(reader, (&after.0, after.1), BALANCES_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = (last.account.to_string(), last.shard);
            for row in page {
                let Balance { debit_posted, credit_posted, debit_pending, credit_pending } = row.balance;
                let sum = sums.entry(row.currency).or_default();
                sum.0 = sum.0.saturating_add(i128::from(debit_posted)).saturating_sub(i128::from(credit_posted));
                sum.1 = sum.1.saturating_add(i128::from(debit_pending)).saturating_sub(i128::from(credit_pending));
                if row.account.is_floored() && row.balance.available().is_none_or(|rest| rest < 0) {
                    self.report.note(&row.account, "more left the account than came in");
                }
                if matches!(row.account, Account::Suspense(_)) {
                    suspense_found = suspense_found.saturating_add(1);
                    continue;
                }
                let total = self.totals.remove(&(row.account.clone(), row.shard));
                // A row whose transfers were all voided stays behind, empty.
                if total.unwrap_or((row.currency, Balance::default())) != (row.currency, row.balance) {
                    self.report.note(&row.account, format!("shard {} is not the sum of the transfers", row.shard));
                }
            }
        }
        if suspense_found != suspense_rows {
            self.report.note(SUSPENSE, "there are accounts of no order");
        }
        for (account, shard) in std::mem::take(&mut self.totals).into_keys() {
            self.report.note(account, format!("shard {shard} has transfers and no balance"));
        }
        for (currency, (posted, pending)) in sums {
            if posted != 0 || pending != 0 {
                self.report.note(currency, "debits are not equal to credits");
            }
        }
        Ok(())
    }

    /// Compares the events that were told with those that the states call for: none lost, none twice.
    async fn events(&mut self, reader: &mut Reader) -> Result<(), store::Error> {
        let mut told: BTreeMap<i32, u64> = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = outbox::read_after(reader, STREAM, after, outbox::EVENTS_MAX).await?;
            let Some(last) = page.last() else { break };
            if after == 0 && page.first().is_some_and(|first| first.seq != 1) {
                // The beginning was trimmed: nothing can be said.
                return Ok(());
            }
            after = last.seq;
            for kept in &page {
                let Ok(event) = convert::kept_event(kept) else {
                    self.report.note(format!("event {}", kept.seq), "cannot be read");
                    continue;
                };
                let number = told.entry(event.kind).or_insert(0);
                *number = number.saturating_add(1);
            }
        }
        for (kind, wanted) in std::mem::take(&mut self.wanted) {
            let told = told.get(&kind).copied().unwrap_or(0);
            if told != wanted {
                let name = EventKind::try_from(kind).unwrap_or_default().as_str_name();
                self.report.note(name, format!("{told} were told where the states call for {wanted}"));
            }
        }
        Ok(())
    }
}

fn suspense_of(order: &str) -> String {
    format!("{SUSPENSE}{order}")
}

/// The entry that has the same sum as those by which a transfer came to stand where it stands; None where they sum up to nothing.
fn entry(transfer: &Transfer, standing: Standing) -> Option<Entry> {
    match standing {
        Standing::Posted => Some(Entry::Post(transfer.clone())),
        Standing::Pending => Some(Entry::Reserve(transfer.clone(), Timestamp::default())),
        Standing::Voided => None,
    }
}
