//! The rule: what the sides tell of one movement, held against each other. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use serde::{Serialize, Serializer};

use super::entry::{Entry, Money, Side, State, What};

/// What is wrong with a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakKind {
    /// The other side has it and we do not (长款).
    Long,
    /// We have it and the other side does not (短款).
    Short,
    /// Both have it, with different amounts or currencies (金额不符).
    Amount,
    /// Both have it, and it stands differently, or on another day (状态不符).
    State,
}

impl BreakKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Long, Self::Short, Self::Amount, Self::State];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Short => "short",
            Self::Amount => "amount",
            Self::State => "state",
        }
    }
}

/// What one side tells of a movement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// In the smallest unit of the currency.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// How it stands.
    pub state: State,
    /// When it happened, in Beijing's time.
    #[serde(serialize_with = "text")]
    pub at: DateTime,
}

impl Told {
    /// What an entry tells.
    pub fn of(entry: &Entry) -> Self {
        let (amount_minor, currency) = (entry.amount.minor, entry.amount.code().to_owned());
        Self { amount_minor, currency, state: entry.state, at: entry.at }
    }

    /// The amount.
    pub fn amount(&self) -> Money {
        Money { minor: self.amount_minor, currency: self.currency.as_bytes().try_into().unwrap_or(*b"???") }
    }

    /// How the channel's or the department's word differs from this of the ledger, days aside.
    pub fn differs(&self, theirs: &Self) -> Option<BreakKind> {
        differ((self.amount(), self.state), (theirs.amount(), theirs.state))
    }
}

fn text<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A movement on which two sides disagree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Break {
    /// How.
    pub kind: BreakKind,
    /// Who disagrees with the ledger.
    pub side: Side,
    /// Which channel or payee.
    #[serde(serialize_with = "text")]
    pub party: Arc<str>,
    /// What moved.
    pub what: What,
    /// What both sides know it by.
    pub number: String,
    /// What the other side tells, where it tells anything.
    pub theirs: Option<Told>,
    /// What the ledger tells.
    pub ours: Option<Told>,
    /// Days since it was first seen alone.
    pub age_days: u16,
}

impl Break {
    fn new(kind: BreakKind, ours: Option<&Entry>, theirs: Option<&Entry>) -> Option<Self> {
        let one = theirs.or(ours)?;
        let age_days = ours.into_iter().chain(theirs).map(|entry| entry.age_days).max().unwrap_or(0);
        Some(Self {
            kind,
            side: theirs.map_or(other_side(one.what), |entry| entry.side),
            party: Arc::clone(&one.party),
            what: one.what,
            number: one.number.clone(),
            theirs: theirs.map(Told::of),
            ours: ours.map(Told::of),
            age_days,
        })
    }
}

/// Who else has to have such a movement.
pub const fn other_side(what: What) -> Side {
    match what {
        What::Payment | What::Refund => Side::Channel,
        What::Settlement => Side::Department,
    }
}

/// A day in Beijing's time, and from when on the other side may have a movement on the day after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    begin: DateTime,
    cut_off: DateTime,
    end: DateTime,
    edge: SignedDuration,
}

impl Day {
    /// A day that is cut off at a time.
    pub fn new(day: Date, cut_off: Time) -> Self {
        let begin = day.at(0, 0, 0, 0);
        let end = day.tomorrow().unwrap_or(day).at(0, 0, 0, 0);
        let cut_off = day.to_datetime(cut_off);
        Self { begin, cut_off, end, edge: end.duration_since(cut_off) }
    }

    /// A day at whose end an edge stands that is so long.
    pub fn ending_with(day: Date, edge: std::time::Duration) -> Self {
        let edge = SignedDuration::try_from(edge).unwrap_or_default();
        let end = day.tomorrow().unwrap_or(day).at(0, 0, 0, 0);
        Self { begin: day.at(0, 0, 0, 0), cut_off: end.saturating_sub(edge), end, edge }
    }

    /// Whether a moment is of it.
    pub fn has(&self, at: DateTime) -> bool {
        self.begin <= at && at < self.end
    }

    fn is_at_edge(&self, at: DateTime) -> bool {
        self.cut_off <= at && at < self.end
    }

    /// Whether two sides may have booked the same on different days: within the edge of midnight they may.
    fn are_apart(&self, one: DateTime, other: DateTime) -> bool {
        one.date() != other.date() && one.min(other).saturating_add(self.edge) < one.max(other)
    }
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By side, party and movement.
    pub told: BTreeMap<(Side, Arc<str>, What), Sums>,
    /// Movements on which both sides agree.
    pub agreed: u64,
    /// Breaks by kind.
    pub breaks: BTreeMap<BreakKind, u64>,
    /// Movements that wait for the next day.
    pub carried: u64,
    /// Movements of the ledger of which no file of the other side was there, by party.
    pub unheard: BTreeMap<(Side, Arc<str>), u64>,
}

impl Totals {
    /// How many breaks there are.
    pub fn breaks_total(&self) -> u64 {
        self.breaks.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// What one side tells of one kind of movement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many.
    pub count: u64,
    /// How much of those that happened, by currency, in the smallest unit.
    pub minor: BTreeMap<[u8; 3], i128>,
}

/// What came of one number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What is wrong.
    pub breaks: Vec<Break>,
    /// What may be right tomorrow.
    pub carried: Vec<Entry>,
}

/// Compares what all sides tell of one movement.
///
/// Shape: `entries` are all of one key. `heard` are those who sent a file: with nobody else is anything compared. More than one of a
/// side is one too many for each beyond what the other has. What an earlier day carried over is the older word of its side.
pub fn group(entries: &[Entry], day: &Day, heard: &BTreeSet<(Side, Arc<str>)>, totals: &mut Totals) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(first) = entries.first() else { return outcome };
    let (ours, theirs): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.side == Side::Ledger);
    for entry in entries.iter().filter(|entry| entry.age_days == 0) {
        totals.count(entry);
    }
    let our_age = ours.iter().map(|entry| entry.age_days).max().unwrap_or(0);
    let (mut ours, mut theirs) = (newest(ours), theirs);
    let other = (other_side(first.what), Arc::clone(&first.party));
    if !heard.contains(&other) && theirs.is_empty() {
        let unheard = totals.unheard.entry(other).or_default();
        *unheard = unheard.saturating_add(u64::try_from(ours.len()).unwrap_or(u64::MAX));
        return outcome;
    }
    let all = ours.len().saturating_add(theirs.len());
    // Those that agree first: a doubled row must not hide which of them is right.
    theirs.retain(|their| {
        let like = ours.iter().position(|our| differs(our, their, day).is_none());
        like.map(|place| ours.remove(place)).map(|_| totals.agreed = totals.agreed.saturating_add(1)).is_none()
    });
    let had_like = all > ours.len().saturating_add(theirs.len());
    let pairs = ours.len().min(theirs.len());
    for (our, their) in ours.iter().zip(&theirs) {
        outcome.breaks.extend(differs(our, their, day).and_then(|kind| Break::new(kind, Some(our), Some(their))));
    }
    let alone_ours = ours.get(pairs..).unwrap_or_default().iter();
    let alone_theirs = theirs.get(pairs..).unwrap_or_default().iter();
    for entry in alone_ours.chain(alone_theirs) {
        // A second one of the same number is no matter of days.
        let is_only = pairs == 0 && !had_like;
        let age = if entry.side == Side::Ledger { our_age } else { entry.age_days };
        match alone(entry, age, day, is_only) {
            Alone::Void => {}
            Alone::Carried => {
                let age_days = age.saturating_add(1);
                outcome.carried.push(Entry { age_days, ..(*entry).clone() });
            }
            Alone::Broken if entry.side == Side::Ledger => {
                outcome.breaks.extend(Break::new(BreakKind::Short, Some(entry), None));
            }
            Alone::Broken => outcome.breaks.extend(Break::new(BreakKind::Long, None, Some(entry))),
        }
    }
    for one in &outcome.breaks {
        let count = totals.breaks.entry(one.kind).or_default();
        *count = count.saturating_add(1);
    }
    totals.carried = totals.carried.saturating_add(u64::try_from(outcome.carried.len()).unwrap_or(u64::MAX));
    outcome
}

impl Totals {
    fn count(&mut self, entry: &Entry) {
        let told = self.told.entry((entry.side, Arc::clone(&entry.party), entry.what)).or_default();
        told.count = told.count.saturating_add(1);
        if matches!(entry.state, State::Done | State::Asked) {
            let sum = told.minor.entry(entry.amount.currency).or_default();
            *sum = sum.saturating_add(entry.amount.minor.into());
        }
    }
}

/// What the ledger tells today takes the place of what was carried over of it.
fn newest(mut ours: Vec<&Entry>) -> Vec<&Entry> {
    if ours.iter().any(|entry| entry.age_days == 0) {
        ours.retain(|entry| entry.age_days == 0);
    }
    ours
}

/// How two sides' words differ, if they do.
fn differs(our: &Entry, their: &Entry, day: &Day) -> Option<BreakKind> {
    // Refunds and settlements are booked when each side comes to them; a payment has one moment, the channel's.
    let is_moved = their.what == What::Payment && our.state == State::Done && day.are_apart(our.at, their.at);
    differ((our.amount, our.state), (their.amount, their.state)).or(is_moved.then_some(BreakKind::State))
}

fn differ(our: (Money, State), their: (Money, State)) -> Option<BreakKind> {
    // A bill that never tells what came of it agrees with whatever did.
    let stand_alike = our.1 == their.1 || their.1 == State::Asked;
    if our.0 != their.0 {
        Some(BreakKind::Amount)
    } else if stand_alike {
        None
    } else {
        Some(BreakKind::State)
    }
}

enum Alone {
    Void,
    Carried,
    Broken,
}

/// What a movement is that one side alone tells of.
fn alone(entry: &Entry, age_days: u16, day: &Day, is_only: bool) -> Alone {
    let is_refund_on_its_way = entry.what == What::Refund && entry.state == State::Pending;
    match (entry.side, entry.state) {
        // It is decided some day, and must have been billed by then.
        (Side::Ledger, State::Pending) if is_refund_on_its_way && is_only => Alone::Carried,
        // What did not happen needs no like.
        (_, State::Undone) | (Side::Ledger, State::Pending | State::Asked) => Alone::Void,
        // A ledger's export also has movements of other days, for what a bill tells of them.
        (Side::Ledger, State::Done) if !day.has(entry.at) && age_days == 0 => Alone::Void,
        _ if is_only && age_days == 0 && day.is_at_edge(entry.at) => Alone::Carried,
        _ => Alone::Broken,
    }
}
