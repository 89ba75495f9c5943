//! Callbacks: those of Alipay, and what others pretend to be.

use bytes::Bytes;

use super::{ALIPAY, APP, NOW, ORDER, OTHER_APP, Pair, SELLER, STRANGER, Stage, fen, now, pair, refund};
use crate::channel::alipay::{Api, params};
use crate::channel::{CallbackError, Channel, Notice, Refusal};
use crate::domain::order::Capture;
use runtime::Timestamp;

fn paid() -> params::Params {
    let told = [
        ("notify_time", "2026-06-05 12:00:01"),
        ("notify_type", "trade_status_sync"),
        ("notify_id", "2026060500222120001"),
        ("app_id", APP),
        ("seller_id", SELLER),
        ("trade_no", "2026060522001413571403596182"),
        ("out_trade_no", ORDER),
        ("trade_status", "TRADE_SUCCESS"),
        ("total_amount", "200.00"),
        ("gmt_payment", "2026-06-05 12:00:00"),
        ("subject", "交通违法罚款 & more = 1+1 %"),
        ("passback_params", ""),
        ("fund_bill_list", r#"[{"amount":"200.00","fundChannel":"ALIPAYACCOUNT"}]"#),
        ("sign_type", "RSA2"),
    ];
    told.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn signed(params: &params::Params, key: &Pair) -> params::Params {
    let mut params = params.clone();
    let signature = key.sign(&params::of_notice(&params));
    params.insert("sign".to_owned(), signature);
    params
}

fn open_form(stage: &Stage, form: &str) -> Result<Notice, String> {
    stage.driver.open(SELLER, &Bytes::copy_from_slice(form.as_bytes())).map_err(|error| error.to_string())
}

/// Opens what Alipay would send of these parameters.
fn told(stage: &Stage, change: impl FnOnce(&mut params::Params)) -> Result<Notice, String> {
    let mut params = paid();
    change(&mut params);
    open_form(stage, &params::encoded(&signed(&params, &ALIPAY)))
}

fn set(name: &'static str, value: &'static str) -> impl FnOnce(&mut params::Params) {
    move |params| drop(params.insert(name.to_owned(), value.to_owned()))
}

#[tokio::test]
async fn what_alipay_signed_is_read() {
    let stage = Stage::new(Api::V2, "http://alipay");
    let transaction = "2026060522001413571403596182".to_owned();
    let notice = |app_id: &str| Notice::Paid {
        channel_order_no: ORDER.into(),
        app_id: app_id.into(),
        capture: Capture { amount: fen(20_000), transaction: transaction.clone(), at: now() },
    };
    assert_eq!(told(&stage, |_| {}), Ok(notice(APP)));
    assert_eq!(told(&stage, set("trade_status", "TRADE_FINISHED")), Ok(notice(APP)));
    assert_eq!(told(&stage, set("trade_status", "TRADE_CLOSED")), Ok(notice(APP)), "paid first, given back since");
    assert_eq!(told(&stage, set("app_id", OTHER_APP)), Ok(notice(OTHER_APP)), "another app under the same key");
    // Escapes that nobody needs, and blanks as %20, are the same parameters.
    let form = params::encoded(&signed(&paid(), &ALIPAY));
    assert_eq!(open_form(&stage, &form.replace('+', "%20").replace("trade_no", "tr%61de%5fno")), Ok(notice(APP)));
}

#[tokio::test]
async fn other_notices_change_nothing_by_themselves() {
    let stage = Stage::new(Api::V2, "http://alipay");
    assert_eq!(told(&stage, set("trade_status", "WAIT_BUYER_PAY")), Ok(Notice::Other));
    assert_eq!(told(&stage, set("trade_status", "TRADE_SOMETHING")), Ok(Notice::Other));
    assert_eq!(told(&stage, set("notify_type", "dut_user_sign")), Ok(Notice::Other));
    let closed = |params: &mut params::Params| {
        params.remove("gmt_payment");
        set("trade_status", "TRADE_CLOSED")(params);
    };
    assert_eq!(told(&stage, closed), Ok(Notice::Other));
    let number = refund().channel_refund_no();
    let back = |number: String| {
        move |params: &mut params::Params| {
            set("gmt_refund", "2026-06-05 12:10:00.000")(params);
            set("refund_fee", "5.05")(params);
            params.insert("out_biz_no".into(), number);
        }
    };
    assert_eq!(told(&stage, back(number.clone())), Ok(Notice::Refund { channel_refund_no: number }));
    // A refund by hand, at Alipay's own desk: what is ours of it is that the order was paid.
    assert!(matches!(told(&stage, back("HAND-1".into())), Ok(Notice::Paid { .. })));
}

#[tokio::test]
async fn nothing_is_believed_without_the_signature() {
    let stage = Stage::new(Api::V2, "http://alipay");
    let refused = |form: &str| open_form(&stage, form).expect_err("refused");
    let no_signature = CallbackError::Signature.to_string();
    let good = signed(&paid(), &ALIPAY);
    for name in paid().keys() {
        let mut without = good.clone();
        without.remove(name);
        assert_eq!(refused(&params::encoded(&without)), no_signature, "without {name}");
        let mut other = good.clone();
        other.insert(name.clone(), "1".to_owned());
        assert_eq!(refused(&params::encoded(&other)), no_signature, "another {name}");
    }
    let mut more = good.clone();
    more.insert("trade_state".to_owned(), String::new());
    assert_eq!(refused(&params::encoded(&more)), no_signature);
    for sign in ["", "AAAA", "?"] {
        let mut other = good.clone();
        other.insert("sign".to_owned(), sign.to_owned());
        assert_eq!(refused(&params::encoded(&other)), no_signature, "{sign}");
    }
    assert_eq!(refused(&params::encoded(&signed(&paid(), &STRANGER))), no_signature);
    assert_eq!(refused(""), no_signature);
    // The signature is asked for before anything else, also of what makes no sense.
    let mut senseless = paid();
    senseless.insert("seller_id".to_owned(), "nobody".to_owned());
    assert_eq!(refused(&params::encoded(&signed(&senseless, &STRANGER))), no_signature);
}

#[tokio::test]
async fn a_parameter_that_comes_twice_is_refused_whichever_was_signed() {
    let stage = Stage::new(Api::V2, "http://alipay");
    let form = params::encoded(&signed(&paid(), &ALIPAY));
    let twice = CallbackError::Content("repeated parameter").to_string();
    for form in [
        format!("{form}&total_amount=0.01"),
        format!("total_amount=0.01&{form}"),
        format!("{form}&total%5famount=200.00"),
        format!("{form}&sign=AAAA"),
    ] {
        assert_eq!(open_form(&stage, &form), Err(twice.clone()));
    }
}

#[tokio::test]
async fn what_was_signed_for_others_is_refused() {
    let stage = Stage::new(Api::V2, "http://alipay");
    let content = |what| Err(CallbackError::Content(what).to_string());
    assert_eq!(told(&stage, set("app_id", "2021000000000009")), content("app_id"));
    assert_eq!(told(&stage, set("seller_id", "2088000000000002")), content("seller_id"));
    assert_eq!(told(&stage, set("trade_no", "")), content("trade_no"));
    assert_eq!(told(&stage, set("total_amount", "200.001")), content("total_amount"));
    assert_eq!(told(&stage, set("sign_type", "RSA")), Err(CallbackError::Signature.to_string()));
    let form = Bytes::from(params::encoded(&signed(&paid(), &ALIPAY)));
    let elsewhere = stage.driver.open("2088000000000002", &form);
    assert!(matches!(elsewhere, Err(CallbackError::Merchant)));
}

#[tokio::test]
async fn a_key_that_alipay_replaced_is_good_for_a_while() {
    let stage = Stage::new(Api::V2, "http://alipay");
    let new = pair();
    let by = |key: &Pair| open_form(&stage, &params::encoded(&signed(&paid(), key))).is_ok();
    assert!(by(&ALIPAY) && !by(&new));
    stage.replace("alipay.pem", &new.public);
    assert!(by(&ALIPAY) && by(&new));
    stage.hand.set(Timestamp::from_seconds_nanos(NOW + 2 * 86_400, 0));
    assert!(!by(&ALIPAY) && by(&new));
    stage.replace("alipay.pem", "no key");
    assert!(by(&new), "a broken file takes nothing away");
}

#[tokio::test]
async fn alipay_reads_one_word() {
    let stage = Stage::new(Api::V2, "http://alipay");
    let taken = stage.driver.reply(None);
    assert_eq!((taken.status().as_u16(), &taken.body()[..]), (200, &b"success"[..]));
    let status = http::StatusCode::UNAUTHORIZED;
    let refused = stage.driver.reply(Some(&Refusal { status, code: "SIGN_ERROR", message: "no" }));
    assert_eq!((refused.status(), &refused.body()[..]), (status, &b"failure"[..]));
}
