use std::borrow::Cow;
use std::time::Duration;

use runtime::Timestamp;

use super::{Case, Payment, Proof, Rejection, SettleRules, State, Step};

/// A call that certainly had no effect: nothing was sent, or the peer proved that it did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSent {
    /// Stable code, UPPER_SNAKE.
    pub reason: String,
    /// Asking again gives the same answer, as long as nobody repairs something.
    pub is_final: bool,
    /// Before this, asking again is in vain.
    pub retry_after: Option<Duration>,
}

/// What came of a call to a department.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// It did it.
    Done(T),
    /// It refused, definitively.
    Rejected(Rejection),
    /// It has it and has not decided.
    Pending,
    /// No usable answer; it may have acted. The reason is a stable code.
    Unknown(String),
    /// Proven without effect.
    NotSent(NotSent),
}

/// A held bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Until when.
    pub until: Timestamp,
    /// How the department settles, from the profile.
    pub rules: SettleRules,
    /// The department's payment code for it, where it has one.
    pub payment_code: Option<String>,
    /// What it holds is not what the citizen read: another amount, another record.
    pub changed: bool,
}

/// Where an order stands. The meanings are those of `lastmile.payments.v1.OrderState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderState {
    /// It may or may not exist at the channel.
    Creating,
    /// The citizen can pay.
    Waiting,
    /// The channel took the money.
    Paid,
    /// The money is the payee's.
    Posted,
    /// Closed and unpaid, as the channel confirmed.
    Closed,
    /// Money is going back.
    Refunding,
    /// All of it went back.
    Refunded,
    /// The channel refused to create it.
    Refused,
}

/// An order as payments tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderView {
    /// Id.
    pub id: String,
    /// State.
    pub state: OrderState,
    /// When it stops being payable.
    pub expires: Timestamp,
    /// What the channel took.
    pub payment: Option<Payment>,
    /// What it took came after the order was closed: it is not this case's money.
    pub late: bool,
    /// It may be payable to its end even when closing it was asked for.
    pub lingers: bool,
}

/// What came of a call to payments about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderAnswer {
    /// The order as it is.
    Order(OrderView),
    /// Payments has no such order.
    NotFound,
    /// Payments refuses for good; the reason is a stable code.
    Refused(String),
    /// No answer; it may have acted.
    Unknown(String),
    /// Proven without effect.
    NotSent(NotSent),
}

/// Where a refund stands. The meanings are those of `lastmile.payments.v1.RefundState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefundState {
    /// On its way.
    Processing,
    /// The money went back.
    Succeeded,
    /// The channel refused or closed it.
    Failed,
}

/// A refund as payments tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundView {
    /// Id.
    pub id: String,
    /// State.
    pub state: RefundState,
}

/// What came of a call to payments about a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundAnswer {
    /// The refund as it is.
    Refund(RefundView),
    /// Payments has no such refund.
    NotFound,
    /// Payments refuses for good; the reason is a stable code.
    Refused(String),
    /// No answer; it may have acted.
    Unknown(String),
    /// Proven without effect.
    NotSent(NotSent),
}

/// What payments' stream of events told about the order of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MoneyEvent {
    /// The channel took the money.
    Paid,
    /// The channel took money for a closed order.
    Late,
    /// Something else moved; a hint to look.
    Moved,
}

/// What a clerk decides. The meanings are those of `lastmile.cases.v1.Decision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// The department has it.
    DepartmentDidIt,
    /// The department never got it: the step is tried again under its own key.
    SendAgain,
    /// The department will not do it.
    Refund,
}

/// What can happen to a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker is about to take the next action. What must be known after a crash is noted before anything is sent.
    Begin,
    /// The deadline of the state, or of the clerk's task, has passed.
    Tick,
    /// LockBill answered.
    Locked(Answer<Locked>),
    /// A call about the order answered: CreateOrder, GetOrder, RefreshOrder or CloseOrder.
    Ordered(OrderAnswer),
    /// The order was read for the settlement.
    PaymentRead(OrderAnswer),
    /// SettleBill answered.
    Settled(Answer<Proof>),
    /// InquireBill answered.
    Inquired(Answer<Proof>),
    /// PostOrder answered.
    Posted(OrderAnswer),
    /// Refund or GetRefund answered.
    Refunded(RefundAnswer),
    /// ReleaseBill answered.
    Released(Answer<()>),
    /// Payments' stream told something.
    Money {
        /// What.
        money: MoneyEvent,
        /// Of which order.
        order_id: String,
    },
    /// The citizen cancels.
    Cancel,
    /// A clerk decides.
    Decide {
        /// What.
        decision: Decision,
        /// Who (a pseudonym).
        clerk: String,
        /// On what evidence.
        evidence: String,
    },
}

/// Who made a line of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// The citizen.
    Citizen,
    /// This service: a deadline, a rule.
    Cases,
    /// The department.
    Department,
    /// Payments.
    Payments,
    /// A clerk.
    Clerk,
}

impl Actor {
    /// The name on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Citizen => "citizen",
            Self::Cases => "cases",
            Self::Department => "department",
            Self::Payments => "payments",
            Self::Clerk => "clerk",
        }
    }
}

/// One line of the history, to be appended as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its place, from 1, without gaps.
    pub sequence: i64,
    /// State before; None on the first line.
    pub from: Option<State>,
    /// State after.
    pub to: State,
    /// Step it was about.
    pub step: Option<Step>,
    /// Who.
    pub actor: Actor,
    /// Stable code, UPPER_SNAKE.
    pub reason: Cow<'static, str>,
    /// A stable code or an id that explains it; never personal data, never a department's free text.
    pub note: String,
    /// What it rests on: the serial of a proof, a clerk's reference. Kept, and not shown.
    pub evidence: String,
}

/// What an event makes of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The whole case as it is now.
    pub case: Case,
    /// What goes into its history, in order.
    pub lines: Vec<Line>,
    /// Money came after the end: open a case that returns it.
    pub late_money: bool,
    /// A decision was noted and waits for a second clerk.
    pub needs_second_clerk: bool,
}

/// Why an event that a person caused does not apply. What machines cause always applies, if only as nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The case is paid, or has ended.
    #[error("the case cannot be cancelled any more")]
    NotCancellable,
    /// No clerk is asked (any more).
    #[error("the task is not open")]
    TaskNotOpen,
    /// The clerk agrees with himself.
    #[error("a second clerk has to agree")]
    SameClerk,
    /// The decision does not fit the step.
    #[error("the decision does not fit the open step")]
    DecisionNotAllowed,
}

/// Keeps a code that a peer sent only where it has the form of one.
#[must_use]
pub(crate) fn code(text: &str) -> String {
    let fits = (1..=63).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if fits { text.to_owned() } else { "UNNAMED".to_owned() }
}
