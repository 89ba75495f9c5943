//! A profile that means something: every name resolved, every expression compiled, every field that an expression asks of a reply
//! known to be there. What is wrong is told with file, line, field and what would be right, all of it at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::connector::Codec;
use crate::connector::fixed_tcp::FixedCodec;
use crate::connector::soap::SoapCodec;
use crate::profile::{Changes, Depth, Idempotency, Limits, Location, Profile, Verdict, locate};
use crate::template::{Scope, Templates};

mod compiler;
mod item;
pub mod known;

pub use compiler::Compiler;
pub use item::{
    InquirePlan, ItemPlan, ListPlan, LockPlan, OperationPlans, OutcomePlan, QueryPlan, ReadPlan, RowPlan, RowsPlan,
    SettlePlan, StepPlan,
};
pub use known::Known;

/// Largest profile file.
const PROFILE_BYTES_MAX: u64 = 1024 * 1024;

/// A compiled profile.
pub struct Plan {
    /// The profile as it was written.
    pub profile: Profile,
    /// Its compiled templates.
    pub templates: Templates,
    /// The pure half of its connector.
    pub codec: Arc<dyn Codec>,
    /// What its exchanges are, by name.
    pub exchanges: BTreeMap<String, ExchangePlan>,
    /// What its items are, by code.
    pub items: BTreeMap<String, ItemPlan>,
}

/// What an exchange is beyond its bytes.
#[derive(Debug)]
pub struct ExchangePlan {
    /// Whether it changes anything.
    pub changes: Changes,
    /// Reply fields that must equal an expression over the request.
    pub expect: Option<Scope>,
}

/// Something wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line and column, from 1, where they are known.
    pub location: Option<Location>,
    /// The field, with dots; empty for the whole file.
    pub field: String,
    /// What is wrong and what would be right.
    pub what: String,
}

/// Everything that is wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Location { line, column }) = self.location {
            write!(f, ":{line}:{column}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Plan {
    /// Reads and compiles a profile file. `schemas` is the directory of the item schemas.
    pub fn load(file: &Path, schemas: &Path) -> Result<Self, Problems> {
        let whole = |what: String| {
            Problems(vec![Problem { file: file.to_owned(), location: None, field: String::new(), what }])
        };
        let length = std::fs::metadata(file).map_err(|error| whole(error.to_string()))?.len();
        if length > PROFILE_BYTES_MAX {
            return Err(whole(format!("a profile has at most {PROFILE_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| whole(error.to_string()))?;
        Self::parse(file, &text, schemas)
    }

    /// Compiles the text of a profile; `file` is what messages call it.
    pub fn parse(file: &Path, text: &str, schemas: &Path) -> Result<Self, Problems> {
        let yaml = serde_yaml_ng::Deserializer::from_str(text);
        let profile: Profile =
            serde_path_to_error::deserialize(yaml).map_err(|error| Problems(vec![misread(file, &error)]))?;
        let mut compiler = Compiler::new(file, text, &profile);
        compiler.check_profile(&profile);
        let codec = compile_codec(&profile, &mut compiler);
        let exchanges = compiler.compile_exchanges(&profile);
        let items = item::compile(&profile, schemas, &mut compiler);
        let (templates, problems) = compiler.finish();
        match codec {
            Some(codec) if problems.is_empty() => Ok(Self { profile, templates, codec, exchanges, items }),
            _ => Err(Problems(problems)),
        }
    }

    /// Returns what a code means in a step.
    #[must_use]
    pub fn verdict<'p>(&'p self, step: &'p StepPlan, code: &str) -> Option<&'p Verdict> {
        step.codes.get(code).or_else(|| self.profile.codes.get(code))
    }

    /// Returns the profile's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.profile.profile.as_str()
    }

    /// Returns what the back end bears.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.profile.limits
    }
}

fn compile_codec(profile: &Profile, compiler: &mut Compiler<'_>) -> Option<Arc<dyn Codec>> {
    match (&profile.connector.soap, &profile.connector.fixed_tcp) {
        (Some(settings), None) => Some(Arc::new(SoapCodec::compile(profile, settings, compiler))),
        (None, Some(settings)) => Some(Arc::new(FixedCodec::compile(profile, settings, compiler))),
        _ => {
            compiler.problem(&["connector"], "expected exactly one of `soap` and `fixed_tcp`");
            None
        }
    }
}

/// The YAML reader stops at the first thing it does not understand; it knows the place and says what it expected.
fn misread(file: &Path, error: &serde_path_to_error::Error<serde_yaml_ng::Error>) -> Problem {
    let location = error.inner().location().map(|at| Location { line: at.line(), column: at.column() });
    let text = error.inner().to_string();
    // Its text is `path: what at line 1 column 2`; path and place are told by ourselves.
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before);
    let field = error.path().to_string();
    let field = if field == "." { String::new() } else { field };
    let what = what.strip_prefix(&format!("{field}: ")).unwrap_or(what);
    Problem { file: file.to_owned(), location, what: what.to_owned(), field }
}

impl Depth {
    /// As the contract has it.
    #[must_use]
    pub fn to_proto(self) -> contracts::common::v1::Depth {
        use contracts::common::v1::Depth as Pb;
        match self {
            Self::Inform => Pb::Inform,
            Self::Query => Pb::Query,
            Self::Book => Pb::Book,
            Self::Pay => Pb::Pay,
            Self::Handle => Pb::Handle,
        }
    }
}

impl Idempotency {
    /// As the contract has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::ByBill => "by_bill",
            Self::None => "none",
        }
    }
}

/// Finds a field of the profile's text.
pub(crate) fn location(text: &str, path: &[String]) -> Option<Location> {
    locate(text, path)
}

#[cfg(test)]
mod tests;
