//! The region codes of GB/T 2260, those of today and those that were.
//!
//! A resident's number keeps the code of the place of first registration, also when the place has another code by now or none. So a
//! code counts when some region has had it at some time up to this year.

use std::sync::OnceLock;

/// Code, name, first and last year. Source and licence: data/LICENCES.md.
const TIMELINE: &str = include_str!("../../../../../data/id_address_timeline.csv");

/// (code, first year), the earliest first year for each code; 0 where the source has none, which is before 1981.
fn codes() -> &'static [(u32, i16)] {
    static CODES: OnceLock<Vec<(u32, i16)>> = OnceLock::new();
    CODES.get_or_init(|| {
        let mut codes: Vec<_> = TIMELINE.lines().skip(1).filter_map(read).collect();
        codes.sort_unstable();
        codes.dedup_by_key(|(code, _)| *code);
        codes
    })
}

fn read(line: &str) -> Option<(u32, i16)> {
    let mut fields = line.split(',');
    let code = fields.next()?.parse().ok()?;
    let first = fields.nth(1)?;
    Some((code, if first.is_empty() { 0 } else { first.parse().ok()? }))
}

/// Tells whether some region had this code in `year` or before.
pub(super) fn existed(code: u32, year: i16) -> bool {
    let codes = codes();
    let found = codes.binary_search_by_key(&code, |(code, _)| *code).ok().and_then(|index| codes.get(index));
    found.is_some_and(|(_, first)| *first <= year)
}

/// Tells whether two digits are those of a province, an autonomous region or a municipality; Taiwan is 71 here.
pub(super) fn is_province(two_digits: u32) -> bool {
    two_digits == 71 || existed(two_digits * 10_000, i16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_source_is_read() {
        let lines = TIMELINE.lines().skip(1).filter(|line| !line.is_empty());
        for line in lines {
            assert!(read(line).is_some(), "{line}");
        }
        assert_eq!(codes().len(), 6_734);
    }

    #[test]
    fn a_code_counts_from_its_first_year_on_and_for_ever() {
        // 430124 宁乡县 was a county until 2016 and has another code since.
        assert!(existed(430_124, 1983) && existed(430_124, 2026));
        let (new, first) = *codes().iter().max_by_key(|(_, first)| *first).expect("the list is not empty");
        assert!(existed(new, first) && !existed(new, first - 1));
        assert!(!existed(999_999, 2026) && !existed(0, 2026));
    }

    #[test]
    fn provinces_are_told_from_their_neighbours() {
        assert!([11, 32, 43, 65, 71, 81, 82].into_iter().all(is_province));
        assert!(![0, 10, 16, 38, 47, 66, 70, 84, 99].into_iter().any(is_province));
    }
}
