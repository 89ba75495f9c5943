//! Beijing's time, by which the channels' days go: UTC+8 without summer time since 1991.

use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use runtime::Timestamp;

const OFFSET: Offset = Offset::constant(8);

/// What Beijing's clock shows, to the second.
pub(crate) fn civil(at: Timestamp) -> DateTime {
    let (seconds, _) = at.seconds_nanos();
    jiff::Timestamp::from_second(seconds).map_or(DateTime::MIN, |at| OFFSET.to_datetime(at))
}

/// When a day begins in Beijing.
pub(crate) fn begin(day: Date) -> Timestamp {
    let at = OFFSET.to_timestamp(day.at(0, 0, 0, 0));
    Timestamp::from_micros(at.map_or(0, |at| at.as_microsecond()))
}

/// What Beijing's clock shows, to the microsecond, written so that it sorts.
pub(crate) fn stamp(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_microsecond(at.micros()).map_or(DateTime::MIN, |at| OFFSET.to_datetime(at));
    written(at)
}

/// Whether a text is a time as [`stamp`] writes it.
pub(crate) fn is_stamp(text: &str) -> bool {
    text.parse().is_ok_and(|at| written(at) == text)
}

fn written(at: DateTime) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}
