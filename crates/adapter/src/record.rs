//! What a department wrote, read field by field: values that remember where they stood.

use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object};

/// A group of fields. Mappings see it as a map; errors take the offsets from it.
///
/// Shape: values in the order of the names; a blank optional field is none.
#[derive(Debug)]
pub struct Record {
    names: Arc<[String]>,
    values: Vec<Value>,
    offsets: Vec<usize>,
    at: usize,
}

impl Record {
    /// Starts an empty group that stands at byte `at` of the reply. Values are pushed in the order of `names`.
    #[must_use]
    pub fn new(names: Arc<[String]>, at: usize) -> Self {
        let room = names.len();
        Self { names, values: Vec::with_capacity(room), offsets: Vec::with_capacity(room), at }
    }

    /// Adds the next field's value, which stands at byte `at` of the reply.
    pub fn push(&mut self, value: Value, at: usize) {
        self.values.push(value);
        self.offsets.push(at);
    }

    /// Returns a field's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(self.position(name)?)
    }

    /// Returns where a field stands in the reply, in bytes.
    #[must_use]
    pub fn offset(&self, name: &str) -> Option<usize> {
        self.offsets.get(self.position(name)?).copied()
    }

    /// Returns where the group stands in the reply, in bytes.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Hands it to templates.
    #[must_use]
    pub fn into_value(self) -> Value {
        Value::from_object(self)
    }

    /// Looks a template's value up as a group again, if it is one.
    #[must_use]
    pub fn of(value: &Value) -> Option<&Self> {
        value.downcast_object_ref()
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }
}

impl Object for Record {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?).cloned()
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.names.iter().take(self.values.len()).map(|name| Value::from(name.as_str())).collect())
    }
}
