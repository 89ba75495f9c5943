//! The sections that belong to the binary itself. Those of the services are theirs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runtime::config::Duration;
use runtime::http;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use crate::Role;

/// What this process does.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// The roles to run; none named means all that are not elsewhere by `mesh` (the sandbox only where it is enabled).
    pub roles: Vec<Role>,
    /// How long a start may take until every role is ready; after it the process says what is missing and goes on trying.
    pub ready_timeout: Duration,
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

/// What the public listener shows and allows.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Public {
    /// The certificate chain (PEM); empty: plain bytes, for a machine of one's own or behind a TLS terminator.
    pub cert_file: PathBuf,
    /// Its private key (PEM), readable by the owner alone.
    pub key_file: PathBuf,
    /// What the listener allows.
    pub limits: Limits,
}

/// The listener for other processes' calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MeshListener {
    /// What the listener allows.
    pub limits: Limits,
}

/// The callbacks listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Callbacks {
    /// What the listener allows.
    pub limits: http::Limits,
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

/// The certificates with which the roles of this process meet other roles.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// A directory with one directory a role, each with `ca.pem`, `cert.pem` and `key.pem`, as `lastmile ca issue` writes them. Empty
    /// where all roles share a process.
    pub directory: PathBuf,
}

/// The three files of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleFiles {
    /// The certificate of the internal CA.
    pub ca: PathBuf,
    /// The role's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What only tests and drills set.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drill {
    /// `point` or `point:hit`: the process kills itself there. Empty: never.
    pub crash: String,
    /// The same, any number: the process stands still there (SIGSTOP) until it is told to go on (SIGCONT).
    pub stop: Vec<String>,
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
    /// Whether the role may run at all, and whether the other roles use it. Never in production.
    pub enabled: bool,
    /// Where its systems are, for roles of another process.
    pub at: At,
    /// The systems themselves.
    pub systems: sandbox::Config,
}

/// Where the sandbox's systems are, each `host:port`; empty where the role runs in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct At {
    /// The control port; the demonstration needs it.
    pub control: String,
    /// WeChat Pay.
    pub wechatpay: String,
    /// Alipay.
    pub alipay: String,
    /// The traffic police of Changsha.
    pub police_430100: String,
    /// The traffic police of Taiyuan.
    pub police_140100: String,
}

/// Where the other roles are.
pub type Mesh = BTreeMap<String, Peer>;

impl Default for Serve {
    fn default() -> Self {
        Self { roles: Vec::new(), ready_timeout: Duration::from_secs(30), drain_timeout: Duration::from_secs(20) }
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

impl Peer {
    /// `host:port` of the endpoint; `None` where it is not written as it must be.
    pub fn address(&self) -> Option<&str> {
        let address = self.endpoint.strip_prefix("https://")?;
        let (host, port) = address.rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok()).then_some(address)
    }
}

impl Tls {
    /// The files of a role.
    pub fn files(&self, role: Role) -> RoleFiles {
        RoleFiles::in_directory(&self.directory.join(role.name()))
    }

    /// Whether there are certificates at all.
    pub fn is_configured(&self) -> bool {
        !self.directory.as_os_str().is_empty()
    }
}

impl RoleFiles {
    /// The files that `lastmile ca issue` writes into a directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            ca: directory.join(rpc::ca::CA_CERT_FILE),
            cert: directory.join(rpc::ca::CERT_FILE),
            key: directory.join(rpc::ca::KEY_FILE),
        }
    }
}
