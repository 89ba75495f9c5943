//! Alipay (支付宝), open API: the gateway (v2) and the REST form (v3).
//!
//! Source: opendocs.alipay.com. Requests, answers and callbacks are signed with RSA (PKCS #1 v1.5, SHA-256): in the gateway's form over
//! sorted parameters and over the answer's node as it came, in the REST form over the lines of request and answer. `params` holds the
//! parameters, `answer` the gateway's envelope, `rest` the headers of the REST form, `wire` the messages and what the codes mean,
//! `notify` the callbacks, `certificates` how keys are certified, `driver` the calls. What a browser or an app opens is signed as the gateway wants it in both forms.

mod answer;
mod certificates;
mod driver;
mod notify;
mod params;
mod rest;
mod wire;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use runtime::config::{ByteSize, Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_base_url;

pub use certificates::Certificates;
pub use driver::Alipay;

/// The channel's name in orders, accounts and configuration.
pub const NAME: &str = "alipay";

/// The longest address that Alipay takes to report to, bytes.
const NOTIFY_URL_BYTES_MAX: usize = 256;

/// How Alipay is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `https://openapi.alipay.com`, or the sandbox; `/gateway.do` and `/v3/…` are added. Empty: the channel is not offered.
    pub base_url: String,
    /// Where Alipay reaches the callback listener from outside; `/callbacks/alipay/<merchant>` is added.
    pub notify_base_url: String,
    /// For name resolution, TCP and TLS.
    pub connect_timeout: Duration,
    /// For one call, from connecting to the last byte.
    pub call_timeout: Duration,
    /// Unused connections are closed after this; keep it below the peer's own limit.
    pub pool_idle: Duration,
    /// `https://` and the host that bills are downloaded from; of the address that Alipay names, the path alone is taken. Empty: the host
    /// of `base_url`.
    pub bill_base_url: String,
    /// For the file of a bill, from connecting to the last byte.
    pub bill_timeout: Duration,
    /// The largest bill, as it comes.
    pub bill_max: ByteSize,
}

/// What a merchant account at Alipay signs and verifies with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The form of the calls.
    #[serde(default)]
    pub api: Api,
    /// The app's private key, PEM, readable by its owner alone.
    pub private_key_file: PathBuf,
    /// Alipay's public key for this app, PEM; not the app's own. Empty in certificate mode.
    #[serde(default)]
    pub alipay_public_key_file: PathBuf,
    /// The certificates of an app that is in certificate mode (公钥证书), PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,
    /// Where a browser is sent after it paid, or gave up. Empty: it stays at Alipay's.
    #[serde(default)]
    pub return_url: String,
}

/// A form of Alipay's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// The gateway: one address, signed parameters.
    #[default]
    V2,
    /// REST: a path for each call, signatures in headers.
    V3,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            notify_base_url: String::new(),
            connect_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(5),
            pool_idle: Duration::from_secs(20),
            bill_base_url: String::new(),
            bill_timeout: Duration::from_secs(15 * 60),
            bill_max: ByteSize::from_mib(2 * 1_024),
        }
    }
}

impl Config {
    /// Whether the channel is offered.
    pub fn is_offered(&self) -> bool {
        !self.base_url.is_empty()
    }

    /// Where Alipay reports what became of a merchant's orders.
    pub fn notify_url(&self, merchant: &str) -> String {
        format!("{}/callbacks/{NAME}/{merchant}", self.notify_base_url.trim_end_matches('/'))
    }

    /// Notes everything that is wrong, each under its dotted path below `path`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        if !self.is_offered() {
            return;
        }
        for (key, url) in [("base_url", &self.base_url), ("notify_base_url", &self.notify_base_url)] {
            if !is_base_url(url) {
                let problem = Problem::new(format!("{path}.{key}"), "is not an http or https address without a query");
                problems.push(problem.hint("write it as https://host or https://host:port/path"));
            }
        }
        if !self.bill_base_url.is_empty() && !is_base_url(&self.bill_base_url) {
            let problem =
                Problem::new(format!("{path}.bill_base_url"), "is not an http or https address without a query");
            problems.push(problem.hint("write it as https://host"));
        }
        for (key, is_nothing) in
            [("bill_timeout", self.bill_timeout.get().is_zero()), ("bill_max", self.bill_max.bytes() == 0)]
        {
            if is_nothing {
                problems.push(Problem::new(format!("{path}.{key}"), "must be more than zero"));
            }
        }
        // The longest merchant number that is taken has 32 digits.
        if self.notify_url(&"2".repeat(32)).len() > NOTIFY_URL_BYTES_MAX {
            problems.push(Problem::new(format!("{path}.notify_base_url"), "is too long: 256 bytes with the path"));
        }
        for (key, span) in [("connect_timeout", self.connect_timeout), ("call_timeout", self.call_timeout)] {
            if span.get().is_zero() || span.get() > std::time::Duration::from_secs(30) {
                problems.push(Problem::new(format!("{path}.{key}"), "must be from 1ms to 30s"));
            }
        }
    }
}

impl Credentials {
    /// Notes what is wrong, each under its key, with the merchant's number: the seller's id.
    pub(crate) fn validate(&self, mch_id: &str, note: &mut impl FnMut(&str, &str)) {
        if !((1..=32).contains(&mch_id.len()) && mch_id.bytes().all(|byte| byte.is_ascii_digit())) {
            note("mch_id", "must be the seller's id: digits, 2088…");
        }
        match (&self.certificates, self.alipay_public_key_file.as_os_str().is_empty()) {
            (None, true) => note("alipay_public_key_file", "is required where there are no certificates"),
            (Some(_), false) => note("certificates", "stand in the place of alipay_public_key_file: give one of them"),
            _ => {}
        }
        if !self.return_url.is_empty() && self.return_url.parse::<http::Uri>().is_err() {
            note("return_url", "is not an address");
        }
    }
}
