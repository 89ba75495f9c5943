//! The clients of the sandbox: keys that anybody with the data directory has, for development alone.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rpc::jose::{AgreementKey, AgreementPublicKey, Curve, KeyError, SigningKey, VerifyingKey};
use runtime::Ids;
use runtime::secret::create_private_dir;

use super::{Client, ClientKind, Registry, RegistryError};
use crate::config::{SCOPES, StaffKind};
use crate::domain::level::Level;

/// The entry points for which keys are made. `taobao` signs with ES256, the others with EdDSA.
pub const SANDBOX_ENTRY_POINTS: [&str; 6] = ["wechat", "qq", "tencent-news", "alipay", "weibo", "taobao"];
/// The clerks for which keys are made, both of the two cities' traffic police: a decision that moves money takes two.
pub const SANDBOX_CLERKS: [&str; 2] = ["clerk-1", "clerk-2"];
/// The operators for which keys are made: what stands for moved money takes two here as well.
pub const SANDBOX_OPERATORS: [&str; 2] = ["operator-1", "operator-2"];

const CLERK_DEPARTMENTS: [&str; 1] = ["traffic"];
const CLERK_REGIONS: [&str; 2] = ["430100", "140100"];
const ES256_ENTRY_POINT: &str = "taobao";
const LABEL_FILE: &str = "SANDBOX.txt";
const LABEL: &str = "Private keys of the sandbox's entry points and staff, made at the first start, for development alone.\n\
    Whoever has them can ask for any token of an installation whose configuration names this directory.\n";

/// Adds the sandbox's clients; an id that the configuration has is left to the configuration.
pub(super) fn add(registry: &mut Registry, dir: &Path, ids: &Ids) -> Result<(), RegistryError> {
    let fault = |path: &Path, source| RegistryError::Sandbox { path: path.to_owned(), source };
    let io = |source| KeyError::File(runtime::secret::KeyFileError::Io { path: dir.to_owned(), source });
    create_private_dir(dir).and_then(|()| fs::write(dir.join(LABEL_FILE), LABEL)).map_err(|e| fault(dir, io(e)))?;
    let ids_made = SANDBOX_ENTRY_POINTS.into_iter().chain(SANDBOX_CLERKS).chain(SANDBOX_OPERATORS);
    for id in ids_made.filter(|id| !registry.has(id)).collect::<Vec<_>>() {
        let path = dir.join(format!("{id}.pem"));
        let key = load_or_create(id, &path, ids).map_err(|source| fault(&path, source))?;
        registry.add(&Arc::new(client(id)), key)?;
    }
    tracing::warn!(dir = %dir.display(), "the sandbox's clients are registered: development only");
    Ok(())
}

fn load_or_create(id: &str, path: &Path, ids: &Ids) -> Result<VerifyingKey, KeyError> {
    if id != ES256_ENTRY_POINT {
        return SigningKey::load_or_create(path, ids).map(|key| key.verifying_key());
    }
    // A P-256 key is one whether it signs or agrees; the client signs with it, this side needs the public half only.
    match AgreementKey::load_or_create(path, Curve::P256, ids)?.public() {
        AgreementPublicKey::P256 { x, y } => Ok(VerifyingKey::P256 { x: *x, y: *y }),
        AgreementPublicKey::X25519(_) => Err(KeyError::Format("P-256")),
    }
}

fn client(id: &str) -> Client {
    let kind = if SANDBOX_CLERKS.contains(&id) {
        ClientKind::Staff {
            kind: StaffKind::Clerk,
            departments: CLERK_DEPARTMENTS.map(str::to_owned).into(),
            regions: CLERK_REGIONS.map(str::to_owned).into(),
        }
    } else if SANDBOX_OPERATORS.contains(&id) {
        ClientKind::Staff { kind: StaffKind::Operator, departments: [].into(), regions: [].into() }
    } else {
        ClientKind::EntryPoint { scopes: SCOPES.map(str::to_owned).into(), level_max: Level::Face }
    };
    Client { id: id.to_owned(), kind, suspended: false }
}
