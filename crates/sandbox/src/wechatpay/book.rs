//! The state of the channel, and its rules: orders, refunds, and what still has to be called back. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::Timestamp;

use super::event::{CombineTerms, Event, PartPaid, RefundStatus, RefundTerms, Session, Terms, Whole};
use super::outcome::{self, ApiError};
use crate::kept::State;

mod mixed;

pub(super) use mixed::{Ends, Mixed};

/// How long a payment session lives.
const SESSION: Duration = Duration::from_secs(2 * 3_600);
/// How long an order without an end of its own lives.
const LIFE: Duration = Duration::from_secs(7 * 86_400);

/// An order.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub terms: Terms,
    pub session: Session,
    pub session_until: Timestamp,
    pub expires_at: Timestamp,
    pub paid: Option<Paid>,
    closed: bool,
    refunds: Vec<String>,
}

/// A payment.
#[derive(Clone, Debug)]
pub(super) struct Paid {
    pub transaction_id: String,
    pub openid: String,
    pub at: Timestamp,
}

/// A refund.
#[derive(Clone, Debug)]
pub(super) struct Refund {
    pub terms: RefundTerms,
    pub transaction_id: String,
    pub created_at: Timestamp,
    pub total_minor: i64,
    pub currency: String,
    pub status: RefundStatus,
    pub ended_at: Option<Timestamp>,
}

/// A callback that still has to be taken by its merchant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub id: String,
    pub about: About,
    pub created_at: Timestamp,
}

/// What a callback tells, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// A payment: merchant, order number.
    Paid(String, String),
    /// A payment of a combined order.
    Combined(Whole),
    /// A mixed order: merchant, order number.
    Mixed(String, String),
    /// A refund: merchant, refund number.
    Refunded(String, String),
}

/// How an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TradeState {
    Notpay,
    Success,
    Refund,
    Closed,
}

/// Everything that the channel knows.
#[derive(Debug, Default)]
pub(super) struct Book {
    orders: BTreeMap<(String, String), Order>,
    combines: BTreeMap<Whole, CombineTerms>,
    /// By the number that their cash legs have too.
    mixed: BTreeMap<(String, String), Mixed>,
    refunds: BTreeMap<(String, String), Refund>,
    /// Transaction id → order.
    transactions: BTreeMap<String, (String, String)>,
    /// Prepay id or link → order.
    sessions: BTreeMap<String, (String, String)>,
    processing: BTreeMap<(Timestamp, String), (String, String)>,
    notices: BTreeMap<String, Notice>,
}

/// A combined order with its parts as they stand.
#[derive(Clone, Debug)]
pub(super) struct Combine {
    pub terms: CombineTerms,
    pub parts: Vec<Order>,
}

impl Combine {
    /// How it stands, but for refunds, which each part has for itself.
    pub(super) fn state(&self, now: Timestamp) -> TradeState {
        self.parts.first().map_or(TradeState::Closed, |part| part.state(now))
    }

    /// The session in which all parts are paid.
    pub(super) fn session(&self) -> Session {
        self.parts.first().map(|part| part.session.clone()).unwrap_or_default()
    }
}

fn key(mchid: &str, number: &str) -> (String, String) {
    (mchid.to_owned(), number.to_owned())
}

impl Order {
    /// How it stands at a moment.
    pub(super) fn state(&self, now: Timestamp) -> TradeState {
        match () {
            () if self.paid.is_some() && !self.refunds.is_empty() => TradeState::Refund,
            () if self.paid.is_some() => TradeState::Success,
            () if self.closed || now >= self.expires_at => TradeState::Closed,
            () => TradeState::Notpay,
        }
    }
}

impl Book {
    // === reading ===

    /// Returns an order by its number.
    pub(super) fn order(&self, mchid: &str, out_trade_no: &str) -> Result<&Order, ApiError> {
        self.orders.get(&key(mchid, out_trade_no)).ok_or(outcome::NO_ORDER)
    }

    /// Returns an order by WeChat's own number.
    pub(super) fn order_of_transaction(&self, mchid: &str, transaction_id: &str) -> Result<&Order, ApiError> {
        let key = self.transactions.get(transaction_id).filter(|(owner, _)| owner == mchid);
        key.and_then(|key| self.orders.get(key)).ok_or(outcome::NO_ORDER)
    }

    /// Returns a refund by its number.
    pub(super) fn refund(&self, mchid: &str, out_refund_no: &str) -> Result<&Refund, ApiError> {
        self.refunds.get(&key(mchid, out_refund_no)).ok_or(outcome::NO_REFUND)
    }

    /// Finds the order of a prepay id, a code or a link.
    pub(super) fn order_of_session(&self, token: &str) -> Option<&Order> {
        self.sessions.get(token).and_then(|key| self.orders.get(key))
    }

    /// Finds the orders of an order number, of whatever merchant; the parts of the combined order of that number too.
    pub(super) fn orders_of_number<'a>(&'a self, out_trade_no: &'a str) -> impl Iterator<Item = &'a Order> {
        let is_part =
            move |terms: &Terms| terms.part_of.as_ref().is_some_and(|whole| whole.out_trade_no == out_trade_no);
        self.orders.values().filter(move |order| order.terms.out_trade_no == out_trade_no || is_part(&order.terms))
    }

    /// Returns what a payment took from the citizen and what came back, in fen, by WeChat's own number of it.
    pub(super) fn statement(&self, transaction_id: &str) -> Option<(i64, i64)> {
        let key = self.transactions.get(transaction_id)?;
        let order = self.orders.get(key)?;
        let back = self.refunds_of(order).filter(|refund| refund.status == RefundStatus::Success);
        Some((order.terms.amount_minor, back.map(|refund| refund.terms.amount_minor).sum()))
    }

    /// Returns the orders that wait for their payment, with the time they were made.
    pub(super) fn unpaid(&self, now: Timestamp) -> impl Iterator<Item = &Order> {
        self.orders.values().filter(move |order| order.state(now) == TradeState::Notpay)
    }

    /// Returns when the next refund comes to its end.
    pub(super) fn next_refund_end(&self) -> Option<Timestamp> {
        self.processing.keys().next().map(|(at, _)| *at)
    }

    /// Returns the callbacks that are not ended.
    pub(super) fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.notices.values()
    }

    /// Returns a callback that is not ended.
    pub(super) fn notice(&self, id: &str) -> Option<&Notice> {
        self.notices.get(id)
    }

    /// Returns an order by its number that is not a part of a combined one: those are asked for and closed as a whole.
    pub(super) fn own_order(&self, mchid: &str, out_trade_no: &str) -> Result<&Order, ApiError> {
        self.order(mchid, out_trade_no).and_then(|order| match order.terms.part_of {
            None => Ok(order),
            Some(_) => Err(outcome::NO_ORDER),
        })
    }

    /// Returns a combined order with its parts.
    pub(super) fn combine(&self, whole: &Whole) -> Result<Combine, ApiError> {
        let terms = self.combines.get(whole).ok_or(outcome::NO_ORDER)?;
        let part = |part: &Terms| self.order(&part.mchid, &part.out_trade_no).cloned();
        Ok(Combine { parts: terms.parts.iter().map(part).collect::<Result<_, _>>()?, terms: terms.clone() })
    }

    /// Finds the first part of a combined order.
    pub(super) fn first_part(&self, whole: &Whole) -> Option<&Order> {
        let part = self.combines.get(whole)?.parts.first()?;
        self.order(&part.mchid, &part.out_trade_no).ok()
    }

    /// Returns every order of a merchant.
    pub(super) fn orders_of<'a>(&'a self, mchid: &'a str) -> impl Iterator<Item = &'a Order> {
        let from = self.orders.range(key(mchid, "")..);
        from.take_while(move |((owner, _), _)| owner == mchid).map(|(_, order)| order)
    }

    /// Returns the refunds of an order.
    pub(super) fn refunds_of<'a>(&'a self, order: &'a Order) -> impl Iterator<Item = &'a Refund> {
        order.refunds.iter().filter_map(|number| self.refund(&order.terms.mchid, number).ok())
    }

    // === deciding ===

    /// Decides an order. `session` is for a new one.
    pub(super) fn create(&self, terms: &Terms, session: Session, now: Timestamp) -> Result<Vec<Event>, ApiError> {
        let Ok(earlier) = self.order(&terms.mchid, &terms.out_trade_no) else {
            if terms.expires_at.is_some_and(|at| at <= now) {
                return Err(outcome::bad_parameter("time_expire"));
            }
            return Ok(vec![Event::OrderCreated { terms: terms.clone(), session }]);
        };
        match earlier.state(now) {
            _ if earlier.terms.digest != terms.digest => Err(outcome::OTHER_PARAMETERS),
            TradeState::Success | TradeState::Refund => Err(outcome::PAID_ALREADY),
            TradeState::Closed => Err(outcome::CLOSED),
            TradeState::Notpay if now < earlier.session_until => Ok(Vec::new()),
            TradeState::Notpay => Ok(vec![Event::OrderRenewed {
                mchid: terms.mchid.clone(),
                out_trade_no: terms.out_trade_no.clone(),
                session,
            }]),
        }
    }

    /// Decides a payment by the citizen, who may have agreed to it before the order was closed.
    pub(super) fn pay(
        &self,
        order: &Order,
        paid: Paid,
        notice: String,
        although_closed: bool,
    ) -> Result<Vec<Event>, ApiError> {
        payable(order, paid.at, although_closed)?;
        Ok(vec![Event::OrderPaid {
            mchid: order.terms.mchid.clone(),
            out_trade_no: order.terms.out_trade_no.clone(),
            transaction_id: paid.transaction_id,
            amount_minor: order.terms.amount_minor,
            openid: order.terms.openid.clone().unwrap_or(paid.openid),
            notice,
        }])
    }

    /// Decides a closing. An order that is closed already is closed again without an event.
    pub(super) fn close(&self, mchid: &str, out_trade_no: &str, now: Timestamp) -> Result<Vec<Event>, ApiError> {
        let event = || Event::OrderClosed { mchid: mchid.to_owned(), out_trade_no: out_trade_no.to_owned() };
        closing(self.own_order(mchid, out_trade_no)?.state(now), event)
    }

    /// Decides a combined order. `session` is for a new one.
    pub(super) fn create_combine(
        &self,
        terms: &CombineTerms,
        session: Session,
        now: Timestamp,
    ) -> Result<Vec<Event>, ApiError> {
        let Ok(earlier) = self.combine(&terms.whole) else {
            if terms.parts.iter().any(|part| part.expires_at.is_some_and(|at| at <= now)) {
                return Err(outcome::bad_parameter("time_expire"));
            }
            if terms.parts.iter().any(|part| self.order(&part.mchid, &part.out_trade_no).is_ok()) {
                return Err(outcome::OTHER_PARAMETERS);
            }
            return Ok(vec![Event::CombineCreated { terms: terms.clone(), session }]);
        };
        match earlier.state(now) {
            _ if earlier.terms.digest != terms.digest => Err(outcome::OTHER_PARAMETERS),
            TradeState::Success | TradeState::Refund => Err(outcome::PAID_ALREADY),
            TradeState::Closed => Err(outcome::CLOSED),
            TradeState::Notpay if earlier.parts.iter().all(|part| now < part.session_until) => Ok(Vec::new()),
            TradeState::Notpay => Ok(vec![Event::CombineRenewed { whole: terms.whole.clone(), session }]),
        }
    }

    /// Decides the payment of a combined order; `number` makes WeChat's number of each part's payment.
    pub(super) fn pay_combine(
        &self,
        whole: &Whole,
        paid: &Paid,
        number: impl Fn() -> String,
        notice: String,
        although_closed: bool,
    ) -> Result<Vec<Event>, ApiError> {
        let combine = self.combine(whole)?;
        for part in &combine.parts {
            payable(part, paid.at, although_closed)?;
        }
        let part = |(index, order): (usize, &Order)| PartPaid {
            mchid: order.terms.mchid.clone(),
            out_trade_no: order.terms.out_trade_no.clone(),
            transaction_id: if index == 0 { paid.transaction_id.clone() } else { number() },
            amount_minor: order.terms.amount_minor,
        };
        let openid = combine.parts.iter().find_map(|order| order.terms.openid.clone());
        Ok(vec![Event::CombinePaid {
            whole: whole.clone(),
            parts: combine.parts.iter().enumerate().map(part).collect(),
            openid: openid.unwrap_or_else(|| paid.openid.clone()),
            notice,
        }])
    }

    /// Decides the closing of a combined order. It names every part.
    pub(super) fn close_combine(
        &self,
        whole: &Whole,
        parts: &[(String, String)],
        now: Timestamp,
    ) -> Result<Vec<Event>, ApiError> {
        let combine = self.combine(whole)?;
        let mut own: Vec<_> = combine.terms.parts.iter().map(|part| key(&part.mchid, &part.out_trade_no)).collect();
        let mut named = parts.to_vec();
        own.sort();
        named.sort();
        if own != named {
            return Err(outcome::bad_parameter("sub_orders"));
        }
        closing(combine.state(now), || Event::CombineClosed { whole: whole.clone() })
    }

    /// Decides the end of a refund that is in process, as somebody at WeChat would; one that reached nobody is sent another way.
    pub(super) fn end_refund(
        &self,
        mchid: &str,
        out_refund_no: &str,
        status: RefundStatus,
    ) -> Result<Vec<Event>, ApiError> {
        let refund = self.refund(mchid, out_refund_no)?;
        match (refund.status, status) {
            (RefundStatus::Processing, RefundStatus::Success | RefundStatus::Closed | RefundStatus::Abnormal)
            | (RefundStatus::Abnormal, RefundStatus::Success) => {}
            _ => return Err(outcome::OTHER_REFUND),
        }
        Ok(vec![ended(refund, status)])
    }

    /// Decides a refund. `total_minor` is what the caller believes the order's amount to be.
    pub(super) fn create_refund(&self, terms: &RefundTerms, total_minor: i64) -> Result<Vec<Event>, ApiError> {
        if let Ok(earlier) = self.refund(&terms.mchid, &terms.out_refund_no) {
            let same = earlier.terms.digest == terms.digest;
            return if same { Ok(Vec::new()) } else { Err(outcome::OTHER_REFUND) };
        }
        let order = self.order(&terms.mchid, &terms.out_trade_no).map_err(|_| outcome::NO_REFUND)?;
        if order.paid.is_none() {
            return Err(outcome::REFUND_OF_UNPAID);
        }
        let refunded: i64 = order.refunds.iter().filter_map(|number| self.kept_by_refund(&terms.mchid, number)).sum();
        if total_minor != order.terms.amount_minor || refunded + terms.amount_minor > total_minor {
            return Err(outcome::TOO_MUCH);
        }
        Ok(vec![Event::RefundCreated(terms.clone())])
    }

    /// What a refund keeps of its order's amount; nothing once it is closed.
    fn kept_by_refund(&self, mchid: &str, number: &str) -> Option<i64> {
        let refund = self.refunds.get(&key(mchid, number))?;
        (refund.status != RefundStatus::Closed).then_some(refund.terms.amount_minor)
    }

    // === changing ===

    fn open_session(&mut self, key: &(String, String), session: &Session) {
        for token in [&session.prepay_id, &session.link] {
            if !token.is_empty() {
                self.sessions.insert(token.clone(), key.clone());
            }
        }
    }

    fn apply_created(&mut self, terms: &Terms, session: &Session, at: Timestamp) {
        let key = key(&terms.mchid, &terms.out_trade_no);
        self.open_session(&key, session);
        let order = Order {
            expires_at: terms.expires_at.unwrap_or(at.plus(LIFE)),
            session_until: at.plus(SESSION),
            session: session.clone(),
            terms: terms.clone(),
            paid: None,
            closed: false,
            refunds: Vec::new(),
        };
        self.orders.insert(key, order);
    }

    fn apply_renewed(&mut self, key: &(String, String), session: &Session, at: Timestamp) {
        self.open_session(key, session);
        if let Some(order) = self.orders.get_mut(key) {
            order.session = session.clone();
            order.session_until = at.plus(SESSION);
        }
    }

    fn apply_paid(&mut self, key: &(String, String), transaction_id: &str, openid: &str, at: Timestamp) {
        let Some(order) = self.orders.get_mut(key) else { return };
        order.paid = Some(Paid { transaction_id: transaction_id.to_owned(), openid: openid.to_owned(), at });
        self.transactions.insert(transaction_id.to_owned(), key.clone());
    }

    fn apply_closed(&mut self, key: &(String, String)) {
        if let Some(order) = self.orders.get_mut(key) {
            order.closed = true;
        }
    }

    fn parts(&self, whole: &Whole) -> Vec<(String, String)> {
        let parts = self.combines.get(whole).into_iter().flat_map(|terms| &terms.parts);
        parts.map(|part| key(&part.mchid, &part.out_trade_no)).collect()
    }

    fn notify(&mut self, id: &str, about: About, at: Timestamp) {
        self.notices.insert(id.to_owned(), Notice { id: id.to_owned(), about, created_at: at });
    }

    fn apply_refund(&mut self, terms: &RefundTerms, at: Timestamp) {
        let Some(order) = self.orders.get_mut(&key(&terms.mchid, &terms.out_trade_no)) else { return };
        order.refunds.push(terms.out_refund_no.clone());
        let refund = Refund {
            transaction_id: order.paid.as_ref().map(|paid| paid.transaction_id.clone()).unwrap_or_default(),
            total_minor: order.terms.amount_minor,
            currency: order.terms.currency.clone(),
            created_at: at,
            status: RefundStatus::Processing,
            ended_at: None,
            terms: terms.clone(),
        };
        let key = key(&terms.mchid, &terms.out_refund_no);
        self.processing.insert((terms.due, terms.refund_id.clone()), key.clone());
        self.refunds.insert(key, refund);
    }

    fn apply_refund_end(&mut self, key: (String, String), status: RefundStatus, at: Timestamp) {
        let Some(refund) = self.refunds.get_mut(&key) else { return };
        refund.status = status;
        refund.ended_at = Some(at);
        self.processing.remove(&(refund.terms.due, refund.terms.refund_id.clone()));
        if refund.terms.notify_url.is_some() {
            let id = refund.terms.notice.clone();
            self.notify(&id, About::Refunded(key.0, key.1), at);
        }
    }
}

/// Whether the citizen can pay an order at this moment.
fn payable(order: &Order, at: Timestamp, although_closed: bool) -> Result<(), ApiError> {
    match order.state(at) {
        TradeState::Success | TradeState::Refund => Err(outcome::PAID_ALREADY),
        TradeState::Closed if !although_closed => Err(outcome::CLOSED),
        TradeState::Notpay if !although_closed && at >= order.session_until => Err(outcome::CLOSED),
        TradeState::Notpay | TradeState::Closed => Ok(()),
    }
}

/// What closing does to what stands so. What is closed already is closed again without an event.
fn closing(state: TradeState, event: impl FnOnce() -> Event) -> Result<Vec<Event>, ApiError> {
    match state {
        TradeState::Success | TradeState::Refund => Err(outcome::CLOSE_OF_PAID),
        TradeState::Closed => Ok(Vec::new()),
        TradeState::Notpay => Ok(vec![event()]),
    }
}

fn ended(refund: &Refund, status: RefundStatus) -> Event {
    Event::RefundEnded {
        mchid: refund.terms.mchid.clone(),
        out_refund_no: refund.terms.out_refund_no.clone(),
        amount_minor: refund.terms.amount_minor,
        status,
    }
}

impl State for Book {
    type Event = Event;

    fn due(&self, now: Timestamp) -> Vec<Event> {
        let due = self.processing.iter().take_while(|((at, _), _)| *at <= now);
        due.filter_map(|(_, key)| self.refunds.get(key)).map(|refund| ended(refund, refund.terms.ends)).collect()
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::OrderCreated { terms, session } => self.apply_created(terms, session, at),
            Event::OrderRenewed { mchid, out_trade_no, session } => {
                self.apply_renewed(&key(mchid, out_trade_no), session, at);
            }
            Event::OrderPaid { mchid, out_trade_no, transaction_id, openid, notice, .. } => {
                let key = key(mchid, out_trade_no);
                self.apply_paid(&key, transaction_id, openid, at);
                self.notify(notice, About::Paid(key.0, key.1), at);
            }
            Event::OrderClosed { mchid, out_trade_no } => self.apply_closed(&key(mchid, out_trade_no)),
            Event::CombineCreated { terms, session } => {
                // The session is the first part's; it pays them all.
                for part in &terms.parts {
                    self.apply_created(part, session, at);
                }
                self.combines.insert(terms.whole.clone(), terms.clone());
            }
            Event::CombineRenewed { whole, session } => {
                self.parts(whole).iter().for_each(|part| self.apply_renewed(part, session, at));
            }
            Event::CombinePaid { whole, parts, openid, notice } => {
                for part in parts {
                    self.apply_paid(&key(&part.mchid, &part.out_trade_no), &part.transaction_id, openid, at);
                }
                self.notify(notice, About::Combined(whole.clone()), at);
            }
            Event::CombineClosed { whole } => self.parts(whole).iter().for_each(|part| self.apply_closed(part)),
            Event::MixedCreated(_)
            | Event::InsurancePaid { .. }
            | Event::LegFailed { .. }
            | Event::MixedPaid { .. }
            | Event::InsuranceReturned { .. } => self.apply_mixed(event, at),
            Event::RefundCreated(terms) => self.apply_refund(terms, at),
            Event::RefundEnded { mchid, out_refund_no, status, .. } => {
                self.apply_refund_end(key(mchid, out_refund_no), *status, at);
            }
            Event::NoticeEnded { notice, .. } => {
                self.notices.remove(notice);
            }
        }
    }
}

#[cfg(test)]
mod tests;
