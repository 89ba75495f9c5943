//! Are the certificate and the key of this process what the other roles will accept, and until when?

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use runtime::{Timestamp, secret};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

use super::Finding;
use crate::Role;
use crate::config::Tls;

const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const DAY_SECONDS: u64 = 24 * 60 * 60;
const REISSUE: &str = "issue it anew with `lastmile ca issue --role ROLE` and restart";

/// Looks at the three files; nothing is configured where all roles share a process.
pub fn check(tls: &Tls, now: Timestamp, roles: &[Role]) -> Vec<Finding> {
    if tls.cert_file.as_os_str().is_empty() {
        return vec![Finding::good("certificates", "none are needed: no role is reached over a network")];
    }
    vec![
        told("certificate", certificate(&tls.cert_file, now, roles)),
        told("CA certificate", ca(&tls.ca_file, now)),
        told("signature of the CA", signed(&tls.cert_file, &tls.ca_file)),
        told("private key", key(&tls.key_file, &tls.cert_file)),
    ]
}

fn told(subject: &str, looked: anyhow::Result<Finding>) -> Finding {
    looked.unwrap_or_else(|error| Finding::bad(subject, format!("{error:#}"), REISSUE))
}

fn certificate(path: &Path, now: Timestamp, roles: &[Role]) -> anyhow::Result<Finding> {
    let pem = read(path)?;
    let certificate = parse(&pem, path)?;
    let names = dns_names(&certificate);
    if let Some(role) = roles.iter().find(|role| !names.contains(&role.dns_name())) {
        bail!("{} does not name {}, which runs here; it names {}", path.display(), role.dns_name(), names.join(", "));
    }
    Ok(ends("certificate", &names.join(", "), &certificate, now))
}

fn ca(path: &Path, now: Timestamp) -> anyhow::Result<Finding> {
    let pem = read(path)?;
    let certificate = parse(&pem, path)?;
    if !certificate.is_ca() {
        bail!("{} is not the certificate of a CA", path.display());
    }
    Ok(ends("CA certificate", &path.display().to_string(), &certificate, now))
}

fn signed(cert: &Path, ca: &Path) -> anyhow::Result<Finding> {
    let (cert_pem, ca_pem) = (read(cert)?, read(ca)?);
    let issuer = parse(&ca_pem, ca)?;
    let verified = parse(&cert_pem, cert)?.verify_signature(Some(issuer.public_key()));
    if verified.is_err() {
        bail!("{} was not issued by {}", cert.display(), ca.display());
    }
    Ok(Finding::good("signature of the CA", "the certificate was issued by this CA"))
}

fn key(path: &Path, cert: &Path) -> anyhow::Result<Finding> {
    let text = secret::read_private_text(path)?;
    let key = rcgen::KeyPair::from_pem(text.expose()).with_context(|| format!("{} is no key", path.display()))?;
    let pem = read(cert)?;
    if parse(&pem, cert)?.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        bail!("{} is not the key of {}", path.display(), cert.display());
    }
    Ok(Finding::good("private key", "it belongs to the certificate, and only its owner can read it"))
}

fn ends(subject: &str, name: &str, certificate: &X509Certificate<'_>, now: Timestamp) -> Finding {
    let validity = certificate.validity();
    let at = |seconds: i64| Timestamp::from_seconds_nanos(seconds, 0);
    let (start, end) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
    let left = end.since(now);
    let date = validity.not_after;
    if now < start {
        Finding::bad(subject, format!("{name} is not valid yet"), "check the clock")
    } else if left.is_zero() {
        Finding::bad(subject, format!("{name} ended on {date}"), REISSUE)
    } else if left < SOON {
        Finding::warning(subject, format!("{name} ends in {} days, on {date}", left.as_secs() / DAY_SECONDS), REISSUE)
    } else {
        Finding::good(subject, format!("{name} is good until {date}"))
    }
}

fn read(path: &Path) -> anyhow::Result<Pem> {
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(&bytes).with_context(|| format!("{} is not PEM", path.display()))?;
    Ok(pem)
}

fn parse<'a>(pem: &'a Pem, path: &Path) -> anyhow::Result<X509Certificate<'a>> {
    pem.parse_x509().with_context(|| format!("{} is no certificate", path.display()))
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca;
    use crate::doctor::Verdict;
    use runtime::Context;

    fn issued(place: &Path, role: Role) -> Tls {
        let context = Context::system();
        let directory = place.join("ca");
        if !directory.exists() {
            ca::init(&context, &directory).expect("makes a CA");
        }
        let issued = ca::issue(&context, &directory, role, ca::days(90), &place.join(role.name())).expect("issues");
        Tls { ca_file: issued.ca_file, cert_file: issued.cert_file, key_file: issued.key_file }
    }

    fn bad_subjects(tls: &Tls, now: Timestamp, roles: &[Role]) -> Vec<String> {
        let findings = check(tls, now, roles);
        findings.into_iter().filter(|finding| finding.verdict == Verdict::Bad).map(|finding| finding.subject).collect()
    }

    #[test]
    fn each_way_to_be_wrong_is_told() {
        let place = tempfile::tempdir().expect("a directory");
        let now = Context::system().clock.now();
        let cases = issued(place.path(), Role::Cases);
        assert_eq!(bad_subjects(&cases, now, &[Role::Cases]), Vec::<String>::new());
        assert_eq!(bad_subjects(&cases, now, &[Role::Payments]), ["certificate"], "another role");
        let late = now.plus(ca::days(91));
        assert_eq!(bad_subjects(&cases, late, &[Role::Cases]), ["certificate"], "ended");
        assert_eq!(bad_subjects(&cases, now.minus(ca::days(1)), &[Role::Cases]), ["certificate", "CA certificate"]);
        let soon = check(&cases, now.plus(ca::days(70)), &[Role::Cases]);
        assert_eq!(soon[0].verdict, Verdict::Warning, "{}", soon[0]);

        let payments = issued(place.path(), Role::Payments);
        let mixed = Tls { key_file: payments.key_file, ..cases.clone() };
        assert_eq!(bad_subjects(&mixed, now, &[Role::Cases]), ["private key"]);
        let elsewhere = tempfile::tempdir().expect("a directory");
        let stranger = Tls { ca_file: issued(elsewhere.path(), Role::Cases).ca_file, ..cases.clone() };
        assert_eq!(bad_subjects(&stranger, now, &[Role::Cases]), ["signature of the CA"]);
        let no_ca = Tls { ca_file: cases.cert_file.clone(), ..cases.clone() };
        assert_eq!(bad_subjects(&no_ca, now, &[Role::Cases]), ["CA certificate", "signature of the CA"]);
        let missing = Tls { key_file: place.path().join("none"), ..cases };
        assert_eq!(bad_subjects(&missing, now, &[Role::Cases]), ["private key"]);
    }
}
