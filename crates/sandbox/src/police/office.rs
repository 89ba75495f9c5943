//! A police system at work: the book behind a lock, its journal, its hours and its faults. Both wires call this.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::civil::Date;
use runtime::{Context, Timestamp};

use super::book::{Book, Lock};
use super::event::{Edit, Event, Payment, Refusal};
use super::people::{self, PersonId};
use super::registry::{City, Evidence};
use super::view::{Driver, Notice, Record};
use super::{hours::Hours, magic};
use crate::beijing;
use crate::faults::{Fault, Faults, HANG, Operation, Suffer};
use crate::journal::{Journal, NotKept, OpenError, Place};
use crate::kept::{Kept, State as _};

/// How often what falls due by itself is looked for when nobody asks.
const SWEEP: Duration = Duration::from_secs(1);

/// One city's police system.
pub(crate) struct Office {
    city: City,
    book: Kept<Book>,
    context: Context,
    faults: Faults,
    hours: Option<Hours>,
    /// Magic people whose one fault has happened.
    shown: Mutex<BTreeSet<(PersonId, Operation)>>,
}

/// Why a call has no answer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum No {
    /// The rules say no.
    Refused(Refusal),
    /// Too much to do. Nothing was changed.
    Busy,
    /// Closed hours. Nothing was changed.
    Closed,
    /// Something broke. The change may or may not be kept.
    Internal,
}

/// Whom or what a call is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// A vehicle: type in GA coding, plate.
    Plate(&'a str, &'a str),
    /// A driver.
    Licence(&'a str),
    /// A record.
    Record(&'a str),
    /// A lock.
    Lock(&'a str),
    /// A payment.
    Order(&'a str),
}

/// How a call goes on before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Do it.
    Go,
    /// Answer this instead.
    Answer(No),
    /// Close the connection.
    HangUp,
}

/// How a call goes on after it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Answer.
    Answer,
    /// Answer an internal error instead.
    Internal,
    /// Close the connection.
    HangUp,
    /// Answer, spoilt in this way.
    Spoil(Fault),
}

/// One page of a list of records.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    /// How many there are in all.
    pub total: usize,
    /// Those on this page.
    pub records: Vec<Record>,
}

impl From<NotKept> for No {
    fn from(error: NotKept) -> Self {
        match error {
            NotKept::Behind => Self::Busy,
            NotKept::Broken => Self::Internal,
        }
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Office {
    /// Opens the office: replays the journal, or starts it today.
    pub(crate) fn open(
        city: City,
        place: &Place,
        context: Context,
        faults: Faults,
        hours: Option<Hours>,
    ) -> Result<Arc<Self>, OpenError> {
        let (journal, entries) = Journal::open::<Event>(place, city.system)?;
        let now = context.clock.now();
        let day = entries.iter().find_map(|entry| match &entry.event {
            Event::Opened { day } => day.parse::<Date>().ok(),
            _ => None,
        });
        let mut book = Book::new(city, day.unwrap_or_else(|| beijing::day(now)));
        for entry in &entries {
            book.apply(&entry.event, entry.at);
        }
        if day.is_none() {
            journal.append(now, Event::Opened { day: beijing::day(now).to_string() });
        }
        let shown = Mutex::default();
        let book = Kept::new(book, journal, context.clock.clone());
        let office = Arc::new(Self { city, book, context, faults, hours, shown });
        office.context.tasks.spawn("sandbox police sweep", office.clone().sweep());
        Ok(office)
    }

    /// Returns the city.
    pub(crate) fn city(&self) -> City {
        self.city
    }

    /// Returns the system's journal.
    pub(crate) fn journal(&self) -> &Journal {
        self.book.journal()
    }

    /// Returns the system's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.book.now()
    }

    // === the calls ===

    /// Lists records of a plate or a driver that `keep` wants, newest first.
    pub(crate) async fn list(
        &self,
        subject: Subject<'_>,
        keep: impl Fn(&Record) -> bool,
        skip: usize,
        take: usize,
    ) -> Result<Listing, No> {
        let person = self.person(subject);
        let find = |book: &Book, now| {
            let all = person.map(|person| book.records(person, now)).unwrap_or_default();
            all.into_iter().filter(|record| keep(record)).collect::<Vec<_>>()
        };
        let read = |book: &Book, all: &Vec<Record>| all.iter().filter_map(|record| book.was_read(record)).collect();
        let all = self.book.read(find, read).await?;
        Ok(Listing { total: all.len(), records: all.into_iter().skip(skip).take(take).collect() })
    }

    /// Lists every record without being seen to read.
    pub(crate) async fn peek(&self, subject: Subject<'_>) -> Result<Vec<Record>, No> {
        let person = self.person(subject);
        let find = |book: &Book, now| person.map(|person| book.records(person, now)).unwrap_or_default();
        Ok(self.book.read(find, |_, _| Vec::new()).await?)
    }

    /// Returns one record with its evidence.
    pub(crate) async fn detail(&self, number: &str) -> Result<(Record, Vec<Evidence>), No> {
        let find = |book: &Book, now| book.record(number, now);
        let read = |book: &Book, found: &Result<Record, Refusal>| {
            found.iter().filter_map(|record| book.was_read(record)).collect()
        };
        let record = self.book.read(find, read).await??;
        let evidence = self.city.evidence(&record.base);
        Ok((record, evidence))
    }

    /// Holds a record's amount.
    pub(crate) async fn lock(&self, number: &str, key: &str, span: Duration) -> Result<(Lock, Record), No> {
        self.change(
            |book, now| book.lock(number, key, span, now),
            |book, now| Ok((book.lock_of_key(key).cloned().ok_or(Refusal::NoLock)?, book.record(number, now)?)),
        )
        .await
    }

    /// Gives a hold back.
    pub(crate) async fn release(&self, lock: &str, key: &str) -> Result<(), No> {
        self.change(|book, now| book.release(lock, key, now), |_, _| Ok(())).await
    }

    /// Takes a payment; returns what became of it and the record.
    pub(crate) async fn pay(&self, notice: &Notice) -> Result<(Payment, Option<Record>), No> {
        self.change(|book, now| book.pay(notice, now), |book, now| payment(book, &notice.order, now)).await
    }

    /// Tells what became of a payment.
    pub(crate) async fn inquire(&self, order: &str) -> Result<(Payment, Option<Record>), No> {
        self.change(|_, _| Ok(Vec::new()), |book, now| payment(book, order, now)).await
    }

    /// Tells a driver's points.
    pub(crate) async fn points(&self, licence: &str) -> Result<Driver, No> {
        self.change(|_, _| Ok(Vec::new()), |book, now| book.driver(licence, now)).await
    }

    /// Does what an officer does.
    pub(crate) async fn edit(&self, number: &str, edit: Edit) -> Result<Record, No> {
        self.change(|book, now| book.edit(number, edit, now), |book, now| book.record(number, now)).await
    }

    // === faults and hours ===

    /// Takes the fault that a call is to suffer: a staged one, or the subject's magic.
    pub(crate) fn suffer(&self, operation: Operation, subject: Subject<'_>) -> Option<Suffer> {
        if let Some(staged) = self.faults.take(self.city.system, operation) {
            return Some(staged);
        }
        let person = self.person(subject)?;
        let (fault, once) = magic::fault(person, operation)?;
        let again = once && !locked(&self.shown).insert((person, operation));
        (!again).then(|| Suffer::usual(fault))
    }

    /// Plays the part of a fault that comes before the call is done.
    pub(crate) async fn before(&self, suffer: Option<Suffer>) -> Before {
        let closed = self.hours.is_some_and(|hours| !hours.open_at(self.now()));
        match suffer.map(|suffer| suffer.fault) {
            Some(Fault::Busy) => Before::Answer(No::Busy),
            Some(Fault::ErrorBefore) => Before::Answer(No::Internal),
            Some(Fault::DropBefore) => Before::HangUp,
            Some(Fault::Closed) => Before::Answer(No::Closed),
            _ if closed => Before::Answer(No::Closed),
            Some(Fault::Late) => {
                self.pause(suffer.map_or(Duration::ZERO, |suffer| suffer.delay)).await;
                Before::Go
            }
            _ => Before::Go,
        }
    }

    /// Plays the part of a fault that comes after the call was done.
    pub(crate) async fn after(&self, suffer: Option<Suffer>) -> After {
        let Some(Suffer { fault, delay }) = suffer else { return After::Answer };
        match fault {
            Fault::ErrorAfter => After::Internal,
            Fault::DropAfter => After::HangUp,
            Fault::Hang => {
                self.pause(HANG).await;
                After::HangUp
            }
            Fault::Slow => {
                self.pause(delay).await;
                After::Answer
            }
            Fault::GarbleValue | Fault::GarbleCut | Fault::GarbleUnmappable | Fault::GarbleDoctype => {
                After::Spoil(fault)
            }
            Fault::TooLong | Fault::Duplicate | Fault::Fault => After::Spoil(fault),
            _ => After::Answer,
        }
    }

    /// Waits, or until the process stops.
    async fn pause(&self, span: Duration) {
        let stop = self.context.tasks.token();
        tokio::select! {
            biased;
            () = self.context.clock.sleep(span) => {}
            () = stop.cancelled() => {}
        }
    }

    fn person(&self, subject: Subject<'_>) -> Option<PersonId> {
        let by_record = |number: &str| self.city.parse_number(number).map(|id| id.person);
        match subject {
            Subject::Plate(class, plate) => people::by_plate(class, plate, self.city.plate_prefix),
            Subject::Licence(licence) => people::by_number(licence),
            Subject::Record(number) => by_record(number),
            Subject::Lock(number) => self.book.peek(|book| book.lock_by_number(number).map(|lock| lock.record.person)),
            Subject::Order(order) => {
                let record = self.book.peek(|book| book.payment(order).ok().map(|payment| payment.record.clone()));
                record.and_then(|record| by_record(&record))
            }
        }
    }

    /// Changes the book and answers from it.
    async fn change<T>(
        &self,
        decide: impl FnOnce(&Book, Timestamp) -> Result<Vec<Event>, Refusal>,
        view: impl FnOnce(&Book, Timestamp) -> Result<T, Refusal>,
    ) -> Result<T, No> {
        Ok(self.book.change(decide, view).await??)
    }

    async fn sweep(self: Arc<Self>) {
        let stop = self.context.tasks.token();
        while !stop.is_cancelled() {
            self.pause(SWEEP).await;
            if self.book.sweep().await.is_err() {
                tracing::debug!(system = self.city.system, "nothing swept: the journal is not ready");
            }
        }
    }
}

fn payment(book: &Book, order: &str, now: Timestamp) -> Result<(Payment, Option<Record>), Refusal> {
    let payment = book.payment(order)?.clone();
    let record = book.record(&payment.record, now).ok();
    Ok((payment, record))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
