//! Between the contract's messages and the domain. Every violation of a request is gathered, not only the first.

use std::fmt::Display;
use std::str::FromStr;

use contracts::common::v1 as common;
use contracts::ids::{CaseId, OrderId, RefundId};
use contracts::money::Money;
use contracts::payments::v1 as pb;
use jiff::civil::Date;
use prost::Message;
use rpc::form::{SERIAL_CHARS_MAX, is_address, is_line, is_payer};
use rpc::{Violation, call, page, time};
use runtime::Timestamp;
use runtime::secret::Pii;

use crate::beijing;
use crate::channel::{Known, PaySheet};
use crate::domain::breaks::{Kept, Resolution, State as BreakState};
use crate::domain::fees::{CURRENCY, run_id};
use crate::domain::insurance::Legs;
use crate::domain::ledger::{Account, Balance, Merchant, Subject, is_part};
use crate::domain::order::{Happening, Order, State, TradeType};
use crate::domain::refund::{Refund, State as RefundState};
use crate::error::Error;
use crate::reconcile::{BreakKind, Told};
use crate::repo::breaks::Filter;
use crate::repo::ledger::{After, Booked};
use crate::repo::requests::{Key, Method};
use crate::repo::runs::{Run, State as RunState};
use crate::till::days::age;

mod combined;
mod insured;
mod receipts;
mod settlement;

pub(crate) use combined::{CombineAsk, combined_order, create_combined};
pub(crate) use insured::InsuranceAsk;
pub(crate) use receipts::{VerifyAsk, receipt, verified, verify};
pub(crate) use settlement::{
    ConfirmAsk, FileAsk, SettlementsAsk, confirm, cut, file, place_token, settlement, settlement_id, settlements,
};

const REASON_CHARS_MAX: usize = 80;
const EVENTS_DEFAULT: u32 = 100;
const EVENTS_MAX: u32 = 1_000;
const TRANSFERS_DEFAULT: u32 = 100;
const TRANSFERS_MAX: u32 = 1_000;
const BREAKS_DEFAULT: u32 = 20;
const BREAKS_MAX: u32 = 100;
const WAIT_MS_MAX: i64 = 20_000;

/// What CreateOrder asks.
#[derive(Debug)]
pub(crate) struct CreateAsk {
    pub(crate) key: Key,
    pub(crate) case_id: String,
    pub(crate) payee_id: String,
    pub(crate) amount: Money,
    pub(crate) channel: String,
    pub(crate) trade_type: TradeType,
    pub(crate) entry_point: String,
    pub(crate) payer: Option<Pii<String>>,
    pub(crate) description: String,
    pub(crate) expire_at: Timestamp,
    pub(crate) payment_code: Option<String>,
    /// What makes it a mixed order.
    pub(crate) insurance: Option<InsuranceAsk>,
}

/// What Refund asks.
#[derive(Clone, Debug)]
pub(crate) struct RefundAsk {
    pub(crate) key: Key,
    pub(crate) order: OrderId,
    pub(crate) amount: Money,
    pub(crate) reason: String,
    pub(crate) is_after_settlement: bool,
    /// How the amount is split over the legs of a mixed order.
    pub(crate) legs: Option<Legs>,
    /// When the insurance centre gave its part back.
    pub(crate) insurance_returned_at: Option<Timestamp>,
}

/// What Reconcile asks.
#[derive(Debug)]
pub(crate) struct ReconcileAsk {
    pub(crate) key: Key,
    pub(crate) of: Of,
    pub(crate) day: Date,
}

/// Whose word is held against the ledger.
#[derive(Debug)]
pub(crate) enum Of {
    /// A channel's, of all its merchant accounts.
    Channel(String),
    /// A department's.
    Payee(String),
}

/// What ListBreaks asks.
#[derive(Debug)]
pub(crate) struct BreaksAsk {
    pub(crate) filter: Filter,
    pub(crate) max: u32,
    pub(crate) after: (String, String),
    /// Names the list for its page tokens.
    pub(crate) list: String,
}

/// What ResolveBreak asks.
#[derive(Debug)]
pub(crate) struct ResolveAsk {
    pub(crate) key: Key,
    pub(crate) id: String,
    pub(crate) note: String,
    pub(crate) resolution: Resolution,
}

/// By id or by the request that made it.
#[derive(Debug)]
pub(crate) enum Name<T> {
    Id(T),
    Request(String),
}

/// What ListEvents asks.
#[derive(Debug)]
pub(crate) struct EventsAsk {
    pub(crate) after: i64,
    pub(crate) max: u32,
    pub(crate) wait: std::time::Duration,
}

/// What ListTransfers asks.
#[derive(Debug)]
pub(crate) struct TransfersAsk {
    pub(crate) account: Option<Account>,
    pub(crate) order: Option<OrderId>,
    pub(crate) max: u32,
    pub(crate) after: After,
    /// Names the list for its page tokens.
    pub(crate) list: String,
}

/// Gathers what is wrong with a request.
#[derive(Default)]
struct Check(Vec<Violation>);

impl Check {
    fn note(&mut self, field: &str, description: impl Display) {
        self.0.push(Violation::new(field, description.to_string()));
    }

    fn demand(&mut self, field: &str, holds: bool, description: &str) {
        if !holds {
            self.note(field, description);
        }
    }

    fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.note(field, error)).ok()
    }

    fn take<T>(&mut self, found: Result<T, Violation>) -> Option<T> {
        found.map_err(|violation| self.0.push(violation)).ok()
    }

    fn amount(&mut self, money: Option<&common::Money>) -> Option<Money> {
        let Some(money) = money else {
            self.note("amount", "is required");
            return None;
        };
        let money = Money::try_from(money).map_err(|error| self.note("amount", error)).ok()?;
        self.demand("amount.amount_minor", money.amount_minor() > 0, "must be above 0");
        Some(money)
    }

    fn key(&mut self, caller: &str, method: Method, request_id: &str, digest: [u8; 32]) -> Key {
        self.take(call::check_request_id(request_id));
        Key { caller: caller.to_owned(), method, request_id: request_id.to_owned(), digest }
    }

    fn day(&mut self, text: &str) -> Option<Date> {
        // Written as it is kept, and so that it sorts.
        let day = text.parse::<Date>().ok().filter(|day| day.to_string() == text);
        self.demand("day", day.is_some(), "must be a day as 2026-11-22");
        day
    }

    /// Adds what is wrong with a part of the request, each field once.
    ///
    /// Errors: another than that.
    fn add(&mut self, error: Error) -> Result<(), Error> {
        let Error::Invalid(violations) = error else { return Err(error) };
        for violation in violations {
            if self.0.iter().all(|known| known.field != violation.field) {
                self.0.push(violation);
            }
        }
        Ok(())
    }

    fn is_good(&self) -> bool {
        self.0.is_empty()
    }

    fn done<T>(self, value: Option<T>) -> Result<T, Error> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Error::Invalid(self.0)),
        }
    }
}

/// Reads CreateOrder. What depends on the clock and the settings is checked where they are known.
pub(crate) fn create(caller: &str, request: pb::CreateOrderRequest) -> Result<CreateAsk, Error> {
    let digest = rpc::digest::request("payments.v1/CreateOrder", &request);
    let mut check = Check::default();
    let key = check.key(caller, Method::CreateOrder, &request.request_id, digest);
    check.parse::<CaseId>("case_id", &request.case_id);
    check.demand("payee_id", is_part(&request.payee_id), "must be letters, digits, '-', '_' and '.', at most 64");
    check.demand("channel", is_part(&request.channel), "must be the name of a channel");
    check.demand("entry_point", is_part(&request.entry_point), "must be the name of an entry point");
    // How many bytes of it the channel takes is checked where the channel is known.
    let fits = is_line(&request.description, request.description.len());
    check.demand("description", fits, "must be text without control characters");
    let amount = check.amount(request.amount.as_ref());
    let trade_type = match request.trade_type() {
        pb::TradeType::Jsapi => Some(TradeType::Jsapi),
        pb::TradeType::Native => Some(TradeType::Native),
        pb::TradeType::App => Some(TradeType::App),
        pb::TradeType::H5 => Some(TradeType::H5),
        pb::TradeType::Web => Some(TradeType::Web),
        pb::TradeType::Unspecified => None,
    };
    check.demand("trade_type", trade_type.is_some(), "must be one of the contract's");
    let payer = Some(request.payer_reference).filter(|payer| !payer.is_empty());
    let fits = match (trade_type, payer.as_deref()) {
        (Some(TradeType::Jsapi), payer) => payer.is_some_and(is_payer),
        // Whether the channel must know it is checked where the channel is known.
        (Some(TradeType::H5), payer) => payer.is_none_or(is_address),
        (Some(_), payer) => payer.is_none(),
        (None, _) => true,
    };
    let rule = "must be 1 to 128 bytes without control characters for JSAPI, an IP address for H5, and empty otherwise";
    check.demand("payer_reference", fits, rule);
    // Its shape is checked where the payee's is known.
    let payment_code = Some(request.payment_code).filter(|code| !code.is_empty());
    let fits = payment_code.as_deref().is_none_or(rpc::form::is_number);
    check.demand("payment_code", fits, "must be at most 64 characters of printable ASCII");
    let expire_at = time::required(request.expire_time.as_ref());
    let expire_at = expire_at.map_err(|error| check.note("expire_time", error)).ok();
    let insurance = request.insurance.map(|insurance| insured::read(&mut check, insurance, amount));
    let insurance = insurance.unwrap_or(Ok(None))?;
    let ask = amount.zip(trade_type).zip(expire_at).map(|((amount, trade_type), expire_at)| CreateAsk {
        key,
        case_id: request.case_id,
        payee_id: request.payee_id,
        amount,
        channel: request.channel,
        trade_type,
        entry_point: request.entry_point,
        payer: payer.map(Pii::new),
        description: request.description,
        expire_at,
        payment_code,
        insurance,
    });
    check.done(ask)
}

/// Reads CloseOrder.
pub(crate) fn close(caller: &str, request: &pb::CloseOrderRequest) -> Result<(Key, OrderId), Error> {
    let mut check = Check::default();
    let digest = rpc::digest::request("payments.v1/CloseOrder", request);
    let key = check.key(caller, Method::CloseOrder, &request.request_id, digest);
    let order = check.parse("order_id", &request.order_id);
    check.done(order.map(|order| (key, order)))
}

/// Reads PostOrder.
pub(crate) fn post(caller: &str, request: pb::PostOrderRequest) -> Result<(Key, OrderId, String), Error> {
    let mut check = Check::default();
    let digest = rpc::digest::request("payments.v1/PostOrder", &request);
    let key = check.key(caller, Method::PostOrder, &request.request_id, digest);
    let order = check.parse("order_id", &request.order_id);
    let serial = request.proof_serial;
    check.demand("proof_serial", is_line(&serial, SERIAL_CHARS_MAX), "must be text of at most 200 characters");
    check.done(order.map(|order| (key, order, serial)))
}

/// Reads Refund.
pub(crate) fn refund(caller: &str, request: pb::RefundRequest) -> Result<RefundAsk, Error> {
    let mut check = Check::default();
    let digest = rpc::digest::request("payments.v1/Refund", &request);
    let key = check.key(caller, Method::Refund, &request.request_id, digest);
    let order = check.parse("order_id", &request.order_id);
    let amount = check.amount(request.amount.as_ref());
    let is_after_settlement = request.after_settlement;
    let reason = request.reason;
    check.demand("reason", is_line(&reason, REASON_CHARS_MAX), "must be text of at most 80 characters");
    let legs = request.legs.map(|legs| insured::legs(&mut check, legs, amount));
    let at = request.insurance_return_time.as_ref().map(|at| time::required(Some(at)));
    let insurance_returned_at = insured::returned_at(&mut check, legs, at);
    check.done(order.zip(amount).map(|(order, amount)| RefundAsk {
        key,
        order,
        amount,
        reason,
        is_after_settlement,
        legs,
        insurance_returned_at,
    }))
}

/// Reads RefundPosted.
pub(crate) fn refund_posted(person: &str, request: pb::RefundPostedRequest) -> Result<RefundAsk, Error> {
    let mut check = Check::default();
    let digest = rpc::digest::request("payments.v1/RefundPosted", &request);
    let key = check.key(person, Method::RefundPosted, &request.request_id, digest);
    let order = check.parse("order_id", &request.order_id);
    let amount = check.amount(request.amount.as_ref());
    let reason = request.reason;
    check.demand("reason", is_line(&reason, REASON_CHARS_MAX), "must be text of at most 80 characters");
    let ask = order.zip(amount);
    check.done(ask.map(|(order, amount)| RefundAsk {
        key,
        order,
        amount,
        reason,
        is_after_settlement: true,
        legs: None,
        insurance_returned_at: None,
    }))
}

/// Reads GetOrder.
pub(crate) fn order_name(request: &pb::GetOrderRequest) -> Result<Name<OrderId>, Error> {
    name("order_id", &request.order_id, &request.request_id)
}

/// Reads GetRefund.
pub(crate) fn refund_name(request: &pb::GetRefundRequest) -> Result<Name<RefundId>, Error> {
    name("refund_id", &request.refund_id, &request.request_id)
}

/// Reads the id of an order.
pub(crate) fn order_id(text: &str) -> Result<OrderId, Error> {
    let mut check = Check::default();
    let id = check.parse("order_id", text);
    check.done(id)
}

fn name<T: FromStr<Err: Display>>(field: &str, id: &str, request_id: &str) -> Result<Name<T>, Error> {
    let mut check = Check::default();
    let name = match (id.is_empty(), request_id.is_empty()) {
        (false, true) => check.parse(field, id).map(Name::Id),
        (true, false) => check.take(call::check_request_id(request_id)).map(|id| Name::Request(id.to_owned())),
        _ => {
            check.note(field, "exactly one of this and request_id must be set");
            None
        }
    };
    check.done(name)
}

/// Reads ListEvents.
pub(crate) fn events(request: &pb::ListEventsRequest) -> Result<EventsAsk, Error> {
    let mut check = Check::default();
    check.demand("after_sequence", request.after_sequence >= 0, "must not be negative");
    check.demand("wait_ms", (0..=WAIT_MS_MAX).contains(&request.wait_ms), "must be from 0 to 20000");
    let max = check.take(page::size(request.page_size, EVENTS_DEFAULT, EVENTS_MAX));
    let wait = std::time::Duration::from_millis(u64::try_from(request.wait_ms).unwrap_or(0));
    check.done(max.map(|max| EventsAsk { after: request.after_sequence, max, wait }))
}

/// Reads the name of an account.
pub(crate) fn account(text: &str) -> Result<Account, Error> {
    let mut check = Check::default();
    let account = check.parse("account", text);
    check.done(account)
}

/// Reads ListTransfers.
pub(crate) fn transfers(request: &pb::ListTransfersRequest) -> Result<TransfersAsk, Error> {
    let mut check = Check::default();
    let account = Some(&request.account).filter(|text| !text.is_empty()).map(|text| check.parse("account", text));
    let order = Some(&request.order_id).filter(|text| !text.is_empty()).map(|text| check.parse("order_id", text));
    check.demand("account", account.is_some() || order.is_some(), "this or order_id must be set");
    let max = check.take(page::size(request.page_size, TRANSFERS_DEFAULT, TRANSFERS_MAX));
    let list = format!("payments.v1/ListTransfers|{}|{}", request.account, request.order_id);
    let after = check.take(page::key(&list, &request.page_token).and_then(read_after));
    let ask = max.zip(after).map(|(max, after)| TransfersAsk {
        account: account.flatten(),
        order: order.flatten(),
        max,
        after,
        list,
    });
    check.done(ask)
}

fn read_after(key: Option<Vec<u8>>) -> Result<After, Violation> {
    let Some(key) = key else { return Ok((Timestamp::from_micros(i64::MIN), String::new())) };
    let parsed = key.split_first_chunk::<8>().and_then(|(micros, id)| {
        Some((Timestamp::from_micros(i64::from_be_bytes(*micros)), String::from_utf8(id.to_vec()).ok()?))
    });
    parsed.ok_or_else(|| Violation::new("page_token", "is not a token of this list"))
}

/// Writes the token of the page behind `last`.
pub(crate) fn transfers_token(list: &str, last: &Booked) -> String {
    let key = [&last.at.micros().to_be_bytes(), last.transfer.id.as_str().as_bytes()].concat();
    page::token(list, &key)
}

/// Reads Reconcile.
pub(crate) fn reconcile(caller: &str, request: pb::ReconcileRequest) -> Result<ReconcileAsk, Error> {
    let mut check = Check::default();
    let digest = rpc::digest::request("payments.v1/Reconcile", &request);
    let key = check.key(caller, Method::Reconcile, &request.request_id, digest);
    let of = match (request.channel.is_empty(), request.payee_id.is_empty()) {
        (true, false) => {
            check.demand("payee_id", is_part(&request.payee_id), "must be the id of a payee");
            Of::Payee(request.payee_id)
        }
        (_, is_channel) => {
            check.demand("payee_id", is_channel, "must be empty beside a channel");
            check.demand("channel", is_part(&request.channel), "must be the name of a channel");
            Of::Channel(request.channel)
        }
    };
    let day = check.day(&request.day);
    check.done(day.map(|day| ReconcileAsk { key, of, day }))
}

/// Reads ListBreaks.
pub(crate) fn breaks(request: &pb::ListBreaksRequest) -> Result<BreaksAsk, Error> {
    let mut check = Check::default();
    if !request.day.is_empty() {
        check.day(&request.day);
    }
    let channel = &request.channel;
    check.demand("channel", channel.is_empty() || is_part(channel), "must be the name of a channel");
    let payee = &request.payee_id;
    check.demand("payee_id", payee.is_empty() || is_part(payee), "must be the id of a payee");
    check.demand("payee_id", payee.is_empty() || channel.is_empty(), "must be empty beside a channel");
    let department = Merchant::of_department(payee);
    let merchant = if payee.is_empty() { String::new() } else { department.number };
    let kind = match pb::BreakKind::try_from(request.kind) {
        Ok(pb::BreakKind::Unspecified) => Some(""),
        Ok(pb::BreakKind::Long) => Some("long"),
        Ok(pb::BreakKind::Short) => Some("short"),
        Ok(pb::BreakKind::Amount) => Some("amount"),
        Ok(pb::BreakKind::State) => Some("state"),
        Err(_) => None,
    };
    check.demand("kind", kind.is_some(), "must be one of the contract's");
    let state = match pb::BreakState::try_from(request.state) {
        Ok(pb::BreakState::Unspecified) => Some(""),
        Ok(pb::BreakState::Open) => Some("open"),
        Ok(pb::BreakState::RolledOver) => Some("rolled_over"),
        Ok(pb::BreakState::Resolved) => Some("resolved"),
        Ok(pb::BreakState::Repaired) => Some("repaired"),
        Err(_) => None,
    };
    check.demand("state", state.is_some(), "must be one of the contract's");
    let filter = Filter {
        day: request.day.clone(),
        kind: kind.unwrap_or_default().to_owned(),
        state: state.unwrap_or_default().to_owned(),
        channel: if payee.is_empty() { channel.clone() } else { department.channel },
        merchant,
    };
    let max = check.take(page::size(request.page_size, BREAKS_DEFAULT, BREAKS_MAX));
    let list = format!("payments.v1/ListBreaks|{}|{}|{}|{channel}|{payee}", filter.day, filter.kind, filter.state);
    let after = check.take(page::key(&list, &request.page_token).and_then(|key| {
        let text = String::from_utf8(key.unwrap_or_else(|| b"|".to_vec())).ok();
        let after = text.and_then(|text| text.split_once('|').map(|(day, id)| (day.to_owned(), id.to_owned())));
        after.ok_or_else(|| Violation::new("page_token", "is not a token of this list"))
    }));
    check.done(max.zip(after).map(|(max, after)| BreaksAsk { filter, max, after, list }))
}

/// Writes the token of the page behind `last`.
pub(crate) fn breaks_token(list: &str, last: &Kept) -> String {
    page::token(list, format!("{}|{}", last.day, last.id).as_bytes())
}

/// Reads ResolveBreak.
pub(crate) fn resolve(caller: &str, request: pb::ResolveBreakRequest) -> Result<ResolveAsk, Error> {
    let mut check = Check::default();
    let digest = rpc::digest::request("payments.v1/ResolveBreak", &request);
    let key = check.key(caller, Method::ResolveBreak, &request.request_id, digest);
    check.demand("break_id", is_part(&request.break_id), "must be letters, digits, '-' and '_', at most 64");
    check.demand("note", is_line(&request.note, SERIAL_CHARS_MAX), "must be text of at most 200 characters");
    let resolution = match request.resolution() {
        pb::BreakResolution::Explained => Some(Resolution::Explained),
        pb::BreakResolution::CorrectedByChannel => Some(Resolution::CorrectedByChannel),
        pb::BreakResolution::Returned => Some(Resolution::Returned),
        pb::BreakResolution::WrittenOff => Some(Resolution::WrittenOff),
        pb::BreakResolution::Unspecified => {
            check.note("resolution", "must be one of the contract's");
            None
        }
    };
    let (id, note) = (request.break_id, request.note);
    check.done(resolution.map(|resolution| ResolveAsk { key, id, note, resolution }))
}

/// The channel and its number of the merchant; both empty of a department.
fn channel_and_merchant(merchant: &Merchant) -> (String, String) {
    match merchant.department() {
        None => (merchant.channel.clone(), merchant.number.clone()),
        Some(_) => (String::new(), String::new()),
    }
}

/// Writes a run.
pub(crate) fn run(run: &Run) -> pb::Run {
    let state = match run.state {
        RunState::Waiting => pb::RunState::Waiting,
        RunState::Done => pb::RunState::Done,
        RunState::Failed => pb::RunState::Failed,
    };
    let (channel, merchant) = channel_and_merchant(&run.name.merchant);
    pb::Run {
        channel,
        merchant,
        day: run.name.day.to_string(),
        state: state.into(),
        matched: run.matched,
        breaks: run.breaks,
        rolled_over: run.rolled_over,
        problem: run.problem.clone(),
        finish_time: run.finished_at.map(time::to_proto),
        run_id: run_id(&run.name.merchant, run.name.day).to_string(),
        fee: run.fee_minor.and_then(|minor| Money::new(minor, CURRENCY).ok()).map(Into::into),
        payee_id: run.name.merchant.department().unwrap_or_default().to_owned(),
    }
}

/// Writes a break as it stands today.
pub(crate) fn kept_break(kept: &Kept, today: Date) -> Result<pb::Break, Error> {
    let kind = match kept.kind {
        BreakKind::Long => pb::BreakKind::Long,
        BreakKind::Short => pb::BreakKind::Short,
        BreakKind::Amount => pb::BreakKind::Amount,
        BreakKind::State => pb::BreakKind::State,
    };
    let state = match kept.state {
        BreakState::Open => pb::BreakState::Open,
        BreakState::RolledOver => pb::BreakState::RolledOver,
        BreakState::Resolved => pb::BreakState::Resolved,
        BreakState::Repaired => pb::BreakState::Repaired,
    };
    let until = kept.closed_at.map_or(today, |at| beijing::civil(at).date());
    let (channel, merchant) = channel_and_merchant(&kept.merchant);
    Ok(pb::Break {
        break_id: kept.id.clone(),
        kind: kept.kind.name().to_owned(),
        order_id: kept.order.map(|id| id.to_string()).unwrap_or_default(),
        break_kind: kind.into(),
        state: state.into(),
        channel,
        merchant,
        what: kept.what.to_string(),
        number: kept.number.clone(),
        refund_id: kept.refund.map(|id| id.to_string()).unwrap_or_default(),
        theirs: kept.theirs.as_ref().map(told).transpose()?,
        ours: kept.ours.as_ref().map(told).transpose()?,
        day: kept.day.to_string(),
        age_days: age(kept.day, until),
        resolution: resolution(kept.resolution).into(),
        proposed_resolution: resolution(kept.proposed).into(),
        note: kept.note.clone(),
        resolved_by: kept.resolved_by.clone(),
        close_time: kept.closed_at.map(time::to_proto),
        payee_id: kept.merchant.department().unwrap_or_default().to_owned(),
    })
}

fn told(told: &Told) -> Result<pb::Told, Error> {
    let currency = told.currency.parse().map_err(|_| Error::Internal("stored currency"))?;
    let amount = Money::new(told.amount_minor, currency).map_err(|_| Error::Internal("stored amount"))?;
    let (state, local_time) = (told.state.to_string(), told.at.to_string());
    Ok(pb::Told { amount: Some(amount.into()), state, local_time })
}

fn resolution(resolution: Option<Resolution>) -> pb::BreakResolution {
    match resolution {
        None => pb::BreakResolution::Unspecified,
        Some(Resolution::Explained) => pb::BreakResolution::Explained,
        Some(Resolution::CorrectedByChannel) => pb::BreakResolution::CorrectedByChannel,
        Some(Resolution::Returned) => pb::BreakResolution::Returned,
        Some(Resolution::WrittenOff) => pb::BreakResolution::WrittenOff,
    }
}

/// Writes an order.
pub(crate) fn order(order: &Order) -> Result<pb::Order, Error> {
    let terms = &order.terms;
    let currency = terms.amount.currency();
    let refunded = Money::new(order.tally.given_back(), currency).map_err(|_| Error::Internal("sum of refunds"))?;
    let sheet = order.sheet.as_deref().filter(|_| order.state == State::Waiting).map(pb::PaySheet::decode);
    Ok(pb::Order {
        order_id: terms.id.to_string(),
        request_id: terms.request_id.clone(),
        case_id: terms.case_id.clone(),
        payee_id: terms.payee_id.clone(),
        amount: Some(terms.amount.into()),
        channel: terms.merchant.channel.clone(),
        channel_order_no: terms.channel_order_no.clone(),
        channel_transaction: order.channel_transaction.clone().unwrap_or_default(),
        state: state(order.state).into(),
        paid_time: order.paid_at.map(time::to_proto),
        expire_time: Some(time::to_proto(terms.expire_at)),
        pay_sheet: sheet.transpose().map_err(|_| Error::Internal("stored pay sheet"))?,
        refunded: Some(refunded.into()),
        late_money: order.is_late,
        combined_order_id: order.part.as_ref().map(|part| part.of.to_string()).unwrap_or_default(),
        part_number: order.part.as_ref().and_then(|part| i32::try_from(part.number).ok()).unwrap_or_default(),
        payment_code: terms.payment_code.clone().unwrap_or_default(),
        receipt: None,
        settled: order.is_posted().then(|| settled(order)).transpose()?,
        pay_mix: insured::pay_mix(order).into(),
        legs: insured::order_legs(order)?,
        institution_no: terms.insured.as_ref().map(|insured| insured.institution_no.clone()).unwrap_or_default(),
    })
}

/// What is the payee's.
fn settled(order: &Order) -> Result<common::Money, Error> {
    let money = Money::new(order.tally.posted, order.terms.amount.currency());
    Ok(money.map_err(|_| Error::Internal("sum of what is settled"))?.into())
}

fn state(state: State) -> pb::OrderState {
    match state {
        State::Creating => pb::OrderState::Creating,
        State::Waiting => pb::OrderState::Waiting,
        State::Paid => pb::OrderState::Paid,
        State::Posted => pb::OrderState::Posted,
        State::Closed => pb::OrderState::Closed,
        State::Refunding => pb::OrderState::Refunding,
        State::Refunded => pb::OrderState::Refunded,
        State::Refused => pb::OrderState::Refused,
    }
}

/// Writes a refund.
pub(crate) fn refund_record(refund: &Refund) -> pb::RefundRecord {
    let state = match refund.state {
        RefundState::Requested => pb::RefundState::Requested,
        RefundState::Processing => pb::RefundState::Processing,
        RefundState::Succeeded => pb::RefundState::Succeeded,
        RefundState::Failed => pb::RefundState::Failed,
    };
    pb::RefundRecord {
        refund_id: refund.id.to_string(),
        request_id: refund.request_id.clone(),
        order_id: refund.order.to_string(),
        amount: Some(refund.amount.into()),
        state: state.into(),
        channel_refund: refund.channel_refund.clone().unwrap_or_default(),
        success_time: refund.success_at.map(time::to_proto),
        after_settlement: refund.is_after_settlement,
        send_by_time: Some(time::to_proto(refund.send_by)),
        legs: refund.legs.map(insured::refund_legs),
        insurance_return_time: refund.insurance_returned_at.map(time::to_proto),
        returned: refund.legs.map(|_| insured::refund_legs(insured::returned(refund))),
    }
}

/// Writes a pay sheet as it is kept: the contract's message.
pub(crate) fn sheet(sheet: PaySheet, known: Known) -> Vec<u8> {
    let trade_type = match sheet.trade_type {
        TradeType::Jsapi => pb::TradeType::Jsapi,
        TradeType::Native => pb::TradeType::Native,
        TradeType::App => pb::TradeType::App,
        TradeType::H5 => pb::TradeType::H5,
        TradeType::Web => pb::TradeType::Web,
    };
    let sheet = pb::PaySheet {
        trade_type: trade_type.into(),
        jsapi: sheet.jsapi,
        code_url: sheet.code_url,
        expire_time: Some(time::to_proto(sheet.expire_at)),
        page_url: sheet.page_url,
        order_string: sheet.order_string,
        works_until_end: known == Known::OnceOpened,
    };
    sheet.encode_to_vec()
}

/// Writes an event as it is kept: the contract's message, without what the outbox knows by itself.
pub(crate) fn event(order: &Order, refund: Option<RefundId>, happening: Happening) -> Vec<u8> {
    let kind = match happening {
        Happening::Paid => pb::EventKind::OrderPaid,
        Happening::Closed => pb::EventKind::OrderClosed,
        Happening::Posted => pb::EventKind::OrderPosted,
        Happening::RefundSucceeded => pb::EventKind::RefundSucceeded,
        Happening::RefundFailed => pb::EventKind::RefundFailed,
        Happening::LateMoney => pb::EventKind::LateMoney,
    };
    let event = pb::Event {
        sequence: 0,
        kind: kind.into(),
        case_id: order.terms.case_id.clone(),
        order_id: order.terms.id.to_string(),
        refund_id: refund.map(|id| id.to_string()).unwrap_or_default(),
        commit_time: None,
    };
    event.encode_to_vec()
}

/// Reads a kept event.
pub(crate) fn kept_event(kept: &store::outbox::Event) -> Result<pb::Event, Error> {
    let event = pb::Event::decode(kept.payload.as_slice()).map_err(|_| Error::Internal("stored event"))?;
    Ok(pb::Event { sequence: kept.seq, commit_time: Some(time::to_proto(kept.at)), ..event })
}

/// Writes a transfer.
pub(crate) fn transfer(booked: &Booked) -> pb::Transfer {
    let transfer = &booked.transfer;
    pb::Transfer {
        transfer_id: transfer.id.as_str().to_owned(),
        debit_account: transfer.debit.to_string(),
        credit_account: transfer.credit.to_string(),
        amount: Some(transfer.amount.into()),
        state: booked.standing.as_str().to_owned(),
        order_id: transfer.subject.order().map(|order| order.to_string()).unwrap_or_default(),
        commit_time: Some(time::to_proto(booked.at)),
        expire_time: booked.expires_at.map(time::to_proto),
        settlement_id: match transfer.subject {
            Subject::Settlement(settlement) => settlement.to_string(),
            Subject::Order(_) | Subject::Run(_) => String::new(),
        },
        run_id: match transfer.subject {
            Subject::Run(run) => run.to_string(),
            Subject::Order(_) | Subject::Settlement(_) => String::new(),
        },
    }
}

/// Writes an account.
pub(crate) fn account_told(account: &Account, currency: &str, balance: Balance) -> pb::GetAccountResponse {
    pb::GetAccountResponse {
        account: account.to_string(),
        debit_minor: balance.debit_posted,
        credit_minor: balance.credit_posted,
        currency: currency.to_owned(),
    }
}

/// Reads a kept answer.
pub(crate) fn answer<T: Message + Default>(bytes: &[u8]) -> Result<T, Error> {
    T::decode(bytes).map_err(|_| Error::Internal("stored answer"))
}

#[cfg(test)]
mod tests;
