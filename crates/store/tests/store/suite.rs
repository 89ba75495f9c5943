//! The suite: plain functions over an open, empty database.

pub(crate) mod faults;
pub(crate) mod lease;
pub(crate) mod many;
pub(crate) mod migrate;
pub(crate) mod outbox;
pub(crate) mod sql;
