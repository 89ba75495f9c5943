//! Reconciliation: what the channel took, what our books say and what the departments took, for one day, movement by movement.
//!
//! The ledger stands in the middle. A payment or a refund of the channel's bill has its like in the ledger, and so has every settlement
//! in a department's file; what has none, or another amount or state, is a break with a type. Files are read as streams and sorted on
//! disk, so that memory is bounded whatever their length. What happened at the edge of the day is carried to the next before it counts.
//!
//! [`run`] does it over files, [`compare`] is the rule, pure.

pub mod bill;
pub mod compare;
pub mod entry;
mod sort;

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use jiff::civil::Date;

pub use bill::BillError;
pub use compare::{Break, BreakKind, Edge, Totals};
pub use entry::{Entry, Money, Side, State, What};

use bill::Bill;
use sort::Sorter;

/// Movements that are held in memory at once; the rest lies on disk.
const HELD_MAX: usize = 500_000;

/// What is to be reconciled.
#[derive(Clone, Debug)]
pub struct Options {
    /// The day, in Beijing's time.
    pub day: Date,
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
    #[error("{path}: {source}")]
    Bill {
        /// Which.
        path: PathBuf,
        /// Where in it, and why.
        source: BillError,
    },
    /// A file or the scratch space cannot be used.
    #[error("{what}")]
    Io {
        /// Which, and for what.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A side is missing: everything would be a break.
    #[error("no ledger export among the files: there is nothing to hold the bills against")]
    NoLedger,
}

/// Reads all files and tells `found` of every break, in the order of their numbers; `told` hears of progress, in movements read.
///
/// Returns: what was compared, per side and movement.
/// Errors: a file that is cut, or whose own totals are not those of its rows.
pub fn run(
    options: &Options,
    mut found: impl FnMut(&Break) -> std::io::Result<()>,
    mut told: impl FnMut(u64),
) -> Result<Totals, Error> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| Error::Io { what, source }
    };
    let mut sorter = Sorter::new(options.scratch.as_deref(), HELD_MAX);
    let mut read = 0_u64;
    let mut has_ledger = false;
    for path in &options.files {
        let in_file = |source| Error::Bill { path: path.clone(), source };
        for entry in open(path)? {
            let entry = entry.map_err(in_file)?;
            has_ledger |= entry.side == Side::Ledger;
            sorter.push(entry).map_err(io("the sorting of what was read"))?;
            read = read.saturating_add(1);
            if read.is_multiple_of(1_000_000) {
                told(read);
            }
        }
    }
    if !has_ledger {
        return Err(Error::NoLedger);
    }
    let mut carry = match &options.carry_to {
        None => None,
        Some(path) => Some(bill::movements::Writer::create(path, options.day).map_err(io(&path.display().to_string()))?),
    };
    let (mut totals, edge) = (Totals::default(), Edge::of(options.day));
    let mut group: Vec<Entry> = Vec::new();
    let mut close = |group: &mut Vec<Entry>| -> Result<(), Error> {
        let outcome = compare::group(group, &edge, &mut totals);
        for one in &outcome.breaks {
            found(one).map_err(io("the report"))?;
        }
        if let Some(carry) = &mut carry {
            outcome.carried.iter().try_for_each(|entry| carry.write(entry)).map_err(io("what is carried over"))?;
        }
        group.clear();
        Ok(())
    };
    for entry in sorter.finish().map_err(io("the sorting of what was read"))? {
        let entry = entry.map_err(io("the sorting of what was read"))?;
        if group.first().is_some_and(|first| first.key() != entry.key()) {
            close(&mut group)?;
        }
        group.push(entry);
    }
    if !group.is_empty() {
        close(&mut group)?;
    }
    if let Some(carry) = carry {
        carry.finish().map_err(io("what is carried over"))?;
    }
    Ok(totals)
}

fn open(path: &Path) -> Result<Bill, Error> {
    let file = File::open(path).map_err(|source| Error::Io { what: path.display().to_string(), source })?;
    Bill::open(BufReader::new(file)).map_err(|source| Error::Bill { path: path.to_owned(), source })
}

/// Writes a break as one line of JSON.
pub fn write_json(out: &mut impl Write, one: &Break) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, one)?;
    out.write_all(b"\n")
}
