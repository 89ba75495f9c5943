//! The rules tried: by name, over every reachable state and event, and over random lives.

use std::time::Duration;

use contracts::ids::CaseId;
use contracts::money::{Currency, Money};
use runtime::Timestamp;

use crate::domain::*;

mod named;
mod random;
mod table;

const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn amount() -> Money {
    Money::new(15_000, Currency::CNY).expect("in range")
}

fn rules(idempotency: Idempotency) -> SettleRules {
    SettleRules { idempotency, quiet_period: secs(60) }
}

fn held(now: Timestamp, idempotency: Idempotency) -> Event {
    Event::Locked(Answer::Done(Locked {
        until: now.plus(secs(1_800)),
        rules: rules(idempotency),
        payment_code: None,
        changed: false,
    }))
}

fn refused(code: &str) -> Rejection {
    Rejection { code: code.to_owned(), department_code: "E1".to_owned(), department_text: "不予处理".to_owned() }
}

fn not_sent(is_final: bool) -> NotSent {
    NotSent { reason: "DEPARTMENT_UNREACHABLE".to_owned(), is_final, retry_after: None }
}

fn view(state: OrderState, now: Timestamp) -> OrderAnswer {
    let payment = (state == OrderState::Paid).then(|| Payment { at: now, transaction: "4200".to_owned() });
    let (id, expires) = ("ord_1".to_owned(), now.plus(secs(900)));
    OrderAnswer::Order(OrderView { id, state, expires, payment, late: false, lingers: false })
}

fn refund(state: RefundState) -> Event {
    Event::Refunded(RefundAnswer::Refund(RefundView { id: "rfd_1".to_owned(), state }))
}

fn proof() -> Proof {
    Proof { serial: "S-77".to_owned(), profile: "traffic/430100".to_owned(), profile_version: 1, ..Proof::default() }
}

fn money(money: MoneyEvent) -> Event {
    Event::Money { money, order_id: "ord_1".to_owned() }
}

fn decide(decision: Decision, clerk: &str, evidence: &str) -> Event {
    Event::Decide { decision, clerk: clerk.to_owned(), evidence: evidence.to_owned() }
}

/// A case that is led through a story, checked after every step.
struct Story {
    case: Case,
    now: Timestamp,
    policy: Policy,
    lines: Vec<Line>,
    late_money: u32,
}

impl Story {
    fn new() -> Self {
        let policy = Policy::default();
        let opened = open(CaseId::new(0x0192_f00d), amount(), &policy, START);
        check(None, &opened);
        Self { case: opened.case, now: START, policy, lines: opened.lines, late_money: 0 }
    }

    fn try_tell(&mut self, event: &Event) -> Result<&mut Self, Refused> {
        let moved = apply(&self.case, event, &self.policy, self.now)?;
        check(Some(&self.case), &moved);
        self.late_money += u32::from(moved.late_money);
        self.case = moved.case;
        self.lines.extend(moved.lines);
        Ok(self)
    }

    fn tell(&mut self, event: &Event) -> &mut Self {
        self.try_tell(event).expect("applies")
    }

    fn wait(&mut self, span: Duration) -> &mut Self {
        self.now = self.now.plus(span);
        self
    }

    /// Lets the deadline of the present state pass.
    fn time_out(&mut self) -> &mut Self {
        self.now = self.case.resolve_by.expect("open").max(self.now);
        self.tell(&Event::Tick)
    }

    fn stands(&mut self, state: State, step: Option<Step>, action: Option<Action>) -> &mut Self {
        let case = &self.case;
        assert_eq!((case.state, case.step, case.next.map(|next| next.action)), (state, step, action));
        self
    }

    fn ends(&mut self, state: State) -> &mut Self {
        self.stands(state, None, None)
    }

    fn reasons(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.reason.as_ref()).collect()
    }

    fn until_waiting(&mut self, idempotency: Idempotency) -> &mut Self {
        let held = held(self.now, idempotency);
        let waiting = Event::Ordered(view(OrderState::Waiting, self.now));
        self.tell(&Event::Begin).tell(&held).tell(&waiting).stands(
            State::WaitingPayment,
            Some(Step::Payment),
            Some(Action::RefreshOrder),
        )
    }

    fn until_paid(&mut self, idempotency: Idempotency) -> &mut Self {
        self.until_waiting(idempotency).tell(&money(MoneyEvent::Paid));
        let read = Event::PaymentRead(view(OrderState::Paid, self.now));
        self.tell(&read).stands(State::Paid, Some(Step::Settle), Some(Action::Settle))
    }

    fn until_sent(&mut self, idempotency: Idempotency) -> &mut Self {
        self.until_paid(idempotency).tell(&Event::Begin);
        assert_eq!((self.case.sends, self.case.sent_at), (1, Some(self.now)));
        self.stands(State::Paid, Some(Step::Settle), Some(Action::InquireSettle))
    }
}

/// What holds for every transition.
fn check(before: Option<&Case>, moved: &Transition) {
    let case = &moved.case;
    let told = format!("{:?} -> {:?} {:?}", before.map(|case| (case.state, case.step)), case.state, case.step);
    let ended = case.state.is_terminal();
    assert_eq!(ended, case.next.is_none(), "a next action while open: {told}");
    assert_eq!(ended, case.resolve_by.is_none(), "a deadline while open: {told}");
    assert_eq!(ended, case.step.is_none(), "a step while open: {told}");
    assert_eq!(case.state == State::NeedsClerk, case.task.is_some(), "a task with a clerk: {told}");
    if let Some(task) = &case.task {
        assert_eq!(case.resolve_by, Some(task.due), "the task's time is the deadline: {told}");
    }
    if let (Some(next), Some(step)) = (case.next, case.step) {
        assert_eq!(next.action.step(), step, "the action fits the step: {told}");
    }
    if case.state == State::Done {
        assert!(case.proof.is_some(), "done with proof: {told}");
    }
    if let Some(before) = before {
        assert!(!before.state.is_terminal() || before.state == case.state, "never reopened: {told}");
        let grown = i64::try_from(moved.lines.len()).expect("few");
        assert_eq!(case.sequence, before.sequence + grown, "{told}");
        let mut state = before.state;
        for (line, sequence) in moved.lines.iter().zip(before.sequence + 1..) {
            assert_eq!((line.sequence, line.from), (sequence, Some(state)), "the history is a chain: {told}");
            state = line.to;
        }
        assert_eq!(state, case.state, "the history ends where the case stands: {told}");
        if before.state != case.state || before.step != case.step {
            assert!(!moved.lines.is_empty(), "every move is told: {told}");
        }
    } else {
        assert_eq!((moved.lines.len(), case.sequence), (1, 1));
    }
    for line in &moved.lines {
        let upper = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        assert!(!line.reason.is_empty() && upper(&line.reason), "a stable code: {}", line.reason);
        assert!(upper(&line.note), "a note is a code: {}", line.note);
    }
}
