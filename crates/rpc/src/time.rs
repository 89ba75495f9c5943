//! Protobuf time and ours.

use runtime::Timestamp;

/// The greatest second that a protobuf `Timestamp` may carry: 9999-12-31T23:59:59Z.
const SECONDS_MAX: i64 = 253_402_300_799;
/// The least: 0001-01-01T00:00:00Z.
const SECONDS_MIN: i64 = -62_135_596_800;
const NANOS_MAX: i32 = 999_999_999;

/// Why a protobuf `Timestamp` is not a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// The field was not set.
    #[error("a time is required")]
    Missing,
    /// Seconds or nanoseconds lie outside of what protobuf allows.
    #[error("not a time between the years 1 and 9999")]
    Range,
}

/// Reads a protobuf `Timestamp`. What is finer than a microsecond is cut off.
///
/// Errors: Range.
pub fn from_proto(time: &prost_types::Timestamp) -> Result<Timestamp, TimeError> {
    if !(SECONDS_MIN..=SECONDS_MAX).contains(&time.seconds) || !(0..=NANOS_MAX).contains(&time.nanos) {
        return Err(TimeError::Range);
    }
    Ok(Timestamp::from_seconds_nanos(time.seconds, time.nanos))
}

/// Reads a field that must be set.
///
/// Errors: Missing, Range.
pub fn required(time: Option<&prost_types::Timestamp>) -> Result<Timestamp, TimeError> {
    from_proto(time.ok_or(TimeError::Missing)?)
}

/// Writes a protobuf `Timestamp`.
pub fn to_proto(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.seconds_nanos();
    prost_types::Timestamp { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_to_the_microsecond() {
        for micros in [0, 1, -1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            let at = Timestamp::from_micros(micros);
            assert_eq!(from_proto(&to_proto(at)), Ok(at));
        }
    }

    #[test]
    fn refuses_what_protobuf_refuses() {
        for (seconds, nanos) in [(SECONDS_MAX + 1, 0), (SECONDS_MIN - 1, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(from_proto(&prost_types::Timestamp { seconds, nanos }), Err(TimeError::Range));
        }
        assert_eq!(required(None), Err(TimeError::Missing));
    }
}
