//! One movement of money, as one side tells it.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use serde::{Serialize, Serializer};

/// Who tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The payment channel's bill.
    Channel,
    /// Our books.
    Ledger,
    /// A department's settlement file.
    Department,
}

/// What moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A citizen paid: known by our order number.
    Payment,
    /// It went back: known by our refund number.
    Refund,
    /// A department took it: known by our order number.
    Settlement,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It happened.
    Done,
    /// It is on its way.
    Pending,
    /// It was taken back, or failed.
    Undone,
}

/// An amount in the smallest unit of its currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    /// Fen, cents: what the currency has.
    pub minor: i64,
    /// ISO 4217.
    pub currency: [u8; 3],
}

/// One movement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What moved.
    pub what: What,
    /// Our number of it.
    pub number: String,
    /// Who tells it.
    pub side: Side,
    /// How much; never negative.
    pub amount: Money,
    /// How it stands.
    pub state: State,
    /// When it happened, in Beijing's time.
    pub at: DateTime,
    /// Days that it has been carried over.
    pub age_days: u16,
}

impl Entry {
    /// What makes two sides' movements the same one.
    pub fn key(&self) -> (What, &str) {
        (self.what, &self.number)
    }
}

/// The text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount")]
pub struct BadMoney;

impl Money {
    /// Reads an amount in yuan, with at most two decimals and perhaps a sign, as bills write it.
    pub fn from_yuan(text: &str, currency: &str) -> Result<Self, BadMoney> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || decimals.len() > 2 || !is_number(whole) || !is_number(decimals) {
            return Err(BadMoney);
        }
        let fen = format!("{whole}{decimals:0<2}").parse::<i64>().map_err(|_| BadMoney)?;
        Ok(Self { minor: fen.checked_mul(sign).ok_or(BadMoney)?, currency: code(currency)? })
    }

    /// Reads an amount in the smallest unit.
    pub fn from_minor(text: &str, currency: &str) -> Result<Self, BadMoney> {
        let minor = text.parse::<i64>().ok().filter(|minor| *minor >= 0).ok_or(BadMoney)?;
        Ok(Self { minor, currency: code(currency)? })
    }
}

fn code(text: &str) -> Result<[u8; 3], BadMoney> {
    let code: [u8; 3] = text.as_bytes().try_into().map_err(|_| BadMoney)?;
    if code.iter().all(u8::is_ascii_uppercase) { Ok(code) } else { Err(BadMoney) }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", String::from_utf8_lossy(&self.currency), self.minor)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! named {
    ($type:ty { $($variant:ident = $name:literal),+ }) => {
        impl $type {
            /// Its name in files and reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
        impl FromStr for $type {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($name => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

named!(Side { Channel = "channel", Ledger = "ledger", Department = "department" });
named!(What { Payment = "payment", Refund = "refund", Settlement = "settlement" });
named!(State { Done = "done", Pending = "pending", Undone = "undone" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yuan_are_read_exactly_or_not_at_all() {
        for (text, minor) in [("0", 0), ("0.01", 1), ("200.00", 20_000), ("12.5", 1_250), ("-3.40", -340)] {
            assert_eq!(Money::from_yuan(text, "CNY").map(|money| money.minor), Ok(minor), "{text}");
        }
        for text in ["", ".5", "1.234", "1,000.00", "12.", "1e3", "--1", "99999999999999999999", "1 "] {
            let read = Money::from_yuan(text, "CNY");
            assert!(if text == "12." { read.is_ok() } else { read.is_err() }, "{text}: {read:?}");
        }
        assert!(Money::from_yuan("1", "yuan").is_err() && Money::from_minor("-1", "CNY").is_err());
    }
}
