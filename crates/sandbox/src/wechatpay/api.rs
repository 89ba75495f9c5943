//! The HTTP face: who asks, what for, and a signed answer.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode, request};
use jiff::Span;
use jiff::civil::Date;
use runtime::Context;
use runtime::http::HangUp;
use serde_json::{Value, json};

use super::bill::{self, Trades};
use super::book::Book;
use super::desk::{Desk, SYSTEM};
use super::event::{RefundStatus, TradeType, Whole};
use super::outcome::{self, ApiError, bad_parameter};
use super::{messages, mixed};
use crate::beijing;
use crate::faults::{Fault, HANG, Operation, Suffer};
use crate::rsa::Signer;

const SCHEME: &str = "WECHATPAY2-SHA256-RSA2048";
/// How far a request's clock may be off.
const SKEW_SECONDS: i64 = 300;
const BODY_BYTES_MAX: usize = 64 * 1_024;
const TOO_LONG_BYTES: usize = 2 << 20;
/// The fields of answers that a garbled value takes the place of.
const GARBLED: [&str; 12] = [
    "trade_state",
    "status",
    "prepay_id",
    "code_url",
    "h5_url",
    "data",
    "sub_orders",
    "hash_value",
    "mix_trade_no",
    "mix_pay_status",
    "self_pay_status",
    "med_ins_pay_status",
];

/// A call whose sender is proven.
struct Asked {
    mchid: String,
    call: Call,
}

/// What a call brings.
enum Told {
    Json(Value),
    Empty,
    /// The file of a bill: not JSON, and not signed.
    File(Bytes),
}

type Done = Result<Told, ApiError>;

/// What can be asked for.
enum Call {
    Order(TradeType),
    Combine(TradeType),
    CombineByNumber(String),
    CombineClose(String),
    TradeBill,
    FlowBill,
    Download,
    ByNumber(String),
    ByTransaction(String),
    Close(String),
    Refund,
    RefundByNumber(String),
    Certificates,
    Mixed,
    MixedByNumber(String),
    MixedByOurs(String),
    MixedReturned,
}

impl Call {
    fn operation(&self) -> Operation {
        match self {
            Self::Order(_) | Self::Combine(_) => Operation::Order,
            Self::ByNumber(_) | Self::ByTransaction(_) | Self::CombineByNumber(_) => Operation::Query,
            Self::Close(_) | Self::CombineClose(_) => Operation::Close,
            Self::TradeBill | Self::FlowBill => Operation::Bill,
            Self::Download => Operation::Download,
            Self::Refund => Operation::Refund,
            Self::RefundByNumber(_) => Operation::RefundQuery,
            Self::Certificates => Operation::Certificates,
            Self::Mixed => Operation::MixedOrder,
            Self::MixedByNumber(_) | Self::MixedByOurs(_) => Operation::MixedQuery,
            Self::MixedReturned => Operation::MixedReturn,
        }
    }

    fn of(method: &Method, path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method.as_str(), parts.as_slice()) {
            ("POST", ["v3", "pay", "transactions", how]) => trade_type(how).map(Self::Order),
            ("POST", ["v3", "combine-transactions", how]) => trade_type(how).map(Self::Combine),
            ("GET", ["v3", "combine-transactions", "out-trade-no", number]) => {
                Some(Self::CombineByNumber((*number).into()))
            }
            ("POST", ["v3", "combine-transactions", "out-trade-no", number, "close"]) => {
                Some(Self::CombineClose((*number).into()))
            }
            ("GET", ["v3", "bill", "tradebill"]) => Some(Self::TradeBill),
            ("GET", ["v3", "bill", "fundflowbill"]) => Some(Self::FlowBill),
            ("GET", ["v3", "billdownload", "file"]) => Some(Self::Download),
            ("GET", ["v3", "pay", "transactions", "out-trade-no", number]) => Some(Self::ByNumber((*number).into())),
            ("GET", ["v3", "pay", "transactions", "id", number]) => Some(Self::ByTransaction((*number).into())),
            ("POST", ["v3", "pay", "transactions", "out-trade-no", number, "close"]) => {
                Some(Self::Close((*number).into()))
            }
            ("POST", ["v3", "refund", "domestic", "refunds"]) => Some(Self::Refund),
            ("GET", ["v3", "refund", "domestic", "refunds", number]) => Some(Self::RefundByNumber((*number).into())),
            ("GET", ["v3", "certificates"]) => Some(Self::Certificates),
            ("POST", ["v3", "med-ins", "orders"]) => Some(Self::Mixed),
            ("GET", ["v3", "med-ins", "orders", "out-trade-no", number]) => Some(Self::MixedByNumber((*number).into())),
            ("GET", ["v3", "med-ins", "orders", "mix-trade-no", number]) => Some(Self::MixedByOurs((*number).into())),
            ("POST", ["v3", "med-ins", "refunds", "notify"]) => Some(Self::MixedReturned),
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
        let ends = match fault {
            Some(Fault::Abnormal) => RefundStatus::Abnormal,
            Some(Fault::Closed) => RefundStatus::Closed,
            Some(Fault::Stuck) => RefundStatus::Processing,
            _ => RefundStatus::Success,
        };
        let done = self.run(&asked, head, body, ends).await;
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

    async fn run(self: &Arc<Self>, asked: &Asked, head: &request::Parts, body: &Bytes, ends: RefundStatus) -> Done {
        let mchid = asked.mchid.as_str();
        let json = || serde_json::from_slice::<Value>(body).map_err(|_| bad_parameter("body"));
        let owns = |named: &str| if named == mchid { Ok(()) } else { Err(outcome::NO_AUTH) };
        let ok = |told: Value| Ok(Told::Json(told));
        let whole = |number: &str| Whole { mchid: mchid.to_owned(), out_trade_no: number.to_owned() };
        let parts_max = usize::try_from(self.config.combine_max).unwrap_or(usize::MAX);
        match &asked.call {
            Call::Order(trade_type) => {
                let terms = messages::order(*trade_type, &json()?)?;
                owns(&terms.mchid)?;
                self.owns_app(&terms.mchid, &terms.appid)?;
                ok(messages::session(terms.trade_type, &self.create(&terms).await?.session))
            }
            Call::Combine(trade_type) => {
                let terms = messages::combine(*trade_type, &json()?, parts_max)?;
                owns(&terms.whole.mchid)?;
                // Every merchant of a part must be known, and have the app that the whole is ordered from.
                terms.parts.iter().try_for_each(|part| self.owns_app(&part.mchid, &terms.appid))?;
                self.owns_app(&terms.whole.mchid, &terms.appid)?;
                ok(messages::session(terms.trade_type, &self.create_combine(&terms).await?.session()))
            }
            Call::CombineByNumber(number) => {
                let (combine, now) = self.query_combine(&whole(number)).await?;
                ok(messages::combined(&combine, now))
            }
            Call::CombineClose(number) => {
                let (appid, parts) = messages::close_combine(&json()?, parts_max)?;
                self.owns_app(mchid, &appid)?;
                self.close_combine(&whole(number), &parts).await?;
                Ok(Told::Empty)
            }
            Call::TradeBill => {
                let which = match query(head, "bill_type") {
                    None | Some("ALL") => Trades::All,
                    Some("SUCCESS") => Trades::Success,
                    Some("REFUND") => Trades::Refund,
                    Some(_) => return Err(bad_parameter("bill_type")),
                };
                ok(self.bill(head, mchid, |book, day| bill::trades(book, mchid, day, which)).await?)
            }
            Call::FlowBill => match query(head, "account_type") {
                None | Some("BASIC") => ok(self.bill(head, mchid, |book, day| bill::flows(book, mchid, day)).await?),
                // The other accounts are never used here.
                Some("OPERATION" | "FEES") => Err(outcome::NO_BILL),
                Some(_) => Err(bad_parameter("account_type")),
            },
            Call::Download => {
                let token = query(head, "token").ok_or(bad_parameter("token"))?;
                self.files.find(token, mchid, self.book.now()).map(Told::File).ok_or(outcome::BAD_BILL)
            }
            Call::ByNumber(number) => {
                owns(query(head, "mchid").ok_or(bad_parameter("mchid"))?)?;
                let (order, now) = self.query(|book| book.own_order(mchid, number).cloned()).await?;
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
                Ok(Told::Empty)
            }
            Call::Refund => ok(messages::refunded(&self.refund(mchid, messages::refund(&json()?)?, ends).await?)),
            Call::RefundByNumber(number) => ok(messages::refunded(&self.query_refund(mchid, number).await?)),
            Call::Certificates => ok(self.certificates(mchid)?),
            Call::Mixed => {
                let named = head.headers.get("wechatpay-serial").and_then(|value| value.to_str().ok());
                let open = |sealed: &str| self.keys.open(named, sealed);
                let terms = mixed::order(mchid, self.mix_trade_no(), &json()?, open)?;
                self.owns_app(mchid, &terms.appid)?;
                let (mixed, standing) = self.create_mixed(&terms).await?;
                ok(mixed::told(&mixed.terms, standing))
            }
            Call::MixedByNumber(number) => {
                let (mixed, standing) = self.query_mixed(|book| book.mixed(mchid, number)).await?;
                ok(mixed::told(&mixed.terms, standing))
            }
            Call::MixedByOurs(number) => {
                let (mixed, standing) = self.query_mixed(|book| book.mixed_of_number(mchid, number)).await?;
                ok(mixed::told(&mixed.terms, standing))
            }
            Call::MixedReturned => {
                self.take_returned(mchid, &mixed::returned(query(head, "mix_trade_no"), &json()?)?).await?;
                Ok(Told::Empty)
            }
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

    /// Makes a bill ready to be downloaded, and tells where and what it hashes to.
    async fn bill(
        &self,
        head: &request::Parts,
        mchid: &str,
        write: impl FnOnce(&Book, Date) -> Option<Vec<u8>>,
    ) -> Result<Value, ApiError> {
        let day = query(head, "bill_date").ok_or(bad_parameter("bill_date"))?;
        let is_written_out = day.len() == "2018-06-08".len();
        let day: Date = day.parse().ok().filter(|_| is_written_out).ok_or(bad_parameter("bill_date"))?;
        let is_gzip = match query(head, "tar_type") {
            None => false,
            Some("GZIP") => true,
            Some(_) => return Err(bad_parameter("tar_type")),
        };
        let now = self.book.now();
        let (today, months) = (beijing::day(now), Span::new().months(3));
        if day > today || today.checked_sub(months).is_ok_and(|oldest| day < oldest) {
            return Err(outcome::BAD_BILL);
        }
        let ready_at = day.tomorrow().map_or(now, |next| beijing::moment(next.at(10, 0, 0, 0)));
        if self.config.bills_wait && now < ready_at {
            return Err(outcome::BILL_NOT_READY);
        }
        // Through the journal, so that nothing stands in a bill that a kill could take back.
        let written = self.book.change(|_, _| Ok(Vec::new()), |book, _| Ok::<_, ApiError>(write(book, day)));
        let bytes = written.await??.ok_or(outcome::NO_BILL)?;
        let hash = hex::encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &bytes));
        let bytes = if is_gzip { gzip(&bytes).map_err(|_| outcome::SYSTEM)? } else { bytes };
        let token = self.context.ids.hex(64);
        self.files.keep(&token, mchid, bytes, now);
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).ok_or(bad_parameter("host"))?;
        let address = format!("http://{host}/v3/billdownload/file?token={token}");
        Ok(json!({ "hash_type": "SHA1", "hash_value": hash, "download_url": address }))
    }

    // === answering ===

    fn told(&self, done: Done, signer: &Signer) -> Response<Body> {
        match done {
            Ok(Told::Json(told)) => self.signed(StatusCode::OK, told.to_string(), signer),
            Ok(Told::Empty) => self.signed(StatusCode::NO_CONTENT, String::new(), signer),
            Ok(Told::File(bytes)) => {
                let mut response = self.plain(StatusCode::OK, 0);
                let binary = HeaderValue::from_static("application/octet-stream");
                response.headers_mut().insert(CONTENT_TYPE, binary);
                *response.body_mut() = Body::from(bytes);
                response
            }
            Err(error) => self.refused(&error),
        }
    }

    async fn spoilt(&self, Suffer { fault, delay }: Suffer, done: Done, signer: &Signer) -> Response<Body> {
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
                Ok(Told::Json(told)) => self.signed(StatusCode::OK, garbled(told, fault), signer),
                Ok(Told::File(bytes)) => self.told(Ok(Told::File(garbled_file(&bytes, fault))), signer),
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
            for name in GARBLED {
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

fn garbled_file(bytes: &Bytes, fault: Fault) -> Bytes {
    match fault {
        Fault::GarbleCut => bytes.slice(..bytes.len() / 2),
        Fault::TooLong => [bytes, &[b'x'; TOO_LONG_BYTES][..]].concat().into(),
        _ => {
            let mut other = bytes.to_vec();
            if let Some(last) = other.iter_mut().rev().find(|byte| byte.is_ascii_digit()) {
                *last = if *last == b'7' { b'8' } else { b'7' };
            }
            other.into()
        }
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes)?;
    packed.finish()
}

fn trade_type(word: &str) -> Option<TradeType> {
    match word {
        "jsapi" => Some(TradeType::Jsapi),
        "native" => Some(TradeType::Native),
        "app" => Some(TradeType::App),
        "h5" => Some(TradeType::H5),
        _ => None,
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
