//! A break that is kept: how it ages, what closes it, and what a person may say of it.

use std::fmt;
use std::str::FromStr;

use contracts::ids::{OrderId, RefundId};
use contracts::money::Money;
use jiff::civil::Date;
use runtime::Timestamp;

use super::ledger::Merchant;
use super::order::BadWord;
use crate::reconcile::{BreakKind, State as Standing, Told, What};

/// Where a break stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// A person has to look.
    Open,
    /// The next day's bill may have it.
    RolledOver,
    /// A person has resolved it.
    Resolved,
    /// It closed by itself.
    Repaired,
}

/// What a person found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// No money is missing.
    Explained,
    /// The channel has corrected its own books.
    CorrectedByChannel,
    /// The money was given back outside of lastmile.
    Returned,
    /// The difference is borne by us.
    WrittenOff,
}

impl Resolution {
    /// Whether it stands for moved money, and so takes two persons.
    pub const fn needs_two(self) -> bool {
        match self {
            Self::Explained | Self::CorrectedByChannel => false,
            Self::Returned | Self::WrittenOff => true,
        }
    }
}

macro_rules! words {
    ($type:ty { $($variant:ident = $word:literal),+ }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }
        impl FromStr for $type {
            type Err = BadWord;
            fn from_str(text: &str) -> Result<Self, BadWord> {
                match text { $($word => Ok(Self::$variant),)+ _ => Err(BadWord) }
            }
        }
    };
}

words!(State { Open = "open", RolledOver = "rolled_over", Resolved = "resolved", Repaired = "repaired" });
words!(Resolution {
    Explained = "explained", CorrectedByChannel = "corrected_by_channel", Returned = "returned", WrittenOff = "written_off"
});

/// A break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Follows from what it is about.
    pub id: String,
    /// The account at the channel.
    pub merchant: Merchant,
    /// The day on which it was first seen.
    pub day: Date,
    /// The day whose run has last seen it.
    pub seen_day: Date,
    /// What is wrong.
    pub kind: BreakKind,
    /// Where it stands.
    pub state: State,
    /// What moved.
    pub what: What,
    /// What both sides know it by.
    pub number: String,
    /// What the bill tells.
    pub theirs: Option<Told>,
    /// What the ledger tells.
    pub ours: Option<Told>,
    /// The order, where the number is one of ours.
    pub order: Option<OrderId>,
    /// The refund, likewise.
    pub refund: Option<RefundId>,
    /// What a first person found.
    pub proposed: Option<Resolution>,
    /// What was found in the end.
    pub resolution: Option<Resolution>,
    /// In a person's words.
    pub note: String,
    /// Who resolved or proposed last.
    pub resolved_by: String,
    /// When it was closed.
    pub closed_at: Option<Timestamp>,
}

impl Kept {
    /// Whether it stands open for one side's word alone, and this is the other's.
    pub fn is_other_half(&self, ours: Option<&Told>, theirs: Option<&Told>) -> bool {
        matches!(self.state, State::Open | State::RolledOver)
            && matches!(
                (&self.ours, &self.theirs, ours, theirs),
                (Some(_), None, None, Some(_)) | (None, Some(_), Some(_), None)
            )
    }

    /// The break with both sides' words: closed when they agree.
    pub fn met(self, ours: Option<Told>, theirs: Option<Told>, day: Date, now: Timestamp) -> Self {
        let (ours, theirs) = (self.ours.clone().or(ours), self.theirs.clone().or(theirs));
        let kind = ours.as_ref().zip(theirs.as_ref()).and_then(|(ours, theirs)| ours.differs(theirs));
        let kept = Self { seen_day: self.seen_day.max(day), ours, theirs, ..self };
        match kind {
            None => kept.repaired(now),
            Some(kind) => Self { kind, state: State::Open, closed_at: None, ..kept },
        }
    }
}

/// Why a resolution is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is closed, or may close by itself tomorrow.
    #[error("the break is not open")]
    NotOpen,
    /// The same person proposed it.
    #[error("the same person cannot agree with his own proposal")]
    SamePerson,
}

/// What is done about a break without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The channel is asked how the order stands, and what it says is booked.
    RefreshOrder,
    /// The channel is asked how the refund stands, and what it says is booked.
    RefreshRefund,
    /// It stays for a person.
    None,
}

/// Kind, what moved, how it stands with the channel, how with us, and what is done.
type Rule = (BreakKind, What, Option<Standing>, Option<Standing>, Repair);

/// The rules of repair. The first that fits counts.
///
/// A `long` of an order that is not ours opens nothing; a `short` has nothing to ask for: the channel's word was booked already, and its
/// bill is another. Both stay for a person.
const REPAIRS: &[Rule] = &[
    (BreakKind::State, What::Payment, Some(Standing::Done), Some(Standing::Pending), Repair::RefreshOrder),
    (BreakKind::State, What::Payment, Some(Standing::Done), Some(Standing::Undone), Repair::RefreshOrder),
    // An order older than the days that are looked at: it may be ours all the same.
    (BreakKind::Long, What::Payment, Some(Standing::Done), None, Repair::RefreshOrder),
    (BreakKind::State, What::Refund, Some(Standing::Done), Some(Standing::Pending), Repair::RefreshRefund),
    (BreakKind::Long, What::Refund, Some(Standing::Done), None, Repair::RefreshRefund),
];

impl Kept {
    /// What is done about it without a person.
    pub fn repair(&self) -> Repair {
        let standing = |told: &Option<Told>| told.as_ref().map(|told| told.state);
        let (theirs, ours) = (standing(&self.theirs), standing(&self.ours));
        let is = |rule: &&Rule| (rule.0, rule.1, rule.2, rule.3) == (self.kind, self.what, theirs, ours);
        if self.state != State::Open {
            return Repair::None;
        }
        REPAIRS.iter().find(is).map_or(Repair::None, |rule| rule.4)
    }

    /// Whether what was booked since is what the other side tells.
    pub fn is_explained_by(&self, booked: &Money) -> bool {
        let told = self.theirs.as_ref().map(|theirs| (theirs.amount_minor, theirs.currency.as_str()));
        told == Some((booked.amount_minor(), booked.currency().as_str()))
    }

    /// A person's word.
    pub fn resolve(&self, resolution: Resolution, note: &str, person: &str, now: Timestamp) -> Result<Self, Refused> {
        if self.state != State::Open {
            return Err(Refused::NotOpen);
        }
        let said = Self { note: note.to_owned(), resolved_by: person.to_owned(), ..self.clone() };
        if !resolution.needs_two() {
            return Ok(said.close(State::Resolved, Some(resolution), now));
        }
        match self.proposed {
            Some(proposed) if proposed == resolution && self.resolved_by == person => Err(Refused::SamePerson),
            Some(proposed) if proposed == resolution => Ok(said.close(State::Resolved, Some(resolution), now)),
            // Another word than the first person's begins anew.
            _ => Ok(Self { proposed: Some(resolution), ..said }),
        }
    }

    /// It closed by itself.
    #[must_use]
    pub fn repaired(&self, now: Timestamp) -> Self {
        self.clone().close(State::Repaired, None, now)
    }

    fn close(self, state: State, resolution: Option<Resolution>, now: Timestamp) -> Self {
        Self { state, resolution, proposed: None, closed_at: Some(now), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let told = |state| Told { amount_minor: 1, currency: "CNY".into(), state, at: jiff::civil::DateTime::ZERO };
        let day = jiff::civil::date(2026, 11, 22);
        Kept {
            id: "brk_0".into(),
            merchant: Merchant { channel: "wechatpay".into(), number: "1".into() },
            day,
            seen_day: day,
            kind: BreakKind::State,
            state: State::Open,
            what: What::Payment,
            number: "0".into(),
            theirs: Some(told(Standing::Done)),
            ours: Some(told(Standing::Pending)),
            order: None,
            refund: None,
            proposed: None,
            resolution: None,
            note: String::new(),
            resolved_by: String::new(),
            closed_at: None,
        }
    }

    const NOW: Timestamp = Timestamp::from_micros(7);

    #[test]
    fn moved_money_takes_two_persons_of_one_mind() {
        let first = kept().resolve(Resolution::WrittenOff, "n", "one", NOW).expect("is proposed");
        assert_eq!((first.state, first.proposed), (State::Open, Some(Resolution::WrittenOff)));
        assert_eq!(first.resolve(Resolution::WrittenOff, "n", "one", NOW), Err(Refused::SamePerson));
        let other = first.resolve(Resolution::Returned, "n", "two", NOW).expect("is proposed anew");
        assert_eq!((other.state, other.proposed), (State::Open, Some(Resolution::Returned)));
        let last = first.resolve(Resolution::WrittenOff, "n", "two", NOW).expect("is agreed");
        assert_eq!((last.state, last.resolution, last.proposed), (State::Resolved, Some(Resolution::WrittenOff), None));
        assert_eq!(last.resolve(Resolution::Explained, "n", "three", NOW), Err(Refused::NotOpen));
        let one = kept().resolve(Resolution::Explained, "n", "one", NOW).expect("is resolved");
        assert_eq!((one.state, one.closed_at), (State::Resolved, Some(NOW)));
        let rolled = Kept { state: State::RolledOver, ..kept() };
        assert_eq!(rolled.resolve(Resolution::Explained, "n", "one", NOW), Err(Refused::NotOpen));
    }

    #[test]
    fn the_channel_is_asked_about_what_it_says_is_done_and_about_nothing_else() {
        assert_eq!(kept().repair(), Repair::RefreshOrder);
        assert_eq!(Kept { kind: BreakKind::Long, ours: None, ..kept() }.repair(), Repair::RefreshOrder);
        let short = Kept { kind: BreakKind::Short, theirs: None, ours: kept().theirs, ..kept() };
        assert_eq!(short.repair(), Repair::None);
        let refund = Kept { what: What::Refund, ..kept() };
        assert_eq!(refund.repair(), Repair::RefreshRefund);
        assert_eq!(Kept { kind: BreakKind::Long, ours: None, ..refund.clone() }.repair(), Repair::RefreshRefund);
        let failed = kept().ours.map(|told| Told { state: Standing::Undone, ..told });
        assert_eq!(Kept { ours: failed, ..refund }.repair(), Repair::None);
        assert_eq!(Kept { kind: BreakKind::Amount, ..kept() }.repair(), Repair::None);
        assert_eq!(Kept { state: State::Resolved, ..kept() }.repair(), Repair::None);
    }
}
