//! Counters of Istio's TCP metrics, looked up in the recorder once per pair of peers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ::metrics::{Counter, Gauge, Label, gauge, with_recorder};
use parking_lot::Mutex;

use super::{IDLE, TrafficLabels};
use crate::Direction;

const OPENED: &str = "istio_tcp_connections_opened_total";
const CLOSED: &str = "istio_tcp_connections_closed_total";
const FAILED: &str = "istio_tcp_connections_failed_total";
const RECEIVED: &str = "istio_tcp_received_bytes_total";
const SENT: &str = "istio_tcp_sent_bytes_total";
/// Counters that rested this long are taken anew before use: well before they may have expired.
const RENEW: Duration = Duration::from_secs(IDLE.as_secs() / 2);
/// Entries of a cache before it is swept the first time.
const FIRST_SWEEP: usize = 1024;

/// The counters of one series. Shared by its connections; may be kept for as long as they live.
#[derive(Debug)]
pub struct TrafficHandles {
    labels: TrafficLabels,
    begin: Instant,
    /// Milliseconds after `begin`.
    last_use: AtomicU64,
    counters: Mutex<Counters>,
}

#[derive(Debug, Clone)]
struct Counters {
    opened: Counter,
    closed: Counter,
    received: Counter,
    sent: Counter,
}

impl Counters {
    fn take(labels: &TrafficLabels) -> Self {
        // Istio's value for a connection without a failure.
        let labels = labels.labels("-");
        let one = |name| counter(name, labels.clone());
        Self { opened: one(OPENED), closed: one(CLOSED), received: one(RECEIVED), sent: one(SENT) }
    }
}

fn counter(name: &'static str, labels: Vec<Label>) -> Counter {
    static METADATA: ::metrics::Metadata<'static> =
        ::metrics::Metadata::new(module_path!(), ::metrics::Level::INFO, Some(module_path!()));
    // Not by the macro: it would copy 27 labels at every call, also when the counter is known.
    let key = ::metrics::Key::from_parts(name, labels);
    with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
}

impl TrafficHandles {
    /// Takes the counters of `labels`.
    #[must_use]
    pub fn new(labels: TrafficLabels) -> Self {
        let counters = Mutex::new(Counters::take(&labels));
        Self { labels, begin: Instant::now(), last_use: AtomicU64::new(0), counters }
    }

    /// Labels of the counters.
    #[must_use]
    pub const fn labels(&self) -> &TrafficLabels {
        &self.labels
    }

    /// A connection has begun.
    pub fn opened(&self) {
        self.counters().opened.increment(1);
    }

    /// A connection has ended; `failure` is its response flag (`DENY`, `CONNECT`, ...) unless all went well.
    pub fn closed(&self, failure: Option<&'static str>) {
        self.counters().closed.increment(1);
        if let Some(flags) = failure.filter(|flags| *flags != "-") {
            // Looked up each time: failures are few, and each flag is a series of its own.
            counter(FAILED, self.labels.labels(flags)).increment(1);
        }
    }

    /// Bytes from client to server (`received`) and from server to client (`sent`), whoever reports. Cheap enough for every
    /// few hundred kilobytes; not meant for every read.
    pub fn bytes(&self, received: u64, sent: u64) {
        let counters = self.counters();
        counters.received.increment(received);
        counters.sent.increment(sent);
    }

    fn counters(&self) -> Counters {
        let now = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A counter that was idle for an hour is no longer exported; the handle would count into nothing.
        // Relaxed: a time and nothing else is exchanged, and an old one only renews once too often.
        let before = self.last_use.swap(now, Ordering::Relaxed);
        let mut counters = self.counters.lock();
        if u128::from(now.saturating_sub(before)) > RENEW.as_millis() {
            *counters = Counters::take(&self.labels);
        }
        // Handles share one atomic, so the lock is not held while they count.
        counters.clone()
    }

    fn is_idle(&self) -> bool {
        let last = Duration::from_millis(self.last_use.load(Ordering::Relaxed));
        self.begin.elapsed().saturating_sub(last) > RENEW
    }
}

/// Counters by labels, so that they are looked up in the recorder once per pair of peers. One per worker, or shared.
#[derive(Debug, Default)]
pub struct TrafficCache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    by_labels: HashMap<TrafficLabels, Arc<TrafficHandles>>,
    sweep_at: usize,
}

impl TrafficCache {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters of `labels`.
    #[must_use]
    pub fn get(&self, labels: &TrafficLabels) -> Arc<TrafficHandles> {
        let mut cached = self.0.lock();
        if let Some(found) = cached.by_labels.get(labels) {
            return found.clone();
        }
        // Swept when it has doubled, so that the cost for each entry stays the same however many peers come and go.
        if cached.by_labels.len() >= cached.sweep_at.max(FIRST_SWEEP) {
            // Handles in use stay, or a new connection of the same peers would look up a second set.
            cached.by_labels.retain(|_, handles| Arc::strong_count(handles) > 1 || !handles.is_idle());
            cached.sweep_at = cached.by_labels.len() * 2;
        }
        let new = Arc::new(TrafficHandles::new(labels.clone()));
        cached.by_labels.insert(labels.clone(), new.clone());
        new
    }
}

/// `istio_tcp_sockets_open` of one direction, looked up in the recorder once: a gauge does not expire.
#[derive(Debug, Clone)]
pub struct SocketsOpen(Gauge);

/// Counts an accepted socket until it is dropped.
#[derive(Debug)]
pub struct SocketGuard(Gauge);

impl SocketsOpen {
    /// Of the recorder that is installed now.
    #[must_use]
    pub fn new(direction: Direction) -> Self {
        Self(gauge!("istio_tcp_sockets_open", "reporter" => direction.reporter()))
    }

    /// An accepted socket is open.
    #[must_use]
    pub fn open(&self) -> SocketGuard {
        self.0.increment(1.0);
        SocketGuard(self.0.clone())
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{PeerLabels, recorded};

    /// Labels of Istio's ztunnel.
    const ISTIO: &str = "reporter source_workload source_canonical_service source_canonical_revision \
        source_workload_namespace source_principal source_app source_version source_cluster destination_service \
        destination_service_namespace destination_service_name destination_workload destination_canonical_service \
        destination_canonical_revision destination_workload_namespace destination_principal destination_app \
        destination_version destination_cluster request_protocol response_flags connection_security_policy \
        source_region source_zone destination_region destination_zone";

    fn labels() -> TrafficLabels {
        let source = PeerLabels { workload: "shell".into(), namespace: "shop".into(), ..PeerLabels::default() };
        TrafficLabels {
            direction: Direction::Inbound,
            source,
            destination_service: "web.shop.svc.cluster.local".into(),
            destination_service_namespace: "shop".into(),
            destination_service_name: "web".into(),
            destination: PeerLabels { workload: "web".into(), ..PeerLabels::default() },
            mutual_tls: true,
        }
    }

    fn names(text: &str) -> Vec<&str> {
        let sample = text.lines().find(|l| l.starts_with("istio_tcp_connections_opened_total{")).unwrap();
        let inside = sample.split_once('{').unwrap().1.split_once('}').unwrap().0;
        inside.split(',').map(|label| label.split_once('=').unwrap().0).collect()
    }

    #[test]
    fn labels_come_in_istio_s_order_and_empty_ones_are_unknown() {
        let text = recorded(|_| TrafficHandles::new(labels()).opened());

        let names = names(&text).join(" ");
        assert_eq!(names, ISTIO);
        assert!(text.contains("source_principal=\"unknown\""));
        assert!(
            text.contains("response_flags=\"-\",connection_security_policy=\"mutual_tls\",source_region=\"unknown\"")
        );
    }

    #[test]
    fn regions_and_zones_are_labels_whether_they_are_known_or_not() {
        let mut labels = labels();
        labels.destination.zone = "z1".into();

        let text = recorded(|_| TrafficHandles::new(labels).opened());

        assert!(text.contains(
            "source_region=\"unknown\",source_zone=\"unknown\",destination_region=\"unknown\",destination_zone=\"z1\"}"
        ));
    }

    #[test]
    fn a_failure_is_counted_with_its_flag() {
        let text = recorded(|_| {
            let handles = TrafficHandles::new(labels());
            handles.opened();
            handles.bytes(7, 9);
            handles.closed(Some("DENY"));
        });

        let value = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap();
            line.rsplit_once(' ').unwrap().1.to_owned()
        };
        assert_eq!(value("istio_tcp_received_bytes_total{"), "7");
        assert_eq!(value("istio_tcp_sent_bytes_total{"), "9");
        assert_eq!(value("istio_tcp_connections_closed_total{"), "1");
        assert!(text.lines().any(|l| l.starts_with("istio_tcp_connections_failed_total{") && l.contains("\"DENY\"")));
    }

    #[test]
    fn equal_labels_share_their_counters() {
        recorded(|_| {
            let cache = TrafficCache::new();
            assert!(Arc::ptr_eq(&cache.get(&labels()), &cache.get(&labels())));
        });
    }

    #[test]
    fn a_socket_counts_until_it_is_dropped() {
        let text = recorded(|_| {
            let open = SocketsOpen::new(Direction::Outbound);
            let (one, two) = (open.open(), open.open());
            drop(one);
            std::mem::forget(two);
        });

        assert!(text.contains("istio_tcp_sockets_open{reporter=\"source\"} 1\n"), "{text}");
    }
}
