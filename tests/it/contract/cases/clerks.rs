//! What machines cannot find out, clerks decide: whoever may, once, and with a second one where money moves.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use contracts::cases::v1::{self as pb, CaseState, CaseStep, Decision};
use identity::config::{Staff, StaffKind};
use lastmile_tests::golden::refused;
use lastmile_tests::super_app::{SuperApp, with_token};
use rpc::jose::SigningKey;
use runtime::{Clock, Ids, secret};
use tonic::{Response, Status};

use super::rig::{CHANGSHA, Debtor, Run, TAIYUAN, on_both_with};

/// For inquiries, before a clerk is asked.
const INQUIRED_FOR: runtime::config::Duration = runtime::config::Duration::from_secs(4);
/// A clerk of another city, and somebody who only operates the installation.
const NORTH: &str = "clerk-north";
const OPERATOR: &str = "operator-1";

/// Keys of staff that the sandbox does not have.
struct Others {
    place: tempfile::TempDir,
    staff: Vec<Staff>,
}

impl Others {
    fn new() -> anyhow::Result<Self> {
        let place = tempfile::tempdir()?;
        let mut staff = Vec::new();
        for (id, kind, region) in [(NORTH, StaffKind::Clerk, "140100"), (OPERATOR, StaffKind::Operator, "430100")] {
            let key = SigningKey::generate(&Ids::system(Clock::system()))?;
            secret::create_private(&place.path().join(format!("{id}.pem")), key.to_pem().expose().as_bytes())?;
            let (jwks, key_files) = (vec![serde_json::to_string(&key.jwk())?], Vec::new());
            let (departments, regions) = (["traffic".to_owned()].into(), [region.to_owned()].into());
            staff.push(Staff { id: id.to_owned(), kind, jwks, key_files, departments, regions, suspended: false });
        }
        Ok(Self { place, staff })
    }
}

/// Somebody at the clerks' methods.
struct Desk {
    app: SuperApp,
    token: String,
}

impl Desk {
    async fn of(app: SuperApp) -> anyhow::Result<Self> {
        let token = app.own_token().await?;
        Ok(Self { app, token })
    }

    async fn list(&self, asked: pb::ListTasksRequest) -> Result<Response<pb::ListTasksResponse>, Status> {
        self.app.cases().list_tasks(with_token(asked, &self.token).expect("a token is a header")).await
    }

    async fn tasks(&self, profile: &str) -> anyhow::Result<Vec<pb::Task>> {
        let asked = pb::ListTasksRequest { profile: profile.to_owned(), ..pb::ListTasksRequest::default() };
        Ok(self.list(asked).await?.into_inner().tasks)
    }

    async fn decide(
        &self,
        request_id: &str,
        task_id: &str,
        decision: Decision,
        evidence: &str,
    ) -> Result<Response<pb::ResolveTaskResponse>, Status> {
        let asked = pb::ResolveTaskRequest {
            task_id: task_id.to_owned(),
            request_id: request_id.to_owned(),
            decision: decision.into(),
            evidence: evidence.to_owned(),
        };
        self.app.cases().resolve_task(with_token(asked, &self.token).expect("a token is a header")).await
    }
}

/// A case that a clerk has.
struct Stuck {
    debtor: Debtor,
    request_id: &'static str,
    case_id: String,
    task: String,
}

impl Run {
    /// Waits until a clerk has a case, and finds its task.
    async fn stuck(
        &self,
        desk: &Desk,
        debtor: Debtor,
        request_id: &'static str,
        case_id: String,
        step: CaseStep,
    ) -> anyhow::Result<Stuck> {
        let case = self.until(&debtor, &case_id, CaseState::NeedsClerk).await?;
        ensure!(case.resolve_by_time.is_some() && case.pay_sheet.is_none() && case.step() == step, "{case:?}");
        let task = desk.tasks("").await?.into_iter().find(|task| task.case_id == case_id).context("its task")?;
        ensure!(task.due_time == case.resolve_by_time && task.step() == step, "{task:?} {case:?}");
        ensure!(!task.resolved && task.proposed_decision() == Decision::Unspecified, "{task:?}");
        Ok(Stuck { debtor, request_id, case_id, task: task.task_id })
    }

    /// Opens a case and pays it, with something that goes wrong at the department meanwhile.
    async fn paid_into(&mut self, debtor: &Debtor, request_id: &str, fault: &str) -> anyhow::Result<String> {
        let case = self.open(debtor, request_id).await?;
        self.until(debtor, &case.case_id, CaseState::WaitingPayment).await?;
        self.outside.stage("police-430100", "pay", fault).await?;
        self.pay(debtor, &case.case_id).await?;
        self.until(debtor, &case.case_id, CaseState::NeedsClerk).await?;
        Ok(case.case_id)
    }

    async fn ends(&mut self, stuck: &Stuck, end: CaseState) -> anyhow::Result<()> {
        let history = self.history(&stuck.debtor, &stuck.case_id).await?;
        ensure!(history.last().map(pb::CaseEvent::to_state) == Some(end), "{history:?}");
        ensure!(history.iter().any(|event| event.actor == "clerk" && event.reason == "CLERK_DECIDED"), "{history:?}");
        let name = end.as_str_name().trim_start_matches("CASE_STATE_");
        self.call(stuck.request_id).ended_as = Some(name.to_owned());
        Ok(())
    }
}

/// Four cases that no inquiry ends, each with the decision that fits it: the department has it, send it again, give the money back, and
/// an order that the channel does not close.
#[test]
fn what_nobody_knows_is_decided_by_clerks() {
    let others = Others::new().expect("keys");
    let staff = others.staff.clone();
    let configure = move |config: &mut lastmile::Config| {
        config.cases.times.settle_within = INQUIRED_FOR;
        config.cases.times.close_within = INQUIRED_FOR;
        config.identity.staff.clone_from(&staff);
    };
    on_both_with(configure, async |run| {
        let (one, two) = (Desk::of(run.client("clerk-1")?).await?, Desk::of(run.client("clerk-2")?).await?);
        let other = |id| SuperApp::new(&run.context, &run.base, id, others.place.path());
        let (north, operator) = (Desk::of(other(NORTH)?).await?, Desk::of(other(OPERATOR)?).await?);
        ensure!(one.tasks("").await?.is_empty(), "nobody needs a clerk");

        let [did, again, back, closing] = undecided(run, &one).await?;
        pages(&one, &north, [&did.task, &again.task, &closing.task], &back.task).await?;
        strangers(run, &did.debtor, &north, &operator, &did.task).await?;
        malformed(&one, &did.task).await?;

        let serial = run.outside.posted(&["police-430100"]).await?;
        let serial = serial.get(&format!("{}-settle", did.case_id)).context("the department has it")?;
        the_department_has_it(&one, &two, &did.task, serial).await?;
        run.ends(&did, CaseState::Done).await?;

        run.outside.calm().await?;
        // To send again moves no money that is not moved already: one clerk's word does.
        let sent = one.decide("again", &again.task, Decision::SendAgain, "letter 7").await?.into_inner();
        ensure!(!sent.needs_second_clerk && sent.task.as_ref().is_some_and(|task| task.resolved), "{sent:?}");
        run.ends(&again, CaseState::Done).await?;

        // What was never paid cannot be given back, and no department did it.
        for (request_id, decision) in [("no-1", Decision::Refund), ("no-2", Decision::DepartmentDidIt)] {
            let refusal = one.decide(request_id, &closing.task, decision, "letter 8").await;
            refused(refusal, "cases DECISION_NOT_ALLOWED", &[("step", "CLOSE")])?;
        }
        one.decide("close", &closing.task, Decision::SendAgain, "letter 8").await?;
        run.ends(&closing, CaseState::Cancelled).await?;

        let proposed = two.decide("back", &back.task, Decision::Refund, "letter 9").await?.into_inner();
        ensure!(proposed.needs_second_clerk, "{proposed:?}");
        ensure!(
            run.get(&back.debtor, &back.case_id).await?.state() == CaseState::NeedsClerk,
            "one clerk's word moves no money"
        );
        one.decide("back", &back.task, Decision::Refund, "letter 9").await?;
        run.ends(&back, CaseState::Refunded).await?;
        let after = one.decide("back-again", &back.task, Decision::Refund, "letter 9").await;
        refused(after, "cases TASK_NOT_OPEN", &[])?;
        ensure!(one.tasks("").await?.is_empty(), "everything is decided");
        let asked = pb::ListTasksRequest { include_resolved: true, ..pb::ListTasksRequest::default() };
        let decided = one.list(asked).await?.into_inner().tasks;
        ensure!(decided.len() == 4 && decided.iter().all(|task| task.resolved), "{decided:?}");
        Ok(())
    });
}

/// The department has one, never got another, decides nothing on a third; and an order is not closed.
async fn undecided(run: &mut Run, one: &Desk) -> anyhow::Result<[Stuck; 4]> {
    // No inquiry at Changsha can be read, no order closed, and one payment at Taiyuan stays in process for ever.
    run.outside.stage_for(("police-430100", "inquire", "garble_cut"), 10_000, "1s").await?;
    run.outside.stage_for(("wechatpay", "close", "error_before"), 10_000, "1s").await?;
    let (taken, lost) = (run.debtor(40, CHANGSHA).await?, run.debtor(41, CHANGSHA).await?);
    let (slow, open) = (run.magic_debtor(120, TAIYUAN).await?, run.debtor(43, CHANGSHA).await?);
    let back = run.open(&slow, "slow").await?.case_id;
    run.pay(&slow, &back).await?;
    let closing = run.open(&open, "closing").await?.case_id;
    run.until(&open, &closing, CaseState::WaitingPayment).await?;
    let cancel = pb::CancelCaseRequest { case_id: closing.clone(), request_id: "cancel".to_owned() };
    run.app.cases().cancel_case(with_token(cancel, &open.token)?).await?;
    let did = run.paid_into(&taken, "taken", "drop_after").await?;
    let again = run.paid_into(&lost, "lost", "drop_before").await?;
    Ok([
        run.stuck(one, taken, "taken", did, CaseStep::Settle).await?,
        run.stuck(one, lost, "lost", again, CaseStep::Settle).await?,
        run.stuck(one, slow, "slow", back, CaseStep::Settle).await?,
        run.stuck(one, open, "closing", closing, CaseStep::Close).await?,
    ])
}

/// The department took the payment, as its serial number says; two clerks have to see it.
async fn the_department_has_it(one: &Desk, two: &Desk, task: &str, serial: &str) -> anyhow::Result<()> {
    let did_it = Decision::DepartmentDidIt;
    let proposed = one.decide("did", task, did_it, serial).await?.into_inner();
    ensure!(proposed.needs_second_clerk, "{proposed:?}");
    let shown = proposed.task.as_ref().context("a task")?;
    ensure!(shown.proposed_decision() == did_it && !shown.resolved, "{shown:?}");
    // The same question has the same answer; another one under its id has none.
    ensure!(one.decide("did", task, did_it, serial).await?.into_inner() == proposed, "every answer is equal");
    refused(one.decide("did", task, Decision::Refund, serial).await, "common REQUEST_ID_REUSED", &[])?;
    refused(one.decide("did-2", task, did_it, serial).await, "cases SAME_CLERK", &[])?;
    // Another serial number is another word, and so is another decision: each waits for whoever says the same.
    for (request_id, decision, evidence) in [("other", did_it, "CSJJ-0"), ("refund", Decision::Refund, serial)] {
        let answer = two.decide(request_id, task, decision, evidence).await?.into_inner();
        ensure!(answer.needs_second_clerk, "{answer:?}");
    }
    ensure!(
        one.decide("did-3", task, did_it, serial).await?.into_inner().needs_second_clerk,
        "the last word was another"
    );
    let agreed = two.decide("did", task, did_it, serial).await?.into_inner();
    ensure!(!agreed.needs_second_clerk && agreed.task.as_ref().is_some_and(|task| task.resolved), "{agreed:?}");
    ensure!(two.decide("did", task, did_it, serial).await?.into_inner() == agreed, "every answer is equal");
    refused(two.decide("did-4", task, did_it, serial).await, "cases TASK_NOT_OPEN", &[]).map(drop)
}

/// Tasks come most urgent first, page by page, each clerk's own.
async fn pages(one: &Desk, north: &Desk, changsha: [&str; 3], taiyuan: &str) -> anyhow::Result<()> {
    let whole = one.tasks("").await?;
    let due = |task: &pb::Task| task.due_time.as_ref().map(|due| (due.seconds, due.nanos));
    ensure!(whole.len() == 4 && whole.is_sorted_by_key(due), "{whole:?}");
    let (mut paged, mut page_token) = (Vec::new(), String::new());
    for size in [1, 2, 1] {
        let asked = pb::ListTasksRequest { page_size: size, page_token, ..pb::ListTasksRequest::default() };
        let page = one.list(asked).await?.into_inner();
        ensure!(page.tasks.len() == usize::try_from(size)?, "{page:?}");
        paged.extend(page.tasks);
        page_token = page.next_page_token;
    }
    ensure!(paged == whole && page_token.is_empty(), "{paged:?}");
    let whole_page = pb::ListTasksRequest { page_size: 4, ..pb::ListTasksRequest::default() };
    ensure!(one.list(whole_page.clone()).await?.into_inner().next_page_token.is_empty(), "there is no fifth");
    let first = pb::ListTasksRequest { page_size: 1, ..pb::ListTasksRequest::default() };
    let page_token = one.list(first).await?.into_inner().next_page_token;
    let foreign =
        pb::ListTasksRequest { profile: CHANGSHA.1.to_owned(), page_token, ..pb::ListTasksRequest::default() };
    let negative = pb::ListTasksRequest { page_size: -1, ..pb::ListTasksRequest::default() };
    for (asked, field) in [(foreign, "page_token"), (negative, "page_size")] {
        let fault = refused(one.list(asked).await, "common INVALID_REQUEST", &[])?;
        ensure!(fault.violations().iter().any(|violation| violation.field == field), "{:?}", fault.violations());
    }
    let ids = |tasks: Vec<pb::Task>| tasks.into_iter().map(|task| task.task_id).collect::<Vec<_>>();
    let mut own = ids(one.tasks(CHANGSHA.1).await?);
    let mut wanted: Vec<_> = changsha.into_iter().map(str::to_owned).collect();
    own.sort();
    wanted.sort();
    ensure!(own == wanted, "{own:?}");
    ensure!(ids(north.tasks("").await?) == [taiyuan], "a clerk sees the region's own");
    ensure!(north.tasks(CHANGSHA.1).await?.is_empty(), "and no other's, also by its name");
    Ok(())
}

/// Who may not decide learns nothing of what there is to decide.
async fn strangers(run: &Run, citizen: &Debtor, north: &Desk, operator: &Desk, task: &str) -> anyhow::Result<()> {
    let decision = Decision::SendAgain;
    refused(north.decide("x", task, decision, "letter").await, "cases TASK_NOT_FOUND", &[])?;
    let none = format!("tsk_{}", "0".repeat(32));
    refused(north.decide("x", &none, decision, "letter").await, "cases TASK_NOT_FOUND", &[])?;
    refused(operator.decide("x", task, decision, "letter").await, "common CALLER_NOT_ALLOWED", &[])?;
    refused(operator.list(pb::ListTasksRequest::default()).await, "common CALLER_NOT_ALLOWED", &[])?;
    let citizen = Desk { app: run.client("wechat")?, token: citizen.token.clone() };
    let app = Desk::of(run.client("wechat")?).await?;
    for (desk, caller) in [(&citizen, "citizen"), (&app, "entry_point")] {
        let caller = [("caller", caller)];
        refused(desk.decide("x", task, decision, "letter").await, "common CALLER_NOT_ALLOWED", &caller)?;
        refused(desk.list(pb::ListTasksRequest::default()).await, "common CALLER_NOT_ALLOWED", &caller)?;
    }
    let bare = run.app.cases().list_tasks(pb::ListTasksRequest::default()).await;
    refused(bare, "common UNAUTHENTICATED", &[("check", "missing")]).map(drop)
}

/// Everything that is wrong with a decision is told at once.
async fn malformed(desk: &Desk, task: &str) -> anyhow::Result<()> {
    let fields = |fault: rpc::RemoteFault| {
        let mut fields: Vec<_> = fault.violations().iter().map(|violation| violation.field.clone()).collect();
        fields.sort();
        fields
    };
    let all = refused(desk.decide("", "7", Decision::Unspecified, " ").await, "common INVALID_REQUEST", &[])?;
    ensure!(fields(all) == ["decision", "evidence", "request_id", "task_id"], "all four");
    for evidence in ["x".repeat(201), "a\nb".to_owned()] {
        let fault = refused(desk.decide("y", task, Decision::Refund, &evidence).await, "common INVALID_REQUEST", &[])?;
        ensure!(fields(fault) == ["evidence"], "the evidence");
    }
    Ok(())
}

/// A task that nobody decides does not wait in silence.
#[test]
fn what_is_not_decided_in_time_escalates() {
    let configure = |config: &mut lastmile::Config| {
        config.cases.times.settle_within = runtime::config::Duration::from_secs(1);
        config.cases.times.clerk_within = runtime::config::Duration::from_secs(1);
    };
    on_both_with(configure, async |run| {
        let (one, two) = (Desk::of(run.client("clerk-1")?).await?, Desk::of(run.client("clerk-2")?).await?);
        let stuck = run.magic_debtor(121, TAIYUAN).await?;
        let case_id = run.open(&stuck, "stuck").await?.case_id;
        run.pay(&stuck, &case_id).await?;
        let first = run.until(&stuck, &case_id, CaseState::NeedsClerk).await?;
        let clock = run.context.clock.clone();
        let deadline = clock.now().plus(Duration::from_secs(60));
        let task = loop {
            let tasks = one.tasks("").await?;
            match tasks.into_iter().find(|task| task.case_id == case_id) {
                Some(task) if task.escalations >= 2 => break task,
                task => ensure!(clock.now() < deadline, "{task:?} does not escalate"),
            }
            clock.sleep(Duration::from_millis(100)).await;
        };
        let seconds = |time: &Option<prost_types::Timestamp>| time.as_ref().map_or(0, |time| time.seconds);
        ensure!(seconds(&task.due_time) > seconds(&first.resolve_by_time), "it is due again: {task:?}");
        for desk in [&one, &two] {
            desk.decide("refund", &task.task_id, Decision::Refund, "letter 9").await?;
        }
        let stuck = Stuck { debtor: stuck, request_id: "stuck", case_id, task: task.task_id };
        run.ends(&stuck, CaseState::Refunded).await?;
        let history = run.history(&stuck.debtor, &stuck.case_id).await?;
        let escalated = history.iter().filter(|event| event.reason == "TASK_ESCALATED").count();
        ensure!(escalated >= 2, "{history:?}");
        Ok(())
    });
}
