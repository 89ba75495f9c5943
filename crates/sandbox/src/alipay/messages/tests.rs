use super::*;
use crate::alipay::call::Call;
use crate::config::App;

fn now() -> Timestamp {
    beijing::parse_spaced("2026-06-05 12:00:00").expect("a time")
}

fn asked(biz: Value) -> Asked {
    Asked {
        app: App { app_id: "2021000000430100".into(), pid: "2088000000430100".into(), certificates: false },
        call: Call::Offer(Product::Code),
        biz,
        notify_url: Some("http://127.0.0.1:7444/callbacks?x=1".into()),
        return_url: None,
        base: String::new(),
    }
}

fn biz() -> Value {
    json!({ "out_trade_no": "ABC_123", "subject": "交通违法罚款", "total_amount": "200.00" })
}

#[test]
fn an_order_reads_and_its_digest_depends_on_values_alone() {
    let terms = order(&asked(biz()), Product::Code, now()).expect("reads");
    assert_eq!((terms.amount_minor, terms.expires_at), (20_000, None));
    let escaped =
        r#"{"total_amount":"200.00","subject":"\u4ea4\u901a\u8fdd\u6cd5\u7f5a\u6b3e","out_trade_no":"ABC_123"}"#;
    let same = order(&asked(serde_json::from_str(escaped).expect("JSON")), Product::Code, now()).expect("reads");
    assert_eq!((same.digest, same.subject), (terms.digest.clone(), terms.subject));
    let other = asked(json!({ "out_trade_no": "ABC_123", "subject": "交通违法罚款", "total_amount": "200.01" }));
    assert_ne!(order(&other, Product::Code, now()).expect("reads").digest, terms.digest);
    assert_ne!(order(&asked(biz()), Product::Create, now()).map_err(|error| error.sub_code).err(), None, "no buyer");
}

#[test]
fn each_bad_parameter_is_named() {
    for (field, value) in [
        ("out_trade_no", json!(null)),
        ("out_trade_no", json!("with blank")),
        ("out_trade_no", json!("1".repeat(65))),
        ("subject", json!("")),
        ("subject", json!("长".repeat(257))),
        ("total_amount", json!("0.00")),
        ("total_amount", json!("1.001")),
        ("seller_id", json!("2088000000140100")),
        ("product_code", json!("FAST_INSTANT_TRADE_PAY")),
        ("time_expire", json!("tomorrow")),
        ("timeout_express", json!("16d")),
        ("timeout_express", json!("90")),
        ("timeout_express", json!("m")),
    ] {
        let mut bad = biz();
        bad[field] = value;
        let refused = order(&asked(bad), Product::App, now()).unwrap_err();
        assert_eq!((refused.code, refused.sub_code), ("40004", "ACQ.INVALID_PARAMETER"));
        assert!(refused.sub_msg.ends_with(field), "{field}: {}", refused.sub_msg);
    }
    let far = Asked { notify_url: Some("ftp://127.0.0.1/n".into()), ..asked(biz()) };
    assert!(order(&far, Product::Code, now()).is_err());
}

#[test]
fn every_way_to_say_when_an_order_ends_reads() {
    let ends = |field: &str, text: &str| {
        let mut with = biz();
        with[field] = json!(text);
        order(&asked(with), Product::Code, now()).expect("reads").expires_at.map(beijing::spaced)
    };
    let at = |text: &str| Some(text.to_owned());
    assert_eq!(ends("time_expire", "2026-06-05 12:30:00"), at("2026-06-05 12:30:00"));
    assert_eq!(ends("timeout_express", "90m"), at("2026-06-05 13:30:00"));
    assert_eq!(ends("timeout_express", "15d"), at("2026-06-20 12:00:00"));
    assert_eq!(ends("timeout_express", "1c"), at("2026-06-06 00:00:00"));
    assert_eq!(ends("timeout_express", ""), None);
}

#[test]
fn what_is_signed_is_sorted_and_leaves_out_what_is_empty() {
    let parameters = [("b", "2&="), ("a_b", "交"), ("a", "1"), ("c", "")];
    assert_eq!(signed_text(parameters.into_iter()), "a=1&a_b=交&b=2&=");
}
