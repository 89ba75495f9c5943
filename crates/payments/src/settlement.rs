//! The file of a settlement: what it says, how it is signed, and how anybody verifies it. Described in `docs/settlement.md`.

mod file;
mod verify;

use std::path::PathBuf;

use runtime::config::{Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use file::{digest, head, line, seal, tail};
pub use verify::{Report, VerifyError, verify};

/// What signs says what it signs.
pub const TYP: &str = "lastmile-settlement+jwt";
/// The longest line of a file.
pub const LINE_BYTES_MAX: usize = 4 * 1_024;

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

/// How payees are settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether a settlement is cut each day for every payee; without, only when it is asked for.
    pub daily: bool,
    /// When, from the beginning of a day in Beijing's time: 0 cuts between two days.
    pub cut: Duration,
    /// Holds the key that signs settlement files; made when it is missing; below the data directory unless absolute. Another file in its
    /// place signs from the next settlement on.
    pub key_file: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { daily: true, cut: Duration::from_secs(0), key_file: "keys/payments/settlement.pem".into() }
    }
}

impl Settings {
    /// Notes everything that is wrong, each under its dotted path below `path`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut note = |key: &str, message: &str| problems.push(Problem::new(format!("{path}.{key}"), message));
        if self.cut.get() >= DAY {
            note("cut", "must be less than a day");
        }
        if self.key_file.as_os_str().is_empty() {
            note("key_file", "is required");
        }
    }
}
