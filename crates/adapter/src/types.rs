//! The types of one profile, by name, and the zone its times are in.

use minijinja::Value;

use crate::kind::{Kind, Misfit, Zone};
use crate::named::Named;

/// The named types of a profile.
#[derive(Clone, Debug)]
pub struct Types {
    kinds: Named<Kind>,
    zone: Zone,
}

/// A use of a type: `fine`, or `fine?` where the department may leave it blank.
#[derive(Clone, Debug)]
pub struct TypeUse {
    kind: Kind,
    may_be_blank: bool,
    zone: Zone,
}

impl Types {
    /// Binds the types of a profile to its zone.
    #[must_use]
    pub fn new(kinds: Named<Kind>, zone: Zone) -> Self {
        Self { kinds, zone }
    }

    /// Finds a type by its use; `None` when there is no such type.
    #[must_use]
    pub fn find(&self, written: &str) -> Option<TypeUse> {
        let (name, may_be_blank) = match written.strip_suffix('?') {
            Some(name) => (name, true),
            None => (written, false),
        };
        Some(TypeUse { kind: self.kinds.get(name)?.clone(), may_be_blank, zone: self.zone })
    }

    /// Lists the names there are, for error messages.
    #[must_use]
    pub fn names(&self) -> String {
        self.kinds.names().collect::<Vec<_>>().join(", ")
    }
}

impl TypeUse {
    /// Reads what the department wrote, padding already cut; blank is none where it may be.
    pub fn read(&self, text: &str) -> Result<Value, Misfit> {
        match (text.is_empty(), self.may_be_blank) {
            (true, true) => Ok(Value::from(())),
            (true, false) => Err(Misfit::Blank),
            (false, _) => self.kind.read(text, self.zone),
        }
    }

    /// Writes a value for the department, without padding; none is blank where it may be.
    pub fn write(&self, value: &Value) -> Result<String, Misfit> {
        match (value.is_none(), self.may_be_blank) {
            (true, true) => Ok(String::new()),
            (true, false) => Err(Misfit::Blank),
            (false, _) => self.kind.write(value, self.zone),
        }
    }

    /// Tells whether a column of this type is filled with zeros at the left.
    #[must_use]
    pub fn is_zero_filled(&self) -> bool {
        self.kind.is_zero_filled()
    }
}
