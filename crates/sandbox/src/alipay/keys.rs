//! The keys of the sandbox's Alipay: made at the first start, kept in a directory, worth nothing anywhere else.
//!
//! ```text
//! <dir>/README.txt
//! <dir>/alipay_private_key.pem           signs answers and notices
//! <dir>/alipay_public_key.pem            what a merchant verifies them with
//! <dir>/<app_id>/app_private_key.pem     app_public_key.pem    an app's own
//!
//! where an app is in certificate mode (公钥证书):
//! <dir>/alipay_root_key.pem              alipay_root.pem       issues the others
//! <dir>/alipay_certificate.pem           of alipay_private_key.pem
//! <dir>/<app_id>/app_certificate.pem     of the app's key
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use md5::{Digest, Md5};
use rcgen::{BasicConstraints, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use runtime::secret;
use runtime::{Ids, Timestamp};
use x509_parser::pem::Pem;

use crate::config::App;
use crate::key_files::{KeyError, certificate_params, io, make_pair, read, signer, write_public};
use crate::rsa::Signer;

const README: &str = "Keys of the lastmile sandbox's Alipay. Made at its first start; they open nothing outside it.\n";
/// The name of the root, in the order in which it is written.
const ROOT: [(DnType, &str); 4] = [
    (DnType::CountryName, "CN"),
    (DnType::OrganizationName, "lastmile sandbox"),
    (DnType::OrganizationalUnitName, "Certification Authority"),
    (DnType::CommonName, "lastmile sandbox Alipay root"),
];
/// The same as a certificate's number is counted over it.
const ROOT_BACKWARDS: &str = "CN=lastmile sandbox Alipay root,OU=Certification Authority,O=lastmile sandbox,C=CN";

/// Every key that the sandbox's Alipay and its apps hold.
#[derive(Debug)]
pub struct Keys {
    /// Signs answers and notices.
    pub(super) alipay: Signer,
    apps: BTreeMap<String, Signer>,
    certified: Option<Certified>,
}

/// The numbers of the certificates.
#[derive(Debug)]
struct Certified {
    root: String,
    alipay: String,
    apps: BTreeMap<String, String>,
}

impl Keys {
    /// Reads the keys of these apps from the directory; what is missing is made. Synchronous: it belongs to the start.
    pub fn load_or_create(directory: &Path, apps: &[App], ids: &Ids, now: Timestamp) -> Result<Self, KeyError> {
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
        let certified = if apps.iter().any(|app| app.certificates) {
            make_root(directory, ids, now)?;
            Some(Certified {
                root: number(&directory.join("alipay_root.pem"))?,
                alipay: certificate(directory, directory, "alipay", ids, now)?,
                apps: BTreeMap::new(),
            })
        } else {
            None
        };
        let mut keys = Self { alipay, apps: BTreeMap::new(), certified };
        for app in apps {
            let own = directory.join(&app.app_id);
            keys.apps.insert(app.app_id.clone(), pair(&own, "app")?);
            if let Some(certified) = keys.certified.as_mut().filter(|_| app.certificates) {
                certified.apps.insert(app.app_id.clone(), certificate(directory, &own, "app", ids, now)?);
            }
        }
        Ok(keys)
    }

    /// Returns an app's own key, which verifies its requests. It also forges: whoever mixes the two public keys up believes it.
    pub(super) fn app(&self, app_id: &str) -> Option<&Signer> {
        self.apps.get(app_id)
    }

    /// Tells whether a request names the certificates that an app in certificate mode has to name.
    pub(super) fn certificates_are(&self, app_id: &str, app: Option<&str>, root: Option<&str>) -> bool {
        let held = self.certified.as_ref().and_then(|certified| Some((certified.apps.get(app_id)?, &certified.root)));
        held.is_none_or(|held| (Some(held.0.as_str()), Some(held.1.as_str())) == (app, root))
    }

    /// The number of the certificate that answers to an app are signed by, where it is in certificate mode.
    pub(super) fn certificate_for(&self, app_id: &str) -> Option<&str> {
        let certified = self.certified.as_ref().filter(|certified| certified.apps.contains_key(app_id));
        certified.map(|certified| certified.alipay.as_str())
    }
}

fn make_root(directory: &Path, ids: &Ids, now: Timestamp) -> Result<(), KeyError> {
    let key_file = directory.join("alipay_root_key.pem");
    if key_file.exists() {
        return Ok(());
    }
    let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let mut params = certificate_params(&ROOT, ids, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let file = directory.join("alipay_root.pem");
    // Before the key, which says that both are there.
    std::fs::write(&file, params.self_signed(&pair)?.pem()).map_err(|source| io(&file, source))?;
    Ok(secret::create_private(&key_file, pair.serialize_pem().as_bytes())?)
}

/// Has the root certify the key of `whose` in a directory, where that is missing; hands back the certificate's number.
fn certificate(root: &Path, directory: &Path, whose: &str, ids: &Ids, now: Timestamp) -> Result<String, KeyError> {
    let file = directory.join(format!("{whose}_certificate.pem"));
    if !file.exists() {
        let pair = |file: &Path| Ok::<_, KeyError>(KeyPair::from_pem(secret::read_private_text(file)?.expose())?);
        let issuer =
            Issuer::from_ca_cert_pem(&read(&root.join("alipay_root.pem"))?, pair(&root.join("alipay_root_key.pem"))?)?;
        let own = pair(&directory.join(format!("{whose}_private_key.pem")))?;
        let name =
            [(DnType::CountryName, "CN"), (DnType::OrganizationName, "lastmile sandbox"), (DnType::CommonName, whose)];
        let certificate = certificate_params(&name, ids, now).signed_by(&own, &issuer)?;
        std::fs::write(&file, certificate.pem()).map_err(|source| io(&file, source))?;
    }
    number(&file)
}

/// A certificate's number as Alipay counts it.
fn number(file: &Path) -> Result<String, KeyError> {
    let text = read(file)?;
    let unusable = || KeyError::Unusable { path: file.to_owned() };
    let pem = Pem::iter_from_buffer(text.as_bytes()).next().and_then(Result::ok).ok_or_else(unusable)?;
    let serial = pem.parse_x509().map_err(|_| unusable())?.tbs_certificate.serial.to_string();
    Ok(hex::encode(Md5::digest(format!("{ROOT_BACKWARDS}{serial}"))))
}
