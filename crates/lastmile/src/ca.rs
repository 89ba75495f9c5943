//! The internal certificate authority on the command line: `lastmile ca init`, `lastmile ca issue`.
//!
//! The CA itself is [`rpc::ca`]. Its key stays in its directory; a container gets the CA's certificate, its own certificate and its
//! own key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rpc::ca::{CA_CERT_FILE, Ca, CaError};
use runtime::Context;

use crate::Role;
use crate::config::{RoleFiles, Tls};
use crate::doctor::{Verdict, certificates};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes a CA in `directory`: `ca.pem` and `ca.key` (mode 0600). An existing one is never replaced.
///
/// Shape: returns the file of the certificate.
pub fn init(context: &Context, directory: &Path) -> anyhow::Result<PathBuf> {
    match Ca::init(context, directory) {
        Err(CaError::Exists(_)) => {
            anyhow::bail!(
                "there is a CA in {}: its certificates would stop working, so it is not replaced",
                directory.display()
            )
        }
        made => made.context("making the CA")?,
    };
    Ok(directory.join(CA_CERT_FILE))
}

/// Issues a certificate for a role from the CA in `ca`, into `directory`.
///
/// Shape: `cert.pem`, `key.pem` (mode 0600), `ca.pem`; earlier ones there are replaced, which is how a certificate is renewed.
/// Units: `life` is from now.
pub fn issue(context: &Context, ca: &Path, role: Role, life: Duration, directory: &Path) -> anyhow::Result<RoleFiles> {
    let ca = match Ca::open(ca) {
        Err(CaError::Missing(_)) => anyhow::bail!("no CA in {}: run `lastmile ca init` first", ca.display()),
        opened => opened.context("opening the CA")?,
    };
    runtime::secret::create_private_dir(directory).with_context(|| format!("directory {}", directory.display()))?;
    ca.issue(context, role.into(), life)?.write(directory).context("writing the certificate")?;
    Ok(RoleFiles::in_directory(directory))
}

/// Makes the CA where there is none, and a certificate for each role that has none or whose one ends within `renew`.
///
/// Shape: `tls` gets a directory a role; returns the roles that got a new certificate. For a container that runs before all others.
pub fn ensure(
    context: &Context,
    ca: &Path,
    tls: &Path,
    roles: &[Role],
    life: Duration,
    renew: Duration,
) -> anyhow::Result<Vec<Role>> {
    if !ca.join(CA_CERT_FILE).exists() {
        init(context, ca)?;
    }
    let now = context.clock.now();
    let tls = Tls { directory: tls.to_owned() };
    let mut issued = Vec::new();
    for role in roles {
        let files = tls.files(*role);
        // Judged as it will be when it should have been renewed.
        let findings = certificates::of_role(*role, &files, now.plus(renew));
        if findings.iter().any(|finding| finding.verdict == Verdict::Bad) {
            issue(context, ca, *role, life, &tls.directory.join(role.name()))?;
            issued.push(*role);
        }
    }
    Ok(issued)
}

/// That many days.
pub fn days(count: u32) -> Duration {
    DAY * count
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::config::Problem;

    #[test]
    fn a_ca_is_made_once_and_its_certificates_pass_the_doctor() {
        let place = tempfile::tempdir().expect("a directory");
        let context = Context::system();
        let home = place.path().join("ca");
        init(&context, &home).expect("makes a CA");
        let again = init(&context, &home).expect_err("not replaced");
        assert!(again.to_string().contains("not replaced"), "{again}");
        let tls = Tls { directory: place.path().join("tls") };
        for _ in 0..2 {
            let files = issue(&context, &home, Role::Cases, days(90), &tls.directory.join("cases")).expect("issues");
            assert_eq!(files, tls.files(Role::Cases));
        }
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
    fn what_is_missing_or_ends_soon_is_made_and_the_rest_stays() {
        let place = tempfile::tempdir().expect("a directory");
        let context = Context::system();
        let (home, tls) = (place.path().join("ca"), place.path().join("tls"));
        let ensure = |life, renew| ensure(&context, &home, &tls, &Role::ALL, days(life), days(renew)).expect("ensures");
        assert_eq!(ensure(90, 30), Role::ALL);
        assert_eq!(ensure(90, 30), []);
        std::fs::remove_file(tls.join("cases").join("key.pem")).expect("is there");
        assert_eq!(ensure(90, 30), [Role::Cases]);
        assert_eq!(ensure(90, 91), Role::ALL, "all end within that time");
    }

    #[test]
    fn issuing_without_a_ca_says_what_to_do() {
        let place = tempfile::tempdir().expect("a directory");
        let error = issue(&Context::system(), place.path(), Role::Cases, days(1), place.path()).expect_err("no CA");
        assert!(error.to_string().contains("lastmile ca init"), "{error}");
    }
}
