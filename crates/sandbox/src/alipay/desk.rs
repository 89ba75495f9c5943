//! The channel at work: the book, its journal, its keys, and the worker that pays and tells.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode, request};
use runtime::{Context, Timestamp};
use serde::Deserialize;

use super::api::{hang_up, text};
use super::bill::{self, Links, Period};
use super::book::{Book, Key, Order, Selector};
use super::call::{Asked, Call};
use super::event::{Event, Product};
use super::keys::Keys;
use super::notify::{Outbox, Sent};
use super::outcome::{self, ApiError};
use super::{gateway, messages};
use crate::beijing;
use crate::config;
use crate::faults::{Fault, Faults, HANG, Operation};
use crate::journal::{Journal, NotKept, OpenError, Place};
use crate::kept::{Kept, State as _};

/// The name of the system.
pub(crate) const SYSTEM: &str = "alipay";

/// The sandbox's Alipay.
pub(crate) struct Desk {
    pub(super) book: Kept<Book>,
    pub(super) keys: Keys,
    pub(super) config: config::Alipay,
    pub(super) faults: Faults,
    pub(super) context: Context,
    pub(super) outbox: Outbox,
    pub(super) links: Mutex<Links>,
}

/// What the citizen opens, pays or gives up: one of a code, a page, a string for the app, or a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pay {
    /// What `alipay.trade.precreate` answered.
    pub qr_code: Option<String>,
    /// The address of a page: `alipay.trade.wap.pay` or `alipay.trade.page.pay`, signed by the merchant.
    pub page_url: Option<String>,
    /// What a merchant's app hands to Alipay's: `alipay.trade.app.pay`, signed by the merchant.
    pub order_string: Option<String>,
    /// Alipay's number of the trade.
    pub trade_no: Option<String>,
    /// The merchant's order number.
    pub out_trade_no: Option<String>,
    /// The merchant, where an order number alone is not enough.
    pub pid: Option<String>,
    /// The money is taken also of a trade that is closed: the citizen had agreed to it before, and the word comes after.
    pub although_closed: bool,
}

/// Why the citizen cannot do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    /// Nothing, or more than one order, is meant.
    #[error("no order, or more than one, is meant")]
    Order,
    /// Alipay refuses what the merchant signed, or the order is in another state.
    #[error("{0}")]
    State(String),
    /// The journal does not take it now.
    #[error("not now")]
    NotNow,
}

impl From<NotKept> for ApiError {
    fn from(error: NotKept) -> Self {
        match error {
            NotKept::Behind => outcome::unavailable(),
            NotKept::Broken => outcome::system(),
        }
    }
}

impl From<ApiError> for PayError {
    fn from(error: ApiError) -> Self {
        Self::State(format!("{}: {}", error.sub_code, error.sub_msg))
    }
}

impl Desk {
    /// Opens the desk: replays the journal and starts the worker.
    pub(crate) fn open(
        config: config::Alipay,
        keys: Keys,
        place: &Place,
        context: Context,
        faults: Faults,
    ) -> Result<Arc<Self>, OpenError> {
        let (journal, entries) = Journal::open::<Event>(place, SYSTEM)?;
        let mut book = Book::default();
        for entry in &entries {
            book.apply(&entry.event, entry.at);
        }
        let outbox = Outbox::new(&context);
        let book = Kept::new(book, journal, context.clock.clone());
        let desk = Arc::new(Self { book, keys, config, faults, context, outbox, links: Mutex::default() });
        desk.context.tasks.spawn("sandbox alipay notices", desk.clone().work());
        if let Some(pause) = desk.config.autopay {
            let unpaid = |book: &Book| book.unpaid(desk.book.now()).map(Order::key).collect::<Vec<_>>();
            desk.book.peek(unpaid).into_iter().for_each(|key| desk.clone().pay_after(pause.get(), key));
        }
        Ok(desk)
    }

    /// Returns the journal.
    pub(crate) fn journal(&self) -> &Journal {
        self.book.journal()
    }

    /// Returns the notices that were sent lately, oldest first.
    pub(crate) fn notices(&self) -> Vec<Sent> {
        self.outbox.sent()
    }

    /// Takes an order into the book.
    pub(super) async fn offer(self: &Arc<Self>, asked: &Asked) -> Result<Order, ApiError> {
        let Call::Offer(product) = asked.call else { return Err(outcome::bad_method()) };
        let terms = messages::order(asked, product, self.book.now())?;
        let token = format!("bax0{}", self.context.ids.hex(20));
        let new = self.new_trade();
        let key = (terms.pid.clone(), terms.out_trade_no.clone());
        let decide = |book: &Book, now: Timestamp| {
            let mut events = book.offer(&terms, token, now)?;
            if product == Product::Create && !events.is_empty() {
                events.push(terms.opened(new, false));
            }
            Ok(events)
        };
        let view = |book: &Book, _| book.order(&key).cloned().ok_or_else(outcome::no_trade);
        let order = self.book.change(decide, view).await??;
        if let Some(pause) = self.config.autopay {
            self.clone().pay_after(pause.get(), key);
        }
        Ok(order)
    }

    // === what the citizen does ===

    /// Opens an order, as by scanning its code: from now on it is a trade. Returns the trade's number.
    pub(crate) async fn scan(self: &Arc<Self>, pay: &Pay) -> Result<String, PayError> {
        let new = self.new_trade();
        self.act(pay, |book, order, now| Ok(book.open(order, new, now)?)).await
    }

    /// Pays an order. Returns the trade's number.
    pub(crate) async fn pay(self: &Arc<Self>, pay: &Pay) -> Result<String, PayError> {
        let new = self.new_trade();
        self.act(pay, |book, order, now| Ok(book.pay(order, new, now, pay.although_closed)?)).await
    }

    /// Gives an order up: its trade is closed. Returns the trade's number.
    pub(crate) async fn give_up(self: &Arc<Self>, pay: &Pay) -> Result<String, PayError> {
        let close = |book: &Book, order: &Order, _| {
            let out_trade_no = Some(order.terms.out_trade_no.clone());
            Ok(book.close(&order.terms.pid, &Selector { trade_no: None, out_trade_no })?)
        };
        self.act(pay, close).await
    }

    /// Lets the time for refunds be over. Returns the trade's number.
    pub(crate) async fn finish(self: &Arc<Self>, pay: &Pay) -> Result<String, PayError> {
        self.act(pay, |book, order, _| Ok(book.finish(order)?)).await
    }

    async fn act(
        self: &Arc<Self>,
        pay: &Pay,
        decide: impl FnOnce(&Book, &Order, Timestamp) -> Result<Vec<Event>, PayError>,
    ) -> Result<String, PayError> {
        let key = self.meant(pay).await?;
        let find = |book: &Book| book.order(&key).cloned().ok_or(PayError::Order);
        let decide = |book: &Book, now: Timestamp| decide(book, &find(book)?, now);
        let view = |book: &Book, _| Ok(find(book)?.trade.map(|trade| trade.trade_no).unwrap_or_default());
        let trade_no = self.book.change(decide, view).await.map_err(|_| PayError::NotNow)??;
        self.outbox.wake();
        Ok(trade_no)
    }

    /// Finds the order that the citizen means. What a merchant signed for a browser or an app is heard of here for the first time.
    async fn meant(self: &Arc<Self>, pay: &Pay) -> Result<Key, PayError> {
        let page = pay.page_url.as_deref().map(|url| url.split_once('?').map_or("", |(_, query)| query));
        if let Some(signed) = page.or(pay.order_string.as_deref()) {
            let asked = self.asked(&gateway::parameters(signed, b"")?, String::new())?;
            let wanted: &[Product] = if page.is_some() { &[Product::Wap, Product::Page] } else { &[Product::App] };
            if !matches!(asked.call, Call::Offer(product) if wanted.contains(&product)) {
                return Err(PayError::Order);
            }
            return Ok(self.offer(&asked).await?.key());
        }
        self.book.peek(|book| find(book, pay).map(Order::key)).ok_or(PayError::Order)
    }

    /// What the citizen's wallet shows of a trade: what was taken and what came back, in fen.
    pub(crate) fn statement(&self, trade_no: &str) -> Option<(i64, i64)> {
        self.book.peek(|book| book.statement(trade_no))
    }

    /// Pays an order by itself after a while, as the configuration may want it.
    fn pay_after(self: Arc<Self>, pause: Duration, (pid, out_trade_no): Key) {
        let context = self.context.clone();
        context.tasks.clone().spawn("sandbox alipay autopay", async move {
            let stop = context.tasks.token();
            tokio::select! {
                biased;
                () = context.clock.sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            let pay = Pay { out_trade_no: Some(out_trade_no), pid: Some(pid), ..Pay::default() };
            if let Err(error) = self.pay(&pay).await {
                tracing::debug!(%error, "an order did not pay itself");
            }
        });
    }

    // === bills ===

    /// Makes a link to a bill, which lives for a short while.
    pub(super) fn bill_link(&self, asked: &Asked, period: Period) -> String {
        let token = self.context.ids.hex(32);
        let name = period.file_name(&asked.app.pid, "csv.zip");
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.add(token.clone(), asked.app.pid.clone(), period, self.book.now());
        format!("{}{}?fileId={token}&downloadFileName={name}", asked.base, bill::PATH)
    }

    /// Hands out the bill of a link, once more as long as it lives.
    pub(super) async fn bill_file(&self, head: &request::Parts) -> Response<Body> {
        let broken = || text(StatusCode::INTERNAL_SERVER_ERROR, "the bill cannot be read");
        let suffer = self.faults.take(SYSTEM, Operation::Download);
        let fault = suffer.map(|suffer| suffer.fault);
        match fault {
            Some(Fault::ErrorBefore) => return broken(),
            Some(Fault::DropBefore) => return hang_up(),
            Some(Fault::Slow) => self.pause(suffer.map_or(Duration::ZERO, |suffer| suffer.delay)).await,
            Some(Fault::Hang) => {
                self.pause(HANG).await;
                return hang_up();
            }
            _ => {}
        }
        let query = gateway::parameters(head.uri.query().unwrap_or_default(), b"").unwrap_or_default();
        let token = query.get("fileId").map(String::as_str).unwrap_or_default();
        let found = self.links.lock().unwrap_or_else(PoisonError::into_inner).find(token, self.book.now());
        let Some((pid, period)) = found else { return text(StatusCode::FORBIDDEN, "the link has run out") };
        let make = |book: &Book, now: Timestamp| bill::archive(book, &pid, &period, now);
        let Ok(Ok(mut archive)) = self.book.change(|_, _| Ok(Vec::new()), make).await else { return broken() };
        if fault == Some(Fault::GarbleCut) {
            archive.truncate(archive.len() / 2);
        }
        let mut response = Response::new(Body::from(archive));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
        response
    }

    // === numbers ===

    /// A number for a trade, and a buyer.
    fn new_trade(&self) -> (String, String) {
        let ids = &self.context.ids;
        let day = beijing::day(self.book.now()).strftime("%Y%m%d").to_string();
        let buyer_id = format!("2088{:012}", ids.below(1_000_000_000_000));
        (format!("{day}22001{:015}", ids.below(1_000_000_000_000_000)), buyer_id)
    }
}

fn find<'a>(book: &'a Book, pay: &'a Pay) -> Option<&'a Order> {
    let token = pay.qr_code.as_deref().map(|url| url.rsplit('/').next().unwrap_or_default());
    match (token, &pay.trade_no, &pay.out_trade_no, &pay.pid) {
        (Some(token), ..) => book.order_of_token(token),
        (None, Some(number), ..) => book.order_of_trade(number),
        (None, None, Some(number), Some(pid)) => book.order(&(pid.clone(), number.clone())),
        (None, None, Some(number), None) => {
            let mut orders = book.orders_of_number(number);
            orders.next().filter(|_| orders.next().is_none())
        }
        (None, None, None, _) => None,
    }
}
