//! What was answered under a request id, kept for ever and committed with its effect.

use runtime::Timestamp;
use store::{Read, Tx, params};

use crate::error::Error;

const FIND: &str = "SELECT digest, answer FROM answers WHERE scope = $1 AND method = $2 AND request_id = $3";
const KEEP: &str = "INSERT INTO answers (scope, method, request_id, digest, answer, answered_at)
    VALUES ($1, $2, $3, $4, $5, $6)";

/// Finds the answer that was given to a request.
///
/// Errors: `RequestIdReused` when the id was used with another request.
pub(crate) async fn answered(
    reader: &mut impl Read,
    scope: &str,
    method: &'static str,
    request_id: &str,
    digest: &[u8; 32],
) -> Result<Option<Vec<u8>>, Error> {
    let Some(row) = reader.fetch_opt(FIND, params![scope, method, request_id]).await? else { return Ok(None) };
    if row.get::<Vec<u8>>("digest")? != digest {
        return Err(Error::RequestIdReused);
    }
    Ok(Some(row.get("answer")?))
}

/// Keeps the answer of a request, in the transaction of its effect.
///
/// Errors: a store `Conflict` on `answers_pkey` when another call under the id was first.
pub(crate) async fn keep_answer(
    tx: &mut Tx,
    scope: &str,
    method: &'static str,
    request_id: &str,
    digest: &[u8; 32],
    answer: &[u8],
    now: Timestamp,
) -> Result<(), Error> {
    tx.execute(KEEP, params![scope, method, request_id, *digest, answer, now]).await?;
    Ok(())
}
