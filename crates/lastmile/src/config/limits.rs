//! What one gRPC listener allows, as an operator sets it.

use std::time;

use runtime::config::{ByteSize, Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const MILLISECOND: time::Duration = time::Duration::from_millis(1);
const SECOND: time::Duration = time::Duration::from_secs(1);
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What one gRPC listener allows. The defaults are those of [`rpc::Limits`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections on the listener; a further one is closed at once. 1 to 1,000,000.
    pub connections_max: u32,
    /// Open connections from one address. 1 to `connections_max`.
    pub connections_per_ip_max: u32,
    /// For the TLS handshake. 100ms to 1m.
    pub handshake_timeout: Duration,
    /// From the connection to the head of its first request. 100ms to 5m.
    pub first_request_timeout: Duration,
    /// Silence after which the peer is probed. 1s to 1h.
    pub keepalive_interval: Duration,
    /// How long the probe may take. 100ms to 5m.
    pub keepalive_timeout: Duration,
    /// Age at which a connection is asked to go; each draws its own within a tenth. 1s to 24h.
    pub connection_age_max: Duration,
    /// For calls in hand on a connection that was asked to go. 100ms to 10m.
    pub drain_timeout: Duration,
    /// Calls at once on one connection. 1 to 10,000.
    pub streams_max: u32,
    /// HTTP/2 window of one call. 16KiB to 16MiB.
    pub stream_window: ByteSize,
    /// HTTP/2 window of one connection. 64KiB to 64MiB.
    pub connection_window: ByteSize,
    /// All header fields of one request together. 1KiB to 1MiB.
    pub header_bytes_max: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = rpc::Limits::default();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let size = |bytes: u32| ByteSize::from_bytes(bytes.into());
        Self {
            connections_max: count(limits.connections_max),
            connections_per_ip_max: count(limits.connections_per_ip_max),
            handshake_timeout: limits.handshake_timeout.into(),
            first_request_timeout: limits.first_request_timeout.into(),
            keepalive_interval: limits.keepalive_interval.into(),
            keepalive_timeout: limits.keepalive_timeout.into(),
            connection_age_max: limits.connection_age_max.into(),
            drain_timeout: limits.drain_timeout.into(),
            streams_max: limits.streams_max,
            stream_window: size(limits.stream_window_bytes),
            connection_window: size(limits.connection_window_bytes),
            header_bytes_max: size(limits.header_list_bytes_max),
        }
    }
}

impl Limits {
    /// The same as the accept loop takes it.
    pub(crate) fn listener(&self, http1: bool) -> rpc::Limits {
        let bytes = |size: ByteSize| u32::try_from(size.bytes()).unwrap_or(u32::MAX);
        rpc::Limits {
            connections_max: self.connections_max as usize,
            connections_per_ip_max: self.connections_per_ip_max as usize,
            handshake_timeout: self.handshake_timeout.get(),
            first_request_timeout: self.first_request_timeout.get(),
            keepalive_interval: self.keepalive_interval.get(),
            keepalive_timeout: self.keepalive_timeout.get(),
            connection_age_max: self.connection_age_max.get(),
            drain_timeout: self.drain_timeout.get(),
            streams_max: self.streams_max,
            stream_window_bytes: bytes(self.stream_window),
            connection_window_bytes: bytes(self.connection_window),
            header_list_bytes_max: bytes(self.header_bytes_max),
            http1,
        }
    }

    /// Notes every value out of its bounds.
    pub(crate) fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut refuse = |field: &str, low: String, high: String| {
            problems.push(Problem::new(format!("{path}.{field}"), format!("must be from {low} to {high}")));
        };
        let counts = [
            ("connections_max", self.connections_max, 1_000_000),
            ("connections_per_ip_max", self.connections_per_ip_max, self.connections_max.max(1)),
            ("streams_max", self.streams_max, 10_000),
        ];
        for (field, count, high) in counts {
            if !(1..=high).contains(&count) {
                refuse(field, "1".to_owned(), high.to_string());
            }
        }
        let spans = [
            ("handshake_timeout", self.handshake_timeout, 100 * MILLISECOND, 60 * SECOND),
            ("first_request_timeout", self.first_request_timeout, 100 * MILLISECOND, 300 * SECOND),
            ("keepalive_interval", self.keepalive_interval, SECOND, 3_600 * SECOND),
            ("keepalive_timeout", self.keepalive_timeout, 100 * MILLISECOND, 300 * SECOND),
            ("connection_age_max", self.connection_age_max, SECOND, 86_400 * SECOND),
            ("drain_timeout", self.drain_timeout, 100 * MILLISECOND, 600 * SECOND),
        ];
        for (field, span, low, high) in spans {
            if !(low..=high).contains(&span.get()) {
                refuse(field, Duration::from(low).to_string(), Duration::from(high).to_string());
            }
        }
        let sizes = [
            ("stream_window", self.stream_window, 16 * KIB, 16 * MIB),
            ("connection_window", self.connection_window, 64 * KIB, 64 * MIB),
            ("header_bytes_max", self.header_bytes_max, KIB, MIB),
        ];
        for (field, size, low, high) in sizes {
            if !(low..=high).contains(&(size.bytes() as u64)) {
                refuse(field, ByteSize::from_bytes(low).to_string(), ByteSize::from_bytes(high).to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_accept_loop() {
        let mut problems = Vec::new();
        Limits::default().validate("public.limits", &mut problems);
        assert_eq!(problems, []);
        assert_eq!(Limits::default().listener(false), rpc::Limits::default());
    }

    #[test]
    fn what_is_out_of_bounds_is_told_by_its_path() {
        let none = Limits {
            connections_max: 0,
            connections_per_ip_max: 0,
            handshake_timeout: Duration::from_millis(0),
            first_request_timeout: Duration::from_millis(99),
            keepalive_interval: Duration::from_millis(999),
            keepalive_timeout: Duration::from_millis(0),
            connection_age_max: Duration::from_millis(0),
            drain_timeout: Duration::from_millis(0),
            streams_max: 0,
            stream_window: ByteSize::from_bytes(0),
            connection_window: ByteSize::from_bytes(0),
            header_bytes_max: ByteSize::from_bytes(0),
        };
        let much = Limits {
            connections_max: 1_000_001,
            connections_per_ip_max: 1_000_002,
            handshake_timeout: Duration::from_secs(61),
            first_request_timeout: Duration::from_secs(301),
            keepalive_interval: Duration::from_secs(3_601),
            keepalive_timeout: Duration::from_secs(301),
            connection_age_max: Duration::from_secs(86_401),
            drain_timeout: Duration::from_secs(601),
            streams_max: 10_001,
            stream_window: ByteSize::from_mib(17),
            connection_window: ByteSize::from_mib(65),
            header_bytes_max: ByteSize::from_mib(2),
        };
        let all = serde_json::to_value(Limits::default()).expect("serialises");
        let mut fields: Vec<_> = all.as_object().expect("a table").keys().map(|field| format!("x.{field}")).collect();
        fields.sort();
        for limits in [none, much] {
            let mut problems = Vec::new();
            limits.validate("x", &mut problems);
            let mut paths: Vec<_> = problems.into_iter().map(|problem| problem.path).collect();
            paths.sort();
            assert_eq!(paths, fields, "every field has two bounds");
        }
    }
}
