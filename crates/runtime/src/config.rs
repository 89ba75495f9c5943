//! Layered configuration that tells all its faults at once.
//!
//! Layers, the later wins: the embedded defaults, the files of `--config` in order, the environment (`LASTMILE_SECTION__KEY`), the
//! flags. The result is deserialised into one typed tree whose sections refuse unknown keys. A fault does not end the reading: it is
//! noted with its dotted path and source, the value is taken out, and reading goes on, so that an operator sees every fault in one
//! run, before a port is bound.

mod loader;
mod units;

pub use loader::{ENV_PREFIX, Entry, Fault, Loaded, Loader, environment};
pub use units::{ByteSize, Duration};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The dotted path of the value: `payments.ledger.page_size_max`.
    pub path: String,
    /// What is wrong, in lower case, without the path. Never quotes a secret.
    pub message: String,
    /// What to do about it, where that is not plain.
    pub hint: Option<String>,
}

impl Problem {
    /// Notes a problem without a hint.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
