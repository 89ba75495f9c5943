//! Fixed columns: what stands where, how values are written by bytes, and how strangers' bytes are read.

use std::collections::BTreeMap;

use jiff::civil::Date;
use runtime::Timestamp;

use crate::{beijing, charset};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// ASCII, left-aligned, padded with spaces.
    Ascii,
    /// GB 18030, left-aligned, padded with spaces by bytes.
    Text,
    /// Digits, right-aligned, padded with zeros.
    Number,
    /// Fen: digits, right-aligned, padded with zeros.
    Money,
    /// `yyyyMMddHHmmss` or `yyyyMMdd`; spaces when there is none.
    Time,
}

/// A column of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Its name in the pages.
    pub name: &'static str,
    /// Its width in bytes.
    pub width: usize,
    /// What it holds.
    pub kind: Kind,
}

/// A value for a column.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// For ASCII and text columns.
    Text(String),
    /// For numbers.
    Number(usize),
    /// For money, in fen.
    Money(i64),
    /// For times.
    Time(Option<Timestamp>),
    /// For days.
    Day(Date),
}

/// Bytes under way, with the place of every column in them.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    /// The bytes after the length.
    pub bytes: Vec<u8>,
    /// Where the columns are.
    pub marks: Vec<Mark>,
}

/// Where a column stands in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The column.
    pub column: Column,
    /// Its first byte.
    pub offset: usize,
    /// How many of its bytes are value and not padding.
    pub filled: usize,
}

/// A value that does not go into its column: a bug of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no value, or one that does not fit, for column {0}")]
pub(super) struct DoesNotFit(pub &'static str);

/// A column that breaks its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {0} is ill-formed")]
pub(super) struct BadColumn(pub &'static str);

/// The columns of a request, by name; trailing padding is cut.
pub(super) type Fields = BTreeMap<&'static str, String>;

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Returns the width of columns side by side.
pub(super) fn width(columns: &[Column]) -> usize {
    columns.iter().map(|column| column.width).sum()
}

impl Frame {
    /// Adds columns. Every one needs its value, in order.
    pub(super) fn put(&mut self, columns: &[Column], values: Vec<(&'static str, Value)>) -> Result<(), DoesNotFit> {
        let mut values = values.into_iter();
        for column in columns {
            let value = values.next().filter(|(name, _)| *name == column.name).ok_or(DoesNotFit(column.name))?.1;
            let bytes = written(*column, value).ok_or(DoesNotFit(column.name))?;
            self.marks.push(Mark { column: *column, offset: self.bytes.len(), filled: bytes.len().min(column.width) });
            self.bytes.extend_from_slice(&bytes);
            self.bytes.resize(self.bytes.len() + column.width.saturating_sub(bytes.len()), b' ');
        }
        values.next().map_or(Ok(()), |(name, _)| Err(DoesNotFit(name)))
    }
}

/// The bytes of a value without padding on the right; `None` when it does not fit.
fn written(column: Column, value: Value) -> Option<Vec<u8>> {
    let bytes = match (column.kind, value) {
        (Kind::Ascii, Value::Text(text)) => text.is_ascii().then(|| text.into_bytes())?,
        (Kind::Text, Value::Text(text)) => fitting(&text, column.width)?,
        (Kind::Number, Value::Number(number)) => format!("{number:0width$}", width = column.width).into_bytes(),
        (Kind::Money, Value::Money(fen)) if fen >= 0 => format!("{fen:0width$}", width = column.width).into_bytes(),
        (Kind::Time, Value::Time(at)) => at.map(beijing::packed).unwrap_or_default().into_bytes(),
        (Kind::Time, Value::Day(day)) => day.strftime("%Y%m%d").to_string().into_bytes(),
        _ => return None,
    };
    (bytes.len() <= column.width).then_some(bytes)
}

/// Text that is cut between characters where the column ends.
fn fitting(text: &str, width: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for c in text.chars() {
        let next = charset::encode_gb18030(c.encode_utf8(&mut [0; 4]))?;
        if bytes.len() + next.len() > width {
            break;
        }
        bytes.extend(next);
    }
    Some(bytes)
}

/// Reads columns side by side. `bytes` must be exactly as wide.
pub(super) fn read(columns: &[Column], bytes: &[u8]) -> Result<Fields, BadColumn> {
    let mut rest = bytes;
    let mut fields = Fields::new();
    for column in columns {
        let (cell, after) = rest.split_at_checked(column.width).ok_or(BadColumn(column.name))?;
        rest = after;
        fields.insert(column.name, cell_text(*column, cell).ok_or(BadColumn(column.name))?);
    }
    if rest.is_empty() { Ok(fields) } else { Err(BadColumn(columns.last().map_or("jydm", |column| column.name))) }
}

fn cell_text(column: Column, cell: &[u8]) -> Option<String> {
    let filled = cell.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at + 1);
    let value = cell.get(..filled)?;
    if value.first() == Some(&b' ') {
        return None;
    }
    match column.kind {
        Kind::Ascii => value.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ').then(|| utf8(value))?,
        Kind::Text => charset::decode_gb18030(value).ok().filter(|text| !text.chars().any(char::is_control)),
        Kind::Number | Kind::Money => cell.iter().all(u8::is_ascii_digit).then(|| utf8(cell))?,
        Kind::Time if value.is_empty() => Some(String::new()),
        Kind::Time => utf8(value).filter(|text| beijing::parse_packed(text).is_some()),
    }
}

fn utf8(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn column(name: &'static str, width: usize, kind: Kind) -> Column {
        Column { name, width, kind }
    }

    const ROW: [Column; 5] = [
        column("a", 4, Kind::Ascii),
        column("t", 7, Kind::Text),
        column("n", 3, Kind::Number),
        column("m", 12, Kind::Money),
        column("d", 14, Kind::Time),
    ];

    fn row(text: &str) -> Frame {
        let mut frame = Frame::default();
        let values = vec![
            ("a", "X1".into()),
            ("t", text.into()),
            ("n", Value::Number(7)),
            ("m", Value::Money(20_000)),
            ("d", Value::Time(None)),
        ];
        frame.put(&ROW, values).expect("fits");
        frame
    }

    #[test]
    fn values_are_padded_by_bytes_and_read_back() {
        let frame = row("晋A𬭚");
        assert_eq!(frame.bytes.len(), width(&ROW));
        assert_eq!(&frame.bytes[..4], b"X1  ");
        assert_eq!(&frame.bytes[4..11], [0xBD, 0xFA, b'A', 0x99, 0x33, 0xAA, 0x34]);
        assert_eq!(&frame.bytes[11..26], b"007000000020000");
        let fields = read(&ROW, &frame.bytes).expect("reads");
        assert_eq!(fields.values().map(String::as_str).collect::<Vec<_>>(), ["X1", "", "000000020000", "007", "晋A𬭚"]);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(&row("太原太原").bytes[4..11], [0xCC, 0xAB, 0xD4, 0xAD, 0xCC, 0xAB, b' ']);
        assert_eq!(&row("太原𬭚").bytes[4..11], [0xCC, 0xAB, 0xD4, 0xAD, b' ', b' ', b' ']);
    }

    #[test]
    fn values_that_do_not_fit_are_bugs_and_cells_that_break_their_kind_are_named() {
        let mut frame = Frame::default();
        assert_eq!(frame.put(&ROW[..1], vec![("a", "12345".into())]), Err(DoesNotFit("a")));
        assert_eq!(frame.put(&ROW[..1], vec![("a", "é".into())]), Err(DoesNotFit("a")));
        assert_eq!(frame.put(&ROW[..1], vec![("b", "1".into())]), Err(DoesNotFit("a")));
        assert_eq!(frame.put(&ROW[..1], Vec::new()), Err(DoesNotFit("a")));
        assert_eq!(frame.put(&ROW[3..4], vec![("m", Value::Money(-1))]), Err(DoesNotFit("m")));
        let good = row("晋A").bytes;
        for (at, byte, column) in
            [(0, b' ', "a"), (1, 0x01, "a"), (6, 0xFF, "t"), (11, b' ', "n"), (25, b'x', "m"), (26, b'2', "d")]
        {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(read(&ROW, &bad), Err(BadColumn(column)), "byte {at}");
        }
        assert_eq!(read(&ROW, &good[..39]), Err(BadColumn("d")));
        assert_eq!(read(&ROW, &[&good[..], b" "].concat()), Err(BadColumn("d")));
    }
}
