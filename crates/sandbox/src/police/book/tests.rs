use std::time::Duration;

use jiff::civil::{Date, date};
use proptest::prelude::*;
use runtime::Timestamp;

use super::*;
use crate::beijing;
use crate::police::people::Kind;
use crate::police::registry::{CHANGSHA, TAIYUAN};

const DAY: Date = date(2026, 11, 22);
const HALF_HOUR: Duration = Duration::from_secs(1_800);

fn noon() -> Timestamp {
    beijing::moment(DAY.at(12, 0, 0, 0))
}

fn later(seconds: u64) -> Timestamp {
    noon().plus(Duration::from_secs(seconds))
}

fn number(kind: Kind, index: u32, ordinal: u8) -> String {
    CHANGSHA.number(RecordId { person: PersonId { kind, index }, ordinal })
}

/// The plain record of magic plate `AM0000`.
fn plain() -> String {
    number(Kind::Magic, 0, 1)
}

fn notice(order: &str, record: &str, amount_minor: i64) -> Notice {
    Notice { order: order.into(), record: record.into(), lock: None, amount_minor, channel_number: "42".into() }
}

/// A book that applies what it decides, and remembers the events for a replay.
struct Desk {
    book: Book,
    events: Vec<(Timestamp, Event)>,
}

impl Desk {
    fn open() -> Self {
        Self { book: Book::new(CHANGSHA, DAY), events: Vec::new() }
    }

    fn take(&mut self, events: Result<Vec<Event>, Refusal>, now: Timestamp) -> Result<usize, Refusal> {
        let events = events?;
        for event in &events {
            self.book.apply(event, now);
            self.events.push((now, event.clone()));
        }
        Ok(events.len())
    }

    fn lock(&mut self, record: &str, key: &str, now: Timestamp) -> Result<Lock, Refusal> {
        let events = self.book.lock(record, key, HALF_HOUR, now);
        self.take(events, now)?;
        Ok(self.book.lock_of_key(key).cloned().expect("a lock"))
    }

    fn release(&mut self, lock: &Lock, now: Timestamp) -> Result<usize, Refusal> {
        let events = self.book.release(&lock.number, &lock.key, now);
        self.take(events, now)
    }

    fn pay(&mut self, notice: &Notice, now: Timestamp) -> Result<PaymentState, Refusal> {
        let events = self.book.pay(notice, now);
        self.take(events, now)?;
        Ok(self.book.payment(&notice.order)?.state)
    }

    fn due(&mut self, now: Timestamp) -> usize {
        let events = self.book.due(now);
        self.take(Ok(events), now).expect("never refused")
    }

    fn record(&self, number: &str, now: Timestamp) -> Record {
        self.book.record(number, now).expect("a record")
    }

    fn points(&self, record: &str, now: Timestamp) -> u32 {
        let id = self.record(record, now).base.id.person;
        self.book.driver(&people::person(id).expect("a person").number, now).expect("a driver").points
    }
}

fn refused(reason: Refusal) -> Result<PaymentState, Refusal> {
    Ok(PaymentState::Refused { reason })
}

#[test]
fn a_payment_handles_the_record_and_the_points_fall_at_once() {
    let mut desk = Desk::open();
    assert_eq!(desk.points(&plain(), noon()), 6);
    let posted = PaymentState::Posted { posted_at: noon(), points_before: 6, points_after: 0, clears: None };
    assert_eq!(desk.pay(&notice("o1", &plain(), 20_000), noon()), Ok(posted));
    let record = desk.record(&plain(), later(1));
    assert!(record.paid && record.handled_at == Some(noon()));
    assert_eq!(desk.points(&plain(), later(1)), 0);

    assert_eq!(desk.pay(&notice("o1", &plain(), 20_000), later(9)), Ok(posted), "a duplicate gets the first answer");
    assert_eq!(desk.pay(&notice("o1", &plain(), 20_001), later(9)), Err(Refusal::KeyReused));
    assert_eq!(desk.pay(&notice("o1", &number(Kind::Load, 1, 1), 20_000), later(9)), Err(Refusal::KeyReused));
    assert_eq!(desk.pay(&notice("o2", &plain(), 20_000), later(9)), refused(Refusal::AlreadyPaid));
    assert_eq!(desk.events.len(), 2, "one posting, one refusal");
}

#[test]
fn what_cannot_be_locked_cannot_be_paid_for_the_same_reason() {
    let states = [
        (number(Kind::Magic, 10, 1), Refusal::NotConfirmed),
        (number(Kind::Magic, 20, 1), Refusal::Disputed),
        (number(Kind::Magic, 30, 1), Refusal::AlreadyPaid),
        (number(Kind::Cast, 6, 3), Refusal::AlreadyPaid),
        (number(Kind::Magic, 90, 1), Refusal::LockedByOther),
        (number(Kind::Magic, 100, 1), Refusal::NoRecord),
    ];
    for (record, reason) in states {
        let mut desk = Desk::open();
        assert_eq!(desk.lock(&record, "k", noon()), Err(reason), "{record}");
        assert_eq!(desk.pay(&notice("o", &record, 20_000), noon()), refused(reason), "{record}");
        assert_eq!(desk.pay(&notice("o", &record, 20_000), later(5)), refused(reason), "the refusal is remembered");
    }
}

#[test]
fn an_officer_changes_what_can_be_paid() {
    let mut desk = Desk::open();
    let capture = number(Kind::Magic, 10, 1);
    assert_eq!(desk.record(&capture, noon()).decided_at, None);
    assert_eq!(desk.points(&capture, noon()), 0, "a capture carries no points yet");
    for edit in [Edit::Confirm, Edit::SetFine { fine_minor: 15_000 }] {
        let events = desk.book.edit(&capture, edit, noon());
        desk.take(events, noon()).expect("edited");
    }
    assert_eq!(desk.record(&capture, noon()).decided_at, Some(noon()));
    assert_eq!(desk.points(&capture, noon()), 6);
    assert_eq!(desk.pay(&notice("o1", &capture, 20_000), noon()), refused(Refusal::WrongAmount));
    assert!(matches!(desk.pay(&notice("o2", &capture, 15_000), noon()), Ok(PaymentState::Posted { .. })));
    assert_eq!(desk.book.edit(&capture, Edit::Dispute, noon()), Err(Refusal::AlreadyPaid));
}

#[test]
fn a_lock_holds_the_amount_and_then_does_not() {
    let mut desk = Desk::open();
    let record = number(Kind::Cast, 7, 1);
    let evening = beijing::moment(DAY.at(23, 50, 0, 0));
    let held = desk.record(&record, evening).total_minor();
    let lock = desk.lock(&record, "k", evening).expect("locked");
    let tomorrow = evening.plus(Duration::from_secs(20 * 60));
    assert_eq!(desk.record(&record, tomorrow).total_minor(), held, "midnight passed, the lock runs");
    assert_eq!(desk.lock(&record, "k", tomorrow).expect("again"), lock, "the same key gets the same lock");
    assert_eq!(desk.lock(&record, "other", tomorrow), Err(Refusal::LockedByOther));
    assert_eq!(
        desk.pay(&notice("o1", &record, held), tomorrow),
        refused(Refusal::LockedByOther),
        "without the lock's number"
    );

    let after = evening.plus(HALF_HOUR);
    assert_eq!(desk.record(&record, after).total_minor(), held + 600, "the lock ran out: another day of late fee");
    let paying = Notice { lock: Some(lock.number.clone()), ..notice("o2", &record, held) };
    assert_eq!(desk.pay(&paying, after), refused(Refusal::WrongAmount));
    let renewed = desk.lock(&record, "k", after).expect("locked anew");
    assert_ne!(renewed.number, lock.number);
    let paying = Notice { lock: Some(renewed.number), ..notice("o3", &record, held + 600) };
    assert!(matches!(desk.pay(&paying, after), Ok(PaymentState::Posted { .. })));
    let record = desk.record(&record, after);
    assert_eq!(record.total_minor(), held + 600, "a paid record shows what was paid");
}

#[test]
fn locks_are_released_once_and_only_by_their_key() {
    let mut desk = Desk::open();
    let lock = desk.lock(&plain(), "k", noon()).expect("locked");
    assert_eq!(desk.lock(&number(Kind::Load, 3, 1), "k", noon()), Err(Refusal::KeyReused));
    assert_eq!(desk.book.release(&lock.number, "other", noon()), Err(Refusal::NoLock));
    assert_eq!(desk.book.release("430100SD999999999999", "k", noon()), Err(Refusal::NoLock));
    assert_eq!(desk.release(&lock, noon()), Ok(1));
    assert_eq!(desk.release(&lock, noon()), Ok(0));
    let second = desk.lock(&plain(), "other", noon()).expect("free again");
    assert_eq!(desk.release(&lock, noon()), Ok(0), "the old lock does not free the new one");
    assert_eq!(desk.lock(&plain(), "other", noon()).expect("still"), second);
    let stale = Notice { lock: Some(lock.number), ..notice("o", &plain(), 20_000) };
    assert_eq!(desk.pay(&stale, noon()), refused(Refusal::LockedByOther));
    let foreign = Notice { lock: Some(second.number), ..notice("p", &number(Kind::Load, 3, 1), 20_000) };
    assert_eq!(desk.pay(&foreign, noon()), refused(Refusal::NoLock));
}

#[test]
fn magic_payments_end_as_documented() {
    let record = |ff: u32| number(Kind::Magic, ff * 10, 1);
    let mut desk = Desk::open();
    for ff in [5, 6, 7, 8, 12] {
        desk.pay(&notice(&format!("o{ff}"), &record(ff), 20_000), noon()).expect("answered");
    }
    let state = |desk: &Desk, ff: u32| desk.book.payment(&format!("o{ff}")).expect("a payment").state;
    assert_eq!(Ok(state(&desk, 5)), refused(Refusal::Rejected));
    assert!([6, 7, 12].iter().all(|ff| matches!(state(&desk, *ff), PaymentState::Taken { .. })));
    assert!(matches!(state(&desk, 8), PaymentState::Posted { points_before: 6, points_after: 6, .. }));
    assert!(desk.record(&record(8), noon()).paid && desk.record(&record(8), noon()).handled_at.is_none());
    assert_eq!(
        desk.pay(&notice("x", &record(6), 20_000), noon()),
        refused(Refusal::LockedByOther),
        "one is in process"
    );

    assert_eq!(desk.due(later(2)), 0);
    assert_eq!(desk.due(later(3)), 3);
    assert_eq!(desk.due(later(4)), 0, "each falls due once");
    assert!(matches!(state(&desk, 6), PaymentState::Posted { points_before: 6, points_after: 0, .. }));
    assert_eq!(Ok(state(&desk, 7)), refused(Refusal::Rejected));
    assert!(matches!(state(&desk, 8), PaymentState::Posted { points_after: 0, clears: None, .. }));
    assert_eq!(desk.record(&record(8), later(3)).handled_at, Some(later(3)));
    assert!(matches!(state(&desk, 12), PaymentState::Taken { .. }), "for ever");
}

#[test]
fn the_fine_of_one_magic_state_rises_once_it_was_read() {
    let mut desk = Desk::open();
    let number = number(Kind::Magic, 40, 1);
    let record = desk.record(&number, noon());
    assert_eq!(record.fine_minor, 20_000);
    let event = desk.book.was_read(&record).expect("it rises");
    desk.take(Ok(vec![event]), noon()).expect("applied");
    let record = desk.record(&number, noon());
    assert_eq!(record.fine_minor, 25_000);
    assert!(desk.book.was_read(&record).is_none(), "once");
    assert!(desk.book.was_read(&desk.record(&plain(), noon())).is_none(), "others do not");
}

#[test]
fn the_same_cast_lives_in_both_cities() {
    let book = Book::new(TAIYUAN, DAY);
    for member in &people::CAST {
        let there = book.driver(member.number, noon()).expect("a driver");
        let here = Desk::open().book.driver(member.number, noon()).expect("a driver");
        assert_eq!((there.points, there.unhandled), (here.points, here.unhandled), "{}", member.name.chars().count());
    }
    assert_eq!(book.driver("11010519491231002X", noon()).unwrap_err(), Refusal::NoDriver);
}

/// One step of a random history over a few records, keys and orders.
#[derive(Clone, Debug)]
enum Step {
    Lock { record: u8, key: u8 },
    Release { key: u8 },
    Pay { record: u8, order: u8, key: Option<u8>, off: bool },
    Edit { record: u8, edit: Edit },
    Pass { seconds: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let edit = prop_oneof![
        Just(Edit::Confirm),
        Just(Edit::Dispute),
        Just(Edit::SettleDispute),
        (1_i64..300).prop_map(|yuan| Edit::SetFine { fine_minor: yuan * 100 })
    ];
    prop_oneof![
        (0..8_u8, 0..6_u8).prop_map(|(record, key)| Step::Lock { record, key }),
        (0..6_u8).prop_map(|key| Step::Release { key }),
        (0..8_u8, 0..30_u8, prop::option::of(0..6_u8), prop::bool::weighted(0.1))
            .prop_map(|(record, order, key, off)| Step::Pay { record, order, key, off }),
        (0..8_u8, edit).prop_map(|(record, edit)| Step::Edit { record, edit }),
        (0..200_000_u32).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

proptest! {
    #[test]
    fn no_record_is_posted_twice_and_a_replay_knows_the_same(steps in prop::collection::vec(step(), 1..80)) {
        let mut desk = Desk::open();
        let mut now = noon();
        // The plain states and every quirk that decides money.
        let record = |n: u8| number(Kind::Magic, [0, 1, 2, 4, 5, 6, 7, 8][usize::from(n)] * 10, 1);
        for step in steps {
            desk.due(now);
            match step {
                Step::Lock { record: n, key } => { let _ = desk.lock(&record(n), &format!("k{key}"), now); }
                Step::Release { key } => {
                    if let Some(lock) = desk.book.lock_of_key(&format!("k{key}")).cloned() {
                        desk.release(&lock, now).expect("its own key");
                    }
                }
                Step::Pay { record: n, order, key, off } => {
                    let amount = desk.record(&record(n), now).total_minor() + i64::from(off);
                    let lock = key.and_then(|key| desk.book.lock_of_key(&format!("k{key}")).map(|lock| lock.number.clone()));
                    let _ = desk.pay(&Notice { lock, ..notice(&format!("o{order}"), &record(n), amount) }, now);
                }
                Step::Edit { record: n, edit } => {
                    let events = desk.book.edit(&record(n), edit, now);
                    let _ = desk.take(events, now);
                }
                Step::Pass { seconds } => now = now.plus(Duration::from_secs(u64::from(seconds))),
            }
        }
        for n in 0..8 {
            let posted = |event: &&(Timestamp, Event)| matches!(&event.1,
                Event::Payment(p) if p.record == record(n) && matches!(p.state, PaymentState::Posted { .. }));
            prop_assert!(desk.events.iter().filter(posted).count() <= 1);
            prop_assert_eq!(desk.record(&record(n), now).paid, desk.events.iter().any(|e| posted(&e)));
        }
        let mut replayed = Book::new(CHANGSHA, DAY);
        for (at, event) in &desk.events {
            let text = serde_json::to_string(event).expect("JSON");
            replayed.apply(&serde_json::from_str(&text).expect("an event"), *at);
        }
        prop_assert_eq!(format!("{replayed:?}"), format!("{:?}", desk.book));
    }
}
