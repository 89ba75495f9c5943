//! Who asks: the token that the gateway forwards, verified here once more. The gateway can forward a citizen and never invent one.

use std::sync::Arc;

use rpc::jose::{self, AgreementKey};
use rpc::keyring::KeyRing;
use rpc::token::{
    CASES, Check, CitizenToken, EntryPointToken, IDENTITY, Inner, Key, Keys, Rules, StaffKind, StaffToken, Verifier,
    typ,
};
use runtime::Clock;
use runtime::secret::{Pii, Secret};

use crate::error::Error;

/// A citizen, through an entry point.
#[derive(Debug)]
pub(crate) struct Citizen {
    /// The entry point that acts.
    pub(crate) entry_point: String,
    /// The pseudonym under which cases knows the citizen, at whatever entry point.
    pub(crate) owner: Pii<String>,
    /// How sure identity is: 1 to 4.
    pub(crate) level: u8,
    /// The profiles that the token addresses.
    pub(crate) profiles: Vec<String>,
    /// The token itself, for the exchange into a case grant.
    pub(crate) token: Secret<String>,
}

/// A clerk and what he may see.
#[derive(Debug)]
pub(crate) struct Clerk {
    /// Who, as written into the history; a staff id, never a name.
    pub(crate) subject: String,
    departments: Vec<String>,
    regions: Vec<String>,
}

/// Reads the tokens that callers bring.
pub(crate) struct Callers {
    citizens: Verifier,
    inners: Verifier,
    entry_points: Verifier,
    staff: Verifier,
    opening: Arc<AgreementKey>,
    ring: KeyRing,
}

/// Identity's keys on the ring: every token that is read here is identity's.
struct IdentityKeys(KeyRing);

impl Keys for IdentityKeys {
    fn find(&self, kid: &str) -> Option<Key> {
        let key = self.0.verify_key(IDENTITY, kid);
        if key.is_none() {
            // A key that was rotated in a moment ago; the next call finds it.
            self.0.hint();
        }
        key.map(|key| Key { key, owner: IDENTITY.into() })
    }
}

impl Callers {
    pub(crate) fn new(ring: KeyRing, opening: Arc<AgreementKey>, clock: &Clock) -> Self {
        let keys: Arc<dyn Keys> = Arc::new(IdentityKeys(ring.clone()));
        let verifier = |rules| Verifier::new(rules, keys.clone(), clock.clone());
        let inner = Rules { audience: CASES.to_owned(), ..Rules::at_gateway(typ::INNER) };
        Self {
            citizens: verifier(Rules::at_gateway(typ::CITIZEN)),
            inners: verifier(inner),
            entry_points: verifier(Rules::at_gateway(typ::ENTRY_POINT)),
            staff: verifier(Rules::at_gateway(typ::STAFF)),
            opening,
            ring,
        }
    }

    /// Whether any token can be judged: before identity's first answer a sound one would look forged.
    fn ready(&self) -> Result<(), Error> {
        if self.ring.age().is_some() { Ok(()) } else { Err(Error::Peer { peer: "identity", source: None }) }
    }

    /// The credential of a call.
    fn bearer<T>(&self, request: &tonic::Request<T>) -> Result<String, Error> {
        let headers = request.metadata().clone().into_headers();
        let token = rpc::token::bearer(&headers).ok_or(Error::Unauthenticated("bearer"))?;
        self.ready()?;
        Ok(token.to_owned())
    }

    /// Reads a citizen token and opens the pseudonym that identity sealed for cases.
    ///
    /// Errors: `Unauthenticated` with the check that failed.
    pub(crate) fn citizen<T>(&self, request: &tonic::Request<T>) -> Result<Citizen, Error> {
        let token = self.bearer(request)?;
        let claims: CitizenToken = self.citizens.verify(&token).map_err(refused)?.claims;
        let sealed = claims.sealed.get(CASES).ok_or(Error::Unauthenticated("sealed"))?;
        let inner = jose::open(sealed, &self.opening).map_err(|error| refused(error.into()))?;
        let inner = std::str::from_utf8(inner.expose()).map_err(|_| Error::Unauthenticated("sealed"))?;
        let inner: Inner = self.inners.verify(inner).map_err(refused)?.claims;
        if inner.grant.is_some() {
            return Err(Error::Unauthenticated("grant"));
        }
        let profiles = claims.sealed.into_keys().filter(|audience| audience != CASES).collect();
        Ok(Citizen {
            entry_point: claims.act.sub,
            owner: Pii::new(inner.sub),
            level: claims.level,
            profiles,
            token: Secret::new(token),
        })
    }

    /// Reads an entry point's own token and returns which it is.
    ///
    /// Errors: as [`Callers::citizen`]; `NotAllowed` for a citizen's token, which opens nothing of others.
    pub(crate) fn entry_point<T>(&self, request: &tonic::Request<T>) -> Result<String, Error> {
        let token = self.bearer(request)?;
        match self.entry_points.verify::<EntryPointToken>(&token) {
            Ok(verified) => Ok(verified.claims.sub),
            Err(Check::Typ) if self.citizens.verify::<CitizenToken>(&token).is_ok() => Err(Error::NotAllowed),
            Err(check) => Err(refused(check)),
        }
    }

    /// Reads a clerk's token.
    ///
    /// Errors: as [`Callers::citizen`]; `NotAllowed` for an operator, who decides nothing.
    pub(crate) fn clerk<T>(&self, request: &tonic::Request<T>) -> Result<Clerk, Error> {
        let claims: StaffToken = self.staff.verify(&self.bearer(request)?).map_err(refused)?.claims;
        match claims.kind {
            StaffKind::Clerk => {
                Ok(Clerk { subject: claims.sub, departments: claims.departments, regions: claims.regions })
            }
            StaffKind::Operator => Err(Error::NotAllowed),
        }
    }
}

fn refused(check: Check) -> Error {
    Error::Unauthenticated(check.name())
}

impl Citizen {
    /// Whether the token addresses the profile.
    pub(crate) fn addresses(&self, profile: &str) -> bool {
        self.profiles.iter().any(|known| known == profile)
    }
}

impl Clerk {
    /// Whether a profile is of the clerk's departments and regions.
    pub(crate) fn covers(&self, profile: &str) -> bool {
        let Some((department, region)) = profile.rsplit_once('/') else { return false };
        self.departments.iter().any(|known| known == department)
            && self.regions.iter().any(|known| covers(known, region))
    }

    /// The scope of the clerk's idempotency keys.
    pub(crate) fn scope(&self) -> String {
        format!("clerk/{}", self.subject)
    }
}

/// Whether a region code covers another: GB/T 2260 codes fill up with pairs of zeros, 430000 ⊃ 430100 ⊃ 430102.
fn covers(wide: &str, narrow: &str) -> bool {
    let mut stem = wide;
    while let Some(shorter) = stem.strip_suffix("00") {
        stem = shorter;
    }
    wide.len() == 6 && narrow.len() >= 6 && !stem.is_empty() && narrow.starts_with(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_covers_what_lies_below_it() {
        for (wide, narrow, is) in [
            ("430000", "430100", true),
            ("430100", "430100", true),
            ("430100", "430102", true),
            ("430100", "430200", false),
            ("430102", "430100", false),
            ("000000", "430100", false),
            ("", "430100", false),
            ("43", "430100", false),
        ] {
            assert_eq!(covers(wide, narrow), is, "{wide} {narrow}");
        }
    }

    #[test]
    fn a_clerk_sees_his_departments_and_regions() {
        let clerk = Clerk {
            subject: "c-1".to_owned(),
            departments: vec!["traffic".to_owned()],
            regions: vec!["430000".to_owned()],
        };
        assert!(clerk.covers("traffic/430100"));
        for other in ["traffic/140100", "hospital/430100", "traffic", "x/traffic/430100"] {
            assert!(!clerk.covers(other), "{other}");
        }
    }
}
