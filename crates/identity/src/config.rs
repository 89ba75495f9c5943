//! What an operator sets for identity: who may call, and what a department may know of a citizen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration as Span;

use runtime::config::{Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::level::Level;
use crate::domain::names;

/// The settings of identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What an assertion may name as its audience instead of `identity`: the public base URL and the token endpoint's address.
    pub assertion_audiences: Vec<String>,
    /// Identity's own private keys and its pepper, made when they are missing. Below the data directory unless absolute.
    /// Losing the pepper loses who is who.
    pub keys_dir: PathBuf,
    /// How long a citizen token lives, at most 15 minutes.
    pub citizen_token_life: Duration,
    /// How long an entry point's own token lives, at most 15 minutes.
    pub entry_point_token_life: Duration,
    /// How long a clerk's or operator's token lives, at most 15 minutes.
    pub staff_token_life: Duration,
    /// How often another replica's new keys are looked for.
    pub keys_poll: Duration,
    /// How often used assertions and ended grants are purged.
    pub purge_interval: Duration,
    /// The callers.
    pub entry_points: Vec<EntryPoint>,
    /// Clerks and operators.
    pub staff: Vec<Staff>,
    /// What a profile learns of a citizen, by profile; one that is not named here gets name, document type and number.
    pub audiences: BTreeMap<String, Audience>,
    /// Development only: where keys for six entry points and two clerks are made at the first start. Unset, there are none.
    pub sandbox_keys_dir: Option<PathBuf>,
}

/// A super app's back end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntryPoint {
    /// Its id, such as `wechat`.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Its public keys (Ed25519 or P-256), each a JWK as JSON text.
    #[serde(default)]
    pub jwks: Vec<String>,
    /// More of them in files: a JWK, a JWK set, or PEM of a public key.
    #[serde(default)]
    pub key_files: Vec<PathBuf>,
    /// What it may ask for.
    #[serde(default = "all_scopes")]
    pub scopes: BTreeSet<String>,
    /// The highest assurance level that is believed of it; what it asserts beyond counts as this one.
    #[serde(default = "believed")]
    pub level_max: Level,
    /// A suspended entry point gets no token.
    #[serde(default)]
    pub suspended: bool,
}

/// A clerk or operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Staff {
    /// Its id, such as `clerk-1`. Not a person's name.
    pub id: String,
    /// What it is.
    pub kind: StaffKind,
    /// Its public keys, each a JWK as JSON text.
    #[serde(default)]
    pub jwks: Vec<String>,
    /// More of them in files: a JWK, a JWK set, or PEM of a public key.
    #[serde(default)]
    pub key_files: Vec<PathBuf>,
    /// The departments whose matters it may see, such as `traffic`; an operator needs none.
    #[serde(default)]
    pub departments: BTreeSet<String>,
    /// The regions whose matters it may see, GB/T 2260; a code covers those below it.
    #[serde(default)]
    pub regions: BTreeSet<String>,
    /// Whoever is suspended gets no token.
    #[serde(default)]
    pub suspended: bool,
}

/// Clerks resolve tasks; operators also see the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StaffKind {
    /// A clerk of a department.
    Clerk,
    /// An operator of this installation.
    Operator,
}

/// What a profile learns of a citizen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audience {
    /// The attributes that are sealed for it, where the entry point asserted them.
    pub attributes: BTreeSet<Attribute>,
}

/// One thing that is known of a citizen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// The name on the document.
    Name,
    /// The type of the document.
    DocumentType,
    /// The number of the document.
    DocumentNumber,
    /// The mobile phone number.
    Phone,
    /// The plates of the citizen's vehicles.
    Plates,
    /// The numbers of driving licences.
    Licences,
    /// Accounts at departments.
    Accounts,
    /// The region of residence.
    HomeRegion,
}

/// The depths that a service item can have, lower case: what an entry point may be allowed.
pub const SCOPES: [&str; 5] = ["inform", "query", "book", "pay", "handle"];

/// No token lives longer.
const TOKEN_LIFE_MAX: Span = Span::from_secs(15 * 60);

fn all_scopes() -> BTreeSet<String> {
    SCOPES.map(str::to_owned).into()
}

fn believed() -> Level {
    Level::Face
}

impl Default for Audience {
    fn default() -> Self {
        Self { attributes: [Attribute::Name, Attribute::DocumentType, Attribute::DocumentNumber].into() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            assertion_audiences: vec![
                "http://127.0.0.1:7443".to_owned(),
                "http://127.0.0.1:7443/oauth2/token".to_owned(),
            ],
            keys_dir: "keys/identity".into(),
            citizen_token_life: Duration::from_secs(15 * 60),
            entry_point_token_life: Duration::from_secs(15 * 60),
            staff_token_life: Duration::from_secs(15 * 60),
            keys_poll: Duration::from_secs(1),
            purge_interval: Duration::from_secs(60),
            entry_points: Vec::new(),
            staff: Vec::new(),
            audiences: BTreeMap::new(),
            sandbox_keys_dir: None,
        }
    }
}

impl Config {
    /// Notes everything that is wrong, each under its dotted path below `path`. Key files are read at the start, not here.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut note = |key: String, message: &str| problems.push(Problem::new(format!("{path}.{key}"), message));
        if self.keys_dir.as_os_str().is_empty() {
            note("keys_dir".to_owned(), "must name a directory");
        }
        let lives = [
            ("citizen_token_life", self.citizen_token_life, Span::from_secs(30), TOKEN_LIFE_MAX),
            ("entry_point_token_life", self.entry_point_token_life, Span::from_secs(30), TOKEN_LIFE_MAX),
            ("staff_token_life", self.staff_token_life, Span::from_secs(30), TOKEN_LIFE_MAX),
            ("keys_poll", self.keys_poll, Span::from_millis(100), Span::from_secs(60)),
            ("purge_interval", self.purge_interval, Span::from_secs(1), Span::from_secs(3_600)),
        ];
        for (key, span, low, high) in lives {
            if !(low..=high).contains(&span.get()) {
                note(key.to_owned(), &format!("must be from {} to {}", Duration::from(low), Duration::from(high)));
            }
        }
        self.validate_clients(&mut note);
        for profile in self.audiences.keys() {
            if !names::is_profile(profile) {
                note(format!("audiences.{profile}"), "is no profile, such as traffic/430100");
            }
        }
    }

    fn validate_clients(&self, note: &mut impl FnMut(String, &str)) {
        let mut ids = BTreeSet::new();
        for (index, entry_point) in self.entry_points.iter().enumerate() {
            let at = format!("entry_points[{index}]");
            client(&at, &entry_point.id, &entry_point.jwks, &entry_point.key_files, &mut ids, note);
            for scope in entry_point.scopes.iter().filter(|scope| !SCOPES.contains(&scope.as_str())) {
                note(format!("{at}.scopes"), &format!("{scope:?} is none of {}", SCOPES.join(", ")));
            }
        }
        for (index, staff) in self.staff.iter().enumerate() {
            let at = format!("staff[{index}]");
            client(&at, &staff.id, &staff.jwks, &staff.key_files, &mut ids, note);
            for department in staff.departments.iter().filter(|department| !names::is_client(department)) {
                note(format!("{at}.departments"), &format!("{department:?} is no department, such as traffic"));
            }
            for region in staff.regions.iter().filter(|region| !names::is_region(region)) {
                note(format!("{at}.regions"), &format!("{region:?} is no region's code of six digits"));
            }
        }
    }

    /// Returns what a profile learns of a citizen.
    pub fn attributes(&self, profile: &str) -> BTreeSet<Attribute> {
        self.audiences.get(profile).cloned().unwrap_or_default().attributes
    }
}

/// What entry points and staff have in common. One id names one client, whatever it is.
fn client(
    at: &str,
    id: &str,
    jwks: &[String],
    key_files: &[PathBuf],
    ids: &mut BTreeSet<String>,
    note: &mut impl FnMut(String, &str),
) {
    if !names::is_client(id) {
        note(format!("{at}.id"), "must be 1 to 63 characters of a-z, 0-9 and -, starting with a letter");
    }
    if !ids.insert(id.to_owned()) {
        note(format!("{at}.id"), "is the id of another entry point or clerk");
    }
    if jwks.is_empty() && key_files.is_empty() {
        note(format!("{at}.jwks"), "needs a key, here or in key_files");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_point(id: &str) -> EntryPoint {
        EntryPoint {
            id: id.to_owned(),
            name: id.to_owned(),
            jwks: vec!["{}".to_owned()],
            key_files: Vec::new(),
            scopes: all_scopes(),
            level_max: Level::Face,
            suspended: false,
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        let mut problems = Vec::new();
        Config::default().validate("identity", &mut problems);
        assert_eq!(problems, []);
    }

    #[test]
    fn every_problem_is_noted_at_once() {
        let twice = entry_point("wechat");
        let staff = Staff {
            id: "wechat".to_owned(),
            kind: StaffKind::Clerk,
            jwks: Vec::new(),
            key_files: Vec::new(),
            departments: ["Traffic".to_owned()].into(),
            regions: ["4301".to_owned()].into(),
            suspended: false,
        };
        let config = Config {
            citizen_token_life: Duration::from_secs(16 * 60),
            entry_points: vec![twice, EntryPoint { scopes: ["fly".to_owned()].into(), ..entry_point("We Chat") }],
            staff: vec![staff],
            audiences: [("traffic".to_owned(), Audience::default())].into(),
            ..Config::default()
        };
        let mut problems = Vec::new();
        config.validate("identity", &mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "identity.citizen_token_life",
                "identity.entry_points[1].id",
                "identity.entry_points[1].scopes",
                "identity.staff[0].id",
                "identity.staff[0].jwks",
                "identity.staff[0].departments",
                "identity.staff[0].regions",
                "identity.audiences.traffic",
            ]
        );
    }

    #[test]
    fn a_profile_gets_what_its_settings_say_and_else_the_three() {
        let only_name = Audience { attributes: [Attribute::Name].into() };
        let config = Config { audiences: [("library/430100".to_owned(), only_name)].into(), ..Config::default() };
        assert_eq!(config.attributes("library/430100"), [Attribute::Name].into());
        assert_eq!(config.attributes("traffic/430100").len(), 3);
    }
}
