//! Writes the file: JSON lines, the same bytes from the same rows whenever they are asked for.

use aws_lc_rs::digest::{Context as Digest, SHA256};
use rpc::jose::{Jwk, SigningKey};
use serde::{Deserialize, Serialize};

use super::TYP;
use crate::beijing;
use crate::domain::settlement::{Line, Settlement};

/// The first word of every file.
pub(super) const FORM: &str = "lastmile-settlement";
/// The version of the form.
pub(super) const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) form: String,
    pub(super) version: u32,
    pub(super) file: String,
    pub(super) settlement_id: String,
    pub(super) payee: String,
    pub(super) number: i64,
    pub(super) day: String,
    pub(super) cut_at: String,
    pub(super) currency: String,
    pub(super) carried_minor: i64,
    pub(super) carried_from: String,
}

/// A line between the first and the last.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) transfer_id: String,
    pub(super) order_id: String,
    pub(super) at: String,
    pub(super) amount_minor: i64,
    pub(super) channel: String,
    pub(super) merchant: String,
    pub(super) transaction: String,
    pub(super) proof_serial: String,
    pub(super) payment_code: String,
}

/// The last line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tail {
    pub(super) what: String,
    pub(super) lines: i64,
    pub(super) gross_minor: i64,
    pub(super) refunds_minor: i64,
    pub(super) carried_minor: i64,
    pub(super) net_minor: i64,
}

/// What is signed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    pub(super) file: String,
    pub(super) sha256: String,
}

fn written(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut text = serde_json::to_vec(value).ok()?;
    text.push(b'\n');
    Some(text)
}

/// Writes the first line.
pub(crate) fn head(one: &Settlement) -> Option<Vec<u8>> {
    written(&Head {
        form: FORM.to_owned(),
        version: VERSION,
        file: one.file_name(),
        settlement_id: one.id.to_string(),
        payee: one.payee.clone(),
        number: one.number,
        day: one.day.to_string(),
        cut_at: beijing::stamp(one.cut_at),
        currency: one.currency.as_str().to_owned(),
        carried_minor: one.carried,
        carried_from: one.carried_from.map(|id| id.to_string()).unwrap_or_default(),
    })
}

/// Writes a line.
pub(crate) fn line(line: &Line) -> Option<Vec<u8>> {
    written(&Row {
        what: line.what.as_str().to_owned(),
        transfer_id: line.transfer.as_str().to_owned(),
        order_id: line.order.to_string(),
        at: beijing::stamp(line.at),
        amount_minor: line.amount,
        channel: line.channel.clone(),
        merchant: line.merchant.clone(),
        transaction: line.transaction.clone(),
        proof_serial: line.proof_serial.clone(),
        payment_code: line.payment_code.clone(),
    })
}

/// Writes the last line.
pub(crate) fn tail(one: &Settlement) -> Option<Vec<u8>> {
    written(&Tail {
        what: "total".to_owned(),
        lines: one.totals.count,
        gross_minor: one.totals.gross,
        refunds_minor: one.totals.refunds,
        carried_minor: one.carried,
        net_minor: one.net()?,
    })
}

/// What makes a file one that can be believed.
pub(crate) struct Seal {
    pub(crate) sha256: String,
    pub(crate) signature: String,
    pub(crate) key: String,
}

/// Signs a file by its name and digest.
pub(crate) fn seal(name: &str, digest: Digest, key: &SigningKey) -> Option<Seal> {
    let sha256 = hex::encode(digest.finish());
    let claims = Claims { file: name.to_owned(), sha256: sha256.clone() };
    let jwk: Jwk = key.jwk();
    Some(Seal { sha256, signature: key.sign(TYP, &claims).ok()?, key: serde_json::to_string(&jwk).ok()? })
}

/// Begins a digest of a file.
pub(crate) fn digest() -> Digest {
    Digest::new(&SHA256)
}
