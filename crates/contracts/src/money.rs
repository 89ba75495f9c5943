//! Money as it is computed with: minor units of one currency, checked on the way in.

use crate::common::v1 as pb;
use std::fmt;

/// The greatest amount that every JSON reader can hold exactly: 2^53 − 1 minor units.
pub const AMOUNT_MINOR_MAX: i64 = 9_007_199_254_740_991;

/// An ISO 4217 code: three capital letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Chinese yuan, counted in fen.
    pub const CNY: Self = Self(*b"CNY");

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::str::FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            &[a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(MoneyError::Currency),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a value is not money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoneyError {
    /// The field was not set.
    Missing,
    /// The currency is not three capital letters.
    Currency,
    /// The amount is outside ±[`AMOUNT_MINOR_MAX`].
    Range,
}

impl fmt::Display for MoneyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "money is required",
            Self::Currency => "currency must be an ISO 4217 code of three capital letters",
            Self::Range => "amount_minor must lie within ±9007199254740991",
        })
    }
}

impl std::error::Error for MoneyError {}

/// An amount of one currency.
/// Units: minor units (fen for CNY). There is no arithmetic across currencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// Minor units, within ±[`AMOUNT_MINOR_MAX`].
    amount_minor: i64,
    /// Its currency.
    currency: Currency,
}

impl Money {
    /// Makes an amount.
    /// Errors: Range.
    pub const fn new(amount_minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if amount_minor > AMOUNT_MINOR_MAX || amount_minor < -AMOUNT_MINOR_MAX {
            return Err(MoneyError::Range);
        }
        Ok(Self { amount_minor, currency })
    }

    /// Minor units.
    #[must_use]
    pub const fn amount_minor(&self) -> i64 {
        self.amount_minor
    }

    /// Currency.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.currency
    }
}

impl TryFrom<&pb::Money> for Money {
    type Error = MoneyError;

    fn try_from(value: &pb::Money) -> Result<Self, MoneyError> {
        Self::new(value.amount_minor, value.currency.parse()?)
    }
}

impl From<Money> for pb::Money {
    fn from(value: Money) -> Self {
        Self { amount_minor: value.amount_minor, currency: value.currency.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold() {
        assert!(Money::new(AMOUNT_MINOR_MAX, Currency::CNY).is_ok());
        assert_eq!(Money::new(AMOUNT_MINOR_MAX + 1, Currency::CNY), Err(MoneyError::Range));
        assert_eq!(Money::new(i64::MIN, Currency::CNY), Err(MoneyError::Range));
    }

    #[test]
    fn currency_is_three_capitals() {
        for bad in ["", "cny", "CN", "CNYX", "人民币"] {
            assert_eq!(bad.parse::<Currency>(), Err(MoneyError::Currency), "{bad}");
        }
        assert_eq!("CNY".parse::<Currency>().map(|c| c.to_string()), Ok("CNY".to_owned()));
    }
}
