//! Idempotency: what was asked under a key, and what was answered.

use std::collections::BTreeMap;

use runtime::Timestamp;
use store::{Kind, Many, Read, Row, Tx, params};

const GET: &str = "SELECT digest, subject, answer FROM requests WHERE request_id = $1 AND method = $2 AND caller = $3";

/// The first answer stays.
const ANSWER: &str =
    "UPDATE requests SET answer = $4 WHERE request_id = $1 AND method = $2 AND caller = $3 AND answer IS NULL";

const KEY: &[(&str, Kind)] = &[("caller", Kind::Text), ("method", Kind::Text), ("request_id", Kind::Text)];
static GET_ALL: Many = Many::new(
    KEY,
    "SELECT requests.* FROM requests JOIN {rows} ON requests.request_id = r.request_id AND requests.method = r.method
    AND requests.caller = r.caller",
);
static INSERT_ALL: Many = Many::new(
    &[
        ("caller", Kind::Text),
        ("method", Kind::Text),
        ("request_id", Kind::Text),
        ("digest", Kind::Bytes),
        ("subject", Kind::Text),
        ("answer", Kind::Bytes),
        ("created_at", Kind::Int),
    ],
    "INSERT INTO requests (caller, method, request_id, digest, subject, answer, created_at)
    SELECT caller, method, request_id, digest, subject, answer, created_at FROM {rows} WHERE true
    ON CONFLICT (request_id, method, caller) DO NOTHING",
);
static ANSWER_ALL: Many = Many::new(
    &[("caller", Kind::Text), ("method", Kind::Text), ("request_id", Kind::Text), ("answer", Kind::Bytes)],
    "UPDATE requests SET answer = r.answer FROM {rows} WHERE requests.request_id = r.request_id
    AND requests.method = r.method AND requests.caller = r.caller AND requests.answer IS NULL",
);

/// A mutating method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    CreateOrder,
    CreateCombinedOrder,
    CloseOrder,
    PostOrder,
    Refund,
    Reconcile,
    ResolveBreak,
    CutSettlement,
    ConfirmSettlement,
    RefundPosted,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Self::CreateOrder => "CreateOrder",
            Self::CreateCombinedOrder => "CreateCombinedOrder",
            Self::CloseOrder => "CloseOrder",
            Self::PostOrder => "PostOrder",
            Self::Refund => "Refund",
            Self::Reconcile => "Reconcile",
            Self::ResolveBreak => "ResolveBreak",
            Self::CutSettlement => "CutSettlement",
            Self::ConfirmSettlement => "ConfirmSettlement",
            Self::RefundPosted => "RefundPosted",
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

    /// What is known once a key is claimed.
    pub(crate) fn of(claim: &Claim) -> Self {
        let Claim { key, subject, answer } = claim;
        Self { subject: subject.clone(), answer: answer.clone(), digest: key.digest.to_vec() }
    }
}

/// Finds what is known under a key.
pub(crate) async fn get(
    reader: &mut impl Read,
    caller: &str,
    method: Method,
    request_id: &str,
) -> Result<Option<Known>, store::Error> {
    let row = reader.fetch_opt(GET, params![request_id, method.as_str(), caller]).await?;
    row.as_ref().map(known).transpose()
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

/// A key, as rows are found by it: who asks, what for, under which request id.
pub(crate) type Name = (String, String, String);

impl Key {
    /// The key under which a part of the combined order of this one is found, as any order is.
    pub(crate) fn of_part(&self, request_id: &str) -> Self {
        Self { method: Method::CreateOrder, request_id: request_id.to_owned(), ..self.clone() }
    }

    /// The key without what was asked.
    pub(crate) fn name(&self) -> Name {
        self.method.name(&self.caller, &self.request_id)
    }
}

impl Method {
    /// The key of a call of this method.
    pub(crate) fn name(self, caller: &str, request_id: &str) -> Name {
        (caller.to_owned(), self.as_str().to_owned(), request_id.to_owned())
    }
}

/// Finds what is known under these keys.
pub(crate) async fn get_all<'a>(
    tx: &mut Tx,
    keys: impl Iterator<Item = &'a Key>,
) -> Result<BTreeMap<Name, Known>, store::Error> {
    let rows: Vec<_> = keys.map(|key| params![key.caller, key.method.as_str(), key.request_id].to_vec()).collect();
    let read = |row: &Row| {
        let name = (row.get("caller")?, row.get("method")?, row.get("request_id")?);
        Ok((name, known(row)?))
    };
    tx.fetch_many(&GET_ALL, &rows).await?.iter().map(read).collect()
}

/// A key that is claimed.
pub(crate) struct Claim {
    pub(crate) key: Key,
    pub(crate) subject: String,
    /// None while it is worked on.
    pub(crate) answer: Option<Vec<u8>>,
}

/// Claims keys; how many were not known before.
pub(crate) async fn claim_all(tx: &mut Tx, claims: &[Claim], now: Timestamp) -> Result<u64, store::Error> {
    let row = |Claim { key, subject, answer }: &Claim| {
        params![key.caller, key.method.as_str(), key.request_id, key.digest, subject, answer, now].to_vec()
    };
    tx.execute_many(&INSERT_ALL, &claims.iter().map(row).collect::<Vec<_>>()).await
}

/// Keeps answers where there is none yet.
pub(crate) async fn answer_all(tx: &mut Tx, answers: &[(Name, Vec<u8>)]) -> Result<(), store::Error> {
    let row =
        |((caller, method, request_id), answer): &(Name, Vec<u8>)| params![caller, method, request_id, answer].to_vec();
    tx.execute_many(&ANSWER_ALL, &answers.iter().map(row).collect::<Vec<_>>()).await.map(|_| ())
}

fn known(row: &Row) -> Result<Known, store::Error> {
    Ok(Known { subject: row.get("subject")?, answer: row.get("answer")?, digest: row.get("digest")? })
}
