//! The day's reconciliation: what a channel's bill, or a department's file, says beside the ledger, what is done about it, and what
//! persons say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::pin::pin;
use std::time::Duration;

use contracts::ids::{OrderId, RefundId};
use contracts::payments::v1 as pb;
use futures::future::{Either, select};
use jiff::civil::Date;
use prost::Message;
use runtime::{Timestamp, crash};
use store::Tx;
use store::lease::Lease;

use super::{Till, fees};
use crate::channel::ChannelError;
use crate::config::Payee;
use crate::convert::{self, Of, ResolveAsk};
use crate::domain::breaks::{Kept, Repair, State};
use crate::domain::ledger::{Merchant, TransferId};
use crate::error::{Error, Thing};
use crate::reconcile::ledger::Scope;
use crate::reconcile::source::BillSource;
use crate::reconcile::{self, Bill, Break, BreakKind, Day, Entry, Fee, Matcher, Side, Told, What, ledger};
use crate::repo::requests::{self, Claim, Key};
use crate::repo::runs::{self, Name, Run};
use crate::repo::{self, breaks, orders, refunds, work};
use crate::{beijing, domain};

/// Where the keys of this work begin; orders and refunds begin otherwise.
pub(crate) const PREFIX: &str = "run/";
/// More breaks in a day are no breaks but the wrong bill.
const BREAKS_MAX: usize = 10_000;
const PROBLEM_CHARS_MAX: usize = 1_000;
const DAY: Duration = Duration::from_secs(86_400);
/// A day that the channel has nothing of, and the ledger has.
const EMPTY: &str = "the channel says that nothing happened, and the ledger has movements: it is asked again";

/// Every moment at which a test may kill the reconciliation of a day, in its order.
pub(crate) const CRASH_POINTS: &[&str] =
    &["payments.day.before_keep", "payments.day.after_keep", "payments.day.before_finish", "payments.day.after_finish"];

/// The same of a person's word on a break.
pub(crate) const RESOLVE_CRASH_POINTS: &[&str] = &["payments.resolve.before_commit", "payments.resolve.after_commit"];

/// What a comparison found.
struct Found {
    breaks: Vec<Break>,
    carried: Vec<Entry>,
    agreed: u64,
    /// What the channel charged, in fen; None of a department.
    charged_minor: Option<i64>,
}

impl Till {
    /// Notes the days that have ended and whose bills are to be there, and counts what is open.
    pub(crate) async fn plan_days(&self) -> Result<(), Error> {
        if self.bills.is_empty() && self.departments.is_none() {
            return Ok(());
        }
        let now = self.now();
        let settings = &self.config.reconcile;
        let ready = beijing::civil(now.minus(settings.ready_after.get())).date();
        let mut missing = Vec::new();
        {
            let mut reader = self.db.read().await?;
            for merchant in self.billed_merchants(None).into_iter().chain(self.departments_with_files()) {
                let mut day = ready;
                for _ in 0..settings.days_back {
                    let Ok(before) = day.yesterday() else { break };
                    day = before;
                    let name = Name { merchant: merchant.clone(), day };
                    if runs::get(&mut reader, &name).await?.is_none() {
                        missing.push(name);
                    }
                }
            }
        }
        if !missing.is_empty() {
            self.db
                .transact(async |mut tx: Tx| {
                    for name in &missing {
                        if runs::plan(&mut tx, name).await? {
                            work::due(&mut tx, &subject(name), now).await?;
                        }
                    }
                    Ok::<_, Error>(())
                })
                .await?;
        }
        self.count_breaks().await
    }

    /// The merchant accounts that a bill comes of.
    fn billed_merchants(&self, channel: Option<&str>) -> BTreeSet<Merchant> {
        let all = self.config.merchants.iter();
        let all = all.map(|one| Merchant { channel: one.channel().to_owned(), number: one.mch_id.clone() });
        all.filter(|one| channel.is_none_or(|channel| channel == one.channel) && self.bills.contains_key(&one.channel))
            .collect()
    }

    /// The departments that a file comes of.
    fn departments_with_files(&self) -> BTreeSet<Merchant> {
        let has = |payee: &&Payee| self.departments.as_ref().is_some_and(|folder| folder.has(&payee.payee_id));
        self.config.payees.iter().filter(has).map(|payee| Merchant::of_department(&payee.payee_id)).collect()
    }

    /// Reconciles a day that is claimed, and puts it back when its bill is not there.
    pub(crate) async fn look_day(&self, lease: &Lease) -> Result<(), Error> {
        let name = name(&lease.key).ok_or(Error::Internal("the key of a run"))?;
        self.keeping(lease, self.hold_day(lease, &name)).await??;
        self.count_breaks().await
    }

    async fn hold_day(&self, lease: &Lease, name: &Name) -> Result<(), Error> {
        let begun = self.now();
        let (found, problem) = match self.day(name).await {
            Ok(found) => (Some(found), String::new()),
            Err(DayError::NotYet(problem)) => {
                let problem = format!("there is no {} yet: {problem}", file_of(name));
                tracing::info!(run = %lease.key, problem, "a day waits");
                let wait = async |mut tx: Tx| {
                    self.leases.hold(&mut tx, lease).await?;
                    runs::wait(&mut tx, name, &problem).await
                };
                self.db.transact(wait).await.map_err(|error: store::Error| Error::from(error))?;
                let retry = self.config.reconcile.retry.get();
                self.put_back(lease, |_, now| now.plus(retry)).await?;
                self.changes.send_modify(|count| *count = count.wrapping_add(1));
                return Ok(());
            }
            Err(DayError::Store(error)) => return Err(error.into()),
            Err(DayError::Bad(problem)) => {
                tracing::error!(run = %lease.key, problem, "a day cannot be reconciled");
                (None, problem)
            }
        };
        self.keep_day(lease, name, found.as_ref(), problem).await?;
        self.repair(&name.merchant, begun).await?;
        self.finish_day(lease, name, found.is_some()).await?;
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// Does long work, and keeps it ours meanwhile. Both go on side by side: the work may hold the writer that renewing waits for.
    ///
    /// Errors: the lease was lost; the work was broken off.
    pub(super) async fn keeping<T>(&self, lease: &Lease, work: impl Future<Output = T>) -> Result<T, Error> {
        let ttl = self.config.worker.lease.get();
        let renewing = async {
            let mut held = lease.clone();
            loop {
                self.context.clock.sleep(ttl.checked_div(3).unwrap_or_default()).await;
                let renewed = self.db.transact(async |mut tx: Tx| {
                    let (mut lease, now) = (held.clone(), tx.now()?);
                    self.leases.renew(&mut tx, &mut lease, now, ttl).await?;
                    Ok::<_, store::Error>(lease)
                });
                match renewed.await {
                    Ok(renewed) => held = renewed,
                    Err(error) => break error,
                }
            }
        };
        match select(pin!(work), pin!(renewing)).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right((error, _)) => Err(error.into()),
        }
    }

    /// Fetches the bill and compares it with the ledger and with what earlier days left at their edges.
    async fn day(&self, name: &Name) -> Result<Found, DayError> {
        let Name { merchant, day } = name;
        let (side, party) = merchant.side();
        let source: Option<&dyn BillSource> = match (side, &self.departments) {
            (Side::Department, Some(folder)) => Some(folder),
            (Side::Department, None) => None,
            (Side::Channel | Side::Ledger, _) => self.bills.get(party).map(AsRef::as_ref),
        };
        let source = source.ok_or_else(|| DayError::Bad(format!("nobody gives {}s of {party}", file_of(name))))?;
        let place = tempfile::tempdir().map_err(|error| DayError::Bad(format!("no scratch space: {error}")))?;
        let file = place.path().join("bill");
        let has_bill = match source.bill(&merchant.number, *day, &file).await {
            Ok(_) => true,
            Err(ChannelError::NotKnown) => false,
            Err(ChannelError::Refused { code }) => return Err(DayError::Bad(format!("the channel refused: {code}"))),
            Err(error) => return Err(DayError::NotYet(error.to_string())),
        };
        let mut matcher = Matcher::new(Some(place.path()));
        matcher.heard(side, party.into());
        let mut has_moved = false;
        let each = |entry: Entry| {
            has_moved |= entry.state == reconcile::State::Done && entry.at.date() == *day;
            matcher.push(entry)
        };
        match merchant.department() {
            Some(payee) => ledger::of_department(&self.db, *day, payee, each).await?,
            None => {
                let scope = Scope { channel: Some(merchant.channel.clone()), merchant: Some(merchant.number.clone()) };
                ledger::of_day(&self.db, *day, &scope, each).await?;
            }
        }
        let settings = &self.config.reconcile;
        let doubted = settings.ready_after.get().saturating_add(settings.doubt_empty.get());
        if !has_bill && has_moved && self.now() < beijing::begin(*day).plus(DAY).plus(doubted) {
            // A channel says so of a bill that is not made yet, too.
            return Err(DayError::NotYet(EMPTY.to_owned()));
        }
        for entry in self.rolled_over(merchant, *day).await? {
            matcher.push(entry)?;
        }
        let (name, edge) = (name.clone(), self.config.reconcile.edge.get());
        // Sorting and reading files keep a thread busy.
        let compared = tokio::task::spawn_blocking(move || {
            // The bill lies in it.
            let _place = place;
            compare(matcher, &name, has_bill.then_some(&file), &Day::ending_with(name.day, edge))
        });
        compared.await.map_err(|_| DayError::Bad("the comparison broke off".to_owned()))?
    }

    /// What earlier days left at their edges, as both sides told it.
    async fn rolled_over(&self, merchant: &Merchant, day: Date) -> Result<Vec<Entry>, store::Error> {
        let mut reader = self.db.read().await?;
        let left = breaks::of_merchant(&mut reader, State::RolledOver, merchant, max()).await?;
        // When a day is looked at anew: what it had of earlier days then, whatever came of it.
        let had = breaks::seen_on(&mut reader, merchant, day, max()).await?;
        let all = left.iter().filter(|kept| kept.seen_day < day).chain(&had);
        Ok(all.flat_map(|kept| earlier(kept, day)).collect())
    }

    /// Keeps a run and everything that it found in one transaction. It is over when what can be repaired is.
    async fn keep_day(&self, lease: &Lease, name: &Name, found: Option<&Found>, problem: String) -> Result<(), Error> {
        let problem: String = problem.chars().take(PROBLEM_CHARS_MAX).collect();
        self.db
            .transact(async |mut tx: Tx| {
                self.leases.hold(&mut tx, lease).await?;
                let now = tx.now()?;
                let before = runs::get(&mut tx, name).await?;
                let mut run = Run {
                    name: name.clone(),
                    state: runs::State::Waiting,
                    matched: 0,
                    breaks: 0,
                    rolled_over: 0,
                    problem: problem.clone(),
                    finished_at: None,
                    fee_minor: before.and_then(|before| before.fee_minor),
                };
                if let Some(found) = found {
                    run.matched = i64::try_from(found.agreed).unwrap_or(i64::MAX);
                    run.breaks = i64::try_from(found.breaks.len()).unwrap_or(i64::MAX);
                    run.rolled_over = i64::try_from(found.carried.len()).unwrap_or(i64::MAX);
                    run.fee_minor = found.charged_minor;
                    if keep_found(&mut tx, name, found, now).await? {
                        look_again_after(&mut tx, name, now).await?;
                    }
                }
                runs::keep(&mut tx, &run).await?;
                // Balances are what others wait for: last.
                if let Some(charged_minor) = found.and_then(|found| found.charged_minor) {
                    fees::book(&mut tx, name, charged_minor, now).await?;
                }
                crash::point("payments.day.before_keep");
                Ok::<_, Error>(())
            })
            .await?;
        crash::point("payments.day.after_keep");
        Ok(())
    }

    /// Ends a run that is kept, unless it was asked for anew meanwhile.
    async fn finish_day(&self, lease: &Lease, name: &Name, is_done: bool) -> Result<(), Error> {
        let state = if is_done { runs::State::Done } else { runs::State::Failed };
        self.db
            .transact(async |mut tx: Tx| {
                self.leases.hold(&mut tx, lease).await?;
                let now = tx.now()?;
                if !work::done(&mut tx, lease).await? {
                    self.leases.release(&mut tx, lease, Some(now)).await?;
                } else if let Some(run) = runs::get(&mut tx, name).await? {
                    runs::keep(&mut tx, &Run { state, finished_at: Some(now), ..run }).await?;
                }
                crash::point("payments.day.before_finish");
                Ok::<_, Error>(())
            })
            .await?;
        crash::point("payments.day.after_finish");
        Ok(())
    }

    /// Does what is done about open breaks without a person: asks the channel, and closes what its answer explains.
    async fn repair(&self, merchant: &Merchant, since: Timestamp) -> Result<(), Error> {
        let open = breaks::of_merchant(&mut self.db.read().await?, State::Open, merchant, max()).await?;
        for kept in open {
            let (asked, explains) = match (kept.repair(), kept.order, kept.refund) {
                (Repair::RefreshOrder, Some(order), _) => {
                    (self.refresh_now(order).await.map(|_| ()), TransferId::capture(order))
                }
                (Repair::RefreshRefund, _, Some(refund)) => {
                    (self.refresh_refund(refund).await, TransferId::payout(refund))
                }
                _ => continue,
            };
            if let Err(error) = asked {
                tracing::info!(break_id = %kept.id, %error, "a break could not be asked about");
                continue;
            }
            let booked = repo::ledger::one(&mut self.db.read().await?, &explains).await?;
            if !booked.is_some_and(|booked| booked.at >= since && kept.is_explained_by(&booked.transfer.amount)) {
                continue;
            }
            self.db
                .transact(async |mut tx: Tx| {
                    let now = tx.now()?;
                    match breaks::lock(&mut tx, &kept.id).await? {
                        Some(kept) if kept.state == State::Open => breaks::update(&mut tx, &kept.repaired(now)).await,
                        _ => Ok(()),
                    }
                })
                .await?;
        }
        Ok(())
    }

    async fn count_breaks(&self) -> Result<(), Error> {
        let today = beijing::civil(self.now()).date();
        let open = breaks::open(&mut self.db.read().await?).await?;
        for kind in BreakKind::ALL {
            let open = open.iter().find(|open| open.kind == kind.name());
            let labels = vec![("kind", kind.name().into())];
            self.breaks.get_or_create(&labels).set(open.map_or(0, |open| open.number));
            self.break_age.get_or_create(&labels).set(open.map_or(0, |open| age(open.oldest, today).into()));
        }
        Ok(())
    }

    /// Starts the runs of a channel's or a department's day, unless this request has done so, and waits for them.
    pub(crate) async fn reconcile(&self, key: &Key, of: &Of, day: Date) -> Result<Vec<Run>, Error> {
        if day >= beijing::civil(self.now()).date() {
            return Err(Error::field("day", "must be before today, Beijing time"));
        }
        let (whose, merchants) = match of {
            Of::Channel(channel) => (channel, self.billed_merchants(Some(channel))),
            Of::Payee(payee) if !self.config.has_payee(payee) => return Err(Error::PayeeUnknown),
            Of::Payee(_) if self.departments.is_none() => {
                return Err(Error::field("payee_id", "has no file: payments.reconcile.departments_dir is empty"));
            }
            Of::Payee(payee) => (payee, BTreeSet::from([Merchant::of_department(payee)])),
        };
        let names: Vec<_> = merchants.into_iter().map(|merchant| Name { merchant, day }).collect();
        if names.is_empty() {
            return Err(Error::ChannelNotOffered);
        }
        let deadline = self.deadline();
        let mut changes = self.changes.subscribe();
        self.db
            .transact(async |mut tx: Tx| {
                let now = tx.now()?;
                if self.known(&mut tx, key).await?.is_some() {
                    return Ok::<_, Error>(());
                }
                claim(&mut tx, key, format!("{whose}/{day}"), None, now).await?;
                for name in &names {
                    runs::plan(&mut tx, name).await?;
                    runs::again(&mut tx, name).await?;
                    work::due(&mut tx, &subject(name), now).await?;
                }
                Ok(())
            })
            .await?;
        self.nudge.notify_one();
        loop {
            let mut told = Vec::new();
            {
                let mut reader = self.db.read().await?;
                for name in &names {
                    told.extend(runs::get(&mut reader, name).await?);
                }
            }
            let is_over = told.iter().all(|run| run.state != runs::State::Waiting);
            if is_over || tokio::time::Instant::now() >= deadline {
                return Ok(told);
            }
            self.wait(&mut changes, deadline).await;
        }
    }

    /// Records a person's word; hands back the encoded answer.
    pub(crate) async fn resolve(&self, ask: &ResolveAsk, person: &str) -> Result<Vec<u8>, Error> {
        let answer = self
            .db
            .transact(async |mut tx: Tx| {
                // First the lock: whoever asks the same at once has answered by then.
                let kept = breaks::lock(&mut tx, &ask.id).await?;
                if let Some(answer) = self.known(&mut tx, &ask.key).await?.and_then(|known| known.answer) {
                    return Ok(answer);
                }
                let now = tx.now()?;
                let missing = || Error::NotFound { what: Thing::Break, name: ask.id.clone() };
                let kept = kept.ok_or_else(missing)?;
                let kept = kept.resolve(ask.resolution, &ask.note, person, now)?;
                breaks::update(&mut tx, &kept).await?;
                let today = beijing::civil(now).date();
                let answer = pb::ResolveBreakResponse {
                    needs_second_person: kept.proposed.is_some(),
                    r#break: Some(convert::kept_break(&kept, today)?),
                }
                .encode_to_vec();
                claim(&mut tx, &ask.key, ask.id.clone(), Some(answer.clone()), now).await?;
                crash::point("payments.resolve.before_commit");
                Ok::<_, Error>(answer)
            })
            .await?;
        crash::point("payments.resolve.after_commit");
        self.count_breaks().await?;
        Ok(answer)
    }
}

/// Claims a key for this call alone.
pub(super) async fn claim(
    tx: &mut Tx,
    key: &Key,
    subject: String,
    answer: Option<Vec<u8>>,
    now: Timestamp,
) -> Result<(), Error> {
    let claim = Claim { key: key.clone(), subject, answer };
    if requests::claim_all(tx, &[claim], now).await? == 1 { Ok(()) } else { Err(Error::Raced) }
}

/// Why a day has no outcome.
enum DayError {
    /// There is no bill yet.
    NotYet(String),
    /// A person has to look.
    Bad(String),
    Store(store::Error),
}

impl From<store::Error> for DayError {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<reconcile::Error> for DayError {
    fn from(error: reconcile::Error) -> Self {
        match error {
            reconcile::Error::Store(error) => Self::Store(error),
            other => Self::Bad(other.to_string()),
        }
    }
}

fn compare(mut matcher: Matcher, name: &Name, bill: Option<&std::path::PathBuf>, day: &Day) -> Result<Found, DayError> {
    let bad = |error: String| DayError::Bad(format!("the {}: {error}", file_of(name)));
    let (side, party) = name.merchant.side();
    // A day of which there is no bill had no fee.
    let mut charged = Fee::default();
    if let Some(path) = bill {
        let file = File::open(path).map_err(|error| bad(error.to_string()))?;
        let mut rows = Bill::open(BufReader::new(file), path.parent()).map_err(|error| bad(error.to_string()))?;
        if rows.covers.len() != 1 || rows.covers.iter().any(|(of, name)| (*of, &**name) != (side, party)) {
            return Err(bad(format!("is not {side}/{party}'s")));
        }
        if rows.day.is_some_and(|day| day != name.day) {
            return Err(bad("is of another day".to_owned()));
        }
        let has_day = rows.day.is_some();
        let (mut count, mut of_day) = (0_u64, 0_u64);
        for row in &mut rows {
            let row = row.map_err(|error| bad(error.to_string()))?;
            count = count.saturating_add(1);
            of_day = of_day.saturating_add(u64::from(day.has(row.at)));
            matcher.push(row)?;
        }
        if count > 0 && of_day == 0 && !has_day {
            return Err(bad("has rows, and none of the day".to_owned()));
        }
        charged = rows.charged();
    }
    let whole = || charged.minor().ok_or_else(|| bad("its fees are no whole number of fen".to_owned()));
    let charged_minor = if side == Side::Channel { Some(whole()?) } else { None };
    let (mut breaks, mut carried) = (Vec::new(), Vec::new());
    let mut is_too_much = false;
    let totals = matcher.finish(
        day,
        |one| {
            is_too_much |= breaks.len() >= BREAKS_MAX;
            if !is_too_much {
                breaks.push(one);
            }
            Ok(())
        },
        |entry| {
            if carried.len() < BREAKS_MAX {
                carried.push(entry);
            }
            Ok(())
        },
    )?;
    if is_too_much || carried.len() >= BREAKS_MAX {
        let count = totals.breaks_total();
        return Err(DayError::Bad(format!("{count} breaks: it is hardly the bill of this account and day")));
    }
    Ok(Found { breaks, carried, agreed: totals.agreed, charged_minor })
}

/// Has the day after looked at anew, if it was looked at before or is just now: what is newly left at this day's edge may be there.
async fn look_again_after(tx: &mut Tx, name: &Name, now: Timestamp) -> Result<(), store::Error> {
    let Ok(day) = name.day.tomorrow() else { return Ok(()) };
    let name = Name { day, ..name.clone() };
    if runs::get(tx, &name).await?.is_some() {
        work::due(tx, &subject(&name), now).await?;
        runs::again(tx, &name).await?;
    }
    Ok(())
}

/// Keeps what a run found, and closes what it did not find again. Whether anything is newly left for the day after.
async fn keep_found(tx: &mut Tx, name: &Name, found: &Found, now: Timestamp) -> Result<bool, store::Error> {
    let mut is_left = false;
    let mut seen = BTreeSet::new();
    let mut ordinals: BTreeMap<(What, String), u32> = BTreeMap::new();
    let rolled = found.carried.iter().map(|entry| {
        let (kind, ours, theirs) = match entry.side {
            Side::Ledger => (BreakKind::Short, Some(Told::of(entry)), None),
            Side::Channel | Side::Department => (BreakKind::Long, None, Some(Told::of(entry))),
        };
        (State::RolledOver, kind, entry.what, &entry.number, ours, theirs)
    });
    let broken = found
        .breaks
        .iter()
        .map(|one| (State::Open, one.kind, one.what, &one.number, one.ours.clone(), one.theirs.clone()));
    for (state, kind, what, number, ours, theirs) in broken.chain(rolled) {
        let ordinal = ordinals.entry((what, number.clone())).or_default();
        let id = id(&name.merchant, what, number, *ordinal);
        *ordinal = ordinal.saturating_add(1);
        seen.insert(id.clone());
        let known = breaks::lock(tx, &id).await?;
        let (order, refund) = ids(tx, what, number).await?;
        match known {
            // A person's word stands.
            Some(known) if known.state == State::Resolved => {}
            // The other day's run did not see what this one leaves at its edge: it was looked at first, or at the same time.
            Some(known) if state == State::RolledOver && known.is_other_half(ours.as_ref(), theirs.as_ref()) => {
                breaks::update(tx, &known.met(ours, theirs, name.day, now)).await?;
            }
            // A settlement that the two sides have on two days.
            Some(known) if known.over_days(ours.as_ref(), theirs.as_ref(), name.day, now).is_some() => {
                if let Some(kept) = known.over_days(ours.as_ref(), theirs.as_ref(), name.day, now) {
                    breaks::update(tx, &kept).await?;
                }
            }
            // A later day had it already: to look at this one again is no reason to wait anew.
            Some(known) if state == State::RolledOver && known.state != state && known.seen_day > name.day => {}
            Some(known) => {
                is_left |= state == State::RolledOver && known.state != state;
                let seen_day = known.seen_day.max(name.day);
                let kept = Kept { seen_day, kind, state, ours, theirs, order, refund, closed_at: None, ..known };
                breaks::update(tx, &kept).await?;
            }
            None => {
                is_left |= state == State::RolledOver;
                let kept = Kept {
                    id,
                    merchant: name.merchant.clone(),
                    day: name.day,
                    seen_day: name.day,
                    kind,
                    state,
                    what,
                    number: number.clone(),
                    theirs,
                    ours,
                    order,
                    refund,
                    proposed: None,
                    resolution: None,
                    note: String::new(),
                    resolved_by: String::new(),
                    closed_at: None,
                };
                breaks::insert(tx, &kept).await?;
            }
        }
    }
    let rolled = breaks::of_merchant(tx, State::RolledOver, &name.merchant, max()).await?;
    let open = breaks::of_merchant(tx, State::Open, &name.merchant, max()).await?;
    let was_asked = |kept: &Kept| match kept.state {
        State::RolledOver => kept.seen_day <= name.day,
        _ => kept.seen_day == name.day,
    };
    for found in rolled.iter().chain(&open).filter(|kept| was_asked(kept) && !seen.contains(&kept.id)) {
        let kept = breaks::lock(tx, &found.id).await?.filter(|kept| kept.state == found.state && was_asked(kept));
        if let Some(kept) = kept {
            let seen_day = kept.seen_day.max(name.day);
            breaks::update(tx, &Kept { seen_day, ..kept.repaired(now) }).await?;
        }
    }
    Ok(is_left)
}

/// The order and refund that a number is of, where they are ours.
async fn ids(tx: &mut Tx, what: What, number: &str) -> Result<(Option<OrderId>, Option<RefundId>), store::Error> {
    let Some(bits) = u128::from_str_radix(number, 16).ok().filter(|bits| super::number_of(*bits) == number) else {
        return Ok((None, None));
    };
    Ok(match what {
        What::Payment => (orders::get(tx, OrderId::new(bits)).await?.map(|order| order.terms.id), None),
        What::Refund => {
            let refund = refunds::get(tx, RefundId::new(bits)).await?;
            (refund.as_ref().map(|refund| refund.order), refund.as_ref().map(|refund| refund.id))
        }
        What::Settlement => (None, None),
    })
}

/// The same break has the same id whenever it is found.
fn id(merchant: &Merchant, what: What, number: &str, ordinal: u32) -> String {
    let text = format!("{}/{}/{what}/{number}/{ordinal}", merchant.channel, merchant.number);
    let digest = rpc::digest::sha256(text.as_bytes());
    format!("brk_{}", hex::encode(digest.split_at(16).0))
}

/// What a break tells of days before one, side by side.
fn earlier(kept: &Kept, day: Date) -> impl Iterator<Item = Entry> {
    let (other, party) = kept.merchant.side();
    let sides = [(other, kept.theirs.as_ref()), (Side::Ledger, kept.ours.as_ref())];
    let sides = sides.into_iter().filter_map(|(side, told)| Some((side, told?)));
    sides.filter(move |(_, told)| told.at.date() < day).map(move |(side, told)| Entry {
        what: kept.what,
        party: party.into(),
        number: kept.number.clone(),
        side,
        amount: told.amount(),
        state: told.state,
        at: told.at,
        age_days: u16::try_from(age(kept.day, day).max(1)).unwrap_or(u16::MAX),
    })
}

/// What the other side's word stands in.
fn file_of(name: &Name) -> &'static str {
    if name.merchant.department().is_some() { "settlement file" } else { "bill" }
}

/// Whole days between, 0 or more.
pub(crate) fn age(from: Date, to: Date) -> i32 {
    to.since(from).map_or(0, |span| span.get_days()).max(0)
}

fn max() -> u32 {
    u32::try_from(BREAKS_MAX).unwrap_or(u32::MAX)
}

fn subject(name: &Name) -> String {
    format!("{PREFIX}{}/{}/{}", name.merchant.channel, name.merchant.number, name.day)
}

fn name(subject: &str) -> Option<Name> {
    let mut parts = subject.strip_prefix(PREFIX)?.split('/');
    let (channel, number, day) = (parts.next()?, parts.next()?, parts.next()?);
    let merchant = domain::ledger::Merchant { channel: channel.to_owned(), number: number.to_owned() };
    Some(Name { merchant, day: day.parse().ok()? })
}
