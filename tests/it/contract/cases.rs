//! What cases promises, asked at the public port of a whole cluster, on both topologies; at the end of each run every invariant is
//! judged by what ledger, cases, channel and departments wrote down.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use contracts::cases::v1::{self as pb, CaseState};
use contracts::department::v1::Bill;
use contracts::payments::v1::TradeType;
use futures::StreamExt;
use lastmile_tests::cluster::open_stopped;
use lastmile_tests::invariants::{Call, Journals, Leaks, Probe, Verdict, World, check_all};
use lastmile_tests::servers::Postgres;
use lastmile_tests::super_app::{Citizen, ITEM, Outside, SuperApp, with_token};
use lastmile_tests::{Cluster, Topology};
use rpc::RemoteFault;
use runtime::Context;

const CHANGSHA: (&str, &str) = ("430100", "traffic/430100");
const TAIYUAN: (&str, &str) = ("140100", "traffic/140100");
const PATIENCE: Duration = Duration::from_secs(60);

/// A run against one cluster: who plays, and what they saw.
struct Run {
    app: SuperApp,
    outside: Outside,
    context: Context,
    calls: Vec<Call>,
    probes: Vec<Probe>,
    canaries: Vec<String>,
}

/// A citizen with a bill that is read and not yet paid.
struct Debtor {
    citizen: Citizen,
    token: String,
    region: &'static str,
    bill: Bill,
}

impl Run {
    async fn debtor(&mut self, number: u32, city: (&'static str, &'static str)) -> anyhow::Result<Debtor> {
        let citizen = self.outside.citizen(number).await?;
        self.canaries.extend(citizen.canaries());
        let token = self.app.citizen_token(&citizen, &[city.1]).await?;
        let bill = self.app.bill(&token, &citizen, city.0).await?;
        Ok(Debtor { citizen, token, region: city.0, bill })
    }

    fn asks(&self, debtor: &Debtor, request_id: &str) -> anyhow::Result<pb::OpenCaseRequest> {
        Ok(pb::OpenCaseRequest {
            item: ITEM.to_owned(),
            region: debtor.region.to_owned(),
            request_id: request_id.to_owned(),
            action: Some(pb::open_case_request::Action::Pay(pb::PayAction {
                bill_no: debtor.bill.bill_no.clone(),
                record_digest: debtor.bill.record_digest.clone(),
                amount: debtor.bill.amount.clone(),
                channel: "wechatpay".to_owned(),
                trade_type: TradeType::Jsapi.into(),
                payer_reference: format!("o{request_id}"),
                input: Some(debtor.citizen.input(debtor.region)?),
            })),
        })
    }

    async fn open(&mut self, debtor: &Debtor, request_id: &str) -> anyhow::Result<pb::Case> {
        let asked = self.asks(debtor, request_id)?;
        let answer = self.app.cases().open_case(with_token(asked, &debtor.token)?).await;
        let answer = answer.map_err(|status| anyhow::anyhow!("{}", RemoteFault::from(status)))?;
        let case = answer.into_inner().case.context("a case")?;
        self.call(request_id).answers.push(case.case_id.clone());
        Ok(case)
    }

    fn call(&mut self, request_id: &str) -> &mut Call {
        let known = self.calls.iter().position(|call| call.request_id == request_id);
        let index = known.unwrap_or_else(|| {
            let (entry_point, request_id) = ("wechat".to_owned(), request_id.to_owned());
            self.calls.push(Call { entry_point, request_id, ..Call::default() });
            self.calls.len() - 1
        });
        self.calls.get_mut(index).expect("it was just found")
    }

    async fn get(&self, debtor: &Debtor, case_id: &str) -> anyhow::Result<pb::Case> {
        let asked = pb::GetCaseRequest { case_id: case_id.to_owned(), request_id: String::new() };
        let answer = self.app.cases().get_case(with_token(asked, &debtor.token)?).await?.into_inner();
        answer.case.context("a case")
    }

    /// Waits until a case stands somewhere, with its pay sheet where it waits for payment.
    async fn until(&self, debtor: &Debtor, case_id: &str, state: CaseState) -> anyhow::Result<pb::Case> {
        let deadline = self.context.clock.now().plus(PATIENCE);
        loop {
            let case = self.get(debtor, case_id).await?;
            let complete = state != CaseState::WaitingPayment || case.pay_sheet.is_some();
            if case.state() == state && complete {
                return Ok(case);
            }
            ensure!(self.context.clock.now() < deadline, "{state:?} does not come: {case:?}");
            self.context.clock.sleep(Duration::from_millis(50)).await;
        }
    }

    async fn pay(&self, debtor: &Debtor, case_id: &str) -> anyhow::Result<()> {
        let case = self.until(debtor, case_id, CaseState::WaitingPayment).await?;
        let sheet = case.pay_sheet.context("a pay sheet")?;
        let package = sheet.jsapi.get("package").context("a package")?;
        self.outside.pay(package.strip_prefix("prepay_id=").context("a prepay id")?).await
    }

    /// The whole history, from the stream; it ends with the case.
    async fn history(&self, debtor: &Debtor, case_id: &str) -> anyhow::Result<Vec<pb::CaseEvent>> {
        let mut events: Vec<pb::CaseEvent> = Vec::new();
        let deadline = self.context.clock.now().plus(PATIENCE);
        while !events.last().is_some_and(|event| ended(event.to_state())) {
            ensure!(self.context.clock.now() < deadline, "the history does not end: {events:?}");
            let after_sequence = events.last().map_or(0, |event| event.sequence);
            let asked = pb::WatchCaseRequest { case_id: case_id.to_owned(), after_sequence };
            let mut stream = self.app.cases().watch_case(with_token(asked, &debtor.token)?).await?.into_inner();
            while let Some(Ok(told)) = stream.next().await {
                events.push(told.event.context("an event")?);
            }
        }
        Ok(events)
    }

    async fn refusal<T>(&self, answer: Result<tonic::Response<T>, tonic::Status>) -> anyhow::Result<RemoteFault> {
        match answer {
            Ok(_) => anyhow::bail!("answered"),
            Err(status) => Ok(RemoteFault::from(status)),
        }
    }
}

fn ended(state: CaseState) -> bool {
    matches!(
        state,
        CaseState::Done | CaseState::Rejected | CaseState::Expired | CaseState::Cancelled | CaseState::Refunded
    )
}

/// Runs a test on both topologies and judges every invariant after the processes have stopped.
fn on_both(test: impl AsyncFn(&mut Run) -> anyhow::Result<()>) {
    for topology in [Topology::Single, Topology::Split] {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let outcome = runtime.block_on(on(topology, &test));
        if let Err(error) = outcome {
            panic!("on {topology:?}: {error:?}");
        }
    }
}

async fn on(topology: Topology, test: &impl AsyncFn(&mut Run) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // The databases outlive the cluster: they are judged when nobody writes any more.
    let _server = match topology {
        Topology::Single => None,
        Topology::Split => Some(tokio::task::spawn_blocking(Postgres::start).await?),
    };
    let books = tempfile::tempdir()?;
    let place = books.path().to_owned();
    let cluster = Cluster::builder(topology).configure(move |config| {
        if config.store.payments.url.is_empty() {
            config.store.payments.url = format!("sqlite:{}", place.join("payments.db").display());
            config.store.cases.url = format!("sqlite:{}", place.join("cases.db").display());
        }
    });
    let cluster = Box::pin(cluster.build()).await?;
    let context = Context::system();
    let control = cluster.sandbox().control.to_string();
    let mut run = Run {
        app: SuperApp::new(&context, &cluster.public(), "wechat", &cluster.client_keys())?,
        outside: Outside::new(&context, &control),
        context: context.clone(),
        calls: Vec::new(),
        probes: Vec::new(),
        canaries: Vec::new(),
    };
    test(&mut run).await?;
    let stores = {
        let config = cluster.config(lastmile::Role::Cases);
        (config.store.payments.clone(), config.store.cases.clone())
    };
    let metrics = cluster.context(lastmile::Role::Cases).metrics.encode();
    let journals = Journals::fetch(&control, &context).await?;
    cluster.stop().await?;
    let copies = tempfile::tempdir()?;
    let payments = open_stopped(&stores.0, copies.path(), &context).await?;
    let cases = open_stopped(&stores.1, copies.path(), &context).await?;
    let files = std::fs::read_dir(books.path())?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let world = World {
        now: context.clock.now(),
        payments,
        cases,
        journals: Some(journals),
        calls: Some(run.calls),
        probes: Some(run.probes),
        bounds: None,
        leaks: Some(Leaks { canaries: run.canaries, texts: vec![("metrics".to_owned(), metrics)], files }),
    };
    let report = check_all(&world).await?;
    ensure!(report.broken().is_empty(), "{report}");
    ensure!(report.verdict("I7") == Some(&Verdict::NotServed), "{report}");
    Ok(())
}

#[test]
fn a_fine_is_paid_in_both_cities_and_every_book_agrees() {
    on_both(async |run| {
        for (index, city) in [CHANGSHA, TAIYUAN].into_iter().enumerate() {
            let request_id = format!("fine-{index}");
            let debtor = run.debtor(10 + u32::try_from(index)?, city).await?;
            let opened = run.open(&debtor, &request_id).await?;
            ensure!(opened.state() == CaseState::Accepted, "{opened:?}");
            ensure!(run.open(&debtor, &request_id).await? == opened, "every answer for a request id is equal");
            run.pay(&debtor, &opened.case_id).await?;
            let history = run.history(&debtor, &opened.case_id).await?;
            let states: Vec<_> = history.iter().map(pb::CaseEvent::to_state).collect();
            ensure!(states.last() == Some(&CaseState::Done), "{history:?}");
            ensure!(states.starts_with(&[CaseState::Accepted, CaseState::Confirming]), "{states:?}");
            let case = run.get(&debtor, &opened.case_id).await?;
            let proof = case.proof.context("a proof")?;
            ensure!(proof.profile == city.1 && !proof.department_serial.is_empty() && !proof.jws.is_empty());
            run.call(&request_id).ended_as = Some("DONE".to_owned());
        }
        Ok(())
    });
}

#[test]
fn a_refusal_after_payment_sends_the_money_back() {
    on_both(async |run| {
        let debtor = run.debtor(20, CHANGSHA).await?;
        let case = run.open(&debtor, "refused").await?;
        run.until(&debtor, &case.case_id, CaseState::WaitingPayment).await?;
        run.outside.officer(debtor.region, &debtor.bill.bill_no, "dispute").await?;
        run.pay(&debtor, &case.case_id).await?;
        let history = run.history(&debtor, &case.case_id).await?;
        let end = history.last().map(pb::CaseEvent::to_state);
        ensure!(end == Some(CaseState::Refunded), "{history:?}");
        run.call("refused").ended_as = Some("REFUNDED".to_owned());
        Ok(())
    });
}

#[test]
fn a_settlement_that_never_arrived_is_found_out_and_sent_again() {
    on_both(async |run| {
        let debtor = run.debtor(21, CHANGSHA).await?;
        let case = run.open(&debtor, "lost").await?;
        run.until(&debtor, &case.case_id, CaseState::WaitingPayment).await?;
        run.outside.stage("police-430100", "pay", "drop_before").await?;
        run.pay(&debtor, &case.case_id).await?;
        let history = run.history(&debtor, &case.case_id).await?;
        let reasons: Vec<_> = history.iter().map(|event| event.reason.as_str()).collect();
        let end = history.last().map(pb::CaseEvent::to_state);
        ensure!(end == Some(CaseState::Done) && reasons.contains(&"NEVER_HAPPENED"), "{history:?}");
        run.call("lost").ended_as = Some("DONE".to_owned());
        Ok(())
    });
}

#[test]
fn a_case_belongs_to_its_citizen_and_a_bill_to_its_case() {
    on_both(async |run| {
        let (li, wang) = (run.debtor(30, CHANGSHA).await?, run.debtor(31, CHANGSHA).await?);
        let case = run.open(&li, "own").await?;
        let mut cases = run.app.cases();
        for asked in [
            pb::GetCaseRequest { case_id: case.case_id.clone(), request_id: String::new() },
            pb::GetCaseRequest { case_id: String::new(), request_id: "own".to_owned() },
        ] {
            let fault = run.refusal(cases.get_case(with_token(asked, &wang.token)?).await).await?;
            let leaked = !fault.is("cases.lastmile", "CASE_NOT_FOUND");
            run.probes.push(Probe { what: format!("another citizen gets a case: {fault}"), leaked });
        }
        let asked = run.asks(&wang, "own")?;
        let fault = run.refusal(cases.open_case(with_token(asked, &wang.token)?).await).await?;
        ensure!(fault.is("common.lastmile", "REQUEST_ID_REUSED"), "{fault}");
        let asked = run.asks(&li, "own-again")?;
        let fault = run.refusal(cases.open_case(with_token(asked, &li.token)?).await).await?;
        ensure!(fault.is("cases.lastmile", "BILL_IN_PROGRESS"), "{fault}");
        let cancel =
            |case_id: &str| pb::CancelCaseRequest { case_id: case_id.to_owned(), request_id: "stop".to_owned() };
        let fault = run.refusal(cases.cancel_case(with_token(cancel(&case.case_id), &wang.token)?).await).await?;
        run.probes.push(Probe {
            what: format!("another citizen cancels a case: {fault}"),
            leaked: !fault.is("cases.lastmile", "CASE_NOT_FOUND"),
        });
        run.until(&li, &case.case_id, CaseState::WaitingPayment).await?;
        cases.cancel_case(with_token(cancel(&case.case_id), &li.token)?).await?;
        run.until(&li, &case.case_id, CaseState::Cancelled).await?;
        run.call("own").ended_as = Some("CANCELLED".to_owned());
        let listed = cases.list_cases(with_token(pb::ListCasesRequest::default(), &li.token)?).await?.into_inner();
        ensure!(listed.cases.iter().any(|listed| listed.case_id == case.case_id), "{listed:?}");
        let foreign = cases.list_cases(with_token(pb::ListCasesRequest::default(), &wang.token)?).await?.into_inner();
        run.probes.push(Probe { what: "another citizen lists a case".to_owned(), leaked: !foreign.cases.is_empty() });

        let own = run.app.own_token().await?;
        let mut stream = cases.watch_cases(with_token(pb::WatchCasesRequest::default(), &own)?).await?.into_inner();
        let first = stream.next().await.context("a line")??;
        ensure!(first.sequence == 1 && first.case_id == case.case_id, "{first:?}");
        let rate = pb::RateCaseRequest { case_id: case.case_id, request_id: "rate".to_owned(), rating: 1 };
        let fault = run.refusal(cases.rate_case(with_token(rate, &li.token)?).await).await?;
        ensure!(fault.is_common("NOT_SERVED"), "{fault}");
        Ok(())
    });
}
