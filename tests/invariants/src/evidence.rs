use runtime::Timestamp;
use store::{Db, Row, params};

use super::calls::{Call, Deed, Effect};
use super::journals::Journals;
use super::leaks::{Leaks, Searched};

const PAGE: u32 = 1_000;
/// The payments stream of the outbox.
const STREAM: &str = "payments";

/// Where the evidence is, and what the test saw itself.
pub struct World {
    /// By which time deadlines are judged.
    pub now: Timestamp,
    /// Payments' database; none where the test runs without payments, and what it would tell is not judged.
    pub payments: Option<Db>,
    /// Cases' database; the same.
    pub cases: Option<Db>,
    /// How many events payments told, where the test plays payments itself.
    pub told: Option<i64>,
    /// What channel and departments wrote down.
    pub journals: Option<Journals>,
    /// What the test's own peer did, where it has one.
    pub effects: Option<Vec<Effect>>,
    /// What clients asked and were answered: every call of theirs, not some.
    pub calls: Option<Vec<Call>>,
    /// Attempts to reach what belongs to somebody else.
    pub probes: Option<Vec<Probe>>,
    /// What must stay small.
    pub bounds: Option<Vec<Bound>>,
    /// Where personal data must not be.
    pub leaks: Option<Leaks>,
}

/// An attempt to reach what belongs to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who tried what.
    pub what: String,
    /// Whether it yielded anything.
    pub leaked: bool,
}

/// Something that must stay small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What, with its unit.
    pub what: String,
    /// The most that was seen.
    pub seen: u64,
    /// The most that is allowed.
    pub most: u64,
}

/// An order as the ledger has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderFact {
    /// Its id.
    pub order_id: String,
    /// Who created it.
    pub caller: String,
    /// The request id that created it.
    pub request_id: String,
    /// Its case.
    pub case_id: String,
    /// What the channel knows it by.
    pub channel_order_no: String,
    /// Where it stands.
    pub state: String,
    /// The money came after it was closed.
    pub is_late: bool,
    /// What the channel took, minor units.
    pub captured_minor: i64,
    /// What went back, minor units.
    pub refunded_minor: i64,
    /// What the payee has, minor units.
    pub posted_minor: i64,
    /// What of the captured came from medical insurance and never was at the channel, minor units.
    pub insured_minor: i64,
    /// The same of what went back, minor units.
    pub insured_refunded_minor: i64,
}

/// A refund as the ledger has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefundFact {
    /// Its id.
    pub refund_id: String,
    /// Whose money it returns.
    pub order_id: String,
    /// Who asked for it.
    pub caller: String,
    /// The request id that asked for it.
    pub request_id: String,
    /// Where it stands.
    pub state: String,
    /// How much, minor units.
    pub amount_minor: i64,
}

/// Everything that is compared.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The ledger's own recount.
    pub ledger: payments::audit::Report,
    /// The orders.
    pub orders: Vec<OrderFact>,
    /// The refunds.
    pub refunds: Vec<RefundFact>,
    /// The newest event that payments told, where anybody knows.
    pub events: Option<i64>,
    /// The cases' own recount.
    pub cases: cases::audit::Report,
    /// There is no payments, and so nothing of it to judge.
    pub without_payments: bool,
    /// There is no cases, and so nothing of it to judge.
    pub without_cases: bool,
    /// See [`World`].
    pub journals: Option<Journals>,
    /// See [`World`].
    pub effects: Option<Vec<Effect>>,
    /// See [`World`].
    pub calls: Option<Vec<Call>>,
    /// See [`World`].
    pub probes: Option<Vec<Probe>>,
    /// See [`World`].
    pub bounds: Option<Vec<Bound>>,
    /// Where canaries were found, and where was looked; None when nobody said where to look.
    pub leaks: Option<Searched>,
}

impl World {
    /// A world of which nothing is known but the time.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            payments: None,
            cases: None,
            told: None,
            journals: None,
            effects: None,
            calls: None,
            probes: None,
            bounds: None,
            leaks: None,
        }
    }

    /// Whether there are books in which a deed stands.
    fn has_books_of(&self, deed: Deed) -> bool {
        match deed {
            Deed::Case => self.cases.is_some(),
            Deed::Order | Deed::Refund => self.payments.is_some(),
            Deed::Settlement => self.journals.is_some(),
            Deed::Own => self.effects.is_some(),
        }
    }
}

impl Evidence {
    /// Reads everything.
    pub(crate) async fn gather(world: &World) -> anyhow::Result<Self> {
        for call in world.calls.iter().flatten() {
            anyhow::ensure!(world.has_books_of(call.deed), "no books tell of {:?} {}", call.deed, call.request_id);
        }
        let leaks = match &world.leaks {
            Some(leaks) => Some(leaks.search()?),
            None => None,
        };
        let mut evidence = Self {
            without_payments: world.payments.is_none(),
            without_cases: world.cases.is_none(),
            events: world.told,
            ..Self::default()
        };
        if let Some(payments) = &world.payments {
            evidence.ledger = payments::audit::check(payments).await?;
            evidence.orders = orders(payments).await?;
            evidence.refunds = refunds(payments).await?;
            evidence.events = Some(store::outbox::head(&mut payments.read().await?, STREAM).await?);
        }
        if let Some(cases) = &world.cases {
            evidence.cases = cases::audit::check(cases, world.now).await?;
        }
        Ok(Self {
            journals: world.journals.clone(),
            effects: world.effects.clone(),
            calls: world.calls.clone(),
            probes: world.probes.clone(),
            bounds: world.bounds.clone(),
            leaks,
            ..evidence
        })
    }
}

async fn orders(db: &Db) -> anyhow::Result<Vec<OrderFact>> {
    const SQL: &str = "SELECT order_id, caller, request_id, case_id, channel_order_no, state, is_late, captured_minor,
        refunded_minor, posted_minor,
        CASE WHEN captured_minor > 0 THEN captured_minor - COALESCE(cash_minor, captured_minor) ELSE 0 END AS insured_minor,
        CAST(COALESCE((SELECT SUM(r.amount_minor - r.cash_minor) FROM refunds r
            WHERE r.order_id = orders.order_id AND r.state = 'succeeded'), 0) AS BIGINT) AS insured_refunded_minor
        FROM orders WHERE order_id > $1 ORDER BY order_id LIMIT $2";
    let order = |row: &Row| {
        Ok(OrderFact {
            order_id: row.get("order_id")?,
            caller: row.get("caller")?,
            request_id: row.get("request_id")?,
            case_id: row.get("case_id")?,
            channel_order_no: row.get("channel_order_no")?,
            state: row.get("state")?,
            is_late: row.get("is_late")?,
            captured_minor: row.get("captured_minor")?,
            refunded_minor: row.get("refunded_minor")?,
            posted_minor: row.get("posted_minor")?,
            insured_minor: row.get("insured_minor")?,
            insured_refunded_minor: row.get("insured_refunded_minor")?,
        })
    };
    all(db, SQL, order, |order| &order.order_id).await
}

async fn refunds(db: &Db) -> anyhow::Result<Vec<RefundFact>> {
    const SQL: &str = "SELECT refund_id, order_id, caller, request_id, state, amount_minor FROM refunds
        WHERE refund_id > $1 ORDER BY refund_id LIMIT $2";
    let refund = |row: &Row| {
        Ok(RefundFact {
            refund_id: row.get("refund_id")?,
            order_id: row.get("order_id")?,
            caller: row.get("caller")?,
            request_id: row.get("request_id")?,
            state: row.get("state")?,
            amount_minor: row.get("amount_minor")?,
        })
    };
    all(db, SQL, refund, |refund| &refund.refund_id).await
}

/// Every row of a query that pages by `id`.
async fn all<T>(
    db: &Db,
    sql: &'static str,
    read: impl Fn(&Row) -> Result<T, store::Error>,
    id: impl Fn(&T) -> &String,
) -> anyhow::Result<Vec<T>> {
    let mut reader = db.read().await?;
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let rows = reader.fetch_all(sql, params![after, PAGE]).await?;
        for row in &rows {
            found.push(read(row)?);
        }
        match found.last() {
            Some(last) if !rows.is_empty() => after.clone_from(id(last)),
            _ => return Ok(found),
        }
    }
}
