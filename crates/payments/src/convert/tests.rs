use super::*;
use crate::channel::{Known, PaySheet};
use rpc::Fault;

const CASE: &str = "case_0192000000007000800000000000002a";
const ORDER: &str = "ord_0192000000007000800000000000002a";

fn create_request() -> pb::CreateOrderRequest {
    pb::CreateOrderRequest {
        request_id: "case-1-order".into(),
        case_id: CASE.into(),
        payee_id: "traffic-430100".into(),
        amount: Some(common::Money { amount_minor: 20_000, currency: "CNY".into() }),
        channel: "wechatpay".into(),
        trade_type: pb::TradeType::Jsapi.into(),
        entry_point: "wechat".into(),
        payer_reference: "oUpF8".into(),
        description: "交通违法罚款".into(),
        expire_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        payment_code: String::new(),
        insurance: None,
    }
}

/// The fields that a request is refused for, in order.
fn fields<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Vec<String> {
    let error = outcome.expect_err("refused");
    error.details().violations.into_iter().map(|violation| violation.field).collect()
}

#[test]
fn a_whole_request_is_read() {
    let ask = create("cases", create_request()).expect("reads");
    assert_eq!((ask.key.caller.as_str(), ask.key.request_id.as_str()), ("cases", "case-1-order"));
    assert_eq!((ask.amount.amount_minor(), ask.trade_type), (20_000, TradeType::Jsapi));
    assert_eq!(ask.payer.map(|payer| payer.expose().clone()).as_deref(), Some("oUpF8"));
}

#[test]
fn every_trade_type_is_read_and_written_and_only_jsapi_and_h5_name_a_payer() {
    use pb::TradeType::{App, H5, Native, Web};
    let types = [(Native, TradeType::Native), (App, TradeType::App), (H5, TradeType::H5), (Web, TradeType::Web)];
    for (theirs, ours) in types {
        let request = |payer_reference: &str| pb::CreateOrderRequest {
            trade_type: theirs.into(),
            payer_reference: payer_reference.into(),
            ..create_request()
        };
        assert_eq!(create("cases", request("")).expect("reads").trade_type, ours);
        assert_eq!(fields(create("cases", request("oUpF8"))), ["payer_reference"], "{theirs:?}");
        assert_eq!(create("cases", request("203.0.113.7")).is_ok(), ours == TradeType::H5, "{theirs:?}");
        let written = sheet(PaySheet::empty(ours, Timestamp::from_micros(0)), Known::OnceOpened);
        let written = answer::<pb::PaySheet>(&written).expect("reads");
        assert_eq!((written.trade_type(), written.works_until_end), (theirs, true));
        assert_eq!(ours.to_string().parse(), Ok(ours));
    }
}

#[test]
fn every_violation_is_named_at_once() {
    let outcome = create("cases", pb::CreateOrderRequest::default());
    let expected = [
        "request_id",
        "case_id",
        "payee_id",
        "channel",
        "entry_point",
        "description",
        "amount",
        "trade_type",
        "expire_time",
    ];
    assert_eq!(fields(outcome), expected);
}

#[test]
fn single_fields_are_held_to_their_bounds() {
    type Spoil = fn(&mut pb::CreateOrderRequest);
    let cases: [(&str, Spoil); 10] = [
        ("request_id", |r| r.request_id = "a b".into()),
        ("case_id", |r| r.case_id = "case_1".into()),
        ("payee_id", |r| r.payee_id = "a/b".into()),
        ("amount.amount_minor", |r| r.amount = Some(common::Money { amount_minor: 0, currency: "CNY".into() })),
        ("amount", |r| r.amount = Some(common::Money { amount_minor: 1, currency: "yuan".into() })),
        ("description", |r| r.description = "a\nb".into()),
        ("payer_reference", |r| r.payer_reference.clear()),
        ("payer_reference", |r| r.payer_reference = "x".repeat(129)),
        ("payer_reference", |r| r.trade_type = pb::TradeType::Native.into()),
        ("expire_time", |r| r.expire_time = Some(prost_types::Timestamp { seconds: 0, nanos: -1 })),
    ];
    for (field, spoil) in cases {
        let mut request = create_request();
        spoil(&mut request);
        assert_eq!(fields(create("cases", request)), [field]);
    }
}

#[test]
fn another_request_has_another_digest() {
    let digest = |request| create("cases", request).expect("reads").key.digest;
    let other = pb::CreateOrderRequest { description: "x".into(), ..create_request() };
    assert_eq!(digest(create_request()), digest(create_request()));
    assert_ne!(digest(create_request()), digest(other));
}

#[test]
fn things_are_asked_for_by_exactly_one_name() {
    let ask = |order_id: &str, request_id: &str| {
        order_name(&pb::GetOrderRequest { order_id: order_id.into(), request_id: request_id.into() })
    };
    assert!(matches!(ask(ORDER, ""), Ok(Name::Id(_))));
    assert!(matches!(ask("", "r"), Ok(Name::Request(id)) if id == "r"));
    for (order_id, request_id) in [("", ""), (ORDER, "r"), ("ord_1", ""), ("", "a b")] {
        assert!(ask(order_id, request_id).is_err(), "{order_id} {request_id}");
    }
}

#[test]
fn other_requests_are_held_to_their_bounds() {
    let money = |amount_minor| Some(common::Money { amount_minor, currency: "CNY".into() });
    let ask = |amount, reason: &str| {
        let (request_id, order_id) = ("r".into(), ORDER.into());
        let reason = reason.into();
        let request = pb::RefundRequest { request_id, order_id, amount, reason, ..Default::default() };
        refund("cases", request)
    };
    assert!(ask(money(1), &"退".repeat(80)).is_ok());
    assert_eq!(fields(ask(money(-1), &"退".repeat(81))), ["amount.amount_minor", "reason"]);
    let post_of = |proof_serial: &str| {
        post(
            "cases",
            pb::PostOrderRequest { request_id: "r".into(), order_id: ORDER.into(), proof_serial: proof_serial.into() },
        )
    };
    // As long as the evidence that cases takes from a clerk in its place.
    assert!(post_of("A-1").is_ok() && post_of(&"号".repeat(SERIAL_CHARS_MAX)).is_ok());
    for bad in ["", "a\nb", &"号".repeat(SERIAL_CHARS_MAX + 1)] {
        assert_eq!(fields(post_of(bad)), ["proof_serial"]);
    }
    let events_of =
        |after_sequence, page_size, wait_ms| events(&pb::ListEventsRequest { after_sequence, page_size, wait_ms });
    assert_eq!(events_of(0, 0, 0).map(|ask| ask.max).ok(), Some(100));
    assert_eq!(events_of(0, 9_999, 0).map(|ask| ask.max).ok(), Some(1_000));
    assert_eq!(fields(events_of(-1, -1, 20_001)), ["after_sequence", "wait_ms", "page_size"]);
}

#[test]
fn a_page_token_leads_back_to_its_place_and_list() {
    let ask = |account: &str, page_token: &str| {
        let request =
            pb::ListTransfersRequest { account: account.into(), page_token: page_token.into(), ..Default::default() };
        transfers(&request)
    };
    let first = ask("payee/traffic-430100", "").expect("reads");
    let amount = Money::new(1, contracts::money::Currency::CNY).expect("in range");
    let last = Booked {
        expires_at: None,
        transfer: crate::domain::ledger::Transfer {
            id: crate::domain::ledger::TransferId::stored("ord_1/post".into()),
            subject: OrderId::new(1).into(),
            debit: Account::Suspense(OrderId::new(1)),
            credit: Account::Payee("traffic-430100".into()),
            amount,
        },
        standing: crate::domain::ledger::Standing::Posted,
        at: Timestamp::from_micros(-7),
    };
    let token = transfers_token(&first.list, &last);
    let second = ask("payee/traffic-430100", &token).expect("reads");
    assert_eq!(second.after, (Timestamp::from_micros(-7), "ord_1/post".to_owned()));
    assert_eq!(fields(ask("payee/traffic-140100", &token)), ["page_token"]);
    assert_eq!(fields(ask("", "")), ["account"]);
    assert_eq!(fields(ask("bank/x", "")), ["account"]);
}

/// Kept documents are read for ever: these bytes were written by the first version.
#[test]
fn kept_bytes_do_not_change() {
    let empty = |trade_type| PaySheet::empty(trade_type, Timestamp::from_micros(1_700_000_000_000_001));
    let sheet = |filled| sheet(filled, Known::OnceCreated);
    let kept = sheet(PaySheet {
        jsapi: [("appId".to_owned(), "wx0".to_owned()), ("package".to_owned(), "prepay_id=1".to_owned())].into(),
        ..empty(TradeType::Jsapi)
    });
    let golden = "0801120c0a0561707049641203777830\
                  12160a077061636b616765120b7072657061795f69643d31220908 80e2cfaa0610e807"
        .replace(' ', "");
    assert_eq!(hex::encode(&kept), golden);
    assert_eq!(answer::<pb::PaySheet>(&kept).expect("reads").jsapi["appId"], "wx0");
    let page = sheet(PaySheet { page_url: "http://a".into(), ..empty(TradeType::H5) });
    assert_eq!(hex::encode(page), "0804220908 80e2cfaa0610e8072a08687474703a2f2f61".replace(' ', ""));
    let order = sheet(PaySheet { order_string: "a=b".into(), ..empty(TradeType::App) });
    assert_eq!(hex::encode(order), "0803220908 80e2cfaa0610e8073203613d62".replace(' ', ""));
}
