//! What a system remembers: one JSON object a line, written and synced before the change is answered, replayed at start.
//!
//! Appending is a push into memory under the caller's own lock, so that lines stand in the order of the state. Syncing is shared:
//! whoever waits first writes everything that is waiting.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::{Timestamp, watch};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How much may wait for the disk before further changes are refused.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// Where journals are kept.
#[derive(Clone, Debug)]
pub enum Place {
    /// Files `<system>.journal` in this directory.
    Directory(PathBuf),
    /// Memory that outlives the sandbox: a simulation keeps it over its hosts' crashes.
    Memory(Memory),
}

/// Journals in memory, by system.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<&'static str, Vec<u8>>>>);

/// One system's journal.
#[derive(Clone, Debug)]
pub(crate) struct Journal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    system: &'static str,
    waiting: Mutex<Waiting>,
    durable: watch::Sender<Durable>,
    /// Whoever holds it syncs for everybody; the others find their line synced when they get it.
    turn: tokio::sync::Mutex<()>,
    sink: Sink,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Durable {
    seq: u64,
    broken: bool,
}

#[derive(Debug)]
enum Sink {
    File { path: PathBuf, file: Mutex<File> },
    Memory(Memory),
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry<E> {
    /// From 1, without gaps.
    pub seq: u64,
    /// When, in microseconds since 1970 UTC.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: E,
}

/// The change cannot be remembered, so it must not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotKept {
    /// Too much waits for the disk. Nothing was changed.
    #[error("the journal is behind")]
    Behind,
    /// The disk refused. Nothing is answered any more until the next start.
    #[error("the journal is broken")]
    Broken,
}

/// A journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory cannot be used, or another process holds it.
    #[error("cannot open the journal {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line in the middle does not read: somebody else wrote here.
    #[error("line {line} of the journal of {system} does not read")]
    Line {
        /// Whose journal.
        system: &'static str,
        /// Which line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A sequence number is missing or doubled.
    #[error("line {line} of the journal of {system} is out of sequence")]
    Sequence {
        /// Whose journal.
        system: &'static str,
        /// Which line, from 1.
        line: usize,
    },
}

impl Journal {
    /// Opens a system's journal and returns what it holds. Synchronous: it belongs to the start. A torn last line is cut.
    pub(crate) fn open<E: DeserializeOwned>(
        place: &Place,
        system: &'static str,
    ) -> Result<(Self, Vec<Entry<E>>), OpenError> {
        let (sink, text) = match place {
            Place::Memory(memory) => {
                let text = memory.locked().entry(system).or_default().clone();
                (Sink::Memory(memory.clone()), text)
            }
            Place::Directory(directory) => {
                let path = directory.join(format!("{system}.journal"));
                let (file, text) = open_file(&path).map_err(|source| OpenError::File { path: path.clone(), source })?;
                (Sink::File { path, file: Mutex::new(file) }, text)
            }
        };
        let entries = read(system, &text)?;
        let last = entries.last().map_or(0, |entry| entry.seq);
        let waiting = Mutex::new(Waiting { last, bytes: Vec::new() });
        let durable = watch::Sender::new(Durable { seq: last, broken: false });
        Ok((Self(Arc::new(Shared { system, waiting, durable, turn: tokio::sync::Mutex::default(), sink })), entries))
    }

    /// Tells whether a change can be taken now. Call it before changing any state.
    pub(crate) fn ready(&self) -> Result<(), NotKept> {
        if self.0.durable.borrow().broken {
            return Err(NotKept::Broken);
        }
        let waits = locked(&self.0.waiting).bytes.len();
        if waits > WAITING_BYTES_MAX { Err(NotKept::Behind) } else { Ok(()) }
    }

    /// Adds a line. The caller holds the lock of its own state, so that the order is the state's.
    pub(crate) fn append<E: Serialize>(&self, at: Timestamp, event: E) {
        let mut waiting = locked(&self.0.waiting);
        let seq = waiting.last + 1;
        let line = match serde_json::to_vec(&Entry { seq, at, event }) {
            Ok(line) => line,
            Err(error) => return self.fail(&io::Error::other(error)),
        };
        waiting.last = seq;
        match &self.0.sink {
            Sink::File { .. } => {
                waiting.bytes.extend_from_slice(&line);
                waiting.bytes.push(b'\n');
            }
            Sink::Memory(memory) => {
                let mut journals = memory.locked();
                let bytes = journals.entry(self.0.system).or_default();
                bytes.extend_from_slice(&line);
                bytes.push(b'\n');
                self.0.durable.send_modify(|durable| durable.seq = seq);
            }
        }
    }

    /// Returns the number of the newest line, synced or not.
    pub(crate) fn last(&self) -> u64 {
        locked(&self.0.waiting).last
    }

    /// Waits until line `seq` is synced. Whoever answers from state that includes it waits here first.
    pub(crate) async fn durable(&self, seq: u64) -> Result<(), NotKept> {
        if self.synced(seq)? {
            return Ok(());
        }
        let _turn = self.0.turn.lock().await;
        if self.synced(seq)? {
            return Ok(());
        }
        let shared = self.0.clone();
        // A caller that goes away does not stop the write: the bytes left the queue with it.
        let synced = tokio::task::spawn_blocking(move || Self(shared).sync(seq)).await;
        synced.map_err(|_| NotKept::Broken)?
    }

    /// Returns the whole journal as it is synced.
    pub(crate) async fn text(&self) -> io::Result<Vec<u8>> {
        match &self.0.sink {
            Sink::Memory(memory) => Ok(memory.locked().get(self.0.system).cloned().unwrap_or_default()),
            Sink::File { path, .. } => {
                let _ = self.durable(self.last()).await;
                tokio::fs::read(path).await
            }
        }
    }

    /// Writes what waits, unless somebody did so while this call waited for the file.
    fn sync(&self, seq: u64) -> Result<(), NotKept> {
        let Sink::File { file, .. } = &self.0.sink else { return Ok(()) };
        let mut file = locked(file);
        if self.synced(seq)? {
            return Ok(());
        }
        let (last, bytes) = {
            let mut waiting = locked(&self.0.waiting);
            (waiting.last, std::mem::take(&mut waiting.bytes))
        };
        match file.write_all(&bytes).and_then(|()| file.sync_data()) {
            Ok(()) => {
                self.0.durable.send_modify(|durable| durable.seq = last);
                Ok(())
            }
            Err(error) => {
                self.fail(&error);
                Err(NotKept::Broken)
            }
        }
    }

    fn synced(&self, seq: u64) -> Result<bool, NotKept> {
        let durable = *self.0.durable.borrow();
        if durable.broken { Err(NotKept::Broken) } else { Ok(durable.seq >= seq) }
    }

    fn fail(&self, error: &io::Error) {
        tracing::error!(system = self.0.system, %error, "the journal cannot be written; the system stops answering");
        self.0.durable.send_modify(|durable| durable.broken = true);
    }
}

impl Memory {
    /// Returns a system's journal as text.
    pub fn text(&self, system: &str) -> Vec<u8> {
        self.locked().get(system).cloned().unwrap_or_default()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<&'static str, Vec<u8>>> {
        locked(&self.0)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens, locks and reads the file, cuts a torn last line and makes the file's existence durable.
fn open_file(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.try_lock().map_err(io::Error::from)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < text.len() {
        tracing::warn!(journal = %path.display(), bytes = text.len() - whole, "cut a torn last line");
        text.truncate(whole);
        file.set_len(u64::try_from(whole).unwrap_or(u64::MAX))?;
    }
    file.seek(SeekFrom::End(0))?;
    file.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok((file, text))
}

fn read<E: DeserializeOwned>(system: &'static str, text: &[u8]) -> Result<Vec<Entry<E>>, OpenError> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut entries = Vec::new();
    for (line, text) in (1..).zip(lines) {
        let entry: Entry<E> =
            serde_json::from_slice(text).map_err(|source| OpenError::Line { system, line, source })?;
        if entry.seq != u64::try_from(line).unwrap_or(u64::MAX) {
            return Err(OpenError::Sequence { system, line });
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event")]
    enum Event {
        Tick { n: u32 },
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    async fn fill(place: &Place, numbers: std::ops::Range<u32>) -> Vec<u32> {
        let (journal, entries) = Journal::open::<Event>(place, "test").expect("opens");
        for n in numbers {
            journal.append(at(i64::from(n)), Event::Tick { n });
        }
        journal.durable(journal.last()).await.expect("kept");
        entries.into_iter().map(|Entry { event: Event::Tick { n }, .. }| n).collect()
    }

    #[tokio::test]
    async fn what_was_synced_is_there_at_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        for place in [Place::Directory(directory.path().join("deep/er")), Place::Memory(Memory::default())] {
            assert_eq!(fill(&place, 0..3).await, Vec::<u32>::new());
            assert_eq!(fill(&place, 3..5).await, [0, 1, 2]);
            assert_eq!(fill(&place, 5..5).await, [0, 1, 2, 3, 4]);
        }
    }

    #[tokio::test]
    async fn a_torn_last_line_is_cut_and_a_bad_middle_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place::Directory(directory.path().into());
        let path = directory.path().join("test.journal");
        fill(&place, 0..2).await;
        let whole = std::fs::read(&path).expect("readable");
        std::fs::write(&path, [&whole[..], br#"{"seq":3,"at":2,"event":"Ti"#].concat()).expect("writable");
        assert_eq!(fill(&place, 2..3).await, [0, 1]);
        assert_eq!(fill(&place, 3..3).await, [0, 1, 2], "line 3 was written where the torn one was");

        let mut bad = whole.clone();
        bad[3] = b'?';
        std::fs::write(&path, &bad).expect("writable");
        assert!(matches!(Journal::open::<Event>(&place, "test"), Err(OpenError::Line { line: 1, .. })));
        std::fs::write(&path, [&whole[..], &whole[..]].concat()).expect("writable");
        assert!(matches!(Journal::open::<Event>(&place, "test"), Err(OpenError::Sequence { line: 3, .. })));
    }

    #[tokio::test]
    async fn a_second_holder_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place::Directory(directory.path().into());
        let first = Journal::open::<Event>(&place, "test").expect("opens");
        assert!(matches!(Journal::open::<Event>(&place, "test"), Err(OpenError::File { .. })));
        drop(first);
        Journal::open::<Event>(&place, "test").expect("free again");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_writers_share_syncs_and_lose_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place::Directory(directory.path().into());
        let (journal, _) = Journal::open::<Event>(&place, "test").expect("opens");
        let mut writers = tokio::task::JoinSet::new();
        for n in 0..200 {
            let journal = journal.clone();
            writers.spawn(async move {
                journal.append(at(0), Event::Tick { n });
                journal.durable(journal.last()).await
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer.expect("ran").expect("kept");
        }
        drop(journal);
        let mut numbers = fill(&place, 0..0).await;
        numbers.sort_unstable();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    }
}
