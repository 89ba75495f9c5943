//! RSA keys as the channels use them, both ways: PKCS #1 v1.5 with SHA-256, signatures in base64.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runtime::secret::{self, KeyFileError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};

const PUBLIC_KEY_BYTES_MAX: usize = 64 * 1024;

/// A merchant's private key.
pub(crate) struct SigningKey(rsa::KeyPair);

/// A channel's public key.
#[derive(Clone, Debug)]
pub(crate) struct VerifyingKey(ParsedPublicKey);

/// The bytes are no key of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RSA key of at least 2048 bits in PEM")]
pub struct BadKey;

/// The keys of a merchant cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A private file.
    #[error("a private file cannot be used")]
    Private(#[from] KeyFileError),
    /// The merchant's private key.
    #[error("the private key in {} cannot be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BadKey,
    },
    /// The APIv3 key.
    #[error("{} does not hold an APIv3 key: 32 bytes", path.display())]
    Seal {
        /// The file.
        path: PathBuf,
    },
    /// A certificate, or its key, which is another one's.
    #[error("the certificate in {} cannot be used: {what}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        what: &'static str,
    },
    /// The channel's public key.
    #[error("the public key in {} cannot be used", path.display())]
    Public {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl SigningKey {
    /// Reads a private key, PKCS #8 or PKCS #1.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, BadKey> {
        let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadKey)? {
            PrivateKeyDer::Pkcs8(der) => rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => rsa::KeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(BadKey),
        };
        key.map(Self).map_err(|_| BadKey)
    }

    /// Reads the private key in a file.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyError> {
        let pem = secret::read_private_text(path)?;
        Self::from_pem(pem.expose()).map_err(|source| KeyError::Key { path: path.to_owned(), source })
    }

    /// The other half, a SubjectPublicKeyInfo; empty is a failure of the cryptographic library.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        let der: Result<PublicKeyX509Der<'_>, _> = self.0.public_key().as_der();
        der.map(|der| der.as_ref().to_vec()).unwrap_or_default()
    }

    /// Signs, and writes the signature in base64. None is a failure of the cryptographic library.
    pub(crate) fn sign(&self, message: &str) -> Option<String> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).ok()?;
        Some(STANDARD.encode(signature))
    }
}

impl VerifyingKey {
    /// Reads a public key in PEM.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, BadKey> {
        Self::from_der(SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| BadKey)?.as_ref())
    }

    /// Reads a SubjectPublicKeyInfo.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, BadKey> {
        ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).map(Self).map_err(|_| BadKey)
    }

    /// Reads the public key in a file.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyError> {
        let unusable = |source| KeyError::Public { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(|error| unusable(error.into()))?;
        let pem = bytes.get(..PUBLIC_KEY_BYTES_MAX.min(bytes.len())).unwrap_or_default();
        Self::from_pem(pem).map_err(|error| unusable(error.into()))
    }

    /// Encrypts a short text for whoever holds the other half: RSA-OAEP with SHA-1, as the channels have it, in base64. None where the
    /// text is too long, or is a failure of the cryptographic library.
    pub(crate) fn encrypt(&self, text: &str) -> Option<String> {
        let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(self.0.as_ref()).ok()?).ok()?;
        let mut sealed = vec![0; key.ciphertext_size()];
        let sealed = key.encrypt(&OAEP_SHA1_MGF1SHA1, text.as_bytes(), &mut sealed, None).ok()?;
        Some(STANDARD.encode(sealed))
    }

    /// Whether the signature, in base64, is this key's.
    pub(crate) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        STANDARD.decode(signature).is_ok_and(|signature| self.has_signed(message, &signature))
    }

    /// Whether the signature is this key's.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

/// TLS for a channel's public endpoint, by the roots that browsers trust.
pub(super) fn public_roots() -> Result<Arc<rustls::ClientConfig>, KeyError> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
