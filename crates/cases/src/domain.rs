//! What a case is and how it moves: pure rules, without time of their own, without I/O.
//!
//! [`open`] makes a case, [`apply`] moves it: (case, event, policy, now) → [`Transition`]. A transition is the whole next row, the lines
//! that go into its history, and whether money that came too late has to be returned by a case of its own. Everything else that a
//! step means (what to call, when, by when an answer is due) stands in the case itself, so that whoever holds its row can go on.
//!
//! Three rules hold for every order of events, and `machine/tests` tries millions of them:
//! - a case that has not ended has a next action and a time by which it ends or a clerk has it; one that has ended has neither;
//! - money goes back only after a definitive refusal, after proof that nothing ever happened, or when two clerks say so;
//! - a department that cannot recognise a repeated settlement is never sent a second one while the first may have had an effect.

mod after_money;
mod before_money;
mod case;
mod census;
mod clerk;
mod event;
mod keys;
mod machine;
mod policy;

pub use case::{
    Action, Case, Ending, Hold, Idempotency, Kind, Next, OpenTask, OrderRef, Payment, Proof, Proposal, Refund,
    Rejection, SettleRules, State, Step,
};
pub use census::Census;
pub(crate) use event::code;
pub use event::{
    Actor, Answer, Decision, Event, Line, Locked, MoneyEvent, NotSent, OrderAnswer, OrderState, OrderView,
    RefundAnswer, RefundState, RefundView, Refused, Transition,
};
pub use machine::{apply, open, open_late_money};
pub use policy::{Backoff, Policy};
