//! Parameters: reading what merchants send, writing what they are told.

use std::time::Duration;

use aws_lc_rs::digest;
use jiff::civil::Date;
use runtime::Timestamp;
use serde_json::{Map, Value, json};

use super::book::{About, Notice, Order, Selector, Status, Trade};
use super::call::Asked;
use super::event::{Product, RefundTerms, Terms};
use super::outcome::{ApiError, bad_parameter};
use super::yuan;
use crate::beijing;

/// The parameters of a notice, or of the way back from a page.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// What a masked account of the sandbox looks like.
const LOGON_ID: &str = "ctz***@sandbox.example";

// === reading ===

/// Reads an order.
pub(super) fn order(asked: &Asked, product: Product, now: Timestamp) -> Result<Terms, ApiError> {
    let biz = &asked.biz;
    let out_trade_no = required(biz, "out_trade_no", 64)?;
    if !out_trade_no.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(bad_parameter("out_trade_no"));
    }
    // The documents write QUICK_WAP_WAY, most clients QUICK_WAP_PAY.
    let codes: &[&str] = match product {
        Product::Code | Product::Create => &[],
        Product::Wap => &["QUICK_WAP_PAY", "QUICK_WAP_WAY"],
        Product::Page => &["FAST_INSTANT_TRADE_PAY"],
        Product::App => &["QUICK_MSECURITY_PAY"],
    };
    let code = optional(biz, "product_code", 64)?;
    if code.is_some_and(|code| !codes.is_empty() && !codes.contains(&code.as_str())) {
        return Err(bad_parameter("product_code"));
    }
    if optional(biz, "seller_id", 28)?.is_some_and(|seller| seller != asked.app.pid) {
        return Err(bad_parameter("seller_id"));
    }
    let buyer_id = optional(biz, "buyer_id", 28)?;
    if product == Product::Create && buyer_id.is_none() {
        return Err(bad_parameter("buyer_id"));
    }
    Ok(Terms {
        pid: asked.app.pid.clone(),
        app_id: asked.app.app_id.clone(),
        out_trade_no,
        product,
        subject: required(biz, "subject", 256)?,
        body: optional(biz, "body", 128)?,
        passback_params: optional(biz, "passback_params", 512)?,
        notify_url: url(asked.notify_url.as_ref(), "notify_url")?,
        return_url: url(asked.return_url.as_ref(), "return_url")?,
        amount_minor: amount(biz, "total_amount")?,
        expires_at: end(biz, now)?,
        buyer_id,
        digest: digest_of(asked, product),
    })
}

/// Reads which trade is meant.
pub(super) fn selector(biz: &Value) -> Result<Selector, ApiError> {
    let named = Selector { trade_no: optional(biz, "trade_no", 64)?, out_trade_no: optional(biz, "out_trade_no", 64)? };
    if named.trade_no.is_none() && named.out_trade_no.is_none() {
        return Err(bad_parameter("out_trade_no"));
    }
    Ok(named)
}

/// Reads a refund. Only the one and whole refund of a trade goes without a number of its own.
pub(super) fn refund_terms(
    biz: &Value,
    order: &Order,
    trade: &Trade,
    due: Option<Timestamp>,
) -> Result<RefundTerms, ApiError> {
    let amount_minor = amount(biz, "refund_amount")?;
    let out_trade_no = order.terms.out_trade_no.clone();
    let is_whole = amount_minor == order.terms.amount_minor;
    let is_first = trade.refunds.iter().all(|refund| refund.terms.out_request_no == out_trade_no);
    let out_request_no = match optional(biz, "out_request_no", 64)? {
        Some(number) => number,
        None if is_whole && is_first => out_trade_no.clone(),
        None => return Err(bad_parameter("out_request_no")),
    };
    let reason = optional(biz, "refund_reason", 256)?;
    Ok(RefundTerms { pid: order.terms.pid.clone(), out_trade_no, out_request_no, amount_minor, reason, due })
}

/// Reads a text that must be there.
pub(super) fn required(biz: &Value, name: &'static str, characters_max: usize) -> Result<String, ApiError> {
    optional(biz, name, characters_max)?.ok_or_else(|| bad_parameter(name))
}

/// Reads a text; an empty one counts as none.
pub(super) fn optional(biz: &Value, name: &'static str, characters_max: usize) -> Result<Option<String>, ApiError> {
    match biz.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= characters_max => Ok(Some(text.clone())),
        Some(_) => Err(bad_parameter(name)),
    }
}

fn amount(biz: &Value, name: &'static str) -> Result<i64, ApiError> {
    biz.get(name).and_then(yuan::read).ok_or_else(|| bad_parameter(name))
}

/// When an order ends: `time_expire`, or `timeout_express` such as `90m` from now.
fn end(biz: &Value, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    if let Some(text) = optional(biz, "time_expire", 32)? {
        return beijing::parse_spaced(&text).map(Some).ok_or_else(|| bad_parameter("time_expire"));
    }
    let Some(text) = optional(biz, "timeout_express", 6)? else { return Ok(None) };
    let wrong = || bad_parameter("timeout_express");
    if text == "1c" {
        let tomorrow = beijing::day(now).tomorrow().unwrap_or(Date::MAX);
        return Ok(Some(beijing::moment(tomorrow.at(0, 0, 0, 0))));
    }
    let (digits, minutes) = match text.as_bytes().last() {
        Some(b'm') => (text.trim_end_matches('m'), 1),
        Some(b'h') => (text.trim_end_matches('h'), 60),
        Some(b'd') => (text.trim_end_matches('d'), 24 * 60),
        _ => return Err(wrong()),
    };
    let minutes = digits.parse::<u64>().map_err(|_| wrong())?.checked_mul(minutes).ok_or_else(wrong)?;
    let within = (1..=15 * 24 * 60).contains(&minutes);
    if within { Ok(Some(now.plus(Duration::from_secs(minutes * 60)))) } else { Err(wrong()) }
}

fn url(text: Option<&String>, name: &'static str) -> Result<Option<String>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed: http::Uri = text.parse().map_err(|_| bad_parameter(name))?;
    let known = matches!(parsed.scheme_str(), Some("https" | "http")) && parsed.host().is_some();
    if known && text.len() <= 256 { Ok(Some(text.clone())) } else { Err(bad_parameter(name)) }
}

/// Of the values, whatever the order and spelling of the JSON: a map of this library is sorted.
fn digest_of(asked: &Asked, product: Product) -> String {
    let values = json!([product, asked.app.app_id, asked.biz, asked.notify_url, asked.return_url]);
    hex::encode(digest::digest(&digest::SHA256, values.to_string().as_bytes()))
}

// === writing ===

/// What a code is answered with.
pub(super) fn code(order: &Order) -> Value {
    json!({ "out_trade_no": order.terms.out_trade_no, "qr_code": code_url(&order.token) })
}

/// What a code says when it is scanned.
pub(super) fn code_url(token: &str) -> String {
    format!("https://qr.alipay.com/{token}")
}

/// What a trade that was made at once is answered with.
pub(super) fn created(order: &Order) -> Value {
    let trade_no = order.trade.as_ref().map(|trade| trade.trade_no.clone()).unwrap_or_default();
    json!({ "out_trade_no": order.terms.out_trade_no, "trade_no": trade_no })
}

fn status(status: Status) -> &'static str {
    match status {
        Status::WaitBuyerPay => "WAIT_BUYER_PAY",
        Status::Success => "TRADE_SUCCESS",
        Status::Finished => "TRADE_FINISHED",
        Status::Closed => "TRADE_CLOSED",
    }
}

/// A trade as a query tells it.
pub(super) fn trade(order: &Order, trade: &Trade) -> Value {
    let amount = yuan::text(order.terms.amount_minor);
    let mut told = json!({
        "trade_no": trade.trade_no,
        "out_trade_no": order.terms.out_trade_no,
        "trade_status": status(trade.status(order.terms.amount_minor)),
        "total_amount": amount,
        "buyer_user_id": trade.buyer_id,
        "buyer_logon_id": LOGON_ID,
        "receipt_amount": "0.00",
        "buyer_pay_amount": "0.00",
        "point_amount": "0.00",
        "invoice_amount": "0.00",
    });
    if let Some(at) = trade.paid_at {
        for name in ["receipt_amount", "buyer_pay_amount", "invoice_amount"] {
            told[name] = json!(amount);
        }
        told["send_pay_date"] = json!(beijing::spaced(at));
        told["fund_bill_list"] = json!([{ "amount": amount, "fund_channel": "ALIPAYACCOUNT" }]);
    }
    told
}

/// What a closing is answered with.
pub(super) fn closed(order: &Order, trade: &Trade) -> Value {
    json!({ "trade_no": trade.trade_no, "out_trade_no": order.terms.out_trade_no })
}

/// What a cancelling is answered with.
pub(super) fn cancelled(order: &Order, trade: &Trade) -> Value {
    let action = if trade.paid_at.is_some() { "refund" } else { "close" };
    json!({
        "trade_no": trade.trade_no, "out_trade_no": order.terms.out_trade_no, "retry_flag": "N", "action": action,
    })
}

/// What the cancelling of something that nobody opened is answered with.
pub(super) fn cancelled_nothing(named: &Selector) -> Value {
    json!({ "out_trade_no": named.out_trade_no, "retry_flag": "N" })
}

/// What a refund is answered with. `does` tells whether money moved by this very request; the sum is what came back so far.
pub(super) fn refunded(order: &Order, trade: &Trade, does: bool) -> Value {
    let mut told = json!({
        "trade_no": trade.trade_no,
        "out_trade_no": order.terms.out_trade_no,
        "buyer_user_id": trade.buyer_id,
        "buyer_logon_id": LOGON_ID,
        "fund_change": if does { "Y" } else { "N" },
        "refund_fee": yuan::text(trade.refunded_minor()),
    });
    if let Some(done) = trade.refunds.iter().filter_map(|refund| refund.done).max_by_key(|done| done.at) {
        told["gmt_refund_pay"] = json!(beijing::spaced(done.at));
    }
    told
}

/// A refund as its query tells it. One that is not known, or not done, has no status.
pub(super) fn refund(order: &Order, trade: &Trade, out_request_no: &str) -> Value {
    let Some(refund) = trade.refund(out_request_no) else { return json!({}) };
    let mut told = json!({
        "trade_no": trade.trade_no,
        "out_trade_no": order.terms.out_trade_no,
        "out_request_no": out_request_no,
        "total_amount": yuan::text(order.terms.amount_minor),
        "refund_amount": yuan::text(refund.terms.amount_minor),
    });
    if let Some(reason) = &refund.terms.reason {
        told["refund_reason"] = json!(reason);
    }
    if let Some(done) = refund.done {
        told["refund_status"] = json!("REFUND_SUCCESS");
        told["gmt_refund_pay"] = json!(beijing::spaced(done.at));
    }
    told
}

/// What the asking for a bill is answered with.
pub(super) fn bill_link(url: &str) -> Value {
    json!({ "bill_download_url": url })
}

/// An answer in the gateway's form: the values between its code and what that means.
pub(super) fn node(done: &Result<Value, ApiError>) -> Value {
    let (mut node, code, msg) = match done {
        Ok(told) => (told.as_object().cloned().unwrap_or_default(), "10000", "Success"),
        Err(error) => {
            let mut node = Map::new();
            node.insert("sub_code".to_owned(), json!(error.sub_code));
            node.insert("sub_msg".to_owned(), json!(error.sub_msg));
            (node, error.code, error.msg())
        }
    };
    node.insert("code".to_owned(), json!(code));
    node.insert("msg".to_owned(), json!(msg));
    Value::Object(node)
}

/// The parameters of a notice, but for its signature; `None` where its trade is gone.
pub(super) fn notice(id: &str, notice: &Notice, order: &Order, now: Timestamp) -> Option<Parameters> {
    let (terms, trade) = (&order.terms, order.trade.as_ref()?);
    let amount = yuan::text(terms.amount_minor);
    let refund = match &notice.about {
        About::Refunded(number) => trade.refund(number).and_then(|refund| Some((refund, refund.done?))),
        About::Waiting | About::Paid | About::Closed | About::Finished => None,
    };
    let stands = match (&notice.about, refund) {
        (About::Waiting, _) => Status::WaitBuyerPay,
        (About::Closed, _) => Status::Closed,
        (About::Finished, _) => Status::Finished,
        (About::Refunded(_), Some((_, done))) if done.sum_minor >= terms.amount_minor => Status::Closed,
        (About::Paid | About::Refunded(_), _) => Status::Success,
    };
    let mut told = vec![
        ("notify_time", beijing::spaced(now)),
        ("notify_type", "trade_status_sync".to_owned()),
        ("notify_id", id.to_owned()),
        ("charset", "utf-8".to_owned()),
        ("version", "1.0".to_owned()),
        ("app_id", terms.app_id.clone()),
        ("auth_app_id", terms.app_id.clone()),
        ("seller_id", terms.pid.clone()),
        ("trade_no", trade.trade_no.clone()),
        ("out_trade_no", terms.out_trade_no.clone()),
        ("trade_status", status(stands).to_owned()),
        ("subject", terms.subject.clone()),
        ("total_amount", amount.clone()),
        ("buyer_id", trade.buyer_id.clone()),
        ("buyer_logon_id", LOGON_ID.to_owned()),
        ("gmt_create", beijing::spaced(trade.created_at)),
    ];
    told.extend(terms.body.clone().map(|body| ("body", body)));
    told.extend(terms.passback_params.clone().map(|text| ("passback_params", text)));
    if let Some(at) = trade.paid_at {
        for name in ["receipt_amount", "buyer_pay_amount", "invoice_amount"] {
            told.push((name, amount.clone()));
        }
        told.push(("point_amount", "0.00".to_owned()));
        told.push(("gmt_payment", beijing::spaced(at)));
        told.push(("fund_bill_list", json!([{ "amount": amount, "fundChannel": "ALIPAYACCOUNT" }]).to_string()));
    }
    if let Some((refund, done)) = refund {
        told.push(("out_biz_no", refund.terms.out_request_no.clone()));
        told.push(("refund_fee", yuan::text(done.sum_minor)));
        told.push(("gmt_refund", format!("{}.000", beijing::spaced(done.at))));
    }
    let closed_at = refund.map(|(_, done)| done.at).filter(|_| stands == Status::Closed).or(trade.closed_at);
    told.extend(closed_at.map(|at| ("gmt_close", beijing::spaced(at))));
    Some(told)
}

/// The parameters with which a paid page sends the citizen back, but for their signature.
pub(super) fn way_back(order: &Order, now: Timestamp) -> Parameters {
    let (terms, method) = (
        &order.terms,
        match order.terms.product {
            Product::Wap => "alipay.trade.wap.pay.return",
            Product::Page | Product::Code | Product::App | Product::Create => "alipay.trade.page.pay.return",
        },
    );
    vec![
        ("app_id", terms.app_id.clone()),
        ("auth_app_id", terms.app_id.clone()),
        ("charset", "utf-8".to_owned()),
        ("method", method.to_owned()),
        ("out_trade_no", terms.out_trade_no.clone()),
        ("seller_id", terms.pid.clone()),
        ("timestamp", beijing::spaced(now)),
        ("total_amount", yuan::text(terms.amount_minor)),
        ("trade_no", order.trade.as_ref().map(|trade| trade.trade_no.clone()).unwrap_or_default()),
        ("version", "1.0".to_owned()),
    ]
}

/// What is signed of parameters: sorted, joined, as they read and not as they travel.
pub(super) fn signed_text<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut pairs: Vec<(&str, &str)> = parameters.filter(|(_, value)| !value.is_empty()).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests;
