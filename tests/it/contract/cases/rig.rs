//! A run of cases against one cluster: who plays, what they saw, and the judgement at its end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use contracts::cases::v1::{self as pb, CaseState};
use contracts::department::v1::Bill;
use contracts::payments::v1::TradeType;
use futures::StreamExt;
use invariants::{Call, Journals, Leaks, Probe, Verdict, World, check_all};
use lastmile::Config;
use lastmile_tests::cluster::{Builder, open_stopped};
use lastmile_tests::pry::{Prey, Reach};
use lastmile_tests::servers::Postgres;
use lastmile_tests::stores::contents;
use lastmile_tests::super_app::{Citizen, ITEM, Outside, SuperApp, with_token};
use lastmile_tests::{Cluster, Topology};
use rpc::RemoteFault;
use runtime::Context;

pub(super) const CHANGSHA: (&str, &str) = ("430100", "traffic/430100");
pub(super) const TAIYUAN: (&str, &str) = ("140100", "traffic/140100");
const PATIENCE: Duration = Duration::from_secs(120);
/// Load citizens who have no case in any test, and by which entry point they come.
const STRANGERS: [(&str, u32); 2] = [("wechat", 99_999), ("alipay", 99_998)];
/// Cases that strangers try to reach in every way; they try one way with each of the others.
const PRIED_FULLY: usize = 2;
/// What must have been judged, where money moved and where none did. I9 is not among it: it is of processes, and here all roles share
/// one; drills judge it.
const PAID: [&str; 8] = ["I1", "I2", "I3", "I4", "I5", "I6", "I8", "I10"];
const UNPAID: [&str; 5] = ["I2", "I3", "I4", "I8", "I10"];
const POLL: Duration = Duration::from_millis(100);

/// A run against one cluster: who plays, and what they saw.
pub(super) struct Run {
    pub(super) app: SuperApp,
    pub(super) outside: Outside,
    pub(super) base: String,
    keys: PathBuf,
    pub(super) context: Context,
    pub(super) calls: Vec<Call>,
    pub(super) probes: Vec<Probe>,
    canaries: Vec<String>,
    /// Every case that was opened, with the citizen and the token that opened it.
    opened: Vec<(Prey, Citizen, String)>,
}

/// A citizen with a bill that is read and not yet paid.
pub(super) struct Debtor {
    pub(super) citizen: Citizen,
    pub(super) token: String,
    pub(super) region: &'static str,
    pub(super) bill: Bill,
}

impl Run {
    /// Another client of the public port, with a key that the cluster made.
    pub(super) fn client(&self, id: &str) -> anyhow::Result<SuperApp> {
        SuperApp::new(&self.context, &self.base, id, &self.keys)
    }

    /// The n-th citizen, with a bill in a city that is read and not yet paid.
    pub(super) async fn debtor(&mut self, number: u32, city: (&'static str, &'static str)) -> anyhow::Result<Debtor> {
        let citizen = self.outside.citizen(number).await?;
        self.meet(citizen, city).await
    }

    /// The same whose record misbehaves as the number says.
    pub(super) async fn magic_debtor(
        &mut self,
        number: u32,
        city: (&'static str, &'static str),
    ) -> anyhow::Result<Debtor> {
        let citizen = self.outside.magic_citizen(number).await?;
        self.meet(citizen, city).await
    }

    async fn meet(&mut self, citizen: Citizen, city: (&'static str, &'static str)) -> anyhow::Result<Debtor> {
        self.canaries.extend(citizen.canaries());
        let token = self.app.citizen_token(&citizen, &[city.1]).await?;
        let bill = self.app.bill(&token, &citizen, city.0).await?;
        Ok(Debtor { citizen, token, region: city.0, bill })
    }

    pub(super) fn asks(&self, debtor: &Debtor, request_id: &str) -> anyhow::Result<pb::OpenCaseRequest> {
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

    pub(super) async fn open(&mut self, debtor: &Debtor, request_id: &str) -> anyhow::Result<pb::Case> {
        let asked = self.asks(debtor, request_id)?;
        let answer = self.app.cases().open_case(with_token(asked, &debtor.token)?).await;
        let answer = answer.map_err(|status| anyhow::anyhow!("{}", RemoteFault::from(status)))?;
        let case = answer.into_inner().case.context("a case")?;
        if self.call(request_id).answers.is_empty() {
            self.opened(debtor, &case.case_id, request_id)?;
        }
        self.call(request_id).answers.push(case.case_id.clone());
        Ok(case)
    }

    /// Notes a case that was opened, for strangers to try to reach.
    pub(super) fn opened(&mut self, debtor: &Debtor, case_id: &str, request_id: &str) -> anyhow::Result<()> {
        let prey = Prey::new(&debtor.citizen, debtor.region, &debtor.bill.bill_no, case_id, request_id)?;
        self.opened.push((prey, debtor.citizen.clone(), debtor.token.clone()));
        Ok(())
    }

    pub(super) fn call(&mut self, request_id: &str) -> &mut Call {
        let known = self.calls.iter().position(|call| call.request_id == request_id);
        let index = known.unwrap_or_else(|| {
            let (caller, request_id) = ("wechat".to_owned(), request_id.to_owned());
            self.calls.push(Call { caller, request_id, ..Call::default() });
            self.calls.len() - 1
        });
        self.calls.get_mut(index).expect("it was just found")
    }

    pub(super) async fn get(&self, debtor: &Debtor, case_id: &str) -> anyhow::Result<pb::Case> {
        let asked = pb::GetCaseRequest { case_id: case_id.to_owned(), request_id: String::new() };
        let answer = self.app.cases().get_case(with_token(asked, &debtor.token)?).await?.into_inner();
        answer.case.context("a case")
    }

    /// Waits until a case stands somewhere, with its pay sheet where it waits for payment.
    pub(super) async fn until(&self, debtor: &Debtor, case_id: &str, state: CaseState) -> anyhow::Result<pb::Case> {
        let deadline = self.context.clock.now().plus(PATIENCE);
        loop {
            let case = self.get(debtor, case_id).await?;
            let complete = state != CaseState::WaitingPayment || case.pay_sheet.is_some();
            if case.state() == state && complete {
                return Ok(case);
            }
            ensure!(self.context.clock.now() < deadline, "{state:?} does not come: {case:?}");
            self.context.clock.sleep(POLL).await;
        }
    }

    /// Waits until every fault that was staged for a system has been suffered.
    pub(super) async fn suffered(&self, system: &str) -> anyhow::Result<()> {
        let deadline = self.context.clock.now().plus(PATIENCE);
        while self.outside.staged(system).await? > 0 {
            ensure!(self.context.clock.now() < deadline, "nobody came by at {system}");
            self.context.clock.sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(super) async fn pay(&self, debtor: &Debtor, case_id: &str) -> anyhow::Result<()> {
        let case = self.until(debtor, case_id, CaseState::WaitingPayment).await?;
        let sheet = case.pay_sheet.context("a pay sheet")?;
        let package = sheet.jsapi.get("package").context("a package")?;
        self.outside.pay(package.strip_prefix("prepay_id=").context("a prepay id")?).await
    }

    /// The whole history, from the stream; it ends with the case.
    pub(super) async fn history(&self, debtor: &Debtor, case_id: &str) -> anyhow::Result<Vec<pb::CaseEvent>> {
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

    /// Strangers try to reach every case that there is, and every token to read where it is not for.
    async fn pry(&mut self) -> anyhow::Result<()> {
        let mut strangers = Vec::new();
        for (entry_point, number) in STRANGERS {
            let (app, citizen) = (self.client(entry_point)?, self.outside.citizen(number).await?);
            self.canaries.extend(citizen.canaries());
            let token = app.citizen_token(&citizen, &[CHANGSHA.1, TAIYUAN.1]).await?;
            strangers.push((entry_point, app, citizen, token));
        }
        for (index, (prey, citizen, token)) in self.opened.iter().enumerate() {
            for (entry_point, app, own, token) in &strangers {
                let ways = match index < PRIED_FULLY {
                    true => Reach::ALL.to_vec(),
                    false => vec![Reach::ALL[index % Reach::ALL.len()]],
                };
                for reach in ways {
                    let answer = reach.ask(app.cases(), app.department(), token, prey).await;
                    self.probes.push(prey.probe(&format!("a stranger at {entry_point}"), reach, &answer, own)?);
                }
            }
            let here = if prey.region() == CHANGSHA.0 { TAIYUAN } else { CHANGSHA };
            let elsewhere = Prey::new(citizen, here.0, "", &prey.case_id, "")?;
            for reach in [Reach::Query, Reach::ListBills] {
                let answer = reach.ask(self.app.cases(), self.app.department(), token, &elsewhere).await;
                let fault = self.refusal(answer.map(tonic::Response::new)).await?;
                // Alipay cannot pay in Taiyuan, which is said first.
                let leaked = !matches!(fault.reason(), "AUDIENCE_MISSING" | "DEPTH_NOT_OFFERED");
                self.probes.push(Probe { what: format!("a token of another city: {reach:?} in {}", here.0), leaked });
            }
        }
        Ok(())
    }

    pub(super) async fn refusal<T>(
        &self,
        answer: Result<tonic::Response<T>, tonic::Status>,
    ) -> anyhow::Result<RemoteFault> {
        match answer {
            Ok(_) => anyhow::bail!("answered"),
            Err(status) => Ok(RemoteFault::from(status)),
        }
    }
}

pub(super) fn ended(state: CaseState) -> bool {
    matches!(
        state,
        CaseState::Done | CaseState::Rejected | CaseState::Expired | CaseState::Cancelled | CaseState::Refunded
    )
}

/// Runs a test on both topologies, side by side, and judges every invariant after the processes have stopped.
pub(super) fn on_both(test: impl AsyncFn(&mut Run) -> anyhow::Result<()> + Sync) {
    on_both_with(|_| {}, test);
}

/// The same with another configuration.
pub(super) fn on_both_with(
    configure: impl Fn(&mut Config) + Clone + Send + Sync + 'static,
    test: impl AsyncFn(&mut Run) -> anyhow::Result<()> + Sync,
) {
    std::thread::scope(|scope| {
        let running = [Topology::Single, Topology::Split].map(|topology| {
            let (builder, test) = (Cluster::builder(topology).configure(configure.clone()), &test);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                let outcome = runtime.block_on(on(topology, builder, test));
                outcome.unwrap_or_else(|error| panic!("on {topology:?}: {error:?}"));
            })
        });
        for run in running {
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

async fn on(
    topology: Topology,
    builder: Builder,
    test: &impl AsyncFn(&mut Run) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // The databases outlive the cluster: they are judged when nobody writes any more.
    let _server = match topology {
        Topology::Single => None,
        Topology::Split => Some(tokio::task::spawn_blocking(Postgres::start).await?),
    };
    let books = tempfile::tempdir()?;
    let place = books.path().to_owned();
    let cluster = builder.configure(move |config| {
        let stores = &mut config.store;
        for (role, store) in
            [("identity", &mut stores.identity), ("payments", &mut stores.payments), ("cases", &mut stores.cases)]
        {
            if store.url.is_empty() {
                store.url = format!("sqlite:{}", place.join(format!("{role}.db")).display());
            }
        }
    });
    let cluster = Box::pin(cluster.build()).await?;
    let context = Context::system();
    let control = cluster.sandbox().control.to_string();
    let mut run = Run {
        app: SuperApp::new(&context, &cluster.public(), "wechat", &cluster.client_keys())?,
        outside: Outside::new(&context, &control),
        base: cluster.public(),
        keys: cluster.client_keys(),
        context: context.clone(),
        calls: Vec::new(),
        probes: Vec::new(),
        canaries: Vec::new(),
        opened: Vec::new(),
    };
    test(&mut run).await?;
    run.pry().await?;
    let stores = {
        let stores = &cluster.config(lastmile::Role::Cases).store;
        [stores.identity.clone(), stores.payments.clone(), stores.cases.clone()]
    };
    let metrics = cluster.context(lastmile::Role::Cases).metrics.encode();
    let journals = Journals::fetch(&control, &context).await?;
    cluster.stop().await?;
    let copies = tempfile::tempdir()?;
    let payments = Some(open_stopped(&stores[1], copies.path(), &context).await?);
    let cases = Some(open_stopped(&stores[2], copies.path(), &context).await?);
    let mut texts = vec![("metrics".to_owned(), metrics.into_bytes())];
    for store in &stores {
        texts.extend(contents(store).await?);
    }
    let files = std::fs::read_dir(books.path())?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let world = World {
        payments,
        cases,
        journals: Some(journals),
        calls: Some(run.calls),
        probes: Some(run.probes),
        leaks: Some(Leaks { canaries: run.canaries, texts, files }),
        ..World::at(context.clock.now())
    };
    let report = check_all(&world).await?;
    ensure!(report.verdict("I7") == Some(&Verdict::NotServed), "{report}");
    // Where nobody paid there are no transfers to balance, no captures to mirror and no events to apply.
    report.require(if report.evidence.ledger.transfers > 0 { &PAID } else { &UNPAID })
}
