//! The department's own words, made fit to be passed on.

/// Longest text that is passed on, in characters.
const CHARS_MAX: usize = 500;
/// A run of digits this long is an identifier.
const DIGITS_MIN: usize = 11;
const HIDDEN: &str = "***";

/// Takes identifiers out of a department's text: what is known of the citizen and the request, and every long run of digits.
#[must_use]
pub fn without_identifiers<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let mut text = text.to_owned();
    for identifier in known {
        if identifier.chars().count() > 1 {
            text = text.replace(identifier, HIDDEN);
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_digit() || (!run.is_empty() && matches!(c, 'X' | 'x')) {
            run.push(c);
            continue;
        }
        out.push_str(if run.len() >= DIGITS_MIN { HIDDEN } else { &run });
        run.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_hidden_and_the_words_stay() {
        let hidden = |text| without_identifiers(text, ["张三", "湘A8K2J6", "", "李"]);
        assert_eq!(hidden("张三的湘A8K2J6已缴款"), "***的***已缴款");
        assert_eq!(hidden("证号43010219050317003X无效"), "证号***无效");
        assert_eq!(hidden("决定书430100100000101，罚200元，2026年"), "决定书***，罚200元，2026年");
        assert_eq!(hidden("李先生"), "李先生", "one character hides nothing and tears words");
        assert_eq!(without_identifiers(&"长".repeat(600), []).chars().count(), 500);
    }
}
