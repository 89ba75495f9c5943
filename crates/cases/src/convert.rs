//! Contract and domain: what callers send and read. What other roles answer is read in [`peers`].

pub(crate) mod peers;

use contracts::cases::v1 as pb;
use contracts::common::v1 as common;
use contracts::department::v1 as department;
use contracts::ids::{CaseId, TaskId};
use contracts::money::Money;
use contracts::payments::v1 as payments;
use prost::Message;
use rpc::form::{self, SERIAL_CHARS_MAX};
use rpc::{Violation, call, time};
use runtime::secret::Pii;

use crate::domain::{Decision, Kind, Proof, Rejection, State, Step};
use crate::repo::{File, TaskRow, Told, TradeType};

const DIGEST_BYTES: usize = 32;

/// What a citizen asks for, checked.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) item: String,
    pub(crate) region: String,
    pub(crate) request_id: String,
    pub(crate) bill_no: String,
    pub(crate) record_digest: Vec<u8>,
    pub(crate) amount: Money,
    pub(crate) channel: String,
    pub(crate) trade_type: TradeType,
    /// Personal; stored sealed, and only until the order exists.
    pub(crate) payer: Option<Pii<Vec<u8>>>,
    /// Personal; the encoded Struct, stored sealed.
    pub(crate) input: Option<Pii<Vec<u8>>>,
}

/// What a clerk decides, checked.
#[derive(Debug)]
pub(crate) struct Ruling {
    pub(crate) task: TaskId,
    pub(crate) request_id: String,
    pub(crate) decision: Decision,
    pub(crate) evidence: String,
}

/// Which case is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Id(CaseId),
    Request(String),
}

/// Collects every violation of one request.
#[derive(Default)]
struct Check(Vec<Violation>);

impl Check {
    fn expect(&mut self, holds: bool, field: &str, rule: &str) {
        if !holds {
            self.0.push(Violation::new(field, rule));
        }
    }

    fn request_id(&mut self, text: &str) {
        self.0.extend(call::check_request_id(text).err());
    }

    fn done<T>(self, value: T) -> Result<T, Vec<Violation>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

/// Reads an OpenCaseRequest.
///
/// Errors: every violation.
pub(crate) fn ask(request: pb::OpenCaseRequest) -> Result<Ask, Vec<Violation>> {
    let mut check = Check::default();
    check.expect(form::is_name(&request.item), "item", "must be 1 to 64 characters of a-z, 0-9, ., _ and -");
    check.expect(form::is_region(&request.region), "region", "must be 6 or 9 digits");
    check.request_id(&request.request_id);
    let Some(pb::open_case_request::Action::Pay(pay)) = request.action else {
        check.expect(false, "action", "is required");
        return Err(check.0);
    };
    check.expect(form::is_number(&pay.bill_no), "pay.bill_no", "must be 1 to 64 characters of printable ASCII");
    check.expect(pay.record_digest.len() == DIGEST_BYTES, "pay.record_digest", "must be 32 bytes");
    let channel_fits = (1..=32).contains(&pay.channel.len())
        && pay.channel.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    check.expect(channel_fits, "pay.channel", "must be 1 to 32 of a-z and 0-9");
    let trade_type = match payments::TradeType::try_from(pay.trade_type) {
        Ok(payments::TradeType::Jsapi) => Some(TradeType::Jsapi),
        Ok(payments::TradeType::Native) => Some(TradeType::Native),
        Ok(payments::TradeType::App) => Some(TradeType::App),
        Ok(payments::TradeType::H5) => Some(TradeType::H5),
        Ok(payments::TradeType::Web) => Some(TradeType::Web),
        Ok(payments::TradeType::Unspecified) | Err(_) => None,
    };
    check.expect(trade_type.is_some(), "pay.trade_type", "must be one of the contract's");
    let payer_fits = match trade_type {
        Some(TradeType::Jsapi) => form::is_payer(&pay.payer_reference),
        Some(TradeType::H5) => pay.payer_reference.is_empty() || form::is_address(&pay.payer_reference),
        Some(_) => pay.payer_reference.is_empty(),
        None => true,
    };
    let rule = "must be 1 to 128 bytes without control characters for JSAPI, an IP address for H5, and empty otherwise";
    check.expect(payer_fits, "pay.payer_reference", rule);
    let amount = match pay.amount.as_ref().map(Money::try_from) {
        Some(Ok(amount)) if amount.amount_minor() > 0 => Some(amount),
        Some(Ok(_)) => {
            check.expect(false, "pay.amount", "must be above 0");
            None
        }
        Some(Err(error)) => {
            check.expect(false, "pay.amount", &error.to_string());
            None
        }
        None => {
            check.expect(false, "pay.amount", "is required");
            None
        }
    };
    let (Some(trade_type), Some(amount)) = (trade_type, amount) else { return Err(check.0) };
    check.done(Ask {
        item: request.item,
        region: request.region,
        request_id: request.request_id,
        bill_no: pay.bill_no,
        record_digest: pay.record_digest,
        amount,
        channel: pay.channel,
        trade_type,
        payer: (!pay.payer_reference.is_empty()).then(|| Pii::new(pay.payer_reference.into_bytes())),
        input: pay.input.map(|input| Pii::new(input.encode_to_vec())),
    })
}

/// Reads which case is asked for.
///
/// Errors: a violation unless exactly one of the two is given.
pub(crate) fn which(request: &pb::GetCaseRequest) -> Result<Which, Vec<Violation>> {
    match (request.case_id.as_str(), request.request_id.as_str()) {
        ("", "") => Err(vec![Violation::new("case_id", "one of case_id and request_id is required")]),
        ("", request_id) => {
            let mut check = Check::default();
            check.request_id(request_id);
            check.done(Which::Request(request_id.to_owned()))
        }
        (id, "") => case_id(id).map(Which::Id),
        _ => Err(vec![Violation::new("case_id", "only one of case_id and request_id may be given")]),
    }
}

/// Reads a case id.
pub(crate) fn case_id(text: &str) -> Result<CaseId, Vec<Violation>> {
    text.parse().map_err(|_| vec![Violation::new("case_id", "must be `case_` and 32 hexadecimal digits")])
}

/// Reads a CancelCaseRequest.
pub(crate) fn cancel(request: &pb::CancelCaseRequest) -> Result<CaseId, Vec<Violation>> {
    let mut check = Check::default();
    check.request_id(&request.request_id);
    match case_id(&request.case_id) {
        Ok(id) => check.done(id),
        Err(mut violations) => {
            violations.append(&mut check.0);
            Err(violations)
        }
    }
}

/// Reads where a stream begins.
pub(crate) fn after_sequence(after: i64) -> Result<i64, Vec<Violation>> {
    let mut check = Check::default();
    check.expect(after >= 0, "after_sequence", "must not be negative");
    check.done(after)
}

/// Reads a ResolveTaskRequest.
///
/// Errors: every violation.
pub(crate) fn ruling(request: pb::ResolveTaskRequest) -> Result<Ruling, Vec<Violation>> {
    let mut check = Check::default();
    check.request_id(&request.request_id);
    let task: Option<TaskId> = request.task_id.parse().ok();
    check.expect(task.is_some(), "task_id", "must be `tsk_` and 32 hexadecimal digits");
    let decision = match pb::Decision::try_from(request.decision) {
        Ok(pb::Decision::DepartmentDidIt) => Some(Decision::DepartmentDidIt),
        Ok(pb::Decision::SendAgain) => Some(Decision::SendAgain),
        Ok(pb::Decision::Refund) => Some(Decision::Refund),
        Ok(pb::Decision::Unspecified) | Err(_) => None,
    };
    check.expect(decision.is_some(), "decision", "is required");
    let evidence = request.evidence.trim();
    // It may have to stand where a department's serial number stands.
    let fits = form::is_line(evidence, SERIAL_CHARS_MAX);
    check.expect(fits, "evidence", "must be 1 to 200 characters without control characters");
    let (Some(task), Some(decision)) = (task, decision) else { return Err(check.0) };
    check.done(Ruling { task, request_id: request.request_id, decision, evidence: evidence.to_owned() })
}

/// Reads the profile that a list of tasks is narrowed to; empty for all.
pub(crate) fn profile(text: &str) -> Result<&str, Violation> {
    let fits = text.is_empty() || form::is_profile(text);
    if fits { Ok(text) } else { Err(Violation::new("profile", "must be at most 70 characters")) }
}

/// Writes a case as its citizen sees it, without the pay sheet.
pub(crate) fn case(file: &File) -> pb::Case {
    let (about, case) = (&file.about, &file.case);
    pb::Case {
        case_id: case.id.to_string(),
        request_id: about.request_id.clone(),
        kind: kind(case.kind).into(),
        state: state(case.state).into(),
        step: step(case.step).into(),
        item: about.item.clone(),
        region: about.region.clone(),
        bill_no: about.bill_no.clone(),
        amount: Some(case.amount.into()),
        create_time: Some(time::to_proto(file.created)),
        update_time: Some(time::to_proto(file.updated)),
        resolve_by_time: case.resolve_by.map(time::to_proto),
        pay_sheet: None,
        proof: case.proof.as_ref().filter(|_| case.state == State::Done).map(proof),
        rejection: case.rejection.as_ref().map(rejection),
        sequence: case.sequence,
        order_id: case.order.as_ref().map(|order| order.id.clone()).unwrap_or_default(),
        linked_case_id: about.linked.map(|linked| linked.to_string()).unwrap_or_default(),
        receipt: None,
    }
}

/// Writes a line of a history.
pub(crate) fn event(told: &Told) -> pb::CaseEvent {
    pb::CaseEvent {
        sequence: told.sequence,
        commit_time: Some(time::to_proto(told.at)),
        from_state: told.from.map_or(pb::CaseState::Unspecified, state).into(),
        to_state: state(told.to).into(),
        step: step(told.step).into(),
        actor: told.actor.clone(),
        reason: told.reason.clone(),
        note: told.note.clone(),
    }
}

/// Writes a task.
pub(crate) fn task(task: &TaskRow) -> pb::Task {
    let proposed = task.proposal.as_ref().map_or(pb::Decision::Unspecified, |proposal| match proposal.decision {
        Decision::DepartmentDidIt => pb::Decision::DepartmentDidIt,
        Decision::SendAgain => pb::Decision::SendAgain,
        Decision::Refund => pb::Decision::Refund,
    });
    pb::Task {
        task_id: task.id.to_string(),
        case_id: task.case.to_string(),
        profile: task.profile.clone(),
        region: task.region.clone(),
        reason: task.reason.clone(),
        create_time: Some(time::to_proto(task.created)),
        due_time: Some(time::to_proto(task.due)),
        escalations: i32::try_from(task.escalations).unwrap_or(i32::MAX),
        proposed_decision: proposed.into(),
        resolved: task.resolved,
        step: step(Some(task.step)).into(),
    }
}

fn kind(kind: Kind) -> pb::CaseKind {
    match kind {
        Kind::Pay => pb::CaseKind::Pay,
        Kind::LateMoney => pb::CaseKind::LateMoney,
    }
}

fn state(state: State) -> pb::CaseState {
    match state {
        State::Accepted => pb::CaseState::Accepted,
        State::Confirming => pb::CaseState::Confirming,
        State::WaitingPayment => pb::CaseState::WaitingPayment,
        State::Paid => pb::CaseState::Paid,
        State::Sent => pb::CaseState::Sent,
        State::Done => pb::CaseState::Done,
        State::Rejected => pb::CaseState::Rejected,
        State::Expired => pb::CaseState::Expired,
        State::Cancelled => pb::CaseState::Cancelled,
        State::Refunding => pb::CaseState::Refunding,
        State::Refunded => pb::CaseState::Refunded,
        State::Unknown => pb::CaseState::Unknown,
        State::NeedsClerk => pb::CaseState::NeedsClerk,
    }
}

fn step(step: Option<Step>) -> pb::CaseStep {
    match step {
        None => pb::CaseStep::Unspecified,
        Some(Step::Lock) => pb::CaseStep::Lock,
        Some(Step::Order) => pb::CaseStep::Order,
        Some(Step::Payment) => pb::CaseStep::Payment,
        Some(Step::Close) => pb::CaseStep::Close,
        Some(Step::Settle) => pb::CaseStep::Settle,
        Some(Step::Post) => pb::CaseStep::Post,
        Some(Step::Refund) => pb::CaseStep::Refund,
        Some(Step::Release) => pb::CaseStep::Release,
    }
}

fn proof(proof: &Proof) -> department::Proof {
    department::Proof {
        department_serial: proof.serial.clone(),
        department_time: proof.at.map(time::to_proto),
        reply_digest: proof.reply_digest.clone(),
        profile: proof.profile.clone(),
        profile_version: proof.profile_version,
        jws: proof.jws.clone(),
    }
}

fn rejection(rejection: &Rejection) -> common::Rejection {
    common::Rejection {
        code: rejection.code.clone(),
        department_code: rejection.department_code.clone(),
        department_text: rejection.department_text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> pb::OpenCaseRequest {
        pb::OpenCaseRequest {
            item: "traffic.violation".to_owned(),
            region: "430100".to_owned(),
            request_id: "r-1".to_owned(),
            action: Some(pb::open_case_request::Action::Pay(pb::PayAction {
                bill_no: "430100".to_owned(),
                record_digest: vec![7; 32],
                amount: Some(common::Money { amount_minor: 20_000, currency: "CNY".to_owned() }),
                channel: "wechatpay".to_owned(),
                trade_type: payments::TradeType::Native.into(),
                payer_reference: String::new(),
                input: None,
            })),
        }
    }

    #[test]
    fn a_sound_request_reads() {
        let ask = ask(request()).expect("sound");
        assert_eq!((ask.amount.amount_minor(), ask.trade_type, ask.payer), (20_000, TradeType::Native, None));
    }

    #[test]
    fn every_violation_is_told_at_once_and_none_repeats_a_value() {
        let mut bad = request();
        bad.item = "x".repeat(65);
        bad.region = "43010X".to_owned();
        bad.request_id = "湘A8K2J6".to_owned();
        let Some(pb::open_case_request::Action::Pay(pay)) = &mut bad.action else { unreachable!("a payment") };
        pay.bill_no = "a\nb".to_owned();
        pay.record_digest = vec![1; 31];
        pay.channel = "WeChat".to_owned();
        pay.trade_type = payments::TradeType::Jsapi.into();
        let violations = ask(bad).expect_err("refused");
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        let expected =
            ["item", "region", "request_id", "pay.bill_no", "pay.record_digest", "pay.channel", "pay.payer_reference"];
        assert_eq!(fields, expected);
        assert!(violations.iter().all(|violation| !violation.description.contains("8K2J6")));

        let mut empty = request();
        empty.action = None;
        assert!(ask(empty).is_err());
        let mut free = request();
        let Some(pb::open_case_request::Action::Pay(pay)) = &mut free.action else { unreachable!("a payment") };
        pay.amount = Some(common::Money { amount_minor: 0, currency: "CNY".to_owned() });
        pay.trade_type = 0;
        let fields: Vec<_> = ask(free).expect_err("refused").into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["pay.trade_type", "pay.amount"]);
    }

    #[test]
    fn a_payer_is_named_to_jsapi_and_an_address_to_h5_alone() {
        let fields = |trade_type: payments::TradeType, payer: &str| {
            let mut asked = request();
            let Some(pb::open_case_request::Action::Pay(pay)) = &mut asked.action else { unreachable!("a payment") };
            pay.trade_type = trade_type.into();
            pay.payer_reference = payer.to_owned();
            ask(asked).err().into_iter().flatten().map(|violation| violation.field).collect::<Vec<_>>()
        };
        let (jsapi, native) = (payments::TradeType::Jsapi, payments::TradeType::Native);
        assert!(fields(jsapi, &"o".repeat(128)).is_empty() && fields(native, "").is_empty());
        for (theirs, ours) in [
            (payments::TradeType::App, TradeType::App),
            (payments::TradeType::H5, TradeType::H5),
            (payments::TradeType::Web, TradeType::Web),
        ] {
            let mut asked = request();
            let Some(pb::open_case_request::Action::Pay(pay)) = &mut asked.action else { unreachable!("a payment") };
            pay.trade_type = theirs.into();
            assert_eq!(ask(asked).expect("sound").trade_type, ours);
            assert_eq!(fields(theirs, "o"), ["pay.payer_reference"]);
        }
        assert!(fields(payments::TradeType::H5, "2001:db8::7").is_empty());
        for (trade_type, payer) in [(jsapi, ""), (jsapi, "o\n"), (jsapi, &"o".repeat(129)), (native, "o")] {
            assert_eq!(fields(trade_type, payer), ["pay.payer_reference"], "{trade_type:?} {payer:?}");
        }
    }

    #[test]
    fn tasks_are_narrowed_to_what_can_be_a_profile() {
        assert!(profile("").is_ok() && profile("traffic/430100").is_ok());
        assert!(profile(&"x".repeat(71)).is_err() && profile("a\nb").is_err());
    }

    #[test]
    fn exactly_one_name_of_a_case_is_taken() {
        let of = |case_id: &str, request_id: &str| {
            which(&pb::GetCaseRequest { case_id: case_id.to_owned(), request_id: request_id.to_owned() })
        };
        let id = "case_0192000000007000800000000000002a";
        assert_eq!(of(id, ""), Ok(Which::Id(id.parse().expect("an id"))));
        assert_eq!(of("", "r-1"), Ok(Which::Request("r-1".to_owned())));
        for (case_id, request_id) in [("", ""), (id, "r-1"), ("case_1", ""), ("", "a b")] {
            assert!(of(case_id, request_id).is_err());
        }
    }

    #[test]
    fn a_ruling_needs_a_decision_and_evidence() {
        let ruling = |decision: i32, evidence: &str| {
            super::ruling(pb::ResolveTaskRequest {
                task_id: "tsk_0192000000007000800000000000002a".to_owned(),
                request_id: "r-1".to_owned(),
                decision,
                evidence: evidence.to_owned(),
            })
        };
        assert_eq!(ruling(1, " S-1 ").expect("sound").evidence, "S-1");
        assert!(ruling(1, &"字".repeat(200)).is_ok());
        for (decision, evidence) in [(0, "S-1"), (9, "S-1"), (1, ""), (1, "  "), (1, &"字".repeat(201)), (1, "a\u{7}b")]
        {
            assert!(ruling(decision, evidence).is_err(), "{decision} {evidence:?}");
        }
    }
}
