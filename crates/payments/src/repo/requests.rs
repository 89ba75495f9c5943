//! Idempotency: what was asked under a key, and what was answered.

use runtime::Timestamp;
use store::{Read, Row, Tx, params};

const INSERT: &str = "INSERT INTO requests (caller, method, request_id, digest, subject, answer, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (request_id, method, caller) DO NOTHING";

const GET: &str = "SELECT digest, subject, answer FROM requests WHERE request_id = $1 AND method = $2 AND caller = $3";

/// The first answer stays.
const ANSWER: &str =
    "UPDATE requests SET answer = $4 WHERE request_id = $1 AND method = $2 AND caller = $3 AND answer IS NULL";

/// A mutating method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    CreateOrder,
    CloseOrder,
    PostOrder,
    Refund,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Self::CreateOrder => "CreateOrder",
            Self::CloseOrder => "CloseOrder",
            Self::PostOrder => "PostOrder",
            Self::Refund => "Refund",
        }
    }
}

/// The key of a request, and what it asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Who asks.
    pub(crate) caller: String,
    /// What for.
    pub(crate) method: Method,
    /// Under which key.
    pub(crate) request_id: String,
    /// SHA-256 of the whole request.
    pub(crate) digest: [u8; 32],
}

/// A request that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The order or refund that it is about.
    pub(crate) subject: String,
    /// The encoded answer; None while it is worked on.
    pub(crate) answer: Option<Vec<u8>>,
    digest: Vec<u8>,
}

impl Known {
    /// Whether it is the same request.
    pub(crate) fn is_same(&self, key: &Key) -> bool {
        self.digest == key.digest
    }
}

/// Claims a key; false when it is known already.
pub(crate) async fn claim(
    tx: &mut Tx,
    key: &Key,
    subject: &str,
    answer: Option<&[u8]>,
    now: Timestamp,
) -> Result<bool, store::Error> {
    let values = params![key.caller, key.method.as_str(), key.request_id, key.digest, subject, answer, now];
    Ok(tx.execute(INSERT, values).await? == 1)
}

/// Finds what is known under a key.
pub(crate) async fn get(
    reader: &mut impl Read,
    caller: &str,
    method: Method,
    request_id: &str,
) -> Result<Option<Known>, store::Error> {
    let row = reader.fetch_opt(GET, params![request_id, method.as_str(), caller]).await?;
    let read =
        |row: &Row| Ok(Known { subject: row.get("subject")?, answer: row.get("answer")?, digest: row.get("digest")? });
    row.as_ref().map(read).transpose()
}

/// Keeps the answer, unless there is one already.
pub(crate) async fn answer(
    tx: &mut Tx,
    caller: &str,
    method: Method,
    request_id: &str,
    answer: &[u8],
) -> Result<(), store::Error> {
    tx.execute(ANSWER, params![request_id, method.as_str(), caller, answer]).await.map(|_| ())
}
