//! The checks, by name.

use crate::jose::{JweError, JwsError};

/// The check that a token failed first. Its name is what callers see, and it says nothing of the token's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Check {
    /// The form, the header, the key's algorithm or the signature.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// The sealing.
    #[error(transparent)]
    Jwe(#[from] JweError),
    /// `typ` is not the one of this kind of token.
    #[error("another kind of token")]
    Typ,
    /// No key in force has this `kid`.
    #[error("no key in force has this kid")]
    Key,
    /// `iss` is missing, not accepted here, or not the owner of the key.
    #[error("the issuer is not the key's owner, or not accepted here")]
    Issuer,
    /// `aud` is missing, a list, or another.
    #[error("for another audience")]
    Audience,
    /// `sub` is missing or malformed.
    #[error("no usable subject")]
    Subject,
    /// `exp` is missing, no whole number, or past.
    #[error("expired")]
    Expiry,
    /// `nbf` is no whole number, or lies ahead.
    #[error("not valid yet")]
    NotBefore,
    /// `iat` is missing, no whole number, or lies ahead.
    #[error("issued in the future")]
    IssuedAt,
    /// It lives longer than its kind may.
    #[error("lives longer than allowed")]
    Life,
    /// `jti` is missing or malformed.
    #[error("no usable jti")]
    Jti,
    /// A claim of this kind of token is missing or of a wrong type.
    #[error("claims of a wrong shape")]
    Claims,
    /// The request's item is not the assertion's.
    #[error("for another item")]
    Item,
    /// The request's region is not the assertion's.
    #[error("for another region")]
    Region,
    /// The sealed token is not the one that the assertion names.
    #[error("the sealed token is not the asserted one")]
    Binding,
    /// The case grant does not cover the operation, or the caller may not use a grant.
    #[error("the grant does not cover this")]
    Grant,
}

impl Check {
    /// The name, for metadata `check` and for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jws(error) => error.check(),
            Self::Jwe(error) => error.check(),
            Self::Typ => "typ",
            Self::Key => "key",
            Self::Issuer => "iss",
            Self::Audience => "aud",
            Self::Subject => "sub",
            Self::Expiry => "exp",
            Self::NotBefore => "nbf",
            Self::IssuedAt => "iat",
            Self::Life => "life",
            Self::Jti => "jti",
            Self::Claims => "claims",
            Self::Item => "item",
            Self::Region => "region",
            Self::Binding => "binding",
            Self::Grant => "grant",
        }
    }
}
