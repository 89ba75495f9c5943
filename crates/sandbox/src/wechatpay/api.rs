//! The HTTP face: who asks, what for, and a signed answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode, request};
use runtime::Context;
use runtime::http::HangUp;
use serde_json::{Value, json};

use super::desk::{Desk, SYSTEM};
use super::event::{RefundStatus, TradeType};
use super::messages;
use super::outcome::{self, ApiError, bad_parameter};
use crate::faults::{Fault, HANG, Operation, Suffer};
use crate::rsa::Signer;

const SCHEME: &str = "WECHATPAY2-SHA256-RSA2048";
/// How far a request's clock may be off.
const SKEW_SECONDS: i64 = 300;
const BODY_BYTES_MAX: usize = 64 * 1_024;
const TOO_LONG_BYTES: usize = 2 << 20;

/// A call whose sender is proven.
struct Asked {
    mchid: String,
    call: Call,
}

/// What can be asked for.
enum Call {
    Order(TradeType),
    ByNumber(String),
    ByTransaction(String),
    Close(String),
    Refund,
    RefundByNumber(String),
    Certificates,
}

impl Call {
    fn operation(&self) -> Operation {
        match self {
            Self::Order(_) => Operation::Order,
            Self::ByNumber(_) | Self::ByTransaction(_) => Operation::Query,
            Self::Close(_) => Operation::Close,
            Self::Refund => Operation::Refund,
            Self::RefundByNumber(_) => Operation::RefundQuery,
            Self::Certificates => Operation::Certificates,
        }
    }

    fn of(method: &Method, path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method.as_str(), parts.as_slice()) {
            ("POST", ["v3", "pay", "transactions", "jsapi"]) => Some(Self::Order(TradeType::Jsapi)),
            ("POST", ["v3", "pay", "transactions", "native"]) => Some(Self::Order(TradeType::Native)),
            ("POST", ["v3", "pay", "transactions", "app"]) => Some(Self::Order(TradeType::App)),
            ("POST", ["v3", "pay", "transactions", "h5"]) => Some(Self::Order(TradeType::H5)),
            ("GET", ["v3", "pay", "transactions", "out-trade-no", number]) => Some(Self::ByNumber((*number).into())),
            ("GET", ["v3", "pay", "transactions", "id", number]) => Some(Self::ByTransaction((*number).into())),
            ("POST", ["v3", "pay", "transactions", "out-trade-no", number, "close"]) => {
                Some(Self::Close((*number).into()))
            }
            ("POST", ["v3", "refund", "domestic", "refunds"]) => Some(Self::Refund),
            ("GET", ["v3", "refund", "domestic", "refunds", number]) => Some(Self::RefundByNumber((*number).into())),
            ("GET", ["v3", "certificates"]) => Some(Self::Certificates),
            _ => None,
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
        return desk.refused(&bad_parameter("body"));
    };
    let tasks = desk.context.tasks.clone();
    let work = async move { desk.answer(&head, &body).await };
    tasks.run_to_end("sandbox wechatpay call", work).await.unwrap_or_else(|_| hang_up())
}

impl Desk {
    async fn answer(self: &Arc<Self>, head: &request::Parts, body: &Bytes) -> Response<Body> {
        let asked = match self.asked(head, body) {
            Ok(asked) => asked,
            Err(error) => return self.refused(&error),
        };
        let operation = asked.call.operation();
        let suffer = self.faults.take(SYSTEM, operation);
        let fault = suffer.map(|suffer| suffer.fault);
        match fault {
            Some(Fault::Busy) => return self.refused(&outcome::TOO_OFTEN),
            Some(Fault::ErrorBefore) => return self.refused(&outcome::SYSTEM),
            Some(Fault::DropBefore) => return hang_up(),
            Some(Fault::Late) => self.pause(suffer.map_or(Duration::ZERO, |suffer| suffer.delay)).await,
            _ => {}
        }
        let done = self.run(&asked, head, body, fault == Some(Fault::Abnormal)).await;
        let named = head.headers.get("wechatpay-serial").and_then(|value| value.to_str().ok());
        let signer = self.keys.answering(named);
        match suffer {
            Some(suffer) => self.spoilt(suffer, done, signer).await,
            None => self.told(done, signer),
        }
    }

    /// Reads who asks and what for.
    fn asked(&self, head: &request::Parts, body: &Bytes) -> Result<Asked, ApiError> {
        // Some clients send the absolute form; what is signed is the path and query all the same.
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let text = std::str::from_utf8(body).map_err(|_| bad_parameter("body"))?;
        let mchid = self.authenticate(&head.method, target, &head.headers, text)?;
        let call = Call::of(&head.method, head.uri.path()).ok_or(outcome::NO_PATH)?;
        Ok(Asked { mchid, call })
    }

    /// Verifies the signature of a request; returns the merchant.
    fn authenticate(&self, method: &Method, target: &str, headers: &HeaderMap, body: &str) -> Result<String, ApiError> {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let fields = authorization(header).ok_or(outcome::SIGN_ERROR)?;
        let get = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let (Some(mchid), Some(serial), Some(nonce), Some(seconds), Some(signature)) =
            (get("mchid"), get("serial_no"), get("nonce_str"), get("timestamp"), get("signature"))
        else {
            return Err(outcome::SIGN_ERROR);
        };
        let merchant = self.keys.merchant(mchid).ok_or(outcome::SIGN_ERROR)?;
        let (now, _) = self.book.now().seconds_nanos();
        let fresh = seconds.parse::<i64>().is_ok_and(|at| at.abs_diff(now) <= SKEW_SECONDS.unsigned_abs());
        if !fresh || !serial.eq_ignore_ascii_case(&merchant.serial) || !(1..=128).contains(&nonce.len()) {
            return Err(outcome::SIGN_ERROR);
        }
        let signed = format!("{method}\n{target}\n{seconds}\n{nonce}\n{body}\n");
        // One client leaves the last, empty line out when there is no body.
        let shorter = format!("{method}\n{target}\n{seconds}\n{nonce}\n");
        let verifies = |text: &str| merchant.verifier.verifies(text, signature);
        if verifies(&signed) || (body.is_empty() && verifies(&shorter)) {
            Ok(mchid.to_owned())
        } else {
            Err(outcome::SIGN_ERROR)
        }
    }

    async fn run(
        self: &Arc<Self>,
        asked: &Asked,
        head: &request::Parts,
        body: &Bytes,
        abnormal: bool,
    ) -> Result<(StatusCode, Option<Value>), ApiError> {
        let mchid = asked.mchid.as_str();
        let json = || serde_json::from_slice::<Value>(body).map_err(|_| bad_parameter("body"));
        let owns = |named: &str| if named == mchid { Ok(()) } else { Err(outcome::NO_AUTH) };
        let ok = |told: Value| Ok((StatusCode::OK, Some(told)));
        match &asked.call {
            Call::Order(trade_type) => {
                let terms = messages::order(*trade_type, &json()?)?;
                owns(&terms.mchid)?;
                self.owns_app(&terms.mchid, &terms.appid)?;
                ok(messages::session(&self.create(&terms).await?))
            }
            Call::ByNumber(number) => {
                owns(query(head, "mchid").ok_or(bad_parameter("mchid"))?)?;
                let (order, now) = self.query(|book| book.order(mchid, number).cloned()).await?;
                ok(messages::transaction(&order, now))
            }
            Call::ByTransaction(number) => {
                owns(query(head, "mchid").ok_or(bad_parameter("mchid"))?)?;
                let (order, now) = self.query(|book| book.order_of_transaction(mchid, number).cloned()).await?;
                ok(messages::transaction(&order, now))
            }
            Call::Close(number) => {
                owns(&messages::close(&json()?)?)?;
                self.close(mchid, number).await?;
                Ok((StatusCode::NO_CONTENT, None))
            }
            Call::Refund => {
                let ends = if abnormal { RefundStatus::Abnormal } else { RefundStatus::Success };
                ok(messages::refunded(&self.refund(mchid, messages::refund(&json()?)?, ends).await?))
            }
            Call::RefundByNumber(number) => ok(messages::refunded(&self.query_refund(mchid, number).await?)),
            Call::Certificates => ok(self.certificates(mchid)?),
        }
    }

    fn owns_app(&self, mchid: &str, appid: &str) -> Result<(), ApiError> {
        let merchant = self.config.merchants.iter().find(|merchant| merchant.mchid == mchid);
        let owns = merchant.is_some_and(|merchant| merchant.appids.iter().any(|known| known == appid));
        if owns { Ok(()) } else { Err(outcome::OTHER_APP) }
    }

    fn certificates(&self, mchid: &str) -> Result<Value, ApiError> {
        let api_key = &self.keys.merchant(mchid).ok_or(outcome::NO_AUTH)?.api_key;
        let nonce = self.context.ids.hex(12);
        let ciphertext = api_key.seal(&nonce, "certificate", &self.keys.certificate_pem).ok_or(outcome::SYSTEM)?;
        Ok(json!({ "data": [{
            "serial_no": self.keys.certificate.serial(),
            "effective_time": self.keys.valid.0,
            "expire_time": self.keys.valid.1,
            "encrypt_certificate": {
                "algorithm": "AEAD_AES_256_GCM",
                "nonce": nonce,
                "associated_data": "certificate",
                "ciphertext": ciphertext,
            },
        }] }))
    }

    // === answering ===

    fn told(&self, done: Result<(StatusCode, Option<Value>), ApiError>, signer: &Signer) -> Response<Body> {
        match done {
            Ok((status, told)) => self.signed(status, told.map(|told| told.to_string()).unwrap_or_default(), signer),
            Err(error) => self.refused(&error),
        }
    }

    async fn spoilt(
        &self,
        Suffer { fault, delay }: Suffer,
        done: Result<(StatusCode, Option<Value>), ApiError>,
        signer: &Signer,
    ) -> Response<Body> {
        match fault {
            Fault::ErrorAfter => self.refused(&outcome::SYSTEM),
            Fault::DropAfter => hang_up(),
            Fault::Hang => {
                self.pause(HANG).await;
                hang_up()
            }
            Fault::Slow => {
                self.pause(delay).await;
                self.told(done, signer)
            }
            Fault::Unsigned => {
                let mut response = self.told(done, signer);
                response.headers_mut().remove("wechatpay-signature");
                response
            }
            Fault::BadSignature => {
                let mut response = self.told(done, signer);
                let forged = HeaderValue::try_from(signer.sign("something else")).ok();
                if let Some(forged) = forged.filter(|_| response.headers().contains_key("wechatpay-signature")) {
                    response.headers_mut().insert("wechatpay-signature", forged);
                }
                response
            }
            Fault::GarbleValue | Fault::GarbleCut | Fault::TooLong => match done {
                Ok((status, Some(told))) => self.signed(status, garbled(told, fault), signer),
                other => self.told(other, signer),
            },
            _ => self.told(done, signer),
        }
    }

    fn signed(&self, status: StatusCode, body: String, signer: &Signer) -> Response<Body> {
        let mut response = self.plain(status, 0);
        for (name, value) in signature_headers(&self.context, signer, &body) {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        *response.body_mut() = Body::from(body);
        response
    }

    /// An error. Only successes are signed.
    fn refused(&self, error: &ApiError) -> Response<Body> {
        let mut response = self.plain(error.status, error.number);
        *response.body_mut() = Body::from(error.body());
        response
    }

    fn plain(&self, status: StatusCode, number: u32) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        if status != StatusCode::NO_CONTENT {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        }
        if let Ok(id) = HeaderValue::try_from(format!("08{}-{number}", self.context.ids.hex(20).to_uppercase())) {
            response.headers_mut().insert("request-id", id);
        }
        response
    }

    async fn pause(&self, span: Duration) {
        let stop = self.context.tasks.token();
        tokio::select! {
            biased;
            () = self.context.clock.sleep(span) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The headers that sign a body of ours, an answer or a callback.
pub(super) fn signature_headers(context: &Context, signer: &Signer, body: &str) -> [(&'static str, String); 5] {
    let (seconds, _) = context.clock.now().seconds_nanos();
    let nonce = context.ids.hex(32);
    let signature = signer.sign(&format!("{seconds}\n{nonce}\n{body}\n"));
    [
        ("Wechatpay-Timestamp", seconds.to_string()),
        ("Wechatpay-Nonce", nonce),
        ("Wechatpay-Serial", signer.serial().to_owned()),
        ("Wechatpay-Signature", signature),
        ("Wechatpay-Signature-Type", SCHEME.to_owned()),
    ]
}

/// Reads `SCHEME key="value",key="value"` in any order.
fn authorization(header: &str) -> Option<Vec<(&str, &str)>> {
    let fields = header.strip_prefix(SCHEME)?.trim_start();
    let pairs = fields.split(',').map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim(), value.trim().strip_prefix('"')?.strip_suffix('"')?))
    });
    let pairs: Vec<_> = pairs.collect::<Option<_>>()?;
    let repeated = pairs.iter().enumerate().any(|(at, (name, _))| pairs.iter().skip(at + 1).any(|(n, _)| n == name));
    (!repeated).then_some(pairs)
}

fn query<'a>(head: &'a request::Parts, name: &str) -> Option<&'a str> {
    let pairs = head.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(known, _)| *known == name).map(|(_, value)| value).next()
}

fn garbled(mut told: Value, fault: Fault) -> String {
    match fault {
        Fault::GarbleValue => {
            for name in ["trade_state", "status", "prepay_id", "code_url", "h5_url", "data"] {
                if let Some(value) = told.get_mut(name) {
                    *value = json!("SANDBOX_UNDEFINED");
                }
            }
            told.to_string()
        }
        Fault::TooLong => {
            told["padding"] = json!("x".repeat(TOO_LONG_BYTES));
            told.to_string()
        }
        _ => {
            let text = told.to_string();
            text.chars().take(text.chars().count() / 2).collect()
        }
    }
}

fn hang_up() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(HangUp);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorizations_read_in_any_order_and_only_whole() {
        let header =
            "WECHATPAY2-SHA256-RSA2048 nonce_str=\"n\", mchid=\"1\",signature=\"a==\",timestamp=\"2\",serial_no=\"F\"";
        let fields = authorization(header).expect("reads");
        assert_eq!(
            fields,
            [("nonce_str", "n"), ("mchid", "1"), ("signature", "a=="), ("timestamp", "2"), ("serial_no", "F")]
        );
        for bad in [
            "",
            "Bearer x",
            "WECHATPAY2-SHA256-RSA2048 mchid=1",
            "WECHATPAY2-SHA256-RSA2048 a=\"1\",a=\"2\"",
            "WECHATPAY2-SHA256-RSA2048 ",
        ] {
            assert_eq!(authorization(bad), None, "{bad}");
        }
    }
}
