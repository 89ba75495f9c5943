//! What an operator sets for adapters: which profiles run here, and where their back ends are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runtime::config::Problem;
use runtime::secret::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The settings of the adapter role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the profiles (`<department>/<region>.yaml`) and of the item schemas (`schemas/<item>/…`).
    pub departments_dir: PathBuf,
    /// Folder of the profiles' keys, which are made when they are missing, and of the last list of everybody's public keys.
    pub keys_dir: PathBuf,
    /// The profiles that run here, by name, for example `traffic/430100`.
    pub profiles: BTreeMap<String, Endpoint>,
}

/// Where a profile's back end is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Its address: `http://host:port` for SOAP, `host:port` for TCP. Nothing in a profile or a request can choose another.
    pub endpoint: String,
    /// The back end is a simulation; every answer of Describe says so.
    #[serde(default)]
    pub sandbox: bool,
    /// Values for the profile's `settings`, such as the caller's number or password at the department; never shown.
    #[serde(default)]
    pub settings: BTreeMap<String, Secret<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Self { departments_dir: "departments".into(), keys_dir: "keys/adapter".into(), profiles: BTreeMap::new() }
    }
}

impl Config {
    /// The file of a profile.
    #[must_use]
    pub fn profile_file(&self, name: &str) -> PathBuf {
        self.departments_dir.join(format!("{name}.yaml"))
    }

    /// The folder of the item schemas.
    #[must_use]
    pub fn schemas_dir(&self) -> PathBuf {
        self.departments_dir.join("schemas")
    }

    /// Notes every value that cannot be meant.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        for (name, endpoint) in &self.profiles {
            let at = format!("{path}.profiles.\"{name}\"");
            if !is_profile_name(name) {
                problems
                    .push(Problem::new(&at, "not a profile's name").hint("department/region, such as traffic/430100"));
                continue;
            }
            let file = self.profile_file(name);
            if !Path::new(&file).is_file() {
                problems.push(Problem::new(&at, format!("there is no profile {}", file.display())));
            }
            if endpoint.endpoint.is_empty() {
                let problem = Problem::new(format!("{at}.endpoint"), "no address");
                problems.push(problem.hint("http://host:port for SOAP, host:port for TCP"));
            }
        }
    }
}

/// A name becomes part of a path: nothing but letters, digits and dashes, and one slash.
fn is_profile_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.split_once('/').is_some_and(|(department, region)| is_part(department) && is_part(region))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_cannot_be_meant() {
        let endpoint = Endpoint { endpoint: String::new(), sandbox: false, settings: BTreeMap::new() };
        let names = ["traffic/430100", "../etc/passwd", "traffic"];
        let profiles = names.map(|name| (name.to_owned(), endpoint.clone())).into();
        let config = Config { departments_dir: "/nonexistent".into(), profiles, ..Config::default() };
        let mut problems = Vec::new();
        config.validate("adapter", &mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "adapter.profiles.\"../etc/passwd\"",
                "adapter.profiles.\"traffic\"",
                "adapter.profiles.\"traffic/430100\"",
                "adapter.profiles.\"traffic/430100\".endpoint",
            ]
        );
    }
}
