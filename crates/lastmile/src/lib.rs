//! The composition of lastmile: which roles run in this process, where their state is, how they find each other, and the commands
//! of the operator.
//!
//! No business code lives here. A role is mounted by its crate; this crate opens its store, hands it the mesh and the context, and
//! puts its routes on a listener. Every command ends in an exit code: 0 done, 1 failed, 64 not understood (flags or configuration).

pub mod app;
pub mod ca;
pub mod cli;
pub mod config;
pub mod data;
pub mod demo;
pub mod doctor;
pub mod drill;
pub mod health;
pub mod inspect;
mod ledger;
pub mod ops;
pub mod role;

mod announce;
mod cores;
mod front;
mod mesh;
mod mount;
mod profiles;
mod reconcile;
mod sandbox;
mod serving;
mod settlement;
mod site;

pub use app::App;
pub use config::Config;
pub use role::Role;
