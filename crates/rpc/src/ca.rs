//! The internal certificate authority.
//!
//! Roles that meet over a network prove themselves to each other with certificates of one CA, which belongs to the installation. A
//! certificate holds one DNS name, `<role>.lastmile.internal`, and nothing else counts. The CA's key stays where it was made; a role
//! gets the CA's certificate, its own certificate and its own key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use runtime::secret::{self, KeyFileError, Secret};

use crate::role::{Role, role_dns_name, role_name};
use crate::tls::RolePem;

/// File of the CA's certificate, in the CA's directory and in each role's.
pub const CA_CERT_FILE: &str = "ca.pem";
/// File of the CA's key, mode 0600, in the CA's directory alone.
pub const CA_KEY_FILE: &str = "ca.key";
/// File of a role's certificate.
pub const CERT_FILE: &str = "cert.pem";
/// File of a role's key, mode 0600.
pub const KEY_FILE: &str = "key.pem";

const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Clocks of machines differ; a certificate is good from a little before it was made.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// Why a CA or a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// There is a CA already; its certificates would stop working.
    #[error("there is a CA in {}", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("there is no CA in {}", .0.display())]
    Missing(PathBuf),
    /// A key file cannot be used.
    #[error("a key file cannot be used")]
    Key(#[from] KeyFileError),
    /// A file cannot be written or read.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate library refused.
    #[error("the certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
}

/// A CA in memory.
pub struct Ca {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Makes a CA that no file keeps, good for ten years.
    ///
    /// Errors: Certificate.
    pub fn generate(context: &runtime::Context) -> Result<Self, CaError> {
        let (certificate, key) = make(context)?;
        Self::from_pem(&certificate, &Secret::new(key.serialize_pem()))
    }

    /// Reads certificate and key.
    ///
    /// Errors: Certificate.
    pub fn from_pem(certificate: &str, key: &Secret<String>) -> Result<Self, CaError> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key.expose())?)?;
        Ok(Self { certificate: certificate.to_owned(), issuer })
    }

    /// Makes `ca.pem` and `ca.key` (mode 0600) in a directory. An existing CA is never replaced.
    ///
    /// Errors: Exists, Key, File, Certificate.
    pub fn init(context: &runtime::Context, directory: &Path) -> Result<Self, CaError> {
        let cert_file = directory.join(CA_CERT_FILE);
        let key_file = directory.join(CA_KEY_FILE);
        if cert_file.exists() || key_file.exists() {
            return Err(CaError::Exists(directory.to_owned()));
        }
        let (certificate, key) = make(context)?;
        let key = Secret::new(key.serialize_pem());
        secret::create_private(&key_file, key.expose().as_bytes())?;
        write_public(&cert_file, &certificate)?;
        Self::from_pem(&certificate, &key)
    }

    /// Opens the CA of a directory.
    ///
    /// Errors: Missing, Key, File, Certificate.
    pub fn open(directory: &Path) -> Result<Self, CaError> {
        let cert_file = directory.join(CA_CERT_FILE);
        let certificate = match fs::read_to_string(&cert_file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CaError::Missing(directory.to_owned()));
            }
            Err(source) => return Err(CaError::File { path: cert_file, source }),
        };
        Self::from_pem(&certificate, &secret::read_private_text(&directory.join(CA_KEY_FILE))?)
    }

    /// The CA's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate for a role. Units: `life` is from now.
    ///
    /// Errors: Certificate.
    pub fn issue(&self, context: &runtime::Context, role: Role, life: Duration) -> Result<RolePem, CaError> {
        let key = KeyPair::generate()?;
        let mut params = params(context, role_name(role), life);
        params.subject_alt_names = vec![SanType::DnsName(role_dns_name(role).try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(RolePem { ca: self.certificate.clone(), certificate, key: Secret::new(key.serialize_pem()) })
    }
}

impl RolePem {
    /// Writes `ca.pem`, `cert.pem` and `key.pem` (mode 0600) into a directory. Earlier ones are replaced: that is how a certificate is
    /// renewed.
    ///
    /// Errors: Key, File.
    pub fn write(&self, directory: &Path) -> Result<(), CaError> {
        let key_file = directory.join(KEY_FILE);
        match fs::remove_file(&key_file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(CaError::File { path: key_file, source });
            }
            _ => {}
        }
        secret::create_private(&key_file, self.key.expose().as_bytes())?;
        write_public(&directory.join(CERT_FILE), &self.certificate)?;
        write_public(&directory.join(CA_CERT_FILE), &self.ca)
    }

    /// Reads the three files.
    ///
    /// Errors: Key, File.
    pub fn read(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, CaError> {
        let text =
            |path: &Path| fs::read_to_string(path).map_err(|source| CaError::File { path: path.to_owned(), source });
        Ok(Self { ca: text(ca)?, certificate: text(certificate)?, key: secret::read_private_text(key)? })
    }
}

fn make(context: &runtime::Context) -> Result<(String, KeyPair), CaError> {
    let key = KeyPair::generate()?;
    let mut params = params(context, "lastmile internal CA", CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params.self_signed(&key)?.pem(), key))
}

fn params(context: &runtime::Context, name: &str, life: Duration) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_micros(u64::try_from(context.clock.now().micros()).unwrap_or(0));
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now.saturating_add(life);
    params.serial_number = Some(SerialNumber::from_slice(&context.ids.bytes::<16>()));
    params
}

fn write_public(path: &Path, text: &str) -> Result<(), CaError> {
    fs::write(path, text).map_err(|source| CaError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{ClientIdentity, ServerIdentity, role_of_certificate};
    use std::os::unix::fs::PermissionsExt;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_role_gets_what_tls_wants_and_renews_it() {
        let place = tempfile::tempdir().expect("a directory");
        let (home, out) = (place.path().join("ca"), place.path().join("cases"));
        let context = runtime::Context::system();
        Ca::init(&context, &home).expect("makes a CA");
        assert!(matches!(Ca::init(&context, &home), Err(CaError::Exists(_))), "a CA is not replaced");
        let ca = Ca::open(&home).expect("opens");
        for _ in 0..2 {
            ca.issue(&context, Role::Cases, DAY).expect("issues").write(&out).expect("writes");
        }
        let pem = RolePem::read(&out.join(CA_CERT_FILE), &out.join(CERT_FILE), &out.join(KEY_FILE)).expect("reads");
        ClientIdentity::new(&pem).expect("fits a client");
        ServerIdentity::mutual(&pem).expect("fits a server");
        for file in [home.join(CA_KEY_FILE), out.join(KEY_FILE)] {
            let mode = fs::metadata(&file).expect("exists").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
        }
        use rustls::pki_types::pem::PemObject;
        let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.certificate.as_bytes()).expect("a certificate");
        assert_eq!(role_of_certificate(&der), Some(Role::Cases));
    }

    #[test]
    fn without_a_ca_there_is_a_clear_error() {
        let place = tempfile::tempdir().expect("a directory");
        assert!(matches!(Ca::open(place.path()), Err(CaError::Missing(_))));
    }
}
