//! Where channels report, over plain HTTP.
//!
//! A callback is verified before anything of it is read, held against the order, and committed before it is acknowledged: what was
//! answered with 204 is durable. Anything else makes the channel send it again, and asking the channel finds what it never sends.

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use runtime::telemetry::{Counter, Family, Labels};
use serde::Serialize;

use crate::channel::{CallbackError, wechatpay};
use crate::domain::ledger::Merchant;
use crate::till::{NoticeError, Till};

const BODY_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone)]
struct Desk {
    till: Arc<Till>,
    outcomes: Family<Labels, Counter>,
}

/// A refusal in the words that WeChat Pay reads.
#[derive(Serialize)]
struct Refusal {
    code: &'static str,
    message: &'static str,
}

pub(crate) fn router(till: Arc<Till>) -> axum::Router {
    let outcomes = till
        .context
        .metrics
        .counter("lastmile_payments_callbacks", "Callbacks of payment channels, by channel and how they came out.");
    axum::Router::new()
        .route("/callbacks/wechatpay/{merchant}", post(wechatpay))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Desk { till, outcomes })
}

async fn wechatpay(
    State(desk): State<Desk>,
    Path(merchant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (status, refusal) = match receive(&desk.till, &merchant, &headers, &body).await {
        Ok(()) => (StatusCode::NO_CONTENT, None),
        Err((status, code, message)) => (status, Some(Refusal { code, message })),
    };
    let outcome = refusal.as_ref().map_or("ok", |refusal| refusal.code);
    let labels = vec![("channel", wechatpay::NAME.into()), ("outcome", outcome.into())];
    desk.outcomes.get_or_create(&labels).inc();
    match refusal {
        None => status.into_response(),
        Some(refusal) => (status, Json(refusal)).into_response(),
    }
}

type Refused = (StatusCode, &'static str, &'static str);

async fn receive(till: &Till, merchant: &str, headers: &HeaderMap, body: &Bytes) -> Result<(), Refused> {
    let not_here = (StatusCode::NOT_FOUND, "MERCHANT_UNKNOWN", "no such merchant");
    let channel = till.channel(wechatpay::NAME).map_err(|_| not_here)?;
    let notice = channel.open_callback(merchant, headers, body).await.map_err(|error| unopened(&error))?;
    let merchant = Merchant { channel: wechatpay::NAME.to_owned(), number: merchant.to_owned() };
    till.heed(&merchant, notice).await.map_err(|error| unheeded(&error))
}

fn unopened(error: &CallbackError) -> Refused {
    tracing::info!(%error, "callback refused");
    match error {
        CallbackError::Merchant => (StatusCode::NOT_FOUND, "MERCHANT_UNKNOWN", "no such merchant"),
        CallbackError::Header(_) => (StatusCode::BAD_REQUEST, "PARAM_ERROR", "a signature header is missing or wrong"),
        CallbackError::Time => (StatusCode::UNAUTHORIZED, "SIGN_ERROR", "the timestamp is not now"),
        CallbackError::Signature => (StatusCode::UNAUTHORIZED, "SIGN_ERROR", "the signature does not verify"),
        CallbackError::Content(_) => (StatusCode::BAD_REQUEST, "PARAM_ERROR", "the content cannot be read"),
        CallbackError::Key(_) => (StatusCode::SERVICE_UNAVAILABLE, "SYSTEM_ERROR", "send it again"),
    }
}

fn unheeded(error: &NoticeError) -> Refused {
    match error {
        NoticeError::Unknown => {
            tracing::warn!("a verified callback about an order that is not ours");
            (StatusCode::NOT_FOUND, "ORDER_NOT_FOUND", "no such order")
        }
        NoticeError::Differs(_) => (StatusCode::BAD_REQUEST, "ORDER_DIFFERS", "it does not fit the order"),
        NoticeError::Failed(source) => {
            tracing::warn!(error = %source, "a callback could not be kept; the channel will send it again");
            (StatusCode::SERVICE_UNAVAILABLE, "SYSTEM_ERROR", "send it again")
        }
    }
}
