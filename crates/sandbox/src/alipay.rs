//! The payment channel Alipay (支付宝): the gateway of signed parameters (v2) and the REST form (v3) over one book, its notices and
//! bills. docs/sandbox/alipay.md.

mod api;
mod bill;
mod book;
mod call;
mod cashier;
mod desk;
mod event;
mod gateway;
mod keys;
mod messages;
mod notify;
mod outcome;
mod rest;
mod yuan;
mod zip;

pub(crate) use api::router;
pub(crate) use desk::{Desk, SYSTEM};
pub use desk::{Pay, PayError};
pub use keys::Keys;
