//! The one strict way to read a token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use runtime::{Clock, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::check::Check;
use super::claims::NumericDate;
use super::keys::Keys;
use super::{ACCESS_LIFE_MAX, GATEWAY, IDENTITY, LEEWAY, TOKEN_BYTES_MAX};
use crate::jose::{self, Algorithm};

const JTI_LENGTH_MAX: usize = 128;
const SUBJECT_LENGTH_MAX: usize = 256;

/// What one kind of token must be. Required are always `exp`, `iat`, `iss`, `aud`, `jti`; `nbf` is checked where it is.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `typ` header.
    pub typ: &'static str,
    /// Whether "JWT" or no `typ` will do: for tokens that other people's libraries make.
    pub typ_optional: bool,
    /// The algorithms accepted; ours is EdDSA alone.
    pub algorithms: &'static [Algorithm],
    /// The issuers accepted. Empty: any owner of a key, for that owner.
    pub issuers: &'static [&'static str],
    /// The audience, exactly.
    pub audience: String,
    /// Longest time from `iat` to `exp`.
    pub life_max: Duration,
    /// Whether `sub` is required.
    pub subject: bool,
}

impl Rules {
    /// Those of the access tokens that identity makes for public callers: whoever reads one reads it in the same way.
    pub fn at_gateway(typ: &'static str) -> Self {
        Self {
            typ,
            typ_optional: false,
            algorithms: &[Algorithm::EdDsa],
            issuers: &[IDENTITY],
            audience: GATEWAY.to_owned(),
            life_max: ACCESS_LIFE_MAX,
            subject: true,
        }
    }
}

/// A token that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<C> {
    /// What it says.
    pub claims: C,
    /// Who signed it.
    pub issuer: Arc<str>,
    /// Its unique id. To be remembered until `expires` where a token counts once.
    pub jti: String,
    /// When it ends, without leeway.
    pub expires: Timestamp,
}

/// Reads tokens of one kind.
#[derive(Clone)]
pub struct Verifier {
    rules: Rules,
    keys: Arc<dyn Keys>,
    clock: Clock,
}

impl Verifier {
    /// Puts rules, keys and time together.
    pub fn new(rules: Rules, keys: Arc<dyn Keys>, clock: Clock) -> Self {
        Self { rules, keys, clock }
    }

    /// Checks a compact JWS and reads its claims.
    ///
    /// Order: size and form, header, `typ`, algorithm, key, signature; then who, for whom, when; then the claims of its kind. Nothing
    /// of the payload is looked at before the signature holds.
    /// Errors: the first check that failed.
    pub fn verify<C: DeserializeOwned>(&self, token: &str) -> Result<Verified<C>, Check> {
        let parsed = jose::parse(token, TOKEN_BYTES_MAX)?;
        let header = parsed.header();
        match header.typ.as_deref() {
            Some(typ) if typ == self.rules.typ => {}
            None | Some("JWT") if self.rules.typ_optional => {}
            _ => return Err(Check::Typ),
        }
        if !self.rules.algorithms.contains(&header.algorithm) {
            return Err(jose::JwsError::Algorithm.into());
        }
        let key = self.keys.find(&header.kid).ok_or(Check::Key)?;
        let claims = parsed.verify(&key.key)?;
        let issuer = self.check_who(&claims, &key.owner)?;
        let expires = self.check_when(&claims)?;
        let jti = text(&claims, "jti", JTI_LENGTH_MAX).ok_or(Check::Jti)?.to_owned();
        let claims = serde_json::from_value(Value::Object(claims)).map_err(|_| Check::Claims)?;
        Ok(Verified { claims, issuer, jti, expires })
    }

    fn check_who(&self, claims: &Map<String, Value>, owner: &Arc<str>) -> Result<Arc<str>, Check> {
        let issuer = text(claims, "iss", SUBJECT_LENGTH_MAX).ok_or(Check::Issuer)?;
        let accepted = self.rules.issuers.is_empty() || self.rules.issuers.contains(&issuer);
        if !accepted || issuer != owner.as_ref() {
            return Err(Check::Issuer);
        }
        if claims.get("aud").and_then(Value::as_str) != Some(self.rules.audience.as_str()) {
            return Err(Check::Audience);
        }
        if self.rules.subject && text(claims, "sub", SUBJECT_LENGTH_MAX).is_none() {
            return Err(Check::Subject);
        }
        Ok(owner.clone())
    }

    fn check_when(&self, claims: &Map<String, Value>) -> Result<Timestamp, Check> {
        let date = |name, check| claims.get(name).and_then(NumericDate::read).map(NumericDate::time).ok_or(check);
        let now = self.clock.now();
        let expires = date("exp", Check::Expiry)?;
        let issued = date("iat", Check::IssuedAt)?;
        if now >= expires.plus(LEEWAY) {
            return Err(Check::Expiry);
        }
        if claims.contains_key("nbf") && date("nbf", Check::NotBefore)? > now.plus(LEEWAY) {
            return Err(Check::NotBefore);
        }
        if issued > now.plus(LEEWAY) {
            return Err(Check::IssuedAt);
        }
        if expires <= issued || expires.since(issued) > self.rules.life_max {
            return Err(Check::Life);
        }
        Ok(expires)
    }
}

/// A claim that is a text of 1 to `length_max` bytes without control characters.
fn text<'a>(claims: &'a Map<String, Value>, name: &str, length_max: usize) -> Option<&'a str> {
    let text = claims.get(name)?.as_str()?;
    ((1..=length_max).contains(&text.len()) && !text.chars().any(char::is_control)).then_some(text)
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("rules", &self.rules).finish_non_exhaustive()
    }
}
