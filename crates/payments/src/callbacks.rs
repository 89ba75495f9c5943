//! Where channels report, over plain HTTP.
//!
//! A callback is verified before anything of it is read, held against the order, and committed before it is acknowledged: what was
//! acknowledged is durable. Anything else makes the channel send it again, and asking the channel finds what it never sends.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use runtime::telemetry::{Counter, Family, Labels};

use crate::channel::{CallbackError, Channel, Refusal};
use crate::domain::ledger::Merchant;
use crate::till::{NoticeError, Till};

const BODY_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone)]
struct Desk {
    till: Arc<Till>,
    outcomes: Family<Labels, Counter>,
}

pub(crate) fn router(till: Arc<Till>) -> axum::Router {
    let outcomes = till
        .context
        .metrics
        .counter("lastmile_payments_callbacks", "Callbacks of payment channels, by channel and how they came out.");
    axum::Router::new()
        .route("/callbacks/{channel}/{merchant}", post(callback))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Desk { till, outcomes })
}

async fn callback(
    State(desk): State<Desk>,
    Path((channel, merchant)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // Nobody asked for words of ours under the name of a channel that is not offered.
    let Ok(channel) = desk.till.channel(&channel) else { return StatusCode::NOT_FOUND.into_response() };
    let refusal = receive(&desk.till, channel.as_ref(), merchant, &headers, &body).await.err();
    let outcome = refusal.as_ref().map_or("ok", |refusal| refusal.code);
    let labels = vec![("channel", channel.capabilities().channel.into()), ("outcome", outcome.into())];
    desk.outcomes.get_or_create(&labels).inc();
    channel.reply(refusal.as_ref()).map(Body::from)
}

async fn receive(
    till: &Till,
    channel: &dyn Channel,
    merchant: String,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(), Refusal> {
    let notice = channel.open_callback(&merchant, headers, body).await.map_err(|error| unopened(&error))?;
    let merchant = Merchant { channel: channel.capabilities().channel.to_owned(), number: merchant };
    till.heed(&merchant, notice).await.map_err(|error| unheeded(&error))
}

fn unopened(error: &CallbackError) -> Refusal {
    tracing::info!(%error, "callback refused");
    match error {
        CallbackError::Merchant => refusal(StatusCode::NOT_FOUND, "MERCHANT_UNKNOWN", "no such merchant"),
        CallbackError::Header(_) => {
            refusal(StatusCode::BAD_REQUEST, "PARAM_ERROR", "a signature header is missing or wrong")
        }
        CallbackError::Time => refusal(StatusCode::UNAUTHORIZED, "SIGN_ERROR", "the timestamp is not now"),
        CallbackError::Signature => refusal(StatusCode::UNAUTHORIZED, "SIGN_ERROR", "the signature does not verify"),
        CallbackError::Content(_) => refusal(StatusCode::BAD_REQUEST, "PARAM_ERROR", "the content cannot be read"),
        CallbackError::Key(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "SYSTEM_ERROR", "send it again"),
    }
}

fn unheeded(error: &NoticeError) -> Refusal {
    match error {
        NoticeError::Unknown => {
            tracing::warn!("a verified callback about an order that is not ours");
            refusal(StatusCode::NOT_FOUND, "ORDER_NOT_FOUND", "no such order")
        }
        NoticeError::Differs(_) => refusal(StatusCode::BAD_REQUEST, "ORDER_DIFFERS", "it does not fit the order"),
        NoticeError::Failed(source) => {
            tracing::warn!(error = %source, "a callback could not be kept; the channel will send it again");
            refusal(StatusCode::SERVICE_UNAVAILABLE, "SYSTEM_ERROR", "send it again")
        }
    }
}

fn refusal(status: StatusCode, code: &'static str, message: &'static str) -> Refusal {
    Refusal { status, code, message }
}
