//! Callbacks of WeChat Pay: first the signature over the raw bytes, then the seal, then the content.

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;

use super::combine;
use super::driver::WechatPay;
use super::seal::Sealed;
use super::signing::{BadSigned, Signed};
use super::wire::{RefundNotice, Transaction};
use crate::channel::{CallbackError, Notice, OrderStatus, RefundStatus};

#[derive(Deserialize)]
struct Envelope {
    resource: Resource,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    original_type: String,
    #[serde(flatten)]
    sealed: Sealed,
}

/// What a payment's callback is about. The two have no name of a number in common.
#[derive(Deserialize)]
#[serde(untagged)]
enum Paid {
    Together(combine::Told),
    Alone(Transaction),
}

/// What a mixed order's callback is about.
#[derive(Deserialize)]
struct Mixed {
    mix_trade_no: String,
    out_trade_no: String,
}

impl WechatPay {
    /// Verifies and opens a callback for `merchant`.
    pub(super) async fn open(
        &self,
        merchant: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Notice, CallbackError> {
        let account = self.account(merchant).ok_or(CallbackError::Merchant)?;
        let signed = Signed::read(headers, self.now()).map_err(|bad| match bad {
            BadSigned::Header(name) => CallbackError::Header(name),
            BadSigned::Time => CallbackError::Time,
            BadSigned::Probe => CallbackError::Signature,
        })?;
        let keys = self.keys(account, signed.serial).await.map_err(CallbackError::Key)?;
        if !keys.iter().any(|key| signed.covers(body, key)) {
            return Err(CallbackError::Signature);
        }
        let envelope: Envelope = serde_json::from_slice(body).map_err(|_| CallbackError::Content("envelope"))?;
        let plain = account.open(&envelope.resource.sealed).ok_or(CallbackError::Content("seal"))?;
        match envelope.resource.original_type.as_str() {
            "transaction" => transaction(&plain, merchant),
            "refund" => refund(&plain, merchant),
            _ => Ok(mixed(&plain)),
        }
    }
}

/// A callback about a mixed order has the number of the whole in it, and ours.
fn mixed(plain: &[u8]) -> Notice {
    match serde_json::from_slice::<Mixed>(plain) {
        Ok(told) if !told.mix_trade_no.is_empty() => Notice::Mixed { channel_order_no: told.out_trade_no },
        Ok(_) | Err(_) => Notice::Other,
    }
}

fn transaction(plain: &[u8], merchant: &str) -> Result<Notice, CallbackError> {
    let told = serde_json::from_slice(plain).map_err(|_| CallbackError::Content("transaction"))?;
    let told = match told {
        Paid::Together(told) => return told.notice(merchant),
        Paid::Alone(told) => told,
    };
    if !told.is_of(merchant) {
        return Err(CallbackError::Content("mchid"));
    }
    match told.status().map_err(CallbackError::Content)? {
        OrderStatus::Paid(capture) => {
            Ok(Notice::Paid { channel_order_no: told.out_trade_no, app_id: told.appid, capture })
        }
        OrderStatus::Pending | OrderStatus::Closed | OrderStatus::Half { .. } | OrderStatus::Differs(_) => {
            Ok(Notice::Other)
        }
    }
}

fn refund(plain: &[u8], merchant: &str) -> Result<Notice, CallbackError> {
    let told: RefundNotice = serde_json::from_slice(plain).map_err(|_| CallbackError::Content("refund"))?;
    if told.mchid != merchant {
        return Err(CallbackError::Content("mchid"));
    }
    let channel_refund_no = told.out_refund_no.clone();
    let (channel_order_no, amount_minor) = (told.out_trade_no.clone(), told.amount.refund);
    Ok(match told.status().map_err(CallbackError::Content)? {
        RefundStatus::Processing { .. } => Notice::Refund { channel_refund_no },
        RefundStatus::Decided(decision) => {
            Notice::RefundDecided { channel_order_no, channel_refund_no, amount_minor, decision }
        }
    })
}
