//! A channel that is played: it keeps its own books, as a real one does, and misbehaves on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use contracts::money::{Currency, Money};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Response};
use runtime::Timestamp;
use runtime::http::Effect;
use runtime::secret::Pii;
use serde_json::{Value, json};

use crate::channel::{
    CallbackError, Capabilities, Channel, ChannelError, Known, Notice, OrderStatus, PartPaid, PaySheet, RefundStatus,
    Refusal, Whole, wechatpay,
};
use crate::domain::insurance::Legs;
use crate::domain::order::{Capture, Terms, TradeType};
use crate::domain::refund::{Decision, Refund};

/// Whose place it takes.
pub(super) const NAME: &str = wechatpay::NAME;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    /// No connection: nothing happened.
    Unreachable,
    /// It never arrived, but that cannot be known.
    LostBefore,
    /// It was done, and the answer was lost.
    LostAfter,
    /// Not now.
    Busy,
    /// Refused for good.
    Refused,
}

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    Create,
    Query,
    Close,
    Refund,
    QueryRefund,
    CreateTogether,
    QueryTogether,
    CloseTogether,
}

#[derive(Clone, Default)]
pub(super) struct Played(Arc<Mutex<Books>>);

#[derive(Default)]
pub(super) struct Books {
    pub(super) orders: BTreeMap<String, There>,
    pub(super) refunds: BTreeMap<String, Back>,
    /// Combined orders: merchant, and the numbers of their parts.
    wholes: BTreeMap<String, (String, Vec<String>)>,
    /// It does not want to hear what insurance gave back.
    is_deaf: bool,
    mishaps: VecDeque<(Call, Mishap)>,
    pub(super) calls: BTreeMap<Call, u32>,
    /// Payers as they arrived.
    pub(super) payers: Vec<String>,
    /// Whether it knows an order only once its payer has opened it.
    is_lazy: bool,
}

/// An order as the channel has it.
pub(super) struct There {
    terms: Terms,
    /// The number of the combined order that it is a part of.
    part_of: Option<String>,
    is_known: bool,
    pub(super) is_closed: bool,
    pub(super) paid: Option<Capture>,
    /// A mixed order that came to nothing: whether its cash leg and its insurance's are paid.
    half: Option<(bool, bool)>,
}

/// A refund as the channel has it.
pub(super) struct Back {
    pub(super) order_no: String,
    pub(super) amount: i64,
    /// How it stands; None is in process.
    pub(super) end: Option<Decision>,
    /// The channel will not hear of what insurance gives back with it.
    is_deaf: bool,
}

/// What has to come of an order, all legs together.
fn due(terms: &Terms) -> Money {
    let legs = terms.insured.as_ref().and_then(|insured| Legs::of(&insured.split).sum());
    legs.map_or(terms.amount, |minor| Money::new(minor, Currency::CNY).expect("in range"))
}

fn in_cash(terms: &Terms) -> i64 {
    terms.insured.as_ref().map_or(terms.amount.amount_minor(), |insured| insured.split.paid_in_cash)
}

impl Played {
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stages a mishap for the next such call.
    pub(super) fn mishap(&self, call: Call, mishap: Mishap) {
        self.books().mishaps.push_back((call, mishap));
    }

    pub(super) fn calm(&self) {
        self.books().mishaps.clear();
    }

    pub(super) fn count(&self, call: Call) -> u32 {
        self.books().calls.get(&call).copied().unwrap_or(0)
    }

    /// From now on it knows an order only once its payer has opened it.
    pub(super) fn be_lazy(&self) {
        self.books().is_lazy = true;
    }

    /// The citizen opens an order; false when its time is over.
    pub(super) fn open(&self, order_no: &str, at: Timestamp) -> bool {
        let mut books = self.books();
        let there = books.orders.get_mut(order_no).expect("the channel has it");
        there.is_known |= at < there.terms.expire_at;
        there.is_known
    }

    /// The citizen pays; None when there is nothing (more) to pay.
    pub(super) fn pay(&self, order_no: &str, at: Timestamp) -> Option<Capture> {
        let mut books = self.books();
        let there = books.orders.get_mut(order_no)?;
        if there.is_closed || there.paid.is_some() || at >= there.terms.expire_at {
            return None;
        }
        let capture = Capture { amount: due(&there.terms), transaction: format!("tx-{order_no}"), at };
        (there.is_known, there.paid) = (true, Some(capture.clone()));
        Some(capture)
    }

    /// A mixed order comes to nothing, after these legs of it were paid.
    pub(super) fn break_off(&self, order_no: &str, cash: bool, insurance: bool, at: Timestamp) {
        let mut books = self.books();
        let there = books.orders.get_mut(order_no).expect("the channel has it");
        let amount = Money::new(in_cash(&there.terms), Currency::CNY).expect("in range");
        there.paid = cash.then(|| Capture { amount, transaction: format!("tx-{order_no}"), at });
        there.half = Some((cash, insurance));
    }

    /// From now on it does not want to hear what insurance gave back.
    pub(super) fn be_deaf(&self) {
        self.books().is_deaf = true;
    }

    /// Money comes although the order is closed.
    pub(super) fn pay_late(&self, order_no: &str, at: Timestamp) -> Capture {
        let mut books = self.books();
        let there = books.orders.get_mut(order_no).expect("the channel has it");
        let capture = Capture { amount: there.terms.amount, transaction: format!("tx-{order_no}"), at };
        there.paid = Some(capture.clone());
        capture
    }

    /// The channel's books as lines of a journal.
    pub(super) fn journal(&self) -> Vec<Value> {
        let books = self.books();
        let mut lines = Vec::new();
        for (number, there) in &books.orders {
            lines.push(json!({ "event": "order_created", "out_trade_no": number }));
            if let Some(Capture { amount, .. }) = &there.paid {
                // What insurance pays is nothing that happens here.
                let amount_minor = amount.amount_minor().min(in_cash(&there.terms));
                lines.push(json!({ "event": "order_paid", "out_trade_no": number, "amount_minor": amount_minor }));
            }
        }
        for (number, Back { order_no, amount, end, .. }) in books.refunds.iter().filter(|(_, back)| back.amount > 0) {
            lines.push(json!({ "event": "refund_created", "out_refund_no": number, "out_trade_no": order_no }));
            let status = if matches!(end, Some(Decision::Succeeded { .. })) { "SUCCESS" } else { "CLOSED" };
            let ended =
                json!({ "event": "refund_ended", "out_refund_no": number, "status": status, "amount_minor": amount });
            lines.extend(end.is_some().then_some(ended));
        }
        lines
    }

    /// What the channel would report of an order.
    pub(super) fn notice(&self, order_no: &str) -> Option<Notice> {
        let books = self.books();
        let there = books.orders.get(order_no)?;
        let capture = there.paid.clone()?;
        let app_id = there.terms.app_id.clone();
        Some(Notice::Paid { channel_order_no: order_no.to_owned(), app_id, capture })
    }

    /// The citizen pays every part of a combined order; false when there is nothing (more) to pay.
    pub(super) fn pay_together(&self, whole_no: &str, at: Timestamp) -> bool {
        let parts = self.books().wholes.get(whole_no).map(|(_, parts)| parts.clone()).unwrap_or_default();
        !parts.is_empty() && parts.iter().all(|part| self.pay(part, at).is_some())
    }

    /// What the channel would report of a combined order, and to whom.
    pub(super) fn notice_together(&self, whole_no: &str) -> Option<(String, Notice)> {
        let books = self.books();
        let (merchant, numbers) = books.wholes.get(whole_no)?;
        let mut parts = Vec::new();
        let mut app_id = String::new();
        for number in numbers {
            let there = books.orders.get(number)?;
            app_id.clone_from(&there.terms.app_id);
            let (merchant, capture) = (there.terms.merchant.number.clone(), there.paid.clone()?);
            parts.push(PartPaid { merchant, channel_order_no: number.clone(), capture });
        }
        Some((merchant.clone(), Notice::PaidTogether { channel_order_no: whole_no.to_owned(), app_id, parts }))
    }

    /// Decides every refund that is in process.
    pub(super) fn decide(&self, succeed: bool, at: Timestamp) {
        for (number, back) in self.books().refunds.iter_mut().filter(|(_, back)| back.end.is_none()) {
            back.end = Some(match succeed {
                true => Decision::Succeeded { channel_refund: format!("wx-{number}"), at },
                false => Decision::Failed { code: "CLOSED".into() },
            });
        }
    }

    async fn call<T>(
        &self,
        call: Call,
        act: impl FnOnce(&mut Books) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        // On its way: others may run meanwhile.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut books = self.books();
        *books.calls.entry(call).or_insert(0) += 1;
        let at = books.mishaps.iter().position(|(of, _)| *of == call);
        let mishap = at.and_then(|at| books.mishaps.remove(at)).map(|(_, mishap)| mishap);
        let lost = |effect| Err(ChannelError::NoAnswer { effect, what: "staged", source: None });
        match mishap {
            None => act(&mut books),
            Some(Mishap::Unreachable) => lost(Effect::None),
            Some(Mishap::LostBefore) => lost(Effect::Possible),
            Some(Mishap::LostAfter) => act(&mut books).and_then(|_| lost(Effect::Possible)),
            Some(Mishap::Busy) => Err(ChannelError::NotNow { code: "FREQUENCY_LIMITED".into() }),
            Some(Mishap::Refused) => Err(ChannelError::Refused { code: "PARAM_ERROR".into() }),
        }
    }
}

impl Books {
    fn create(&mut self, terms: &Terms, payer: Option<&Pii<String>>, now: Timestamp) -> Result<PaySheet, ChannelError> {
        self.payers.extend(payer.map(|payer| payer.expose().clone()));
        let is_known = !self.is_lazy;
        let there = self.orders.entry(terms.channel_order_no.clone()).or_insert_with(|| There {
            terms: terms.clone(),
            part_of: None,
            is_known,
            is_closed: false,
            paid: None,
            half: None,
        });
        if there.terms != *terms || there.is_closed || there.paid.is_some() || now >= terms.expire_at {
            return Err(ChannelError::Otherwise { code: "OUT_TRADE_NO_USED".into() });
        }
        let mut sheet = PaySheet::empty(terms.trade_type, terms.expire_at);
        sheet.jsapi.insert("package".to_owned(), format!("prepay_id={}", terms.channel_order_no));
        Ok(sheet)
    }

    fn create_together(
        &mut self,
        whole: &Whole,
        parts: &[Terms],
        payer: Option<&Pii<String>>,
    ) -> Result<PaySheet, ChannelError> {
        let numbers: Vec<_> = parts.iter().map(|terms| terms.channel_order_no.clone()).collect();
        let made = (whole.merchant.number.clone(), numbers);
        let known = self.wholes.entry(whole.channel_order_no.clone()).or_insert_with(|| made.clone());
        assert_eq!(*known, made, "a repetition is unchanged");
        let mut sheet = None;
        for terms in parts {
            sheet = Some(self.create(terms, payer.filter(|_| sheet.is_none()), terms.created_at)?);
            let there = self.orders.get_mut(&terms.channel_order_no).expect("it was made");
            there.part_of = Some(whole.channel_order_no.clone());
        }
        let mut sheet = sheet.expect("there are parts");
        sheet.jsapi.insert("package".to_owned(), format!("prepay_id={}", whole.channel_order_no));
        Ok(sheet)
    }

    /// A combined order is known by its own number and parts.
    fn is_whole(&self, whole: &Whole, parts: &[Terms]) -> Result<(), ChannelError> {
        let (merchant, numbers) = self.wholes.get(&whole.channel_order_no).ok_or(ChannelError::NotKnown)?;
        assert_eq!(*merchant, whole.merchant.number);
        assert!(parts.iter().map(|terms| &terms.channel_order_no).eq(numbers), "every part, by its number");
        Ok(())
    }

    /// An order that is a part of a combined one is not asked for by its own number.
    fn alone(&self, terms: &Terms) -> Result<(), ChannelError> {
        let there = self.orders.get(&terms.channel_order_no);
        if there.is_some_and(|there| there.part_of.is_some()) { Err(ChannelError::NotKnown) } else { Ok(()) }
    }

    fn status(&self, terms: &Terms) -> Result<OrderStatus, ChannelError> {
        let there = self.orders.get(&terms.channel_order_no).filter(|there| there.is_known);
        let there = there.ok_or(ChannelError::NotKnown)?;
        Ok(match &there.paid {
            cash if there.half.is_some_and(|(cash, insurance)| cash || insurance) => {
                OrderStatus::Half { cash: cash.clone(), insurance: there.half.is_some_and(|(_, insurance)| insurance) }
            }
            None if there.half.is_some() => OrderStatus::Closed,
            Some(capture) => OrderStatus::Paid(capture.clone()),
            None if there.is_closed => OrderStatus::Closed,
            None => OrderStatus::Pending,
        })
    }

    fn close(&mut self, terms: &Terms) -> Result<(), ChannelError> {
        let there = self.orders.get_mut(&terms.channel_order_no).filter(|there| there.is_known);
        let there = there.ok_or(ChannelError::NotKnown)?;
        if there.paid.is_some() {
            return Err(ChannelError::Refused { code: "TRADE_ERROR".into() });
        }
        there.is_closed = true;
        Ok(())
    }

    fn refund(&mut self, terms: &Terms, refund: &Refund) -> Result<RefundStatus, ChannelError> {
        let legs = refund.legs.unwrap_or_default();
        assert_eq!(refund.legs.is_some(), terms.insured.is_some(), "split as the order is");
        let amount = refund.legs.map_or(refund.amount.amount_minor(), |legs| legs.cash);
        let number = refund.channel_refund_no();
        let has_insurance = legs != legs.cash_alone();
        assert_eq!(refund.insurance_returned_at.is_some(), has_insurance);
        if has_insurance && self.is_deaf && amount == 0 {
            return Err(ChannelError::Refused { code: "DEAF".into() });
        }
        if let Some(back) = self.refunds.get(&number) {
            assert_eq!((back.amount, &back.order_no), (amount, &terms.channel_order_no), "a repetition is unchanged");
            return Ok(back.status(&number));
        }
        let paid = self.orders.get(&terms.channel_order_no).and_then(|there| there.paid.as_ref());
        let taken =
            paid.map(|capture| capture.amount.amount_minor().min(in_cash(terms))).ok_or(ChannelError::NotKnown)?;
        let of_order = |back: &&Back| {
            back.order_no == terms.channel_order_no && !matches!(back.end, Some(Decision::Failed { .. }))
        };
        let given: i64 = self.refunds.values().filter(of_order).map(|back| back.amount).sum();
        if given + amount > taken {
            return Err(ChannelError::Refused { code: "INVALID_REQUEST".into() });
        }
        // What insurance alone gives back is told, and done.
        let at = refund.created_at;
        let end = (amount == 0).then(|| Decision::Succeeded { channel_refund: number.clone(), at });
        let is_deaf = has_insurance && self.is_deaf;
        let back = Back { order_no: terms.channel_order_no.clone(), amount, end, is_deaf };
        let status = back.status(&number);
        self.refunds.insert(number, back);
        Ok(status)
    }
}

impl Back {
    fn status(&self, number: &str) -> RefundStatus {
        match &self.end {
            None => RefundStatus::Processing { channel_refund: format!("wx-{number}") },
            Some(Decision::Succeeded { channel_refund, at }) if self.is_deaf => {
                let (channel_refund, at) = (channel_refund.clone(), *at);
                RefundStatus::Decided(Decision::Half { channel_refund, at, code: "DEAF".into() })
            }
            Some(decision) => RefundStatus::Decided(decision.clone()),
        }
    }
}

impl Channel for Played {
    fn capabilities(&self) -> &Capabilities {
        const CAPABILITIES: &Capabilities = &Capabilities {
            channel: NAME,
            trade_types: &[TradeType::Jsapi],
            payer_for: &[TradeType::Jsapi],
            currencies: &[Currency::CNY],
            amount_minor_max: 1_000_000,
            description_bytes_max: 100,
            order_life_max: Duration::from_secs(86_400),
            sheet_life: Duration::from_secs(3_600),
            known: Known::OnceCreated,
            bills: &[],
            combine_max: 3,
            insured_by: &[TradeType::Jsapi],
        };
        const LAZY: &Capabilities = &Capabilities { known: Known::OnceOpened, ..*CAPABILITIES };
        if self.books().is_lazy { LAZY } else { CAPABILITIES }
    }

    fn notify_url(&self, merchant: &str) -> String {
        format!("http://payments/callbacks/{NAME}/{merchant}")
    }

    fn create<'a>(
        &'a self,
        terms: &'a Terms,
        payer: Option<&'a Pii<String>>,
    ) -> BoxFuture<'a, Result<PaySheet, ChannelError>> {
        // The played channel knows an order's end by the order's own times only.
        self.call(Call::Create, move |books| books.create(terms, payer, terms.created_at)).boxed()
    }

    fn query<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<OrderStatus, ChannelError>> {
        self.call(Call::Query, move |books| books.alone(terms).and_then(|()| books.status(terms))).boxed()
    }

    fn close<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<(), ChannelError>> {
        self.call(Call::Close, move |books| books.alone(terms).and_then(|()| books.close(terms))).boxed()
    }

    fn create_combined<'a>(
        &'a self,
        whole: &'a Whole,
        parts: &'a [Terms],
        payer: Option<&'a Pii<String>>,
    ) -> BoxFuture<'a, Result<PaySheet, ChannelError>> {
        self.call(Call::CreateTogether, move |books| books.create_together(whole, parts, payer)).boxed()
    }

    fn query_combined<'a>(
        &'a self,
        whole: &'a Whole,
        parts: &'a [Terms],
    ) -> BoxFuture<'a, Result<Vec<OrderStatus>, ChannelError>> {
        let told = move |books: &mut Books| {
            books.is_whole(whole, parts)?;
            parts.iter().map(|terms| books.status(terms)).collect()
        };
        self.call(Call::QueryTogether, told).boxed()
    }

    fn close_combined<'a>(&'a self, whole: &'a Whole, parts: &'a [Terms]) -> BoxFuture<'a, Result<(), ChannelError>> {
        let closed = move |books: &mut Books| {
            books.is_whole(whole, parts)?;
            parts.iter().try_for_each(|terms| books.close(terms))
        };
        self.call(Call::CloseTogether, closed).boxed()
    }

    fn refund<'a>(&'a self, terms: &'a Terms, refund: &'a Refund) -> BoxFuture<'a, Result<RefundStatus, ChannelError>> {
        self.call(Call::Refund, move |books| books.refund(terms, refund)).boxed()
    }

    fn query_refund<'a>(
        &'a self,
        _: &'a Terms,
        refund: &'a Refund,
    ) -> BoxFuture<'a, Result<RefundStatus, ChannelError>> {
        let number = refund.channel_refund_no();
        self.call(Call::QueryRefund, move |books| {
            books.refunds.get(&number).map(|back| back.status(&number)).ok_or(ChannelError::NotKnown)
        })
        .boxed()
    }

    fn open_callback<'a>(
        &'a self,
        _: &'a str,
        _: &'a HeaderMap,
        _: &'a Bytes,
    ) -> BoxFuture<'a, Result<Notice, CallbackError>> {
        async { Ok(Notice::Other) }.boxed()
    }

    fn reply(&self, _: Option<&Refusal>) -> Response<Bytes> {
        Response::new(Bytes::new())
    }
}
