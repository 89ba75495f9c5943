//! Checking a profile: its form, its meaning, and its golden cases, all without a department.
//!
//! A golden case says what is asked, which bytes go out, which come back, and what that must become. It runs through the same engine
//! and codec as a live call; only the link is scripted.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use runtime::{Clock, Context, Ids};
use serde_json::{Value as Json, json};

use crate::applicant::Citizen;
use crate::connector::Spoken;
use crate::engine::Backend;
use crate::plan::{Plan, Problem};
use crate::profile::{Golden, LegacyBytes};

mod reply;
mod request;
mod script;

use script::{Expected, Script};

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// The profile's name, when it could be read.
    pub profile: Option<String>,
    /// What is wrong with the profile; with any of these no case was run.
    pub problems: Vec<Problem>,
    /// The golden cases, in file order.
    pub cases: Vec<Case>,
    /// Exchanges that no golden case makes.
    pub untested: Vec<String>,
}

/// What became of a golden case.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Why it failed; nothing when it passed.
    pub failure: Option<String>,
}

impl Report {
    /// Tells whether everything is in order.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty() && self.untested.is_empty() && self.cases.iter().all(|case| case.failure.is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        for case in &self.cases {
            match &case.failure {
                None => writeln!(f, "ok    {}", case.name)?,
                Some(failure) => writeln!(f, "FAIL  {}: {failure}", case.name)?,
            }
        }
        for exchange in &self.untested {
            writeln!(f, "FAIL  no golden case makes the exchange `{exchange}`")?;
        }
        Ok(())
    }
}

/// Checks a profile file: form, templates and mappings, golden cases. `schemas` is the directory of the item schemas.
pub async fn check(file: &Path, schemas: &Path) -> Report {
    let plan = match Plan::load(file, schemas) {
        Ok(plan) => Arc::new(plan),
        Err(problems) => {
            return Report { profile: None, problems: problems.0, cases: Vec::new(), untested: Vec::new() };
        }
    };
    let mut cases = Vec::new();
    let mut tested = BTreeSet::new();
    for golden in &plan.profile.golden {
        tested.extend(golden.exchanges.iter().map(|exchange| exchange.call.clone()));
        let failure = run(&plan, golden, file.parent().unwrap_or(Path::new("."))).await.err();
        cases.push(Case { name: golden.name.clone(), failure });
    }
    let untested = plan.exchanges.keys().filter(|name| !tested.contains(*name)).cloned().collect();
    Report { profile: Some(plan.name().to_owned()), problems: Vec::new(), cases, untested }
}

/// Runs one golden case.
async fn run(plan: &Arc<Plan>, golden: &Golden, dir: &Path) -> Result<(), String> {
    let (made, failure) = play(plan, golden, dir).await?;
    match failure {
        Some(failure) => Err(failure),
        None => difference(&golden.reply, &made, "").map_or(Ok(()), Err),
    }
}

/// Plays a case: what its call came to, and what went wrong on the wire.
async fn play(plan: &Arc<Plan>, golden: &Golden, dir: &Path) -> Result<(Json, Option<String>), String> {
    let now = crate::kind::parse_rfc3339(&golden.now).ok_or("`now` must be RFC 3339")?;
    let expected = golden.exchanges.iter().map(|exchange| Expected::read(plan, exchange, dir));
    let script = Arc::new(Mutex::new(Script::new(expected.collect::<Result<_, _>>()?)));
    let connector = Box::new(Spoken::new(Arc::clone(&plan.codec), script::ScriptedLink(Arc::clone(&script))));
    let (clock, _hand) = Clock::manual(now);
    let context = Context { ids: Ids::seeded(clock.clone(), 0), clock, ..Context::system() };
    let count = AtomicU64::new(0);
    let backend = Backend::new(Arc::clone(plan), connector, &[], context)
        .with_serials(move || format!("{:020}", count.fetch_add(1, Ordering::Relaxed).saturating_add(1)));
    let item = plan.items.get(&golden.item).ok_or("there is no such item")?;
    let citizen = golden.applicant.as_ref().map_or_else(Citizen::default, request::citizen);
    let made = request::call(&backend, item, &citizen, golden).await?;
    let failure = script.lock().map_err(|_| "the script is poisoned")?.failure();
    Ok((made, failure))
}

/// The first place in which two JSON values differ.
fn difference(wanted: &Json, made: &Json, path: &str) -> Option<String> {
    match (wanted, made) {
        (Json::Object(wanted), Json::Object(made)) => {
            let names: BTreeSet<_> = wanted.keys().chain(made.keys()).collect();
            names.into_iter().find_map(|name| {
                let below = |fields: &serde_json::Map<String, Json>| fields.get(name).cloned().unwrap_or(Json::Null);
                difference(&below(wanted), &below(made), &format!("{path}.{name}"))
            })
        }
        (Json::Array(wanted), Json::Array(made)) if wanted.len() == made.len() => {
            let mut pairs = wanted.iter().zip(made).enumerate();
            pairs.find_map(|(position, (wanted, made))| difference(wanted, made, &format!("{path}.{position}")))
        }
        _ if wanted == made => None,
        _ => Some(format!("reply{path}: expected {wanted}, made {made}")),
    }
}

/// Reads legacy bytes of a case.
fn bytes(plan: &Plan, written: &LegacyBytes, dir: &Path) -> Result<Vec<u8>, String> {
    match (&written.text, &written.hex, &written.file) {
        (Some(text), None, None) => {
            let text = text.strip_suffix('\n').unwrap_or(text);
            let charset = plan.profile.charset();
            let is_xml = plan.profile.connector.soap.is_some();
            let encoded = if is_xml { charset.encode_xml(text) } else { charset.encode(text) };
            encoded
                .map(std::borrow::Cow::into_owned)
                .map_err(|misfit| format!("`text` at {}: {}", misfit.at, misfit.flaw))
        }
        (None, Some(digits), None) => {
            let digits: String = digits.chars().filter(|c| !c.is_whitespace()).collect();
            hex::decode(digits).map_err(|error| format!("`hex`: {error}"))
        }
        (None, None, Some(file)) => {
            if file.contains("..") || file.starts_with('/') {
                return Err("`file` must stand beside the profile".to_owned());
            }
            std::fs::read(dir.join(file)).map_err(|error| format!("`file`: {error}"))
        }
        _ => Err("expected exactly one of `text`, `hex` and `file`".to_owned()),
    }
}

/// An error of the adapter as a case writes it.
fn error_json(error: &crate::error::Error) -> Json {
    use crate::error::Error;
    let place = match error {
        Error::Unreadable(place) | Error::Unmappable(place) | Error::Broken(place) => Some(place),
        _ => None,
    };
    let mut written = json!({ "reason": rpc::Fault::reason(error) });
    if let (Some(place), Some(fields)) = (place, written.as_object_mut()) {
        fields.insert("field".to_owned(), json!(place.field));
        fields.insert("offset".to_owned(), json!(place.offset));
    }
    json!({ "error": written })
}

#[cfg(test)]
mod tests;
