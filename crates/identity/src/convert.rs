//! The contract's messages and ours. Gathers every violation, not only the first, and repeats no value.

use std::collections::BTreeSet;

use contracts::identity::v1 as proto;
use rpc::token::{AUDIENCES_MAX, Grant, TOKEN_BYTES_MAX};
use rpc::{Contract, Violation, oauth};
use runtime::Timestamp;

use crate::domain::names;
use crate::error::{AudienceProblem, Error};

/// Most operations of one case grant.
const OPERATIONS_MAX: usize = 16;
const SCOPE_BYTES_MAX: usize = 512;
const DEPARTMENT_SERVICE: &str = "/lastmile.department.v1.DepartmentService/";

/// What a client asks the token endpoint for.
pub(crate) struct Ask {
    pub(crate) client_assertion: String,
    pub(crate) scopes: BTreeSet<String>,
    pub(crate) grant: GrantType,
}

/// The two grants.
pub(crate) enum GrantType {
    /// The client's own token.
    ClientCredentials,
    /// A citizen token for a sealed real-name assertion.
    Exchange { subject_token: String, profiles: Vec<String> },
}

/// What cases asks for.
pub(crate) struct AskGrant {
    pub(crate) request_id: String,
    /// Of the request without the token, which the caller may have renewed before it asks again.
    pub(crate) digest: [u8; 32],
    pub(crate) citizen_token: String,
    pub(crate) profile: String,
    pub(crate) grant: Grant,
    pub(crate) valid_until: Timestamp,
}

/// Reads a token request.
///
/// Errors: GrantType before all else; Invalid with every violation; Audience.
pub(crate) fn ask(request: proto::IssueTokenRequest) -> Result<Ask, Error> {
    let mut violations = Vec::new();
    let mut note = |field: &str, text: &str| violations.push(Violation::new(field, text));
    let is_exchange = match request.grant_type.as_str() {
        oauth::CLIENT_CREDENTIALS => false,
        oauth::TOKEN_EXCHANGE => true,
        _ => return Err(Error::GrantType),
    };
    if request.client_assertion_type != oauth::JWT_BEARER {
        note("client_assertion_type", "must be the jwt-bearer type of RFC 7523");
    }
    if !(1..=TOKEN_BYTES_MAX).contains(&request.client_assertion.len()) {
        note("client_assertion", "must be a JWT of at most 8 KiB");
    }
    if request.scope.len() > SCOPE_BYTES_MAX {
        note("scope", "must be at most 512 bytes");
    }
    if is_exchange {
        if request.subject_token_type != oauth::JWT_TYPE {
            note("subject_token_type", "must be urn:ietf:params:oauth:token-type:jwt");
        }
        if !(1..=TOKEN_BYTES_MAX).contains(&request.subject_token.len()) {
            note("subject_token", "must be a JWE of at most 8 KiB");
        }
    } else {
        let foreign = [
            ("subject_token", request.subject_token.is_empty()),
            ("subject_token_type", request.subject_token_type.is_empty()),
            ("audience", request.audience.is_empty()),
        ];
        for (field, _) in foreign.into_iter().filter(|(_, is_empty)| !is_empty) {
            note(field, "belongs to token exchange alone");
        }
    }
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    let grant = if is_exchange {
        GrantType::Exchange { subject_token: request.subject_token, profiles: profiles(request.audience)? }
    } else {
        GrantType::ClientCredentials
    };
    let scopes = request.scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
    Ok(Ask { client_assertion: request.client_assertion, scopes, grant })
}

fn profiles(audience: Vec<String>) -> Result<Vec<String>, Error> {
    let distinct: BTreeSet<_> = audience.iter().collect();
    if audience.is_empty() {
        return Err(Error::Audience(AudienceProblem::Missing));
    }
    if audience.len() > AUDIENCES_MAX || distinct.len() < audience.len() {
        return Err(Error::Audience(AudienceProblem::TooMany));
    }
    if !audience.iter().all(|profile| names::is_profile(profile)) {
        return Err(Error::Audience(AudienceProblem::Malformed));
    }
    Ok(audience)
}

/// Reads a request for a case grant.
///
/// Errors: Invalid with every violation.
pub(crate) fn ask_grant(mut request: proto::IssueCaseGrantRequest, now: Timestamp) -> Result<AskGrant, Error> {
    let citizen_token = std::mem::take(&mut request.citizen_token);
    let digest = rpc::digest::request("lastmile.identity.v1.IdentityService/IssueCaseGrant", &request);
    let mut violations = Vec::new();
    let mut note = |field: &str, text: &str| violations.push(Violation::new(field, text));
    if let Err(Violation { field, description }) = rpc::call::check_request_id(&request.request_id) {
        note(&field, &description);
    }
    if !(1..=TOKEN_BYTES_MAX).contains(&citizen_token.len()) {
        note("citizen_token", "must be a citizen token of at most 8 KiB");
    }
    if !names::is_profile(&request.profile) {
        note("profile", "must be a profile, such as traffic/430100");
    }
    if !rpc::form::is_name(&request.item) {
        note("item", "must be 1 to 64 characters of a-z, 0-9, ., _ and -");
    }
    if !(1..=OPERATIONS_MAX).contains(&request.operations.len())
        || !request.operations.iter().all(|one| is_operation(one))
    {
        note("operations", "must be 1 to 16 methods of DepartmentService");
    }
    let valid_until = match rpc::time::required(request.valid_until.as_ref()) {
        Ok(until) if until > now && until.since(now) <= rpc::token::GRANT_LIFE_MAX => until,
        Ok(_) => {
            note("valid_until", "must lie ahead, at most 400 days");
            now
        }
        Err(error) => {
            note("valid_until", &error.to_string());
            now
        }
    };
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    let grant = Grant { case_id: request.request_id.clone(), item: request.item, operations: request.operations };
    Ok(AskGrant { request_id: request.request_id, digest, citizen_token, profile: request.profile, grant, valid_until })
}

fn is_operation(name: &str) -> bool {
    Contract::lastmile().is_ok_and(|contract| contract.method(&format!("{DEPARTMENT_SERVICE}{name}")).is_some())
}
