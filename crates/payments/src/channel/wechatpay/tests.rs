//! The codec against WeChat's published inputs, and against a WeChat played with keys of our own.

mod codec;
mod keys;
mod notices;

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

mod mixed;

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
        payment_code: None,
        receipt_prefix: None,
        insured: None,
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
