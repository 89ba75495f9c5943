//! Makes tokens: what identity puts its signature under.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rpc::jose::{self, AgreementPublicKey};
use rpc::keyring::Keys;
use rpc::token::{
    Actor, Attributes, CASES, CitizenToken, EntryPointToken, GATEWAY, Grant, IDENTITY, Inner, NumericDate, StaffToken,
    TOKEN_BYTES_MAX, typ,
};
use runtime::{Context, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{self, Config};
use crate::domain::citizen::{Citizen, narrow};
use crate::domain::level::Level;
use crate::domain::names;
use crate::domain::person::{PersonKey, Sector};
use crate::error::{AudienceProblem, Error};
use crate::keys::OwnKeys;

/// What the inside of a sealed token is. Source: RFC 7519, 5.2.
const JWT: &str = "JWT";

/// The die: keys, settings, time and randomness.
pub(crate) struct Mint {
    pub(crate) keys: Arc<OwnKeys>,
    pub(crate) config: Arc<Config>,
    pub(crate) context: Context,
}

/// A token and how long it lives.
pub(crate) struct Minted {
    pub(crate) token: String,
    pub(crate) life: Duration,
}

/// What identity has to remember of a citizen until the token's end, without remembering it: sealed for itself, inside of the token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    /// The person's key, base64url.
    person: String,
    attrs: Attributes,
}

/// What identity finds again in a citizen token of its own.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) person: PersonKey,
    pub(crate) attributes: Attributes,
}

/// What a citizen token is asked for.
pub(crate) struct Exchange<'a> {
    pub(crate) entry_point: &'a str,
    pub(crate) person: &'a PersonKey,
    pub(crate) citizen: &'a Citizen,
    pub(crate) scope: &'a str,
    pub(crate) profiles: &'a [String],
}

/// What a sealed token says of a citizen.
struct Sealed<'a> {
    audience: &'a str,
    subject: String,
    attributes: Attributes,
    level: u8,
    consents: &'a [String],
    issued: NumericDate,
    ends: NumericDate,
    grant: Option<Grant>,
}

impl Mint {
    /// Makes an entry point's own token.
    pub(crate) fn entry_point(&self, id: &str, scope: &str) -> Result<Minted, Error> {
        let life = self.config.entry_point_token_life.get();
        let (iat, exp) = self.span(life);
        let claims = EntryPointToken {
            iss: IDENTITY.to_owned(),
            aud: GATEWAY.to_owned(),
            sub: id.to_owned(),
            scope: scope.to_owned(),
            exp,
            iat,
            nbf: iat,
            jti: self.jti(),
        };
        Ok(Minted { token: self.sign(typ::ENTRY_POINT, &claims)?, life })
    }

    /// Makes a clerk's or operator's token.
    pub(crate) fn staff(
        &self,
        id: &str,
        kind: config::StaffKind,
        departments: Vec<String>,
        regions: Vec<String>,
    ) -> Result<Minted, Error> {
        let life = self.config.staff_token_life.get();
        let (iat, exp) = self.span(life);
        let claims = StaffToken {
            iss: IDENTITY.to_owned(),
            aud: GATEWAY.to_owned(),
            sub: id.to_owned(),
            kind: kind.into(),
            departments,
            regions,
            exp,
            iat,
            nbf: iat,
            jti: self.jti(),
        };
        Ok(Minted { token: self.sign(typ::STAFF, &claims)?, life })
    }

    /// Makes a citizen token, with what is sealed in it.
    ///
    /// Errors: Audience when a profile has no key or the token would be too long; PeerKey while cases has registered none.
    pub(crate) fn citizen(&self, asked: &Exchange<'_>, registered: &Keys) -> Result<Minted, Error> {
        let life = self.config.citizen_token_life.get();
        let (iat, exp) = self.span(life);
        let pepper = self.keys.pepper();
        let level = level_number(asked.citizen.level);
        let inner = |audience, subject, attributes| Sealed {
            audience,
            subject,
            attributes,
            level,
            consents: &asked.citizen.consents,
            issued: iat,
            ends: exp,
            grant: None,
        };
        let mut sealed = BTreeMap::new();
        for (profile, key) in asked.profiles.iter().zip(profile_keys(asked.profiles, registered)?) {
            let subject = pepper.subject(asked.person, Sector::Profile(profile));
            let attributes = narrow(&asked.citizen.attributes, &self.config.attributes(profile));
            sealed.insert(profile.clone(), self.seal(inner(profile, subject, attributes), &key)?);
        }
        let cases = cases_key(registered)?;
        let subject = pepper.subject(asked.person, Sector::Cases);
        sealed.insert(CASES.to_owned(), self.seal(inner(CASES, subject, Attributes::default()), &cases)?);
        sealed.insert(IDENTITY.to_owned(), self.remember(asked.person, &asked.citizen.attributes)?);
        let claims = CitizenToken {
            iss: IDENTITY.to_owned(),
            aud: GATEWAY.to_owned(),
            sub: pepper.subject(asked.person, Sector::EntryPoint(asked.entry_point)),
            act: Actor { sub: asked.entry_point.to_owned() },
            level,
            exp,
            iat,
            nbf: iat,
            jti: self.jti(),
            consents: asked.citizen.consents.clone(),
            scope: asked.scope.to_owned(),
            sealed,
        };
        let token = self.sign(typ::CITIZEN, &claims)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Error::Audience(AudienceProblem::TooLong(token.len())));
        }
        Ok(Minted { token, life })
    }

    /// Makes a case grant: what a profile may know of the citizen of a token, for one case, until the case's last deadline.
    ///
    /// Errors: Audience when the profile has no key.
    pub(crate) fn case_grant(
        &self,
        token: &CitizenToken,
        remembered: &Remembered,
        profile: &str,
        grant: Grant,
        ends: Timestamp,
        registered: &Keys,
    ) -> Result<String, Error> {
        let key = profile_key(profile, registered)?;
        let inner = Sealed {
            audience: profile,
            subject: self.keys.pepper().subject(&remembered.person, Sector::Profile(profile)),
            attributes: narrow(&remembered.attributes, &self.config.attributes(profile)),
            level: token.level,
            consents: &token.consents,
            issued: NumericDate::of(self.context.clock.now()),
            ends: NumericDate::of(ends),
            grant: Some(grant),
        };
        self.seal(inner, &key)
    }

    /// Reads what identity sealed for itself in a token whose signature holds.
    ///
    /// Errors: Token when it is not there or does not open.
    pub(crate) fn recall(&self, token: &CitizenToken) -> Result<Remembered, Error> {
        let broken = || Error::Token { check: "sealed_open" };
        let sealed = token.sealed.get(IDENTITY).ok_or_else(broken)?;
        let plain = self.keys.open(sealed).map_err(|error| Error::Token { check: error.check() })?;
        let Memory { person, attrs } = serde_json::from_slice(plain.expose()).map_err(|_| broken())?;
        let person = URL_SAFE_NO_PAD.decode(person).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(broken)?;
        Ok(Remembered { person: PersonKey::from_bytes(person), attributes: attrs })
    }

    fn remember(&self, person: &PersonKey, attributes: &Attributes) -> Result<String, Error> {
        let memory = Memory { person: URL_SAFE_NO_PAD.encode(person.bytes()), attrs: attributes.clone() };
        let plain = json(&memory)?;
        self.keys.seal(plain.expose(), "json", &self.context.ids).map_err(|_| UNSEALABLE)
    }

    fn seal(&self, inner: Sealed<'_>, key: &AgreementPublicKey) -> Result<String, Error> {
        let claims = Inner {
            iss: IDENTITY.to_owned(),
            aud: inner.audience.to_owned(),
            sub: inner.subject,
            attrs: inner.attributes,
            level: inner.level,
            consents: inner.consents.to_vec(),
            exp: inner.ends,
            iat: inner.issued,
            jti: self.jti(),
            grant: inner.grant,
        };
        let signed = self.sign(typ::INNER, &claims)?;
        jose::seal(signed.as_bytes(), JWT, key, &self.context.ids).map_err(|_| UNSEALABLE)
    }

    fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, Error> {
        self.keys.signing().sign(typ, claims).map_err(|_| Error::Internal("a token could not be signed"))
    }

    /// From now on, cut to the second, for `life`.
    fn span(&self, life: Duration) -> (NumericDate, NumericDate) {
        let begin = NumericDate::of(self.context.clock.now());
        (begin, NumericDate::of(begin.time().plus(life)))
    }

    fn jti(&self) -> String {
        self.context.ids.uuid().simple().to_string()
    }
}

const UNSEALABLE: Error = Error::Internal("a token could not be sealed");

fn json(value: &impl Serialize) -> Result<runtime::secret::Secret<Vec<u8>>, Error> {
    let text = serde_json::to_vec(value).map_err(|_| Error::Internal("claims could not be written"))?;
    Ok(runtime::secret::Secret::new(text))
}

fn level_number(level: Level) -> u8 {
    u8::try_from(level.number()).unwrap_or(0)
}

/// Finds the key that each profile's tokens are sealed for.
///
/// Errors: Audience for the first without one.
pub(crate) fn profile_keys(profiles: &[String], registered: &Keys) -> Result<Vec<AgreementPublicKey>, Error> {
    profiles.iter().map(|profile| profile_key(profile, registered)).collect()
}

fn profile_key(profile: &str, registered: &Keys) -> Result<AgreementPublicKey, Error> {
    let unknown = || Error::Audience(AudienceProblem::Unknown(profile.to_owned()));
    registered.seal_key(&names::adapter(profile)).ok_or_else(unknown)
}

/// Finds the key that the cases' pseudonym is sealed for.
///
/// Errors: PeerKey while there is none.
pub(crate) fn cases_key(registered: &Keys) -> Result<AgreementPublicKey, Error> {
    registered.seal_key(CASES).ok_or(Error::PeerKey { peer: CASES })
}
