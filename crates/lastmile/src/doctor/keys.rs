//! Are the private keys of the roles that run here as their owners will find them?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use identity::registry::Registry;
use runtime::Context;

use super::{Finding, storage::chain};
use crate::{Config, Role};

/// What nobody but the owner may do with a private key or its directory.
const OTHERS: u32 = 0o077;

pub(super) fn check(config: &Config, context: &Context) -> Vec<Finding> {
    let config = config.placed();
    let directories = config.roles().into_iter().filter_map(|role| Some((role, directory(&config, role)?)));
    let mut findings: Vec<Finding> = directories.map(|(role, directory)| private(role, &directory)).collect();
    if config.roles().contains(&Role::Identity) {
        findings.extend(clients(&config, context));
    }
    if config.roles().contains(&Role::Payments) {
        findings.extend(merchants(&config, context));
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

/// The callers' public keys, each file read as a start would.
fn clients(config: &Config, context: &Context) -> Vec<Finding> {
    let count = config.identity.entry_points.len();
    let configured = match (count, config.sandbox.enabled) {
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
    };
    match Registry::build(&identity::Config { sandbox_keys_dir: None, ..config.identity.clone() }, &context.ids) {
        Ok(_) => vec![configured],
        Err(error) => {
            let remedy = "mend the file or the JWK: identity does not start with it";
            vec![configured, Finding::bad("keys of clients", chain(&error), remedy)]
        }
    }
}

/// The merchants' private keys and the channel's public ones, each file read as a start would.
fn merchants(config: &Config, context: &Context) -> Vec<Finding> {
    let merchants = &config.payments.merchants;
    if merchants.is_empty() {
        return Vec::new();
    }
    let remedy = "mend the file, or the setting that names it: payments does not start with it";
    vec![match payments::check_keys(&config.payments, context) {
        Ok(()) => {
            Finding::good("keys of merchants", format!("those of {} merchant accounts can be used", merchants.len()))
        }
        Err(error) => Finding::bad("keys of merchants", chain(&error), remedy),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn keys_that_are_open_or_cannot_be_used_are_bad() {
        let place = tempfile::tempdir().expect("a directory");
        let mut config = Config::default();
        config.data.directory = place.path().to_owned();
        config.serve.roles = vec![Role::Identity];
        let context = Context::system();
        let verdicts =
            |config: &Config| check(config, &context).iter().map(|finding| finding.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&config), [Verdict::Good, Verdict::Warning]);
        let keys = config.placed().identity.keys_dir;
        fs::create_dir_all(&keys).expect("makes");
        fs::write(keys.join("sign-1.pem"), "").expect("writes");
        fs::set_permissions(keys.join("sign-1.pem"), fs::Permissions::from_mode(0o640)).expect("chmod");
        assert_eq!(verdicts(&config), [Verdict::Bad, Verdict::Warning]);

        let entry_point = serde_json::json!({ "id": "wechat", "name": "WeChat", "key_files": [keys.join("none.pem")] });
        config.identity.entry_points = vec![serde_json::from_value(entry_point).expect("an entry point")];
        assert_eq!(verdicts(&config), [Verdict::Bad, Verdict::Good, Verdict::Bad], "no such file");
    }
}
