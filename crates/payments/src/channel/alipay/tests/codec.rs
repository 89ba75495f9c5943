//! Parameters, envelopes, amounts, times and codes.

use http::StatusCode;
use proptest::prelude::*;
use serde_json::json;

use super::{NOW, ORDER, fen, now, refund, terms};
use crate::channel::alipay::answer::{self, Envelope, Node};
use crate::channel::alipay::{params, rest, wire};
use crate::channel::{ChannelError, OrderStatus, RefundStatus};
use crate::domain::order::TradeType;
use crate::domain::refund::Decision;
use runtime::Timestamp;

const QUERY: &str = "alipay.trade.query";

#[test]
fn signatures_cover_sorted_parameters_as_they_read() {
    let form = b"version=1.0&b=%E7%BD%9A&a=1+2&sign_type=RSA2&empty=&sign=S&c=x%3Dy%26z";
    let params = params::read(form).expect("reads");
    assert_eq!(params::of_request(&params), "a=1 2&b=罚&c=x=y&z&sign_type=RSA2&version=1.0");
    assert_eq!(params::of_notice(&params), "a=1 2&b=罚&c=x=y&z&empty=&version=1.0");
    assert_eq!(params::read(params::encoded(&params).as_bytes()).expect("reads back"), params);
    for twice in ["a=1&a=2", "a=1&b=2&%61=1", "sign=x&a=1&sign=x"] {
        assert_eq!(params::read(twice.as_bytes()), Err(params::Repeated), "{twice}");
    }
}

#[test]
fn the_lines_of_the_rest_form_are_signed() {
    let asker = rest::asker("2021", None, "n", 1_780_632_000_123);
    assert_eq!(asker, "app_id=2021,nonce=n,timestamp=1780632000123");
    let target = rest::target("alipay.trade.fastpay.refund.query");
    assert_eq!(target, "/v3/alipay/trade/fastpay/refund/query");
    let message = rest::request_message(&asker, &http::Method::POST, &target, "{}");
    assert_eq!(message, format!("{asker}\nPOST\n{target}\n{{}}\n"));
    assert_eq!(rest::authorization(&asker, "S=="), format!("ALIPAY-SHA256withRSA {asker},sign=S=="));
}

fn opened(body: &str) -> Result<(String, Option<String>), &'static str> {
    answer::open(body.as_bytes(), QUERY).map(|Envelope { node: Node { raw }, sign, .. }| (raw.to_owned(), sign))
}

#[test]
fn a_node_is_taken_out_as_it_came() {
    for raw in [
        r#"{"code":"10000"}"#,
        "{ \"code\" : \"10000\",\n\t\"x\": [1, 2.50, {\"}\": \"{\"}] }",
        r#"{"url":"https:\/\/qr.alipay.com\/a","quote":"\"","back":"\\","cn":"\u7f5a罚"}"#,
        r#"{"sign":"inner","alipay_trade_query_response":{"code":"10000"}}"#,
    ] {
        for body in [
            format!(r#"{{"alipay_trade_query_response":{raw},"sign":"S"}}"#),
            format!(
                " {{ \"sign\" : \"S\" , \"alipay_cert_sn\":\"c\",\r\n\"alipay_trade_query_response\" :  {raw}  }} \n"
            ),
        ] {
            assert_eq!(opened(&body), Ok((raw.to_owned(), Some("S".to_owned()))), "{body}");
        }
    }
    let error = r#"{"error_response":{"code":"40002"}}"#;
    assert_eq!(opened(error), Ok((r#"{"code":"40002"}"#.to_owned(), None)));
}

#[test]
fn what_only_looks_like_a_node_is_none() {
    let (good, bad) = (r#"{"code":"40004"}"#, r#"{"code":"10000"}"#);
    let text = r#""\"alipay_trade_query_response\":{\"code\":\"10000\"},\"sign\":\"T\"""#;
    for before in [
        format!(r#""note":{text},"#),
        format!(r#""note":{{"alipay_trade_query_response":{bad},"sign":"T"}},"#),
        format!(r#""note":[{{"alipay_trade_query_response":{bad}}}],"#),
        format!(r#"{text}:1,"#),
        format!(r#""Alipay_trade_query_response":{bad},"x_alipay_trade_query_response":{bad},"#),
    ] {
        let body = format!(r#"{{{before}"alipay_trade_query_response":{good},"sign":"S"}}"#);
        assert_eq!(opened(&body), Ok((good.to_owned(), Some("S".to_owned()))), "{body}");
    }
    for (body, what) in [
        (format!(r#"{{"note":{{"alipay_trade_query_response":{bad}}},"sign":"S"}}"#), "node"),
        (format!(r#"{{"alipay_trade_close_response":{bad},"sign":"S"}}"#), "node"),
        (format!(r#"{{"alipay_trade_query_response":{good},"alipay_trade_query_response":{bad}}}"#), "repeated member"),
        (
            format!(r#"{{"alipay_trade_query_response":{good},"alipay_trade_query_respons\u0065":{bad}}}"#),
            "repeated member",
        ),
        (format!(r#"{{"alipay_trade_query_response":{good},"sign":"S","sign":"T"}}"#), "repeated member"),
        (format!(r#"{{"alipay_trade_query_response":{good},"error_response":{bad}}}"#), "node"),
        (r#"{"alipay_trade_query_response":"sealed","sign":"S"}"#.to_owned(), "node"),
        (format!(r#"{{"alipay_trade_query_response":{good},"sign":7}}"#), "sign"),
        (format!(r#"{{"alipay_trade_query_response":{good}}} {{}}"#), "envelope"),
        (format!(r#"{{"alipay_trade_query_response":{good}"#), "envelope"),
        (format!(r#"{{"alipay_trade_query_response":{good},}}"#), "envelope"),
        (format!(r#"[{{"alipay_trade_query_response":{good}}}]"#), "envelope"),
        ("{}".to_owned(), "node"),
        (String::new(), "envelope"),
        ("<html>".to_owned(), "envelope"),
    ] {
        assert_eq!(opened(&body), Err(what), "{body}");
    }
    assert_eq!(answer::open(b"{\"alipay_trade_query_response\":{\"a\":\"\xb7\xa3\"}}", QUERY), Err("encoding"));
}

proptest! {
    /// Whatever stands in the node and beside it: the node's own bytes come out.
    #[test]
    fn any_node_is_taken_out_as_it_came(inside in ".*", beside in ".*", name in "[a-z\"\\\\{}:,]{0,12}") {
        prop_assume!(name != "sign");
        let node = json!({ "code": "10000", "inside": inside }).to_string();
        let (name, beside) = (json!(name).to_string(), json!(beside).to_string());
        let body = format!(r#"{{{name}:{beside},"alipay_trade_query_response":{node},"sign":"S"}}"#);
        prop_assert_eq!(opened(&body), Ok((node, Some("S".to_owned()))));
    }
}

#[test]
fn amounts_are_yuan_in_text_and_nothing_else() {
    for (amount, text) in [(1, "0.01"), (10, "0.10"), (100, "1.00"), (20_000, "200.00"), (123_456_789, "1234567.89")] {
        assert_eq!(wire::yuan(fen(amount)), text);
        assert_eq!(wire::money(text), Some(fen(amount)));
    }
    for (text, amount) in [("1", 100), ("1.5", 150), ("88.8", 8_880), ("0", 0), ("007.00", 700)] {
        assert_eq!(wire::money(text), Some(fen(amount)), "{text}");
    }
    for text in ["", ".", "1.", ".5", "1.234", "-1", "+1", "1e2", " 1", "1,000.00", "１", "99999999999999999999"] {
        assert_eq!(wire::money(text), None, "{text}");
    }
}

#[test]
fn times_are_beijings() {
    assert_eq!(wire::beijing(now()).as_deref(), Some("2026-06-05 12:00:00"));
    assert_eq!(wire::beijing(Timestamp::from_seconds_nanos(NOW, 999_999_000)).as_deref(), Some("2026-06-05 12:00:00"));
    assert_eq!(wire::moment("2026-06-05 12:00:00"), Some(now()));
    assert_eq!(wire::moment("2026-06-05 12:00:00.000"), Some(now()));
    for text in ["", "2026-06-05", "2026-06-05T12:00:00", "2026-06-05T12:00:00Z", "2026-02-30 12:00:00", "now"] {
        assert_eq!(wire::moment(text), None, "{text}");
    }
}

fn kind(error: ChannelError) -> String {
    match error {
        ChannelError::NotKnown => "not known".to_owned(),
        ChannelError::Refused { code } => format!("refused {code}"),
        ChannelError::Otherwise { code } => format!("otherwise {code}"),
        ChannelError::NotNow { code } => format!("not now {code}"),
        ChannelError::NoAnswer { effect, .. } => format!("no answer {effect:?}"),
    }
}

#[test]
fn the_gateways_codes_say_whether_anything_may_have_happened() {
    let told = |code: &str, sub_code: &str, is_signed: bool| {
        let outcome = json!({ "code": code, "msg": "m", "sub_code": sub_code, "sub_msg": "s" });
        let outcome: wire::Outcome = serde_json::from_value(outcome).expect("reads");
        outcome.result(is_signed).map_or_else(kind, |()| "done".to_owned())
    };
    for (code, sub_code, expected) in [
        ("10000", "", "done"),
        ("10003", "", "no answer Possible"),
        ("20000", "isp.unknow-error", "no answer Possible"),
        ("20000", "aop.ACQ.SYSTEM_ERROR", "no answer Possible"),
        ("20001", "aop.invalid-auth-token", "not now aop.invalid-auth-token"),
        ("40001", "isv.missing-method", "refused isv.missing-method"),
        ("40002", "isv.invalid-signature", "not now isv.invalid-signature"),
        ("40002", "", "refused 40002"),
        ("40002", "<b>", "refused 40002"),
        ("40006", "isv.insufficient-isv-permissions", "not now isv.insufficient-isv-permissions"),
        ("40004", "ACQ.TRADE_NOT_EXIST", "not known"),
        ("40004", "ACQ.SYSTEM_ERROR", "no answer Possible"),
        ("40004", "aop.ACQ.SYSTEM_ERROR", "no answer Possible"),
        ("40004", "ACQ.TRADE_HAS_SUCCESS", "otherwise ACQ.TRADE_HAS_SUCCESS"),
        ("40004", "ACQ.TRADE_HAS_CLOSE", "otherwise ACQ.TRADE_HAS_CLOSE"),
        ("40004", "ACQ.TRADE_STATUS_ERROR", "otherwise ACQ.TRADE_STATUS_ERROR"),
        ("40004", "ACQ.SELLER_BALANCE_NOT_ENOUGH", "not now ACQ.SELLER_BALANCE_NOT_ENOUGH"),
        ("40004", "ACQ.INVALID_PARAMETER", "refused ACQ.INVALID_PARAMETER"),
        ("40004", "ACQ.SOMETHING_NEW", "otherwise ACQ.SOMETHING_NEW"),
        ("40004", "", "no answer Possible"),
        ("99999", "ACQ.TRADE_NOT_EXIST", "no answer Possible"),
        ("", "", "no answer Possible"),
    ] {
        assert_eq!(told(code, sub_code, true), expected, "{code} {sub_code}");
        let is_door = ["20001", "40001", "40002", "40003", "40006"].contains(&code);
        let unsigned = if is_door { expected } else { "no answer Possible" };
        assert_eq!(told(code, sub_code, false), unsigned, "unsigned {code} {sub_code}");
    }
}

#[test]
fn the_rest_forms_codes_mean_the_same() {
    for (status, code, expected) in [
        (400, "ACQ.TRADE_NOT_EXIST", "not known"),
        (404, "TRADE_NOT_EXIST", "not known"),
        (400, "ACQ.TRADE_HAS_CLOSE", "otherwise ACQ.TRADE_HAS_CLOSE"),
        (400, "ACQ.SYSTEM_ERROR", "no answer Possible"),
        (500, "ACQ.SYSTEM_ERROR", "no answer Possible"),
        (500, "ACQ.TRADE_NOT_EXIST", "no answer Possible"),
        (401, "isv.invalid-signature", "not now isv.invalid-signature"),
        (400, "ACQ.INVALID_PARAMETER", "refused ACQ.INVALID_PARAMETER"),
        (400, "SOMETHING_NEW", "otherwise SOMETHING_NEW"),
        (429, "", "not now HTTP_429"),
        (403, "", "no answer Possible"),
        (302, "", "no answer Possible"),
    ] {
        let body = json!({ "code": code, "message": "m", "links": [] }).to_string();
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(kind(wire::rest_refusal(status, body.as_bytes())), expected, "{status} {code}");
    }
    assert_eq!(kind(wire::rest_refusal(StatusCode::FORBIDDEN, b"<html>")), "no answer Possible", "not Alipay's words");
}

fn trade(change: impl FnOnce(&mut serde_json::Value)) -> Result<OrderStatus, &'static str> {
    let mut told = json!({
        "out_trade_no": ORDER, "trade_no": "2026060522001413571403596182", "trade_status": "TRADE_SUCCESS",
        "total_amount": "200.00", "send_pay_date": "2026-06-05 12:00:00", "buyer_logon_id": "189******83",
    });
    change(&mut told);
    serde_json::from_value::<wire::Trade>(told).map_err(|_| "json")?.status()
}

#[test]
fn states_that_are_not_known_are_pending_and_closed_is_not_paid_back() {
    let paid = trade(|_| {}).expect("reads");
    let OrderStatus::Paid(capture) = &paid else { panic!("{paid:?}") };
    assert_eq!((capture.amount, capture.at), (fen(20_000), now()));
    assert_eq!(trade(|told| told["trade_status"] = "TRADE_FINISHED".into()), Ok(paid.clone()));
    assert_eq!(trade(|told| told["trade_status"] = "TRADE_CLOSED".into()), Ok(paid.clone()), "paid, and given back");
    assert_eq!(trade(|told| told["total_amount"] = json!(200.0)), Ok(paid.clone()));
    assert_eq!(trade(|told| told["total_amount"] = json!(200)), Ok(paid));
    for state in ["WAIT_BUYER_PAY", "TRADE_PENDING", "trade_success", ""] {
        assert_eq!(trade(|told| told["trade_status"] = state.into()), Ok(OrderStatus::Pending), "{state}");
    }
    let unpaid = |told: &mut serde_json::Value| {
        told["trade_status"] = "TRADE_CLOSED".into();
        told.as_object_mut().expect("an object").remove("send_pay_date");
    };
    assert_eq!(trade(unpaid), Ok(OrderStatus::Closed));
}

#[test]
fn a_payment_without_its_facts_is_no_payment() {
    for field in ["trade_no", "total_amount", "send_pay_date"] {
        let without = trade(|told| drop(told.as_object_mut().expect("an object").remove(field)));
        assert!(without.is_err(), "{field}");
    }
    for amount in [json!("200.001"), json!(-200), json!(200.001), json!("2e2"), json!(null), json!(true)] {
        assert!(trade(|told| told["total_amount"] = amount.clone()).is_err(), "{amount}");
    }
    assert_eq!(trade(|told| told["trade_no"] = "a b".into()), Err("trade_no"));
}

#[test]
fn amounts_written_as_numbers_are_read_by_their_digits() {
    for (text, amount) in [("12.33", 1_233), ("0.1", 10), ("100.20", 10_020), ("4503599627.41", 450_359_962_741)] {
        let body = format!(
            r#"{{"out_trade_no":"{ORDER}","trade_no":"2","trade_status":"TRADE_SUCCESS","total_amount":{text},
               "send_pay_date":"2026-06-05 12:00:00"}}"#
        );
        let status = serde_json::from_str::<wire::Trade>(&body).expect("reads").status();
        let Ok(OrderStatus::Paid(capture)) = status else { panic!("{text}: {status:?}") };
        assert_eq!(capture.amount, fen(amount), "{text}");
    }
}

#[test]
fn refunds_are_read_and_held_against_ours() {
    let (terms, refund) = (terms(TradeType::Native), refund());
    let sent =
        |told: serde_json::Value| serde_json::from_value::<wire::RefundTold>(told).expect("reads").moved(&terms, now());
    let at = Timestamp::from_seconds_nanos(NOW - 60, 0);
    let told = |change: &str| json!({ "out_trade_no": ORDER, "fund_change": change, "refund_fee": "5.05" });
    assert_eq!(sent(told("Y")), Ok(Some(now())), "Alipay need not say when");
    let mut timed = told("Y");
    timed["gmt_refund_pay"] = "2026-06-05 11:59:00".into();
    assert_eq!(sent(timed), Ok(Some(at)));
    assert_eq!((sent(told("N")), sent(told("y"))), (Ok(None), Ok(None)));
    assert_eq!(sent(json!({ "out_trade_no": "another", "fund_change": "Y" })), Err("out_trade_no"));

    let found = |field: &str, value: serde_json::Value| {
        let mut told = json!({
            "out_trade_no": ORDER, "out_request_no": refund.channel_refund_no(), "refund_amount": "5.05",
            "refund_status": "REFUND_SUCCESS", "gmt_refund_pay": "2026-06-05 11:59:00",
        });
        told[field] = value;
        let told = serde_json::from_value::<wire::RefundFound>(told).expect("reads");
        told.status(&terms, &refund, now()).map(|status| status.map_err(kind))
    };
    let number = refund.channel_refund_no();
    let succeeded = Decision::Succeeded { channel_refund: number.clone(), at };
    assert_eq!(found("x", json!(1)), Ok(Ok(RefundStatus::Decided(succeeded.clone()))));
    assert_eq!(found("refund_amount", json!(5.05)), Ok(Ok(RefundStatus::Decided(succeeded))));
    let processing = RefundStatus::Processing { channel_refund: number };
    for status in ["REFUND_PROCESSING", "REFUND_FAIL", "refund_success"] {
        assert_eq!(found("refund_status", status.into()), Ok(Ok(processing.clone())), "{status}");
    }
    assert_eq!(found("refund_status", "".into()), Ok(Err("not known".to_owned())));
    assert_eq!(found("out_trade_no", "another".into()), Err("out_trade_no"));
    assert_eq!(found("out_request_no", "another".into()), Err("out_request_no"));
    assert_eq!(found("refund_amount", "5.06".into()), Err("refund_amount"));
}
