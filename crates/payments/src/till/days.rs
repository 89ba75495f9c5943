//! The day's reconciliation: what a channel's bill says beside the ledger, what is done about it, and what persons say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;

use contracts::ids::{OrderId, RefundId};
use contracts::payments::v1 as pb;
use jiff::civil::Date;
use prost::Message;
use runtime::Timestamp;
use store::Tx;
use store::lease::Lease;

use super::Till;
use crate::channel::ChannelError;
use crate::convert::{self, ResolveAsk};
use crate::domain::breaks::{Kept, Repair, State};
use crate::domain::ledger::Merchant;
use crate::error::{Error, Thing};
use crate::reconcile::ledger::Scope;
use crate::reconcile::{self, Bill, Break, BreakKind, Day, Entry, Matcher, Side, Told, What, ledger};
use crate::repo::requests::{self, Claim, Key};
use crate::repo::runs::{self, Name, Run};
use crate::repo::{breaks, orders, refunds, work};
use crate::{beijing, domain};

/// Where the keys of this work begin; orders and refunds begin otherwise.
pub(crate) const PREFIX: &str = "run/";
/// More breaks in a day are no breaks but the wrong bill.
const BREAKS_MAX: usize = 10_000;
const PROBLEM_CHARS_MAX: usize = 1_000;

/// What a comparison found.
struct Found {
    breaks: Vec<Break>,
    carried: Vec<Entry>,
    agreed: u64,
}

impl Till {
    /// Notes the days that have ended and whose bills are to be there, and counts what is open.
    pub(crate) async fn plan_days(&self) -> Result<(), Error> {
        if self.bills.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let settings = &self.config.reconcile;
        let ready = beijing::civil(now.minus(settings.ready_after.get())).date();
        let mut missing = Vec::new();
        {
            let mut reader = self.db.read().await?;
            for merchant in self.billed_merchants(None) {
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

    /// Reconciles a day that is claimed, and puts it back when its bill is not there.
    pub(crate) async fn look_day(&self, lease: &Lease) -> Result<(), Error> {
        let name = name(&lease.key).ok_or(Error::Internal("the key of a run"))?;
        let outcome = {
            let work = self.day(&name);
            let mut work = std::pin::pin!(work);
            let mut held = lease.clone();
            loop {
                let third = self.config.worker.lease.get().checked_div(3).unwrap_or_default();
                match self.context.clock.timeout(third, &mut work).await {
                    Ok(outcome) => break outcome,
                    // Long work stays ours.
                    Err(_) => self.renew(&mut held).await?,
                }
            }
        };
        let now = self.now();
        let (found, problem) = match outcome {
            Ok(found) => (Some(found), String::new()),
            Err(DayError::NotYet(error)) => {
                tracing::info!(run = %lease.key, %error, "there is no bill yet");
                let due = now.plus(self.config.reconcile.retry.get());
                let back = async |mut tx: Tx| self.leases.release(&mut tx, lease, Some(due)).await;
                return self.db.transact(back).await.map_err(|error: store::Error| error.into());
            }
            Err(DayError::Store(error)) => return Err(error.into()),
            Err(DayError::Bad(problem)) => {
                tracing::error!(run = %lease.key, problem, "a day cannot be reconciled");
                (None, problem)
            }
        };
        self.keep_day(lease, &name, found.as_ref(), problem).await?;
        self.repair(&name.merchant).await?;
        self.finish_day(lease, &name, found.is_some()).await?;
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        self.count_breaks().await
    }

    async fn renew(&self, lease: &mut Lease) -> Result<(), Error> {
        let (now, ttl) = (self.now(), self.config.worker.lease.get());
        let old = lease.clone();
        let renewed = self
            .db
            .transact(async |mut tx: Tx| {
                let mut lease = old.clone();
                self.leases.renew(&mut tx, &mut lease, now, ttl).await?;
                Ok::<_, store::Error>(lease)
            })
            .await?;
        *lease = renewed;
        Ok(())
    }

    /// Fetches the bill and compares it with the ledger and with what earlier days left at their edges.
    async fn day(&self, name: &Name) -> Result<Found, DayError> {
        let Name { merchant, day } = name;
        let source =
            self.bills.get(&merchant.channel).ok_or_else(|| DayError::Bad("no bills of this channel".to_owned()))?;
        let place = tempfile::tempdir().map_err(|error| DayError::Bad(format!("no scratch space: {error}")))?;
        let file = place.path().join("bill");
        let has_bill = match source.bill(&merchant.number, *day, &file).await {
            Ok(_) => true,
            Err(ChannelError::NotKnown) => false,
            Err(ChannelError::Refused { code }) => return Err(DayError::Bad(format!("the channel refused: {code}"))),
            Err(error) => return Err(DayError::NotYet(error)),
        };
        let mut matcher = Matcher::new(Some(place.path()));
        matcher.heard(Side::Channel, merchant.channel.as_str().into());
        let scope = Scope { channel: Some(merchant.channel.clone()), merchant: Some(merchant.number.clone()) };
        ledger::of_day(&self.db, *day, &scope, |entry| matcher.push(entry)).await?;
        for kept in self.rolled_over(merchant, *day).await? {
            kept.into_iter().try_for_each(|entry| matcher.push(entry))?;
        }
        let day = Day::ending_with(*day, self.config.reconcile.edge.get());
        // Sorting and reading files keep a thread busy.
        let compared = tokio::task::spawn_blocking(move || {
            // The bill lies in it.
            let _place = place;
            compare(matcher, has_bill.then_some(&file), &day)
        });
        compared.await.map_err(|_| DayError::Bad("the comparison broke off".to_owned()))?
    }

    /// What earlier days left at their edges, as both sides told it.
    async fn rolled_over(&self, merchant: &Merchant, day: Date) -> Result<Vec<Option<Entry>>, store::Error> {
        let mut reader = self.db.read().await?;
        let kept = breaks::of_merchant(&mut reader, State::RolledOver, merchant, max()).await?;
        Ok(kept.into_iter().filter(|kept| kept.seen_day < day).map(|kept| entry(&kept, day)).collect())
    }

    /// Keeps a run and everything that it found in one transaction. It is over when what can be repaired is.
    async fn keep_day(&self, lease: &Lease, name: &Name, found: Option<&Found>, problem: String) -> Result<(), Error> {
        let problem: String = problem.chars().take(PROBLEM_CHARS_MAX).collect();
        self.db
            .transact(async |mut tx: Tx| {
                self.leases.hold(&mut tx, lease).await?;
                let now = tx.now()?;
                let mut run = Run {
                    name: name.clone(),
                    state: runs::State::Waiting,
                    matched: 0,
                    breaks: 0,
                    rolled_over: 0,
                    problem: problem.clone(),
                    finished_at: None,
                };
                if let Some(found) = found {
                    run.matched = i64::try_from(found.agreed).unwrap_or(i64::MAX);
                    run.breaks = i64::try_from(found.breaks.len()).unwrap_or(i64::MAX);
                    run.rolled_over = i64::try_from(found.carried.len()).unwrap_or(i64::MAX);
                    keep_found(&mut tx, name, found, now).await?;
                }
                runs::keep(&mut tx, &run).await?;
                Ok::<_, Error>(())
            })
            .await
    }

    /// Ends a run that is kept.
    async fn finish_day(&self, lease: &Lease, name: &Name, is_done: bool) -> Result<(), Error> {
        let state = if is_done { runs::State::Done } else { runs::State::Failed };
        self.db
            .transact(async |mut tx: Tx| {
                self.leases.hold(&mut tx, lease).await?;
                let now = tx.now()?;
                if let Some(run) = runs::get(&mut tx, name).await? {
                    runs::keep(&mut tx, &Run { state, finished_at: Some(now), ..run }).await?;
                }
                work::done_all(&mut tx, &BTreeSet::from([lease.key.clone()])).await?;
                Ok::<_, Error>(())
            })
            .await
    }

    /// Does what is done about open breaks without a person: asks the channel, and closes what its answer explains.
    async fn repair(&self, merchant: &Merchant) -> Result<(), Error> {
        let open = breaks::of_merchant(&mut self.db.read().await?, State::Open, merchant, max()).await?;
        for kept in open {
            let (Repair::RefreshOrder, Some(order)) = (kept.repair(), kept.order) else { continue };
            if let Err(error) = self.refresh_now(order).await {
                tracing::info!(order_id = %order, %error, "a break could not be asked about");
                continue;
            }
            let order = self.order_now(order).await?;
            let told = kept.theirs.as_ref().map(|theirs| (theirs.amount_minor, theirs.currency.as_str()));
            if told != Some((order.tally.captured, order.terms.amount.currency().as_str())) {
                continue;
            }
            self.db
                .transact(async |mut tx: Tx| {
                    let now = tx.now()?;
                    match breaks::get(&mut tx, &kept.id).await? {
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

    /// Starts the runs of a channel's day, unless this request has done so, and waits for them.
    pub(crate) async fn reconcile(&self, key: &Key, channel: &str, day: Date) -> Result<Vec<Run>, Error> {
        if day >= beijing::civil(self.now()).date() {
            return Err(Error::field("day", "must be before today, Beijing time"));
        }
        let names: Vec<_> =
            self.billed_merchants(Some(channel)).into_iter().map(|merchant| Name { merchant, day }).collect();
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
                claim(&mut tx, key, format!("{channel}/{day}"), None, now).await?;
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
                if let Some(answer) = self.known(&mut tx, &ask.key).await?.and_then(|known| known.answer) {
                    return Ok(answer);
                }
                let now = tx.now()?;
                let missing = || Error::NotFound { what: Thing::Break, name: ask.id.clone() };
                let kept = breaks::lock(&mut tx, &ask.id).await?.ok_or_else(missing)?;
                let kept = kept.resolve(ask.resolution, &ask.note, person, now)?;
                breaks::update(&mut tx, &kept).await?;
                let today = beijing::civil(now).date();
                let answer = pb::ResolveBreakResponse {
                    needs_second_person: kept.proposed.is_some(),
                    r#break: Some(convert::kept_break(&kept, today)?),
                }
                .encode_to_vec();
                claim(&mut tx, &ask.key, ask.id.clone(), Some(answer.clone()), now).await?;
                Ok::<_, Error>(answer)
            })
            .await?;
        self.count_breaks().await?;
        Ok(answer)
    }
}

/// Claims a key for this call alone.
async fn claim(tx: &mut Tx, key: &Key, subject: String, answer: Option<Vec<u8>>, now: Timestamp) -> Result<(), Error> {
    let claim = Claim { key: key.clone(), subject, answer };
    if requests::claim_all(tx, &[claim], now).await? == 1 { Ok(()) } else { Err(Error::Raced) }
}

/// Why a day has no outcome.
enum DayError {
    /// There is no bill yet.
    NotYet(ChannelError),
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

fn compare(mut matcher: Matcher, bill: Option<&std::path::PathBuf>, day: &Day) -> Result<Found, DayError> {
    if let Some(path) = bill {
        let bad = |error: String| DayError::Bad(format!("the bill: {error}"));
        let file = File::open(path).map_err(|error| bad(error.to_string()))?;
        let rows = Bill::open(BufReader::new(file), path.parent()).map_err(|error| bad(error.to_string()))?;
        let (mut count, mut of_day) = (0_u64, 0_u64);
        for row in rows {
            let row = row.map_err(|error| bad(error.to_string()))?;
            count = count.saturating_add(1);
            of_day = of_day.saturating_add(u64::from(day.has(row.at)));
            matcher.push(row)?;
        }
        if count > 0 && of_day == 0 {
            return Err(bad("has rows, and none of the day".to_owned()));
        }
    }
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
    Ok(Found { breaks, carried, agreed: totals.agreed })
}

/// Keeps what a run found, and closes what it did not find again.
async fn keep_found(tx: &mut Tx, name: &Name, found: &Found, now: Timestamp) -> Result<(), store::Error> {
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
        let known = breaks::get(tx, &id).await?;
        let (order, refund) = ids(tx, what, number).await?;
        match known {
            // A person's word stands.
            Some(known) if known.state == State::Resolved => {}
            // A later day had it already: to look at this one again is no reason to wait anew.
            Some(known)
                if (known.state, state) == (State::Repaired, State::RolledOver) && known.seen_day > name.day => {}
            Some(known) => {
                let seen_day = known.seen_day.max(name.day);
                let kept = Kept { seen_day, kind, state, ours, theirs, order, refund, closed_at: None, ..known };
                breaks::update(tx, &kept).await?;
            }
            None => {
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
    for kept in rolled.iter().chain(&open).filter(|kept| was_asked(kept) && !seen.contains(&kept.id)) {
        let seen_day = kept.seen_day.max(name.day);
        breaks::update(tx, &Kept { seen_day, ..kept.repaired(now) }).await?;
    }
    Ok(())
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

fn entry(kept: &Kept, day: Date) -> Option<Entry> {
    let (side, told) = match (&kept.theirs, &kept.ours) {
        (Some(theirs), None) => (Side::Channel, theirs),
        (None, Some(ours)) => (Side::Ledger, ours),
        _ => return None,
    };
    Some(Entry {
        what: kept.what,
        party: kept.merchant.channel.as_str().into(),
        number: kept.number.clone(),
        side,
        amount: told.amount(),
        state: told.state,
        at: told.at,
        age_days: u16::try_from(age(kept.day, day).max(1)).unwrap_or(u16::MAX),
    })
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
