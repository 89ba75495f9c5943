//! What the public listener answers in plain HTTP: the OAuth 2 token endpoint, its metadata and the JWKS.
//!
//! All of it is translation: the form becomes `IssueToken` ([`rpc::oauth`]), the keys come from the key ring. Identity judges.
//!
//! Source: RFC 6749 (5.1), RFC 8414, RFC 7517.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use http::Request;
use http::header::CACHE_CONTROL;
use rpc::oauth::{self, TokenAnswer, TokenError};
use tower::ServiceExt;

use crate::shared::Shared;

/// How long somebody who asks for the keys waits for identity.
const JWKS_ANEW_WITHIN: Duration = Duration::from_secs(1);
const NO_STORE: [(http::HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

#[derive(Clone)]
struct Endpoints {
    shared: Arc<Shared>,
    identity: rpc::Wire,
}

/// The plain endpoints of one core.
#[derive(Clone)]
pub(crate) struct Plain(Router);

impl Plain {
    pub(crate) fn new(shared: &Arc<Shared>, mesh: &rpc::Mesh) -> Self {
        let endpoints = Endpoints { shared: Arc::clone(shared), identity: mesh.wire("identity") };
        let router = Router::new()
            .route("/oauth2/token", post(token))
            .route("/.well-known/jwks.json", get(jwks))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .layer(DefaultBodyLimit::max(oauth::FORM_BYTES_MAX))
            .with_state(endpoints);
        Self(router)
    }

    /// Answers a request that is not gRPC.
    pub(crate) async fn answer(&self, mut request: Request<rpc::Inbound>) -> http::Response<tonic::body::Body> {
        rpc::Authorization::restore(&mut request);
        let answered = self.0.clone().oneshot(request.map(Body::new)).await;
        answered.unwrap_or_else(|never| match never {}).map(tonic::body::Body::new)
    }
}

async fn token(State(endpoints): State<Endpoints>, form: Bytes) -> Response {
    match issue(endpoints, &form).await {
        Ok(answer) => (NO_STORE, Json(answer)).into_response(),
        Err(error) => (error.status, NO_STORE, Json(error)).into_response(),
    }
}

async fn issue(endpoints: Endpoints, form: &[u8]) -> Result<TokenAnswer, TokenError> {
    let request = oauth::read_form(form)?;
    let issued = IdentityServiceClient::new(endpoints.identity).issue_token(request).await;
    issued.map(|issued| issued.into_inner().into()).map_err(|status| oauth::refuse(&status.into()))
}

/// Every key that verifies something a third party holds: identity's tokens and the departments' proofs.
///
/// Shape: the list as identity tells it now, so that whoever holds a fresh proof finds its key; while identity is away, the last one.
async fn jwks(State(endpoints): State<Endpoints>) -> Response {
    let ring = &endpoints.shared.keys;
    if ring.read_anew(JWKS_ANEW_WITHIN).await.is_err() {
        tracing::debug!("identity does not answer: the keys told are the last ones known");
    }
    let keys = oauth::jwks(&endpoints.shared.keys.keys());
    ([(CACHE_CONTROL, "public, max-age=60")], Json(keys)).into_response()
}

async fn metadata(State(endpoints): State<Endpoints>) -> Response {
    let issuer = &endpoints.shared.config.issuer;
    Json(serde_json::json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth2/token"),
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "grant_types_supported": [oauth::CLIENT_CREDENTIALS, oauth::TOKEN_EXCHANGE],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["EdDSA", "ES256"],
        "response_types_supported": [],
    }))
    .into_response()
}
