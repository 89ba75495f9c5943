//! The standard token endpoint, as far as it is only another writing of `IssueToken`.
//!
//! The gateway serves `POST /oauth2/token` and `GET /.well-known/jwks.json`; what a form, an answer and a refusal look like is fixed
//! by RFCs and stands here, without I/O, so that both sides of it are tested in one place.
//!
//! Source: RFC 6749 (4.4, 5), RFC 7521 and 7523 (client assertions), RFC 8693 (token exchange), RFC 7517 (JWKS).

mod caller;

pub use caller::{Caller, CallerError, Person};

use contracts::identity::v1::{IssueTokenRequest, IssueTokenResponse};
use http::StatusCode;
use serde::Serialize;

use crate::jose::Jwks;
use crate::keyring::{Keys, PublicKey};
use crate::{Kind, RemoteFault};

/// The grant of an entry point's, clerk's or operator's own token.
pub const CLIENT_CREDENTIALS: &str = "client_credentials";
/// The grant of a citizen token.
pub const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The only way for a client to authenticate.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// What a real-name assertion is.
pub const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
/// What is issued.
pub const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Longest form, in bytes: two assertions and what stands around them.
pub const FORM_BYTES_MAX: usize = 64 * 1024;

/// The role whose keys anybody may know besides those of the adapters.
const IDENTITY: &str = "identity";
const ADAPTER: &str = "adapter/";
const IDENTITY_DOMAIN: &str = "identity.lastmile";
const PARAMETERS_MAX: usize = 64;

/// A refusal as the token endpoint writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenError {
    /// The HTTP status.
    #[serde(skip)]
    pub status: StatusCode,
    /// The code of RFC 6749, 5.2 or RFC 8693, 2.2.2.
    pub error: &'static str,
    /// For developers; no value that was sent.
    pub error_description: String,
    /// lastmile's own reason, as the gRPC method gives it; empty where the form itself is at fault.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Which check or rule failed first, where the reason has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub check: String,
}

/// An answer as the token endpoint writes it. Send it with `Cache-Control: no-store`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenAnswer {
    access_token: String,
    issued_token_type: String,
    token_type: String,
    expires_in: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
}

impl From<IssueTokenResponse> for TokenAnswer {
    fn from(answer: IssueTokenResponse) -> Self {
        Self {
            access_token: answer.access_token,
            issued_token_type: answer.issued_token_type,
            token_type: answer.token_type,
            expires_in: answer.expires_in_seconds,
            scope: answer.scope,
        }
    }
}

/// Reads the form of a token request (`application/x-www-form-urlencoded`).
///
/// Shape: `audience` may stand several times, everything else once; what is unknown is passed over, as RFC 6749 asks.
/// Errors: `invalid_request` for a malformed form, a repeated parameter, or one that asks for what is not served.
pub fn read_form(body: &[u8]) -> Result<IssueTokenRequest, TokenError> {
    if body.len() > FORM_BYTES_MAX {
        return Err(invalid("the form is longer than 64 KiB"));
    }
    let text = std::str::from_utf8(body).map_err(|_| invalid("the form is not UTF-8"))?;
    let mut request = IssueTokenRequest::default();
    let mut requested_type = String::new();
    for (count, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if count >= PARAMETERS_MAX {
            return Err(invalid("the form has more than 64 parameters"));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decode(name), decode(value)) else {
            return Err(invalid("the form is not urlencoded"));
        };
        let field = match name.as_str() {
            "audience" => {
                request.audience.push(value);
                continue;
            }
            "grant_type" => &mut request.grant_type,
            "client_assertion_type" => &mut request.client_assertion_type,
            "client_assertion" => &mut request.client_assertion,
            "subject_token" => &mut request.subject_token,
            "subject_token_type" => &mut request.subject_token_type,
            "scope" => &mut request.scope,
            "requested_token_type" => &mut requested_type,
            "actor_token" | "actor_token_type" => return Err(invalid("actor tokens are not served")),
            "resource" => return Err(invalid("name profiles in audience; resource is not served")),
            "client_secret" => return Err(invalid("clients authenticate with private_key_jwt alone")),
            _ => continue,
        };
        if !field.is_empty() {
            return Err(invalid("a parameter stands twice"));
        }
        *field = value;
    }
    if !matches!(requested_type.as_str(), "" | ACCESS_TOKEN_TYPE) {
        return Err(invalid("requested_token_type must be access_token"));
    }
    Ok(request)
}

/// Turns identity's refusal into the token endpoint's.
pub fn refuse(fault: &RemoteFault) -> TokenError {
    let (status, error) = code(fault);
    TokenError {
        status,
        error,
        error_description: if fault.kind() == Kind::Internal {
            "internal error".into()
        } else {
            fault.message().into()
        },
        reason: fault.reason().to_owned(),
        check: ["check", "rule", "problem", "assertion"]
            .iter()
            .find_map(|key| fault.metadata(key))
            .unwrap_or_default()
            .to_owned(),
    }
}

fn code(fault: &RemoteFault) -> (StatusCode, &'static str) {
    let own = |reason| fault.is(IDENTITY_DOMAIN, reason);
    let is_client = fault.metadata("assertion") == Some("client");
    if own("CLIENT_ASSERTION_INVALID") || own("ENTRY_POINT_UNKNOWN") || (own("JTI_REUSED") && is_client) {
        return (StatusCode::UNAUTHORIZED, "invalid_client");
    }
    if own("AUDIENCE_UNKNOWN") {
        return (StatusCode::BAD_REQUEST, "invalid_target");
    }
    if own("GRANT_TYPE_UNSUPPORTED") {
        return (StatusCode::BAD_REQUEST, "unsupported_grant_type");
    }
    if own("SCOPE_REFUSED") {
        return (StatusCode::BAD_REQUEST, "invalid_scope");
    }
    match fault.kind() {
        // RFC 8693, 2.2.2: whatever is wrong with a subject token is an invalid request.
        Kind::InvalidInput
        | Kind::Unauthenticated
        | Kind::Forbidden
        | Kind::NotFound
        | Kind::AlreadyExists
        | Kind::RuleBroken
        | Kind::Conflict => (StatusCode::BAD_REQUEST, "invalid_request"),
        Kind::Exhausted => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
        Kind::Unavailable | Kind::Deadline => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        Kind::Unsupported | Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
    }
}

/// Collects what the public may know: identity's keys, to seal real-name assertions for and to recognise tokens by, and the adapters'
/// signature keys, to verify the proofs of departments with.
pub fn jwks(keys: &Keys) -> Jwks {
    let public = keys.iter().filter(|key| {
        key.owner == IDENTITY || (key.owner.starts_with(ADAPTER) && matches!(key.key, PublicKey::Verify(_)))
    });
    Jwks { keys: public.map(|key| key.key.jwk()).collect() }
}

fn invalid(description: &str) -> TokenError {
    TokenError {
        status: StatusCode::BAD_REQUEST,
        error: "invalid_request",
        error_description: description.to_owned(),
        reason: String::new(),
        check: String::new(),
    }
}

/// Reads one urlencoded name or value; `None` when it is malformed or not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, Fault, status};

    #[test]
    fn a_token_exchange_is_read() {
        let body = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&audience=traffic%2F430100\
            &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=a.b.c\
            &subject_token=d..e.f.g&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt\
            &audience=traffic%2F140100&scope=query+pay&client_id=wechat&unknown=1&";
        let request = read_form(body.as_bytes()).expect("a form");
        assert_eq!(request.grant_type, TOKEN_EXCHANGE);
        assert_eq!(request.client_assertion_type, JWT_BEARER);
        assert_eq!(request.subject_token_type, JWT_TYPE);
        assert_eq!((request.client_assertion.as_str(), request.subject_token.as_str()), ("a.b.c", "d..e.f.g"));
        assert_eq!(request.audience, ["traffic/430100", "traffic/140100"]);
        assert_eq!(request.scope, "query pay");
    }

    #[test]
    fn a_bad_form_is_refused() {
        let many = "a=1&".repeat(65);
        for body in [
            "grant_type=a&grant_type=b",
            "grant_type=%zz",
            "grant_type=%e4",
            "scope=%ff",
            "actor_token=x",
            "client_secret=x",
            "resource=x",
            "requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Asaml2",
            &many,
            &"a".repeat(FORM_BYTES_MAX + 1),
        ] {
            let error = read_form(body.as_bytes()).expect_err(body);
            assert_eq!((error.status, error.error), (StatusCode::BAD_REQUEST, "invalid_request"));
        }
        assert!(read_form(b"\xff").is_err());
    }

    #[derive(Debug, thiserror::Error)]
    #[error("refused for the test")]
    struct Refused {
        domain: &'static str,
        reason: &'static str,
        kind: Kind,
        assertion: &'static str,
    }

    impl Fault for Refused {
        fn kind(&self) -> Kind {
            self.kind
        }
        fn reason(&self) -> &'static str {
            self.reason
        }
        fn domain(&self) -> &'static str {
            self.domain
        }
        fn effect(&self) -> Effect {
            Effect::None
        }
        fn metadata(&self) -> Vec<(&'static str, String)> {
            vec![("assertion", self.assertion.to_owned()), ("check", "exp".to_owned())]
        }
    }

    #[test]
    fn reasons_have_the_codes_of_the_rfcs() {
        for (domain, reason, kind, assertion, http, error) in [
            (IDENTITY_DOMAIN, "CLIENT_ASSERTION_INVALID", Kind::Unauthenticated, "", 401, "invalid_client"),
            (IDENTITY_DOMAIN, "ENTRY_POINT_UNKNOWN", Kind::Unauthenticated, "", 401, "invalid_client"),
            (IDENTITY_DOMAIN, "JTI_REUSED", Kind::Unauthenticated, "client", 401, "invalid_client"),
            (IDENTITY_DOMAIN, "JTI_REUSED", Kind::Unauthenticated, "real_name", 400, "invalid_request"),
            (IDENTITY_DOMAIN, "REAL_NAME_ASSERTION_INVALID", Kind::Unauthenticated, "", 400, "invalid_request"),
            (IDENTITY_DOMAIN, "DOCUMENT_NUMBER_INVALID", Kind::InvalidInput, "", 400, "invalid_request"),
            (IDENTITY_DOMAIN, "AUDIENCE_UNKNOWN", Kind::InvalidInput, "", 400, "invalid_target"),
            (IDENTITY_DOMAIN, "GRANT_TYPE_UNSUPPORTED", Kind::InvalidInput, "", 400, "unsupported_grant_type"),
            (IDENTITY_DOMAIN, "SCOPE_REFUSED", Kind::Forbidden, "", 400, "invalid_scope"),
            ("common.lastmile", "INVALID_REQUEST", Kind::InvalidInput, "", 400, "invalid_request"),
            ("common.lastmile", "OVERLOADED", Kind::Exhausted, "", 429, "temporarily_unavailable"),
            ("common.lastmile", "STORE_UNAVAILABLE", Kind::Unavailable, "", 503, "temporarily_unavailable"),
            ("common.lastmile", "INTERNAL", Kind::Internal, "", 500, "server_error"),
        ] {
            let fault = RemoteFault::from(&status(&Refused { domain, reason, kind, assertion }));
            let refused = refuse(&fault);
            assert_eq!((refused.status.as_u16(), refused.error), (http, error), "{reason}");
            assert_eq!((refused.reason.as_str(), refused.check.as_str()), (reason, "exp"));
        }
    }

    #[test]
    fn an_answer_has_the_names_of_the_rfc() {
        let answer = TokenAnswer::from(IssueTokenResponse {
            access_token: "t".into(),
            issued_token_type: ACCESS_TOKEN_TYPE.into(),
            token_type: "Bearer".into(),
            expires_in_seconds: 900,
            scope: String::new(),
        });
        let expected = serde_json::json!({
            "access_token": "t", "issued_token_type": ACCESS_TOKEN_TYPE, "token_type": "Bearer", "expires_in": 900
        });
        assert_eq!(serde_json::to_value(answer).expect("JSON"), expected);
    }
}
