//! What the book tells: records and drivers as of one moment, and the notice that a payment comes with.

use jiff::civil::Date;
use runtime::Timestamp;

use super::event::Refusal;
use super::people::{Person, PersonId};
use super::registry::{Base, Initial};

/// A record as it is at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// What was laid out.
    pub base: Base,
    /// Fine, in fen.
    pub fine_minor: i64,
    /// Late fee, in fen.
    pub late_minor: i64,
    /// When the decision was made; `None` for a capture.
    pub decided_at: Option<Timestamp>,
    /// Whether it is disputed.
    pub disputed: bool,
    /// Whether it is paid.
    pub paid: bool,
    /// When it was handled.
    pub handled_at: Option<Timestamp>,
}

/// A driver as of one moment.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    /// Who.
    pub id: PersonId,
    /// What is known of them.
    pub person: Person,
    /// Points that stand.
    pub points: u32,
    /// Records that are not handled.
    pub unhandled: usize,
}

/// A payment notice.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// The caller's order number.
    pub order: String,
    /// Record number.
    pub record: String,
    /// Lock number, if the caller has one.
    pub lock: Option<String>,
    /// Amount, in fen.
    pub amount_minor: i64,
    /// The channel's transaction number.
    pub channel_number: String,
}

impl Record {
    /// Fine and late fee, in fen.
    pub(crate) fn total_minor(&self) -> i64 {
        self.fine_minor + self.late_minor
    }

    /// Whether there is nothing to pay.
    pub(crate) fn is_warning(&self) -> bool {
        self.base.initial == Initial::Warning
    }

    /// Whether it can be locked and paid, as far as the record itself goes.
    pub(super) fn payable(&self) -> Result<(), Refusal> {
        match () {
            () if self.paid || self.is_warning() => Err(Refusal::AlreadyPaid),
            () if self.decided_at.is_none() => Err(Refusal::NotConfirmed),
            () if self.disputed => Err(Refusal::Disputed),
            () => Ok(()),
        }
    }

    /// The points that stand from it.
    pub(super) fn points_standing(&self) -> u32 {
        if self.decided_at.is_some() && self.handled_at.is_none() { self.base.offence.points } else { 0 }
    }
}

impl Driver {
    /// Licence status: `B` from 12 points on.
    pub(crate) fn status(&self) -> &'static str {
        if self.points >= 12 { "B" } else { "A" }
    }

    /// First and last day of the cycle that `day` lies in; everybody's cycle is the calendar year here.
    pub(crate) fn cycle(&self, day: Date) -> (Date, Date) {
        (day.first_of_year(), day.last_of_year())
    }
}
