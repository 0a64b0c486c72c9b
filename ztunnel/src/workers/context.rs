//! What a worker keeps for itself: its pods, their tunnels and tasks. Nothing of it is shared between threads.

use super::{Handle, ListenerKind};
use crate::budget::Member;
use crate::inpod::Pod;
use crate::proxy::capture::Steering;
use crate::proxy::dial::DialError;
use crate::proxy::relay::Scratch;
use crate::proxy::{Description, Foreign, Live, Pairs, Shared, TlsConfigs};
use hbone::Pool;
use identity::Identity;
use runtime::Budget;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use telemetry::access::Direction;
use telemetry::metrics::{SocketGuard, SocketsOpen, TrafficCache};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::Span;

/// Everything that makes two tunnels different.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who we are on it.
    pub source: Identity,
    /// Whom we accept at the other end.
    pub expected: Arc<[Identity]>,
    /// Where it goes.
    pub to: SocketAddr,
    /// The pod's address that it comes from.
    pub from: IpAddr,
}

/// Handshakes of a worker with peers whose first message is there and that have proven nothing yet. Others wait, as
/// long as a handshake may take.
pub const HANDSHAKES: usize = 1024;
/// Those of one pod.
pub const POD_HANDSHAKES: usize = 128;
/// Those of one client address to one pod.
pub const SOURCE_HANDSHAKES: usize = 32;
/// Inbound tunnels of one pod on one worker.
pub const POD_TUNNELS: usize = 4096;
/// Those of one client address.
pub const SOURCE_TUNNELS: usize = 512;

/// Tasks of connections that panicked.
const PANICS: &str = "strake_connection_panics_total";

/// Tasks of a pod on one worker; dropping them cuts them.
#[derive(Debug, Default)]
pub struct Local(RefCell<JoinSet<()>>);

impl Local {
    /// Runs a task on this worker until it ends or is cut.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut set = self.0.borrow_mut();
        while let Some(ended) = set.try_join_next() {
            note(ended);
        }
        set.spawn_local(task);
    }

    /// Returns when no task is left.
    pub async fn ended(&self) {
        poll_fn(|cx| {
            loop {
                match std::task::ready!(self.0.borrow_mut().poll_join_next(cx)) {
                    Some(ended) => note(ended),
                    None => return std::task::Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// Tasks that have not ended.
    pub fn count(&self) -> usize {
        let mut set = self.0.borrow_mut();
        while let Some(ended) = set.try_join_next() {
            note(ended);
        }
        set.len()
    }

    /// Cuts all tasks; they are gone once [`ended`](Self::ended) returns.
    pub fn cut(&self) {
        self.0.borrow_mut().abort_all();
    }
}

/// A task that panicked has ended one connection, which says nothing of it but that it was cut.
fn note(ended: Result<(), JoinError>) {
    if let Err(e) = ended
        && e.is_panic()
    {
        tracing::error!(error = %e, code = "panic", "the task of a connection has failed");
        metrics::counter!(PANICS).increment(1);
    }
}

/// A worker, for the tasks on it.
pub struct WorkerContext {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub handles: Arc<[Handle]>,
    pub scratch: Scratch,
    /// By direction, as the process reports it.
    pub sockets: [SocketsOpen; 2],
    pub traffic: TrafficCache,
    pub pairs: Pairs,
    pub foreign: Foreign,
    pub live: Live,
    pub pods: RefCell<HashMap<u64, Rc<PodHere>>>,
    pub draining: Cell<bool>,
    /// A permit for each handshake under way, by the pod's serial; see [`HANDSHAKES`].
    pub handshakes: Budget<u64>,
    /// Told that this worker is of no more use.
    pub(super) lost: watch::Sender<Option<usize>>,
}

impl WorkerContext {
    /// This worker as others see it.
    pub fn handle(&self) -> &Handle {
        &self.handles[self.index]
    }

    /// An accepted socket is open until the result is dropped.
    pub fn socket_open(&self, direction: Direction) -> SocketGuard {
        let [outbound, inbound] = &self.sockets;
        match direction {
            Direction::Outbound => outbound.open(),
            Direction::Inbound => inbound.open(),
        }
    }

    /// The part of `pod` on this worker, made when there is none.
    pub fn pod(self: &Rc<Self>, pod: &Arc<Pod>) -> Rc<PodHere> {
        let mut pods = self.pods.borrow_mut();
        pods.entry(pod.serial).or_insert_with(|| Rc::new(PodHere::new(self.clone(), pod.clone()))).clone()
    }
}

/// One pod on one worker.
pub struct PodHere {
    pub pod: Arc<Pod>,
    pub worker: Rc<WorkerContext>,
    pub pool: Pool<Key, DialError>,
    pub tls: TlsConfigs,
    /// What other proxies are told of the pod.
    pub description: Description,
    /// How the connections come that netfilter may have redirected.
    pub steering: Cell<Steering>,
    pub connections: Local,
    /// Accept loops; only on the worker that the pod belongs to.
    pub listeners: Local,
    /// By client address; the worker's permit is taken after this one.
    pub handshakes: Budget<IpAddr>,
    /// By client address.
    pub tunnels: Budget<IpAddr>,
    _member: Member,
    /// Made when it is first wanted; see [`span`](Self::span).
    span: RefCell<Span>,
}

impl PodHere {
    fn new(worker: Rc<WorkerContext>, pod: Arc<Pod>) -> Self {
        let limits = worker.shared.pool_limits;
        let member = worker.shared.budgets.enter();
        Self {
            pod,
            worker,
            pool: Pool::new(limits),
            tls: TlsConfigs::default(),
            description: Description::default(),
            steering: Cell::new(Steering::Redirected),
            connections: Local::default(),
            listeners: Local::default(),
            handshakes: Budget::new(POD_HANDSHAKES, SOURCE_HANDSHAKES),
            tunnels: Budget::new(POD_TUNNELS, SOURCE_TUNNELS),
            _member: member,
            span: RefCell::new(Span::none()),
        }
    }

    /// Where lines about the pod belong in the log.
    pub fn span(&self) -> Span {
        let mut span = self.span.borrow_mut();
        if span.is_disabled() {
            *span = tracing::info_span!("proxy", wl = %self.pod.key());
        }
        span.clone()
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.worker.shared
    }

    /// Starts carrying an accepted connection.
    pub fn take(self: &Rc<Self>, connection: super::Connection) {
        let here = self.clone();
        match connection.kind {
            ListenerKind::Outbound => self.connections.spawn(crate::proxy::outbound::serve(here, connection)),
            ListenerKind::Hbone => self.connections.spawn(crate::proxy::inbound::serve(here, connection)),
            ListenerKind::Plaintext => self.connections.spawn(crate::proxy::plaintext::serve(here, connection)),
        }
    }
}

impl fmt::Debug for PodHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodHere").field("pod", &self.pod.uid).field("worker", &self.worker.index).finish()
    }
}
