//! One movement of money, as one side tells it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::civil::DateTime;
use serde::Serialize;

/// Bytes of a movement's number.
const NUMBER_BYTES_MAX: usize = 64;

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
    /// A citizen paid: known by the order number that the channel was told.
    Payment,
    /// It went back: known by the refund number that the channel was told.
    Refund,
    /// It became a department's: known by the channel's transaction number, which is what the department was told.
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
    /// It was taken back, or failed, or was never paid.
    Undone,
    /// It was asked for, and the file never tells what came of it: as WeChat Pay's bills list refunds.
    Asked,
}

/// An amount in the smallest unit of its currency; printed in units of a hundred of them.
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
    /// Between whom and us: a channel for payments and refunds, a payee for settlements.
    pub party: Arc<str>,
    /// What both sides know it by.
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
    pub fn key(&self) -> (What, &str, &str) {
        (self.what, &self.party, &self.number)
    }
}

/// Whether a text can be a movement's number: what every channel takes, and nothing that a file or a terminal could misread.
pub fn is_number(text: &str) -> bool {
    (1..=NUMBER_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// The text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount")]
pub struct BadMoney;

impl Money {
    /// The currency's code.
    pub fn code(&self) -> &str {
        str::from_utf8(&self.currency).unwrap_or("???")
    }

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
        let (sign, minor) = (if self.minor < 0 { "-" } else { "" }, self.minor.unsigned_abs());
        let (whole, rest) = (minor / 100, minor % 100);
        f.pad(&format!("{sign}{whole}.{rest:02} {}", self.code()))
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
named!(State { Done = "done", Pending = "pending", Undone = "undone", Asked = "asked" });

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
        assert_eq!(Money { minor: -5, currency: *b"CNY" }.to_string(), "-0.05 CNY");
        assert!(Money::from_yuan("1", "yuan").is_err() && Money::from_minor("-1", "CNY").is_err());
    }
}
