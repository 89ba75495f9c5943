//! The claims of each kind of token.

use std::collections::BTreeMap;

use runtime::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::attributes::Attributes;

/// A time in a token: whole seconds since 1970 UTC. Never a text, a fraction or a negative number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct NumericDate(u64);

/// 9999-12-31T23:59:59Z.
const SECONDS_MAX: u64 = 253_402_300_799;

impl NumericDate {
    /// Cuts a time to its second. A time before 1970 is 1970.
    pub fn of(time: Timestamp) -> Self {
        let (seconds, _) = time.seconds_nanos();
        Self(u64::try_from(seconds).unwrap_or(0).min(SECONDS_MAX))
    }

    /// The time.
    pub fn time(self) -> Timestamp {
        Timestamp::from_seconds_nanos(i64::try_from(self.0).unwrap_or(i64::MAX), 0)
    }

    pub(super) fn read(value: &Value) -> Option<Self> {
        value.as_u64().filter(|seconds| *seconds <= SECONDS_MAX).map(Self)
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::read(&value).ok_or_else(|| serde::de::Error::custom("not a time"))
    }
}

/// Who acts for the subject. Source: RFC 8693, 4.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The entry point.
    pub sub: String,
}

/// An entry point's proof of itself at the token endpoint. Source: RFC 7523, 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAssertion {
    /// The entry point.
    pub iss: String,
    /// The same.
    pub sub: String,
    /// identity.
    pub aud: String,
    /// End, at most 60 s ahead.
    pub exp: NumericDate,
    /// Begin.
    pub iat: NumericDate,
    /// Unique; counts once.
    pub jti: String,
}

/// An entry point's word on who its user is. Travels sealed to identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealName {
    /// The entry point.
    pub iss: String,
    /// The person's id at the entry point.
    pub sub: String,
    /// identity.
    pub aud: String,
    /// End, at most 60 s ahead.
    pub exp: NumericDate,
    /// Begin.
    pub iat: NumericDate,
    /// Unique; counts once.
    pub jti: String,
    /// How sure the entry point is: 1 to 4, as `lastmile.common.v1.AssuranceLevel`.
    pub level: u8,
    /// Item codes the person consented to at the entry point.
    #[serde(default)]
    pub consents: Vec<String>,
    /// Name, document and what else the entry point verified.
    #[serde(flatten)]
    pub attributes: Attributes,
}

/// An entry point's access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPointToken {
    /// identity.
    pub iss: String,
    /// gateway.
    pub aud: String,
    /// The entry point, for example "wechat".
    pub sub: String,
    /// What it may do, space-separated.
    #[serde(default)]
    pub scope: String,
    /// End.
    pub exp: NumericDate,
    /// Begin.
    pub iat: NumericDate,
    /// Not before.
    pub nbf: NumericDate,
    /// Unique.
    pub jti: String,
}

/// A citizen's access token, issued to an entry point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CitizenToken {
    /// identity.
    pub iss: String,
    /// gateway.
    pub aud: String,
    /// The citizen's pairwise pseudonym at the entry point.
    pub sub: String,
    /// The entry point that the token was issued to.
    pub act: Actor,
    /// How sure we are: 1 to 4, as `lastmile.common.v1.AssuranceLevel`.
    pub level: u8,
    /// End, at most 15 min after the begin.
    pub exp: NumericDate,
    /// Begin.
    pub iat: NumericDate,
    /// Not before.
    pub nbf: NumericDate,
    /// Unique.
    pub jti: String,
    /// Item codes consented to.
    #[serde(default)]
    pub consents: Vec<String>,
    /// What the entry point may do, space-separated.
    #[serde(default)]
    pub scope: String,
    /// By audience (a profile, or "cases"): the [`Inner`] token sealed to it. Under "identity" stands what identity itself needs to make
    /// a case grant of the token, sealed for it alone.
    #[serde(default)]
    pub sealed: BTreeMap<String, String>,
}

/// A kind of staff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaffKind {
    /// Of a department.
    Clerk,
    /// Of this installation.
    Operator,
}

/// A clerk's or operator's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaffToken {
    /// identity.
    pub iss: String,
    /// gateway.
    pub aud: String,
    /// The person's staff id.
    pub sub: String,
    /// Clerk or operator.
    pub kind: StaffKind,
    /// Departments in scope, for example "traffic"; empty for an operator.
    #[serde(default)]
    pub departments: Vec<String>,
    /// Regions in scope, GB/T 2260; a code covers those below it.
    #[serde(default)]
    pub regions: Vec<String>,
    /// End.
    pub exp: NumericDate,
    /// Begin.
    pub iat: NumericDate,
    /// Not before.
    pub nbf: NumericDate,
    /// Unique.
    pub jti: String,
}

/// What a case may still do after its citizen's token ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The case.
    pub case_id: String,
    /// The item, and no other.
    pub item: String,
    /// Methods of DepartmentService, for example "SettleBill".
    pub operations: Vec<String>,
}

/// What a profile may know of a citizen. Signed by identity, sealed to the profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inner {
    /// identity.
    pub iss: String,
    /// The profile, for example "traffic/430100", or "cases".
    pub aud: String,
    /// The citizen's pairwise pseudonym at the profile; for cases, the pseudonym of its sector.
    pub sub: String,
    /// What the profile's items need to know of the citizen.
    #[serde(default)]
    pub attrs: Attributes,
    /// How sure we are: 1 to 4.
    pub level: u8,
    /// Item codes consented to.
    #[serde(default)]
    pub consents: Vec<String>,
    /// End: the citizen token's, or the case's last deadline.
    pub exp: NumericDate,
    /// Begin.
    pub iat: NumericDate,
    /// Unique.
    pub jti: String,
    /// Set on a case grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
}

/// The gateway's or cases' word to a profile: for this item and region, with this sealed token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// "gateway" or "cases".
    pub iss: String,
    /// The profile.
    pub aud: String,
    /// The item.
    pub item: String,
    /// The region as resolved; GB/T 2260, six digits.
    pub region: String,
    /// The entry point.
    pub entry_point: String,
    /// base64url of SHA-256 over the sealed token's text; absent when none travels along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_hash: Option<String>,
    /// End, at most 60 s after the begin.
    pub exp: NumericDate,
    /// Begin.
    pub iat: NumericDate,
    /// Unique.
    pub jti: String,
}

impl Assertion {
    /// The hash that binds a sealed token to an assertion.
    pub fn hash_of(sealed: &str) -> String {
        crate::jose::base64url(&crate::digest::sha256(sealed.as_bytes()))
    }
}
