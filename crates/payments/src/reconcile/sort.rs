//! Sorting more than fits into memory: sorted runs on disk, merged.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::civil::{Date, DateTime, Time};

use super::entry::{Entry, Money, Side, State, What};

/// The buffer that each run has while it is merged.
const BUFFER_BYTES: usize = 256 * 1024;
const NUMBER_BYTES_MAX: usize = 255;
const WHATS: [What; 3] = [What::Payment, What::Refund, What::Settlement];
const SIDES: [Side; 3] = [Side::Channel, Side::Ledger, Side::Department];
const STATES: [State; 4] = [State::Done, State::Pending, State::Undone, State::Asked];

/// Takes entries in any order.
pub(super) struct Sorter {
    scratch: Option<PathBuf>,
    held_max: usize,
    held: Vec<Entry>,
    runs: Vec<File>,
    /// There are few; a run names them by their places.
    parties: Vec<Arc<str>>,
}

impl Sorter {
    pub(super) fn new(scratch: Option<&Path>, held_max: usize) -> Self {
        Self { scratch: scratch.map(Path::to_owned), held_max, held: Vec::new(), runs: Vec::new(), parties: Vec::new() }
    }

    pub(super) fn push(&mut self, entry: Entry) -> io::Result<()> {
        if self.held.len() == self.held_max {
            self.spill()?;
        }
        self.held.push(entry);
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.held.sort_unstable_by(order);
        // Without a name: it is gone with the process, however that ends.
        let run = match &self.scratch {
            Some(directory) => tempfile::tempfile_in(directory)?,
            None => tempfile::tempfile()?,
        };
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, run);
        for entry in self.held.drain(..) {
            let known = self.parties.iter().position(|party| *party == entry.party);
            let place = known.unwrap_or_else(|| {
                self.parties.push(Arc::clone(&entry.party));
                self.parties.len().saturating_sub(1)
            });
            write(&mut out, &entry, place)?;
        }
        let mut run = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        run.rewind()?;
        self.runs.push(run);
        Ok(())
    }

    /// All entries, in order.
    pub(super) fn finish(mut self) -> io::Result<Sorted> {
        if self.runs.is_empty() {
            self.held.sort_unstable_by(order);
            return Ok(Sorted::Held(self.held.into_iter()));
        }
        self.spill()?;
        let mut runs: Vec<_> = self.runs.into_iter().map(|run| BufReader::with_capacity(BUFFER_BYTES, run)).collect();
        let mut heads = BinaryHeap::new();
        for (index, run) in runs.iter_mut().enumerate() {
            if let Some(entry) = read(run, &self.parties)? {
                heads.push(Reverse(First { entry, run: index }));
            }
        }
        Ok(Sorted::Merged { runs, heads, parties: self.parties })
    }
}

/// By key, then by side, then so that the same entries come in the same order whatever the files' order was.
fn order(one: &Entry, other: &Entry) -> Ordering {
    let by =
        |entry: &Entry| (entry.side, entry.age_days, entry.at, entry.amount.minor, entry.amount.currency, entry.state);
    one.key().cmp(&other.key()).then_with(|| by(one).cmp(&by(other)))
}

/// The first entry of a run.
pub(super) struct First {
    entry: Entry,
    run: usize,
}

impl Ord for First {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.entry, &other.entry).then(self.run.cmp(&other.run))
    }
}

impl PartialOrd for First {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for First {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for First {}

/// Entries in order.
pub(super) enum Sorted {
    Held(std::vec::IntoIter<Entry>),
    Merged { runs: Vec<BufReader<File>>, heads: BinaryHeap<Reverse<First>>, parties: Vec<Arc<str>> },
}

impl Iterator for Sorted {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Held(held) => held.next().map(Ok),
            Self::Merged { runs, heads, parties } => {
                let Reverse(First { entry, run }) = heads.pop()?;
                match runs.get_mut(run).map(|run| read(run, parties)).transpose() {
                    Ok(next) => {
                        heads.extend(next.flatten().map(|entry| Reverse(First { entry, run })));
                        Some(Ok(entry))
                    }
                    Err(error) => Some(Err(error)),
                }
            }
        }
    }
}

fn write(out: &mut impl Write, entry: &Entry, party: usize) -> io::Result<()> {
    let number = entry.number.as_bytes();
    let too_much = |_| io::Error::other("a number of more than 255 bytes, or more than 65,536 parties");
    let length = u8::try_from(number.len()).map_err(too_much)?;
    let party = u16::try_from(party).map_err(too_much)?;
    let what = place(&WHATS, &entry.what);
    out.write_all(&[length, what, place(&SIDES, &entry.side), place(&STATES, &entry.state)])?;
    out.write_all(number)?;
    out.write_all(&party.to_le_bytes())?;
    out.write_all(&entry.amount.currency)?;
    out.write_all(&entry.amount.minor.to_le_bytes())?;
    out.write_all(&entry.at.date().year().to_le_bytes())?;
    let [month, day] = [entry.at.month(), entry.at.day()];
    let [hour, minute, second] = [entry.at.hour(), entry.at.minute(), entry.at.second()];
    for part in [month, day, hour, minute, second] {
        out.write_all(&part.to_le_bytes())?;
    }
    out.write_all(&entry.age_days.to_le_bytes())
}

fn place<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|each| each == one).and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

/// None at the end of a run.
fn read(run: &mut BufReader<File>, parties: &[Arc<str>]) -> io::Result<Option<Entry>> {
    let mut length = [0; 1];
    if run.read(&mut length)? == 0 {
        return Ok(None);
    }
    let [what, side, state] = array(run)?.map(usize::from);
    let mut number = [0; NUMBER_BYTES_MAX];
    let number = number.get_mut(..usize::from(length[0])).unwrap_or_default();
    run.read_exact(number)?;
    let broken = || io::Error::other("a run was changed while it was sorted");
    let number = str::from_utf8(number).map_err(|_| broken())?.to_owned();
    let party = parties.get(usize::from(u16::from_le_bytes(array(run)?))).cloned().ok_or_else(broken)?;
    let what = WHATS.get(what).copied().ok_or_else(broken)?;
    let side = SIDES.get(side).copied().ok_or_else(broken)?;
    let state = STATES.get(state).copied().ok_or_else(broken)?;
    let currency = array(run)?;
    let minor = i64::from_le_bytes(array(run)?);
    let year = i16::from_le_bytes(array(run)?);
    let [month, day, hour, minute, second] = array::<5>(run)?.map(|byte| i8::from_le_bytes([byte]));
    let date = Date::new(year, month, day).map_err(|_| broken())?;
    let time = Time::new(hour, minute, second, 0).map_err(|_| broken())?;
    let age_days = u16::from_le_bytes(array(run)?);
    let at = DateTime::from_parts(date, time);
    Ok(Some(Entry { what, party, number, side, amount: Money { minor, currency }, state, at, age_days }))
}

fn array<const LENGTH: usize>(run: &mut impl Read) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    run.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let of = (0..3_usize, 0..3_usize, 0..4_usize, 0..3_usize);
        let one = (of, "[a-c]{0,3}", 0..3_i64, 0..86_400_i64, 0..3_u16).prop_map(
            |((what, side, state, party), number, minor, second, age_days)| Entry {
                what: WHATS[what],
                party: ["wechatpay", "alipay", "traffic-430100"][party].into(),
                number,
                side: SIDES[side],
                amount: Money { minor, currency: *b"CNY" },
                state: STATES[state],
                at: jiff::civil::date(2026, 11, 22).at(0, 0, 0, 0) + jiff::Span::new().seconds(second),
                age_days,
            },
        );
        proptest::collection::vec(one, 0..200)
    }

    proptest! {
        #[test]
        fn what_was_on_disk_comes_as_what_was_in_memory(entries in entries(), held_max in 1..50_usize) {
            let sorted = |held_max| {
                let mut sorter = Sorter::new(None, held_max);
                entries.iter().for_each(|entry| sorter.push(entry.clone()).expect("takes it"));
                let sorted = sorter.finish().expect("sorts");
                sorted.map(|entry| entry.expect("reads")).collect::<Vec<_>>()
            };
            let (disk, memory) = (sorted(held_max), sorted(usize::MAX));
            prop_assert_eq!(disk.len(), entries.len());
            prop_assert!(disk.is_sorted_by(|one, other| order(one, other) != Ordering::Greater));
            prop_assert_eq!(disk, memory);
        }
    }
}
