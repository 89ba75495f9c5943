//! A medical-insurance mixed order (医保自费混合订单): the hospital's bill, of which the insurance pays a part and the citizen the rest.
//!
//! The insurance centre splits the bill; the hospital brings the split with the order. Nothing is sent to a channel before the three
//! identities hold here, because the channel names no sums when it refuses. Any two of them make the third, so that one wrong sum always
//! breaks two: a refusal names every one that fails, with both its sides, and which two they are tells the sum. Sums are minor units of
//! one currency.

mod legs;

use std::fmt;
use std::str::FromStr;

use runtime::Timestamp;

use super::order::BadWord;

pub use legs::{BadReturn, Leg, LegState, Legs, Standing, standing};

/// Who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MixType {
    /// The citizen alone.
    CashOnly,
    /// The insurance alone.
    InsuranceOnly,
    /// Both.
    CashAndInsurance,
}

/// Why the citizen pays more than the insurance centre leaves to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddType {
    /// For no reason that is told.
    Default,
    /// Delivery.
    Freight,
    /// Medical costs that no insurance pays.
    OtherMedical,
}

/// Why the citizen pays less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReduceType {
    /// For no reason that is told.
    Default,
    /// The hospital waives it.
    Hospital,
    /// The pharmacy gives a discount.
    Pharmacy,
    /// A discount.
    Discount,
    /// It was paid before.
    PrePayment,
    /// It is taken from a deposit.
    Deposit,
}

const MIX_TYPES: [(MixType, &str); 3] = [
    (MixType::CashOnly, "CASH_ONLY"),
    (MixType::InsuranceOnly, "INSURANCE_ONLY"),
    (MixType::CashAndInsurance, "CASH_AND_INSURANCE"),
];

const ADD_TYPES: [(AddType, &str); 3] = [
    (AddType::Default, "DEFAULT_ADD_TYPE"),
    (AddType::Freight, "FREIGHT"),
    (AddType::OtherMedical, "OTHER_MEDICAL_EXPENSES"),
];

const REDUCE_TYPES: [(ReduceType, &str); 6] = [
    (ReduceType::Default, "DEFAULT_REDUCE_TYPE"),
    (ReduceType::Hospital, "HOSPITAL_REDUCE"),
    (ReduceType::Pharmacy, "PHARMACY_DISCOUNT"),
    (ReduceType::Discount, "DISCOUNT"),
    (ReduceType::PrePayment, "PRE_PAYMENT"),
    (ReduceType::Deposit, "DEPOSIT_DEDUCTION"),
];

fn word<T: PartialEq>(words: &[(T, &'static str)], of: &T) -> &'static str {
    words.iter().find(|(known, _)| known == of).map(|(_, word)| *word).unwrap_or_default()
}

fn named<T: Copy>(words: &[(T, &str)], text: &str) -> Result<T, BadWord> {
    words.iter().find(|(_, word)| *word == text).map(|(known, _)| *known).ok_or(BadWord)
}

impl fmt::Display for MixType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&MIX_TYPES, self))
    }
}

impl FromStr for MixType {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        named(&MIX_TYPES, text)
    }
}

impl fmt::Display for AddType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&ADD_TYPES, self))
    }
}

impl FromStr for AddType {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        named(&ADD_TYPES, text)
    }
}

impl fmt::Display for ReduceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&REDUCE_TYPES, self))
    }
}

impl FromStr for ReduceType {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        named(&REDUCE_TYPES, text)
    }
}

impl MixType {
    /// Whether the citizen pays something, by an order of its own that must exist before.
    pub fn has_cash(self) -> bool {
        matches!(self, Self::CashOnly | Self::CashAndInsurance)
    }

    /// Whether the insurance pays something, on the strength of what its centre gave out.
    pub fn has_insurance(self) -> bool {
        matches!(self, Self::InsuranceOnly | Self::CashAndInsurance)
    }
}

/// What the insurance pays, by its funds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funds {
    /// The pooled fund (统筹基金).
    pub government: i64,
    /// The citizen's personal account (个人账户).
    pub personal: i64,
    /// Any other.
    pub other: i64,
}

impl Funds {
    /// All of them; None where the sum makes no sense.
    pub fn sum(self) -> Option<i64> {
        self.government.checked_add(self.personal)?.checked_add(self.other)
    }

    /// Each by its name.
    fn each(self) -> [(&'static str, i64); 3] {
        [("government", self.government), ("personal", self.personal), ("other", self.other)]
    }
}

/// How a bill is split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// The whole bill.
    pub total: i64,
    /// What the insurance pays.
    pub funds: Funds,
    /// What the insurance centre leaves to the citizen.
    pub cash: i64,
    /// What the hospital adds to that.
    pub added: Vec<(AddType, i64)>,
    /// What it takes off.
    pub reduced: Vec<(ReduceType, i64)>,
    /// What the citizen pays at the channel in the end.
    pub paid_in_cash: i64,
}

/// What makes an order a mixed one, without what is personal in it; frozen with the order's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insured {
    /// Who pays.
    pub mix: MixType,
    /// What for, in the channel's words.
    pub order_type: String,
    /// How the bill is split; its total is the order's amount.
    pub split: Split,
    /// The hospital's own number of the bill.
    pub serial_no: String,
    /// The insurance centre's number of the payment.
    pub pay_order_id: Option<String>,
    /// When the insurance centre took the order.
    pub insurance_created_at: Option<Timestamp>,
    /// The channel's own code of the city, which need not be the state's.
    pub city_id: String,
    /// The medical institution's number.
    pub institution_no: String,
    /// Its name.
    pub institution_name: String,
}

/// An equation that every split must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// total = funds + paid in cash + reduced.
    TotalByPayment,
    /// total = funds + cash + added.
    TotalBySettlement,
    /// paid in cash = cash + added - reduced.
    Cash,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TotalByPayment => "total_by_payment",
            Self::TotalBySettlement => "total_by_settlement",
            Self::Cash => "cash",
        })
    }
}

/// An identity that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub identity: Identity,
    /// Its left side, minor units.
    pub left: i64,
    /// Its right side, minor units.
    pub right: i64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} is not {})", self.identity, self.left, self.right)
    }
}

/// Why a mixed order is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The split does not keep these identities.
    #[error("the split breaks {}", listed(.0))]
    Identities(Vec<Broken>),
    /// A part is below 0, or an addition or reduction is not above it.
    #[error("{0} is not an amount")]
    Amount(&'static str),
    /// The sums are beyond what can be counted.
    #[error("the sums are too large")]
    TooLarge,
    /// The type has no such leg, and the split has.
    #[error("{0} is not 0, and the type has no such leg")]
    LegTooMany(&'static str),
    /// The type has a leg that the split has not.
    #[error("{0} is 0, and the type has such a leg")]
    LegMissing(&'static str),
    /// The type forbids a field.
    #[error("{0} does not belong to the type")]
    Forbidden(&'static str),
    /// The type needs a field.
    #[error("{0} is missing")]
    Missing(&'static str),
}

fn listed(broken: &[Broken]) -> String {
    broken.iter().map(Broken::to_string).collect::<Vec<_>>().join(", ")
}

impl Split {
    /// Holds the parts, then the identities, then the legs of the type against each other.
    pub fn check(&self, mix: MixType) -> Result<(), Wrong> {
        let parts = [("total", self.total), ("cash", self.cash), ("paid_in_cash", self.paid_in_cash)];
        if let Some((name, _)) = parts.into_iter().chain(self.funds.each()).find(|(_, minor)| *minor < 0) {
            return Err(Wrong::Amount(name));
        }
        if self.added.iter().any(|(_, minor)| *minor <= 0) {
            return Err(Wrong::Amount("added"));
        }
        if self.reduced.iter().any(|(_, minor)| *minor <= 0) {
            return Err(Wrong::Amount("reduced"));
        }
        let added = sum(self.added.iter().map(|(_, minor)| *minor))?;
        let reduced = sum(self.reduced.iter().map(|(_, minor)| *minor))?;
        let funds = self.funds.sum().ok_or(Wrong::TooLarge)?;
        let cash = sum([self.cash, added])?.checked_sub(reduced).ok_or(Wrong::TooLarge)?;
        let sides = [
            (Identity::TotalByPayment, self.total, sum([funds, self.paid_in_cash, reduced])?),
            (Identity::TotalBySettlement, self.total, sum([funds, self.cash, added])?),
            (Identity::Cash, self.paid_in_cash, cash),
        ];
        let broken = sides.into_iter().filter(|(_, left, right)| left != right);
        let broken: Vec<_> = broken.map(|(identity, left, right)| Broken { identity, left, right }).collect();
        if !broken.is_empty() {
            return Err(Wrong::Identities(broken));
        }
        leg("funds", mix.has_insurance(), funds)?;
        leg("paid_in_cash", mix.has_cash(), self.paid_in_cash)
    }
}

fn sum(parts: impl IntoIterator<Item = i64>) -> Result<i64, Wrong> {
    parts.into_iter().try_fold(0_i64, i64::checked_add).ok_or(Wrong::TooLarge)
}

/// A leg that the type has moves money, and one that it has not moves none.
fn leg(name: &'static str, is_there: bool, minor: i64) -> Result<(), Wrong> {
    match (is_there, minor > 0) {
        (true, false) => Err(Wrong::LegMissing(name)),
        (false, true) => Err(Wrong::LegTooMany(name)),
        (true, true) | (false, false) => Ok(()),
    }
}

/// Which of the fields that depend on the type an order has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Papers {
    /// The insurance centre's number of the payment.
    pub pay_order_id: bool,
    /// The citizen's authorisation.
    pub pay_auth_no: bool,
    /// Where the citizen is.
    pub geo_location: bool,
    /// When the insurance centre took the order.
    pub insurance_created_at: bool,
}

impl Papers {
    /// Holds the fields against the type. The cash leg's session is not among them: whoever sends the order makes it first, or not.
    pub fn check(self, mix: MixType) -> Result<(), Wrong> {
        let fields = [
            ("pay_order_id", self.pay_order_id),
            ("pay_auth_no", self.pay_auth_no),
            ("geo_location", self.geo_location),
            ("med_ins_order_create_time", self.insurance_created_at),
        ];
        for (name, is_there) in fields {
            match (mix, is_there) {
                (MixType::CashOnly, true) => return Err(Wrong::Forbidden(name)),
                (MixType::CashAndInsurance | MixType::InsuranceOnly, false) => return Err(Wrong::Missing(name)),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
