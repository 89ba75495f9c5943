//! Files, each read as what its first bytes say that it is, one movement at a time.

mod alipay;
pub mod movements;
mod wechatpay;

use std::io::{self, BufRead, Seek};

use super::entry::{BadMoney, Entry, Money};

/// Longer is no line of any bill.
const LINE_BYTES_MAX: usize = 64 * 1024;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Where a file is not what it should be, and why.
#[derive(Debug, thiserror::Error)]
#[error("line {line}{}: {what}", column.as_ref().map(|column| format!(", {column}")).unwrap_or_default())]
pub struct BillError {
    /// From 1; in a zip archive, of its detail file.
    pub line: u64,
    /// The column, where it is one.
    pub column: Option<&'static str>,
    /// What is wrong, and what was expected. Values are not repeated: they may be a citizen's.
    pub what: String,
}

/// An open file.
pub struct Bill(Box<dyn Iterator<Item = Result<Entry, BillError>>>);

impl Bill {
    /// Looks what a file is and opens it.
    ///
    /// Errors: none of the formats that are known, which the message lists.
    pub fn open<R: BufRead + Seek + 'static>(mut file: R) -> Result<Self, BillError> {
        let begin = file.fill_buf().map_err(|error| unreadable(0, &error))?;
        if begin.starts_with(b"PK\x03\x04") {
            return Ok(Self(Box::new(alipay::unpack(file)?)));
        }
        let begin = begin.strip_prefix(BOM).unwrap_or(begin);
        if begin.starts_with(wechatpay::FIRST_COLUMN.as_bytes()) {
            Ok(Self(Box::new(wechatpay::Rows::new(Lines::new(file))?)))
        } else if begin.starts_with(b"#") {
            Ok(Self(Box::new(alipay::Rows::new(Lines::new(file)))))
        } else if begin.starts_with(movements::NAME.as_bytes()) {
            Ok(Self(Box::new(movements::Rows::new(Lines::new(file))?)))
        } else {
            let known = "a WeChat Pay trade bill (bill_type=ALL), an Alipay business bill (zip or csv), or lastmile's own file of \
                movements (a ledger export, a settlement file, what an earlier day carried over)";
            Err(BillError { line: 1, column: None, what: format!("is none of the files that are known: {known}") })
        }
    }
}

impl Iterator for Bill {
    type Item = Result<Entry, BillError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// Lines with their numbers, without their ends.
struct Lines<R> {
    file: R,
    number: u64,
    bytes: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn new(file: R) -> Self {
        Self { file, number: 0, bytes: Vec::new() }
    }

    /// The next line; None at the end.
    fn next(&mut self) -> Result<Option<&[u8]>, BillError> {
        self.bytes.clear();
        self.number = self.number.saturating_add(1);
        let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = io::Read::take(&mut self.file, most).read_until(b'\n', &mut self.bytes);
        let read = read.map_err(|error| unreadable(self.number, &error))?;
        if read == LINE_BYTES_MAX {
            return Err(self.error(None, "is longer than 64 KiB: not a bill's"));
        }
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = if self.number == 1 { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        Ok((read > 0).then_some(line))
    }

    fn error(&self, column: Option<&'static str>, what: impl Into<String>) -> BillError {
        BillError { line: self.number, column, what: what.into() }
    }
}

fn unreadable(line: u64, error: &io::Error) -> BillError {
    BillError { line, column: None, what: format!("cannot be read: {error}") }
}

fn error(line: u64, column: &'static str, what: &str) -> BillError {
    BillError { line, column: Some(column), what: what.to_owned() }
}

/// What a file's own totals must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    minor: i64,
}

impl Sum {
    fn add(&mut self, money: Money) {
        self.count = self.count.saturating_add(1);
        self.minor = self.minor.saturating_add(money.minor);
    }
}

fn yuan(line: u64, column: &'static str, text: &str) -> Result<Money, BillError> {
    Money::from_yuan(text, "CNY").map_err(|BadMoney| error(line, column, "is not an amount in yuan"))
}
