//! The people of a drill: citizens with their super app, two clerks, and two operators. They are patient: what gets no answer is asked again under the
//! same request id, as often as it takes.

mod operators;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use contracts::cases::v1::{self as pb, CaseState, CaseStep, Decision};
use contracts::department::v1::Bill;
use contracts::payments::v1::TradeType;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use invariants::{Call, Found, Probe};
use rpc::fault::Kind;
use rpc::{Effect, RemoteFault};
use runtime::Context;
use tokio::time::Instant;

use operators::Office;

use super::site::Doors;
use crate::pry::{Prey, Reach};
use crate::super_app::{Citizen, ITEM, Outside, SuperApp, with_token};

/// The entry point of every citizen here.
pub const ENTRY_POINT: &str = "wechat";
/// A look at a case whose stream tells nothing new comes after so many pauses.
const LOOK_AFTER_PAUSES: u32 = 10;
/// A token is good for longer.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(240);
/// Who have no case and try to reach those of others: entry point and citizen. These are the last of the many.
const STRANGERS: [(&str, u32); 2] = [(ENTRY_POINT, 169_999), ("alipay", 169_998)];
/// Inquiries under way at once.
const INQUIRIES_MAX: usize = 8;
/// What a citizen may be told "no" for at the channel: the order is closed, paid, or gone.
const CHANNEL_SAYS_NO: [&str; 2] = ["404", "409"];

/// A city's traffic police.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct City {
    /// The region's code.
    pub region: &'static str,
    /// The adapter's profile.
    pub profile: &'static str,
    /// The system in the sandbox.
    pub system: &'static str,
}

/// SOAP and GBK.
pub const CHANGSHA: City = City { region: "430100", profile: "traffic/430100", system: "police-430100" };
/// Fixed columns over TCP.
pub const TAIYUAN: City = City { region: "140100", profile: "traffic/140100", system: "police-140100" };

/// A citizen who has read a bill and wants to pay it.
pub struct Debtor {
    citizen: Citizen,
    /// The token of the citizen's session.
    pub token: String,
    /// Where the bill is.
    pub city: City,
    /// What is to be paid.
    pub bill: Bill,
}

/// A stream over a case's history, taken up again wherever it breaks off.
#[derive(Default)]
pub struct Watching {
    after: i64,
    steps: Option<tonic::Streaming<pb::WatchCaseResponse>>,
}

/// A clerk's desk, or an operator's.
struct Desk {
    name: &'static str,
    app: SuperApp,
    /// Their token and when it was given.
    token: Mutex<Option<(Instant, String)>>,
}

/// Somebody who has no case.
struct Stranger {
    number: u32,
    app: SuperApp,
    /// The citizen with a token, and when it was given.
    known: Mutex<Option<(Instant, Citizen, String)>>,
}

/// Openings under one request id that ended without an answer: how many, and whose.
#[derive(Clone)]
struct Lost {
    times: u32,
    citizen: Citizen,
    city: City,
}

/// What people know in the end besides their cases. Clones share it.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    /// Everybody's personal data.
    canaries: BTreeSet<String>,
    /// What was refused, word by word.
    refusals: BTreeSet<String>,
    /// Attempts to reach what is somebody else's.
    probes: Vec<Probe>,
    /// Openings that ended without an answer, by their request id.
    lost: BTreeMap<String, Lost>,
}

impl Heard {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody's personal data.
    pub fn canaries(&self) -> Vec<String> {
        self.told().canaries.iter().cloned().collect()
    }

    /// What was refused, a line each.
    pub fn refusals(&self) -> String {
        self.told().refusals.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Attempts to reach what is somebody else's.
    pub fn probes(&self) -> Vec<Probe> {
        self.told().probes.clone()
    }
}

/// Everybody, at the doors of one cluster.
pub struct People {
    /// The world outside.
    pub outside: Outside,
    app: SuperApp,
    desks: [Desk; 2],
    office: Office,
    strangers: [Stranger; 2],
    heard: Heard,
    context: Context,
    patience: Duration,
    pause: Duration,
}

impl People {
    /// Meets the cluster at its doors; its keys must be there. They look again after a `pause`, and give up when their `patience` ends.
    pub fn new(
        context: &Context,
        doors: &Doors,
        heard: &Heard,
        patience: Duration,
        pause: Duration,
    ) -> anyhow::Result<Self> {
        let app = |id| SuperApp::new(context, &doors.public, id, &doors.keys);
        let desk = |name| anyhow::Ok(Desk { name, app: app(name)?, token: Mutex::default() });
        let stranger = |(id, number)| anyhow::Ok(Stranger { number, app: app(id)?, known: Mutex::default() });
        let [here, elsewhere] = STRANGERS;
        Ok(Self {
            outside: Outside::new(context, &doors.control),
            app: app(ENTRY_POINT)?,
            desks: [desk("clerk-1")?, desk("clerk-2")?],
            office: Office::new([desk("operator-1")?, desk("operator-2")?], &doors.files),
            strangers: [stranger(here)?, stranger(elsewhere)?],
            heard: heard.clone(),
            context: context.clone(),
            patience,
            pause,
        })
    }

    /// Waits a moment.
    pub async fn pause(&self) {
        self.context.clock.sleep(self.pause).await;
    }

    /// When patience ends that begins now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// Asks for what has no effect until it is answered.
    async fn persist<T>(&self, what: &str, ask: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let deadline = self.deadline();
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > deadline => return Err(error.context(what.to_owned())),
                Err(_) => self.pause().await,
            }
        }
    }

    /// Asks under one request id until there is an answer, yes or no.
    ///
    /// Errors: patience ended without one.
    async fn insist<T>(
        &self,
        what: &str,
        ask: impl AsyncFn() -> anyhow::Result<Result<tonic::Response<T>, tonic::Status>>,
    ) -> anyhow::Result<Result<T, RemoteFault>> {
        Ok(self.insist_word_by_word(what, ask).await?.map_err(RemoteFault::from))
    }

    /// The same, with a refusal as it came.
    async fn insist_word_by_word<T>(
        &self,
        what: &str,
        ask: impl AsyncFn() -> anyhow::Result<Result<tonic::Response<T>, tonic::Status>>,
    ) -> anyhow::Result<Result<T, tonic::Status>> {
        let deadline = self.deadline();
        loop {
            let status = match ask().await? {
                Ok(answer) => return Ok(Ok(answer.into_inner())),
                Err(status) => status,
            };
            self.heard.told().refusals.insert(format!("{status:?}"));
            let fault = RemoteFault::from(&status);
            if is_answer(&fault) {
                return Ok(Err(status));
            }
            ensure!(Instant::now() < deadline, "{what}: {fault}");
            self.pause().await;
        }
    }

    /// The n-th of many citizens reads the bill of their car in a city.
    pub async fn debtor(&self, number: u32, city: City) -> anyhow::Result<Debtor> {
        let citizen = self.outside.citizen(number).await?;
        self.meet(citizen, city).await
    }

    /// A citizen with a record that misbehaves as its number says.
    pub async fn magic_debtor(&self, number: u32, city: City) -> anyhow::Result<Debtor> {
        let citizen = self.outside.magic_citizen(number).await?;
        self.meet(citizen, city).await
    }

    async fn meet(&self, citizen: Citizen, city: City) -> anyhow::Result<Debtor> {
        self.heard.told().canaries.extend(citizen.canaries());
        let token = self.persist("token", async || self.app.citizen_token(&citizen, &[city.profile]).await).await?;
        let bill = self.persist("bill", async || self.app.bill(&token, &citizen, city.region).await).await?;
        Ok(Debtor { citizen, token, city, bill })
    }

    /// Opens a case for a debtor's bill.
    pub async fn open(&self, debtor: &Debtor, request_id: &str) -> anyhow::Result<pb::Case> {
        let opened = self.insist("open", async || self.try_open(debtor, request_id).await).await?;
        opened.map_err(|fault| anyhow::anyhow!("{request_id}: {fault}"))?.case.context("a case")
    }

    /// Opens a case for somebody who hangs up when the answer is lost, and asks by the request id what became of it. The call as it is
    /// over when nothing did.
    pub async fn open_once(&self, debtor: &Debtor, request_id: &str) -> anyhow::Result<Result<pb::Case, Call>> {
        let asked = async || match self.try_open(debtor, request_id).await? {
            Err(status) if is_lost(&status) => Ok(Ok(tonic::Response::new(None))),
            opened => Ok(opened.map(|answer| answer.map(Some))),
        };
        let opened = self.insist("open", asked).await?.map_err(|fault| anyhow::anyhow!("{request_id}: {fault}"))?;
        if let Some(opened) = opened {
            return Ok(Ok(opened.case.context("a case")?));
        }
        match self.found(&debtor.token, request_id).await {
            Some(Found::Done(case_id)) => Ok(Ok(self.get(debtor, &case_id).await?)),
            Some(Found::Never) => {
                let (caller, request_id) = (ENTRY_POINT.to_owned(), request_id.to_owned());
                Ok(Err(Call { caller, request_id, lost: 1, found: Some(Found::Never), ..Call::default() }))
            }
            None => bail!("nobody says what became of {request_id}"),
        }
    }

    /// One try, and a note of it when it ends without an answer.
    async fn try_open(
        &self,
        debtor: &Debtor,
        request_id: &str,
    ) -> anyhow::Result<Result<tonic::Response<pb::OpenCaseResponse>, tonic::Status>> {
        let asked = pb::OpenCaseRequest {
            item: ITEM.to_owned(),
            region: debtor.city.region.to_owned(),
            request_id: request_id.to_owned(),
            action: Some(pb::open_case_request::Action::Pay(pb::PayAction {
                bill_no: debtor.bill.bill_no.clone(),
                record_digest: debtor.bill.record_digest.clone(),
                amount: debtor.bill.amount.clone(),
                channel: "wechatpay".to_owned(),
                trade_type: TradeType::Jsapi.into(),
                payer_reference: format!("o{request_id}"),
                input: Some(debtor.citizen.input(debtor.city.region)?),
            })),
        };
        let opened = self.app.cases().open_case(with_token(asked, &debtor.token)?).await;
        if opened.as_ref().is_err_and(is_lost) {
            let mut told = self.heard.told();
            let first = || Lost { times: 0, citizen: debtor.citizen.clone(), city: debtor.city };
            told.lost.entry(request_id.to_owned()).or_insert_with(first).times += 1;
        }
        Ok(opened)
    }

    /// Asks by its request id what became of every opening that ended without an answer, now that everything works again.
    pub async fn inquire(&self, calls: &mut [Call]) -> anyhow::Result<()> {
        let lost = self.heard.told().lost.clone();
        let inquire = async |call: &mut Call| -> anyhow::Result<()> {
            let Some(Lost { times, citizen, city }) = lost.get(&call.request_id) else { return Ok(()) };
            call.lost = *times;
            if call.found.is_none() {
                let ask = async || self.app.citizen_token(citizen, &[city.profile]).await;
                let token = self.persist("token", ask).await?;
                call.found = self.found(&token, &call.request_id).await;
            }
            Ok(())
        };
        stream::iter(calls).map(Ok).try_for_each_concurrent(INQUIRIES_MAX, inquire).await
    }

    /// What became of a call of a citizen, by its request id.
    async fn found(&self, token: &str, request_id: &str) -> Option<Found> {
        let asked = pb::GetCaseRequest { case_id: String::new(), request_id: request_id.to_owned() };
        let ask = async || {
            let request = with_token(asked.clone(), token).expect("a token is a header");
            let got = self.app.cases().get_case(request).await.map_err(RemoteFault::from)?;
            Ok(got.into_inner().case.unwrap_or_default().case_id)
        };
        invariants::inquire(&self.context.clock, ask).await
    }

    /// A stranger with a token: the one in hand, or a new one.
    async fn sits_by(&self, stranger: &Stranger) -> anyhow::Result<(Citizen, String)> {
        let in_hand = stranger.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, citizen, token)) = in_hand.filter(|(given, ..)| given.elapsed() < TOKEN_AGE_MAX) {
            return Ok((citizen, token));
        }
        let citizen = self.outside.citizen(stranger.number).await?;
        self.heard.told().canaries.extend(citizen.canaries());
        let profiles = [CHANGSHA.profile, TAIYUAN.profile];
        let ask = async || stranger.app.citizen_token(&citizen, &profiles).await;
        let token = self.persist("token", ask).await?;
        let known = Some((Instant::now(), citizen.clone(), token.clone()));
        *stranger.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok((citizen, token))
    }

    /// A stranger tries to reach a debtor's case: each time another one, in another way.
    pub async fn pry(&self, debtor: &Debtor, case_id: &str, request_id: &str) -> anyhow::Result<()> {
        let number = self.heard.told().probes.len();
        let stranger = &self.strangers[number % self.strangers.len()];
        let reach = Reach::ALL[number / self.strangers.len() % Reach::ALL.len()];
        let (citizen, token) = self.sits_by(stranger).await?;
        let prey = Prey::new(&debtor.citizen, debtor.city.region, &debtor.bill.bill_no, case_id, request_id)?;
        let app = &stranger.app;
        let ask = async || Ok(reach.ask(app.cases(), app.department(), &token, &prey).await.map(tonic::Response::new));
        let answer = self.insist_word_by_word("pry", ask).await?;
        let probe = prey.probe("a stranger", reach, &answer, &citizen)?;
        self.heard.told().probes.push(probe);
        Ok(())
    }

    /// Reads a case.
    pub async fn get(&self, debtor: &Debtor, case_id: &str) -> anyhow::Result<pb::Case> {
        let asked = pb::GetCaseRequest { case_id: case_id.to_owned(), request_id: String::new() };
        let ask = async || Ok(self.app.cases().get_case(with_token(asked.clone(), &debtor.token)?).await);
        let got = self.insist("get", ask).await?;
        got.map_err(|fault| anyhow::anyhow!("{case_id}: {fault}"))?.case.context("a case")
    }

    /// Waits for the next step of a case and returns how the case stands; none when it is time to look by oneself. The stream may break
    /// off with the process that serves it; taken up again, it must go on where it was.
    pub async fn watch(
        &self,
        debtor: &Debtor,
        case_id: &str,
        watching: &mut Watching,
    ) -> anyhow::Result<Option<pb::Case>> {
        let after = watching.after;
        let step = async {
            if watching.steps.is_none() {
                let asked = pb::WatchCaseRequest { case_id: case_id.to_owned(), after_sequence: after };
                let steps = self.app.cases().watch_case(with_token(asked, &debtor.token)?).await?;
                watching.steps = Some(steps.into_inner());
            }
            watching.steps.as_mut().context("a stream")?.message().await?.context("the stream ends")
        };
        match tokio::time::timeout(self.pause * LOOK_AFTER_PAUSES, step).await {
            Err(_) => Ok(None),
            Ok(Ok(step)) => {
                let sequence = step.event.context("a step")?.sequence;
                ensure!(sequence == after + 1, "the history of {case_id} goes from {after} to {sequence}");
                watching.after = sequence;
                Ok(step.case)
            }
            Ok(Err(_)) => {
                watching.steps = None;
                self.pause().await;
                Ok(None)
            }
        }
    }

    /// Cancels a case; one that is paid meanwhile goes on.
    pub async fn cancel(&self, debtor: &Debtor, case_id: &str) -> anyhow::Result<()> {
        let asked = pb::CancelCaseRequest { case_id: case_id.to_owned(), request_id: format!("cancel-{case_id}") };
        let ask = async || Ok(self.app.cases().cancel_case(with_token(asked.clone(), &debtor.token)?).await);
        match self.insist("cancel", ask).await? {
            Err(fault) if !fault.is("cases.lastmile", "CASE_NOT_CANCELLABLE") => bail!("{case_id}: {fault}"),
            _ => Ok(()),
        }
    }

    /// The citizen pays by the pay sheet of a case, if the channel still takes it.
    pub async fn pay(&self, case: &pb::Case) -> anyhow::Result<()> {
        let sheet = case.pay_sheet.as_ref().context("a pay sheet")?;
        let package = sheet.jsapi.get("package").context("a package")?;
        let paid = self.outside.pay(package.strip_prefix("prepay_id=").context("a prepay id")?).await;
        match paid {
            Err(error) if !CHANNEL_SAYS_NO.iter().any(|code| error.to_string().contains(code)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Both clerks decide everything that waits for them: what the department has is done, the rest goes back.
    pub async fn decide(&self) -> anyhow::Result<usize> {
        let mut posted = None;
        let mut decided = 0;
        for desk in &self.desks {
            let ask = async || {
                let asked = pb::ListTasksRequest { page_size: 100, ..pb::ListTasksRequest::default() };
                Ok(desk.app.cases().list_tasks(with_token(asked, &self.sits_down(desk).await?)?).await)
            };
            let listed = self.insist("tasks", ask).await?.map_err(|fault| anyhow::anyhow!("tasks: {fault}"))?;
            if posted.is_none() && !listed.tasks.is_empty() {
                posted = Some(self.outside.posted(&[CHANGSHA.system, TAIYUAN.system]).await?);
            }
            for (task, posted) in listed.tasks.iter().zip(posted.iter().cycle()) {
                decided += self.resolve(desk, task, posted).await?;
            }
        }
        Ok(decided)
    }

    /// Their token: the one in hand, or a new one.
    async fn sits_down(&self, desk: &Desk) -> anyhow::Result<String> {
        let in_hand = desk.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, token)) = in_hand.filter(|(given, _)| given.elapsed() < TOKEN_AGE_MAX) {
            return Ok(token);
        }
        let token = self.persist("desk", async || desk.app.own_token().await).await?;
        *desk.token.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), token.clone()));
        Ok(token)
    }

    async fn resolve(&self, desk: &Desk, task: &pb::Task, posted: &BTreeMap<String, String>) -> anyhow::Result<usize> {
        let serial = posted.get(&format!("{}-settle", task.case_id));
        let (decision, evidence) = match (task.step(), serial) {
            (CaseStep::Settle, Some(serial)) => (Decision::DepartmentDidIt, serial.clone()),
            (CaseStep::Settle | CaseStep::Refund, _) => (Decision::Refund, "letter 2026-7".to_owned()),
            _ => (Decision::SendAgain, "letter 2026-7".to_owned()),
        };
        let asked = pb::ResolveTaskRequest {
            request_id: format!("{}-{}-{}", desk.name, task.task_id, i32::from(decision)),
            task_id: task.task_id.clone(),
            decision: decision.into(),
            evidence,
        };
        let ask = async || {
            let asked = with_token(asked.clone(), &self.sits_down(desk).await?)?;
            Ok(desk.app.cases().resolve_task(asked).await)
        };
        match self.insist("resolve", ask).await? {
            Ok(_) => Ok(1),
            // The case found its answer by itself in between, or the other clerk's word is still to come.
            Err(fault) if ["TASK_NOT_OPEN", "SAME_CLERK"].contains(&fault.reason()) => Ok(0),
            Err(fault) => bail!("{} of {}: {fault}", task.task_id, task.case_id),
        }
    }
}

/// Whether a refusal is an answer, which asking again does not change.
fn is_answer(fault: &RemoteFault) -> bool {
    // A process that has just started may not know yet with which key the token was signed: UNAUTHENTICATED passes as well.
    let passing =
        [Kind::Unavailable, Kind::Deadline, Kind::Exhausted, Kind::Conflict, Kind::Internal, Kind::Unauthenticated];
    !passing.contains(&fault.kind())
}

/// Whether a call ended without an answer: nothing proves that it had no effect.
fn is_lost(status: &tonic::Status) -> bool {
    let fault = RemoteFault::from(status);
    !is_answer(&fault) && fault.effect() == Effect::Possible
}

/// Whether a case has ended for good.
pub fn ended(state: CaseState) -> bool {
    matches!(
        state,
        CaseState::Done | CaseState::Rejected | CaseState::Expired | CaseState::Cancelled | CaseState::Refunded
    )
}

/// A state as the contract names it, without its prefix.
pub fn state_name(state: CaseState) -> String {
    state.as_str_name().trim_start_matches("CASE_STATE_").to_owned()
}
