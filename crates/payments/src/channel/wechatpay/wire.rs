//! The messages of API v3 that we send and read, and what its codes mean.

use contracts::money::{Currency, Money};
use http::StatusCode;
use runtime::Timestamp;
use serde::{Deserialize, Serialize};

use crate::channel::{ChannelError, OrderStatus, RefundStatus};
use crate::domain::order::{Capture, Terms, TradeType};
use crate::domain::refund::{Decision, Refund};

const CODE_BYTES_MAX: usize = 64;
const CODE_URL_BYTES_MAX: usize = 512;
const PAGE_URL_BYTES_MAX: usize = 2_048;

/// Codes under which the channel says that it has no such order, refund or bill.
const NOT_KNOWN: [&str; 6] = [
    "ORDERNOTEXIST",
    "ORDER_NOT_EXIST",
    "RESOURCE_NOT_EXISTS",
    "REFUNDNOTEXIST",
    "REFUND_NOT_EXISTS",
    "NO_STATEMENT_EXIST",
];
/// Codes under which it says that it has the order in another state or with other parameters.
const OTHERWISE: [&str; 5] = ["OUT_TRADE_NO_USED", "ORDER_CLOSED", "ORDERCLOSED", "ORDER_PAID", "ORDERPAID"];
/// Codes of a passing obstacle: a limit, an empty account, a bill in the making, or a key or permission that a person mends.
const NOT_NOW: [&str; 8] = [
    "FREQUENCY_LIMITED",
    "FREQUENCY_LIMIT_EXCEED",
    "RATELIMIT_EXCEEDED",
    "NOTENOUGH",
    "NOT_ENOUGH",
    "STATEMENT_CREATING",
    "SIGN_ERROR",
    "NO_AUTH",
];
/// Codes that are a refusal although they come with status 500.
const REFUSED: [&str; 1] = ["OPENID_MISMATCH"];

#[derive(Serialize)]
pub(super) struct CreateBody<'a> {
    appid: &'a str,
    mchid: &'a str,
    description: &'a str,
    out_trade_no: &'a str,
    time_expire: String,
    notify_url: &'a str,
    amount: Asked,
    #[serde(skip_serializing_if = "Option::is_none")]
    payer: Option<Payer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scene_info: Option<Scene<'a>>,
}

/// Where an H5 payment comes from: WeChat compares the address with that of the browser.
#[derive(Serialize)]
pub(super) struct Scene<'a> {
    payer_client_ip: &'a str,
    h5_info: H5,
}

#[derive(Serialize)]
struct H5 {
    r#type: &'static str,
}

#[derive(Serialize)]
struct Asked {
    total: i64,
    currency: String,
}

#[derive(Serialize)]
pub(super) struct Payer<'a> {
    pub(super) openid: &'a str,
}

#[derive(Serialize)]
pub(super) struct CloseBody<'a> {
    pub(super) mchid: &'a str,
}

#[derive(Serialize)]
pub(super) struct RefundBody<'a> {
    out_trade_no: &'a str,
    out_refund_no: String,
    reason: &'a str,
    notify_url: &'a str,
    amount: RefundAsked,
}

#[derive(Serialize)]
struct RefundAsked {
    refund: i64,
    total: i64,
    currency: String,
}

impl<'a> CreateBody<'a> {
    /// The same terms always give the same bytes: WeChat refuses a repetition that differs.
    ///
    /// `payer` is the openid, or for H5 the citizen's address.
    pub(super) fn new(terms: &'a Terms, payer: Option<&'a str>) -> Option<Self> {
        let (openid, address) = if terms.trade_type == TradeType::H5 { (None, payer) } else { (payer, None) };
        Some(Self {
            appid: &terms.app_id,
            mchid: &terms.merchant.number,
            description: &terms.description,
            out_trade_no: &terms.channel_order_no,
            time_expire: beijing(terms.expire_at)?,
            notify_url: &terms.notify_url,
            amount: Asked { total: terms.amount.amount_minor(), currency: terms.amount.currency().to_string() },
            payer: openid.map(|openid| Payer { openid }),
            scene_info: address.map(Scene::new),
        })
    }
}

impl<'a> RefundBody<'a> {
    pub(super) fn new(terms: &'a Terms, refund: &'a Refund) -> Self {
        Self {
            out_trade_no: &terms.channel_order_no,
            out_refund_no: refund.channel_refund_no(),
            reason: &refund.reason,
            notify_url: &terms.notify_url,
            amount: RefundAsked {
                refund: in_cash(refund),
                // Of a mixed order this is about the cash leg alone.
                total: terms.insured.as_ref().map_or(terms.amount.amount_minor(), |mixed| mixed.split.paid_in_cash),
                currency: terms.amount.currency().to_string(),
            },
        }
    }
}

/// What of a refund goes through the channel.
fn in_cash(refund: &Refund) -> i64 {
    refund.legs.map_or(refund.amount.amount_minor(), |legs| legs.cash)
}

impl<'a> Scene<'a> {
    pub(super) fn new(payer_client_ip: &'a str) -> Self {
        Self { payer_client_ip, h5_info: H5 { r#type: "Wap" } }
    }
}

/// Writes a moment as WeChat does: RFC 3339 in Beijing's offset, whole seconds (the fraction is cut off).
pub(super) fn beijing(at: Timestamp) -> Option<String> {
    let (seconds, _) = at.seconds_nanos();
    let at = jiff::Timestamp::from_second(seconds).ok()?;
    let local = at.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::Offset::constant(8)));
    Some(local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
}

/// Reads a moment in RFC 3339.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp::from_micros(at.as_microsecond()))
}

#[derive(Deserialize)]
pub(super) struct CreatedBody {
    #[serde(default)]
    pub(super) prepay_id: String,
    #[serde(default)]
    pub(super) code_url: String,
    #[serde(default)]
    pub(super) h5_url: String,
}

/// Whether a text can be the address at which a phone's browser pays.
pub(super) fn is_page_url(text: &str) -> bool {
    text.starts_with("https://") && text.len() <= PAGE_URL_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a text can be a payment session's id: letters and digits.
pub(super) fn is_prepay_id(text: &str) -> bool {
    (1..=CODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a text can be the content of a QR code that WeChat pays.
pub(super) fn is_code_url(text: &str) -> bool {
    text.starts_with("weixin://")
        && text.len() <= CODE_URL_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An order as the channel tells it: in the answer to a query and, with the same fields, in a callback.
#[derive(Deserialize)]
pub(super) struct Transaction {
    pub(super) appid: String,
    mchid: String,
    pub(super) out_trade_no: String,
    #[serde(default)]
    transaction_id: String,
    trade_state: String,
    #[serde(default)]
    success_time: String,
    #[serde(default)]
    amount: Option<Taken>,
}

#[derive(Deserialize)]
struct Taken {
    total: i64,
    #[serde(default = "cny")]
    currency: String,
}

fn cny() -> String {
    "CNY".to_owned()
}

impl Transaction {
    /// Whether it is about an order of this merchant.
    pub(super) fn is_of(&self, merchant: &str) -> bool {
        self.mchid == merchant
    }

    /// What it says; Err names the field that is missing or senseless.
    pub(super) fn status(&self) -> Result<OrderStatus, &'static str> {
        status(&self.trade_state, || self.capture())
    }

    fn capture(&self) -> Result<Capture, &'static str> {
        let taken = self.amount.as_ref().ok_or("amount")?;
        let currency: Currency = taken.currency.parse().map_err(|_| "amount.currency")?;
        let amount = Money::new(taken.total, currency).map_err(|_| "amount.total")?;
        capture(amount, &self.transaction_id, &self.success_time)
    }
}

/// How an order stands. A state that is not known is pending.
pub(super) fn status(
    trade_state: &str,
    capture: impl FnOnce() -> Result<Capture, &'static str>,
) -> Result<OrderStatus, &'static str> {
    match trade_state {
        // REFUND: it was paid, and something of it went back since.
        "SUCCESS" | "REFUND" => capture().map(OrderStatus::Paid),
        "CLOSED" => Ok(OrderStatus::Closed),
        _ => Ok(OrderStatus::Pending),
    }
}

/// Reads what the channel says of a payment.
pub(super) fn capture(amount: Money, transaction: &str, success_time: &str) -> Result<Capture, &'static str> {
    // A department is told this number: what it could not be told is refused here.
    if !rpc::form::is_number(transaction) {
        return Err("transaction_id");
    }
    Ok(Capture { amount, transaction: transaction.to_owned(), at: moment(success_time).ok_or("success_time")? })
}

/// A refund as the channel tells it.
#[derive(Deserialize)]
pub(super) struct RefundTold {
    refund_id: String,
    out_refund_no: String,
    out_trade_no: String,
    status: String,
    #[serde(default)]
    success_time: Option<String>,
    amount: RefundTaken,
}

/// A refund as a callback tells it.
#[derive(Deserialize)]
pub(super) struct RefundNotice {
    pub(super) mchid: String,
    pub(super) out_trade_no: String,
    pub(super) out_refund_no: String,
    refund_id: String,
    refund_status: String,
    #[serde(default)]
    success_time: Option<String>,
    pub(super) amount: RefundTaken,
}

#[derive(Deserialize)]
pub(super) struct RefundTaken {
    pub(super) refund: i64,
}

impl RefundNotice {
    /// What it says; Err names the field that is missing or senseless.
    pub(super) fn status(self) -> Result<RefundStatus, &'static str> {
        refund_status(self.refund_status, self.refund_id, self.success_time.as_deref())
    }
}

/// How a refund stands. A status that is not known is processing, and so is ABNORMAL (退款异常): the money has left the merchant account and
/// reached nobody, until a person at the merchant platform sends it another way, after which the refund is SUCCESS.
fn refund_status(status: String, refund_id: String, success_time: Option<&str>) -> Result<RefundStatus, &'static str> {
    if !rpc::form::is_number(&refund_id) {
        return Err("refund_id");
    }
    Ok(match status.as_str() {
        "SUCCESS" => {
            let at = success_time.and_then(moment).ok_or("success_time")?;
            RefundStatus::Decided(Decision::Succeeded { channel_refund: refund_id, at })
        }
        "CLOSED" => RefundStatus::Decided(Decision::Failed { code: status }),
        other => {
            if other == "ABNORMAL" {
                tracing::warn!(
                    channel_refund = refund_id,
                    "a refund reached nobody: see to it at the merchant platform"
                );
            }
            RefundStatus::Processing { channel_refund: refund_id }
        }
    })
}

impl RefundTold {
    /// What it says of `refund`; Err names the field that does not fit. A status that is not known is processing.
    pub(super) fn status(self, terms: &Terms, refund: &Refund) -> Result<RefundStatus, &'static str> {
        if self.out_refund_no != refund.channel_refund_no() {
            return Err("out_refund_no");
        }
        if self.out_trade_no != terms.channel_order_no {
            return Err("out_trade_no");
        }
        if self.amount.refund != in_cash(refund) {
            return Err("amount.refund");
        }
        refund_status(self.status, self.refund_id, self.success_time.as_deref())
    }
}

/// Where a bill is to be had, and what it hashes to when it is unpacked.
#[derive(Deserialize)]
pub(super) struct BillTold {
    pub(super) hash_type: String,
    pub(super) hash_value: String,
    pub(super) download_url: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: String,
}

/// Reads an answer that is not a success. Such answers need not be signed; none of them moves money.
pub(super) fn refusal(status: StatusCode, body: &[u8]) -> ChannelError {
    let told = serde_json::from_slice::<ErrorBody>(body).map(|body| body.code).unwrap_or_default();
    let is_code = !told.is_empty()
        && told.len() <= CODE_BYTES_MAX
        && told.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let code = if is_code { told } else { format!("HTTP_{}", status.as_u16()) };
    let is = |codes: &[&str]| codes.contains(&code.as_str());
    if is(&NOT_KNOWN) {
        ChannelError::NotKnown
    } else if is(&OTHERWISE) {
        ChannelError::Otherwise { code }
    } else if is(&NOT_NOW) || status == StatusCode::TOO_MANY_REQUESTS {
        ChannelError::NotNow { code }
    } else if is(&REFUSED) || (is_code && status.is_client_error()) {
        ChannelError::Refused { code }
    } else {
        // 5xx, and anything that is not in WeChat's words: a proxy between may have said it.
        ChannelError::unusable("status")
    }
}
