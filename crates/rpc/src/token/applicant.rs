//! How an adapter learns for whom it works.

use std::fmt;
use std::sync::Arc;

use runtime::Clock;
use runtime::secret::Secret;

use super::attributes::Attributes;
use super::check::Check;
use super::claims::{Assertion, Grant, Inner};
use super::keys::Keys;
use super::rules::{Rules, Verified, Verifier};
use super::{ACCESS_LIFE_MAX, ASSERTION_LIFE_MAX, CASES, GATEWAY, GRANT_LIFE_MAX, IDENTITY, typ};
use crate::jose::{self, AgreementKey, Algorithm, JweError};

const OURS: &[Algorithm] = &[Algorithm::EdDsa];

/// What a request asks for, as its envelope says.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The item.
    pub item: &'a str,
    /// The region.
    pub region: &'a str,
    /// The method of DepartmentService, for example "SettleBill".
    pub operation: &'a str,
}

/// For whom a profile works: proven by identity, brought by the gateway or by cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// The citizen's pairwise pseudonym at this profile.
    pub subject: String,
    /// What identity sealed for this profile.
    pub attributes: Attributes,
    /// How sure identity is: 1 to 4.
    pub level: u8,
    /// Item codes consented to.
    pub consents: Vec<String>,
    /// The entry point through which the call came.
    pub entry_point: String,
    /// Set when a case acts.
    pub grant: Option<Grant>,
}

/// Opens what a profile receives.
pub struct ApplicantDoor {
    keys: Vec<Arc<AgreementKey>>,
    signers: Arc<dyn Keys>,
    assertions: Verifier,
    inners: Verifier,
    grants: Verifier,
}

impl ApplicantDoor {
    /// For one profile. `opening` holds its sealing keys, the newest first; an old one stays while a grant sealed for it can be alive.
    pub fn new(profile: &str, opening: Vec<Arc<AgreementKey>>, signers: Arc<dyn Keys>, clock: &Clock) -> Self {
        let verifier = |typ, issuers, life_max, subject| {
            let audience = profile.to_owned();
            let rules = Rules { typ, typ_optional: false, algorithms: OURS, issuers, audience, life_max, subject };
            Verifier::new(rules, signers.clone(), clock.clone())
        };
        Self {
            keys: opening,
            assertions: verifier(typ::ASSERTION, &[GATEWAY, CASES], ASSERTION_LIFE_MAX, false),
            inners: verifier(typ::INNER, &[IDENTITY], ACCESS_LIFE_MAX, true),
            grants: verifier(typ::INNER, &[IDENTITY], GRANT_LIFE_MAX, true),
            signers,
        }
    }

    /// The same as [`ApplicantDoor::open`], but a key that is not known yet is waited for, a second at most: a gateway that has just
    /// started calls as soon as identity lists its key, and this list may be a little older.
    ///
    /// Errors: as [`ApplicantDoor::open`].
    pub async fn admit(
        &self,
        assertion: &str,
        sealed: Option<&str>,
        asked: Asked<'_>,
    ) -> Result<Option<Applicant>, Check> {
        match self.open(assertion, sealed, asked) {
            Err(Check::Key) => {
                self.signers.renewed().await;
                self.open(assertion, sealed, asked)
            }
            decided => decided,
        }
    }

    /// Checks assertion and sealed token against what is asked. `None` when the assertion is sound and brings no citizen.
    ///
    /// Errors: the first check that failed. A gateway never uses a grant, and cases never acts without one.
    pub fn open(&self, assertion: &str, sealed: Option<&str>, asked: Asked<'_>) -> Result<Option<Applicant>, Check> {
        let Verified { claims, issuer, .. } = self.assertions.verify::<Assertion>(assertion)?;
        if claims.item != asked.item {
            return Err(Check::Item);
        }
        if claims.region != asked.region {
            return Err(Check::Region);
        }
        if claims.inner_hash != sealed.map(Assertion::hash_of) {
            return Err(Check::Binding);
        }
        let Some(sealed) = sealed else { return Ok(None) };
        let by_case = issuer.as_ref() == CASES;
        let inner = self.inner(sealed, by_case)?;
        check_grant(inner.grant.as_ref(), by_case, asked)?;
        Ok(Some(Applicant {
            subject: inner.sub,
            attributes: inner.attrs,
            level: inner.level,
            consents: inner.consents,
            entry_point: claims.entry_point,
            grant: inner.grant,
        }))
    }

    fn inner(&self, sealed: &str, by_case: bool) -> Result<Inner, Check> {
        let opened = self.unseal(sealed)?;
        let text = std::str::from_utf8(opened.expose()).map_err(|_| Check::Jwe(JweError::Open))?;
        let verifier = if by_case { &self.grants } else { &self.inners };
        Ok(verifier.verify::<Inner>(text)?.claims)
    }

    fn unseal(&self, sealed: &str) -> Result<Secret<Vec<u8>>, JweError> {
        let mut refused = JweError::Kid;
        for key in &self.keys {
            match jose::open(sealed, key) {
                Err(JweError::Kid) => {}
                Err(error) => refused = error,
                opened => return opened,
            }
        }
        Err(refused)
    }
}

fn check_grant(grant: Option<&Grant>, by_case: bool, asked: Asked<'_>) -> Result<(), Check> {
    match (grant, by_case) {
        (None, false) => Ok(()),
        (Some(grant), true) => {
            let covers = grant.item == asked.item && grant.operations.iter().any(|one| one == asked.operation);
            if covers { Ok(()) } else { Err(Check::Grant) }
        }
        (None, true) | (Some(_), false) => Err(Check::Grant),
    }
}

impl fmt::Debug for ApplicantDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicantDoor").field("keys", &self.keys).finish_non_exhaustive()
    }
}
