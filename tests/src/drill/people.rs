//! The people of a drill: citizens with their super app, and two clerks. They are patient: what gets no answer is asked again under the
//! same request id, as often as it takes.

use std::collections::BTreeMap;
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
use crate::super_app::{Citizen, ITEM, Outside, SuperApp, with_token};

/// The entry point of every citizen here.
pub const ENTRY_POINT: &str = "wechat";
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

/// Everybody, at the doors of one cluster.
pub struct People {
    /// The world outside.
    pub outside: Outside,
    app: SuperApp,
    clerks: [(&'static str, SuperApp); 2],
    context: Context,
    patience: Duration,
    pause: Duration,
}

impl People {
    /// Meets the cluster at its doors; its keys must be there. They look again after a `pause`, and give up when their `patience` ends.
    pub fn new(context: &Context, doors: &Doors, patience: Duration, pause: Duration) -> anyhow::Result<Self> {
        let app = |id| SuperApp::new(context, &doors.public, id, &doors.keys);
        Ok(Self {
            outside: Outside::new(context, &doors.control),
            app: app(ENTRY_POINT)?,
            clerks: [("clerk-1", app("clerk-1")?), ("clerk-2", app("clerk-2")?)],
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
                Err(status) => RemoteFault::from(status),
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

    /// Reads a case.
    pub async fn get(&self, debtor: &Debtor, case_id: &str) -> anyhow::Result<pb::Case> {
        let asked = pb::GetCaseRequest { case_id: case_id.to_owned(), request_id: String::new() };
        let ask = async || Ok(self.app.cases().get_case(with_token(asked.clone(), &debtor.token)?).await);
        let got = self.insist("get", ask).await?;
        got.map_err(|fault| anyhow::anyhow!("{case_id}: {fault}"))?.case.context("a case")
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
        for (name, clerk) in &self.clerks {
            let token = self.persist("clerk", async || clerk.own_token().await).await?;
            let asked = pb::ListTasksRequest { page_size: 100, ..pb::ListTasksRequest::default() };
            let ask = async || Ok(clerk.cases().list_tasks(with_token(asked.clone(), &token)?).await);
            let listed = self.insist("tasks", ask).await?.map_err(|fault| anyhow::anyhow!("tasks: {fault}"))?;
            if posted.is_none() && !listed.tasks.is_empty() {
                posted = Some(self.outside.posted(&[CHANGSHA.system, TAIYUAN.system]).await?);
            }
            for (task, posted) in listed.tasks.iter().zip(posted.iter().cycle()) {
                decided += self.resolve(clerk, name, &token, task, posted).await?;
            }
        }
        Ok(decided)
    }

    async fn resolve(
        &self,
        clerk: &SuperApp,
        name: &str,
        token: &str,
        task: &pb::Task,
        posted: &BTreeMap<String, String>,
    ) -> anyhow::Result<usize> {
        let serial = posted.get(&format!("{}-settle", task.case_id));
        let (decision, evidence) = match (task.step(), serial) {
            (CaseStep::Settle, Some(serial)) => (Decision::DepartmentDidIt, serial.clone()),
            (CaseStep::Settle | CaseStep::Refund, _) => (Decision::Refund, "letter 2026-7".to_owned()),
            _ => (Decision::SendAgain, "letter 2026-7".to_owned()),
        };
        let asked = pb::ResolveTaskRequest {
            request_id: format!("{name}-{}-{}", task.task_id, decision.as_str_name()),
            task_id: task.task_id.clone(),
            decision: decision.into(),
            evidence,
        };
        let ask = async || Ok(clerk.cases().resolve_task(with_token(asked.clone(), token)?).await);
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
