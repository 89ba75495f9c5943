use std::borrow::Cow;
use std::error::Error as StdError;

use sqlx::error::{DatabaseError, ErrorKind};

/// Why the store did not do what was asked.
///
/// Shape: named by what the caller can do. Everything but [`Error::CommitUnknown`] means that the transaction had no effect.
/// No variant carries a bound value: what an engine says about data is reduced to its code and the name of the constraint.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A row with the same unique key exists. The name is the index's or constraint's, equal on both engines.
    #[error("a row with the same key exists: {constraint}")]
    Conflict {
        /// The unique index; `TABLE_pkey` for a primary key, `TABLE_COLUMN_key` for an unnamed UNIQUE.
        constraint: String,
    },
    /// A check, a NOT NULL or a foreign key refused the row: a bug in the caller.
    #[error("the row breaks a rule of the schema: {rule}")]
    Refused {
        /// The constraint's name, or the table and column.
        rule: String,
    },
    /// The store could not be reached or did not answer in time; nothing was committed. Try again later.
    #[error("the store is not available: {what}")]
    Unavailable {
        /// What was being waited for.
        what: &'static str,
        /// The engine's account of it.
        #[source]
        source: Option<Cause>,
    },
    /// COMMIT was sent and no answer came: the transaction may or may not be in the store, whole in either case. Only reading tells.
    #[error("the answer to a commit was lost")]
    CommitUnknown {
        /// The engine's account of it.
        #[source]
        source: Option<Cause>,
    },
    /// Other transactions kept getting in the way, five times over; nothing was committed.
    #[error("gave way to other transactions too often")]
    Contention {
        /// The engine's account of the last time.
        #[source]
        source: Option<Cause>,
    },
    /// A statement failed earlier in this transaction, and the closure went on or returned Ok; nothing was committed.
    #[error("the transaction had already failed")]
    Failed,
    /// The closure gave its transaction handle away; nothing was committed.
    #[error("the transaction handle outlived its closure")]
    Escaped,
    /// Another worker holds the lease by now; nothing this worker does about the row counts any more.
    #[error("the lease is lost")]
    LeaseLost,
    /// A column of an answer could not be read: a bug.
    #[error("column {column} {problem}")]
    Column {
        /// The column's name.
        column: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More rows than a list may have (see [`crate::ROWS_MAX`]): a statement without LIMIT.
    #[error("the answer has more than {max} rows")]
    TooManyRows {
        /// The limit.
        max: usize,
    },
    /// The engine refused the statement: a bug in its text or in its values' types.
    #[error("the statement was refused")]
    Statement(#[source] Cause),
    /// The store was not opened: the configuration or the place is wrong.
    #[error("cannot open the store: {problem}")]
    Open {
        /// What is wrong and what to do.
        problem: String,
        /// The engine's account of it.
        #[source]
        source: Option<Cause>,
    },
    /// The schema was not migrated.
    #[error("cannot migrate the store: {problem}")]
    Migration {
        /// What is wrong and what to do.
        problem: String,
        /// The engine's account of it.
        #[source]
        source: Option<Cause>,
    },
}

/// What an engine said, without the data that it said it about.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Cause {
    text: String,
}

/// How a failed statement leaves its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Running the whole transaction again may succeed.
    Again,
    /// The connection or the server is in doubt: close the one, blame the other.
    Broken,
    /// Asking again gives the same answer.
    Final,
}

impl Error {
    /// Wraps a failure to reach the store.
    pub(crate) fn unavailable(what: &'static str, source: impl Into<Option<Cause>>) -> Self {
        Self::Unavailable { what, source: source.into() }
    }

    pub(crate) fn open(problem: impl Into<String>, source: impl Into<Option<Cause>>) -> Self {
        Self::Open { problem: problem.into(), source: source.into() }
    }

    /// Tells whether the transaction certainly left no trace. False only when a commit's answer was lost.
    pub fn had_no_effect(&self) -> bool {
        !matches!(self, Self::CommitUnknown { .. })
    }

    /// Tells whether the same call may succeed a moment later, without anything being repaired.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Contention { .. })
    }

    /// Returns the name of the unique index that refused a row, if that is what happened.
    pub fn conflict(&self) -> Option<&str> {
        match self {
            Self::Conflict { constraint } => Some(constraint),
            _ => None,
        }
    }
}

impl Cause {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// Keeps of an engine's error what cannot hold a bound value.
    ///
    /// The text of a PostgreSQL error quotes values in the classes 22 and 23; class 42 quotes only our own statements, and the
    /// classes 08, 28, 3D, 53, 57 and 58 speak of the server. SQLite quotes names, never values.
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        let Some(refusal) = error.as_database_error() else { return Self::new(chain(error)) };
        let code = refusal.code().unwrap_or(Cow::Borrowed("?"));
        let quotes_values = code.len() == 5 && matches!(code.get(..2), Some("22" | "23" | "P0"));
        Self::new(if quotes_values { format!("code {code}") } else { format!("code {code}: {}", refusal.message()) })
    }
}

/// Writes an error and what lies under it on one line.
fn chain(error: &sqlx::Error) -> String {
    let mut text = error.to_string();
    let mut under = error.source();
    while let Some(error) = under {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        under = error.source();
    }
    text
}

/// Judges a failed statement. The retryable ones are 40001 and 40P01, and SQLite's BUSY (5) and LOCKED (6) with their extended codes.
pub(crate) fn verdict(error: &sqlx::Error) -> Verdict {
    let Some(refusal) = error.as_database_error() else {
        return match error {
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::AnyDriverError(_)
            | sqlx::Error::RowNotFound => Verdict::Final,
            _ => Verdict::Broken,
        };
    };
    let code = refusal.code().unwrap_or(Cow::Borrowed(""));
    if let Ok(number) = code.parse::<u32>()
        && code.len() < 5
    {
        return match number & 0xff {
            5 | 6 => Verdict::Again,
            // IOERR, CORRUPT, FULL, CANTOPEN, NOTADB: the file is in doubt, and so is what this connection believes of it.
            10 | 11 | 13 | 14 | 26 => Verdict::Broken,
            _ => Verdict::Final,
        };
    }
    match code.get(..2) {
        _ if code == "40001" || code == "40P01" => Verdict::Again,
        // Our own statement_timeout: the connection is as good as before.
        _ if code == "57014" => Verdict::Final,
        // 25P03 is our idle_in_transaction_session_timeout.
        Some("08" | "53" | "57" | "58" | "XX") => Verdict::Broken,
        _ if code == "25P03" => Verdict::Broken,
        _ => Verdict::Final,
    }
}

fn is_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|found| found == code)
}

/// Turns a failed statement into what the caller can do about it. Unique conflicts are named by the caller of this function.
pub(crate) fn statement(error: &sqlx::Error) -> Error {
    let cause = Cause::of(error);
    match verdict(error) {
        // The server's own deadline: asking again would take as long again.
        _ if is_code(error, "57014") => Error::unavailable("a statement within its time", None),
        Verdict::Again => Error::Contention { source: Some(cause) },
        Verdict::Broken => Error::unavailable("a statement", cause),
        Verdict::Final => match error.as_database_error().map(|refusal| (refusal.kind(), rule(refusal))) {
            Some((ErrorKind::UniqueViolation, constraint)) => Error::Conflict { constraint },
            Some((ErrorKind::ForeignKeyViolation | ErrorKind::NotNullViolation | ErrorKind::CheckViolation, rule)) => {
                Error::Refused { rule }
            }
            _ => Error::Statement(cause),
        },
    }
}

/// Names the constraint that refused a row: PostgreSQL says it, SQLite writes it after the colon.
fn rule(refusal: &dyn DatabaseError) -> String {
    match (refusal.constraint(), refusal.table()) {
        (Some(constraint), _) => constraint.to_owned(),
        (None, Some(table)) => format!("{table}: {}", refusal.code().unwrap_or(Cow::Borrowed("not null"))),
        (None, None) => refusal.message().split_once(": ").map_or("unnamed", |(_, rule)| rule).to_owned(),
    }
}
