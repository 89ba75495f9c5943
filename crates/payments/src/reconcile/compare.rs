//! The rule: what the sides tell of one movement, held against each other.

use std::collections::BTreeMap;

use jiff::Span;
use jiff::civil::{Date, DateTime};
use serde::Serialize;

use super::entry::{Entry, Money, Side, State, What};

/// So close to midnight the sides may book a movement on different days.
const EDGE_MINUTES: i64 = 10;

/// What is wrong with a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakKind {
    /// The other side has it and we do not (长款).
    Long,
    /// We have it and the other side does not (短款).
    Short,
    /// Both have it, with different amounts (金额不符).
    Amount,
    /// Both have it, and it stands differently (状态不符).
    State,
}

impl BreakKind {
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

/// A movement on which two sides disagree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Break {
    /// How.
    pub kind: BreakKind,
    /// Who disagrees with the ledger.
    pub side: Side,
    /// What moved.
    pub what: What,
    /// Our number of it.
    pub number: String,
    /// What the other side tells, where it tells anything.
    pub theirs: Option<Money>,
    /// What the ledger tells.
    pub ours: Option<Money>,
    /// How it stands with them.
    pub their_state: Option<State>,
    /// How it stands with us.
    pub our_state: Option<State>,
    /// When it happened, as the first side that has it tells.
    pub at: DateTime,
    /// Days since it was first seen alone.
    pub age_days: u16,
}

/// From when on the other side may have a movement on the day after, in Beijing's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge(DateTime);

impl Edge {
    /// That of a day.
    pub fn of(day: Date) -> Self {
        let end = day.tomorrow().unwrap_or(day).at(0, 0, 0, 0);
        Self(end.saturating_sub(Span::new().minutes(EDGE_MINUTES)))
    }

    fn may_come_tomorrow(&self, entry: &Entry) -> bool {
        entry.at >= self.0 && entry.age_days == 0
    }
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// By side and movement: how many, and how much by currency.
    pub told: BTreeMap<(Side, What), Told>,
    /// Movements on which both sides agree.
    pub agreed: u64,
    /// Breaks by kind.
    pub breaks: BTreeMap<BreakKind, u64>,
    /// Movements that wait for the next day.
    pub carried: u64,
}

/// What one side tells of one kind of movement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// How many.
    pub count: u64,
    /// How much of those that happened, by currency, in the smallest unit.
    pub minor: BTreeMap<String, i128>,
}

/// What came of one number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What is wrong.
    pub breaks: Vec<Break>,
    /// What may be right tomorrow.
    pub carried: Vec<Entry>,
}

/// Compares what all sides tell of one movement, which all entries are of.
///
/// Shape: entries of one key. More than one of a side is one too many for each beyond what the other has.
pub fn group(entries: &[Entry], edge: &Edge, totals: &mut Totals) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut ours, mut theirs): (Vec<&Entry>, Vec<&Entry>) = (Vec::new(), Vec::new());
    for entry in entries {
        let told = totals.told.entry((entry.side, entry.what)).or_default();
        told.count = told.count.saturating_add(1);
        if entry.state == State::Done {
            let sum = told.minor.entry(String::from_utf8_lossy(&entry.amount.currency).into_owned()).or_default();
            *sum = sum.saturating_add(entry.amount.minor.into());
        }
        // What is not to happen needs no like on the other side.
        let is_void = entries.len() == 1 && entry.state != State::Done && entry.side == Side::Ledger;
        match entry.side {
            Side::Ledger if is_void => {}
            Side::Ledger => ours.push(entry),
            Side::Channel | Side::Department => theirs.push(entry),
        }
    }
    let pairs = ours.len().min(theirs.len());
    for (our, their) in ours.iter().zip(&theirs) {
        let kind = if our.amount != their.amount {
            BreakKind::Amount
        } else if our.state != their.state {
            BreakKind::State
        } else {
            totals.agreed = totals.agreed.saturating_add(1);
            continue;
        };
        outcome.breaks.push(broken(kind, Some(our), Some(their)));
    }
    for (alone, kind) in [(ours.get(pairs..), BreakKind::Short), (theirs.get(pairs..), BreakKind::Long)] {
        for entry in alone.unwrap_or_default() {
            // A second one of the same number is no matter of days.
            if pairs == 0 && edge.may_come_tomorrow(entry) {
                let aged = entry.age_days.saturating_add(1);
                outcome.carried.push(Entry { age_days: aged, ..(*entry).clone() });
                continue;
            }
            let (our, their) = if kind == BreakKind::Short { (Some(*entry), None) } else { (None, Some(*entry)) };
            outcome.breaks.push(broken(kind, our, their));
        }
    }
    for one in &outcome.breaks {
        let count = totals.breaks.entry(one.kind).or_default();
        *count = count.saturating_add(1);
    }
    totals.carried = totals.carried.saturating_add(u64::try_from(outcome.carried.len()).unwrap_or(u64::MAX));
    outcome
}

fn broken(kind: BreakKind, ours: Option<&Entry>, theirs: Option<&Entry>) -> Break {
    let (what, number, at, age_days) = match theirs.or(ours) {
        Some(entry) => (entry.what, entry.number.clone(), entry.at, entry.age_days),
        None => (What::Payment, String::new(), DateTime::ZERO, 0),
    };
    let side = match (theirs, what) {
        (Some(entry), _) => entry.side,
        (None, What::Settlement) => Side::Department,
        (None, What::Payment | What::Refund) => Side::Channel,
    };
    Break {
        kind,
        side,
        what,
        number,
        theirs: theirs.map(|entry| entry.amount),
        ours: ours.map(|entry| entry.amount),
        their_state: theirs.map(|entry| entry.state),
        our_state: ours.map(|entry| entry.state),
        at,
        age_days,
    }
}
