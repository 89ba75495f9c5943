//! The keys of the sandbox's Alipay: made at the first start, kept in a directory, worth nothing anywhere else.
//!
//! ```text
//! <dir>/README.txt
//! <dir>/alipay_private_key.pem           signs answers and notices
//! <dir>/alipay_public_key.pem            what a merchant verifies them with
//! <dir>/<app_id>/app_private_key.pem     app_public_key.pem    an app's own
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use runtime::secret;
use runtime::{Ids, Timestamp};

use crate::key_files::{KeyError, io, make_pair, signer, write_public};
use crate::rsa::Signer;

const README: &str = "Keys of the lastmile sandbox's Alipay. Made at its first start; they open nothing outside it.\n";

/// Every key that the sandbox's Alipay and its apps hold.
#[derive(Debug)]
pub struct Keys {
    /// Signs answers and notices.
    pub(super) alipay: Signer,
    apps: BTreeMap<String, Signer>,
}

impl Keys {
    /// Reads the keys of these apps from the directory; what is missing is made. Synchronous: it belongs to the start.
    pub fn load_or_create(directory: &Path, apps: &[String], ids: &Ids, now: Timestamp) -> Result<Self, KeyError> {
        secret::create_private_dir(directory).map_err(|source| io(directory, source))?;
        write_public(&directory.join("README.txt"), README)?;
        let pair = |directory: &Path, whose: &str| {
            let name = format!("{whose}_private_key.pem");
            make_pair(directory, &name, None, "", ids, now)?;
            let signer = signer(&directory.join(name), String::new())?;
            write_public(&directory.join(format!("{whose}_public_key.pem")), &signer.public_pem())?;
            Ok::<_, KeyError>(signer)
        };
        let alipay = pair(directory, "alipay")?;
        let apps = apps.iter().map(|app| Ok((app.clone(), pair(&directory.join(app), "app")?)));
        Ok(Self { alipay, apps: apps.collect::<Result<_, KeyError>>()? })
    }

    /// Returns an app's own key, which verifies its requests. It also forges: whoever mixes the two public keys up believes it.
    pub(super) fn app(&self, app_id: &str) -> Option<&Signer> {
        self.apps.get(app_id)
    }
}
