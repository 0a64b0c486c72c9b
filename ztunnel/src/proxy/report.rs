//! Last step: reports a connection to metrics, the dump and the access log, exactly once, however it ends.

use super::context::{PodContext, WorkerContext};
use super::relay::Counts;
use super::{EarlyFailure, Failure};
use crate::inpod::connections::Listed;
use crate::inpod::{ConnectionEntry, ListenerKind};
use hbone::headers::{Baggage, Trace};
use identity::Identity;
use model::{Service, Workload};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use telemetry::access::{self, AccessError, AccessPeer, AccessRecord};
use telemetry::metrics::{PeerLabels, TrafficHandles, TrafficLabels};
use telemetry::{Direction, Protocol};
use tracing::Span;

/// Bytes after which a connection adds to the counters, if that is before the next flush of all connections.
const FLUSH_BYTES: u64 = 4 << 20;

/// Known properties of one side.
#[derive(Debug, Clone)]
pub struct Peer {
    pub workload: Option<Arc<Workload>>,
    /// Proven, or expected to be proven.
    pub identity: Option<Identity>,
    /// Description by the other proxy of a workload that discovery does not know.
    pub baggage: Option<Baggage>,
}

/// A connection about to be worked on.
#[derive(Debug, Clone)]
pub struct Opened {
    pub direction: Direction,
    pub client: SocketAddr,
    /// `dst.addr` of the access log. Outbound, the next hop; inbound, the pod's address that the client connected to.
    pub logged_dst: SocketAddr,
    /// `originalDst` of the dump: the address, or the service, that the client asked for.
    pub original_dst: Option<String>,
    /// `actualDst` of the dump. Outbound, the next hop; inbound, the application's address.
    pub actual_dst: SocketAddr,
    pub source: Peer,
    pub target: Peer,
    pub service: Option<Arc<Service>>,
    /// `:authority`; only HBONE.
    pub authority: Option<String>,
    pub protocol: Protocol,
    /// Trace id by which both proxies log the connection.
    pub trace: Option<Trace>,
}

/// Reports one connection when dropped: as cut, unless [`close`](Self::close) has given another result.
pub struct Report {
    opened: Opened,
    /// The pod's, in the log.
    span: Span,
    traffic: Arc<TrafficHandles>,
    counts: Rc<Counts>,
    /// Slot among the open connections of its worker.
    slot: usize,
    worker: Rc<WorkerContext>,
    begun: Instant,
    result: Result<(), Failure>,
    _listed: Listed,
}

impl Report {
    /// Begins the report of a connection.
    pub fn open(context: &PodContext, opened: Opened) -> Self {
        let traffic = context.worker.traffic_by_peers.get(&opened, &context.worker.traffic);
        traffic.opened();
        // Listed until the report is dropped, so that the dump shows exactly the connections that the metrics count as
        // opened and not closed.
        let listed = context.pod.connections.list(ConnectionEntry {
            client: opened.client,
            original_dst: opened.original_dst.clone(),
            actual_dst: opened.actual_dst,
            protocol: opened.protocol,
            direction: opened.direction,
        });
        // Off by default: the span and the record are made only for a line that will be written.
        if tracing::enabled!(target: "access", tracing::Level::DEBUG) {
            opened.span(&context.span()).in_scope(|| opened.record(|r| r.opened()));
        }
        // Long connections would be invisible until their end; the worker's clock flushes all of these once a second.
        let counts = Rc::new(Counts::new(FLUSH_BYTES, traffic.clone()));
        let slot = context.worker.open_connections.insert(counts.clone());
        let (span, worker, begun) = (context.span(), context.worker.clone(), Instant::now());
        // The result that holds if nobody closes the report: its task was cut by a drain, or because the pod is gone.
        Self { opened, span, traffic, counts, slot, worker, begun, result: Err(Failure::Cut), _listed: listed }
    }

    /// Returns the counts of the relay.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Ends the report with the connection's result.
    pub fn close(mut self, result: Result<(), Failure>) {
        self.result = result;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.worker.open_connections.remove(self.slot);
        // The last bytes count before the end does.
        self.counts.flush();
        let failure = self.result.as_ref().err();
        self.traffic.closed(failure.map(|e| e.flags().as_str()));
        let totals = self.counts.totals();
        // Istio's log counts towards the other proxy: outbound sends to the server, inbound to the client.
        let (sent, received) = match self.opened.direction {
            Direction::Outbound => (totals.to_server, totals.to_client),
            Direction::Inbound => (totals.to_client, totals.to_server),
        };
        let error = failure.map(|e| AccessError { error: e, code: e.code() });
        let span = self.opened.span(&self.span);
        span.in_scope(|| self.opened.record(|r| r.complete(sent, received, self.begun.elapsed(), error)));
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("opened", &self.opened).field("result", &self.result).finish()
    }
}

/// Reports a connection, accepted by the listener of `kind`, that failed before there was anything to count.
pub fn early(context: &PodContext, kind: ListenerKind, client: SocketAddr, early: &EarlyFailure) {
    let EarlyFailure { original_dst, failure } = early;
    // Without a destination, the port of the listener is all that is known.
    let listener = || SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), kind.port());
    let error = AccessError { error: failure, code: failure.code() };
    context.span().in_scope(|| {
        access::refused(client, original_dst.unwrap_or_else(listener), kind.direction(), error);
    });
}

impl Opened {
    /// Returns the span of a line about it: the pod, and the trace id that both proxies log.
    fn span(&self, proxy: &Span) -> Span {
        let Some(Trace { trace_id, .. }) = self.trace else { return proxy.clone() };
        let id = format_args!("{trace_id:032x}");
        match self.direction {
            Direction::Outbound => tracing::info_span!(parent: proxy, "outbound", id = %id),
            Direction::Inbound => tracing::info_span!(parent: proxy, "inbound", id = %id, peer = %self.client),
        }
    }

    pub(super) const fn is_mutual_tls(&self) -> bool {
        self.authority.is_some()
    }

    fn record<T>(&self, write: impl FnOnce(&AccessRecord<'_>) -> T) -> T {
        let mtls = self.is_mutual_tls();
        let source = side(&self.source, self.client, mtls);
        let destination = side(&self.target, self.logged_dst, mtls);
        write(&AccessRecord {
            source,
            destination,
            hbone_addr: self.authority.as_deref(),
            service: self.service.as_ref().map_or("", |s| s.hostname.as_str()),
            direction: self.direction,
        })
    }
}

fn side(peer: &Peer, addr: SocketAddr, mtls: bool) -> AccessPeer<'_> {
    let identity = peer.identity.as_ref().filter(|_| mtls).map(Identity::as_str);
    let (workload, namespace, cluster) = match (&peer.workload, &peer.baggage) {
        (Some(w), _) => {
            // Workloads that are not pods may have no name of their own.
            let name = if w.name.is_empty() { w.canonical_name.as_str() } else { w.name.as_str() };
            (name, w.namespace.as_str(), w.cluster_id.as_str())
        }
        (None, Some(b)) => (b.workload_name.as_str(), b.namespace.as_str(), b.cluster.as_str()),
        (None, None) => ("", "", ""),
    };
    AccessPeer { addr: Some(addr), workload, namespace, identity, cluster }
}

pub(super) fn labels(opened: &Opened) -> TrafficLabels {
    let service = opened.service.as_deref();
    let mtls = opened.is_mutual_tls();
    let mut source = peer_labels(&opened.source);
    // Only what was proven counts as the source; the destination is what discovery says.
    source.principal = opened.source.identity.as_ref().filter(|_| mtls).map_or_else(Arc::default, principal);
    let mut destination = peer_labels(&opened.target);
    destination.principal = opened.target.identity.as_ref().map_or_else(Arc::default, principal);
    TrafficLabels {
        direction: opened.direction,
        source,
        destination_service: service.map_or_else(Arc::default, |s| s.hostname.as_arc()),
        destination_service_namespace: service.map_or_else(Arc::default, |s| s.namespace.as_arc()),
        destination_service_name: service.map_or_else(Arc::default, |s| s.name.as_arc()),
        destination,
        mutual_tls: mtls,
    }
}

fn principal(identity: &Identity) -> Arc<str> {
    identity.as_str().into()
}

fn peer_labels(peer: &Peer) -> PeerLabels {
    match (&peer.workload, &peer.baggage) {
        (Some(w), _) => PeerLabels {
            workload: w.workload_name.as_arc(),
            canonical_service: w.canonical_name.as_arc(),
            canonical_revision: w.canonical_revision.as_arc(),
            namespace: w.namespace.as_arc(),
            principal: Arc::default(),
            app: w.canonical_name.as_arc(),
            version: w.canonical_revision.as_arc(),
            cluster: w.cluster_id.as_arc(),
            region: w.locality.region.as_arc(),
            zone: w.locality.zone.as_arc(),
        },
        (None, Some(b)) => PeerLabels {
            workload: b.workload_name.as_str().into(),
            canonical_service: b.service_name.as_str().into(),
            canonical_revision: b.service_version.as_str().into(),
            namespace: b.namespace.as_str().into(),
            principal: Arc::default(),
            // As Istio does it.
            app: b.workload_name.as_str().into(),
            version: b.service_version.as_str().into(),
            cluster: b.cluster.as_str().into(),
            region: b.region.as_str().into(),
            zone: b.zone.as_str().into(),
        },
        (None, None) => PeerLabels::default(),
    }
}
