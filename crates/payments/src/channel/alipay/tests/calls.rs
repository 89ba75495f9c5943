//! The driver against an Alipay that is played over sockets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri};
use runtime::Context;
use runtime::http::{Effect, Limits};
use serde_json::{Value, json};

use super::{ALIPAY, APP, ORDER, OURS, STRANGER, Stage, certificates, fen, now, pair, refund, terms};
use crate::channel::alipay::{Api, params};
use crate::channel::{Channel, ChannelError, OrderStatus, PaySheet, RefundStatus};
use crate::domain::order::TradeType;
use crate::domain::refund::Decision;

const BOTH: [Api; 2] = [Api::V2, Api::V3];

/// What is answered to a call.
#[derive(Clone)]
enum Told {
    /// A success.
    Done(Value),
    /// A refusal of the business.
    Business(&'static str),
    /// A refusal at the door, which is not signed.
    Door(&'static str),
    /// A success without a signature, and one with somebody else's.
    Unsigned(Value),
    Forged(Value),
    /// Something that is not Alipay's.
    Raw(u16, &'static str),
}

/// A request as it arrived.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

#[derive(Default)]
struct Desk {
    told: Mutex<VecDeque<Told>>,
    asked: Mutex<Vec<Asked>>,
    /// Which certificate the gateway says that it signs with.
    certificate: Mutex<Option<String>>,
}

struct Played {
    stage: Stage,
    desk: Arc<Desk>,
    context: Context,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.context.tasks.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn played(api: Api) -> Played {
    played_with(api, false).await
}

async fn played_with(api: Api, is_certified: bool) -> Played {
    let (context, desk) = (Context::system(), Arc::new(Desk::default()));
    let listener = context.net.bind("127.0.0.1:0").await.expect("a free port");
    let stage = Stage::with(api, &format!("http://{}/", listener.local_addr()), is_certified);
    let app = axum::Router::new().fallback(answer).with_state(desk.clone());
    let serving = runtime::http::serve(listener, app, Limits::default(), context.tasks.clone(), context.clock.clone());
    context.tasks.spawn("alipay, played", async move { serving.await.expect("serves") });
    Played { stage, desk, context }
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response<axum::body::Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 * 1_024).await.expect("a body");
    let body = String::from_utf8(body.to_vec()).expect("text");
    let told = locked(&desk.told).pop_front().expect("an answer is staged");
    let answer = match head.uri.path() {
        "/gateway.do" => by_gateway(&head.uri, &told, locked(&desk.certificate).as_deref()),
        _ => by_rest(&told),
    };
    locked(&desk.asked).push(Asked { method: head.method, uri: head.uri, headers: head.headers, body });
    answer.map(axum::body::Body::from)
}

fn response(status: u16, body: impl Into<Bytes>) -> Response<Bytes> {
    Response::builder().status(status).body(body.into()).expect("a response")
}

/// As Alipay writes: slashes escaped, so that only the bytes as they came verify.
fn written(value: &Value) -> String {
    value.to_string().replace('/', "\\/")
}

fn by_gateway(uri: &Uri, told: &Told, certificate: Option<&str>) -> Response<Bytes> {
    let params = params::read(uri.query().unwrap_or_default().as_bytes()).expect("parameters");
    let node = format!("{}_response", params["method"].replace('.', "_"));
    let with = |mut told: Value, code: &str| {
        told["code"] = code.into();
        told["msg"] = "Success".into();
        written(&told)
    };
    let (raw, sign) = match told {
        Told::Done(told) => (with(told.clone(), "10000"), Some(&*ALIPAY)),
        Told::Forged(told) => (with(told.clone(), "10000"), Some(&*STRANGER)),
        Told::Unsigned(told) => (with(told.clone(), "10000"), None),
        Told::Business(code) => (with(json!({ "sub_code": code }), "40004"), Some(&*ALIPAY)),
        Told::Door(code) => (with(json!({ "sub_code": code }), "40002"), None),
        Told::Raw(status, body) => return response(*status, *body),
    };
    let sign = sign.map(|key| format!(",\"sign\":\"{}\"", key.sign(&raw))).unwrap_or_default();
    let certificate = certificate.map(|number| format!(",\"alipay_cert_sn\":\"{number}\"")).unwrap_or_default();
    response(200, format!("{{\"{node}\":{raw}{certificate}{sign}}}"))
}

fn by_rest(told: &Told) -> Response<Bytes> {
    let error = |code: &str| written(&json!({ "code": code, "message": "m" }));
    let (status, body, key) = match told {
        Told::Done(told) => (200, written(told), Some(&*ALIPAY)),
        Told::Forged(told) => (200, written(told), Some(&*STRANGER)),
        Told::Unsigned(told) => (200, written(told), None),
        Told::Business(code) => (400, error(code), Some(&*ALIPAY)),
        Told::Door("isv.invalid-parameter") => (400, error("isv.invalid-parameter"), None),
        Told::Door(code) => (401, error(code), None),
        Told::Raw(status, body) => return response(*status, *body),
    };
    let mut answer = response(status, body.clone());
    if let Some(key) = key {
        let signature = key.sign(&format!("1780632000000\nnonce\n{body}\n"));
        for (name, value) in [("alipay-timestamp", "1780632000000"), ("alipay-nonce", "nonce")] {
            answer.headers_mut().insert(name, value.parse().expect("a value"));
        }
        answer.headers_mut().insert("alipay-signature", signature.parse().expect("a value"));
    }
    answer
}

impl Played {
    fn tell(&self, told: impl IntoIterator<Item = Told>) {
        locked(&self.desk.told).extend(told);
    }

    /// What was asked last: its method as Alipay names it, and its content. The signature must hold.
    fn asked(&self) -> (String, Value) {
        let asked = locked(&self.desk.asked).pop().expect("was asked");
        if asked.uri.path() == "/gateway.do" {
            return self.asked_by_gateway(&asked);
        }
        let header = asked.headers["authorization"].to_str().expect("text");
        let asker = header.strip_prefix("ALIPAY-SHA256withRSA ").expect("the scheme");
        let (asker, signature) = asker.rsplit_once(",sign=").expect("a signature");
        assert!(asker.starts_with(&format!("app_id={APP},nonce=")), "{asker}");
        let message = format!("{asker}\n{}\n{}\n{}\n", asked.method, asked.uri, asked.body);
        assert!(OURS.verifies(&message, signature), "{message}");
        let method = asked.uri.path().trim_start_matches("/v3/").replace('/', ".");
        (method, serde_json::from_str(&asked.body).unwrap_or_default())
    }

    fn asked_by_gateway(&self, asked: &Asked) -> (String, Value) {
        let form = format!("{}&{}", asked.uri.query().unwrap_or_default(), asked.body);
        let params = params::read(form.as_bytes()).expect("no parameter comes twice");
        assert!(OURS.verifies(&params::of_request(&params), &params["sign"]));
        let fixed = [("app_id", APP), ("charset", "utf-8"), ("sign_type", "RSA2"), ("version", "1.0")];
        assert!(fixed.iter().all(|(name, value)| params[*name] == *value), "{params:?}");
        let mut content: Value = serde_json::from_str(&params["biz_content"]).expect("JSON");
        if let Some(url) = params.get("notify_url") {
            content["notify_url"] = url.as_str().into();
        }
        (params["method"].clone(), content)
    }

    async fn create(&self) -> Result<PaySheet, ChannelError> {
        self.stage.driver.create(&terms(TradeType::Native), None).await
    }

    async fn query(&self) -> Result<OrderStatus, ChannelError> {
        self.stage.driver.query(&terms(TradeType::Native)).await
    }

    async fn refund(&self) -> Result<RefundStatus, ChannelError> {
        self.stage.driver.refund(&terms(TradeType::Native), &refund()).await
    }
}

fn trade(status: &str) -> Value {
    json!({
        "out_trade_no": ORDER, "trade_no": "2026060522001413571403596182", "trade_status": status,
        "total_amount": "200.00", "send_pay_date": "2026-06-05 12:00:00",
    })
}

#[tokio::test]
async fn a_code_to_scan_is_made() {
    for api in BOTH {
        let played = played(api).await;
        let code = "https://qr.alipay.com/bax03431ljhokirwl38f00a7";
        played.tell([Told::Done(json!({ "out_trade_no": ORDER, "qr_code": code }))]);
        let sheet = played.create().await.expect("creates");
        assert_eq!(sheet, PaySheet { code_url: code.into(), ..PaySheet::empty(TradeType::Native, sheet.expire_at) });
        let (method, content) = played.asked();
        assert_eq!(method, "alipay.trade.precreate");
        let expected = json!({
            "out_trade_no": ORDER, "total_amount": "200.00", "subject": "交通违法罚款 & more",
            "time_expire": "2026-06-05 12:15:00",
            "notify_url": "https://pay.example/callbacks/alipay/2088000000000001",
        });
        assert_eq!(content, expected, "{api:?}");
        for told in
            [json!({ "out_trade_no": "another", "qr_code": code }), json!({ "out_trade_no": ORDER, "qr_code": "" })]
        {
            played.tell([Told::Done(told)]);
            let error = played.create().await.expect_err("unusable");
            assert!(matches!(error, ChannelError::NoAnswer { effect: Effect::Possible, .. }), "{error:?}");
        }
    }
}

#[tokio::test]
async fn what_a_browser_or_an_app_opens_is_signed_without_a_call() {
    for api in BOTH {
        let played = played(api).await;
        for (trade_type, method, code) in [
            (TradeType::App, "alipay.trade.app.pay", "QUICK_MSECURITY_PAY"),
            (TradeType::H5, "alipay.trade.wap.pay", "QUICK_WAP_PAY"),
            (TradeType::Web, "alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
        ] {
            let sheet = played.stage.driver.create(&terms(trade_type), None).await.expect("signs");
            let form = match trade_type {
                TradeType::App => sheet.order_string.clone(),
                _ => {
                    let uri: Uri = sheet.page_url.parse().expect("an address");
                    assert_eq!((uri.scheme_str(), uri.path()), (Some("http"), "/gateway.do"));
                    uri.query().expect("parameters").to_owned()
                }
            };
            let params = params::read(form.as_bytes()).expect("reads");
            assert!(OURS.verifies(&params::of_request(&params), &params["sign"]), "{trade_type:?}");
            assert_eq!((params["method"].as_str(), params["app_id"].as_str()), (method, APP));
            assert_eq!(params["notify_url"], "https://pay.example/callbacks/alipay/2088000000000001");
            assert_eq!(params["return_url"], "https://city.example/back?a=b");
            let content: Value = serde_json::from_str(&params["biz_content"]).expect("JSON");
            assert_eq!((&content["product_code"], &content["total_amount"]), (&json!(code), &json!("200.00")));
            assert_eq!(content["quit_url"].is_null(), trade_type != TradeType::H5);
            assert_eq!(content["time_expire"], "2026-06-05 12:15:00", "Alipay takes no payment after the order's end");
            let others =
                [&sheet.code_url, if trade_type == TradeType::App { &sheet.page_url } else { &sheet.order_string }];
            assert!(sheet.jsapi.is_empty() && others.iter().all(|text| text.is_empty()));
        }
        assert!(locked(&played.desk.asked).is_empty());
    }
}

#[tokio::test]
async fn an_order_is_asked_for_and_closed() {
    for api in BOTH {
        let played = played(api).await;
        played.tell([
            Told::Done(trade("TRADE_SUCCESS")),
            Told::Done(trade("WAIT_BUYER_PAY")),
            Told::Done(trade("NEW")),
        ]);
        let OrderStatus::Paid(capture) = played.query().await.expect("answers") else { panic!("paid") };
        assert_eq!((capture.amount, capture.at), (fen(20_000), now()));
        assert_eq!(played.asked(), ("alipay.trade.query".to_owned(), json!({ "out_trade_no": ORDER })));
        assert_eq!(played.query().await.expect("answers"), OrderStatus::Pending);
        assert_eq!(played.query().await.expect("answers"), OrderStatus::Pending);
        let mut other = trade("TRADE_SUCCESS");
        other["out_trade_no"] = "another".into();
        played.tell([Told::Done(other), Told::Business("ACQ.TRADE_NOT_EXIST")]);
        assert!(matches!(played.query().await, Err(ChannelError::NoAnswer { effect: Effect::Possible, .. })));
        assert!(matches!(played.query().await, Err(ChannelError::NotKnown)));

        let close = async || played.stage.driver.close(&terms(TradeType::Native)).await;
        played.tell([Told::Done(json!({ "out_trade_no": ORDER })), Told::Business("ACQ.TRADE_NOT_EXIST")]);
        close().await.expect("closes");
        assert_eq!(played.asked(), ("alipay.trade.close".to_owned(), json!({ "out_trade_no": ORDER })));
        assert!(matches!(close().await, Err(ChannelError::NotKnown)));
        played.tell([Told::Business("ACQ.REASON_TRADE_STATUS_INVALID"), Told::Business("ACQ.SYSTEM_ERROR")]);
        assert!(matches!(close().await, Err(ChannelError::Otherwise { .. })));
        assert!(matches!(close().await, Err(ChannelError::NoAnswer { effect: Effect::Possible, .. })));
    }
}

#[tokio::test]
async fn only_what_alipay_signed_counts() {
    for api in BOTH {
        let played = played(api).await;
        let told = [
            Told::Forged(trade("TRADE_SUCCESS")),
            Told::Unsigned(trade("TRADE_SUCCESS")),
            Told::Raw(500, "{\"code\":\"ACQ.TRADE_NOT_EXIST\"}"),
            Told::Raw(200, "<html>"),
            Told::Raw(302, ""),
        ];
        for told in told {
            played.tell([told]);
            let error = played.query().await.expect_err("unusable");
            assert!(matches!(error, ChannelError::NoAnswer { effect: Effect::Possible, .. }), "{api:?} {error:?}");
        }
        played.tell([Told::Door("isv.invalid-parameter")]);
        let refused = played.query().await;
        assert!(
            matches!(&refused, Err(ChannelError::Refused { code }) if code == "isv.invalid-parameter"),
            "{refused:?}"
        );
        played.tell([Told::Door("isv.invalid-app-id")]);
        let error = played.query().await.expect_err("unusable until somebody mends it");
        assert!(matches!(&error, ChannelError::NotNow { code } if code == "isv.invalid-app-id"), "{error:?}");
    }
}

#[tokio::test]
async fn nobody_there_means_that_nothing_happened() {
    for api in BOTH {
        let listener = Context::system().net.bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr();
        drop(listener);
        let stage = Stage::new(api, &format!("http://{address}"));
        let error = stage.driver.query(&terms(TradeType::Native)).await.expect_err("nobody");
        assert!(matches!(error, ChannelError::NoAnswer { effect: Effect::None, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_refund_is_done_asked_for_or_under_way_and_never_guessed() {
    for api in BOTH {
        let played = played(api).await;
        let number = refund().channel_refund_no();
        let moved =
            |change: &str| Told::Done(json!({ "out_trade_no": ORDER, "fund_change": change, "refund_fee": "5.05" }));
        let found = |status: &str| {
            Told::Done(json!({
                "out_trade_no": ORDER, "out_request_no": number, "refund_amount": "5.05", "refund_status": status,
                "gmt_refund_pay": "2026-06-05 12:00:00",
            }))
        };
        let done = RefundStatus::Decided(Decision::Succeeded { channel_refund: number.clone(), at: now() });
        let processing = RefundStatus::Processing { channel_refund: number.clone() };
        played.tell([moved("Y")]);
        assert_eq!(played.refund().await.expect("answers"), done);
        let content = json!({
            "out_trade_no": ORDER, "out_request_no": number, "refund_amount": "5.05", "refund_reason": "rejected",
        });
        assert_eq!(played.asked(), ("alipay.trade.refund".to_owned(), content));
        // Taken, and nothing moved by this call: done before, or not yet.
        played.tell([moved("N"), found("REFUND_SUCCESS")]);
        assert_eq!(played.refund().await.expect("answers"), done);
        assert_eq!(played.asked().0, "alipay.trade.fastpay.refund.query");
        for unclear in [found("REFUND_PROCESSING"), found(""), Told::Business("ACQ.SYSTEM_ERROR"), Told::Raw(500, "")] {
            played.tell([moved("N"), unclear]);
            assert_eq!(played.refund().await.expect("answers"), processing);
        }
        played.tell([Told::Business("ACQ.SELLER_BALANCE_NOT_ENOUGH"), Told::Business("ACQ.TRADE_NOT_ALLOW_REFUND")]);
        assert!(matches!(played.refund().await, Err(ChannelError::NotNow { .. })));
        assert!(matches!(played.refund().await, Err(ChannelError::Refused { .. })));

        let ask = async || played.stage.driver.query_refund(&terms(TradeType::Native), &refund()).await;
        played.tell([found("REFUND_SUCCESS"), found("NEW"), found("")]);
        assert_eq!(ask().await.expect("answers"), done);
        let content = json!({ "out_trade_no": ORDER, "out_request_no": number, "query_options": ["gmt_refund_pay"] });
        assert_eq!(played.asked(), ("alipay.trade.fastpay.refund.query".to_owned(), content));
        assert_eq!(ask().await.expect("answers"), processing);
        assert!(matches!(ask().await, Err(ChannelError::NotKnown)), "to be sent again under the same number");
    }
}

#[tokio::test]
async fn a_bill_is_where_alipay_says() {
    let day = jiff::civil::date(2026, 6, 4);
    for api in BOTH {
        let played = played(api).await;
        let link = "http://dwbillcenter.alipay.com/downloadBillFile.resource?bizType=trade&token=t";
        played.tell([Told::Done(json!({ "bill_download_url": link })), Told::Business("isp.bill_not_exist")]);
        let address = played.stage.driver.bill_address(super::SELLER, day).await.expect("answers");
        assert_eq!(address.to_string(), link);
        let asked = locked(&played.desk.asked).pop().expect("was asked");
        match api {
            Api::V2 => {
                let content = json!({ "bill_type": "trade", "bill_date": "2026-06-04" });
                let method = "alipay.data.dataservice.bill.downloadurl.query".to_owned();
                assert_eq!(played.asked_by_gateway(&asked), (method, content));
            }
            Api::V3 => {
                let target = "/v3/alipay/data/dataservice/bill/downloadurl/query?bill_type=trade&bill_date=2026-06-04";
                assert_eq!((asked.method.clone(), asked.uri.to_string().as_str()), (Method::GET, target));
            }
        }
        assert!(matches!(played.stage.driver.bill_address(super::SELLER, day).await, Err(ChannelError::NotKnown)));
        let nobody = played.stage.driver.bill_address("2088", day).await;
        assert!(matches!(nobody, Err(ChannelError::NoAnswer { effect: Effect::None, .. })));
    }
}

#[tokio::test]
async fn keys_are_replaced_without_a_restart() {
    for api in BOTH {
        let played = played(api).await;
        played.tell([Told::Done(trade("WAIT_BUYER_PAY")), Told::Done(trade("WAIT_BUYER_PAY"))]);
        played.query().await.expect("answers");
        played.asked();
        let new = pair();
        played.stage.replace("app.pem", &new.private);
        played.query().await.expect("answers");
        let asked = locked(&played.desk.asked).pop().expect("was asked");
        let (message, signature) = match api {
            Api::V2 => {
                let form = format!("{}&{}", asked.uri.query().unwrap_or_default(), asked.body);
                let params = params::read(form.as_bytes()).expect("reads");
                (params::of_request(&params), params["sign"].clone())
            }
            Api::V3 => {
                let header = asked.headers["authorization"].to_str().expect("text");
                let (asker, signature) = header.rsplit_once(",sign=").expect("a signature");
                let asker = asker.trim_start_matches("ALIPAY-SHA256withRSA ");
                (format!("{asker}\nPOST\n{}\n{}\n", asked.uri, asked.body), signature.to_owned())
            }
        };
        assert!(new.verifies(&message, &signature) && !OURS.verifies(&message, &signature), "{api:?}");
    }
}

#[tokio::test]
async fn in_certificate_mode_both_sides_name_what_they_hold() {
    let numbers = [certificates::APP_NUMBER, certificates::ROOT_NUMBER];
    for api in BOTH {
        let played = played_with(api, true).await;
        let paid = || Told::Done(trade("WAIT_BUYER_PAY"));
        *locked(&played.desk.certificate) = Some(certificates::ALIPAY_NUMBER.to_owned());
        played.tell([paid(), Told::Forged(trade("TRADE_SUCCESS"))]);
        assert_eq!(played.query().await.expect("answers"), OrderStatus::Pending);
        let asked = locked(&played.desk.asked).pop().expect("was asked");
        let named = match api {
            Api::V2 => {
                let params = params::read(asked.uri.query().unwrap_or_default().as_bytes()).expect("reads");
                [params["app_cert_sn"].clone(), params["alipay_root_cert_sn"].clone()]
            }
            Api::V3 => {
                let header = |name: &str| asked.headers[name].to_str().expect("text").to_owned();
                let asker = header("authorization");
                let (_, app) = asker.split_once(&format!("app_id={APP},app_cert_sn=")).expect("names it");
                [app.split(',').next().unwrap_or_default().to_owned(), header("alipay-root-cert-sn")]
            }
        };
        assert_eq!(named, numbers, "{api:?}");
        played.query().await.expect_err("signed by a stranger");

        // Another certificate than the one in the file.
        if api == Api::V2 {
            *locked(&played.desk.certificate) = Some(certificates::APP_NUMBER.to_owned());
            played.tell([paid()]);
            played.query().await.expect_err("signed with what is not here");
            *locked(&played.desk.certificate) = None;
        }
        // It ends at the turn of the year.
        played.tell([paid(), paid()]);
        played.query().await.expect("answers");
        played.stage.hand.advance(std::time::Duration::from_secs(230 * 86_400));
        played.query().await.expect_err("the certificate has ended");
    }
}

#[tokio::test]
async fn certificates_are_replaced_without_a_restart() {
    let told = || Told::Done(trade("WAIT_BUYER_PAY"));
    for api in BOTH {
        let played = played_with(api, true).await;
        let old = std::fs::read_to_string(played.stage.dir.path().join("alipay.crt")).expect("reads");
        let elsewhere = tempfile::tempdir().expect("a directory");
        let of_stranger = certificates::files(elsewhere.path(), &STRANGER).alipay_file;
        let new = std::fs::read_to_string(of_stranger).expect("reads");
        played.tell([Told::Forged(trade("WAIT_BUYER_PAY"))]);
        played.query().await.expect_err("not certified yet");
        played.stage.replace("alipay.crt", &new);
        played.tell([Told::Forged(trade("WAIT_BUYER_PAY")), told()]);
        played.query().await.expect("the new one holds");
        played.query().await.expect("and the one before it, for a while");

        // One that leads nowhere changes nothing.
        played.stage.replace("alipay.crt", old.split_at(old.rfind("-----BEGIN").expect("two")).0);
        played.tell([Told::Forged(trade("WAIT_BUYER_PAY"))]);
        played.query().await.expect("as before");
    }
}

#[tokio::test]
async fn files_that_hold_no_keys_are_named() {
    let stage = Stage::new(Api::V2, "http://alipay");
    let refused = |private: &str, public: &str| {
        let file = |name: &str| stage.dir.path().join(name);
        let merchant = crate::config::Merchant {
            entry_point: "alipay".into(),
            payee_id: "*".into(),
            app_id: APP.into(),
            mch_id: super::SELLER.into(),
            credentials: crate::config::Credentials::Alipay(super::Credentials {
                api: Api::V2,
                private_key_file: file(private),
                alipay_public_key_file: file(public),
                certificates: None,
                return_url: String::new(),
            }),
        };
        let rules = super::KeyFiles::default();
        let made = super::Alipay::new(super::Config::default(), rules, &[merchant], Context::system());
        made.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(refused("app.pem", "alipay.pem"), "");
    assert!(refused("alipay.pem", "alipay.pem").starts_with("the private key in"));
    assert!(refused("app.pem", "app.pem").starts_with("the public key in"));
    assert!(refused("nowhere", "alipay.pem").contains("private file"));
}
