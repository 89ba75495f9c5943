//! The messages that we send and read, the same in both forms, and what Alipay's codes mean.

use std::fmt;

use contracts::money::{Currency, Money};
use http::StatusCode;
use runtime::Timestamp;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::channel::{ChannelError, OrderStatus, RefundStatus};
use crate::domain::order::{Capture, Terms, TradeType};
use crate::domain::refund::{Decision, Refund};

const CODE_BYTES_MAX: usize = 64;
const CODE_URL_BYTES_MAX: usize = 512;
const FEN_DIGITS: usize = 2;
/// Everything is paid in yuan.
pub(super) const CURRENCY: Currency = Currency::CNY;

const DONE: &str = "10000";
const UNAVAILABLE: &str = "20000";
/// The call was refused before anybody looked at what it asks: signature, permission, parameters.
const REFUSED_AT_THE_DOOR: [&str; 5] = ["20001", "40001", "40002", "40003", "40006"];
/// Those of them that are about who calls, and not about what it asks: a person mends a key, a clock or a permission, and the call passes.
const CALLER_REFUSED: [&str; 2] = ["20001", "40006"];
const CALLER_REFUSED_SUB: [&str; 3] = ["isv.invalid-signature", "isv.invalid-app-id", "isv.invalid-timestamp"];
const BUSINESS: &str = "40004";

/// What an error code of the business means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    NotKnown,
    Refused,
    Otherwise,
    NotNow,
    /// It may have been done: the same call again, or a question, tells.
    Unclear,
}

/// The codes, without the `ACQ.` before them. A code that is not here says that something stands otherwise: then it is asked how.
const CODES: [(&str, Verdict); 19] = [
    ("TRADE_NOT_EXIST", Verdict::NotKnown),
    ("isp.bill_not_exist", Verdict::NotKnown),
    ("SYSTEM_ERROR", Verdict::Unclear),
    ("TRADE_HAS_SUCCESS", Verdict::Otherwise),
    ("TRADE_HAS_CLOSE", Verdict::Otherwise),
    ("TRADE_HAS_FINISHED", Verdict::Otherwise),
    ("TRADE_STATUS_ERROR", Verdict::Otherwise),
    ("REASON_TRADE_STATUS_INVALID", Verdict::Otherwise),
    ("CONTEXT_INCONSISTENT", Verdict::Otherwise),
    ("DISCORDANT_REPEAT_REQUEST", Verdict::Otherwise),
    ("SELLER_BALANCE_NOT_ENOUGH", Verdict::NotNow),
    ("INVALID_PARAMETER", Verdict::Refused),
    ("ACCESS_FORBIDDEN", Verdict::Refused),
    ("EXIST_FORBIDDEN_WORD", Verdict::Refused),
    ("PARTNER_ERROR", Verdict::Refused),
    ("TOTAL_FEE_EXCEED", Verdict::Refused),
    ("REFUND_AMT_NOT_EQUAL_TOTAL", Verdict::Refused),
    ("REFUND_FEE_ERROR", Verdict::Refused),
    ("TRADE_NOT_ALLOW_REFUND", Verdict::Refused),
];

/// An order as it is asked for, by whatever way the citizen pays.
#[derive(Serialize)]
pub(super) struct OrderBody<'a> {
    out_trade_no: &'a str,
    total_amount: String,
    subject: &'a str,
    time_expire: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quit_url: Option<&'a str>,
    /// In the REST form the address stands here; in the gateway's it is a parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) notify_url: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct NamedBody<'a> {
    pub(super) out_trade_no: &'a str,
}

#[derive(Serialize)]
pub(super) struct RefundBody<'a> {
    out_trade_no: &'a str,
    out_request_no: String,
    refund_amount: String,
    refund_reason: &'a str,
}

#[derive(Serialize)]
pub(super) struct RefundQueryBody<'a> {
    out_trade_no: &'a str,
    out_request_no: String,
    query_options: [&'static str; 1],
}

#[derive(Serialize)]
pub(super) struct BillBody<'a> {
    pub(super) bill_type: &'static str,
    pub(super) bill_date: &'a str,
}

impl<'a> OrderBody<'a> {
    /// The same terms always give the same bytes. None: the end of the order cannot be written.
    pub(super) fn new(terms: &'a Terms, return_url: &'a str) -> Option<Self> {
        let (product_code, quit_url) = match terms.trade_type {
            TradeType::App => (Some("QUICK_MSECURITY_PAY"), None),
            TradeType::H5 => (Some("QUICK_WAP_PAY"), Some(return_url).filter(|url| !url.is_empty())),
            TradeType::Web => (Some("FAST_INSTANT_TRADE_PAY"), None),
            TradeType::Native | TradeType::Jsapi => (None, None),
        };
        Some(Self {
            out_trade_no: &terms.channel_order_no,
            total_amount: yuan(terms.amount),
            subject: &terms.description,
            time_expire: beijing(terms.expire_at)?,
            product_code,
            quit_url,
            notify_url: None,
        })
    }
}

impl<'a> RefundBody<'a> {
    pub(super) fn new(terms: &'a Terms, refund: &'a Refund) -> Self {
        Self {
            out_trade_no: &terms.channel_order_no,
            out_request_no: refund.channel_refund_no(),
            refund_amount: yuan(refund.amount),
            refund_reason: &refund.reason,
        }
    }
}

impl<'a> RefundQueryBody<'a> {
    pub(super) fn new(terms: &'a Terms, refund: &'a Refund) -> Self {
        Self {
            out_trade_no: &terms.channel_order_no,
            out_request_no: refund.channel_refund_no(),
            query_options: ["gmt_refund_pay"],
        }
    }
}

/// Writes an amount as Alipay does: yuan with two decimals.
pub(super) fn yuan(amount: Money) -> String {
    let digits = format!("{:03}", amount.amount_minor());
    let (yuan, fen) = digits.split_at(digits.len().saturating_sub(FEN_DIGITS));
    format!("{yuan}.{fen}")
}

/// Reads an amount: yuan with at most two decimals, and not a sign before them.
pub(super) fn money(text: &str) -> Option<Money> {
    let (yuan, fen) = text.split_once('.').unwrap_or((text, "00"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(yuan) || !is_digits(fen) || fen.len() > FEN_DIGITS {
        return None;
    }
    Money::new(format!("{yuan}{fen:0<2}").parse().ok()?, CURRENCY).ok()
}

/// Writes a moment as Alipay does: Beijing's time, whole seconds (the fraction is cut off).
pub(super) fn beijing(at: Timestamp) -> Option<String> {
    let (seconds, _) = at.seconds_nanos();
    let local = jiff::Timestamp::from_second(seconds).ok()?.to_zoned(zone());
    Some(local.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Reads such a moment; some carry a fraction.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    let local = text.parse::<jiff::civil::DateTime>().ok().filter(|_| text.contains(' '))?;
    let at = local.to_zoned(zone()).ok()?.timestamp();
    Some(Timestamp::from_micros(at.as_microsecond()))
}

fn zone() -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::fixed(jiff::tz::Offset::constant(8))
}

/// Whether a text can be the content of a QR code.
pub(super) fn is_code_url(text: &str) -> bool {
    (1..=CODE_URL_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A text, or a number that is taken by its digits: the REST form writes amounts as numbers.
#[derive(Debug, Default)]
struct Digits(String);

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl Visitor<'_> for Read {
            type Value = Digits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digits, E> {
                Ok(Digits(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Digits, E> {
                Ok(Digits(number.to_string()))
            }

            /// The shortest digits that read back as this number: those that were written, as long as there are at most 15.
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Digits, E> {
                Ok(Digits(number.to_string()))
            }
        }

        deserializer.deserialize_any(Read)
    }
}

#[derive(Deserialize)]
pub(super) struct PrecreatedBody {
    pub(super) out_trade_no: String,
    pub(super) qr_code: String,
}

#[derive(Deserialize)]
pub(super) struct BillTold {
    pub(super) bill_download_url: String,
}

/// An order as the answer to a query tells it.
#[derive(Deserialize)]
pub(super) struct Trade {
    pub(super) out_trade_no: String,
    #[serde(default)]
    trade_no: String,
    trade_status: String,
    #[serde(default)]
    total_amount: Digits,
    #[serde(default)]
    send_pay_date: String,
}

impl Trade {
    /// What it says; Err names the field that is missing or senseless.
    pub(super) fn status(&self) -> Result<OrderStatus, &'static str> {
        let capture = || capture(&self.total_amount.0, &self.trade_no, &self.send_pay_date);
        stands(&self.trade_status, !self.send_pay_date.is_empty(), capture)
    }
}

/// Where an order stands. A status that is not known is pending. An order is closed when its time is over unpaid, and also when all that
/// was paid went back: then a time of payment stands beside it.
pub(super) fn stands(
    trade_status: &str,
    has_been_paid: bool,
    capture: impl Fn() -> Result<Capture, &'static str>,
) -> Result<OrderStatus, &'static str> {
    match trade_status {
        "TRADE_SUCCESS" | "TRADE_FINISHED" => capture().map(OrderStatus::Paid),
        "TRADE_CLOSED" if has_been_paid => capture().map(OrderStatus::Paid),
        "TRADE_CLOSED" => Ok(OrderStatus::Closed),
        _ => Ok(OrderStatus::Pending),
    }
}

/// What was paid; Err names what is missing or senseless.
pub(super) fn capture(total_amount: &str, trade_no: &str, paid_at: &str) -> Result<Capture, &'static str> {
    // A department is told this number: what it could not be told is refused here.
    if !rpc::form::is_number(trade_no) {
        return Err("trade_no");
    }
    Ok(Capture {
        amount: money(total_amount).ok_or("total_amount")?,
        transaction: trade_no.to_owned(),
        at: moment(paid_at).ok_or("time of payment")?,
    })
}

/// The answer to a refund.
#[derive(Deserialize)]
pub(super) struct RefundTold {
    out_trade_no: String,
    fund_change: String,
    #[serde(default)]
    gmt_refund_pay: String,
}

impl RefundTold {
    /// Whether this call moved the money, and when; Err names the field that does not fit. Without `fund_change` it moved nothing: it was
    /// done before, or is not done yet, and a question tells.
    pub(super) fn moved(self, terms: &Terms, now: Timestamp) -> Result<Option<Timestamp>, &'static str> {
        if self.out_trade_no != terms.channel_order_no {
            return Err("out_trade_no");
        }
        Ok((self.fund_change == "Y").then(|| moment(&self.gmt_refund_pay).unwrap_or(now)))
    }
}

/// A refund as the answer to a query tells it.
#[derive(Deserialize)]
pub(super) struct RefundFound {
    #[serde(default)]
    out_trade_no: String,
    #[serde(default)]
    out_request_no: String,
    #[serde(default)]
    refund_amount: Digits,
    #[serde(default)]
    refund_status: String,
    #[serde(default)]
    gmt_refund_pay: String,
}

impl RefundFound {
    /// What it says of `refund`; NotKnown where it has no status: then Alipay has no such refund, or could not do it, and wants to be
    /// sent it again under the same number. Err names the field that does not fit.
    ///
    /// Alipay has no number of its own for a refund: ours is what stands in its bill.
    pub(super) fn status(
        self,
        terms: &Terms,
        refund: &Refund,
        now: Timestamp,
    ) -> Result<Result<RefundStatus, ChannelError>, &'static str> {
        if self.refund_status.is_empty() {
            return Ok(Err(ChannelError::NotKnown));
        }
        if self.out_trade_no != terms.channel_order_no {
            return Err("out_trade_no");
        }
        if self.out_request_no != refund.channel_refund_no() {
            return Err("out_request_no");
        }
        if self.refund_status != "REFUND_SUCCESS" {
            return Ok(Ok(RefundStatus::Processing { channel_refund: self.out_request_no }));
        }
        if money(&self.refund_amount.0) != Some(refund.amount) {
            return Err("refund_amount");
        }
        let at = moment(&self.gmt_refund_pay).unwrap_or(now);
        Ok(Ok(RefundStatus::Decided(Decision::Succeeded { channel_refund: self.out_request_no, at })))
    }
}

/// How the gateway's node begins.
#[derive(Deserialize)]
pub(super) struct Outcome {
    code: String,
    #[serde(default)]
    sub_code: String,
}

impl Outcome {
    /// What it says. `is_signed`: whether the node carries a signature that holds. What the business says is always signed; the door may
    /// refuse somebody whom it does not know, and then has no key to sign for. Such a refusal moves no money.
    pub(super) fn result(&self, is_signed: bool) -> Result<(), ChannelError> {
        match self.code.as_str() {
            code if REFUSED_AT_THE_DOOR.contains(&code) => {
                let told = word(&self.sub_code).unwrap_or(code);
                Err(door(told, CALLER_REFUSED.contains(&code)))
            }
            _ if !is_signed => Err(ChannelError::unusable("signature")),
            DONE => Ok(()),
            UNAVAILABLE => Err(ChannelError::unusable("unavailable")),
            BUSINESS => Err(business(&self.sub_code)),
            _ => Err(ChannelError::unusable("code")),
        }
    }
}

#[derive(Deserialize)]
struct RestRefusal {
    #[serde(default)]
    code: String,
}

/// Reads an answer of the REST form that is not a success.
pub(super) fn rest_refusal(status: StatusCode, body: &[u8]) -> ChannelError {
    let told = serde_json::from_slice::<RestRefusal>(body).map(|body| body.code).unwrap_or_default();
    match word(&told) {
        Some(code) if !status.is_server_error() && is_of_the_door(code) => {
            door(code, matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))
        }
        Some(code) if !status.is_server_error() => business(code),
        _ if status == StatusCode::TOO_MANY_REQUESTS => ChannelError::NotNow { code: "HTTP_429".to_owned() },
        // 5xx, and anything that is not in Alipay's words: a proxy between may have said it.
        _ => ChannelError::unusable("status"),
    }
}

/// Whether a code is the door's own, as those about signature and permission are.
fn is_of_the_door(code: &str) -> bool {
    code.starts_with("isv.")
}

fn door(code: &str, is_of_caller: bool) -> ChannelError {
    let is_of_caller = is_of_caller || CALLER_REFUSED_SUB.contains(&code);
    let code = code.to_owned();
    if is_of_caller { ChannelError::NotNow { code } } else { ChannelError::Refused { code } }
}

fn business(sub_code: &str) -> ChannelError {
    let Some(code) = word(sub_code) else { return ChannelError::unusable("code") };
    let bare = code.strip_prefix("aop.").unwrap_or(code);
    let bare = bare.strip_prefix("ACQ.").unwrap_or(bare);
    let verdict = CODES.iter().find(|(known, _)| *known == bare).map(|(_, verdict)| *verdict);
    let code = code.to_owned();
    match verdict.unwrap_or(Verdict::Otherwise) {
        Verdict::NotKnown => ChannelError::NotKnown,
        Verdict::Refused => ChannelError::Refused { code },
        Verdict::Otherwise => ChannelError::Otherwise { code },
        Verdict::NotNow => ChannelError::NotNow { code },
        Verdict::Unclear => ChannelError::unusable("system error"),
    }
}

/// A code that may be told on: letters, digits and what joins them.
fn word(code: &str) -> Option<&str> {
    let fits = (1..=CODE_BYTES_MAX).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    fits.then_some(code)
}
