//! An order: what a citizen is asked to pay, and what became of it.
//!
//! Every step is a function of the order as it stands and of what was learnt; it answers with the order as it will stand, the entries
//! for the ledger and the events to tell. `None` means that the step has been taken before and nothing is to be done.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use contracts::ids::OrderId;
use contracts::money::Money;
use runtime::Timestamp;

use super::combined::Part;
use super::insurance::{BadReturn, Insured, Leg, Legs};
use super::ledger::{Account, Entry, Merchant, Transfer, TransferId};

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Being created at the channel; it may or may not exist there.
    Creating,
    /// The citizen can pay.
    Waiting,
    /// The money stands in suspense.
    Paid,
    /// The money is the payee's.
    Posted,
    /// Closed and unpaid at the channel; or paid too late, which `is_late` tells.
    Closed,
    /// Money is going back.
    Refunding,
    /// All captured money went back.
    Refunded,
    /// The channel refused to create it.
    Refused,
}

/// How the citizen pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TradeType {
    /// Inside the super app.
    Jsapi,
    /// By a QR code.
    Native,
    /// In a native app.
    App,
    /// In a phone's browser.
    H5,
    /// In a desktop browser.
    Web,
}

/// The text names no state or trade type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known word")]
pub struct BadWord;

const STATES: [(State, &str); 8] = [
    (State::Creating, "creating"),
    (State::Waiting, "waiting"),
    (State::Paid, "paid"),
    (State::Posted, "posted"),
    (State::Closed, "closed"),
    (State::Refunding, "refunding"),
    (State::Refunded, "refunded"),
    (State::Refused, "refused"),
];

const TRADE_TYPES: [(TradeType, &str); 5] = [
    (TradeType::Jsapi, "jsapi"),
    (TradeType::Native, "native"),
    (TradeType::App, "app"),
    (TradeType::H5, "h5"),
    (TradeType::Web, "web"),
];

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = STATES.iter().find(|(state, _)| state == self).map(|(_, word)| *word);
        f.write_str(word.unwrap_or_default())
    }
}

impl FromStr for State {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        STATES.iter().find(|(_, word)| *word == text).map(|(state, _)| *state).ok_or(BadWord)
    }
}

impl fmt::Display for TradeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = TRADE_TYPES.iter().find(|(trade_type, _)| trade_type == self).map(|(_, word)| *word);
        f.write_str(word.unwrap_or_default())
    }
}

impl FromStr for TradeType {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        TRADE_TYPES.iter().find(|(_, word)| *word == text).map(|(trade_type, _)| *trade_type).ok_or(BadWord)
    }
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What was asked; never changes.
    pub terms: Arc<Terms>,
    /// What makes it a part of a combined order; never changes.
    pub part: Option<Part>,
    /// Counts the changes; the store refuses a change that was decided on another version.
    pub version: i64,
    /// Where it stands.
    pub state: State,
    /// The channel may have heard of it.
    pub is_sent: bool,
    /// Somebody asked to close it.
    pub is_closing: bool,
    /// Money came after it was closed.
    pub is_late: bool,
    /// The payer at the channel, sealed; erased as soon as the order exists there.
    pub payer_sealed: Option<Vec<u8>>,
    /// What the citizen's client needs, as it was answered; opaque here.
    pub sheet: Option<Vec<u8>>,
    /// The channel's number of the payment.
    pub channel_transaction: Option<String>,
    /// When the channel took the money.
    pub paid_at: Option<Timestamp>,
    /// The department's serial number of the proof.
    pub proof_serial: Option<String>,
    /// The channel's code for its refusal.
    pub refusal: Option<String>,
    /// Sums of money.
    pub tally: Tally,
    /// Of a mixed order, the refunds that were accepted and did not fail, by leg.
    pub given: Legs,
}

/// What an order asks, frozen when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Id.
    pub id: OrderId,
    /// Who asked for it: the scope of `request_id`.
    pub caller: String,
    /// The key it was made under.
    pub request_id: String,
    /// The case it belongs to.
    pub case_id: String,
    /// Who receives the money.
    pub payee_id: String,
    /// What is asked.
    pub amount: Money,
    /// The merchant account at the channel.
    pub merchant: Merchant,
    /// The channel's id of the super app's account.
    pub app_id: String,
    /// How the citizen pays.
    pub trade_type: TradeType,
    /// The number that the channel knows it by.
    pub channel_order_no: String,
    /// Where the channel reports; part of what a repeated call must repeat.
    pub notify_url: String,
    /// What the citizen reads.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops being payable.
    pub expire_at: Timestamp,
    /// The department's payment code, where the bill carries one.
    pub payment_code: Option<String>,
    /// What the code of its receipt begins with; None where the payee had no receipts when it was made.
    pub receipt_prefix: Option<String>,
    /// What makes it a mixed order, of which medical insurance pays a part.
    pub insured: Option<Insured>,
}

/// The money of an order. Minor units of its currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What the channel took.
    pub captured: i64,
    /// Refunds accepted and not decided.
    pub refunding: i64,
    /// Refunds that succeeded.
    pub refunded: i64,
    /// What is the payee's: what went to it, without what it gives back.
    pub posted: i64,
}

impl Tally {
    /// What still stands in suspense and is promised to nobody; None where the sums make no sense.
    pub fn free(self) -> Option<i64> {
        let out = self.refunding.checked_add(self.refunded)?.checked_add(self.posted)?;
        self.captured.checked_sub(out).filter(|rest| *rest >= 0)
    }

    /// Refunds that were accepted, whatever became of them but failure.
    pub fn given_back(self) -> i64 {
        self.refunding.saturating_add(self.refunded)
    }
}

/// What the channel says of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// What it took.
    pub amount: Money,
    /// Its number of the payment.
    pub transaction: String,
    /// When.
    pub at: Timestamp,
}

/// What happened to an order or refund, for those who listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// The channel took the money.
    Paid,
    /// The channel confirmed that the order is closed.
    Closed,
    /// The money is the payee's.
    Posted,
    /// The refund succeeded.
    RefundSucceeded,
    /// The refund failed.
    RefundFailed,
    /// Money came after the order was closed.
    LateMoney,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The order as it will stand, version not yet counted up.
    pub order: Order,
    /// For the ledger.
    pub entries: Vec<Entry>,
    /// For those who listen.
    pub happenings: Vec<Happening>,
}

/// Why a step is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// No money came.
    #[error("the order is not paid")]
    NotPaid,
    /// Money is going back.
    #[error("the order is being refunded")]
    Refunding,
    /// The money is the payee's.
    #[error("the money went to the payee already")]
    Posted,
    /// The money is not the payee's.
    #[error("the money has not gone to the payee")]
    NotPosted,
    /// More would go back than came in.
    #[error("more would go back than came in")]
    ExceedsCapture {
        /// What came in, minor units.
        captured: i64,
        /// Refunds accepted so far, minor units.
        refunded: i64,
    },
    /// More would go back on a leg of a mixed order than came in on it.
    #[error("more would go back on the {leg} leg than came in on it")]
    ExceedsLeg {
        /// Which.
        leg: Leg,
        /// What is asked, minor units.
        asked: i64,
        /// What it still can give, minor units.
        rest: i64,
    },
    /// The refund is not split over the legs as the order is.
    #[error("the refund is not split over the legs of the order")]
    Legs,
    /// What the channel says does not fit the order; a person has to look.
    #[error("the channel's account does not fit the order: {0}")]
    Differs(&'static str),
    /// The sums of the order make no sense: a bug.
    #[error("the order's sums make no sense")]
    Sums,
}

impl From<BadReturn> for Rule {
    fn from(bad: BadReturn) -> Self {
        match bad {
            BadReturn::Exceeds { leg, asked, rest } => Self::ExceedsLeg { leg, asked, rest },
            BadReturn::Amount => Self::Legs,
            BadReturn::Sums => Self::Sums,
        }
    }
}

impl Order {
    /// Makes an order that is about to be created at the channel.
    pub fn new(terms: Terms, payer_sealed: Option<Vec<u8>>) -> Self {
        Self {
            terms: Arc::new(terms),
            part: None,
            version: 1,
            state: State::Creating,
            is_sent: false,
            is_closing: false,
            is_late: false,
            payer_sealed,
            sheet: None,
            channel_transaction: None,
            paid_at: None,
            proof_serial: None,
            refusal: None,
            tally: Tally::default(),
            given: Legs::default(),
        }
    }

    /// Whether the channel still has to be asked about it.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Creating | State::Waiting)
    }

    /// The account that holds the citizen's money.
    pub fn suspense(&self) -> Account {
        Account::Suspense(self.terms.id)
    }

    /// Notes that the channel may hear of the order from now on.
    pub fn sending(&self) -> Option<Change> {
        let next = Self { is_sent: true, ..self.clone() };
        (self.state == State::Creating && !self.is_sent).then(|| next.alone())
    }

    /// Notes that the only attempt so far did not reach the channel.
    pub fn unsent(&self) -> Option<Change> {
        let next = Self { is_sent: false, ..self.clone() };
        (self.state == State::Creating && self.is_sent).then(|| next.alone())
    }

    /// The channel has created it and gave what the citizen's client needs.
    pub fn created(&self, sheet: Vec<u8>) -> Option<Change> {
        let next = Self { state: State::Waiting, sheet: Some(sheet), payer_sealed: None, ..self.clone() };
        (self.state == State::Creating).then(|| next.alone())
    }

    /// The channel refused to create it, and it is certain that no earlier attempt succeeded.
    pub fn refused(&self, code: String) -> Option<Change> {
        let next = Self { state: State::Refused, refusal: Some(code), payer_sealed: None, ..self.clone() };
        (self.state == State::Creating).then(|| next.alone())
    }

    /// Somebody wants it closed.
    pub fn close_asked(&self) -> Option<Change> {
        let next = Self { is_closing: true, ..self.clone() };
        (self.is_open() && !self.is_closing).then(|| next.alone())
    }

    /// The channel confirmed that it is closed and unpaid, or it is certain that it never came to exist there.
    pub fn closed(&self) -> Option<Change> {
        let next = Self { state: State::Closed, payer_sealed: None, sheet: None, ..self.clone() };
        self.is_open().then(|| next.with(vec![], vec![Happening::Closed]))
    }

    /// The channel took the money. Money for an order that was closed or refused is late: it goes to suspense, from where a refund can
    /// return it.
    ///
    /// Errors: Differs when amount, currency or transaction do not fit.
    pub fn captured(&self, capture: &Capture) -> Result<Option<Change>, Rule> {
        if capture.amount.currency() != self.terms.amount.currency() {
            return Err(Rule::Differs("currency"));
        }
        if Some(capture.amount.amount_minor()) != self.due() {
            return Err(Rule::Differs("amount"));
        }
        if let Some(known) = &self.channel_transaction {
            return if *known == capture.transaction { Ok(None) } else { Err(Rule::Differs("transaction")) };
        }
        let is_late = !self.is_open();
        let entries = self.captures(capture.amount.amount_minor()).into_iter().map(Entry::Post).collect();
        let next = Self {
            state: if is_late { State::Closed } else { State::Paid },
            is_late,
            is_sent: true,
            payer_sealed: None,
            sheet: None,
            channel_transaction: Some(capture.transaction.clone()),
            paid_at: Some(capture.at),
            tally: Tally { captured: capture.amount.amount_minor(), ..self.tally },
            ..self.clone()
        };
        let happening = if is_late { Happening::LateMoney } else { Happening::Paid };
        Ok(Some(next.with(entries, vec![happening])))
    }

    /// The channel reports, to one of our merchant accounts, that it took the money.
    ///
    /// Of a mixed order that is the cash leg alone, which is never booked by itself: None.
    ///
    /// Errors: Differs, also when the report was meant for another account than the order's, or for a part of a combined order alone.
    pub fn told_paid(&self, merchant: &Merchant, app_id: &str, capture: &Capture) -> Result<Option<Change>, Rule> {
        if self.terms.insured.is_some() && self.terms.merchant == *merchant {
            return Ok(None);
        }
        if self.part.is_some() {
            return Err(Rule::Differs("combine_out_trade_no"));
        }
        self.told_paid_as_its_own(merchant, app_id, capture)
    }

    /// The same, whether it is paid by itself or with others.
    pub(super) fn told_paid_as_its_own(
        &self,
        merchant: &Merchant,
        app_id: &str,
        capture: &Capture,
    ) -> Result<Option<Change>, Rule> {
        if self.terms.merchant != *merchant {
            return Err(Rule::Differs("merchant"));
        }
        if self.terms.app_id != app_id {
            return Err(Rule::Differs("app_id"));
        }
        self.captured(capture)
    }

    /// Gives what stands in suspense to the payee, on the strength of the department's proof.
    ///
    /// Errors: NotPaid, Refunding; Posted when it was posted on another proof.
    pub fn posted(&self, proof_serial: &str) -> Result<Option<Change>, Rule> {
        if let Some(known) = &self.proof_serial {
            return if known == proof_serial { Ok(None) } else { Err(Rule::Posted) };
        }
        match self.state {
            State::Paid => {}
            State::Posted => return Err(Rule::Posted),
            State::Refunding | State::Refunded => return Err(Rule::Refunding),
            State::Creating | State::Waiting | State::Closed | State::Refused => return Err(Rule::NotPaid),
        }
        let rest = self.tally.free().ok_or(Rule::Sums)?;
        let amount = Money::new(rest, self.terms.amount.currency()).map_err(|_| Rule::Sums)?;
        let entry = Entry::Post(Transfer {
            id: TransferId::post(self.terms.id),
            subject: self.terms.id.into(),
            debit: self.suspense(),
            credit: Account::Payee(self.terms.payee_id.clone()),
            amount,
        });
        let next = Self {
            state: State::Posted,
            proof_serial: Some(proof_serial.to_owned()),
            tally: Tally { posted: rest, ..self.tally },
            ..self.clone()
        };
        Ok(Some(next.with(vec![entry], vec![Happening::Posted])))
    }

    /// Whether its money was given to the payee, whatever went back since.
    pub fn is_posted(&self) -> bool {
        self.proof_serial.is_some()
    }

    /// Where a paid order stands by its sums.
    pub(super) fn resting(&self, tally: Tally) -> State {
        if tally.refunding > 0 {
            State::Refunding
        } else if tally.refunded == tally.captured {
            State::Refunded
        } else if self.is_late || self.is_half() {
            State::Closed
        } else if self.is_posted() {
            State::Posted
        } else {
            State::Paid
        }
    }

    fn alone(self) -> Change {
        self.with(vec![], vec![])
    }

    pub(super) fn with(self, entries: Vec<Entry>, happenings: Vec<Happening>) -> Change {
        Change { order: self, entries, happenings }
    }
}
