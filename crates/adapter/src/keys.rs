//! A profile's own keys: one that opens what identity sealed for it, one that signs its proofs.

use std::path::Path;
use std::sync::Arc;

use rpc::jose::{AgreementKey, Curve, KeyError, SigningKey};
use rpc::keyring::OwnKey;
use runtime::Ids;

/// The keys of one profile.
///
/// Shape: files `<dir>/<department>/<region>/{seal,sign}.pem`, made when they are missing, readable by their owner alone. Replicas
/// of a profile share them: what was sealed for one must open at another.
#[derive(Clone, Debug)]
pub struct ProfileKeys {
    /// Opens what identity seals (X25519).
    pub seal: Arc<AgreementKey>,
    /// Signs proofs (Ed25519).
    pub sign: Arc<SigningKey>,
}

impl ProfileKeys {
    /// Loads or makes the keys of a profile.
    pub fn load_or_create(dir: &Path, profile: &str, ids: &Ids) -> Result<Self, KeyError> {
        let dir = dir.join(profile);
        Ok(Self {
            seal: Arc::new(AgreementKey::load_or_create(&dir.join("seal.pem"), Curve::X25519, ids)?),
            sign: Arc::new(SigningKey::load_or_create(&dir.join("sign.pem"), ids)?),
        })
    }

    /// What is registered at identity.
    #[must_use]
    pub fn own(&self, profile: &str) -> [OwnKey; 2] {
        let owner = owner(profile);
        [OwnKey::sign(&owner, &self.sign), OwnKey::seal(&owner, &self.seal)]
    }
}

/// The mesh key of a profile, which is also the owner of its keys.
#[must_use]
pub(crate) fn owner(profile: &str) -> String {
    format!("adapter/{profile}")
}
