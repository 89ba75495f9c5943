//! Merges the layers and reads them into a typed tree, noting every fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use ::config::{ConfigError, FileFormat, Format, Map, Source, Value, ValueKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::Problem;

/// The prefix of the environment variables that are configuration.
pub const ENV_PREFIX: &str = "LASTMILE_";

const SECTION_SEPARATOR: &str = "__";
const DEFAULT_SOURCE: &str = "default";
/// A configuration with more faults than this is told up to here.
const FAULTS_MAX: usize = 1_000;

/// Returns the process environment's configuration variables, in order. The one place that reads the environment.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(key, _)| key.starts_with(ENV_PREFIX))
        .collect()
}

/// Gathers the layers of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    defaults: String,
    files: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
    flags: Vec<(String, String, String)>,
}

impl Loader {
    /// Starts from the embedded defaults, a TOML text.
    pub fn new(defaults: impl Into<String>) -> Self {
        Self { defaults: defaults.into(), ..Self::default() }
    }

    /// Adds a TOML file over what came before.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(path.into());
        self
    }

    /// Adds variables `LASTMILE_SECTION__KEY`; others are passed over. A list is written with commas, anything nested as TOML.
    #[must_use]
    pub fn environment(mut self, variables: BTreeMap<String, String>) -> Self {
        self.environment = variables;
        self
    }

    /// Sets one value by dotted path over all else; `flag` is how the operator knows it (`--log`).
    #[must_use]
    pub fn flag(mut self, flag: &str, path: &str, value: &str) -> Self {
        self.flags.push((flag.to_owned(), path.to_owned(), value.to_owned()));
        self
    }

    /// Reads everything.
    ///
    /// Shape: `validate` sees the typed tree and adds what the types cannot say.
    /// Errors: every fault of every layer, sorted by path.
    pub fn load<T>(self, validate: impl FnOnce(&T, &mut Vec<Problem>)) -> Result<Loaded<T>, Vec<Fault>>
    where
        T: DeserializeOwned + Serialize,
    {
        let mut faults = Vec::new();
        let tree = self.merge(&mut faults);
        let (value, problems) = read::<T>(&tree);
        let taken_out: BTreeSet<String> = problems.iter().map(|problem| problem.path.clone()).collect();
        faults.extend(problems.into_iter().map(|problem| Fault::new(problem, &tree)));
        if let Some(value) = &value {
            let mut problems = Vec::new();
            validate(value, &mut problems);
            // A value that could not be read was replaced by its default; what follows from that is not the operator's fault.
            problems.retain(|problem| !taken_out.iter().any(|path| are_related(path, &problem.path)));
            faults.extend(problems.into_iter().map(|problem| Fault::new(problem, &tree)));
        }
        faults.sort_by(|a, b| a.problem.path.cmp(&b.problem.path));
        match value {
            Some(value) if faults.is_empty() => Ok(Loaded { value, tree }),
            _ => Err(faults),
        }
    }

    fn merge(&self, faults: &mut Vec<Fault>) -> Value {
        let mut layers = vec![parse(&self.defaults, DEFAULT_SOURCE, Path::new("(embedded defaults)"), faults)];
        for path in &self.files {
            match std::fs::read_to_string(path) {
                Ok(text) => layers.push(parse(&text, &format!("file {}", path.display()), path, faults)),
                Err(error) => faults.push(Fault::file(path, format!("cannot be read: {error}"))),
            }
        }
        let below = combine(&layers, faults);
        for (key, text) in &self.environment {
            let Some(path) = key.strip_prefix(ENV_PREFIX) else { continue };
            let path: Vec<String> = path.split(SECTION_SEPARATOR).map(str::to_lowercase).collect();
            layers.push(Layer::one(&path, text, &format!("environment {key}"), &below));
        }
        for (flag, path, text) in &self.flags {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            layers.push(Layer::one(&path, text, &format!("flag {flag}"), &below));
        }
        combine(&layers, faults)
    }
}

/// A configuration that was read without a fault.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The typed tree.
    pub value: T,
    tree: Value,
}

/// One value of a loaded configuration, as `config show` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The dotted path.
    pub path: String,
    /// The value as JSON; secrets are hidden.
    pub value: String,
    /// Where it came from.
    pub source: String,
}

impl<T: Serialize> Loaded<T> {
    /// Tells where the value at a dotted path came from: `default`, `file …`, `environment …` or `flag …`.
    pub fn source_of(&self, path: &str) -> String {
        let mut at = Some(&self.tree);
        let mut rest = path;
        let mut source = None;
        // A key may itself contain dots, so at each step the longest key that fits is taken.
        while let Some(Value { kind: ValueKind::Table(table), .. }) = at {
            let fits =
                |key: &&String| rest == **key || rest.strip_prefix(key.as_str()).is_some_and(|r| r.starts_with('.'));
            let Some(key) = table.keys().filter(fits).max_by_key(|key| key.len()) else { break };
            at = table.get(key);
            source = at.and_then(Value::origin).or(source);
            rest = rest.get(key.len()..).unwrap_or_default().trim_start_matches('.');
        }
        source.unwrap_or(DEFAULT_SOURCE).to_owned()
    }

    /// Lists every value with its source, sorted by path.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let tree = serde_json::to_value(&self.value).unwrap_or_default();
        self.list(String::new(), &tree, &mut entries);
        entries
    }

    fn list(&self, path: String, value: &serde_json::Value, entries: &mut Vec<Entry>) {
        match value {
            serde_json::Value::Object(table) if !table.is_empty() => {
                for (key, value) in table {
                    self.list(joined(&path, key), value, entries);
                }
            }
            _ => entries.push(Entry { source: self.source_of(&path), value: value.to_string(), path }),
        }
    }
}

/// A problem together with the layer that brought it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub problem: Problem,
    /// The layer: `default`, `file …`, `environment …` or `flag …`.
    pub source: String,
}

impl Fault {
    fn new(problem: Problem, tree: &Value) -> Self {
        let source = source_in(tree, &problem.path).unwrap_or(DEFAULT_SOURCE).to_owned();
        Self { problem, source }
    }

    fn file(path: &Path, message: String) -> Self {
        Self { problem: Problem::new("", message), source: format!("file {}", path.display()) }
    }
}

/// One line: the path, what is wrong, where it is written, what to do.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, message, hint } = &self.problem;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "{message} ({})", self.source)?;
        hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

/// One layer as the `config` crate wants it.
#[derive(Clone, Debug, Default)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

impl Layer {
    /// A layer with a single value at a path.
    fn one(path: &[String], text: &str, source: &str, below: &Value) -> Self {
        let is_list = matches!(find(below, path).map(|value| &value.kind), Some(ValueKind::Array(_)));
        let leaf = from_text(text, source, is_list);
        let whole = path.iter().rev().fold(leaf, |value, key| {
            let table: Map<String, Value> = [(key.clone(), value)].into_iter().collect();
            Value::new(Some(&source.to_owned()), ValueKind::Table(table))
        });
        match whole.kind {
            ValueKind::Table(table) => Self(table),
            _ => Self::default(),
        }
    }
}

/// Reads a value that stands in a variable or flag: TOML where it is bracketed, a list where one is expected, else plain text
/// (numbers and booleans are read from it when the type asks for them).
fn from_text(text: &str, source: &str, is_list: bool) -> Value {
    let source = source.to_owned();
    if text.starts_with(['[', '{'])
        && let Ok(mut table) = FileFormat::Toml.parse(Some(&source), &format!("value = {text}"))
        && let Some(value) = table.remove("value")
    {
        return value;
    }
    if is_list {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items: Vec<Value> = items.map(|item| Value::new(Some(&source), item)).collect();
        return Value::new(Some(&source), ValueKind::Array(items));
    }
    Value::new(Some(&source), text)
}

fn parse(text: &str, source: &str, path: &Path, faults: &mut Vec<Fault>) -> Layer {
    match FileFormat::Toml.parse(Some(&source.to_owned()), text) {
        Ok(table) => Layer(table),
        Err(error) => {
            faults.push(Fault::file(path, format!("is not TOML: {}", error.to_string().trim_end())));
            Layer::default()
        }
    }
}

fn combine(layers: &[Layer], faults: &mut Vec<Fault>) -> Value {
    let mut builder = ::config::Config::builder();
    for layer in layers {
        builder = builder.add_source(layer.clone());
    }
    match builder.build() {
        Ok(config) => config.cache,
        Err(error) => {
            faults.push(Fault { problem: Problem::new("", error.to_string()), source: DEFAULT_SOURCE.to_owned() });
            Value::new(None, ValueKind::Table(Map::new()))
        }
    }
}

/// Deserialises again and again, each time without the values that were found faulty.
fn read<T: DeserializeOwned>(tree: &Value) -> (Option<T>, Vec<Problem>) {
    let mut left = tree.clone();
    let mut problems = Vec::new();
    let mut removed_items: BTreeMap<String, usize> = BTreeMap::new();
    while problems.len() < FAULTS_MAX {
        let error = match serde_path_to_error::deserialize::<_, T>(left.clone()) {
            Ok(value) => return (Some(value), problems),
            Err(error) => error,
        };
        let steps: Vec<Step> = error.path().iter().map(Step::from).collect();
        problems.push(describe(printed(&steps, &removed_items), error.inner()));
        if let Some((Step::Item(_), list)) = steps.split_last() {
            *removed_items.entry(printed(list, &removed_items)).or_default() += 1;
        }
        if !remove(&mut left, &steps) {
            break;
        }
    }
    (None, problems)
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Item(usize),
}

impl From<&Segment> for Step {
    fn from(segment: &Segment) -> Self {
        match segment {
            Segment::Map { key } => Self::Key(key.clone()),
            Segment::Seq { index } => Self::Item(*index),
            Segment::Enum { variant } => Self::Key(variant.clone()),
            Segment::Unknown => Self::Key("?".to_owned()),
        }
    }
}

/// Prints a path as the operator wrote it: an item's number counts the items that were already taken out before it.
fn printed(steps: &[Step], removed_items: &BTreeMap<String, usize>) -> String {
    steps.iter().fold(String::new(), |path, step| match step {
        Step::Key(key) => joined(&path, key),
        Step::Item(index) => {
            let index = index + removed_items.get(&path).copied().unwrap_or(0);
            joined(&path, &index.to_string())
        }
    })
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Takes the value at the path out of the tree; what cannot be reached loses its nearest ancestor that can.
fn remove(tree: &mut Value, steps: &[Step]) -> bool {
    let Some((first, rest)) = steps.split_first() else { return false };
    match (&mut tree.kind, first) {
        (ValueKind::Table(table), Step::Key(key)) => match table.get_mut(key) {
            Some(child) => (!rest.is_empty() && remove(child, rest)) || table.remove(key).is_some(),
            None => false,
        },
        (ValueKind::Array(items), Step::Item(index)) => match items.get_mut(*index) {
            Some(child) => {
                (!rest.is_empty() && remove(child, rest)) || {
                    items.remove(*index);
                    true
                }
            }
            None => false,
        },
        _ => false,
    }
}

fn describe(path: String, error: &ConfigError) -> Problem {
    match error {
        ConfigError::At { error, .. } => describe(path, error),
        ConfigError::Type { unexpected, expected, .. } => {
            Problem::new(path, format!("invalid type: {unexpected}, expected {expected}"))
        }
        ConfigError::Message(message) => match message.strip_prefix("unknown field ") {
            None => Problem::new(path, message.clone()),
            Some(rest) => {
                let known = rest.split_once("expected ").map_or("nothing", |(_, known)| known);
                // The path of a key in a table that says itself what it is ends before the key.
                let key = rest.split('`').nth(1).unwrap_or_default();
                let is_named = path.strip_suffix(key).is_some_and(|above| above.is_empty() || above.ends_with('.'));
                let path = if is_named { path } else { joined(&path, key) };
                Problem::new(path, "unknown key").hint(format!("known here: {}", known.trim_start_matches("one of ")))
            }
        },
        other => Problem::new(path, other.to_string()),
    }
}

fn are_related(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || short.is_empty())
}

fn find<'a>(tree: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |at, key| match &at.kind {
        ValueKind::Table(table) => table.get(key),
        ValueKind::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The source of the value at the path, or of the nearest thing written there.
fn source_in<'a>(tree: &'a Value, path: &str) -> Option<&'a str> {
    let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
    (0..=steps.len()).rev().find_map(|taken| source_below(find(tree, steps.get(..taken)?)?))
}

fn source_below(value: &Value) -> Option<&str> {
    value.origin().or_else(|| match &value.kind {
        ValueKind::Table(table) => {
            let sources: BTreeSet<&str> = table.values().filter_map(source_below).collect();
            // One source is an answer; several are not.
            (sources.len() == 1).then(|| sources.into_iter().next()).flatten()
        }
        _ => None,
    })
}
