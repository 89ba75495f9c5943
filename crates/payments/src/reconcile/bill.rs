//! Files, each read as what its first bytes say that it is, one movement at a time.

mod alipay;
pub mod movements;
mod wechatpay;

use std::io::{self, BufRead, Seek};
use std::path::Path;
use std::sync::Arc;

use jiff::civil::Date;

use super::entry::{BadMoney, Entry, Money, Side, is_number};
use super::fee::Fee;

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
pub struct Bill {
    /// Whose word it is: with those who sent nothing nothing is compared. Empty for what an earlier day carried over.
    pub covers: Vec<(Side, Arc<str>)>,
    /// The day that it says it is of.
    pub day: Option<Date>,
    rows: Box<dyn Rows>,
}

/// The rows of a file.
trait Rows: Iterator<Item = Result<Entry, BillError>> + Send {
    /// What the channel charged for those that were read.
    fn charged(&self) -> Fee {
        Fee::default()
    }
}

impl Bill {
    /// Looks what a file is and opens it. `scratch` is where an archive is unpacked.
    ///
    /// Errors: none of the formats that are known, which the message lists.
    pub fn open<R: BufRead + Seek + Send + 'static>(mut file: R, scratch: Option<&Path>) -> Result<Self, BillError> {
        let begin = file.fill_buf().map_err(|error| unreadable(0, &error))?;
        if begin.starts_with(b"PK\x03\x04") {
            return Ok(Self::of_channel(alipay::CHANNEL, alipay::unpack(file, scratch)?));
        }
        let begin = begin.strip_prefix(BOM).unwrap_or(begin);
        if begin.starts_with(wechatpay::FIRST_COLUMN.as_bytes()) {
            Ok(Self::of_channel(wechatpay::CHANNEL, wechatpay::Rows::new(Lines::new(file))?))
        } else if begin.starts_with(b"#") {
            Ok(Self::of_channel(alipay::CHANNEL, alipay::Rows::new(Lines::new(file))))
        } else if begin.starts_with(movements::NAME.as_bytes()) {
            let (rows, head) = movements::Rows::new(Lines::new(file))?;
            Ok(Self { covers: head.covers, day: Some(head.day), rows: Box::new(rows) })
        } else {
            let known = "a WeChat Pay trade bill (bill_type=ALL), an Alipay business bill (zip or csv), or lastmile's own file of \
                movements (a ledger export, a settlement file, what an earlier day carried over)";
            Err(BillError { line: 1, column: None, what: format!("is none of the files that are known: {known}") })
        }
    }

    fn of_channel(channel: &str, rows: impl Rows + 'static) -> Self {
        Self { covers: vec![(Side::Channel, channel.into())], day: None, rows: Box::new(rows) }
    }

    /// What the channel charged, once all rows are read; nothing where the file is no channel's bill.
    pub fn charged(&self) -> Fee {
        self.rows.charged()
    }
}

impl Iterator for Bill {
    type Item = Result<Entry, BillError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next()
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

    /// The number of the line that comes next.
    fn following(&self) -> u64 {
        self.number.saturating_add(1)
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
    minor: i128,
}

impl Sum {
    fn add(&mut self, minor: i64) {
        self.count = self.count.saturating_add(1);
        self.minor = self.minor.saturating_add(minor.into());
    }
}

fn fee(line: u64, column: &'static str, text: &str) -> Result<Fee, BillError> {
    let what = "is not a fee in yuan with at most five decimals";
    Fee::from_yuan(text).map_err(|BadMoney| error(line, column, what))
}

fn yuan(line: u64, column: &'static str, text: &str, currency: &str) -> Result<Money, BillError> {
    let read = Money::from_yuan(text, currency);
    read.map_err(|BadMoney| error(line, column, "is not an amount in yuan with a currency of three letters"))
}

/// Reads a number that both sides know a movement by.
fn number(line: u64, column: &'static str, text: &str) -> Result<String, BillError> {
    let what = "is not a number of 1 to 64 printable characters";
    if is_number(text) { Ok(text.to_owned()) } else { Err(error(line, column, what)) }
}
