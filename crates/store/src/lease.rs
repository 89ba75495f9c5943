//! Work that is due, claimed by one worker at a time.
//!
//! A row is a piece of work; when its next step is due is a column of it. A worker claims due rows for a while: it becomes the
//! owner, and the row's fence grows by one. A worker that was slow, paused or cut off may wake up after its lease has run out and
//! another has taken over: its clock cannot tell it, but its fence is old, so every write that it makes names the fence and finds
//! no row. Time only decides when a row may be taken over; the fence decides who may write.
//!
//! The table has, beside its own columns: `due_at BIGINT` (µs; NULL = nothing to do), `lease_owner TEXT`,
//! `lease_until BIGINT NOT NULL DEFAULT 0` (µs) and `fence BIGINT NOT NULL DEFAULT 0`, and an index on `(due_at)`.

use std::sync::Arc;
use std::time::Duration;

use runtime::Timestamp;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::config::is_identifier;
use crate::tx::Tx;
use crate::{Db, Error, params};

/// How many rows one claim takes at most.
pub const CLAIM_MAX: u32 = 256;

/// Which table holds the work. A `const` of the service, so that no name in the statements comes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The table.
    pub table: &'static str,
    /// Its key column, TEXT and unique.
    pub key: &'static str,
}

/// The lease statements of one table, built once.
#[derive(Clone, Debug)]
pub struct Leases {
    claim_due: Arc<str>,
    claim_one: Arc<str>,
    renew: Arc<str>,
    hold: Arc<str>,
    release: Arc<str>,
}

/// A claimed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The row's key.
    pub key: String,
    /// Who claimed it.
    pub owner: String,
    /// The number that every write of this worker names.
    pub fence: i64,
    /// When it was due.
    pub due_at: Option<Timestamp>,
    /// Until when no other worker takes it.
    pub until: Timestamp,
}

impl Leases {
    /// Builds the statements for `spec`, in the dialect of `db`.
    ///
    /// Errors: [`Error::Open`] when a name is no plain identifier.
    pub fn new(db: &Db, spec: &'static Spec) -> Result<Self, Error> {
        let Spec { table, key } = *spec;
        if !is_identifier(table) || !is_identifier(key) {
            return Err(Error::open(format!("{table}.{key} cannot be leased: not plain identifiers"), None));
        }
        let skip = db.core().engine.skip_locked();
        let claim = |pick: &str| {
            // The rows are picked and locked once, before the update looks at them: in a plain sub-query PostgreSQL may run the
            // pick again for every row, and so take more than the limit.
            format!(
                "WITH picked AS MATERIALIZED (SELECT {key} AS picked_key FROM {table} WHERE {pick} {skip})
                 UPDATE {table} SET lease_owner = $1, lease_until = $2, fence = fence + 1
                 FROM picked WHERE {table}.{key} = picked.picked_key
                 RETURNING {table}.{key} AS lease_key, {table}.fence AS fence, {table}.due_at AS due_at"
            )
        };
        let ours = "fence = $2 AND lease_owner = $3";
        Ok(Self {
            claim_due: claim(&format!("due_at <= $3 AND lease_until <= $3 ORDER BY due_at, {key} LIMIT $4")).into(),
            claim_one: claim(&format!("{key} = $4 AND lease_until <= $3")).into(),
            renew: format!("UPDATE {table} SET lease_until = $4 WHERE {key} = $1 AND {ours}").into(),
            hold: format!("UPDATE {table} SET fence = fence WHERE {key} = $1 AND {ours}").into(),
            release: format!(
                "UPDATE {table} SET due_at = $4, lease_owner = NULL, lease_until = 0 WHERE {key} = $1 AND {ours}"
            )
            .into(),
        })
    }

    /// Claims at most `max` (and at most [`CLAIM_MAX`]) rows that are due at `now` and that nobody holds, the longest due first.
    pub async fn claim_due(
        &self,
        tx: &mut Tx,
        owner: &str,
        now: Timestamp,
        ttl: Duration,
        max: u32,
    ) -> Result<Vec<Lease>, Error> {
        let until = now.plus(ttl);
        let rows = tx.rows(text(&self.claim_due), params![owner, until, now, max.min(CLAIM_MAX)]).await?;
        let mut leases = rows.iter().map(|row| lease(row, owner, until)).collect::<Result<Vec<_>, _>>()?;
        // RETURNING promises no order.
        leases.sort_by(|one, other| (one.due_at, &one.key).cmp(&(other.due_at, &other.key)));
        Ok(leases)
    }

    /// Claims the row `key`, due or not; None when there is no such row or another worker holds it.
    pub async fn claim_one(
        &self,
        tx: &mut Tx,
        key: &str,
        owner: &str,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Lease>, Error> {
        let until = now.plus(ttl);
        let rows = tx.rows(text(&self.claim_one), params![owner, until, now, key]).await?;
        rows.first().map(|row| lease(row, owner, until)).transpose()
    }

    /// Lengthens a lease to `now + ttl`.
    ///
    /// Errors: [`Error::LeaseLost`] when another worker has claimed the row since.
    pub async fn renew(&self, tx: &mut Tx, lease: &mut Lease, now: Timestamp, ttl: Duration) -> Result<(), Error> {
        let until = now.plus(ttl);
        held(tx.count(text(&self.renew), params![lease.key, lease.fence, lease.owner, until]).await?)?;
        lease.until = until;
        Ok(())
    }

    /// Proves inside a transaction that the lease is held, and keeps the row locked until the transaction ends.
    ///
    /// For work that writes to other tables; a write to the row itself names `fence` in its WHERE instead.
    /// Errors: [`Error::LeaseLost`].
    pub async fn hold(&self, tx: &mut Tx, lease: &Lease) -> Result<(), Error> {
        held(tx.count(text(&self.hold), params![lease.key, lease.fence, lease.owner]).await?)
    }

    /// Gives the row back and says when its next step is due; None when there is none.
    ///
    /// Errors: [`Error::LeaseLost`].
    pub async fn release(&self, tx: &mut Tx, lease: &Lease, due_at: Option<Timestamp>) -> Result<(), Error> {
        held(tx.count(text(&self.release), params![lease.key, lease.fence, lease.owner, due_at]).await?)
    }
}

fn text(sql: &Arc<str>) -> SqlStr {
    AssertSqlSafe(Arc::clone(sql)).into_sql_str()
}

fn held(rows: u64) -> Result<(), Error> {
    if rows == 1 { Ok(()) } else { Err(Error::LeaseLost) }
}

fn lease(row: &crate::Row, owner: &str, until: Timestamp) -> Result<Lease, Error> {
    Ok(Lease {
        key: row.get("lease_key")?,
        owner: owner.to_owned(),
        fence: row.get("fence")?,
        due_at: row.get("due_at")?,
        until,
    })
}
