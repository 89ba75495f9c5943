//! The HTTP face: which form a request has, what a staged fault does to it, and a signed answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Response, StatusCode, request};
use runtime::http::HangUp;
use serde_json::{Value, json};

use super::call::Asked;
use super::desk::{Desk, SYSTEM};
use super::gateway::Parameters;
use super::messages;
use super::outcome::{self, ApiError};
use crate::faults::{Fault, HANG, Suffer};

const BODY_BYTES_MAX: usize = 64 * 1_024;
const TOO_LONG_BYTES: usize = 2 << 20;

/// The form of an answer.
#[derive(Clone, Debug)]
pub(super) enum Face {
    /// One node under this name, and its signature beside it; in certificate mode also which certificate that is of.
    Gateway { node: String, certificate: Option<String> },
    /// The values alone, their signature in headers.
    Rest,
}

/// What an answer is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signing {
    Right,
    Missing,
    Wrong,
}

impl Face {
    /// The gateway's, where not even the method can be told.
    pub(super) fn error() -> Self {
        Self::Gateway { node: "error_response".to_owned(), certificate: None }
    }

    fn body(&self, done: &Result<Value, ApiError>) -> (StatusCode, Value) {
        match (self, done) {
            (Self::Gateway { .. }, done) => (StatusCode::OK, messages::node(done)),
            (Self::Rest, Ok(told)) => (StatusCode::OK, told.clone()),
            (Self::Rest, Err(error)) => {
                (error.status, json!({ "code": error.sub_code, "message": error.sub_msg, "links": [] }))
            }
        }
    }
}

/// Builds the HTTP routes.
pub(crate) fn router(desk: Arc<Desk>) -> Router {
    Router::new().fallback(answer).with_state(desk)
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "too large");
    };
    let tasks = desk.context.tasks.clone();
    let work = async move { desk.answer(&head, &body).await };
    tasks.run_to_end("sandbox alipay call", work).await.unwrap_or_else(|_| hang_up())
}

/// Where the caller finds this server. Some clients send the absolute form of a request.
pub(super) fn base(head: &request::Parts) -> String {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    format!("http://{}", host.or(authority).unwrap_or("127.0.0.1"))
}

impl Desk {
    /// The gateway's, for what these parameters ask for.
    pub(super) fn face(&self, parameters: &Parameters) -> Face {
        let method = parameters.get("method").filter(|name| super::call::Call::of_method(name).is_some());
        let certificate = parameters.get("app_id").and_then(|app_id| self.keys.certificate_for(app_id));
        let node =
            method.map_or_else(|| "error_response".to_owned(), |name| format!("{}_response", name.replace('.', "_")));
        Face::Gateway { node, certificate: certificate.map(str::to_owned) }
    }

    async fn answer(self: &Arc<Self>, head: &request::Parts, body: &Bytes) -> Response<Body> {
        let path = head.uri.path();
        match path.strip_prefix("/cashier/") {
            Some(token) => self.cashier(&head.method, token).await,
            None if path == "/gateway.do" => self.gateway(head, body).await,
            None if path.starts_with("/v3/") => self.rest(head, body).await,
            None if path == super::bill::PATH && head.method == Method::GET => self.bill_file(head).await,
            None => text(StatusCode::NOT_FOUND, "nothing is served here"),
        }
    }

    /// Does what is asked for and answers, as a staged fault may want it.
    pub(super) async fn served(self: &Arc<Self>, asked: &Asked, face: &Face) -> Response<Body> {
        let suffer = self.faults.take(SYSTEM, asked.call.operation());
        match suffer.map(|suffer| (suffer.fault, suffer.delay)) {
            Some((Fault::Busy, _)) => return self.refused(face, outcome::unavailable()),
            Some((Fault::ErrorBefore, _)) => return self.refused(face, outcome::system()),
            Some((Fault::DropBefore, _)) => return hang_up(),
            Some((Fault::Late, delay)) => self.pause(delay).await,
            _ => {}
        }
        let done = self.run(asked, suffer).await;
        match suffer {
            Some(suffer) => self.spoilt(face, suffer, done).await,
            None => self.told(face, &done, Signing::Right),
        }
    }

    /// An error. Who is not known as an app has no key to verify with, so nothing is signed for it.
    pub(super) fn refused(&self, face: &Face, error: ApiError) -> Response<Body> {
        let is_known = error.sub_code != "isv.invalid-app-id" && error.code != "40001";
        self.told(face, &Err(error), if is_known { Signing::Right } else { Signing::Missing })
    }

    async fn spoilt(
        &self,
        face: &Face,
        Suffer { fault, delay }: Suffer,
        done: Result<Value, ApiError>,
    ) -> Response<Body> {
        match fault {
            Fault::ErrorAfter => self.refused(face, outcome::system()),
            Fault::Fault => text(StatusCode::INTERNAL_SERVER_ERROR, "<html><body>Internal Server Error</body></html>"),
            Fault::DropAfter => hang_up(),
            Fault::Hang => {
                self.pause(HANG).await;
                hang_up()
            }
            Fault::Slow => {
                self.pause(delay).await;
                self.told(face, &done, Signing::Right)
            }
            Fault::Unsigned => self.told(face, &done, Signing::Missing),
            Fault::BadSignature => self.told(face, &done, Signing::Wrong),
            Fault::GarbleValue | Fault::GarbleCut | Fault::TooLong if done.is_ok() => {
                let (status, told) = face.body(&done);
                self.sent(face, status, garbled(told, fault), Signing::Right)
            }
            _ => self.told(face, &done, Signing::Right),
        }
    }

    fn told(&self, face: &Face, done: &Result<Value, ApiError>, signing: Signing) -> Response<Body> {
        let (status, told) = face.body(done);
        self.sent(face, status, written(&told), signing)
    }

    fn sent(&self, face: &Face, status: StatusCode, told: String, signing: Signing) -> Response<Body> {
        let sign = |text: &str| match signing {
            Signing::Right => self.keys.alipay.sign(text),
            Signing::Wrong => self.keys.alipay.sign("something else"),
            Signing::Missing => String::new(),
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=utf-8"));
        let body = match face {
            Face::Gateway { node, .. } if signing == Signing::Missing => format!("{{\"{node}\":{told}}}"),
            Face::Gateway { node, certificate } => {
                let named = certificate.as_ref().map(|number| format!("\"alipay_cert_sn\":\"{number}\","));
                format!("{{\"{node}\":{told},{}\"sign\":\"{}\"}}", named.unwrap_or_default(), sign(&told))
            }
            Face::Rest => {
                let millis = (self.book.now().micros() / 1_000).to_string();
                let nonce = self.context.ids.hex(32);
                let signature = sign(&format!("{millis}\n{nonce}\n{told}\n"));
                let trace = self.context.ids.hex(30);
                let all = [("timestamp", millis), ("nonce", nonce), ("trace-id", trace), ("signature", signature)];
                for (name, value) in all {
                    let name = http::HeaderName::try_from(format!("alipay-{name}"));
                    if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                        headers.insert(name, value);
                    }
                }
                if signing == Signing::Missing {
                    headers.remove("alipay-signature");
                }
                told
            }
        };
        *response.body_mut() = Body::from(body);
        response
    }

    pub(super) async fn pause(&self, span: Duration) {
        let stop = self.context.tasks.token();
        tokio::select! {
            biased;
            () = self.context.clock.sleep(span) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// JSON as Alipay writes it, with slashes escaped: whoever verifies what it has read and written again verifies something else.
fn written(value: &Value) -> String {
    value.to_string().replace('/', "\\/")
}

fn garbled(mut told: Value, fault: Fault) -> String {
    match fault {
        Fault::GarbleValue => {
            for name in ["trade_status", "qr_code", "fund_change", "refund_status", "bill_download_url"] {
                if let Some(value) = told.get_mut(name) {
                    *value = json!("SANDBOX_UNDEFINED");
                }
            }
            written(&told)
        }
        Fault::TooLong => {
            told["padding"] = json!("x".repeat(TOO_LONG_BYTES));
            written(&told)
        }
        _ => {
            let text = written(&told);
            text.chars().take(text.chars().count() / 2).collect()
        }
    }
}

/// A page or a plain word.
pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html;charset=utf-8"));
    response
}

pub(super) fn hang_up() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(HangUp);
    response
}
