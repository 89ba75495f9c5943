//! The people of a drill: citizens with their super app, and two clerks. They are patient: what gets no answer is asked again under the
//! same request id, as often as it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use contracts::cases::v1::{self as pb, CaseState, CaseStep, Decision};
use contracts::department::v1::Bill;
use contracts::payments::v1::TradeType;
use rpc::RemoteFault;
use rpc::fault::Kind;
use runtime::Context;
use tokio::time::Instant;

use super::site::Doors;
use crate::invariants::Probe;
use crate::super_app::{Citizen, ITEM, Outside, SuperApp, with_token};

/// The entry point of every citizen here.
pub const ENTRY_POINT: &str = "wechat";
/// A look at a case whose stream tells nothing new comes after so many pauses.
const LOOK_AFTER_PAUSES: u32 = 10;
/// A token is good for longer.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(240);
/// The last of the many citizens.
const STRANGER: u32 = 169_999;
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

/// A clerk's desk.
struct Desk {
    name: &'static str,
    app: SuperApp,
    /// The clerk's token and when it was given.
    token: Mutex<Option<(Instant, String)>>,
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
    /// Somebody who has no case, and a token; tries to reach those of others.
    stranger: Mutex<Option<(Instant, String)>>,
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
        Ok(Self {
            outside: Outside::new(context, &doors.control),
            app: app(ENTRY_POINT)?,
            desks: [desk("clerk-1")?, desk("clerk-2")?],
            stranger: Mutex::default(),
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
        let deadline = self.deadline();
        loop {
            let fault = match ask().await? {
                Ok(answer) => return Ok(Ok(answer.into_inner())),
                Err(status) => {
                    self.heard.told().refusals.insert(format!("{status:?}"));
                    RemoteFault::from(status)
                }
            };
            let is_answer = match fault.kind() {
                Kind::Unavailable | Kind::Deadline | Kind::Exhausted | Kind::Conflict | Kind::Internal => false,
                // A process that has just started may not know yet with which key the token was signed.
                Kind::Unauthenticated => false,
                _ => true,
            };
            if is_answer {
                return Ok(Err(fault));
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
        let ask = async || Ok(self.app.cases().open_case(with_token(asked.clone(), &debtor.token)?).await);
        let opened = self.insist("open", ask).await?;
        opened.map_err(|fault| anyhow::anyhow!("{request_id}: {fault}"))?.case.context("a case")
    }

    /// The stranger's token: the one in hand, or a new one.
    async fn stranger(&self) -> anyhow::Result<String> {
        let in_hand = self.stranger.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, token)) = in_hand.filter(|(given, _)| given.elapsed() < TOKEN_AGE_MAX) {
            return Ok(token);
        }
        let citizen = self.outside.citizen(STRANGER).await?;
        self.heard.told().canaries.extend(citizen.canaries());
        let profiles = [CHANGSHA.profile, TAIYUAN.profile];
        let token = self.persist("token", async || self.app.citizen_token(&citizen, &profiles).await).await?;
        *self.stranger.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), token.clone()));
        Ok(token)
    }

    /// A stranger asks for a case, and gets the answer that one who asks for nothing gets.
    pub async fn pry(&self, case_id: &str) -> anyhow::Result<()> {
        let token = &self.stranger().await?;
        let asked = pb::GetCaseRequest { case_id: case_id.to_owned(), request_id: String::new() };
        let ask = async || Ok(self.app.cases().get_case(with_token(asked.clone(), token)?).await);
        let leaked =
            !matches!(self.insist("pry", ask).await?, Err(fault) if fault.is("cases.lastmile", "CASE_NOT_FOUND"));
        self.heard.told().probes.push(Probe { what: format!("a stranger reads {case_id}"), leaked });
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

    /// The clerk's token: the one in hand, or a new one.
    async fn sits_down(&self, desk: &Desk) -> anyhow::Result<String> {
        let in_hand = desk.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, token)) = in_hand.filter(|(given, _)| given.elapsed() < TOKEN_AGE_MAX) {
            return Ok(token);
        }
        let token = self.persist("clerk", async || desk.app.own_token().await).await?;
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
