use contracts::ids::{CaseId, TaskId};
use contracts::money::Money;
use runtime::Timestamp;
use std::time::Duration;

/// What a case is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Pays a bill.
    Pay,
    /// Returns money that came after its case had ended.
    LateMoney,
}

/// Where a case stands. The meanings are those of `lastmile.cases.v1.CaseState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Durable; nothing was asked of the department yet.
    Accepted,
    /// The bill is being re-read and held.
    Confirming,
    /// The citizen can pay.
    WaitingPayment,
    /// The channel took the money.
    Paid,
    /// The department took the settlement.
    Sent,
    /// The department did it, and the money is its own.
    Done,
    /// Nothing was paid, and nothing will be.
    Rejected,
    /// Not paid in time.
    Expired,
    /// Cancelled before payment.
    Cancelled,
    /// The money is going back.
    Refunding,
    /// The money went back.
    Refunded,
    /// A step has no answer and is being inquired.
    Unknown,
    /// A clerk decides.
    NeedsClerk,
}

impl State {
    /// Every state, in the order of the contract.
    pub const ALL: [Self; 13] = [
        Self::Accepted,
        Self::Confirming,
        Self::WaitingPayment,
        Self::Paid,
        Self::Sent,
        Self::Done,
        Self::Rejected,
        Self::Expired,
        Self::Cancelled,
        Self::Refunding,
        Self::Refunded,
        Self::Unknown,
        Self::NeedsClerk,
    ];

    /// Whether a case in this state has ended for good.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Rejected | Self::Expired | Self::Cancelled | Self::Refunded)
    }
}

/// Which call a case is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// LockBill at the department.
    Lock,
    /// CreateOrder at payments.
    Order,
    /// Waiting for the citizen.
    Payment,
    /// CloseOrder at payments.
    Close,
    /// SettleBill at the department.
    Settle,
    /// PostOrder at payments.
    Post,
    /// Refund at payments.
    Refund,
    /// ReleaseBill at the department.
    Release,
}

impl Step {
    /// Every step, in the order of the contract.
    pub const ALL: [Self; 8] =
        [Self::Lock, Self::Order, Self::Payment, Self::Close, Self::Settle, Self::Post, Self::Refund, Self::Release];

    /// Whether the citizen's money may already be in our hands at this step.
    #[must_use]
    pub const fn is_after_money(self) -> bool {
        matches!(self, Self::Settle | Self::Post | Self::Refund)
    }
}

/// What a worker does next with a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Calls LockBill; repeated under the same key it is its own inquiry.
    Lock,
    /// Calls CreateOrder.
    CreateOrder,
    /// Asks payments whether the order exists (GetOrder by request id).
    FindOrder,
    /// Asks the channel whether the money came (RefreshOrder), in case its event was lost.
    RefreshOrder,
    /// Calls CloseOrder.
    CloseOrder,
    /// Calls ReleaseBill.
    Release,
    /// Calls SettleBill.
    Settle,
    /// Asks the department what became of a settlement (InquireBill).
    InquireSettle,
    /// Calls PostOrder.
    Post,
    /// Calls Refund.
    Refund,
    /// Asks payments what became of a refund (GetRefund by request id).
    FindRefund,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 11] = [
        Self::Lock,
        Self::CreateOrder,
        Self::FindOrder,
        Self::RefreshOrder,
        Self::CloseOrder,
        Self::Release,
        Self::Settle,
        Self::InquireSettle,
        Self::Post,
        Self::Refund,
        Self::FindRefund,
    ];

    /// The step that the action belongs to.
    #[must_use]
    pub const fn step(self) -> Step {
        match self {
            Self::Lock => Step::Lock,
            Self::CreateOrder | Self::FindOrder => Step::Order,
            Self::RefreshOrder => Step::Payment,
            Self::CloseOrder => Step::Close,
            Self::Release => Step::Release,
            Self::Settle | Self::InquireSettle => Step::Settle,
            Self::Post => Step::Post,
            Self::Refund | Self::FindRefund => Step::Refund,
        }
    }
}

/// The next action and the time before which it is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// What.
    pub action: Action,
    /// Not before.
    pub at: Timestamp,
}

/// The end that a case without money is on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// To [`State::Rejected`].
    Rejected,
    /// To [`State::Expired`].
    Expired,
    /// To [`State::Cancelled`].
    Cancelled,
}

impl Ending {
    /// The state it ends in.
    #[must_use]
    pub const fn state(self) -> State {
        match self {
            Self::Rejected => State::Rejected,
            Self::Expired => State::Expired,
            Self::Cancelled => State::Cancelled,
        }
    }
}

/// Whether the department holds the bill for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It was never asked.
    None,
    /// It was asked, and may hold it.
    Possible,
    /// It holds it until then.
    Until(Timestamp),
}

/// How a department recognises a repeated settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Idempotency {
    /// By our request id.
    Key,
    /// By the bill: it is paid once.
    ByBill,
    /// Not at all: a second settlement would be a second payment.
    None,
}

/// What the profile says about settling; frozen on the case when the bill is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleRules {
    /// How a repetition is recognised.
    pub idempotency: Idempotency,
    /// How long after a settlement "not found" is not yet an answer.
    pub quiet_period: Duration,
}

/// The order at payments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRef {
    /// Its id.
    pub id: String,
    /// When it stops being payable.
    pub expires: Timestamp,
}

/// What the channel took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// When.
    pub at: Timestamp,
    /// The channel's transaction number.
    pub transaction: String,
}

/// The department's evidence, as the contract has it. A clerk's evidence is a serial alone, without a signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The department's serial number.
    pub serial: String,
    /// When the department says it acted.
    pub at: Option<Timestamp>,
    /// SHA-256 of the legacy reply.
    pub reply_digest: Vec<u8>,
    /// The profile that read it.
    pub profile: String,
    /// Its version.
    pub profile_version: i32,
    /// The adapter's signature over all of it.
    pub jws: String,
}

/// Why the department refused, or why a case ended without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Stable code of lastmile.
    pub code: String,
    /// The department's own code; may be empty.
    pub department_code: String,
    /// The department's own words; may be empty.
    pub department_text: String,
}

impl Rejection {
    /// A refusal that no department uttered.
    #[must_use]
    pub fn ours(code: impl Into<String>) -> Self {
        Self { code: code.into(), department_code: String::new(), department_text: String::new() }
    }
}

/// How far the refund is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refund {
    /// Counts the refunds that the channel definitively failed; part of the refund's key.
    pub round: u32,
    /// Its id at payments, once it is known there.
    pub id: Option<String>,
    /// The channel failed this round; only a clerk starts another.
    pub failed: bool,
}

/// A decision that waits for a second clerk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What was proposed.
    pub decision: super::Decision,
    /// Who proposed it (a pseudonym).
    pub clerk: String,
    /// On what evidence.
    pub evidence: String,
}

/// The clerk's task of a case in [`State::NeedsClerk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTask {
    /// Its id; None until it is stored.
    pub id: Option<TaskId>,
    /// Why a clerk is needed.
    pub reason: String,
    /// When it must be decided.
    pub due: Timestamp,
    /// How often that passed.
    pub escalations: u32,
    /// What waits for a second clerk.
    pub proposal: Option<Proposal>,
}

/// All that decides how a case goes on. What it is about (bill, item, owner) stands beside it, in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Id.
    pub id: CaseId,
    /// Kind.
    pub kind: Kind,
    /// What is paid.
    pub amount: Money,
    /// Where it stands.
    pub state: State,
    /// Which call is open, or without an answer.
    pub step: Option<Step>,
    /// What a worker does next; None exactly when it has ended.
    pub next: Option<Next>,
    /// By when the state ends or a clerk takes over; None exactly when it has ended.
    pub resolve_by: Option<Timestamp>,
    /// How often the next action was tried in a row without getting further.
    pub tries: u32,
    /// The end it is on its way to, where nothing was paid.
    pub ending: Option<Ending>,
    /// Whether the department holds the bill.
    pub hold: Hold,
    /// How the department settles; known from the lock on.
    pub rules: Option<SettleRules>,
    /// When the order stops being payable, as it is asked for: the same in every try.
    pub pay_until: Option<Timestamp>,
    /// The department's payment code for the bill, as it was held: the same in every try.
    pub payment_code: Option<String>,
    /// The order, once there is one.
    pub order: Option<OrderRef>,
    /// Counts the definite "not closed yet" answers; part of the close's key.
    pub close_round: u32,
    /// What the channel took, once it is read.
    pub payment: Option<Payment>,
    /// By when the department must have been reached, once the case is paid.
    pub deliver_by: Option<Timestamp>,
    /// How many settlements were begun and not proven unsent.
    pub sends: u32,
    /// When the last of them was begun; set while its effect is not decided.
    pub sent_at: Option<Timestamp>,
    /// How often an adapter refused the settlement for good before sending anything.
    pub refusals: u32,
    /// The department's proof.
    pub proof: Option<Proof>,
    /// Why it was refused.
    pub rejection: Option<Rejection>,
    /// The refund.
    pub refund: Refund,
    /// The clerk's task; set exactly in [`State::NeedsClerk`].
    pub task: Option<OpenTask>,
    /// Money came after it was given up; another case returns it.
    pub late_money: bool,
    /// Sequence of the last line of its history.
    pub sequence: i64,
}

impl Case {
    /// When a worker must look at the case again: its next action or its deadline, whichever is first.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        match (self.next.map(|next| next.at), self.resolve_by) {
            (Some(at), Some(by)) => Some(at.min(by)),
            (at, by) => at.or(by),
        }
    }

    /// Whether the citizen's money is, or was, in our hands.
    #[must_use]
    pub fn is_paid(&self) -> bool {
        self.kind == Kind::LateMoney || self.step.is_some_and(Step::is_after_money) || {
            matches!(self.state, State::Done | State::Refunded)
        }
    }
}
