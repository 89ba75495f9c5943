//! One statement for many rows.
//!
//! The rows travel as values that do not depend on how many there are, and the engine makes a table of them: SQLite of one JSON array,
//! PostgreSQL of one array for each column. So the statement is prepared once, and a batch of any size is one round trip.

use std::sync::{Arc, OnceLock};

use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::{Error, Row, Tx, Value};

/// Where the statement reads its rows.
const ROWS: &str = "{rows}";
/// Where a query locks what it reads, to change it.
const LOCK: &str = "{lock}";

/// What a column of the rows holds. The engine is told: the rows travel as text.
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
/// a query locks what it reads until the transaction ends. It takes no other values. An upsert from rows needs `WHERE true` before its
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
            let (rows, lock) = if is_sqlite { (self.sqlite(), "") } else { (self.postgres(), "FOR UPDATE") };
            self.text.replace(ROWS, &rows).replace(LOCK, lock).into()
        });
        AssertSqlSafe(Arc::clone(text)).into_sql_str()
    }

    fn sqlite(&self) -> String {
        let column = |(at, (name, kind)): (usize, &(&str, Kind))| match kind {
            // SQLite's tables keep 0 and 1 for a boolean, and so does it read JSON's.
            Kind::Text | Kind::Bool => format!("value ->> {at} AS {name}"),
            Kind::Int => format!("CAST(value ->> {at} AS BIGINT) AS {name}"),
            Kind::Bytes => format!("unhex(value ->> {at}) AS {name}"),
        };
        let columns: Vec<_> = self.columns.iter().enumerate().map(column).collect();
        format!("(SELECT {} FROM json_each($1)) AS r", columns.join(", "))
    }

    fn postgres(&self) -> String {
        let array = |(at, (_, kind)): (usize, &(&str, Kind))| {
            let kind = match kind {
                Kind::Int => "BIGINT",
                Kind::Text => "TEXT",
                Kind::Bytes => "BYTEA",
                Kind::Bool => "BOOLEAN",
            };
            format!("CAST(${} AS {kind}[])", at + 1)
        };
        let arrays: Vec<_> = self.columns.iter().enumerate().map(array).collect();
        let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
        format!("unnest({}) AS r({})", arrays.join(", "), names.join(", "))
    }

    /// The rows as the statement takes them.
    ///
    /// Errors: a row of another shape than the columns.
    fn values(&self, is_sqlite: bool, rows: &[Vec<Value>]) -> Result<Vec<Value>, Error> {
        let fits = |(value, (_, kind)): (&Value, &(&str, Kind))| {
            matches!(
                (value, kind),
                (Value::Int(_), Kind::Int)
                    | (Value::Text(_), Kind::Text)
                    | (Value::Bytes(_), Kind::Bytes)
                    | (Value::Bool(_), Kind::Bool)
            )
        };
        if !rows.iter().all(|row| row.len() == self.columns.len() && row.iter().zip(self.columns).all(fits)) {
            return Err(Error::Column { column: "rows", problem: "have another shape than the statement's columns" });
        }
        if is_sqlite {
            let rows: Vec<Json> = rows.iter().map(|row| Json::Array(row.iter().map(cell).collect())).collect();
            return Ok(vec![Value::Text(Some(Json::Array(rows).to_string()))]);
        }
        let columns = 0..self.columns.len();
        let array = |at: usize| {
            let mut text = String::from("{");
            for (number, row) in rows.iter().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                if let Some(value) = row.get(at) {
                    element(&mut text, value);
                }
            }
            text.push('}');
            Value::Text(Some(text))
        };
        Ok(columns.map(array).collect())
    }
}

/// A value in a JSON row.
fn cell(value: &Value) -> Json {
    match value {
        Value::Int(value) => value.map_or(Json::Null, Json::from),
        Value::Float(value) => value.map_or(Json::Null, Json::from),
        Value::Text(value) => value.clone().map_or(Json::Null, Json::from),
        Value::Bytes(value) => value.as_ref().map_or(Json::Null, |bytes| hex::encode(bytes).into()),
        Value::Bool(value) => value.map_or(Json::Null, Json::from),
    }
}

/// A value in PostgreSQL's text of an array: texts are quoted, so that none can be taken for NULL or for two.
fn element(array: &mut String, value: &Value) {
    match value {
        Value::Int(Some(value)) => array.push_str(&value.to_string()),
        Value::Float(Some(value)) => array.push_str(&value.to_string()),
        Value::Bool(Some(value)) => array.push(if *value { 't' } else { 'f' }),
        Value::Bytes(Some(bytes)) => {
            array.push_str("\"\\\\x");
            array.push_str(&hex::encode(bytes));
            array.push('"');
        }
        Value::Text(Some(text)) => {
            array.push('"');
            let mut rest = text.as_str();
            while let Some(at) = rest.find(['"', '\\']) {
                let (plain, special) = rest.split_at(at);
                let (letter, after) = special.split_at(1);
                array.push_str(plain);
                array.push('\\');
                array.push_str(letter);
                rest = after;
            }
            array.push_str(rest);
            array.push('"');
        }
        Value::Int(None) | Value::Float(None) | Value::Bool(None) | Value::Bytes(None) | Value::Text(None) => {
            array.push_str("NULL");
        }
    }
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
        self.count(many.sql(is_sqlite), &many.values(is_sqlite, rows)?).await
    }

    /// Runs a query over many rows and returns its own, at most [`crate::ROWS_MAX`].
    pub async fn fetch_many(&mut self, many: &'static Many, rows: &[Vec<Value>]) -> Result<Vec<Row>, Error> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let is_sqlite = self.session()?.core.is_sqlite();
        self.rows(many.sql(is_sqlite), &many.values(is_sqlite, rows)?).await
    }
}
