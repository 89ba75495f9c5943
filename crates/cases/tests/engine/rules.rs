//! What callers may rely on: identity of answers, ownership, scopes, reasons.

use std::sync::Arc;
use std::time::Duration;

use contracts::cases::v1::{self as pb, CaseState, CaseStep, Decision};
use contracts::common::v1::Money;
use futures::StreamExt;
use rpc::token::StaffKind;
use rpc::{Effect, RemoteFault};

use crate::bench::{Bench, CHANGSHA, Kept, TAIYUAN};
use crate::citizens::{Who, opening, with_token};
use crate::fakes::Play;
use crate::life::ended;

const LI: Who = Who::Citizen("li");
const WANG: Who = Who::Citizen("wang");
const DOMAIN: &str = "cases.lastmile";

async fn bench() -> Arc<Bench> {
    Arc::new(Bench::new(Kept::Simulated).await)
}

impl Bench {
    /// Makes one call and expects a refusal.
    async fn refused<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send + 'static,
    ) -> RemoteFault {
        match self.once(call).await {
            Some(Err(fault)) => fault,
            Some(Ok(_)) => panic!("answered"),
            None => panic!("no answer"),
        }
    }

    async fn open_refused(&self, token: &str, request: pb::OpenCaseRequest) -> RemoteFault {
        let (mut client, request) = (self.client(), with_token(request, token));
        self.refused(async move { client.open_case(request).await }).await
    }

    async fn until(&self, who: &Who, case_id: &str, state: CaseState) -> pb::Case {
        let deadline = self.clock.now().plus(Duration::from_secs(60));
        loop {
            let case = self.get(who, case_id).await.expect("is there");
            if case.state() == state {
                return case;
            }
            assert!(self.clock.now() < deadline && !ended(case.state()), "stands at {case:?}");
            self.clock.sleep(self.glance()).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_id_is_one_case_however_often_it_is_sent() {
    let bench = bench().await;
    let opens = (0..50).map(|_| bench.open(&LI, opening("r-1", CHANGSHA, 500)));
    let answers = futures::future::join_all(opens).await;
    let first = answers.first().cloned().expect("answers").expect("opens");
    assert_eq!((first.state(), first.sequence), (CaseState::Accepted, 1));
    assert!(answers.into_iter().all(|answer| answer.expect("opens") == first), "all answers are equal");
    assert_eq!(bench.census().await.accepted, 1);

    let token = bench.token(&LI).await;
    let changed = bench.open_refused(&token, opening("r-1", CHANGSHA, 501)).await;
    assert!(changed.is("common.lastmile", "REQUEST_ID_REUSED"), "{changed}");
    let stranger = bench.open_refused(&bench.token(&WANG).await, opening("r-1", CHANGSHA, 500)).await;
    assert!(stranger.is("common.lastmile", "REQUEST_ID_REUSED"), "never somebody else's case: {stranger}");
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_case_is_no_case() {
    let bench = bench().await;
    let case = bench.open(&LI, opening("r-1", CHANGSHA, 500)).await.expect("opens");
    let token = bench.token(&WANG).await;
    let asked = |id: &str, request_id: &str| {
        let asked = pb::GetCaseRequest { case_id: id.to_owned(), request_id: request_id.to_owned() };
        (bench.client(), with_token(asked, &token))
    };
    let unknown = "case_00000000000000000000000000000001";
    for (id, request_id) in [(case.case_id.as_str(), ""), ("", "r-1"), (unknown, ""), ("", "r-2")] {
        let (mut client, request) = asked(id, request_id);
        let fault = bench.refused(async move { client.get_case(request).await }).await;
        assert!(fault.is(DOMAIN, "CASE_NOT_FOUND"), "{id} {request_id}: {fault}");
    }
    let cancel = pb::CancelCaseRequest { case_id: case.case_id.clone(), request_id: "c-1".to_owned() };
    let (mut client, request) = (bench.client(), with_token(cancel, &token));
    let fault = bench.refused(async move { client.cancel_case(request).await }).await;
    assert!(fault.is(DOMAIN, "CASE_NOT_FOUND"), "{fault}");
    let watch = pb::WatchCaseRequest { case_id: case.case_id, after_sequence: 0 };
    let (mut client, request) = (bench.client(), with_token(watch, &token));
    let fault = bench.refused(async move { client.watch_case(request).await }).await;
    assert!(fault.is(DOMAIN, "CASE_NOT_FOUND"), "{fault}");
    assert!(bench.cases(&WANG).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_bill_is_paid_by_one_open_case() {
    let bench = bench().await;
    let first = bench.open(&LI, opening("r-1", CHANGSHA, 500)).await.expect("opens");
    let token = bench.token(&WANG).await;
    let fault = bench.open_refused(&token, opening("r-2", CHANGSHA, 500)).await;
    assert!(fault.is(DOMAIN, "BILL_IN_PROGRESS"), "{fault}");
    assert_eq!(fault.effect(), Effect::None);
    let elsewhere = bench.open(&WANG, opening("r-3", TAIYUAN, 500)).await.expect("another department's bill");
    assert_ne!(elsewhere.case_id, first.case_id);

    bench.until(&LI, &first.case_id, CaseState::WaitingPayment).await;
    assert!(bench.changsha.holds(500));
    let cancelled = bench.cancel(&LI, &first.case_id, "c-1").await.expect("cancels");
    assert_eq!(cancelled.state(), CaseState::WaitingPayment, "not before the channel has confirmed");
    assert_eq!(bench.cancel(&LI, &first.case_id, "c-1").await.expect("again"), cancelled, "the same answer");
    bench.until(&LI, &first.case_id, CaseState::Cancelled).await;
    assert!(!bench.changsha.holds(500), "the department has it back");
    bench.open(&WANG, opening("r-4", CHANGSHA, 500)).await.expect("free again");

    let late = pb::CancelCaseRequest { case_id: first.case_id, request_id: "c-2".to_owned() };
    let request = bench.request(&LI, late).await;
    let mut client = bench.client();
    let fault = bench.refused(async move { client.cancel_case(request).await }).await;
    assert!(fault.is(DOMAIN, "CASE_NOT_CANCELLABLE"), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_paid_here_is_not_accepted() {
    let bench = bench().await;
    let token = bench.token(&LI).await;
    let with = |change: fn(&mut pb::OpenCaseRequest)| {
        let mut request = opening("r-1", CHANGSHA, 500);
        change(&mut request);
        request
    };
    let euro = |request: &mut pb::OpenCaseRequest| {
        if let Some(pb::open_case_request::Action::Pay(pay)) = &mut request.action {
            pay.amount = Some(Money { amount_minor: 500, currency: "EUR".to_owned() });
        }
    };
    let refusals: [(pb::OpenCaseRequest, &str, &str); 5] = [
        (with(|request| request.item = "traffic.licence".to_owned()), DOMAIN, "NOT_PAYABLE"),
        (with(|request| request.item = "weather".to_owned()), DOMAIN, "NOT_PAYABLE"),
        (with(|request| request.region = "999999".to_owned()), DOMAIN, "NOT_PAYABLE"),
        (with(euro), DOMAIN, "NOT_PAYABLE"),
        (with(|request| request.action = None), "common.lastmile", "INVALID_REQUEST"),
    ];
    for (request, domain, reason) in refusals {
        let fault = bench.open_refused(&token, request).await;
        assert!(fault.is(domain, reason), "{reason}: {fault}");
    }
    let other = bench.identity.citizen("alipay", "li", &["traffic/430100"], 3).expect("a token");
    assert!(bench.open_refused(&other, opening("r-1", CHANGSHA, 500)).await.is(DOMAIN, "NOT_PAYABLE"));
    let county = bench.open(&LI, opening("r-county", "430102", 500)).await.expect("a county resolves upward");
    assert_eq!(county.region, "430102");
    bench.until(&LI, &county.case_id, CaseState::WaitingPayment).await;
}

#[tokio::test(start_paused = true)]
async fn a_case_needs_a_token_of_its_citizen() {
    let bench = bench().await;
    let ask = || opening("r-1", CHANGSHA, 500);
    let mut client = bench.client();
    let bare = bench.refused(async move { client.open_case(tonic::Request::new(ask())).await }).await;
    assert!(bare.is_common("UNAUTHENTICATED"), "{bare}");
    let sound = bench.token(&LI).await;
    for token in ["x", "a.b.c", &format!("{sound}x"), &bench.token(&Who::EntryPoint).await] {
        let fault = bench.open_refused(token, ask()).await;
        assert!(fault.is_common("UNAUTHENTICATED"), "{fault}");
    }
    let low = bench.identity.citizen("wechat", "li", &["traffic/430100"], 1).expect("a token");
    let fault = bench.open_refused(&low, ask()).await;
    assert!(fault.is_common("CALLER_NOT_ALLOWED"), "the level is below the item's: {fault}");
    let elsewhere = bench.identity.citizen("wechat", "li", &["traffic/140100"], 3).expect("a token");
    let fault = bench.open_refused(&elsewhere, ask()).await;
    assert!(fault.is(DOMAIN, "GRANT_REFUSED"), "{fault}");
    assert_eq!(fault.metadata("profile"), Some("traffic/430100"), "says which audience to ask for");
    assert_eq!(bench.census().await.accepted, 0, "none of them left anything");
}

#[tokio::test(start_paused = true)]
async fn without_identity_nothing_is_accepted_and_nothing_is_lost() {
    let bench = bench().await;
    bench.identity.go_away(true);
    let token = bench.token(&LI).await;
    let fault = bench.open_refused(&token, opening("r-1", CHANGSHA, 500)).await;
    assert!(fault.is_common("PEER_UNAVAILABLE"), "{fault}");
    assert_eq!((fault.effect(), fault.metadata("peer")), (Effect::None, Some("identity")));
    assert_eq!(bench.census().await.accepted, 0);
    bench.identity.go_away(false);
    let case = bench.open(&LI, opening("r-1", CHANGSHA, 500)).await.expect("the same request goes through");
    bench.identity.go_away(true);
    bench.until(&LI, &case.case_id, CaseState::WaitingPayment).await;
    assert!(bench.payments.pay(500));
    bench.until(&LI, &case.case_id, CaseState::Done).await;
}

#[tokio::test(start_paused = true)]
async fn cases_are_listed_newest_first_by_pages() {
    let bench = bench().await;
    let mut opened = Vec::new();
    for index in 0..7 {
        let case = bench.open(&LI, opening(&format!("r-{index}"), CHANGSHA, 600 + index)).await.expect("opens");
        opened.push(case.case_id);
        bench.clock.sleep(Duration::from_millis(2)).await;
    }
    bench.open(&WANG, opening("r-wang", CHANGSHA, 700)).await.expect("opens");
    let listed: Vec<_> = bench.cases(&LI).await.into_iter().map(|case| case.case_id).collect();
    opened.reverse();
    assert_eq!(listed, opened);
    let foreign = pb::ListCasesRequest { page_size: 0, page_token: "x".to_owned() };
    let request = bench.request(&LI, foreign).await;
    let mut client = bench.client();
    let fault = bench.refused(async move { client.list_cases(request).await }).await;
    assert!(fault.is_common("INVALID_REQUEST"), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_each_step_as_it_comes_and_ends_with_the_case() {
    let bench = bench().await;
    let case = bench.open(&LI, opening("r-1", CHANGSHA, 500)).await.expect("opens");
    let watch = |after_sequence| pb::WatchCaseRequest { case_id: case.case_id.clone(), after_sequence };
    let mut stream = {
        let request = bench.request(&LI, watch(0)).await;
        bench.client().watch_case(request).await.expect("streams").into_inner()
    };
    let mut reasons = Vec::new();
    while let Some(told) = stream.next().await {
        let event = told.expect("a line").event.expect("an event");
        if event.reason == "ORDER_CREATED" {
            assert!(bench.payments.pay(500));
        }
        reasons.push(event.reason);
    }
    assert_eq!(reasons.last().map(String::as_str), Some("POSTED"), "{reasons:?}");
    let request = bench.request(&LI, watch(5)).await;
    let rest: Vec<_> = bench.client().watch_case(request).await.expect("streams").into_inner().collect().await;
    assert_eq!(rest.len(), reasons.len() - 5, "resumed exactly");
    let request = bench.request(&LI, watch(-1)).await;
    let mut client = bench.client();
    assert!(bench.refused(async move { client.watch_case(request).await }).await.is_common("INVALID_REQUEST"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_in_time_and_resumes() {
    let bench = Arc::new(
        Bench::with(Kept::Simulated, 1, |config| {
            config.watch.age_max = runtime::config::Duration::from_millis(1_000);
        })
        .await,
    );
    let case = bench.open(&LI, opening("r-1", CHANGSHA, 500)).await.expect("opens");
    bench.until(&LI, &case.case_id, CaseState::WaitingPayment).await;
    let began = bench.clock.now();
    let request = bench.request(&LI, pb::WatchCaseRequest { case_id: case.case_id, after_sequence: 0 }).await;
    let told: Vec<_> = bench.client().watch_case(request).await.expect("streams").into_inner().collect().await;
    assert!(told.iter().all(Result::is_ok), "it ends, it does not fail: {told:?}");
    let lasted = bench.clock.now().since(began);
    assert!((Duration::from_millis(880)..Duration::from_millis(1_100)).contains(&lasted), "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn clerks_decide_in_their_scope_and_money_needs_two() {
    let bench = bench().await;
    for amount in [500, 501] {
        bench.script.plan("settle", amount, &[Play::LoseRequest]);
        bench.script.plan("inquire", amount, &[Play::Garble; 200]);
        bench.open(&LI, opening(&format!("r-{amount}"), TAIYUAN, amount)).await.expect("opens");
    }
    let cases = bench.cases(&LI).await;
    for case in &cases {
        bench.until(&LI, &case.case_id, CaseState::WaitingPayment).await;
        assert!(bench.payments.pay(case.amount.as_ref().expect("an amount").amount_minor));
    }
    for case in &cases {
        let stuck = bench.until(&LI, &case.case_id, CaseState::NeedsClerk).await;
        assert_eq!(stuck.step(), CaseStep::Settle);
    }
    let clerk = Who::Clerk("clerk-a");
    let tasks = bench.tasks(&clerk, false).await.expect("lists");
    assert_eq!(tasks.len(), 2);
    assert!(tasks.windows(2).all(|pair| matches!(pair, [a, b] if due(a) <= due(b))), "the most urgent first");
    let task = tasks.first().cloned().expect("a task");
    assert_eq!((task.profile.as_str(), task.reason.as_str()), ("traffic/140100", "SETTLE_UNRESOLVED"));

    let ruling = |request_id: &str, decision: Decision| pb::ResolveTaskRequest {
        task_id: task.task_id.clone(),
        request_id: request_id.to_owned(),
        decision: decision.into(),
        evidence: "letter 7".to_owned(),
    };
    let outsider = bench.identity.staff("clerk-x", StaffKind::Clerk, &["traffic"], &["430000"]);
    let (mut client, request) = (bench.client(), with_token(ruling("x", Decision::Refund), &outsider));
    let fault = bench.refused(async move { client.resolve_task(request).await }).await;
    assert!(fault.is(DOMAIN, "TASK_NOT_FOUND"), "{fault}");
    let operator = bench.identity.staff("root", StaffKind::Operator, &[], &[]);
    let (mut client, request) = (bench.client(), with_token(ruling("x", Decision::Refund), &operator));
    let fault = bench.refused(async move { client.resolve_task(request).await }).await;
    assert!(fault.is_common("CALLER_NOT_ALLOWED"), "{fault}");

    let fault = bench.resolve(&clerk, ruling("a-0", Decision::SendAgain)).await.expect_err("never told twice");
    assert!(fault.is(DOMAIN, "DECISION_NOT_ALLOWED"), "{fault}");
    assert_eq!(fault.metadata("step"), Some("SETTLE"));
    let proposed = bench.resolve(&clerk, ruling("a-1", Decision::Refund)).await.expect("proposes");
    assert!(proposed.needs_second_clerk);
    assert_eq!(proposed.task.as_ref().map(pb::Task::proposed_decision), Some(Decision::Refund));
    let again = bench.resolve(&clerk, ruling("a-1", Decision::Refund)).await.expect("again");
    assert_eq!(again, proposed, "the same answer");
    let alone = bench.resolve(&clerk, ruling("a-2", Decision::Refund)).await.expect_err("alone");
    assert!(alone.is(DOMAIN, "SAME_CLERK"), "{alone}");
    let agreed = bench.resolve(&Who::Clerk("clerk-b"), ruling("b-1", Decision::Refund)).await.expect("agrees");
    assert!(!agreed.needs_second_clerk && agreed.task.is_some_and(|task| task.resolved));
    let late = bench.resolve(&clerk, ruling("a-3", Decision::Refund)).await.expect_err("decided");
    assert!(late.is(DOMAIN, "TASK_NOT_OPEN"), "{late}");
    bench.until(&LI, &task.case_id, CaseState::Refunded).await;

    assert_eq!(bench.tasks(&clerk, false).await.expect("lists").len(), 1);
    let all = bench.tasks(&clerk, true).await.expect("lists");
    assert_eq!(all.iter().filter(|task| task.resolved).count(), 1);
    bench.clock.sleep(Duration::from_secs(3)).await;
    let waiting = bench.tasks(&clerk, false).await.expect("lists");
    assert!(waiting.first().is_some_and(|task| task.escalations >= 2), "past its time it escalates: {waiting:?}");
    let census = bench.census().await;
    assert_eq!((census.accepted, census.terminal, census.with_clerk, census.silent()), (2, 1, 1, 0));
    let metrics = bench.metrics();
    assert!(metrics.contains("lastmile_cases_census{part=\"with_clerk\"} 1"), "{metrics}");
    assert!(metrics.contains("lastmile_cases_census{part=\"silent\"} 0"));
}

fn due(task: &pb::Task) -> (i64, i32) {
    task.due_time.as_ref().map(|due| (due.seconds, due.nanos)).expect("a time")
}
