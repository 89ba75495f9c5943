//! Who may ask for a token: entry points, clerks and operators, by the key they sign with.

mod files;
mod sandbox;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use contracts::identity::v1::KeyUse;
use rpc::jose::{JwkError, KeyError, VerifyingKey};
use rpc::keyring::PublicKey;
use rpc::token;
use runtime::Ids;

use crate::config::{Config, StaffKind};
use crate::domain::level::Level;

pub use sandbox::{SANDBOX_CLERKS, SANDBOX_ENTRY_POINTS, SANDBOX_OPERATORS};

/// Why the registry cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A key of the configuration is no public key that is spoken.
    #[error("a key of {client} in the configuration cannot be used")]
    Key {
        /// The client's id.
        client: String,
        /// What is wrong with it.
        #[source]
        source: JwkError,
    },
    /// A key file cannot be used.
    #[error("key file {} of {client} cannot be used: {problem}", path.display())]
    File {
        /// The client's id.
        client: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Two clients have one key: nobody could tell them apart.
    #[error("a key of {0} belongs to another client as well")]
    Shared(String),
    /// A key of the sandbox cannot be made or read.
    #[error("cannot use the sandbox's key {}", path.display())]
    Sandbox {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
}

/// A client of the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its id: `iss` and `sub` of its assertions.
    pub id: String,
    /// What it may have.
    pub kind: ClientKind,
    /// A suspended client gets no token.
    pub suspended: bool,
}

/// What a client is, and what it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// A super app's back end.
    EntryPoint {
        /// What it may ask for.
        scopes: BTreeSet<String>,
        /// The highest assurance level that is believed of it.
        level_max: Level,
    },
    /// A clerk or operator.
    Staff {
        /// Which of the two.
        kind: StaffKind,
        /// The departments whose matters it may see.
        departments: BTreeSet<String>,
        /// The regions whose matters it may see.
        regions: BTreeSet<String>,
    },
}

/// The clients by the thumbprint of their keys. A set of keys for the verifiers of assertions: a key's owner is the client's id.
#[derive(Debug, Default)]
pub struct Registry {
    by_id: BTreeMap<String, Arc<Client>>,
    keys: token::KeySet,
}

impl Registry {
    /// Builds the registry of a configuration, making the sandbox's keys where it asks for them.
    ///
    /// Errors: the first key that cannot be used.
    pub fn build(config: &Config, ids: &Ids) -> Result<Self, RegistryError> {
        let mut registry = Self::default();
        for entry_point in &config.entry_points {
            let kind = ClientKind::EntryPoint { scopes: entry_point.scopes.clone(), level_max: entry_point.level_max };
            let client = Client { id: entry_point.id.clone(), kind, suspended: entry_point.suspended };
            registry.add_configured(client, &entry_point.jwks, &entry_point.key_files)?;
        }
        for staff in &config.staff {
            let (departments, regions) = (staff.departments.clone(), staff.regions.clone());
            let kind = ClientKind::Staff { kind: staff.kind, departments, regions };
            let client = Client { id: staff.id.clone(), kind, suspended: staff.suspended };
            registry.add_configured(client, &staff.jwks, &staff.key_files)?;
        }
        if let Some(dir) = &config.sandbox_keys_dir {
            sandbox::add(&mut registry, dir, ids)?;
        }
        Ok(registry)
    }

    /// Finds a client.
    pub fn client(&self, id: &str) -> Option<&Arc<Client>> {
        self.by_id.get(id)
    }

    fn has(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    fn add_configured(&mut self, client: Client, jwks: &[String], files: &[PathBuf]) -> Result<(), RegistryError> {
        let client = Arc::new(client);
        for jwk in jwks {
            let key = verifying(jwk).map_err(|source| RegistryError::Key { client: client.id.clone(), source })?;
            self.add(&client, key)?;
        }
        for path in files {
            let fault = |problem| RegistryError::File { client: client.id.clone(), path: path.clone(), problem };
            for key in files::read(path).map_err(fault)? {
                self.add(&client, key)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, client: &Arc<Client>, key: VerifyingKey) -> Result<(), RegistryError> {
        self.by_id.entry(client.id.clone()).or_insert_with(|| client.clone());
        self.keys.add(&client.id, key).map_err(|_| RegistryError::Shared(client.id.clone()))
    }
}

impl token::Keys for Registry {
    fn find(&self, kid: &str) -> Option<token::Key> {
        self.keys.find(kid)
    }
}

fn verifying(jwk_json: &str) -> Result<VerifyingKey, JwkError> {
    match PublicKey::from_json(KeyUse::Sign, jwk_json)? {
        PublicKey::Verify(key) => Ok(key),
        PublicKey::Seal(_) => Err(JwkError::Unsupported),
    }
}

#[cfg(test)]
mod tests;
