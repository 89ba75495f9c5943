//! Callbacks: those of WeChat Pay, and what others pretend to be.

use super::*;

fn envelope(original_type: &str, plain: &serde_json::Value) -> String {
    let mut resource = seal::tests::seal(plain.to_string().as_bytes(), "0123456789ab", original_type);
    resource["original_type"] = original_type.into();
    json!({
        "id": "n-1", "create_time": "2018-06-08T10:34:56+08:00", "resource_type": "encrypt-resource",
        "event_type": "TRANSACTION.SUCCESS", "summary": "支付成功", "resource": resource,
    })
    .to_string()
}

pub(super) async fn open(
    driver: &WechatPay,
    merchant: &str,
    headers: &HeaderMap,
    body: &str,
) -> Result<Notice, CallbackError> {
    driver.open_callback(merchant, headers, &Bytes::copy_from_slice(body.as_bytes())).await
}

#[tokio::test]
async fn a_callback_opens_only_when_it_is_wechats_and_ours() {
    let (driver, _dir) = driver();
    let body = envelope("transaction", &transaction("SUCCESS"));
    let Ok(Notice::Paid { channel_order_no, app_id, capture }) =
        open(&driver, MERCHANT, &signed_headers(&body), &body).await
    else {
        panic!("a good callback opens")
    };
    assert_eq!(
        (channel_order_no.as_str(), app_id.as_str()),
        ("0000000000000000000000000000002b", "wx2421b1c4370ec43b")
    );
    assert_eq!(capture.amount.amount_minor(), 20_000);

    let refused = open(&driver, "1900000002", &signed_headers(&body), &body).await;
    assert!(matches!(refused, Err(CallbackError::Merchant)));
    let changed = body.replace("n-1", "n-2");
    let refused = open(&driver, MERCHANT, &signed_headers(&body), &changed).await;
    assert!(matches!(refused, Err(CallbackError::Signature)), "the signature covers the body");
    let mut other = signed_headers(&body);
    other.insert(signing::H_SERIAL, HeaderValue::from_static("PUB_KEY_ID_OTHER"));
    assert!(matches!(open(&driver, MERCHANT, &other, &body).await, Err(CallbackError::Signature)));
    let mut probe = signed_headers(&body);
    probe.insert(signing::H_SIGNATURE, HeaderValue::from_static("WECHATPAY/SIGNTEST/abc"));
    assert!(matches!(open(&driver, MERCHANT, &probe, &body).await, Err(CallbackError::Signature)));
}

#[tokio::test]
async fn nothing_is_parsed_before_the_signature_holds() {
    let (driver, _dir) = driver();
    let refused = open(&driver, MERCHANT, &signed_headers("{}"), "not json").await;
    assert!(matches!(refused, Err(CallbackError::Signature)));
    let refused = open(&driver, MERCHANT, &signed_headers("not json"), "not json").await;
    assert!(matches!(refused, Err(CallbackError::Content("envelope"))));
}

#[tokio::test]
async fn signed_callbacks_about_others_or_nothing_are_told_apart() {
    let (driver, _dir) = driver();
    let mut foreign = transaction("SUCCESS");
    foreign["mchid"] = "1900000002".into();
    for (kind, plain, expected) in [
        ("transaction", transaction("NOTPAY"), Ok(Notice::Other)),
        ("transaction", foreign, Err("mchid")),
        ("transaction", json!({"x": 1}), Err("transaction")),
        ("refund", json!({"mchid": MERCHANT, "out_refund_no": "r"}), Err("refund")),
        ("refund", refunded("mchid", "1"), Err("mchid")),
        ("refund", refunded("success_time", "soon"), Err("success_time")),
        ("refund", refunded("refund_id", ""), Err("refund_id")),
        ("refund", refunded("refund_status", "SOMETHING_NEW"), Ok(Notice::Refund { channel_refund_no: "r".into() })),
        ("coupon", json!({}), Ok(Notice::Other)),
    ] {
        let body = envelope(kind, &plain);
        match (open(&driver, MERCHANT, &signed_headers(&body), &body).await, expected) {
            (Ok(notice), Ok(expected)) => assert_eq!(notice, expected),
            (Err(CallbackError::Content(field)), Err(expected)) => assert_eq!(field, expected),
            (found, expected) => panic!("{kind}: {found:?} instead of {expected:?}"),
        }
    }
}

/// The callback of a combined order with one field of its second part changed.
fn combined(field: &str, value: serde_json::Value) -> serde_json::Value {
    let part = |mchid: &str, number: &str, total: i64| {
        json!({
            "mchid": mchid, "out_trade_no": number, "trade_state": "SUCCESS", "transaction_id": format!("4200{number}"),
            "success_time": "2018-06-08T10:34:56+08:00", "amount": {"total_amount": total, "currency": "CNY"},
        })
    };
    let mut parts = [part(MERCHANT, "p1", 20_000), part("1900000002", "p2", 5_000)];
    parts[1][field] = value;
    json!({
        "combine_appid": "wx2421b1c4370ec43b", "combine_mchid": MERCHANT, "combine_out_trade_no": "w", "sub_orders": parts,
        "combine_payer_info": {"openid": "o"},
    })
}

#[tokio::test]
async fn a_combined_orders_callback_tells_of_every_part() {
    let (driver, _dir) = driver();
    let told = async |plain: serde_json::Value, merchant: &str| {
        let body = envelope("transaction", &plain);
        open(&driver, merchant, &signed_headers(&body), &body).await
    };
    let Ok(Notice::PaidTogether { channel_order_no, app_id, parts }) =
        told(combined("attach", "a".into()), MERCHANT).await
    else {
        panic!("a good callback opens")
    };
    let parts: Vec<_> = parts
        .iter()
        .map(|part| (part.merchant.as_str(), part.channel_order_no.as_str(), part.capture.amount.amount_minor()))
        .collect();
    assert_eq!((channel_order_no.as_str(), app_id.as_str()), ("w", "wx2421b1c4370ec43b"));
    assert_eq!(parts, [(MERCHANT, "p1", 20_000), ("1900000002", "p2", 5_000)]);
    assert!(matches!(told(combined("trade_state", "NOTPAY".into()), MERCHANT).await, Ok(Notice::Other)));
    for (field, value, named) in [
        ("transaction_id", "".into(), "transaction_id"),
        ("success_time", "soon".into(), "success_time"),
        ("amount", json!({"total_amount": 5_000, "currency": "yuan"}), "amount.currency"),
    ] {
        let refused = told(combined(field, value), MERCHANT).await;
        assert!(matches!(refused, Err(CallbackError::Content(found)) if found == named), "{field}: {refused:?}");
    }
    let mut foreign = combined("attach", "a".into());
    foreign["combine_mchid"] = "1900000002".into();
    assert!(matches!(told(foreign, MERCHANT).await, Err(CallbackError::Content("combine_mchid"))));
}

/// A refund's callback with one field changed.
fn refunded(field: &str, value: &str) -> serde_json::Value {
    let mut told = json!({
        "mchid": MERCHANT, "out_trade_no": "o", "transaction_id": "4200", "out_refund_no": "r", "refund_id": "5000",
        "refund_status": "SUCCESS", "success_time": "2018-06-08T10:34:56+08:00", "user_received_account": "支付用户零钱",
        "amount": {"total": 20_000, "refund": 500, "payer_total": 20_000, "payer_refund": 500},
    });
    told[field] = value.into();
    told
}

#[tokio::test]
async fn a_refunds_callback_says_how_it_ended() {
    let (driver, _dir) = driver();
    let at = Timestamp::from_seconds_nanos(1_528_425_296, 0);
    let failed = |code: &str| Decision::Failed { code: code.into() };
    for (status, decision) in
        [("SUCCESS", Decision::Succeeded { channel_refund: "5000".into(), at }), ("CLOSED", failed("CLOSED"))]
    {
        let body = envelope("refund", &refunded("refund_status", status));
        let notice = open(&driver, MERCHANT, &signed_headers(&body), &body).await.expect("opens");
        let (channel_order_no, channel_refund_no) = ("o".to_owned(), "r".to_owned());
        let expected = Notice::RefundDecided { channel_order_no, channel_refund_no, amount_minor: 500, decision };
        assert_eq!(notice, expected, "{status}");
    }
    let body = envelope("refund", &refunded("refund_status", "ABNORMAL"));
    let notice = open(&driver, MERCHANT, &signed_headers(&body), &body).await.expect("opens");
    assert_eq!(notice, Notice::Refund { channel_refund_no: "r".to_owned() }, "no end yet");
}
