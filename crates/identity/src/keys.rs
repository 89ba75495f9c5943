//! Identity's own private keys: what signs tokens, what opens real-name assertions, and the pepper.
//!
//! Several of a kind may lie in the directory, numbered: `sign-1.pem`, `sign-2.pem`. The one with the highest number works, all others
//! stay for what they have signed and for what is still sealed for them. To rotate, put the next number beside them
//! (`openssl genpkey -algorithm ed25519 -out sign-2.pem; chmod 600 sign-2.pem`) and restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use rpc::jose::{self, AgreementKey, Curve, JweError, KeyError, SigningKey, VerifyingKey};
use rpc::keyring::OwnKey;
use runtime::Ids;
use runtime::secret::{KeyFileError, Secret, create_private, create_private_dir, read_private_text};
use zeroize::Zeroize;

use crate::domain::person::Pepper;

/// The owner under which identity's keys are registered.
pub const OWNER: &str = "identity";

const SIGN: &str = "sign-";
const SEAL_X25519: &str = "seal-x25519-";
const SEAL_P256: &str = "seal-p256-";
const SUFFIX: &str = ".pem";
const PEPPER: &str = "pepper";
const PEPPER_BYTES: usize = 32;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The directory cannot be read or made.
    #[error("cannot use the key directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key cannot be read or made.
    #[error("cannot use the key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The pepper cannot be read or made.
    #[error("cannot use the pepper")]
    Pepper(#[source] KeyFileError),
    /// The pepper is not 64 hexadecimal digits.
    #[error("the pepper {} is not 64 hexadecimal digits", path.display())]
    PepperFormat {
        /// The file.
        path: PathBuf,
    },
}

/// Reads which pepper a directory holds; `None` when it holds none.
///
/// Errors: when the file cannot be read, is open to others, or is no pepper.
pub(crate) fn fingerprint(dir: &Path) -> Result<Option<[u8; 32]>, KeysError> {
    has_pepper(dir).then(|| read_pepper(dir.join(PEPPER)).map(|pepper| *pepper.fingerprint())).transpose()
}

/// Whether the directory has a pepper already.
pub(crate) fn has_pepper(dir: &Path) -> bool {
    dir.join(PEPPER).exists()
}

/// Identity's private keys.
pub struct OwnKeys {
    /// By age, the newest last.
    older: Vec<SigningKey>,
    newest: SigningKey,
    /// Every key that something can be sealed for; the first is the newest X25519.
    opening: Vec<AgreementKey>,
    pepper: Pepper,
}

impl OwnKeys {
    /// Reads the keys of a directory; makes what is missing.
    ///
    /// Errors: when a file cannot be read, is open to others, or is no key of its kind.
    pub fn load_or_create(dir: &Path, ids: &Ids) -> Result<Self, KeysError> {
        create_private_dir(dir).map_err(|source| KeysError::Directory { path: dir.to_owned(), source })?;
        let mut older = numbered(dir, SIGN, |path| SigningKey::load_or_create(path, ids))?;
        let newest = older.pop().ok_or_else(|| nothing(dir))?;
        let mut opening = Vec::new();
        for (prefix, curve) in [(SEAL_P256, Curve::P256), (SEAL_X25519, Curve::X25519)] {
            opening.extend(numbered(dir, prefix, |path| AgreementKey::load_or_create(path, curve, ids))?);
        }
        opening.reverse();
        Ok(Self { older, newest, opening, pepper: pepper(dir, ids)? })
    }

    /// The key that signs.
    pub fn signing(&self) -> &SigningKey {
        &self.newest
    }

    /// What people become numbers under.
    pub fn pepper(&self) -> &Pepper {
        &self.pepper
    }

    /// Finds the key of a signature by identity itself, old or new.
    pub fn verifying(&self, kid: &str) -> Option<VerifyingKey> {
        let found = self.older.iter().chain([&self.newest]).find(|key| key.kid() == kid);
        found.map(SigningKey::verifying_key)
    }

    /// Seals a text that only identity can open.
    ///
    /// Errors: as [`jose::seal`].
    pub fn seal(&self, plain: &[u8], cty: &str, ids: &Ids) -> Result<String, JweError> {
        let own = self.opening.first().ok_or(JweError::Seal)?;
        jose::seal(plain, cty, own.public(), ids)
    }

    /// Opens a text that was sealed for one of the keys, old or new.
    ///
    /// Errors: as [`jose::open`]; Kid when it was sealed for none of them.
    pub fn open(&self, sealed: &str) -> Result<Secret<Vec<u8>>, JweError> {
        let mut refused = JweError::Kid;
        for key in &self.opening {
            match jose::open(sealed, key) {
                Ok(plain) => return Ok(plain),
                // The text names another key, or none and this one does not fit: the next may.
                Err(JweError::Kid) => {}
                Err(error @ (JweError::Epk | JweError::Open)) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Every public half, to be registered.
    pub fn public(&self) -> Vec<OwnKey> {
        let signing = self.older.iter().chain([&self.newest]).map(|key| OwnKey::sign(OWNER, key));
        signing.chain(self.opening.iter().rev().map(|key| OwnKey::seal(OWNER, key))).collect()
    }
}

impl fmt::Debug for OwnKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnKeys({})", self.newest.kid())
    }
}

/// Reads the keys of a kind by number, the newest last; makes the first where there is none.
fn numbered<T>(
    dir: &Path,
    prefix: &str,
    load_or_create: impl Fn(&Path) -> Result<T, KeyError>,
) -> Result<Vec<T>, KeysError> {
    let fault = |source| KeysError::Directory { path: dir.to_owned(), source };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(SUFFIX));
        if let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) {
            found.insert(number, path);
        }
    }
    if found.is_empty() {
        found.insert(1, dir.join(format!("{prefix}1{SUFFIX}")));
    }
    let load = |path: PathBuf| load_or_create(&path).map_err(|source| KeysError::Key { path, source });
    found.into_values().map(load).collect()
}

fn nothing(dir: &Path) -> KeysError {
    KeysError::Directory { path: dir.to_owned(), source: io::ErrorKind::NotFound.into() }
}

fn pepper(dir: &Path, ids: &Ids) -> Result<Pepper, KeysError> {
    let path = dir.join(PEPPER);
    if !has_pepper(dir) {
        let fresh = Secret::new(ids.hex(2 * PEPPER_BYTES));
        match create_private(&path, fresh.expose().as_bytes()) {
            Ok(()) => {}
            // Another process was first; its pepper counts.
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(KeysError::Pepper(error)),
        }
    }
    read_pepper(path)
}

fn read_pepper(path: PathBuf) -> Result<Pepper, KeysError> {
    let text = read_private_text(&path).map_err(KeysError::Pepper)?;
    let mut bytes = [0; PEPPER_BYTES];
    hex::decode_to_slice(text.expose().trim(), &mut bytes).map_err(|_| KeysError::PepperFormat { path })?;
    let pepper = Pepper::new(&bytes);
    bytes.zeroize();
    Ok(pepper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::Clock;

    fn ids() -> Ids {
        Ids::system(Clock::system())
    }

    #[test]
    fn keys_are_made_once_and_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        let made = OwnKeys::load_or_create(&path, &ids()).expect("makes keys");
        let read = OwnKeys::load_or_create(&path, &ids()).expect("reads keys");
        assert_eq!(made.public(), read.public());
        assert_eq!(made.public().len(), 3, "one that signs, two that open");
        let document = crate::domain::document::Document::check("passport", "E12345678", jiff::civil::date(2026, 1, 1));
        let document = document.expect("keeps the rules");
        assert_eq!(made.pepper().person(&document), read.pepper().person(&document));
    }

    #[test]
    fn the_newest_key_signs_and_the_old_ones_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = OwnKeys::load_or_create(dir.path(), &ids()).expect("makes keys");
        let sealed_before = first.seal(b"before", "text", &ids()).expect("seals");
        for number in [2, 10] {
            let path = |kind: &str| dir.path().join(format!("{kind}{number}.pem"));
            SigningKey::load_or_create(&path(SIGN), &ids()).expect("makes a key");
            AgreementKey::load_or_create(&path(SEAL_X25519), Curve::X25519, &ids()).expect("makes a key");
        }
        let rotated = OwnKeys::load_or_create(dir.path(), &ids()).expect("reads keys");
        let tenth = SigningKey::load_or_create(&dir.path().join("sign-10.pem"), &ids()).expect("reads");
        assert_eq!(rotated.signing().kid(), tenth.kid(), "numbers count, not letters");
        assert!(rotated.verifying(first.signing().kid()).is_some());
        assert_eq!(rotated.verifying("x"), None);
        assert_eq!(rotated.open(&sealed_before).expect("opens").expose(), b"before");
        let sealed_after = rotated.seal(b"after", "text", &ids()).expect("seals");
        assert_eq!(first.open(&sealed_after).map(drop), Err(JweError::Kid));
    }

    #[test]
    fn a_pepper_that_is_none_or_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        create_private(&dir.path().join(PEPPER), b"short").expect("writes");
        assert!(matches!(OwnKeys::load_or_create(dir.path(), &ids()), Err(KeysError::PepperFormat { .. })));
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(dir.path().join(PEPPER), open).expect("chmod");
        assert!(matches!(OwnKeys::load_or_create(dir.path(), &ids()), Err(KeysError::Pepper(_))));
    }
}
