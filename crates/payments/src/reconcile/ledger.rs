//! What our books tell of a day: money that came and went through the channels, and what became the departments'.
//!
//! Orders that nobody paid are told too, and refunds that are not decided: a bill may know more of them than we do. Alone they are no
//! breaks.

use std::path::Path;
use std::sync::Arc;

use contracts::ids::{OrderId, RefundId};
use jiff::civil::Date;
use runtime::Timestamp;
use store::{Db, Reader};

use super::bill::movements::Writer;
use super::entry::{Entry, Money, Side, State, What};
use super::{Error, io};
use crate::beijing;
use crate::channel::wechatpay;
use crate::domain::ledger::{Account, Merchant};
use crate::domain::order::State as OrderState;
use crate::domain::refund::State as RefundState;
use crate::repo::days::{self, Moved, Returned, Unpaid};
use crate::repo::ledger::After;

const PAGE: u32 = 1_000;
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;
/// An order can be paid for 7 days; a capture may be found that much later, and booked then.
const ORDER_DAYS: i64 = 8;
/// A refund that a channel decides later than this is told on its own day alone.
const REFUND_DAYS: i64 = 31;

/// Of whom the books are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// One channel; all where none is told.
    pub channel: Option<String>,
    /// One merchant account; all where none is told.
    pub merchant: Option<String>,
}

impl Scope {
    fn has(&self, merchant: &Merchant) -> bool {
        self.channel.as_ref().is_none_or(|channel| *channel == merchant.channel)
            && self.merchant.as_ref().is_none_or(|number| *number == merchant.number)
    }

    /// What departments took is not asked of one merchant account.
    fn has_settlements(&self) -> bool {
        self.channel.is_none() && self.merchant.is_none()
    }
}

/// Writes what the books tell of a day into a file; `told` hears of progress. Returns how many movements there are.
///
/// Shape: page by page in bounded memory, no lock held; the file is there only when it is whole.
pub async fn export(db: &Db, day: Date, scope: &Scope, path: &Path, mut told: impl FnMut(u64)) -> Result<u64, Error> {
    let name = path.display().to_string();
    let mut writer = Writer::create(path, day, &["ledger"]).map_err(io(&name))?;
    let mut count = 0_u64;
    let write = |entry: Entry| {
        count = count.saturating_add(1);
        if count.is_multiple_of(super::PROGRESS) {
            told(count);
        }
        writer.write(&entry).map_err(io(&name))
    };
    of_day(db, day, scope, write).await?;
    writer.finish().map_err(io(&name))
}

/// Tells `each` of everything that the books have of a day.
pub async fn of_day(
    db: &Db,
    day: Date,
    scope: &Scope,
    mut each: impl FnMut(Entry) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = db.read().await?;
    let begin = beijing::begin(day);
    let end = later(begin, 1);
    let mut of = OfDay { reader: &mut reader, begin, end };
    of.captures(scope, &mut each).await?;
    of.unpaid(scope, &mut each).await?;
    of.refunds(scope, &mut each).await?;
    if scope.has_settlements() {
        of.settlements(&mut each).await?;
    }
    Ok(())
}

/// Tells `each` of everything that became a department's on a day.
pub(crate) async fn of_department(
    db: &Db,
    day: Date,
    payee: &str,
    mut each: impl FnMut(Entry) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = db.read().await?;
    let begin = beijing::begin(day);
    OfDay { reader: &mut reader, begin, end: later(begin, 1) }.settled(payee, &mut each).await
}

struct OfDay<'a> {
    reader: &'a mut Reader,
    begin: Timestamp,
    end: Timestamp,
}

impl OfDay<'_> {
    async fn captures(
        &mut self,
        scope: &Scope,
        each: &mut impl FnMut(Entry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for account in days::accounts(self.reader, "channel").await? {
            let Account::Receivable(merchant) = &account else { continue };
            if !scope.has(merchant) {
                continue;
            }
            let party: Arc<str> = merchant.channel.as_str().into();
            // The channel's clock may be ahead of ours.
            let mut after: After = (later(self.begin, -1), String::new());
            let until = later(self.end, ORDER_DAYS);
            loop {
                let page = days::captures(self.reader, &account, &after, until, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = last.after.clone();
                for moved in page {
                    if moved.at.is_some_and(|at| self.begin <= at && at < self.end) {
                        each_moved(What::Payment, &party, moved, each)?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn settlements(&mut self, each: &mut impl FnMut(Entry) -> Result<(), Error>) -> Result<(), Error> {
        for account in days::accounts(self.reader, "payee").await? {
            let Account::Payee(payee) = &account else { continue };
            self.settled(payee, each).await?;
        }
        Ok(())
    }

    async fn settled(&mut self, payee: &str, each: &mut impl FnMut(Entry) -> Result<(), Error>) -> Result<(), Error> {
        let (account, party) = (Account::Payee(payee.to_owned()), Arc::<str>::from(payee));
        let mut after: After = (Timestamp::from_micros(self.begin.micros().saturating_sub(1)), "~".to_owned());
        loop {
            let page = days::postings(self.reader, &account, &after, self.end, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.after.clone();
            for moved in page {
                each_moved(What::Settlement, &party, moved, each)?;
            }
        }
    }

    async fn unpaid(&mut self, scope: &Scope, each: &mut impl FnMut(Entry) -> Result<(), Error>) -> Result<(), Error> {
        let mut after = OrderId::new(first_id(later(self.begin, -ORDER_DAYS)));
        let last = OrderId::new(first_id(self.end));
        loop {
            let page = days::unpaid(self.reader, after, last, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            after = end.id;
            for Unpaid { merchant, name, amount, state, created_at, .. } in page {
                // What insurance alone pays never comes to the channel.
                if scope.has(&merchant) && amount.amount_minor() > 0 {
                    let is_open = matches!(state, OrderState::Creating | OrderState::Waiting);
                    let state = if is_open { State::Pending } else { State::Undone };
                    let party = merchant.channel.into();
                    each(entry(What::Payment, party, name, amount, state, created_at))?;
                }
            }
        }
    }

    async fn refunds(&mut self, scope: &Scope, each: &mut impl FnMut(Entry) -> Result<(), Error>) -> Result<(), Error> {
        let mut after = RefundId::new(first_id(later(self.begin, -REFUND_DAYS)));
        let last = RefundId::new(first_id(self.end));
        loop {
            let page = days::refunds(self.reader, after, last, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            after = end.id;
            for Returned { id, merchant, amount, state, created_at, success_at } in page {
                let was_over = success_at.is_some_and(|at| at < self.begin);
                if was_over || !scope.has(&merchant) || amount.amount_minor() == 0 {
                    continue;
                }
                let state = match state {
                    RefundState::Requested | RefundState::Processing => State::Pending,
                    // As it stood at the end of the day: the next day's bill may be the one that has it.
                    RefundState::Succeeded if success_at.is_some_and(|at| at >= self.end) => State::Pending,
                    RefundState::Succeeded => State::Done,
                    // The cash leg of a mixed order went back, and what the insurance was to get did not.
                    RefundState::Failed if success_at.is_some() => State::Done,
                    RefundState::Failed => State::Undone,
                };
                // WeChat Pay bills a refund on the day on which it is asked for, others when it is done.
                let at =
                    if merchant.channel == wechatpay::NAME { created_at } else { success_at.unwrap_or(created_at) };
                let number = format!("{:032x}", id.bits());
                each(entry(What::Refund, merchant.channel.into(), number, amount, state, at))?;
            }
        }
    }
}

fn each_moved(
    what: What,
    party: &Arc<str>,
    moved: Moved,
    each: &mut impl FnMut(Entry) -> Result<(), Error>,
) -> Result<(), Error> {
    let (Some(name), Some(at)) = (moved.name, moved.at) else { return Ok(()) };
    each(entry(what, Arc::clone(party), name, moved.amount, State::Done, at))
}

fn entry(
    what: What,
    party: Arc<str>,
    number: String,
    amount: contracts::money::Money,
    state: State,
    at: Timestamp,
) -> Entry {
    let currency = amount.currency().as_str().as_bytes().try_into().unwrap_or(*b"???");
    let amount = Money { minor: amount.amount_minor(), currency };
    Entry { what, party, number, side: Side::Ledger, amount, state, at: beijing::civil(at), age_days: 0 }
}

fn later(at: Timestamp, days: i64) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_add(days.saturating_mul(DAY_MICROS)))
}

/// The bits below those of every id that was made from then on: ids begin with their milliseconds.
fn first_id(at: Timestamp) -> u128 {
    let millis = u128::try_from(at.micros().div_euclid(1_000)).unwrap_or(0);
    millis.wrapping_shl(80)
}
