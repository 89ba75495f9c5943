//! What changes the channel: one event is one journal line. Amounts are fen, times microseconds since 1970 UTC.

use runtime::Timestamp;
use serde::{Deserialize, Serialize};

/// How an order is offered to the citizen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Product {
    /// As a code to scan (`alipay.trade.precreate`).
    Code,
    /// As a page on a phone (`alipay.trade.wap.pay`).
    Wap,
    /// As a page on a desk (`alipay.trade.page.pay`).
    Page,
    /// As a string for the app (`alipay.trade.app.pay`).
    App,
    /// To a buyer who is known, inside Alipay (`alipay.trade.create`).
    Create,
}

/// What an order is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    pub pid: String,
    pub app_id: String,
    pub out_trade_no: String,
    pub product: Product,
    pub subject: String,
    pub body: Option<String>,
    pub passback_params: Option<String>,
    pub notify_url: Option<String>,
    pub return_url: Option<String>,
    pub amount_minor: i64,
    pub expires_at: Option<Timestamp>,
    pub buyer_id: Option<String>,
    /// SHA-256 of all parameters; a repetition must have the same.
    pub digest: String,
}

/// What a refund is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefundTerms {
    pub pid: String,
    pub out_trade_no: String,
    pub out_request_no: String,
    pub amount_minor: i64,
    pub reason: Option<String>,
    /// When it is done by itself; never when absent, until it is asked for again.
    pub due: Option<Timestamp>,
}

/// A change: one journal line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// An order was heard of. There is no trade yet.
    Offered {
        #[serde(flatten)]
        terms: Terms,
        /// What a code or a page stands for.
        token: String,
    },
    /// The citizen opened the order: now it is a trade.
    Opened { pid: String, out_trade_no: String, trade_no: String, buyer_id: String, waits: bool },
    /// The citizen paid.
    Paid { pid: String, out_trade_no: String, trade_no: String, amount_minor: i64 },
    /// The trade was closed unpaid.
    Closed { pid: String, out_trade_no: String },
    /// The trade takes no refund any more.
    Finished { pid: String, out_trade_no: String },
    /// A refund was taken.
    RefundTaken(RefundTerms),
    /// A refund was done.
    RefundDone { pid: String, out_trade_no: String, out_request_no: String, amount_minor: i64 },
    /// A notice was taken by the merchant, or given up.
    NoticeEnded { notice: String, delivered: bool, attempts: u32 },
}
