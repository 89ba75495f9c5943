//! A department: holds bills, takes settlements, remembers what it did, and checks for whom it works.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::common::v1 as common;
use contracts::department::v1 as pb;
use contracts::department::v1::department_service_server::DepartmentService;
use rpc::token::{ASSERTION_HEADER, ApplicantDoor, Asked, SEALED_HEADER};
use rpc::{Effect, Kind, time};
use runtime::Clock;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::{Play, Script, Trouble, locked};
use crate::not_served;

/// The amount of a bill is in its number, so that scripts find it.
pub(crate) fn bill_no(amount: i64) -> String {
    format!("B-{amount}")
}

/// The payment code of a bill; every second one has none.
pub(crate) fn payment_code(amount: i64) -> String {
    if amount % 2 == 0 { format!("PC{amount:018}") } else { String::new() }
}

fn serial(key: &str) -> String {
    format!("S-{key}")
}

fn amount_of(bill_no: &str) -> i64 {
    bill_no.strip_prefix("B-").and_then(|amount| amount.parse().ok()).expect("a bill of these tests")
}

/// The digest of the record that the citizens of these tests read.
pub(crate) const DIGEST: [u8; 32] = [7; 32];

#[derive(Clone, Debug, Default)]
struct Settlement {
    amount: i64,
    booked: u32,
    refused: Option<&'static str>,
    /// Inquiries until it is booked.
    pending: u32,
}

/// What the department knows.
#[derive(Default)]
struct Truth {
    held: BTreeMap<String, String>,
    /// Refused locks by their key: the same answer for ever.
    refused: BTreeMap<String, &'static str>,
    settlements: BTreeMap<String, Settlement>,
    strangers: Vec<String>,
    inputs: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Department {
    pub profile: &'static str,
    pub region: &'static str,
    pub idempotency: &'static str,
    pub quiet: Duration,
    pub script: Arc<Script>,
    clock: Clock,
    door: Arc<ApplicantDoor>,
    truth: Arc<Mutex<Truth>>,
}

impl Department {
    pub(crate) fn new(
        profile: &'static str,
        idempotency: &'static str,
        quiet: Duration,
        script: Arc<Script>,
        door: ApplicantDoor,
        clock: Clock,
    ) -> Self {
        let region = profile.rsplit_once('/').expect("department/region").1;
        let (door, truth) = (Arc::new(door), Arc::default());
        Self { profile, region, idempotency, quiet, script, clock, door, truth }
    }

    /// How often the bill was booked: more than once is a citizen who paid twice.
    pub(crate) fn booked(&self, amount: i64) -> u32 {
        let truth = locked(&self.truth);
        truth.settlements.values().filter(|settlement| settlement.amount == amount).map(|one| one.booked).sum()
    }

    /// What was booked, as a department's journal has it: a line as often as it was done.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let truth = locked(&self.truth);
        let line = |(key, one): (&String, &Settlement)| {
            json!({ "event": "payment", "state": "posted", "order": key, "record": bill_no(one.amount),
                "serial": serial(key), "amount_minor": one.amount })
        };
        let booked = truth.settlements.iter().filter(|(_, one)| one.booked > 0);
        booked.flat_map(|(key, one)| vec![line((key, one)); usize::try_from(one.booked).expect("few")]).collect()
    }

    /// Whether a bill is still held.
    pub(crate) fn holds(&self, amount: i64) -> bool {
        locked(&self.truth).held.contains_key(&bill_no(amount))
    }

    /// Calls that came without a sound assertion and grant.
    pub(crate) fn strangers(&self) -> Vec<String> {
        locked(&self.truth).strangers.clone()
    }

    /// The plates that came with locks and settlements.
    pub(crate) fn inputs(&self) -> Vec<String> {
        locked(&self.truth).inputs.clone()
    }

    fn check<T>(
        &self,
        request: &Request<T>,
        operation: &str,
        item: &str,
        region: &str,
        id: &str,
    ) -> Result<(), Status> {
        let header = |name| request.metadata().get(name).and_then(|value| value.to_str().ok());
        let applicant = self.door.open(
            header(ASSERTION_HEADER).unwrap_or_default(),
            header(SEALED_HEADER),
            Asked { item, region, operation },
        );
        let grant = applicant.ok().flatten().and_then(|applicant| applicant.grant);
        if region == self.region && grant.is_some_and(|grant| id.starts_with(&grant.case_id)) {
            return Ok(());
        }
        locked(&self.truth).strangers.push(format!("{operation} {id}"));
        Err(Trouble::status(Kind::Forbidden, Effect::None, "department.lastmile", "ASSERTION_INVALID"))
    }

    fn note_input(&self, input: Option<&prost_types::Struct>) {
        let plate = input.and_then(|input| input.fields.get("plate")).and_then(|value| value.kind.clone());
        if let Some(prost_types::value::Kind::StringValue(plate)) = plate {
            locked(&self.truth).inputs.push(plate);
        }
    }

    /// Plays what does not depend on the operation; None lets the operation answer.
    async fn play<T>(&self, play: Play, answer: T) -> Result<Response<T>, Status> {
        match play {
            Play::LoseAnswer | Play::LoseRequest => Err(Trouble::away(Effect::Possible)),
            Play::Refuse => Err(Trouble::away(Effect::None)),
            Play::Hang => {
                self.clock.sleep(Duration::from_secs(3_600)).await;
                Err(Trouble::away(Effect::Possible))
            }
            _ => Ok(Response::new(answer)),
        }
    }

    fn proof(&self, key: &str) -> pb::Proof {
        pb::Proof {
            department_serial: serial(key),
            department_time: Some(time::to_proto(self.clock.now())),
            reply_digest: vec![9; 32],
            profile: self.profile.to_owned(),
            profile_version: 1,
            jws: "signed".to_owned(),
        }
    }

    fn settle(&self, key: &str, amount: i64, play: Play) -> pb::SettleBillResponse {
        let mut truth = locked(&self.truth);
        let settlement = truth.settlements.entry(key.to_owned()).or_default();
        settlement.amount = amount;
        match play {
            Play::Reject(code) => settlement.refused = Some(code),
            Play::Pending => settlement.pending = 3,
            Play::LoseRequest | Play::Refuse => {}
            // One that cannot recognise a repetition books again.
            _ if self.idempotency == "none" => settlement.booked += 1,
            _ => settlement.booked = 1,
        }
        let mut answer = pb::SettleBillResponse::default();
        match (settlement.refused, settlement.pending, play) {
            (Some(code), ..) => {
                answer.outcome = common::Outcome::Rejected.into();
                answer.rejection = Some(rejection(code));
            }
            (None, 1.., _) => answer.outcome = common::Outcome::Pending.into(),
            (None, 0, Play::Garble) => answer.outcome = common::Outcome::Unknown.into(),
            (None, 0, _) => {
                answer.outcome = common::Outcome::Done.into();
                answer.proof = Some(self.proof(key));
            }
        }
        answer
    }

    fn inquire(&self, key: &str, quiet_is_over: bool) -> pb::InquireBillResponse {
        let mut truth = locked(&self.truth);
        let mut answer = pb::InquireBillResponse::default();
        let known = truth.settlements.get_mut(key);
        if let Some(settlement) = known {
            if settlement.pending > 0 {
                settlement.pending -= 1;
                settlement.booked = u32::from(settlement.pending == 0);
            }
            match (settlement.booked, settlement.refused, settlement.pending) {
                (1.., ..) => {
                    answer.outcome = common::Outcome::Done.into();
                    answer.proof = Some(self.proof(key));
                    return answer;
                }
                (0, Some(code), _) => {
                    answer.outcome = common::Outcome::Rejected.into();
                    answer.rejection = Some(rejection(code));
                    return answer;
                }
                (0, None, 1..) => {
                    answer.outcome = common::Outcome::Pending.into();
                    return answer;
                }
                (0, None, 0) => {}
            }
        }
        if quiet_is_over {
            answer.outcome = common::Outcome::Rejected.into();
            answer.rejection = Some(rejection("NEVER_HAPPENED"));
        } else {
            answer.outcome = common::Outcome::Pending.into();
        }
        answer
    }
}

fn rejection(code: &str) -> common::Rejection {
    common::Rejection {
        code: code.to_owned(),
        department_code: "3009".to_owned(),
        department_text: "不予受理".to_owned(),
    }
}

#[tonic::async_trait]
impl DepartmentService for Department {
    async fn describe(&self, _: Request<pb::DescribeRequest>) -> Result<Response<pb::DescribeResponse>, Status> {
        let ability = pb::ItemAbility {
            item: "traffic.violation".to_owned(),
            depth: common::Depth::Pay.into(),
            idempotency: self.idempotency.to_owned(),
            settle_quiet_period_ms: i64::try_from(self.quiet.as_millis()).expect("short"),
            ..pb::ItemAbility::default()
        };
        let profile = self.profile.to_owned();
        Ok(Response::new(pb::DescribeResponse { profile, items: vec![ability], ..pb::DescribeResponse::default() }))
    }

    async fn lock_bill(&self, request: Request<pb::LockBillRequest>) -> Result<Response<pb::LockBillResponse>, Status> {
        let asked = request.get_ref();
        self.check(&request, "LockBill", &asked.item, &asked.region, &asked.request_id)?;
        self.note_input(asked.input.as_ref());
        let asked = request.into_inner();
        let amount = amount_of(&asked.bill_no);
        let known = locked(&self.truth).refused.get(&asked.request_id).copied();
        let play = known.map_or_else(|| self.script.next("lock", amount), Play::Reject);
        let mut answer = pb::LockBillResponse { outcome: common::Outcome::Done.into(), ..Default::default() };
        match play {
            Play::Reject(code) => {
                locked(&self.truth).refused.insert(asked.request_id, code);
                answer.outcome = common::Outcome::Rejected.into();
                answer.rejection = Some(rejection(code));
            }
            Play::Garble => answer.outcome = common::Outcome::Unknown.into(),
            Play::LoseRequest | Play::Refuse => {}
            _ => {
                locked(&self.truth).held.insert(asked.bill_no.clone(), asked.request_id.clone());
                answer.held_until = asked.hold_until;
                answer.bill = Some(pb::Bill {
                    bill_no: asked.bill_no,
                    amount: Some(common::Money { amount_minor: amount, currency: "CNY".to_owned() }),
                    state: pb::BillState::Payable.into(),
                    record_digest: DIGEST.to_vec(),
                    payment_code: payment_code(amount),
                    ..pb::Bill::default()
                });
            }
        }
        self.play(play, answer).await
    }

    async fn release_bill(
        &self,
        request: Request<pb::ReleaseBillRequest>,
    ) -> Result<Response<pb::ReleaseBillResponse>, Status> {
        let asked = request.get_ref();
        self.check(&request, "ReleaseBill", &asked.item, &asked.region, &asked.request_id)?;
        let asked = request.into_inner();
        let play = self.script.next("release", amount_of(&asked.bill_no));
        if !matches!(play, Play::LoseRequest | Play::Refuse) {
            let mut truth = locked(&self.truth);
            if truth.held.get(&asked.bill_no) == Some(&asked.lock_request_id) {
                truth.held.remove(&asked.bill_no);
            }
        }
        let answer = pb::ReleaseBillResponse { outcome: common::Outcome::Done.into(), rejection: None };
        self.play(play, answer).await
    }

    async fn settle_bill(
        &self,
        request: Request<pb::SettleBillRequest>,
    ) -> Result<Response<pb::SettleBillResponse>, Status> {
        let asked = request.get_ref();
        self.check(&request, "SettleBill", &asked.item, &asked.region, &asked.request_id)?;
        self.note_input(asked.input.as_ref());
        let amount = amount_of(&asked.bill_no);
        assert_eq!(asked.amount.as_ref().map(|money| money.amount_minor), Some(amount), "what was held is settled");
        assert!(!asked.channel_transaction.is_empty() && asked.paid_time.is_some(), "the payment is named");
        let play = self.script.next("settle", amount);
        let answer = self.settle(&asked.request_id, amount, play);
        self.play(play, answer).await
    }

    async fn inquire_bill(
        &self,
        request: Request<pb::InquireBillRequest>,
    ) -> Result<Response<pb::InquireBillResponse>, Status> {
        let asked = request.get_ref();
        self.check(&request, "InquireBill", &asked.item, &asked.region, &asked.request_id)?;
        let sent = time::required(asked.settle_sent_time.as_ref()).expect("when it was sent");
        let quiet_is_over = self.clock.now().since(sent) >= self.quiet;
        let play = self.script.next("inquire", amount_of(&asked.bill_no));
        let answer = match play {
            Play::Answer => self.inquire(&asked.request_id, quiet_is_over),
            _ => pb::InquireBillResponse { outcome: common::Outcome::Unknown.into(), ..Default::default() },
        };
        self.play(play, answer).await
    }

    not_served! {
        pb: query(QueryRequest) -> QueryResponse, list_bills(ListBillsRequest) -> ListBillsResponse,
            list_slots(ListSlotsRequest) -> ListSlotsResponse, hold_slot(HoldSlotRequest) -> HoldSlotResponse,
            confirm_slot(ConfirmSlotRequest) -> ConfirmSlotResponse, release_slot(ReleaseSlotRequest) -> ReleaseSlotResponse,
            inquire_slot(InquireSlotRequest) -> InquireSlotResponse, submit(SubmitRequest) -> SubmitResponse,
            inquire_submission(InquireSubmissionRequest) -> InquireSubmissionResponse,
            withdraw(WithdrawRequest) -> WithdrawResponse, poll_changes(PollChangesRequest) -> PollChangesResponse;
    }
}
