//! Istio's TCP metrics: labels, their order, and counters taken once per pair of peers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ::metrics::{Counter, Gauge, Label, SharedString, gauge, with_recorder};

use super::IDLE;

const OPENED: &str = "istio_tcp_connections_opened_total";
const CLOSED: &str = "istio_tcp_connections_closed_total";
const FAILED: &str = "istio_tcp_connections_failed_total";
const RECEIVED: &str = "istio_tcp_received_bytes_total";
const SENT: &str = "istio_tcp_sent_bytes_total";
/// Counters that rested this long are taken anew before use: well before they may have expired.
const RENEW: Duration = Duration::from_secs(IDLE.as_secs() / 2);
/// Entries of a cache before it is swept the first time.
const FIRST_SWEEP: usize = 1024;

/// Side that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's.
    Destination,
}

impl Reporter {
    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// One side of a connection. Empty texts become `unknown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PeerLabels {
    /// Name of the workload's owner.
    pub workload: Arc<str>,
    /// Canonical name.
    pub canonical_service: Arc<str>,
    /// Canonical revision.
    pub canonical_revision: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// SPIFFE id.
    pub principal: Arc<str>,
    /// Usually the canonical name.
    pub app: Arc<str>,
    /// Usually the canonical revision.
    pub version: Arc<str>,
    /// Cluster id.
    pub cluster: Arc<str>,
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
}

/// Labels that the connections of one series have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrafficLabels {
    /// Side that counts.
    pub reporter: Reporter,
    /// Client.
    pub source: PeerLabels,
    /// Hostname of the service.
    pub destination_service: Arc<str>,
    /// Its namespace.
    pub destination_service_namespace: Arc<str>,
    /// Its short name.
    pub destination_service_name: Arc<str>,
    /// Server.
    pub destination: PeerLabels,
    /// `mutual_tls`, else `unknown`.
    pub mutual_tls: bool,
}

impl TrafficLabels {
    /// In Istio's order.
    fn labels(&self, response_flags: &'static str) -> Vec<Label> {
        let (s, d) = (&self.source, &self.destination);
        let mut labels = vec![Label::from_static_parts("reporter", self.reporter.as_str())];
        let mut push = |name: &'static str, value: &Arc<str>| labels.push(Label::new(name, or_unknown(value)));
        push("source_workload", &s.workload);
        push("source_canonical_service", &s.canonical_service);
        push("source_canonical_revision", &s.canonical_revision);
        push("source_workload_namespace", &s.namespace);
        push("source_principal", &s.principal);
        push("source_app", &s.app);
        push("source_version", &s.version);
        push("source_cluster", &s.cluster);
        push("destination_service", &self.destination_service);
        push("destination_service_namespace", &self.destination_service_namespace);
        push("destination_service_name", &self.destination_service_name);
        push("destination_workload", &d.workload);
        push("destination_canonical_service", &d.canonical_service);
        push("destination_canonical_revision", &d.canonical_revision);
        push("destination_workload_namespace", &d.namespace);
        push("destination_principal", &d.principal);
        push("destination_app", &d.app);
        push("destination_version", &d.version);
        push("destination_cluster", &d.cluster);
        let security = if self.mutual_tls { "mutual_tls" } else { "unknown" };
        labels.push(Label::from_static_parts("request_protocol", "tcp"));
        labels.push(Label::from_static_parts("response_flags", response_flags));
        labels.push(Label::from_static_parts("connection_security_policy", security));
        let places = [
            ("source_region", &s.region),
            ("source_zone", &s.zone),
            ("destination_region", &d.region),
            ("destination_zone", &d.zone),
        ];
        labels.extend(places.map(|(name, value)| Label::new(name, or_unknown(value))));
        labels
    }
}

fn or_unknown(value: &Arc<str>) -> SharedString {
    if value.is_empty() { SharedString::const_str("unknown") } else { SharedString::from_shared(value.clone()) }
}

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
        let labels = labels.labels("-");
        let one = |name| counter(name, labels.clone());
        Self { opened: one(OPENED), closed: one(CLOSED), received: one(RECEIVED), sent: one(SENT) }
    }
}

fn counter(name: &'static str, labels: Vec<Label>) -> Counter {
    static METADATA: ::metrics::Metadata<'static> =
        ::metrics::Metadata::new(module_path!(), ::metrics::Level::INFO, Some(module_path!()));
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
        let before = self.last_use.swap(now, Ordering::Relaxed);
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if u128::from(now.saturating_sub(before)) > RENEW.as_millis() {
            *counters = Counters::take(&self.labels);
        }
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
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cached.by_labels.get(labels) {
            return found.clone();
        }
        if cached.by_labels.len() >= cached.sweep_at.max(FIRST_SWEEP) {
            cached.by_labels.retain(|_, handles| Arc::strong_count(handles) > 1 || !handles.is_idle());
            cached.sweep_at = cached.by_labels.len() * 2;
        }
        let new = Arc::new(TrafficHandles::new(labels.clone()));
        cached.by_labels.insert(labels.clone(), new.clone());
        new
    }
}

/// `istio_tcp_sockets_open` of one reporter, looked up in the recorder once: a gauge does not expire.
#[derive(Debug, Clone)]
pub struct SocketsOpen(Gauge);

/// Counts an accepted socket until it is dropped.
#[derive(Debug)]
pub struct SocketGuard(Gauge);

impl SocketsOpen {
    /// Of the recorder that is installed now.
    #[must_use]
    pub fn new(reporter: Reporter) -> Self {
        Self(gauge!("istio_tcp_sockets_open", "reporter" => reporter.as_str()))
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
    use crate::metrics::{catalogue, recorded};

    fn labels() -> TrafficLabels {
        let source = PeerLabels { workload: "shell".into(), namespace: "shop".into(), ..PeerLabels::default() };
        TrafficLabels {
            reporter: Reporter::Destination,
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

        assert_eq!(names(&text), catalogue::TRAFFIC);
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
            let open = SocketsOpen::new(Reporter::Source);
            let (one, two) = (open.open(), open.open());
            drop(one);
            std::mem::forget(two);
        });

        assert!(text.contains("istio_tcp_sockets_open{reporter=\"source\"} 1\n"), "{text}");
    }
}
