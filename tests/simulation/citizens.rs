//! The citizens: each reads a bill in both cities, opens a case for each and does with it what the seed says, and asks on until the
//! case has ended. Beside them stands the entry point's own back office, which follows the stream of all its cases.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use contracts::cases::v1::{
    CancelCaseRequest, Case, CaseState, GetCaseRequest, OpenCaseRequest, PayAction, WatchCasesRequest,
    open_case_request::Action,
};
use contracts::department::v1::{Bill, ListBillsRequest};
use contracts::payments::v1::TradeType;
use futures::future::{join, join_all};
use invariants::{Call, Found, inquire};
use lastmile_tests::pry::{Prey, Reach};
use lastmile_tests::simulation::context;
use lastmile_tests::super_app::{Citizen, ITEM};
use rpc::RemoteFault;
use runtime::{Context, Timestamp, crash};
use serde_json::{Value, json};
use tonic::Response;

use crate::client::{App, Bearer, Stuck, TRY, is_lost, is_passing};
use crate::hosts::Ground;
use crate::record::Record;

/// The entry point of them all.
const ENTRY_POINT: &str = "wechat";
const REGIONS: [&str; 2] = ["430100", "140100"];
/// One citizen in so many asks for the second city's case once, and hangs up when the answer is lost.
const HANGS_UP_EVERY: u32 = 3;
/// How long somebody looks on at a case that a clerk has, in case it still goes on by itself.
const CLERK_PATIENCE: Duration = Duration::from_secs(120);

/// What a citizen does once a case can be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Pays,
    PaysLate,
    Leaves,
    Cancels,
    CancelsAndPays,
    /// An officer disputes the record while the citizen pays: the department refuses, and the money goes back.
    PaysInVain,
}

/// When everybody begins at the latest, when everything works again, and when everybody gives up.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) begin_within: Duration,
    pub(crate) healed: Timestamp,
    pub(crate) until: Timestamp,
}

struct Life<'a> {
    app: &'a App,
    record: &'a Record,
    healed: Timestamp,
    number: u32,
    citizen: Citizen,
}

/// Plays all citizens to their end.
pub(crate) async fn live(ground: Ground, count: u32, times: Times, record: Record) -> turmoil::Result {
    let context = context(ground.seed ^ 0xc171_2e45, &crash::Points::simulated(|_| {}));
    record.seen().busy = count as usize;
    let app = App::new(&context, &ground.client_keys(), ENTRY_POINT, times.until).await?;
    let first = u32::try_from(context.ids.below(60_000))?;
    let lives = (0..count).map(|number| one(&app, &record, first, number, times));
    for outcome in join_all(lives).await {
        outcome?;
    }
    Ok(())
}

async fn one(app: &App, record: &Record, first: u32, number: u32, times: Times) -> turmoil::Result {
    let begin = app.context.ids.below(u64::try_from(times.begin_within.as_millis())?);
    app.context.clock.sleep(Duration::from_millis(begin)).await;
    let (_, found) = outside(app, "GET", &format!("/citizens/load/{}", first + number), None).await;
    let citizen: Citizen = serde_json::from_value(found)?;
    record.seen().canaries.extend(citizen.canaries());
    let life = Life { app, record, healed: times.healed, number, citizen };
    let bearer = Bearer::citizen(&life.citizen);
    let (here, there) = join(Box::pin(life.pays(&bearer, REGIONS[0])), Box::pin(life.pays(&bearer, REGIONS[1]))).await;
    let pried = life.pries(&bearer).await;
    let mut seen = record.seen();
    seen.busy -= 1;
    for stuck in [here, there, pried].into_iter().filter_map(Result::err) {
        seen.breaches.push(format!("citizen {number}: {stuck}"));
    }
    Ok(())
}

/// Asks the world outside until it answers: (status, body).
async fn outside(app: &App, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    loop {
        if let Ok(answer) = app.control(method, path, body.as_ref()).await {
            return answer;
        }
        if app.is_over() {
            return (0, Value::Null);
        }
        app.pause().await;
    }
}

impl Life<'_> {
    fn context(&self) -> &Context {
        &self.app.context
    }

    fn note(&self, region: &str, what: &str) {
        self.record.note(self.context().clock.now(), format!("citizen {} {region} {what}", self.number));
    }

    fn way(&self) -> Way {
        match self.context().ids.below(12) {
            0..6 => Way::Pays,
            6 => Way::PaysLate,
            7 => Way::Leaves,
            8 => Way::Cancels,
            9 => Way::CancelsAndPays,
            _ => Way::PaysInVain,
        }
    }

    /// From the bill to the end of its case.
    async fn pays(&self, bearer: &Bearer<'_>, region: &str) -> Result<(), Stuck> {
        let bill = self.bill(bearer, region).await?;
        self.note(region, "has read the bill");
        let mut call = Call {
            caller: ENTRY_POINT.to_owned(),
            request_id: format!("open-{}-{region}", self.number),
            ..Call::default()
        };
        let outcome = self.plays(bearer, region, bill, &mut call).await;
        if call.lost > 0 && call.found.is_none() {
            call.found = self.inquires(bearer, &call.request_id).await;
        }
        self.record.seen().calls.push(call);
        outcome
    }

    async fn bill(&self, bearer: &Bearer<'_>, region: &str) -> Result<Bill, Stuck> {
        let asked = ListBillsRequest {
            item: ITEM.to_owned(),
            region: region.to_owned(),
            request_id: format!("bills-{}-{region}", self.number),
            input: self.citizen.input(region).ok(),
            ..ListBillsRequest::default()
        };
        let told = self.app.ask(bearer, &asked, async |asked| self.app.department().list_bills(asked).await).await?;
        told.bills.into_iter().next().ok_or_else(|| Stuck::Silence("nothing to pay".to_owned()))
    }

    async fn plays(&self, bearer: &Bearer<'_>, region: &str, bill: Bill, call: &mut Call) -> Result<(), Stuck> {
        let way = self.way();
        let bill_no = bill.bill_no.clone();
        self.opens(bearer, region, bill, call).await?;
        if call.answers.is_empty() {
            call.found = self.inquires(bearer, &call.request_id).await;
            self.note(region, &format!("hung up, and finds {:?}", call.found));
            if call.found == Some(Found::Never) {
                return Ok(());
            }
        }
        let mut state = CaseState::Unspecified;
        let (mut acted, mut with_clerk) = (false, None);
        let opened = self.looks(bearer, call).await?.case_id;
        if let Ok(prey) = Prey::new(&self.citizen, region, &bill_no, &opened, &call.request_id) {
            self.record.seen().preys.push((self.number, prey));
        }
        loop {
            let case = self.looks(bearer, call).await?;
            if case.state() != state {
                state = case.state();
                self.note(region, &format!("sees {}", state.as_str_name()));
            }
            if ended(state) {
                call.ended_as = Some(state.as_str_name().trim_start_matches("CASE_STATE_").to_owned());
                return Ok(());
            }
            if state == CaseState::WaitingPayment && !acted {
                acted = true;
                self.acts(bearer, region, way, &case).await?;
            }
            let now = self.context().clock.now();
            let since = *with_clerk.get_or_insert(now);
            if state != CaseState::NeedsClerk {
                with_clerk = None;
            } else if now.since(since) > CLERK_PATIENCE {
                return Ok(());
            }
            if self.app.is_over() {
                return Err(Stuck::Silence(format!("{} is still {}", case.case_id, state.as_str_name())));
            }
            self.app.pause().await;
        }
    }

    /// Opens the case; now and then twice at once, as a client does that is unsure of itself.
    async fn opens(&self, bearer: &Bearer<'_>, region: &str, bill: Bill, call: &mut Call) -> Result<(), Stuck> {
        let pay = PayAction {
            bill_no: bill.bill_no,
            record_digest: bill.record_digest,
            amount: bill.amount,
            channel: "wechatpay".to_owned(),
            trade_type: TradeType::Jsapi.into(),
            payer_reference: format!("o{}", self.context().ids.hex(27)),
            input: self.citizen.input(region).ok(),
        };
        let asked = OpenCaseRequest {
            item: ITEM.to_owned(),
            region: region.to_owned(),
            request_id: call.request_id.clone(),
            action: Some(Action::Pay(pay)),
        };
        let lost = Cell::new(0);
        let hangs_up = self.number.is_multiple_of(HANGS_UP_EVERY) && region == REGIONS[1];
        let open = async || {
            let try_once = async |asked| match self.app.cases().open_case(asked).await {
                Err(status) if is_lost(&status) => {
                    lost.set(lost.get() + 1);
                    if hangs_up { Ok(Response::new(None)) } else { Err(status) }
                }
                opened => Ok(opened?.map(|opened| opened.case)),
            };
            let opened = self.app.ask(bearer, &asked, try_once).await?.map(|case| case.case_id);
            self.note(region, &format!("has opened {opened:?}"));
            Ok(opened)
        };
        let answers = if !hangs_up && self.context().ids.below(4) == 0 {
            let (one, other) = join(open(), open()).await;
            vec![one, other]
        } else {
            vec![open().await]
        };
        call.lost = lost.get();
        for answer in answers {
            call.answers.extend(answer?);
        }
        Ok(())
    }

    /// Asks by the request id what became of a call, once everything works again and nothing of the call can still be on its way.
    async fn inquires(&self, bearer: &Bearer<'_>, request_id: &str) -> Option<Found> {
        let clock = &self.context().clock;
        let over = clock.now().max(self.healed).plus(TRY);
        clock.sleep(over.since(clock.now())).await;
        let asked = GetCaseRequest { case_id: String::new(), request_id: request_id.to_owned() };
        let ask = async || {
            let mut request = self.app.authorized(bearer, asked.clone()).await?;
            request.set_timeout(TRY);
            let got = self.app.cases().get_case(request).await.inspect_err(|status| bearer.refused(status));
            Ok(got.map_err(RemoteFault::from)?.into_inner().case.unwrap_or_default().case_id)
        };
        inquire(clock, ask).await
    }

    async fn looks(&self, bearer: &Bearer<'_>, call: &Call) -> Result<Case, Stuck> {
        let asked = GetCaseRequest { case_id: String::new(), request_id: call.request_id.clone() };
        let got = self.app.ask(bearer, &asked, async |asked| self.app.cases().get_case(asked).await).await?;
        got.case.ok_or_else(|| Stuck::Silence("an answer without a case".to_owned()))
    }

    async fn acts(&self, bearer: &Bearer<'_>, region: &str, way: Way, case: &Case) -> Result<(), Stuck> {
        let wait = |most: u64| Duration::from_millis(self.context().ids.below(most));
        match way {
            Way::Leaves => {}
            Way::Pays => {
                self.context().clock.sleep(wait(10_000)).await;
                self.transfers(region, case, false).await;
            }
            Way::PaysLate => {
                // About when the order runs out: either may be first.
                self.context().clock.sleep(Duration::from_secs(75) + wait(20_000)).await;
                self.transfers(region, case, true).await;
            }
            Way::PaysInVain => {
                let path = format!("/police/{region}/records/{}", case.bill_no);
                let (status, _) = outside(self.app, "POST", &path, Some(json!({ "action": "dispute" }))).await;
                self.note(region, &format!("is disputed: {status}"));
                self.transfers(region, case, false).await;
            }
            Way::Cancels => {
                self.context().clock.sleep(wait(5_000)).await;
                self.cancels(bearer, region, case).await?;
            }
            Way::CancelsAndPays => {
                let (cancelled, ()) = join(self.cancels(bearer, region, case), async {
                    self.context().clock.sleep(wait(2_000)).await;
                    self.transfers(region, case, true).await;
                })
                .await;
                cancelled?;
            }
        }
        Ok(())
    }

    /// Pays at the channel, which may find that there is nothing to pay any more; `although_closed` where the citizen agreed before the
    /// order was closed, and the channel takes the money all the same.
    async fn transfers(&self, region: &str, case: &Case, although_closed: bool) {
        let package = case.pay_sheet.as_ref().and_then(|sheet| sheet.jsapi.get("package")?.strip_prefix("prepay_id="));
        let Some(prepay) = package else { return self.note(region, "has no pay sheet") };
        let paid = json!({ "prepay_id": prepay, "although_closed": although_closed });
        let (status, _) = outside(self.app, "POST", "/wechatpay/pay", Some(paid)).await;
        self.note(region, &format!("paid: {status}"));
    }

    async fn cancels(&self, bearer: &Bearer<'_>, region: &str, case: &Case) -> Result<(), Stuck> {
        let request_id = format!("cancel-{}-{region}", self.number);
        let asked = CancelCaseRequest { case_id: case.case_id.clone(), request_id };
        match self.app.ask(bearer, &asked, async |asked| self.app.cases().cancel_case(asked).await).await {
            Ok(_) => self.note(region, "has cancelled"),
            // It was paid, or it ended, before the word arrived.
            Err(Stuck::Refused(fault)) if fault.reason() == "CASE_NOT_CANCELLABLE" => {
                self.note(region, "was too late to cancel");
            }
            Err(stuck) => return Err(stuck),
        }
        Ok(())
    }

    /// Tries to reach a case of somebody else, each citizen in another way.
    async fn pries(&self, bearer: &Bearer<'_>) -> Result<(), Stuck> {
        let others = |seen: &(u32, Prey)| seen.0 != self.number;
        let Some((_, prey)) = self.record.seen().preys.iter().find(|seen| others(seen)).cloned() else { return Ok(()) };
        let reach = Reach::ALL[usize::try_from(self.number).unwrap_or(0) % Reach::ALL.len()];
        let answer = self.app.persist(async || {
            let token = self.app.token_of(bearer).await?;
            let answer = reach.ask(self.app.cases(), self.app.department(), &token, &prey).await;
            match answer {
                Err(status) if is_passing(&RemoteFault::from(&status)) => {
                    bearer.refused(&status);
                    Err(RemoteFault::from(status))
                }
                answer => Ok(answer),
            }
        });
        let answer = answer.await?;
        let who = format!("citizen {}", self.number);
        let probe =
            prey.probe(&who, reach, &answer, &self.citizen).map_err(|error| Stuck::Silence(error.to_string()))?;
        self.record.seen().probes.push(probe);
        Ok(())
    }
}

fn ended(state: CaseState) -> bool {
    use CaseState as S;
    matches!(state, S::Done | S::Refunded | S::Rejected | S::Cancelled | S::Expired)
}

/// Follows the stream of all cases of the entry point, over every break, and demands each line once and in order.
pub(crate) async fn watch(ground: Ground, times: Times, record: Record) -> turmoil::Result {
    let context = context(ground.seed ^ 0x3a7c_0001, &crash::Points::simulated(|_| {}));
    let app = App::new(&context, &ground.client_keys(), ENTRY_POINT, times.until).await?;
    let bearer = Bearer::own();
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    let mut after = 0;
    loop {
        let asked = WatchCasesRequest { after_sequence: after };
        let Ok(request) = app.authorized(&bearer, asked).await else {
            app.pause().await;
            continue;
        };
        let mut steps = match app.cases().watch_cases(request).await {
            Ok(steps) => steps.into_inner(),
            Err(status) => {
                bearer.refused(&status);
                app.pause().await;
                continue;
            }
        };
        while let Ok(Some(step)) = steps.message().await {
            let event = step.event.unwrap_or_default();
            let before = newest.insert(step.case_id.clone(), event.sequence).unwrap_or(0);
            let mut seen = record.seen();
            if step.sequence != after + 1 || event.sequence != before + 1 {
                seen.breaches
                    .push(format!("the stream goes from {after} to {}, {} from {before}", step.sequence, step.case_id));
            }
            after = step.sequence;
            seen.watched = after;
            let state = event.to_state().as_str_name();
            seen.events
                .push((context.clock.now(), format!("stream {after} {} {} {state}", step.case_id, event.sequence)));
        }
        app.pause().await;
    }
}
