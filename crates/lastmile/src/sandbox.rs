//! What the sandbox changes for the other roles: where departments and channels are, and with which keys the channel is met.
//!
//! It only adds. What an operator configured stays as it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use adapter::Endpoint;
use anyhow::Context as _;
use payments::config::{Merchant, Payee, Verification};
use sandbox::Keys;

use crate::Config;
use crate::config::At;

/// The super app of the sandbox's merchants, and the channel.
const ENTRY_POINT: &str = "wechat";
const CHANNEL: &str = "wechatpay";

/// Who is paid in the sandbox, as the catalogue names them, each with a merchant number at the simulated WeChat Pay.
const PAYEES: [(&str, &str, &str); 2] = [
    ("treasury-430100-traffic", "长沙市交通罚款（演示）", "1900430100"),
    ("treasury-140100-traffic", "太原市交通罚款（演示）", "1900140100"),
];

/// The address of the sandbox's control port.
pub(crate) fn control_address(config: &Config) -> String {
    let at = &config.sandbox.at.control;
    if at.is_empty() { crate::health::reachable_text(&config.sandbox.systems.control.listen) } else { at.clone() }
}

/// Where the keys of the sandbox's entry points and clerks are.
pub(crate) fn client_keys_dir(config: &Config) -> PathBuf {
    config.identity.sandbox_keys_dir.clone().unwrap_or_else(|| config.data.directory.join("sandbox").join("clients"))
}

/// Where the systems are: of this process where they run here, else as configured.
pub(crate) fn at(addresses: &sandbox::Addresses) -> At {
    At {
        control: addresses.control.to_string(),
        wechatpay: addresses.wechatpay.to_string(),
        police_430100: addresses.police_430100.to_string(),
        police_140100: addresses.police_140100.to_string(),
    }
}

/// Lets payments collect through the simulated WeChat Pay, with the keys that the sandbox made.
///
/// Errors: a key file of the sandbox that is not there or cannot be read.
pub(crate) fn wire_payments(config: &Config, callbacks_at: SocketAddr) -> anyhow::Result<payments::Config> {
    let mut wired = config.payments.clone();
    let wechatpay = &mut wired.channels.wechatpay;
    if wechatpay.is_offered() {
        return Ok(wired);
    }
    let directory = config.sandbox.systems.keys_dir();
    wechatpay.base_url = format!("http://{}", config.sandbox.at.wechatpay);
    if wechatpay.notify_base_url.is_empty() {
        wechatpay.notify_base_url = format!("http://{}", crate::health::reachable_text(&callbacks_at.to_string()));
    }
    for (payee_id, name, mchid) in PAYEES {
        if !wired.payees.iter().any(|payee| payee.payee_id == payee_id) {
            wired.payees.push(Payee { payee_id: payee_id.to_owned(), name: name.to_owned() });
        }
        let known = config.sandbox.systems.wechatpay.merchants.iter().find(|merchant| merchant.mchid == mchid);
        let app_id = known.and_then(|merchant| merchant.appids.first());
        if let Some(app_id) = app_id {
            wired.merchants.push(merchant(&directory, payee_id, mchid, app_id)?);
        }
    }
    Ok(wired)
}

fn merchant(directory: &Path, payee_id: &str, mchid: &str, app_id: &str) -> anyhow::Result<Merchant> {
    let text = |file: PathBuf| {
        let text = std::fs::read_to_string(&file);
        text.map(|text| text.trim().to_owned()).with_context(|| format!("the sandbox's {}", file.display()))
    };
    let (own, platform) = (directory.join(mchid), directory.join("platform"));
    Ok(Merchant {
        entry_point: ENTRY_POINT.to_owned(),
        channel: CHANNEL.to_owned(),
        payee_id: payee_id.to_owned(),
        app_id: app_id.to_owned(),
        mch_id: mchid.to_owned(),
        serial: text(own.join("serial_no.txt"))?,
        private_key_file: own.join("private_key.pem"),
        certificate_file: Some(own.join("certificate.pem")),
        api_v3_key_file: own.join("apiv3_key.txt"),
        verification: Verification::PublicKey {
            id: text(platform.join("public_key_id.txt"))?,
            file: platform.join("public_key.pem"),
        },
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

/// Makes the keys of the simulated WeChat Pay, for processes that start apart from it; what is there stays.
pub(crate) fn make_keys(config: &Config, context: &runtime::Context) -> anyhow::Result<PathBuf> {
    let config = config.placed();
    let directory = config.sandbox.systems.keys_dir();
    let mchids: Vec<String> =
        config.sandbox.systems.wechatpay.merchants.iter().map(|merchant| merchant.mchid.clone()).collect();
    Keys::load_or_create(&directory, &mchids, &context.ids, context.clock.now())?;
    Ok(directory)
}
