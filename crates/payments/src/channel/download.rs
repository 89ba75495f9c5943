//! Files that a channel gives: they come in pieces, are unpacked where they are packed, and stand under their name only when they are whole.
//! They may be of any size; what is held in memory is a few pieces.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use bytes::Bytes;
use flate2::write::GzDecoder;
use runtime::http::Flow;
use tokio::sync::mpsc;

use super::ChannelError;

/// Pieces that wait for the disk.
const PIECES_MAX: usize = 8;
const SHA1: &digest::Algorithm = &digest::SHA1_FOR_LEGACY_USE_ONLY;

/// A file that has come whole and is not yet taken for good. Dropped, it is gone.
pub(super) struct Part {
    path: PathBuf,
    size: usize,
    /// Of what was unpacked, hexadecimal.
    pub(super) sha1: String,
}

impl Part {
    /// Gives the file its name; hands back its bytes.
    pub(super) async fn place(self, file: &Path) -> Result<u64, ChannelError> {
        tokio::fs::rename(&self.path, file).await.map_err(|error| broken(error.into()))?;
        Ok(u64::try_from(self.size).unwrap_or(u64::MAX))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Where it has its name, there is nothing left.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes what flows in beside `file`, readable by its owner alone; more than `size_max` bytes are refused, however little they were packed.
///
/// Errors: NoAnswer with effect NONE; nothing is left then.
pub(super) async fn keep(mut flow: Flow, file: &Path, size_max: usize, packed: bool) -> Result<Part, ChannelError> {
    let (pieces, waiting) = mpsc::channel(PIECES_MAX);
    let mut part = Part { path: beside(file), size: 0, sha1: String::new() };
    let writing = tokio::task::spawn_blocking({
        let path = part.path.clone();
        move || write(waiting, &path, size_max, packed)
    });
    let mut failed = None;
    while let Some(chunk) = flow.next().await {
        let piece = chunk.map_err(|error| {
            failed = Some(broken(error.into()));
            Cut
        });
        let is_cut = piece.is_err();
        // Where the writer is gone, it says why.
        if pieces.send(piece).await.is_err() || is_cut {
            break;
        }
    }
    drop(pieces);
    let written = writing.await.map_err(io::Error::other).flatten();
    match (failed, written) {
        (Some(failed), _) => Err(failed),
        (None, Err(error)) => Err(broken(error.into())),
        (None, Ok((size, sha1))) => {
            (part.size, part.sha1) = (size, sha1);
            Ok(part)
        }
    }
}

/// The file did not come to its end.
struct Cut;

fn write(
    mut pieces: mpsc::Receiver<Result<Bytes, Cut>>,
    path: &Path,
    size_max: usize,
    packed: bool,
) -> io::Result<(usize, String)> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let sink = Sink { file: BufWriter::new(file), hash: digest::Context::new(SHA1), size: 0, size_max };
    let mut inlet = if packed { Inlet::Packed(Box::new(GzDecoder::new(sink))) } else { Inlet::Plain(sink) };
    while let Some(piece) = pieces.blocking_recv() {
        let piece = piece.map_err(|Cut| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match &mut inlet {
            Inlet::Packed(unpacked) => unpacked.write_all(&piece)?,
            Inlet::Plain(sink) => sink.write_all(&piece)?,
        }
    }
    let Sink { file, hash, size, .. } = match inlet {
        Inlet::Packed(unpacked) => unpacked.finish()?,
        Inlet::Plain(sink) => sink,
    };
    file.into_inner()?.sync_all()?;
    Ok((size, hex::encode(hash.finish())))
}

enum Inlet {
    Packed(Box<GzDecoder<Sink>>),
    Plain(Sink),
}

/// Writes, hashes and counts.
struct Sink {
    file: BufWriter<File>,
    hash: digest::Context,
    size: usize,
    size_max: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size = self
            .size
            .checked_add(bytes.len())
            .filter(|size| *size <= self.size_max)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where a file stands until it is whole.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// A file moves no money: to ask for it again is always safe.
pub(super) fn broken(source: Box<dyn std::error::Error + Send + Sync>) -> ChannelError {
    ChannelError::NoAnswer { effect: runtime::http::Effect::None, what: "bill", source: Some(source) }
}
