//! Who holds how many connections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::telemetry::{Counter, Gauge, Metrics};
use tokio::sync::Notify;

use super::Limits;

/// The places of one listener.
pub(super) struct Count(Arc<Shared>);

struct Shared {
    total_max: usize,
    per_ip_max: usize,
    taken: Mutex<Taken>,
    changed: Notify,
    open: Gauge,
    refused: Counter,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_ip: BTreeMap<IpAddr, usize>,
}

/// One place; given back when dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    ip: IpAddr,
}

impl Count {
    pub(super) fn new(limits: &Limits, listener: &str, metrics: &Metrics) -> Self {
        let label = vec![("listener", listener.to_owned().into())];
        let open = metrics.gauge("lastmile_rpc_connections_open", "Connections open, by listener");
        let refused = metrics.counter("lastmile_rpc_connections_refused", "Connections closed for want of a place");
        Self(Arc::new(Shared {
            total_max: limits.connections_max,
            per_ip_max: limits.connections_per_ip_max,
            taken: Mutex::default(),
            changed: Notify::new(),
            open: open.get_or_create(&label).clone(),
            refused: refused.get_or_create(&label).clone(),
        }))
    }

    /// Takes a place for an address; `None` when there is none left, for it or at all.
    pub(super) fn enter(&self, ip: IpAddr) -> Option<Place> {
        let shared = &self.0;
        let mut taken = shared.taken();
        let of_ip = taken.by_ip.get(&ip).copied().unwrap_or(0);
        if taken.total >= shared.total_max || of_ip >= shared.per_ip_max {
            shared.refused.inc();
            return None;
        }
        taken.total += 1;
        taken.by_ip.insert(ip, of_ip + 1);
        shared.open.inc();
        Some(Place { shared: shared.clone(), ip })
    }

    /// Waits until no place is taken, at most `span`.
    pub(super) async fn empty(&self, span: Duration) {
        let emptied = async {
            loop {
                let changed = self.0.changed.notified();
                if self.0.taken().total == 0 {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(span, emptied).await.is_err() {
            tracing::warn!(open = self.0.taken().total, "connections outlive the drain");
        }
    }
}

impl Shared {
    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        taken.total = taken.total.saturating_sub(1);
        if let Some(of_ip) = taken.by_ip.get_mut(&self.ip) {
            *of_ip = of_ip.saturating_sub(1);
            if *of_ip == 0 {
                taken.by_ip.remove(&self.ip);
            }
        }
        drop(taken);
        self.shared.open.dec();
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_are_counted_by_address_and_in_all() {
        let limits = Limits { connections_max: 3, connections_per_ip_max: 2, ..Limits::default() };
        let count = Count::new(&limits, "test", &Metrics::new());
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = count.enter(a).expect("a place");
        let _second = count.enter(a).expect("a place");
        assert!(count.enter(a).is_none(), "two of one address");
        let _third = count.enter(b).expect("a place");
        assert!(count.enter(b).is_none(), "three in all");
        drop(first);
        assert!(count.enter(b).is_some());
        assert!(tokio::time::timeout(Duration::from_secs(9), count.empty(Duration::from_secs(5))).await.is_ok());
    }
}
