//! Accounts and their names.

use std::fmt;
use std::str::FromStr;

use contracts::ids::OrderId;

use super::{SHARDS, Subject};

/// Bytes of one part of an account's name.
const PART_BYTES_MAX: usize = 64;

/// What money is booked on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// What a channel owes us, per merchant account: `channel/wechatpay/1900000001`.
    Receivable(Merchant),
    /// A citizen's money between payment and proof: `suspense/ord_…`.
    Suspense(OrderId),
    /// What is owed to a department: `payee/traffic-430100`.
    Payee(String),
    /// What is on its way back to citizens through a merchant account: `refunds/wechatpay/1900000001`.
    Refunds(Merchant),
    /// What the medical insurance owes for what was treated at an institution: `insurance/H44030001`.
    Insurance(String),
    /// What was paid over to a department: `treasury/traffic-430100`.
    Treasury(String),
    /// What a channel charged: `fees/wechatpay/1900000001`.
    Fees(Merchant),
}

/// A merchant account at a channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Merchant {
    /// The channel, such as `wechatpay`.
    pub channel: String,
    /// Its number of the merchant.
    pub number: String,
}

/// The text is no account's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an account")]
pub struct BadAccount;

impl Account {
    /// The shard of this account that bookings of `subject` go to.
    pub fn shard(&self, subject: Subject) -> u8 {
        match self {
            Self::Suspense(_) => 0,
            _ => subject.bits().to_be_bytes()[15] % SHARDS,
        }
    }

    /// Whether more can never leave the account than came in, pending transfers included.
    pub fn is_floored(&self) -> bool {
        matches!(self, Self::Suspense(_) | Self::Refunds(_))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receivable(Merchant { channel, number }) => write!(f, "channel/{channel}/{number}"),
            Self::Suspense(order) => write!(f, "suspense/{order}"),
            Self::Payee(payee) => write!(f, "payee/{payee}"),
            Self::Refunds(Merchant { channel, number }) => write!(f, "refunds/{channel}/{number}"),
            Self::Insurance(institution) => write!(f, "insurance/{institution}"),
            Self::Treasury(payee) => write!(f, "treasury/{payee}"),
            Self::Fees(Merchant { channel, number }) => write!(f, "fees/{channel}/{number}"),
        }
    }
}

impl FromStr for Account {
    type Err = BadAccount;

    fn from_str(text: &str) -> Result<Self, BadAccount> {
        let (kind, rest) = text.split_once('/').ok_or(BadAccount)?;
        let merchant = || {
            let (channel, number) = rest.split_once('/').ok_or(BadAccount)?;
            Ok(Merchant { channel: part(channel)?, number: part(number)? })
        };
        Ok(match kind {
            "channel" => Self::Receivable(merchant()?),
            "suspense" => Self::Suspense(rest.parse().map_err(|_| BadAccount)?),
            "payee" => Self::Payee(part(rest)?),
            "refunds" => Self::Refunds(merchant()?),
            "insurance" => Self::Insurance(part(rest)?),
            "treasury" => Self::Treasury(part(rest)?),
            "fees" => Self::Fees(merchant()?),
            _ => return Err(BadAccount),
        })
    }
}

/// Whether a text can stand as one part of an account's name: letters, digits, `-`, `_` and `.`, at most 64 bytes.
pub fn is_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= PART_BYTES_MAX && text.bytes().all(allowed)
}

fn part(text: &str) -> Result<String, BadAccount> {
    is_part(text).then(|| text.to_owned()).ok_or(BadAccount)
}
