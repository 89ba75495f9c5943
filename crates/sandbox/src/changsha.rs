//! Changsha's wire: SOAP 1.1 over HTTP, in GBK. docs/sandbox/police-430100.md.

mod envelope;
mod reply;
mod service;

pub(crate) use service::{Service, router};
