//! Beijing time, as the departments and the channel write it. The zone has been UTC+8 without summer time since 1991.

use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use runtime::Timestamp;

const MICROS_PER_SECOND: i64 = 1_000_000;
const OFFSET_SECONDS: i64 = 8 * 3_600;

/// Returns the wall clock in Beijing at `at`, to the second.
pub(crate) fn civil(at: Timestamp) -> DateTime {
    let seconds = at.micros().div_euclid(MICROS_PER_SECOND);
    jiff::Timestamp::from_second(seconds).map_or(DateTime::MIN, |moment| beijing().to_datetime(moment))
}

/// Returns the day in Beijing at `at`.
pub(crate) fn day(at: Timestamp) -> Date {
    civil(at).date()
}

/// Returns the moment at which Beijing's clock shows `civil`.
pub(crate) fn moment(civil: DateTime) -> Timestamp {
    let seconds = Offset::UTC.to_timestamp(civil).map_or(0, |at| at.as_second() - OFFSET_SECONDS);
    Timestamp::from_micros(seconds * MICROS_PER_SECOND)
}

/// `yyyy-MM-dd HH:mm:ss`.
pub(crate) fn spaced(at: Timestamp) -> String {
    civil(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `yyyyMMddHHmmss`.
pub(crate) fn packed(at: Timestamp) -> String {
    civil(at).strftime("%Y%m%d%H%M%S").to_string()
}

/// `2018-06-08T10:34:56+08:00`.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    civil(at).strftime("%Y-%m-%dT%H:%M:%S+08:00").to_string()
}

/// Reads `yyyy-MM-dd HH:mm:ss`, digits and separators exactly in place.
pub(crate) fn parse_spaced(text: &str) -> Option<Timestamp> {
    let at = DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok().map(moment)?;
    (spaced(at) == text).then_some(at)
}

/// Reads `yyyyMMddHHmmss`.
pub(crate) fn parse_packed(text: &str) -> Option<Timestamp> {
    let at = DateTime::strptime("%Y%m%d%H%M%S", text).ok().map(moment)?;
    (packed(at) == text).then_some(at)
}

/// Reads an RFC 3339 time of any offset.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_micros(at.as_microsecond()))
}

fn beijing() -> Offset {
    Offset::constant(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_round_trips_and_knows_its_zone() {
        let at = parse_spaced("2018-06-08 10:34:56").expect("a time");
        assert_eq!(at.micros(), 1_528_425_296_000_000);
        assert_eq!(rfc3339(at), "2018-06-08T10:34:56+08:00");
        assert_eq!(parse_rfc3339("2018-06-08T02:34:56Z"), Some(at));
        assert_eq!(parse_packed(&packed(at)), Some(at));
        assert_eq!(day(at).to_string(), "2018-06-08");
    }

    #[test]
    fn forms_that_are_nearly_right_are_refused() {
        for text in [
            "2018-6-8 10:34:56",
            "2018-06-08T10:34:56",
            "2018-02-30 10:34:56",
            "2018-06-08 24:00:00",
            " 2018-06-08 10:34:56",
            "",
        ] {
            assert_eq!(parse_spaced(text), None, "{text}");
        }
        for text in ["20180608", "2018060810345", "20180608103456 ", "20181308103456"] {
            assert_eq!(parse_packed(text), None, "{text}");
        }
    }
}
