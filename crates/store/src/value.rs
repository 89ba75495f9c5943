use std::collections::BTreeMap;
use std::sync::Arc;

use runtime::Timestamp;
use sqlx::any::{AnyArguments, AnyRow, AnyTypeInfoKind};
use sqlx::query::Query;
use sqlx::{Any, Column as _, Row as _, TypeInfo as _, ValueRef as _};

use crate::Error;

/// A value bound to a placeholder. Build lists of them with [`params!`](crate::params).
///
/// Shape: the five types that both engines have in common; a missing value keeps its type, because PostgreSQL types its placeholders.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// BIGINT.
    Int(Option<i64>),
    /// TEXT.
    Text(Option<String>),
    /// BYTEA on PostgreSQL, BLOB on SQLite.
    Bytes(Option<Vec<u8>>),
    /// BOOLEAN on PostgreSQL, INTEGER 0 or 1 on SQLite.
    Bool(Option<bool>),
    /// DOUBLE PRECISION on PostgreSQL, REAL on SQLite. Never for money.
    Float(Option<f64>),
}

pub(crate) type Prepared<'q> = Query<'q, Any, AnyArguments>;

impl Value {
    pub(crate) fn bind<'q>(&self, query: Prepared<'q>) -> Prepared<'q> {
        match self {
            Self::Int(value) => query.bind(*value),
            Self::Text(value) => query.bind(value.clone()),
            Self::Bytes(value) => query.bind(value.clone()),
            Self::Bool(value) => query.bind(*value),
            Self::Float(value) => query.bind(*value),
        }
    }
}

/// Collects the values of a statement's placeholders `$1, $2, …`, in order. Borrows its arguments.
///
/// ```
/// use store::{Value, params};
/// let note: Option<&str> = None;
/// assert_eq!(params!["p1", 250_i64, note][..], [Value::Text(Some("p1".into())), Value::Int(Some(250)), Value::Text(None)]);
/// ```
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::ToValue::to_value(&$value)),*] as &[$crate::Value]
    };
}

/// What can be bound to a placeholder.
pub trait ToValue {
    /// Copies itself into a [`Value`].
    fn to_value(&self) -> Value;
}

impl ToValue for Value {
    fn to_value(&self) -> Value {
        self.clone()
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value {
        (**self).to_value()
    }
}

macro_rules! to_value {
    ($($kind:ident: $($type:ty => $convert:expr),+;)+) => {$($(
        impl ToValue for $type {
            fn to_value(&self) -> Value {
                let convert: fn(&$type) -> _ = $convert;
                Value::$kind(Some(convert(self)))
            }
        }
    )+)+};
}

to_value! {
    Int: i64 => |value| *value, i32 => |value| i64::from(*value), u32 => |value| i64::from(*value),
        Timestamp => |value| value.micros();
    Text: str => |value| value.to_owned(), String => String::clone;
    Bytes: [u8] => |value| value.to_vec(), Vec<u8> => Vec::clone;
    Bool: bool => |value| *value;
    Float: f64 => |value| *value;
}

impl<const N: usize> ToValue for [u8; N] {
    fn to_value(&self) -> Value {
        Value::Bytes(Some(self.to_vec()))
    }
}

/// A type whose absence is NULL of a known SQL type.
pub trait Nullable: ToValue {
    /// The NULL of this type.
    const NULL: Value;
}

macro_rules! nullable {
    ($($kind:ident: $($type:ty),+;)+) => {$($(
        impl Nullable for $type {
            const NULL: Value = Value::$kind(None);
        }
    )+)+};
}

nullable! {
    Int: i64, i32, u32, Timestamp;
    Text: str, String;
    Bytes: [u8], Vec<u8>;
    Bool: bool;
    Float: f64;
}

impl<T: Nullable + ?Sized> Nullable for &T {
    const NULL: Value = T::NULL;
}

impl<T: Nullable> ToValue for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(T::NULL, ToValue::to_value)
    }
}

/// One row of an answer.
#[derive(Clone, Debug)]
pub struct Row {
    columns: Arc<BTreeMap<String, usize>>,
    cells: Vec<Cell>,
}

#[derive(Clone, Debug)]
enum Cell {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Bool(bool),
    Float(f64),
}

impl Row {
    /// Reads the column `name`.
    ///
    /// Errors: [`Error::Column`] when there is no such column, when it holds another type, or NULL where `T` is not an `Option`.
    pub fn get<T: FromCell>(&self, name: &'static str) -> Result<T, Error> {
        let cell = self.columns.get(name).and_then(|index| self.cells.get(*index));
        let cell = cell.ok_or(Error::Column { column: name, problem: "is not in the answer" })?;
        T::from_cell(CellRef(cell)).map_err(|problem| Error::Column { column: name, problem })
    }

    /// Reads the rows of one answer; all share one table of column names.
    pub(crate) fn all(rows: &[AnyRow]) -> Result<Vec<Self>, sqlx::Error> {
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let columns = first.columns().iter().map(|column| (column.name().to_owned(), column.ordinal()));
        let columns = Arc::new(columns.collect());
        let read = |row| Ok(Self { columns: Arc::clone(&columns), cells: Cell::all(row)? });
        rows.iter().map(read).collect()
    }
}

impl Cell {
    fn all(row: &AnyRow) -> Result<Vec<Self>, sqlx::Error> {
        (0..row.len()).map(|index| Self::read(row, index)).collect()
    }

    fn read(row: &AnyRow, index: usize) -> Result<Self, sqlx::Error> {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() || raw.type_info().is_null() {
            return Ok(Self::Null);
        }
        Ok(match raw.type_info().kind() {
            AnyTypeInfoKind::Null => Self::Null,
            AnyTypeInfoKind::Bool => Self::Bool(row.try_get(index)?),
            AnyTypeInfoKind::SmallInt | AnyTypeInfoKind::Integer | AnyTypeInfoKind::BigInt => {
                Self::Int(row.try_get(index)?)
            }
            AnyTypeInfoKind::Real | AnyTypeInfoKind::Double => Self::Float(row.try_get(index)?),
            AnyTypeInfoKind::Text => Self::Text(row.try_get(index)?),
            AnyTypeInfoKind::Blob => Self::Bytes(row.try_get(index)?),
        })
    }
}

/// One field of a row, as [`FromCell`] sees it.
#[derive(Clone, Copy)]
pub struct CellRef<'r>(&'r Cell);

/// What a column can be read as.
pub trait FromCell: Sized {
    /// Reads the field, or says in a few words why it cannot.
    fn from_cell(cell: CellRef<'_>) -> Result<Self, &'static str>;
}

const OTHER_TYPE: &str = "holds another type";
const IS_NULL: &str = "is null";

impl FromCell for i64 {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, &'static str> {
        match cell.0 {
            Cell::Int(value) => Ok(*value),
            Cell::Null => Err(IS_NULL),
            _ => Err(OTHER_TYPE),
        }
    }
}

impl FromCell for Timestamp {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, &'static str> {
        i64::from_cell(cell).map(Self::from_micros)
    }
}

impl FromCell for String {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, &'static str> {
        match cell.0 {
            Cell::Text(value) => Ok(value.clone()),
            Cell::Null => Err(IS_NULL),
            _ => Err(OTHER_TYPE),
        }
    }
}

impl FromCell for Vec<u8> {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, &'static str> {
        match cell.0 {
            Cell::Bytes(value) => Ok(value.clone()),
            Cell::Null => Err(IS_NULL),
            _ => Err(OTHER_TYPE),
        }
    }
}

impl FromCell for bool {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, &'static str> {
        match cell.0 {
            // SQLite has no BOOLEAN: its tables keep 0 and 1.
            Cell::Bool(_) | Cell::Int(0 | 1) => Ok(matches!(cell.0, Cell::Bool(true) | Cell::Int(1))),
            Cell::Null => Err(IS_NULL),
            _ => Err(OTHER_TYPE),
        }
    }
}

impl FromCell for f64 {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, &'static str> {
        match cell.0 {
            Cell::Float(value) => Ok(*value),
            Cell::Null => Err(IS_NULL),
            _ => Err(OTHER_TYPE),
        }
    }
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, &'static str> {
        match cell.0 {
            Cell::Null => Ok(None),
            _ => T::from_cell(cell).map(Some),
        }
    }
}
