//! Payment codes (缴款码) of fines. No public source tells a layout; this one is ours: region (6 digits), year of the decision (2), a
//! sequence (11) and a check digit (1, Luhn's).

use jiff::civil::Date;

/// The payment code of a record that was decided on a day.
///
/// Shape: `record` has at least ten characters, all digits; its last ten are the sequence.
pub(crate) fn payment_code(region: &str, decided: Date, record: &str) -> String {
    let sequence = record.get(record.len().saturating_sub(10)..).unwrap_or_default();
    let body = format!("{region}{:02}{sequence:0>11}", decided.year().rem_euclid(100));
    let check = check_digit(&body);
    format!("{body}{check}")
}

/// From the right, every other digit counts twice, its own digits summed; what is missing to the next ten is the check digit.
fn check_digit(body: &str) -> u32 {
    let digits = body.chars().rev().map(|digit| digit.to_digit(10).unwrap_or(0));
    let sum: u32 =
        digits.zip([2, 1].into_iter().cycle()).map(|(digit, weight)| digit * weight).map(|n| n / 10 + n % 10).sum();
    (10 - sum % 10) % 10
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_code_is_region_year_sequence_and_check_digit() {
        let code = payment_code("430100", date(2026, 11, 13), "4301001000000101");
        assert_eq!(code, format!("43010026{}{}", "01000000101", 3));
        assert_eq!(code.len(), 20);
    }

    #[test]
    fn the_check_digit_is_luhns_and_finds_one_wrong_digit() {
        // The example that the algorithm is told with everywhere.
        assert_eq!(check_digit("7992739871"), 3);
        let body = "4301002601000000101";
        let right = check_digit(body);
        for (at, digit) in body.char_indices() {
            for other in ('0'..='9').filter(|other| *other != digit) {
                let mut wrong = body.to_owned();
                wrong.replace_range(at..=at, &other.to_string());
                assert_ne!(check_digit(&wrong), right, "{wrong}");
            }
        }
    }
}
