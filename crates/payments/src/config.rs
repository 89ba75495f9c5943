//! What an operator sets for payments: who may be paid, through which merchant accounts, over which channels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use runtime::config::{Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::channel::wechatpay;
use crate::domain::ledger::is_part;
use crate::domain::plan::Pace;
use crate::reconcile;

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
    /// How open orders and refunds are followed.
    pub worker: Worker,
    /// How days are held against the channels' bills.
    pub reconcile: reconcile::source::Settings,
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
#[serde(deny_unknown_fields)]
pub struct Merchant {
    /// The super app it serves, such as `wechat`.
    pub entry_point: String,
    /// The channel, such as `wechatpay`.
    pub channel: String,
    /// The payee it collects for, or `*`.
    pub payee_id: String,
    /// The channel's id of the super app's account.
    pub app_id: String,
    /// The channel's number of the merchant.
    pub mch_id: String,
    /// The serial number of the merchant's certificate, hexadecimal.
    pub serial: String,
    /// The merchant's private key, PEM, readable by its owner alone.
    pub private_key_file: PathBuf,
    /// The merchant's certificate, PEM. Nothing is signed with it; `doctor` says by it when the account's key ends.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// The merchant's APIv3 key, 32 bytes, readable by its owner alone.
    pub api_v3_key_file: PathBuf,
    /// How the channel's signatures are verified.
    pub verification: Verification,
}

/// How a channel's signatures are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Verification {
    /// With platform certificates, downloaded and renewed by the driver.
    PlatformCertificates,
    /// With one public key.
    PublicKey {
        /// Its id, `PUB_KEY_ID_…`.
        id: String,
        /// The key, PEM.
        file: PathBuf,
    },
}

/// The channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Channels {
    /// WeChat Pay.
    pub wechatpay: wechatpay::Config,
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            payees: Vec::new(),
            merchants: Vec::new(),
            channels: Channels::default(),
            payer_key_file: "keys/payments/payer.key".into(),
            worker: Worker::default(),
            reconcile: reconcile::source::Settings::default(),
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
            problems.push(problem.hint("make it at least four times channels.wechatpay.call_timeout"));
        }
    }
}

impl Config {
    /// Notes everything that is wrong, each under its dotted path below `path`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        self.channels.wechatpay.validate(&format!("{path}.channels.wechatpay"), problems);
        self.worker.validate(&format!("{path}.worker"), self.channels.wechatpay.call_timeout, problems);
        self.reconcile.validate(&format!("{path}.reconcile"), problems);
        if self.payer_key_file.as_os_str().is_empty() && !self.merchants.is_empty() {
            problems.push(Problem::new(format!("{path}.payer_key_file"), "is required where there are merchants"));
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
    }

    fn validate_merchants(&self, path: &str, payees: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
        let mut routes = BTreeSet::new();
        let mut keys = BTreeMap::new();
        for (index, merchant) in self.merchants.iter().enumerate() {
            let path = format!("{path}.merchants.{index}");
            let mut note = |key: &str, message: &str| problems.push(Problem::new(format!("{path}.{key}"), message));
            if merchant.channel != wechatpay::NAME {
                note("channel", "is not a channel that is served: wechatpay");
            }
            if merchant.payee_id != ANY_PAYEE && !payees.contains(merchant.payee_id.as_str()) {
                note("payee_id", "is neither '*' nor in the list of payees");
            }
            if !routes.insert((&merchant.entry_point, &merchant.channel, &merchant.payee_id)) {
                note("entry_point", "another merchant account has the same entry point, channel and payee");
            }
            if merchant.entry_point.is_empty() || !rpc::form::is_number(&merchant.app_id) {
                note("app_id", "must be 1 to 64 characters of printable ASCII, and the entry point not empty");
            }
            if !is_number(&merchant.mch_id) {
                note("mch_id", "must be 8 to 10 digits");
            }
            if merchant.serial.is_empty() || !merchant.serial.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                note("serial", "must be hexadecimal digits");
            }
            let files =
                (&merchant.serial, &merchant.private_key_file, &merchant.api_v3_key_file, &merchant.verification);
            if *keys.entry((&merchant.channel, &merchant.mch_id)).or_insert(files) != files {
                note("mch_id", "the same merchant account stands elsewhere with other keys");
            }
        }
    }

    /// The merchant account for an order: the payee's own before the one for every payee.
    pub(crate) fn merchant(&self, entry_point: &str, channel: &str, payee_id: &str) -> Option<&Merchant> {
        let of = |payee: &str| {
            self.merchants.iter().find(|merchant| {
                merchant.entry_point == entry_point && merchant.channel == channel && merchant.payee_id == payee
            })
        };
        of(payee_id).or_else(|| of(ANY_PAYEE))
    }

    /// Whether a payee is on the list.
    pub(crate) fn has_payee(&self, payee_id: &str) -> bool {
        self.payees.iter().any(|payee| payee.payee_id == payee_id)
    }
}

fn is_number(text: &str) -> bool {
    (8..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
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
        for (known, unknown) in [("\"by\"", "\"bye\""), ("\"serial\"", "\"seriall\""), ("platform_cert", "other_cert")]
        {
            assert!(serde_json::from_str::<Config>(&GOOD.replace(known, unknown)).is_err(), "{unknown}");
        }
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
        (other.channel, other.mch_id, other.serial) = ("alipay".into(), "19".into(), "XY".into());
        (other.payee_id, other.app_id) = ("nobody".into(), String::new());
        let same = Merchant { serial: "CD".into(), ..config.merchants[0].clone() };
        config.merchants.extend([other, same]);
        let expected = [
            "channels.wechatpay.notify_base_url",
            "worker.lease",
            "payer_key_file",
            "payees.1.payee_id",
            "payees.2.payee_id",
            "merchants.1.channel",
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
