//! Are the certificate and the key of this process what the other roles will accept, and until when?

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use runtime::{Timestamp, secret};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

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
    let subject = "public: certificate";
    let mut findings = chain(&public.cert_file, now, subject, RENEW)
        .unwrap_or_else(|error| vec![Finding::bad(subject, format!("{error:#}"), RENEW)]);
    let subject = "public: private key";
    let key = key(&public.key_file, &public.cert_file);
    findings.push(key.map_or_else(|error| Finding::bad(subject, format!("{error:#}"), RENEW), |()| owned(subject)));
    findings
}

/// The first host that a certificate is for; one of them, where it is for many.
pub(crate) fn first_name(path: &Path) -> Option<String> {
    let pem = read(path).ok()?;
    let names = dns_names(&parse(&pem, path).ok()?);
    names.into_iter().next().map(|name| name.replacen('*', "gateway", 1))
}

/// The end of every certificate in a file: callers refuse a chain when any part of it is over.
pub(super) fn chain(path: &Path, now: Timestamp, subject: &str, remedy: &str) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (index, pem) in read_all(path)?.iter().enumerate() {
        let certificate = parse(pem, path)?;
        let (subject, name) = match index {
            0 if !dns_names(&certificate).is_empty() => (subject.to_owned(), dns_names(&certificate).join(", ")),
            0 => (subject.to_owned(), certificate.subject().to_string()),
            _ => (format!("{subject} {} of the chain", index + 1), certificate.subject().to_string()),
        };
        findings.push(ends(subject, &name, &Span::of(&certificate), now, remedy));
    }
    Ok(findings)
}

/// A merchant's certificate at a channel: its end, whether it is the one that the serial number names, where one is set, and whether the
/// key is its key.
pub(super) fn of_merchant(
    subject: &str,
    (path, private_key, serial): (&Path, &Path, &str),
    now: Timestamp,
) -> [Finding; 2] {
    let remedy = "put the channel's new certificate and its key into the files that payments.merchants names";
    let looked = || {
        let pem = read(path)?;
        let certificate = parse(&pem, path)?;
        let own = hex_digits(&certificate.raw_serial_as_string());
        if !serial.is_empty() && own != hex_digits(serial) {
            bail!("{} has the serial number {own}, not the configured {serial}", path.display());
        }
        Ok(ends(subject, &format!("serial number {own}"), &Span::of(&certificate), now, remedy))
    };
    let bad = |subject: &str, error: anyhow::Error| Finding::bad(subject, format!("{error:#}"), remedy);
    let key_subject = format!("{subject}: private key");
    [
        looked().unwrap_or_else(|error| bad(subject, error)),
        key(private_key, path).map_or_else(|error| bad(&key_subject, error), |()| owned(key_subject.as_str())),
    ]
}

/// A serial number as it is compared.
fn hex_digits(serial: &str) -> String {
    serial.replace(':', "").trim_start_matches('0').to_ascii_uppercase()
}

pub(crate) fn of_role(role: Role, files: &RoleFiles, now: Timestamp) -> [Finding; 4] {
    [
        told(role, "certificate", certificate(role, &files.cert, now)),
        told(role, "CA certificate", ca(&files.ca, now)),
        told(role, "signature of the CA", signed(&files.cert, &files.ca)),
        told(role, "private key", key(&files.key, &files.cert).map(|()| owned("private key"))),
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
    Ok(ends("certificate", &names.join(", "), &Span::of(&certificate), now, REISSUE))
}

fn ca(path: &Path, now: Timestamp) -> anyhow::Result<Finding> {
    let pem = read(path)?;
    let certificate = parse(&pem, path)?;
    if !certificate.is_ca() {
        bail!("{} is not the certificate of a CA", path.display());
    }
    Ok(ends("CA certificate", &path.display().to_string(), &Span::of(&certificate), now, REISSUE))
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

fn key(path: &Path, cert: &Path) -> anyhow::Result<()> {
    let text = secret::read_private_text(path)?;
    let key = rcgen::KeyPair::from_pem(text.expose()).with_context(|| format!("{} is no key", path.display()))?;
    let pem = read(cert)?;
    if parse(&pem, cert)?.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        bail!("{} is not the key of {}", path.display(), cert.display());
    }
    Ok(())
}

fn owned(subject: impl Into<String>) -> Finding {
    Finding::good(subject, "it belongs to the certificate, and only its owner can read it")
}

/// From when until when a certificate is good.
pub(super) struct Span {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

impl Span {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let at = |time: ASN1Time| Timestamp::from_seconds_nanos(time.timestamp(), 0);
        Self { start: at(certificate.validity().not_before), end: at(certificate.validity().not_after) }
    }
}

/// Tells when a certificate ends, and what to do where that is soon.
pub(super) fn ends(subject: impl Into<String>, name: &str, span: &Span, now: Timestamp, remedy: &str) -> Finding {
    let left = span.end.since(now);
    let (seconds, _) = span.end.seconds_nanos();
    let date =
        ASN1Time::from_timestamp(seconds).map_or_else(|_| format!("{seconds} s after 1970"), |date| date.to_string());
    if now < span.start {
        let ahead = span.start.since(now).as_secs();
        let remedy = "if it is meant for today, this machine's clock is behind by at least that: set it";
        Finding::bad(subject, format!("{name} is not valid for another {ahead} s"), remedy)
    } else if left.is_zero() {
        Finding::bad(subject, format!("{name} ended on {date}"), remedy)
    } else if left < SOON {
        Finding::warning(subject, format!("{name} ends in {} days, on {date}", left.as_secs() / DAY_SECONDS), remedy)
    } else {
        Finding::good(subject, format!("{name} is good until {date}"))
    }
}

fn read(path: &Path) -> anyhow::Result<Pem> {
    read_all(path)?.into_iter().next().with_context(|| format!("{} is not PEM", path.display()))
}

fn read_all(path: &Path) -> anyhow::Result<Vec<Pem>> {
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let found: Vec<Pem> = Pem::iter_from_buffer(&bytes)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not PEM", path.display()))?;
    if found.is_empty() {
        bail!("{} is not PEM", path.display());
    }
    Ok(found)
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
        let mixed = Public { key_file: issued(place.path(), Role::Cases).key, ..shown.clone() };
        assert_eq!(verdicts(&mixed, now), [Verdict::Good, Verdict::Bad], "another's key");

        let (leaf, ca) = (place.path().join("gateway/cert.pem"), place.path().join("gateway/ca.pem"));
        let text = [&leaf, &ca].map(|file| std::fs::read_to_string(file).expect("reads")).concat();
        let chain = Public { cert_file: place.path().join("chain.pem"), ..shown };
        std::fs::write(&chain.cert_file, text).expect("writes");
        let findings = super::public(&chain, now);
        assert_eq!(findings[1].subject, "public: certificate 2 of the chain", "{}", findings[1]);
        assert!(findings[1].what.contains(" is good until "), "{}", findings[1]);
        assert_eq!(verdicts(&chain, now.plus(ca::days(91)))[0], Verdict::Bad, "the leaf ends first");
    }

    #[test]
    fn a_merchants_certificate_is_looked_at_beside_its_key_and_serial_number() {
        let place = tempfile::tempdir().expect("a directory");
        let context = Context::system();
        let now = context.clock.now();
        let mchids = ["1900000001", "1900000002"].map(str::to_owned);
        sandbox::Keys::load_or_create(place.path(), &mchids, &context.ids, now).expect("makes keys");
        let file = |mchid: &str, name: &str| place.path().join(mchid).join(name);
        let serial = std::fs::read_to_string(file("1900000001", "serial_no.txt")).expect("reads");
        let look = |mchid: &str, key: &str, serial: &str, now| {
            let (cert, key) = (file(mchid, "certificate.pem"), file(key, "private_key.pem"));
            of_merchant("merchant 1900000001", (&cert, &key, serial.trim()), now)
        };
        let verdicts = |findings: [Finding; 2]| findings.map(|finding| finding.verdict);
        let good = look("1900000001", "1900000001", &serial, now);
        assert!(good[0].what.contains(" is good until "), "{}", good[0]);
        assert_eq!(verdicts(good), [Verdict::Good, Verdict::Good]);
        let lower = format!("00{}", serial.to_ascii_lowercase());
        assert_eq!(look("1900000001", "1900000001", &lower, now)[0].verdict, Verdict::Good, "the same number");
        let late = look("1900000001", "1900000001", &serial, now.plus(ca::days(5 * 366)));
        assert_eq!(verdicts(late), [Verdict::Bad, Verdict::Good], "ended");
        let other = look("1900000002", "1900000001", &serial, now);
        assert_eq!(verdicts(other), [Verdict::Bad, Verdict::Bad], "another's certificate");
        let key = look("1900000001", "1900000002", &serial, now);
        assert_eq!(verdicts(key), [Verdict::Good, Verdict::Bad], "another's key");
    }
}
