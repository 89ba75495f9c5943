//! The headers of the REST form, both ways.

use http::{HeaderMap, Method};

const SCHEME: &str = "ALIPAY-SHA256withRSA";

pub(super) const H_TIMESTAMP: &str = "alipay-timestamp";
pub(super) const H_NONCE: &str = "alipay-nonce";
/// Alipay's roots as the asker has them, in certificate mode.
pub(super) const H_ROOT: &str = "alipay-root-cert-sn";
pub(super) const H_SIGNATURE: &str = "alipay-signature";

/// The path of a method.
pub(super) fn target(method: &str) -> String {
    format!("/v3/{}", method.replace('.', "/"))
}

/// Who asks, and when: the part of the Authorization header that is signed with the request.
pub(super) fn asker(app_id: &str, certificate: Option<&str>, nonce: &str, millis: i64) -> String {
    let certificate = certificate.map(|number| format!(",app_cert_sn={number}")).unwrap_or_default();
    format!("app_id={app_id}{certificate},nonce={nonce},timestamp={millis}")
}

/// What our signature of a request covers.
pub(super) fn request_message(asker: &str, method: &Method, target: &str, body: &str) -> String {
    format!("{asker}\n{method}\n{target}\n{body}\n")
}

/// The Authorization header.
pub(super) fn authorization(asker: &str, signature: &str) -> String {
    format!("{SCHEME} {asker},sign={signature}")
}

/// The signature of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signed<'a> {
    timestamp: &'a str,
    nonce: &'a str,
    pub(super) signature: &'a str,
}

impl<'a> Signed<'a> {
    /// Takes the signature out of the headers; None when one is missing, empty or there twice.
    pub(super) fn read(headers: &'a HeaderMap) -> Option<Self> {
        let header = |name: &str| {
            let mut all = headers.get_all(name).iter();
            let value = all.next().and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
            value.filter(|_| all.next().is_none())
        };
        Some(Self { timestamp: header(H_TIMESTAMP)?, nonce: header(H_NONCE)?, signature: header(H_SIGNATURE)? })
    }

    /// What it covers, of an answer with this body.
    pub(super) fn message(&self, body: &[u8]) -> Vec<u8> {
        [self.timestamp.as_bytes(), b"\n", self.nonce.as_bytes(), b"\n", body, b"\n"].concat()
    }
}
