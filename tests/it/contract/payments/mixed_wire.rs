//! The driver's mixed orders against the sandbox's WeChat Pay, over real sockets: what is sealed is opened, what is signed is verified,
//! and each leg is paid, fails and goes back by itself.

use std::path::Path;

use axum::extract::State;
use bytes::Bytes;
use contracts::ids::OrderId;
use contracts::money::{Currency, Money};
use http::{HeaderMap, StatusCode};
use payments::channel::wechatpay::mixed::{Mixed, MixedError, MixedStatus, Person, Returned, id_digest};
use payments::channel::wechatpay::{self, WechatPay};
use payments::channel::{CallbackError, Channel, ChannelError, Notice, OrderStatus};
use payments::config::{Credentials, KeyFiles, Merchant};
use payments::domain::insurance::{AddType, Funds, MixType, ReduceType, Split, Standing};
use payments::domain::ledger;
use payments::domain::order::{Terms, TradeType};
use runtime::config::Duration as Span;
use runtime::secret::Pii;
use runtime::{Context, Timestamp};
use sandbox::{Fault, LegEnd, Operation, Pay, Staged};
use serde_json::Value;
use tokio::sync::mpsc;

use super::rig::{APP, CHANGSHA, OTHERS, sandbox_config};

/// A driver, its WeChat Pay, and where callbacks come.
struct Wire {
    driver: WechatPay,
    sandbox: sandbox::Running,
    callbacks: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
    notify_url: String,
    context: Context,
    dir: tempfile::TempDir,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.context.tasks.abort();
    }
}

type Came = State<mpsc::UnboundedSender<(HeaderMap, Bytes)>>;

async fn take(State(came): Came, headers: HeaderMap, body: Bytes) -> StatusCode {
    came.send((headers, body)).map_or(StatusCode::GONE, |()| StatusCode::NO_CONTENT)
}

fn merchant(dir: &Path, mch_id: &str, verification: wechatpay::Verification) -> Merchant {
    let keys = dir.join("sandbox/wechatpay").join(mch_id);
    Merchant {
        entry_point: "wechat".into(),
        payee_id: "*".into(),
        app_id: APP.into(),
        mch_id: mch_id.into(),
        credentials: Credentials::Wechatpay(wechatpay::Credentials {
            serial: std::fs::read_to_string(keys.join("serial_no.txt")).expect("made").trim().into(),
            private_key_file: keys.join("private_key.pem"),
            certificate_file: None,
            api_v3_key_file: keys.join("apiv3_key.txt"),
            verification,
        }),
    }
}

impl Wire {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let context = Context::system();
        let sandbox = sandbox::start(sandbox_config(dir.path()), context.clone()).await.expect("the sandbox starts");
        let platform = dir.path().join("sandbox/wechatpay/platform");
        let public = wechatpay::Verification::PublicKey {
            id: std::fs::read_to_string(platform.join("public_key_id.txt")).expect("made").trim().into(),
            id_file: None,
            file: platform.join("public_key.pem"),
        };
        let merchants = [
            merchant(dir.path(), CHANGSHA, public),
            merchant(dir.path(), OTHERS, wechatpay::Verification::PlatformCertificates),
        ];
        let config = wechatpay::Config {
            base_url: format!("http://{}", sandbox.addresses.wechatpay),
            call_timeout: Span::from_secs(10),
            ..wechatpay::Config::default()
        };
        let driver = WechatPay::new(config, &merchants, KeyFiles::default(), context.clone()).expect("reads the keys");
        let (sender, callbacks) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let notify_url = format!("http://{}/notify", listener.local_addr().expect("an address"));
        let router = axum::Router::new().fallback(take).with_state(sender);
        context.tasks.spawn("callbacks", async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { driver, sandbox, callbacks, notify_url, context, dir }
    }

    fn terms(&self, number: &str, mixed: &Mixed) -> Terms {
        let now = self.context.clock.now();
        Terms {
            id: OrderId::new(0x2b),
            caller: "cases".into(),
            request_id: "r".into(),
            case_id: "case".into(),
            payee_id: "hospital".into(),
            amount: Money::new(mixed.split.total, Currency::CNY).expect("in range"),
            merchant: ledger::Merchant { channel: "wechatpay".into(), number: CHANGSHA.into() },
            app_id: APP.into(),
            trade_type: TradeType::Jsapi,
            channel_order_no: format!("mixedorder{number}"),
            notify_url: self.notify_url.clone(),
            description: "挂号".into(),
            created_at: now,
            expire_at: now.plus(std::time::Duration::from_secs(600)),
            payment_code: None,
            receipt_prefix: None,
            insured: None,
        }
    }

    async fn create(&self, terms: &Terms, mixed: &Mixed) -> Result<MixedStatus, MixedError> {
        self.driver.create_mixed(terms, mixed, &Pii::new("o-citizen".to_owned())).await
    }

    async fn standing(&self, terms: &Terms, mixed: &Mixed) -> Standing {
        self.driver.query_mixed(terms, mixed, None).await.expect("an answer").standing
    }

    /// The citizen pays, and this becomes of the legs.
    async fn pay(&self, mix_trade_no: &str, cash: LegEnd, insurance: LegEnd) {
        let pay = Pay { mix_trade_no: Some(mix_trade_no.into()), cash, insurance, ..Pay::default() };
        self.sandbox.pay(&pay).await.expect("pays");
    }

    fn stage(&self, operation: Operation, fault: Fault) {
        let staged = Staged { system: "wechatpay".into(), operation, fault, times: 1, delay: None };
        self.sandbox.faults().stage(staged).expect("staged");
    }

    /// What the driver makes of the next callbacks.
    async fn notices(&mut self, count: usize) -> Vec<Result<Notice, CallbackError>> {
        let mut notices = Vec::new();
        while notices.len() < count {
            let (headers, body) = self.callbacks.recv().await.expect("a callback");
            notices.push(self.driver.open_callback(CHANGSHA, &headers, &body).await);
        }
        notices
    }

    /// How often something stands in the sandbox's journal.
    fn journalled(&self, event: &str) -> usize {
        let file = self.dir.path().join("sandbox/wechatpay.journal");
        let text = std::fs::read_to_string(file).expect("a journal");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line"));
        lines.filter(|line| line["event"] == event).count()
    }
}

fn person(name: &str) -> Person {
    Person {
        name: Pii::new(name.to_owned()),
        id_digest: id_digest(&Pii::new("44030019000101123X".to_owned())),
        card_type: "ID_CARD".into(),
    }
}

/// The published example.
fn both() -> Mixed {
    Mixed {
        mix: MixType::CashAndInsurance,
        order_type: "REG_PAY".into(),
        split: Split {
            total: 202_000,
            funds: Funds { government: 100_000, personal: 45_000, other: 5_000 },
            cash: 50_000,
            added: vec![(AddType::Freight, 2_000)],
            reduced: vec![(ReduceType::Default, 10_000)],
            paid_in_cash: 42_000,
        },
        payer: person("张三"),
        relative: Some(person("李四")),
        serial_no: "1217752501201".into(),
        pay_order_id: Some("ORD530100202204022006350000021".into()),
        pay_auth_no: Some(Pii::new("AUTH530100202204022006310000034".into())),
        geo_location: Some(Pii::new("102.682296,25.054260".into())),
        insurance_created_at: Some(Timestamp::from_seconds_nanos(1_528_425_296, 0)),
        city_id: "530100".into(),
        institution_no: "1217752501201407033233368318".into(),
        institution_name: "人民医院".into(),
    }
}

fn cash_only() -> Mixed {
    let split = Split { total: 300, cash: 300, paid_in_cash: 300, ..Split::default() };
    let (pay_order_id, pay_auth_no, geo_location, insurance_created_at) = (None, None, None, None);
    Mixed {
        mix: MixType::CashOnly,
        split,
        pay_order_id,
        pay_auth_no,
        geo_location,
        insurance_created_at,
        relative: None,
        ..both()
    }
}

fn insurance_only() -> Mixed {
    let split = Split { total: 300, funds: Funds { personal: 300, ..Funds::default() }, ..Split::default() };
    Mixed { mix: MixType::InsuranceOnly, split, ..both() }
}

#[tokio::test]
async fn each_type_is_made_paid_and_called_back() {
    let mut wire = Wire::new().await;
    for (number, mixed) in [("1", both()), ("2", cash_only()), ("3", insurance_only())] {
        let terms = wire.terms(number, &mixed);
        let made = wire.create(&terms, &mixed).await.expect("made");
        assert_eq!((made.standing, made.paid_at), (Standing::Pending, None));
        wire.pay(&made.mix_trade_no, LegEnd::Success, LegEnd::Success).await;
        for known in [None, Some(made.mix_trade_no.as_str())] {
            let status = wire.driver.query_mixed(&terms, &mixed, known).await.expect("an answer");
            assert_eq!((status.standing, status.paid_at.is_some()), (Standing::Paid, true), "{number}");
            assert_eq!(status.mix_trade_no, made.mix_trade_no);
        }
        // The cash leg's own callback and the whole's; which is first is nobody's promise.
        let count = if mixed.mix.has_cash() { 2 } else { 1 };
        let notices = wire.notices(count).await;
        assert!(notices.iter().all(Result::is_ok), "{notices:?}");
        let cash = notices.iter().filter(|notice| matches!(notice, Ok(Notice::Paid { .. }))).count();
        assert_eq!(cash, count - 1);
    }
    assert_eq!((wire.journalled("order_paid"), wire.journalled("insurance_paid")), (2, 2), "each leg once");
    assert_eq!(wire.journalled("mixed_paid"), 3);
}

#[tokio::test]
async fn a_repeated_creation_finds_what_the_first_made() {
    let wire = Wire::new().await;
    let mixed = both();
    let terms = wire.terms("1", &mixed);
    wire.stage(Operation::MixedOrder, Fault::DropAfter);
    let lost = wire.create(&terms, &mixed).await;
    assert!(matches!(lost, Err(MixedError::Channel(ChannelError::NoAnswer { .. }))), "{lost:?}");
    let made = wire.create(&terms, &mixed).await.expect("WeChat refuses to hear it twice, and is asked");
    assert_eq!(wire.create(&terms, &mixed).await.expect("again").mix_trade_no, made.mix_trade_no);
    assert_eq!((wire.journalled("mixed_created"), wire.journalled("order_created")), (1, 1));
    // Under a number that is used up by another split.
    let mut other = mixed.clone();
    (other.split.funds.personal, other.split.funds.other) = (44_000, 6_000);
    let refused = wire.create(&terms, &other).await;
    assert!(matches!(refused, Err(MixedError::Channel(ChannelError::Otherwise { .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_failure_after_the_cash_leg_may_have_had_an_effect_and_is_never_two_orders() {
    let wire = Wire::new().await;
    let mixed = both();
    let faults = [
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::Busy,
        Fault::DropBefore,
        Fault::GarbleCut,
        Fault::GarbleValue,
        Fault::TooLong,
        Fault::Unsigned,
        Fault::BadSignature,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let terms = wire.terms(&number.to_string(), &mixed);
        wire.stage(Operation::MixedOrder, fault);
        let failed = wire.create(&terms, &mixed).await;
        assert!(matches!(&failed, Err(MixedError::Channel(error)) if !error.had_no_effect()), "{fault:?}: {failed:?}");
        assert_eq!(wire.driver.query(&terms).await.expect("the cash leg is there"), OrderStatus::Pending);
        let made = wire.create(&terms, &mixed).await.expect("made in the end");
        assert_eq!(made.standing, Standing::Pending, "{fault:?}");
    }
    assert_eq!((wire.journalled("order_created"), wire.journalled("mixed_created")), (faults.len(), faults.len()));

    // What the cash leg never reached, nothing reached.
    let terms = wire.terms("last", &mixed);
    wire.stage(Operation::Order, Fault::Busy);
    let failed = wire.create(&terms, &mixed).await;
    assert!(matches!(&failed, Err(MixedError::Channel(error)) if error.had_no_effect()), "{failed:?}");
    let unknown = wire.driver.query_mixed(&terms, &mixed, None).await;
    assert!(matches!(unknown, Err(ChannelError::NotKnown)), "{unknown:?}");
}

#[tokio::test]
async fn without_a_public_key_nothing_is_sent() {
    let wire = Wire::new().await;
    let mixed = both();
    let mut terms = wire.terms("1", &mixed);
    terms.merchant.number = OTHERS.into();
    let refused = wire.create(&terms, &mixed).await;
    assert!(matches!(&refused, Err(MixedError::Channel(error)) if error.had_no_effect()), "{refused:?}");
    assert_eq!((wire.journalled("order_created"), wire.journalled("mixed_created")), (0, 0));
}

#[tokio::test]
async fn an_order_that_is_half_paid_is_told_from_one_that_is_not() {
    let wire = Wire::new().await;
    let mixed = both();
    let half = |cash, insurance| Standing::Half { cash, insurance };
    let (success, fail, wait) = (LegEnd::Success, LegEnd::Fail, LegEnd::Wait);
    for (number, (cash, insurance, expected)) in [
        (success, fail, half(true, false)),
        (fail, success, half(false, true)),
        (fail, fail, Standing::Failed),
        (success, wait, Standing::Pending),
        (wait, success, Standing::Pending),
    ]
    .into_iter()
    .enumerate()
    {
        let terms = wire.terms(&number.to_string(), &mixed);
        let made = wire.create(&terms, &mixed).await.expect("made");
        wire.pay(&made.mix_trade_no, cash, insurance).await;
        assert_eq!(wire.standing(&terms, &mixed).await, expected);
        if expected == Standing::Pending {
            wire.pay(&made.mix_trade_no, success, success).await;
            assert_eq!(wire.standing(&terms, &mixed).await, Standing::Paid, "the rest of it");
        }
    }
    assert_eq!((wire.journalled("order_paid"), wire.journalled("insurance_paid")), (3, 3), "no leg twice");

    // The insurance has paid, and the cash leg is closed.
    let terms = wire.terms("closed", &mixed);
    let made = wire.create(&terms, &mixed).await.expect("made");
    wire.pay(&made.mix_trade_no, wait, success).await;
    wire.driver.close(&terms).await.expect("closed");
    assert_eq!(wire.standing(&terms, &mixed).await, half(false, true));
}

#[tokio::test]
async fn what_the_insurance_gave_back_is_told_once_however_often_it_is_said() {
    let wire = Wire::new().await;
    let mixed = both();
    let terms = wire.terms("1", &mixed);
    let made = wire.create(&terms, &mixed).await.expect("made");
    let funds = Funds { government: 40_000, personal: 0, other: 5_000 };
    let at = wire.context.clock.now();
    let returned = Returned { out_refund_no: "r1".into(), funds, at };
    let number = made.mix_trade_no.as_str();
    let early = wire.driver.tell_returned(&terms, number, &returned).await;
    assert!(matches!(early, Err(ChannelError::Refused { .. })), "nothing is paid: {early:?}");
    wire.pay(number, LegEnd::Success, LegEnd::Success).await;
    wire.stage(Operation::MixedReturn, Fault::DropAfter);
    let lost = wire.driver.tell_returned(&terms, number, &returned).await;
    assert!(matches!(&lost, Err(error) if !error.had_no_effect()), "{lost:?}");
    for _ in 0..2 {
        wire.driver.tell_returned(&terms, number, &returned).await.expect("told");
    }
    assert_eq!(wire.journalled("insurance_returned"), 1);
    let too_much = Returned { out_refund_no: "r2".into(), ..returned };
    let funds = Funds { government: 60_001, ..Funds::default() };
    let refused = wire.driver.tell_returned(&terms, number, &Returned { funds, ..too_much }).await;
    assert!(matches!(refused, Err(ChannelError::Refused { .. })), "{refused:?}");
    assert_eq!(wire.standing(&terms, &mixed).await, Standing::Paid, "a leg that went back was paid");
}

#[tokio::test]
async fn garbled_answers_say_nothing() {
    let wire = Wire::new().await;
    let mixed = both();
    let terms = wire.terms("1", &mixed);
    let made = wire.create(&terms, &mixed).await.expect("made");
    wire.pay(&made.mix_trade_no, LegEnd::Success, LegEnd::Success).await;
    for fault in [Fault::GarbleValue, Fault::GarbleCut, Fault::TooLong, Fault::Unsigned, Fault::BadSignature] {
        for known in [None, Some(made.mix_trade_no.as_str())] {
            wire.stage(Operation::MixedQuery, fault);
            let answer = wire.driver.query_mixed(&terms, &mixed, known).await;
            assert!(matches!(answer, Err(ChannelError::NoAnswer { .. })), "{fault:?}: {answer:?}");
        }
    }
    assert_eq!(wire.standing(&terms, &mixed).await, Standing::Paid);
}

#[tokio::test]
async fn forged_callbacks_are_refused_and_doubled_ones_open_alike() {
    let mut wire = Wire::new().await;
    // Without a cash leg there is one callback.
    let mixed = insurance_only();
    for (number, (fault, expected)) in
        [(Fault::Doubled, [true, true]), (Fault::Forged, [false, true]), (Fault::WrongSerial, [false, true])]
            .into_iter()
            .enumerate()
    {
        let terms = wire.terms(&number.to_string(), &mixed);
        let made = wire.create(&terms, &mixed).await.expect("made");
        wire.stage(Operation::Notify, fault);
        wire.pay(&made.mix_trade_no, LegEnd::Success, LegEnd::Success).await;
        let notices = wire.notices(2).await;
        assert_eq!(notices.iter().map(Result::is_ok).collect::<Vec<_>>(), expected, "{fault:?}: {notices:?}");
    }
    // One that is lost is found by asking.
    let terms = wire.terms("lost", &mixed);
    let made = wire.create(&terms, &mixed).await.expect("made");
    wire.stage(Operation::Notify, Fault::Lost);
    wire.pay(&made.mix_trade_no, LegEnd::Success, LegEnd::Success).await;
    assert_eq!(wire.standing(&terms, &mixed).await, Standing::Paid);
}
