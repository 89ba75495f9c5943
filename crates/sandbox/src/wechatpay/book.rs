//! The state of the channel, and its rules: orders, refunds, and what still has to be called back. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::Timestamp;

use super::event::{Event, RefundStatus, RefundTerms, Session, Terms};
use super::outcome::{self, ApiError};
use crate::kept::State;

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
    refunds: BTreeMap<(String, String), Refund>,
    /// Transaction id → order.
    transactions: BTreeMap<String, (String, String)>,
    /// Prepay id or link → order.
    sessions: BTreeMap<String, (String, String)>,
    processing: BTreeMap<(Timestamp, String), (String, String)>,
    notices: BTreeMap<String, Notice>,
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

    /// Finds the orders of an order number, of whatever merchant.
    pub(super) fn orders_of_number<'a>(&'a self, out_trade_no: &'a str) -> impl Iterator<Item = &'a Order> {
        self.orders.values().filter(move |order| order.terms.out_trade_no == out_trade_no)
    }

    /// Returns what a payment took from the citizen and what came back, in fen, by WeChat's own number of it.
    pub(super) fn statement(&self, transaction_id: &str) -> Option<(i64, i64)> {
        let key = self.transactions.get(transaction_id)?;
        let order = self.orders.get(key)?;
        let refunds = order.refunds.iter().filter_map(|number| self.refund(&key.0, number).ok());
        let back = refunds.filter(|refund| refund.status == RefundStatus::Success);
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
        match order.state(paid.at) {
            TradeState::Success | TradeState::Refund => Err(outcome::PAID_ALREADY),
            TradeState::Closed if !although_closed => Err(outcome::CLOSED),
            TradeState::Notpay if !although_closed && paid.at >= order.session_until => Err(outcome::CLOSED),
            TradeState::Notpay | TradeState::Closed => Ok(vec![Event::OrderPaid {
                mchid: order.terms.mchid.clone(),
                out_trade_no: order.terms.out_trade_no.clone(),
                transaction_id: paid.transaction_id,
                amount_minor: order.terms.amount_minor,
                openid: order.terms.openid.clone().unwrap_or(paid.openid),
                notice,
            }]),
        }
    }

    /// Decides a closing. An order that is closed already is closed again without an event.
    pub(super) fn close(&self, mchid: &str, out_trade_no: &str, now: Timestamp) -> Result<Vec<Event>, ApiError> {
        let order = self.order(mchid, out_trade_no)?;
        match order.state(now) {
            TradeState::Success | TradeState::Refund => Err(outcome::CLOSE_OF_PAID),
            TradeState::Closed => Ok(Vec::new()),
            TradeState::Notpay => {
                Ok(vec![Event::OrderClosed { mchid: mchid.to_owned(), out_trade_no: out_trade_no.to_owned() }])
            }
        }
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

    /// What a refund keeps of its order's amount; nothing once it has failed.
    fn kept_by_refund(&self, mchid: &str, number: &str) -> Option<i64> {
        let refund = self.refunds.get(&key(mchid, number))?;
        (refund.status != RefundStatus::Abnormal).then_some(refund.terms.amount_minor)
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
            self.notices.insert(id.clone(), Notice { id, about: About::Refunded(key.0, key.1), created_at: at });
        }
    }
}

impl State for Book {
    type Event = Event;

    fn due(&self, now: Timestamp) -> Vec<Event> {
        let due = self.processing.iter().take_while(|((at, _), _)| *at <= now);
        let ended = |refund: &Refund| Event::RefundEnded {
            mchid: refund.terms.mchid.clone(),
            out_refund_no: refund.terms.out_refund_no.clone(),
            amount_minor: refund.terms.amount_minor,
            status: refund.terms.ends,
        };
        due.filter_map(|(_, key)| self.refunds.get(key)).map(ended).collect()
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::OrderCreated { terms, session } => self.apply_created(terms, session, at),
            Event::OrderRenewed { mchid, out_trade_no, session } => {
                let key = key(mchid, out_trade_no);
                self.open_session(&key, session);
                if let Some(order) = self.orders.get_mut(&key) {
                    order.session = session.clone();
                    order.session_until = at.plus(SESSION);
                }
            }
            Event::OrderPaid { mchid, out_trade_no, transaction_id, openid, notice, .. } => {
                let key = key(mchid, out_trade_no);
                let Some(order) = self.orders.get_mut(&key) else { return };
                order.paid = Some(Paid { transaction_id: transaction_id.clone(), openid: openid.clone(), at });
                self.transactions.insert(transaction_id.clone(), key.clone());
                let about = About::Paid(key.0, key.1);
                self.notices.insert(notice.clone(), Notice { id: notice.clone(), about, created_at: at });
            }
            Event::OrderClosed { mchid, out_trade_no } => {
                if let Some(order) = self.orders.get_mut(&key(mchid, out_trade_no)) {
                    order.closed = true;
                }
            }
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
