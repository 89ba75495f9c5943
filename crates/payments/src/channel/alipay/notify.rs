//! Callbacks of Alipay: a form whose signature covers all its parameters. Nothing of it is acted on before that holds.

use bytes::Bytes;
use contracts::ids::RefundId;

use super::driver::Alipay;
use super::params::{self, Params};
use super::wire;
use crate::channel::{CallbackError, Notice, OrderStatus};

const SIGN_TYPE: &str = "RSA2";
/// The one kind of notice that tells of orders.
const OF_ORDERS: &str = "trade_status_sync";

impl Alipay {
    /// Verifies and opens a callback for `merchant`, the seller.
    pub(super) fn open(&self, merchant: &str, body: &Bytes) -> Result<Notice, CallbackError> {
        if self.accounts_of(merchant).next().is_none() {
            return Err(CallbackError::Merchant);
        }
        let params = params::read(body).map_err(|_| CallbackError::Content("repeated parameter"))?;
        let get = |name: &str| params.get(name).map_or("", String::as_str);
        if get("sign_type") != SIGN_TYPE {
            return Err(CallbackError::Signature);
        }
        let covered = params::of_notice(&params);
        let mut signed_for =
            self.accounts_of(merchant).filter(|app| app.verifies(covered.as_bytes(), get("sign"), None));
        let Some(first) = signed_for.next() else { return Err(CallbackError::Signature) };
        // Alipay may sign for several apps of a seller with one key: which of them is told by what was signed.
        let app_id = get("app_id");
        if first.app_id != app_id && !signed_for.any(|app| app.app_id == app_id) {
            return Err(CallbackError::Content("app_id"));
        }
        if get("seller_id") != merchant {
            return Err(CallbackError::Content("seller_id"));
        }
        if get("notify_type") != OF_ORDERS {
            return Ok(Notice::Other);
        }
        read(&params).map_err(CallbackError::Content)
    }
}

/// Reads a verified notice. Err names the parameter that is missing or senseless.
fn read(params: &Params) -> Result<Notice, &'static str> {
    let get = |name: &str| params.get(name).map_or("", String::as_str);
    let refund = get("out_biz_no");
    // Somebody may have given money back by hand, under a number that is none of ours: the bill tells of it.
    if !get("gmt_refund").is_empty() && format!("{}{refund}", RefundId::PREFIX).parse::<RefundId>().is_ok() {
        return Ok(Notice::Refund { channel_refund_no: refund.to_owned() });
    }
    let capture = || wire::capture(get("total_amount"), get("trade_no"), get("gmt_payment"));
    match wire::stands(get("trade_status"), !get("gmt_payment").is_empty(), capture)? {
        OrderStatus::Paid(capture) => Ok(Notice::Paid {
            channel_order_no: get("out_trade_no").to_owned(),
            app_id: get("app_id").to_owned(),
            capture,
        }),
        OrderStatus::Pending | OrderStatus::Closed | OrderStatus::Half { .. } | OrderStatus::Differs(_) => {
            Ok(Notice::Other)
        }
    }
}
