//! The payment channel: WeChat Pay API v3, its orders, refunds, certificates and callbacks. docs/sandbox/wechatpay.md.

mod api;
mod book;
mod crypto;
mod desk;
mod keys;
mod messages;
mod notify;
mod outcome;

pub use api::router;
pub use desk::{Desk, Pay, PayError, SYSTEM};
pub use keys::{KeyError, Keys, MerchantKeys};
