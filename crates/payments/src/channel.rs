//! The seam to the channels that move the citizen's money.
//!
//! A driver knows one channel's protocol and nothing of the ledger; what it can do it declares as data, and what it does not declare is
//! refused before any I/O. Its answers never guess: a status that it does not know is pending, and an error says whether the channel
//! may have acted.

pub mod alipay;
mod download;
pub mod wechatpay;

mod keyfiles;
mod keys;
mod patient;

pub use keys::{BadKey, KeyError};
pub use patient::{Patient, Person};

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use contracts::money::Currency;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Response, StatusCode};
use jiff::civil::Date;
use runtime::Timestamp;
use runtime::http::Effect;
use runtime::secret::Pii;

use crate::domain::ledger::Merchant;
use crate::domain::order::{Capture, Terms, TradeType};
pub use crate::domain::plan::Known;
use crate::domain::refund::{Decision, Refund};

/// What a channel offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Its name in orders, accounts and configuration.
    pub channel: &'static str,
    /// How citizens can pay.
    pub trade_types: &'static [TradeType],
    /// Where it must be told who pays: by JSAPI whom, by H5 from which address.
    pub payer_for: &'static [TradeType],
    /// What they can pay in.
    pub currencies: &'static [Currency],
    /// The largest order, minor units.
    pub amount_minor_max: i64,
    /// The longest description, bytes of UTF-8.
    pub description_bytes_max: usize,
    /// How long an order can stay payable.
    pub order_life_max: Duration,
    /// How long a pay sheet works.
    pub sheet_life: Duration,
    /// From when on it knows an order.
    pub known: Known,
    /// Which bills it gives.
    pub bills: &'static [BillKind],
    /// How many orders can be paid at once; below 2 it cannot combine any.
    pub combine_max: u32,
    /// How citizens can pay mixed orders, of which medical insurance pays a part; none: it has no such orders.
    pub insured_by: &'static [TradeType],
}

/// A combined order (合单): orders, of several merchant accounts perhaps, that the citizen pays at once. Each is refunded by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The merchant account that asks for all of it.
    pub merchant: Merchant,
    /// The number that the channel knows it by.
    pub channel_order_no: String,
}

/// What a channel's bill of a day lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BillKind {
    /// Payments and refunds.
    Trades,
    /// What moved on the merchant's account.
    Funds,
}

/// What the citizen's client needs to pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaySheet {
    /// How.
    pub trade_type: TradeType,
    /// Parameters of the pay call, by its own names.
    pub jsapi: BTreeMap<String, String>,
    /// Content of the QR code.
    pub code_url: String,
    /// Address that the browser opens.
    pub page_url: String,
    /// Signed string for the channel's SDK.
    pub order_string: String,
    /// When it stops working.
    pub expire_at: Timestamp,
}

impl PaySheet {
    /// A sheet that a driver still has to fill in.
    pub fn empty(trade_type: TradeType, expire_at: Timestamp) -> Self {
        Self {
            trade_type,
            jsapi: BTreeMap::new(),
            code_url: String::new(),
            page_url: String::new(),
            order_string: String::new(),
            expire_at,
        }
    }
}

/// What the channel says of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderStatus {
    /// Not paid, or a status that the driver does not know.
    Pending,
    /// It took the money.
    Paid(Capture),
    /// Closed and unpaid.
    Closed,
    /// A mixed order that came to nothing although this of it was paid.
    Half {
        /// The citizen paid the cash leg, by an order of its own.
        cash: Option<Capture>,
        /// The insurance paid, whose money goes back at its centre.
        insurance: bool,
    },
    /// What it says of a mixed order contradicts itself: a person has to look.
    Differs(&'static str),
}

/// What the channel says of a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundStatus {
    /// It has it and has not decided, or a status that the driver does not know.
    Processing {
        /// Its number of the refund.
        channel_refund: String,
    },
    /// It has decided.
    Decided(Decision),
}

/// A call to a channel that brought no result.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// It knows no such order or refund.
    #[error("the channel does not know it")]
    NotKnown,
    /// It refused, and this call had no effect.
    #[error("the channel refused: {code}")]
    Refused {
        /// Its own code.
        code: String,
    },
    /// It has the order or refund in another state or with other parameters than the call supposes: ask how it stands.
    #[error("the channel has it otherwise: {code}")]
    Otherwise {
        /// Its own code.
        code: String,
    },
    /// Not now: the same call may succeed later, and this one had no effect.
    #[error("the channel said not now: {code}")]
    NotNow {
        /// Its own code.
        code: String,
    },
    /// No usable answer came.
    #[error("no usable answer from the channel ({what})")]
    NoAnswer {
        /// Whether it may have acted.
        effect: Effect,
        /// What was wrong, without data.
        what: &'static str,
        /// What lies under it.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl ChannelError {
    /// An answer came and cannot be used; the channel may have acted.
    pub(crate) fn unusable(what: &'static str) -> Self {
        Self::NoAnswer { effect: Effect::Possible, what, source: None }
    }

    /// Whether it is proven that this call did nothing at the channel.
    pub fn had_no_effect(&self) -> bool {
        match self {
            Self::NotKnown | Self::Refused { .. } | Self::NotNow { .. } => true,
            Self::Otherwise { .. } => false,
            Self::NoAnswer { effect, .. } => *effect == Effect::None,
        }
    }
}

/// What a verified callback tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An order was paid.
    Paid {
        /// The number that the channel knows the order by.
        channel_order_no: String,
        /// The channel's id of the super app's account; to be checked against the order.
        app_id: String,
        /// What it says of the payment.
        capture: Capture,
    },
    /// Something became of a refund. Only a hint: the refund is then asked for.
    Refund {
        /// The number that the channel knows the refund by.
        channel_refund_no: String,
    },
    /// A refund came to its end, with all that a query would say of it; to be checked against the refund.
    RefundDecided {
        /// The number that the channel knows the order by.
        channel_order_no: String,
        /// The number that the channel knows the refund by.
        channel_refund_no: String,
        /// What goes back, or does not, minor units of the order's currency.
        amount_minor: i64,
        /// How it ended.
        decision: Decision,
    },
    /// Every part of a combined order was paid; each is to be checked against its own order.
    PaidTogether {
        /// The number that the channel knows the combined order by.
        channel_order_no: String,
        /// The channel's id of the super app's account.
        app_id: String,
        /// The parts.
        parts: Vec<PartPaid>,
    },
    /// Something became of a mixed order. Only a hint: the order is then asked for.
    Mixed {
        /// The number that the channel knows the order by.
        channel_order_no: String,
    },
    /// Something that needs nothing done.
    Other,
}

/// What a verified callback tells of a part of a combined order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPaid {
    /// The number of the part's merchant account.
    pub merchant: String,
    /// The number that the channel knows the part by.
    pub channel_order_no: String,
    /// What it says of the payment.
    pub capture: Capture,
}

/// Why a callback is refused.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// The merchant in the address is none of ours.
    #[error("no such merchant")]
    Merchant,
    /// A header is missing or not what it should be.
    #[error("header {0} is missing or wrong")]
    Header(&'static str),
    /// Its time is too far from ours: an old one, sent again by somebody.
    #[error("the time of the callback is not now")]
    Time,
    /// The signature is not the channel's; also the channel's own probes, which test that we refuse.
    #[error("the signature does not verify")]
    Signature,
    /// Verified, but its content cannot be read.
    #[error("the content cannot be read: {0}")]
    Content(&'static str),
    /// The key to verify with cannot be had now.
    #[error("the channel's key cannot be had now")]
    Key(#[source] ChannelError),
}

/// Why a callback is not acknowledged; each channel hears it in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As HTTP has it.
    pub status: StatusCode,
    /// A code of ours.
    pub code: &'static str,
    /// For people.
    pub message: &'static str,
}

/// One channel.
pub trait Channel: Send + Sync {
    /// What it offers.
    fn capabilities(&self) -> &Capabilities;

    /// Where it reports what became of a merchant's orders.
    fn notify_url(&self, merchant: &str) -> String;

    /// Creates an order, or repeats its creation unchanged: the channel knows it by its number and has it once. Of a mixed order `payer`
    /// is what [`Patient`] writes.
    ///
    /// This and the calls below are for mixed orders too where the channel declares them; a refund of one is made of both its legs.
    fn create<'a>(
        &'a self,
        terms: &'a Terms,
        payer: Option<&'a Pii<String>>,
    ) -> BoxFuture<'a, Result<PaySheet, ChannelError>>;

    /// Asks how an order stands.
    fn query<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<OrderStatus, ChannelError>>;

    /// Closes an order. Success is not yet the confirmation: that is a query's answer.
    fn close<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<(), ChannelError>>;

    /// Sends a refund, or repeats it unchanged.
    fn refund<'a>(&'a self, terms: &'a Terms, refund: &'a Refund) -> BoxFuture<'a, Result<RefundStatus, ChannelError>>;

    /// Asks how a refund stands.
    fn query_refund<'a>(
        &'a self,
        terms: &'a Terms,
        refund: &'a Refund,
    ) -> BoxFuture<'a, Result<RefundStatus, ChannelError>>;

    /// Creates a combined order, or repeats its creation unchanged. Its parts are payable by the same app in the same way until the same
    /// time; there are two at least, and at most as many as the channel declares. It is reported to the address of the first, whose
    /// merchant account asks for it.
    fn create_combined<'a>(
        &'a self,
        _whole: &'a Whole,
        _parts: &'a [Terms],
        _payer: Option<&'a Pii<String>>,
    ) -> BoxFuture<'a, Result<PaySheet, ChannelError>> {
        not_offered("COMBINE_NOT_OFFERED")
    }

    /// Asks how the parts of a combined order stand; the answers come in their order.
    fn query_combined<'a>(
        &'a self,
        _whole: &'a Whole,
        _parts: &'a [Terms],
    ) -> BoxFuture<'a, Result<Vec<OrderStatus>, ChannelError>> {
        not_offered("COMBINE_NOT_OFFERED")
    }

    /// Closes every part of a combined order. Success is not yet the confirmation.
    fn close_combined<'a>(&'a self, _whole: &'a Whole, _parts: &'a [Terms]) -> BoxFuture<'a, Result<(), ChannelError>> {
        not_offered("COMBINE_NOT_OFFERED")
    }

    /// Fetches the bill of a day, in Beijing time, of a merchant account into `file`, unpacked and with the channel's own hash checked;
    /// tells how many bytes it has. The file is there when the bill is whole, and readable by its owner alone: it says who paid.
    ///
    /// Errors: NotKnown where there is none because nothing happened on that day; NotNow while it is not made yet; Refused where the
    /// channel does not declare such bills.
    fn bill<'a>(
        &'a self,
        _merchant: &'a str,
        _day: Date,
        _kind: BillKind,
        _file: &'a Path,
    ) -> BoxFuture<'a, Result<u64, ChannelError>> {
        not_offered("BILL_NOT_OFFERED")
    }

    /// Verifies a callback and opens it; nothing of the body is read before its signature holds.
    fn open_callback<'a>(
        &'a self,
        merchant: &'a str,
        headers: &'a HeaderMap,
        body: &'a Bytes,
    ) -> BoxFuture<'a, Result<Notice, CallbackError>>;

    /// Answers a callback: without a refusal it is acknowledged, and the channel need not send it again.
    fn reply(&self, refusal: Option<&Refusal>) -> Response<Bytes>;
}

/// Whether a text is an address to which paths can be added.
fn is_base_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.host().is_some_and(|host| !host.is_empty())
        && uri.query().is_none()
        && !text.contains('#')
}

/// A channel does not have what it does not declare.
fn not_offered<'a, T: Send + 'a>(code: &str) -> BoxFuture<'a, Result<T, ChannelError>> {
    std::future::ready(Err(ChannelError::Refused { code: code.to_owned() })).boxed()
}
