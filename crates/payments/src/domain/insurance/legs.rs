//! The legs of a mixed order: how they stand together, and what each can still give back.

use std::fmt;

use super::{Funds, MixType, Split};

/// A part of a mixed order that is paid, and goes back, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// What the citizen paid at the channel.
    Cash,
    /// What the pooled fund paid.
    Government,
    /// What the personal account paid.
    Personal,
    /// What another fund paid.
    Other,
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cash => "cash",
            Self::Government => "government",
            Self::Personal => "personal",
            Self::Other => "other",
        })
    }
}

/// What moved on each leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Legs {
    /// The citizen's.
    pub cash: i64,
    /// The insurance's.
    pub funds: Funds,
}

/// A refund that a leg cannot give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReturn {
    /// More would go back on a leg than came in on it.
    #[error("more would go back on the {leg} leg than came in: {asked} of {rest}")]
    Exceeds {
        /// Which.
        leg: Leg,
        /// What is asked, minor units.
        asked: i64,
        /// What it still can give, minor units.
        rest: i64,
    },
    /// A part is below 0, or there is nothing to give back.
    #[error("not an amount to give back")]
    Amount,
    /// The sums make no sense: a bug.
    #[error("the sums of the legs make no sense")]
    Sums,
}

impl Legs {
    /// What a split moves on each leg.
    pub fn of(split: &Split) -> Self {
        Self { cash: split.paid_in_cash, funds: split.funds }
    }

    /// All of it; None where the sum makes no sense.
    pub fn sum(self) -> Option<i64> {
        self.cash.checked_add(self.funds.sum()?)
    }

    /// The cash leg alone.
    #[must_use]
    pub fn cash_alone(self) -> Self {
        Self { cash: self.cash, ..Self::default() }
    }

    /// The insurance's legs alone.
    #[must_use]
    pub fn funds_alone(self) -> Self {
        Self { cash: 0, ..self }
    }

    /// Both together; None where a sum makes no sense.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.joined(other, i64::checked_add).ok()
    }

    /// Each by its name.
    pub fn each(self) -> [(Leg, i64); 4] {
        let funds = self.funds;
        [
            (Leg::Cash, self.cash),
            (Leg::Government, funds.government),
            (Leg::Personal, funds.personal),
            (Leg::Other, funds.other),
        ]
    }

    /// Of what came in, with `given` accepted to go back before: what is given when `asked` goes too.
    ///
    /// Errors: Exceeds with the first leg that cannot give it; Amount; Sums.
    pub fn give(self, given: Self, asked: Self) -> Result<Self, BadReturn> {
        let parts = asked.each();
        if parts.iter().any(|(_, minor)| *minor < 0) || parts.iter().all(|(_, minor)| *minor == 0) {
            return Err(BadReturn::Amount);
        }
        for ((captured, given), (leg, asked)) in self.each().into_iter().zip(given.each()).zip(parts) {
            let rest = captured.1.checked_sub(given.1).filter(|rest| *rest >= 0).ok_or(BadReturn::Sums)?;
            if asked > rest {
                return Err(BadReturn::Exceeds { leg, asked, rest });
            }
        }
        given.joined(asked, i64::checked_add)
    }

    /// What is given when a refund of `failed` did not go after all.
    ///
    /// Errors: Sums where it was never given.
    pub fn take_back(self, failed: Self) -> Result<Self, BadReturn> {
        let rest = self.joined(failed, i64::checked_sub)?;
        if rest.each().iter().all(|(_, minor)| *minor >= 0) { Ok(rest) } else { Err(BadReturn::Sums) }
    }

    fn joined(self, with: Self, by: fn(i64, i64) -> Option<i64>) -> Result<Self, BadReturn> {
        let by = |left, right| by(left, right).ok_or(BadReturn::Sums);
        Ok(Self {
            cash: by(self.cash, with.cash)?,
            funds: Funds {
                government: by(self.funds.government, with.funds.government)?,
                personal: by(self.funds.personal, with.funds.personal)?,
                other: by(self.funds.other, with.funds.other)?,
            },
        })
    }
}

/// How one leg stands at the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LegState {
    /// The order has no such leg.
    Absent,
    /// Not decided, or a word that is not known.
    Pending,
    /// The money came.
    Paid,
    /// The money came and something of it went back.
    Returned,
    /// It will not come.
    Failed,
}

/// How the whole stands. Only a whole that is paid is booked; a half is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Not decided: ask again.
    Pending,
    /// Every leg that the order has is paid.
    Paid,
    /// The order failed, and no leg has money.
    Failed,
    /// The order failed, and this leg's money has to go back: cash by a refund, insurance at its centre.
    Half {
        /// The citizen paid.
        cash: bool,
        /// The insurance paid.
        insurance: bool,
    },
    /// The words of the whole and of its legs contradict each other, or the order has other legs than its type: a person has to look.
    Differs,
}

/// What the word of the whole and those of its legs come to.
///
/// The whole's word alone never makes an order paid: each leg that the type has must say so too.
pub fn standing(mix: MixType, whole: LegState, cash: LegState, insurance: LegState) -> Standing {
    let fits = |has: bool, leg: LegState| has != (leg == LegState::Absent);
    if !fits(mix.has_cash(), cash) || !fits(mix.has_insurance(), insurance) {
        return Standing::Differs;
    }
    let came = |leg| matches!(leg, LegState::Paid | LegState::Returned);
    let all_came = [cash, insurance].into_iter().all(|leg| leg == LegState::Absent || came(leg));
    let any_pending = [cash, insurance].contains(&LegState::Pending);
    match whole {
        LegState::Pending => Standing::Pending,
        LegState::Paid | LegState::Returned if all_came => Standing::Paid,
        LegState::Failed if any_pending => Standing::Pending,
        // What went back already does not have to.
        LegState::Failed => match (cash == LegState::Paid, insurance == LegState::Paid) {
            (false, false) => Standing::Failed,
            (cash, insurance) => Standing::Half { cash, insurance },
        },
        LegState::Paid | LegState::Returned | LegState::Absent => Standing::Differs,
    }
}
