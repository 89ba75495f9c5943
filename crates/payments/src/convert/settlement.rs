//! Settlements, read and written.

use contracts::ids::SettlementId;
use contracts::money::Money;
use contracts::payments::v1 as pb;
use rpc::form::{SERIAL_CHARS_MAX, is_line};
use rpc::{page, time};
use runtime::Timestamp;

use super::{Check, read_after};
use crate::domain::ledger::is_part;
use crate::domain::settlement::{Settlement, State};
use crate::error::Error;
use crate::repo::requests::{Key, Method};
use crate::repo::settlements::{After, Filter};

const PAGE_DEFAULT: u32 = 20;
const PAGE_MAX: u32 = 100;
const PART: &str = "must be letters, digits, '-', '_' and '.', at most 64";

/// What ListSettlements asks.
#[derive(Debug)]
pub(crate) struct SettlementsAsk {
    pub(crate) filter: Filter,
    pub(crate) max: u32,
    pub(crate) before: After,
    /// Names the list for its page tokens.
    pub(crate) list: String,
}

/// What ReadSettlementFile asks.
#[derive(Debug)]
pub(crate) struct FileAsk {
    pub(crate) id: SettlementId,
    pub(crate) after: Option<After>,
    pub(crate) list: String,
}

/// What ConfirmSettlement asks.
#[derive(Debug)]
pub(crate) struct ConfirmAsk {
    pub(crate) key: Key,
    pub(crate) id: SettlementId,
    pub(crate) reference: String,
}

/// Reads CutSettlement.
pub(crate) fn cut(caller: &str, request: pb::CutSettlementRequest) -> Result<(Key, String), Error> {
    let mut check = Check::default();
    let digest = rpc::digest::request("payments.v1/CutSettlement", &request);
    let key = check.key(caller, Method::CutSettlement, &request.request_id, digest);
    check.demand("payee_id", is_part(&request.payee_id), PART);
    check.done(Some((key, request.payee_id)))
}

/// Reads ListSettlements.
pub(crate) fn settlements(request: &pb::ListSettlementsRequest) -> Result<SettlementsAsk, Error> {
    let mut check = Check::default();
    let payee = &request.payee_id;
    check.demand("payee_id", payee.is_empty() || is_part(payee), PART);
    let state = match pb::SettlementState::try_from(request.state) {
        Ok(pb::SettlementState::Unspecified) => Some(String::new()),
        Ok(state) => STATES.iter().find(|(_, told)| *told == state).map(|(state, _)| state.to_string()),
        Err(_) => None,
    };
    check.demand("state", state.is_some(), "must be one of the contract's");
    let max = check.take(page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX));
    let list = format!("payments.v1/ListSettlements|{payee}|{}", request.state);
    let before = check.take(page::key(&list, &request.page_token).and_then(|key| match key {
        // Newest first: behind what will ever be.
        None => Ok((Timestamp::from_micros(i64::MAX), String::new())),
        key => read_after(key),
    }));
    let filter = Filter { payee: payee.clone(), state: state.unwrap_or_default() };
    check.done(max.zip(before).map(|(max, before)| SettlementsAsk { filter, max, before, list }))
}

/// Reads ReadSettlementFile.
pub(crate) fn file(request: &pb::ReadSettlementFileRequest) -> Result<FileAsk, Error> {
    let mut check = Check::default();
    let id = check.parse("settlement_id", &request.settlement_id);
    let list = format!("payments.v1/ReadSettlementFile|{}", request.settlement_id);
    let after = check.take(page::key(&list, &request.page_token).and_then(|key| match key {
        None => Ok(None),
        key => read_after(key).map(Some),
    }));
    check.done(id.zip(after).map(|(id, after)| FileAsk { id, after, list }))
}

/// Reads ConfirmSettlement.
pub(crate) fn confirm(caller: &str, request: pb::ConfirmSettlementRequest) -> Result<ConfirmAsk, Error> {
    let mut check = Check::default();
    let digest = rpc::digest::request("payments.v1/ConfirmSettlement", &request);
    let key = check.key(caller, Method::ConfirmSettlement, &request.request_id, digest);
    let id = check.parse("settlement_id", &request.settlement_id);
    let reference = request.reference;
    check.demand("reference", is_line(&reference, SERIAL_CHARS_MAX), "must be text of at most 200 characters");
    check.done(id.map(|id| ConfirmAsk { key, id, reference }))
}

/// Reads the id of a settlement.
pub(crate) fn settlement_id(text: &str) -> Result<SettlementId, Error> {
    let mut check = Check::default();
    let id = check.parse("settlement_id", text);
    check.done(id)
}

/// Writes the token of the page behind (time, id).
pub(crate) fn place_token(list: &str, (at, id): &After) -> String {
    page::token(list, &[&at.micros().to_be_bytes(), id.as_bytes()].concat())
}

const STATES: [(State, pb::SettlementState); 5] = [
    (State::Cutting, pb::SettlementState::Cutting),
    (State::Cut, pb::SettlementState::Cut),
    (State::Signed, pb::SettlementState::Signed),
    (State::PaidOver, pb::SettlementState::PaidOver),
    (State::Carried, pb::SettlementState::Carried),
];

/// Writes a settlement.
pub(crate) fn settlement(one: &Settlement) -> Result<pb::Settlement, Error> {
    let bug = || Error::Internal("the sums of a settlement");
    let money = |minor: i64| Money::new(minor, one.currency).map(|money| Some(money.into())).map_err(|_| bug());
    let state = STATES.iter().find(|(state, _)| *state == one.state).map(|(_, told)| *told);
    Ok(pb::Settlement {
        settlement_id: one.id.to_string(),
        payee_id: one.payee.clone(),
        number: one.number,
        day: one.day.to_string(),
        state: state.unwrap_or_default().into(),
        cut_time: Some(time::to_proto(one.cut_at)),
        line_count: one.totals.count,
        gross: money(one.totals.gross)?,
        refunds: money(one.totals.refunds)?,
        carried: money(one.carried)?,
        carried_from: one.carried_from.map(|id| id.to_string()).unwrap_or_default(),
        net: money(one.net().ok_or_else(bug)?)?,
        file_name: one.sha256.as_ref().map(|_| one.file_name()).unwrap_or_default(),
        file_sha256: one.sha256.clone().unwrap_or_default(),
        signature: one.signature.clone().unwrap_or_default(),
        key: one.key.clone().unwrap_or_default(),
        reference: one.reference.clone(),
        first_confirmed_by: one.first_by.clone(),
        confirmed_by: one.second_by.clone(),
        paid_over_time: one.paid_over_at.map(time::to_proto),
    })
}
