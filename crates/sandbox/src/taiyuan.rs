//! Taiyuan's wire: frames of fixed columns over TCP. docs/sandbox/police-140100.md.

mod columns;
mod layout;
mod reply;
mod server;
mod service;

pub(crate) use server::serve;
pub(crate) use service::Service;
