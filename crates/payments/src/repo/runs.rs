//! Reconciliations.

use jiff::civil::Date;
use runtime::Timestamp;
use store::{Read, Row, Tx, params};

use super::word;
use crate::domain::ledger::Merchant;
use crate::domain::order::BadWord;

const PLAN: &str =
    "INSERT INTO runs (channel, merchant, day, state, matched, breaks, rolled_over, problem, finished_at)
    VALUES ($1, $2, $3, 'waiting', 0, 0, 0, '', NULL) ON CONFLICT (channel, merchant, day) DO NOTHING";

const AGAIN: &str = "UPDATE runs SET state = 'waiting' WHERE channel = $1 AND merchant = $2 AND day = $3";

const WAIT: &str = "UPDATE runs SET problem = $4 WHERE channel = $1 AND merchant = $2 AND day = $3";

const KEEP: &str =
    "UPDATE runs SET state = $4, matched = $5, breaks = $6, rolled_over = $7, problem = $8, finished_at = $9, fee_minor = $10
    WHERE channel = $1 AND merchant = $2 AND day = $3";

const AFTER: &str =
    "SELECT * FROM runs WHERE (channel, merchant, day) > ($1, $2, $3) ORDER BY channel, merchant, day LIMIT $4";

const GET: &str = "SELECT * FROM runs WHERE channel = $1 AND merchant = $2 AND day = $3";

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Done,
    Failed,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for State {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        [Self::Waiting, Self::Done, Self::Failed].into_iter().find(|state| state.as_str() == text).ok_or(BadWord)
    }
}

/// A merchant account's day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) merchant: Merchant,
    pub(crate) day: Date,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) name: Name,
    pub(crate) state: State,
    pub(crate) matched: i64,
    pub(crate) breaks: i64,
    pub(crate) rolled_over: i64,
    pub(crate) problem: String,
    pub(crate) finished_at: Option<Timestamp>,
    /// What the channel charged, in fen, as it is booked; None where no bill was matched.
    pub(crate) fee_minor: Option<i64>,
}

/// Notes that a day is to be reconciled; false when it is known already.
pub(crate) async fn plan(tx: &mut Tx, name: &Name) -> Result<bool, store::Error> {
    let Name { merchant, day } = name;
    Ok(tx.execute(PLAN, params![merchant.channel, merchant.number, day.to_string()]).await? == 1)
}

/// Notes that a day is to be reconciled again.
pub(crate) async fn again(tx: &mut Tx, name: &Name) -> Result<(), store::Error> {
    let Name { merchant, day } = name;
    tx.execute(AGAIN, params![merchant.channel, merchant.number, day.to_string()]).await.map(|_| ())
}

/// Keeps what a run waits for.
pub(crate) async fn wait(tx: &mut Tx, name: &Name, problem: &str) -> Result<(), store::Error> {
    let Name { merchant, day } = name;
    tx.execute(WAIT, params![merchant.channel, merchant.number, day.to_string(), problem]).await.map(|_| ())
}

/// Keeps what came of a run.
pub(crate) async fn keep(tx: &mut Tx, run: &Run) -> Result<(), store::Error> {
    let Name { merchant, day } = &run.name;
    let values = params![
        merchant.channel,
        merchant.number,
        day.to_string(),
        run.state.as_str(),
        run.matched,
        run.breaks,
        run.rolled_over,
        run.problem,
        run.finished_at,
        run.fee_minor,
    ];
    tx.execute(KEEP, values).await.map(|_| ())
}

/// Finds a run.
pub(crate) async fn get(reader: &mut impl Read, name: &Name) -> Result<Option<Run>, store::Error> {
    let Name { merchant, day } = name;
    let row = reader.fetch_opt(GET, params![merchant.channel, merchant.number, day.to_string()]).await?;
    row.as_ref().map(read).transpose()
}

/// Reads at most `max` runs behind another, by account and day.
pub(crate) async fn after(reader: &mut impl Read, last: Option<&Name>, max: u32) -> Result<Vec<Run>, store::Error> {
    let (channel, merchant, day) = last.map_or(("", "", String::new()), |last| {
        (last.merchant.channel.as_str(), last.merchant.number.as_str(), last.day.to_string())
    });
    reader.fetch_all(AFTER, params![channel, merchant, day, max]).await?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Run, store::Error> {
    let merchant = Merchant { channel: row.get("channel")?, number: row.get("merchant")? };
    let day = row.get::<String>("day")?.parse().map_err(|_| super::unreadable("day"))?;
    Ok(Run {
        name: Name { merchant, day },
        state: word(row, "state")?,
        matched: row.get("matched")?,
        breaks: row.get("breaks")?,
        rolled_over: row.get("rolled_over")?,
        problem: row.get("problem")?,
        finished_at: row.get("finished_at")?,
        fee_minor: row.get("fee_minor")?,
    })
}
