//! The internal certificate authority: `lastmile ca init`, `lastmile ca issue`.
//!
//! Roles that meet over a network prove themselves to each other with certificates of one CA that belongs to the installation. A
//! certificate names its role in a DNS name (`cases.lastmile.internal`), and nothing else counts: where the process runs does not.
//! The CA's key stays in its directory; a container gets the CA's certificate, its own certificate and its own key.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use runtime::{Context, secret};

use crate::Role;

const CA_CERT_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";
const CERT_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Clocks of machines differ; a certificate is good from a little before it was made.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// The files of one issued certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its private key, mode 0600.
    pub key_file: PathBuf,
    /// A copy of the CA's certificate.
    pub ca_file: PathBuf,
}

/// Makes a CA in `directory`: `ca.pem` and `ca.key` (mode 0600). An existing one is never replaced.
pub fn init(context: &Context, directory: &Path) -> anyhow::Result<PathBuf> {
    let key = KeyPair::generate().context("making the CA's key")?;
    let mut params = params(context, "lastmile internal CA", CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).context("signing the CA's certificate")?;
    let cert_file = directory.join(CA_CERT_FILE);
    if cert_file.exists() {
        bail!("there is a CA in {}: its certificates would stop working, so it is not replaced", directory.display());
    }
    secret::create_private(&directory.join(CA_KEY_FILE), key.serialize_pem().as_bytes())?;
    write_public(&cert_file, &certificate.pem())?;
    Ok(cert_file)
}

/// Issues a certificate for a role from the CA in `ca`, into `directory`.
///
/// Shape: `cert.pem`, `key.pem` (mode 0600), `ca.pem`; earlier ones there are replaced, which is how a certificate is renewed.
/// Units: `life` is from now.
pub fn issue(context: &Context, ca: &Path, role: Role, life: Duration, directory: &Path) -> anyhow::Result<Issued> {
    let ca_cert_file = ca.join(CA_CERT_FILE);
    let ca_pem = fs::read_to_string(&ca_cert_file)
        .with_context(|| format!("no CA in {}: run `lastmile ca init` first", ca.display()))?;
    let ca_key = secret::read_private_text(&ca.join(CA_KEY_FILE))?;
    let ca_key = KeyPair::from_pem(ca_key.expose()).context("the CA's key cannot be read")?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).context("the CA's certificate cannot be read")?;
    let key = KeyPair::generate().context("making the role's key")?;
    let mut params = params(context, role.name(), life);
    params.subject_alt_names = vec![rcgen::SanType::DnsName(role.dns_name().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).context("signing the role's certificate")?;
    let issued = Issued {
        cert_file: directory.join(CERT_FILE),
        key_file: directory.join(KEY_FILE),
        ca_file: directory.join(CA_CERT_FILE),
    };
    secret::create_private_dir(directory).with_context(|| format!("directory {}", directory.display()))?;
    if issued.key_file.exists() {
        fs::remove_file(&issued.key_file).with_context(|| format!("replacing {}", issued.key_file.display()))?;
    }
    secret::create_private(&issued.key_file, key.serialize_pem().as_bytes())?;
    write_public(&issued.cert_file, &certificate.pem())?;
    write_public(&issued.ca_file, &ca_pem)?;
    Ok(issued)
}

/// That many days.
pub fn days(count: u32) -> Duration {
    DAY * count
}

fn params(context: &Context, name: &str, life: Duration) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_micros(u64::try_from(context.clock.now().micros()).unwrap_or(0));
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now.saturating_add(life);
    params.serial_number = Some(SerialNumber::from_slice(&context.ids.bytes::<16>()));
    params
}

fn write_public(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::config::Problem;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_issued_certificate_is_what_tls_wants() {
        let place = tempfile::tempdir().expect("a directory");
        let (ca, out) = (place.path().join("ca"), place.path().join("cases"));
        let context = Context::system();
        init(&context, &ca).expect("makes a CA");
        assert!(init(&context, &ca).is_err(), "a CA is not replaced");
        let first = issue(&context, &ca, Role::Cases, days(1), &out).expect("issues");
        let old_key = fs::read(&first.key_file).expect("reads");
        let issued = issue(&context, &ca, Role::Cases, days(1), &out).expect("renews");
        assert_ne!(fs::read(&issued.key_file).expect("reads"), old_key, "a new key");
        for file in [&issued.key_file, &ca.join(CA_KEY_FILE)] {
            let mode = fs::metadata(file).expect("exists").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
        }
        let tls =
            crate::config::Tls { ca_file: issued.ca_file, cert_file: issued.cert_file, key_file: issued.key_file };
        let findings = crate::doctor::certificates::check(&tls, context.clock.now(), &[Role::Cases]);
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|line| line.contains("cases.lastmile.internal")), "{told:#?}");
        assert!(findings.iter().all(|finding| finding.verdict != crate::doctor::Verdict::Bad), "{told:#?}");
        let config = crate::Config { tls, ..crate::Config::default() };
        let mut problems: Vec<Problem> = Vec::new();
        config.validate(&mut problems);
        assert_eq!(problems, []);
    }

    #[test]
    fn issuing_without_a_ca_says_what_to_do() {
        let place = tempfile::tempdir().expect("a directory");
        let error = issue(&Context::system(), place.path(), Role::Cases, days(1), place.path()).expect_err("no CA");
        assert!(error.to_string().contains("lastmile ca init"), "{error}");
    }
}
