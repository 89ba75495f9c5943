//! One statement for many rows.
//!
//! The rows travel as one value, a JSON array, and the engine makes a table of it. So the text does not depend on how many there are: it is
//! prepared once, and a batch of any size is one round trip.

use std::sync::{Arc, OnceLock};

use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::{Error, Row, Tx, Value};

/// Where the statement reads its rows.
const ROWS: &str = "{rows}";
/// Where a query locks what it reads, to change it.
const LOCK: &str = "{lock}";

/// What a column of the rows holds. The engine is told: JSON has fewer types than SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BIGINT.
    Int,
    /// TEXT.
    Text,
    /// BYTEA, BLOB.
    Bytes,
    /// BOOLEAN.
    Bool,
}

/// A statement over many rows; a `static` of the service.
///
/// Shape: the text has `{rows}` where a table stands, which is known as `r` and has the given columns, in any order; `{lock}` at the end of
/// a query locks what it reads until the transaction ends. The rows are `$1`. An upsert from rows needs `WHERE true` before its
/// `ON CONFLICT`: SQLite could take it for a join's condition.
#[derive(Debug)]
pub struct Many {
    columns: &'static [(&'static str, Kind)],
    text: &'static str,
    /// As each engine has it.
    made: [OnceLock<Arc<str>>; 2],
}

impl Many {
    /// A statement, from constants.
    pub const fn new(columns: &'static [(&'static str, Kind)], text: &'static str) -> Self {
        Self { columns, text, made: [OnceLock::new(), OnceLock::new()] }
    }

    fn sql(&self, is_sqlite: bool) -> SqlStr {
        let [sqlite, postgres] = &self.made;
        let text = if is_sqlite { sqlite } else { postgres }.get_or_init(|| {
            let columns = self.columns.iter().enumerate();
            let columns: Vec<_> = columns.map(|(at, (name, kind))| column(is_sqlite, at, name, *kind)).collect();
            let (from, lock) = if is_sqlite {
                ("json_each($1)", "")
            } else {
                ("json_array_elements(CAST($1 AS JSON)) AS e(value)", "FOR UPDATE")
            };
            let rows = format!("(SELECT {} FROM {from}) AS r", columns.join(", "));
            self.text.replace(ROWS, &rows).replace(LOCK, lock).into()
        });
        AssertSqlSafe(Arc::clone(text)).into_sql_str()
    }

    /// The rows as JSON.
    ///
    /// Errors: a row of another shape than the columns.
    fn rows(&self, rows: &[Vec<Value>]) -> Result<Value, Error> {
        let shape = Error::Column { column: "rows", problem: "have another shape than the statement's columns" };
        let mut told = Vec::with_capacity(rows.len());
        for row in rows {
            if row.len() != self.columns.len() {
                return Err(shape);
            }
            let cells = row.iter().zip(self.columns).map(|(value, (_, kind))| cell(value, *kind));
            let Some(cells) = cells.collect::<Option<Vec<Json>>>() else { return Err(shape) };
            told.push(Json::Array(cells));
        }
        Ok(Value::Text(Some(Json::Array(told).to_string())))
    }
}

fn column(is_sqlite: bool, at: usize, name: &str, kind: Kind) -> String {
    let cell = format!("value ->> {at}");
    let typed = match (kind, is_sqlite) {
        // SQLite's tables keep 0 and 1 for a boolean, and so does it read JSON's.
        (Kind::Text, _) | (Kind::Bool, true) => cell,
        (Kind::Int, _) => format!("CAST({cell} AS BIGINT)"),
        (Kind::Bytes, true) => format!("unhex({cell})"),
        (Kind::Bytes, false) => format!("decode({cell}, 'hex')"),
        (Kind::Bool, false) => format!("CAST({cell} AS BOOLEAN)"),
    };
    format!("{typed} AS {name}")
}

/// A cell; None where the value is of another kind.
fn cell(value: &Value, kind: Kind) -> Option<Json> {
    Some(match (value, kind) {
        (Value::Int(value), Kind::Int) => value.map_or(Json::Null, Json::from),
        (Value::Text(value), Kind::Text) => value.clone().map_or(Json::Null, Json::from),
        (Value::Bytes(value), Kind::Bytes) => value.as_ref().map_or(Json::Null, |bytes| hex::encode(bytes).into()),
        (Value::Bool(value), Kind::Bool) => value.map_or(Json::Null, Json::from),
        _ => return None,
    })
}

impl Tx {
    /// Runs a statement over many rows and returns how many it changed; no row asks nothing of the engine.
    ///
    /// Errors: those of [`Tx::execute`]; one row that the engine refuses fails the statement for all.
    pub async fn execute_many(&mut self, many: &'static Many, rows: &[Vec<Value>]) -> Result<u64, Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let is_sqlite = self.session()?.core.is_sqlite();
        self.count(many.sql(is_sqlite), &[many.rows(rows)?]).await
    }

    /// Runs a query over many rows and returns its own, at most [`crate::ROWS_MAX`].
    pub async fn fetch_many(&mut self, many: &'static Many, rows: &[Vec<Value>]) -> Result<Vec<Row>, Error> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let is_sqlite = self.session()?.core.is_sqlite();
        self.rows(many.sql(is_sqlite), &[many.rows(rows)?]).await
    }
}
