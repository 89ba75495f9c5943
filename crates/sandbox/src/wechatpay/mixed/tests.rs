use super::*;

/// The published example, sealed by writing `sealed:` before it.
fn body() -> Value {
    json!({
        "mix_pay_type": "CASH_AND_INSURANCE", "order_type": "REG_PAY", "appid": "wx2421b1c4370ec43b", "openid": "o",
        "payer": { "name": "sealed:张三", "id_digest": "sealed:09eb26e839ff3a2e3980352ae45ef09e", "card_type": "ID_CARD" },
        "pay_for_relatives": false, "out_trade_no": "202204022005169952975171534816", "serial_no": "1217752501201",
        "pay_order_id": "ORD530100202204022006350000021", "pay_auth_no": "AUTH530100202204022006310000034",
        "geo_location": "102.682296,25.054260", "city_id": "530100", "med_inst_name": "人民医院",
        "med_inst_no": "1217752501201407033233368318", "med_ins_order_create_time": "2018-06-08T10:34:56+08:00",
        "total_fee": 202_000, "med_ins_gov_fee": 100_000, "med_ins_self_fee": 45_000, "med_ins_other_fee": 5_000,
        "med_ins_cash_fee": 50_000, "wechat_pay_cash_fee": 42_000,
        "cash_add_detail": [{ "cash_add_fee": 2_000, "cash_add_type": "FREIGHT" }],
        "cash_reduce_detail": [{ "cash_reduce_fee": 10_000, "cash_reduce_type": "DEFAULT_REDUCE_TYPE" }],
        "callback_url": "http://127.0.0.1/n", "prepay_id": "wx201410272009395522657a690389285100",
    })
}

fn read(body: &Value) -> Result<MixedTerms, ApiError> {
    order("1900000001", "2026".into(), body, |sealed| sealed.strip_prefix("sealed:").map(str::to_owned))
}

/// The published example with other values; null takes a field away.
fn with(changes: Value) -> Value {
    let mut body = body();
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            body.as_object_mut().expect("an object").remove(name);
        } else {
            body[name] = value.clone();
        }
    }
    body
}

fn refused(changes: Value) -> ApiError {
    read(&with(changes)).expect_err("refused")
}

#[test]
fn a_mixed_order_reads_and_nobodys_name_is_kept() {
    let terms = read(&body()).expect("reads");
    let funds = Funds { government_minor: 100_000, personal_minor: 45_000, other_minor: 5_000 };
    assert_eq!((terms.mix, terms.funds, terms.cash_minor), (MixType::CashAndInsurance, funds, 42_000));
    let kept = serde_json::to_string(&terms).expect("JSON");
    assert!(!kept.contains("张三") && !kept.contains("09eb26e8") && !kept.contains("sealed:"));
    let relative = body()["payer"].clone();
    assert!(read(&with(json!({ "pay_for_relatives": true, "relative": relative }))).is_ok());
}

#[test]
fn each_wrong_sum_breaks_its_two_identities() {
    for (changes, expected) in [
        (json!({ "total_fee": 202_001 }), outcome::MIXED_TOTAL),
        (json!({ "med_ins_gov_fee": 99_999 }), outcome::MIXED_TOTAL),
        (json!({ "wechat_pay_cash_fee": 42_001 }), outcome::MIXED_CASH),
        (json!({ "cash_reduce_detail": null }), outcome::MIXED_CASH),
        (json!({ "med_ins_cash_fee": 50_001 }), outcome::MIXED_SUMS),
        (json!({ "cash_add_detail": null }), outcome::MIXED_SUMS),
    ] {
        assert_eq!(refused(changes.clone()), expected, "{changes}");
    }
}

#[test]
fn each_type_has_its_own_fields_and_no_others() {
    let papers = ["pay_order_id", "pay_auth_no", "geo_location", "med_ins_order_create_time"];
    let mut cash = json!({
        "mix_pay_type": "CASH_ONLY", "total_fee": 52_000, "med_ins_gov_fee": null, "med_ins_self_fee": null,
        "med_ins_other_fee": null,
    });
    let mut insurance = json!({
        "mix_pay_type": "INSURANCE_ONLY", "total_fee": 150_000, "med_ins_cash_fee": 0, "wechat_pay_cash_fee": null,
        "cash_add_detail": null, "cash_reduce_detail": null, "prepay_id": null,
    });
    for paper in papers {
        assert_eq!(refused(json!({ paper: null })), outcome::MIXED_FIELDS, "{paper}");
        let mut one = cash.clone();
        papers.iter().filter(|other| **other != paper).for_each(|other| one[*other] = Value::Null);
        assert_eq!(refused(one), outcome::CASH_FIELDS, "{paper}");
        cash[paper] = Value::Null;
    }
    assert_eq!(read(&with(cash.clone())).map(|terms| terms.cash_minor), Ok(42_000));
    cash["prepay_id"] = Value::Null;
    assert_eq!(refused(cash), outcome::CASH_FIELDS);
    assert_eq!(read(&with(insurance.clone())).map(|terms| terms.cash_minor), Ok(0));
    insurance["prepay_id"] = json!("wx1");
    assert_eq!(refused(insurance), outcome::MIXED_FIELDS);
    assert_eq!(refused(json!({ "med_ins_other_fee": null })), outcome::MIXED_FIELDS, "0 must be said");
    let only_cash = json!({
        "total_fee": 52_000, "med_ins_gov_fee": 0, "med_ins_self_fee": 0, "med_ins_other_fee": 0,
    });
    assert_eq!(refused(only_cash), outcome::MIXED_FIELDS, "a leg that pays nothing");
}

#[test]
fn each_bad_parameter_is_named() {
    let person = |name: &str, digest: &str| json!({ "name": name, "id_digest": digest, "card_type": "ID_CARD" });
    let digest = "sealed:09eb26e839ff3a2e3980352ae45ef09e";
    for (changes, field) in [
        (json!({ "mix_pay_type": "BOTH" }), "mix_pay_type"),
        (json!({ "order_type": "OTHER" }), "order_type"),
        (json!({ "payer": person("张三", digest) }), "payer.name"),
        (json!({ "payer": person("sealed:张三", "09eb26e839ff3a2e3980352ae45ef09e") }), "payer.id_digest"),
        (json!({ "payer": person("sealed:张三", "sealed:44030019000101123X") }), "payer.id_digest"),
        (
            json!({ "payer": person("sealed:张三", &digest.to_uppercase().replace("SEALED", "sealed")) }),
            "payer.id_digest",
        ),
        (json!({ "pay_for_relatives": true }), "relative"),
        (json!({ "relative": person("sealed:张三", digest) }), "relative"),
        (json!({ "serial_no": "1".repeat(21) }), "serial_no"),
        (json!({ "total_fee": "202000" }), "total_fee"),
        (json!({ "med_ins_gov_fee": -1 }), "med_ins_gov_fee"),
        (json!({ "cash_add_detail": [{ "cash_add_fee": 2_000, "cash_add_type": "OTHER" }] }), "cash_add_detail"),
        (json!({ "cash_add_detail": [{ "cash_add_fee": 0, "cash_add_type": "FREIGHT" }] }), "cash_add_detail"),
        (json!({ "med_ins_order_create_time": "2018-06-08 10:34:56" }), "med_ins_order_create_time"),
        (json!({ "callback_url": "http://127.0.0.1/n?a=b" }), "callback_url"),
    ] {
        assert_eq!(refused(changes.clone()), bad_parameter(field), "{changes}");
    }
}

#[test]
fn the_whole_is_as_good_as_its_worse_leg() {
    use LegState::{Absent, Created, Fail, Refund, Success};
    for (cash, insurance, whole) in [
        (Created, Created, Created),
        (Success, Created, Created),
        (Success, Success, Success),
        (Success, Absent, Success),
        (Refund, Success, Success),
        (Refund, Refund, Refund),
        (Absent, Refund, Refund),
        (Success, Fail, Fail),
        (Created, Fail, Fail),
    ] {
        assert_eq!(Standing::new(cash, insurance, None).whole(), whole, "{cash:?} {insurance:?}");
    }
    assert_eq!(Standing::new(Created, Fail, None).cash, Fail, "what is not paid never will be");
}

#[test]
fn what_went_back_reads_with_its_funds() {
    let body = json!({
        "med_refund_total_fee": 45_000, "med_refund_gov_fee": 40_000, "med_refund_self_fee": 0,
        "med_refund_other_fee": 5_000, "refund_time": "2018-06-08T10:34:56+08:00", "out_refund_no": "r1",
    });
    let told = returned(Some("2026"), &body).expect("reads");
    assert_eq!(told.funds, Funds { government_minor: 40_000, personal_minor: 0, other_minor: 5_000 });
    assert_eq!(returned(None, &body), Err(bad_parameter("mix_trade_no")));
    for (name, value) in [
        ("med_refund_total_fee", json!(45_001)),
        ("med_refund_gov_fee", Value::Null),
        ("refund_time", json!("")),
        ("out_refund_no", json!(1)),
    ] {
        let mut body = body.clone();
        body[name] = value;
        assert_eq!(returned(Some("2026"), &body), Err(bad_parameter(name)));
    }
}
