//! What a service hands to the composition root.

use std::fmt;
use std::sync::Arc;

use tonic::service::Routes;

/// A service that was built and whose background work was started, ready to be served and bound.
pub struct Mounted {
    /// Its gRPC services, without a stack: the root puts one around them.
    pub routes: Routes,
    /// Its plain HTTP endpoints, where it has any.
    pub http: Option<axum::Router>,
    /// Whether it can do its work now; asked often, so it answers from memory.
    pub readiness: Readiness,
}

/// A cheap question: can the service do its work now?
#[derive(Clone)]
pub struct Readiness(Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

impl Readiness {
    /// Wraps the question. The error says in a few words what is missing; it is shown to operators.
    pub fn new(ask: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Always ready.
    pub fn always() -> Self {
        Self::new(|| Ok(()))
    }

    /// Asks.
    ///
    /// Errors: what is missing.
    pub fn check(&self) -> Result<(), String> {
        (self.0)()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readiness({:?})", self.check())
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mounted").field("http", &self.http.is_some()).finish_non_exhaustive()
    }
}
