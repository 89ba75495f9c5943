//! A profile as it is written: one YAML file that says everything about one back end.
//!
//! Reading it checks its form; `plan` checks that it means something and compiles it. Both name file, line, field, and what would be
//! right. Its JSON Schema is generated from these types.

use std::borrow::Cow;
use std::fmt;

use runtime::config::Duration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::charset::Charset;
use crate::connector::{fixed_tcp, soap};
use crate::kind::{Kind, Zone};
use crate::named::Named;

mod golden;
mod item;
mod locate;
mod node;
mod verdict;

pub use golden::{Golden, GoldenApplicant, GoldenExchange, LegacyBytes};
pub use item::{
    Applicant, Attribute, Depth, Idempotency, Inquire, Item, ListBills, Lock, Operations, Otherwise, OutcomeRule,
    ProofMap, Query, Read, Refusal, Release, Row, Rows, SchemaName, Schemas, Settle, Step, SubjectRule, Then,
};
pub use locate::{Location, locate};
pub use node::Node;
pub use verdict::Verdict;

/// One back end of one department.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name: department and region, for example `traffic/430100`. It is the bulkhead, the mesh key and the audience of tokens.
    pub profile: ProfileName,
    /// Version, counted from 1; it goes into every proof. Raise it with every change of meaning.
    pub version: u32,
    /// Name of the department, in Chinese.
    pub department: String,
    /// Regions served: GB/T 2260 codes of six digits.
    pub regions: Vec<Region>,
    /// The department's local time.
    pub zone: Zone,
    /// How the department is spoken to; exactly one.
    pub connector: Connector,
    /// Values that the installation may replace, such as the caller's number at the department. Never an address.
    #[serde(default)]
    pub settings: Named<String>,
    /// What the back end bears.
    pub limits: Limits,
    /// The kinds of values it writes, by name.
    pub types: Named<Kind>,
    /// What each of its return codes means. A code that is not here is an unreadable reply.
    pub codes: Named<Verdict>,
    /// Its calls.
    pub exchanges: Named<Exchange>,
    /// What it offers to citizens, made of its calls.
    pub items: Named<Item>,
    /// Exchanges that were seen, and what they must become.
    pub golden: Vec<Golden>,
}

/// How the department is spoken to. The address is the installation's and stands in its configuration alone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// SOAP 1.1 over HTTP.
    pub soap: Option<soap::Settings>,
    /// Columns of fixed length over TCP.
    pub fixed_tcp: Option<fixed_tcp::Settings>,
}

/// What the back end bears. Every limit has a unit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Calls at once, at most 1,024.
    pub concurrency: u32,
    /// Of those, kept free for settling, inquiring and releasing.
    pub reserved: u32,
    /// How long a call may wait for its turn before it is refused as busy.
    pub wait: Duration,
    /// Calls a second, on average.
    pub rate: u32,
    /// Calls at once out of rest, before the rate holds.
    pub burst: u32,
    /// How long one call may take.
    pub timeout: Duration,
    /// Longest reply, in bytes; at most 4 MiB.
    pub reply_bytes_max: u32,
    /// Daily opening hours in local time, `HH:MM-HH:MM`; over midnight where the end is before the start. Absent: always open.
    pub hours: Option<Hours>,
}

/// One call of the department.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Whether it changes anything at the department. What changes something is never sent twice by the adapter.
    pub changes: Changes,
    /// The call over SOAP.
    pub soap: Option<soap::ExchangeSpec>,
    /// The call in fixed columns.
    pub fixed_tcp: Option<fixed_tcp::ExchangeSpec>,
    /// Reply fields that must equal what was asked: field, expression over the request's values. Otherwise the reply is another's.
    #[serde(default)]
    pub expect: Named<String>,
}

/// Whether a call changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Changes {
    /// It only reads.
    Nothing,
    /// The world is another after it.
    Something,
}

/// A profile's name: `<department>/<region>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProfileName(String);

/// A GB/T 2260 code of six digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region(String);

/// Daily opening hours: minutes of the day, start inclusive, end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// First minute, 0 to 1,439.
    pub start: u16,
    /// The minute after the last, 1 to 1,440.
    pub end: u16,
}

impl ProfileName {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let (department, region) = text.split_once('/')?;
        let is_word = |text: &str| {
            (1..=32).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        (is_word(department) && is_word(region)).then(|| Self(text.to_owned()))
    }
}

impl Region {
    /// Returns the code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        (text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit())).then(|| Self(text.to_owned()))
    }
}

impl Hours {
    fn parse(text: &str) -> Option<Self> {
        let minute = |text: &str| -> Option<u16> {
            let (hours, minutes) = text.split_once(':')?;
            let is_clock = hours.len() == 2 && minutes.len() == 2;
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            let minute = hours.checked_mul(60)?.checked_add(minutes)?;
            (is_clock && minutes < 60 && minute <= 1_440).then_some(minute)
        };
        let (start, end) = text.split_once('-')?;
        let (start, end) = (minute(start)?, minute(end)?);
        (start < 1_440 && end > 0 && start != end).then_some(Self { start, end })
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", start / 60, start % 60, end / 60, end % 60)
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value that is written as text of a form.
macro_rules! written_as_text {
    ($name:ident, $expected:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| de::Error::custom(concat!("expected ", $expected)))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $expected, "pattern": $pattern })
            }
        }
    };
}

written_as_text!(
    ProfileName,
    "a name such as \"traffic/430100\": department, slash, region",
    "^[a-z0-9-]{1,32}/[a-z0-9-]{1,32}$"
);
written_as_text!(Region, "a GB/T 2260 code of six digits, in quotes, such as \"430100\"", "^[0-9]{6}$");
written_as_text!(Hours, "daily hours such as \"08:30-17:30\"", "^[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$");

impl Profile {
    /// Returns the charset of the connector; UTF-8 where none is chosen.
    #[must_use]
    pub fn charset(&self) -> Charset {
        let soap = self.connector.soap.as_ref().map(|settings| settings.charset);
        let fixed = self.connector.fixed_tcp.as_ref().map(|settings| settings.charset);
        soap.or(fixed).unwrap_or(Charset::Utf8)
    }
}

/// Reads either a text or a map with names of its own.
pub(crate) fn text_or_map<'de, D, T>(
    deserializer: D,
    expecting: &'static str,
    text: impl FnOnce(&str) -> T,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromMap<'de>,
{
    struct Either<F> {
        expecting: &'static str,
        text: F,
    }

    impl<'de, T: FromMap<'de>, F: FnOnce(&str) -> T> Visitor<'de> for Either<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expecting)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            Ok((self.text)(text))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::from_map(map)
        }
    }

    deserializer.deserialize_any(Either { expecting, text })
}

/// The map form of a value that may also be a text.
pub(crate) trait FromMap<'de>: Sized {
    fn from_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error>;
}
