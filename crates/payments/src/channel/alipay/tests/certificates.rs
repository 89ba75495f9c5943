//! Certificate mode: the numbers of certificates, ways to a root, and files that do not go together.

use std::path::PathBuf;
use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SerialNumber, date_time_ymd,
};

use super::{ALIPAY, NOW, OURS, Pair, STRANGER, pair, write};
use crate::channel::alipay::certificates::{Certificates, Certified, Numbers};
use crate::channel::keys::SigningKey;

/// A root, an office that it certifies, and a root that nobody trusts.
static ROOT: LazyLock<Pair> = LazyLock::new(pair);
static BETWEEN: LazyLock<Pair> = LazyLock::new(pair);

const ROOT_NAME: &str = "Test root";
/// More than 64 bits: counted in decimal all the same.
const ALIPAY_SERIAL: u128 = 300_000_000_000_000_000_001;
// printf 'CN=Test root,OU=CA,O=lastmile,C=CN17' | md5sum, and so on: the issuer's name backwards and the serial number.
pub(super) const ROOT_NUMBER: &str = "dc0a31aea2bcc859bb25f9077a2b20d1";
pub(super) const APP_NUMBER: &str = "861942c182bd15e2e68b8991c9bf71cf";
pub(super) const ALIPAY_NUMBER: &str = "8f4864a5eb52c266caca3adde3fa52cf";

fn params(common: &str, serial: u128, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    let digits = serial.to_be_bytes();
    let from = digits.iter().position(|digit| *digit != 0).expect("a number");
    params.serial_number = Some(SerialNumber::from_slice(&digits[from..]));
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    // Without the name that rcgen puts there, which would keep its place.
    params.distinguished_name = DistinguishedName::new();
    for (part, text) in [
        (DnType::CountryName, "CN"),
        (DnType::OrganizationName, "lastmile"),
        (DnType::OrganizationalUnitName, "CA"),
        (DnType::CommonName, common),
    ] {
        params.distinguished_name.push(part, text);
    }
    params
}

fn key(pair: &Pair) -> KeyPair {
    KeyPair::from_pem(&pair.private).expect("a key")
}

pub(super) fn root(of: &Pair) -> String {
    params(ROOT_NAME, 17, true).self_signed(&key(of)).expect("signs").pem()
}

/// Certifies a key.
pub(super) fn certify((issuer, by): (&str, &Pair), params: &CertificateParams, of: &Pair) -> String {
    let issuer = Issuer::from_ca_cert_pem(issuer, key(by)).expect("an issuer");
    params.signed_by(&key(of), &issuer).expect("signs").pem()
}

/// The files of an app in certificate mode, with `alipay` certified between it and the root.
pub(super) fn files(dir: &std::path::Path, alipay: &Pair) -> Certificates {
    let root = root(&ROOT);
    let between = certify((&root, &ROOT), &params("Test between", 23, true), &BETWEEN);
    let leaf = certify((&between, &BETWEEN), &params("Alipay", ALIPAY_SERIAL, false), alipay);
    let app = certify((&root, &ROOT), &params("App", 255, false), &OURS);
    let file = |name: &str, text: &str| write(&dir.join(name), text);
    Certificates {
        app_file: file("app.crt", &app),
        alipay_file: file("alipay.crt", &format!("{leaf}{between}")),
        root_file: file("root.crt", &root),
    }
}

struct Stage {
    dir: tempfile::TempDir,
    files: Certificates,
}

fn stage() -> Stage {
    let dir = tempfile::tempdir().expect("a directory");
    Stage { files: files(dir.path(), &ALIPAY), dir }
}

impl Stage {
    fn file(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("other");
        std::fs::write(&path, text).expect("writes");
        path
    }

    /// What reading says with another file in the place of Alipay's.
    fn refused(&self, alipay: &str) -> String {
        let files = Certificates { alipay_file: self.file(alipay), ..self.files.clone() };
        Certified::read(&files).map(|_| ()).expect_err("is refused").to_string()
    }
}

#[test]
fn numbers_are_counted_as_alipay_does() {
    let stage = stage();
    let ours = SigningKey::from_pem(&OURS.private).expect("a key");
    let numbers = Numbers::read(&stage.files, &ours).expect("reads");
    assert_eq!(numbers, Numbers { app: APP_NUMBER.into(), root: ROOT_NUMBER.into() });
    let certified = Certified::read(&stage.files).expect("reads");
    assert_eq!(certified.number, ALIPAY_NUMBER);
    assert!(certified.begins.seconds_nanos().0 < NOW && NOW < certified.ends.seconds_nanos().0);

    // Roots with other keys do not count; several that do are joined.
    let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let other = params("Other", 1, true).self_signed(&other).expect("signs").pem();
    let one = std::fs::read_to_string(&stage.files.root_file).expect("reads");
    let files = Certificates { root_file: stage.file(&format!("{other}\n{one}\n{one}")), ..stage.files.clone() };
    assert_eq!(Numbers::read(&files, &ours).expect("reads").root, format!("{ROOT_NUMBER}_{ROOT_NUMBER}"));
    let files = Certificates { root_file: stage.file(&other), ..stage.files.clone() };
    assert!(Numbers::read(&files, &ours).expect_err("is refused").to_string().ends_with("it has no RSA root"));
}

#[test]
fn a_certificate_of_another_key_is_not_the_apps() {
    let stage = stage();
    let stranger = SigningKey::from_pem(&STRANGER.private).expect("a key");
    let error = Numbers::read(&stage.files, &stranger).expect_err("is refused").to_string();
    assert!(error.contains("app.crt") && error.ends_with("the private key is another one's"), "{error}");
}

#[test]
fn what_does_not_lead_to_the_root_is_refused() {
    let stage = stage();
    let no_way = "it does not lead to a root in the root file";
    let text = std::fs::read_to_string(&stage.files.alipay_file).expect("reads");
    let (leaf, _) = text.split_at(text.rfind("-----BEGIN").expect("a second"));
    assert!(stage.refused(leaf).ends_with(no_way), "what is between is missing");

    // The same names, and keys that the root never saw.
    let forged = params(ROOT_NAME, 17, true).self_signed(&key(&STRANGER)).expect("signs").pem();
    let by_forged = certify((&forged, &STRANGER), &params("Alipay", ALIPAY_SERIAL, false), &STRANGER);
    assert!(stage.refused(&by_forged).ends_with(no_way), "another root of the same name");
    assert!(stage.refused(&format!("{by_forged}{forged}")).ends_with(no_way), "with its root beside it");

    // Who is certified certifies nobody.
    let root = root(&ROOT);
    let app = certify((&root, &ROOT), &params("App", 255, false), &OURS);
    let by_app = certify((&app, &OURS), &params("Alipay", ALIPAY_SERIAL, false), &STRANGER);
    assert!(stage.refused(&format!("{by_app}{app}")).ends_with(no_way), "an app as an office");

    assert!(stage.refused("nothing").ends_with("there is no certificate in it"));
    assert!(stage.refused(&leaf.replace("MII", "MIJ")).ends_with("it does not read"));
}
