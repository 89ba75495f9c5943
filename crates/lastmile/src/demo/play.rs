//! One citizen, one city, one fine: from the token to the end of the case.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use contracts::cases::v1::{
    CancelCaseRequest, Case, CaseEvent, CaseState, GetCaseRequest, OpenCaseRequest, PayAction, WatchCaseRequest,
    open_case_request,
};
use contracts::catalog::v1::GetItemRequest;
use contracts::common::v1::Outcome;
use contracts::department::v1::{Bill, BillState, ListBillsRequest, QueryRequest};
use contracts::payments::v1::{PaySheet, TradeType};
use prost_types::Struct;
use rpc::RemoteFault;
use rpc::oauth::Person;
use rpc::token::Attributes;
use runtime::Context;
use runtime::secret::Pii;
use serde_json::json;

use super::fault::{self, End, Fault};
use super::outside::{Citizen, Outside, Record};
use super::super_app::{SuperApp, Token, authorized, unending};
use super::tell::{Teller, yuan};
use super::{City, fields, proof, receipt};

const ITEM: &str = "traffic.violation";
/// Seen in person.
const LEVEL_FACE: u8 = 4;
/// Between two looks at what should have happened.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the channel may take to show a refund that lastmile calls done.
const REFUND_SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// One play.
pub(crate) struct Play<'a> {
    pub(crate) city: &'a City,
    pub(crate) fault: Option<Fault>,
    pub(crate) super_app: &'a SuperApp,
    pub(crate) outside: &'a Outside,
    pub(crate) context: &'a Context,
    /// How long a case may take to its end.
    pub(crate) patience: Duration,
}

/// Why a play did not come to its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// lastmile did not keep what it promises.
    Promise(String),
    /// Something that nothing was promised for.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// What the department tells of the citizen.
struct Told {
    points: i64,
    records: Vec<Struct>,
}

/// A case as far as it was watched.
struct Watched {
    case: Case,
    sequence: i64,
}

impl Play<'_> {
    pub(crate) async fn run(&self, teller: &mut Teller<'_>) -> Result<(), Broken> {
        let (citizen, record) = self.choose().await?;
        teller.title(self.city.name)?;
        if let Some(fault) = self.fault {
            teller.detail(&format!("staged: {}: {}", fault.name(), fault.story()))?;
        }
        let token = self.token(teller, &citizen).await?;
        self.item(teller).await?;
        let input = self.input(&citizen)?;
        let before = self.query(&token, &input).await?;
        self.tell_records(teller, &before)?;
        let bill = self.bill(teller, &token, &input, &record.number).await?;
        if let Some(act) = self.fault.and_then(Fault::after_reading) {
            self.outside.officer(self.city.region, &record.number, act.clone()).await?;
            teller.step("officer", &format!("{act} on {}", record.number))?;
        }
        let opened = self.open(teller, &token, &input, &bill).await?;
        let waiting = |case: &Case| case.state() == CaseState::WaitingPayment;
        let mut watched = self.follow(teller, &token, opened, |case| waiting(case) || is_terminal(case)).await?;
        let mut transaction = None;
        if waiting(&watched.case) {
            let payable = self.get(&token, &watched.case.case_id).await?;
            transaction = self.answer(teller, &token, &payable, &record).await?;
            watched = self.follow(teller, &token, watched, is_terminal).await?;
        }
        let after = self.query(&token, &input).await?;
        self.judge(teller, &bill, &watched.case, transaction.as_deref(), (&before, &after)).await
    }

    /// Takes somebody who has a fine to pay.
    async fn choose(&self) -> anyhow::Result<(Citizen, Record)> {
        if let Some(staged) = self.fault.and_then(|fault| fault.staged(self.city)) {
            self.outside.stage(&staged).await?;
        }
        match self.fault.and_then(Fault::magic) {
            Some(kind) => self.outside.magic_debtor(self.city.region, kind).await,
            // What goes wrong is not played with the cast: their records are for reading.
            None => self.outside.debtor(self.city.region, self.fault.is_none()).await,
        }
    }

    async fn token(&self, teller: &mut Teller<'_>, citizen: &Citizen) -> anyhow::Result<Token> {
        let attributes = Attributes {
            name: Some(Pii::new(citizen.name.clone())),
            doc_type: Some("resident_id".to_owned()),
            doc_no: Some(Pii::new(citizen.number.clone())),
            ..Attributes::default()
        };
        let sub = format!("demo-{}", citizen.number.get(14..).unwrap_or_default());
        let person = Person { sub, level: LEVEL_FACE, consents: vec![ITEM.to_owned()], attributes };
        let token = self.super_app.citizen_token(&person, &[self.city.profile]).await?;
        let what = format!(
            "{} asserts {} to identity (signed, sealed) and gets a citizen token for {}: {} bytes, {} s",
            self.super_app.id(),
            citizen.name,
            self.city.profile,
            token.access_token.len(),
            token.expires_in
        );
        teller.step("token", &what)?;
        Ok(token)
    }

    async fn item(&self, teller: &mut Teller<'_>) -> Result<(), Broken> {
        let token = self.super_app.own_token().await?;
        let asked = GetItemRequest { item: ITEM.into(), region: self.city.region.into(), entry_point: String::new() };
        let got = self.super_app.catalog().get_item(authorized(asked, &token)?).await.map_err(told)?.into_inner();
        let item = got.item.context("the catalogue answers without an item")?;
        let only = if item.sandbox_only { ", in the sandbox's catalogue only" } else { "" };
        let what = format!("{} {} ({}): {}{only}", item.item, item.name, item.display_name, item.depth().as_str_name());
        Ok(teller.step("item", &what)?)
    }

    fn input(&self, citizen: &Citizen) -> anyhow::Result<Struct> {
        let vehicle = citizen.vehicle(self.city.region).context("the citizen has no car here")?;
        Ok(fields::text([("plate", vehicle.plate.as_str()), ("plate_type", vehicle.plate_type()?)]))
    }

    async fn query(&self, token: &Token, input: &Struct) -> Result<Told, Broken> {
        let asked = QueryRequest {
            item: ITEM.into(),
            region: self.city.region.into(),
            request_id: self.request_id("query"),
            input: Some(input.clone()),
            ..QueryRequest::default()
        };
        let answer = self.super_app.department().query(authorized(asked, token)?).await.map_err(told)?.into_inner();
        if answer.outcome() != Outcome::Done {
            return Err(anyhow!("the department answers {:?} {:?}", answer.outcome(), answer.rejection).into());
        }
        let result = answer.result.context("an answer without a result")?;
        let points = fields::number(&result, &["driver", "points"]).context("the department tells no points")?;
        Ok(Told { points, records: fields::list(&result, "violations") })
    }

    fn tell_records(&self, teller: &mut Teller<'_>, before: &Told) -> anyhow::Result<()> {
        let count = before.records.len();
        teller.step(
            "records",
            &format!("the police tell {count} of this car; the driver's points stand at {}", before.points),
        )?;
        for record in &before.records {
            let text = |key| fields::string(record, &[key]).unwrap_or_default();
            let money = |key| yuan(text(key).parse().unwrap_or_default());
            let points = fields::number(record, &["points"]).unwrap_or_default();
            teller.detail(&format!("{} {} {}", text("record_no"), text("time"), text("state")))?;
            teller.detail(&format!("  {} {}", text("place"), text("violation")))?;
            let sum = format!("fine {}, late fee {}", money("fine_minor"), money("late_fee_minor"));
            let evidence = fields::number(record, &["evidence_count"]).unwrap_or_default();
            teller.detail(&format!("  {sum}, points {points}, evidence {evidence}; {}", text("unit")))?;
        }
        Ok(())
    }

    async fn bill(&self, teller: &mut Teller<'_>, token: &Token, input: &Struct, number: &str) -> Result<Bill, Broken> {
        let asked = ListBillsRequest {
            item: ITEM.into(),
            region: self.city.region.into(),
            request_id: self.request_id("bills"),
            input: Some(input.clone()),
            ..ListBillsRequest::default()
        };
        let answer =
            self.super_app.department().list_bills(authorized(asked, token)?).await.map_err(told)?.into_inner();
        let bills = answer.bills.len();
        let bill = answer.bills.into_iter().find(|bill| bill.bill_no == number);
        let bill = bill.with_context(|| format!("the bill {number} is not among the {bills} told"))?;
        if bill.state() != BillState::Payable {
            return Err(anyhow!("the bill {number} is {}", bill.state().as_str_name()).into());
        }
        let digest = hex(bill.record_digest.get(..6).unwrap_or_default());
        let what = format!("{number}: {}, digest of what was read {digest}…", yuan(amount_minor(&bill)));
        teller.step("bill", &what)?;
        Ok(bill)
    }

    async fn open(
        &self,
        teller: &mut Teller<'_>,
        token: &Token,
        input: &Struct,
        bill: &Bill,
    ) -> Result<Watched, Broken> {
        let pay = PayAction {
            bill_no: bill.bill_no.clone(),
            record_digest: bill.record_digest.clone(),
            amount: bill.amount.clone(),
            channel: "wechatpay".into(),
            trade_type: TradeType::Jsapi.into(),
            payer_reference: format!("o{}", self.context.ids.hex(27)),
            input: Some(input.clone()),
        };
        let asked = OpenCaseRequest {
            item: ITEM.into(),
            region: self.city.region.into(),
            request_id: self.request_id("open"),
            action: Some(open_case_request::Action::Pay(pay)),
        };
        let opened = self.super_app.cases().open_case(authorized(asked, token)?).await.map_err(told)?.into_inner();
        let case = opened.case.context("an answer without a case")?;
        teller.step("case", &format!("{} is open: from here on it always ends", case.case_id))?;
        Ok(Watched { case, sequence: 0 })
    }

    /// The case with its pay sheet.
    async fn get(&self, token: &Token, case_id: &str) -> Result<Case, Broken> {
        let asked = GetCaseRequest { case_id: case_id.to_owned(), request_id: String::new() };
        let got = self.super_app.cases().get_case(authorized(asked, token)?).await.map_err(told)?.into_inner();
        Ok(got.case.context("an answer without a case")?)
    }

    /// Watches a case and tells its steps, until it is as wanted. A stream that ends is asked for again from where it was.
    async fn follow(
        &self,
        teller: &mut Teller<'_>,
        token: &Token,
        mut watched: Watched,
        until: impl Fn(&Case) -> bool,
    ) -> Result<Watched, Broken> {
        let watching = async {
            loop {
                self.stream(teller, token, &mut watched, &until).await?;
                if until(&watched.case) {
                    return Ok::<(), Broken>(());
                }
                self.context.clock.sleep(LOOK_EVERY).await;
            }
        };
        match self.context.clock.timeout(self.patience, watching).await {
            Ok(ended) => ended?,
            Err(_) => {
                let (state, step) = (watched.case.state().as_str_name(), watched.case.step().as_str_name());
                let patience = self.patience.as_secs();
                return Err(Broken::Promise(format!("after {patience} s the case is still {state} ({step})")));
            }
        }
        Ok(watched)
    }

    async fn stream(
        &self,
        teller: &mut Teller<'_>,
        token: &Token,
        watched: &mut Watched,
        until: &impl Fn(&Case) -> bool,
    ) -> anyhow::Result<()> {
        let asked = WatchCaseRequest { case_id: watched.case.case_id.clone(), after_sequence: watched.sequence };
        // A replica may go away at any time; the number of the last step is the place to go on.
        let is_away = |status: &tonic::Status| RemoteFault::from(status).kind() == rpc::Kind::Unavailable;
        let mut steps = match self.super_app.cases().watch_case(unending(asked, token)?).await {
            Ok(steps) => steps.into_inner(),
            Err(status) if is_away(&status) => return Ok(()),
            Err(status) => return Err(told(status)),
        };
        loop {
            let step = match steps.message().await {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(()),
                Err(status) if is_away(&status) => return Ok(()),
                Err(status) => return Err(told(status)),
            };
            if let Some(event) = step.event {
                watched.sequence = event.sequence;
                tell_event(teller, &event)?;
            }
            if let Some(case) = step.case {
                watched.case = case;
            }
            // The case may be ahead of the step: what is still to tell comes first.
            if watched.sequence >= watched.case.sequence && until(&watched.case) {
                return Ok(());
            }
        }
    }

    /// What the citizen does at the pay sheet; the channel's transaction, where there is one.
    async fn answer(
        &self,
        teller: &mut Teller<'_>,
        token: &Token,
        case: &Case,
        record: &Record,
    ) -> Result<Option<String>, Broken> {
        if self.fault.map(Fault::citizen) == Some(fault::Citizen::Cancels) {
            let request_id = self.request_id("cancel");
            let asked = CancelCaseRequest { case_id: case.case_id.clone(), request_id };
            self.super_app.cases().cancel_case(authorized(asked, token)?).await.map_err(told)?;
            teller.step("citizen", "does not pay and cancels")?;
            return Ok(None);
        }
        if let Some(act) = self.fault.and_then(Fault::while_waiting) {
            self.outside.officer(self.city.region, &record.number, act.clone()).await?;
            teller.step("officer", &format!("{act} on {}, while the citizen is paying", record.number))?;
        }
        let prepay = prepay_id(case.pay_sheet.as_ref().context("a case that waits has a pay sheet")?)?;
        let paid = self.outside.pay(json!({ "prepay_id": prepay })).await?;
        let amount = case.amount.as_ref().map_or(0, |amount| amount.amount_minor);
        teller.step("citizen", &format!("pays {} through WeChat Pay: transaction {paid}", yuan(amount)))?;
        Ok(Some(paid))
    }

    /// Holds the end against the promise.
    async fn judge(
        &self,
        teller: &mut Teller<'_>,
        bill: &Bill,
        case: &Case,
        transaction: Option<&str>,
        (before, after): (&Told, &Told),
    ) -> Result<(), Broken> {
        let end = self.fault.map_or(End::Done, Fault::end);
        let ended = case.state();
        let wanted = match end {
            End::Done => CaseState::Done,
            End::Refunded => CaseState::Refunded,
            End::Rejected(_) => CaseState::Rejected,
            End::Cancelled => CaseState::Cancelled,
        };
        if ended != wanted {
            return Err(Broken::Promise(format!("it ended {} and not {}", ended.as_str_name(), wanted.as_str_name())));
        }
        match end {
            End::Done => self.judge_done(teller, bill, case).await?,
            End::Refunded => self.judge_refunded(teller, bill, case, transaction).await?,
            End::Rejected(codes) => judge_rejected(teller, case, codes)?,
            End::Cancelled => teller.step("end", "cancelled: the channel confirmed that the order is closed")?,
        }
        let cleared = if end == End::Done { points_of(before, &bill.bill_no)? } else { 0 };
        let told = format!("the driver's points were {} and are {}", before.points, after.points);
        teller.step("points", &format!("{told}, as the police tell them"))?;
        if after.points != before.points - cleared {
            return Err(Broken::Promise(format!("{told}: {cleared} should have gone")));
        }
        Ok(())
    }

    async fn judge_done(&self, teller: &mut Teller<'_>, bill: &Bill, case: &Case) -> Result<(), Broken> {
        let given = case.proof.as_ref().ok_or_else(|| Broken::Promise("it is done and has no proof".to_owned()))?;
        let kid = proof::verify(self.super_app, given, bill, self.city, ITEM).await?;
        let what = format!(
            "the police's serial {}, signed by {} (key {kid}): verified",
            given.department_serial, given.profile
        );
        teller.step("proof", &what)?;
        if let Some(receipt) = &case.receipt {
            teller.step("receipt", &Box::pin(receipt::verify(self.super_app, receipt)).await?)?;
        }
        Ok(())
    }

    async fn judge_refunded(
        &self,
        teller: &mut Teller<'_>,
        bill: &Bill,
        case: &Case,
        transaction: Option<&str>,
    ) -> Result<(), Broken> {
        let transaction = transaction.ok_or_else(|| Broken::Promise("money went back that nobody paid".to_owned()))?;
        let wanted = amount_minor(bill);
        let shown = async {
            while self.outside.refunded_minor(transaction).await? != wanted {
                self.context.clock.sleep(LOOK_EVERY).await;
            }
            anyhow::Ok(())
        };
        match self.context.clock.timeout(REFUND_SHOWN_WITHIN, shown).await {
            Ok(shown) => shown?,
            Err(_) => return Err(Broken::Promise("the wallet does not show the money".to_owned())),
        }
        let why = case.rejection.as_ref().map(|rejection| rejection.code.clone()).unwrap_or_default();
        Ok(teller.step("refund", &format!("the police refused ({why}); {} are back in the wallet", yuan(wanted)))?)
    }

    fn request_id(&self, step: &str) -> String {
        format!("demo-{step}-{}", self.context.ids.hex(16))
    }
}

fn judge_rejected(teller: &mut Teller<'_>, case: &Case, codes: &[&str]) -> Result<(), Broken> {
    let rejection = case.rejection.clone().unwrap_or_default();
    if !codes.contains(&rejection.code.as_str()) {
        return Err(Broken::Promise(format!("rejected with {} and not {}", rejection.code, codes.join(" or "))));
    }
    Ok(teller.step("end", &format!("rejected before anything was paid: {}", rejection.code))?)
}

fn tell_event(teller: &mut Teller<'_>, event: &CaseEvent) -> std::io::Result<()> {
    let state = event.to_state().as_str_name().trim_start_matches("CASE_STATE_");
    let step = event.step().as_str_name().trim_start_matches("CASE_STEP_");
    let step = if step == "UNSPECIFIED" { String::new() } else { format!(" [{step}]") };
    teller.detail(&format!("{:>2} {state}{step}  {} ({})", event.sequence, event.reason, event.actor))
}

fn is_terminal(case: &Case) -> bool {
    use CaseState as S;
    matches!(case.state(), S::Done | S::Rejected | S::Expired | S::Cancelled | S::Refunded)
}

fn points_of(told: &Told, number: &str) -> anyhow::Result<i64> {
    let is_it = |record: &&Struct| fields::string(record, &["record_no"]).as_deref() == Some(number);
    let record = told.records.iter().find(is_it).context("the record is not among those told")?;
    fields::number(record, &["points"]).context("the record names no points")
}

fn prepay_id(sheet: &PaySheet) -> anyhow::Result<String> {
    let package = sheet.jsapi.get("package").context("the pay sheet has no package")?;
    Ok(package.strip_prefix("prepay_id=").context("the package is no prepay id")?.to_owned())
}

fn amount_minor(bill: &Bill) -> i64 {
    bill.amount.as_ref().map_or(0, |amount| amount.amount_minor)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A refusal in the words that every caller gets.
fn told(status: tonic::Status) -> anyhow::Error {
    let fault = RemoteFault::from(&status);
    anyhow!("{:?} {}/{}: {}", status.code(), fault.domain(), fault.reason(), fault.message())
}
