//! Endpoints of services, as this worker has last computed them from the mesh. A set is made anew when the mesh has changed
//! since, and not for each request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use identity::Identity;
use model::view::{Endpoint, endpoints};
use model::{Service, State, Text};

use super::balance::RoundRobin;

/// Host names whose sets are kept. Services that a waypoint does not serve come only as destinations of routes.
const MOST: usize = 4096;

/// An endpoint, and what it has to prove.
#[derive(Debug, PartialEq, Eq)]
pub struct Upstream {
    pub endpoint: Endpoint,
    /// Identities of which it has to prove one; `None`: plain TCP.
    pub expected: Option<Arc<[Identity]>>,
}

/// Endpoints of a port of a service.
#[derive(Debug, Default)]
pub struct EndpointSet {
    pub service: Option<Arc<Service>>,
    pub upstreams: Vec<Rc<Upstream>>,
    pub balancer: Rc<RoundRobin>,
}

/// Sets of one worker.
#[derive(Debug)]
pub struct EndpointCache {
    state: State,
    /// By host name; few services have more than a few ports, and fewer share their name with one of another namespace.
    sets: RefCell<HashMap<Text, Vec<Cached>>>,
}

#[derive(Debug)]
struct Cached {
    namespace: Text,
    port: u16,
    /// Version of the mesh that the set was computed from, or an older one.
    version: u64,
    set: Rc<EndpointSet>,
}

impl Upstream {
    /// An endpoint of `service`, which may allow further identities than the workload's own.
    pub fn new(endpoint: Endpoint, service: Option<&Service>) -> Self {
        let expected = endpoint.expected(service).map(Into::into);
        Self { endpoint, expected }
    }
}

impl EndpointCache {
    /// Empty.
    pub fn new(state: State) -> Self {
        Self { state, sets: RefCell::default() }
    }

    /// Endpoints of `port` of the service `host` as a client of `namespace` means it.
    pub fn get(&self, host: &str, namespace: &Text, port: u16) -> Rc<EndpointSet> {
        // Read first: what is computed then is at least as new.
        let version = self.state.version();
        let mut sets = self.sets.borrow_mut();
        if let Some(of_host) = sets.get_mut(host) {
            if let Some(cached) = of_host.iter_mut().find(|c| c.port == port && c.namespace == *namespace) {
                if cached.version != version {
                    cached.set = self.compute(host, namespace, port, cached.set.balancer.clone());
                    cached.version = version;
                }
                return cached.set.clone();
            }
        } else if sets.len() >= MOST {
            sets.clear();
        }
        let set = self.compute(host, namespace, port, Rc::default());
        let cached = Cached { namespace: namespace.clone(), port, version, set: set.clone() };
        sets.entry(host.into()).or_default().push(cached);
        set
    }

    fn compute(&self, host: &str, namespace: &Text, port: u16, balancer: Rc<RoundRobin>) -> Rc<EndpointSet> {
        let found = endpoints(&self.state, host, namespace, port);
        let service = found.service;
        let upstreams = found.endpoints.into_iter().map(|e| Rc::new(Upstream::new(e, service.as_deref()))).collect();
        Rc::new(EndpointSet { service, upstreams, balancer })
    }
}
