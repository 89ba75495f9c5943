//! WeChat Pay, API v3.
//!
//! Source: pay.weixin.qq.com, API v3: JSON over HTTPS, requests and answers signed with RSA (PKCS #1 v1.5, SHA-256), callbacks signed
//! and their content sealed with AES-256-GCM. `signing` holds the signatures, `seal` the cipher, `trust` the channel's keys, `keys`
//! the merchants', `wire` the messages, `notify` the callbacks, `combine` the combined orders, `mixed` those that the
//! insurance pays a part of, `bill` the bills, `driver` the calls.

mod bill;
mod combine;
mod driver;
mod insured;
mod keys;
pub mod mixed;
mod notify;
mod seal;
mod signing;
mod trust;
mod wire;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use runtime::config::{ByteSize, Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_base_url;

pub use driver::WechatPay;
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
    /// For the file of a bill, from connecting to the last byte.
    pub bill_timeout: Duration,
    /// The largest bill, unpacked.
    pub bill_max: ByteSize,
    /// How many orders one combined order may have.
    pub combine_max: u32,
    /// How old downloaded platform certificates may become before they are downloaded again.
    pub certificates_refresh: Duration,
}

/// What a merchant account at WeChat Pay signs and verifies with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The serial number of the merchant's certificate, hexadecimal. Without it the certificate says it; with it no other certificate is
    /// taken up.
    #[serde(default)]
    pub serial: String,
    /// The merchant's private key, PEM, readable by its owner alone.
    pub private_key_file: PathBuf,
    /// The merchant's certificate, PEM, of the private key. A new one is taken up together with its key, without a restart; `doctor` says by
    /// it when the key ends.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// The merchant's APIv3 key, 32 bytes, readable by its owner alone.
    pub api_v3_key_file: PathBuf,
    /// How the channel's signatures are verified.
    pub verification: Verification,
}

/// How the signatures of WeChat Pay are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Verification {
    /// With platform certificates, downloaded and renewed by the driver.
    PlatformCertificates,
    /// With one public key. A new file is taken up without a restart: replace the key first, and its id after it.
    PublicKey {
        /// Its id, `PUB_KEY_ID_…`.
        #[serde(default)]
        id: String,
        /// A file that holds the id, in place of `id`.
        #[serde(default)]
        id_file: Option<PathBuf>,
        /// The key, PEM.
        file: PathBuf,
    },
}

impl Credentials {
    /// Notes what is wrong, each under its key, with the merchant's number.
    pub(crate) fn validate(&self, mch_id: &str, note: &mut impl FnMut(&str, &str)) {
        if !((8..=10).contains(&mch_id.len()) && mch_id.bytes().all(|byte| byte.is_ascii_digit())) {
            note("mch_id", "must be 8 to 10 digits");
        }
        let is_named = !self.serial.is_empty() || self.certificate_file.is_some();
        if !is_named || !self.serial.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            note("serial", "must be hexadecimal digits; it may be empty where certificate_file says it");
        }
        if let Verification::PublicKey { id, id_file, .. } = &self.verification
            && id.is_empty() == id_file.is_none()
        {
            note("verification", "must name the key's id by one of id and id_file");
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            notify_base_url: String::new(),
            connect_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(5),
            pool_idle: Duration::from_secs(20),
            combine_max: 50,
            bill_timeout: Duration::from_secs(15 * 60),
            bill_max: ByteSize::from_mib(8 * 1_024),
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
        for (key, is_zero) in
            [("bill_timeout", self.bill_timeout.get().is_zero()), ("bill_max", self.bill_max.bytes() == 0)]
        {
            if is_zero {
                problems.push(Problem::new(format!("{path}.{key}"), "must be more than zero"));
            }
        }
        if !(2..=1_000).contains(&self.combine_max) {
            problems.push(Problem::new(format!("{path}.combine_max"), "must be from 2 to 1000"));
        }
        if self.certificates_refresh.get() < std::time::Duration::from_secs(60) {
            problems.push(Problem::new(format!("{path}.certificates_refresh"), "must be at least 1m"));
        }
    }
}
