//! What changes the channel: one event is one journal line. Amounts are fen, times microseconds since 1970 UTC.

use runtime::Timestamp;
use serde::{Deserialize, Serialize};

use super::mixed::{Funds, Leg, MixedTerms};

/// How an order is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum TradeType {
    /// Inside WeChat.
    Jsapi,
    /// By scanning a code.
    Native,
    /// From another app.
    App,
    /// From a browser on a phone.
    #[serde(rename = "MWEB")]
    H5,
}

/// What an order is made of. Amounts are fen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    pub mchid: String,
    pub out_trade_no: String,
    pub appid: String,
    pub trade_type: TradeType,
    pub description: String,
    pub attach: Option<String>,
    pub notify_url: String,
    pub amount_minor: i64,
    pub currency: String,
    pub openid: Option<String>,
    pub expires_at: Option<Timestamp>,
    /// SHA-256 of all parameters; a repetition must have the same.
    pub digest: String,
    /// The combined order that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<Whole>,
}

/// A combined order: merchant and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Whole {
    pub mchid: String,
    pub out_trade_no: String,
}

/// What a combined order (合单) is made of: orders of several merchants that the citizen pays at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CombineTerms {
    #[serde(flatten)]
    pub whole: Whole,
    pub appid: String,
    pub trade_type: TradeType,
    pub notify_url: String,
    /// SHA-256 of all parameters; a repetition must have the same.
    pub digest: String,
    /// The parts, in the order in which they were given.
    pub parts: Vec<Terms>,
}

/// The payment of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartPaid {
    pub mchid: String,
    pub out_trade_no: String,
    pub transaction_id: String,
    pub amount_minor: i64,
}

/// A payment session: what a prepay id, a code or a link stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    pub prepay_id: String,
    pub link: String,
}

/// What a refund is made of. Amounts are fen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefundTerms {
    pub mchid: String,
    pub out_refund_no: String,
    pub out_trade_no: String,
    pub refund_id: String,
    pub amount_minor: i64,
    pub reason: Option<String>,
    pub notify_url: Option<String>,
    /// SHA-256 of all parameters; a repetition must have the same.
    pub digest: String,
    /// When it ends.
    pub due: Timestamp,
    /// What it ends as.
    pub ends: RefundStatus,
    /// Id of the callback that tells its end.
    pub notice: String,
}

/// How a refund stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum RefundStatus {
    Processing,
    Success,
    Abnormal,
    Closed,
}

/// A change: one journal line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// An order was made.
    OrderCreated {
        #[serde(flatten)]
        terms: Terms,
        #[serde(flatten)]
        session: Session,
    },
    /// An order whose session had run out got another.
    OrderRenewed {
        mchid: String,
        out_trade_no: String,
        #[serde(flatten)]
        session: Session,
    },
    /// The citizen paid.
    OrderPaid {
        mchid: String,
        out_trade_no: String,
        transaction_id: String,
        amount_minor: i64,
        openid: String,
        /// Id of the callback that tells it.
        notice: String,
    },
    /// The merchant closed an order.
    OrderClosed { mchid: String, out_trade_no: String },
    /// A combined order was made.
    CombineCreated {
        #[serde(flatten)]
        terms: CombineTerms,
        #[serde(flatten)]
        session: Session,
    },
    /// A combined order whose session had run out got another.
    CombineRenewed {
        #[serde(flatten)]
        whole: Whole,
        #[serde(flatten)]
        session: Session,
    },
    /// The citizen paid every part of a combined order.
    CombinePaid {
        #[serde(flatten)]
        whole: Whole,
        parts: Vec<PartPaid>,
        openid: String,
        /// Id of the callback that tells it.
        notice: String,
    },
    /// The merchant closed every part of a combined order.
    CombineClosed {
        #[serde(flatten)]
        whole: Whole,
    },
    /// A mixed order was made.
    MixedCreated(MixedTerms),
    /// The insurance paid its leg of a mixed order. The cash leg is paid as an order is.
    InsurancePaid { mchid: String, out_trade_no: String, amount_minor: i64 },
    /// A leg of a mixed order failed, and with it the whole.
    LegFailed { mchid: String, out_trade_no: String, leg: Leg },
    /// Every leg of a mixed order is paid.
    MixedPaid {
        mchid: String,
        out_trade_no: String,
        /// Id of the callback that tells it.
        notice: String,
    },
    /// The merchant told what the insurance centre gave back.
    InsuranceReturned {
        mchid: String,
        out_trade_no: String,
        out_refund_no: String,
        amount_minor: i64,
        #[serde(flatten)]
        funds: Funds,
    },
    /// A refund was taken.
    RefundCreated(RefundTerms),
    /// A refund came to its end.
    RefundEnded { mchid: String, out_refund_no: String, amount_minor: i64, status: RefundStatus },
    /// A callback was taken by the merchant, or given up.
    NoticeEnded { notice: String, delivered: bool, attempts: u32 },
}
