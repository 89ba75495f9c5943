//! Keeps the routing snapshot current: one stream from the catalogue, asked for again whenever it ends.

use std::sync::Arc;
use std::time::Duration;

use contracts::catalog::v1::WatchCatalogRequest;
use contracts::catalog::v1::catalog_service_client::CatalogServiceClient;
use rpc::routes::RouteTable;

use crate::shared::Shared;

/// First pause after a stream that could not be had; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Follows the catalogue until the process stops. The last snapshot stays in force while the catalogue is away.
pub(crate) async fn follow(shared: Arc<Shared>, catalog: rpc::Wire) {
    let stop = shared.context.tasks.token();
    let mut pause = PAUSE_MIN;
    while !stop.is_cancelled() {
        let before = shared.routes.load().version();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ended = watch(&shared, catalog.clone()) => {
                if let Err(status) = ended {
                    tracing::warn!(code = ?status.code(), "the catalogue's stream ended");
                }
            }
        }
        pause = if shared.routes.load().version() == before { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
        let jitter = Duration::from_millis(shared.context.ids.below(50));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.context.clock.sleep(pause + jitter) => {}
        }
    }
}

async fn watch(shared: &Shared, catalog: rpc::Wire) -> Result<(), tonic::Status> {
    let request = WatchCatalogRequest { known_version: shared.routes.load().version() };
    let mut stream = CatalogServiceClient::new(catalog).watch_catalog(request).await?.into_inner();
    while let Some(snapshot) = stream.message().await? {
        let routes = snapshot.routes.len();
        let table = RouteTable::new(snapshot);
        tracing::info!(version = table.version(), routes, "routes in force");
        shared.routes.store(Arc::new(table));
    }
    Ok(())
}
