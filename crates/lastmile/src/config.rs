//! The root of the configuration: one section a concern, one section a service.
//!
//! `deploy/config/default.toml` is embedded and is the reference; a test holds it equal to the defaults of the types.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use runtime::config::{Duration, Loader, Problem};
use runtime::{crash, http, telemetry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Role;

/// The commented defaults that the binary carries.
pub const DEFAULTS: &str = include_str!("../../../deploy/config/default.toml");

/// Everything that can be configured.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What this process does.
    pub serve: Serve,
    /// Where embedded state lives.
    pub data: Data,
    /// The addresses that this process listens on.
    pub listen: Listen,
    /// The operations listener.
    pub operations: Operations,
    /// Where the other roles are; a role that is not named here runs in this process.
    pub mesh: BTreeMap<String, Peer>,
    /// The certificate with which this process meets other roles.
    pub tls: Tls,
    /// Logs and spans.
    pub telemetry: telemetry::Config,
    /// What only tests and drills set.
    pub drill: Drill,
    /// One database per service.
    pub store: Stores,
    /// Simulated departments and channels.
    pub sandbox: Sandbox,
}

/// What this process does.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// The roles to run; none named means all (the sandbox only where it is enabled).
    pub roles: Vec<Role>,
    /// How long work in hand may go on after a stop signal.
    pub drain_timeout: Duration,
}

/// Where embedded state lives.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// The directory of databases, keys and journals; one process at a time.
    pub directory: PathBuf,
}

/// The addresses that this process listens on, each `ip:port`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// gRPC, token endpoint and keys, for super-app back ends.
    pub public: String,
    /// Callbacks of payment channels.
    pub callbacks: String,
    /// Health and metrics; keep it inside.
    pub operations: String,
    /// gRPC with mutual TLS for the other roles; empty when all roles run here.
    pub mesh: String,
}

/// The operations listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Operations {
    /// What the listener allows.
    pub limits: http::Limits,
}

/// Where another role is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// `https://host:port` of the role's mesh listener.
    pub endpoint: String,
}

/// The certificate with which this process meets other roles. All three files, or none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The certificate of the internal CA (PEM).
    pub ca_file: PathBuf,
    /// This process's certificate (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM), readable by the owner alone.
    pub key_file: PathBuf,
}

/// What only tests and drills set.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drill {
    /// `point` or `point:hit`: the process kills itself there. Empty: never.
    pub crash: String,
}

/// One database per service. An empty address means a SQLite file in the data directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stores {
    /// Persons, entry points, keys.
    pub identity: store::Config,
    /// Orders and the ledger.
    pub payments: store::Config,
    /// Cases and their history.
    pub cases: store::Config,
}

/// Simulated departments and channels.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Whether the role may run at all. Never in production.
    pub enabled: bool,
}

impl Default for Serve {
    fn default() -> Self {
        Self { roles: Vec::new(), drain_timeout: Duration::from_secs(20) }
    }
}

impl Default for Data {
    fn default() -> Self {
        Self { directory: "var".into() }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            public: "127.0.0.1:7443".to_owned(),
            callbacks: "127.0.0.1:7444".to_owned(),
            operations: "127.0.0.1:7445".to_owned(),
            mesh: String::new(),
        }
    }
}

impl Config {
    /// A loader that starts from the embedded defaults.
    pub fn loader() -> Loader {
        Loader::new(DEFAULTS)
    }

    /// The roles that this process runs, in mounting order.
    pub fn roles(&self) -> Vec<Role> {
        let is_asked = |role: &Role| match self.serve.roles.as_slice() {
            [] => *role != Role::Sandbox || self.sandbox.enabled,
            named => named.contains(role),
        };
        Role::ALL.into_iter().filter(is_asked).collect()
    }

    /// Whether this process reaches other roles, or they it, over the network.
    pub fn is_split(&self) -> bool {
        !self.mesh.is_empty() || !self.listen.mesh.is_empty()
    }

    /// The stores of the roles that run here, each with its service's name; an empty address is filled in.
    pub fn stores(&self) -> Vec<(Role, store::Config)> {
        let all = [
            (Role::Identity, &self.store.identity),
            (Role::Payments, &self.store.payments),
            (Role::Cases, &self.store.cases),
        ];
        let here = self.roles();
        all.into_iter()
            .filter(|(role, _)| here.contains(role))
            .map(|(role, config)| (role, self.filled(role, config)))
            .collect()
    }

    fn filled(&self, role: Role, config: &store::Config) -> store::Config {
        let mut config = config.clone();
        if config.url.is_empty() {
            config.url = format!("sqlite:{}", self.data.directory.join(format!("{role}.db")).display());
        }
        config
    }

    /// Notes everything that the types cannot say.
    pub fn validate(&self, problems: &mut Vec<Problem>) {
        self.validate_listen(problems);
        self.validate_mesh(problems);
        self.operations.limits.validate("operations.limits", problems);
        self.telemetry.validate("telemetry", problems);
        for (role, store) in self.stores() {
            store.validate(&format!("store.{role}"), problems);
        }
        if self.serve.roles.contains(&Role::Sandbox) && !self.sandbox.enabled {
            let problem = Problem::new("serve.roles", "names the sandbox, which is not enabled");
            problems.push(problem.hint("set sandbox.enabled = true, never in production"));
        }
        if !self.drill.crash.is_empty()
            && let Err(error) = self.drill.crash.parse::<crash::Plan>()
        {
            problems.push(Problem::new("drill.crash", error.to_string()));
        }
        if self.data.directory.as_os_str().is_empty() {
            problems.push(Problem::new("data.directory", "must name a directory"));
        }
    }

    fn validate_listen(&self, problems: &mut Vec<Problem>) {
        let mut taken: BTreeMap<SocketAddr, &str> = BTreeMap::new();
        for (path, address) in self.listen.all() {
            match address.parse::<SocketAddr>() {
                Err(_) => problems.push(Problem::new(path, "must be ip:port, such as 127.0.0.1:7443")),
                Ok(address) if address.port() == 0 => {}
                Ok(address) => {
                    if let Some(other) = taken.insert(address, path) {
                        problems.push(Problem::new(path, format!("is the same address as {other}")));
                    }
                }
            }
        }
    }

    fn validate_mesh(&self, problems: &mut Vec<Problem>) {
        let here = self.roles();
        for (key, peer) in &self.mesh {
            let path = format!("mesh.{key}");
            match key.split('/').next().unwrap_or_default().parse::<Role>() {
                Err(error) => problems.push(Problem::new(path.clone(), error.to_string())),
                Ok(role) if here.contains(&role) => {
                    let problem = Problem::new(path.clone(), "is a role that also runs here");
                    problems
                        .push(problem.hint("name the roles of this process in serve.roles, or leave out the endpoint"));
                }
                Ok(_) => {}
            }
            let address = peer.endpoint.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':'));
            if address.and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
                problems.push(Problem::new(format!("{path}.endpoint"), "must be https://host:port"));
            }
        }
        let files = [&self.tls.ca_file, &self.tls.cert_file, &self.tls.key_file];
        let named = files.iter().filter(|file| !file.as_os_str().is_empty()).count();
        if named != files.len() && (named > 0 || self.is_split()) {
            let problem = Problem::new("tls", "needs ca_file, cert_file and key_file: roles meet over mutual TLS only");
            problems.push(problem.hint("make them with `lastmile ca init` and `lastmile ca issue --role ROLE`"));
        }
    }
}

impl Listen {
    /// The addresses that are set, each with its path in the configuration.
    pub fn all(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("listen.public", &self.public),
            ("listen.callbacks", &self.callbacks),
            ("listen.operations", &self.operations),
            ("listen.mesh", &self.mesh),
        ];
        all.into_iter()
            .filter(|(path, address)| *path != "listen.mesh" || !address.is_empty())
            .map(|(path, address)| (path, address.as_str()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(toml: &str) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("test.toml");
        std::fs::write(&path, toml).expect("writes");
        let loaded = Config::loader().file(path).load(Config::validate);
        let faults = loaded.err().unwrap_or_default();
        faults.into_iter().map(|fault| (fault.problem.path, fault.problem.message)).collect()
    }

    fn paths(toml: &str) -> Vec<String> {
        problems(toml).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn the_reference_file_is_the_defaults_and_explains_every_key() {
        let loaded = Config::loader().load(Config::validate).expect("the defaults are right");
        let in_code = serde_json::to_value(Config::default()).expect("serialises");
        let in_file = serde_json::to_value(&loaded.value).expect("serialises");
        assert_eq!(in_file, in_code);
        let mut before = "";
        for line in DEFAULTS.lines() {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(before.starts_with('#'), "no comment above: {line}");
            }
            before = line;
        }
        let keys = loaded.entries();
        for entry in keys.iter().filter(|entry| !["null", "{}"].contains(&entry.value.as_str())) {
            let key = entry.path.rsplit('.').next().unwrap_or_default();
            let is_written = DEFAULTS.lines().any(|line| line.starts_with(&format!("{key} = ")));
            assert!(is_written, "{} is not in the reference file", entry.path);
        }
    }

    #[test]
    fn all_roles_run_when_none_is_named_the_sandbox_only_when_enabled() {
        let mut config = Config::default();
        assert!(!config.roles().contains(&Role::Sandbox));
        assert_eq!(config.roles().len(), Role::ALL.len() - 1);
        config.sandbox.enabled = true;
        assert_eq!(config.roles(), Role::ALL);
        config.serve.roles = vec![Role::Cases];
        assert_eq!(config.roles(), [Role::Cases]);
    }

    #[test]
    fn the_rules_between_keys_are_told_by_path() {
        assert_eq!(
            paths("[listen]\npublic = \"localhost\"\ncallbacks = \"127.0.0.1:7445\"\n"),
            ["listen.operations", "listen.public"]
        );
        assert_eq!(paths("[serve]\nroles = [\"sandbox\"]\n"), ["serve.roles"]);
        assert_eq!(paths("[drill]\ncrash = \"a:0\"\n"), ["drill.crash"]);
        let split = "[serve]\nroles = [\"cases\"]\n[mesh.payments]\nendpoint = \"https://payments:7440\"\n";
        assert_eq!(paths(split), ["tls"]);
        let wrong = "[mesh.paymens]\nendpoint = \"https://a:1\"\n[mesh.cases]\nendpoint = \"http://a:1\"\n";
        assert_eq!(paths(wrong), ["mesh.cases", "mesh.cases.endpoint", "mesh.paymens", "tls"]);
        assert_eq!(paths("[store.cases]\nurl = \"mysql://x\"\n"), ["store.cases.url"]);
        assert_eq!(paths("[serve]\nroles = [\"gateway\"]\n[store.cases]\nurl = \"mysql://x\"\n"), Vec::<String>::new());
    }

    #[test]
    fn an_empty_store_address_is_a_file_of_the_service_in_the_data_directory() {
        let mut config = Config::default();
        config.data.directory = "/var/lib/lastmile".into();
        let urls: Vec<String> = config.stores().into_iter().map(|(_, store)| store.url).collect();
        assert_eq!(urls, ["identity", "payments", "cases"].map(|name| format!("sqlite:/var/lib/lastmile/{name}.db")));
    }
}
