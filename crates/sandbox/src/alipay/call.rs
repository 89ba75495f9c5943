//! What can be asked for, and its doing: the same for both forms of the interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use runtime::Timestamp;
use serde_json::Value;

use super::book::Book;
use super::desk::Desk;
use super::event::{Event, Product};
use super::outcome::{self, ApiError};
use super::{bill, messages};
use crate::config::App;
use crate::faults::{Fault, Operation, Suffer};

/// A call whose sender is proven.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub app: App,
    pub call: Call,
    /// The parameters of the business.
    pub biz: Value,
    pub notify_url: Option<String>,
    pub return_url: Option<String>,
    /// Where the caller finds this server, for links.
    pub base: String,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Offer(Product),
    Query,
    Close,
    Cancel,
    Refund,
    RefundQuery,
    Bill,
}

impl Call {
    /// Of the gateway's parameter `method`.
    pub(super) fn of_method(name: &str) -> Option<Self> {
        match name {
            "alipay.trade.precreate" => Some(Self::Offer(Product::Code)),
            "alipay.trade.wap.pay" => Some(Self::Offer(Product::Wap)),
            "alipay.trade.page.pay" => Some(Self::Offer(Product::Page)),
            "alipay.trade.app.pay" => Some(Self::Offer(Product::App)),
            "alipay.trade.create" => Some(Self::Offer(Product::Create)),
            "alipay.trade.query" => Some(Self::Query),
            "alipay.trade.close" => Some(Self::Close),
            "alipay.trade.cancel" => Some(Self::Cancel),
            "alipay.trade.refund" => Some(Self::Refund),
            "alipay.trade.fastpay.refund.query" => Some(Self::RefundQuery),
            "alipay.data.dataservice.bill.downloadurl.query" => Some(Self::Bill),
            _ => None,
        }
    }

    /// Of a path of the REST form.
    pub(super) fn of_path(method: &Method, path: &str) -> Option<Self> {
        let name = path.strip_prefix("/v3/")?.replace('/', ".");
        let call = Self::of_method(&name)?;
        let served = match call {
            Self::Bill => method == Method::GET,
            // What a browser or an app opens is signed as the gateway wants it.
            Self::Offer(Product::Wap | Product::Page | Product::App) => false,
            _ => method == Method::POST,
        };
        served.then_some(call)
    }

    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Offer(_) => Operation::Order,
            Self::Query => Operation::Query,
            Self::Close | Self::Cancel => Operation::Close,
            Self::Refund => Operation::Refund,
            Self::RefundQuery => Operation::RefundQuery,
            Self::Bill => Operation::Bill,
        }
    }
}

impl Desk {
    /// Does what is asked for, but for pages.
    pub(super) async fn run(self: &Arc<Self>, asked: &Asked, suffer: Option<Suffer>) -> Result<Value, ApiError> {
        match asked.call {
            Call::Offer(Product::Code) => {
                let order = self.offer(asked).await?;
                Ok(messages::code(&order))
            }
            Call::Offer(Product::Create) => {
                let order = self.offer(asked).await?;
                Ok(messages::created(&order))
            }
            Call::Offer(Product::Wap | Product::Page | Product::App) => Err(outcome::bad_method()),
            Call::Query => {
                let named = messages::selector(&asked.biz)?;
                let view = |book: &Book, _| {
                    let (order, trade) = book.trade(&asked.app.pid, &named)?;
                    Ok(messages::trade(order, trade))
                };
                self.book.change(|_, _| Ok(Vec::new()), view).await?
            }
            Call::Close | Call::Cancel => self.end_trade(asked).await,
            Call::Refund => self.refund(asked, suffer).await,
            Call::RefundQuery => {
                let named = messages::selector(&asked.biz)?;
                let number = messages::required(&asked.biz, "out_request_no", 64)?;
                let view = |book: &Book, _| {
                    let (order, trade) = book.trade(&asked.app.pid, &named)?;
                    Ok(messages::refund(order, trade, &number))
                };
                self.book.change(|_, _| Ok(Vec::new()), view).await?
            }
            Call::Bill => {
                let period = bill::Period::read(&asked.biz, self.book.now(), self.config.bills_wait)?;
                Ok(messages::bill_link(&self.bill_link(asked, period)))
            }
        }
    }

    /// Ends a trade. One that nobody opened cannot be closed; to cancel it is no error, and does nothing.
    async fn end_trade(&self, asked: &Asked) -> Result<Value, ApiError> {
        let named = messages::selector(&asked.biz)?;
        let (pid, cancels) = (asked.app.pid.as_str(), asked.call == Call::Cancel);
        let decide = |book: &Book, _| match book.trade(pid, &named) {
            Err(_) if cancels => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(_) if cancels => book.cancel(pid, &named),
            Ok(_) => book.close(pid, &named),
        };
        let view = |book: &Book, _| match book.trade(pid, &named) {
            Ok((order, trade)) if cancels => Ok(messages::cancelled(order, trade)),
            Ok((order, trade)) => Ok(messages::closed(order, trade)),
            Err(_) => Ok(messages::cancelled_nothing(&named)),
        };
        let told = self.book.change(decide, view).await??;
        self.outbox.wake();
        Ok(told)
    }

    async fn refund(&self, asked: &Asked, suffer: Option<Suffer>) -> Result<Value, ApiError> {
        let named = messages::selector(&asked.biz)?;
        let pid = asked.app.pid.as_str();
        let does = AtomicBool::new(false);
        let is_stuck = suffer.is_some_and(|suffer| suffer.fault == Fault::Stuck);
        let due = |now: Timestamp| (!is_stuck).then(|| now.plus(self.config.refund_after.get()));
        let decide = |book: &Book, now: Timestamp| {
            let (order, trade) = book.trade(pid, &named)?;
            let terms = messages::refund_terms(&asked.biz, order, trade, due(now))?;
            let events = book.refund(order, &terms, now)?;
            does.store(events.iter().any(|event| matches!(event, Event::RefundDone { .. })), Ordering::Relaxed);
            Ok(events)
        };
        let view = |book: &Book, _| {
            let (order, trade) = book.trade(pid, &named)?;
            Ok::<_, ApiError>(messages::refunded(order, trade, does.load(Ordering::Relaxed)))
        };
        let told = self.book.change(decide, view).await??;
        self.outbox.wake();
        Ok(told)
    }
}
