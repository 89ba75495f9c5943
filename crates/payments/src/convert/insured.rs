//! Mixed orders: what medical insurance pays of an order, and what goes back on each leg.

use contracts::money::{AMOUNT_MINOR_MAX, Money};
use contracts::payments::v1 as pb;
use rpc::form::is_line;
use rpc::time;
use runtime::Timestamp;
use runtime::secret::Pii;

use super::Check;
use crate::channel::{Patient, Person};
use crate::domain::insurance::{Funds, Insured, Leg, Legs, MixType, Papers, Split, Wrong};
use crate::domain::ledger::is_part;
use crate::domain::order::Order;
use crate::domain::refund::{Refund, State as RefundState};
use crate::error::Error;

const WORD_BYTES_MAX: usize = 32;
const NUMBER_BYTES_MAX: usize = 64;
const AUTHORISATION_BYTES_MAX: usize = 128;
const PERSON_CHARS_MAX: usize = 64;
const INSTITUTION_CHARS_MAX: usize = 128;
const DETAILS_MAX: usize = 20;

/// What makes an order a mixed one.
#[derive(Clone, Debug)]
pub(crate) struct InsuranceAsk {
    pub(crate) insured: Insured,
    pub(crate) patient: Patient,
}

/// Reads what insurance pays of an order of `amount`; notes everything that is wrong with it.
///
/// Errors: SplitWrong, where that alone is wrong.
pub(super) fn read(
    check: &mut Check,
    asked: pb::Insurance,
    amount: Option<Money>,
) -> Result<Option<InsuranceAsk>, Error> {
    let mix = match asked.pay_mix() {
        pb::PayMix::CashOnly => Some(MixType::CashOnly),
        pb::PayMix::InsuranceOnly => Some(MixType::InsuranceOnly),
        pb::PayMix::CashAndInsurance => Some(MixType::CashAndInsurance),
        pb::PayMix::Unspecified => None,
    };
    check.demand("insurance.pay_mix", mix.is_some(), "must be one of the contract's");
    check.demand("insurance.order_type", is_word(&asked.order_type), WORD);
    check.demand("insurance.institution_no", is_part(&asked.institution_no), PART);
    let is_name = is_line(&asked.institution_name, INSTITUTION_CHARS_MAX);
    check.demand("insurance.institution_name", is_name, "must be text of at most 128 characters");
    let is_city = is_part(&asked.city_id) && asked.city_id.len() <= WORD_BYTES_MAX;
    check.demand("insurance.city_id", is_city, "must be letters, digits, '-', '_' and '.', at most 32");
    check.demand("insurance.serial_no", is_number(&asked.serial_no, NUMBER_BYTES_MAX), NUMBER);
    let created_at = asked.med_ins_order_create_time.as_ref().map(|at| time::required(Some(at)));
    let created_at = created_at.transpose().unwrap_or_else(|error| {
        check.note("insurance.med_ins_order_create_time", error);
        None
    });
    let mut given = |field: &str, text: String, most: usize| {
        let text = Some(text).filter(|text| !text.is_empty());
        let fits = text.as_ref().is_none_or(|text| is_number(text, most));
        check.demand(&format!("insurance.{field}"), fits, "must be printable ASCII, and not too long");
        text
    };
    let pay_order_id = given("pay_order_id", asked.pay_order_id, NUMBER_BYTES_MAX);
    let pay_auth_no = given("pay_auth_no", asked.pay_auth_no, AUTHORISATION_BYTES_MAX);
    let geo_location = given("geo_location", asked.geo_location, NUMBER_BYTES_MAX);
    let payer = person(check, "payer", asked.payer);
    let relative = asked.relative.map(|relative| person(check, "relative", Some(relative)));
    let split = split(check, asked.split, amount);
    let papers = Papers {
        pay_order_id: pay_order_id.is_some(),
        pay_auth_no: pay_auth_no.is_some(),
        geo_location: geo_location.is_some(),
        insurance_created_at: created_at.is_some(),
    };
    if let Some(Err(Wrong::Forbidden(field) | Wrong::Missing(field))) = mix.map(|mix| papers.check(mix)) {
        check.note(&format!("insurance.{field}"), "is needed where insurance pays, and for nothing else");
    }
    let (Some(mix), Some(payer), Some(split)) = (mix, payer, split) else { return Ok(None) };
    if relative.as_ref().is_some_and(Option::is_none) {
        return Ok(None);
    }
    match split.check(mix) {
        Ok(()) => {}
        Err(Wrong::Identities(broken)) if check.is_good() => return Err(Error::SplitWrong(broken)),
        Err(wrong) => check.note("insurance.split", wrong),
    }
    let insured = Insured {
        mix,
        order_type: asked.order_type,
        split,
        serial_no: asked.serial_no,
        pay_order_id,
        insurance_created_at: created_at,
        city_id: asked.city_id,
        institution_no: asked.institution_no,
        institution_name: asked.institution_name,
    };
    let patient = Patient {
        payer,
        relative: relative.flatten(),
        pay_auth_no: pay_auth_no.map(Pii::new),
        geo_location: geo_location.map(Pii::new),
    };
    Ok(Some(InsuranceAsk { insured, patient }))
}

const WORD: &str = "must be capitals, digits and '_', at most 32";
const PART: &str = "must be letters, digits, '-', '_' and '.', at most 64";
const NUMBER: &str = "must be printable ASCII, at most 64";

/// Whether a text can be one of the channel's own words.
fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits)
}

fn is_number(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_digest(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn person(check: &mut Check, who: &str, person: Option<pb::InsuredPerson>) -> Option<Person> {
    let Some(pb::InsuredPerson { name, id_digest, card_type }) = person else {
        check.note(&format!("insurance.{who}"), "is required");
        return None;
    };
    // What a person is called does not come back in an error.
    let is_name = is_line(&name, PERSON_CHARS_MAX);
    check.demand(&format!("insurance.{who}.name"), is_name, "must be text of at most 64 characters");
    check.demand(&format!("insurance.{who}.id_digest"), is_digest(&id_digest), "must be 32 hexadecimal digits");
    check.demand(&format!("insurance.{who}.card_type"), is_word(&card_type), WORD);
    Some(Person { name: Pii::new(name), id_digest: Pii::new(id_digest), card_type })
}

fn split(check: &mut Check, split: Option<pb::InsuranceSplit>, amount: Option<Money>) -> Option<Split> {
    let Some(split) = split else {
        check.note("insurance.split", "is required");
        return None;
    };
    let funds = Funds { government: split.government_minor, personal: split.personal_minor, other: split.other_minor };
    let added = details(check, "additions", split.additions)?;
    let reduced = details(check, "reductions", split.reductions)?;
    let (cash, paid_in_cash) = (split.cash_minor, split.paid_in_cash_minor);
    Some(Split { total: amount?.amount_minor(), funds, cash, added, reduced, paid_in_cash })
}

fn details<T: std::str::FromStr>(
    check: &mut Check,
    field: &str,
    details: Vec<pb::CashDetail>,
) -> Option<Vec<(T, i64)>> {
    let field = format!("insurance.split.{field}");
    if details.len() > DETAILS_MAX {
        check.note(&field, "are more than 20");
        return None;
    }
    let read = |(number, detail): (usize, pb::CashDetail)| match detail.kind.parse() {
        Ok(kind) => Some((kind, detail.amount_minor)),
        Err(_) => {
            check.note(&format!("{field}[{number}].kind"), "is not one of the channel's words");
            None
        }
    };
    let read: Vec<_> = details.into_iter().enumerate().map(read).collect();
    read.into_iter().collect()
}

/// Reads how a refund of `amount` is split over the legs.
pub(super) fn legs(check: &mut Check, legs: pb::RefundLegs, amount: Option<Money>) -> Legs {
    let pb::RefundLegs { cash_minor, government_minor, personal_minor, other_minor } = legs;
    let funds = Funds { government: government_minor, personal: personal_minor, other: other_minor };
    let legs = Legs { cash: cash_minor, funds };
    let is_range = legs.each().into_iter().all(|(_, minor)| (0..=AMOUNT_MINOR_MAX).contains(&minor));
    check.demand("legs", is_range, "must be 0 or more, each");
    let fits = amount.is_none_or(|amount| legs.sum() == Some(amount.amount_minor()));
    check.demand("legs", !is_range || fits, "must be the amount together");
    legs
}

/// Reads when the insurance centre gave its part back: told where there is such a part, and there alone.
pub(super) fn returned_at(
    check: &mut Check,
    legs: Option<Legs>,
    at: Option<Result<Timestamp, time::TimeError>>,
) -> Option<Timestamp> {
    let is_needed = legs.is_some_and(|legs| legs != legs.cash_alone());
    let fits = is_needed == at.is_some();
    check.demand("insurance_return_time", fits, "must be set where insurance gives something back, and there alone");
    at?.map_err(|error| check.note("insurance_return_time", error)).ok()
}

/// Who pays.
pub(super) fn pay_mix(order: &Order) -> pb::PayMix {
    match order.terms.insured.as_ref().map(|insured| insured.mix) {
        None => pb::PayMix::Unspecified,
        Some(MixType::CashOnly) => pb::PayMix::CashOnly,
        Some(MixType::InsuranceOnly) => pb::PayMix::InsuranceOnly,
        Some(MixType::CashAndInsurance) => pb::PayMix::CashAndInsurance,
    }
}

/// Writes the legs that an order has, and how each stands.
pub(super) fn order_legs(order: &Order) -> Result<Vec<pb::OrderLeg>, Error> {
    let Some(asked) = order.legs() else { return Ok(Vec::new()) };
    let currency = order.terms.amount.currency();
    let money = |minor| Money::new(minor, currency).map_err(|_| Error::Internal("sum of a leg"));
    let of_each = asked.each().into_iter().zip(order.came().each()).zip(order.given.each());
    let has_it = of_each.filter(|(((_, asked), _), _)| *asked > 0);
    let leg = |(((leg, asked), (_, came)), (_, given))| {
        let state = match (came == asked, order.is_open()) {
            (true, _) => pb::LegState::Paid,
            (false, true) => pb::LegState::Pending,
            (false, false) => pb::LegState::Failed,
        };
        let kind = match leg {
            Leg::Cash => pb::LegKind::Cash,
            Leg::Government => pb::LegKind::Government,
            Leg::Personal => pb::LegKind::Personal,
            Leg::Other => pb::LegKind::Other,
        };
        let (asked, refunded) = (Some(money(asked)?.into()), Some(money(given)?.into()));
        Ok(pb::OrderLeg { leg: kind.into(), state: state.into(), asked, refunded })
    };
    has_it.map(leg).collect()
}

/// What of a refund has gone back.
pub(super) fn returned(refund: &Refund) -> Legs {
    match refund.state {
        RefundState::Requested | RefundState::Processing => Legs::default(),
        RefundState::Succeeded | RefundState::Failed => refund.given(),
    }
}

/// Writes legs.
pub(super) fn refund_legs(legs: Legs) -> pb::RefundLegs {
    let Legs { cash, funds } = legs;
    pb::RefundLegs {
        cash_minor: cash,
        government_minor: funds.government,
        personal_minor: funds.personal,
        other_minor: funds.other,
    }
}
