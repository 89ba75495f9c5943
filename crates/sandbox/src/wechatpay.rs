//! The payment channel: WeChat Pay API v3, its orders, refunds, certificates, callbacks and bills. docs/sandbox/wechatpay.md.

mod api;
mod bill;
mod book;
mod crypto;
mod desk;
mod event;
mod keys;
mod messages;
mod mixed;
mod notify;
mod outcome;

pub(crate) use api::router;
pub(crate) use desk::{Desk, SYSTEM};
pub use desk::{Pay, PayError};
pub(crate) use event::RefundStatus;
pub use keys::{Keys, MerchantKeys};
pub use mixed::LegEnd;
