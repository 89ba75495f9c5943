//! The till over the simulated store and a played channel: single steps, then whole lives that crash at every named point.

mod asked;
mod audit;
mod channel;
mod combined;
mod crashes;
mod days;
mod history;
mod mixed;
mod model;
mod opened;
mod proposal;
mod receipts;
mod settle;
mod steps;
mod teller;

use std::sync::Arc;
use std::time::Duration;

use contracts::money::{Currency, Money};
use runtime::config::Duration as Span;
use runtime::crash::Points;
use runtime::secret::Pii;
use runtime::{Context, Net, Timestamp};
use store::{Db, Faults, Tx};

use super::Till;
use crate::channel::wechatpay;
use crate::config::{Config, Credentials, Merchant, Payee};
use crate::convert::{CreateAsk, RefundAsk};
use crate::domain::order::TradeType;
use crate::payment_codes::Shape;
use crate::receipts::Series;
use crate::repo::requests::{Key, Method};
use crate::vault::Vault;
use channel::Played;

const EPOCH: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const AMOUNT: i64 = 20_000;
const LIFE: Duration = Duration::from_secs(600);

fn config() -> Config {
    let merchant = Merchant {
        entry_point: "wechat".into(),
        payee_id: "*".into(),
        app_id: "wx0".into(),
        mch_id: "1900000001".into(),
        credentials: Credentials::Wechatpay(wechatpay::Credentials {
            serial: "AB".into(),
            private_key_file: "unused".into(),
            certificate_file: None,
            api_v3_key_file: "unused".into(),
            verification: wechatpay::Verification::PlatformCertificates,
        }),
    };
    // Of the same app, and of another.
    let own = |payee_id: &str, mch_id: &str, app_id: &str| Merchant {
        payee_id: payee_id.into(),
        mch_id: mch_id.into(),
        app_id: app_id.into(),
        ..merchant.clone()
    };
    let payee = |payee_id: &str| Payee { payee_id: payee_id.into(), name: "Traffic police".into() };
    let mut config = Config {
        payees: ["traffic-430100", "traffic-140100", "traffic-110000"].map(payee).into(),
        merchants: vec![
            own("traffic-140100", "1900000002", "wx0"),
            own("traffic-110000", "1900000003", "wx1"),
            merchant,
        ],
        ..Config::default()
    };
    // One payee has no receipts.
    config.receipts.verify_url = "https://city.example/receipts".into();
    config.receipts.payees = [("traffic-430100", "430101"), ("traffic-140100", "140101")]
        .map(|(payee_id, prefix)| Series { payee_id: payee_id.into(), code_prefix: prefix.into() })
        .into();
    let shape = Shape { payee_id: "traffic-430100".into(), length: 20, alphabet: "0123456789".into() };
    config.payment_codes = vec![shape];
    config.worker.interval = Span::from_millis(50);
    config.worker.refund_send_timeout = Span::from_secs(3_600);
    config
}

/// A till on `db`, in the context of one life of its host.
fn till(db: &Db, context: &Context, played: &Played, dir: &tempfile::TempDir) -> Arc<Till> {
    let vault = Vault::open(&dir.path().join("payer.key"), context.ids.clone()).expect("a vault");
    let vault = vault.with_receipts(&dir.path().join("receipt.key")).expect("a key");
    let db = db.with_context(context.clone());
    let channels = vec![Arc::new(played.clone()) as Arc<dyn crate::channel::Channel>];
    let mut config = config();
    config.settlement.key_file = dir.path().join("settlement.pem");
    Arc::new(Till::new(config, context.clone(), db, channels, Some(vault)).expect("a till"))
}

/// One host with an empty store, for tests of single steps.
struct Stage {
    till: Arc<Till>,
    played: Played,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        Self::with_faults(&Faults::new()).await
    }

    /// One whose store meets the faults that will be armed.
    async fn with_faults(faults: &Faults) -> Self {
        let context = Context::simulated(EPOCH, 7, Net::system(), Points::simulated(|_| {}));
        let db = Db::simulated().expect("a store").with_faults(faults);
        db.migrate(crate::MIGRATIONS).await.expect("migrates");
        let (played, dir) = (Played::default(), tempfile::tempdir().expect("a directory"));
        Self { till: till(&db, &context, &played, &dir), played, _dir: dir }
    }

    /// Passes time, and does what falls due in it.
    async fn pass(&self, span: Duration) {
        let till = &self.till;
        let end = till.now().plus(span);
        while till.now() < end {
            till.context.clock.sleep(Duration::from_secs(1)).await;
            let now = till.now();
            let ttl = Duration::from_secs(30);
            let claim = async |mut tx: Tx| till.leases.claim_due(&mut tx, "test", now, ttl, 16).await;
            let leases = till.db.transact(claim).await.expect("claims");
            for lease in leases {
                till.look(&lease).await.expect("looks");
            }
        }
    }

    async fn assert_sound(&self) -> crate::audit::Report {
        let report = crate::audit::check(&self.till.db).await.expect("reads");
        assert!(report.is_sound(), "{:#?}", report.problems);
        report
    }
}

fn key(method: Method, request_id: &str) -> Key {
    Key { caller: "cases".into(), method, request_id: request_id.into(), digest: [7; 32] }
}

fn fen(amount: i64) -> Money {
    Money::new(amount, Currency::CNY).expect("in range")
}

fn create_ask(request_id: &str, expire_at: Timestamp) -> CreateAsk {
    CreateAsk {
        key: key(Method::CreateOrder, request_id),
        // Each order is of a case of its own, the same for every try.
        case_id: format!("case_{}", hex::encode(&rpc::digest::sha256(request_id.as_bytes())[..16])),
        payee_id: "traffic-430100".into(),
        amount: fen(AMOUNT),
        channel: channel::NAME.into(),
        trade_type: TradeType::Jsapi,
        entry_point: "wechat".into(),
        payer: Some(Pii::new("oUpF8".into())),
        description: "fine".into(),
        expire_at,
        payment_code: None,
        insurance: None,
    }
}

fn refund_ask(request_id: &str, order: contracts::ids::OrderId, amount: i64) -> RefundAsk {
    RefundAsk {
        key: key(Method::Refund, request_id),
        order,
        amount: fen(amount),
        reason: "rejected".into(),
        is_after_settlement: false,
        legs: None,
        insurance_returned_at: None,
    }
}
