//! Parts of a worker, and of a pod on that worker, that the path of a connection needs. Nothing of it is shared between
//! threads.

use super::capture::Steering;
use super::dial::{DialError, TunnelKey};
use super::relay::Scratch;
use super::{Description, FailingEndpoints, GatewayBaggage, OpenConnections, Shared, TrafficByPeers};
use crate::inpod::Pod;
use hbone::Pool;
use proxy_core::TlsConfigs;
use proxy_core::budget::Member;
use proxy_core::workers::{LoadCounter, Tasks};
use runtime::Budget;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use telemetry::Direction;
use telemetry::metrics::{SocketGuard, SocketsOpen, TrafficCache};
use tracing::Span;

/// Number of handshakes under way on a worker, with peers whose first message is complete and that have proven nothing yet.
/// Others wait, as long as a handshake may take.
pub const HANDSHAKES: usize = 1024;
/// Number of handshakes with one pod.
pub const POD_HANDSHAKES: usize = 128;
/// Number of handshakes of one client address with one pod.
pub const SOURCE_HANDSHAKES: usize = 32;
/// Number of inbound tunnels of one pod on one worker.
pub const POD_TUNNELS: usize = 4096;
/// Number of inbound tunnels of one client address.
pub const SOURCE_TUNNELS: usize = 512;

/// One worker.
pub struct WorkerContext {
    pub shared: Arc<Shared>,
    pub load: LoadCounter,
    pub scratch: Scratch,
    /// Outbound, inbound.
    pub sockets: [SocketsOpen; 2],
    pub traffic: TrafficCache,
    pub traffic_by_peers: TrafficByPeers,
    pub gateway_baggage: GatewayBaggage,
    pub open_connections: OpenConnections,
    pub failing_endpoints: FailingEndpoints,
    /// A permit for each handshake under way, by the pod's serial; see [`HANDSHAKES`].
    pub handshakes: Budget<u64>,
}

impl WorkerContext {
    /// A worker that carries nothing yet.
    pub fn new(shared: Arc<Shared>, load: LoadCounter) -> Self {
        Self {
            shared,
            load,
            scratch: Scratch::default(),
            sockets: [Direction::Outbound, Direction::Inbound].map(SocketsOpen::new),
            traffic: TrafficCache::new(),
            traffic_by_peers: TrafficByPeers::default(),
            gateway_baggage: GatewayBaggage::default(),
            open_connections: OpenConnections::default(),
            failing_endpoints: FailingEndpoints::default(),
            handshakes: Budget::new(HANDSHAKES, POD_HANDSHAKES),
        }
    }

    /// Counts an accepted socket as open until the result is dropped.
    pub fn socket_open(&self, direction: Direction) -> SocketGuard {
        let [outbound, inbound] = &self.sockets;
        match direction {
            Direction::Outbound => outbound.open(),
            Direction::Inbound => inbound.open(),
        }
    }
}

/// One pod on one worker.
pub struct PodContext {
    pub pod: Arc<Pod>,
    pub worker: Rc<WorkerContext>,
    pub pool: Pool<TunnelKey, DialError>,
    pub tls: TlsConfigs,
    /// Identity and baggage, for other proxies.
    pub description: Description,
    /// Way in which connections that netfilter may have redirected reach their listener.
    pub steering: Cell<Steering>,
    pub connections: Tasks,
    /// By client address; the worker's permit is taken after this one.
    pub handshakes: Budget<IpAddr>,
    /// By client address.
    pub tunnels: Budget<IpAddr>,
    _member: Member,
    /// Made at its first use; see [`span`](Self::span).
    span: RefCell<Span>,
}

impl PodContext {
    /// The part of `pod` on this worker.
    pub fn new(worker: Rc<WorkerContext>, pod: Arc<Pod>) -> Self {
        let limits = worker.shared.pool_limits;
        // Counted on each worker that knows the pod, so that its part of the last quarter is never too large.
        let member = worker.shared.budgets.enter();
        Self {
            pod,
            worker,
            pool: Pool::new(limits),
            tls: TlsConfigs::default(),
            description: Description::default(),
            // Not known before the first connection. Asking netfilter costs a call; not asking it where it has
            // redirected would lose the destination.
            steering: Cell::new(Steering::Redirected),
            connections: Tasks::default(),
            handshakes: Budget::new(POD_HANDSHAKES, SOURCE_HANDSHAKES),
            tunnels: Budget::new(POD_TUNNELS, SOURCE_TUNNELS),
            _member: member,
            span: RefCell::new(Span::none()),
        }
    }

    /// Returns the span of the pod's lines in the log.
    pub fn span(&self) -> Span {
        let mut span = self.span.borrow_mut();
        // At its first use, and again when logging was off then: a disabled span stays disabled.
        if span.is_disabled() {
            *span = tracing::info_span!("proxy", wl = %self.pod.key());
        }
        span.clone()
    }

    /// Returns the parts that all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.worker.shared
    }
}

impl fmt::Debug for PodContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodContext").field("pod", &self.pod.uid).finish_non_exhaustive()
    }
}
