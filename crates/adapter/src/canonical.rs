//! The one form in which a record is digested: JSON with sorted keys, no white space, whole numbers alone.

use std::fmt::Write;

use serde_json::Value;

/// Writes canonical JSON.
///
/// Shape: object keys sorted by their UTF-8 bytes; strings as `serde_json` escapes them. Fractions do not occur: mappings let none out.
#[must_use]
pub fn json(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// SHA-256 of a bill as the citizen reads it: `{"amount_minor":"…","currency":"…","record":{…},"state":"…"}`.
#[must_use]
pub fn bill_digest(record: &Value, amount_minor: i64, currency: &str, state: &str) -> [u8; 32] {
    let whole = serde_json::json!({
        "amount_minor": amount_minor.to_string(), "currency": currency, "record": record, "state": state,
    });
    rpc::digest::sha256(json(&whole).as_bytes())
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by(|one, other| one.0.as_bytes().cmp(other.0.as_bytes()));
            out.push('{');
            for (position, (name, value)) in sorted.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                scalar(&Value::String(name.clone()), out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (position, value) in list.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => scalar(value, out),
    }
}

fn scalar(value: &Value, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_form_does_not_depend_on_how_it_was_built() {
        let value = json!({"b": [1, {"z": null, "a": "湘\"\n"}], "a": true, "A": -5});
        assert_eq!(super::json(&value), r#"{"A":-5,"a":true,"b":[1,{"a":"湘\"\n","z":null}]}"#);
    }

    #[test]
    fn a_bill_that_differs_in_anything_has_another_digest() {
        let record = json!({"record_no": "1", "points": 6});
        let digest = bill_digest(&record, 20_000, "CNY", "PAYABLE");
        assert_eq!(digest, bill_digest(&json!({"points": 6, "record_no": "1"}), 20_000, "CNY", "PAYABLE"));
        for other in [
            bill_digest(&json!({"record_no": "1", "points": 3}), 20_000, "CNY", "PAYABLE"),
            bill_digest(&record, 20_001, "CNY", "PAYABLE"),
            bill_digest(&record, 20_000, "CNY", "DISPUTED"),
            bill_digest(&record, 20_000, "USD", "PAYABLE"),
        ] {
            assert_ne!(digest, other);
        }
    }

    #[test]
    fn a_known_answer() {
        let text = super::json(&json!({"amount_minor": "1", "currency": "CNY", "record": {}, "state": "PAYABLE"}));
        assert_eq!(text, r#"{"amount_minor":"1","currency":"CNY","record":{},"state":"PAYABLE"}"#);
        assert_eq!(bill_digest(&json!({}), 1, "CNY", "PAYABLE"), rpc::digest::sha256(text.as_bytes()));
    }
}
