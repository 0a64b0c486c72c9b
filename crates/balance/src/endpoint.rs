//! Endpoints, as discovery describes them, and the state of each.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use route::Labels;
use route::traffic::TrafficPolicy;

use crate::balancer::Core;
use crate::limits::Limits;

/// One endpoint of a service port.
#[derive(Clone, Debug)]
pub struct Endpoint<T> {
    /// Names the endpoint among all of its set. Its state (ejection, active requests, warm-up) is kept while the name stays.
    pub id: Arc<str>,
    /// Text that consistent hashes place it by, usually `address:port`. The same on all replicas.
    pub hash_key: Arc<str>,
    /// Share among its peers; 0: no traffic.
    pub weight: u32,
    /// Ready to take traffic.
    pub is_healthy: bool,
    pub place: Place,
    /// Whatever the caller needs for a connection.
    pub target: T,
}

/// Place of an endpoint or of this proxy. Empty: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub subzone: Arc<str>,
    pub node: Arc<str>,
    pub cluster: Arc<str>,
    pub network: Arc<str>,
    /// Labels of the workload; only those that `failoverPriority` names are needed.
    pub labels: Arc<Labels>,
}

/// An endpoint in use, with the state that outlives updates.
#[derive(Debug)]
pub(crate) struct Host<T> {
    pub(crate) endpoint: Endpoint<T>,
    pub(crate) state: Arc<State>,
    /// Beginning of its warm-up. `None`: it was there from the start.
    pub(crate) warm_since: Option<Instant>,
    /// What a request in progress needs. It is here because a request keeps its endpoint alone: counting references to
    /// anything that all workers share costs more than a choice.
    pub(crate) policy: Arc<TrafficPolicy>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) core: Weak<Core<T>>,
}

/// Counters of an endpoint, shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct State {
    active: AtomicU32,
    is_ejected: AtomicBool,
    pub(crate) consecutive_5xx: AtomicU32,
    pub(crate) consecutive_gateway: AtomicU32,
    pub(crate) consecutive_local: AtomicU32,
}

impl State {
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.is_ejected.load(Ordering::Relaxed)
    }

    /// Ends the ejection, and begins to count anew. Or begins one.
    pub(crate) fn set_ejected(&self, is_ejected: bool) {
        if !is_ejected {
            for counter in [&self.consecutive_5xx, &self.consecutive_gateway, &self.consecutive_local] {
                counter.store(0, Ordering::Relaxed);
            }
        }
        self.is_ejected.store(is_ejected, Ordering::Relaxed);
    }
}

impl<T> Host<T> {
    /// Returns true if it may take traffic.
    pub(crate) fn is_available(&self) -> bool {
        self.endpoint.is_healthy && !self.state.is_ejected()
    }
}
