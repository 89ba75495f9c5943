//! The evidence of a settlement that a citizen holds: what the department said, signed by the adapter that read it.

use rpc::jose::{KeyError, SigningKey, base64url};
use rpc::token::NumericDate;
use runtime::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::Receipt;

/// `typ` of a proof, so that no other token of ours is ever taken for one.
pub const PROOF_TYPE: &str = "settlement-proof+jwt";

/// What a proof says. Nothing in it identifies a person; the bill number is the department's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofClaims {
    /// Who signs: the profile's mesh key, for example `adapter/traffic/430100`.
    pub iss: String,
    /// When it was signed, seconds since 1970 UTC.
    pub iat: NumericDate,
    /// The profile that read the reply.
    pub profile: String,
    /// Its version.
    pub profile_version: u32,
    /// The item.
    pub item: String,
    /// Region of the service.
    pub region: String,
    /// The department's bill number.
    pub bill_no: String,
    /// What was paid, minor units, as text.
    pub amount_minor: String,
    /// ISO 4217.
    pub currency: String,
    /// The caller's request id of the settlement.
    pub request_id: String,
    /// The department's serial.
    pub department_serial: String,
    /// When the department posted, RFC 3339 UTC.
    pub department_time: String,
    /// base64url of SHA-256 over the department's reply as it came off the wire.
    pub reply_digest: String,
}

/// What a proof is about, beside what the department said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) profile: &'a str,
    pub(crate) profile_version: u32,
    pub(crate) item: &'a str,
    pub(crate) region: &'a str,
    pub(crate) bill_no: &'a str,
    pub(crate) request_id: &'a str,
}

/// Signs a proof.
pub(crate) fn sign(
    key: &SigningKey,
    about: Subject<'_>,
    receipt: &Receipt,
    now: Timestamp,
) -> Result<String, KeyError> {
    let claims = ProofClaims {
        iss: crate::keys::owner(about.profile),
        iat: NumericDate::of(now),
        profile: about.profile.to_owned(),
        profile_version: about.profile_version,
        item: about.item.to_owned(),
        region: about.region.to_owned(),
        bill_no: about.bill_no.to_owned(),
        amount_minor: receipt.amount_minor.to_string(),
        currency: crate::engine::CURRENCY.to_owned(),
        request_id: about.request_id.to_owned(),
        department_serial: receipt.serial.clone(),
        department_time: crate::kind::rfc3339(receipt.time).unwrap_or_default(),
        reply_digest: base64url(&receipt.reply_digest),
    };
    key.sign(PROOF_TYPE, &claims)
}
