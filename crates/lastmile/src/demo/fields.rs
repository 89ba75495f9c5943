//! The item's own fields: the Struct of a request or answer.

use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// A Struct of texts.
pub(crate) fn text<const N: usize>(fields: [(&str, &str); N]) -> Struct {
    let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    Struct { fields: fields.into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect() }
}

/// The text at a path.
pub(crate) fn string(from: &Struct, path: &[&str]) -> Option<String> {
    match find(from, path)? {
        Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// The whole number at a path; schemas write small counts as numbers.
pub(crate) fn number(from: &Struct, path: &[&str]) -> Option<i64> {
    match find(from, path)? {
        // Counts and points are far below what a double holds exactly.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Kind::NumberValue(number) if number.fract() == 0.0 && number.abs() < 1e9 => Some(*number as i64),
        _ => None,
    }
}

/// The objects of a list.
pub(crate) fn list(from: &Struct, name: &str) -> Vec<Struct> {
    let Some(Kind::ListValue(list)) = find(from, &[name]) else { return Vec::new() };
    let objects = list.values.iter().filter_map(|value| match &value.kind {
        Some(Kind::StructValue(object)) => Some(object.clone()),
        _ => None,
    });
    objects.collect()
}

fn find<'a>(from: &'a Struct, path: &[&str]) -> Option<&'a Kind> {
    let (name, rest) = path.split_first()?;
    let kind = from.fields.get(*name)?.kind.as_ref()?;
    match kind {
        Kind::StructValue(inner) if !rest.is_empty() => find(inner, rest),
        kind => rest.is_empty().then_some(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_path() {
        let number_of = |number| Value { kind: Some(Kind::NumberValue(number)) };
        let driver = Struct { fields: [("points".to_owned(), number_of(6.0))].into() };
        let mut result = text([("a", "b")]);
        result.fields.insert("driver".to_owned(), Value { kind: Some(Kind::StructValue(driver)) });
        result.fields.insert("half".to_owned(), number_of(0.5));
        assert_eq!(string(&result, &["a"]).as_deref(), Some("b"));
        assert_eq!(number(&result, &["driver", "points"]), Some(6));
        assert_eq!(number(&result, &["half"]), None);
        assert_eq!(number(&result, &["driver", "none"]), None);
        assert_eq!(string(&result, &["driver"]), None);
    }
}
