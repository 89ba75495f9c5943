//! Signatures of API v3, both ways.
//!
//! Source: 签名生成 / 签名验证 of API v3. Ours covers five lines (method, path with query, seconds, nonce, body), theirs three
//! (seconds, nonce, body); every line ends with LF, the last one too.

use std::time::Duration;

use http::{HeaderMap, Method};
use runtime::Timestamp;

pub(super) use crate::channel::keys::{SigningKey, VerifyingKey};

/// The scheme of both signatures.
pub(super) const SCHEME: &str = "WECHATPAY2-SHA256-RSA2048";
/// How far the two clocks may be apart.
pub(super) const SKEW_MAX: Duration = Duration::from_secs(300);
/// WeChat sends callbacks with a wrong signature that begins like this, and expects them to be refused.
const PROBE: &str = "WECHATPAY/SIGNTEST/";

pub(super) const H_TIMESTAMP: &str = "wechatpay-timestamp";
pub(super) const H_NONCE: &str = "wechatpay-nonce";
pub(super) const H_SIGNATURE: &str = "wechatpay-signature";
pub(super) const H_SERIAL: &str = "wechatpay-serial";
pub(super) const H_TYPE: &str = "wechatpay-signature-type";

/// What our signature of a request covers.
pub(super) fn request_message(method: &Method, target: &str, seconds: i64, nonce: &str, body: &str) -> String {
    format!("{method}\n{target}\n{seconds}\n{nonce}\n{body}\n")
}

/// The Authorization header of a signed request.
pub(super) fn authorization(merchant: &str, serial: &str, seconds: i64, nonce: &str, signature: &str) -> String {
    format!(
        "{SCHEME} mchid=\"{merchant}\",nonce_str=\"{nonce}\",signature=\"{signature}\",timestamp=\"{seconds}\",\
         serial_no=\"{serial}\""
    )
}

/// What the signature of a JSAPI or mini-program pay sheet covers.
pub(super) fn sheet_message(app_id: &str, seconds: i64, nonce: &str, package: &str) -> String {
    format!("{app_id}\n{seconds}\n{nonce}\n{package}\n")
}

/// The signature that came with an answer or callback, its time already checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) serial: &'a str,
    seconds: &'a str,
    nonce: &'a str,
    signature: &'a str,
}

/// Why a signature cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadSigned {
    /// A header is missing or wrong.
    Header(&'static str),
    /// Its time is too far from ours.
    Time,
    /// A probe.
    Probe,
}

impl<'a> Signed<'a> {
    /// Takes the signature out of the headers.
    pub(super) fn read(headers: &'a HeaderMap, now: Timestamp) -> Result<Self, BadSigned> {
        let header = |name: &'static str| {
            let mut all = headers.get_all(name).iter();
            let value = all.next().and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
            value.filter(|_| all.next().is_none()).ok_or(BadSigned::Header(name))
        };
        if headers.contains_key(H_TYPE) && header(H_TYPE)? != SCHEME {
            return Err(BadSigned::Header(H_TYPE));
        }
        let signature = header(H_SIGNATURE)?;
        if signature.starts_with(PROBE) {
            return Err(BadSigned::Probe);
        }
        let seconds = header(H_TIMESTAMP)?;
        let at = seconds.parse().map_err(|_| BadSigned::Header(H_TIMESTAMP))?;
        let at = Timestamp::from_seconds_nanos(at, 0);
        if now.since(at).max(at.since(now)) > SKEW_MAX {
            return Err(BadSigned::Time);
        }
        Ok(Self { serial: header(H_SERIAL)?, seconds, nonce: header(H_NONCE)?, signature })
    }

    /// Whether the body was signed by `key`.
    pub(super) fn covers(&self, body: &[u8], key: &VerifyingKey) -> bool {
        let mut message = format!("{}\n{}\n", self.seconds, self.nonce).into_bytes();
        message.extend_from_slice(body);
        message.push(b'\n');
        key.verifies(&message, self.signature)
    }
}
