//! Finds the line of a field in a YAML file.
//!
//! The YAML library tells positions only with errors, so the file is read once more along the path, and the reader raises an error
//! when it stands on the field. Only messages pay for it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A place in a file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// Finds where the field at `path` (names and positions) stands, or the deepest of its parents that is there.
#[must_use]
pub fn locate(yaml: &str, path: &[String]) -> Option<Location> {
    (0..=path.len()).rev().find_map(|depth| exactly(yaml, path.get(..depth)?))
}

fn exactly(yaml: &str, path: &[String]) -> Option<Location> {
    let reader = serde_yaml_ng::Deserializer::from_str(yaml);
    let error = Probe(path).deserialize(reader).err()?;
    let found = error.to_string().contains(FOUND);
    let location = error.location().filter(|_| found)?;
    Some(Location { line: location.line(), column: location.column() })
}

const FOUND: &str = "\u{1}found\u{1}";

struct Probe<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.scalar()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.0.split_first() else { return Err(A::Error::custom(FOUND)) };
        let wanted: Option<usize> = wanted.parse().ok();
        for position in 0.. {
            let more = if Some(position) == wanted {
                seq.next_element_seed(Probe(rest))?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.0.split_first() else { return Err(A::Error::custom(FOUND)) };
        while let Some(key) = map.next_key::<String>()? {
            if key == *wanted {
                map.next_value_seed(Probe(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl Probe<'_> {
    fn scalar<E: serde::de::Error>(self) -> Result<(), E> {
        if self.0.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(yaml: &str, path: &[&str]) -> Option<usize> {
        let path: Vec<_> = path.iter().map(|part| (*part).to_owned()).collect();
        locate(yaml, &path).map(|location| location.line)
    }

    #[test]
    fn finds_scalars_lists_and_the_nearest_parent() {
        let yaml = "a: 1\nb:\n  - x: one\n  - x: |\n      two\n      lines\n    y: true\nc: {d: e}\n";
        assert_eq!(line(yaml, &["a"]), Some(1));
        assert_eq!(line(yaml, &["b", "0", "x"]), Some(3));
        assert_eq!(line(yaml, &["b", "1", "y"]), Some(7));
        assert_eq!(line(yaml, &["c", "d"]), Some(8));
        assert_eq!(line(yaml, &["b", "1", "missing"]), line(yaml, &["b", "1"]));
    }
}
