//! What a profile offers to citizens: items, and how each operation is made of the department's calls.
//!
//! Variables of every expression: `input` (the item's own fields; what was not given is none), `applicant` (`name`,
//! `document_number`; only for requests and comparisons), `settings`, `now` (RFC 3339), and what the operation brings:
//! `page` (`size`, `offset`, `number`) for lists; `bill_no`, `request_id`, `lock_request_id`, `hold_minutes`, `amount_minor`,
//! `paid_time`, `channel`, `channel_transaction` where the contract has them. Each step adds its reply under its name.

use std::borrow::Cow;

use runtime::config::Duration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{Node, Verdict};
use crate::named::Named;

/// One item of a department.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Greatest depth offered.
    pub depth: Depth,
    /// What its input and output are held to.
    pub schemas: Schemas,
    /// Who may ask.
    pub applicant: Applicant,
    /// How each subject-bound field of the input (`x-lastmile-subject`) is bound to the citizen.
    #[serde(default)]
    pub subjects: Named<SubjectRule>,
    /// How the department recognises a repeated settlement.
    pub idempotency: Idempotency,
    /// How long after a settlement "not found" is not yet definitive.
    pub settle_quiet_period: Duration,
    /// What one record of the department becomes.
    pub row: Row,
    /// The operations offered. One that is not here is not offered.
    pub operations: Operations,
}

/// How deep an item is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Depth {
    /// How and where.
    Inform,
    /// Records can be read.
    Query,
    /// An appointment can be made.
    Book,
    /// A bill can be paid.
    Pay,
    /// Handled to its end.
    Handle,
}

/// The JSON Schemas of an item, by name and version.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schemas {
    /// Of the input.
    pub input: SchemaName,
    /// Of a query's result.
    pub result: SchemaName,
    /// Of one record.
    pub record: SchemaName,
}

/// Longest id of a schema.
const SCHEMA_ID_LENGTH_MAX: usize = 128;

/// A schema: `traffic.violation/record@1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaName {
    /// Id, which is also its path under the schema directory.
    pub id: String,
    /// Version, from 1.
    pub version: u32,
}

/// Who may ask for an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Applicant {
    /// The citizen of the assertion, and only what is theirs is returned.
    Own,
    /// Anyone; the item returns no personal data.
    Anyone,
}

/// How a subject-bound field is bound to the citizen.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectRule {
    /// The sealed attribute that the field must equal, or be one of where it is a list.
    pub attribute: Attribute,
    /// What holds when the assertion has no such attribute.
    pub otherwise: Otherwise,
}

/// What identity seals of a citizen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// Number of the document, the resident identity number as a rule.
    DocumentNumber,
    /// Plates of the citizen's vehicles.
    Plates,
    /// Numbers of driving licences.
    Licences,
    /// Mobile number.
    Phone,
}

/// What holds when an attribute is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// The request is refused.
    Refuse,
    /// The department decides: every record must be the citizen's own (`row.owner`), or the request is refused.
    Owner,
}

/// How a repeated settlement is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Idempotency {
    /// The department keeps our key.
    Key,
    /// A bill can be paid once.
    ByBill,
    /// Not at all: never sent again.
    None,
}

/// What one record of the department becomes. Its variables are those of the operation's `row` or `rows`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Variables made first, in order.
    #[serde(default)]
    pub with: Named<String>,
    /// The document number of the person it is about.
    pub owner: Option<String>,
    /// The department's number for it.
    pub bill_no: Option<String>,
    /// What is asked now, in fen.
    pub amount_minor: Option<String>,
    /// The late fee in it, in fen.
    pub late_fee_minor: Option<String>,
    /// The department's payment code for it; none where it has none.
    pub payment_code: Option<String>,
    /// `PAYABLE`, `UNCONFIRMED`, `DISPUTED`, `PAID` or `HELD`.
    pub bill_state: Option<String>,
    /// The record itself, held to the record schema.
    pub record: Node,
}

/// The operations of an item.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Operations {
    /// Reads records.
    pub query: Option<Query>,
    /// Lists what can be paid.
    pub list_bills: Option<ListBills>,
    /// Re-reads a bill and holds its amount.
    pub lock: Option<Lock>,
    /// Gives a held bill back.
    pub release: Option<Release>,
    /// Tells of a payment.
    pub settle: Option<Settle>,
    /// Asks what became of a payment.
    pub inquire: Option<Inquire>,
}

/// Reads records.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The calls, in order.
    pub steps: Vec<Step>,
    /// Which records there are; `records` in `result` is what they became.
    pub rows: Option<Rows>,
    /// How many records there are in all, where the department pages.
    pub total: Option<String>,
    /// The result, held to the result schema.
    pub result: Node,
}

/// Lists what can be paid.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListBills {
    /// The calls, in order.
    pub steps: Vec<Step>,
    /// Which records there are.
    pub rows: Rows,
    /// How many there are in all, where the department pages.
    pub total: Option<String>,
}

/// Re-reads a bill and holds its amount.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Reads the bill, without changing anything: it is compared with what the citizen read before anything is held.
    pub read: Read,
    /// The calls that hold it.
    pub steps: Vec<Step>,
    /// The variables of the record as it is held; it is compared once more.
    pub row: Named<String>,
    /// Until when the department holds it, RFC 3339.
    pub held_until: String,
}

/// Reads one bill.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The calls, in order.
    pub steps: Vec<Step>,
    /// The variables of the record.
    pub row: Named<String>,
}

/// Gives a held bill back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The calls, in order. When all are done, so is the release.
    pub steps: Vec<Step>,
}

/// Tells of a payment.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    /// The calls, in order; the last one takes the payment.
    pub steps: Vec<Step>,
    /// What the reply means; the first rule that holds. When none does, the reply is unreadable.
    pub outcome: Vec<OutcomeRule>,
    /// Where the proof is.
    pub proof: ProofMap,
}

/// Asks what became of a payment.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inquire {
    /// The calls, in order.
    pub steps: Vec<Step>,
    /// What the reply means; the first rule that holds. When none does, the reply is unreadable.
    pub outcome: Vec<OutcomeRule>,
    /// Where a refusal says why, for `then: refused`.
    pub refusal: Option<Refusal>,
    /// Where the proof is.
    pub proof: ProofMap,
}

/// One call of an operation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The exchange.
    pub call: String,
    /// The variable that holds its reply afterwards.
    pub name: String,
    /// Makes the call only when this holds; otherwise its variable is none.
    pub when: Option<String>,
    /// Makes the call once for each element of this list; its variable is then a list.
    pub each: Option<String>,
    /// The variable that holds the element, with `each`.
    pub element: Option<String>,
    /// The values of the request.
    #[serde(default)]
    pub with: Named<String>,
    /// What some codes mean in this step, instead of what `codes` says.
    #[serde(default)]
    pub codes: Named<Verdict>,
}

/// The records of a list.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// The list.
    pub each: String,
    /// The variable that holds one of them; its position, from 0, is `index`.
    pub element: String,
    /// Further variables of each.
    #[serde(default)]
    pub with: Named<String>,
    /// What must hold for each, such as that it is about what was asked for; otherwise the reply is unreadable.
    #[serde(default)]
    pub require: Vec<String>,
}

/// A rule of an outcome.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeRule {
    /// The condition.
    pub when: String,
    /// What it means.
    pub then: Then,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It is done.
    Done,
    /// It was taken and is not decided.
    Pending,
    /// It was refused; `refusal` says why.
    Refused,
    /// It cannot be told from this reply.
    Unknown,
}

/// Where a refusal says why.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The department's code; `codes` must say `reject` of it.
    pub code: String,
    /// The department's words.
    pub text: String,
}

/// Where the proof of a settlement is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProofMap {
    /// The department's serial number.
    pub serial: String,
    /// When it posted, RFC 3339.
    pub time: String,
    /// What it took, in fen; it must be what was paid.
    pub amount_minor: String,
}

impl SchemaName {
    fn parse(text: &str) -> Option<Self> {
        let (id, version) = text.split_once('@')?;
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        };
        let parts: Vec<_> = if id.len() <= SCHEMA_ID_LENGTH_MAX { id.split('/').collect() } else { Vec::new() };
        let version = version.parse().ok().filter(|version| *version > 0)?;
        (parts.len() == 2 && parts.iter().all(|part| is_part(part))).then(|| Self { id: id.to_owned(), version })
    }
}

impl<'de> Deserialize<'de> for SchemaName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom("expected a schema and its version, such as \"traffic.violation/record@1\"")
        })
    }
}

impl JsonSchema for SchemaName {
    fn schema_name() -> Cow<'static, str> {
        "SchemaName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*@[1-9][0-9]*$" })
    }
}
