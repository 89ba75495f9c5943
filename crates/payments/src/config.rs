//! What an operator sets for payments: who may be paid, through which merchant accounts, over which channels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use runtime::config::{Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::channel::{alipay, wechatpay};
use crate::domain::ledger::is_part;
use crate::domain::plan::Pace;
use crate::{payment_codes, receipts, reconcile, settlement};

/// Stands for every payee that has no merchant account of its own.
pub const ANY_PAYEE: &str = "*";

/// The settings of payments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who may be paid; an order for anybody else is refused.
    pub payees: Vec<Payee>,
    /// Merchant accounts, chosen by entry point, channel and payee.
    pub merchants: Vec<Merchant>,
    /// The channels.
    pub channels: Channels,
    /// Holds the 32 bytes under which payer references are kept until the channel has them; made when it is missing;
    /// below the data directory unless absolute.
    pub payer_key_file: PathBuf,
    /// How key files that are replaced are taken up.
    pub key_files: KeyFiles,
    /// How open orders and refunds are followed.
    pub worker: Worker,
    /// Who has receipts, and what is printed on them.
    pub receipts: receipts::Settings,
    /// What payment codes look like, for each payee whose bills may carry one.
    pub payment_codes: Vec<payment_codes::Shape>,
    /// How days are held against the channels' bills.
    pub reconcile: reconcile::source::Settings,
    /// How payees are settled.
    pub settlement: settlement::Settings,
    /// How long a call waits for a channel's answer to what another call, or an earlier one, began.
    pub answer_timeout: Duration,
}

/// Who may be paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payee {
    /// The catalogue's id, such as `traffic-430100`.
    pub payee_id: String,
    /// Its name, for people.
    pub name: String,
}

/// A merchant account at a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Merchant {
    /// The super app it serves, such as `wechat`.
    pub entry_point: String,
    /// The payee it collects for, or `*`.
    pub payee_id: String,
    /// The channel's id of the super app's account.
    pub app_id: String,
    /// The channel's number of the merchant.
    pub mch_id: String,
    /// The channel, and what is signed and verified with there.
    #[serde(flatten)]
    pub credentials: Credentials,
}

/// The channel of a merchant account, and what is signed and verified with there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "channel", rename_all = "lowercase")]
pub enum Credentials {
    /// WeChat Pay.
    Wechatpay(wechatpay::Credentials),
    /// Alipay.
    Alipay(alipay::Credentials),
}

impl Merchant {
    /// The channel's name.
    pub fn channel(&self) -> &'static str {
        match self.credentials {
            Credentials::Wechatpay(_) => wechatpay::NAME,
            Credentials::Alipay(_) => alipay::NAME,
        }
    }
}

/// The channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Channels {
    /// WeChat Pay.
    pub wechatpay: wechatpay::Config,
    /// Alipay.
    pub alipay: alipay::Config,
}

impl Channels {
    /// Every channel that is served, with where it is reached; none where it is not offered.
    pub fn addresses(&self) -> [(&'static str, Option<&str>); 2] {
        [
            (wechatpay::NAME, self.wechatpay.is_offered().then_some(self.wechatpay.base_url.as_str())),
            (alipay::NAME, self.alipay.is_offered().then_some(self.alipay.base_url.as_str())),
        ]
    }

    /// The longest that a call to one that is offered takes.
    fn call_timeout(&self) -> Duration {
        let offered = [
            (self.wechatpay.is_offered(), self.wechatpay.call_timeout),
            (self.alipay.is_offered(), self.alipay.call_timeout),
        ];
        offered.into_iter().filter(|(is_offered, _)| *is_offered).map(|(_, span)| span).max().unwrap_or_default()
    }

    /// Whether anything can be paid.
    pub fn is_any_offered(&self) -> bool {
        self.addresses().iter().any(|(_, address)| address.is_some())
    }
}

/// How the keys of merchants and channels are replaced without a restart: by new files under the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyFiles {
    /// How often a file that is in use is looked at.
    pub look_every: Duration,
    /// How long the key that was replaced still verifies.
    pub overlap: Duration,
}

impl Default for KeyFiles {
    fn default() -> Self {
        Self { look_every: Duration::from_secs(5), overlap: Duration::from_secs(24 * 3_600) }
    }
}

/// How open orders and refunds are followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// How often the store is asked for what is due, when nothing wakes the worker sooner.
    pub interval: Duration,
    /// Orders and refunds in hand at once.
    pub batch_max: u32,
    /// How long one of them stays with a worker that does not report back.
    pub lease: Duration,
    /// From sending an order or refund to the first question how it stands.
    pub first_look: Duration,
    /// The longest pause between two such questions.
    pub longest_pause: Duration,
    /// How long after an order's end the channel may still be taking in what was sent before.
    pub quiet: Duration,
    /// How long it is tried to bring an accepted refund to the channel. One that never reached it by then has failed, and its money is
    /// where it was before.
    pub refund_send_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            payees: Vec::new(),
            merchants: Vec::new(),
            channels: Channels::default(),
            payer_key_file: "keys/payments/payer.key".into(),
            key_files: KeyFiles::default(),
            worker: Worker::default(),
            receipts: receipts::Settings::default(),
            payment_codes: Vec::new(),
            reconcile: reconcile::source::Settings::default(),
            settlement: settlement::Settings::default(),
            answer_timeout: Duration::from_secs(8),
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            batch_max: 16,
            lease: Duration::from_secs(30),
            first_look: Duration::from_secs(2),
            longest_pause: Duration::from_secs(60),
            quiet: Duration::from_secs(120),
            refund_send_timeout: Duration::from_secs(3 * 24 * 3_600),
        }
    }
}

impl Worker {
    /// The times that the plan goes by.
    pub(crate) fn pace(&self) -> Pace {
        Pace { first: self.first_look.get(), longest: self.longest_pause.get(), quiet: self.quiet.get() }
    }

    fn validate(&self, path: &str, call_timeout: Duration, problems: &mut Vec<Problem>) {
        for (key, span) in [
            ("interval", self.interval),
            ("first_look", self.first_look),
            ("longest_pause", self.longest_pause),
            ("quiet", self.quiet),
            ("refund_send_timeout", self.refund_send_timeout),
        ] {
            if span.get().is_zero() {
                problems.push(Problem::new(format!("{path}.{key}"), "must be more than zero"));
            }
        }
        if !(1..=256).contains(&self.batch_max) {
            problems.push(Problem::new(format!("{path}.batch_max"), "must be from 1 to 256"));
        }
        // A step makes three calls at most (send, ask, and a download of certificates).
        if self.lease.get() < call_timeout.get().saturating_mul(4) {
            let problem = Problem::new(format!("{path}.lease"), "is too short: a step would lose it while it waits");
            problems.push(problem.hint("make it at least four times the call_timeout of every channel"));
        }
    }
}

impl Config {
    /// Notes everything that is wrong, each under its dotted path below `path`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        self.channels.wechatpay.validate(&format!("{path}.channels.wechatpay"), problems);
        self.channels.alipay.validate(&format!("{path}.channels.alipay"), problems);
        self.worker.validate(&format!("{path}.worker"), self.channels.call_timeout(), problems);
        self.reconcile.validate(&format!("{path}.reconcile"), problems);
        self.settlement.validate(&format!("{path}.settlement"), problems);
        if self.payer_key_file.as_os_str().is_empty() && !self.merchants.is_empty() {
            problems.push(Problem::new(format!("{path}.payer_key_file"), "is required where there are merchants"));
        }
        if self.key_files.look_every.get().is_zero() {
            problems.push(Problem::new(format!("{path}.key_files.look_every"), "must be more than zero"));
        }
        if self.answer_timeout.get().is_zero() {
            problems.push(Problem::new(format!("{path}.answer_timeout"), "must be more than zero"));
        }
        let mut payees = BTreeSet::new();
        for (index, payee) in self.payees.iter().enumerate() {
            let mut note = |message: &str| {
                problems.push(Problem::new(format!("{path}.payees.{index}.payee_id"), message));
            };
            if !is_part(&payee.payee_id) {
                note("must be letters, digits, '-', '_' and '.', at most 64");
            }
            if !payees.insert(payee.payee_id.as_str()) {
                note("is there twice");
            }
        }
        self.validate_merchants(path, &payees, problems);
        let is_payee = |payee: &str| payees.contains(payee);
        self.receipts.validate(&format!("{path}.receipts"), is_payee, problems);
        payment_codes::validate(&self.payment_codes, &format!("{path}.payment_codes"), is_payee, problems);
    }

    fn validate_merchants(&self, path: &str, payees: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
        let mut routes = BTreeSet::new();
        let mut keys = BTreeMap::new();
        for (index, merchant) in self.merchants.iter().enumerate() {
            let path = format!("{path}.merchants.{index}");
            let mut note = |key: &str, message: &str| problems.push(Problem::new(format!("{path}.{key}"), message));
            if merchant.payee_id != ANY_PAYEE && !payees.contains(merchant.payee_id.as_str()) {
                note("payee_id", "is neither '*' nor in the list of payees");
            }
            if !routes.insert((&merchant.entry_point, merchant.channel(), &merchant.payee_id)) {
                note("entry_point", "another merchant account has the same entry point, channel and payee");
            }
            if merchant.entry_point.is_empty() || !rpc::form::is_number(&merchant.app_id) {
                note("app_id", "must be 1 to 64 characters of printable ASCII, and the entry point not empty");
            }
            match &merchant.credentials {
                Credentials::Wechatpay(credentials) => credentials.validate(&merchant.mch_id, &mut note),
                Credentials::Alipay(credentials) => credentials.validate(&merchant.mch_id, &mut note),
            }
            // At Alipay each app has keys of its own; at WeChat Pay a merchant has one key for all.
            let app_id = match &merchant.credentials {
                Credentials::Wechatpay(_) => None,
                Credentials::Alipay(_) => Some(&merchant.app_id),
            };
            let account = (merchant.channel(), &merchant.mch_id, app_id);
            if *keys.entry(account).or_insert(&merchant.credentials) != &merchant.credentials {
                note("mch_id", "the same merchant account stands elsewhere with other keys");
            }
        }
    }

    /// The merchant account for an order: the payee's own before the one for every payee.
    pub(crate) fn merchant(&self, entry_point: &str, channel: &str, payee_id: &str) -> Option<&Merchant> {
        let of = |payee: &str| {
            self.merchants.iter().find(|merchant| {
                merchant.entry_point == entry_point && merchant.channel() == channel && merchant.payee_id == payee
            })
        };
        of(payee_id).or_else(|| of(ANY_PAYEE))
    }

    /// Whether a text is a payment code of a payee; nobody has one whose shape is not set.
    pub(crate) fn is_payment_code(&self, payee_id: &str, code: &str) -> bool {
        self.payment_codes.iter().any(|shape| shape.payee_id == payee_id && shape.fits(code))
    }

    /// Whether a payee is on the list.
    pub(crate) fn has_payee(&self, payee_id: &str) -> bool {
        self.payees.iter().any(|payee| payee.payee_id == payee_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
        "payees": [{"payee_id": "traffic-430100", "name": "Traffic police"}],
        "merchants": [{
            "entry_point": "wechat", "channel": "wechatpay", "payee_id": "*", "app_id": "wx0", "mch_id": "1900000001",
            "serial": "AB", "private_key_file": "k", "api_v3_key_file": "a", "verification": {"by": "platform_certificates"}
        }],
        "channels": {"wechatpay": {"base_url": "https://api.mch.weixin.qq.com", "notify_base_url": "https://pay.example/x/"}},
        "payer_key_file": "p"
    }"#;

    fn good() -> Config {
        serde_json::from_str(GOOD).expect("reads")
    }

    fn problems(config: &Config) -> Vec<String> {
        let mut problems = Vec::new();
        config.validate("payments", &mut problems);
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn good_settings_are_read_and_nothing_unknown_with_them() {
        assert_eq!(problems(&good()), [""; 0]);
        assert_eq!(problems(&Config::default()), [""; 0], "payments without a channel is allowed");
        let notify = good().channels.wechatpay.notify_url("1900000001");
        assert_eq!(notify, "https://pay.example/x/callbacks/wechatpay/1900000001");
        for (known, unknown) in [
            ("\"by\"", "\"bye\""),
            ("\"serial\"", "\"seriall\""),
            ("platform_cert", "other_cert"),
            ("\"wechatpay\", \"payee_id\"", "\"otherpay\", \"payee_id\""),
            ("\"serial\": \"AB\"", "\"serial\": \"AB\", \"more\": \"x\""),
        ] {
            let text = GOOD.replace(known, unknown);
            assert!(text != GOOD && serde_json::from_str::<Config>(&text).is_err(), "{unknown}");
        }
        let written = serde_json::to_value(good()).expect("writes");
        assert_eq!(written["merchants"][0]["channel"], "wechatpay");
        assert_eq!(serde_json::from_value::<Config>(written).expect("reads back"), good());
    }

    #[test]
    fn every_problem_is_noted_at_its_path() {
        let mut config = good();
        config.payees.push(config.payees[0].clone());
        config.payees.push(Payee { payee_id: "a/b".into(), name: String::new() });
        config.channels.wechatpay.notify_base_url = "pay.example".into();
        config.payer_key_file = PathBuf::new();
        config.worker.lease = Duration::from_secs(10);
        let mut other = config.merchants[0].clone();
        let with_serial = |merchant: &mut Merchant, serial: &str| {
            if let Credentials::Wechatpay(credentials) = &mut merchant.credentials {
                credentials.serial = serial.into();
            }
        };
        (other.payee_id, other.app_id, other.mch_id) = ("nobody".into(), String::new(), "19".into());
        with_serial(&mut other, "XY");
        let mut same = config.merchants[0].clone();
        with_serial(&mut same, "CD");
        config.merchants.extend([other, same]);
        let expected = [
            "channels.wechatpay.notify_base_url",
            "worker.lease",
            "payer_key_file",
            "payees.1.payee_id",
            "payees.2.payee_id",
            "merchants.1.payee_id",
            "merchants.1.app_id",
            "merchants.1.mch_id",
            "merchants.1.serial",
            "merchants.2.entry_point",
            "merchants.2.mch_id",
        ];
        assert_eq!(problems(&config), expected.map(|path| format!("payments.{path}")));
    }

    #[test]
    fn each_channel_has_credentials_of_its_own() {
        let alipay = r#"{"channel": "alipay", "entry_point": "alipay", "payee_id": "*", "app_id": "2021000000000001",
            "mch_id": "2088000000000001", "private_key_file": "k", "alipay_public_key_file": "p"}"#;
        let read = |text: &str| serde_json::from_str::<Merchant>(text);
        let merchant = read(alipay).expect("reads");
        assert_eq!(merchant.channel(), "alipay");
        for (known, unknown) in
            [("\"p\"", "\"p\", \"serial\": \"AB\""), ("\"alipay\", \"entry", "\"wechatpay\", \"entry")]
        {
            assert!(alipay.contains(known) && read(&alipay.replacen(known, unknown, 1)).is_err(), "{unknown}");
        }
        let mut config = good();
        config.merchants.push(merchant.clone());
        // The keys of one app of a seller say nothing of another's.
        let mut other = Merchant { app_id: "2021000000000002".into(), payee_id: "traffic-430100".into(), ..merchant };
        if let Credentials::Alipay(credentials) = &mut other.credentials {
            credentials.private_key_file = "other".into();
        }
        config.merchants.push(other.clone());
        assert_eq!(problems(&config), [""; 0]);
        other.app_id = "2021000000000001".into();
        (other.entry_point, other.mch_id) = ("taobao".into(), "2088000000000001".into());
        config.merchants.push(Merchant { mch_id: "2088-1".into(), entry_point: "weibo".into(), ..other.clone() });
        config.merchants.push(other);
        assert_eq!(problems(&config), ["payments.merchants.3.mch_id", "payments.merchants.4.mch_id"]);
    }

    #[test]
    fn only_channels_that_are_offered_count() {
        let mut config = good();
        config.worker.lease = Duration::from_secs(20);
        config.channels.alipay.call_timeout = Duration::from_secs(6);
        assert_eq!(problems(&config), [""; 0]);
        (config.channels.alipay.base_url, config.channels.alipay.notify_base_url) =
            ("https://openapi.alipay.com".into(), "https://pay.example".into());
        assert_eq!(problems(&config), ["payments.worker.lease"]);
    }

    #[test]
    fn a_payees_own_merchant_account_comes_first() {
        let mut config = good();
        let own =
            Merchant { payee_id: "traffic-430100".into(), mch_id: "1900000002".into(), ..config.merchants[0].clone() };
        config.merchants.push(own);
        let chosen = |entry_point, payee| config.merchant(entry_point, "wechatpay", payee).map(|m| m.mch_id.as_str());
        assert_eq!(chosen("wechat", "traffic-430100"), Some("1900000002"));
        assert_eq!(chosen("wechat", "traffic-140100"), Some("1900000001"));
        assert_eq!(chosen("weibo", "traffic-430100"), None);
    }
}
