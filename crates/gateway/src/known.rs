//! A caller whose token was verified, with what is attached to its calls.

use std::sync::{Mutex, PoisonError};

use contracts::catalog::v1::Route;
use contracts::common::v1::AssuranceLevel;
use http::HeaderValue;
use rpc::Principal;
use rpc::token::{Assertion, CitizenToken, EntryPointToken, NumericDate, StaffKind, StaffToken};
use runtime::Timestamp;

use crate::error::Refusal;
use crate::peek::Envelope;
use crate::policy::Caller;
use crate::shared::Shared;

/// Assertions kept for one token: as many as it has profiles, twice.
const ASSERTIONS_MAX: usize = 16;

/// What stands before the token in an `authorization` header.
pub(crate) const SCHEME: &str = "Bearer ";

/// A verified caller.
#[derive(Debug)]
pub(crate) struct Known {
    /// What policy sees.
    pub(crate) caller: Caller,
    /// Until when this holds: the end of the token.
    pub(crate) until: Timestamp,
    /// The `authorization` header as it came, for roles that verify it themselves. Marked sensitive.
    pub(crate) credential: Option<HeaderValue>,
    sent: (Box<[u8]>, bool),
    assertions: Mutex<Vec<Signed>>,
}

/// An assertion that was made.
#[derive(Debug, Clone)]
struct Signed {
    profile: String,
    item: String,
    region: String,
    /// From then on a new one is made.
    fresh_until: Timestamp,
    attached: Attached,
}

/// The two headers of a department call.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) assertion: HeaderValue,
    pub(crate) sealed: HeaderValue,
}

impl Known {
    /// A caller that showed nothing.
    pub(crate) fn anonymous() -> Self {
        Self::new(Caller::anonymous(), Timestamp::from_micros(i64::MAX), None)
    }

    pub(crate) fn entry_point(token: EntryPointToken, until: Timestamp, credential: HeaderValue) -> Self {
        let principal = Principal::EntryPoint { id: token.sub.into() };
        Self::new(Caller { principal, ..Caller::anonymous() }, until, Some(credential))
    }

    pub(crate) fn citizen(token: CitizenToken, until: Timestamp, credential: HeaderValue) -> Self {
        let caller = Caller {
            principal: Principal::Citizen { entry_point: token.act.sub.into(), subject: token.sub.into() },
            level: AssuranceLevel::try_from(i32::from(token.level)).unwrap_or_default(),
            consents: token.consents,
            sealed: token.sealed,
        };
        Self::new(caller, until, Some(credential))
    }

    pub(crate) fn staff(token: StaffToken, until: Timestamp, credential: HeaderValue) -> Self {
        let operator = token.kind == StaffKind::Operator;
        let principal = Principal::Staff { subject: token.sub.into(), operator };
        Self::new(Caller { principal, ..Caller::anonymous() }, until, Some(credential))
    }

    fn new(caller: Caller, until: Timestamp, credential: Option<HeaderValue>) -> Self {
        Self { caller, until, credential, sent: (Box::default(), false), assertions: Mutex::default() }
    }

    /// Keeps the bytes that the credential was sent as, and whether they are coded.
    #[must_use]
    pub(crate) fn sent_as(mut self, (bytes, is_coded): (&[u8], bool)) -> Self {
        self.sent = (bytes.into(), is_coded);
        self
    }

    /// Whether it is the caller whose credential was sent so.
    pub(crate) fn was_sent_as(&self, (bytes, is_coded): (&[u8], bool)) -> bool {
        self.sent.1 == is_coded && *self.sent.0 == *bytes
    }

    /// The headers for a call to a profile: made once per item and region, then kept for half of their life.
    pub(crate) fn attached(
        &self,
        shared: &Shared,
        route: &Route,
        envelope: &Envelope<'_>,
    ) -> Result<Attached, Refusal> {
        let now = shared.context.clock.now();
        let mut assertions = self.assertions.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |signed: &Signed| {
            signed.profile == route.profile && signed.item == envelope.item && signed.region == envelope.region
        };
        if let Some(signed) = assertions.iter().find(|signed| same(signed))
            && now < signed.fresh_until
        {
            return Ok(signed.attached.clone());
        }
        let signed = self.sign(shared, route, envelope, now)?;
        let attached = signed.attached.clone();
        assertions.retain(|kept| !same(kept) && now < kept.fresh_until);
        if assertions.len() >= ASSERTIONS_MAX {
            assertions.remove(0);
        }
        assertions.push(signed);
        Ok(attached)
    }

    fn sign(&self, shared: &Shared, route: &Route, envelope: &Envelope<'_>, now: Timestamp) -> Result<Signed, Refusal> {
        let audience_missing = || Refusal::AudienceMissing { profile: route.profile.clone() };
        let sealed = self.caller.sealed.get(&route.profile).ok_or_else(audience_missing)?;
        let life = rpc::token::ASSERTION_LIFE_MAX;
        let claims = Assertion {
            iss: rpc::token::GATEWAY.to_owned(),
            aud: route.profile.clone(),
            item: envelope.item.to_owned(),
            region: envelope.region.to_owned(),
            entry_point: self.caller.entry_point().to_owned(),
            inner_hash: Some(Assertion::hash_of(sealed)),
            exp: NumericDate::of(now.plus(life)),
            iat: NumericDate::of(now),
            jti: shared.context.ids.hex(32),
        };
        let assertion = shared.signer.sign(rpc::token::typ::ASSERTION, &claims).map_err(|error| {
            tracing::error!(%error, "the gateway's key does not sign");
            Refusal::NotReady
        })?;
        // Both are made of base64url and dots; a token that identity did not make so could not have been verified.
        let header = |text: &str| HeaderValue::from_str(text).map_err(|_| audience_missing());
        Ok(Signed {
            profile: route.profile.clone(),
            item: envelope.item.to_owned(),
            region: envelope.region.to_owned(),
            fresh_until: now.plus(life / 2),
            attached: Attached { assertion: header(&assertion)?, sealed: header(sealed)? },
        })
    }
}
