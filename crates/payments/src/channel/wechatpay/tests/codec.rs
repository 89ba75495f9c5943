//! What is signed, written and read, against WeChat's published inputs.

use super::*;

#[test]
fn signed_messages_are_the_published_ones() {
    let message =
        signing::request_message(&Method::GET, "/v3/certificates", NOW, "593BEC0C930BF1AFEB40B4A08C8FB242", "");
    assert_eq!(message, "GET\n/v3/certificates\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\n");
    let package = "prepay_id=wx201410272009395522657a690389285100";
    let sheet = signing::sheet_message("wx2421b1c4370ec43b", NOW, "593BEC0C930BF1AFEB40B4A08C8FB242", package);
    let expected = "wx2421b1c4370ec43b\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\
                    prepay_id=wx201410272009395522657a690389285100\n";
    assert_eq!(sheet, expected);
    let app = signing::sheet_message("wx2421b1c4370ec43b", NOW, "593BEC0C930BF1AFEB40B4A08C8FB242", &package[10..]);
    let expected =
        "wx2421b1c4370ec43b\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\nwx201410272009395522657a690389285100\n";
    assert_eq!(app, expected, "an app's sheet has the bare id");
    let header = signing::authorization("1900009191", "408B07E79B8269FEC3D5D3E6AB8ED163A6A380DB", NOW, "N", "S==");
    let expected = "WECHATPAY2-SHA256-RSA2048 mchid=\"1900009191\",nonce_str=\"N\",signature=\"S==\",\
                    timestamp=\"1554208460\",serial_no=\"408B07E79B8269FEC3D5D3E6AB8ED163A6A380DB\"";
    assert_eq!(header, expected);
}

#[test]
fn a_signature_verifies_under_its_own_key_alone() {
    let signature = SigningKey::from_pem(&OURS.private).expect("a key").sign("message").expect("signs");
    let ours = VerifyingKey::from_pem(OURS.public.as_bytes()).expect("a key");
    let theirs = VerifyingKey::from_pem(WECHAT.public.as_bytes()).expect("a key");
    assert!(ours.verifies(b"message", &signature));
    assert!(!ours.verifies(b"messagf", &signature) && !theirs.verifies(b"message", &signature));
    assert!(!ours.verifies(b"message", "") && !ours.verifies(b"message", "?"));
    assert!(SigningKey::from_pem("nothing").is_err() && VerifyingKey::from_pem(b"nothing").is_err());
    assert!(SigningKey::from_pem(&OURS.public).is_err());
}

#[test]
fn times_are_written_in_beijing_and_read_in_any_offset() {
    assert_eq!(wire::beijing(terms().expire_at).as_deref(), Some("2018-06-08T10:34:56+08:00"));
    let at = Timestamp::from_seconds_nanos(1_528_425_296, 0);
    assert_eq!(wire::moment("2018-06-08T10:34:56+08:00"), Some(at));
    assert_eq!(wire::moment("2018-06-08T02:34:56Z"), Some(at));
    assert!(wire::moment("2018-06-08 10:34:56").is_none() && wire::moment("").is_none());
}

#[test]
fn a_repeated_creation_has_the_same_bytes() {
    let body =
        || serde_json::to_string(&wire::CreateBody::new(&terms(), Some("oUpF8")).expect("a body")).expect("json");
    let expected = "{\"appid\":\"wx2421b1c4370ec43b\",\"mchid\":\"1900000001\",\"description\":\"交通违法罚款\",\
                    \"out_trade_no\":\"0000000000000000000000000000002b\",\"time_expire\":\"2018-06-08T10:34:56+08:00\",\
                    \"notify_url\":\"https://pay.example/callbacks/wechatpay/1900000001\",\
                    \"amount\":{\"total\":20000,\"currency\":\"CNY\"},\"payer\":{\"openid\":\"oUpF8\"}}";
    assert_eq!(body(), expected);
    assert_eq!(body(), body());
    let of = |trade_type, payer| {
        let terms = Terms { trade_type, ..terms() };
        serde_json::to_value(wire::CreateBody::new(&terms, payer).expect("a body")).expect("json")
    };
    for body in [of(TradeType::Native, None), of(TradeType::App, None)] {
        assert!(body.get("payer").is_none() && body.get("scene_info").is_none());
    }
    let h5 = of(TradeType::H5, Some("203.0.113.7"));
    let scene = json!({"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}});
    assert!(h5.get("payer").is_none() && h5["scene_info"] == scene, "{h5}");
}

#[test]
fn states_that_are_not_known_are_pending() {
    let status = |state: &str| {
        let told: wire::Transaction = serde_json::from_value(transaction(state)).expect("a transaction");
        told.status()
    };
    let capture = Capture {
        amount: Money::new(20_000, Currency::CNY).expect("in range"),
        transaction: "4200000000202604010000000001".into(),
        at: Timestamp::from_seconds_nanos(1_528_425_296, 0),
    };
    assert_eq!(status("SUCCESS"), Ok(OrderStatus::Paid(capture.clone())));
    assert_eq!(status("REFUND"), Ok(OrderStatus::Paid(capture)));
    assert_eq!(status("CLOSED"), Ok(OrderStatus::Closed));
    for state in ["NOTPAY", "USERPAYING", "PAYERROR", "REVOKED", "ACCEPT", "success", ""] {
        assert_eq!(status(state), Ok(OrderStatus::Pending), "{state}");
    }
}

#[test]
fn a_payment_without_its_facts_is_no_payment() {
    for field in ["transaction_id", "success_time", "amount"] {
        let mut told = transaction("SUCCESS");
        told.as_object_mut().expect("an object").remove(field);
        let told: wire::Transaction = serde_json::from_value(told).expect("a transaction");
        assert!(told.status().is_err(), "{field}");
    }
    for (field, value) in [("total", json!(1.5)), ("total", json!("20000"))] {
        let mut told = transaction("SUCCESS");
        told["amount"][field] = value;
        assert!(serde_json::from_value::<wire::Transaction>(told).is_err());
    }
}

#[test]
fn refunds_are_read_and_held_against_ours() {
    let refund = Refund {
        id: RefundId::new(0x7),
        order: OrderId::new(0x2b),
        caller: "cases".into(),
        request_id: "r".into(),
        amount: Money::new(500, Currency::CNY).expect("in range"),
        reason: "rejected".into(),
        created_at: now(),
        send_by: now(),
        is_after_settlement: false,
        legs: None,
        insurance_returned_at: None,
        version: 1,
        state: State::Requested,
        is_sent: true,
        channel_refund: None,
        success_at: None,
        refusal: None,
    };
    let told = |field: &str, value: serde_json::Value| {
        let mut told = json!({
            "refund_id": "5000", "out_refund_no": refund.channel_refund_no(), "status": "PROCESSING",
            "out_trade_no": "0000000000000000000000000000002b", "amount": {"refund": 500, "total": 20_000},
            "success_time": "2018-06-08T10:34:56+08:00",
        });
        told[field] = value;
        serde_json::from_value::<wire::RefundTold>(told).expect("a refund").status(&terms(), &refund)
    };
    let processing = RefundStatus::Processing { channel_refund: "5000".into() };
    let at = Timestamp::from_seconds_nanos(1_528_425_296, 0);
    let succeeded = Decision::Succeeded { channel_refund: "5000".into(), at };
    assert_eq!(told("status", "PROCESSING".into()), Ok(processing.clone()));
    assert_eq!(told("status", "SOMETHING_NEW".into()), Ok(processing.clone()));
    assert_eq!(told("status", "ABNORMAL".into()), Ok(processing), "the money is gone, and with nobody yet");
    assert_eq!(told("status", "SUCCESS".into()), Ok(RefundStatus::Decided(succeeded)));
    let failed = RefundStatus::Decided(Decision::Failed { code: "CLOSED".into() });
    assert_eq!(told("status", "CLOSED".into()), Ok(failed));
    assert_eq!(told("out_refund_no", "another".into()), Err("out_refund_no"));
    assert_eq!(told("out_trade_no", "another".into()), Err("out_trade_no"));
    assert_eq!(told("amount", json!({"refund": 501})), Err("amount.refund"));
}

#[test]
fn refusals_say_whether_anything_may_have_happened() {
    let kind = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).expect("a status");
        match wire::refusal(status, body.as_bytes()) {
            ChannelError::NotKnown => "not known".to_owned(),
            ChannelError::Refused { code } => format!("refused {code}"),
            ChannelError::Otherwise { code } => format!("otherwise {code}"),
            ChannelError::NotNow { code } => format!("not now {code}"),
            ChannelError::NoAnswer { effect, .. } => format!("no answer {effect:?}"),
        }
    };
    for (status, code, expected) in [
        (400, "PARAM_ERROR", "refused PARAM_ERROR"),
        (401, "SIGN_ERROR", "not now SIGN_ERROR"),
        (403, "NO_AUTH", "not now NO_AUTH"),
        (500, "OPENID_MISMATCH", "refused OPENID_MISMATCH"),
        (403, "OUT_TRADE_NO_USED", "otherwise OUT_TRADE_NO_USED"),
        (400, "ORDER_CLOSED", "otherwise ORDER_CLOSED"),
        (404, "ORDERNOTEXIST", "not known"),
        (404, "ORDER_NOT_EXIST", "not known"),
        (404, "RESOURCE_NOT_EXISTS", "not known"),
        (403, "NOTENOUGH", "not now NOTENOUGH"),
        (403, "NOT_ENOUGH", "not now NOT_ENOUGH"),
        (429, "FREQUENCY_LIMITED", "not now FREQUENCY_LIMITED"),
        (400, "NO_STATEMENT_EXIST", "not known"),
        (400, "STATEMENT_CREATING", "not now STATEMENT_CREATING"),
        (500, "SYSTEMERROR", "no answer Possible"),
        (502, "", "no answer Possible"),
        (404, "<html>", "no answer Possible"),
    ] {
        assert_eq!(kind(status, &json!({"code": code, "message": "m"}).to_string()), expected, "{status} {code}");
    }
    assert_eq!(kind(403, "<html>forbidden</html>"), "no answer Possible", "not WeChat's words");
    assert_eq!(kind(429, "<html>"), "not now HTTP_429");
}

#[test]
fn the_headers_of_a_signature_are_read_strictly() {
    let good = signed_headers("{}");
    assert!(Signed::read(&good, now()).is_ok());
    for name in [signing::H_TIMESTAMP, signing::H_NONCE, signing::H_SIGNATURE, signing::H_SERIAL] {
        let mut missing = good.clone();
        missing.remove(name);
        assert_eq!(Signed::read(&missing, now()).err(), Some(BadSigned::Header(name)));
        let mut twice = good.clone();
        twice.append(name, HeaderValue::from_static("x"));
        assert_eq!(Signed::read(&twice, now()).err(), Some(BadSigned::Header(name)));
    }
    for (value, bad) in [
        ("NaN", BadSigned::Header(signing::H_TIMESTAMP)),
        ("1554208159", BadSigned::Time),
        ("1554208761", BadSigned::Time),
    ] {
        let mut other = good.clone();
        other.insert(signing::H_TIMESTAMP, HeaderValue::from_static(value));
        assert_eq!(Signed::read(&other, now()).err(), Some(bad), "{value}");
    }
    let mut other = good.clone();
    other.insert(signing::H_TYPE, HeaderValue::from_static("WECHATPAY2-SM2-WITH-SM3"));
    assert_eq!(Signed::read(&other, now()).err(), Some(BadSigned::Header(signing::H_TYPE)));
    other.insert(signing::H_TYPE, HeaderValue::from_static(signing::SCHEME));
    other.insert(signing::H_SIGNATURE, HeaderValue::from_static("WECHATPAY/SIGNTEST/abc"));
    assert_eq!(Signed::read(&other, now()).err(), Some(BadSigned::Probe));
}
