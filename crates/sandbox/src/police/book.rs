//! The state of one police system, and its rules. Pure: it reads no clock and does no I/O; what changes is an [`Event`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::Date;
use runtime::Timestamp;

use super::event::{Edit, Event, Next, Payment, PaymentState, Refusal};
use super::magic::{self, Quirk};
use super::people::{self, PersonId};
use super::registry::{Base, City, Initial, RecordId};
use super::tariff;
use super::view::{Driver, Notice, Record};
use crate::beijing;
use crate::kept::State;

/// How long a pending payment or a pending clearance of a magic plate takes.
pub(crate) const PENDING: Duration = Duration::from_secs(3);
/// What the fine of a magic plate rises by once it was read, in fen.
pub(crate) const RISE_MINOR: i64 = 5_000;

/// Everything that one city's police system knows.
#[derive(Debug)]
pub(crate) struct Book {
    city: City,
    day: Date,
    changes: BTreeMap<RecordId, Change>,
    /// Lock number → lock.
    locks: BTreeMap<String, Lock>,
    /// Caller's key → number of the key's latest lock.
    keys: BTreeMap<String, String>,
    payments: BTreeMap<String, Payment>,
    /// What is due by itself, and when: orders.
    due: BTreeSet<(Timestamp, String)>,
    serials: u64,
}

/// What became of a laid-out record.
#[derive(Clone, Debug, Default)]
struct Change {
    decided_at: Option<Timestamp>,
    disputed: Option<bool>,
    fine_minor: Option<i64>,
    /// The amount that was posted.
    paid_minor: Option<i64>,
    handled_at: Option<Timestamp>,
    lock: Option<String>,
    /// The order whose payment is in process.
    taken: Option<String>,
}

/// An amount that is held for a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    /// Lock number.
    pub number: String,
    /// The caller's key.
    pub key: String,
    /// Whose record.
    pub record: RecordId,
    /// Held until.
    pub until: Timestamp,
    fine_minor: i64,
    late_minor: i64,
}

impl Book {
    /// Opens an empty book. `day` is the day of the first start.
    pub(crate) fn new(city: City, day: Date) -> Self {
        Self {
            city,
            day,
            changes: BTreeMap::new(),
            locks: BTreeMap::new(),
            keys: BTreeMap::new(),
            payments: BTreeMap::new(),
            due: BTreeSet::new(),
            serials: 0,
        }
    }

    // === reading ===

    /// Returns a record as it is now.
    pub(crate) fn record(&self, number: &str, now: Timestamp) -> Result<Record, Refusal> {
        let base = self.city.parse_number(number).and_then(|id| self.city.record(id, self.day));
        base.map(|base| self.view(base, now)).ok_or(Refusal::NoRecord)
    }

    /// Returns a person's records as they are now, newest first.
    pub(crate) fn records(&self, person: PersonId, now: Timestamp) -> Vec<Record> {
        self.city.records(person, self.day).into_iter().map(|base| self.view(base, now)).collect()
    }

    /// Returns a driver by licence number.
    pub(crate) fn driver(&self, licence: &str, now: Timestamp) -> Result<Driver, Refusal> {
        let id = people::by_number(licence).ok_or(Refusal::NoDriver)?;
        let person = people::person(id).ok_or(Refusal::NoDriver)?;
        let records = self.records(id, now);
        let points = person.points_base + records.iter().map(Record::points_standing).sum::<u32>();
        let unhandled = records.iter().filter(|record| record.handled_at.is_none()).count();
        Ok(Driver { id, person, points, unhandled })
    }

    /// Returns a payment by order number.
    pub(crate) fn payment(&self, order: &str) -> Result<&Payment, Refusal> {
        self.payments.get(order).ok_or(Refusal::NoPayment)
    }

    /// Returns the latest lock of a key.
    pub(crate) fn lock_of_key(&self, key: &str) -> Option<&Lock> {
        self.keys.get(key).and_then(|number| self.locks.get(number))
    }

    /// Returns a lock by its number.
    pub(crate) fn lock_by_number(&self, number: &str) -> Option<&Lock> {
        self.locks.get(number)
    }

    fn view(&self, base: Base, now: Timestamp) -> Record {
        let change = self.changes.get(&base.id).cloned().unwrap_or_default();
        let at_first = |states: &[Initial]| states.contains(&base.initial);
        let decided_at = change.decided_at.or((!at_first(&[Initial::Captured])).then_some(base.decided_at));
        let handled_at =
            change
                .handled_at
                .or(at_first(&[Initial::Paid, Initial::Warning])
                    .then(|| base.decided_at.plus(Duration::from_secs(86_400))));
        let paid = change.paid_minor.is_some() || at_first(&[Initial::Paid]);
        let fine_minor = change.fine_minor.unwrap_or(base.offence.fine_minor);
        let held = self.running_lock(base.id, now).map(|lock| (lock.fine_minor, lock.late_minor));
        let late = || match change.paid_minor {
            Some(amount) => amount - fine_minor,
            None if paid => 0,
            None => decided_at.map_or(0, |at| late_minor(fine_minor, at, now)),
        };
        let (fine_minor, late_minor) = held.unwrap_or_else(|| (fine_minor, late()));
        let disputed = change.disputed.unwrap_or(base.initial == Initial::Disputed);
        Record { fine_minor, late_minor, decided_at, disputed, paid, handled_at, base }
    }

    fn running_lock(&self, id: RecordId, now: Timestamp) -> Option<&Lock> {
        let number = self.changes.get(&id)?.lock.as_ref()?;
        self.locks.get(number).filter(|lock| lock.until > now)
    }

    /// Whether a payment of the record is in process, or a clerk at a window has it.
    fn is_taken(&self, id: RecordId) -> bool {
        let in_process = self.changes.get(&id).is_some_and(|change| change.taken.is_some());
        in_process || magic::quirk(id) == Quirk::HeldByClerk
    }

    // === deciding: what a call would change ===

    fn overdue(&self, payment: &Payment, now: Timestamp) -> Option<Event> {
        let state = match payment.state {
            PaymentState::Taken { then: Next::Refuse, .. } => PaymentState::Refused { reason: Refusal::Rejected },
            PaymentState::Taken { then: Next::Post, .. } => {
                self.posted(&self.record(&payment.record, now).ok()?, now, None)
            }
            PaymentState::Posted { points_after, .. } => {
                let points = self.record(&payment.record, now).map_or(0, |record| record.points_standing());
                let points_after = points_after.saturating_sub(points);
                return Some(Event::Cleared { order: payment.order.clone(), points_after });
            }
            PaymentState::Refused { .. } => return None,
        };
        Some(Event::Payment(Payment { state, ..payment.clone() }))
    }

    /// Decides a lock. An empty list: the key holds the record already.
    pub(crate) fn lock(&self, number: &str, key: &str, span: Duration, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        let record = self.record(number, now)?;
        let id = record.base.id;
        if let Some(earlier) = self.lock_of_key(key) {
            if earlier.record != id {
                return Err(Refusal::KeyReused);
            }
            if earlier.until > now && self.running_lock(id, now).is_some_and(|lock| lock.number == earlier.number) {
                return Ok(Vec::new());
            }
        }
        record.payable()?;
        if self.running_lock(id, now).is_some() || self.is_taken(id) {
            return Err(Refusal::LockedByOther);
        }
        Ok(vec![Event::Locked {
            record: number.into(),
            lock: self.serial("SD"),
            key: key.into(),
            until: now.plus(span),
            fine_minor: record.fine_minor,
            late_minor: record.late_minor,
        }])
    }

    /// Decides a release. An empty list: it is released already, or ran out.
    pub(crate) fn release(&self, number: &str, key: &str, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        let lock = self.locks.get(number).filter(|lock| lock.key == key).ok_or(Refusal::NoLock)?;
        let runs = self.running_lock(lock.record, now).is_some_and(|running| running.number == number);
        Ok(if runs { vec![Event::Released { lock: number.into() }] } else { Vec::new() })
    }

    /// Decides a payment. An empty list: the order number has its answer already. A refusal that stands under the order number is an
    /// event, not an error; only a reused number is.
    pub(crate) fn pay(&self, notice: &Notice, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        if let Some(earlier) = self.payments.get(&notice.order) {
            let same = earlier.record == notice.record && earlier.amount_minor == notice.amount_minor;
            return if same { Ok(Vec::new()) } else { Err(Refusal::KeyReused) };
        }
        let state = match self.payable(notice, now) {
            Err(reason) => PaymentState::Refused { reason },
            Ok(record) => self.state_after(&record, now),
        };
        Ok(vec![Event::Payment(Payment {
            order: notice.order.clone(),
            record: notice.record.clone(),
            amount_minor: notice.amount_minor,
            channel_number: notice.channel_number.clone(),
            serial: self.serial("JF"),
            state,
        })])
    }

    /// The checks of a first payment, in the order that the pages promise.
    fn payable(&self, notice: &Notice, now: Timestamp) -> Result<Record, Refusal> {
        let record = self.record(&notice.record, now)?;
        let id = record.base.id;
        if notice.lock.as_ref().is_some_and(|number| self.locks.get(number).is_none_or(|lock| lock.record != id)) {
            return Err(Refusal::NoLock);
        }
        record.payable()?;
        let held_by_other = self.running_lock(id, now).is_some_and(|lock| notice.lock.as_ref() != Some(&lock.number));
        if held_by_other || self.is_taken(id) {
            return Err(Refusal::LockedByOther);
        }
        if notice.amount_minor != record.total_minor() {
            return Err(Refusal::WrongAmount);
        }
        if magic::quirk(id) == Quirk::Rejected { Err(Refusal::Rejected) } else { Ok(record) }
    }

    fn state_after(&self, record: &Record, now: Timestamp) -> PaymentState {
        match magic::quirk(record.base.id) {
            Quirk::PostsLater => PaymentState::Taken { due: now.plus(PENDING), then: Next::Post },
            Quirk::RefusesLater => PaymentState::Taken { due: now.plus(PENDING), then: Next::Refuse },
            Quirk::NeverEnds => PaymentState::Taken { due: Timestamp::MAX, then: Next::Post },
            Quirk::ClearsLater => self.posted(record, now, Some(now.plus(PENDING))),
            Quirk::None | Quirk::RisesOnceRead | Quirk::Rejected | Quirk::HeldByClerk => self.posted(record, now, None),
        }
    }

    fn posted(&self, record: &Record, now: Timestamp, clears: Option<Timestamp>) -> PaymentState {
        let licence = people::person(record.base.id.person).map(|person| person.number).unwrap_or_default();
        let points_before = self.driver(&licence, now).map_or(0, |driver| driver.points);
        let falls = if clears.is_some() { 0 } else { record.points_standing() };
        PaymentState::Posted {
            posted_at: now,
            points_before,
            points_after: points_before.saturating_sub(falls),
            clears,
        }
    }

    /// Decides what an officer does.
    pub(crate) fn edit(&self, number: &str, edit: Edit, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        let record = self.record(number, now)?;
        if record.paid || record.is_warning() {
            return Err(Refusal::AlreadyPaid);
        }
        Ok(vec![Event::Edited { record: number.into(), edit }])
    }

    /// Decides what reading a record changes: the fine of one magic state rises once it was read.
    pub(crate) fn was_read(&self, record: &Record) -> Option<Event> {
        let id = record.base.id;
        let risen = self.changes.get(&id).is_some_and(|change| change.fine_minor.is_some());
        (magic::quirk(id) == Quirk::RisesOnceRead && !risen).then(|| Event::Edited {
            record: record.base.number.clone(),
            edit: Edit::SetFine { fine_minor: record.base.offence.fine_minor + RISE_MINOR },
        })
    }

    fn serial(&self, kind: &str) -> String {
        format!("{}{kind}{:012}", self.city.region, self.serials + 1)
    }

    // === changing ===

    fn apply_edit(&mut self, record: &str, edit: Edit, at: Timestamp) {
        let Some(id) = self.city.parse_number(record) else { return };
        let change = self.changes.entry(id).or_default();
        match edit {
            Edit::Confirm => change.decided_at = Some(change.decided_at.unwrap_or(at)),
            Edit::Dispute => change.disputed = Some(true),
            Edit::SettleDispute => change.disputed = Some(false),
            Edit::SetFine { fine_minor } => change.fine_minor = Some(fine_minor),
        }
    }

    fn apply_payment(&mut self, payment: &Payment) {
        let earlier = self.payments.insert(payment.order.clone(), payment.clone());
        match earlier {
            None => self.serials += 1,
            Some(earlier) => self.forget_due(&earlier),
        }
        let Some(id) = self.city.parse_number(&payment.record) else { return };
        let change = self.changes.entry(id).or_default();
        if change.taken.as_ref() == Some(&payment.order) {
            change.taken = None;
        }
        match payment.state {
            PaymentState::Taken { due, .. } => {
                change.taken = Some(payment.order.clone());
                self.due.insert((due, payment.order.clone()));
            }
            PaymentState::Posted { posted_at, clears, .. } => {
                change.paid_minor = Some(payment.amount_minor);
                change.lock = None;
                match clears {
                    None => change.handled_at = Some(posted_at),
                    Some(due) => {
                        self.due.insert((due, payment.order.clone()));
                    }
                }
            }
            PaymentState::Refused { .. } => {}
        }
    }

    fn apply_cleared(&mut self, order: &str, after: u32, at: Timestamp) {
        let Some(mut payment) = self.payments.get(order).cloned() else { return };
        self.forget_due(&payment);
        if let PaymentState::Posted { points_after, clears, .. } = &mut payment.state {
            *points_after = after;
            *clears = None;
        }
        if let Some(id) = self.city.parse_number(&payment.record) {
            self.changes.entry(id).or_default().handled_at = Some(at);
        }
        self.payments.insert(order.into(), payment);
    }

    fn forget_due(&mut self, payment: &Payment) {
        let at = match payment.state {
            PaymentState::Taken { due, .. } => Some(due),
            PaymentState::Posted { clears, .. } => clears,
            PaymentState::Refused { .. } => None,
        };
        if let Some(at) = at {
            self.due.remove(&(at, payment.order.clone()));
        }
    }

    fn unlock(&mut self, id: RecordId, number: &str) {
        if let Some(change) = self.changes.get_mut(&id).filter(|change| change.lock.as_deref() == Some(number)) {
            change.lock = None;
        }
    }
}

impl State for Book {
    type Event = Event;

    fn due(&self, now: Timestamp) -> Vec<Event> {
        let orders = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, order)| order);
        orders.filter_map(|order| self.payments.get(order)).filter_map(|payment| self.overdue(payment, now)).collect()
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Opened { .. } => {}
            Event::Edited { record, edit } => self.apply_edit(record, *edit, at),
            Event::Locked { record, lock, key, until, fine_minor, late_minor } => {
                self.serials += 1;
                let Some(id) = self.city.parse_number(record) else { return };
                self.changes.entry(id).or_default().lock = Some(lock.clone());
                self.keys.insert(key.clone(), lock.clone());
                let held = Lock {
                    number: lock.clone(),
                    key: key.clone(),
                    record: id,
                    until: *until,
                    fine_minor: *fine_minor,
                    late_minor: *late_minor,
                };
                self.locks.insert(lock.clone(), held);
            }
            Event::Released { lock } => {
                if let Some(id) = self.locks.get(lock).map(|held| held.record) {
                    self.unlock(id, lock);
                }
            }
            Event::Payment(payment) => self.apply_payment(payment),
            Event::Cleared { order, points_after: after } => self.apply_cleared(order, *after, at),
        }
    }
}

fn late_minor(fine_minor: i64, decided_at: Timestamp, now: Timestamp) -> i64 {
    let days = beijing::day(decided_at).until(beijing::day(now)).map_or(0, |span| i64::from(span.get_days()));
    tariff::late_fee_minor(fine_minor, days)
}

#[cfg(test)]
mod tests;
