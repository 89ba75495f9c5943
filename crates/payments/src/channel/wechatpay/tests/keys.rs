//! Certificates and keys, and how they are replaced.

use super::notices::open;
use super::*;

/// A certificate of WeChat's key, valid from 2019 to 2023, as the download brings it.
fn certificate_list(serial: &[u8]) -> String {
    let key = rcgen::KeyPair::from_pem_and_sign_algo(&WECHAT.private, &rcgen::PKCS_RSA_SHA256).expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![]).expect("parameters");
    params.serial_number = Some(rcgen::SerialNumber::from_slice(serial));
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2024, 1, 1);
    let pem = params.self_signed(&key).expect("signs").pem();
    let sealed = seal::tests::seal(pem.as_bytes(), "61f9c719728a", "certificate");
    json!({"data": [{"serial_no": "WRONG", "effective_time": "", "expire_time": "", "encrypt_certificate": sealed}]})
        .to_string()
}

fn read_certificates(serial: &[u8]) -> trust::Keys {
    let seal_key = seal::SealKey::new(seal::tests::KEY).expect("a key");
    trust::read(certificate_list(serial).as_bytes(), |sealed| seal_key.open(sealed)).expect("reads")
}

#[test]
fn platform_certificates_are_taken_from_their_seal() {
    let keys = read_certificates(&[0x0a, 0xbc, 0xde]);
    let found = trust::find(&keys, "0ABCDE", now()).expect("under the certificate's own number");
    assert!(found.verifies(b"m", &SigningKey::from_pem(&WECHAT.private).expect("a key").sign("m").expect("signs")));
    assert!(trust::find(&keys, "WRONG", now()).is_none());
    let later = Timestamp::from_seconds_nanos(1_704_067_201, 0);
    assert!(trust::find(&keys, "abcde", later).is_none(), "it has ended");

    let other = seal::SealKey::new(b"another-key-of-32-bytes-and-more".as_slice()).expect("a key");
    let body = certificate_list(&[1]);
    assert_eq!(trust::read(body.as_bytes(), |sealed| other.open(sealed)).err(), Some("sealed certificate"));
}

#[test]
fn certificates_are_downloaded_when_it_is_worth_it_and_not_more_often() {
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
    let at = |seconds: u64| now().plus(std::time::Duration::from_secs(seconds));
    let mut cache = trust::Cache::default();
    let look = |cache: &trust::Cache, serial: &str, seconds: u64| {
        let (found, wanted) = cache.look(serial, at(seconds), DAY);
        (found.is_some(), wanted)
    };
    assert_eq!(look(&cache, "0A", 0), (false, true), "nothing is there yet");
    cache.trying(at(0));
    assert_eq!(look(&cache, "0A", 4), (false, false), "it failed just now");
    assert_eq!(look(&cache, "0A", 5), (false, true));
    cache.trying(at(5));
    cache.load(read_certificates(&[0x0a]), at(5));
    assert_eq!(look(&cache, "0a", 6), (true, false));
    assert_eq!(look(&cache, "FF", 64), (false, false), "an invented number");
    assert_eq!(look(&cache, "FF", 65), (false, true), "or a new one");
    assert_eq!(look(&cache, "0A", 86_405), (true, true), "old ones serve while they are renewed");
    cache.load(read_certificates(&[0x0b]), at(86_405));
    assert!(!look(&cache, "0A", 86_406).0, "rotated out");
    assert_eq!(look(&cache, "0B", 86_406), (true, false));
}

/// A driver whose key files a test replaces, with the hand of its clock.
struct Rotating {
    driver: WechatPay,
    hand: runtime::clock::ManualClock,
    dir: tempfile::TempDir,
}

/// A certificate of a merchant's key under a serial number.
fn own_certificate(key: &Pair, serial: u8) -> String {
    let key = rcgen::KeyPair::from_pem_and_sign_algo(&key.private, &rcgen::PKCS_RSA_SHA256).expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![]).expect("parameters");
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&[serial; 20]));
    params.self_signed(&key).expect("signs").pem()
}

impl Rotating {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut merchant = merchant(dir.path());
        let config::Credentials::Wechatpay(credentials) = &mut merchant.credentials else { unreachable!("WeChat's") };
        let (certificate, id) = (dir.path().join("merchant.crt"), dir.path().join("wechat.id"));
        std::fs::write(&certificate, own_certificate(&OURS, 0x4a)).expect("writes");
        std::fs::write(&id, format!("{KEY_ID}\n")).expect("writes");
        credentials.serial = String::new();
        credentials.certificate_file = Some(certificate);
        let Verification::PublicKey { id: fixed, id_file, .. } = &mut credentials.verification else { unreachable!() };
        (*fixed, *id_file) = (String::new(), Some(id));
        let (clock, hand) = Clock::manual(now());
        let context = Context { clock, ..Context::system() };
        let config = Config { base_url: "http://wechat".into(), ..Config::default() };
        let driver = WechatPay::new(config, &[merchant], KeyFiles::default(), context).expect("reads the keys");
        Self { driver, hand, dir }
    }

    /// Puts a file in its place and passes the time until it is looked at.
    fn replace(&self, name: &str, bytes: &[u8]) {
        let (new, path) = (self.dir.path().join("new"), self.dir.path().join(name));
        secret::create_private(&new, bytes).expect("writes");
        std::fs::rename(new, path).expect("renames");
        self.hand.advance(KeyFiles::default().look_every.get());
    }

    /// The serial number that a request is signed under, and whether it is `pair`'s signature.
    fn signs(&self, pair: &Pair) -> (String, bool) {
        let account = self.driver.account(MERCHANT).expect("an account");
        let request = self.driver.signed(account, Method::GET, "/v3/x", String::new()).expect("signs");
        let header = request.headers()[http::header::AUTHORIZATION].to_str().expect("text");
        let field = |name: &str| header.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        let [serial, seconds, nonce, signature] =
            ["serial_no", "timestamp", "nonce_str", "signature"].map(|name| field(name).expect("is there"));
        let message = format!("GET\n/v3/x\n{seconds}\n{nonce}\n\n");
        let key = VerifyingKey::from_pem(pair.public.as_bytes()).expect("a key");
        (serial.to_owned(), key.verifies(message.as_bytes(), signature))
    }

    /// Whether a callback opens that was signed just now by `pair` under `id` and sealed under `seal_key`.
    async fn opens(&self, pair: &Pair, id: &str, seal_key: &[u8]) -> bool {
        let mut resource = seal::tests::seal_with(seal_key, transaction("SUCCESS").to_string().as_bytes());
        resource["original_type"] = "transaction".into();
        let body = json!({"id": "n-1", "resource": resource}).to_string();
        let seconds = self.driver.now().seconds_nanos().0.to_string();
        let key = SigningKey::from_pem(&pair.private).expect("a key");
        let signature = key.sign(&format!("{seconds}\nn\n{body}\n")).expect("signs");
        let signed = headers(&[
            (signing::H_TIMESTAMP, &seconds),
            (signing::H_NONCE, "n"),
            (signing::H_SIGNATURE, &signature),
            (signing::H_SERIAL, id),
        ]);
        open(&self.driver, MERCHANT, &signed, &body).await.is_ok()
    }
}

static NEXT: LazyLock<Pair> = LazyLock::new(pair);

#[test]
fn a_new_key_of_the_merchant_is_signed_with_once_its_certificate_is_there_too() {
    let rotating = Rotating::new();
    assert_eq!(rotating.signs(&OURS), ("4A".repeat(20), true));
    rotating.replace("merchant.pem", NEXT.private.as_bytes());
    assert_eq!(rotating.signs(&OURS), ("4A".repeat(20), true), "half of a pair is not used");
    rotating.replace("merchant.crt", own_certificate(&NEXT, 0x5b).as_bytes());
    assert_eq!(rotating.signs(&NEXT), ("5B".repeat(20), true));
    assert!(!rotating.signs(&OURS).1);
    rotating.replace("merchant.crt", b"nothing");
    assert_eq!(rotating.signs(&NEXT), ("5B".repeat(20), true), "what cannot be used changes nothing");
}

#[tokio::test]
async fn callbacks_verify_and_open_under_old_and_new_keys_during_the_overlap() {
    const NEW_ID: &str = "PUB_KEY_ID_0119000000012027";
    const NEW_SEAL: &[u8; 32] = b"fedcba9876543210fedcba9876543210";
    let rotating = Rotating::new();
    assert!(rotating.opens(&WECHAT, KEY_ID, seal::tests::KEY).await);
    assert!(!rotating.opens(&NEXT, NEW_ID, seal::tests::KEY).await && !rotating.opens(&WECHAT, KEY_ID, NEW_SEAL).await);

    rotating.replace("wechat.pem", NEXT.public.as_bytes());
    assert!(rotating.opens(&WECHAT, KEY_ID, seal::tests::KEY).await, "the old key still has the old id");
    rotating.replace("wechat.id", NEW_ID.as_bytes());
    rotating.replace("apiv3.key", NEW_SEAL);
    for seal_key in [seal::tests::KEY, NEW_SEAL] {
        assert!(rotating.opens(&WECHAT, KEY_ID, seal_key).await, "what was on its way");
        assert!(rotating.opens(&NEXT, NEW_ID, seal_key).await);
    }
    assert!(!rotating.opens(&WECHAT, NEW_ID, NEW_SEAL).await, "each key under its own id");

    rotating.hand.advance(KeyFiles::default().overlap.get());
    assert!(rotating.opens(&NEXT, NEW_ID, NEW_SEAL).await);
    assert!(!rotating.opens(&WECHAT, KEY_ID, NEW_SEAL).await && !rotating.opens(&NEXT, NEW_ID, seal::tests::KEY).await);
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = merchant(dir.path());
    let refused = |change: fn(&mut Credentials)| {
        let mut merchant = good.clone();
        if let config::Credentials::Wechatpay(credentials) = &mut merchant.credentials {
            change(credentials);
        }
        let driver = WechatPay::new(Config::default(), &[merchant], KeyFiles::default(), Context::system());
        driver.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(|m| m.private_key_file = m.api_v3_key_file.clone()).starts_with("the private key in"));
    assert!(refused(|m| m.api_v3_key_file = m.private_key_file.clone()).contains("APIv3 key: 32 bytes"));
    assert!(refused(|m| m.private_key_file = "/nowhere/at/all".into()).contains("private file"));
    assert!(refused(|m| m.certificate_file = Some(m.private_key_file.clone())).starts_with("the certificate in"));
    let public = |m: &mut Credentials| {
        m.verification = Verification::PublicKey { id: "x".into(), id_file: None, file: m.private_key_file.clone() }
    };
    assert!(refused(public).starts_with("the public key in"));
}
