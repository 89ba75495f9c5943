//! Settlements, their lines, and the cuts that were made.

use contracts::ids::SettlementId;
use contracts::money::Currency;
use runtime::Timestamp;
use store::{Read, Row, Tx, params};

use super::{unreadable, word};
use crate::domain::ledger::{Account, TransferId};
use crate::domain::settlement::{Line, Settlement, State, Totals, What};

const MARK: &str =
    "INSERT INTO settlement_cuts (payee_id, cut_at) VALUES ($1, $2) ON CONFLICT (payee_id, cut_at) DO NOTHING";

const IS_MARKED: &str = "SELECT payee_id FROM settlement_cuts WHERE payee_id = $1 AND cut_at = $2";

const INSERT: &str =
    "INSERT INTO settlements (settlement_id, payee_id, number, day, seq, currency, from_at, cut_at, state,
    line_count, gross_minor, refunds_minor, carried_minor, carried_from, reference, first_by, second_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'cutting', 0, 0, 0, $9, $10, '', '', '') ON CONFLICT DO NOTHING";

/// What can change of a settlement, and only by one step.
const UPDATE: &str =
    "UPDATE settlements SET state = $3, line_count = $4, gross_minor = $5, refunds_minor = $6, sha256 = $7,
    signature = $8, key = $9, reference = $10, first_by = $11, second_by = $12, paid_over_at = $13
    WHERE settlement_id = $1 AND state = $2";

const GET: &str = "SELECT * FROM settlements WHERE settlement_id = $1";

const LOCK: &str = "UPDATE settlements SET reference = reference WHERE settlement_id = $1";

const LAST: &str = "SELECT * FROM settlements WHERE payee_id = $1 ORDER BY number DESC LIMIT 1";

const OF_DAY: &str = "SELECT COUNT(*) AS number FROM settlements WHERE payee_id = $1 AND day = $2";

const PAGE: &str = "SELECT * FROM settlements WHERE (cut_at, settlement_id) < ($1, $2) AND ($3 = '' OR payee_id = $3)
    AND ($4 = '' OR state = $4) ORDER BY cut_at DESC, settlement_id DESC LIMIT $5";

const AFTER: &str = "SELECT * FROM settlements WHERE (payee_id, number) > ($1, $2) ORDER BY payee_id, number LIMIT $3";

const COUNT_LINES: &str = "SELECT COUNT(*) AS number FROM settlement_lines";

/// The account is named so that the engine takes the index that leaves suspense out.
macro_rules! postings {
    () => {
        "FROM transfers t JOIN orders o ON o.order_id = t.order_id
        WHERE t.credit_account = $1 AND t.credit_account NOT LIKE 'suspense/%'
        AND t.booked_at >= $2 AND t.booked_at < $3
        AND NOT EXISTS (SELECT 1 FROM settlement_lines l WHERE l.transfer_id = t.transfer_id)"
    };
}

/// Refunds after settlement take from the payee; they count once the channel's word on them is booked.
macro_rules! refunds {
    () => {
        "FROM transfer_decisions d JOIN transfers t ON t.transfer_id = d.transfer_id
        JOIN orders o ON o.order_id = t.order_id
        WHERE t.debit_account = $1 AND d.verdict = 'posted' AND d.decided_at >= $2 AND d.decided_at < $3
        AND NOT EXISTS (SELECT 1 FROM settlement_lines l WHERE l.transfer_id = d.transfer_id)"
    };
}

/// What a line keeps of its order, for ever.
macro_rules! gather {
    ($what:literal, $at:literal, $from:expr) => {
        concat!(
            "INSERT INTO settlement_lines (transfer_id, settlement_id, what, order_id, happened_at, amount_minor, channel,
            merchant, channel_transaction, proof_serial, payment_code) SELECT t.transfer_id, $4, '",
            $what,
            "', t.order_id, ",
            $at,
            ", t.amount_minor, o.channel, o.merchant, o.channel_transaction, o.proof_serial,
            COALESCE(o.payment_code, '') ",
            $from,
            " ORDER BY ",
            $at,
            ", t.transfer_id LIMIT $5"
        )
    };
}

const GATHER_POSTINGS: &str = gather!("posting", "t.booked_at", postings!());
const GATHER_REFUNDS: &str = gather!("refund", "d.decided_at", refunds!());
const FIRST_POSTING: &str = concat!("SELECT t.transfer_id ", postings!(), " LIMIT 1");
const FIRST_REFUND: &str = concat!("SELECT t.transfer_id ", refunds!(), " LIMIT 1");

const REACHED: &str = "SELECT MAX(happened_at) AS reached FROM settlement_lines WHERE settlement_id = $1 AND what = $2";

const TOTALS: &str = "SELECT COUNT(*) AS number,
    CAST(COALESCE(SUM(CASE WHEN what = 'posting' THEN amount_minor ELSE 0 END), 0) AS BIGINT) AS gross,
    CAST(COALESCE(SUM(CASE WHEN what = 'refund' THEN amount_minor ELSE 0 END), 0) AS BIGINT) AS refunds
    FROM settlement_lines WHERE settlement_id = $1";

const LINES: &str = "SELECT * FROM settlement_lines WHERE settlement_id = $1 AND (happened_at, transfer_id) > ($2, $3)
    ORDER BY happened_at, transfer_id LIMIT $4";

/// Lines that do not tell what the ledger has: another transfer, amount or account, or one that does not count.
const FALSE_LINES: &str = "SELECT COUNT(*) AS number FROM settlement_lines l
    LEFT JOIN transfers t ON t.transfer_id = l.transfer_id
    LEFT JOIN transfer_decisions d ON d.transfer_id = l.transfer_id
    WHERE l.settlement_id = $1 AND NOT COALESCE(t.amount_minor = l.amount_minor AND t.order_id = l.order_id AND (
        (l.what = 'posting' AND t.credit_account = $2 AND t.booked_at = l.happened_at)
        OR (l.what = 'refund' AND t.debit_account = $2 AND d.verdict = 'posted' AND d.decided_at = l.happened_at)), false)";

/// Where the next page of lines begins: behind this (happened, transfer).
pub(crate) type After = (Timestamp, String);

/// Which settlements are wanted; empty words take all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) payee: String,
    pub(crate) state: String,
}

/// Notes that a payee's cut is made; false when it was, here or by another replica.
pub(crate) async fn mark(tx: &mut Tx, payee: &str, cut_at: Timestamp) -> Result<bool, store::Error> {
    Ok(tx.execute(MARK, params![payee, cut_at]).await? == 1)
}

/// Whether a payee's cut is made.
pub(crate) async fn is_marked(reader: &mut impl Read, payee: &str, cut_at: Timestamp) -> Result<bool, store::Error> {
    Ok(reader.fetch_opt(IS_MARKED, params![payee, cut_at]).await?.is_some())
}

/// Keeps a new settlement; false when another one has its place.
pub(crate) async fn insert(tx: &mut Tx, new: &Settlement) -> Result<bool, store::Error> {
    let values = params![
        new.id.to_string(),
        new.payee,
        new.number,
        new.day.to_string(),
        new.seq,
        new.currency.as_str(),
        new.from,
        new.cut_at,
        new.carried,
        new.carried_from.map(|id| id.to_string()),
    ];
    Ok(tx.execute(INSERT, values).await? == 1)
}

/// Keeps a changed settlement, if it stands as it did; false otherwise.
pub(crate) async fn update(tx: &mut Tx, from: State, next: &Settlement) -> Result<bool, store::Error> {
    let values = params![
        next.id.to_string(),
        from.to_string(),
        next.state.to_string(),
        next.totals.count,
        next.totals.gross,
        next.totals.refunds,
        next.sha256,
        next.signature,
        next.key,
        next.reference,
        next.first_by,
        next.second_by,
        next.paid_over_at,
    ];
    Ok(tx.execute(UPDATE, values).await? == 1)
}

/// Finds a settlement.
pub(crate) async fn get(reader: &mut impl Read, id: SettlementId) -> Result<Option<Settlement>, store::Error> {
    reader.fetch_opt(GET, params![id.to_string()]).await?.as_ref().map(read).transpose()
}

/// Finds a settlement, to be changed: nobody else changes it until the transaction ends.
pub(crate) async fn lock(tx: &mut Tx, id: SettlementId) -> Result<Option<Settlement>, store::Error> {
    // Takes the row in every engine; nothing is changed.
    tx.execute(LOCK, params![id.to_string()]).await?;
    get(tx, id).await
}

/// Finds the newest settlement of a payee.
pub(crate) async fn last(reader: &mut impl Read, payee: &str) -> Result<Option<Settlement>, store::Error> {
    reader.fetch_opt(LAST, params![payee]).await?.as_ref().map(read).transpose()
}

/// How many settlements a payee has of a day.
pub(crate) async fn of_day(reader: &mut impl Read, payee: &str, day: &str) -> Result<i64, store::Error> {
    reader.fetch_opt(OF_DAY, params![payee, day]).await?.map_or(Ok(0), |row| row.get("number"))
}

/// Reads at most `max` settlements older than (cut, id), newest first.
pub(crate) async fn page(
    reader: &mut impl Read,
    filter: &Filter,
    before: &(Timestamp, String),
    max: u32,
) -> Result<Vec<Settlement>, store::Error> {
    let values = params![before.0, before.1, filter.payee, filter.state, max];
    reader.fetch_all(PAGE, values).await?.iter().map(read).collect()
}

/// Reads at most `max` settlements behind (payee, number), in that order.
pub(crate) async fn after(
    reader: &mut impl Read,
    after: (&str, i64),
    max: u32,
) -> Result<Vec<Settlement>, store::Error> {
    reader.fetch_all(AFTER, params![after.0, after.1, max]).await?.iter().map(read).collect()
}

/// How many lines there are.
pub(crate) async fn count_lines(reader: &mut impl Read) -> Result<i64, store::Error> {
    reader.fetch_opt(COUNT_LINES, params![]).await?.map_or(Ok(0), |row| row.get("number"))
}

/// Whether anything of a payee from `from` on and before `until` is in no settlement.
pub(crate) async fn is_anything_open(
    reader: &mut impl Read,
    payee: &str,
    from: Timestamp,
    until: Timestamp,
) -> Result<bool, store::Error> {
    let account = Account::Payee(payee.to_owned()).to_string();
    for sql in [FIRST_POSTING, FIRST_REFUND] {
        if reader.fetch_opt(sql, params![account, from, until]).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gathers at most `max` further lines of a settlement that is being cut; how many there were.
pub(crate) async fn gather(tx: &mut Tx, one: &Settlement, max: u32) -> Result<u64, store::Error> {
    let (id, account) = (one.id.to_string(), Account::Payee(one.payee.clone()).to_string());
    for (what, sql) in [(What::Posting, GATHER_POSTINGS), (What::Refund, GATHER_REFUNDS)] {
        let row = tx.fetch_opt(REACHED, params![id, what.as_str()]).await?;
        let reached: Option<Timestamp> = row.map_or(Ok(None), |row| row.get("reached"))?;
        let from = reached.unwrap_or(one.from);
        let found = tx.execute(sql, params![account, from, one.cut_at, id, max]).await?;
        if found > 0 {
            return Ok(found);
        }
    }
    Ok(0)
}

/// Sums up the lines of a settlement.
pub(crate) async fn totals(reader: &mut impl Read, id: SettlementId) -> Result<Totals, store::Error> {
    let row = reader.fetch_opt(TOTALS, params![id.to_string()]).await?;
    row.map_or(Ok(Totals::default()), |row| {
        Ok(Totals { count: row.get("number")?, gross: row.get("gross")?, refunds: row.get("refunds")? })
    })
}

/// Reads at most `max` lines behind `after`.
pub(crate) async fn lines(
    reader: &mut impl Read,
    id: SettlementId,
    after: &After,
    max: u32,
) -> Result<Vec<Line>, store::Error> {
    let values = params![id.to_string(), after.0, after.1, max];
    reader.fetch_all(LINES, values).await?.iter().map(line).collect()
}

/// Counts the lines of a settlement that do not tell what the ledger has.
pub(crate) async fn false_lines(reader: &mut impl Read, one: &Settlement) -> Result<i64, store::Error> {
    let values = params![one.id.to_string(), Account::Payee(one.payee.clone()).to_string()];
    reader.fetch_opt(FALSE_LINES, values).await?.map_or(Ok(0), |row| row.get("number"))
}

fn read(row: &Row) -> Result<Settlement, store::Error> {
    let currency: Currency = word(row, "currency")?;
    let carried_from: Option<String> = row.get("carried_from")?;
    let carried_from = carried_from.map(|text| text.parse().map_err(|_| unreadable("carried_from"))).transpose()?;
    Ok(Settlement {
        id: word(row, "settlement_id")?,
        payee: row.get("payee_id")?,
        number: row.get("number")?,
        day: row.get::<String>("day")?.parse().map_err(|_| unreadable("day"))?,
        seq: row.get("seq")?,
        currency,
        from: row.get("from_at")?,
        cut_at: row.get("cut_at")?,
        state: word(row, "state")?,
        totals: Totals {
            count: row.get("line_count")?,
            gross: row.get("gross_minor")?,
            refunds: row.get("refunds_minor")?,
        },
        carried: row.get("carried_minor")?,
        carried_from,
        sha256: row.get("sha256")?,
        signature: row.get("signature")?,
        key: row.get("key")?,
        reference: row.get("reference")?,
        first_by: row.get("first_by")?,
        second_by: row.get("second_by")?,
        paid_over_at: row.get("paid_over_at")?,
    })
}

fn line(row: &Row) -> Result<Line, store::Error> {
    Ok(Line {
        transfer: TransferId::stored(row.get("transfer_id")?),
        what: word(row, "what")?,
        order: word(row, "order_id")?,
        at: row.get("happened_at")?,
        amount: row.get("amount_minor")?,
        channel: row.get("channel")?,
        merchant: row.get("merchant")?,
        transaction: row.get("channel_transaction")?,
        proof_serial: row.get("proof_serial")?,
        payment_code: row.get("payment_code")?,
    })
}
