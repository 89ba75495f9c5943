//! The sandbox: simulated departments and payment channels, on their own sockets, in the real bytes.
//!
//! It owns two traffic police systems (SOAP in GBK, fixed columns in GB 18030), WeChat Pay API v3, both forms of Alipay, their journals
//! and a control port.
//! It knows nothing of lastmile's contracts: what it speaks is what a real back end would speak. It is a development role, and every
//! person, plate and key in it is fictitious. docs/sandbox/ has each wire.

mod alipay;
mod beijing;
mod changsha;
mod charset;
mod config;
mod control;
mod faults;
mod journal;
mod kept;
mod key_files;
mod police;
mod rsa;
mod start;
mod taiyuan;
mod wechatpay;

pub use alipay::{Keys as AlipayKeys, Pay as AlipayPay, PayError as AlipayPayError};
pub use config::{Alipay, App, Config, Control, Merchant, PoliceSoap, PoliceTcp, SignedBy, WechatPay};
pub use faults::{Fault, Faults, NotStaged, Operation, Staged};
pub use journal::{Memory, OpenError, Place};
pub use key_files::KeyError;
pub use police::hours::Hours;
pub use police::people;
pub use start::{Addresses, Error, Running, start, start_in};
pub use wechatpay::{Keys, LegEnd, MerchantKeys, Pay, PayError};
