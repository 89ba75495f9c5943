//! The requests of golden cases, as the engine takes them.

use rpc::token::Attributes;
use runtime::Timestamp;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{error_json, reply};
use crate::applicant::Citizen;
use crate::engine::{Backend, InquireAsked, LockAsked, Page, SettleAsked};
use crate::plan::ItemPlan;
use crate::profile::{Golden, GoldenApplicant};

/// The fields of every request of the contract that cases use.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Request {
    input: Json,
    page_size: Option<u64>,
    page_offset: u64,
    bill_no: String,
    request_id: String,
    lock_request_id: String,
    record_digest: String,
    hold_until: Option<String>,
    amount_minor: Option<i64>,
    paid_time: Option<String>,
    channel: String,
    channel_transaction: String,
    settle_sent_time: Option<String>,
}

impl Request {
    fn time(&self, field: &str, written: Option<&String>) -> Result<Timestamp, String> {
        let time = written.and_then(|text| crate::kind::parse_rfc3339(text));
        time.ok_or_else(|| format!("`request.{field}` must be RFC 3339"))
    }
}

/// The invented citizen of a case.
pub(super) fn citizen(applicant: &GoldenApplicant) -> Citizen {
    let plates = applicant.plates.iter().flatten().cloned().map(Into::into).collect();
    Citizen::new(Attributes {
        name: Some(applicant.name.clone().into()),
        doc_type: Some("resident_id".to_owned()),
        doc_no: Some(applicant.document_number.clone().into()),
        plates,
        ..Attributes::default()
    })
}

/// Makes the call of a case; what comes back is in the case's own form.
pub(super) async fn call(
    backend: &Backend,
    item: &ItemPlan,
    citizen: &Citizen,
    golden: &Golden,
) -> Result<Json, String> {
    let request: Request =
        serde_json::from_value(golden.request.clone()).map_err(|error| format!("`request`: {error}"))?;
    let input = if request.input.is_null() { serde_json::json!({}) } else { request.input.clone() };
    if let Some(violation) = item.input.check(&input).into_iter().next() {
        return Err(format!("`request.input.{}`: {}", violation.field, violation.what));
    }
    let page = Page { offset: request.page_offset, size: request.page_size.unwrap_or(20) };
    let made = match golden.operation.as_str() {
        "query" => backend.query(item, citizen, &input, page, None).await.map(|made| reply::queried(&made)),
        "list_bills" => backend.list_bills(item, citizen, &input, page, None).await.map(|made| reply::listed(&made)),
        "lock" => {
            let digest =
                hex::decode(&request.record_digest).map_err(|_| "`request.record_digest` must be hexadecimal")?;
            let hold_until = request.time("hold_until", request.hold_until.as_ref())?;
            let (bill_no, request_id) = (request.bill_no.as_str(), request.request_id.as_str());
            let asked = LockAsked { bill_no, request_id, digest: &digest, hold_until, input: &input };
            backend.lock(item, citizen, asked, None).await.map(|made| reply::locked(&made))
        }
        "release" => {
            let (bill_no, key, lock_key) = (&request.bill_no, &request.request_id, &request.lock_request_id);
            backend.release(item, citizen, bill_no, key, lock_key, None).await.map(|made| reply::released(&made))
        }
        "settle" => {
            let asked = SettleAsked {
                bill_no: &request.bill_no,
                request_id: &request.request_id,
                lock_request_id: &request.lock_request_id,
                amount_minor: request.amount_minor.ok_or("`request.amount_minor` is needed")?,
                paid_time: request.time("paid_time", request.paid_time.as_ref())?,
                channel: &request.channel,
                channel_transaction: &request.channel_transaction,
                input: &input,
            };
            backend.settle(item, citizen, asked, None).await.map(|made| reply::settled(&made))
        }
        "inquire" => {
            let asked = InquireAsked {
                bill_no: &request.bill_no,
                request_id: &request.request_id,
                sent_time: request.time("settle_sent_time", request.settle_sent_time.as_ref())?,
                amount_minor: request.amount_minor,
                input: &input,
            };
            backend.inquire(item, citizen, asked, None).await.map(|made| reply::settled(&made))
        }
        other => return Err(format!("there is no operation `{other}`")),
    };
    Ok(made.unwrap_or_else(|error| error_json(&error)))
}
