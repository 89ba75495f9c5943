//! The state of the channel, and its rules: orders, trades, refunds, and what still has to be told. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::civil::Date;
use runtime::Timestamp;

use super::event::{Event, RefundTerms, Terms};
use super::outcome::{self, ApiError};
use crate::beijing;
use crate::kept::State;

/// How long an order without an end of its own can be opened.
const OFFER: Duration = Duration::from_secs(2 * 3_600);
/// How long a trade without an end of its own waits for its payment.
const TRADE: Duration = Duration::from_secs(15 * 86_400);

/// An order by its merchant and number.
pub(super) type Key = (String, String);

/// An order.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub terms: Terms,
    pub token: String,
    pub offered_until: Timestamp,
    pub trade: Option<Trade>,
}

/// What an order is from the moment on in which the citizen opens it.
#[derive(Clone, Debug)]
pub(super) struct Trade {
    pub trade_no: String,
    pub buyer_id: String,
    pub created_at: Timestamp,
    pub until: Timestamp,
    pub paid_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    finished: bool,
    /// Every refund that was taken, by its number, in the order of taking.
    pub refunds: Vec<Refund>,
}

/// A refund.
#[derive(Clone, Debug)]
pub(super) struct Refund {
    pub terms: RefundTerms,
    pub done: Option<Done>,
}

/// The end of a refund.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub at: Timestamp,
    /// What all refunds of the trade together gave back then.
    pub sum_minor: i64,
}

/// A notice that still has to be taken by its merchant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub key: Key,
    pub about: About,
}

/// What a notice tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    Waiting,
    Paid,
    Closed,
    Finished,
    /// A refund, by its number.
    Refunded(String),
}

/// How a trade stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    WaitBuyerPay,
    Success,
    Finished,
    Closed,
}

/// What names a trade; where both are given the first counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    pub trade_no: Option<String>,
    pub out_trade_no: Option<String>,
}

/// A movement of money, for a bill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Movement<'a> {
    pub order: &'a Order,
    pub trade: &'a Trade,
    pub at: Timestamp,
    /// The refund, where it is one.
    pub refund: Option<&'a RefundTerms>,
}

/// Everything that the channel knows.
#[derive(Debug, Default)]
pub(super) struct Book {
    orders: BTreeMap<Key, Order>,
    /// Trade number → order.
    trades: BTreeMap<String, Key>,
    /// What a code or a page stands for → order.
    tokens: BTreeMap<String, Key>,
    /// Unpaid trades by their end.
    ending: BTreeSet<(Timestamp, Key)>,
    /// Refunds by the time at which they are done.
    processing: BTreeSet<(Timestamp, Key, String)>,
    notices: BTreeMap<String, Notice>,
}

impl Order {
    pub(super) fn key(&self) -> Key {
        (self.terms.pid.clone(), self.terms.out_trade_no.clone())
    }
}

impl Trade {
    /// How it stands.
    pub(super) fn status(&self, amount_minor: i64) -> Status {
        match () {
            () if self.finished => Status::Finished,
            () if self.closed_at.is_some() => Status::Closed,
            () if self.paid_at.is_some() && self.refunded_minor() >= amount_minor => Status::Closed,
            () if self.paid_at.is_some() => Status::Success,
            () => Status::WaitBuyerPay,
        }
    }

    /// What came back of it.
    pub(super) fn refunded_minor(&self) -> i64 {
        self.refunds.iter().filter(|refund| refund.done.is_some()).map(|refund| refund.terms.amount_minor).sum()
    }

    /// What came back of it or is on its way.
    fn given_minor(&self) -> i64 {
        self.refunds.iter().map(|refund| refund.terms.amount_minor).sum()
    }

    /// Returns a refund by its number.
    pub(super) fn refund(&self, out_request_no: &str) -> Option<&Refund> {
        self.refunds.iter().find(|refund| refund.terms.out_request_no == out_request_no)
    }
}

impl Notice {
    /// The notice's id: the same for every attempt, and for nothing else that is told.
    fn id(&self) -> String {
        let text = format!("{}\n{}\n{:?}", self.key.0, self.key.1, self.about);
        let digest = hex::encode(digest::digest(&digest::SHA256, text.as_bytes()));
        digest.chars().take(34).collect()
    }
}

impl Book {
    // === reading ===

    /// Returns an order by its number.
    pub(super) fn order(&self, key: &Key) -> Option<&Order> {
        self.orders.get(key)
    }

    /// Finds the order that a merchant names, once it is a trade.
    pub(super) fn trade(&self, pid: &str, named: &Selector) -> Result<(&Order, &Trade), ApiError> {
        let key = match (&named.trade_no, &named.out_trade_no) {
            (Some(number), _) => self.trades.get(number).filter(|(owner, _)| owner == pid).cloned(),
            (None, Some(number)) => Some((pid.to_owned(), number.clone())),
            (None, None) => return Err(outcome::bad_parameter("out_trade_no")),
        };
        let order = key.and_then(|key| self.orders.get(&key));
        order.and_then(|order| Some((order, order.trade.as_ref()?))).ok_or_else(outcome::no_trade)
    }

    /// Finds the order of a code or a page.
    pub(super) fn order_of_token(&self, token: &str) -> Option<&Order> {
        self.tokens.get(token).and_then(|key| self.orders.get(key))
    }

    /// Finds the order of a trade number.
    pub(super) fn order_of_trade(&self, trade_no: &str) -> Option<&Order> {
        self.trades.get(trade_no).and_then(|key| self.orders.get(key))
    }

    /// Finds the orders of an order number, of whatever merchant.
    pub(super) fn orders_of_number<'a>(&'a self, out_trade_no: &'a str) -> impl Iterator<Item = &'a Order> {
        self.orders.values().filter(move |order| order.terms.out_trade_no == out_trade_no)
    }

    /// Returns what a trade took from the citizen and what came back, in fen.
    pub(super) fn statement(&self, trade_no: &str) -> Option<(i64, i64)> {
        let order = self.order_of_trade(trade_no)?;
        let trade = order.trade.as_ref()?;
        trade.paid_at.map(|_| (order.terms.amount_minor, trade.refunded_minor()))
    }

    /// Returns the orders that can still be paid.
    pub(super) fn unpaid(&self, now: Timestamp) -> impl Iterator<Item = &Order> {
        self.orders.values().filter(move |order| match &order.trade {
            None => now < order.offered_until,
            Some(trade) => trade.status(order.terms.amount_minor) == Status::WaitBuyerPay,
        })
    }

    /// Returns when something falls due by itself.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let ending = self.ending.first().map(|(at, _)| *at);
        let processing = self.processing.first().map(|(at, ..)| *at);
        ending.into_iter().chain(processing).min()
    }

    /// Returns the notices that are not ended, by id.
    pub(super) fn notices(&self) -> impl Iterator<Item = (&String, &Notice)> {
        self.notices.iter()
    }

    /// Returns a notice that is not ended.
    pub(super) fn notice(&self, id: &str) -> Option<&Notice> {
        self.notices.get(id)
    }

    /// Returns what moved at a merchant on days from the first to the last, in the order of time.
    pub(super) fn movements(&self, pid: &str, first: Date, last: Date) -> Vec<Movement<'_>> {
        let mut movements = Vec::new();
        for order in self.orders.values().filter(|order| order.terms.pid == pid) {
            let Some(trade) = &order.trade else { continue };
            movements.extend(trade.paid_at.map(|at| Movement { order, trade, at, refund: None }));
            movements.extend(trade.refunds.iter().filter_map(|refund| {
                Some(Movement { order, trade, at: refund.done?.at, refund: Some(&refund.terms) })
            }));
        }
        movements.retain(|movement| (first..=last).contains(&beijing::day(movement.at)));
        movements.sort_by_key(|movement| movement.at);
        movements
    }

    // === deciding ===

    /// Decides an offer. `token` is for a new one.
    pub(super) fn offer(&self, terms: &Terms, token: String, now: Timestamp) -> Result<Vec<Event>, ApiError> {
        let offered = || Ok(vec![Event::Offered { terms: terms.clone(), token }]);
        let Some(earlier) = self.orders.get(&(terms.pid.clone(), terms.out_trade_no.clone())) else {
            return if terms.expires_at.is_some_and(|at| at <= now) {
                Err(outcome::bad_parameter("time_expire"))
            } else {
                offered()
            };
        };
        if earlier.terms.digest != terms.digest {
            return Err(outcome::other_parameters());
        }
        match &earlier.trade {
            None if now < earlier.offered_until => Ok(Vec::new()),
            None => offered(),
            Some(trade) => match trade.status(earlier.terms.amount_minor) {
                Status::WaitBuyerPay => Ok(Vec::new()),
                Status::Success | Status::Finished => Err(outcome::paid()),
                Status::Closed => Err(outcome::closed()),
            },
        }
    }

    /// Decides that the citizen opens an order. `new` is for a trade that is not yet.
    pub(super) fn open(&self, order: &Order, new: (String, String), now: Timestamp) -> Result<Vec<Event>, ApiError> {
        if order.trade.is_some() {
            return Ok(Vec::new());
        }
        if now >= order.offered_until {
            return Err(outcome::closed());
        }
        Ok(vec![order.terms.opened(new, true)])
    }

    /// Decides a payment by the citizen, who may have agreed to it before the trade was closed.
    pub(super) fn pay(
        &self,
        order: &Order,
        new: (String, String),
        now: Timestamp,
        although_closed: bool,
    ) -> Result<Vec<Event>, ApiError> {
        let terms = &order.terms;
        let paid = |trade_no: String| Event::Paid {
            pid: terms.pid.clone(),
            out_trade_no: terms.out_trade_no.clone(),
            trade_no,
            amount_minor: terms.amount_minor,
        };
        match &order.trade {
            None if now >= order.offered_until && !although_closed => Err(outcome::closed()),
            None => Ok(vec![order.terms.opened(new.clone(), false), paid(new.0)]),
            Some(trade) if trade.paid_at.is_some() => Err(outcome::paid()),
            Some(trade) if trade.closed_at.is_some() && !although_closed => Err(outcome::closed()),
            Some(trade) => Ok(vec![paid(trade.trade_no.clone())]),
        }
    }

    /// Decides a closing.
    pub(super) fn close(&self, pid: &str, named: &Selector) -> Result<Vec<Event>, ApiError> {
        let (order, trade) = self.trade(pid, named)?;
        match trade.status(order.terms.amount_minor) {
            Status::WaitBuyerPay => Ok(vec![order.closed()]),
            Status::Success | Status::Finished | Status::Closed => Err(outcome::bad_state()),
        }
    }

    /// Decides a cancelling (撤销): what is unpaid is closed, what is paid goes back whole.
    pub(super) fn cancel(&self, pid: &str, named: &Selector) -> Result<Vec<Event>, ApiError> {
        let (order, trade) = self.trade(pid, named)?;
        let terms = &order.terms;
        match trade.status(terms.amount_minor) {
            Status::WaitBuyerPay => Ok(vec![order.closed()]),
            Status::Closed => Ok(Vec::new()),
            Status::Finished => Err(outcome::finished()),
            Status::Success => {
                let refund = RefundTerms {
                    pid: terms.pid.clone(),
                    out_trade_no: terms.out_trade_no.clone(),
                    out_request_no: format!("{}-cancel", terms.out_trade_no),
                    amount_minor: terms.amount_minor - trade.given_minor(),
                    reason: None,
                    due: None,
                };
                if refund.amount_minor <= 0 {
                    return Ok(Vec::new());
                }
                let done = refund.done();
                Ok(vec![Event::RefundTaken(refund), done])
            }
        }
    }

    /// Decides that a trade takes no refund any more.
    pub(super) fn finish(&self, order: &Order) -> Result<Vec<Event>, ApiError> {
        let (pid, out_trade_no) = order.key();
        match order.trade.as_ref().map(|trade| trade.status(order.terms.amount_minor)) {
            None => Err(outcome::no_trade()),
            Some(Status::Success) => Ok(vec![Event::Finished { pid, out_trade_no }]),
            Some(Status::Finished) => Ok(Vec::new()),
            Some(Status::WaitBuyerPay | Status::Closed) => Err(outcome::bad_state()),
        }
    }

    /// Decides a refund. One that is not done although it should be is done when it is asked for again.
    pub(super) fn refund(&self, order: &Order, terms: &RefundTerms, now: Timestamp) -> Result<Vec<Event>, ApiError> {
        let trade = order.trade.as_ref().ok_or_else(outcome::no_trade)?;
        if let Some(earlier) = trade.refund(&terms.out_request_no) {
            return match (&earlier.done, earlier.terms.due) {
                _ if earlier.terms.amount_minor != terms.amount_minor => Err(outcome::other_refund()),
                (None, None) => Ok(vec![earlier.terms.done()]),
                (None, Some(_)) | (Some(_), _) => Ok(Vec::new()),
            };
        }
        match trade.status(order.terms.amount_minor) {
            Status::Success => {}
            Status::Finished => return Err(outcome::finished()),
            Status::WaitBuyerPay | Status::Closed => return Err(outcome::bad_state()),
        }
        if trade.given_minor() + terms.amount_minor > order.terms.amount_minor {
            return Err(outcome::too_much());
        }
        let mut events = vec![Event::RefundTaken(terms.clone())];
        if terms.due.is_some_and(|due| due <= now) {
            events.push(terms.done());
        }
        Ok(events)
    }

    // === changing ===

    fn tell(&mut self, key: &Key, about: About) {
        let is_wanted = self.orders.get(key).is_some_and(|order| order.terms.notify_url.is_some());
        if is_wanted {
            let notice = Notice { key: key.clone(), about };
            self.notices.insert(notice.id(), notice);
        }
    }

    fn apply_offered(&mut self, terms: &Terms, token: &str, at: Timestamp) {
        let key = (terms.pid.clone(), terms.out_trade_no.clone());
        self.tokens.insert(token.to_owned(), key.clone());
        let offered_until = terms.expires_at.unwrap_or(at.plus(OFFER));
        self.orders.insert(key, Order { terms: terms.clone(), token: token.to_owned(), offered_until, trade: None });
    }

    fn apply_opened(&mut self, key: &Key, trade_no: &str, buyer_id: &str, at: Timestamp) {
        let Some(order) = self.orders.get_mut(key) else { return };
        let until = order.terms.expires_at.unwrap_or(at.plus(TRADE));
        order.trade = Some(Trade {
            trade_no: trade_no.to_owned(),
            buyer_id: buyer_id.to_owned(),
            created_at: at,
            until,
            paid_at: None,
            closed_at: None,
            finished: false,
            refunds: Vec::new(),
        });
        self.ending.insert((until, key.clone()));
        self.trades.insert(trade_no.to_owned(), key.clone());
    }

    fn change_trade(&mut self, key: &Key, change: impl FnOnce(&mut Trade)) {
        let Some(trade) = self.orders.get_mut(key).and_then(|order| order.trade.as_mut()) else { return };
        change(trade);
        self.ending.remove(&(trade.until, key.clone()));
    }

    fn apply_refund_taken(&mut self, terms: &RefundTerms) {
        let key = terms.key();
        self.change_trade(&key, |trade| trade.refunds.push(Refund { terms: terms.clone(), done: None }));
        self.processing.extend(terms.due.map(|due| (due, key, terms.out_request_no.clone())));
    }

    fn apply_refund_done(&mut self, key: &Key, out_request_no: &str, at: Timestamp) {
        let Some(trade) = self.orders.get_mut(key).and_then(|order| order.trade.as_mut()) else { return };
        let before = trade.refunded_minor();
        let Some(refund) = trade.refunds.iter_mut().find(|refund| refund.terms.out_request_no == out_request_no) else {
            return;
        };
        refund.done = Some(Done { at, sum_minor: before + refund.terms.amount_minor });
        if let Some(due) = refund.terms.due {
            self.processing.remove(&(due, key.clone(), out_request_no.to_owned()));
        }
        self.tell(key, About::Refunded(out_request_no.to_owned()));
    }
}

impl Terms {
    /// The opening of an order. `waits` tells whether its merchant hears of it.
    pub(super) fn opened(&self, (trade_no, buyer_id): (String, String), waits: bool) -> Event {
        let buyer_id = self.buyer_id.clone().unwrap_or(buyer_id);
        Event::Opened { pid: self.pid.clone(), out_trade_no: self.out_trade_no.clone(), trade_no, buyer_id, waits }
    }
}

impl Order {
    fn closed(&self) -> Event {
        let (pid, out_trade_no) = self.key();
        Event::Closed { pid, out_trade_no }
    }
}

impl RefundTerms {
    fn key(&self) -> Key {
        (self.pid.clone(), self.out_trade_no.clone())
    }

    fn done(&self) -> Event {
        Event::RefundDone {
            pid: self.pid.clone(),
            out_trade_no: self.out_trade_no.clone(),
            out_request_no: self.out_request_no.clone(),
            amount_minor: self.amount_minor,
        }
    }
}

impl State for Book {
    type Event = Event;

    fn due(&self, now: Timestamp) -> Vec<Event> {
        let ended = self.ending.iter().take_while(|(at, _)| *at <= now);
        let ended = ended.filter_map(|(_, key)| self.orders.get(key)).map(Order::closed);
        let done = self.processing.iter().take_while(|(at, ..)| *at <= now).filter_map(|(_, key, number)| {
            let trade = self.orders.get(key)?.trade.as_ref()?;
            trade.refund(number).map(|refund| refund.terms.done())
        });
        ended.chain(done).collect()
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Offered { terms, token } => self.apply_offered(terms, token, at),
            Event::Opened { pid, out_trade_no, trade_no, buyer_id, waits } => {
                let key = (pid.clone(), out_trade_no.clone());
                self.apply_opened(&key, trade_no, buyer_id, at);
                if *waits {
                    self.tell(&key, About::Waiting);
                }
            }
            Event::Paid { pid, out_trade_no, .. } => {
                let key = (pid.clone(), out_trade_no.clone());
                self.change_trade(&key, |trade| (trade.paid_at, trade.closed_at) = (Some(at), None));
                self.tell(&key, About::Paid);
            }
            Event::Closed { pid, out_trade_no } => {
                let key = (pid.clone(), out_trade_no.clone());
                self.change_trade(&key, |trade| trade.closed_at = Some(at));
                self.tell(&key, About::Closed);
            }
            Event::Finished { pid, out_trade_no } => {
                let key = (pid.clone(), out_trade_no.clone());
                self.change_trade(&key, |trade| trade.finished = true);
                self.tell(&key, About::Finished);
            }
            Event::RefundTaken(terms) => self.apply_refund_taken(terms),
            Event::RefundDone { pid, out_trade_no, out_request_no, .. } => {
                self.apply_refund_done(&(pid.clone(), out_trade_no.clone()), out_request_no, at);
            }
            Event::NoticeEnded { notice, .. } => {
                self.notices.remove(notice);
            }
        }
    }
}

#[cfg(test)]
mod tests;
