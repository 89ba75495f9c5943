//! What the tokens of lastmile carry, and the one strict way to read them.
//!
//! | token | who signs | who reads | life |
//! |---|---|---|---|
//! | client assertion | entry point | identity | 60 s |
//! | real-name assertion, sealed to identity | entry point | identity | 60 s |
//! | [`EntryPointToken`], [`CitizenToken`], [`StaffToken`] | identity | gateway, cases, payments (staff) | 15 min |
//! | [`Inner`], sealed to a profile | identity | that profile's adapter | as its citizen token, or as its case grant |
//! | [`Assertion`] | gateway, cases | adapter | 60 s |
//!
//! Every check is ours and takes the time from `runtime::Clock`; a library only does the arithmetic of the signature. A key may sign
//! as its registered owner alone, so a gateway's key never makes a citizen. Identifiers inside are `Pii`: they cannot be printed.
//!
//! Source: RFC 7519, 7523, 8693, 8725, 9068.

mod applicant;
mod attributes;
mod check;
mod claims;
mod keys;
mod rules;

pub use applicant::{Applicant, ApplicantDoor, Asked};
pub use attributes::{Account, Attributes};
pub use check::Check;
pub use claims::{
    Actor, Assertion, CitizenToken, ClientAssertion, EntryPointToken, Grant, Inner, NumericDate, RealName, StaffKind,
    StaffToken,
};
pub use keys::{Key, KeySet, KeySetError, Keys};
pub use rules::{Rules, Verified, Verifier};

use std::time::Duration;

/// `iss` of everything that identity signs, and `aud` of what is addressed to it.
pub const IDENTITY: &str = "identity";
/// `iss` of the gateway's assertions, `aud` of what public callers present.
pub const GATEWAY: &str = "gateway";
/// `iss` of assertions that cases makes, and its audience in [`CitizenToken::sealed`].
pub const CASES: &str = "cases";

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far clocks may differ.
pub const LEEWAY: Duration = Duration::from_secs(5);
/// Longest life of an access token.
pub const ACCESS_LIFE_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest life of an assertion.
pub const ASSERTION_LIFE_MAX: Duration = Duration::from_secs(60);
/// Longest life of a case grant.
pub const GRANT_LIFE_MAX: Duration = Duration::from_secs(400 * 24 * 3_600);
/// Most profiles that one citizen token addresses.
pub const AUDIENCES_MAX: usize = 8;

/// Metadata key under which an [`Assertion`] travels to an adapter.
pub const ASSERTION_HEADER: &str = "lastmile-assertion";
/// Metadata key under which the sealed [`Inner`] travels to an adapter, or the sealed pseudonym to cases.
pub const SEALED_HEADER: &str = "lastmile-sealed";

/// The `typ` headers: no token of one kind is ever taken for another.
pub mod typ {
    /// [`super::ClientAssertion`]; libraries also write "JWT" or nothing, and both are accepted.
    pub const CLIENT_ASSERTION: &str = "client-authentication+jwt";
    /// [`super::RealName`]; as with client assertions.
    pub const REAL_NAME: &str = "real-name+jwt";
    /// [`super::EntryPointToken`].
    pub const ENTRY_POINT: &str = "entry-point+jwt";
    /// [`super::CitizenToken`].
    pub const CITIZEN: &str = "citizen+jwt";
    /// [`super::StaffToken`].
    pub const STAFF: &str = "staff+jwt";
    /// [`super::Inner`].
    pub const INNER: &str = "inner+jwt";
    /// [`super::Assertion`].
    pub const ASSERTION: &str = "assertion+jwt";
}

/// Returns the credential of an `authorization: Bearer …` header; `None` when there is none, more than one, or another scheme.
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(http::header::AUTHORIZATION).iter();
    let value = given.next()?.to_str().ok()?;
    if given.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests;
