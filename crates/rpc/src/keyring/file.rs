//! The last list on disk: public keys only, but whoever can change them can forge tokens, so the file is its owner's alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use contracts::identity::v1::{self as proto, ListKeysResponse};
use runtime::{Timestamp, secret};
use serde::{Deserialize, Serialize};

use super::Keys;

const FORMAT: u32 = 1;
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a file held.
pub(super) struct Saved {
    pub(super) keys: Keys,
    pub(super) saved_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    version: i64,
    saved_at_micros: Timestamp,
    keys: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    owner: String,
    key_use: i32,
    jwk_json: String,
    created_micros: Timestamp,
}

/// Reads the list. A missing file is a first start; a damaged one is as good as none, because identity has the truth.
pub(super) fn load(path: &Path) -> Option<Saved> {
    match read(path) {
        Ok(saved) => Some(saved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the kept key list cannot be read; starting without");
            None
        }
    }
}

fn read(path: &Path) -> io::Result<Saved> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("longer than 16 MiB"));
    }
    // A file that others can write is refused like a private key that others can read.
    let bytes = secret::read_private(path).map_err(io::Error::other)?;
    let document: Document = serde_json::from_slice(bytes.expose())?;
    if document.format != FORMAT {
        return Err(io::Error::other("of another format"));
    }
    let keys = document.keys.into_iter().map(|entry| proto::Key {
        owner: entry.owner,
        r#use: entry.key_use,
        jwk_json: entry.jwk_json,
        create_time: Some(crate::time::to_proto(entry.created_micros)),
    });
    let answer = ListKeysResponse { keys: keys.collect(), version: document.version };
    Ok(Saved { keys: Keys::read(&answer), saved_at: document.saved_at_micros })
}

/// Writes the list under another name first, so that a reader finds the old list or the new one whole.
pub(super) fn save(path: &Path, keys: &Keys, now: Timestamp) -> io::Result<()> {
    let entries = keys.iter().map(|key| {
        let proto = key.to_proto();
        Entry { owner: proto.owner, key_use: proto.r#use, jwk_json: proto.jwk_json, created_micros: key.created }
    });
    let document = Document { format: FORMAT, version: keys.version(), saved_at_micros: now, keys: entries.collect() };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    secret::create_private_dir(parent)?;
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&serde_json::to_vec(&document)?)?;
    fs::rename(&draft, path)
}
