//! The catalogue: which item is offered where, how deep, and by which profile.
//!
//! It owns the tree of regions, the canonical items with the names that articles and entry points give them, and the routes that
//! follow. Everything comes from files and stands in memory as one immutable version; replicas with equal files have equal versions.
//! An item without an adapter is listed as such and never faked. The catalogue calls nobody and stores nothing.

mod config;
mod convert;
mod domain;
mod error;
mod files;
mod load;
mod service;

use contracts::catalog::v1::catalog_service_server::CatalogServiceServer;
use std::sync::Arc;

pub use config::Config;
pub use error::{Error, REASONS};
pub use load::LoadError;
pub use service::Service;

/// The catalogue's whole outside world.
#[derive(Clone)]
pub struct Deps {
    /// Time, ids and tasks.
    pub context: runtime::Context,
}

/// Reads the files and mounts the service.
///
/// Errors: every problem of every file at once.
pub fn mount(config: &Config, deps: Deps) -> Result<rpc::Mounted, LoadError> {
    let catalogue = Arc::new(load::load(config)?);
    let service = Service::new(catalogue, deps.context);
    let routes = tonic::service::Routes::new(CatalogServiceServer::new(service));
    Ok(rpc::Mounted { routes, http: None, readiness: rpc::Readiness::always() })
}
