//! The channel at work: the book, its journal, its keys, and the worker that pays and calls back.

use std::sync::Arc;
use std::time::Duration;

use runtime::{Context, Timestamp};
use serde::Deserialize;

use super::bill::Files;
use super::book::{Book, Combine, Ends, Mixed, Order, Paid, Refund};
use super::event::{CombineTerms, Event, RefundStatus, RefundTerms, Session, Terms, TradeType, Whole};
use super::keys::Keys;
use super::messages::RefundRequest;
use super::mixed::{LegEnd, MixedTerms, Returned, Standing};
use super::notify::{Outbox, Sent};
use super::outcome::{self, ApiError};
use crate::beijing;
use crate::config;
use crate::faults::Faults;
use crate::journal::{Journal, NotKept, OpenError, Place};
use crate::kept::{Kept, State as _};

/// The name of the system.
pub(crate) const SYSTEM: &str = "wechatpay";

/// The sandbox's WeChat Pay.
pub(crate) struct Desk {
    pub(super) book: Kept<Book>,
    pub(super) keys: Keys,
    pub(super) config: config::WechatPay,
    pub(super) faults: Faults,
    pub(super) context: Context,
    pub(super) outbox: Outbox,
    pub(super) files: Files,
}

/// What the citizen pays: a prepay id, a code, a link, or an order number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pay {
    /// From an order of type JSAPI or APP.
    pub prepay_id: Option<String>,
    /// From an order of type NATIVE.
    pub code_url: Option<String>,
    /// From an order of type H5.
    pub h5_url: Option<String>,
    /// A mixed order, by WeChat's number of it.
    pub mix_trade_no: Option<String>,
    /// What becomes of the cash leg of a mixed order.
    pub cash: LegEnd,
    /// What becomes of its insurance leg.
    pub insurance: LegEnd,
    /// The merchant's order number.
    pub out_trade_no: Option<String>,
    /// The merchant, where an order number alone is not enough.
    pub mchid: Option<String>,
    /// Who pays, where the order does not say.
    pub openid: Option<String>,
    /// The money is taken also of an order that is closed: the citizen had agreed to it before, and the word comes after.
    pub although_closed: bool,
}

/// Why the citizen cannot pay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    /// Nothing, or more than one order, is meant.
    #[error("no order, or more than one, is meant")]
    Order,
    /// The order is not payable.
    #[error("{0}")]
    State(&'static str),
    /// The journal does not take it now.
    #[error("not now")]
    NotNow,
}

impl From<NotKept> for ApiError {
    fn from(error: NotKept) -> Self {
        match error {
            NotKept::Behind => outcome::TOO_OFTEN,
            NotKept::Broken => outcome::SYSTEM,
        }
    }
}

impl Desk {
    /// Opens the desk: replays the journal and starts the worker.
    pub(crate) fn open(
        config: config::WechatPay,
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
        let outbox = Outbox::new(&context, book.notices());
        let book = Kept::new(book, journal, context.clock.clone());
        let desk = Arc::new(Self { book, keys, config, faults, context, outbox, files: Files::default() });
        desk.context.tasks.spawn("sandbox wechatpay callbacks", desk.clone().work());
        if let Some(pause) = desk.config.autopay {
            let unpaid = |book: &Book| {
                let orders = book.unpaid(desk.book.now()).map(|order| payment(&order.terms));
                orders.chain(book.mixed_without_cash().map(payment_mixed)).collect::<Vec<_>>()
            };
            desk.book.peek(unpaid).into_iter().for_each(|pay| desk.clone().pay_after(pause.get(), pay));
        }
        Ok(desk)
    }

    /// Returns the journal.
    pub(crate) fn journal(&self) -> &Journal {
        self.book.journal()
    }

    /// Returns the callbacks that were sent lately, oldest first.
    pub(crate) fn callbacks(&self) -> Vec<Sent> {
        self.outbox.sent()
    }

    // === what merchants ask for ===

    pub(super) async fn create(self: &Arc<Self>, terms: &Terms) -> Result<Order, ApiError> {
        let session = self.session(terms.trade_type);
        let view = |book: &Book, _| book.order(&terms.mchid, &terms.out_trade_no).cloned();
        let order = self.book.change(|book, now| book.create(terms, session, now), view).await??;
        if let Some(pause) = self.config.autopay {
            self.clone().pay_after(pause.get(), payment(&order.terms));
        }
        Ok(order)
    }

    pub(super) async fn query(
        &self,
        find: impl FnOnce(&Book) -> Result<Order, ApiError>,
    ) -> Result<(Order, Timestamp), ApiError> {
        self.book.change(|_, _| Ok(Vec::new()), |book, now| Ok((find(book)?, now))).await?
    }

    pub(super) async fn close(&self, mchid: &str, out_trade_no: &str) -> Result<(), ApiError> {
        self.book.change(|book, now| book.close(mchid, out_trade_no, now), |_, _| Ok(())).await?
    }

    pub(super) async fn create_combine(self: &Arc<Self>, terms: &CombineTerms) -> Result<Combine, ApiError> {
        let session = self.session(terms.trade_type);
        let view = |book: &Book, _| book.combine(&terms.whole);
        let combine = self.book.change(|book, now| book.create_combine(terms, session, now), view).await??;
        if let (Some(pause), Some(part)) = (self.config.autopay, combine.terms.parts.first()) {
            self.clone().pay_after(pause.get(), payment(part));
        }
        Ok(combine)
    }

    pub(super) async fn query_combine(&self, whole: &Whole) -> Result<(Combine, Timestamp), ApiError> {
        self.book.change(|_, _| Ok(Vec::new()), |book, now| Ok((book.combine(whole)?, now))).await?
    }

    pub(super) async fn close_combine(&self, whole: &Whole, parts: &[(String, String)]) -> Result<(), ApiError> {
        self.book.change(|book, now| book.close_combine(whole, parts, now), |_, _| Ok(())).await?
    }

    pub(super) async fn create_mixed(self: &Arc<Self>, terms: &MixedTerms) -> Result<(Mixed, Standing), ApiError> {
        let decide = |book: &Book, now: Timestamp| book.create_mixed(terms, now);
        let view =
            |book: &Book, now: Timestamp| book.mixed(&terms.mchid, &terms.out_trade_no).map(|m| book.seen(m, now));
        let (mixed, standing) = self.book.change(decide, view).await??;
        // What has a cash leg pays itself as that does.
        if let Some(pause) = self.config.autopay.filter(|_| !mixed.terms.mix.has_cash()) {
            self.clone().pay_after(pause.get(), payment_mixed(&mixed.terms));
        }
        Ok((mixed, standing))
    }

    pub(super) async fn query_mixed(
        &self,
        find: impl FnOnce(&Book) -> Result<&Mixed, ApiError>,
    ) -> Result<(Mixed, Standing), ApiError> {
        self.book.change(|_, _| Ok(Vec::new()), |book, now| Ok(book.seen(find(book)?, now))).await?
    }

    pub(super) async fn take_returned(&self, mchid: &str, returned: &Returned) -> Result<(), ApiError> {
        self.book.change(|book, _| book.take_returned(mchid, returned), |_, _| Ok(())).await?
    }

    /// Takes a refund. It ends by itself as `ends`; in process it stays so until somebody ends it.
    pub(super) async fn refund(
        &self,
        mchid: &str,
        request: RefundRequest,
        ends: RefundStatus,
    ) -> Result<Refund, ApiError> {
        let (refund_id, notice) = (self.serial("503000"), self.notice_id());
        let after = self.config.refund_after.get();
        let due = move |now: Timestamp| match ends {
            RefundStatus::Processing => Timestamp::MAX,
            _ => now.plus(after),
        };
        let number = request.out_refund_no.clone();
        let decide = |book: &Book, now: Timestamp| {
            let order = match (&request.transaction_id, &request.out_trade_no) {
                (Some(id), _) => book.order_of_transaction(mchid, id),
                (None, number) => book.order(mchid, number.as_deref().unwrap_or_default()),
            };
            let order = order.map_err(|_| outcome::NO_REFUND)?;
            let terms = RefundTerms {
                mchid: mchid.to_owned(),
                out_refund_no: request.out_refund_no,
                out_trade_no: order.terms.out_trade_no.clone(),
                refund_id,
                amount_minor: request.refund_minor,
                reason: request.reason,
                notify_url: request.notify_url,
                digest: request.digest,
                due: due(now),
                ends,
                notice,
            };
            book.create_refund(&terms, request.total_minor)
        };
        let refund = self.book.change(decide, |book, _| book.refund(mchid, &number).cloned()).await??;
        self.outbox.wake();
        Ok(refund)
    }

    pub(super) async fn query_refund(&self, mchid: &str, out_refund_no: &str) -> Result<Refund, ApiError> {
        self.book.change(|_, _| Ok(Vec::new()), |book, _| book.refund(mchid, out_refund_no).cloned()).await?
    }

    /// Ends a refund that is in process, as somebody at WeChat would.
    pub(crate) async fn end_refund(
        &self,
        mchid: &str,
        out_refund_no: &str,
        status: RefundStatus,
    ) -> Result<(), PayError> {
        let decide = |book: &Book, _| match book.end_refund(mchid, out_refund_no, status) {
            Err(error) if error == outcome::NO_REFUND => Err(PayError::Order),
            ended => ended.map_err(|_| PayError::State("the refund is not in process")),
        };
        self.book.change(decide, |_, _| Ok(())).await.map_err(|_| PayError::NotNow)??;
        self.outbox.wake();
        Ok(())
    }

    // === what the citizen does ===

    /// Pays an order, every part of a combined one, or the legs of a mixed one; returns WeChat's number of the payment: of the first
    /// part's, of the cash leg's. What the insurance pays alone has none but the order's own.
    pub(crate) async fn pay(&self, pay: &Pay) -> Result<String, PayError> {
        let (transaction_id, notice) = (self.serial("420000"), self.notice_id());
        let openid = pay.openid.clone().unwrap_or_else(|| format!("o{}", self.context.ids.hex(27)));
        let number = transaction_id.clone();
        let decide = |book: &Book, now: Timestamp| {
            let found = find(book, pay).ok_or(PayError::Order)?;
            let paid = Paid { transaction_id: number, openid, at: now };
            let next = || self.serial("420000");
            let ends = Ends { cash: pay.cash, insurance: pay.insurance, although_closed: pay.although_closed };
            let decided = match found {
                Found::Mixed(mixed) => book.pay_mixed(mixed, paid, ends, notice, self.notice_id()),
                Found::Order(order) => match &order.terms.part_of {
                    // The citizen pays the whole or nothing of it.
                    Some(whole) => book.pay_combine(whole, &paid, next, notice, pay.although_closed),
                    None => book.pay(order, paid, notice, pay.although_closed),
                },
            };
            decided.map_err(|error| PayError::State(error.message))
        };
        let view = |book: &Book, _| match find(book, pay) {
            Some(Found::Mixed(mixed)) => Ok(book.transaction_of(mixed)),
            _ => Ok(transaction_id),
        };
        let transaction_id = self.book.change(decide, view).await.map_err(|_| PayError::NotNow)??;
        self.outbox.wake();
        Ok(transaction_id)
    }

    /// What the citizen's wallet shows of a payment: what was taken and what came back, in fen.
    pub(crate) fn statement(&self, transaction_id: &str) -> Option<(i64, i64)> {
        self.book.peek(|book| book.statement(transaction_id))
    }

    /// Pays an order by itself after a while, as the configuration may want it.
    fn pay_after(self: Arc<Self>, pause: Duration, pay: Pay) {
        let context = self.context.clone();
        context.tasks.clone().spawn("sandbox wechatpay autopay", async move {
            let stop = context.tasks.token();
            tokio::select! {
                biased;
                () = context.clock.sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.pay(&pay).await {
                tracing::debug!(%error, "an order did not pay itself");
            }
        });
    }

    // === numbers ===

    fn session(&self, trade_type: TradeType) -> Session {
        let ids = &self.context.ids;
        let prepay_id = format!("wx{}{}", beijing::packed(self.book.now()), ids.hex(20));
        let link = match trade_type {
            TradeType::Jsapi | TradeType::App => String::new(),
            TradeType::Native => format!("weixin://wxpay/bizpayurl?pr={}zz", ids.hex(9)),
            TradeType::H5 => {
                format!(
                    "https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id={prepay_id}&package={}",
                    ids.below(1 << 32)
                )
            }
        };
        Session { prepay_id, link }
    }

    /// A number of 28 digits: six that say what it is, the day, and a random rest.
    fn serial(&self, kind: &str) -> String {
        let day = beijing::day(self.book.now()).strftime("%Y%m%d").to_string();
        format!("{kind}{day}{:014}", self.context.ids.below(100_000_000_000_000))
    }

    /// A number of a mixed order.
    pub(super) fn mix_trade_no(&self) -> String {
        format!("{}{:014}", beijing::packed(self.book.now()), self.context.ids.below(100_000_000_000_000))
    }

    fn notice_id(&self) -> String {
        self.context.ids.uuid().to_string()
    }
}

/// The payment of an order as it stands.
fn payment(terms: &Terms) -> Pay {
    Pay { out_trade_no: Some(terms.out_trade_no.clone()), mchid: Some(terms.mchid.clone()), ..Pay::default() }
}

fn payment_mixed(terms: &MixedTerms) -> Pay {
    Pay { mix_trade_no: Some(terms.mix_trade_no.clone()), ..Pay::default() }
}

/// What a payment means.
enum Found<'a> {
    Order(&'a Order),
    Mixed(&'a Mixed),
}

/// Finds what is to be paid. The order of a cash leg stands for its whole.
fn find<'a>(book: &'a Book, pay: &'a Pay) -> Option<Found<'a>> {
    if let Some(number) = &pay.mix_trade_no {
        return book.mixed_of_any(|terms| terms.mix_trade_no == *number).map(Found::Mixed);
    }
    if let Some(order) = find_order(book, pay) {
        let mixed = book.mixed(&order.terms.mchid, &order.terms.out_trade_no);
        return Some(mixed.map_or(Found::Order(order), Found::Mixed));
    }
    let number = pay.out_trade_no.as_ref()?;
    let is_meant = |terms: &MixedTerms| {
        terms.out_trade_no == *number && pay.mchid.as_ref().is_none_or(|mchid| *mchid == terms.mchid)
    };
    book.mixed_of_any(is_meant).map(Found::Mixed)
}

fn find_order<'a>(book: &'a Book, pay: &'a Pay) -> Option<&'a Order> {
    let token = pay.prepay_id.as_ref().or(pay.code_url.as_ref()).or(pay.h5_url.as_ref());
    match (token, &pay.out_trade_no, &pay.mchid) {
        (Some(token), _, _) => book.order_of_session(token),
        (None, Some(number), Some(mchid)) => {
            let whole = Whole { mchid: mchid.clone(), out_trade_no: number.clone() };
            book.order(mchid, number).ok().or_else(|| book.first_part(&whole))
        }
        (None, Some(number), None) => {
            let mut orders = book.orders_of_number(number);
            let first = orders.next();
            // The parts of one combined order are paid together, whichever of them is meant.
            let is_same = |first: &Order, other: &Order| first.terms.part_of == other.terms.part_of;
            first.filter(|first| orders.all(|other| first.terms.part_of.is_some() && is_same(first, other)))
        }
        (None, None, _) => None,
    }
}
