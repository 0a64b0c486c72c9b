//! The balancer of one service port, or of a subset of its endpoints: one for all workers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use route::traffic::TrafficPolicy;

use crate::endpoint::{Endpoint, Host, Place};
use crate::limits::Limits;
use crate::outlier::Ejections;
use crate::pick::{Pick, PickRequest, Refused};
use crate::random::Random;
use crate::snapshot::{Parts, Snapshot};

/// Chooses endpoints, and keeps what is known about them. A clone is the same balancer.
#[derive(Debug)]
pub struct Balancer<T>(Arc<Core<T>>);

#[derive(Debug)]
pub(crate) struct Core<T> {
    snapshot: ArcSwap<Snapshot<T>>,
    limits: Arc<Limits>,
    control: Mutex<Control<T>>,
    /// Time of the next sweep in nanoseconds after `origin`.
    next_sweep: AtomicU64,
    origin: Instant,
    ejections: AtomicU64,
    refused_ejections: AtomicU64,
}

/// State of changes, which are rare. Choices do not need it.
#[derive(Debug)]
struct Control<T> {
    policy: Arc<TrafficPolicy>,
    own: Place,
    preferences: Vec<String>,
    /// In the order of their hash keys.
    hosts: Vec<Arc<Host<T>>>,
    ejections: Ejections,
    random: Random,
}

impl<T> Clone for Balancer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Balancer<T> {
    /// A balancer without endpoints. `seed` is a random number: it keeps proxies from taking turns in step.
    pub fn new(seed: u64, now: Instant) -> Self {
        let policy = Arc::new(TrafficPolicy::default());
        let mut control = Control {
            policy,
            own: Place::default(),
            preferences: Vec::new(),
            hosts: Vec::new(),
            ejections: Ejections::new(now),
            random: Random::new(seed),
        };
        let snapshot = ArcSwap::from_pointee(control.snapshot(now));
        Self(Arc::new(Core {
            snapshot,
            limits: Arc::default(),
            control: Mutex::new(control),
            next_sweep: AtomicU64::new(u64::MAX),
            origin: now,
            ejections: AtomicU64::new(0),
            refused_ejections: AtomicU64::new(0),
        }))
    }

    /// Takes over a policy and all endpoints. Those that were there before, by their id, keep their ejections, active requests
    /// and warm-ups. Of several with one id the first one counts.
    ///
    /// `own` is the place of this proxy; `preferences` are the labels by which the service itself prefers endpoints, as in
    /// `failoverPriority` (for a `trafficDistribution` of `PreferSameZone` network, region and zone; see [`crate::label`]).
    pub fn apply(
        &self,
        policy: Arc<TrafficPolicy>,
        own: Place,
        preferences: Vec<String>,
        endpoints: Vec<Endpoint<T>>,
        now: Instant,
    ) {
        self.0.limits.apply(&policy);
        let mut control = self.0.control.lock();
        control.set_policy(policy, now);
        control.replace(&self.0, endpoints, now);
        (control.own, control.preferences) = (own, preferences);
        self.0.publish(&mut control, now);
    }

    /// Chooses an endpoint.
    ///
    /// # Errors
    ///
    /// [`Refused`] if no endpoint may take traffic, or if as many requests run as may.
    pub fn pick(&self, request: &PickRequest<'_>) -> Result<Pick<T>, Refused> {
        self.0.sweep(request.now);
        let snapshot = self.0.snapshot.load();
        let (host, level) = snapshot.choose(request)?;
        Pick::new(host, level, request.limit)
    }

    /// Policy in force.
    pub fn policy(&self) -> Arc<TrafficPolicy> {
        Arc::clone(&self.0.snapshot.load().policy)
    }

    /// Limits of the pool, for connections, waiting requests and retries.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.0.limits
    }

    /// Ids of the endpoints that are ejected, sorted.
    pub fn ejected(&self) -> Vec<Arc<str>> {
        let control = self.0.control.lock();
        let ejected = control.hosts.iter().filter(|host| host.state.is_ejected());
        let mut ids: Vec<_> = ejected.map(|host| Arc::clone(&host.endpoint.id)).collect();
        ids.sort_unstable();
        ids
    }

    /// Number of ejections since the start.
    pub fn ejections(&self) -> u64 {
        self.0.ejections.load(Ordering::Relaxed)
    }

    /// Number of ejections since the start that `maxEjectionPercent` did not allow.
    pub fn refused_ejections(&self) -> u64 {
        self.0.refused_ejections.load(Ordering::Relaxed)
    }
}

impl<T> Core<T> {
    /// Ejects an endpoint unless it is gone, ejected already, or too many are.
    pub(crate) fn eject(&self, host: &Host<T>, now: Instant) {
        let mut control = self.control.lock();
        let policy = Arc::clone(&control.policy);
        let Some(policy) = &policy.outlier_detection else { return };
        let is_current = |of: &Arc<Host<T>>| Arc::ptr_eq(&of.state, &host.state);
        if host.state.is_ejected() || !control.hosts.iter().any(is_current) {
            return;
        }
        let total = control.hosts.len();
        if control.ejections.eject(policy, &host.endpoint.id, total, now) {
            host.state.set_ejected(true);
            self.ejections.fetch_add(1, Ordering::Relaxed);
            self.publish(&mut control, now);
        } else {
            self.refused_ejections.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends ejections whose time is over. One worker does it while others go on with what they have.
    fn sweep(&self, now: Instant) {
        if self.nanoseconds(now) < self.next_sweep.load(Ordering::Relaxed) {
            return;
        }
        let Some(mut control) = self.control.try_lock() else { return };
        let policy = Arc::clone(&control.policy);
        let Some(policy) = &policy.outlier_detection else { return };
        let back = control.ejections.sweep(policy, now);
        if back.is_empty() {
            self.schedule(&control);
            return;
        }
        control.end_ejections(&back);
        self.publish(&mut control, now);
    }

    fn publish(&self, control: &mut Control<T>, now: Instant) {
        self.snapshot.store(Arc::new(control.snapshot(now)));
        self.schedule(control);
    }

    fn schedule(&self, control: &Control<T>) {
        let policy = control.policy.outlier_detection.as_ref();
        let next = policy.map_or(u64::MAX, |policy| self.nanoseconds(control.ejections.next_sweep(policy)));
        self.next_sweep.store(next, Ordering::Relaxed);
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl<T> Control<T> {
    fn replace(&mut self, core: &Arc<Core<T>>, endpoints: Vec<Endpoint<T>>, now: Instant) {
        // Endpoints of the first load are not new.
        let warm_since = (!self.hosts.is_empty()).then_some(now);
        let mut before: HashMap<_, _> =
            self.hosts.drain(..).map(|host| (Arc::clone(&host.endpoint.id), host)).collect();
        let mut ids = HashSet::new();
        for endpoint in endpoints {
            if !ids.insert(Arc::clone(&endpoint.id)) {
                continue;
            }
            let (state, warm_since) = match before.remove(&endpoint.id) {
                // An endpoint that becomes ready again is as cold as a new one.
                Some(host) if endpoint.is_healthy && !host.endpoint.is_healthy => (Arc::clone(&host.state), Some(now)),
                Some(host) => (Arc::clone(&host.state), host.warm_since),
                None => (Arc::default(), warm_since),
            };
            let (policy, limits) = (Arc::clone(&self.policy), Arc::clone(&core.limits));
            self.hosts.push(Arc::new(Host { endpoint, state, warm_since, policy, limits, core: Arc::downgrade(core) }));
        }
        self.hosts.sort_by(|one, other| {
            let (one, other) = (&one.endpoint, &other.endpoint);
            (&one.hash_key, &one.id).cmp(&(&other.hash_key, &other.id))
        });
        self.ejections.retain(|id| ids.contains(id));
    }

    fn set_policy(&mut self, policy: Arc<TrafficPolicy>, now: Instant) {
        let had_outliers = self.policy.outlier_detection.is_some();
        self.policy = policy;
        match (&self.policy.outlier_detection, had_outliers) {
            (Some(_), true) | (None, false) => {}
            (Some(_), false) => self.ejections = Ejections::new(now),
            (None, true) => {
                let back = self.ejections.clear();
                self.end_ejections(&back);
            }
        }
    }

    fn end_ejections(&self, ids: &[Arc<str>]) {
        for host in self.hosts.iter().filter(|host| ids.contains(&host.endpoint.id)) {
            host.state.set_ejected(false);
        }
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot<T> {
        let (policy, own) = (&self.policy, &self.own);
        let parts = Parts { policy, own, preferences: &self.preferences, hosts: &self.hosts, now };
        Snapshot::new(&parts, &mut self.random)
    }
}

#[cfg(test)]
#[path = "balancer_tests.rs"]
mod tests;
