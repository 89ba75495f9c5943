//! Our own file of movements: what the ledger exports, what a department settles by, and what a day carries over. Its form is told in
//! docs/reconciliation.md.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::civil::Date;

use super::{BillError, Lines, Sum, error, number};
use crate::domain::ledger::is_part;
use crate::reconcile::entry::{Entry, Money, Side};

pub(super) const NAME: &str = "lastmile-movements,1,";
const COLUMNS: &str = "side,what,party,number,amount_minor,currency,state,at,age_days";
const TOTAL: &str = "total";

pub(super) struct Rows<R> {
    lines: Lines<R>,
    /// The party of the row before: mostly that of the next.
    party: Arc<str>,
    sum: Sum,
    /// Whose word the file is; empty for what was carried over.
    covers: Vec<(Side, Arc<str>)>,
    is_over: bool,
}

/// What the first line tells.
pub(super) struct Head {
    pub(super) day: Date,
    pub(super) covers: Vec<(Side, Arc<str>)>,
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(mut lines: Lines<R>) -> Result<(Self, Head), BillError> {
        let head = lines.next()?.map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        let mut cells = head.strip_prefix(NAME).unwrap_or_default().split(',');
        let day = cells.next().and_then(|day| day.parse().ok());
        let day = day.ok_or_else(|| error(1, "day", "is not a day as 2026-11-22"))?;
        let covers = cells.map(covered).collect::<Option<Vec<_>>>();
        let covers =
            covers.ok_or_else(|| error(1, "covers", "is neither ledger nor channel/NAME nor department/PAYEE"))?;
        if lines.next()?.unwrap_or_default() != COLUMNS.as_bytes() {
            return Err(lines.error(None, format!("the columns are not {COLUMNS}")));
        }
        let rows = Self { lines, party: "".into(), sum: Sum::default(), covers: covers.clone(), is_over: false };
        Ok((rows, Head { day, covers }))
    }

    fn row(&mut self) -> Result<Option<Entry>, BillError> {
        let at_line = self.lines.following();
        let Some(line) = self.lines.next()? else {
            let what = "the file ends before its total: it was cut".to_owned();
            return Err(BillError { line: at_line, column: None, what });
        };
        let whole = |what: String| BillError { line: at_line, column: None, what };
        let line = str::from_utf8(line).map_err(|_| whole("is not UTF-8".to_owned()))?;
        let mut cells = [""; 9];
        let mut count = 0_usize;
        for (index, cell) in line.split(',').enumerate() {
            count = count.saturating_add(1);
            if let Some(slot) = cells.get_mut(index) {
                *slot = cell;
            }
        }
        let [side, what, party, name, minor, currency, state, at, age] = cells;
        if (side, count) == (TOTAL, 3) {
            let is_all = what.parse() == Ok(self.sum.count) && party.parse() == Ok(self.sum.minor);
            let changed = "is not that of the rows: the file was changed or cut";
            return if is_all { Ok(None) } else { Err(error(at_line, TOTAL, changed)) };
        }
        if count != cells.len() {
            return Err(whole(format!("has {count} cells and not the nine of {COLUMNS}")));
        }
        if !is_part(party) {
            return Err(error(at_line, "party", "is not the name of a channel or payee"));
        }
        if *self.party != *party {
            self.party = party.into();
        }
        let entry = Entry {
            side: side.parse().map_err(|()| error(at_line, "side", "is none of channel, ledger, department"))?,
            what: what.parse().map_err(|()| error(at_line, "what", "is none of payment, refund, settlement"))?,
            party: Arc::clone(&self.party),
            number: number(at_line, "number", name)?,
            amount: Money::from_minor(minor, currency)
                .map_err(|_| error(at_line, "amount_minor", "is not an amount with a currency of three letters"))?,
            state: state.parse().map_err(|()| error(at_line, "state", "is none of done, pending, undone, asked"))?,
            at: at.parse().map_err(|_| error(at_line, "at", "is not a time as 2026-11-22T09:30:00"))?,
            age_days: age.parse().map_err(|_| error(at_line, "age_days", "is not a number of days"))?,
        };
        if !self.is_covered(&entry) {
            return Err(error(at_line, "side", "is none of those whose word the first line says that the file is"));
        }
        self.sum.add(entry.amount.minor);
        Ok(Some(entry))
    }

    /// Nobody tells in another's name: what a department's file said of the ledger would hide what is wrong.
    fn is_covered(&self, entry: &Entry) -> bool {
        let is_of =
            |(side, party): &(Side, Arc<str>)| entry.side == *side && (*side == Side::Ledger || *party == entry.party);
        self.covers.is_empty() || self.covers.iter().any(is_of)
    }
}

impl<R: BufRead + Send> super::Rows for Rows<R> {}

fn covered(cell: &str) -> Option<(Side, Arc<str>)> {
    let (side, party) = cell.split_once('/').unwrap_or((cell, ""));
    let side: Side = side.parse().ok()?;
    ((side == Side::Ledger) == party.is_empty()).then(|| (side, party.into()))
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
    path: PathBuf,
    sum: Sum,
}

impl Writer {
    /// Begins a file for a day, with those whose whole word it is: `ledger`, `channel/wechatpay`, `department/traffic-430100`.
    pub fn create(path: &Path, day: Date, covers: &[&str]) -> io::Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(directory)?);
        let covers = covers.iter().map(|one| format!(",{one}")).collect::<String>();
        writeln!(file, "{NAME}{day}{covers}\n{COLUMNS}")?;
        Ok(Self { file, path: path.to_owned(), sum: Sum::default() })
    }

    /// Adds a movement.
    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let Entry { side, what, party, number, amount, state, at, age_days } = entry;
        self.sum.add(amount.minor);
        let (minor, code) = (amount.minor, amount.code());
        writeln!(self.file, "{side},{what},{party},{number},{minor},{code},{state},{at},{age_days}")
    }

    /// Ends the file and puts it in its place, on the disk; returns how many movements it has.
    pub fn finish(mut self) -> io::Result<u64> {
        writeln!(self.file, "{TOTAL},{},{}", self.sum.count, self.sum.minor)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        let _: File = file.persist(self.path).map_err(|error| error.error)?;
        Ok(self.sum.count)
    }
}
