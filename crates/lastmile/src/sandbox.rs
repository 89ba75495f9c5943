//! What the sandbox changes for the other roles: where departments and channels are, and with which keys the channel is met.
//!
//! It only adds. What an operator configured stays as it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use adapter::Endpoint;
use anyhow::Context as _;
use payments::channel::{alipay, wechatpay};
use payments::config::{Credentials, Merchant, Payee};
use sandbox::{AlipayKeys, Keys};

use crate::Config;
use crate::config::At;

/// The super apps of the sandbox's merchants, one for each channel.
const BY_WECHATPAY: &str = "wechat";
const BY_ALIPAY: &str = "alipay";

/// Who is paid in the sandbox, as the catalogue names them, each with a merchant number at the simulated WeChat Pay and an app at the
/// simulated Alipay.
const PAYEES: [(&str, &str, &str, &str); 2] = [
    ("treasury-430100-traffic", "长沙市交通罚款（演示）", "1900430100", "2021000000430100"),
    ("treasury-140100-traffic", "太原市交通罚款（演示）", "1900140100", "2021000000140100"),
];

/// Whose bills carry payment codes. Their layout: docs/sandbox/police-430100.md.
const WITH_PAYMENT_CODES: &str = "treasury-430100-traffic";

/// The address of the sandbox's control port.
pub(crate) fn control_address(config: &Config) -> String {
    let at = &config.sandbox.at.control;
    if at.is_empty() { crate::health::reachable_text(&config.sandbox.systems.control.listen) } else { at.clone() }
}

/// Where the keys of the sandbox's entry points and staff are.
pub(crate) fn client_keys_dir(config: &Config) -> PathBuf {
    config.identity.sandbox_keys_dir.clone().unwrap_or_else(|| config.data.directory.join("sandbox").join("clients"))
}

/// Where the systems are: of this process where they run here, else as configured.
pub(crate) fn at(addresses: &sandbox::Addresses) -> At {
    At {
        control: addresses.control.to_string(),
        wechatpay: addresses.wechatpay.to_string(),
        alipay: addresses.alipay.to_string(),
        police_430100: addresses.police_430100.to_string(),
        police_140100: addresses.police_140100.to_string(),
    }
}

/// Lets payments collect through the simulated channels, with the keys that the sandbox made.
///
/// Errors: a key file of the sandbox that is not there or cannot be read.
pub(crate) fn wire_payments(config: &Config, callbacks_at: SocketAddr) -> anyhow::Result<payments::Config> {
    let mut wired = config.payments.clone();
    let (channels, systems, at) = (&mut wired.channels, &config.sandbox.systems, &config.sandbox.at);
    let [by_wechatpay, by_alipay] = [
        (&mut channels.wechatpay.base_url, &mut channels.wechatpay.notify_base_url, &at.wechatpay),
        (&mut channels.alipay.base_url, &mut channels.alipay.notify_base_url, &at.alipay),
    ]
    .map(|(base_url, notify_base_url, at)| {
        let is_simulated = base_url.is_empty();
        if is_simulated {
            *base_url = format!("http://{at}");
            if notify_base_url.is_empty() {
                *notify_base_url = format!("http://{}", crate::health::reachable_text(&callbacks_at.to_string()));
            }
        }
        is_simulated
    });
    for (payee_id, name, mchid, app_id) in PAYEES {
        if (by_wechatpay || by_alipay) && !wired.payees.iter().any(|payee| payee.payee_id == payee_id) {
            wired.payees.push(Payee { payee_id: payee_id.to_owned(), name: name.to_owned() });
            give_receipts(&mut wired, payee_id);
        }
        let merchant = systems.wechatpay.merchants.iter().find(|merchant| by_wechatpay && merchant.mchid == mchid);
        if let Some(appid) = merchant.and_then(|merchant| merchant.appids.first()) {
            wired.merchants.push(at_wechatpay(&systems.keys_dir(), payee_id, mchid, appid)?);
        }
        if let Some(app) = systems.alipay.apps.iter().find(|app| by_alipay && app.app_id == app_id) {
            wired.merchants.push(at_alipay(&systems.alipay_keys_dir(), payee_id, app));
        }
    }
    Ok(wired)
}

/// Simulated payees have receipts, and payment codes where their department gives them. Class and kind of the receipts are our own.
fn give_receipts(wired: &mut payments::Config, payee_id: &str) {
    let region = payee_id.split('-').nth(1).and_then(|region| region.get(..2)).unwrap_or("00");
    let series = payments::receipts::Series { payee_id: payee_id.to_owned(), code_prefix: format!("{region}0101") };
    wired.receipts.payees.push(series);
    if wired.receipts.verify_url.is_empty() {
        wired.receipts.verify_url = "https://receipts.example/verify".to_owned();
    }
    if WITH_PAYMENT_CODES == payee_id {
        let (payee_id, alphabet) = (payee_id.to_owned(), "0123456789".to_owned());
        wired.payment_codes.push(payments::payment_codes::Shape { payee_id, length: 20, alphabet });
    }
}

fn at_alipay(directory: &Path, payee_id: &str, app: &sandbox::App) -> Merchant {
    let own = directory.join(&app.app_id);
    let certificates = alipay::Certificates {
        app_file: own.join("app_certificate.pem"),
        alipay_file: directory.join("alipay_certificate.pem"),
        root_file: directory.join("alipay_root.pem"),
    };
    let public = if app.certificates { PathBuf::new() } else { directory.join("alipay_public_key.pem") };
    Merchant {
        entry_point: BY_ALIPAY.to_owned(),
        payee_id: payee_id.to_owned(),
        app_id: app.app_id.clone(),
        mch_id: app.pid.clone(),
        credentials: Credentials::Alipay(alipay::Credentials {
            api: alipay::Api::V2,
            private_key_file: own.join("app_private_key.pem"),
            alipay_public_key_file: public,
            certificates: app.certificates.then_some(certificates),
            return_url: String::new(),
        }),
    }
}

fn at_wechatpay(directory: &Path, payee_id: &str, mchid: &str, app_id: &str) -> anyhow::Result<Merchant> {
    let text = |file: PathBuf| {
        let text = std::fs::read_to_string(&file);
        text.map(|text| text.trim().to_owned()).with_context(|| format!("the sandbox's {}", file.display()))
    };
    let (own, platform) = (directory.join(mchid), directory.join("platform"));
    Ok(Merchant {
        entry_point: BY_WECHATPAY.to_owned(),
        payee_id: payee_id.to_owned(),
        app_id: app_id.to_owned(),
        mch_id: mchid.to_owned(),
        credentials: Credentials::Wechatpay(wechatpay::Credentials {
            serial: text(own.join("serial_no.txt"))?,
            private_key_file: own.join("private_key.pem"),
            certificate_file: Some(own.join("certificate.pem")),
            api_v3_key_file: own.join("apiv3_key.txt"),
            verification: wechatpay::Verification::PublicKey {
                id: text(platform.join("public_key_id.txt"))?,
                id_file: None,
                file: platform.join("public_key.pem"),
            },
        }),
    })
}

/// Lets the two cities' profiles speak with the simulated police.
pub(crate) fn wire_adapter(config: &mut adapter::Config, at: &At) {
    let simulated = |endpoint| Endpoint { endpoint, sandbox: true, settings: BTreeMap::new() };
    for (profile, endpoint) in
        [("traffic/430100", format!("http://{}", at.police_430100)), ("traffic/140100", at.police_140100.clone())]
    {
        config.profiles.entry(profile.to_owned()).or_insert_with(|| simulated(endpoint));
    }
}

/// Makes the keys of the simulated payment channels, for processes that start apart from them; what is there stays. Returns where they
/// are.
pub(crate) fn make_keys(config: &Config, context: &runtime::Context) -> anyhow::Result<[PathBuf; 2]> {
    let systems = config.placed().sandbox.systems;
    let (wechatpay, alipay) = (systems.keys_dir(), systems.alipay_keys_dir());
    let (ids, now) = (&context.ids, context.clock.now());
    let mchids: Vec<String> = systems.wechatpay.merchants.into_iter().map(|merchant| merchant.mchid).collect();
    Keys::load_or_create(&wechatpay, &mchids, ids, now)?;
    AlipayKeys::load_or_create(&alipay, &systems.alipay.apps, ids, now)?;
    Ok([wechatpay, alipay])
}
