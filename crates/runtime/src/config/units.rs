//! Values that carry their unit in the text: never a bare number for time or bytes.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time, written `1500ms`, `5s`, `15m`, `4h` or `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

/// An amount of memory or data, written `512B`, `16KiB`, `1MiB` or `2GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// A value with a unit could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number with a unit, such as {example}")]
pub struct BadUnit {
    example: &'static str,
}

/// Largest first, as they are printed.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const BAD_TIME: BadUnit = BadUnit { example: "\"1500ms\", \"5s\", \"15m\", \"4h\" or \"7d\"" };
const BAD_BYTES: BadUnit = BadUnit { example: "\"512B\", \"16KiB\", \"1MiB\" or \"2GiB\"" };

impl Duration {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(time::Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(time::Duration::from_secs(secs))
    }

    /// Returns the span.
    pub const fn get(self) -> time::Duration {
        self.0
    }
}

impl From<time::Duration> for Duration {
    fn from(span: time::Duration) -> Self {
        Self(span)
    }
}

impl From<Duration> for time::Duration {
    fn from(span: Duration) -> Self {
        span.0
    }
}

impl ByteSize {
    /// That many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many KiB.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// That many MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// Returns the number of bytes; what the machine cannot address reads as its largest number.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn print(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exact = units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)).or(units.last());
    let Some((unit, factor)) = exact else { return Err(fmt::Error) };
    write!(f, "{}{unit}", value / factor)
}

impl FromStr for Duration {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        parse(text, &TIME_UNITS).map(Self::from_millis).ok_or(BAD_TIME)
    }
}

impl FromStr for ByteSize {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        parse(text, &BYTE_UNITS).map(Self).ok_or(BAD_BYTES)
    }
}

/// Prints the largest unit that is exact; what is finer than a millisecond is cut off.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS, f)
    }
}

/// Prints the largest unit that is exact.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self.0, &BYTE_UNITS, f)
    }
}

macro_rules! as_text {
    ($name:ident, $schema:literal, $pattern:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $schema.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

as_text!(Duration, "Duration", "^[0-9]+(ms|s|m|h|d)$");
as_text!(ByteSize, "ByteSize", "^[0-9]+(B|KiB|MiB|GiB)$");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_read_and_printed() {
        for (text, millis) in
            [("0ms", 0), ("1500ms", 1_500), ("5s", 5_000), ("15m", 900_000), ("4h", 14_400_000), ("7d", 604_800_000)]
        {
            let span: Duration = text.parse().expect(text);
            assert_eq!(span.get(), time::Duration::from_millis(millis));
            assert_eq!(span.to_string(), text);
        }
        for (text, bytes) in [("0B", 0), ("512B", 512), ("16KiB", 16_384), ("1MiB", 1_048_576), ("2GiB", 2_147_483_648)]
        {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!(size.bytes(), bytes);
            assert_eq!(size.to_string(), text);
        }
    }

    #[test]
    fn a_bare_number_a_fraction_or_another_unit_is_refused() {
        for bad in ["", "5", "s", "1.5s", "-1s", "5 s", "5S", "5min", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(bad.parse::<Duration>(), Err(BAD_TIME), "{bad:?}");
        }
        for bad in ["", "5", "1MB", "1M", "1 KiB", "17179869184GiB"] {
            assert_eq!(bad.parse::<ByteSize>(), Err(BAD_BYTES), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(millis: u64, bytes: u64) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(span.to_string().parse::<Duration>(), Ok(span));
            let size = ByteSize::from_bytes(bytes);
            prop_assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
        }
    }
}
