//! Between the contract and the engine. What breaks the contract is gathered, all of it, before anything is done.

use std::collections::BTreeMap;

use contracts::common::v1 as common;
use contracts::department::v1 as pb;
use prost_types::value::Kind;
use prost_types::{Struct, Value as PbValue};
use rpc::{Violation, time};
use runtime::Timestamp;
use serde_json::{Map, Number, Value as Json};

use crate::engine::{Bill, BillState, CURRENCY, Outcome, Rejection};
use crate::profile::SchemaName;
use crate::schema;

/// Deepest nesting of an input.
const DEPTH_MAX: usize = 32;

/// Gathers what is wrong with a request.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Violation>);

impl Problems {
    fn note(&mut self, field: &str, what: &str) {
        self.0.push(Violation::new(field, what));
    }

    /// Hands back the request's parts when nothing was wrong.
    pub(crate) fn finish<T>(self, parts: T) -> Result<T, crate::Error> {
        if self.0.is_empty() { Ok(parts) } else { Err(crate::Error::Invalid(self.0)) }
    }

    /// Reads an idempotency key.
    pub(crate) fn key(&mut self, field: &str, text: &str) {
        if !rpc::call::is_request_id(text) {
            self.note(field, "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -");
        }
    }

    /// Reads an id that a read may carry, for tracing.
    pub(crate) fn trace(&mut self, field: &str, text: &str) {
        if !text.is_empty() {
            self.key(field, text);
        }
    }

    /// Reads a number of the department or of a channel.
    pub(crate) fn number(&mut self, field: &str, text: &str) {
        if !rpc::form::is_number(text) {
            self.note(field, "must be 1 to 64 characters of printable ASCII");
        }
    }

    /// Reads a digest of a record.
    pub(crate) fn digest(&mut self, field: &str, bytes: &[u8]) {
        if bytes.len() != 32 {
            self.note(field, "must be the 32 bytes of a bill's record_digest");
        }
    }

    /// Reads a time that must be given.
    pub(crate) fn time(&mut self, field: &str, given: Option<&prost_types::Timestamp>) -> Timestamp {
        time::required(given).unwrap_or_else(|error| {
            self.note(field, &error.to_string());
            Timestamp::from_micros(0)
        })
    }

    /// Reads an amount above nothing in the department's currency; in minor units.
    pub(crate) fn amount(&mut self, field: &str, given: Option<&common::Money>) -> i64 {
        let amount = given.filter(|money| money.currency == CURRENCY).map(|money| money.amount_minor);
        let amount = amount.filter(|minor| (1..=contracts::money::AMOUNT_MINOR_MAX).contains(minor));
        amount.unwrap_or_else(|| {
            self.note(field, "must be an amount of CNY above zero, in fen");
            0
        })
    }

    /// Reads an item's own fields.
    pub(crate) fn input(&mut self, field: &str, given: Option<&Struct>) -> Json {
        let Some(given) = given else { return Json::Object(Map::new()) };
        json_of_struct(given, 0).unwrap_or_else(|what| {
            self.note(field, what);
            Json::Object(Map::new())
        })
    }
}

/// Turns the ways in which an input breaks its schema into the contract's violations.
pub(crate) fn violations(found: Vec<schema::Violation>) -> Vec<Violation> {
    let field = |path: &str| if path.is_empty() { "input".to_owned() } else { format!("input.{path}") };
    found.into_iter().map(|violation| Violation::new(field(&violation.field), violation.what)).collect()
}

fn json_of_struct(fields: &Struct, depth: usize) -> Result<Json, &'static str> {
    let read = fields.fields.iter().map(|(name, value)| Ok((name.clone(), json_of(value, depth)?)));
    read.collect::<Result<Map<_, _>, _>>().map(Json::Object)
}

fn json_of(value: &PbValue, depth: usize) -> Result<Json, &'static str> {
    if depth >= DEPTH_MAX {
        return Err("must not be nested deeper than 32");
    }
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(flag)) => Json::Bool(*flag),
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::NumberValue(number)) => Json::Number(whole(*number).ok_or("numbers must be whole and exact")?),
        Some(Kind::ListValue(list)) => {
            let read = list.values.iter().map(|value| json_of(value, depth + 1));
            Json::Array(read.collect::<Result<_, _>>()?)
        }
        Some(Kind::StructValue(fields)) => json_of_struct(fields, depth + 1)?,
    })
}

/// A number that every reader has exactly.
fn whole(number: f64) -> Option<Number> {
    const EXACT_MAX: f64 = 9_007_199_254_740_991.0;
    let is_whole = number.is_finite() && number.fract() == 0.0 && number.abs() <= EXACT_MAX;
    // Whole and within 2^53: the text is exact, and reading it back cannot fail.
    is_whole.then(|| format!("{number:.0}").parse::<i64>().ok()).flatten().map(Number::from)
}

/// Writes an output that was held to its schema.
pub(crate) fn to_struct(value: Json) -> Struct {
    match value {
        Json::Object(fields) => {
            let fields: BTreeMap<String, PbValue> =
                fields.into_iter().map(|(name, value)| (name, to_value(value))).collect();
            Struct { fields }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => Struct::default(),
    }
}

fn to_value(value: Json) -> PbValue {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(flag),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(list) => {
            Kind::ListValue(prost_types::ListValue { values: list.into_iter().map(to_value).collect() })
        }
        Json::Object(_) => Kind::StructValue(to_struct(value)),
    };
    PbValue { kind: Some(kind) }
}

/// Writes a bill.
pub(crate) fn bill(bill: Bill) -> pb::Bill {
    pb::Bill {
        bill_no: bill.bill_no,
        amount: Some(money(bill.amount_minor)),
        late_fee: Some(money(bill.late_fee_minor)),
        due_time: None,
        state: bill_state(bill.state).into(),
        record: Some(to_struct(bill.record)),
        record_digest: bill.digest.to_vec(),
        payment_code: bill.payment_code.unwrap_or_default(),
    }
}

fn bill_state(state: BillState) -> pb::BillState {
    match state {
        BillState::Payable => pb::BillState::Payable,
        BillState::Unconfirmed => pb::BillState::Unconfirmed,
        BillState::Disputed => pb::BillState::Disputed,
        BillState::Paid => pb::BillState::Paid,
        BillState::Held => pb::BillState::Held,
    }
}

/// Writes an amount of the department's currency.
pub(crate) fn money(amount_minor: i64) -> common::Money {
    common::Money { amount_minor, currency: CURRENCY.to_owned() }
}

/// Writes an outcome.
pub(crate) fn outcome(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Done => common::Outcome::Done,
        Outcome::Rejected => common::Outcome::Rejected,
        Outcome::Pending => common::Outcome::Pending,
        Outcome::Unknown => common::Outcome::Unknown,
    }
    .into()
}

/// Writes a refusal.
pub(crate) fn rejection(rejection: Rejection) -> common::Rejection {
    let Rejection { code, department_code, department_text } = rejection;
    common::Rejection { code, department_code, department_text }
}

/// Names a schema.
pub(crate) fn schema_ref(name: &SchemaName) -> pb::SchemaRef {
    pb::SchemaRef { id: name.id.clone(), version: i32::try_from(name.version).unwrap_or(i32::MAX) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn structs_and_json_are_the_same_values() {
        let value = json!({"a": [1, -2, true, null, "x"], "b": {"c": {}}});
        let there = to_struct(value.clone());
        assert_eq!(json_of_struct(&there, 0), Ok(value));
    }

    #[test]
    fn numbers_that_are_not_whole_and_exact_are_refused() {
        for number in [1.5, f64::NAN, f64::INFINITY, -f64::INFINITY, 1e300, 9_007_199_254_740_992.0] {
            assert_eq!(whole(number), None, "{number}");
        }
        assert_eq!(whole(-0.0), Some(Number::from(0)));
        assert_eq!(whole(9_007_199_254_740_991.0), Some(Number::from(9_007_199_254_740_991_i64)));
    }

    #[test]
    fn a_deep_input_is_refused() {
        let mut value = PbValue { kind: Some(Kind::BoolValue(true)) };
        for _ in 0..40 {
            let list = prost_types::ListValue { values: vec![value] };
            value = PbValue { kind: Some(Kind::ListValue(list)) };
        }
        let deep = Struct { fields: [("x".to_owned(), value)].into() };
        let mut problems = Problems::default();
        problems.input("input", Some(&deep));
        assert!(problems.finish(()).is_err());
    }

    #[test]
    fn every_violation_is_told_at_once() {
        let mut problems = Problems::default();
        problems.key("request_id", "a b");
        problems.number("bill_no", "");
        problems.digest("record_digest", &[0; 31]);
        problems.time("paid_time", None);
        problems.amount("amount", Some(&common::Money { amount_minor: 0, currency: "CNY".into() }));
        problems.amount("amount", Some(&common::Money { amount_minor: 5, currency: "USD".into() }));
        problems.trace("request_id", &"x".repeat(65));
        problems.trace("request_id", "");
        let Err(crate::Error::Invalid(violations)) = problems.finish(()) else { panic!("refused") };
        assert_eq!(violations.len(), 7);
    }
}
