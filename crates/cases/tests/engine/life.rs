//! One citizen's case from its opening to its end, whatever happens to the servers meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contracts::cases::v1::{self as pb, CaseState, CaseStep, Decision};
use futures::StreamExt;

use crate::bench::{Bench, CHANGSHA, TAIYUAN};
use crate::citizens::{Who, opening, with_token};
use crate::fakes::Play;

/// What the citizen does once the case waits for payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Citizen {
    /// Pays.
    Pays,
    /// Pays, and the channel's callback is lost.
    PaysUnheard,
    /// Does nothing.
    Sleeps,
    /// Cancels.
    Cancels,
    /// Pays after the case has ended.
    PaysLate,
}

/// A way through a case.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub name: &'static str,
    pub region: &'static str,
    pub script: Vec<(&'static str, Vec<Play>)>,
    pub citizen: Citizen,
    /// Whether two clerks look into it, if they are asked.
    pub clerks: bool,
    /// How it may end; a crash may turn one ending into another that is as right.
    pub ends: &'static [CaseState],
}

impl Life {
    pub(crate) fn new(name: &'static str, ends: &'static [CaseState]) -> Self {
        Self { name, region: CHANGSHA, script: Vec::new(), citizen: Citizen::Pays, clerks: false, ends }
    }

    pub(crate) fn in_taiyuan(self) -> Self {
        Self { region: TAIYUAN, ..self }
    }

    pub(crate) fn plan(mut self, operation: &'static str, plays: &[Play]) -> Self {
        self.script.push((operation, plays.to_vec()));
        self
    }

    pub(crate) fn citizen(self, citizen: Citizen) -> Self {
        Self { citizen, ..self }
    }

    pub(crate) fn with_clerks(self) -> Self {
        Self { clerks: true, ..self }
    }

    /// Leads the case to its end and returns it as it then stands.
    pub(crate) async fn live(self, bench: Arc<Bench>, amount: i64) -> Lived {
        for (operation, plays) in &self.script {
            bench.script.plan(operation, amount, plays);
        }
        if self.citizen == Citizen::PaysUnheard {
            bench.payments.lose_callback(amount);
        }
        let who = Who::Citizen("li");
        let request = opening(&request_id(amount), self.region, amount);
        let (opened, lost) = bench.open_through_losses(&who, request.clone()).await;
        let opened = opened.expect("opens");
        let history =
            tokio::join!(self.act(&bench, &who, &opened.case_id, amount), watch(&bench, &who, &opened.case_id)).1;
        let case = bench.get(&who, &opened.case_id).await.expect("is there");
        if self.citizen == Citizen::PaysLate {
            assert!(bench.payments.pay(amount), "{}: the channel takes late money", self.name);
            wait_for_late_case(&bench, &who, &opened.case_id).await;
        }
        let again = bench.open(&who, request).await.expect("opens again");
        assert_eq!(again, opened, "{}: every answer for a request id is equal", self.name);
        Lived { life: self, amount, case, history, lost }
    }

    async fn act(&self, bench: &Bench, who: &Who, case_id: &str, amount: i64) {
        let deadline = bench.clock.now().plus(Duration::from_secs(120));
        let mut acted = false;
        loop {
            let case = bench.get(who, case_id).await.expect("is there");
            match case.state() {
                CaseState::Done
                | CaseState::Rejected
                | CaseState::Expired
                | CaseState::Cancelled
                | CaseState::Refunded => return,
                CaseState::WaitingPayment if !acted && case.pay_sheet.is_some() => {
                    acted = true;
                    match self.citizen {
                        Citizen::Pays | Citizen::PaysUnheard => assert!(bench.payments.pay(amount), "{}", self.name),
                        Citizen::Cancels | Citizen::PaysLate => {
                            bench.cancel(who, case_id, &format!("cancel-{amount}")).await.expect("cancels");
                        }
                        Citizen::Sleeps => {}
                    }
                }
                CaseState::NeedsClerk => self.decide(bench, case_id, amount).await,
                _ => {}
            }
            assert!(bench.clock.now() < deadline, "{} does not end: {case:?}", self.name);
            bench.clock.sleep(bench.glance()).await;
        }
    }

    /// Two clerks look at the department's books, and say the same.
    async fn decide(&self, bench: &Bench, case_id: &str, amount: i64) {
        if !self.clerks {
            return;
        }
        for name in ["clerk-a", "clerk-b"] {
            let clerk = Who::Clerk(name);
            let tasks = bench.tasks(&clerk, false).await.expect("lists");
            let Some(task) = tasks.into_iter().find(|task| task.case_id == case_id) else { return };
            let booked = bench.department(self.region).booked(amount) > 0;
            let decision = match task.step() {
                CaseStep::Settle if booked => Decision::DepartmentDidIt,
                CaseStep::Settle | CaseStep::Refund => Decision::Refund,
                _ => Decision::SendAgain,
            };
            let resolved = bench.resolve(
                &clerk,
                pb::ResolveTaskRequest {
                    request_id: format!("{name}-{}", task.task_id),
                    task_id: task.task_id,
                    decision: decision.into(),
                    evidence: "letter 2026-7".to_owned(),
                },
            );
            match resolved.await {
                Ok(answer) => {
                    let waits = name == "clerk-a" && decision != Decision::SendAgain;
                    assert_eq!(answer.needs_second_clerk, waits, "{}", self.name);
                }
                // The case found its answer by itself in between.
                Err(fault) => assert!(
                    fault.is("cases.lastmile", "TASK_NOT_OPEN") || fault.is("cases.lastmile", "SAME_CLERK"),
                    "{}: {fault}",
                    self.name
                ),
            }
        }
    }
}

/// A case that has ended, with the history that a stream told, resumed as often as it broke.
pub(crate) struct Lived {
    pub life: Life,
    pub amount: i64,
    pub case: pb::Case,
    pub history: Vec<pb::CaseEvent>,
    /// How often its opening ended without an answer.
    pub lost: u32,
}

fn request_id(amount: i64) -> String {
    format!("open-{amount}")
}

impl Lived {
    /// Under which its case was opened.
    pub(crate) fn request_id(&self) -> String {
        request_id(self.amount)
    }

    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.history.iter().map(|event| event.reason.as_str()).collect()
    }
}

/// Reads the history of a case from its stream until it ends, going on after the last sequence whenever the stream breaks.
async fn watch(bench: &Bench, who: &Who, case_id: &str) -> Vec<pb::CaseEvent> {
    let token = bench.token(who).await;
    let mut events: BTreeMap<i64, pb::CaseEvent> = BTreeMap::new();
    let deadline = bench.clock.now().plus(Duration::from_secs(120));
    loop {
        let after_sequence = events.keys().next_back().copied().unwrap_or(0);
        let asked = pb::WatchCaseRequest { case_id: case_id.to_owned(), after_sequence };
        let (mut client, request) = (bench.client(), with_token(asked, &token));
        let opened = bench.once(async move { client.watch_case(request).await }).await;
        if let Some(Ok(stream)) = opened {
            let mut stream = Box::pin(stream);
            // A stream of a host that died neither ends nor goes on.
            while let Ok(Some(Ok(told))) = bench.clock.timeout(bench.silence(), stream.next()).await {
                let (event, case) = (told.event.expect("an event"), told.case.expect("a case"));
                assert!(case.sequence >= event.sequence, "the case is not older than the line");
                let known = events.insert(event.sequence, event);
                assert!(known.is_none(), "resumed exactly");
            }
        }
        let last = events.values().next_back().map(pb::CaseEvent::to_state);
        if last.is_some_and(ended) {
            break;
        }
        assert!(bench.clock.now() < deadline, "the history does not end");
        bench.clock.sleep(bench.glance()).await;
    }
    events.into_values().collect()
}

pub(crate) fn ended(state: CaseState) -> bool {
    matches!(
        state,
        CaseState::Done | CaseState::Rejected | CaseState::Expired | CaseState::Cancelled | CaseState::Refunded
    )
}

/// Waits until the case that returns the late money of `case_id` has ended.
async fn wait_for_late_case(bench: &Bench, who: &Who, case_id: &str) {
    let deadline = bench.clock.now().plus(Duration::from_secs(120));
    loop {
        let cases = bench.cases(who).await;
        let late = cases.iter().find(|case| case.linked_case_id == case_id);
        if late.is_some_and(|case| case.state() == CaseState::Refunded) {
            return;
        }
        assert!(bench.clock.now() < deadline, "late money stays: {late:?}");
        bench.clock.sleep(bench.glance()).await;
    }
}
