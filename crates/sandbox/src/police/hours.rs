//! Opening hours, as the configuration writes them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use runtime::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::beijing;

/// Open from a minute of the day to another, Beijing time; `22:00-06:00` is open over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    from: u32,
    to: u32,
}

/// Opening hours could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected opening hours such as \"06:00-23:30\"")]
pub struct BadHours;

impl Hours {
    /// Tells whether the office is open at a moment.
    pub fn open_at(self, at: Timestamp) -> bool {
        let clock = beijing::civil(at);
        let minute = u32::try_from(i32::from(clock.hour()) * 60 + i32::from(clock.minute())).unwrap_or(0);
        if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(text: &str) -> Result<Self, BadHours> {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let digits = |text: &str| (text.len() == 2).then(|| text.parse::<u32>().ok()).flatten();
            let (hour, minute) = (digits(hour)?, digits(minute)?);
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        };
        let (from, to) = text.split_once('-').ok_or(BadHours)?;
        Ok(Self { from: minute(from).ok_or(BadHours)?, to: minute(to).ok_or(BadHours)? })
    }
}

impl TryFrom<String> for Hours {
    type Error = BadHours;

    fn try_from(text: String) -> Result<Self, BadHours> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl JsonSchema for Hours {
    fn schema_name() -> Cow<'static, str> {
        "Hours".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_open_and_close_on_the_minute_also_over_midnight() {
        let at = |text: &str| beijing::parse_spaced(&format!("2026-11-22 {text}")).expect("a time");
        let day: Hours = "06:00-23:30".parse().expect("hours");
        assert!(day.open_at(at("06:00:00")) && day.open_at(at("23:29:59")));
        assert!(!day.open_at(at("05:59:59")) && !day.open_at(at("23:30:00")));
        let night: Hours = "22:00-06:00".parse().expect("hours");
        assert!(night.open_at(at("23:00:00")) && night.open_at(at("05:59:00")) && !night.open_at(at("12:00:00")));
        assert_eq!(day.to_string(), "06:00-23:30");
        for text in ["", "6:00-23:30", "06:00", "24:00-25:00", "06:00-23:60", "é6:00-23:30"] {
            assert_eq!(text.parse::<Hours>(), Err(BadHours), "{text}");
        }
    }
}
