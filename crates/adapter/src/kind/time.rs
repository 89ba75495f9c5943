//! Local times and dates.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Misfit, Offset, civil};

/// The department's local time: a fixed offset from UTC, written `+08:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(Offset);

/// How a time is written, in strftime's letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Zone {
    /// Reads `+HH:MM` or `-HH:MM`, at most 14 hours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':')?;
        let two_digits = |text: &str| -> Option<i32> {
            (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
        };
        let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
        let fits = hours <= 14 && minutes < 60;
        Offset::from_seconds(sign * (hours * 3_600 + minutes * 60)).ok().filter(|_| fits).map(Self)
    }

    /// Returns the local wall clock at a moment.
    #[must_use]
    pub fn local(self, at: runtime::Timestamp) -> Option<civil::DateTime> {
        jiff::Timestamp::from_microsecond(at.micros()).ok().map(|at| self.0.to_datetime(at))
    }

    /// Returns the moment at which the local wall clock shows `civil`.
    #[must_use]
    pub fn moment(self, civil: civil::DateTime) -> Option<runtime::Timestamp> {
        self.0.to_timestamp(civil).ok().map(|at| runtime::Timestamp::from_micros(at.as_microsecond()))
    }
}

/// Reads RFC 3339 into a moment.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<runtime::Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|at| runtime::Timestamp::from_micros(at.as_microsecond()))
}

/// Writes a moment as RFC 3339 UTC to the second: `2026-11-12T00:31:00Z`.
#[must_use]
pub fn rfc3339(at: runtime::Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_second(at.micros().div_euclid(1_000_000)).ok()?;
    Some(at.to_string())
}

pub(super) fn read_time(text: &str, format: &Pattern, zone: Zone) -> Result<String, Misfit> {
    let misfit = || Misfit::Time(format.clone());
    let civil = civil::DateTime::strptime(&format.0, text).map_err(|_| misfit())?;
    // The library is generous with blanks and missing zeros; a department that writes otherwise than agreed is not understood.
    if civil.strftime(&format.0).to_string() != text {
        return Err(misfit());
    }
    zone.moment(civil).and_then(rfc3339).ok_or_else(misfit)
}

pub(super) fn write_time(text: &str, format: &Pattern, zone: Zone) -> Result<String, Misfit> {
    let at = parse_rfc3339(text).and_then(|at| zone.local(at)).ok_or(Misfit::Sort("an RFC 3339 time"))?;
    Ok(at.strftime(&format.0).to_string())
}

pub(super) fn read_date(text: &str, format: &Pattern) -> Result<String, Misfit> {
    let date = civil::Date::strptime(&format.0, text).map_err(|_| Misfit::Time(format.clone()))?;
    let is_exact = date.strftime(&format.0).to_string() == text;
    if is_exact { Ok(date.to_string()) } else { Err(Misfit::Time(format.clone())) }
}

pub(super) fn write_date(text: &str, format: &Pattern) -> Result<String, Misfit> {
    let date: civil::Date = text.parse().map_err(|_| Misfit::Sort("a date yyyy-mm-dd"))?;
    Ok(date.strftime(&format.0).to_string())
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A letter that the library does not know shows when something is written with it.
        let sample = civil::date(2026, 11, 12).at(8, 31, 0, 0);
        let written = jiff::fmt::strtime::format(&text, sample);
        match written {
            Ok(written) if written != text => Ok(Self(text)),
            _ => Err(D::Error::custom("expected a time format in strftime's letters, such as \"%Y-%m-%d %H:%M:%S\"")),
        }
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "TimeFormat".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A time format in strftime's letters.", "pattern": "%" })
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("expected an offset from UTC such as \"+08:00\""))
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "Offset from UTC.", "pattern": "^[+-][0-9]{2}:[0-9]{2}$" })
    }
}
