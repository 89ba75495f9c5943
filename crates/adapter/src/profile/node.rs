//! The tree of an output: what each field becomes.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, MapAccess};
use serde::{Deserialize, Deserializer};

use super::{FromMap, text_or_map};

/// A field of an output: an expression, an object of fields, or a list made of another.
///
/// Shape: a field whose expression is none is left out, and so is an object without fields. A list is written
/// `{$each: expression, $as: name, $map: node}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// An expression.
    Leaf(String),
    /// Fields by name.
    Object(Vec<(String, Node)>),
    /// A list.
    Each {
        /// Expression of the list to walk.
        each: String,
        /// Name of its element in `map`.
        name: String,
        /// What each element becomes.
        map: Box<Node>,
    },
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_map(deserializer, "an expression, or a map of fields", |text| Self::Leaf(text.to_owned()))
    }
}

impl<'de> FromMap<'de> for Node {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let (mut fields, mut each, mut name, mut element) = (Vec::new(), None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "$each" => each = Some(map.next_value()?),
                "$as" => name = Some(map.next_value()?),
                "$map" => element = Some(Box::new(map.next_value()?)),
                reserved if reserved.starts_with('$') => {
                    return Err(A::Error::unknown_field(reserved, &["$each", "$as", "$map"]));
                }
                _ if fields.iter().any(|(known, _)| *known == key) => {
                    return Err(A::Error::custom(format!("`{key}` stands here twice")));
                }
                _ => fields.push((key, map.next_value()?)),
            }
        }
        match (each, name, element) {
            (None, None, None) => Ok(Self::Object(fields)),
            (Some(each), Some(name), Some(map)) if fields.is_empty() => Ok(Self::Each { each, name, map }),
            _ => Err(A::Error::custom("a list is written {$each: expression, $as: name, $map: node} and nothing else")),
        }
    }
}

impl JsonSchema for Node {
    fn schema_name() -> Cow<'static, str> {
        "Node".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An expression, an object of fields, or a list {$each, $as, $map}.",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "$each": { "type": "string" },
                        "$as": { "type": "string" },
                        "$map": { "$ref": "#/$defs/Node" },
                    },
                    "required": ["$each", "$as", "$map"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "propertyNames": { "pattern": "^[^$]" },
                    "additionalProperties": { "$ref": "#/$defs/Node" },
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms_and_nothing_else() {
        let node: Node =
            serde_yaml_ng::from_str("{a: r.x, b: {$each: r.list, $as: e, $map: {c: e.y}}}").expect("a node");
        let Node::Object(fields) = node else { panic!("an object") };
        assert!(matches!(&fields[1].1, Node::Each { name, .. } if name == "e"));
        for (bad, says) in [
            ("{a: b, $each: x}", "$each"),
            ("{$each: x, $as: e}", "$map"),
            ("{$for: x}", "$for"),
            ("{a: x,\n a: y}", "twice"),
            ("[a]", "expression"),
            ("12", "expression"),
        ] {
            let error = serde_yaml_ng::from_str::<Node>(bad).expect_err(bad);
            assert!(error.to_string().contains(says), "{bad}: {error}");
        }
    }
}
