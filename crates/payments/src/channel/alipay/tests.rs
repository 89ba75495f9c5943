//! The codec against hostile bytes, and the driver against an Alipay that is played over sockets with keys of our own.

mod calls;
mod certificates;
mod codec;
mod notices;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contracts::ids::{OrderId, RefundId};
use contracts::money::{Currency, Money};
use runtime::clock::ManualClock;
use runtime::{Clock, Context, Timestamp, secret};

use super::{Alipay, Api, Config, Credentials};
use crate::channel::keys::{SigningKey, VerifyingKey};
use crate::config::{self, KeyFiles, Merchant};
use crate::domain::ledger;
use crate::domain::order::{Terms, TradeType};
use crate::domain::refund::{Refund, State};

/// 2026-06-05 12:00:00 in Beijing.
const NOW: i64 = 1_780_632_000;
const SELLER: &str = "2088000000000001";
const APP: &str = "2021000000000001";
const OTHER_APP: &str = "2021000000000002";
const ORDER: &str = "0000000000000000000000000000002b";

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

impl Pair {
    fn sign(&self, message: &str) -> String {
        SigningKey::from_pem(&self.private).expect("a key").sign(message).expect("signs")
    }

    fn verifies(&self, message: &str, signature: &str) -> bool {
        VerifyingKey::from_pem(self.public.as_bytes()).expect("a key").verifies(message.as_bytes(), signature)
    }
}

/// The keys that Alipay signs with here, the app's, and a stranger's. Making one takes a while.
static ALIPAY: LazyLock<Pair> = LazyLock::new(pair);
static OURS: LazyLock<Pair> = LazyLock::new(pair);
static STRANGER: LazyLock<Pair> = LazyLock::new(pair);

/// A driver with two apps of one seller, the files of its keys, and the hand of its clock.
struct Stage {
    driver: Alipay,
    dir: tempfile::TempDir,
    hand: ManualClock,
}

impl Stage {
    fn new(api: Api, base_url: &str) -> Self {
        Self::with(api, base_url, false)
    }

    /// In certificate mode, or not.
    fn with(api: Api, base_url: &str, is_certified: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| write(&dir.path().join(name), text);
        let (private, public) = (file("app.pem", &OURS.private), file("alipay.pem", &ALIPAY.public));
        let certificates = is_certified.then(|| certificates::files(dir.path(), &ALIPAY));
        let merchant = |app_id: &str| Merchant {
            entry_point: "alipay".into(),
            payee_id: "*".into(),
            app_id: app_id.into(),
            mch_id: SELLER.into(),
            credentials: config::Credentials::Alipay(Credentials {
                api,
                private_key_file: private.clone(),
                alipay_public_key_file: if is_certified { PathBuf::new() } else { public.clone() },
                certificates: certificates.clone(),
                return_url: "https://city.example/back?a=b".into(),
            }),
        };
        let (clock, hand) = Clock::manual(now());
        let context = Context { clock, ..Context::system() };
        let config = Config {
            base_url: base_url.into(),
            notify_base_url: "https://pay.example".into(),
            call_timeout: runtime::config::Duration::from_secs(5),
            ..Config::default()
        };
        let merchants = [merchant(APP), merchant(OTHER_APP)];
        let driver = Alipay::new(config, KeyFiles::default(), &merchants, context).expect("reads the keys");
        Self { driver, dir, hand }
    }

    /// Puts another key in the place of one, and passes the time until it is looked at.
    fn replace(&self, name: &str, text: &str) {
        let new = write(&self.dir.path().join("new"), text);
        std::fs::rename(new, self.dir.path().join(name)).expect("renames");
        self.hand.advance(KeyFiles::default().look_every.get());
    }
}

fn write(path: &Path, text: &str) -> PathBuf {
    secret::create_private(path, text.as_bytes()).expect("writes");
    path.to_owned()
}

fn fen(amount: i64) -> Money {
    Money::new(amount, Currency::CNY).expect("in range")
}

fn terms(trade_type: TradeType) -> Terms {
    Terms {
        id: OrderId::new(0x2b),
        caller: "cases".into(),
        request_id: "r".into(),
        case_id: "case".into(),
        payee_id: "traffic-430100".into(),
        amount: fen(20_000),
        merchant: ledger::Merchant { channel: super::NAME.into(), number: SELLER.into() },
        app_id: APP.into(),
        trade_type,
        channel_order_no: ORDER.into(),
        notify_url: format!("https://pay.example/callbacks/alipay/{SELLER}"),
        description: "交通违法罚款 & more".into(),
        created_at: now(),
        expire_at: Timestamp::from_seconds_nanos(NOW + 900, 999_999_000),
        payment_code: None,
        receipt_prefix: None,
        insured: None,
    }
}

fn refund() -> Refund {
    Refund {
        id: RefundId::new(0x7),
        order: OrderId::new(0x2b),
        caller: "cases".into(),
        request_id: "r".into(),
        amount: fen(505),
        reason: "rejected".into(),
        created_at: now(),
        send_by: now(),
        is_after_settlement: false,
        legs: None,
        insurance_returned_at: None,
        version: 1,
        state: State::Requested,
        is_sent: true,
        channel_refund: None,
        success_at: None,
        refusal: None,
    }
}
