//! Private keys as PKCS#8 PEM files that OpenSSL reads and writes.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runtime::secret::{Secret, create_private, read_private_text};

use super::KeyError;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
const LINE: usize = 64;

/// The DER that stands before the 32 secret bytes of each kind of key. Source: RFC 5958, 8410, 5915.
pub(super) const ED25519: Kind =
    Kind { name: "Ed25519", prefix: &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20] };
pub(super) const X25519: Kind =
    Kind { name: "X25519", prefix: &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20] };
pub(super) const P256: Kind = Kind {
    name: "P-256",
    prefix: &[
        0x30, 0x41, 2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        3, 1, 7, 4, 0x27, 0x30, 0x25, 2, 1, 1, 4, 0x20,
    ],
};

/// A kind of key with 32 secret bytes.
pub(super) struct Kind {
    pub(super) name: &'static str,
    prefix: &'static [u8],
}

impl Kind {
    /// Writes PKCS#8 DER, version 1, without the public key.
    pub(super) fn der(&self, secret: &[u8; 32]) -> Secret<Vec<u8>> {
        Secret::new([self.prefix, secret.as_slice()].concat())
    }

    /// Writes PEM.
    pub(super) fn pem(&self, secret: &[u8; 32]) -> Secret<String> {
        let body = Secret::new(STANDARD.encode(self.der(secret).expose()));
        let lines = body.expose().as_bytes().chunks(LINE).map(|line| std::str::from_utf8(line).unwrap_or_default());
        Secret::new(lines.fold(format!("{BEGIN}\n"), |text, line| text + line + "\n") + END + "\n")
    }

    /// Reads DER. OpenSSL writes P-256 keys with the public key behind the secret; the secret stands at the same place after other
    /// lengths, so it is looked for behind the part that the two forms share.
    fn secret(&self, der: &[u8]) -> Option<[u8; 32]> {
        if let Some(secret) = der.strip_prefix(self.prefix) {
            return secret.try_into().ok();
        }
        let marker: &[u8] = &[2, 1, 1, 4, 0x20];
        let curve = self.prefix.get(7..26)?;
        if self.name != P256.name || der.get(8..27)? != curve {
            return None;
        }
        let at = der.windows(marker.len()).position(|window| window == marker)?;
        der.get(at + marker.len()..)?.get(..32)?.try_into().ok()
    }

    /// Reads PEM.
    ///
    /// Errors: Format.
    pub(super) fn read(&self, pem: &str) -> Result<Secret<[u8; 32]>, KeyError> {
        let format = || KeyError::Format(self.name);
        let (_, rest) = pem.split_once(BEGIN).ok_or_else(format)?;
        let (body, _) = rest.split_once(END).ok_or_else(format)?;
        let text: Secret<String> = Secret::new(body.split_ascii_whitespace().collect());
        let der = Secret::new(STANDARD.decode(text.expose()).map_err(|_| format())?);
        self.secret(der.expose()).map(Secret::new).ok_or_else(format)
    }

    /// Reads a key file, or makes one from `fresh` where there is none. Two processes that start at once end with the same key.
    ///
    /// Errors: File, Format.
    pub(super) fn load_or_create(&self, path: &Path, fresh: [u8; 32]) -> Result<Secret<[u8; 32]>, KeyError> {
        let fresh = Secret::new(fresh);
        if !path.exists() {
            match create_private(path, self.pem(fresh.expose()).expose().as_bytes()) {
                Ok(()) => return Ok(fresh),
                // Somebody else was first; that key counts.
                Err(runtime::secret::KeyFileError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.read(read_private_text(path)?.expose())
    }
}
