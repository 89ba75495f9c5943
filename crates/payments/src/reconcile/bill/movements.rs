//! Our own file of movements: what the ledger exports, what a department's settlement file is brought into, and what a day carries over.
//!
//! UTF-8, a line each, without quotes:
//!
//! ```text
//! lastmile-movements,1,2026-11-22
//! side,what,number,amount_minor,currency,state,at,age_days
//! ledger,payment,ord_01a3…,20000,CNY,done,2026-11-22T09:30:00,0
//! total,1,20000
//! ```
//!
//! The last line has the number of rows and the sum of their amounts, so that a file that was cut says so.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::Path;

use jiff::civil::Date;

use super::{BillError, Lines, Sum, error};
use crate::reconcile::entry::{Entry, Money};

pub(super) const NAME: &str = "lastmile-movements,1,";
const COLUMNS: &str = "side,what,number,amount_minor,currency,state,at,age_days";
const TOTAL: &str = "total";

pub(super) struct Rows<R> {
    lines: Lines<R>,
    sum: Sum,
    is_over: bool,
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(mut lines: Lines<R>) -> Result<Self, BillError> {
        lines.next()?;
        if lines.next()?.unwrap_or_default() == COLUMNS.as_bytes() {
            Ok(Self { lines, sum: Sum::default(), is_over: false })
        } else {
            Err(lines.error(None, format!("the columns are not {COLUMNS}")))
        }
    }

    fn row(&mut self) -> Result<Option<Entry>, BillError> {
        let line = self.lines.next()?.map(|line| String::from_utf8_lossy(line).into_owned());
        let at_line = self.lines.number;
        let Some(line) = line else {
            return Err(self.lines.error(None, "the file ends before its total: it was cut"));
        };
        let cells: Vec<&str> = line.split(',').collect();
        if let [TOTAL, count, minor] = cells[..] {
            let is_all = count.parse() == Ok(self.sum.count) && minor.parse() == Ok(self.sum.minor);
            return if is_all {
                Ok(None)
            } else {
                Err(error(at_line, TOTAL, "is not that of the rows: the file was changed or cut"))
            };
        }
        let [side, what, number, minor, currency, state, at, age] = cells[..] else {
            return Err(self.lines.error(None, format!("has not the eight columns {COLUMNS}")));
        };
        let entry = Entry {
            side: side.parse().map_err(|()| error(at_line, "side", "is none of channel, ledger, department"))?,
            what: what.parse().map_err(|()| error(at_line, "what", "is none of payment, refund, settlement"))?,
            number: number.to_owned(),
            amount: Money::from_minor(minor, currency)
                .map_err(|_| error(at_line, "amount_minor", "is not an amount with a currency of three letters"))?,
            state: state.parse().map_err(|()| error(at_line, "state", "is none of done, pending, undone"))?,
            at: at.parse().map_err(|_| error(at_line, "at", "is not a time as 2026-11-22T09:30:00"))?,
            age_days: age.parse().map_err(|_| error(at_line, "age_days", "is not a number of days"))?,
        };
        self.sum.add(entry.amount);
        Ok(Some(entry))
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Entry, BillError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let row = self.row();
        self.is_over |= !matches!(row, Ok(Some(_)));
        row.transpose()
    }
}

/// Writes such a file. It is there under its name only when it is whole.
pub struct Writer {
    file: BufWriter<tempfile::NamedTempFile>,
    path: std::path::PathBuf,
    sum: Sum,
}

impl Writer {
    /// Begins a file for a day.
    pub fn create(path: &Path, day: Date) -> io::Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(directory)?);
        writeln!(file, "{NAME}{day}\n{COLUMNS}")?;
        Ok(Self { file, path: path.to_owned(), sum: Sum::default() })
    }

    /// Adds a movement.
    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let Entry { side, what, number, amount, state, at, age_days } = entry;
        let currency = String::from_utf8_lossy(&amount.currency);
        self.sum.add(*amount);
        writeln!(self.file, "{side},{what},{number},{},{currency},{state},{at},{age_days}", amount.minor)
    }

    /// Ends the file and puts it in its place, on the disk.
    pub fn finish(mut self) -> io::Result<File> {
        writeln!(self.file, "{TOTAL},{},{}", self.sum.count, self.sum.minor)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(self.path).map_err(|error| error.error)
    }
}
