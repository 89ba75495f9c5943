//! From the department's values to ours: a compiled tree of expressions that makes JSON.

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::ValueKind;
use serde_json::{Map, Number};

use crate::profile::Node;
use crate::record::Record;
use crate::template::{BadSource, Failed, Place, Scope, Templates, Vars, Why};

/// Whole numbers beyond this are not exact in every JSON reader: identifiers and money are strings.
const NUMBER_MAX: i64 = 9_007_199_254_740_991;
/// Deepest nesting of an output.
const DEPTH_MAX: usize = 16;
/// Most elements of one list.
const ELEMENTS_MAX: usize = 1_000;

/// The name that stands for records that were mapped before.
pub const RECORDS: &str = "records";

/// A compiled output.
#[derive(Clone, Debug)]
pub struct Mapping {
    scope: Scope,
    tree: Tree,
}

#[derive(Clone, Debug)]
enum Tree {
    /// The value at that place of the scope.
    Leaf(usize),
    /// The records mapped before.
    Records,
    Object(Vec<(String, Tree)>),
    Each {
        list: usize,
        name: String,
        map: Box<Mapping>,
    },
}

/// A source that does not compile, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadNode {
    /// One of the variables made first.
    Let {
        /// Which.
        position: usize,
        /// What is wrong.
        bad: BadSource,
    },
    /// A field of the output.
    Field {
        /// Path within the node: field names, and `$each`, `$map`.
        path: Vec<String>,
        /// What is wrong.
        bad: BadSource,
    },
}

/// An output that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmapped {
    /// Path of the field, with dots.
    pub field: String,
    /// Where the record it is made of stands in the reply, in bytes.
    pub at: Option<usize>,
    /// Why.
    pub why: Why,
}

impl Mapping {
    /// Compiles a tree under a name of its own; `lets` are variables made first, in order.
    pub fn compile(
        templates: &mut Templates,
        name: &str,
        lets: &[(String, String)],
        node: &Node,
    ) -> Result<Self, BadNode> {
        Self::compile_at(templates, name, lets, node, &mut Vec::new())
    }

    fn compile_at(
        templates: &mut Templates,
        name: &str,
        lets: &[(String, String)],
        node: &Node,
        above: &mut Vec<String>,
    ) -> Result<Self, BadNode> {
        if above.len() > DEPTH_MAX {
            let what = format!("an output is at most {DEPTH_MAX} levels deep");
            return Err(BadNode::Field { path: above.clone(), bad: BadSource { line: 1, what } });
        }
        let (mut leaves, mut paths) = (Vec::new(), Vec::new());
        let tree = plant(templates, name, node, &mut Vec::new(), above, &mut |path, source| {
            leaves.push((path.join("."), source.to_owned()));
            paths.push(path.to_vec());
            leaves.len() - 1
        })?;
        let scope = templates.add_scope(name, lets, &leaves).map_err(|(position, bad)| {
            let Some(position) = position.checked_sub(lets.len()) else { return BadNode::Let { position, bad } };
            let below = paths.get(position).cloned().unwrap_or_default();
            BadNode::Field { path: above.iter().cloned().chain(below).collect(), bad }
        })?;
        Ok(Self { scope, tree })
    }

    /// Makes the output. `records` is what `records` stands for.
    pub fn eval(
        &self,
        templates: &Templates,
        vars: &Vars,
        records: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, Unmapped> {
        let evaluated = templates.eval_all(&self.scope, vars).map_err(unmapped)?;
        let mut vars = vars.clone();
        for (name, value) in evaluated.lets {
            vars.set(name, value);
        }
        let made = self.tree.grow(templates, &vars, &evaluated.fields, records, "")?;
        Ok(made.unwrap_or_else(|| serde_json::Value::Object(Map::new())))
    }
}

/// Turns a node into a tree; `leaf` takes each expression into the scope and tells its place.
fn plant(
    templates: &mut Templates,
    name: &str,
    node: &Node,
    path: &mut Vec<String>,
    above: &mut Vec<String>,
    leaf: &mut dyn FnMut(&[String], &str) -> usize,
) -> Result<Tree, BadNode> {
    match node {
        Node::Leaf(source) if source == RECORDS => Ok(Tree::Records),
        Node::Leaf(source) => Ok(Tree::Leaf(leaf(path, source))),
        Node::Object(fields) => {
            let mut trees = Vec::with_capacity(fields.len());
            for (field, node) in fields {
                path.push(field.clone());
                trees.push((field.clone(), plant(templates, name, node, path, above, leaf)?));
                path.pop();
            }
            Ok(Tree::Object(trees))
        }
        Node::Each { each, name: element, map } => {
            path.push("$each".to_owned());
            let list = leaf(path, each);
            path.pop();
            let mut below: Vec<String> = above.iter().chain(path.iter()).cloned().collect();
            below.push("$map".to_owned());
            let inner = format!("{name}/{}", path.join("."));
            let map = Box::new(Mapping::compile_at(templates, &inner, &[], map, &mut below)?);
            Ok(Tree::Each { list, name: element.clone(), map })
        }
    }
}

impl Tree {
    /// Makes the value; `None` where there is nothing to say.
    fn grow(
        &self,
        templates: &Templates,
        vars: &Vars,
        values: &[Value],
        records: Option<&serde_json::Value>,
        path: &str,
    ) -> Result<Option<serde_json::Value>, Unmapped> {
        let at_path = |why| Unmapped { field: path.to_owned(), at: None, why };
        match self {
            Self::Leaf(place) => {
                let value = values.get(*place).ok_or_else(|| at_path(Why::Undefined))?;
                scalar(value).map_err(at_path)
            }
            Self::Records => records.cloned().map(Some).ok_or_else(|| at_path(Why::Undefined)),
            Self::Object(fields) => {
                let mut object = Map::new();
                for (field, tree) in fields {
                    let path = join(path, field);
                    if let Some(value) = tree.grow(templates, vars, values, records, &path)? {
                        object.insert(field.clone(), value);
                    }
                }
                Ok((!object.is_empty()).then_some(serde_json::Value::Object(object)))
            }
            Self::Each { list, name, map } => {
                let list = values.get(*list).ok_or_else(|| at_path(Why::Undefined))?;
                if list.is_none() {
                    return Ok(None);
                }
                let mut made = Vec::new();
                for (position, element) in elements(list).map_err(at_path)?.into_iter().enumerate() {
                    let at = Record::of(&element).map(Record::at);
                    let vars = vars.clone().with(name.clone(), element).with("index", position);
                    let value = map.eval(templates, &vars, records).map_err(|inner| Unmapped {
                        field: join(&join(path, &position.to_string()), &inner.field),
                        at: inner.at.or(at),
                        why: inner.why,
                    })?;
                    made.push(value);
                }
                Ok(Some(serde_json::Value::Array(made)))
            }
        }
    }
}

/// Lists the elements of a value that must be a list.
pub fn elements(list: &Value) -> Result<Vec<Value>, Why> {
    if list.kind() != ValueKind::Seq {
        return Err(Why::Other("a list is needed".to_owned()));
    }
    let elements: Vec<Value> = list.try_iter().map_err(|_| Why::Other("a list is needed".to_owned()))?.collect();
    if elements.len() > ELEMENTS_MAX {
        return Err(Why::Other(format!("a list has at most {ELEMENTS_MAX} elements")));
    }
    Ok(elements)
}

/// Text, truth values and exact whole numbers; none is nothing. A fraction or a whole record is not let out.
fn scalar(value: &Value) -> Result<Option<serde_json::Value>, Why> {
    match value.kind() {
        ValueKind::None => Ok(None),
        ValueKind::Bool => Ok(Some(serde_json::Value::Bool(value.is_true()))),
        ValueKind::String => Ok(value.as_str().map(|text| serde_json::Value::String(text.to_owned()))),
        ValueKind::Number if value.is_integer() => i64::try_from(value.clone())
            .ok()
            .filter(|number| number.abs() <= NUMBER_MAX)
            .map(|number| Some(serde_json::Value::Number(Number::from(number))))
            .ok_or_else(|| Why::Other("a number is too large to be exact".to_owned())),
        _ => Err(Why::Other("an output field is text, a truth value or a whole number".to_owned())),
    }
}

/// Hands JSON to expressions. Numbers that are no whole numbers stay what they are and are refused where they are used.
#[must_use]
pub fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(list) => list.iter().map(from_json).collect(),
        serde_json::Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), from_json(value))).collect::<BTreeMap<_, _>>().into()
        }
    }
}

fn unmapped(failed: Failed) -> Unmapped {
    let field = match failed.place {
        Place::Field(field) => field,
        Place::Line(line) => format!("line {line}"),
    };
    Unmapped { field, at: None, why: failed.why }
}

fn join(path: &str, field: &str) -> String {
    match (path, field) {
        ("", _) => field.to_owned(),
        (_, "") => path.to_owned(),
        _ => format!("{path}.{field}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::kind::Zone;
    use crate::named::Named;
    use crate::types::Types;

    fn templates() -> Templates {
        Templates::new(Arc::new(Types::new(Named::default(), Zone::parse("+00:00").expect("a zone"))))
    }

    fn eval(yaml: &str, vars: &Vars) -> Result<serde_json::Value, Unmapped> {
        let node: Node = serde_yaml_ng::from_str(yaml).expect("a node");
        let mut templates = templates();
        let mapping = Mapping::compile(&mut templates, "m", &[], &node).expect("compiles");
        mapping.eval(&templates, vars, Some(&json!([{"a": 1}])))
    }

    fn record(at: usize, value: Value) -> Value {
        let mut record = Record::new(Arc::from(["x".to_owned()]), at);
        record.push(value, at);
        record.into_value()
    }

    #[test]
    fn objects_lists_and_records() {
        let list: Value = [record(10, Value::from(1)), record(20, Value::from(()))].into_iter().collect();
        let vars = Vars::default().with("list", list).with("n", 7);
        let yaml = "{seen: records, number: n, text: n | string, nothing: none, empty: {a: none},
                     list: {$each: list, $as: e, $map: {x: e.x, place: index}}, absent: {$each: none, $as: e, $map: {x: e.x}}}";
        let made = eval(yaml, &vars).expect("maps");
        let expected = json!({
            "seen": [{"a": 1}], "number": 7, "text": "7", "list": [{"x": 1, "place": 0}, {"place": 1}],
        });
        assert_eq!(made, expected);
    }

    #[test]
    fn errors_name_the_field_and_where_its_record_stands() {
        let list: Value = [record(10, Value::from(1)), record(20, Value::from(2))].into_iter().collect();
        let vars = Vars::default().with("list", list);
        let yaml = "{out: {list: {$each: list, $as: e, $map: {y: '{1: 5}[e.x]'}}}}";
        let unmapped = eval(yaml, &vars).expect_err("2 is not in the table");
        assert_eq!(unmapped, Unmapped { field: "out.list.1.y".into(), at: Some(20), why: Why::Undefined });
        assert!(eval("{x: 1 / 2}", &vars).is_err(), "no fractions");
        assert!(eval("{x: 9007199254740992 + 1}", &vars).is_err(), "no inexact numbers");
        assert!(eval("{x: list}", &vars).is_err(), "no whole records");
        assert!(eval("{x: {$each: \"'text'\", $as: e, $map: {y: e}}}", &vars).is_err(), "text is no list");
    }

    #[test]
    fn bad_expressions_name_their_path() {
        let node: Node =
            serde_yaml_ng::from_str("{a: {b: '1'}, l: {$each: x, $as: e, $map: {c: 'e +'}}}").expect("a node");
        let bad = Mapping::compile(&mut templates(), "m", &[], &node).expect_err("no expression");
        assert!(matches!(bad, BadNode::Field { path, .. } if path == ["l", "$map", "c"]));
        let lets = [("x".to_owned(), "[1]".to_owned()), ("y".to_owned(), "x +".to_owned())];
        let node = Node::Leaf("x".to_owned());
        let bad = Mapping::compile(&mut templates(), "m", &lets, &node).expect_err("no expression");
        assert!(matches!(bad, BadNode::Let { position: 1, .. }));
    }
}
