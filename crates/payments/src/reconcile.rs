//! Reconciliation: what the channel took, what our books say and what the departments took, for one day, movement by movement.
//!
//! The ledger stands in the middle. A payment or a refund of the channel's bill has its like in the ledger, and so has every settlement
//! in a department's file; what has none, or another amount or state, is a break with a type. Files are read as streams and sorted on
//! disk, so that memory is bounded whatever their length. What happened at the edge of the day is carried to the next before it counts.
//!
//! [`run`] does it over files, [`compare`] is the rule, pure. docs/reconciliation.md tells it to those who reconcile.

pub mod bill;
pub mod compare;
pub mod entry;
pub mod fee;
pub mod ledger;
mod sort;
pub mod source;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::civil::{Date, Time};

pub use bill::{Bill, BillError};
pub use compare::{Break, BreakKind, Day, Told, Totals};
pub use entry::{Entry, Money, Side, State, What};
pub use fee::Fee;

use sort::Sorter;

/// From then on a movement may stand in the other side's file of the day after.
pub const CUT_OFF: Time = Time::constant(23, 50, 0, 0);
/// Movements that are held in memory at once; the rest lies on disk.
const HELD_MAX: usize = 500_000;
/// Movements of one number; more is no accident of one movement.
const GROUP_MAX: usize = 1_000;
const PROGRESS: u64 = 1_000_000;

/// What is to be reconciled.
#[derive(Clone, Debug)]
pub struct Options {
    /// The day, in Beijing's time; that of the ledger export where none is told.
    pub day: Option<Date>,
    /// From then on a movement that one side alone has waits for the next day's files.
    pub cut_off: Time,
    /// Bills, ledger exports, settlement files, and what earlier days carried over; each is known by its first bytes.
    pub files: Vec<PathBuf>,
    /// Where what this day carries over is written.
    pub carry_to: Option<PathBuf>,
    /// Where runs are sorted; the system's temporary directory where none is told.
    pub scratch: Option<PathBuf>,
}

/// Reconciliation could not be done. Nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read as what it says it is.
    #[error("{}: {source}", path.display())]
    Bill {
        /// Which.
        path: PathBuf,
        /// Where in it, and why.
        source: BillError,
    },
    /// A file or the scratch space cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// Which, and for what.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A side is missing: everything would be a break.
    #[error(
        "no ledger export among the files: there is nothing to hold the bills against (lastmile ledger export makes one)"
    )]
    NoLedger,
    /// There is nothing to compare the ledger with.
    #[error("nothing but the ledger among the files: add a channel's bill or a department's settlement file")]
    LedgerAlone,
    /// The ledger exports are of several days.
    #[error("the ledger exports are of different days ({0} and {1}): say with --day which is to be reconciled")]
    Days(Date, Date),
    /// A bill has no row of the day.
    #[error("{}: has rows, and none of {day}: is it the bill of another day?", path.display())]
    OtherDay {
        /// Which.
        path: PathBuf,
        /// The day that is reconciled.
        day: Date,
    },
    /// A department's file, or a channel's in our form, says that it is of another day.
    #[error("{}: is of {says}, and {day} is reconciled: give the file of that day, or say with --day which is meant", path.display())]
    FileOfOtherDay {
        /// Which.
        path: PathBuf,
        /// The day that its first line names.
        says: Date,
        /// The day that is reconciled.
        day: Date,
    },
    /// The books cannot be read.
    #[error("the ledger cannot be read")]
    Store(#[from] store::Error),
    /// One number stands there too often.
    #[error("the {what} {number} stands there more than 1,000 times")]
    Crowded {
        /// Of what it is the number.
        what: What,
        /// Which.
        number: String,
    },
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::Io { what, source }
}

const SORTING: &str = "the scratch space for sorting";

/// Takes up movements in any order and compares them when all are there.
pub struct Matcher {
    sorter: Sorter,
    heard: BTreeSet<(Side, Arc<str>)>,
}

impl Matcher {
    /// Begins; what does not fit into memory is sorted in `scratch`.
    pub fn new(scratch: Option<&Path>) -> Self {
        Self { sorter: Sorter::new(scratch, HELD_MAX), heard: BTreeSet::new() }
    }

    /// Notes that all that a side has to tell is taken up.
    pub fn heard(&mut self, side: Side, party: Arc<str>) {
        self.heard.insert((side, party));
    }

    /// Takes up a movement.
    pub fn push(&mut self, entry: Entry) -> Result<(), Error> {
        self.sorter.push(entry).map_err(io(SORTING))
    }

    /// Compares, in the order of parties and numbers: `found` hears of every break, `carried` of what waits for the next day.
    pub fn finish(
        self,
        day: &Day,
        mut found: impl FnMut(Break) -> Result<(), Error>,
        mut carried: impl FnMut(Entry) -> Result<(), Error>,
    ) -> Result<Totals, Error> {
        let Self { sorter, heard } = self;
        let mut totals = Totals::default();
        let mut group: Vec<Entry> = Vec::new();
        let mut close = |group: &mut Vec<Entry>| -> Result<(), Error> {
            let outcome = compare::group(group, day, &heard, &mut totals);
            group.clear();
            outcome.breaks.into_iter().try_for_each(&mut found)?;
            outcome.carried.into_iter().try_for_each(&mut carried)
        };
        for entry in sorter.finish().map_err(io(SORTING))? {
            let entry = entry.map_err(io(SORTING))?;
            if group.first().is_some_and(|first| first.key() != entry.key()) {
                close(&mut group)?;
            }
            if group.len() == GROUP_MAX {
                return Err(Error::Crowded { what: entry.what, number: entry.number });
            }
            group.push(entry);
        }
        close(&mut group)?;
        Ok(totals)
    }
}

/// Reads all files and tells `found` of every break, in the order of their numbers; `told` hears of progress, in movements read.
///
/// Returns: the day, and what was compared, per side and movement.
/// Errors: a file that is cut, or whose own totals are not those of its rows; nothing is carried over then.
pub fn run(
    options: &Options,
    mut found: impl FnMut(&Break) -> std::io::Result<()>,
    mut told: impl FnMut(u64),
) -> Result<(Date, Totals), Error> {
    let mut matcher = Matcher::new(options.scratch.as_deref());
    let (mut read, mut day, mut has_ledger) = (0_u64, options.day, false);
    // The days of channels' bills, to be held against the day when that is known.
    let mut bills: Vec<(&Path, BTreeSet<Date>)> = Vec::new();
    // The days that others' files say they are of.
    let mut files: Vec<(&Path, Date)> = Vec::new();
    for path in &options.files {
        let in_file = |source| Error::Bill { path: path.clone(), source };
        let file = File::open(path).map_err(io(&path.display().to_string()))?;
        let bill = Bill::open(BufReader::new(file), options.scratch.as_deref()).map_err(in_file)?;
        let mut days = BTreeSet::new();
        for (side, party) in &bill.covers {
            if *side == Side::Ledger {
                has_ledger = true;
                match (options.day, day, bill.day) {
                    (None, Some(one), Some(other)) if one != other => return Err(Error::Days(one, other)),
                    (None, None, of_bill) => day = of_bill,
                    _ => {}
                }
            } else {
                matcher.heard(*side, Arc::clone(party));
            }
        }
        let is_bill = bill.day.is_none();
        // What is carried over is of another day, and covers nobody.
        let says = bill.day.filter(|_| bill.covers.iter().any(|(side, _)| *side != Side::Ledger));
        if let Some(day) = says {
            files.push((path, day));
        }
        for entry in bill {
            let entry = entry.map_err(in_file)?;
            // A bill has few days; more than two tell nothing more.
            if is_bill && (days.len() <= 2 || day == Some(entry.at.date())) {
                days.insert(entry.at.date());
            }
            matcher.push(entry)?;
            read = read.saturating_add(1);
            if read.is_multiple_of(PROGRESS) {
                told(read);
            }
        }
        if !days.is_empty() {
            bills.push((path, days));
        }
    }
    let Some(day) = day.filter(|_| has_ledger) else { return Err(Error::NoLedger) };
    if matcher.heard.is_empty() {
        return Err(Error::LedgerAlone);
    }
    if let Some((path, _)) = bills.iter().find(|(_, days)| days.len() <= 2 && !days.contains(&day)) {
        return Err(Error::OtherDay { path: path.to_path_buf(), day });
    }
    if let Some((path, says)) = files.iter().find(|(_, says)| *says != day) {
        return Err(Error::FileOfOtherDay { path: path.to_path_buf(), says: *says, day });
    }
    let mut carry = match &options.carry_to {
        None => None,
        Some(path) => Some(bill::movements::Writer::create(path, day, &[]).map_err(io(&path.display().to_string()))?),
    };
    let totals = matcher.finish(
        &Day::new(day, options.cut_off),
        |one| found(&one).map_err(io("the report")),
        |entry| match &mut carry {
            Some(carry) => carry.write(&entry).map_err(io("what is carried over")),
            None => Ok(()),
        },
    )?;
    if let Some(carry) = carry {
        carry.finish().map_err(io("what is carried over"))?;
    }
    Ok((day, totals))
}

/// Writes a break as one line of JSON.
pub fn write_json(out: &mut impl Write, one: &Break) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, one)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests;
