//! The routing snapshot, kept fresh by the catalogue's stream.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use contracts::catalog::v1::{Route, WatchCatalogRequest};
use rpc::RemoteFault;
use rpc::routes::RouteTable;
use runtime::Context;

use super::Peers;
use crate::error::Error;

const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Where a case goes: from memory, or, before there is a snapshot, from the catalogue itself.
pub(crate) struct Routes {
    table: ArcSwap<RouteTable>,
    peers: Arc<Peers>,
    context: Context,
}

impl Routes {
    pub(crate) fn new(peers: Arc<Peers>, context: Context) -> Self {
        Self { table: ArcSwap::from_pointee(RouteTable::default()), peers, context }
    }

    /// Whether there is a snapshot.
    pub(crate) fn is_loaded(&self) -> bool {
        self.table.load().version() > 0
    }

    /// Finds the route of an item; None when there is none that leads to an adapter.
    ///
    /// Errors: `Peer` when there is neither a snapshot nor a catalogue.
    pub(crate) async fn find(&self, item: &str, region: &str, entry_point: &str) -> Result<Option<Route>, Error> {
        if self.is_loaded() {
            return Ok(self.table.load().resolve(item, region, entry_point).ok().map(|route| Route::clone(route)));
        }
        let route = self.peers.explain_route(item, region, entry_point).await?;
        Ok(route.filter(|route| !route.profile.is_empty()))
    }

    /// Follows the catalogue until the stop. A stream that ends is asked for again with the version held.
    pub(crate) async fn follow(self: Arc<Self>) {
        let stop = self.context.tasks.token();
        let mut failures = 0_u32;
        while !stop.is_cancelled() {
            failures = match self.stream(&stop).await {
                Ok(()) => 0,
                Err(fault) => {
                    tracing::warn!(reason = fault.reason(), failures, "the catalogue's stream broke off");
                    failures.saturating_add(1)
                }
            };
            let pause = PAUSE_FIRST.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.context.clock.sleep(pause) => {}
            }
        }
    }

    async fn stream(&self, stop: &tokio_util::sync::CancellationToken) -> Result<(), RemoteFault> {
        let known_version = self.table.load().version();
        let answer = self.peers.catalog().watch_catalog(WatchCatalogRequest { known_version }).await;
        let mut snapshots = answer.map_err(RemoteFault::from)?.into_inner();
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                next = snapshots.message() => next,
            };
            match next.map_err(RemoteFault::from)? {
                Some(snapshot) => self.table.store(Arc::new(RouteTable::new(snapshot))),
                None => return Ok(()),
            }
        }
    }
}
