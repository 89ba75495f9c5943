//! Keys that texts are sealed for.

use std::fmt;
use std::path::Path;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey, X25519 as LC_X25519};
use runtime::Ids;
use runtime::secret::Secret;

use super::KeyError;
use super::jwk::Jwk;
use super::pkcs8::{Kind, P256, X25519};

/// The curve of a key agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Curve {
    /// X25519 (RFC 7748). What lastmile makes for itself.
    X25519,
    /// P-256.
    P256,
}

impl Curve {
    /// As it is written in a JWK.
    pub fn name(self) -> &'static str {
        match self {
            Self::X25519 => "X25519",
            Self::P256 => "P-256",
        }
    }

    fn kind(self) -> &'static Kind {
        match self {
            Self::X25519 => &X25519,
            Self::P256 => &P256,
        }
    }

    fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::X25519 => &LC_X25519,
            Self::P256 => &ECDH_P256,
        }
    }
}

/// A private key that opens what was sealed for it.
pub struct AgreementKey {
    curve: Curve,
    secret: Secret<[u8; 32]>,
    private: PrivateKey,
    public: AgreementPublicKey,
    kid: String,
}

impl AgreementKey {
    /// Reads the PKCS#8 PEM file at `path`, or makes one with mode 0600.
    ///
    /// Errors: File when it cannot be read or others can read it, Format when it is no key of this curve.
    pub fn load_or_create(path: &Path, curve: Curve, ids: &Ids) -> Result<Self, KeyError> {
        let secret = curve.kind().load_or_create(path, fresh(curve, ids)?)?;
        Self::from_secret(curve, *secret.expose())
    }

    /// Makes a key that no file keeps.
    ///
    /// Errors: Rejected.
    pub fn generate(curve: Curve, ids: &Ids) -> Result<Self, KeyError> {
        Self::from_secret(curve, fresh(curve, ids)?)
    }

    /// Reads a PKCS#8 PEM text.
    ///
    /// Errors: Format, Rejected.
    pub fn from_pem(curve: Curve, pem: &str) -> Result<Self, KeyError> {
        Self::from_secret(curve, *curve.kind().read(pem)?.expose())
    }

    pub(super) fn from_secret(curve: Curve, secret: [u8; 32]) -> Result<Self, KeyError> {
        let secret = Secret::new(secret);
        let private =
            PrivateKey::from_private_key(curve.algorithm(), secret.expose()).map_err(|_| KeyError::Rejected)?;
        let point = private.compute_public_key().map_err(|_| KeyError::Rejected)?;
        let public = AgreementPublicKey::from_point(curve, point.as_ref()).ok_or(KeyError::Rejected)?;
        Ok(Self { curve, secret, private, kid: public.kid(), public })
    }

    /// The PKCS#8 PEM text, for a file that only its owner can read.
    pub fn to_pem(&self) -> Secret<String> {
        self.curve.kind().pem(self.secret.expose())
    }

    /// The key's id: its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// The key that others seal for.
    pub fn public(&self) -> &AgreementPublicKey {
        &self.public
    }

    /// The public key for a JWKS.
    pub fn jwk(&self) -> Jwk {
        Jwk::agreement(&self.public)
    }

    /// Agrees on the secret Z with the other side's key. `None` when the point is not on the curve, of the wrong curve, or gives zero.
    pub(super) fn agree(&self, other: &AgreementPublicKey) -> Option<Secret<Vec<u8>>> {
        let point = Secret::new(other.point());
        let unparsed = UnparsedPublicKey::new(other.curve().algorithm(), point.expose().as_slice());
        agreement::agree(&self.private, unparsed, (), |z| Ok(Secret::new(z.to_vec()))).ok()
    }
}

/// Draws a private key. A draw outside of P-256's order is one in 2^32 and is drawn again.
fn fresh(curve: Curve, ids: &Ids) -> Result<[u8; 32], KeyError> {
    const DRAWS_MAX: usize = 8;
    (0..DRAWS_MAX)
        .map(|_| ids.bytes::<32>())
        .find(|bytes| PrivateKey::from_private_key(curve.algorithm(), bytes).is_ok())
        .ok_or(KeyError::Rejected)
}

impl fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgreementKey({})", self.kid)
    }
}

/// A public key to seal for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgreementPublicKey {
    /// X25519, the 32 bytes of RFC 7748.
    X25519([u8; 32]),
    /// P-256: x and y, big-endian.
    P256 {
        /// x.
        x: [u8; 32],
        /// y.
        y: [u8; 32],
    },
}

impl AgreementPublicKey {
    /// The curve.
    pub fn curve(&self) -> Curve {
        match self {
            Self::X25519(_) => Curve::X25519,
            Self::P256 { .. } => Curve::P256,
        }
    }

    /// The key for a JWKS or an `epk` header.
    pub fn jwk(&self) -> Jwk {
        Jwk::agreement(self)
    }

    fn from_point(curve: Curve, point: &[u8]) -> Option<Self> {
        match curve {
            Curve::X25519 => Some(Self::X25519(point.try_into().ok()?)),
            Curve::P256 => {
                let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
                Some(Self::P256 { x: x.try_into().ok()?, y: y.try_into().ok()? })
            }
        }
    }

    fn point(&self) -> Vec<u8> {
        match self {
            Self::X25519(x) => x.to_vec(),
            Self::P256 { x, y } => [&[4], x.as_slice(), y.as_slice()].concat(),
        }
    }
}
