//! The settings of the sandbox.

use std::path::PathBuf;

use runtime::config::{Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::police::hours::Hours;

/// The settings of role sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where journals and keys are kept, under `sandbox/`.
    pub data_dir: PathBuf,
    /// The control port.
    pub control: Control,
    /// The sandbox's WeChat Pay.
    pub wechatpay: WechatPay,
    /// The sandbox's Alipay.
    pub alipay: Alipay,
    /// The traffic police of Changsha.
    pub police_430100: PoliceSoap,
    /// The traffic police of Taiyuan.
    pub police_140100: PoliceTcp,
}

/// The control port: staged faults, the cast, journals, and what citizens and officers do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// `ip:port`; port 0 takes a free one.
    pub listen: String,
}

/// The sandbox's WeChat Pay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WechatPay {
    /// `ip:port`; port 0 takes a free one.
    pub listen: String,
    /// Where the keys are; `<data_dir>/sandbox/wechatpay` when absent.
    pub keys_dir: Option<PathBuf>,
    /// The merchants that it knows.
    pub merchants: Vec<Merchant>,
    /// How long a callback waits for the merchant's answer.
    pub notify_timeout: Duration,
    /// How long one second of WeChat's callback schedule (15 s, 15 s, 30 s, 3 m …) takes here.
    pub notify_second: Duration,
    /// How long a refund is in process.
    pub refund_after: Duration,
    /// When set, every order is paid by itself after this long.
    pub autopay: Option<Duration>,
    /// How many orders one combined order may have.
    pub combine_max: u32,
    /// Whether a day's bill must be waited for as at WeChat: until 10:00 of the next day, Beijing time. Otherwise there is one at any
    /// moment, also of a day that is not over.
    pub bills_wait: bool,
}

/// A merchant of the sandbox's WeChat Pay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Merchant {
    /// Merchant number, 8 to 10 digits.
    pub mchid: String,
    /// The apps that may order for it.
    pub appids: Vec<String>,
    /// Which key signs its callbacks.
    #[serde(default)]
    pub callbacks_signed_by: SignedBy,
}

/// A key of the platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignedBy {
    /// The public key with an id.
    #[default]
    PublicKey,
    /// The platform certificate.
    Certificate,
}

/// The sandbox's Alipay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Alipay {
    /// `ip:port`; port 0 takes a free one.
    pub listen: String,
    /// Where the keys are; `<data_dir>/sandbox/alipay` when absent.
    pub keys_dir: Option<PathBuf>,
    /// The apps that it knows.
    pub apps: Vec<App>,
    /// How long a notice waits for the merchant's answer.
    pub notify_timeout: Duration,
    /// How long one second of Alipay's schedule of notices (4 min, 10 min, 10 min, 1 h …) takes here.
    pub notify_second: Duration,
    /// How long a refund is in process; zero: it is done with the answer.
    pub refund_after: Duration,
    /// Whether a bill is there only from 10:00 of the next day on, as Alipay's; otherwise it is there at once, as far as the day went.
    pub bills_wait: bool,
    /// When set, every order that Alipay has heard of is paid by itself after this long.
    pub autopay: Option<Duration>,
}

/// An app of a merchant of the sandbox's Alipay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its number, 16 digits.
    pub app_id: String,
    /// The merchant that it belongs to (PID), 16 digits that begin with 2088.
    pub pid: String,
    /// Whether it is in certificate mode (公钥证书): each side names the other's certificates.
    #[serde(default)]
    pub certificates: bool,
}

/// A police system that speaks SOAP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoliceSoap {
    /// `ip:port`; port 0 takes a free one.
    pub listen: String,
    /// The interface serial number (`jkxlh`) that callers must give.
    pub interface_serial: String,
    /// When it is open, Beijing time, such as `06:00-23:30`; always when absent.
    pub hours: Option<Hours>,
}

/// A police system that speaks fixed columns over TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoliceTcp {
    /// `ip:port`; port 0 takes a free one.
    pub listen: String,
    /// The institution code (`jgdm`) that callers must give.
    pub institution: String,
    /// When it is open, Beijing time, such as `06:00-23:30`; always when absent.
    pub hours: Option<Hours>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: ".".into(),
            control: Control::default(),
            wechatpay: WechatPay::default(),
            alipay: Alipay::default(),
            police_430100: PoliceSoap::default(),
            police_140100: PoliceTcp::default(),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7500".into() }
    }
}

impl Default for WechatPay {
    fn default() -> Self {
        let merchant = |mchid: &str| Merchant {
            mchid: mchid.into(),
            appids: vec!["wx5a4db0c5a4db0c51".into()],
            callbacks_signed_by: SignedBy::PublicKey,
        };
        Self {
            listen: "127.0.0.1:7501".into(),
            keys_dir: None,
            merchants: vec![merchant("1900430100"), merchant("1900140100")],
            notify_timeout: Duration::from_secs(5),
            notify_second: Duration::from_millis(100),
            refund_after: Duration::from_millis(300),
            autopay: None,
            combine_max: 50,
            bills_wait: false,
        }
    }
}

impl Default for Alipay {
    fn default() -> Self {
        let app = |app_id: &str, pid: &str| App { app_id: app_id.into(), pid: pid.into(), certificates: false };
        Self {
            listen: "127.0.0.1:7502".into(),
            keys_dir: None,
            apps: vec![app("2021000000430100", "2088000000430100"), app("2021000000140100", "2088000000140100")],
            notify_timeout: Duration::from_secs(5),
            notify_second: Duration::from_millis(100),
            refund_after: Duration::from_millis(0),
            bills_wait: false,
            autopay: None,
        }
    }
}

impl Default for PoliceSoap {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7511".into(), interface_serial: "CSJJ-SANDBOX-0001".into(), hours: None }
    }
}

impl Default for PoliceTcp {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7512".into(), institution: "TYSANDBOX001".into(), hours: None }
    }
}

impl Config {
    /// Returns the directory of journals.
    pub fn journal_dir(&self) -> PathBuf {
        self.data_dir.join("sandbox")
    }

    /// Returns the directory of WeChat Pay's keys.
    pub fn keys_dir(&self) -> PathBuf {
        self.wechatpay.keys_dir.clone().unwrap_or_else(|| self.journal_dir().join("wechatpay"))
    }

    /// Returns the directory of Alipay's keys.
    pub fn alipay_keys_dir(&self) -> PathBuf {
        self.alipay.keys_dir.clone().unwrap_or_else(|| self.journal_dir().join("alipay"))
    }

    /// Notes everything that is wrong, each under its dotted path below `path`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut note = |key: &str, message: &str| problems.push(Problem::new(format!("{path}.{key}"), message));
        for (key, listen) in [
            ("control.listen", &self.control.listen),
            ("wechatpay.listen", &self.wechatpay.listen),
            ("alipay.listen", &self.alipay.listen),
            ("police_430100.listen", &self.police_430100.listen),
            ("police_140100.listen", &self.police_140100.listen),
        ] {
            if listen.parse::<std::net::SocketAddr>().is_err() {
                note(key, "must be ip:port");
            }
        }
        if self.data_dir.as_os_str().is_empty() {
            note("data_dir", "must not be empty");
        }
        let serial = &self.police_430100.interface_serial;
        if !(1..=32).contains(&serial.len()) || !serial.bytes().all(|b| b.is_ascii_graphic()) {
            note("police_430100.interface_serial", "must be 1 to 32 printable ASCII characters");
        }
        let institution = &self.police_140100.institution;
        if !(1..=12).contains(&institution.len()) || !institution.bytes().all(|b| b.is_ascii_alphanumeric()) {
            note("police_140100.institution", "must be 1 to 12 letters and digits");
        }
        if self.wechatpay.notify_timeout.get().is_zero() {
            note("wechatpay.notify_timeout", "must be more than zero");
        }
        if self.alipay.notify_timeout.get().is_zero() {
            note("alipay.notify_timeout", "must be more than zero");
        }
        for (index, app) in self.alipay.apps.iter().enumerate() {
            let is_number = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit());
            if !is_number(&app.app_id) {
                note(&format!("alipay.apps.{index}.app_id"), "must be 16 digits");
            }
            if self.alipay.apps.iter().filter(|other| other.app_id == app.app_id).count() > 1 {
                note(&format!("alipay.apps.{index}.app_id"), "is there twice");
            }
            if !is_number(&app.pid) || !app.pid.starts_with("2088") {
                note(&format!("alipay.apps.{index}.pid"), "must be 16 digits that begin with 2088");
            }
        }
        if !(2..=1_000).contains(&self.wechatpay.combine_max) {
            note("wechatpay.combine_max", "must be from 2 to 1000");
        }
        for (index, merchant) in self.wechatpay.merchants.iter().enumerate() {
            let mchid = &merchant.mchid;
            if !(8..=10).contains(&mchid.len()) || !mchid.bytes().all(|b| b.is_ascii_digit()) {
                note(&format!("wechatpay.merchants.{index}.mchid"), "must be 8 to 10 digits");
            }
            if self.wechatpay.merchants.iter().filter(|other| other.mchid == *mchid).count() > 1 {
                note(&format!("wechatpay.merchants.{index}.mchid"), "is there twice");
            }
            if merchant.appids.is_empty() {
                note(&format!("wechatpay.merchants.{index}.appids"), "must not be empty");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_every_problem_is_named() {
        let problems = |config: &Config| {
            let mut problems = Vec::new();
            config.validate("sandbox", &mut problems);
            problems.len()
        };
        assert_eq!(problems(&Config::default()), 0);
        let mut config = Config { data_dir: "".into(), ..Config::default() };
        config.control.listen = "7500".into();
        config.police_430100.interface_serial = "with blank ".into();
        config.police_140100.institution = "THIRTEENCHARS".into();
        config.wechatpay.notify_timeout = Duration::from_millis(0);
        config.wechatpay.merchants[1].mchid = "1900430100".into();
        config.wechatpay.merchants[0].appids.clear();
        config.wechatpay.combine_max = 1;
        config.alipay.listen = "7502".into();
        config.alipay.notify_timeout = Duration::from_millis(0);
        config.alipay.apps[1] = App { pid: "1234".into(), ..config.alipay.apps[0].clone() };
        assert_eq!(problems(&config), 14, "an app that is there twice is named twice");
    }

    #[test]
    fn a_file_may_say_as_little_as_it_likes() {
        let config: Config = serde_json::from_str(
            r#"{"police_140100":{"hours":"06:00-23:30"},"wechatpay":{"notify_second":"1s","autopay":"200ms"}}"#,
        )
        .expect("reads");
        assert_eq!(config.police_140100.hours.map(|hours| hours.to_string()).as_deref(), Some("06:00-23:30"));
        assert_eq!(config.wechatpay.autopay, Some(Duration::from_millis(200)));
        assert_eq!(config.police_430100, PoliceSoap::default());
        assert!(serde_json::from_str::<Config>(r#"{"polise":{}}"#).is_err());
    }
}
