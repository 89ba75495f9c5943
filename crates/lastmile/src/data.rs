//! The data directory: private, and used by one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use runtime::secret;

const LOCK_FILE: &str = "lastmile.lock";
const PID_BYTES_MAX: u64 = 20;

/// The data directory while this process owns it. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing and takes its lock.
    ///
    /// Errors: another process has it, or the file system refuses.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let named = || format!("data directory {}", path.display());
        secret::create_private_dir(path).with_context(named)?;
        let file = path.join(LOCK_FILE);
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file).with_context(named)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner =
                    owner(&mut lock).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                bail!("{} is in use by {owner}: stop it, or set data.directory to another place", named());
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(named),
        }
        write_owner(&mut lock).with_context(named)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Tells which process uses the data directory: none, one without a number, or that one.
pub fn user_of(path: &Path) -> Option<String> {
    let mut lock = OpenOptions::new().read(true).open(path.join(LOCK_FILE)).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(owner(&mut lock).unwrap_or_else(|| "unknown".to_owned())),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn owner(lock: &mut File) -> Option<String> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    let pid = text.trim();
    (!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())).then(|| pid.to_owned())
}

fn write_owner(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_and_told_who_is_first() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("var");
        assert_eq!(user_of(&path), None);
        let first = DataDir::open(&path).expect("opens");
        assert_eq!(first.path(), path);
        let refused = DataDir::open(&path).expect_err("refused").to_string();
        let pid = std::process::id().to_string();
        assert!(refused.contains(&format!("in use by process {pid}")), "{refused}");
        assert_eq!(user_of(&path), Some(pid));
        drop(first);
        assert_eq!(user_of(&path), None);
        DataDir::open(&path).expect("opens again");
    }
}
