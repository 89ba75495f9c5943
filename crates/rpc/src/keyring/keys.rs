use std::collections::BTreeMap;

use contracts::identity::v1::{self as proto, KeyUse};
use runtime::Timestamp;

use crate::jose::{AgreementKey, AgreementPublicKey, Jwk, JwkError, SigningKey, VerifyingKey};
use crate::{time, token};

/// A public key, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Verifies signatures of its owner.
    Verify(VerifyingKey),
    /// Seals what only its owner may read.
    Seal(AgreementPublicKey),
}

impl PublicKey {
    /// Reads a public JWK.
    ///
    /// Errors: Unsupported when it is none that does what `key_use` says, or that is unspecified; else as [`Jwk`] says.
    pub fn from_jwk(key_use: KeyUse, jwk: &Jwk) -> Result<Self, JwkError> {
        match key_use {
            KeyUse::Sign => jwk.to_verifying_key().map(Self::Verify),
            KeyUse::Seal => jwk.to_agreement_key().map(Self::Seal),
            KeyUse::Unspecified => Err(JwkError::Unsupported),
        }
    }

    /// Reads a public JWK as JSON.
    ///
    /// Errors: as [`PublicKey::from_jwk`]; Unsupported when it is no JWK.
    pub fn from_json(key_use: KeyUse, jwk_json: &str) -> Result<Self, JwkError> {
        let jwk = serde_json::from_str(jwk_json).map_err(|_| JwkError::Unsupported)?;
        Self::from_jwk(key_use, &jwk)
    }

    /// The key in JSON form.
    pub fn jwk(&self) -> Jwk {
        match self {
            Self::Verify(key) => key.jwk(),
            Self::Seal(key) => key.jwk(),
        }
    }

    /// The JWK as JSON text, members always in the same order.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.jwk()).unwrap_or_default()
    }

    /// What it is for.
    pub fn key_use(&self) -> KeyUse {
        match self {
            Self::Verify(_) => KeyUse::Sign,
            Self::Seal(_) => KeyUse::Seal,
        }
    }

    /// The RFC 7638 thumbprint.
    pub fn kid(&self) -> String {
        match self {
            Self::Verify(key) => key.kid(),
            Self::Seal(key) => key.kid(),
        }
    }
}

/// A public key of the caller's own, to be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnKey {
    /// The role, or a mesh key of it: "gateway", "cases", "adapter/traffic/430100".
    pub owner: String,
    /// The public half.
    pub key: PublicKey,
}

impl OwnKey {
    /// The key that verifies what `key` signs.
    pub fn sign(owner: impl Into<String>, key: &SigningKey) -> Self {
        Self { owner: owner.into(), key: PublicKey::Verify(key.verifying_key()) }
    }

    /// The key that seals what `key` opens.
    pub fn seal(owner: impl Into<String>, key: &AgreementKey) -> Self {
        Self { owner: owner.into(), key: PublicKey::Seal(*key.public()) }
    }
}

/// A registered public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The role or mesh key that holds the private half.
    pub owner: String,
    /// The key.
    pub key: PublicKey,
    /// When it was registered.
    pub created: Timestamp,
}

impl Key {
    /// Reads a key of the contract; `None` where its use or kind is not known here.
    pub fn read(key: &proto::Key) -> Option<Self> {
        let key_use = KeyUse::try_from(key.r#use).ok()?;
        let created = time::required(key.create_time.as_ref()).ok()?;
        let public = PublicKey::from_json(key_use, &key.jwk_json).ok()?;
        Some(Self { owner: key.owner.clone(), key: public, created })
    }

    /// Writes the key as the contract has it.
    pub fn to_proto(&self) -> proto::Key {
        proto::Key {
            owner: self.owner.clone(),
            r#use: self.key.key_use().into(),
            jwk_json: self.key.to_json(),
            create_time: Some(time::to_proto(self.created)),
        }
    }
}

/// The keys of one version of the list.
///
/// Shape: by owner; per owner, verification keys by `kid` and sealing keys by age. Immutable. Also a set of keys for the verifiers of
/// [`crate::token`].
#[derive(Clone, Debug, Default)]
pub struct Keys {
    version: i64,
    owners: BTreeMap<String, Owner>,
    signers: BTreeMap<String, token::Key>,
}

#[derive(Clone, Debug, Default)]
struct Owner {
    verify: BTreeMap<String, (VerifyingKey, Timestamp)>,
    seal: BTreeMap<(Timestamp, String), AgreementPublicKey>,
}

impl Keys {
    /// Collects keys into a list.
    pub fn new(version: i64, keys: impl IntoIterator<Item = Key>) -> Self {
        let mut list = Self { version, ..Self::default() };
        for Key { owner: name, key, created } in keys {
            let owner = list.owners.entry(name.clone()).or_default();
            match key {
                PublicKey::Verify(key) => {
                    let kid = key.kid();
                    owner.verify.insert(kid.clone(), (key, created));
                    // Identity registers a key once; should a list say otherwise, the first owner keeps it.
                    list.signers.entry(kid).or_insert_with(|| token::Key { key, owner: name.into() });
                }
                PublicKey::Seal(key) => drop(owner.seal.insert((created, key.kid()), key)),
            }
        }
        list
    }

    /// Reads identity's answer. A key of a kind that this build does not know is left out: one such key must not cost the others.
    pub(super) fn read(answer: &proto::ListKeysResponse) -> Self {
        let known = answer.keys.iter().filter_map(|key| {
            let read = Key::read(key);
            if read.is_none() {
                tracing::warn!(owner = key.owner, "a listed key is of no known kind and was left out");
            }
            read
        });
        Self::new(answer.version, known)
    }

    /// The version that identity gave this list; 0 for an empty one that nobody gave.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Finds the key that verifies a signature of `owner`.
    pub fn verify_key(&self, owner: &str, kid: &str) -> Option<VerifyingKey> {
        self.owners.get(owner)?.verify.get(kid).map(|(key, _)| *key)
    }

    /// Finds the newest key that seals to `owner`.
    pub fn seal_key(&self, owner: &str) -> Option<AgreementPublicKey> {
        self.owners.get(owner)?.seal.values().next_back().copied()
    }

    /// Every key: by owner, verification keys before sealing keys.
    pub fn iter(&self) -> impl Iterator<Item = Key> {
        self.owners.iter().flat_map(|(name, owner)| {
            let verify = owner.verify.values().map(|(key, created)| (PublicKey::Verify(*key), *created));
            let seal = owner.seal.iter().map(|((created, _), key)| (PublicKey::Seal(*key), *created));
            verify.chain(seal).map(|(key, created)| Key { owner: name.clone(), key, created })
        })
    }

    /// Returns those of `own` that are not listed.
    pub(super) fn missing<'k>(&self, own: &'k [OwnKey]) -> Vec<&'k OwnKey> {
        own.iter().filter(|key| !self.has(key)).collect()
    }

    fn has(&self, own: &OwnKey) -> bool {
        let Some(owner) = self.owners.get(&own.owner) else { return false };
        match own.key {
            PublicKey::Verify(key) => owner.verify.contains_key(&key.kid()),
            PublicKey::Seal(key) => owner.seal.values().any(|known| *known == key),
        }
    }
}

impl token::Keys for Keys {
    fn find(&self, kid: &str) -> Option<token::Key> {
        self.signers.get(kid).cloned()
    }
}
