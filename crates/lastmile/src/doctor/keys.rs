//! Are the private keys of the roles that run here as their owners will find them?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Finding;
use crate::{Config, Role};

/// What nobody but the owner may do with a private key or its directory.
const OTHERS: u32 = 0o077;
/// Identity's file that cannot be made anew without losing who is who.
const PEPPER: &str = "pepper";
const STORE_OF_IDENTITY: &str = "identity.db";

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let config = config.placed();
    let directories = config.roles().into_iter().filter_map(|role| Some((role, directory(&config, role)?)));
    let mut findings: Vec<Finding> = directories.map(|(role, directory)| private(role, &directory)).collect();
    if config.roles().contains(&Role::Identity) {
        findings.push(pepper(&config));
        findings.push(clients(&config));
    }
    findings
}

fn directory(config: &Config, role: Role) -> Option<std::path::PathBuf> {
    match role {
        Role::Gateway => Some(config.keys_dir(Role::Gateway)),
        Role::Identity => Some(config.identity.keys_dir.clone()),
        Role::Payments => config.payments.payer_key_file.parent().map(Path::to_owned),
        Role::Cases => Some(config.cases.keys_dir.clone()),
        Role::Adapter => Some(config.adapter.keys_dir.clone()),
        Role::Catalog | Role::Sandbox => None,
    }
}

/// Every key of a role must be its owner's alone; a role without keys makes them at its first start.
fn private(role: Role, directory: &Path) -> Finding {
    let subject = format!("keys of {role}");
    if !directory.exists() {
        return Finding::good(subject, format!("{} will be made at the first start", directory.display()));
    }
    let open = match open_to_others(directory) {
        Ok(open) => open,
        Err(error) => {
            let what = format!("{} cannot be read: {error}", directory.display());
            return Finding::bad(subject, what, "give this user the directory");
        }
    };
    match open.first() {
        None => Finding::good(subject, format!("{} is its owner's alone", directory.display())),
        Some(path) => Finding::bad(
            subject,
            format!("{path} can be read by others"),
            format!("`chmod -R go= {}`; whoever read a key can sign as {role}: make others", directory.display()),
        ),
    }
}

fn open_to_others(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut open = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::metadata(&path)?;
        if metadata.is_dir() {
            open.extend(open_to_others(&path)?);
        } else if path.extension().is_none_or(|kind| kind != "json") && metadata.permissions().mode() & OTHERS != 0 {
            open.push(path.display().to_string());
        }
    }
    Ok(open)
}

/// People are known by a digest under the pepper: a store without its pepper has lost them.
fn pepper(config: &Config) -> Finding {
    let (pepper, store) = (config.identity.keys_dir.join(PEPPER), config.data.directory.join(STORE_OF_IDENTITY));
    if store.exists() && !pepper.exists() {
        let what = format!("{} is gone and the store is there: nobody would be recognised", pepper.display());
        return Finding::bad(
            "pepper",
            what,
            "restore it from the backup of identity.keys_dir before a start makes another",
        );
    }
    Finding::good("pepper", "it is there, or there is nobody yet")
}

fn clients(config: &Config) -> Finding {
    let count = config.identity.entry_points.len();
    match (count, config.sandbox.enabled) {
        (0, false) => Finding::warning(
            "entry points",
            "none is configured: nobody can ask for a token",
            "name the super apps and their public keys in identity.entry_points",
        ),
        (count, true) => Finding::warning(
            "entry points",
            format!("{count} configured, and six of the sandbox whose keys are on this machine"),
            "leave sandbox.enabled out in production",
        ),
        (count, false) => Finding::good("entry points", format!("{count} configured")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn an_open_key_and_a_lost_pepper_are_bad() {
        let place = tempfile::tempdir().expect("a directory");
        let mut config = Config::default();
        config.data.directory = place.path().to_owned();
        config.serve.roles = vec![Role::Identity];
        let verdicts = |config: &Config| check(config).iter().map(|finding| finding.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&config), [Verdict::Good, Verdict::Good, Verdict::Warning]);
        let keys = config.placed().identity.keys_dir;
        fs::create_dir_all(&keys).expect("makes");
        fs::write(keys.join("sign-1.pem"), "").expect("writes");
        fs::set_permissions(keys.join("sign-1.pem"), fs::Permissions::from_mode(0o640)).expect("chmod");
        fs::write(place.path().join(STORE_OF_IDENTITY), "").expect("writes");
        assert_eq!(verdicts(&config), [Verdict::Bad, Verdict::Bad, Verdict::Warning]);
    }
}
