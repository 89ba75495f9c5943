//! What the cores of a gateway share: snapshots, counters, keys. Nothing here is waited for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use http::HeaderValue;
use rpc::jose::SigningKey;
use rpc::keyring::KeyRing;
use rpc::routes::RouteTable;
use rpc::token::{self, Rules, Verifier, typ};
use runtime::{Context, Timestamp};

use crate::config::Config;
use crate::error::Refusal;
use crate::known::{Known, SCHEME};
use crate::observe::Observe;
use crate::policy::Plans;
use crate::proxy::Places;
use crate::quota::Quotas;

/// What the cores share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) context: Context,
    pub(crate) plans: Plans,
    pub(crate) routes: ArcSwap<RouteTable>,
    pub(crate) keys: KeyRing,
    pub(crate) signer: SigningKey,
    pub(crate) quotas: Quotas,
    pub(crate) places: Places,
    pub(crate) anonymous: Arc<Known>,
    pub(crate) observe: Observe,
    mesh_keys: RwLock<BTreeMap<String, Arc<str>>>,
    citizens: Verifier,
    entry_points: Verifier,
    staff: Verifier,
    verifications: Verifications,
}

impl Shared {
    pub(crate) fn new(config: Config, context: Context, keys: KeyRing, signer: SigningKey, plans: Plans) -> Self {
        let verifier = |typ| Verifier::new(Rules::at_gateway(typ), Arc::new(keys.clone()), context.clock.clone());
        Self {
            citizens: verifier(typ::CITIZEN),
            entry_points: verifier(typ::ENTRY_POINT),
            staff: verifier(typ::STAFF),
            verifications: Verifications::new(config.verifications_per_second),
            observe: Observe::new(&context.metrics),
            anonymous: Arc::new(Known::anonymous()),
            routes: ArcSwap::from_pointee(RouteTable::default()),
            quotas: Quotas::default(),
            places: Places::default(),
            mesh_keys: RwLock::default(),
            config,
            context,
            plans,
            keys,
            signer,
        }
    }

    /// Verifies a token that no cache knows. This is the expensive step of a call (a signature), so a flood of new tokens is bounded.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Known, Refusal> {
        if !self.verifications.take(now) {
            return Err(Refusal::NotReady);
        }
        let refused = |check: token::Check| Refusal::Unauthenticated { check: check.name() };
        let parsed = rpc::jose::parse(token, token::TOKEN_BYTES_MAX).map_err(|error| refused(error.into()))?;
        let mut credential = HeaderValue::from_str(&format!("{SCHEME}{token}"))
            .map_err(|_| Refusal::Unauthenticated { check: "bearer" })?;
        credential.set_sensitive(true);
        match parsed.header().typ.as_deref() {
            Some(typ::CITIZEN) => {
                let verified = self.citizens.verify(token).map_err(refused)?;
                Ok(Known::citizen(verified.claims, verified.expires, credential))
            }
            Some(typ::ENTRY_POINT) => {
                let verified = self.entry_points.verify(token).map_err(refused)?;
                Ok(Known::entry_point(verified.claims, verified.expires, credential))
            }
            Some(typ::STAFF) => {
                let verified = self.staff.verify(token).map_err(refused)?;
                Ok(Known::staff(verified.claims, verified.expires, credential))
            }
            _ => Err(refused(token::Check::Typ)),
        }
    }

    /// The mesh key of a profile.
    pub(crate) fn mesh_key(&self, profile: &str) -> Arc<str> {
        if let Some(key) = self.mesh_keys.read().unwrap_or_else(PoisonError::into_inner).get(profile) {
            return Arc::clone(key);
        }
        let key: Arc<str> = format!("adapter/{profile}").into();
        self.mesh_keys.write().unwrap_or_else(PoisonError::into_inner).insert(profile.to_owned(), Arc::clone(&key));
        key
    }

    /// What is missing before calls can be served.
    pub(crate) fn ready(&self) -> Result<(), String> {
        match (self.routes.load().version(), self.keys.is_registered()) {
            (0, _) => Err("no routes from the catalogue yet".to_owned()),
            (_, false) => Err("identity does not list the gateway's key yet".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Signatures that may be verified within one second, over all cores.
struct Verifications {
    per_second: u64,
    /// Second in the upper half, count in the lower.
    state: AtomicU64,
}

impl Verifications {
    fn new(per_second: u32) -> Self {
        Self { per_second: per_second.into(), state: AtomicU64::new(0) }
    }

    fn take(&self, now: Timestamp) -> bool {
        let second = u64::try_from(now.micros() / 1_000_000).unwrap_or(0) & 0xffff_ffff;
        let counted = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            let count = if state >> 32 == second { state & 0xffff_ffff } else { 0 };
            (count < self.per_second).then_some(second << 32 | (count + 1))
        });
        counted.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_new_tokens_is_bounded() {
        let verifications = Verifications::new(2);
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        assert!(verifications.take(at(1)) && verifications.take(at(1)));
        assert!(!verifications.take(at(1)));
        assert!(verifications.take(at(2)));
    }
}
