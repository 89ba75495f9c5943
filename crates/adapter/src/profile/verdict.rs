//! What a return code of the department means.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

/// What a return code means. Written as one word, or `reject CODE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `done`: it did what was asked; the body follows.
    Done,
    /// `pending`: it took it and has not decided; the body follows.
    Pending,
    /// `reject CODE`: it refuses, definitively, and nothing was changed.
    Reject(String),
    /// `closed`: outside its hours; nothing was changed.
    Closed,
    /// `busy`: too much to do; nothing was changed.
    Busy,
    /// `broken`: it does not understand us; nothing was changed. An operator must look.
    Broken,
    /// `unknown`: it does not say whether something was changed.
    Unknown,
    /// `never_happened`: it knows nothing of what is inquired; definitive after the quiet period.
    NeverHappened,
    /// `skip`: the operation goes on, with none for this step. Only in a step's own `codes`.
    Skip,
    /// `enough`: the operation is done with this. Only in a step's own `codes`.
    Enough,
}

const EXPECTED: &str = "expected `done`, `pending`, `reject CODE` (in capitals), `closed`, `busy`, `broken`, `unknown`, \
                        `never_happened`, and in a step also `skip` or `enough`";

impl Verdict {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "done" => Self::Done,
            "pending" => Self::Pending,
            "closed" => Self::Closed,
            "busy" => Self::Busy,
            "broken" => Self::Broken,
            "unknown" => Self::Unknown,
            "never_happened" => Self::NeverHappened,
            "skip" => Self::Skip,
            "enough" => Self::Enough,
            _ => {
                let code = text.strip_prefix("reject ")?;
                let is_code = (1..=63).contains(&code.len())
                    && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
                return is_code.then(|| Self::Reject(code.to_owned()));
            }
        })
    }

    /// Tells whether the department sends the body of the reply with such a code.
    #[must_use]
    pub fn has_body(&self) -> bool {
        matches!(self, Self::Done | Self::Pending)
    }
}

impl<'de> Deserialize<'de> for Verdict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(EXPECTED))
    }
}

impl JsonSchema for Verdict {
    fn schema_name() -> Cow<'static, str> {
        "Verdict".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": EXPECTED,
            "pattern": "^(done|pending|reject [A-Z0-9_]{1,63}|closed|busy|broken|unknown|never_happened|skip|enough)$",
        })
    }
}
