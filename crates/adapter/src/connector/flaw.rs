//! Why a request cannot be written or a reply cannot be read: the field, the byte, the reason. Never the value.

use std::fmt;

use crate::template::{Failed, Place, Why};
use crate::{charset, kind};

/// A request that cannot be written. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`, offset {at}: {flaw}")]
pub struct Unwritable {
    /// The department's field.
    pub field: String,
    /// Byte offset within the request: so much of it was written.
    pub at: usize,
    /// Why.
    #[source]
    pub flaw: WriteFlaw,
}

/// Why a request cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteFlaw {
    /// A character that the department's charset does not have, or that does not fit.
    #[error(transparent)]
    Charset(#[from] charset::Flaw),
    /// A value that does not fit the department's type.
    #[error(transparent)]
    Misfit(#[from] kind::Misfit),
    /// A value that does not fit its column.
    #[error("takes more than the {0} bytes of its column")]
    Column(usize),
    /// The profile's template fails.
    #[error(transparent)]
    Template(#[from] Why),
    /// The request is longer than the department takes.
    #[error("the request is longer than {0} bytes")]
    TooLong(usize),
}

/// A reply that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`, offset {at}: {flaw}")]
pub struct Unreadable {
    /// The department's field, with its path; or the part of the protocol.
    pub field: String,
    /// Byte offset within the reply, as the department's own manual counts.
    pub at: usize,
    /// Why.
    #[source]
    pub flaw: ReadFlaw,
}

/// Why a reply cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFlaw {
    /// Bytes that are no text of the charset.
    #[error(transparent)]
    Charset(#[from] charset::Flaw),
    /// A value that does not fit its type.
    #[error(transparent)]
    Misfit(#[from] kind::Misfit),
    /// The field is not there.
    #[error("it is missing")]
    Missing,
    /// It is there twice.
    #[error("it is there more than once")]
    Twice,
    /// It is not what was asked about.
    #[error("it is not what was asked about")]
    Foreign,
    /// The return code is not in the profile.
    #[error("a return code that the profile does not know")]
    Code,
    /// The reply ends before its last field, or goes on after it.
    #[error("the reply has {found} bytes where {wanted} belong")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        wanted: usize,
    },
    /// More elements than the profile or the protocol allows.
    #[error("more than {0} of them")]
    TooMany(usize),
    /// The reply is longer than the profile allows.
    #[error("the reply is longer than {0} bytes")]
    TooLong(usize),
    /// An HTTP status that is no reply of the protocol.
    #[error("HTTP status {0}")]
    Status(u16),
    /// Not well-formed, or more than the protocol needs.
    #[error("{0}")]
    Form(&'static str),
    /// The profile's expression fails.
    #[error(transparent)]
    Template(Why),
}

impl Unreadable {
    /// Names a field and an offset.
    pub fn new(field: impl Into<String>, at: usize, flaw: impl Into<ReadFlaw>) -> Self {
        Self { field: field.into(), at, flaw: flaw.into() }
    }

    /// Puts the name of what encloses the field before it.
    #[must_use]
    pub fn within(self, parent: impl fmt::Display) -> Self {
        Self { field: format!("{parent}.{}", self.field), ..self }
    }
}

impl Unwritable {
    /// Names a field and an offset.
    pub fn new(field: impl Into<String>, at: usize, flaw: impl Into<WriteFlaw>) -> Self {
        Self { field: field.into(), at, flaw: flaw.into() }
    }

    /// Tells whether the value is at fault, which the caller gave, and not the profile.
    #[must_use]
    pub fn is_callers(&self) -> bool {
        match &self.flaw {
            WriteFlaw::Charset(_) | WriteFlaw::Misfit(_) | WriteFlaw::Column(_) | WriteFlaw::TooLong(_) => true,
            WriteFlaw::Template(_) => false,
        }
    }
}

/// What a failed run of expressions means for a request, of which `at` bytes were written: a misfit of a value stays one.
pub(super) fn unwritable(failed: Failed, at: usize, field_of_line: impl FnOnce(usize) -> String) -> Unwritable {
    let field = match failed.place {
        Place::Field(field) => field,
        Place::Line(line) => field_of_line(line),
    };
    let flaw = match failed.why {
        Why::Misfit(misfit) => WriteFlaw::Misfit(misfit),
        why => WriteFlaw::Template(why),
    };
    Unwritable { field, at, flaw }
}
