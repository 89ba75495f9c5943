//! Compiling a profile: templates, types, and the notes of what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::known::{self, Known};
use super::{ExchangePlan, Problem, location};
use crate::mapping::{BadNode, Mapping};
use crate::named::Named;
use crate::profile::{Node, Profile, Verdict};
use crate::template::{Scope, Templates};
use crate::types::{TypeUse, Types};

/// Most problems that are told at once.
const PROBLEMS_MAX: usize = 50;

/// Compiles the parts of a profile and notes what is wrong with them.
pub struct Compiler<'a> {
    /// Where templates are added.
    pub templates: Templates,
    /// What the replies of each exchange hold.
    pub replies: BTreeMap<String, Known>,
    /// The templates that each exchange's request and expectations are made of.
    pub requests: BTreeMap<String, Vec<String>>,
    settings: known::Scope,
    file: &'a Path,
    text: &'a str,
    types: Arc<Types>,
    problems: Vec<Problem>,
}

/// A name for a place in a profile.
fn place(path: &[impl AsRef<str>]) -> Vec<String> {
    path.iter().map(|part| part.as_ref().to_owned()).collect()
}

impl<'a> Compiler<'a> {
    /// Starts on a profile; `text` is its YAML, for the lines.
    #[must_use]
    pub fn new(file: &'a Path, text: &'a str, profile: &Profile) -> Self {
        let types = Arc::new(Types::new(profile.types.clone(), profile.zone));
        let templates = Templates::new(Arc::clone(&types));
        let settings = [("settings".to_owned(), Known::values(profile.settings.names()))].into();
        Self {
            settings,
            templates,
            replies: BTreeMap::new(),
            requests: BTreeMap::new(),
            file,
            text,
            types,
            problems: Vec::new(),
        }
    }

    /// Notes a problem at a place.
    pub fn problem(&mut self, path: &[impl AsRef<str>], what: impl Into<String>) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let path = place(path);
        let location = location(self.text, &path);
        let problem = Problem { file: self.file.to_owned(), location, field: path.join("."), what: what.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Finds a type by its use.
    pub fn type_use(&mut self, path: &[impl AsRef<str>], written: &str) -> Option<TypeUse> {
        let found = self.types.find(written);
        if found.is_none() {
            let names = self.types.names();
            self.problem(path, format!("there is no type `{written}`; expected one of {names}"));
        }
        found
    }

    /// Compiles expressions that are evaluated together; `paths` are their places. What they need is checked by the caller.
    pub fn scope(&mut self, name: &str, fields: &[(String, String)], paths: &[Vec<String>]) -> Scope {
        self.templates.add_scope(name, &[], fields).unwrap_or_else(|(position, bad)| {
            let path = paths.get(position).cloned().unwrap_or_default();
            self.problem(&path, bad.to_string());
            Scope::default()
        })
    }

    /// Compiles one expression against the variables it may use.
    pub fn expression(&mut self, path: &[impl AsRef<str>], name: &str, source: &str, vars: &known::Scope) -> Scope {
        let path = place(path);
        let field = path.last().cloned().unwrap_or_default();
        let scope = self.scope(name, &[(field, source.to_owned())], std::slice::from_ref(&path));
        self.check(&path, source, vars);
        scope
    }

    /// Compiles named expressions against the variables they may use.
    pub fn named(
        &mut self,
        path: &[impl AsRef<str>],
        name: &str,
        sources: &Named<String>,
        vars: &known::Scope,
    ) -> Scope {
        let path = place(path);
        let below = |field: &str| path.iter().cloned().chain([field.to_owned()]).collect::<Vec<_>>();
        let fields: Vec<_> = sources.iter().map(|(field, source)| (field.to_owned(), source.clone())).collect();
        let paths: Vec<_> = sources.names().map(below).collect();
        let scope = self.scope(name, &fields, &paths);
        for (path, (_, source)) in paths.iter().zip(&fields) {
            self.check(path, source, vars);
        }
        scope
    }

    /// Compiles a tree of outputs against the variables it may use. `lets` are variables made first, in order, each with its place.
    pub fn mapping(
        &mut self,
        path: &[impl AsRef<str>],
        name: &str,
        lets: &[(Vec<String>, String, String)],
        node: &Node,
        vars: &known::Scope,
    ) -> Option<Mapping> {
        let mut vars = vars.clone();
        for (path, variable, source) in lets {
            self.check(path, source, &vars);
            vars.insert(variable.clone(), known::of_path(source, &vars));
        }
        let path = place(path);
        self.check_node(&path, node, &vars);
        let sources: Vec<_> = lets.iter().map(|(_, variable, source)| (variable.clone(), source.clone())).collect();
        match Mapping::compile(&mut self.templates, name, &sources, node) {
            Ok(mapping) => Some(mapping),
            Err(BadNode::Let { position, bad }) => {
                let path = lets.get(position).map(|(path, ..)| path.clone()).unwrap_or_default();
                self.problem(&path, bad.to_string());
                None
            }
            Err(BadNode::Field { path: below, bad }) => {
                let path: Vec<_> = path.into_iter().chain(below).collect();
                self.problem(&path, bad.to_string());
                None
            }
        }
    }

    /// Checks that what an expression uses is there.
    pub fn check(&mut self, path: &[impl AsRef<str>], source: &str, vars: &known::Scope) {
        let needs = self.templates.needs_of_expression(source);
        if let Err(what) = known::check(&needs, vars) {
            self.problem(path, what);
        }
    }

    /// Checks that the settings that a request uses are there; what else it uses is given by the steps, and checked with them.
    pub fn check_settings(&mut self, path: &[impl AsRef<str>], needs: Vec<String>) {
        let needs: Vec<_> = needs.into_iter().filter(|need| need.starts_with("settings")).collect();
        if let Err(what) = known::check(&needs, &self.settings) {
            self.problem(path, what);
        }
    }

    fn check_node(&mut self, path: &[String], node: &Node, vars: &known::Scope) {
        let below = |field: &str| path.iter().cloned().chain([field.to_owned()]).collect::<Vec<_>>();
        match node {
            Node::Leaf(source) if source == crate::mapping::RECORDS => {}
            Node::Leaf(source) => self.check(path, source, vars),
            Node::Object(fields) => {
                for (field, node) in fields {
                    self.check_node(&below(field), node, vars);
                }
            }
            Node::Each { each, name, map } => {
                self.check(&below("$each"), each, vars);
                let mut vars = vars.clone();
                vars.insert(name.clone(), known::of_path(each, &vars).element());
                vars.insert("index".to_owned(), Known::Value);
                self.check_node(&below("$map"), map, &vars);
            }
        }
    }

    /// Checks what no type of a field can: numbers against each other, names against each other.
    pub(super) fn check_profile(&mut self, profile: &Profile) {
        let limits = &profile.limits;
        let mut hold = |fits: bool, path: &[&str], what: &str| {
            if !fits {
                self.problem(path, what);
            }
        };
        hold(profile.version > 0, &["version"], "expected a whole number from 1");
        hold((1..=1_000).contains(&profile.regions.len()), &["regions"], "expected 1 to 1000 regions");
        hold(rpc::form::is_line(&profile.department, 64), &["department"], "expected 1 to 64 characters on one line");
        hold(profile.items.len() <= 256, &["items"], "expected at most 256 items");
        for item in profile.items.names() {
            hold(rpc::form::is_name(item), &["items", item], "expected 1 to 64 characters of a-z, 0-9, ., _ and -");
        }
        hold((1..=1_024).contains(&limits.concurrency), &["limits", "concurrency"], "expected 1 to 1024");
        hold(limits.reserved < limits.concurrency, &["limits", "reserved"], "expected less than `concurrency`");
        hold(limits.rate > 0 && limits.burst > 0, &["limits", "rate"], "expected `rate` and `burst` above 0");
        let millis = limits.timeout.get().as_millis();
        hold((1..=30_000).contains(&millis), &["limits", "timeout"], "expected 1ms to 30s");
        let millis = limits.wait.get().as_millis();
        hold(millis <= 5_000, &["limits", "wait"], "expected at most 5s");
        let bytes = limits.reply_bytes_max;
        hold((1..=4 * 1024 * 1024).contains(&bytes), &["limits", "reply_bytes_max"], "expected 1 to 4194304");
        for (code, verdict) in profile.codes.iter() {
            if matches!(verdict, Verdict::Skip | Verdict::Enough) {
                self.problem(&["codes", code], "`skip` and `enough` have a meaning only in a step's own `codes`");
            }
        }
        let mut seen = BTreeSet::new();
        for (position, golden) in profile.golden.iter().enumerate() {
            if !seen.insert(&golden.name) {
                let path = ["golden", &position.to_string(), "name"];
                self.problem(&path, "another case has this name");
            }
        }
    }

    /// Compiles what exchanges are beyond their bytes.
    pub(super) fn compile_exchanges(&mut self, profile: &Profile) -> BTreeMap<String, ExchangePlan> {
        let mut plans = BTreeMap::new();
        for (name, exchange) in profile.exchanges.iter() {
            let reply = self.replies.get(name).cloned().unwrap_or(Known::Anything);
            for (field, _) in exchange.expect.iter() {
                let path: Vec<&str> = field.split('.').collect();
                if let Err(what) = reply.follow(&path) {
                    self.problem(&["exchanges", name, "expect", field], what);
                }
            }
            let fields: Vec<_> =
                exchange.expect.iter().map(|(field, source)| (field.to_owned(), source.clone())).collect();
            let paths: Vec<_> =
                exchange.expect.names().map(|field| place(&["exchanges", name, "expect", field])).collect();
            let expect = (!fields.is_empty()).then(|| self.scope(&format!("{name}/expect"), &fields, &paths));
            if let Some(scope) = &expect {
                self.requests.entry(name.to_owned()).or_default().push(scope.template().to_owned());
            }
            plans.insert(name.to_owned(), ExchangePlan { changes: exchange.changes, expect });
        }
        plans
    }

    /// Hands over what was compiled, and the problems in file order.
    pub(super) fn finish(mut self) -> (Templates, Vec<Problem>) {
        self.problems.sort_by_key(|problem| problem.location);
        (self.templates, self.problems)
    }
}
