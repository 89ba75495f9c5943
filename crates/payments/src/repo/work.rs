//! Open work: orders and refunds that a channel has to be asked about.

use runtime::Timestamp;
use store::lease::{Lease, Spec};
use store::{Read, Tx, params};

/// The leased table.
pub(crate) const SPEC: Spec = Spec { table: "work", key: "subject" };

const INSERT: &str = "INSERT INTO work (subject, due_at, lease_owner, lease_until, fence) VALUES ($1, $2, $3, $4, $5)";
const DONE: &str = "DELETE FROM work WHERE subject = $1";
const WAKE: &str = "UPDATE work SET due_at = $2 WHERE subject = $1 AND due_at > $2";
const FOLLOW: &str =
    "UPDATE work SET due_at = $2, attempts = 0, lease_owner = NULL, lease_until = 0 WHERE subject = $1";
const LOOKED: &str = "UPDATE work SET attempts = attempts + 1 WHERE subject = $1 AND fence = $2 RETURNING attempts";
const IS_DUE: &str = "SELECT subject FROM work WHERE due_at <= $1 AND lease_until <= $1 LIMIT 1";

/// Notes work that is due.
pub(crate) async fn insert(tx: &mut Tx, subject: &str, due_at: Timestamp) -> Result<(), store::Error> {
    tx.execute(INSERT, params![subject, due_at, None::<&str>, 0_i64, 0_i64]).await.map(|_| ())
}

/// Notes work that its maker has in hand from the start.
pub(crate) async fn insert_held(tx: &mut Tx, lease: &Lease) -> Result<(), store::Error> {
    tx.execute(INSERT, params![lease.key, lease.due_at, lease.owner, lease.until, lease.fence]).await.map(|_| ())
}

/// Takes work that is done off the list, whoever holds it.
pub(crate) async fn done(tx: &mut Tx, subject: &str) -> Result<(), store::Error> {
    tx.execute(DONE, params![subject]).await.map(|_| ())
}

/// Makes work due now, if it is open.
pub(crate) async fn wake(tx: &mut Tx, subject: &str, now: Timestamp) -> Result<(), store::Error> {
    tx.execute(WAKE, params![subject, now]).await.map(|_| ())
}

/// Begins to follow what has come into another state: due then, held by nobody, with no look taken yet.
///
/// Whoever held it loses it; that the state could be changed proves that this is the newest word.
pub(crate) async fn follow(tx: &mut Tx, subject: &str, due_at: Timestamp) -> Result<(), store::Error> {
    tx.execute(FOLLOW, params![subject, due_at]).await.map(|_| ())
}

/// Counts a look; returns how many there were, None when the lease is lost or the work is done.
pub(crate) async fn looked(tx: &mut Tx, lease: &Lease) -> Result<Option<i64>, store::Error> {
    let row = tx.fetch_opt(LOOKED, params![lease.key, lease.fence]).await?;
    row.map(|row| row.get("attempts")).transpose()
}

/// Whether anything is due that nobody holds.
pub(crate) async fn is_due(reader: &mut impl Read, now: Timestamp) -> Result<bool, store::Error> {
    Ok(reader.fetch_opt(IS_DUE, params![now]).await?.is_some())
}
