//! The codec against WeChat's published inputs, and against a WeChat played with keys of our own.

use std::path::Path;
use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use contracts::ids::{OrderId, RefundId};
use contracts::money::{Currency, Money};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use runtime::{Clock, Context, Timestamp, secret};
use serde_json::json;

use super::driver::WechatPay;
use super::signing::{self, BadSigned, Signed, SigningKey, VerifyingKey};
use super::{Config, Credentials, Verification, seal, trust, wire};
use crate::channel::{CallbackError, Channel, ChannelError, Notice, OrderStatus, RefundStatus};
use crate::config::{self, KeyFiles, Merchant};
use crate::domain::ledger;
use crate::domain::order::{Capture, Terms, TradeType};
use crate::domain::refund::{Decision, Refund, State};

const NOW: i64 = 1_554_208_460;
const MERCHANT: &str = "1900000001";
const KEY_ID: &str = "PUB_KEY_ID_0119000000012026";

fn now() -> Timestamp {
    Timestamp::from_seconds_nanos(NOW, 0)
}

struct Pair {
    private: String,
    public: String,
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn pair() -> Pair {
    let key = KeyPair::generate(KeySize::Rsa2048).expect("generates");
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).expect("encodes");
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).expect("encodes");
    Pair { private: pem("PRIVATE KEY", private.as_ref()), public: pem("PUBLIC KEY", public.as_ref()) }
}

/// The key that WeChat signs with here, and the merchant's. Making one takes a while.
static WECHAT: LazyLock<Pair> = LazyLock::new(pair);
static OURS: LazyLock<Pair> = LazyLock::new(pair);

fn wechat_signs(seconds: &str, nonce: &str, body: &str) -> String {
    let key = SigningKey::from_pem(&WECHAT.private).expect("a key");
    key.sign(&format!("{seconds}\n{nonce}\n{body}\n")).expect("signs")
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let header = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
    };
    pairs.iter().map(header).collect()
}

/// Headers as they come with a body that WeChat signed just now.
fn signed_headers(body: &str) -> HeaderMap {
    let seconds = NOW.to_string();
    headers(&[
        (signing::H_TIMESTAMP, &seconds),
        (signing::H_NONCE, "593BEC0C930BF1AFEB40B4A08C8FB242"),
        (signing::H_SIGNATURE, &wechat_signs(&seconds, "593BEC0C930BF1AFEB40B4A08C8FB242", body)),
        (signing::H_SERIAL, KEY_ID),
        (signing::H_TYPE, signing::SCHEME),
    ])
}

fn merchant(dir: &Path) -> Merchant {
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        secret::create_private(&path, bytes).expect("writes");
        path
    };
    Merchant {
        entry_point: "wechat".into(),
        payee_id: "*".into(),
        app_id: "wx2421b1c4370ec43b".into(),
        mch_id: MERCHANT.into(),
        credentials: config::Credentials::Wechatpay(Credentials {
            serial: "5157F09EFDC096DE15EBE81A47057A7200000000".into(),
            private_key_file: file("merchant.pem", OURS.private.as_bytes()),
            certificate_file: None,
            api_v3_key_file: file("apiv3.key", &[&seal::tests::KEY[..], b"\n"].concat()),
            verification: Verification::PublicKey {
                id: KEY_ID.into(),
                id_file: None,
                file: file("wechat.pem", WECHAT.public.as_bytes()),
            },
        }),
    }
}

fn driver() -> (WechatPay, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let (clock, _) = Clock::manual(now());
    let context = Context { clock, ..Context::system() };
    let driver = WechatPay::new(Config::default(), &[merchant(dir.path())], KeyFiles::default(), context)
        .expect("reads the keys");
    (driver, dir)
}

fn terms() -> Terms {
    Terms {
        id: OrderId::new(0x2b),
        caller: "cases".into(),
        request_id: "r".into(),
        case_id: "case".into(),
        payee_id: "traffic-430100".into(),
        amount: Money::new(20_000, Currency::CNY).expect("in range"),
        merchant: ledger::Merchant { channel: super::NAME.into(), number: MERCHANT.into() },
        app_id: "wx2421b1c4370ec43b".into(),
        trade_type: TradeType::Jsapi,
        channel_order_no: "0000000000000000000000000000002b".into(),
        notify_url: "https://pay.example/callbacks/wechatpay/1900000001".into(),
        description: "交通违法罚款".into(),
        created_at: now(),
        expire_at: Timestamp::from_seconds_nanos(1_528_425_296, 999_999_000),
    }
}

fn transaction(state: &str) -> serde_json::Value {
    json!({
        "appid": "wx2421b1c4370ec43b", "mchid": MERCHANT, "out_trade_no": "0000000000000000000000000000002b",
        "transaction_id": "4200000000202604010000000001", "trade_state": state, "trade_type": "JSAPI",
        "success_time": "2018-06-08T10:34:56+08:00", "payer": {"openid": "o"},
        "amount": {"total": 20_000, "payer_total": 20_000, "currency": "CNY", "payer_currency": "CNY"},
    })
}

#[test]
fn signed_messages_are_the_published_ones() {
    let message =
        signing::request_message(&Method::GET, "/v3/certificates", NOW, "593BEC0C930BF1AFEB40B4A08C8FB242", "");
    assert_eq!(message, "GET\n/v3/certificates\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\n");
    let package = "prepay_id=wx201410272009395522657a690389285100";
    let sheet = signing::sheet_message("wx2421b1c4370ec43b", NOW, "593BEC0C930BF1AFEB40B4A08C8FB242", package);
    let expected = "wx2421b1c4370ec43b\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\
                    prepay_id=wx201410272009395522657a690389285100\n";
    assert_eq!(sheet, expected);
    let app = signing::sheet_message("wx2421b1c4370ec43b", NOW, "593BEC0C930BF1AFEB40B4A08C8FB242", &package[10..]);
    let expected =
        "wx2421b1c4370ec43b\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\nwx201410272009395522657a690389285100\n";
    assert_eq!(app, expected, "an app's sheet has the bare id");
    let header = signing::authorization("1900009191", "408B07E79B8269FEC3D5D3E6AB8ED163A6A380DB", NOW, "N", "S==");
    let expected = "WECHATPAY2-SHA256-RSA2048 mchid=\"1900009191\",nonce_str=\"N\",signature=\"S==\",\
                    timestamp=\"1554208460\",serial_no=\"408B07E79B8269FEC3D5D3E6AB8ED163A6A380DB\"";
    assert_eq!(header, expected);
}

#[test]
fn a_signature_verifies_under_its_own_key_alone() {
    let signature = SigningKey::from_pem(&OURS.private).expect("a key").sign("message").expect("signs");
    let ours = VerifyingKey::from_pem(OURS.public.as_bytes()).expect("a key");
    let theirs = VerifyingKey::from_pem(WECHAT.public.as_bytes()).expect("a key");
    assert!(ours.verifies(b"message", &signature));
    assert!(!ours.verifies(b"messagf", &signature) && !theirs.verifies(b"message", &signature));
    assert!(!ours.verifies(b"message", "") && !ours.verifies(b"message", "?"));
    assert!(SigningKey::from_pem("nothing").is_err() && VerifyingKey::from_pem(b"nothing").is_err());
    assert!(SigningKey::from_pem(&OURS.public).is_err());
}

#[test]
fn times_are_written_in_beijing_and_read_in_any_offset() {
    assert_eq!(wire::beijing(terms().expire_at).as_deref(), Some("2018-06-08T10:34:56+08:00"));
    let at = Timestamp::from_seconds_nanos(1_528_425_296, 0);
    assert_eq!(wire::moment("2018-06-08T10:34:56+08:00"), Some(at));
    assert_eq!(wire::moment("2018-06-08T02:34:56Z"), Some(at));
    assert!(wire::moment("2018-06-08 10:34:56").is_none() && wire::moment("").is_none());
}

#[test]
fn a_repeated_creation_has_the_same_bytes() {
    let body =
        || serde_json::to_string(&wire::CreateBody::new(&terms(), Some("oUpF8")).expect("a body")).expect("json");
    let expected = "{\"appid\":\"wx2421b1c4370ec43b\",\"mchid\":\"1900000001\",\"description\":\"交通违法罚款\",\
                    \"out_trade_no\":\"0000000000000000000000000000002b\",\"time_expire\":\"2018-06-08T10:34:56+08:00\",\
                    \"notify_url\":\"https://pay.example/callbacks/wechatpay/1900000001\",\
                    \"amount\":{\"total\":20000,\"currency\":\"CNY\"},\"payer\":{\"openid\":\"oUpF8\"}}";
    assert_eq!(body(), expected);
    assert_eq!(body(), body());
    let of = |trade_type, payer| {
        let terms = Terms { trade_type, ..terms() };
        serde_json::to_value(wire::CreateBody::new(&terms, payer).expect("a body")).expect("json")
    };
    for body in [of(TradeType::Native, None), of(TradeType::App, None)] {
        assert!(body.get("payer").is_none() && body.get("scene_info").is_none());
    }
    let h5 = of(TradeType::H5, Some("203.0.113.7"));
    let scene = json!({"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}});
    assert!(h5.get("payer").is_none() && h5["scene_info"] == scene, "{h5}");
}

#[test]
fn states_that_are_not_known_are_pending() {
    let status = |state: &str| {
        let told: wire::Transaction = serde_json::from_value(transaction(state)).expect("a transaction");
        told.status()
    };
    let capture = Capture {
        amount: Money::new(20_000, Currency::CNY).expect("in range"),
        transaction: "4200000000202604010000000001".into(),
        at: Timestamp::from_seconds_nanos(1_528_425_296, 0),
    };
    assert_eq!(status("SUCCESS"), Ok(OrderStatus::Paid(capture.clone())));
    assert_eq!(status("REFUND"), Ok(OrderStatus::Paid(capture)));
    assert_eq!(status("CLOSED"), Ok(OrderStatus::Closed));
    for state in ["NOTPAY", "USERPAYING", "PAYERROR", "REVOKED", "ACCEPT", "success", ""] {
        assert_eq!(status(state), Ok(OrderStatus::Pending), "{state}");
    }
}

#[test]
fn a_payment_without_its_facts_is_no_payment() {
    for field in ["transaction_id", "success_time", "amount"] {
        let mut told = transaction("SUCCESS");
        told.as_object_mut().expect("an object").remove(field);
        let told: wire::Transaction = serde_json::from_value(told).expect("a transaction");
        assert!(told.status().is_err(), "{field}");
    }
    for (field, value) in [("total", json!(1.5)), ("total", json!("20000"))] {
        let mut told = transaction("SUCCESS");
        told["amount"][field] = value;
        assert!(serde_json::from_value::<wire::Transaction>(told).is_err());
    }
}

#[test]
fn refunds_are_read_and_held_against_ours() {
    let refund = Refund {
        id: RefundId::new(0x7),
        order: OrderId::new(0x2b),
        caller: "cases".into(),
        request_id: "r".into(),
        amount: Money::new(500, Currency::CNY).expect("in range"),
        reason: "rejected".into(),
        created_at: now(),
        send_by: now(),
        is_after_settlement: false,
        version: 1,
        state: State::Requested,
        is_sent: true,
        channel_refund: None,
        success_at: None,
        refusal: None,
    };
    let told = |field: &str, value: serde_json::Value| {
        let mut told = json!({
            "refund_id": "5000", "out_refund_no": refund.channel_refund_no(), "status": "PROCESSING",
            "out_trade_no": "0000000000000000000000000000002b", "amount": {"refund": 500, "total": 20_000},
            "success_time": "2018-06-08T10:34:56+08:00",
        });
        told[field] = value;
        serde_json::from_value::<wire::RefundTold>(told).expect("a refund").status(&terms(), &refund)
    };
    let processing = RefundStatus::Processing { channel_refund: "5000".into() };
    let at = Timestamp::from_seconds_nanos(1_528_425_296, 0);
    let succeeded = Decision::Succeeded { channel_refund: "5000".into(), at };
    assert_eq!(told("status", "PROCESSING".into()), Ok(processing.clone()));
    assert_eq!(told("status", "SOMETHING_NEW".into()), Ok(processing));
    assert_eq!(told("status", "SUCCESS".into()), Ok(RefundStatus::Decided(succeeded)));
    for code in ["CLOSED", "ABNORMAL"] {
        let failed = RefundStatus::Decided(Decision::Failed { code: code.into() });
        assert_eq!(told("status", code.into()), Ok(failed));
    }
    assert_eq!(told("out_refund_no", "another".into()), Err("out_refund_no"));
    assert_eq!(told("out_trade_no", "another".into()), Err("out_trade_no"));
    assert_eq!(told("amount", json!({"refund": 501})), Err("amount.refund"));
}

#[test]
fn refusals_say_whether_anything_may_have_happened() {
    let kind = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).expect("a status");
        match wire::refusal(status, body.as_bytes()) {
            ChannelError::NotKnown => "not known".to_owned(),
            ChannelError::Refused { code } => format!("refused {code}"),
            ChannelError::Otherwise { code } => format!("otherwise {code}"),
            ChannelError::NotNow { code } => format!("not now {code}"),
            ChannelError::NoAnswer { effect, .. } => format!("no answer {effect:?}"),
        }
    };
    for (status, code, expected) in [
        (400, "PARAM_ERROR", "refused PARAM_ERROR"),
        (401, "SIGN_ERROR", "refused SIGN_ERROR"),
        (403, "NO_AUTH", "refused NO_AUTH"),
        (500, "OPENID_MISMATCH", "refused OPENID_MISMATCH"),
        (403, "OUT_TRADE_NO_USED", "otherwise OUT_TRADE_NO_USED"),
        (400, "ORDER_CLOSED", "otherwise ORDER_CLOSED"),
        (404, "ORDERNOTEXIST", "not known"),
        (404, "ORDER_NOT_EXIST", "not known"),
        (404, "RESOURCE_NOT_EXISTS", "not known"),
        (403, "NOTENOUGH", "not now NOTENOUGH"),
        (429, "FREQUENCY_LIMITED", "not now FREQUENCY_LIMITED"),
        (400, "NO_STATEMENT_EXIST", "not known"),
        (400, "STATEMENT_CREATING", "not now STATEMENT_CREATING"),
        (500, "SYSTEMERROR", "no answer Possible"),
        (502, "", "no answer Possible"),
        (404, "<html>", "no answer Possible"),
    ] {
        assert_eq!(kind(status, &json!({"code": code, "message": "m"}).to_string()), expected, "{status} {code}");
    }
    assert_eq!(kind(403, "<html>forbidden</html>"), "no answer Possible", "not WeChat's words");
    assert_eq!(kind(429, "<html>"), "not now HTTP_429");
}

#[test]
fn the_headers_of_a_signature_are_read_strictly() {
    let good = signed_headers("{}");
    assert!(Signed::read(&good, now()).is_ok());
    for name in [signing::H_TIMESTAMP, signing::H_NONCE, signing::H_SIGNATURE, signing::H_SERIAL] {
        let mut missing = good.clone();
        missing.remove(name);
        assert_eq!(Signed::read(&missing, now()).err(), Some(BadSigned::Header(name)));
        let mut twice = good.clone();
        twice.append(name, HeaderValue::from_static("x"));
        assert_eq!(Signed::read(&twice, now()).err(), Some(BadSigned::Header(name)));
    }
    for (value, bad) in [
        ("NaN", BadSigned::Header(signing::H_TIMESTAMP)),
        ("1554208159", BadSigned::Time),
        ("1554208761", BadSigned::Time),
    ] {
        let mut other = good.clone();
        other.insert(signing::H_TIMESTAMP, HeaderValue::from_static(value));
        assert_eq!(Signed::read(&other, now()).err(), Some(bad), "{value}");
    }
    let mut other = good.clone();
    other.insert(signing::H_TYPE, HeaderValue::from_static("WECHATPAY2-SM2-WITH-SM3"));
    assert_eq!(Signed::read(&other, now()).err(), Some(BadSigned::Header(signing::H_TYPE)));
    other.insert(signing::H_TYPE, HeaderValue::from_static(signing::SCHEME));
    other.insert(signing::H_SIGNATURE, HeaderValue::from_static("WECHATPAY/SIGNTEST/abc"));
    assert_eq!(Signed::read(&other, now()).err(), Some(BadSigned::Probe));
}

fn envelope(original_type: &str, plain: &serde_json::Value) -> String {
    let mut resource = seal::tests::seal(plain.to_string().as_bytes(), "0123456789ab", original_type);
    resource["original_type"] = original_type.into();
    json!({
        "id": "n-1", "create_time": "2018-06-08T10:34:56+08:00", "resource_type": "encrypt-resource",
        "event_type": "TRANSACTION.SUCCESS", "summary": "支付成功", "resource": resource,
    })
    .to_string()
}

async fn open(driver: &WechatPay, merchant: &str, headers: &HeaderMap, body: &str) -> Result<Notice, CallbackError> {
    driver.open_callback(merchant, headers, &Bytes::copy_from_slice(body.as_bytes())).await
}

#[tokio::test]
async fn a_callback_opens_only_when_it_is_wechats_and_ours() {
    let (driver, _dir) = driver();
    let body = envelope("transaction", &transaction("SUCCESS"));
    let Ok(Notice::Paid { channel_order_no, app_id, capture }) =
        open(&driver, MERCHANT, &signed_headers(&body), &body).await
    else {
        panic!("a good callback opens")
    };
    assert_eq!(
        (channel_order_no.as_str(), app_id.as_str()),
        ("0000000000000000000000000000002b", "wx2421b1c4370ec43b")
    );
    assert_eq!(capture.amount.amount_minor(), 20_000);

    let refused = open(&driver, "1900000002", &signed_headers(&body), &body).await;
    assert!(matches!(refused, Err(CallbackError::Merchant)));
    let changed = body.replace("n-1", "n-2");
    let refused = open(&driver, MERCHANT, &signed_headers(&body), &changed).await;
    assert!(matches!(refused, Err(CallbackError::Signature)), "the signature covers the body");
    let mut other = signed_headers(&body);
    other.insert(signing::H_SERIAL, HeaderValue::from_static("PUB_KEY_ID_OTHER"));
    assert!(matches!(open(&driver, MERCHANT, &other, &body).await, Err(CallbackError::Signature)));
    let mut probe = signed_headers(&body);
    probe.insert(signing::H_SIGNATURE, HeaderValue::from_static("WECHATPAY/SIGNTEST/abc"));
    assert!(matches!(open(&driver, MERCHANT, &probe, &body).await, Err(CallbackError::Signature)));
}

#[tokio::test]
async fn nothing_is_parsed_before_the_signature_holds() {
    let (driver, _dir) = driver();
    let refused = open(&driver, MERCHANT, &signed_headers("{}"), "not json").await;
    assert!(matches!(refused, Err(CallbackError::Signature)));
    let refused = open(&driver, MERCHANT, &signed_headers("not json"), "not json").await;
    assert!(matches!(refused, Err(CallbackError::Content("envelope"))));
}

#[tokio::test]
async fn signed_callbacks_about_others_or_nothing_are_told_apart() {
    let (driver, _dir) = driver();
    let mut foreign = transaction("SUCCESS");
    foreign["mchid"] = "1900000002".into();
    for (kind, plain, expected) in [
        ("transaction", transaction("NOTPAY"), Ok(Notice::Other)),
        ("transaction", foreign, Err("mchid")),
        ("transaction", json!({"x": 1}), Err("transaction")),
        ("refund", json!({"mchid": MERCHANT, "out_refund_no": "r"}), Err("refund")),
        ("refund", refunded("mchid", "1"), Err("mchid")),
        ("refund", refunded("success_time", "soon"), Err("success_time")),
        ("refund", refunded("refund_id", ""), Err("refund_id")),
        ("refund", refunded("refund_status", "SOMETHING_NEW"), Ok(Notice::Refund { channel_refund_no: "r".into() })),
        ("coupon", json!({}), Ok(Notice::Other)),
    ] {
        let body = envelope(kind, &plain);
        match (open(&driver, MERCHANT, &signed_headers(&body), &body).await, expected) {
            (Ok(notice), Ok(expected)) => assert_eq!(notice, expected),
            (Err(CallbackError::Content(field)), Err(expected)) => assert_eq!(field, expected),
            (found, expected) => panic!("{kind}: {found:?} instead of {expected:?}"),
        }
    }
}

/// The callback of a combined order with one field of its second part changed.
fn combined(field: &str, value: serde_json::Value) -> serde_json::Value {
    let part = |mchid: &str, number: &str, total: i64| {
        json!({
            "mchid": mchid, "out_trade_no": number, "trade_state": "SUCCESS", "transaction_id": format!("4200{number}"),
            "success_time": "2018-06-08T10:34:56+08:00", "amount": {"total_amount": total, "currency": "CNY"},
        })
    };
    let mut parts = [part(MERCHANT, "p1", 20_000), part("1900000002", "p2", 5_000)];
    parts[1][field] = value;
    json!({
        "combine_appid": "wx2421b1c4370ec43b", "combine_mchid": MERCHANT, "combine_out_trade_no": "w", "sub_orders": parts,
        "combine_payer_info": {"openid": "o"},
    })
}

#[tokio::test]
async fn a_combined_orders_callback_tells_of_every_part() {
    let (driver, _dir) = driver();
    let told = async |plain: serde_json::Value, merchant: &str| {
        let body = envelope("transaction", &plain);
        open(&driver, merchant, &signed_headers(&body), &body).await
    };
    let Ok(Notice::PaidTogether { channel_order_no, app_id, parts }) =
        told(combined("attach", "a".into()), MERCHANT).await
    else {
        panic!("a good callback opens")
    };
    let parts: Vec<_> = parts
        .iter()
        .map(|part| (part.merchant.as_str(), part.channel_order_no.as_str(), part.capture.amount.amount_minor()))
        .collect();
    assert_eq!((channel_order_no.as_str(), app_id.as_str()), ("w", "wx2421b1c4370ec43b"));
    assert_eq!(parts, [(MERCHANT, "p1", 20_000), ("1900000002", "p2", 5_000)]);
    assert!(matches!(told(combined("trade_state", "NOTPAY".into()), MERCHANT).await, Ok(Notice::Other)));
    for (field, value, named) in [
        ("transaction_id", "".into(), "transaction_id"),
        ("success_time", "soon".into(), "success_time"),
        ("amount", json!({"total_amount": 5_000, "currency": "yuan"}), "amount.currency"),
    ] {
        let refused = told(combined(field, value), MERCHANT).await;
        assert!(matches!(refused, Err(CallbackError::Content(found)) if found == named), "{field}: {refused:?}");
    }
    let mut foreign = combined("attach", "a".into());
    foreign["combine_mchid"] = "1900000002".into();
    assert!(matches!(told(foreign, MERCHANT).await, Err(CallbackError::Content("combine_mchid"))));
}

/// A refund's callback with one field changed.
fn refunded(field: &str, value: &str) -> serde_json::Value {
    let mut told = json!({
        "mchid": MERCHANT, "out_trade_no": "o", "transaction_id": "4200", "out_refund_no": "r", "refund_id": "5000",
        "refund_status": "SUCCESS", "success_time": "2018-06-08T10:34:56+08:00", "user_received_account": "支付用户零钱",
        "amount": {"total": 20_000, "refund": 500, "payer_total": 20_000, "payer_refund": 500},
    });
    told[field] = value.into();
    told
}

#[tokio::test]
async fn a_refunds_callback_says_how_it_ended() {
    let (driver, _dir) = driver();
    let at = Timestamp::from_seconds_nanos(1_528_425_296, 0);
    let failed = |code: &str| Decision::Failed { code: code.into() };
    for (status, decision) in [
        ("SUCCESS", Decision::Succeeded { channel_refund: "5000".into(), at }),
        ("ABNORMAL", failed("ABNORMAL")),
        ("CLOSED", failed("CLOSED")),
    ] {
        let body = envelope("refund", &refunded("refund_status", status));
        let notice = open(&driver, MERCHANT, &signed_headers(&body), &body).await.expect("opens");
        let (channel_order_no, channel_refund_no) = ("o".to_owned(), "r".to_owned());
        let expected = Notice::RefundDecided { channel_order_no, channel_refund_no, amount_minor: 500, decision };
        assert_eq!(notice, expected, "{status}");
    }
}

/// A certificate of WeChat's key, valid from 2019 to 2023, as the download brings it.
fn certificate_list(serial: &[u8]) -> String {
    let key = rcgen::KeyPair::from_pem_and_sign_algo(&WECHAT.private, &rcgen::PKCS_RSA_SHA256).expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![]).expect("parameters");
    params.serial_number = Some(rcgen::SerialNumber::from_slice(serial));
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2024, 1, 1);
    let pem = params.self_signed(&key).expect("signs").pem();
    let sealed = seal::tests::seal(pem.as_bytes(), "61f9c719728a", "certificate");
    json!({"data": [{"serial_no": "WRONG", "effective_time": "", "expire_time": "", "encrypt_certificate": sealed}]})
        .to_string()
}

fn read_certificates(serial: &[u8]) -> trust::Keys {
    let seal_key = seal::SealKey::new(seal::tests::KEY).expect("a key");
    trust::read(certificate_list(serial).as_bytes(), |sealed| seal_key.open(sealed)).expect("reads")
}

#[test]
fn platform_certificates_are_taken_from_their_seal() {
    let keys = read_certificates(&[0x0a, 0xbc, 0xde]);
    let found = trust::find(&keys, "0ABCDE", now()).expect("under the certificate's own number");
    assert!(found.verifies(b"m", &SigningKey::from_pem(&WECHAT.private).expect("a key").sign("m").expect("signs")));
    assert!(trust::find(&keys, "WRONG", now()).is_none());
    let later = Timestamp::from_seconds_nanos(1_704_067_201, 0);
    assert!(trust::find(&keys, "abcde", later).is_none(), "it has ended");

    let other = seal::SealKey::new(b"another-key-of-32-bytes-and-more".as_slice()).expect("a key");
    let body = certificate_list(&[1]);
    assert_eq!(trust::read(body.as_bytes(), |sealed| other.open(sealed)).err(), Some("sealed certificate"));
}

#[test]
fn certificates_are_downloaded_when_it_is_worth_it_and_not_more_often() {
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
    let at = |seconds: u64| now().plus(std::time::Duration::from_secs(seconds));
    let mut cache = trust::Cache::default();
    let look = |cache: &trust::Cache, serial: &str, seconds: u64| {
        let (found, wanted) = cache.look(serial, at(seconds), DAY);
        (found.is_some(), wanted)
    };
    assert_eq!(look(&cache, "0A", 0), (false, true), "nothing is there yet");
    cache.trying(at(0));
    assert_eq!(look(&cache, "0A", 4), (false, false), "it failed just now");
    assert_eq!(look(&cache, "0A", 5), (false, true));
    cache.trying(at(5));
    cache.load(read_certificates(&[0x0a]), at(5));
    assert_eq!(look(&cache, "0a", 6), (true, false));
    assert_eq!(look(&cache, "FF", 64), (false, false), "an invented number");
    assert_eq!(look(&cache, "FF", 65), (false, true), "or a new one");
    assert_eq!(look(&cache, "0A", 86_405), (true, true), "old ones serve while they are renewed");
    cache.load(read_certificates(&[0x0b]), at(86_405));
    assert!(!look(&cache, "0A", 86_406).0, "rotated out");
    assert_eq!(look(&cache, "0B", 86_406), (true, false));
}

/// A driver whose key files a test replaces, with the hand of its clock.
struct Rotating {
    driver: WechatPay,
    hand: runtime::clock::ManualClock,
    dir: tempfile::TempDir,
}

/// A certificate of a merchant's key under a serial number.
fn own_certificate(key: &Pair, serial: u8) -> String {
    let key = rcgen::KeyPair::from_pem_and_sign_algo(&key.private, &rcgen::PKCS_RSA_SHA256).expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![]).expect("parameters");
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&[serial; 20]));
    params.self_signed(&key).expect("signs").pem()
}

impl Rotating {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut merchant = merchant(dir.path());
        let config::Credentials::Wechatpay(credentials) = &mut merchant.credentials else { unreachable!("WeChat's") };
        let (certificate, id) = (dir.path().join("merchant.crt"), dir.path().join("wechat.id"));
        std::fs::write(&certificate, own_certificate(&OURS, 0x4a)).expect("writes");
        std::fs::write(&id, format!("{KEY_ID}\n")).expect("writes");
        credentials.serial = String::new();
        credentials.certificate_file = Some(certificate);
        let Verification::PublicKey { id: fixed, id_file, .. } = &mut credentials.verification else { unreachable!() };
        (*fixed, *id_file) = (String::new(), Some(id));
        let (clock, hand) = Clock::manual(now());
        let context = Context { clock, ..Context::system() };
        let config = Config { base_url: "http://wechat".into(), ..Config::default() };
        let driver = WechatPay::new(config, &[merchant], KeyFiles::default(), context).expect("reads the keys");
        Self { driver, hand, dir }
    }

    /// Puts a file in its place and passes the time until it is looked at.
    fn replace(&self, name: &str, bytes: &[u8]) {
        let (new, path) = (self.dir.path().join("new"), self.dir.path().join(name));
        secret::create_private(&new, bytes).expect("writes");
        std::fs::rename(new, path).expect("renames");
        self.hand.advance(KeyFiles::default().look_every.get());
    }

    /// The serial number that a request is signed under, and whether it is `pair`'s signature.
    fn signs(&self, pair: &Pair) -> (String, bool) {
        let account = self.driver.account(MERCHANT).expect("an account");
        let request = self.driver.signed(account, Method::GET, "/v3/x", String::new()).expect("signs");
        let header = request.headers()[http::header::AUTHORIZATION].to_str().expect("text");
        let field = |name: &str| header.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        let [serial, seconds, nonce, signature] =
            ["serial_no", "timestamp", "nonce_str", "signature"].map(|name| field(name).expect("is there"));
        let message = format!("GET\n/v3/x\n{seconds}\n{nonce}\n\n");
        let key = VerifyingKey::from_pem(pair.public.as_bytes()).expect("a key");
        (serial.to_owned(), key.verifies(message.as_bytes(), signature))
    }

    /// Whether a callback opens that was signed just now by `pair` under `id` and sealed under `seal_key`.
    async fn opens(&self, pair: &Pair, id: &str, seal_key: &[u8]) -> bool {
        let mut resource = seal::tests::seal_with(seal_key, transaction("SUCCESS").to_string().as_bytes());
        resource["original_type"] = "transaction".into();
        let body = json!({"id": "n-1", "resource": resource}).to_string();
        let seconds = self.driver.now().seconds_nanos().0.to_string();
        let key = SigningKey::from_pem(&pair.private).expect("a key");
        let signature = key.sign(&format!("{seconds}\nn\n{body}\n")).expect("signs");
        let signed = headers(&[
            (signing::H_TIMESTAMP, &seconds),
            (signing::H_NONCE, "n"),
            (signing::H_SIGNATURE, &signature),
            (signing::H_SERIAL, id),
        ]);
        open(&self.driver, MERCHANT, &signed, &body).await.is_ok()
    }
}

static NEXT: LazyLock<Pair> = LazyLock::new(pair);

#[test]
fn a_new_key_of_the_merchant_is_signed_with_once_its_certificate_is_there_too() {
    let rotating = Rotating::new();
    assert_eq!(rotating.signs(&OURS), ("4A".repeat(20), true));
    rotating.replace("merchant.pem", NEXT.private.as_bytes());
    assert_eq!(rotating.signs(&OURS), ("4A".repeat(20), true), "half of a pair is not used");
    rotating.replace("merchant.crt", own_certificate(&NEXT, 0x5b).as_bytes());
    assert_eq!(rotating.signs(&NEXT), ("5B".repeat(20), true));
    assert!(!rotating.signs(&OURS).1);
    rotating.replace("merchant.crt", b"nothing");
    assert_eq!(rotating.signs(&NEXT), ("5B".repeat(20), true), "what cannot be used changes nothing");
}

#[tokio::test]
async fn callbacks_verify_and_open_under_old_and_new_keys_during_the_overlap() {
    const NEW_ID: &str = "PUB_KEY_ID_0119000000012027";
    const NEW_SEAL: &[u8; 32] = b"fedcba9876543210fedcba9876543210";
    let rotating = Rotating::new();
    assert!(rotating.opens(&WECHAT, KEY_ID, seal::tests::KEY).await);
    assert!(!rotating.opens(&NEXT, NEW_ID, seal::tests::KEY).await && !rotating.opens(&WECHAT, KEY_ID, NEW_SEAL).await);

    rotating.replace("wechat.pem", NEXT.public.as_bytes());
    assert!(rotating.opens(&WECHAT, KEY_ID, seal::tests::KEY).await, "the old key still has the old id");
    rotating.replace("wechat.id", NEW_ID.as_bytes());
    rotating.replace("apiv3.key", NEW_SEAL);
    for seal_key in [seal::tests::KEY, NEW_SEAL] {
        assert!(rotating.opens(&WECHAT, KEY_ID, seal_key).await, "what was on its way");
        assert!(rotating.opens(&NEXT, NEW_ID, seal_key).await);
    }
    assert!(!rotating.opens(&WECHAT, NEW_ID, NEW_SEAL).await, "each key under its own id");

    rotating.hand.advance(KeyFiles::default().overlap.get());
    assert!(rotating.opens(&NEXT, NEW_ID, NEW_SEAL).await);
    assert!(!rotating.opens(&WECHAT, KEY_ID, NEW_SEAL).await && !rotating.opens(&NEXT, NEW_ID, seal::tests::KEY).await);
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = merchant(dir.path());
    let refused = |change: fn(&mut Credentials)| {
        let mut merchant = good.clone();
        if let config::Credentials::Wechatpay(credentials) = &mut merchant.credentials {
            change(credentials);
        }
        let driver = WechatPay::new(Config::default(), &[merchant], KeyFiles::default(), Context::system());
        driver.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(|m| m.private_key_file = m.api_v3_key_file.clone()).starts_with("the private key in"));
    assert!(refused(|m| m.api_v3_key_file = m.private_key_file.clone()).contains("APIv3 key: 32 bytes"));
    assert!(refused(|m| m.private_key_file = "/nowhere/at/all".into()).contains("private file"));
    assert!(refused(|m| m.certificate_file = Some(m.private_key_file.clone())).starts_with("the certificate in"));
    let public = |m: &mut Credentials| {
        m.verification = Verification::PublicKey { id: "x".into(), id_file: None, file: m.private_key_file.clone() }
    };
    assert!(refused(public).starts_with("the public key in"));
}
