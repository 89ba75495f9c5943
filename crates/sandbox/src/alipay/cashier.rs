//! The cashier (收银台): what a browser shows of an order that a merchant sent it here with.

use std::sync::Arc;

use axum::body::Body;
use http::header::{HeaderValue, LOCATION};
use http::{Method, Response, StatusCode};

use super::api::text;
use super::call::Asked;
use super::desk::{Desk, Pay, SYSTEM};
use super::{messages, yuan};
use crate::faults::{Fault, Operation};

impl Desk {
    /// Opens the page of an order.
    pub(super) async fn page(self: &Arc<Self>, asked: &Asked) -> Response<Body> {
        if let Some(suffer) = self.faults.take(SYSTEM, Operation::Order) {
            match suffer.fault {
                Fault::Slow | Fault::Late => self.pause(suffer.delay).await,
                _ => return text(StatusCode::INTERNAL_SERVER_ERROR, page("系统繁忙", "")),
            }
        }
        match self.offer(asked).await {
            Ok(order) => text(StatusCode::OK, offer_page(&order.terms.subject, order.terms.amount_minor, &order.token)),
            Err(error) => text(StatusCode::BAD_REQUEST, page(&error.sub_msg, &escaped(error.sub_code))),
        }
    }

    /// Shows the page again, or takes the payment of whoever presses its button and sends the citizen back.
    pub(super) async fn cashier(self: &Arc<Self>, method: &Method, token: &str) -> Response<Body> {
        let find = |book: &super::book::Book| book.order_of_token(token).cloned();
        let Some(order) = self.book.peek(find) else {
            return text(StatusCode::NOT_FOUND, page("没有这个订单", ""));
        };
        if method != Method::POST {
            let offer = offer_page(&order.terms.subject, order.terms.amount_minor, token);
            return text(StatusCode::OK, offer);
        }
        let pay = Pay { qr_code: Some(messages::code_url(token)), ..Pay::default() };
        if let Err(error) = self.pay(&pay).await {
            return text(StatusCode::CONFLICT, page("不能付款", &escaped(&error.to_string())));
        }
        let paid = self.book.peek(find).unwrap_or(order);
        let back = paid.terms.return_url.as_ref().map(|url| {
            let sign = if url.contains('?') { '&' } else { '?' };
            format!("{url}{sign}{}", self.signed_form(messages::way_back(&paid, self.book.now())))
        });
        let mut response = text(StatusCode::OK, page("已付款", ""));
        if let Some(location) = back.and_then(|url| HeaderValue::try_from(url).ok()) {
            *response.status_mut() = StatusCode::SEE_OTHER;
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

fn offer_page(subject: &str, amount_minor: i64, token: &str) -> String {
    let form = format!(
        "<p>{} · ¥{}</p><form method=\"post\" action=\"/cashier/{token}\"><button>付款 (pay)</button></form>",
        escaped(subject),
        yuan::text(amount_minor)
    );
    page("支付宝沙箱收银台 (cashier of the sandbox)", &form)
}

fn page(title: &str, inner: &str) -> String {
    format!("<!doctype html><meta charset=\"utf-8\"><title>{title}</title><h1>{title}</h1>{inner}\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
