//! WeChat Pay, API v3.
//!
//! Source: pay.weixin.qq.com, API v3: JSON over HTTPS, requests and answers signed with RSA (PKCS #1 v1.5, SHA-256), callbacks signed
//! and their content sealed with AES-256-GCM. `signing` holds the signatures, `seal` the cipher, `trust` the channel's keys, `keys`
//! the merchants', `wire` the messages, `notify` the callbacks, `driver` the calls.

mod driver;
mod keys;
mod notify;
mod seal;
mod signing;
mod trust;
mod wire;

#[cfg(test)]
mod tests;

use runtime::config::{Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use driver::WechatPay;
pub use keys::KeyError;
pub use trust::PlatformCertificate;

/// The channel's name in orders, accounts and configuration.
pub const NAME: &str = "wechatpay";

/// The longest address that WeChat takes to report to, bytes.
const NOTIFY_URL_BYTES_MAX: usize = 255;

/// How WeChat Pay is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `https://api.mch.weixin.qq.com`, or the sandbox. Empty: the channel is not offered.
    pub base_url: String,
    /// Where WeChat reaches the callback listener from outside; `/callbacks/wechatpay/<merchant>` is added.
    pub notify_base_url: String,
    /// For name resolution, TCP and TLS.
    pub connect_timeout: Duration,
    /// For one call, from connecting to the last byte.
    pub call_timeout: Duration,
    /// Unused connections are closed after this; keep it below the peer's own limit.
    pub pool_idle: Duration,
    /// How old downloaded platform certificates may become before they are downloaded again.
    pub certificates_refresh: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            notify_base_url: String::new(),
            connect_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(5),
            pool_idle: Duration::from_secs(20),
            certificates_refresh: Duration::from_secs(12 * 3_600),
        }
    }
}

impl Config {
    /// Whether the channel is offered.
    pub fn is_offered(&self) -> bool {
        !self.base_url.is_empty()
    }

    /// Where WeChat reports what became of a merchant's orders.
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
        // The longest merchant number has ten digits.
        if self.notify_url("1234567890").len() > NOTIFY_URL_BYTES_MAX {
            problems.push(Problem::new(format!("{path}.notify_base_url"), "is too long: 255 bytes with the path"));
        }
        for (key, span) in [("connect_timeout", self.connect_timeout), ("call_timeout", self.call_timeout)] {
            if span.get().is_zero() || span.get() > std::time::Duration::from_secs(30) {
                problems.push(Problem::new(format!("{path}.{key}"), "must be from 1ms to 30s"));
            }
        }
        if self.certificates_refresh.get() < std::time::Duration::from_secs(60) {
            problems.push(Problem::new(format!("{path}.certificates_refresh"), "must be at least 1m"));
        }
    }
}

fn is_base_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.host().is_some_and(|host| !host.is_empty())
        && uri.query().is_none()
        && !text.contains('#')
}
