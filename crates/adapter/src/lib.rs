//! Adapters: one engine that executes profiles, and a gRPC department for each.
//!
//! A profile says how a back end is spoken to and what its words mean; the engine knows what a query, a lock or a settlement is and
//! what may follow from each failure. A new city or department recompiles nothing. An adapter owns no data but its keys, keeps no
//! state between calls (the department's own key carries the request id), calls no other service but identity's key list, and makes
//! every legacy call once: only the gateway retries, and only reads.
//!
//! From the outside in: [`mount`] and the service, [`engine`] (operations), [`plan`] (a profile that was understood), [`profile`] (a
//! profile as written), [`connector`] (protocols: [`connector::soap`], [`connector::fixed_tcp`]), [`mapping`] and [`template`]
//! (expressions), [`kind`] and [`charset`] (values and bytes), [`check`] (a profile against its golden cases).
//!
//! What is never done: a guess. A value outside its table, half a character, an echo of something else, a field that is missing or
//! twice is an error that names profile, field and offset, and never the value.

pub mod applicant;
pub mod canonical;
pub mod charset;
pub mod check;
pub mod config;
pub mod connector;
pub mod engine;
pub mod error;
pub mod gate;
pub mod kind;
pub mod mapping;
pub mod named;
pub mod plan;
pub mod profile;
pub mod record;
pub mod schema;
pub mod template;
pub mod types;
pub mod words;

mod convert;
mod keys;
mod mount;
mod proof;
mod service;

pub use config::{Config, Endpoint};
pub use error::{Error, REASONS};
pub use keys::ProfileKeys;
pub use mount::{Adapters, BuildError, Department, Deps, mount};
pub use proof::{PROOF_TYPE, ProofClaims};
pub use service::Service;

/// Every moment at which a drill may kill this role, in the order of a settlement. `after_send` is passed by connectors that see it:
/// fixed columns over TCP.
pub const CRASH_POINTS: &[&str] =
    &["adapter.settle.before_send", "adapter.settle.after_send", "adapter.settle.after_reply"];
