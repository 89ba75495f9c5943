//! The data path: a request comes in, policy decides, the same bytes go on.
//!
//! Bodies are collected under a limit and passed on as they came; nothing of a body is decoded or encoded here. Answers of unary calls
//! come back whole, so that head, data and trailers leave in one write; streams pass frame by frame.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use contracts::catalog::v1::Route;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use rpc::Authorization;
use rpc::call::Call;
use tokio::time::Instant;
use tonic::body::Body;
use tower::Service;

use crate::cache::Cache;
use crate::error::Refusal;
use crate::known::{Known, SCHEME};
use crate::peek::{self, Envelope};
use crate::plain::Plain;
use crate::policy::{self, Attach, Decision, Plan, Upstream};
use crate::shared::Shared;

/// The header that carries the request id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
/// Names the calling entry point to roles that are told nothing else of the caller.
const ENTRY_POINT: HeaderName = HeaderName::from_static("lastmile-entry-point");

/// The public listener's service. One per core; clones share its caches and wires.
#[derive(Clone)]
pub struct Proxy(Arc<Core>);

/// The end of a credential as it was sent, which is the signature's: it tells tokens apart as well as the whole does, at a hundredth of
/// the bytes to hash. What is found by it is compared whole.
type Tail = [u8; 24];

/// What one core keeps for itself: cores share nothing but snapshots and counters.
struct Core {
    shared: Arc<Shared>,
    mesh: rpc::Mesh,
    plain: Plain,
    /// Verified tokens by their tail. The lock is never contended: one thread works here.
    known: Mutex<Cache<Tail, Arc<Known>>>,
}

impl Proxy {
    /// Makes the service of one core over its own wires.
    pub(crate) fn new(shared: Arc<Shared>, mesh: rpc::Mesh) -> Self {
        let known = Mutex::new(Cache::new(shared.config.tokens_max));
        let plain = Plain::new(&shared, &mesh);
        Self(Arc::new(Core { shared, mesh, plain, known }))
    }
}

impl Service<Request<rpc::Inbound>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<rpc::Inbound>) -> Self::Future {
        let core = Arc::clone(&self.0);
        Box::pin(async move {
            let grpc = request
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            Ok(if grpc { core.grpc(request).await } else { core.plain.answer(request).await })
        })
    }
}

impl Core {
    async fn grpc(&self, request: Request<rpc::Inbound>) -> Response<Body> {
        let begun = Instant::now();
        let id = self.request_id(request.headers());
        let observed = self.shared.observe.begin(request.uri().path(), request.headers(), &id);
        let asked = rpc::stack::timeout_of(request.headers());
        let call = Call { request_id: id.clone(), deadline: None };
        let answered = rpc::call::scope(call, async {
            match self.forward(request, begun, asked, &id).await {
                Ok(response) => response,
                Err(refusal) => rpc::status(&refusal).into_http(),
            }
        });
        let mut response = observed.run(answered).await;
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }

    async fn forward(
        &self,
        request: Request<rpc::Inbound>,
        begun: Instant,
        asked: Result<Option<Duration>, rpc::Violation>,
        id: &Arc<str>,
    ) -> Result<Response<Body>, Refusal> {
        let asked = asked.map_err(Refusal::Invalid)?;
        let (parts, body) = request.into_parts();
        let plan = self.shared.plans.get(parts.uri.path()).ok_or(Refusal::MethodUnknown)?;
        let known = self.known(parts.extensions.get())?;
        policy::admit(plan, &known.caller)?;
        let longest =
            asked.unwrap_or(self.shared.config.call_timeout_max.into()).min(self.shared.config.call_timeout_max.into());
        let body = self.collect(body, begun + longest).await?;
        let envelope = if plan.peeks() { Some(peek::envelope(&body).map_err(Refusal::Envelope)?) } else { None };
        let routes = self.shared.routes.load();
        if routes.version() == 0 && plan.peeks() {
            return Err(Refusal::NotReady);
        }
        let decision = policy::decide(plan, &routes, &known.caller, envelope.as_ref())?;
        self.charge(&decision, &known)?;
        let _place = self.place(&decision)?;
        let headers = self.headers(plan, &decision, &known, envelope.as_ref())?;
        let wire = match &decision.upstream {
            Upstream::Role(role) => self.mesh.wire(role),
            Upstream::Profile(route) => self.mesh.wire(&self.shared.mesh_key(&route.profile)),
        };
        let outgoing = outgoing(plan, parts.uri, headers, body, (asked, decision.timeout));
        let deadline = (!plan.method.server_streaming).then(|| begun + longest.min(decision.timeout));
        let call = Call { request_id: id.clone(), deadline };
        let response = rpc::call::scope(call, wire.send(outgoing)).await;
        Ok(without_internals(response))
    }

    /// Takes the caller's request id where it keeps to the rules, else makes one.
    fn request_id(&self, headers: &HeaderMap) -> Arc<str> {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| rpc::call::is_request_id(id));
        given.map_or_else(|| self.shared.context.ids.hex(32).into(), Arc::from)
    }

    /// Who is calling: from the cache, or verified now. A credential that was seen before is not even decoded.
    fn known(&self, given: Option<&Authorization>) -> Result<Arc<Known>, Refusal> {
        let unauthenticated = |check| Refusal::Unauthenticated { check };
        let value = match given {
            None => return Ok(Arc::clone(&self.shared.anonymous)),
            Some(Authorization { is_repeated: true, .. }) => return Err(unauthenticated("repeated")),
            Some(Authorization { value, .. }) => value,
        };
        let sent = value.as_sent();
        let tail: Option<Tail> = sent.0.last_chunk().copied();
        let now = self.shared.context.clock.now();
        let mut cache = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tail.and_then(|tail| cache.get(&tail))
            && known.was_sent_as(sent)
            && now < known.until
        {
            return Ok(known);
        }
        let text = value.clone().text().ok_or(unauthenticated("bearer"))?;
        let known = Arc::new(self.shared.verify(bearer(&text)?, now)?.sent_as(sent));
        if let Some(tail) = tail {
            cache.insert(tail, Arc::clone(&known));
        }
        Ok(known)
    }

    /// Reads the whole body, within the limit and the caller's deadline. Mostly it is there.
    async fn collect(&self, body: rpc::Inbound, deadline: Instant) -> Result<Bytes, Refusal> {
        let bytes_max = self.shared.config.body_bytes_max.bytes();
        let too_long = Refusal::Limit { limit: "body", max: bytes_max as u64, unit: "bytes" };
        let body = match body.whole() {
            Ok(body) if body.len() > bytes_max => return Err(too_long),
            Ok(body) => return Ok(body),
            Err(body) => body,
        };
        if http_body::Body::size_hint(&body).lower() > bytes_max as u64 {
            return Err(too_long);
        }
        let limited = Limited::new(body, bytes_max);
        match tokio::time::timeout_at(deadline, limited.collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(_)) => Err(too_long),
            Err(_) => Err(Refusal::Deadline),
        }
    }

    fn charge(&self, decision: &Decision, known: &Known) -> Result<(), Refusal> {
        let Some(route) = &decision.quota else { return Ok(()) };
        let entry_point = known.caller.entry_point();
        let quota = u64::try_from(route.quota_per_minute).unwrap_or(0);
        let now = self.shared.context.clock.now();
        self.shared
            .quotas
            .take(entry_point, &route.item, quota, now)
            .map_err(|after| Refusal::QuotaExceeded { entry_point: entry_point.to_owned(), after })
    }

    /// A place at the profile, so that a department that hangs holds no more of this gateway than its share.
    fn place(&self, decision: &Decision) -> Result<Option<tokio::sync::OwnedSemaphorePermit>, Refusal> {
        match &decision.upstream {
            Upstream::Role(_) => Ok(None),
            Upstream::Profile(route) => self.shared.places.enter(route).map(Some).ok_or(Refusal::ProfileBusy),
        }
    }

    fn headers(
        &self,
        plan: &Plan,
        decision: &Decision,
        known: &Known,
        envelope: Option<&Envelope<'_>>,
    ) -> Result<HeaderMap, Refusal> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, GRPC);
        headers.insert(http::header::TE, TRAILERS);
        match (plan.attach, &decision.upstream, envelope) {
            (Attach::Assertion, Upstream::Profile(route), Some(envelope)) => {
                let attached = known.attached(&self.shared, route, envelope)?;
                headers.insert(rpc::token::ASSERTION_HEADER, attached.assertion);
                headers.insert(rpc::token::SEALED_HEADER, attached.sealed);
            }
            (Attach::Token, ..) => {
                if let Some(credential) = &known.credential {
                    headers.insert(AUTHORIZATION, credential.clone());
                }
            }
            (Attach::EntryPoint, ..) | (Attach::Assertion, ..) => {
                if let Ok(entry_point) = HeaderValue::from_str(known.caller.entry_point()) {
                    headers.insert(ENTRY_POINT, entry_point);
                }
            }
        }
        Ok(headers)
    }
}

/// The token of an `authorization` header.
fn bearer(text: &[u8]) -> Result<&str, Refusal> {
    let text = std::str::from_utf8(text).ok().and_then(|text| text.split_at_checked(SCHEME.len()));
    match text {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => Ok(token),
        _ => Err(Refusal::Unauthenticated { check: "bearer" }),
    }
}

/// The same call for the peer: its path and body, none of the caller's headers.
fn outgoing(
    plan: &Plan,
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
    (asked, allowed): (Option<Duration>, Duration),
) -> rpc::Request {
    let mut request = Request::new(Body::new(Full::new(body).map_err(|never| match never {})));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    let timeout =
        if plan.method.server_streaming { asked } else { Some(asked.map_or(allowed, |asked| asked.min(allowed))) };
    if let Some(timeout) = timeout {
        request.headers_mut().insert(GRPC_TIMEOUT, rpc::stack::timeout_header(timeout));
    }
    if plan.repeatable {
        request.extensions_mut().insert(rpc::stack::Idempotent);
    }
    request
}

/// Takes out what only the mesh should see.
fn without_internals(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().remove(http::header::DATE);
    response.extensions_mut().clear();
    response
}

/// Places at profiles: as many calls at once as the catalogue allows one gateway.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<std::collections::BTreeMap<String, Arc<tokio::sync::Semaphore>>>);

impl Places {
    fn enter(&self, route: &Arc<Route>) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let semaphore = match places.get(&route.profile) {
            Some(semaphore) => Arc::clone(semaphore),
            None => {
                let most = usize::try_from(route.concurrency_max).unwrap_or(1).max(1);
                Arc::clone(
                    places.entry(route.profile.clone()).or_insert_with(|| Arc::new(tokio::sync::Semaphore::new(most))),
                )
            }
        };
        drop(places);
        semaphore.try_acquire_owned().ok()
    }
}
