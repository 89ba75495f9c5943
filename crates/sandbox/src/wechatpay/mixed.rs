//! Mixed orders (医保自费混合订单): what they are made of, how a request for one reads, and how one is told.

use runtime::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::messages::{notify_url, optional, order_number, required};
use super::outcome::{self, ApiError, bad_parameter};
use crate::beijing;

const ORDER_TYPES: [&str; 11] = [
    "REG_PAY",
    "DIAG_PAY",
    "COVID_EXAM_PAY",
    "IN_HOSP_PAY",
    "PHARMACY_PAY",
    "INSURANCE_PAY",
    "INT_REG_PAY",
    "INT_RE_DIAG_PAY",
    "INT_RX_PAY",
    "COVID_ANTIGEN_PAY",
    "MED_PAY",
];
const ADD_TYPES: [&str; 3] = ["DEFAULT_ADD_TYPE", "FREIGHT", "OTHER_MEDICAL_EXPENSES"];
const REDUCE_TYPES: [&str; 6] =
    ["DEFAULT_REDUCE_TYPE", "HOSPITAL_REDUCE", "PHARMACY_DISCOUNT", "DISCOUNT", "PRE_PAYMENT", "DEPOSIT_DEDUCTION"];
const FEE_MAX: i64 = 100_000_000_000;
/// The fields of who pays and who is treated: read, and never kept.
const PERSONS: [&str; 2] = ["payer", "relative"];

/// Who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum MixType {
    CashOnly,
    InsuranceOnly,
    CashAndInsurance,
}

/// A part that is paid by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Leg {
    Cash,
    Insurance,
}

/// What becomes of a leg when the citizen pays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegEnd {
    /// It is paid.
    #[default]
    Success,
    /// It fails, and with it the whole.
    Fail,
    /// Nothing yet: a later payment goes on with it.
    Wait,
}

/// What the insurance pays, or gives back, by its funds. Fen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Funds {
    pub government_minor: i64,
    pub personal_minor: i64,
    pub other_minor: i64,
}

/// What a mixed order is made of. Amounts are fen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MixedTerms {
    pub mchid: String,
    pub out_trade_no: String,
    pub appid: String,
    /// WeChat's number of it.
    pub mix_trade_no: String,
    pub mix: MixType,
    pub callback_url: String,
    pub funds: Funds,
    /// What the cash leg's order has to ask for.
    pub cash_minor: i64,
    /// The session of the cash leg's order.
    pub prepay_id: Option<String>,
    /// What was sent, without who pays and who is treated: answers repeat it.
    pub sent: Value,
}

/// What the insurance centre gave back, as the merchant tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub mix_trade_no: String,
    pub out_refund_no: String,
    pub funds: Funds,
}

/// How a leg stands, or the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LegState {
    /// There is no such leg.
    Absent,
    Created,
    Success,
    Refund,
    Fail,
}

/// How a mixed order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub cash: LegState,
    pub insurance: LegState,
    pub paid_at: Option<Timestamp>,
}

impl MixType {
    pub(super) fn has_cash(self) -> bool {
        self != Self::InsuranceOnly
    }

    pub(super) fn has_insurance(self) -> bool {
        self != Self::CashOnly
    }
}

impl Funds {
    pub(super) fn sum(self) -> i64 {
        self.each().into_iter().fold(0, i64::saturating_add)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            government_minor: self.government_minor.saturating_add(other.government_minor),
            personal_minor: self.personal_minor.saturating_add(other.personal_minor),
            other_minor: self.other_minor.saturating_add(other.other_minor),
        }
    }

    /// Whether each fund is at most that of the other.
    pub(super) fn fits_in(self, other: Self) -> bool {
        self.each().into_iter().zip(other.each()).all(|(part, whole)| part <= whole)
    }

    fn each(self) -> [i64; 3] {
        [self.government_minor, self.personal_minor, self.other_minor]
    }
}

impl Standing {
    /// Of two legs as they stand by themselves: where one failed, what is not paid of the other never will be.
    pub(super) fn new(cash: LegState, insurance: LegState, paid_at: Option<Timestamp>) -> Self {
        let one_failed = cash == LegState::Fail || insurance == LegState::Fail;
        let seen = |leg| if one_failed && leg == LegState::Created { LegState::Fail } else { leg };
        Self { cash: seen(cash), insurance: seen(insurance), paid_at }
    }

    /// The whole: paid when every leg is, given back when every leg is.
    pub(super) fn whole(self) -> LegState {
        let is = |state| self.cash == state || self.insurance == state;
        match () {
            () if is(LegState::Fail) => LegState::Fail,
            () if is(LegState::Created) => LegState::Created,
            () if is(LegState::Success) => LegState::Success,
            () => LegState::Refund,
        }
    }
}

/// Reads a mixed order; `open` opens what is sealed, `mix_trade_no` will be its number.
pub(super) fn order(
    mchid: &str,
    mix_trade_no: String,
    body: &Value,
    open: impl Fn(&str) -> Option<String>,
) -> Result<MixedTerms, ApiError> {
    let mix = serde_json::from_value(body["mix_pay_type"].clone()).map_err(|_| bad_parameter("mix_pay_type"))?;
    if !ORDER_TYPES.contains(&required(body, "order_type", 32)?.as_str()) {
        return Err(bad_parameter("order_type"));
    }
    persons(body, open)?;
    let (out_trade_no, appid) = (order_number(body, "out_trade_no")?, required(body, "appid", 32)?);
    let callback_url = notify_url(body, "callback_url")?.ok_or(bad_parameter("callback_url"))?;
    required(body, "openid", 128)?;
    required(body, "serial_no", 20)?;
    required(body, "city_id", 8)?;
    required(body, "med_inst_name", 128)?;
    required(body, "med_inst_no", 32)?;
    let prepay_id = papers(mix, body)?;
    let (funds, cash_minor) = sums(mix, body)?;
    let mut sent = body.clone();
    if let Some(fields) = sent.as_object_mut() {
        fields.retain(|name, _| !PERSONS.contains(&name.as_str()));
    }
    Ok(MixedTerms {
        mchid: mchid.to_owned(),
        out_trade_no,
        appid,
        mix_trade_no,
        mix,
        callback_url,
        funds,
        cash_minor,
        prepay_id,
        sent,
    })
}

/// Holds who pays and who is treated against their form, sealed as they must be.
fn persons(body: &Value, open: impl Fn(&str) -> Option<String>) -> Result<(), ApiError> {
    let sealed = |path: &'static str| open(&required(body, path, 1_024)?).ok_or(bad_parameter(path));
    let person = |name: &'static str, digest: &'static str, card: &'static str| {
        let is_name = !sealed(name)?.is_empty();
        let digest_text = sealed(digest)?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_digest = digest_text.len() == 32 && digest_text.bytes().all(is_hex);
        required(body, card, 32)?;
        match (is_name, is_digest) {
            (false, _) => Err(bad_parameter(name)),
            (_, false) => Err(bad_parameter(digest)),
            (true, true) => Ok(()),
        }
    };
    person("payer.name", "payer.id_digest", "payer.card_type")?;
    let for_relatives = match body.get("pay_for_relatives") {
        None => false,
        Some(value) => value.as_bool().ok_or(bad_parameter("pay_for_relatives"))?,
    };
    if for_relatives != body.get("relative").is_some() {
        return Err(bad_parameter("relative"));
    }
    if for_relatives { person("relative.name", "relative.id_digest", "relative.card_type") } else { Ok(()) }
}

/// Holds the fields that depend on who pays against that; returns the session of the cash leg's order.
fn papers(mix: MixType, body: &Value) -> Result<Option<String>, ApiError> {
    let of_insurance = [
        optional(body, "pay_order_id", 64)?,
        optional(body, "pay_auth_no", 40)?,
        optional(body, "geo_location", 40)?,
        optional(body, "med_ins_order_create_time", 64)?,
    ];
    if let [.., Some(time)] = &of_insurance {
        beijing::parse_rfc3339(time).ok_or(bad_parameter("med_ins_order_create_time"))?;
    }
    let prepay_id = optional(body, "prepay_id", 64)?;
    if of_insurance.iter().any(|paper| paper.is_some() != mix.has_insurance()) || prepay_id.is_some() != mix.has_cash()
    {
        return Err(field_rule(mix));
    }
    Ok(prepay_id)
}

fn field_rule(mix: MixType) -> ApiError {
    if mix == MixType::CashOnly { outcome::CASH_FIELDS } else { outcome::MIXED_FIELDS }
}

/// Holds the sums against each other and against who pays; returns what each leg pays.
fn sums(mix: MixType, body: &Value) -> Result<(Funds, i64), ApiError> {
    let total = fee(body, "total_fee")?.ok_or(bad_parameter("total_fee"))?;
    let of_insurance = [
        fee(body, "med_ins_gov_fee")?,
        fee(body, "med_ins_self_fee")?,
        fee(body, "med_ins_other_fee")?,
        fee(body, "med_ins_cash_fee")?,
    ];
    if mix.has_insurance() && of_insurance.iter().any(Option::is_none) {
        return Err(outcome::MIXED_FIELDS);
    }
    let [government_minor, personal_minor, other_minor, left] = of_insurance.map(Option::unwrap_or_default);
    let funds = Funds { government_minor, personal_minor, other_minor };
    let paid = fee(body, "wechat_pay_cash_fee")?.unwrap_or_default();
    let added = listed(body, "cash_add_detail", ["cash_add_fee", "cash_add_type"], &ADD_TYPES)?;
    let reduced = listed(body, "cash_reduce_detail", ["cash_reduce_fee", "cash_reduce_type"], &REDUCE_TYPES)?;
    // One wrong sum breaks two of the three identities; which two they are says which sum it is.
    let by_payment = total == funds.sum() + paid + reduced;
    let by_settlement = total == funds.sum() + left + added;
    let cash = paid == left + added - reduced;
    match (by_payment, by_settlement, cash) {
        (false, false, _) => return Err(outcome::MIXED_TOTAL),
        (false, _, false) => return Err(outcome::MIXED_CASH),
        (_, false, false) => return Err(outcome::MIXED_SUMS),
        _ => {}
    }
    if (paid > 0) != mix.has_cash() || (funds.sum() > 0) != mix.has_insurance() {
        return Err(field_rule(mix));
    }
    Ok((funds, paid))
}

fn fee(body: &Value, name: &'static str) -> Result<Option<i64>, ApiError> {
    let Some(value) = body.get(name) else { return Ok(None) };
    let fen = value.as_i64().filter(|fen| (0..=FEE_MAX).contains(fen)).ok_or(bad_parameter(name))?;
    Ok(Some(fen))
}

/// Reads a list of amounts, each with its type; returns their sum.
fn listed(body: &Value, list: &'static str, names: [&str; 2], types: &[&str]) -> Result<i64, ApiError> {
    let bad = || bad_parameter(list);
    let Some(items) = body.get(list) else { return Ok(0) };
    let [amount, kind] = names;
    let minor = |item: &Value| {
        let fen = item[amount].as_i64().filter(|fen| (1..=FEE_MAX).contains(fen))?;
        types.contains(&item[kind].as_str()?).then_some(fen)
    };
    let sum = |sum: i64, item: &Value| sum.checked_add(minor(item)?).filter(|sum| *sum <= FEE_MAX);
    items.as_array().and_then(|items| items.iter().try_fold(0, sum)).ok_or_else(bad)
}

/// Reads what the insurance centre gave back.
pub(super) fn returned(mix_trade_no: Option<&str>, body: &Value) -> Result<Returned, ApiError> {
    let of = |name: &'static str| fee(body, name)?.ok_or(bad_parameter(name));
    let funds = Funds {
        government_minor: of("med_refund_gov_fee")?,
        personal_minor: of("med_refund_self_fee")?,
        other_minor: of("med_refund_other_fee")?,
    };
    if of("med_refund_total_fee")? != funds.sum() || funds.sum() == 0 {
        return Err(bad_parameter("med_refund_total_fee"));
    }
    beijing::parse_rfc3339(&required(body, "refund_time", 64)?).ok_or(bad_parameter("refund_time"))?;
    Ok(Returned {
        mix_trade_no: mix_trade_no.filter(|number| !number.is_empty()).ok_or(bad_parameter("mix_trade_no"))?.to_owned(),
        out_refund_no: required(body, "out_refund_no", 64)?,
        funds,
    })
}

/// A mixed order as its answers tell it: what was sent, and how it stands.
pub(super) fn told(terms: &MixedTerms, standing: Standing) -> Value {
    let word = |prefix: &str, absent: &str, state| match state {
        LegState::Absent => absent.to_owned(),
        LegState::Created => format!("{prefix}CREATED"),
        LegState::Success => format!("{prefix}SUCCESS"),
        LegState::Refund => format!("{prefix}REFUND"),
        LegState::Fail => format!("{prefix}FAIL"),
    };
    let mut told = terms.sent.clone();
    told["mix_trade_no"] = json!(terms.mix_trade_no);
    told["mix_pay_status"] = json!(word("MIX_PAY_", "", standing.whole()));
    told["self_pay_status"] = json!(word("SELF_PAY_", "NO_SELF_PAY", standing.cash));
    told["med_ins_pay_status"] = json!(word("MED_INS_PAY_", "NO_MED_INS_PAY", standing.insurance));
    if let Some(at) = standing.paid_at {
        told["paid_time"] = json!(beijing::rfc3339(at));
    }
    told
}

/// The payment of a mixed order as its callback tells it, whatever went back since.
pub(super) fn told_paid(terms: &MixedTerms, paid_at: Option<Timestamp>) -> Value {
    let leg = |is_there| if is_there { LegState::Success } else { LegState::Absent };
    let standing = Standing::new(leg(terms.mix.has_cash()), leg(terms.mix.has_insurance()), paid_at);
    told(terms, standing)
}

#[cfg(test)]
mod tests;
