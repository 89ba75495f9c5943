//! The list of public keys, in SQL and in memory.
//!
//! `ListKeys` answers from memory alone. The copy is renewed after every registration here, and by a poll of one row for what another
//! replica has registered.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use contracts::identity::v1::{self as proto, KeyUse};
use rpc::Violation;
use rpc::jose::{AgreementPublicKey, JwkError, VerifyingKey};
use rpc::keyring::{Key, Keys, PublicKey};
use rpc::role::Role;
use runtime::{Clock, Timestamp};
use store::{Db, Tx};

use crate::domain::names;
use crate::error::Error;
use crate::repo::{self, KeyRow, Registered};

/// Keys of one owner for one use, old ones included.
const KEYS_OF_OWNER_MAX: i64 = 64;
/// Longest public key as JSON that is looked at.
const JWK_BYTES_MAX: usize = 4 * 1024;

/// One version of the list.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// As it is looked up.
    pub(crate) keys: Keys,
    /// As it is answered.
    answer: Vec<proto::Key>,
}

/// The list in force.
#[derive(Clone)]
pub(crate) struct KeyList(Arc<Shared>);

struct Shared {
    db: Db,
    clock: Clock,
    list: ArcSwap<List>,
    /// µs since 1970 of the last answer of the store.
    asked: AtomicI64,
}

impl KeyList {
    /// Reads the list.
    pub(crate) async fn load(db: Db, clock: Clock) -> Result<Self, store::Error> {
        let list = Self(Arc::new(Shared { db, clock, list: ArcSwap::default(), asked: AtomicI64::new(0) }));
        list.refresh().await?;
        Ok(list)
    }

    /// The list in memory.
    pub(crate) fn list(&self) -> Guard<Arc<List>> {
        self.0.list.load()
    }

    /// Answers `ListKeys`.
    pub(crate) fn answer(&self, known_version: i64) -> proto::ListKeysResponse {
        let list = self.list();
        let version = list.keys.version();
        let keys = if known_version == version { Vec::new() } else { list.answer.clone() };
        proto::ListKeysResponse { keys, version }
    }

    /// Returns how long ago the store last answered.
    pub(crate) fn age(&self) -> Duration {
        self.0.clock.now().since(Timestamp::from_micros(self.0.asked.load(Ordering::Acquire)))
    }

    /// Registers a role's key.
    ///
    /// Errors: Key when the owner is not the caller's, the key is of a kind that is not registered, or another has it.
    pub(crate) async fn register(&self, caller: Role, owner: &str, key_use: KeyUse, jwk: &str) -> Result<Key, Error> {
        if !names::may_own(caller, owner) {
            return Err(Error::Key { check: "owner" });
        }
        let key = read(key_use, jwk)?;
        self.keep(owner, key).await
    }

    /// Keeps a key of any kind that is spoken: identity's own, among them a P-256 key that entry points seal for.
    pub(crate) async fn keep(&self, owner: &str, key: PublicKey) -> Result<Key, Error> {
        let now = self.0.clock.now();
        let row = KeyRow {
            kid: key.kid(),
            owner: owner.to_owned(),
            key_use: key.key_use().into(),
            jwk_json: key.to_json(),
            created_at: now,
        };
        let work = async |mut tx: Tx| repo::add_key(&mut tx, &row, KEYS_OF_OWNER_MAX).await;
        let created = match self.0.db.transact(work).await? {
            Registered::Kept(row) => row.created_at,
            Registered::Taken => return Err(Error::Key { check: "owned_by_another" }),
            Registered::Full => return Err(Error::Key { check: "too_many" }),
        };
        self.refresh().await?;
        Ok(Key { owner: owner.to_owned(), key, created })
    }

    /// Reads the list again where its version has changed.
    pub(crate) async fn refresh(&self) -> Result<(), store::Error> {
        let version = {
            let mut reader = self.0.db.read().await?;
            repo::key_version(&mut reader).await?
        };
        if version != self.list().keys.version() {
            let (version, rows) = repo::keys(&self.0.db).await?;
            let answer: Vec<_> = rows.into_iter().map(to_proto).collect();
            let keys = Keys::new(version, answer.iter().filter_map(Key::read));
            let list = Arc::new(List { keys, answer });
            // Two readers may come back in either order; the newer list stays.
            self.0.list.rcu(|known| if known.keys.version() > version { known.clone() } else { list.clone() });
        }
        self.0.asked.store(self.0.clock.now().micros(), Ordering::Release);
        Ok(())
    }
}

fn to_proto(row: KeyRow) -> proto::Key {
    let create_time = Some(rpc::time::to_proto(row.created_at));
    proto::Key { owner: row.owner, r#use: row.key_use, jwk_json: row.jwk_json, create_time }
}

/// Reads what a role registers: Ed25519 to sign, X25519 to seal, and nothing private.
fn read(key_use: KeyUse, jwk: &str) -> Result<PublicKey, Error> {
    if jwk.len() > JWK_BYTES_MAX {
        return Err(Error::Invalid(vec![Violation::new("jwk_json", "must be a JWK of at most 4 KiB")]));
    }
    let key = PublicKey::from_json(key_use, jwk).map_err(|error| Error::Key {
        check: match error {
            JwkError::Private => "private",
            JwkError::Unsupported => "kind",
            JwkError::Point => "point",
            JwkError::Kid => "kid",
        },
    })?;
    match key {
        PublicKey::Verify(VerifyingKey::Ed25519(_)) | PublicKey::Seal(AgreementPublicKey::X25519(_)) => Ok(key),
        PublicKey::Verify(VerifyingKey::P256 { .. }) | PublicKey::Seal(AgreementPublicKey::P256 { .. }) => {
            Err(Error::Key { check: "kind" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_not_read_as_a_key() {
        let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let padded = |bytes: usize| format!("{key}{}", " ".repeat(bytes - key.len()));
        assert!(read(KeyUse::Sign, &padded(JWK_BYTES_MAX)).is_ok());
        assert!(matches!(read(KeyUse::Sign, &padded(JWK_BYTES_MAX + 1)), Err(Error::Invalid(_))));
    }
}
