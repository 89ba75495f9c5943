//! The root of the configuration: one section a concern, one section a service.
//!
//! `deploy/config/default.toml` is embedded and is the reference; a test holds it equal to the defaults of the types.

mod limits;
mod sections;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use runtime::config::{Loader, Problem};
use runtime::{crash, telemetry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Role;

pub use limits::Limits;
pub use sections::{
    At, Callbacks, Data, Drill, Listen, Mesh, MeshListener, Operations, Peer, Public, RoleFiles, Sandbox, Serve,
    Stores, Tls,
};

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
    /// What the public listener shows.
    pub public: Public,
    /// The callbacks listener.
    pub callbacks: Callbacks,
    /// The operations listener.
    pub operations: Operations,
    /// The listener for other processes' calls.
    pub mesh_listener: MeshListener,
    /// Where the other roles are; a role that is not named here runs in this process.
    pub mesh: Mesh,
    /// The certificates with which the roles of this process meet other roles.
    pub tls: Tls,
    /// Logs and spans.
    pub telemetry: telemetry::Config,
    /// What only tests and drills set.
    pub drill: Drill,
    /// One database per service.
    pub store: Stores,
    /// What is shared while it lasts: quotas, wake-ups.
    pub cache: store::cache::Config,
    /// The public door.
    pub gateway: gateway::Config,
    /// People, entry points, tokens, keys.
    pub identity: identity::Config,
    /// The catalogue.
    pub catalog: catalog::Config,
    /// Orders, refunds, the ledger.
    pub payments: payments::Config,
    /// The departments' profiles.
    pub adapter: adapter::Config,
    /// Everything that changes the world.
    pub cases: cases::Config,
    /// Simulated departments and channels.
    pub sandbox: Sandbox,
}

impl Config {
    /// A loader that starts from the embedded defaults.
    pub fn loader() -> Loader {
        Loader::new(DEFAULTS)
    }

    /// The roles that this process runs, in mounting order: those that are named, else all that are nowhere else.
    pub fn roles(&self) -> Vec<Role> {
        let is_asked = |role: &Role| match self.serve.roles.as_slice() {
            [] if *role == Role::Sandbox => self.sandbox.enabled && self.sandbox.at == At::default(),
            [] => !self.mesh.contains_key(role.name()),
            named => named.contains(role),
        };
        Role::ALL.into_iter().filter(is_asked).collect()
    }

    /// Whether this process reaches other roles, or they it, over the network.
    pub fn is_split(&self) -> bool {
        !self.mesh.is_empty() || !self.listen.mesh.is_empty()
    }

    /// The same with every path of a key or journal below the data directory, unless it is absolute.
    #[must_use]
    pub fn placed(&self) -> Self {
        let mut config = self.clone();
        let place = |path: &mut PathBuf| *path = self.data.directory.join(&path).components().collect();
        place(&mut config.identity.keys_dir);
        place(&mut config.payments.payer_key_file);
        place(&mut config.payments.settlement.key_file);
        place(&mut config.payments.receipts.key_file);
        // Empty stays empty: there are none.
        if !config.payments.reconcile.bills_dir.as_os_str().is_empty() {
            place(&mut config.payments.reconcile.bills_dir);
        }
        if !config.payments.reconcile.departments_dir.as_os_str().is_empty() {
            place(&mut config.payments.reconcile.departments_dir);
        }
        place(&mut config.adapter.keys_dir);
        place(&mut config.cases.keys_dir);
        place(&mut config.sandbox.systems.data_dir);
        config
    }

    /// Where a role keeps its private keys.
    pub fn keys_dir(&self, role: Role) -> PathBuf {
        self.data.directory.join("keys").join(role.name())
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
        self.public.limits.validate("public.limits", problems);
        self.mesh_listener.limits.validate("mesh_listener.limits", problems);
        self.callbacks.limits.validate("callbacks.limits", problems);
        self.operations.limits.validate("operations.limits", problems);
        self.telemetry.validate("telemetry", problems);
        for (role, store) in self.stores() {
            store.validate(&format!("store.{role}"), problems);
        }
        let placed = self.placed();
        self.cache.validate("cache", problems);
        self.gateway.validate("gateway", problems);
        placed.identity.validate("identity", problems);
        placed.payments.validate("payments", problems);
        placed.adapter.validate("adapter", problems);
        placed.cases.validate("cases", problems);
        placed.sandbox.systems.validate("sandbox.systems", problems);
        if self.serve.roles.contains(&Role::Sandbox) && !self.sandbox.enabled {
            let problem = Problem::new("serve.roles", "names the sandbox, which is not enabled");
            problems.push(problem.hint("set sandbox.enabled = true, never in production"));
        }
        if !self.drill.crash.is_empty()
            && let Err(error) = self.drill.crash.parse::<crash::Plan>()
        {
            problems.push(Problem::new("drill.crash", error.to_string()));
        }
        if let Some(error) = self.drill.stop.iter().find_map(|plan| plan.parse::<crash::Plan>().err()) {
            problems.push(Problem::new("drill.stop", error.to_string()));
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
        for (key, peer) in &self.mesh {
            let path = format!("mesh.{key}");
            if let Err(error) = key.split('/').next().unwrap_or_default().parse::<Role>() {
                problems.push(Problem::new(path.clone(), error.to_string()));
            }
            if peer.address().is_none() {
                problems.push(Problem::new(format!("{path}.endpoint"), "must be https://host:port"));
            }
        }
        if self.is_split() && !self.tls.is_configured() {
            let problem = Problem::new("tls.directory", "is required: roles meet over mutual TLS only");
            problems.push(
                problem.hint("make the certificates with `lastmile ca init` and `lastmile ca issue --role ROLE`"),
            );
        }
        if self.public.cert_file.as_os_str().is_empty() != self.public.key_file.as_os_str().is_empty() {
            problems.push(Problem::new("public", "needs cert_file and key_file, or neither"));
        }
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

    fn differences(path: &str, left: &serde_json::Value, right: &serde_json::Value, found: &mut Vec<String>) {
        match (left.as_object(), right.as_object()) {
            (Some(left), Some(right)) => {
                for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
                    differences(&format!("{path}.{key}"), &left[key], &right[key], found);
                }
            }
            _ if left != right => found.push(format!("{path}: {left} {right}")),
            _ => {}
        }
    }

    fn paths(toml: &str) -> Vec<String> {
        problems(toml).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn the_reference_file_is_the_defaults_and_explains_every_key() {
        let loaded = Config::loader().load(Config::validate).expect("the defaults are right");
        let in_code = serde_json::to_value(Config::default()).expect("serialises");
        let in_file = serde_json::to_value(&loaded.value).expect("serialises");
        let mut differing = Vec::new();
        differences("", &in_file, &in_code, &mut differing);
        assert_eq!(differing, Vec::<String>::new(), "the file is left, the code right");
        let mut before = "";
        for line in DEFAULTS.lines() {
            // The rows of a table's list have their comment above the list.
            if line.contains(" = ") && !line.starts_with(['#', ' ']) {
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
        config.mesh.insert("payments".to_owned(), Peer { endpoint: "https://payments:7440".to_owned() });
        assert!(!config.roles().contains(&Role::Payments), "it is elsewhere");
        config.sandbox.at.wechatpay = "sandbox:7501".to_owned();
        assert!(!config.roles().contains(&Role::Sandbox), "it is elsewhere");
        config.serve.roles = vec![Role::Payments];
        assert_eq!(config.roles(), [Role::Payments], "the same file serves every process");
    }

    #[test]
    fn the_rules_between_keys_are_told_by_path() {
        assert_eq!(
            paths("[listen]\npublic = \"localhost\"\ncallbacks = \"127.0.0.1:7445\"\n"),
            ["listen.operations", "listen.public"]
        );
        assert_eq!(paths("[serve]\nroles = [\"sandbox\"]\n"), ["serve.roles"]);
        assert_eq!(paths("[drill]\ncrash = \"a:0\"\n"), ["drill.crash"]);
        assert_eq!(paths("[drill]\nstop = [\"a\", \"a:0\"]\n"), ["drill.stop"]);
        assert_eq!(
            paths("[public.limits]\nstreams_max = 0\n[mesh_listener.limits]\nstream_window = \"1KiB\"\nwindow = 1\n"),
            ["mesh_listener.limits.stream_window", "mesh_listener.limits.window", "public.limits.streams_max"]
        );
        let split = "[serve]\nroles = [\"cases\"]\n[mesh.payments]\nendpoint = \"https://payments:7440\"\n";
        assert_eq!(paths(split), ["tls.directory"]);
        let wrong = "[mesh.paymens]\nendpoint = \"https://a:1\"\n[mesh.cases]\nendpoint = \"http://a:1\"\n";
        assert_eq!(paths(wrong), ["mesh.cases.endpoint", "mesh.paymens", "tls.directory"]);
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
