//! Money as Alipay writes it: yuan with at most two decimals, in text. Inside it is fen; it never is a floating-point number.

use serde_json::Value;

/// The most that an order may be, 100 million yuan.
const FEN_MAX: i64 = 10_000_000_000;

/// Writes fen as yuan.
pub(super) fn text(fen: i64) -> String {
    let sign = if fen < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", fen.unsigned_abs() / 100, fen.unsigned_abs() % 100)
}

/// Reads an amount from one cent on. Some clients write a JSON number; what counts is how it is written.
pub(super) fn read(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => parse(text),
        Value::Number(number) => parse(&number.to_string()),
        _ => None,
    }
}

fn parse(text: &str) -> Option<i64> {
    let (whole, cents) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(cents) || whole.len() > 9 || cents.len() > 2 {
        return None;
    }
    let cents: i64 = format!("{cents:0<2}").parse().ok()?;
    let fen = whole.parse::<i64>().ok()? * 100 + cents;
    (1..=FEN_MAX).contains(&fen).then_some(fen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn every_way_to_write_an_amount_reads_and_nothing_else() {
        for (value, fen) in [
            (json!("200"), 20_000),
            (json!("200.5"), 20_050),
            (json!("0.01"), 1),
            (json!("100000000.00"), FEN_MAX),
            (json!(200), 20_000),
            (json!(0.07), 7),
        ] {
            assert_eq!(read(&value), Some(fen), "{value}");
        }
        for value in
            ["", "0", "0.00", "-1", "+1", "1.", ".5", "1.001", "1e2", "1,00", " 1", "100000000.01", "9999999999"]
        {
            assert_eq!(read(&json!(value)), None, "{value}");
        }
        assert_eq!(read(&json!(null)), None);
        assert_eq!((text(-5).as_str(), text(-20_000).as_str(), text(0).as_str()), ("-0.05", "-200.00", "0.00"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_itself(fen in 1..=FEN_MAX) {
            prop_assert_eq!(parse(&text(fen)), Some(fen));
        }
    }
}
