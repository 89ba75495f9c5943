//! Clerks: when one is asked, what one may decide, and what two must agree on.

use super::machine::Draft;
use super::{Action, Actor, Case, Decision, Proof, Proposal, Refused, Rejection, State, Step};

/// What is asked again, slowly, while a clerk has the case: an answer that comes after all ends it without the clerk.
pub(super) fn recheck(case: &Case, step: Step) -> Action {
    match step {
        Step::Lock => Action::Lock,
        Step::Order => Action::FindOrder,
        Step::Payment => Action::RefreshOrder,
        Step::Close => Action::CloseOrder,
        Step::Settle if case.sent_at.is_some() => Action::InquireSettle,
        Step::Settle => Action::Settle,
        Step::Post => Action::Post,
        Step::Refund => Action::FindRefund,
        Step::Release => Action::Release,
    }
}

/// The task was not decided in time.
pub(super) fn escalate(draft: &mut Draft<'_>) {
    let due = draft.now.plus(draft.policy.clerk_within);
    let Some(task) = &mut draft.case.task else { return };
    task.escalations = task.escalations.saturating_add(1);
    task.due = due;
    draft.case.resolve_by = Some(due);
    draft.remark(Actor::Cases, "TASK_ESCALATED", "", "");
}

/// A clerk decides. What moves money waits for a second clerk who says the same.
pub(super) fn decide(draft: &mut Draft<'_>, decision: Decision, clerk: &str, evidence: &str) -> Result<(), Refused> {
    let Some(task) = &draft.case.task else { return Err(Refused::TaskNotOpen) };
    let Some(step) = draft.case.step.filter(|step| allowed(draft, *step, decision)) else {
        return Err(Refused::DecisionNotAllowed);
    };
    if decision.moves_money() {
        // To name another serial number is to say something else.
        let agrees = |proposal: &&Proposal| {
            proposal.decision == decision && (decision != Decision::DepartmentDidIt || proposal.evidence == evidence)
        };
        match task.proposal.as_ref().filter(agrees) {
            Some(proposal) if proposal.clerk == clerk => return Err(Refused::SameClerk),
            Some(_) => {}
            None => {
                propose(draft, decision, clerk, evidence);
                return Ok(());
            }
        }
    }
    match decision {
        Decision::DepartmentDidIt => did_it(draft, evidence),
        Decision::SendAgain => send_again(draft, step, evidence),
        Decision::Refund => give_back(draft, step, evidence),
    }
    Ok(())
}

impl Decision {
    /// Whether the decision moves money, and so needs two clerks: to the department, or back to the citizen.
    #[must_use]
    pub const fn moves_money(self) -> bool {
        matches!(self, Self::DepartmentDidIt | Self::Refund)
    }

    /// The name in the history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DepartmentDidIt => "DEPARTMENT_DID_IT",
            Self::SendAgain => "SEND_AGAIN",
            Self::Refund => "REFUND",
        }
    }
}

fn allowed(draft: &Draft<'_>, step: Step, decision: Decision) -> bool {
    match (step, decision) {
        (Step::Settle, Decision::DepartmentDidIt | Decision::Refund) => true,
        // Even on a clerk's word, what cannot recognise a repetition is not told twice.
        (Step::Settle, Decision::SendAgain) => !draft.settles_once(),
        (Step::Refund, Decision::Refund) => true,
        (Step::Refund, Decision::SendAgain | Decision::DepartmentDidIt) => false,
        (_, Decision::SendAgain) => true,
        (_, Decision::DepartmentDidIt | Decision::Refund) => false,
    }
}

fn propose(draft: &mut Draft<'_>, decision: Decision, clerk: &str, evidence: &str) {
    let proposal = Proposal { decision, clerk: clerk.to_owned(), evidence: evidence.to_owned() };
    if let Some(task) = &mut draft.case.task {
        task.proposal = Some(proposal);
    }
    draft.remark(Actor::Clerk, "DECISION_PROPOSED", decision.as_str(), evidence);
    draft.needs_second_clerk = true;
}

fn did_it(draft: &mut Draft<'_>, evidence: &str) {
    draft.case.proof = Some(Proof { serial: evidence.to_owned(), ..Proof::default() });
    draft.case.sent_at = None;
    draft.go_with(State::Sent, Step::Post, Actor::Clerk, "CLERK_DECIDED", Decision::DepartmentDidIt.as_str(), evidence);
    draft.next_now(Action::Post);
    draft.end_by(draft.now.plus(draft.policy.post_within));
}

fn give_back(draft: &mut Draft<'_>, step: Step, evidence: &str) {
    if step == Step::Refund {
        if draft.case.refund.failed {
            draft.case.refund =
                super::Refund { round: draft.case.refund.round.saturating_add(1), ..Default::default() };
        }
        draft.refund(Actor::Clerk, "CLERK_DECIDED", None, evidence);
    } else {
        draft.refund(Actor::Clerk, "CLERK_DECIDED", Some(Rejection::ours("CLERK_DECIDED")), evidence);
    }
}

fn send_again(draft: &mut Draft<'_>, step: Step, evidence: &str) {
    let now = draft.now;
    let (state, action, within) = match step {
        Step::Settle => (State::Sent, Action::Settle, draft.policy.settle_within),
        Step::Post => (State::Sent, Action::Post, draft.policy.post_within),
        Step::Close => (State::WaitingPayment, Action::CloseOrder, draft.policy.close_within),
        Step::Payment => (State::WaitingPayment, Action::RefreshOrder, draft.policy.close_within),
        Step::Order => (State::Confirming, Action::FindOrder, draft.policy.close_within),
        Step::Lock => (State::Confirming, Action::Lock, draft.policy.confirm_within),
        Step::Release => (State::Confirming, Action::Release, draft.policy.release_within),
        Step::Refund => (State::Refunding, Action::FindRefund, draft.policy.refund_within),
    };
    if step == Step::Settle {
        draft.case.sent_at = None;
        draft.case.refusals = 0;
        draft.case.deliver_by = draft.case.deliver_by.max(Some(now.plus(within)));
    }
    draft.go_with(state, step, Actor::Clerk, "CLERK_DECIDED", Decision::SendAgain.as_str(), evidence);
    draft.next_now(action);
    draft.end_by(now.plus(within));
}
