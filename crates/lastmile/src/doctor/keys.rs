//! Are the private keys of the roles that run here as their owners will find them?

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use identity::registry::Registry;
use payments::channel::wechatpay::{self, PlatformCertificate, Verification};
use payments::channel::{ChannelError, alipay};
use payments::config::{Credentials, Merchant};
use runtime::{Context, Timestamp};

use super::certificates::{self, Span};
use super::{Finding, outside, storage::chain};
use crate::{Config, Role, sandbox};

/// What nobody but the owner may do with a private key or its directory.
const OTHERS: u32 = 0o077;

/// Looks at what is there. `has_lost_keys`: the store of identity was filled with keys that are not.
pub(super) async fn check(config: &Config, context: &Context, has_lost_keys: bool) -> Vec<Finding> {
    let config = config.placed();
    let directories = config.roles().into_iter().filter_map(|role| Some((role, directory(&config, role)?)));
    let is_lost = |role: Role| role == Role::Identity && has_lost_keys;
    let look = |(role, directory): (Role, PathBuf)| private(role, &directory, is_lost(role));
    let mut findings: Vec<Finding> = directories.map(look).collect();
    if config.roles().contains(&Role::Identity) {
        findings.extend(clients(&config, context));
    }
    if config.roles().contains(&Role::Payments) {
        findings.extend(merchants(&config, context).await);
    }
    findings
}

fn directory(config: &Config, role: Role) -> Option<PathBuf> {
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
fn private(role: Role, directory: &Path, is_lost: bool) -> Finding {
    let subject = format!("keys of {role}");
    if !directory.exists() && is_lost {
        let remedy = "restore them from the backup that belongs to the store";
        return Finding::bad(subject, format!("{} is gone, and the store is not new", directory.display()), remedy);
    }
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

/// The merchants' private keys and the channel's public ones, each file read as a start would, and the ends of the certificates.
async fn merchants(config: &Config, context: &Context) -> Vec<Finding> {
    let payments = with_simulated(config);
    if payments.merchants.is_empty() {
        return Vec::new();
    }
    if let Err(error) = payments::check_keys(&payments, context) {
        let remedy = "mend the file, or the setting that names it: payments does not start with it";
        return vec![Finding::bad("keys of merchants", chain(&error), remedy)];
    }
    let count = payments.merchants.len();
    let mut findings =
        vec![Finding::good("keys of merchants", format!("those of {count} merchant accounts can be used"))];
    let now = context.clock.now();
    // At Alipay each app has keys of its own.
    let name = |of: &Merchant| match of.credentials {
        Credentials::Wechatpay(_) => of.mch_id.clone(),
        Credentials::Alipay(_) => of.app_id.clone(),
    };
    let accounts: BTreeMap<(&str, String), &Merchant> =
        payments.merchants.iter().map(|merchant| ((merchant.channel(), name(merchant)), merchant)).collect();
    for ((_, number), merchant) in accounts {
        match &merchant.credentials {
            Credentials::Wechatpay(credentials) => findings.extend(of_merchant(&number, credentials, now)),
            Credentials::Alipay(alipay::Credentials { certificates: Some(files), .. }) => {
                findings.extend(of_alipay(&number, files, now));
            }
            // Bare keys, which have no end.
            Credentials::Alipay(_) => {}
        }
    }
    match payments::platform_certificates(&payments, context).await {
        Ok(asked) => {
            for (number, answered) in asked {
                findings.extend(of_platform(&number, answered, now));
            }
        }
        Err(error) => findings.push(Finding::bad("channel wechatpay", chain(&error), "mend the file that it names")),
    }
    findings
}

/// The settings of payments with what the sandbox adds to them, once its keys are made.
fn with_simulated(config: &Config) -> payments::Config {
    let mut config = config.clone();
    config.sandbox.at = outside::simulated(&config);
    let callbacks = config.listen.callbacks.parse().ok().filter(|_| config.sandbox.enabled);
    callbacks.and_then(|at| sandbox::wire_payments(&config, at).ok()).unwrap_or(config.payments)
}

/// When the certificate of a merchant account at WeChat Pay ends, and with what the channel's word to it is verified.
fn of_merchant(number: &str, credentials: &wechatpay::Credentials, now: Timestamp) -> Vec<Finding> {
    let subject = format!("certificate of merchant {number}");
    let mut findings = match &credentials.certificate_file {
        Some(file) => {
            certificates::of_merchant(&subject, (file, &credentials.private_key_file, &credentials.serial), now)
                .to_vec()
        }
        None => vec![Finding::warning(
            subject,
            "its end is not known: WeChat Pay gave it together with the key, and no file is named",
            "name it (apiclient_cert.pem) as certificate_file of the account in payments.merchants",
        )],
    };
    if let Verification::PublicKey { id, file, .. } = &credentials.verification {
        let id = if id.is_empty() { file.display().to_string() } else { id.clone() };
        let what = format!("merchant {number} verifies with {id}, a key that has no end");
        findings.push(Finding::good("channel wechatpay", what));
    }
    findings
}

/// When the certificates end that an app and Alipay show each other.
fn of_alipay(app: &str, files: &alipay::Certificates, now: Timestamp) -> Vec<Finding> {
    let remedy =
        "fetch the new certificate from Alipay's open platform, and put it into the file that payments.merchants names";
    let whose = [(&files.app_file, "certificate"), (&files.alipay_file, "Alipay's certificate")];
    let look = |(file, whose): (&PathBuf, &str)| {
        let subject = format!("{whose} for app {app}");
        let looked = certificates::chain(file, now, &subject, remedy);
        looked.unwrap_or_else(|error| vec![Finding::bad(subject, format!("{error:#}"), remedy)])
    };
    whose.into_iter().flat_map(look).collect()
}

/// When the channel's own certificates end. It replaces them long before; payments fetches the new ones by itself.
fn of_platform(number: &str, answered: Result<Vec<PlatformCertificate>, ChannelError>, now: Timestamp) -> Vec<Finding> {
    let subject = format!("platform certificate for merchant {number}");
    let remedy = "ask WeChat Pay for its next certificate; without one its answers cannot be verified";
    match answered {
        Ok(certificates) => certificates
            .into_iter()
            .map(|PlatformCertificate { serial, not_before: start, not_after: end }| {
                certificates::ends(&subject, &format!("serial number {serial}"), &Span { start, end }, now, remedy)
            })
            .collect(),
        Err(error) => {
            let remedy =
                "check payments.channels.wechatpay.base_url, the serial number, the private key and the APIv3 key";
            vec![Finding::bad(subject, format!("not to be had: {}", chain(&error)), remedy)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[tokio::test]
    async fn keys_that_are_open_or_cannot_be_used_are_bad() {
        let place = tempfile::tempdir().expect("a directory");
        let mut config = Config::default();
        config.data.directory = place.path().to_owned();
        config.serve.roles = vec![Role::Identity];
        let context = Context::system();
        let verdicts = async |config: &Config| {
            check(config, &context, false).await.iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&config).await, [Verdict::Good, Verdict::Warning]);
        let keys = config.placed().identity.keys_dir;
        fs::create_dir_all(&keys).expect("makes");
        fs::write(keys.join("sign-1.pem"), "").expect("writes");
        fs::set_permissions(keys.join("sign-1.pem"), fs::Permissions::from_mode(0o640)).expect("chmod");
        assert_eq!(verdicts(&config).await, [Verdict::Bad, Verdict::Warning]);

        let entry_point = serde_json::json!({ "id": "wechat", "name": "WeChat", "key_files": [keys.join("none.pem")] });
        config.identity.entry_points = vec![serde_json::from_value(entry_point).expect("an entry point")];
        assert_eq!(verdicts(&config).await, [Verdict::Bad, Verdict::Good, Verdict::Bad], "no such file");
    }
}
