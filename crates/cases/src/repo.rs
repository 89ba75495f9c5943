//! Domain and store. One transaction a step: the row, its history, the entry point's stream, the lock on the bill, the clerk's task,
//! the cursor and the idempotency record all commit together or not at all.
//!
//! ```text
//! cases        case_id │ what it is about │ where it stands │ version │ due_at, lease, fence      leased by store::lease
//! case_events  (case_id, sequence)         the history; rows are added and never changed
//! outbox       stream `ep/<entry point>` → (case_id, sequence)                                    WatchCases
//! bill_locks   (profile, bill_no) → case_id   while a case is open
//! answers      (scope, method, request_id) → digest, answer                                       for ever
//! tasks        task_id → case_id           one open task a case
//! cursors      name → sequence             how far payments' events were applied
//! ```
//!
//! A write to a case names the version that it was read at, and a worker's write its fence besides; no row means that somebody else
//! was first, and the whole transaction runs again on what is there now.

mod answers;
mod codes;
mod history;
mod row;
mod tasks;

pub(crate) use answers::{answered, keep_answer};
pub(crate) use codes::{Code, TradeType};
pub(crate) use history::{Told, append, events_after, stream, stream_after};
pub(crate) use row::{About, File};
pub(crate) use tasks::{TaskPage, TaskRow, attach as attach_task, profiles, task, tasks};

use std::time::Duration;

use contracts::ids::CaseId;
use runtime::Timestamp;
use runtime::secret::Pii;
use store::lease::{Lease, Leases, Spec};
use store::{Db, Migration, Read, Tx, params};

use crate::domain::{Case, Census, Hold, State, Transition};
use crate::error::Error;

/// The schema of this service.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "cases",
        sqlite: include_str!("../migrations/sqlite/0001_cases.sql"),
        postgres: include_str!("../migrations/postgres/0001_cases.sql"),
    },
    Migration {
        version: 2,
        name: "trace",
        sqlite: include_str!("../migrations/sqlite/0002_trace.sql"),
        postgres: include_str!("../migrations/postgres/0002_trace.sql"),
    },
    Migration {
        version: 3,
        name: "payment_code",
        sqlite: include_str!("../migrations/sqlite/0003_payment_code.sql"),
        postgres: include_str!("../migrations/postgres/0003_payment_code.sql"),
    },
];

const LEASED: Spec = Spec { table: "cases", key: "case_id" };
const PAYMENTS: &str = "payments";

const LOAD: &str = "SELECT * FROM cases WHERE case_id = $1";
const BY_REQUEST: &str = "SELECT * FROM cases WHERE entry_point = $1 AND request_id = $2 AND kind = 'PAY'";
const BY_OWNER: &str = "SELECT * FROM cases WHERE owner = $1 AND case_id < $2 ORDER BY case_id DESC LIMIT $3";
const BY_ORDER: &str = "SELECT * FROM cases WHERE order_id = $1 ORDER BY case_id LIMIT 8";
const INSERT: &str = "INSERT INTO cases (case_id, kind, entry_point, request_id, owner, item, region, profile, bill_no,
    record_digest, amount_minor, currency, channel, trade_type, payee_id, linked_case_id, created_at, input_sealed,
    payer_sealed, case_grant, state, step, action, action_at, resolve_by, tries, hold, close_round, sends, refusals,
    refund_round, refund_failed, late_money, order_id, order_expires, sequence, updated_at, version, due_at,
    profile_region, title, trace)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
    $25, 0, 'NONE', 0, 0, 0, 0, $26, $26, $27, $28, $29, $17, 1, $30, $31, $32, $33)";
const LOCK_BILL: &str = "INSERT INTO bill_locks (profile, bill_no, case_id) VALUES ($1, $2, $3)";
const UNLOCK_BILL: &str = "DELETE FROM bill_locks WHERE case_id = $1";
const BILL_LOCKED: &str = "SELECT case_id FROM bill_locks WHERE profile = $1 AND bill_no = $2";
const CURSOR: &str = "SELECT sequence FROM cursors WHERE name = $1";
const FIRST_CURSOR: &str = "INSERT INTO cursors (name, sequence) VALUES ($1, $2)";
const NEXT_CURSOR: &str = "UPDATE cursors SET sequence = $3 WHERE name = $1 AND sequence = $2";
const GIVE_BACK: &str = "UPDATE cases SET lease_owner = NULL, lease_until = 0 WHERE lease_owner = $1";
const ANY_DUE: &str = "SELECT case_id FROM cases WHERE due_at <= $1 AND lease_until <= $1 LIMIT 1";
// One statement, so that all four numbers are of the same moment.
const CENSUS: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS accepted,
    CAST(COALESCE(SUM(CASE WHEN due_at IS NULL THEN 1 ELSE 0 END), 0) AS BIGINT) AS terminal,
    CAST(COALESCE(SUM(CASE WHEN due_at IS NOT NULL AND state <> 'NEEDS_CLERK' AND resolve_by >= $1 THEN 1 ELSE 0 END), 0)
        AS BIGINT) AS open_in_time,
    CAST(COALESCE(SUM(CASE WHEN state = 'NEEDS_CLERK' THEN 1 ELSE 0 END), 0) AS BIGINT) AS with_clerk
    FROM cases";

macro_rules! where_it_stands {
    () => {
        "UPDATE cases SET version = version + 1, state = $3, step = $4, action = $5, action_at = $6, resolve_by = $7,
         tries = $8, ending = $9, hold = $10, held_until = $11, idempotency = $12, quiet_micros = $13, order_id = $14,
         order_expires = $15, close_round = $16, paid_at = $17, channel_transaction = $18, deliver_by = $19, sends = $20,
         sent_at = $21, refusals = $22, proof_serial = $23, proof_at = $24, proof_digest = $25, proof_profile = $26,
         proof_version = $27, proof_jws = $28, rejection_code = $29, rejection_department_code = $30,
         rejection_department_text = $31, refund_round = $32, refund_id = $33, refund_failed = $34, late_money = $35,
         sequence = $36, updated_at = $37, due_at = $38,
         pay_until = $39, payment_code = $40, payer_sealed = CASE WHEN $14 IS NULL AND $38 IS NOT NULL THEN payer_sealed END,
         input_sealed = CASE WHEN $38 IS NOT NULL THEN input_sealed END,
         case_grant = CASE WHEN $38 IS NOT NULL THEN case_grant END"
    };
}
const SAVE: &str = concat!(where_it_stands!(), " WHERE case_id = $1 AND version = $2");
const SAVE_LEASED: &str = concat!(
    where_it_stands!(),
    ", lease_owner = $41, lease_until = $42
     WHERE case_id = $1 AND version = $2 AND lease_owner = $43 AND fence = $44"
);

/// The statements that lease cases.
pub(crate) fn leases(db: &Db) -> Result<Leases, store::Error> {
    Leases::new(db, &LEASED)
}

/// Who saves a case, and what becomes of the lease.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hand<'a> {
    /// Nobody who holds it: an event, a citizen, a clerk.
    Free,
    /// The worker that leased it, and goes on with it until then.
    Keeps(&'a Lease, Timestamp),
    /// The worker that leased it, and gives it back.
    GivesBack(&'a Lease),
}

/// Stores a new case; its history is appended after it. A pay case takes the lock on its bill.
///
/// Errors: `BillInProgress`; a store `Conflict` on `cases_by_request` or `cases_late_money`.
pub(crate) async fn insert(tx: &mut Tx, about: &About, opened: &Transition, now: Timestamp) -> Result<(), Error> {
    let case = &opened.case;
    let id = case.id.to_string();
    if let Some(bill_no) = about.locks_bill(case) {
        let locked = tx.execute(LOCK_BILL, params![about.profile, bill_no, id]).await;
        locked.map_err(|error| match error.conflict() {
            Some("bill_locks_pkey") => Error::BillInProgress,
            _ => error.into(),
        })?;
    }
    let order = case.order.as_ref();
    let values = params![
        id,
        case.kind.code(),
        about.entry_point,
        about.request_id,
        about.owner.expose(),
        about.item,
        about.region,
        about.profile,
        about.bill_no,
        about.record_digest,
        case.amount.amount_minor(),
        case.amount.currency().as_str(),
        about.channel,
        about.trade_type.code(),
        about.payee_id,
        about.linked.map(|linked| linked.to_string()),
        now,
        about.input_sealed,
        about.payer_sealed,
        about.grant,
        case.state.code(),
        case.step.map(Code::code),
        case.next.map(|next| next.action.code()),
        case.next.map(|next| next.at),
        case.resolve_by,
        false,
        order.map(|order| order.id.as_str()),
        order.map(|order| order.expires),
        case.sequence,
        case.due_at(),
        about.profile_region,
        about.title,
        about.trace,
    ];
    tx.execute(INSERT, values).await?;
    Ok(())
}

/// Stores what an event made of a case: the task, the row, the lock. Its history is appended after it.
///
/// Errors: `Raced` when the row is not the one that was read, or the lease is lost.
pub(crate) async fn save(
    tx: &mut Tx,
    file: &File,
    moved: &Transition,
    hand: Hand<'_>,
    now: Timestamp,
) -> Result<(), Error> {
    tasks::follow(tx, file, moved, now).await?;
    write(tx, file, &moved.case, hand, now).await?;
    if moved.case.state.is_terminal() && !file.case.state.is_terminal() {
        tx.execute(UNLOCK_BILL, params![file.case.id.to_string()]).await?;
    }
    Ok(())
}

async fn write(tx: &mut Tx, file: &File, case: &Case, hand: Hand<'_>, now: Timestamp) -> Result<(), Error> {
    let held_until = match case.hold {
        Hold::None | Hold::Possible => None,
        Hold::Until(until) => Some(until),
    };
    let (order, proof) = (case.order.as_ref(), case.proof.as_ref());
    let (payment, rejection) = (case.payment.as_ref(), case.rejection.as_ref());
    let quiet = case.rules.map(|rules| i64::try_from(rules.quiet_period.as_micros()).unwrap_or(i64::MAX));
    let mut values = params![
        case.id.to_string(),
        file.version,
        case.state.code(),
        case.step.map(Code::code),
        case.next.map(|next| next.action.code()),
        case.next.map(|next| next.at),
        case.resolve_by,
        case.tries,
        case.ending.map(Code::code),
        row::hold_code(case.hold),
        held_until,
        case.rules.map(|rules| rules.idempotency.code()),
        quiet,
        order.map(|order| order.id.as_str()),
        order.map(|order| order.expires),
        case.close_round,
        payment.map(|payment| payment.at),
        payment.map(|payment| payment.transaction.as_str()),
        case.deliver_by,
        case.sends,
        case.sent_at,
        case.refusals,
        proof.map(|proof| proof.serial.as_str()),
        proof.and_then(|proof| proof.at),
        proof.map(|proof| proof.reply_digest.clone()),
        proof.map(|proof| proof.profile.as_str()),
        proof.map(|proof| proof.profile_version),
        proof.map(|proof| proof.jws.as_str()),
        rejection.map(|rejection| rejection.code.as_str()),
        rejection.map(|rejection| rejection.department_code.as_str()),
        rejection.map(|rejection| rejection.department_text.as_str()),
        case.refund.round,
        case.refund.id,
        case.refund.failed,
        case.late_money,
        case.sequence,
        now,
        case.due_at(),
        case.pay_until,
        case.payment_code.as_deref(),
    ]
    .to_vec();
    let rows = match hand {
        Hand::Free => tx.execute(SAVE, &values).await?,
        Hand::Keeps(lease, until) => {
            values.extend_from_slice(params![lease.owner, until, lease.owner, lease.fence]);
            tx.execute(SAVE_LEASED, &values).await?
        }
        Hand::GivesBack(lease) => {
            values.extend_from_slice(params![None::<&str>, 0_i64, lease.owner, lease.fence]);
            tx.execute(SAVE_LEASED, &values).await?
        }
    };
    if rows == 1 { Ok(()) } else { Err(Error::Raced) }
}

/// Loads a case.
pub(crate) async fn load(reader: &mut impl Read, id: CaseId) -> Result<Option<File>, Error> {
    reader.fetch_opt(LOAD, params![id.to_string()]).await?.as_ref().map(File::read).transpose()
}

/// Loads the case that a request opened.
pub(crate) async fn by_request(
    reader: &mut impl Read,
    entry_point: &str,
    request_id: &str,
) -> Result<Option<File>, Error> {
    reader.fetch_opt(BY_REQUEST, params![entry_point, request_id]).await?.as_ref().map(File::read).transpose()
}

/// Loads the cases of an owner, newest first, below a case id.
pub(crate) async fn by_owner(
    reader: &mut impl Read,
    owner: &Pii<String>,
    below: Option<CaseId>,
    max: u32,
) -> Result<Vec<File>, Error> {
    // An id is its prefix and lower-case hexadecimal: the tilde sorts behind every one of them, in either engine's bytewise order.
    let below = below.map_or_else(|| "case_~".to_owned(), |id| id.to_string());
    let rows = reader.fetch_all(BY_OWNER, params![owner.expose(), below, max]).await?;
    rows.iter().map(File::read).collect()
}

/// Loads the cases that an order belongs to: its own, and the one that returns its late money.
pub(crate) async fn by_order(reader: &mut impl Read, order_id: &str) -> Result<Vec<File>, Error> {
    reader.fetch_all(BY_ORDER, params![order_id]).await?.iter().map(File::read).collect()
}

/// Tells whether an open case pays the bill.
pub(crate) async fn bill_is_locked(reader: &mut impl Read, profile: &str, bill_no: &str) -> Result<bool, Error> {
    Ok(reader.fetch_opt(BILL_LOCKED, params![profile, bill_no]).await?.is_some())
}

/// Reads how far payments' events were applied.
pub(crate) async fn cursor(reader: &mut impl Read) -> Result<i64, Error> {
    let row = reader.fetch_opt(CURSOR, params![PAYMENTS]).await?;
    Ok(row.map(|row| row.get("sequence")).transpose()?.unwrap_or(0))
}

/// Moves the cursor, in the transaction of what the events did.
///
/// Errors: `Raced` when another replica has moved it.
pub(crate) async fn move_cursor(tx: &mut Tx, from: i64, to: i64) -> Result<(), Error> {
    if from == 0 {
        let first = tx.execute(FIRST_CURSOR, params![PAYMENTS, to]).await;
        return match first {
            Ok(_) => Ok(()),
            Err(error) if error.conflict().is_some() => Err(Error::Raced),
            Err(error) => Err(error.into()),
        };
    }
    let rows = tx.execute(NEXT_CURSOR, params![PAYMENTS, from, to]).await?;
    if rows == 1 { Ok(()) } else { Err(Error::Raced) }
}

/// Gives back what a worker of this name held before it was restarted. Its fences stay, so what it may still do counts for nothing.
pub(crate) async fn give_back(db: &Db, owner: &str) -> Result<u64, Error> {
    db.transact(async |mut tx: Tx| Ok(tx.execute(GIVE_BACK, params![owner]).await?)).await
}

/// Tells whether there is anything to claim.
pub(crate) async fn any_due(reader: &mut impl Read, now: Timestamp) -> Result<bool, Error> {
    Ok(reader.fetch_opt(ANY_DUE, params![now]).await?.is_some())
}

/// Counts all cases by who answers for them. A case may be this late before it counts as silent: its worker is on the way.
pub(crate) async fn census(reader: &mut impl Read, now: Timestamp, grace: Duration) -> Result<Census, Error> {
    let Some(row) = reader.fetch_opt(CENSUS, params![now.minus(grace)]).await? else { return Ok(Census::default()) };
    Ok(Census {
        accepted: row.get("accepted")?,
        terminal: row.get("terminal")?,
        open_in_time: row.get("open_in_time")?,
        with_clerk: row.get("with_clerk")?,
    })
}

impl About {
    /// The bill that a new case locks.
    fn locks_bill(&self, case: &Case) -> Option<&str> {
        (case.kind == crate::domain::Kind::Pay && case.state == State::Accepted).then_some(self.bill_no.as_str())
    }
}
