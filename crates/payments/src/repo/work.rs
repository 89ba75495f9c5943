//! Open work: orders and refunds that a channel has to be asked about, and days that are to be reconciled.

use std::collections::{BTreeMap, BTreeSet};

use runtime::Timestamp;
use store::lease::{Lease, Spec};
use store::{Kind, Many, Read, Tx, params};

/// The leased table.
pub(crate) const SPEC: Spec = Spec { table: "work", key: "subject" };

static INSERT_ALL: Many = Many::new(
    &[
        ("subject", Kind::Text),
        ("due_at", Kind::Int),
        ("lease_owner", Kind::Text),
        ("lease_until", Kind::Int),
        ("fence", Kind::Int),
    ],
    "INSERT INTO work (subject, due_at, lease_owner, lease_until, fence)
    SELECT subject, due_at, lease_owner, lease_until, fence FROM {rows}",
);
const DUE: &str = "INSERT INTO work (subject, due_at) VALUES ($1, $2)
    ON CONFLICT (subject) DO UPDATE SET due_at = excluded.due_at";
/// Of what somebody holds it changes when it was due, which tells the holder.
const WAKE: &str = "UPDATE work SET due_at = $2 WHERE subject = $1 AND (due_at > $2 OR lease_until > $2)";
const DONE: &str = "DELETE FROM work WHERE subject = $1 AND fence = $2 AND due_at = $3";
static DONE_ALL: Many =
    Many::new(&[("subject", Kind::Text)], "DELETE FROM work WHERE subject IN (SELECT subject FROM {rows})");
static FOLLOW_ALL: Many = Many::new(
    &[("subject", Kind::Text), ("due_at", Kind::Int)],
    "UPDATE work SET due_at = r.due_at, attempts = 0, lease_owner = NULL, lease_until = 0 FROM {rows}
    WHERE work.subject = r.subject",
);
const LOOKED: &str =
    "UPDATE work SET attempts = attempts + 1 WHERE subject = $1 AND fence = $2 RETURNING attempts, due_at";
const IS_DUE: &str = "SELECT subject FROM work WHERE due_at <= $1 AND lease_until <= $1 LIMIT 1";

/// New work.
pub(crate) struct New {
    subject: String,
    due_at: Option<Timestamp>,
    owner: Option<String>,
    until: Timestamp,
    fence: i64,
}

impl New {
    /// Work that its maker has in hand from the start.
    pub(crate) fn held(lease: &Lease) -> Self {
        let Lease { key, owner, fence, due_at, until } = lease.clone();
        Self { subject: key, due_at, owner: Some(owner), until, fence }
    }

    /// Work that is due then, for whoever takes it.
    pub(crate) fn due(subject: String, due_at: Timestamp) -> Self {
        Self { subject, due_at: Some(due_at), owner: None, until: Timestamp::default(), fence: 0 }
    }
}

/// Notes work that is due, or makes it due if it is there.
pub(crate) async fn due(tx: &mut Tx, subject: &str, due_at: Timestamp) -> Result<(), store::Error> {
    tx.execute(DUE, params![subject, due_at]).await.map(|_| ())
}

/// Notes new work.
pub(crate) async fn insert_all(tx: &mut Tx, new: &[New]) -> Result<(), store::Error> {
    let row = |new: &New| params![new.subject, new.due_at, new.owner, new.until, new.fence].to_vec();
    tx.execute_many(&INSERT_ALL, &new.iter().map(row).collect::<Vec<_>>()).await.map(|_| ())
}

/// Makes work due now, if it is open.
pub(crate) async fn wake(tx: &mut Tx, subject: &str, now: Timestamp) -> Result<(), store::Error> {
    tx.execute(WAKE, params![subject, now]).await.map(|_| ())
}

/// Takes work that is done off the list, whoever holds it.
pub(crate) async fn done_all(tx: &mut Tx, subjects: &BTreeSet<String>) -> Result<(), store::Error> {
    let rows: Vec<_> = subjects.iter().map(|subject| params![subject].to_vec()).collect();
    tx.execute_many(&DONE_ALL, &rows).await.map(|_| ())
}

/// Takes a holder's work off the list, unless it was made due anew since it was claimed; then false.
pub(crate) async fn done(tx: &mut Tx, lease: &Lease) -> Result<bool, store::Error> {
    Ok(tx.execute(DONE, params![lease.key, lease.fence, lease.due_at]).await? == 1)
}

/// Begins to follow what has come into another state: due then, held by nobody, with no look taken yet.
///
/// Whoever held it loses it; that the state could be changed proves that this is the newest word.
pub(crate) async fn follow_all(tx: &mut Tx, due: &BTreeMap<String, Timestamp>) -> Result<(), store::Error> {
    let rows: Vec<_> = due.iter().map(|(subject, due_at)| params![subject, due_at].to_vec()).collect();
    tx.execute_many(&FOLLOW_ALL, &rows).await.map(|_| ())
}

/// Counts a look; returns how many there were, and since when it is due anew if it was woken meanwhile. None when the lease is lost or the
/// work is done.
pub(crate) async fn looked(tx: &mut Tx, lease: &Lease) -> Result<Option<(i64, Option<Timestamp>)>, store::Error> {
    let Some(row) = tx.fetch_opt(LOOKED, params![lease.key, lease.fence]).await? else { return Ok(None) };
    let due_at: Option<Timestamp> = row.get("due_at")?;
    Ok(Some((row.get("attempts")?, due_at.filter(|_| due_at != lease.due_at))))
}

/// Whether anything is due that nobody holds.
pub(crate) async fn is_due(reader: &mut impl Read, now: Timestamp) -> Result<bool, store::Error> {
    Ok(reader.fetch_opt(IS_DUE, params![now]).await?.is_some())
}
