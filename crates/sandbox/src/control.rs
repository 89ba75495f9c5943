//! The control port: what a test, a demonstration or a person at a terminal does to the sandbox from outside its wires.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::alipay;
use crate::faults::{Faults, Staged};
use crate::journal::Journal;
use crate::police::event::Edit;
use crate::police::office::{No, Office, Subject};
use crate::police::people::{self, CAST, Kind, PersonId};
use crate::police::view::Record;
use crate::wechatpay::{Desk, Pay, PayError, RefundStatus};

/// What the control port reaches.
pub(crate) struct Control {
    /// The staged faults.
    pub faults: Faults,
    /// The police systems.
    pub offices: [Arc<Office>; 2],
    /// WeChat Pay.
    pub desk: Arc<Desk>,
    /// Alipay.
    pub alipay: Arc<alipay::Desk>,
}

/// What a refund in process ends as.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundEnd {
    status: RefundStatus,
}

/// An answer that says no.
struct Refused(StatusCode, String);

type Answer<T> = Result<T, Refused>;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<JsonRejection> for Refused {
    fn from(error: JsonRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, error.body_text())
    }
}

impl From<PayError> for Refused {
    fn from(error: PayError) -> Self {
        let status = match error {
            PayError::Order => StatusCode::NOT_FOUND,
            PayError::State(_) => StatusCode::CONFLICT,
            PayError::NotNow => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl From<No> for Refused {
    fn from(no: No) -> Self {
        match no {
            No::Refused(refusal) => Self(StatusCode::CONFLICT, format!("{refusal:?}")),
            No::Busy | No::Closed | No::Internal => Self(StatusCode::SERVICE_UNAVAILABLE, format!("{no:?}")),
        }
    }
}

/// Builds the HTTP routes.
pub(crate) fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/faults", get(staged).post(stage).delete(clear))
        .route("/journal/{system}", get(journal))
        .route("/citizens", get(cast))
        .route("/citizens/{kind}/{index}", get(citizen))
        .route("/police/{region}/records/{number}", post(edit))
        .route("/wechatpay/pay", post(pay))
        .route("/wechatpay/payments/{transaction_id}", get(statement))
        .route("/wechatpay/refunds/{mchid}/{out_refund_no}", post(end_refund))
        .route("/wechatpay/callbacks", get(callbacks))
        .route("/alipay/{act}", post(act_alipay))
        .route("/alipay/payments/{trade_no}", get(statement_alipay))
        .route("/alipay/notices", get(notices))
        .with_state(control)
}

async fn staged(State(control): State<Arc<Control>>) -> Json<Vec<Staged>> {
    Json(control.faults.staged())
}

async fn stage(
    State(control): State<Arc<Control>>,
    staged: Result<Json<Staged>, JsonRejection>,
) -> Answer<(StatusCode, Json<Vec<Staged>>)> {
    let Json(staged) = staged?;
    control.faults.stage(staged).map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok((StatusCode::CREATED, Json(control.faults.staged())))
}

async fn clear(State(control): State<Arc<Control>>) -> StatusCode {
    control.faults.clear();
    StatusCode::NO_CONTENT
}

async fn journal(State(control): State<Arc<Control>>, Path(system): Path<String>) -> Answer<Response> {
    let journal = control.journal_of(&system).ok_or_else(|| not_found("no such system"))?;
    let text = journal.text().await;
    let text = text.map_err(|error| Refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], text).into_response())
}

async fn cast(State(control): State<Arc<Control>>) -> Answer<Json<Value>> {
    let mut citizens = Vec::new();
    for index in 0..CAST.len() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        citizens.extend(control.citizen(PersonId { kind: Kind::Cast, index }).await?);
    }
    Ok(Json(json!({ "fictitious": true, "citizens": citizens })))
}

async fn citizen(State(control): State<Arc<Control>>, Path((kind, index)): Path<(String, u32)>) -> Answer<Json<Value>> {
    let kind = match kind.as_str() {
        "cast" => Kind::Cast,
        "magic" => Kind::Magic,
        "load" => Kind::Load,
        _ => return Err(not_found("cast, magic or load")),
    };
    control.citizen(PersonId { kind, index }).await?.map(Json).ok_or_else(|| not_found("no such citizen"))
}

async fn edit(
    State(control): State<Arc<Control>>,
    Path((region, number)): Path<(String, String)>,
    edit: Result<Json<Edit>, JsonRejection>,
) -> Answer<Json<Value>> {
    let Json(edit) = edit?;
    if matches!(edit, Edit::SetFine { fine_minor } if !(0..=100_000_000).contains(&fine_minor)) {
        return Err(Refused(StatusCode::BAD_REQUEST, "fine_minor must be 0 to 100000000".into()));
    }
    let office = control.offices.iter().find(|office| office.city().region == region);
    let office = office.ok_or_else(|| not_found("no such region"))?;
    Ok(Json(record_value(&region, &office.edit(&number, edit).await?)))
}

async fn pay(State(control): State<Arc<Control>>, pay: Result<Json<Pay>, JsonRejection>) -> Answer<Json<Value>> {
    let Json(pay) = pay?;
    Ok(Json(json!({ "transaction_id": control.desk.pay(&pay).await? })))
}

async fn end_refund(
    State(control): State<Arc<Control>>,
    Path((mchid, out_refund_no)): Path<(String, String)>,
    end: Result<Json<RefundEnd>, JsonRejection>,
) -> Answer<StatusCode> {
    let Json(RefundEnd { status }) = end?;
    control.desk.end_refund(&mchid, &out_refund_no, status).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn statement(State(control): State<Arc<Control>>, Path(transaction_id): Path<String>) -> Answer<Json<Value>> {
    let (paid_minor, refunded_minor) =
        control.desk.statement(&transaction_id).ok_or_else(|| not_found("no such payment"))?;
    Ok(Json(json!({ "paid_minor": paid_minor, "refunded_minor": refunded_minor })))
}

async fn callbacks(State(control): State<Arc<Control>>) -> Json<Value> {
    Json(json!(control.desk.callbacks()))
}

async fn act_alipay(
    State(control): State<Arc<Control>>,
    Path(act): Path<String>,
    pay: Result<Json<alipay::Pay>, JsonRejection>,
) -> Answer<Json<Value>> {
    let Json(pay) = pay?;
    let acted = match act.as_str() {
        "open" => control.alipay.scan(&pay).await,
        "pay" => control.alipay.pay(&pay).await,
        "close" => control.alipay.give_up(&pay).await,
        "finish" => control.alipay.finish(&pay).await,
        _ => return Err(not_found("open, pay, close or finish")),
    };
    let trade_no = acted.map_err(|error| {
        let status = match error {
            alipay::PayError::Order => StatusCode::NOT_FOUND,
            alipay::PayError::State(_) => StatusCode::CONFLICT,
            alipay::PayError::NotNow => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refused(status, error.to_string())
    })?;
    Ok(Json(json!({ "trade_no": trade_no })))
}

async fn statement_alipay(State(control): State<Arc<Control>>, Path(trade_no): Path<String>) -> Answer<Json<Value>> {
    let statement = control.alipay.statement(&trade_no);
    let (paid_minor, refunded_minor) = statement.ok_or_else(|| not_found("no such payment"))?;
    Ok(Json(json!({ "paid_minor": paid_minor, "refunded_minor": refunded_minor })))
}

async fn notices(State(control): State<Arc<Control>>) -> Json<Value> {
    Json(json!(control.alipay.notices()))
}

impl Control {
    fn journal_of(&self, system: &str) -> Option<&Journal> {
        let office = self.offices.iter().find(|office| office.city().system == system);
        match system {
            crate::wechatpay::SYSTEM => Some(self.desk.journal()),
            alipay::SYSTEM => Some(self.alipay.journal()),
            _ => office.map(|office| office.journal()),
        }
    }

    async fn citizen(&self, id: PersonId) -> Answer<Option<Value>> {
        let Some(person) = people::person(id) else { return Ok(None) };
        let (mut vehicles, mut records) = (Vec::new(), Vec::new());
        for office in &self.offices {
            let city = office.city();
            if let Some(vehicle) = people::vehicle(id, city.plate_prefix) {
                vehicles.push(json!({ "region": city.region, "class": vehicle.class, "plate": vehicle.plate }));
            }
            let listing = office.peek(Subject::Licence(&person.number)).await?;
            records.extend(listing.iter().map(|record| record_value(city.region, record)));
        }
        Ok(Some(json!({
            "name": person.name,
            "number": person.number,
            "licence_classes": person.classes,
            "vehicles": vehicles,
            "records": records,
        })))
    }
}

fn record_value(region: &str, record: &Record) -> Value {
    let state = match () {
        () if record.is_warning() => "warning",
        () if record.paid && record.handled_at.is_some() => "paid",
        () if record.paid => "paid_not_cleared",
        () if record.disputed => "disputed",
        () if record.decided_at.is_some() => "unpaid",
        () => "captured",
    };
    json!({
        "region": region,
        "number": record.base.number,
        "code": record.base.offence.code,
        "fine_minor": record.fine_minor,
        "late_minor": record.late_minor,
        "points": record.base.offence.points,
        "state": state,
    })
}

fn not_found(what: &str) -> Refused {
    Refused(StatusCode::NOT_FOUND, what.to_owned())
}
