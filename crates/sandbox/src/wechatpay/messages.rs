//! Bodies: reading what merchants send, writing what they are told.

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::book::{Combine, Order, Refund, TradeState};
use super::event::{CombineTerms, RefundStatus, Session, Terms, TradeType, Whole};
use super::outcome::{ApiError, bad_parameter};
use crate::beijing;
use runtime::Timestamp;

/// What a refund request names.
#[derive(Clone, Debug)]
pub(super) struct RefundRequest {
    pub transaction_id: Option<String>,
    pub out_trade_no: Option<String>,
    pub out_refund_no: String,
    pub reason: Option<String>,
    pub notify_url: Option<String>,
    pub refund_minor: i64,
    pub total_minor: i64,
    pub digest: String,
}

/// Reads an order.
pub(super) fn order(trade_type: TradeType, body: &Value) -> Result<Terms, ApiError> {
    let openid = payer(trade_type, body, "payer.openid")?;
    Ok(Terms {
        mchid: required(body, "mchid", 32)?,
        out_trade_no: order_number(body, "out_trade_no")?,
        appid: required(body, "appid", 32)?,
        trade_type,
        description: required(body, "description", 127)?,
        attach: optional(body, "attach", 128)?,
        notify_url: notify_url(body, "notify_url")?.ok_or(bad_parameter("notify_url"))?,
        amount_minor: amount(body, "amount.total")?,
        currency: currency(body)?,
        openid,
        expires_at: expiry(body)?,
        digest: digest_of(body),
        part_of: None,
    })
}

/// Reads a combined order of at most `parts_max` parts.
pub(super) fn combine(trade_type: TradeType, body: &Value, parts_max: usize) -> Result<CombineTerms, ApiError> {
    let openid = payer(trade_type, body, "combine_payer_info.openid")?;
    let whole = Whole {
        mchid: required(body, "combine_mchid", 32)?,
        out_trade_no: order_number(body, "combine_out_trade_no")?,
    };
    let appid = required(body, "combine_appid", 32)?;
    let notify_url = notify_url(body, "notify_url")?.ok_or(bad_parameter("notify_url"))?;
    let expires_at = expiry(body)?;
    let part = |part: &Value| {
        Ok(Terms {
            mchid: required(part, "mchid", 32)?,
            out_trade_no: order_number(part, "out_trade_no")?,
            appid: appid.clone(),
            trade_type,
            description: required(part, "description", 127)?,
            attach: optional(part, "attach", 128)?,
            notify_url: notify_url.clone(),
            amount_minor: amount(part, "amount.total_amount")?,
            currency: currency(part)?,
            openid: openid.clone(),
            expires_at,
            digest: String::new(),
            part_of: Some(whole.clone()),
        })
    };
    let parts = parts_of(body, parts_max)?.iter().map(part).collect::<Result<Vec<Terms>, ApiError>>()?;
    let digest = digest_of(body);
    Ok(CombineTerms { whole, appid, trade_type, notify_url, digest, parts })
}

/// Reads the closing of a combined order: its app, and merchant and number of each part.
pub(super) fn close_combine(body: &Value, parts_max: usize) -> Result<(String, Vec<(String, String)>), ApiError> {
    let part = |part: &Value| Ok((required(part, "mchid", 32)?, order_number(part, "out_trade_no")?));
    let parts = parts_of(body, parts_max)?.iter().map(part).collect::<Result<_, ApiError>>()?;
    Ok((required(body, "combine_appid", 32)?, parts))
}

/// Reads the parts of a combined order: two at least, and no two the same.
fn parts_of(body: &Value, parts_max: usize) -> Result<&[Value], ApiError> {
    let parts = at(body, "sub_orders").and_then(Value::as_array).ok_or(bad_parameter("sub_orders"))?;
    let names: std::collections::BTreeSet<_> =
        parts.iter().map(|part| (part["mchid"].as_str(), part["out_trade_no"].as_str())).collect();
    let fits = (2..=parts_max).contains(&parts.len()) && names.len() == parts.len();
    if fits { Ok(parts) } else { Err(bad_parameter("sub_orders")) }
}

/// Reads who pays: known before for JSAPI alone. An order from a phone's browser says where from.
fn payer(trade_type: TradeType, body: &Value, path: &'static str) -> Result<Option<String>, ApiError> {
    let openid = optional(body, path, 128)?;
    if openid.is_none() == (trade_type == TradeType::Jsapi) {
        return Err(bad_parameter(path));
    }
    if trade_type == TradeType::H5 {
        let address = required(body, "scene_info.payer_client_ip", 45)?;
        address.parse::<std::net::IpAddr>().map_err(|_| bad_parameter("scene_info.payer_client_ip"))?;
        required(body, "scene_info.h5_info.type", 32)?;
    }
    Ok(openid)
}

pub(super) fn order_number(body: &Value, path: &'static str) -> Result<String, ApiError> {
    required(body, path, 32).and_then(|text| if is_number(&text, 6) { Ok(text) } else { Err(bad_parameter(path)) })
}

fn expiry(body: &Value) -> Result<Option<Timestamp>, ApiError> {
    let text = optional(body, "time_expire", 64)?;
    text.map(|text| beijing::parse_rfc3339(&text).ok_or(bad_parameter("time_expire"))).transpose()
}

/// Reads a refund.
pub(super) fn refund(body: &Value) -> Result<RefundRequest, ApiError> {
    let out_refund_no = required(body, "out_refund_no", 64)?;
    if !is_number(&out_refund_no, 1) {
        return Err(bad_parameter("out_refund_no"));
    }
    let transaction_id = optional(body, "transaction_id", 32)?;
    let out_trade_no = optional(body, "out_trade_no", 32)?;
    if transaction_id.is_none() && out_trade_no.is_none() {
        return Err(bad_parameter("out_trade_no"));
    }
    currency(body)?;
    Ok(RefundRequest {
        transaction_id,
        out_trade_no,
        out_refund_no,
        reason: optional(body, "reason", 80)?,
        notify_url: notify_url(body, "notify_url")?,
        refund_minor: amount(body, "amount.refund")?,
        total_minor: amount(body, "amount.total")?,
        digest: digest_of(body),
    })
}

/// Reads the merchant of a closing.
pub(super) fn close(body: &Value) -> Result<String, ApiError> {
    required(body, "mchid", 32)
}

fn at<'a>(body: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(body, |value, name| value.get(name))
}

pub(super) fn optional(body: &Value, path: &'static str, characters_max: usize) -> Result<Option<String>, ApiError> {
    match at(body, path) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if (1..=characters_max).contains(&text.chars().count()) => Ok(Some(text.clone())),
        Some(_) => Err(bad_parameter(path)),
    }
}

pub(super) fn required(body: &Value, path: &'static str, characters_max: usize) -> Result<String, ApiError> {
    optional(body, path, characters_max)?.ok_or(bad_parameter(path))
}

fn amount(body: &Value, path: &'static str) -> Result<i64, ApiError> {
    at(body, path).and_then(Value::as_i64).filter(|fen| (1..=100_000_000_000).contains(fen)).ok_or(bad_parameter(path))
}

fn currency(body: &Value) -> Result<String, ApiError> {
    let currency = optional(body, "amount.currency", 16)?.unwrap_or_else(|| "CNY".to_owned());
    if currency == "CNY" { Ok(currency) } else { Err(bad_parameter("amount.currency")) }
}

pub(super) fn notify_url(body: &Value, path: &'static str) -> Result<Option<String>, ApiError> {
    let Some(url) = optional(body, path, 255)? else { return Ok(None) };
    let parsed: http::Uri = url.parse().map_err(|_| bad_parameter(path))?;
    // The real one wants https; a sandbox must reach a laptop.
    let scheme = matches!(parsed.scheme_str(), Some("https" | "http"));
    if scheme && parsed.host().is_some() && parsed.query().is_none() { Ok(Some(url)) } else { Err(bad_parameter(path)) }
}

fn is_number(text: &str, length_min: usize) -> bool {
    text.len() >= length_min && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'*'))
}

/// Of the values, whatever the order and spelling of the JSON: a map of this library is sorted.
fn digest_of(body: &Value) -> String {
    hex::encode(digest::digest(&digest::SHA256, body.to_string().as_bytes()))
}

/// What an order request is answered.
pub(super) fn session(trade_type: TradeType, session: &Session) -> Value {
    match trade_type {
        TradeType::Jsapi | TradeType::App => json!({ "prepay_id": session.prepay_id }),
        TradeType::Native => json!({ "code_url": session.link }),
        TradeType::H5 => json!({ "h5_url": session.link }),
    }
}

/// A combined order as a query and a callback tell it.
pub(super) fn combined(combine: &Combine, now: Timestamp) -> Value {
    let part = |order: &Order| {
        let terms = &order.terms;
        let mut told = json!({
            "mchid": terms.mchid,
            "out_trade_no": terms.out_trade_no,
            "trade_state": trade_state(order.state(now)).0,
            "attach": terms.attach.clone().unwrap_or_default(),
            "amount": { "total_amount": terms.amount_minor, "currency": terms.currency },
        });
        if let Some(paid) = &order.paid {
            told["trade_type"] = json!(terms.trade_type);
            told["transaction_id"] = json!(paid.transaction_id);
            told["bank_type"] = json!("OTHERS");
            told["success_time"] = json!(beijing::rfc3339(paid.at));
            told["amount"]["payer_amount"] = json!(terms.amount_minor);
            told["amount"]["payer_currency"] = json!(terms.currency);
        }
        told
    };
    let terms = &combine.terms;
    let mut told = json!({
        "combine_appid": terms.appid,
        "combine_mchid": terms.whole.mchid,
        "combine_out_trade_no": terms.whole.out_trade_no,
        "sub_orders": combine.parts.iter().map(part).collect::<Vec<_>>(),
    });
    if let Some(paid) = combine.parts.first().and_then(|order| order.paid.as_ref()) {
        told["combine_payer_info"] = json!({ "openid": paid.openid });
    }
    told
}

/// The payment of a combined order as its callback tells it, whatever happened to its parts since.
pub(super) fn combined_paid(combine: &Combine, now: Timestamp) -> Value {
    let mut told = combined(combine, now);
    for part in told["sub_orders"].as_array_mut().into_iter().flatten() {
        part["trade_state"] = json!("SUCCESS");
    }
    told
}

fn trade_state(state: TradeState) -> (&'static str, &'static str) {
    match state {
        TradeState::Notpay => ("NOTPAY", "订单未支付"),
        TradeState::Success => ("SUCCESS", "支付成功"),
        TradeState::Refund => ("REFUND", "订单发生过退款，退款详情请查询退款单"),
        TradeState::Closed => ("CLOSED", "订单已关闭"),
    }
}

/// An order as a query and a callback tell it.
pub(super) fn transaction(order: &Order, now: Timestamp) -> Value {
    let terms = &order.terms;
    let (state, text) = trade_state(order.state(now));
    let mut told = json!({
        "appid": terms.appid,
        "mchid": terms.mchid,
        "out_trade_no": terms.out_trade_no,
        "trade_state": state,
        "trade_state_desc": text,
        "attach": terms.attach.clone().unwrap_or_default(),
        "amount": { "total": terms.amount_minor, "currency": terms.currency },
    });
    if let Some(paid) = &order.paid {
        told["trade_type"] = json!(terms.trade_type);
        told["transaction_id"] = json!(paid.transaction_id);
        told["bank_type"] = json!("OTHERS");
        told["success_time"] = json!(beijing::rfc3339(paid.at));
        told["payer"] = json!({ "openid": paid.openid });
        told["amount"]["payer_total"] = json!(terms.amount_minor);
        told["amount"]["payer_currency"] = json!(terms.currency);
    }
    told
}

/// A payment as its callback tells it, whatever happened to the order since.
pub(super) fn transaction_paid(order: &Order, now: Timestamp) -> Value {
    let mut told = transaction(order, now);
    told["trade_state"] = json!("SUCCESS");
    told["trade_state_desc"] = json!("支付成功");
    told
}

/// A refund as its answers tell it.
pub(super) fn refunded(refund: &Refund) -> Value {
    let terms = &refund.terms;
    let mut told = json!({
        "refund_id": terms.refund_id,
        "out_refund_no": terms.out_refund_no,
        "transaction_id": refund.transaction_id,
        "out_trade_no": terms.out_trade_no,
        "channel": "ORIGINAL",
        "user_received_account": "支付用户零钱",
        "create_time": beijing::rfc3339(refund.created_at),
        "status": status(refund.status),
        "funds_account": "AVAILABLE",
        "amount": {
            "total": refund.total_minor,
            "refund": terms.amount_minor,
            "payer_total": refund.total_minor,
            "payer_refund": terms.amount_minor,
            "settlement_total": refund.total_minor,
            "settlement_refund": terms.amount_minor,
            "discount_refund": 0,
            "currency": refund.currency,
        },
    });
    if let (RefundStatus::Success, Some(at)) = (refund.status, refund.ended_at) {
        told["success_time"] = json!(beijing::rfc3339(at));
    }
    told
}

/// A refund as its callback tells it.
pub(super) fn refund_notice(refund: &Refund) -> Value {
    let terms = &refund.terms;
    let mut told = json!({
        "mchid": terms.mchid,
        "out_trade_no": terms.out_trade_no,
        "transaction_id": refund.transaction_id,
        "out_refund_no": terms.out_refund_no,
        "refund_id": terms.refund_id,
        "refund_status": status(refund.status),
        "user_received_account": "支付用户零钱",
        "amount": {
            "total": refund.total_minor,
            "refund": terms.amount_minor,
            "payer_total": refund.total_minor,
            "payer_refund": terms.amount_minor,
        },
    });
    if let (RefundStatus::Success, Some(at)) = (refund.status, refund.ended_at) {
        told["success_time"] = json!(beijing::rfc3339(at));
    }
    told
}

/// A refund's status in the channel's word.
pub(super) fn status(status: RefundStatus) -> &'static str {
    match status {
        RefundStatus::Processing => "PROCESSING",
        RefundStatus::Success => "SUCCESS",
        RefundStatus::Abnormal => "ABNORMAL",
        RefundStatus::Closed => "CLOSED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jsapi() -> Value {
        json!({
            "appid": "wx2421b1c4370ec43b", "mchid": "1900000001", "description": "交通违法罚款", "out_trade_no": "ABC-_*123",
            "notify_url": "http://127.0.0.1:7444/callbacks", "amount": { "total": 20_000 }, "payer": { "openid": "o" },
        })
    }

    #[test]
    fn an_order_reads_and_its_digest_depends_on_values_alone() {
        let terms = order(TradeType::Jsapi, &jsapi()).expect("reads");
        assert_eq!((terms.amount_minor, terms.currency.as_str()), (20_000, "CNY"));
        let shuffled: Value = serde_json::from_str(
            r#"{"payer":{"openid":"o"},"amount":{"total":20000},"notify_url":"http://127.0.0.1:7444/callbacks",
                "out_trade_no":"ABC-_*123","description":"\u4ea4通违法罚款","mchid":"1900000001","appid":"wx2421b1c4370ec43b"}"#,
        )
        .expect("JSON");
        assert_eq!(order(TradeType::Jsapi, &shuffled).expect("reads").digest, terms.digest);
    }

    #[test]
    fn each_bad_parameter_is_named() {
        let cases = [
            ("appid", json!(null), "appid"),
            ("mchid", json!(1), "mchid"),
            ("description", json!(""), "description"),
            ("description", json!("长".repeat(128)), "description"),
            ("out_trade_no", json!("12345"), "out_trade_no"),
            ("out_trade_no", json!("123456/7"), "out_trade_no"),
            ("notify_url", json!("http://a/b?c"), "notify_url"),
            ("notify_url", json!("ftp://a/b"), "notify_url"),
            ("amount", json!({ "total": 0 }), "amount.total"),
            ("amount", json!({ "total": "1" }), "amount.total"),
            ("amount", json!({ "total": 1.5 }), "amount.total"),
            ("amount", json!({ "total": 1, "currency": "USD" }), "amount.currency"),
            ("payer", json!({}), "payer.openid"),
            ("time_expire", json!("tomorrow"), "time_expire"),
        ];
        for (field, value, named) in cases {
            let mut body = jsapi();
            body[field] = value;
            assert_eq!(order(TradeType::Jsapi, &body).unwrap_err().field, Some(named), "{field}");
        }
        assert_eq!(
            order(TradeType::Native, &jsapi()).unwrap_err().field,
            Some("payer.openid"),
            "a code has no payer yet"
        );
        let refund_of = |body: Value| refund(&body).unwrap_err().field;
        assert_eq!(refund_of(json!({ "out_refund_no": "r" })), Some("out_trade_no"));
        assert_eq!(refund_of(json!({ "out_refund_no": "r", "out_trade_no": "o" })), Some("amount.refund"));
    }
}
