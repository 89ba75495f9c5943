//! The gateway (v2): parameters in the address, in a form, or in both, signed all together; an answer whose node is signed as it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, request};
use serde_json::{Value, json};

use super::api::Face;
use super::call::{Asked, Call};
use super::desk::Desk;
use super::event::Product;
use super::messages;
use super::outcome::{self, ApiError, invalid, missing};
use crate::beijing;

/// How far a request's clock may be off: clients write the wall clock of where they run, and nothing says of which zone.
pub(super) const OFF_SECONDS: u64 = 24 * 3_600;

/// Parameters by name.
pub(super) type Parameters = BTreeMap<String, String>;

/// Reads the parameters of an address and of a form. One that is there twice, or that is no text, is refused.
pub(super) fn parameters(query: &str, body: &[u8]) -> Result<Parameters, ApiError> {
    let wrong = || invalid("isv.invalid-parameter", "参数重复或编码错误");
    let mut parameters = Parameters::new();
    let pairs = form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(body));
    for (name, value) in pairs {
        let is_text = !name.contains(char::REPLACEMENT_CHARACTER) && !value.contains(char::REPLACEMENT_CHARACTER);
        if !is_text || parameters.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(wrong());
        }
    }
    Ok(parameters)
}

impl Desk {
    pub(super) async fn gateway(self: &Arc<Self>, head: &request::Parts, body: &Bytes) -> Response<Body> {
        let query = head.uri.query().unwrap_or_default();
        let parameters = parameters(query, body);
        let node = parameters.as_ref().map_or_else(|_| Face::error(), |parameters| self.face(parameters));
        let asked = parameters.and_then(|parameters| self.asked(&parameters, super::api::base(head)));
        match asked {
            Ok(asked) if matches!(asked.call, Call::Offer(Product::Wap | Product::Page)) => self.page(&asked).await,
            Ok(asked) => self.served(&asked, &node).await,
            Err(error) => self.refused(&node, error),
        }
    }

    /// Proves who asks, and reads what for.
    pub(super) fn asked(&self, parameters: &Parameters, base: String) -> Result<Asked, ApiError> {
        let get = |name: &str| parameters.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let app_id = get("app_id").ok_or_else(|| missing("isv.missing-app-id"))?;
        let method = get("method").ok_or_else(|| missing("isv.missing-method"))?;
        let sign_type = get("sign_type").ok_or_else(|| missing("isv.missing-signature-type"))?;
        let sign = get("sign").ok_or_else(|| missing("isv.missing-signature"))?;
        let timestamp = get("timestamp").ok_or_else(|| missing("isv.missing-timestamp"))?;
        let version = get("version").ok_or_else(|| missing("isv.missing-version"))?;
        let key = self.keys.app(app_id).ok_or_else(outcome::bad_app)?;
        let app = self.config.apps.iter().find(|app| app.app_id == app_id).ok_or_else(outcome::bad_app)?;
        if sign_type != "RSA2" {
            return Err(invalid("isv.invalid-signature-type", "无效的签名类型"));
        }
        if get("charset").is_some_and(|charset| !charset.eq_ignore_ascii_case("utf-8")) {
            return Err(invalid("isv.invalid-charset", "字符集错误"));
        }
        let signed = parameters.iter().filter(|(name, _)| name.as_str() != "sign");
        let signed = messages::signed_text(signed.map(|(name, value)| (name.as_str(), value.as_str())));
        if !key.verifier().verifies(&signed, sign) {
            return Err(outcome::bad_signature());
        }
        if version != "1.0" || get("format").is_some_and(|format| !format.eq_ignore_ascii_case("json")) {
            return Err(invalid("isv.invalid-format", "版本或格式错误"));
        }
        if !self.keys.certificates_are(app_id, get("app_cert_sn"), get("alipay_root_cert_sn")) {
            return Err(outcome::bad_signature());
        }
        let now = self.book.now().seconds_nanos().0;
        let at = beijing::parse_spaced(timestamp).map(|at| at.seconds_nanos().0);
        if at.is_none_or(|at| at.abs_diff(now) > OFF_SECONDS) {
            return Err(invalid("isv.invalid-timestamp", "非法的时间戳参数"));
        }
        if get("encrypt_type").is_some() {
            return Err(invalid("isv.invalid-encrypt-type", "沙箱不支持内容加密"));
        }
        let call = Call::of_method(method).ok_or_else(outcome::bad_method)?;
        let biz = get("biz_content").map_or(Ok(json!({})), serde_json::from_str::<Value>);
        let biz = biz.ok().filter(Value::is_object);
        let biz = biz.ok_or_else(|| invalid("isv.invalid-parameter", "biz_content不是JSON对象"))?;
        let url = |name: &str| get(name).map(str::to_owned);
        Ok(Asked { app: app.clone(), call, biz, notify_url: url("notify_url"), return_url: url("return_url"), base })
    }
}
