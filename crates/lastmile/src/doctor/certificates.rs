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
use crate::config::{Public, RoleFiles, Tls};

const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const DAY_SECONDS: u64 = 24 * 60 * 60;
const RENEW: &str = "put the renewed chain and its key at public.cert_file and public.key_file, and restart";
const REISSUE: &str = "issue it anew with `lastmile ca issue --role ROLE` and restart";

/// Looks at the three files of each role; nothing is configured where all roles share a process.
pub fn check(tls: &Tls, now: Timestamp, roles: &[Role]) -> Vec<Finding> {
    if !tls.is_configured() {
        return vec![Finding::good("certificates", "none are needed: no role is reached over a network")];
    }
    roles.iter().flat_map(|role| of_role(*role, &tls.files(*role), now)).collect()
}

/// Looks at what the public listener shows; nothing is configured where it speaks plain bytes.
pub fn public(public: &Public, now: Timestamp) -> Vec<Finding> {
    if public.cert_file.as_os_str().is_empty() {
        return Vec::new();
    }
    let shown = || -> anyhow::Result<Finding> {
        let pem = read(&public.cert_file)?;
        let certificate = parse(&pem, &public.cert_file)?;
        let mut finding = ends("certificate", &dns_names(&certificate).join(", "), &certificate, now);
        finding.remedy = finding.remedy.map(|_| RENEW.to_owned());
        Ok(finding)
    };
    [("certificate", shown()), ("private key", key(&public.key_file, &public.cert_file))]
        .into_iter()
        .map(|(subject, looked)| {
            let mut finding = looked.unwrap_or_else(|error| Finding::bad(subject, format!("{error:#}"), RENEW));
            finding.subject = format!("public: {subject}");
            finding
        })
        .collect()
}

pub(crate) fn of_role(role: Role, files: &RoleFiles, now: Timestamp) -> [Finding; 4] {
    [
        told(role, "certificate", certificate(role, &files.cert, now)),
        told(role, "CA certificate", ca(&files.ca, now)),
        told(role, "signature of the CA", signed(&files.cert, &files.ca)),
        told(role, "private key", key(&files.key, &files.cert)),
    ]
}

fn told(role: Role, subject: &str, looked: anyhow::Result<Finding>) -> Finding {
    let mut finding = looked.unwrap_or_else(|error| Finding::bad(subject, format!("{error:#}"), REISSUE));
    finding.subject = format!("{role}: {subject}");
    finding
}

fn certificate(role: Role, path: &Path, now: Timestamp) -> anyhow::Result<Finding> {
    let pem = read(path)?;
    let certificate = parse(&pem, path)?;
    let names = dns_names(&certificate);
    if names != [role.dns_name()] {
        bail!("{} does not name {} alone; it names {}", path.display(), role.dns_name(), names.join(", "));
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

    fn issued(place: &Path, role: Role) -> RoleFiles {
        let context = Context::system();
        let directory = place.join("ca");
        if !directory.exists() {
            ca::init(&context, &directory).expect("makes a CA");
        }
        ca::issue(&context, &directory, role, ca::days(90), &place.join(role.name())).expect("issues")
    }

    fn bad_subjects(files: &RoleFiles, now: Timestamp, role: Role) -> Vec<String> {
        let findings = of_role(role, files, now).into_iter();
        findings.filter(|finding| finding.verdict == Verdict::Bad).map(|finding| finding.subject).collect()
    }

    #[test]
    fn each_way_to_be_wrong_is_told() {
        let place = tempfile::tempdir().expect("a directory");
        let now = Context::system().clock.now();
        let cases = issued(place.path(), Role::Cases);
        assert_eq!(bad_subjects(&cases, now, Role::Cases), Vec::<String>::new());
        assert_eq!(bad_subjects(&cases, now, Role::Payments), ["payments: certificate"], "another role");
        let late = now.plus(ca::days(91));
        assert_eq!(bad_subjects(&cases, late, Role::Cases), ["cases: certificate"], "ended");
        let early = now.minus(ca::days(1));
        assert_eq!(bad_subjects(&cases, early, Role::Cases), ["cases: certificate", "cases: CA certificate"]);
        let soon = of_role(Role::Cases, &cases, now.plus(ca::days(70)));
        assert_eq!(soon[0].verdict, Verdict::Warning, "{}", soon[0]);

        let payments = issued(place.path(), Role::Payments);
        let mixed = RoleFiles { key: payments.key, ..cases.clone() };
        assert_eq!(bad_subjects(&mixed, now, Role::Cases), ["cases: private key"]);
        let elsewhere = tempfile::tempdir().expect("a directory");
        let stranger = RoleFiles { ca: issued(elsewhere.path(), Role::Cases).ca, ..cases.clone() };
        assert_eq!(bad_subjects(&stranger, now, Role::Cases), ["cases: signature of the CA"]);
        let no_ca = RoleFiles { ca: cases.cert.clone(), ..cases.clone() };
        assert_eq!(bad_subjects(&no_ca, now, Role::Cases), ["cases: CA certificate", "cases: signature of the CA"]);
        let missing = RoleFiles { key: place.path().join("none"), ..cases };
        assert_eq!(bad_subjects(&missing, now, Role::Cases), ["cases: private key"]);
    }

    #[test]
    fn what_the_public_listener_shows_is_looked_at() {
        let place = tempfile::tempdir().expect("a directory");
        let now = Context::system().clock.now();
        let verdicts = |public: &Public, now| {
            super::public(public, now).into_iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&Public::default(), now), [], "plain bytes");
        let files = issued(place.path(), Role::Gateway);
        let shown = Public { cert_file: files.cert, key_file: files.key, ..Public::default() };
        assert_eq!(verdicts(&shown, now), [Verdict::Good, Verdict::Good]);
        assert_eq!(verdicts(&shown, now.plus(ca::days(80))), [Verdict::Warning, Verdict::Good], "soon");
        assert_eq!(verdicts(&shown, now.plus(ca::days(91))), [Verdict::Bad, Verdict::Good], "ended");
        let mixed = Public { key_file: issued(place.path(), Role::Cases).key, ..shown };
        assert_eq!(verdicts(&mixed, now), [Verdict::Good, Verdict::Bad], "another's key");
    }
}
