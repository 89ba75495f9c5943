//! Values that must not be seen.
//!
//! A [`Secret`] is a key, token or password; a [`Pii`] is what identifies a person. Neither can be printed, formatted or logged:
//! reading one takes a call to `expose`, which a review can find. Private keys live in files that only their owner can read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

const HIDDEN: &str = "***";
const KEY_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A key, token or password. Prints and serialises as `***`; its memory is overwritten when it is dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

/// A value that identifies a person: name, document number, plate, phone. Prints as `***`; overwritten when dropped.
///
/// It has no serialisation on purpose: what leaves the process is decided field by field.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pii<T: Zeroize>(T);

macro_rules! hidden {
    ($name:ident) => {
        impl<T: Zeroize> $name<T> {
            /// Hides a value.
            pub fn new(value: T) -> Self {
                Self(value)
            }

            /// Shows the value, for the one place that must see it.
            pub fn expose(&self) -> &T {
                &self.0
            }
        }

        impl<T: Zeroize> From<T> for $name<T> {
            fn from(value: T) -> Self {
                Self(value)
            }
        }

        impl<T: Zeroize> Drop for $name<T> {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl<T: Zeroize> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(HIDDEN)
            }
        }

        impl<'de, T: Zeroize + Deserialize<'de>> Deserialize<'de> for $name<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // The library's own message may quote the value.
                T::deserialize(deserializer).map(Self).map_err(|_| D::Error::custom("hidden value of a wrong type"))
            }
        }
    };
}

hidden!(Secret);
hidden!(Pii);

impl<T: Zeroize> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<T: Zeroize> JsonSchema for Secret<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// A private file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Others than the owner can read it.
    #[error("{} is open to others (mode {mode:04o}): run chmod 600 on it", path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no plain file, or larger than a key can be.
    #[error("{} is not a key file: not a regular file of at most 1 MiB", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot use key file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads a private key file.
///
/// Errors: `TooOpen` when group or world may read or write it, `NotAKey`, `Io`.
pub fn read_private(path: &Path) -> Result<Secret<Vec<u8>>, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() || meta.len() > KEY_FILE_BYTES_MAX {
        return Err(KeyFileError::NotAKey { path: path.to_owned() });
    }
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::TooOpen { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
    Ok(Secret(bytes))
}

/// Reads a private key file that is text (PEM).
///
/// Errors: as [`read_private`]; `NotAKey` when it is not UTF-8.
pub fn read_private_text(path: &Path) -> Result<Secret<String>, KeyFileError> {
    let bytes = read_private(path)?;
    let text = std::str::from_utf8(bytes.expose()).map_err(|_| KeyFileError::NotAKey { path: path.to_owned() })?;
    Ok(Secret(text.to_owned()))
}

/// Creates a private key file with mode 0600 and syncs it and its directory; the directory is made (0700) where it is missing.
///
/// Errors: `Io` with `AlreadyExists` when there is such a file: a key is never overwritten.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private_dir(parent).map_err(io)?;
    // Written whole under another name first: a crash leaves no half key behind.
    let draft = parent.join(format!(".{}.draft", path.file_name().unwrap_or_default().to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(io)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(io)?;
    linked.map_err(io)?;
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io)
}

/// Creates a directory that only its owner can enter; an existing one stays as it is.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_values_print_nothing() {
        let secret = Secret::new("hunter2".to_owned());
        let person = Pii::new("Zhang San".to_owned());
        assert_eq!(format!("{secret:?} {person:?}"), "*** ***");
        assert_eq!(serde_json::to_string(&secret).expect("serialises"), "\"***\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_bad_value_is_not_quoted_by_the_error() {
        let error = serde_json::from_str::<Secret<Vec<u8>>>("\"hunter2\"").expect_err("wrong type");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys/one.pem");
        create_private(&path, b"first").expect("creates");
        let mode = fs::metadata(&path).expect("exists").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(matches!(
            create_private(&path, b"second"),
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists
        ));
        assert_eq!(read_private(&path).expect("reads").expose(), b"first");
        assert_eq!(fs::read_dir(dir.path().join("keys")).expect("lists").count(), 1, "no draft stays behind");
    }

    #[test]
    fn a_key_file_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("open.pem");
        create_private(&path, b"key").expect("creates");
        for mode in [0o640, 0o604, 0o620, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            let refused = read_private(&path).expect_err("refused");
            assert!(matches!(refused, KeyFileError::TooOpen { mode: found, .. } if found == mode));
            assert!(refused.to_string().contains("chmod 600"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("chmod");
        assert!(read_private(&path).is_ok());
        assert!(matches!(read_private(dir.path()), Err(KeyFileError::NotAKey { .. })));
    }
}
