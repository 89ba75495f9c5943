//! The kinds of values that departments write, and how each is read and written.
//!
//! A profile names its types once (`types:`); replies, request columns and templates refer to them by name. The same type serves both
//! directions. A value that does not fit its kind is an error that says what would be right; the value itself is never quoted, because
//! it may be a person's.

use jiff::civil;
use jiff::tz::Offset;
use minijinja::Value;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::named::Named;

mod number;
mod time;

pub use time::{Pattern, Zone, parse_rfc3339, rfc3339};

/// The greatest amount, in fen, that any reply may carry: what a JSON reader can hold exactly.
const AMOUNT_MINOR_MAX: i64 = contracts::money::AMOUNT_MINOR_MAX;

/// A kind of value.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Free text in the profile's charset, without control characters.
    Text {
        /// Longest, in characters.
        chars_max: usize,
    },
    /// An identifier: ASCII characters of one class, kept as a string.
    Ascii {
        /// The characters it may have.
        chars: Chars,
        /// Shortest, in characters.
        min: usize,
        /// Longest, in characters.
        max: usize,
    },
    /// A whole number in decimal digits; leading zeros are padding.
    Number {
        /// Least, inclusive.
        #[serde(default)]
        min: u32,
        /// Greatest, inclusive.
        max: u32,
    },
    /// An amount of yuan, read as a whole number of fen.
    Money {
        /// How it is written.
        unit: MoneyUnit,
    },
    /// A local time to the second, in the profile's zone; read as RFC 3339 UTC.
    Time {
        /// How it is written, in strftime's letters, for example `%Y-%m-%d %H:%M:%S`.
        format: Pattern,
    },
    /// A date without a time; read as `yyyy-mm-dd`.
    Date {
        /// How it is written, in strftime's letters, for example `%Y%m%d`.
        format: Pattern,
    },
    /// A code out of a closed table.
    Code {
        /// The department's code, and what it means here.
        table: Named<Meaning>,
    },
}

/// What a code means: a name or a truth value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Meaning {
    /// True or false.
    Flag(bool),
    /// A name, the same in every profile.
    Name(String),
}

/// The characters of an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Chars {
    /// `0` to `9`.
    Digits,
    /// `0` to `9`, `a` to `f`.
    LowerHex,
    /// ASCII letters and digits.
    Alphanumeric,
    /// ASCII letters, digits, `_` and `-`.
    Key,
    /// Printable ASCII without the space.
    Visible,
}

/// How money is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MoneyUnit {
    /// Yuan with two decimals: `200.00`.
    Yuan,
    /// Fen, digits alone: `20000`.
    Fen,
}

/// Why a value does not fit its kind. The display says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// There is no value where one must be.
    #[error("blank, and a value must be there")]
    Blank,
    /// A control character, or one outside the class.
    #[error("a character that is not {0}")]
    Character(&'static str),
    /// Too short or too long.
    #[error("must have {min} to {max} characters")]
    Length {
        /// Shortest.
        min: usize,
        /// Longest.
        max: usize,
    },
    /// Not a whole number within its bounds.
    #[error("must be a whole number from {min} to {max}, in digits")]
    Number {
        /// Least.
        min: u32,
        /// Greatest.
        max: u32,
    },
    /// Not money.
    #[error("must be an amount in {}", match .0 { MoneyUnit::Yuan => "yuan with two decimals", MoneyUnit::Fen => "fen, digits alone" })]
    Money(MoneyUnit),
    /// Not a time of that form.
    #[error("must be a time written as {0}")]
    Time(Pattern),
    /// Not in the table.
    #[error("must be one of {0}")]
    Code(String),
    /// A value of another sort than the kind writes.
    #[error("{0} must be given")]
    Sort(&'static str),
}

impl Kind {
    /// Reads a value that is not blank.
    pub fn read(&self, text: &str, zone: Zone) -> Result<Value, Misfit> {
        match self {
            Self::Text { chars_max } => {
                check_text(text, *chars_max)?;
                Ok(Value::from(text))
            }
            Self::Ascii { chars, min, max } => {
                chars.check(text, *min, *max)?;
                Ok(Value::from(text))
            }
            Self::Number { min, max } => number::read_number(text, *min, *max).map(Value::from),
            Self::Money { unit } => number::read_money(text, *unit).map(Value::from),
            Self::Time { format } => time::read_time(text, format, zone).map(Value::from),
            Self::Date { format } => time::read_date(text, format).map(Value::from),
            Self::Code { table } => {
                let meaning = table.get(text).ok_or_else(|| code_misfit(table))?;
                Ok(meaning.value())
            }
        }
    }

    /// Writes a value as the department reads it, without padding.
    pub fn write(&self, value: &Value, zone: Zone) -> Result<String, Misfit> {
        let text = || value.as_str().ok_or(Misfit::Sort("text"));
        match self {
            Self::Text { chars_max } => {
                check_text(text()?, *chars_max)?;
                Ok(text()?.to_owned())
            }
            Self::Ascii { chars, min, max } => {
                chars.check(text()?, *min, *max)?;
                Ok(text()?.to_owned())
            }
            Self::Number { min, max } => number::write_number(value, *min, *max),
            Self::Money { unit } => number::write_money(value, *unit),
            Self::Time { format } => time::write_time(text()?, format, zone),
            Self::Date { format } => time::write_date(text()?, format),
            Self::Code { table } => {
                let found = table.iter().find(|(_, meaning)| meaning.value() == *value);
                found.map(|(code, _)| code.to_owned()).ok_or(Misfit::Sort("a value of the type's table"))
            }
        }
    }

    /// Numbers and money stand at the right of a column, filled with zeros; everything else at the left, filled with spaces.
    #[must_use]
    pub fn is_zero_filled(&self) -> bool {
        matches!(self, Self::Number { .. } | Self::Money { .. })
    }
}

impl Meaning {
    fn value(&self) -> Value {
        match self {
            Self::Flag(flag) => Value::from(*flag),
            Self::Name(name) => Value::from(name.as_str()),
        }
    }
}

impl Chars {
    fn check(self, text: &str, min: usize, max: usize) -> Result<(), Misfit> {
        if !(min..=max).contains(&text.len()) {
            return Err(Misfit::Length { min, max });
        }
        let (fits, class): (fn(u8) -> bool, _) = match self {
            Self::Digits => (|b| b.is_ascii_digit(), "a digit"),
            Self::LowerHex => (|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'), "a lower-case hexadecimal digit"),
            Self::Alphanumeric => (|b| b.is_ascii_alphanumeric(), "an ASCII letter or digit"),
            Self::Key => (|b| b.is_ascii_alphanumeric() || b"_-".contains(&b), "an ASCII letter, digit, `_` or `-`"),
            Self::Visible => (|b| b.is_ascii_graphic(), "printable ASCII"),
        };
        if text.bytes().all(fits) { Ok(()) } else { Err(Misfit::Character(class)) }
    }
}

fn check_text(text: &str, chars_max: usize) -> Result<(), Misfit> {
    if text.chars().any(|c| c.is_control() || c == '\u{FFFD}' || c == '\u{FEFF}') {
        return Err(Misfit::Character("text"));
    }
    if text.chars().count() > chars_max { Err(Misfit::Length { min: 0, max: chars_max }) } else { Ok(()) }
}

fn code_misfit(table: &Named<Meaning>) -> Misfit {
    let codes: Vec<_> = table.iter().map(|(code, _)| format!("`{code}`")).collect();
    Misfit::Code(codes.join(", "))
}

#[cfg(test)]
mod tests;
