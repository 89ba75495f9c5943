//! The sandbox: simulated departments and payment channels, on their own sockets, in the real bytes.
//!
//! It owns two traffic police systems (SOAP in GBK, fixed columns in GB 18030), WeChat Pay API v3, their journals and a control port.
//! It knows nothing of lastmile's contracts: what it speaks is what a real back end would speak. It is a development role, and every
//! person, plate and key in it is fictitious. docs/sandbox/ has each wire.

mod beijing;
mod changsha;
mod charset;
mod config;
mod control;
mod faults;
mod journal;
mod kept;
mod police;
mod start;
mod taiyuan;
mod wechatpay;

pub use config::{Config, Control, Merchant, PoliceSoap, PoliceTcp, SignedBy, WechatPay};
pub use faults::{Fault, Faults, NotStaged, Operation, Staged};
pub use journal::{Memory, OpenError, Place};
pub use police::hours::Hours;
pub use police::people;
pub use start::{Addresses, Error, Running, start, start_in};
pub use wechatpay::{KeyError, Keys, MerchantKeys, Pay, PayError};
