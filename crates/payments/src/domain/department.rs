//! Departments in reconciliation: whose word their files are, and a settlement that the two sides have on two days.

use jiff::civil::Date;
use runtime::Timestamp;

use super::breaks::{Kept, State};
use super::ledger::Merchant;
use crate::reconcile::{Side, Told, What};

/// In runs and breaks a department stands as an account of its own: this is its channel, and the payee its number. No channel has this
/// name.
const DEPARTMENT: &str = "department";

impl Merchant {
    /// A department among those whose word is held against the ledger.
    pub fn of_department(payee: &str) -> Self {
        Self { channel: DEPARTMENT.to_owned(), number: payee.to_owned() }
    }

    /// The payee, where this is a department.
    pub fn department(&self) -> Option<&str> {
        (self.channel == DEPARTMENT).then_some(self.number.as_str())
    }

    /// Who tells it, and under which name.
    pub fn side(&self) -> (Side, &str) {
        self.department().map_or((Side::Channel, self.channel.as_str()), |payee| (Side::Department, payee))
    }
}

impl Kept {
    /// The break closed, where one side has the settlement on one day and this other side on another, and they agree: the department had
    /// it, its answer was lost, and what became of it was found out after midnight. None where that is not so.
    ///
    /// Whichever of the days is looked at first, and however often: what is closed so stays closed while both still say it.
    pub fn over_days(&self, ours: Option<&Told>, theirs: Option<&Told>, day: Date, now: Timestamp) -> Option<Self> {
        let is_alone = ours.is_some() != theirs.is_some();
        if self.what != What::Settlement || !is_alone || self.state == State::Resolved {
            return None;
        }
        let (our, their) = (ours.or(self.ours.as_ref())?, theirs.or(self.theirs.as_ref())?);
        let is_same =
            (our.amount_minor, &our.currency, our.state) == (their.amount_minor, &their.currency, their.state);
        if !is_same || our.at.date() == their.at.date() {
            return None;
        }
        let seen_day = self.seen_day.max(day);
        let both = Self { seen_day, ours: Some(our.clone()), theirs: Some(their.clone()), ..self.clone() };
        let closed_at = self.closed_at.unwrap_or(now);
        Some(both.repaired(closed_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::{BreakKind, State as Standing};

    const NOW: Timestamp = Timestamp::from_micros(7);
    const DAY: Date = jiff::civil::date(2026, 11, 22);

    fn told(day: i8, minor: i64) -> Told {
        let at = jiff::civil::date(2026, 11, day).at(12, 0, 0, 0);
        Told { amount_minor: minor, currency: "CNY".into(), state: Standing::Done, at }
    }

    fn long() -> Kept {
        Kept {
            id: "brk_0".into(),
            merchant: Merchant::of_department("traffic-430100"),
            day: DAY,
            seen_day: DAY,
            kind: BreakKind::Long,
            state: State::Open,
            what: What::Settlement,
            number: "0".into(),
            theirs: Some(told(22, 5)),
            ours: None,
            order: None,
            refund: None,
            proposed: None,
            resolution: None,
            note: String::new(),
            resolved_by: String::new(),
            closed_at: None,
        }
    }

    #[test]
    fn a_settlement_on_two_days_closes_when_both_agree_and_stays_closed() {
        let next = DAY.tomorrow().expect("a day");
        let met = long().over_days(Some(&told(23, 5)), None, next, NOW).expect("they agree");
        assert_eq!((met.state, met.seen_day, met.closed_at), (State::Repaired, next, Some(NOW)));
        // Either day again.
        let later = Timestamp::from_micros(9);
        assert_eq!(met.over_days(Some(&told(23, 5)), None, next, later), Some(met.clone()));
        assert_eq!(met.over_days(None, Some(&told(22, 5)), DAY, later), Some(met.clone()));
        // The department says something else now.
        assert_eq!(met.over_days(None, Some(&told(22, 6)), DAY, later), None);
        assert_eq!(long().over_days(Some(&told(23, 6)), None, next, NOW), None, "another amount");
        assert_eq!(long().over_days(None, Some(&told(22, 5)), DAY, NOW), None, "the same side again");
        assert_eq!(long().over_days(Some(&told(22, 5)), None, DAY, NOW), None, "of one day they would have matched");
        let payment = Kept { what: What::Payment, ..long() };
        assert_eq!(payment.over_days(Some(&told(23, 5)), None, next, NOW), None, "a payment has one moment");
        let resolved = Kept { state: State::Resolved, ..long() };
        assert_eq!(resolved.over_days(Some(&told(23, 5)), None, next, NOW), None, "a person's word stands");
    }
}
