//! Mixed orders against a WeChat played over a socket, which signs its answers and can open what is sealed for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use axum::body::Body;
use axum::extract::{Request, State};
use http::Response;
use runtime::secret::Pii;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::*;
use crate::channel::wechatpay::mixed::{Mixed, MixedError, Person, Returned, id_digest};
use crate::domain::insurance::{AddType, Broken, Funds, Identity, MixType, ReduceType, Split, Standing, Wrong};

const PREPAY: &str = "wx201410272009395522657a690389285100";
const MIX_NO: &str = "1217752501201407033233368318";

/// What was asked, and what will be answered next.
#[derive(Default)]
struct Played {
    asked: Vec<(String, HeaderMap, Value)>,
    answers: VecDeque<(u16, Value)>,
}

type Shared = Arc<Mutex<Played>>;

async fn answer(State(played): State<Shared>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 * 1024).await.expect("a body");
    let mut played = played.lock().expect("unlocked");
    let target = head.uri.path_and_query().expect("a path").to_string();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    played.asked.push((format!("{} {target}", head.method), head.headers, body));
    let (status, told) = played.answers.pop_front().expect("an answer is left");
    let told = if told.is_null() { String::new() } else { told.to_string() };
    let mut response = Response::new(Body::from(told.clone()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    *response.headers_mut() = signed_headers(&told);
    response
}

/// A driver at a WeChat that gives these answers, one after the other.
async fn played(answers: impl IntoIterator<Item = (u16, Value)>) -> (WechatPay, Shared, tempfile::TempDir) {
    let played = Arc::new(Mutex::new(Played { asked: vec![], answers: answers.into_iter().collect() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let base_url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&played));
    let dir = tempfile::tempdir().expect("a directory");
    let (clock, _) = Clock::manual(now());
    let context = Context { clock, ..Context::system() };
    context.tasks.spawn("played wechatpay", async move {
        let _ = axum::serve(listener, router).await;
    });
    let config = Config { base_url, ..Config::default() };
    let driver = WechatPay::new(config, &[merchant(dir.path())], KeyFiles::default(), context).expect("reads the keys");
    (driver, played, dir)
}

fn asked(played: &Shared) -> Vec<(String, HeaderMap, Value)> {
    played.lock().expect("unlocked").asked.clone()
}

/// Opens what was sealed for WeChat.
fn opened(sealed: &Value) -> String {
    let der = PrivatePkcs8KeyDer::from_pem_slice(WECHAT.private.as_bytes()).expect("a key");
    let key = PrivateDecryptingKey::from_pkcs8(der.secret_pkcs8_der()).expect("a key");
    let key = OaepPrivateDecryptingKey::new(key).expect("a key");
    let sealed = STANDARD.decode(sealed.as_str().expect("a text")).expect("base64");
    let mut plain = vec![0; key.min_output_size()];
    let plain = key.decrypt(&OAEP_SHA1_MGF1SHA1, &sealed, &mut plain, None).expect("opens");
    String::from_utf8(plain.to_vec()).expect("text")
}

fn person(name: &str) -> Person {
    Person {
        name: Pii::new(name.to_owned()),
        id_digest: id_digest(&Pii::new("44030019000101123x".to_owned())),
        card_type: "ID_CARD".into(),
    }
}

/// The published example.
fn mixed() -> Mixed {
    Mixed {
        mix: MixType::CashAndInsurance,
        order_type: "REG_PAY".into(),
        split: Split {
            total: 202_000,
            funds: Funds { government: 100_000, personal: 45_000, other: 5_000 },
            cash: 50_000,
            added: vec![(AddType::Freight, 2_000)],
            reduced: vec![(ReduceType::Default, 10_000)],
            paid_in_cash: 42_000,
        },
        payer: person("张三"),
        relative: None,
        serial_no: "1217752501201".into(),
        pay_order_id: Some("ORD530100202204022006350000021".into()),
        pay_auth_no: Some(Pii::new("AUTH530100202204022006310000034".into())),
        geo_location: Some(Pii::new("102.682296,25.054260".into())),
        insurance_created_at: Some(Timestamp::from_seconds_nanos(1_528_425_296, 0)),
        city_id: "530100".into(),
        institution_no: "1217752501201407033233368318".into(),
        institution_name: "人民医院".into(),
    }
}

/// An order of this amount.
fn terms_of(minor: i64) -> Terms {
    Terms { amount: Money::new(minor, Currency::CNY).expect("in range"), ..terms() }
}

fn openid() -> Pii<String> {
    Pii::new("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o".to_owned())
}

/// A mixed order as WeChat tells it.
fn told(whole: &str, cash: &str, insurance: &str) -> Value {
    json!({
        "mix_trade_no": MIX_NO, "mix_pay_status": whole, "self_pay_status": cash, "med_ins_pay_status": insurance,
        "paid_time": "2018-06-08T10:34:56+08:00", "appid": "wx2421b1c4370ec43b", "out_trade_no": terms().channel_order_no,
        "total_fee": 202_000, "med_ins_gov_fee": 100_000, "med_ins_self_fee": 45_000, "med_ins_other_fee": 5_000,
        "med_ins_cash_fee": 50_000, "wechat_pay_cash_fee": 42_000,
    })
}

fn prepaid() -> (u16, Value) {
    (200, json!({ "prepay_id": PREPAY }))
}

#[test]
fn the_digest_is_the_published_one() {
    let digest = id_digest(&Pii::new("44030019000101123X".to_owned()));
    assert_eq!(digest.expose(), "09eb26e839ff3a2e3980352ae45ef09e");
    assert_eq!(person("张三").id_digest, digest, "of the number in capitals");
}

#[tokio::test]
async fn both_legs_are_sent_as_one_order_after_the_cash_leg() {
    let created = told("MIX_PAY_CREATED", "SELF_PAY_CREATED", "MED_INS_PAY_CREATED");
    let (driver, played, _dir) = played([prepaid(), (200, created)]).await;
    let relative = Some(person("李四"));
    let status = driver.create_mixed(&terms_of(202_000), &Mixed { relative, ..mixed() }, &openid()).await;
    let status = status.expect("created");
    assert_eq!((status.mix_trade_no.as_str(), status.standing, status.paid_at), (MIX_NO, Standing::Pending, None));
    let asked = asked(&played);
    let targets: Vec<_> = asked.iter().map(|(target, ..)| target.as_str()).collect();
    assert_eq!(targets, ["POST /v3/pay/transactions/jsapi", "POST /v3/med-ins/orders"]);
    assert_eq!(asked[0].2["amount"], json!({ "total": 42_000, "currency": "CNY" }), "the cash leg alone");
    let (_, headers, body) = &asked[1];
    assert_eq!(headers[signing::H_SERIAL], KEY_ID, "names the key that it is sealed for");
    assert_eq!((opened(&body["payer"]["name"]), opened(&body["relative"]["name"])), ("张三".into(), "李四".into()));
    assert_eq!(opened(&body["payer"]["id_digest"]), "09eb26e839ff3a2e3980352ae45ef09e");
    let mut rest = body.clone();
    for person in ["payer", "relative"] {
        rest[person] = rest[person]["card_type"].clone();
    }
    let expected = json!({
        "mix_pay_type": "CASH_AND_INSURANCE", "order_type": "REG_PAY", "appid": "wx2421b1c4370ec43b",
        "openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o", "payer": "ID_CARD", "pay_for_relatives": true, "relative": "ID_CARD",
        "out_trade_no": terms().channel_order_no, "serial_no": "1217752501201",
        "pay_order_id": "ORD530100202204022006350000021", "pay_auth_no": "AUTH530100202204022006310000034",
        "geo_location": "102.682296,25.054260", "city_id": "530100", "med_inst_name": "人民医院",
        "med_inst_no": "1217752501201407033233368318", "med_ins_order_create_time": "2018-06-08T10:34:56+08:00",
        "total_fee": 202_000, "med_ins_gov_fee": 100_000, "med_ins_self_fee": 45_000, "med_ins_other_fee": 5_000,
        "med_ins_cash_fee": 50_000, "wechat_pay_cash_fee": 42_000,
        "cash_add_detail": [{ "cash_add_fee": 2_000, "cash_add_type": "FREIGHT" }],
        "cash_reduce_detail": [{ "cash_reduce_fee": 10_000, "cash_reduce_type": "DEFAULT_REDUCE_TYPE" }],
        "callback_url": terms().notify_url, "prepay_id": PREPAY,
    });
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn a_type_sends_its_own_leg_alone() {
    let insurance = Split { total: 300, funds: Funds { personal: 300, ..Funds::default() }, ..Split::default() };
    let created = told("MIX_PAY_CREATED", "NO_SELF_PAY", "MED_INS_PAY_CREATED");
    let (driver, asked_of, _dir) = played([(200, created)]).await;
    let order = Mixed { mix: MixType::InsuranceOnly, split: insurance, ..mixed() };
    assert!(driver.create_mixed(&terms_of(300), &order, &openid()).await.is_ok());
    let sent = asked(&asked_of);
    assert_eq!((sent.len(), sent[0].0.as_str()), (1, "POST /v3/med-ins/orders"), "no cash leg is made");
    assert!(sent[0].2.get("prepay_id").is_none() && sent[0].2["wechat_pay_cash_fee"] == 0);

    let cash = Split { total: 300, cash: 300, paid_in_cash: 300, ..Split::default() };
    let created = told("MIX_PAY_CREATED", "SELF_PAY_CREATED", "NO_MED_INS_PAY");
    let (driver, asked_of, _dir) = played([prepaid(), (200, created)]).await;
    let (pay_order_id, pay_auth_no, geo_location, insurance_created_at) = (None, None, None, None);
    let order = Mixed { pay_order_id, pay_auth_no, geo_location, insurance_created_at, ..mixed() };
    let order = Mixed { mix: MixType::CashOnly, split: cash, ..order };
    assert!(driver.create_mixed(&terms_of(300), &order, &openid()).await.is_ok());
    let body = &asked(&asked_of)[1].2;
    assert_eq!(body["prepay_id"], PREPAY);
    for field in ["pay_order_id", "pay_auth_no", "geo_location", "med_ins_order_create_time", "cash_add_detail"] {
        assert!(body.get(field).is_none(), "{field}");
    }
}

#[tokio::test]
async fn what_is_wrong_in_itself_is_not_sent() {
    let (driver, asked_of, _dir) = played([]).await;
    let split = Split { paid_in_cash: 42_001, ..mixed().split };
    let refused = driver.create_mixed(&terms_of(202_000), &Mixed { split, ..mixed() }, &openid()).await;
    let broken = vec![
        Broken { identity: Identity::TotalByPayment, left: 202_000, right: 202_001 },
        Broken { identity: Identity::Cash, left: 42_001, right: 42_000 },
    ];
    assert!(matches!(refused, Err(MixedError::Wrong(Wrong::Identities(found))) if found == broken));
    let without = Mixed { pay_auth_no: None, ..mixed() };
    let refused = driver.create_mixed(&terms_of(202_000), &without, &openid()).await;
    assert!(matches!(refused, Err(MixedError::Wrong(Wrong::Missing("pay_auth_no")))));
    let refused = driver.create_mixed(&terms_of(202_001), &mixed(), &openid()).await;
    assert!(matches!(refused, Err(MixedError::Channel(error)) if error.had_no_effect()), "the order asks for more");
    assert_eq!(asked(&asked_of).len(), 0);
}

#[tokio::test]
async fn what_becomes_of_the_whole_never_undoes_the_cash_leg() {
    let refusal = json!({ "code": "RULE_LIMIT", "message": "" });
    let (driver, ..) = &played([prepaid(), (403, refusal), prepaid(), (200, json!({ "mix_trade_no": MIX_NO }))]).await;
    let refused = driver.create_mixed(&terms_of(202_000), &mixed(), &openid()).await;
    assert!(matches!(refused, Err(MixedError::Channel(ChannelError::Otherwise { code })) if code == "RULE_LIMIT"));
    let unusable = driver.create_mixed(&terms_of(202_000), &mixed(), &openid()).await;
    assert!(matches!(unusable, Err(MixedError::Channel(error)) if !error.had_no_effect()));
}

#[tokio::test]
async fn a_status_is_paid_only_where_the_whole_and_each_leg_and_every_sum_say_so() {
    let at = Timestamp::from_seconds_nanos(1_528_425_296, 0);
    let mut other_sum = told("MIX_PAY_SUCCESS", "SELF_PAY_SUCCESS", "MED_INS_PAY_SUCCESS");
    other_sum["med_ins_gov_fee"] = 99_999.into();
    let half = |cash, insurance| Standing::Half { cash, insurance };
    for (told, expected) in [
        (told("MIX_PAY_SUCCESS", "SELF_PAY_SUCCESS", "MED_INS_PAY_SUCCESS"), Standing::Paid),
        (told("MIX_PAY_REFUND", "SELF_PAY_REFUND", "MED_INS_PAY_SUCCESS"), Standing::Paid),
        (told("MIX_PAY_CREATED", "SELF_PAY_SUCCESS", "MED_INS_PAY_CREATED"), Standing::Pending),
        (told("MIX_PAY_WHATEVER", "SELF_PAY_SUCCESS", "MED_INS_PAY_SUCCESS"), Standing::Pending),
        (told("MIX_PAY_SUCCESS", "SELF_PAY_SUCCESS", "MED_INS_PAY_NEW"), Standing::Differs),
        (told("MIX_PAY_SUCCESS", "SELF_PAY_SUCCESS", "NO_MED_INS_PAY"), Standing::Differs),
        (told("MIX_PAY_FAIL", "SELF_PAY_FAIL", "MED_INS_PAY_FAIL"), Standing::Failed),
        (told("MIX_PAY_FAIL", "SELF_PAY_SUCCESS", "MED_INS_PAY_FAIL"), half(true, false)),
        (told("MIX_PAY_FAIL", "SELF_PAY_FAIL", "MED_INS_PAY_SUCCESS"), half(false, true)),
        (other_sum, Standing::Differs),
    ] {
        let (driver, asked_of, _dir) = played([(200, told.clone()), (200, told.clone())]).await;
        for number in [None, Some(MIX_NO)] {
            let status = driver.query_mixed(&terms_of(202_000), &mixed(), number).await.expect("an answer");
            assert_eq!(status.standing, expected, "{told}");
            assert_eq!(status.paid_at, Some(at).filter(|_| expected == Standing::Paid));
        }
        let targets: Vec<_> = asked(&asked_of).into_iter().map(|(target, ..)| target).collect();
        let by_ours = format!("GET /v3/med-ins/orders/out-trade-no/{}", terms().channel_order_no);
        assert_eq!(targets, [by_ours, format!("GET /v3/med-ins/orders/mix-trade-no/{MIX_NO}")]);
    }
}

#[tokio::test]
async fn an_answer_about_another_order_is_not_used() {
    for (field, value) in
        [("appid", "wx0"), ("out_trade_no", "1"), ("mix_trade_no", "1"), ("mix_trade_no", "../1"), ("paid_time", "")]
    {
        let mut told = told("MIX_PAY_SUCCESS", "SELF_PAY_SUCCESS", "MED_INS_PAY_SUCCESS");
        told[field] = value.into();
        let (driver, _asked, _dir) = played([(200, told)]).await;
        let answer = driver.query_mixed(&terms_of(202_000), &mixed(), Some(MIX_NO)).await;
        assert!(matches!(answer, Err(ChannelError::NoAnswer { .. })), "{field}: {answer:?}");
    }
}

#[tokio::test]
async fn what_the_insurance_centre_gave_back_is_told_by_its_funds() {
    let gone = json!({ "code": "ORDER_NOT_EXIST", "message": "" });
    let (driver, asked_of, _dir) = played([(204, Value::Null), (404, gone)]).await;
    let funds = Funds { government: 40_000, personal: 0, other: 5_000 };
    let at = Timestamp::from_seconds_nanos(1_528_425_296, 0);
    let returned = Returned { out_refund_no: "r1".into(), funds, at };
    assert!(driver.tell_returned(&terms(), MIX_NO, &returned).await.is_ok());
    assert!(matches!(driver.tell_returned(&terms(), MIX_NO, &returned).await, Err(ChannelError::NotKnown)));
    assert!(driver.tell_returned(&terms(), "../1", &returned).await.is_err());
    let asked = asked(&asked_of);
    assert_eq!(asked.len(), 2, "a number that is none is not sent");
    assert_eq!(asked[0].0, format!("POST /v3/med-ins/refunds/notify?mix_trade_no={MIX_NO}"));
    let expected = json!({
        "med_refund_total_fee": 45_000, "med_refund_gov_fee": 40_000, "med_refund_self_fee": 0,
        "med_refund_other_fee": 5_000, "refund_time": "2018-06-08T10:34:56+08:00", "out_refund_no": "r1",
    });
    assert_eq!((&asked[0].2, &asked[1].2), (&expected, &expected), "told again unchanged");
}
