//! The forms that texts of the contract are held to, each said once: what one service takes from its caller, the next takes from it.

/// Longest name or number.
const NAME_LENGTH_MAX: usize = 64;
/// Longest profile.
const PROFILE_LENGTH_MAX: usize = 70;
/// Longest serial number of a proof: the department's, or the evidence that a clerk gives in its place.
pub const SERIAL_CHARS_MAX: usize = 200;
/// Longest reference of a payer at a channel.
const PAYER_BYTES_MAX: usize = 128;

/// Tells whether a text may be an item code or an entry point: 1 to 64 characters of `[a-z0-9._-]`.
pub fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// Tells whether a text may be a region: 6 digits, or 9 for a town.
pub fn is_region(text: &str) -> bool {
    matches!(text.len(), 6 | 9) && text.bytes().all(|b| b.is_ascii_digit())
}

/// Tells whether a text may be a number that a department or channel has given: 1 to 64 characters of printable ASCII.
pub fn is_number(text: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Tells whether a text may be a line that people read: 1 to `chars_max` characters, none of them a control character.
pub fn is_line(text: &str, chars_max: usize) -> bool {
    !text.is_empty() && text.chars().take(chars_max.saturating_add(1)).count() <= chars_max && !has_control(text)
}

/// Tells whether a text is no longer than a profile, such as `traffic/430100`: 1 to 70 characters.
pub fn is_profile(text: &str) -> bool {
    is_line(text, PROFILE_LENGTH_MAX)
}

/// Tells whether a text may be a payer's reference at a channel: 1 to 128 bytes without control characters.
pub fn is_payer(text: &str) -> bool {
    (1..=PAYER_BYTES_MAX).contains(&text.len()) && !has_control(text)
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_length_and_its_alphabet() {
        type Form = fn(&str) -> bool;
        let line: Form = |text| is_line(text, 3);
        let (name, payer, profile) = ("x".repeat(64), "x".repeat(128), "x".repeat(70));
        let cases: [(Form, &[&str], &[&str]); 6] = [
            (is_name, &["traffic.violation", "wechat-account", "a_1", &name], &["", "A", "a b", "a/b", "交通"]),
            (is_region, &["430100", "430102001", "000000"], &["", "43010", "4301020", "430102001001", "43010X"]),
            (is_number, &["4200001234", "S-1/2~", &name], &["", "a b", "a\n", "号1"]),
            (line, &["a", "罚款单", "a b"], &["", "罚款单一", "a\n", "\u{7f}"]),
            (is_profile, &["traffic/430100", &profile], &["", "a\nb"]),
            (is_payer, &["oUpF8uMuAJO", &payer], &["", "a\tb"]),
        ];
        for (form, good, bad) in cases {
            assert!(good.iter().all(|text| form(text)), "{good:?}");
            assert!(!bad.iter().any(|text| form(text)), "{bad:?}");
        }
        for (form, most) in [(is_name as Form, &name), (is_number, &name), (is_profile, &profile), (is_payer, &payer)] {
            assert!(form(most) && !form(&format!("{most}x")), "{} characters", most.len());
        }
        assert!(is_line(&"字".repeat(SERIAL_CHARS_MAX), SERIAL_CHARS_MAX));
        assert!(!is_line(&"字".repeat(SERIAL_CHARS_MAX + 1), SERIAL_CHARS_MAX));
    }
}
