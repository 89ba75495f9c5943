//! The REST form (v3): a path for each call, a signature over the line of the request and its body in a header, and headers that sign
//! the answer.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Response, request};
use serde_json::{Map, Value, json};

use super::api::Face;
use super::call::{Asked, Call};
use super::desk::Desk;
use super::gateway::OFF_SECONDS;
use super::outcome::{self, ApiError, invalid};

const SCHEME: &str = "ALIPAY-SHA256withRSA ";

impl Desk {
    pub(super) async fn rest(self: &Arc<Self>, head: &request::Parts, body: &Bytes) -> Response<Body> {
        match self.asked_by_rest(head, body) {
            Ok(asked) => self.served(&asked, &Face::Rest).await,
            Err(error) => self.refused(&Face::Rest, error),
        }
    }

    fn asked_by_rest(&self, head: &request::Parts, body: &Bytes) -> Result<Asked, ApiError> {
        let text = std::str::from_utf8(body).map_err(|_| outcome::bad_signature())?;
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = header(AUTHORIZATION.as_str()).unwrap_or_default();
        let (fields, sign) = authorization
            .strip_prefix(SCHEME)
            .and_then(|fields| fields.rsplit_once(",sign="))
            .ok_or_else(outcome::bad_signature)?;
        let get = |name: &str| {
            fields.split(',').filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == name).map(|(_, v)| v)
        };
        let app_id = get("app_id").ok_or_else(outcome::bad_app)?;
        let key = self.keys.app(app_id).ok_or_else(outcome::bad_app)?;
        let app = self.config.apps.iter().find(|app| app.app_id == app_id).ok_or_else(outcome::bad_app)?;
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut signed = format!("{fields}\n{}\n{target}\n{text}\n", head.method);
        if let Some(token) = header("alipay-app-auth-token") {
            signed.push_str(token);
            signed.push('\n');
        }
        let has_nonce = get("nonce").is_some_and(|nonce| !nonce.is_empty());
        if !has_nonce || !key.verifier().verifies(&signed, sign) {
            return Err(outcome::bad_signature());
        }
        if !self.keys.certificates_are(app_id, get("app_cert_sn"), header("alipay-root-cert-sn")) {
            return Err(outcome::bad_signature());
        }
        let now = self.book.now().micros() / 1_000;
        let at: Option<i64> = get("timestamp").and_then(|millis| millis.parse().ok());
        if at.is_none_or(|at| at.abs_diff(now) > OFF_SECONDS * 1_000) {
            return Err(invalid("isv.invalid-timestamp", "非法的时间戳参数"));
        }
        if header("alipay-encrypt-type").is_some() {
            return Err(invalid("isv.invalid-encrypt-type", "沙箱不支持内容加密"));
        }
        let call = Call::of_path(&head.method, head.uri.path()).ok_or_else(outcome::bad_method)?;
        let biz = if head.method == Method::GET {
            query(head.uri.query().unwrap_or_default())
        } else {
            serde_json::from_str::<Value>(text)
                .ok()
                .filter(Value::is_object)
                .ok_or_else(|| outcome::bad_parameter("body"))?
        };
        let url = |name: &str| biz.get(name).and_then(Value::as_str).map(str::to_owned);
        let (notify_url, return_url) = (url("notify_url"), url("return_url"));
        Ok(Asked { app: app.clone(), call, biz, notify_url, return_url, base: super::api::base(head) })
    }
}

fn query(query: &str) -> Value {
    let pairs = form_urlencoded::parse(query.as_bytes());
    Value::Object(pairs.map(|(name, value)| (name.into_owned(), json!(value))).collect::<Map<_, _>>())
}
