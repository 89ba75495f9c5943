use std::time::Duration;

use contracts::ids::{CaseId, TaskId};
use contracts::money::{Currency, Money};
use runtime::Timestamp;
use runtime::secret::Pii;
use store::Row;

use super::codes::{Code, TradeType};
use crate::domain::{Case, Hold, Next, OrderRef, Payment, Proof, Refund, Rejection, SettleRules};
use crate::error::Error;

/// What a case is about: written once, when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) entry_point: String,
    pub(crate) request_id: String,
    /// The citizen, by the pseudonym that only core services can open.
    pub(crate) owner: Pii<String>,
    pub(crate) item: String,
    pub(crate) region: String,
    pub(crate) profile: String,
    /// The region of the profile that the service's region resolves to; what the department is asked about.
    pub(crate) profile_region: String,
    pub(crate) bill_no: String,
    pub(crate) record_digest: Vec<u8>,
    pub(crate) channel: String,
    pub(crate) trade_type: TradeType,
    pub(crate) payee_id: String,
    /// What the citizen reads on the pay sheet.
    pub(crate) title: String,
    /// The case whose late money this one returns.
    pub(crate) linked: Option<CaseId>,
    /// The citizen's input, sealed by [`crate::seal`].
    pub(crate) input_sealed: Option<Vec<u8>>,
    /// The payer at the channel, sealed by [`crate::seal`]; gone once the order exists.
    pub(crate) payer_sealed: Option<Vec<u8>>,
    /// The case grant, sealed by identity to the profile.
    pub(crate) grant: Option<String>,
    /// The span that opened it, where spans are exported: all that is done for the case is one trace.
    pub(crate) trace: Option<String>,
}

/// A case as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) about: About,
    /// The case. Its task, where it has one, is loaded by [`super::tasks`].
    pub(crate) case: Case,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    /// What the next write names.
    pub(crate) version: i64,
    pub(crate) lease_owner: Option<String>,
    pub(crate) fence: i64,
}

/// The name of a hold in the store; until when it is a column of its own.
pub(super) fn hold_code(hold: Hold) -> &'static str {
    match hold {
        Hold::None => "NONE",
        Hold::Possible => "POSSIBLE",
        Hold::Until(_) => "UNTIL",
    }
}

/// Reads a column that holds a name of a closed set.
pub(super) fn coded<T: Code>(row: &Row, column: &'static str) -> Result<T, Error> {
    let name: String = row.get(column)?;
    T::of(&name).ok_or(Error::Corrupt(column))
}

/// As [`coded`], for a column that may be empty.
pub(super) fn coded_opt<T: Code>(row: &Row, column: &'static str) -> Result<Option<T>, Error> {
    let name: Option<String> = row.get(column)?;
    name.map(|name| T::of(&name).ok_or(Error::Corrupt(column))).transpose()
}

/// Reads a column that counts.
pub(super) fn count(row: &Row, column: &'static str) -> Result<u32, Error> {
    u32::try_from(row.get::<i64>(column)?).map_err(|_| Error::Corrupt(column))
}

/// Reads a column that holds a case id.
pub(super) fn case_id(row: &Row, column: &'static str) -> Result<CaseId, Error> {
    row.get::<String>(column)?.parse().map_err(|_| Error::Corrupt(column))
}

/// Reads a column that holds a task id.
pub(super) fn task_id(row: &Row) -> Result<TaskId, Error> {
    row.get::<String>("task_id")?.parse().map_err(|_| Error::Corrupt("task_id"))
}

impl File {
    /// Reads a row of `cases`.
    pub(crate) fn read(row: &Row) -> Result<Self, Error> {
        let linked: Option<String> = row.get("linked_case_id")?;
        let linked = linked.map(|id| id.parse().map_err(|_| Error::Corrupt("linked_case_id"))).transpose()?;
        let about = About {
            entry_point: row.get("entry_point")?,
            request_id: row.get("request_id")?,
            owner: Pii::new(row.get("owner")?),
            item: row.get("item")?,
            region: row.get("region")?,
            profile: row.get("profile")?,
            profile_region: row.get("profile_region")?,
            bill_no: row.get("bill_no")?,
            record_digest: row.get("record_digest")?,
            channel: row.get("channel")?,
            trade_type: coded(row, "trade_type")?,
            payee_id: row.get("payee_id")?,
            title: row.get("title")?,
            linked,
            input_sealed: row.get("input_sealed")?,
            payer_sealed: row.get("payer_sealed")?,
            grant: row.get("case_grant")?,
            trace: row.get("trace")?,
        };
        Ok(Self {
            about,
            case: case(row)?,
            created: row.get("created_at")?,
            updated: row.get("updated_at")?,
            version: row.get("version")?,
            lease_owner: row.get("lease_owner")?,
            fence: row.get("fence")?,
        })
    }
}

fn case(row: &Row) -> Result<Case, Error> {
    let currency: Currency = row.get::<String>("currency")?.parse().map_err(|_| Error::Corrupt("currency"))?;
    let amount = Money::new(row.get("amount_minor")?, currency).map_err(|_| Error::Corrupt("amount_minor"))?;
    let next = match (coded_opt(row, "action")?, row.get::<Option<Timestamp>>("action_at")?) {
        (Some(action), Some(at)) => Some(Next { action, at }),
        _ => None,
    };
    let order = match (row.get::<Option<String>>("order_id")?, row.get::<Option<Timestamp>>("order_expires")?) {
        (Some(id), Some(expires)) => Some(OrderRef { id, expires }),
        _ => None,
    };
    let payment = match (row.get::<Option<Timestamp>>("paid_at")?, row.get::<Option<String>>("channel_transaction")?) {
        (Some(at), Some(transaction)) => Some(Payment { at, transaction }),
        _ => None,
    };
    Ok(Case {
        id: case_id(row, "case_id")?,
        kind: coded(row, "kind")?,
        amount,
        state: coded(row, "state")?,
        step: coded_opt(row, "step")?,
        next,
        resolve_by: row.get("resolve_by")?,
        tries: count(row, "tries")?,
        ending: coded_opt(row, "ending")?,
        hold: hold(row)?,
        rules: rules(row)?,
        pay_until: row.get("pay_until")?,
        payment_code: row.get("payment_code")?,
        order,
        close_round: count(row, "close_round")?,
        payment,
        deliver_by: row.get("deliver_by")?,
        sends: count(row, "sends")?,
        sent_at: row.get("sent_at")?,
        refusals: count(row, "refusals")?,
        proof: proof(row)?,
        rejection: rejection(row)?,
        refund: Refund {
            round: count(row, "refund_round")?,
            id: row.get("refund_id")?,
            failed: row.get("refund_failed")?,
        },
        task: None,
        late_money: row.get("late_money")?,
        sequence: row.get("sequence")?,
    })
}

fn hold(row: &Row) -> Result<Hold, Error> {
    let until: Option<Timestamp> = row.get("held_until")?;
    match (row.get::<String>("hold")?.as_str(), until) {
        ("NONE", None) => Ok(Hold::None),
        ("POSSIBLE", None) => Ok(Hold::Possible),
        ("UNTIL", Some(until)) => Ok(Hold::Until(until)),
        _ => Err(Error::Corrupt("hold")),
    }
}

fn rules(row: &Row) -> Result<Option<SettleRules>, Error> {
    let quiet: Option<i64> = row.get("quiet_micros")?;
    let Some(idempotency) = coded_opt(row, "idempotency")? else { return Ok(None) };
    let quiet = u64::try_from(quiet.unwrap_or(0)).map_err(|_| Error::Corrupt("quiet_micros"))?;
    Ok(Some(SettleRules { idempotency, quiet_period: Duration::from_micros(quiet) }))
}

fn proof(row: &Row) -> Result<Option<Proof>, Error> {
    let Some(serial) = row.get::<Option<String>>("proof_serial")? else { return Ok(None) };
    let version: Option<i64> = row.get("proof_version")?;
    Ok(Some(Proof {
        serial,
        at: row.get("proof_at")?,
        reply_digest: row.get::<Option<Vec<u8>>>("proof_digest")?.unwrap_or_default(),
        profile: row.get::<Option<String>>("proof_profile")?.unwrap_or_default(),
        profile_version: i32::try_from(version.unwrap_or(0)).map_err(|_| Error::Corrupt("proof_version"))?,
        jws: row.get::<Option<String>>("proof_jws")?.unwrap_or_default(),
    }))
}

fn rejection(row: &Row) -> Result<Option<Rejection>, Error> {
    let Some(code) = row.get::<Option<String>>("rejection_code")? else { return Ok(None) };
    Ok(Some(Rejection {
        code,
        department_code: row.get::<Option<String>>("rejection_department_code")?.unwrap_or_default(),
        department_text: row.get::<Option<String>>("rejection_department_text")?.unwrap_or_default(),
    }))
}
