use std::borrow::Cow;
use std::time::Duration;

use contracts::ids::CaseId;
use contracts::money::Money;
use runtime::Timestamp;

use super::{
    Action, Actor, Case, Ending, Event, Hold, Idempotency, Kind, Line, MoneyEvent, Next, OpenTask, Policy, Refund,
    Refused, Rejection, State, Step, Transition,
};
use super::{after_money, before_money, clerk};

/// Opens a pay case.
#[must_use]
pub fn open(id: CaseId, amount: Money, policy: &Policy, now: Timestamp) -> Transition {
    let mut draft = Draft::new(blank(id, Kind::Pay, amount, State::Accepted), policy, now);
    draft.case.step = Some(Step::Lock);
    draft.first_line(Actor::Citizen, "CASE_OPENED");
    draft.next(Action::Lock, now);
    draft.end_by(now.plus(policy.confirm_within));
    draft.done()
}

/// Opens the case that returns money which came after the end of `of`.
#[must_use]
pub fn open_late_money(id: CaseId, of: &Case, policy: &Policy, now: Timestamp) -> Transition {
    let mut draft = Draft::new(blank(id, Kind::LateMoney, of.amount, State::Refunding), policy, now);
    draft.case.order.clone_from(&of.order);
    draft.case.step = Some(Step::Refund);
    draft.first_line(Actor::Payments, "LATE_MONEY");
    draft.next(Action::Refund, now);
    draft.end_by(now.plus(policy.refund_within));
    draft.done()
}

/// Moves a case.
///
/// Shape: total over every state and event; an answer that comes too late to matter changes nothing.
/// Errors: only for what people ask ([`Event::Cancel`], [`Event::Decide`]).
pub fn apply(case: &Case, event: &Event, policy: &Policy, now: Timestamp) -> Result<Transition, Refused> {
    let mut draft = Draft::new(case.clone(), policy, now);
    if case.state.is_terminal() {
        ended(&mut draft, event)?;
        return Ok(draft.done());
    }
    match event {
        Event::Begin => begin(&mut draft),
        Event::Tick if case.resolve_by.is_some_and(|by| by <= now) => tick(&mut draft),
        Event::Tick => {}
        Event::Locked(answer) => before_money::locked(&mut draft, answer),
        Event::Ordered(answer) => before_money::ordered(&mut draft, answer),
        Event::Released(answer) => before_money::released(&mut draft, answer),
        Event::PaymentRead(answer) => after_money::payment_read(&mut draft, answer),
        Event::Settled(answer) => after_money::settled(&mut draft, answer),
        Event::Inquired(answer) => after_money::inquired(&mut draft, answer),
        Event::Posted(answer) => after_money::posted(&mut draft, answer),
        Event::Refunded(answer) => after_money::refunded(&mut draft, answer),
        Event::Money { money, order_id } => heard(&mut draft, *money, order_id),
        Event::Cancel => before_money::cancel(&mut draft)?,
        Event::Decide { decision, clerk, evidence } => clerk::decide(&mut draft, *decision, clerk, evidence)?,
    }
    Ok(draft.done())
}

/// What still matters to a case that has ended: money that should not have come, and people who come too late.
fn ended(draft: &mut Draft<'_>, event: &Event) -> Result<(), Refused> {
    match event {
        Event::Cancel => Err(Refused::NotCancellable),
        Event::Decide { .. } => Err(Refused::TaskNotOpen),
        Event::Money { money: MoneyEvent::Paid | MoneyEvent::Late, order_id } if !draft.case.is_paid() => {
            draft.return_late_money(order_id);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Notes what a crash must not forget, just before a call leaves.
fn begin(draft: &mut Draft<'_>) {
    match (draft.case.state, draft.case.next.map(|next| next.action)) {
        (State::Accepted, _) => {
            draft.case.hold = Hold::Possible;
            draft.go(State::Confirming, Step::Lock, Actor::Cases, "LOCKING", "");
        }
        (_, Some(Action::Settle)) => after_money::begin_settle(draft),
        _ => {}
    }
}

/// Ends a state whose time has come.
fn tick(draft: &mut Draft<'_>) {
    if draft.case.state == State::NeedsClerk {
        return clerk::escalate(draft);
    }
    match draft.case.step {
        Some(Step::Lock) => before_money::lock_timed_out(draft),
        Some(Step::Order) => before_money::order_timed_out(draft),
        Some(Step::Payment) => before_money::expire(draft),
        Some(Step::Release) => draft.end(Actor::Cases, "HOLD_LAPSES"),
        Some(Step::Settle) => after_money::settle_timed_out(draft),
        Some(Step::Close) => draft.ask_clerk("CLOSE_UNCONFIRMED"),
        Some(Step::Post) => draft.ask_clerk("POST_UNCONFIRMED"),
        Some(Step::Refund) => draft.ask_clerk("REFUND_UNCONFIRMED"),
        None => {}
    }
}

/// Acts on payments' stream.
fn heard(draft: &mut Draft<'_>, money: MoneyEvent, order_id: &str) {
    match money {
        MoneyEvent::Moved => draft.hurry(),
        _ if draft.case.is_paid() => {}
        MoneyEvent::Paid if !draft.case.late_money && draft.case.step != Some(Step::Release) => {
            draft.note_order(order_id);
            draft.paid(None);
        }
        // The order is closed, or the case has given it up: this case goes on to its end, the money goes back by another.
        MoneyEvent::Paid | MoneyEvent::Late => {
            draft.return_late_money(order_id);
            draft.hurry();
        }
    }
}

fn blank(id: CaseId, kind: Kind, amount: Money, state: State) -> Case {
    Case {
        id,
        kind,
        amount,
        state,
        step: None,
        next: None,
        resolve_by: None,
        tries: 0,
        ending: None,
        hold: Hold::None,
        rules: None,
        pay_until: None,
        payment_code: None,
        order: None,
        close_round: 0,
        payment: None,
        deliver_by: None,
        sends: 0,
        sent_at: None,
        refusals: 0,
        proof: None,
        rejection: None,
        refund: Refund::default(),
        task: None,
        late_money: false,
        sequence: 0,
    }
}

/// A case while it is being moved. Its methods are the only way to change what the invariants speak of.
pub(super) struct Draft<'a> {
    pub(super) case: Case,
    pub(super) policy: &'a Policy,
    pub(super) now: Timestamp,
    pub(super) needs_second_clerk: bool,
    lines: Vec<Line>,
    late_money: bool,
}

impl<'a> Draft<'a> {
    fn new(case: Case, policy: &'a Policy, now: Timestamp) -> Self {
        Self { case, policy, now, needs_second_clerk: false, lines: Vec::new(), late_money: false }
    }

    fn done(self) -> Transition {
        Transition {
            case: self.case,
            lines: self.lines,
            late_money: self.late_money,
            needs_second_clerk: self.needs_second_clerk,
        }
    }

    fn line(&mut self, from: Option<State>, actor: Actor, reason: Cow<'static, str>, note: String, evidence: String) {
        self.case.sequence += 1;
        let Case { sequence, state: to, step, .. } = self.case;
        self.lines.push(Line { sequence, from, to, step, actor, reason, note, evidence });
    }

    fn first_line(&mut self, actor: Actor, reason: &'static str) {
        self.line(None, actor, reason.into(), String::new(), String::new());
    }

    /// Writes a line about something that does not move the case.
    pub(super) fn remark(&mut self, actor: Actor, reason: &'static str, note: &str, evidence: &str) {
        self.line(Some(self.case.state), actor, reason.into(), note.to_owned(), evidence.to_owned());
    }

    /// Moves to a state and step and says so in the history. A move to where the case stands already is no news.
    pub(super) fn go(&mut self, to: State, step: Step, actor: Actor, reason: &'static str, note: &str) {
        self.go_with(to, step, actor, reason, note, "");
    }

    /// As [`Draft::go`], with what it rests on.
    pub(super) fn go_with(
        &mut self,
        to: State,
        step: Step,
        actor: Actor,
        reason: &'static str,
        note: &str,
        evidence: &str,
    ) {
        let from = self.case.state;
        if from == to && self.case.step == Some(step) {
            return;
        }
        if from == State::NeedsClerk && to != State::NeedsClerk {
            self.case.task = None;
        }
        self.case.state = to;
        self.case.step = Some(step);
        self.line(Some(from), actor, reason.into(), note.to_owned(), evidence.to_owned());
    }

    /// Sets the next action; a different one starts counting its tries anew.
    pub(super) fn next(&mut self, action: Action, at: Timestamp) {
        if self.case.next.is_none_or(|next| next.action != action) {
            self.case.tries = 0;
        }
        self.case.next = Some(Next { action, at });
    }

    /// Sets the next action to now.
    pub(super) fn next_now(&mut self, action: Action) {
        self.next(action, self.now);
    }

    /// Sets the next action to a while from now, longer with each try; slowly while a clerk has the case.
    pub(super) fn again(&mut self, action: Action) {
        self.again_after(action, None);
    }

    /// As [`Draft::again`], and not before `least` has passed.
    pub(super) fn again_after(&mut self, action: Action, least: Option<Duration>) {
        let same = self.case.next.is_some_and(|next| next.action == action);
        self.again_as(action, if same { self.case.tries.saturating_add(1) } else { 1 }, least);
    }

    /// Sets the next action to what comes after its `tries`-th try.
    pub(super) fn again_as(&mut self, action: Action, tries: u32, least: Option<Duration>) {
        let wait = match (self.case.state, action) {
            (State::NeedsClerk, _) => self.policy.clerk_recheck,
            (_, Action::RefreshOrder | Action::FindRefund) => self.policy.refresh.wait(self.case.id, tries),
            _ => self.policy.retry.wait(self.case.id, tries),
        };
        self.next(action, self.now.plus(wait.max(least.unwrap_or_default())));
        self.case.tries = tries;
    }

    /// Asks payments at once where the next action is to ask payments: something was heard about it.
    fn hurry(&mut self) {
        if let Some(next) = &mut self.case.next
            && !matches!(next.action, Action::Lock | Action::Settle | Action::InquireSettle | Action::Release)
        {
            next.at = next.at.min(self.now);
        }
    }

    /// Sets by when the state ends.
    pub(super) fn end_by(&mut self, by: Timestamp) {
        // While a clerk has the case, the task's time is the deadline, and only the clerk's module moves it.
        if self.case.state != State::NeedsClerk {
            self.case.resolve_by = Some(by);
        }
    }

    /// Marks a call as unanswered. A clerk who has the case keeps it.
    pub(super) fn unknown(&mut self, step: Step, actor: Actor, reason: &str) {
        if self.case.state != State::NeedsClerk {
            self.go(State::Unknown, step, actor, "NO_ANSWER", &super::event::code(reason));
        }
    }

    /// Hands the case to a clerk. Inquiries go on slowly beside it.
    pub(super) fn ask_clerk(&mut self, reason: &str) {
        if self.case.state == State::NeedsClerk {
            return;
        }
        let Some(step) = self.case.step else { return };
        let reason = super::event::code(reason);
        self.go(State::NeedsClerk, step, Actor::Cases, "CLERK_ASKED", &reason);
        let due = self.now.plus(self.policy.clerk_within);
        self.case.task = Some(OpenTask { id: None, reason, due, escalations: 0, proposal: None });
        self.case.resolve_by = Some(due);
        let action = clerk::recheck(&self.case, step);
        self.again(action);
    }

    /// Starts the way out of a case that nobody has paid.
    pub(super) fn give_up(&mut self, ending: Ending, rejection: Option<Rejection>) {
        self.case.ending.get_or_insert(ending);
        if self.case.rejection.is_none() {
            self.case.rejection = rejection;
        }
    }

    /// Ends the case as its way out says. A case on no way out was refused.
    pub(super) fn end(&mut self, actor: Actor, reason: &'static str) {
        let to = self.case.ending.unwrap_or(Ending::Rejected).state();
        let note =
            self.case.rejection.as_ref().map(|rejection| super::event::code(&rejection.code)).unwrap_or_default();
        self.finish(to, actor, reason, &note, "");
    }

    /// Ends the case.
    pub(super) fn finish(&mut self, to: State, actor: Actor, reason: &'static str, note: &str, evidence: &str) {
        let from = self.case.state;
        self.case.state = to;
        self.case.step = None;
        self.case.next = None;
        self.case.resolve_by = None;
        self.case.task = None;
        self.case.tries = 0;
        self.line(Some(from), actor, reason.into(), note.to_owned(), evidence.to_owned());
    }

    /// Takes note of the citizen's money.
    pub(super) fn paid(&mut self, payment: Option<super::Payment>) {
        self.case.ending = None;
        self.case.rejection = None;
        self.case.payment = payment;
        let deliver_by = self.now.plus(self.policy.deliver_within);
        self.case.deliver_by = Some(deliver_by);
        self.go(State::Paid, Step::Settle, Actor::Payments, "PAYMENT_RECEIVED", "");
        self.next_now(Action::Settle);
        self.end_by(deliver_by);
    }

    /// Sends the money back.
    pub(super) fn refund(&mut self, actor: Actor, reason: &'static str, rejection: Option<Rejection>, evidence: &str) {
        let note = rejection.as_ref().map(|rejection| super::event::code(&rejection.code)).unwrap_or_default();
        if rejection.is_some() {
            self.case.rejection = rejection;
        }
        self.case.sent_at = None;
        self.go_with(State::Refunding, Step::Refund, actor, reason, &note, evidence);
        self.next_now(Action::Refund);
        self.end_by(self.now.plus(self.policy.refund_within));
    }

    /// Has the money that came for a given-up order returned by a case of its own, once.
    pub(super) fn return_late_money(&mut self, order_id: &str) {
        if self.case.kind == Kind::LateMoney || self.case.late_money {
            return;
        }
        self.note_order(order_id);
        self.case.late_money = true;
        self.late_money = true;
        self.remark(Actor::Payments, "LATE_MONEY", "", "");
    }

    /// Takes note of an order that only payments knew of: the answer that told of it was lost.
    fn note_order(&mut self, order_id: &str) {
        self.case.order.get_or_insert_with(|| super::OrderRef { id: order_id.to_owned(), expires: self.now });
    }

    /// Whether the department is one that must never be told twice.
    pub(super) fn settles_once(&self) -> bool {
        // A case without rules was never locked by this code; the careful reading is the strictest one.
        self.case.rules.is_none_or(|rules| rules.idempotency == Idempotency::None)
    }
}

#[cfg(test)]
mod tests;
