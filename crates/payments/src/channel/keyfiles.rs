//! Keys that are replaced while the service runs: by new files under the same names.
//!
//! Whoever needs a key asks here for it, and every few seconds that looks at the files. When one of them is another than before, all are
//! read anew. What can be used takes the place of what was there, which stays good for a while: the other side may still sign with it.
//! What cannot be used changes nothing; the log and a metric say so, and it is tried again until it can.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::telemetry::{Gauge, Labels};
use runtime::{Clock, Context, Timestamp};

use super::keys::KeyError;
use crate::config;

/// More that were replaced and are still good are not kept: somebody is playing with the files.
const REPLACED_MAX: usize = 3;

/// What is read from one or several files that belong together.
pub(crate) struct KeyFiles<T> {
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, KeyError> + Send + Sync>,
    rules: config::KeyFiles,
    clock: Clock,
    unusable: Gauge,
    held: Mutex<Held<T>>,
}

struct Held<T> {
    current: Arc<T>,
    /// What it replaced, the newest first, and until when each is good.
    replaced: Vec<(Arc<T>, Timestamp)>,
    /// How the files looked when `current` was read.
    marks: Vec<Mark>,
    /// How they looked when they could not be used.
    failed: Option<Vec<Mark>>,
    looked_at: Timestamp,
}

/// What tells one content of a file from another, without reading it: inode, size, seconds and nanoseconds of its last change.
type Mark = Option<(u64, u64, i64, i64)>;

impl<T> KeyFiles<T> {
    /// Reads `files` for the first time, with `read`, which reads all of them.
    ///
    /// Errors: what `read` says.
    pub(crate) fn open(
        channel: &'static str,
        files: Vec<PathBuf>,
        rules: config::KeyFiles,
        context: &Context,
        read: impl Fn() -> Result<T, KeyError> + Send + Sync + 'static,
    ) -> Result<Self, KeyError> {
        let unusable = context.metrics.gauge(
            "lastmile_payments_unusable_key_files",
            "Sets of key files that were replaced and cannot be used; the keys before them still serve. By channel.",
        );
        // Looked at before they are read: a change in between is found by the next look.
        let marks = marks(&files);
        let held = Held {
            current: Arc::new(read()?),
            replaced: Vec::new(),
            marks,
            failed: None,
            looked_at: context.clock.now(),
        };
        let unusable = unusable.get_or_create(&Labels::from([("channel", channel.into())])).clone();
        Ok(Self { files, read: Box::new(read), rules, clock: context.clock.clone(), unusable, held: Mutex::new(held) })
    }

    /// What the files hold, to sign with.
    pub(crate) fn current(&self) -> Arc<T> {
        Arc::clone(&self.looked().current)
    }

    /// Everything that is good now, to verify with: what the files hold, and what they held a while ago.
    pub(crate) fn good(&self) -> Vec<Arc<T>> {
        let held = self.looked();
        let replaced = held.replaced.iter().map(|(keys, _)| keys);
        std::iter::once(&held.current).chain(replaced).map(Arc::clone).collect()
    }

    fn looked(&self) -> MutexGuard<'_, Held<T>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        held.replaced.retain(|(_, until)| now < *until);
        // A clock that was set back must not put the looks off.
        if now < held.looked_at || now.since(held.looked_at) >= self.rules.look_every.get() {
            held.looked_at = now;
            self.look(&mut held, now);
        }
        held
    }

    fn look(&self, held: &mut Held<T>, now: Timestamp) {
        let marks = marks(&self.files);
        if marks == held.marks {
            if held.failed.take().is_some() {
                self.unusable.dec();
            }
            return;
        }
        match (self.read)() {
            Ok(keys) => {
                let before = std::mem::replace(&mut held.current, Arc::new(keys));
                held.replaced.insert(0, (before, now.plus(self.rules.overlap.get())));
                held.replaced.truncate(REPLACED_MAX);
                held.marks = marks;
                if held.failed.take().is_some() {
                    self.unusable.dec();
                }
                tracing::info!(files = ?self.files, "new keys are in use");
            }
            Err(error) => {
                // Said once for each state that the files are in, tried again at every look.
                if held.failed.as_ref() != Some(&marks) {
                    tracing::error!(files = ?self.files, %error, "replaced key files cannot be used; the keys before them still serve");
                }
                if held.failed.replace(marks).is_none() {
                    self.unusable.inc();
                }
            }
        }
    }
}

fn marks(files: &[PathBuf]) -> Vec<Mark> {
    files.iter().map(|file| mark(file)).collect()
}

fn mark(file: &Path) -> Mark {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use runtime::config::Duration as Span;

    use super::*;

    const EPOCH: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
    const RULES: config::KeyFiles = config::KeyFiles { look_every: Span::from_secs(5), overlap: Span::from_secs(60) };

    /// A file with one word in it, which must not be empty, and a clock.
    struct Stage {
        dir: tempfile::TempDir,
        hand: runtime::clock::ManualClock,
        keys: KeyFiles<String>,
    }

    fn stage() -> Stage {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("key");
        fs::write(&file, "one").expect("writes");
        let (clock, hand) = Clock::manual(EPOCH);
        let context = Context { clock, ..Context::system() };
        let read = {
            let file = file.clone();
            move || {
                let text = fs::read_to_string(&file).unwrap_or_default();
                (!text.is_empty()).then_some(text).ok_or_else(|| KeyError::Seal { path: file.clone() })
            }
        };
        let keys = KeyFiles::open("test", vec![file], RULES, &context, read).expect("opens");
        Stage { dir, hand, keys }
    }

    impl Stage {
        /// Puts another file in its place, as a rename does, and passes the time until the next look.
        fn replace(&self, text: &str) {
            let new = self.dir.path().join("new");
            fs::write(&new, text).expect("writes");
            fs::rename(&new, self.dir.path().join("key")).expect("renames");
            self.hand.advance(Duration::from_secs(5));
        }

        fn good(&self) -> Vec<String> {
            self.keys.good().iter().map(|keys| keys.as_ref().clone()).collect()
        }
    }

    #[test]
    fn a_new_file_is_taken_up_and_the_old_one_is_good_for_the_overlap() {
        let stage = stage();
        assert_eq!(stage.good(), ["one"]);
        stage.replace("two");
        assert_eq!((stage.keys.current().as_str(), stage.good()), ("two", vec!["two".to_owned(), "one".to_owned()]));
        stage.hand.advance(Duration::from_secs(59));
        assert_eq!(stage.good(), ["two", "one"]);
        stage.hand.advance(Duration::from_secs(1));
        assert_eq!(stage.good(), ["two"]);
    }

    #[test]
    fn files_are_looked_at_only_every_so_often_also_when_the_clock_goes_back() {
        let stage = stage();
        stage.replace("two");
        stage.hand.set(EPOCH.plus(Duration::from_secs(4)));
        assert_eq!(stage.keys.current().as_str(), "one");
        stage.hand.set(EPOCH.minus(Duration::from_secs(3_600)));
        assert_eq!(stage.keys.current().as_str(), "two");
    }

    #[test]
    fn a_broken_or_missing_file_leaves_what_was_there_and_is_counted_until_it_is_mended() {
        let stage = stage();
        stage.replace("");
        assert_eq!((stage.good(), stage.keys.unusable.get()), (vec!["one".to_owned()], 1));
        fs::remove_file(stage.dir.path().join("key")).expect("removes");
        stage.hand.advance(Duration::from_secs(5));
        assert_eq!((stage.good(), stage.keys.unusable.get()), (vec!["one".to_owned()], 1), "counted once");
        stage.replace("three");
        assert_eq!((stage.keys.current().as_str(), stage.keys.unusable.get()), ("three", 0));
    }

    #[test]
    fn only_so_many_are_good_at_once() {
        let stage = stage();
        for text in ["two", "three", "four", "five"] {
            stage.replace(text);
            stage.keys.current();
        }
        assert_eq!(stage.good(), ["five", "four", "three", "two"]);
    }
}
