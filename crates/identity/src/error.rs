//! Why identity says no.

use std::time::Duration;

use rpc::{Details, Effect, Fault, Kind, ReasonSpec, ReasonTable, Retry, Violation};

use crate::domain::document::Rule;

/// The domain of identity's own reasons.
pub const DOMAIN: &str = "identity.lastmile";

/// Every reason of the domain, for the golden table.
pub const REASONS: ReasonTable = ReasonTable {
    domain: DOMAIN,
    proto_enum: "lastmile.identity.v1.ErrorReason",
    reasons: &[
        ReasonSpec::new("CLIENT_ASSERTION_INVALID", Kind::Unauthenticated).with(&["check"]),
        ReasonSpec::new("REAL_NAME_ASSERTION_INVALID", Kind::Unauthenticated).with(&["check"]),
        ReasonSpec::new("JTI_REUSED", Kind::Unauthenticated).with(&["assertion"]),
        ReasonSpec::new("DOCUMENT_NUMBER_INVALID", Kind::InvalidInput).with(&["rule"]),
        ReasonSpec::new("AUDIENCE_UNKNOWN", Kind::InvalidInput).with(&["audience?", "problem"]),
        ReasonSpec::new("GRANT_TYPE_UNSUPPORTED", Kind::InvalidInput),
        ReasonSpec::new("ENTRY_POINT_UNKNOWN", Kind::Unauthenticated).with(&["problem"]),
        ReasonSpec::new("TOKEN_INVALID", Kind::Unauthenticated).with(&["check"]),
        ReasonSpec::new("KEY_REFUSED", Kind::Forbidden).with(&["check"]),
        ReasonSpec::new("SCOPE_REFUSED", Kind::Forbidden),
    ],
};

/// How long to wait for a peer to register its key.
const PEER_KEY_RETRY: Duration = Duration::from_secs(2);

/// Which of the two assertions of a token exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assertion {
    /// The client's own.
    Client,
    /// The one about the citizen.
    RealName,
}

impl Assertion {
    /// As it is written in metadata `assertion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::RealName => "real_name",
        }
    }
}

/// What is wrong with the audiences.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AudienceProblem {
    /// None is named.
    #[error("name at least one profile")]
    Missing,
    /// More than eight are named, or one is named twice.
    #[error("name at most eight profiles, each once")]
    TooMany,
    /// One is no profile. Not repeated: it may be anything.
    #[error("an audience is no profile, such as traffic/430100")]
    Malformed,
    /// No adapter has registered a key for it.
    #[error("no adapter serves the profile {0}")]
    Unknown(String),
    /// The token would not fit a header.
    #[error("the token would be longer than 8 KiB ({0} bytes); name fewer profiles")]
    TooLong(usize),
}

impl AudienceProblem {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooMany => "too_many",
            Self::Malformed => "malformed",
            Self::Unknown(_) => "unknown",
            Self::TooLong(_) => "too_long",
        }
    }
}

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks the contract.
    #[error("the request breaks the contract")]
    Invalid(Vec<Violation>),
    /// The client assertion does not hold.
    #[error("the client assertion does not verify: {check}")]
    ClientAssertion {
        /// The first check that failed.
        check: &'static str,
    },
    /// The assertion about the citizen does not hold.
    #[error("the real-name assertion does not verify: {check}")]
    RealName {
        /// The first check that failed.
        check: &'static str,
    },
    /// An assertion was used before.
    #[error("the {} assertion was used before", .0.as_str())]
    JtiReused(Assertion),
    /// The citizen's document number cannot be one.
    #[error("{0}")]
    Document(Rule),
    /// The profiles asked for cannot be served.
    #[error("{0}")]
    Audience(AudienceProblem),
    /// The grant type is none of the two.
    #[error("the grant type is neither client_credentials nor token exchange")]
    GrantType,
    /// No such client, or a suspended one.
    #[error("the client is {problem}")]
    Client {
        /// "unknown" or "suspended".
        problem: &'static str,
    },
    /// The citizen token does not hold.
    #[error("the token does not verify: {check}")]
    Token {
        /// The first check that failed.
        check: &'static str,
    },
    /// The key cannot be registered.
    #[error("the key cannot be registered: {check}")]
    Key {
        /// What stands against it.
        check: &'static str,
    },
    /// More was asked for than the client may have.
    #[error("the scope is more than the client has")]
    Scope,
    /// The request id was used for another request.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// A role that every token is sealed for has not registered its key yet.
    #[error("{peer} has not registered its key yet")]
    PeerKey {
        /// The role.
        peer: &'static str,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] store::Error),
    /// A bug, or a key that cannot be used.
    #[error("{0}")]
    Internal(&'static str),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) | Self::Document(_) | Self::Audience(_) | Self::GrantType => Kind::InvalidInput,
            Self::ClientAssertion { .. }
            | Self::RealName { .. }
            | Self::JtiReused(_)
            | Self::Client { .. }
            | Self::Token { .. } => Kind::Unauthenticated,
            Self::Key { .. } | Self::Scope => Kind::Forbidden,
            Self::RequestIdReused => Kind::RuleBroken,
            Self::PeerKey { .. } => Kind::Unavailable,
            Self::Store(error) if is_outage(error) => Kind::Unavailable,
            Self::Store(_) | Self::Internal(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::ClientAssertion { .. } => "CLIENT_ASSERTION_INVALID",
            Self::RealName { .. } => "REAL_NAME_ASSERTION_INVALID",
            Self::JtiReused(_) => "JTI_REUSED",
            Self::Document(_) => "DOCUMENT_NUMBER_INVALID",
            Self::Audience(_) => "AUDIENCE_UNKNOWN",
            Self::GrantType => "GRANT_TYPE_UNSUPPORTED",
            Self::Client { .. } => "ENTRY_POINT_UNKNOWN",
            Self::Token { .. } => "TOKEN_INVALID",
            Self::Key { .. } => "KEY_REFUSED",
            Self::Scope => "SCOPE_REFUSED",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::PeerKey { .. } => "PEER_UNAVAILABLE",
            Self::Store(error) if is_outage(error) => "STORE_UNAVAILABLE",
            Self::Store(_) | Self::Internal(_) => "INTERNAL",
        }
    }

    fn domain(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::RequestIdReused | Self::PeerKey { .. } | Self::Store(_) | Self::Internal(_) => {
                rpc::COMMON.domain
            }
            Self::ClientAssertion { .. }
            | Self::RealName { .. }
            | Self::JtiReused(_)
            | Self::Document(_)
            | Self::Audience(_)
            | Self::GrantType
            | Self::Client { .. }
            | Self::Token { .. }
            | Self::Key { .. }
            | Self::Scope => DOMAIN,
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Store(store::Error::CommitUnknown { .. }) | Self::Internal(_) => Effect::Possible,
            Self::Store(error) if !is_outage(error) => Effect::Possible,
            Self::Store(_)
            | Self::Invalid(_)
            | Self::ClientAssertion { .. }
            | Self::RealName { .. }
            | Self::JtiReused(_)
            | Self::Document(_)
            | Self::Audience(_)
            | Self::GrantType
            | Self::Client { .. }
            | Self::Token { .. }
            | Self::Key { .. }
            | Self::Scope
            | Self::RequestIdReused
            | Self::PeerKey { .. } => Effect::None,
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::ClientAssertion { check }
            | Self::RealName { check }
            | Self::Token { check }
            | Self::Key { check } => vec![("check", (*check).to_owned())],
            Self::JtiReused(assertion) => vec![("assertion", assertion.as_str().to_owned())],
            Self::Document(rule) => vec![("rule", rule.as_str().to_owned())],
            Self::Audience(problem) => {
                let mut metadata = vec![("problem", problem.as_str().to_owned())];
                if let AudienceProblem::Unknown(profile) = problem {
                    metadata.push(("audience", profile.clone()));
                }
                metadata
            }
            Self::Client { problem } => vec![("problem", (*problem).to_owned())],
            Self::PeerKey { peer } => vec![("peer", (*peer).to_owned())],
            Self::Invalid(_)
            | Self::GrantType
            | Self::Scope
            | Self::RequestIdReused
            | Self::Store(_)
            | Self::Internal(_) => Vec::new(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::PeerKey { .. } => Retry::After(PEER_KEY_RETRY),
            Self::Invalid(_)
            | Self::ClientAssertion { .. }
            | Self::RealName { .. }
            | Self::JtiReused(_)
            | Self::Document(_)
            | Self::Audience(_)
            | Self::GrantType
            | Self::Client { .. }
            | Self::Token { .. }
            | Self::Key { .. }
            | Self::Scope
            | Self::RequestIdReused
            | Self::Store(_)
            | Self::Internal(_) => self.kind().retry(),
        }
    }

    fn details(&self) -> Details {
        match self {
            Self::Invalid(violations) => Details { violations: violations.clone(), ..Details::default() },
            Self::Document(rule) => field("subject_token", rule.to_string()),
            Self::Audience(problem) => field("audience", problem.to_string()),
            Self::GrantType => field("grant_type", self.to_string()),
            Self::RequestIdReused => Details { subject: Some("request_id".to_owned()), ..Details::default() },
            Self::ClientAssertion { .. }
            | Self::RealName { .. }
            | Self::JtiReused(_)
            | Self::Client { .. }
            | Self::Token { .. }
            | Self::Key { .. }
            | Self::Scope
            | Self::PeerKey { .. }
            | Self::Store(_)
            | Self::Internal(_) => Details::default(),
        }
    }
}

fn field(name: &str, description: String) -> Details {
    Details { violations: vec![Violation::new(name, description)], ..Details::default() }
}

/// Tells whether waiting may help.
fn is_outage(error: &store::Error) -> bool {
    error.is_transient() || matches!(error, store::Error::CommitUnknown { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<Error> {
        vec![
            Error::ClientAssertion { check: "exp" },
            Error::RealName { check: "exp" },
            Error::JtiReused(Assertion::Client),
            Error::Document(Rule::Region),
            Error::Audience(AudienceProblem::Unknown("traffic/1".to_owned())),
            Error::Audience(AudienceProblem::TooMany),
            Error::GrantType,
            Error::Client { problem: "suspended" },
            Error::Token { check: "exp" },
            Error::Key { check: "owner" },
            Error::Scope,
        ]
    }

    #[test]
    fn every_error_keeps_to_its_row_of_the_table() {
        for error in one_of_each() {
            assert_eq!(REASONS.check(&error), Ok(()));
        }
        for error in [
            Error::Invalid(Vec::new()),
            Error::RequestIdReused,
            Error::PeerKey { peer: "cases" },
            Error::Store(store::Error::CommitUnknown { source: None }),
            Error::Store(store::Error::Failed),
            Error::Internal("a key cannot be used"),
        ] {
            assert_eq!(rpc::COMMON.check(&error), Ok(()));
        }
    }

    #[test]
    fn every_reason_has_an_error() {
        let raised: Vec<_> = one_of_each().iter().map(Fault::reason).collect();
        for spec in REASONS.reasons {
            assert!(raised.contains(&spec.reason), "{}", spec.reason);
        }
    }
}
