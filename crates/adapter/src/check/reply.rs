//! What operations came to, as golden cases write it.

use runtime::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::engine::{Bill, Listed, Locked, Outcome, Queried, Rejection, Released, Settled};

pub(super) fn queried(made: &Queried) -> Json {
    with_page(
        match &made.result {
            Ok(result) => json!({ "outcome": "DONE", "result": result }),
            Err(refused) => json!({ "outcome": "REJECTED", "rejection": rejection(refused) }),
        },
        made.next_offset,
    )
}

pub(super) fn listed(made: &Listed) -> Json {
    with_page(
        match &made.bills {
            Ok(bills) => json!({ "outcome": "DONE", "bills": bills.iter().map(bill).collect::<Vec<_>>() }),
            Err(refused) => json!({ "outcome": "REJECTED", "rejection": rejection(refused) }),
        },
        made.next_offset,
    )
}

pub(super) fn locked(made: &Locked) -> Json {
    object([
        ("outcome", Some(outcome(made.outcome))),
        ("rejection", made.rejection.as_ref().map(rejection)),
        ("bill", made.bill.as_ref().map(bill)),
        ("held_until", made.held_until.map(time)),
    ])
}

pub(super) fn released(made: &Released) -> Json {
    object([("outcome", Some(outcome(made.outcome))), ("rejection", made.rejection.as_ref().map(rejection))])
}

pub(super) fn settled(made: &Settled) -> Json {
    let proof = made.receipt.as_ref().map(|receipt| {
        json!({
            "department_serial": receipt.serial,
            "department_time": time(receipt.time),
            "reply_digest": hex::encode(receipt.reply_digest),
        })
    });
    object([
        ("outcome", Some(outcome(made.outcome))),
        ("rejection", made.rejection.as_ref().map(rejection)),
        ("proof", proof),
    ])
}

fn bill(bill: &Bill) -> Json {
    object([
        ("bill_no", Some(json!(bill.bill_no))),
        ("amount_minor", Some(json!(bill.amount_minor))),
        ("late_fee_minor", Some(json!(bill.late_fee_minor))),
        ("payment_code", bill.payment_code.as_ref().map(|code| json!(code))),
        ("state", Some(json!(bill.state.name()))),
        ("record", Some(bill.record.clone())),
        ("record_digest", Some(json!(hex::encode(bill.digest)))),
    ])
}

fn rejection(rejection: &Rejection) -> Json {
    json!({
        "code": rejection.code,
        "department_code": rejection.department_code,
        "department_text": rejection.department_text,
    })
}

fn outcome(outcome: Outcome) -> Json {
    let name = match outcome {
        Outcome::Done => "DONE",
        Outcome::Rejected => "REJECTED",
        Outcome::Pending => "PENDING",
        Outcome::Unknown => "UNKNOWN",
    };
    Json::String(name.to_owned())
}

fn time(at: Timestamp) -> Json {
    crate::kind::rfc3339(at).map_or(Json::Null, Json::String)
}

fn with_page(mut made: Json, next_offset: Option<u64>) -> Json {
    if let (Some(fields), Some(offset)) = (made.as_object_mut(), next_offset) {
        fields.insert("next_page_offset".to_owned(), json!(offset));
    }
    made
}

fn object<const N: usize>(fields: [(&str, Option<Json>); N]) -> Json {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Json::Object(given.collect::<Map<_, _>>())
}
