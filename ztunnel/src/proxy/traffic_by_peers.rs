//! Cache of the metric series of two peers, so that a connection need not compare 27 labels. Entries are found by the
//! allocations of the workloads, which every update replaces.

use super::report::{self, Opened};
use identity::Identity;
use model::{Service, Workload};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use telemetry::Direction;
use telemetry::metrics::{TrafficCache, TrafficHandles};

/// Pairs of peers that one worker remembers. Beyond them all are looked up anew.
const PAIRS: usize = 4096;

/// Metric series by the two sides of a connection.
#[derive(Debug, Default)]
pub struct TrafficByPeers(RefCell<HashMap<Peers, Cached>>);

/// Addresses of allocations, which [`Cached`] keeps from being used again.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Peers {
    direction: Direction,
    mutual_tls: bool,
    source: usize,
    target: usize,
    service: usize,
    /// Identity that the source has proven, which need not be that of discovery.
    proven: Option<Identity>,
}

#[derive(Debug)]
struct Cached {
    _source: Option<Weak<Workload>>,
    _target: Option<Weak<Workload>>,
    _service: Option<Weak<Service>>,
    traffic: Arc<TrafficHandles>,
}

impl TrafficByPeers {
    /// Returns the series in which `opened` is counted.
    pub(super) fn get(&self, opened: &Opened, cache: &TrafficCache) -> Arc<TrafficHandles> {
        // A workload that only a gateway describes has no allocation that could be the key.
        if opened.source.baggage.is_some() || opened.target.baggage.is_some() {
            return cache.get(&report::labels(opened));
        }
        let peers = Peers {
            direction: opened.direction,
            mutual_tls: opened.is_mutual_tls(),
            source: address(opened.source.workload.as_ref()),
            target: address(opened.target.workload.as_ref()),
            service: address(opened.service.as_ref()),
            proven: opened.source.identity.clone(),
        };
        let mut cached = self.0.borrow_mut();
        if let Some(found) = cached.get(&peers) {
            return found.traffic.clone();
        }
        let traffic = cache.get(&report::labels(opened));
        // All at once: entries of workloads that were replaced are never found again, and nothing else removes them.
        if cached.len() >= PAIRS {
            cached.clear();
        }
        let new = Cached {
            _source: opened.source.workload.as_ref().map(Arc::downgrade),
            _target: opened.target.workload.as_ref().map(Arc::downgrade),
            _service: opened.service.as_ref().map(Arc::downgrade),
            traffic: traffic.clone(),
        };
        cached.insert(peers, new);
        traffic
    }
}

fn address<T>(shared: Option<&Arc<T>>) -> usize {
    shared.map_or(0, |shared| Arc::as_ptr(shared).addr())
}

#[cfg(test)]
mod tests {
    use super::super::report::Peer;
    use super::super::testing::workload;
    use super::*;
    use telemetry::Protocol;

    fn opened(source: &Arc<Workload>, proven: Option<Identity>) -> Opened {
        let peer = |w: &Arc<Workload>, identity| Peer { workload: Some(w.clone()), identity, baggage: None };
        Opened {
            direction: Direction::Inbound,
            client: "10.0.0.1:1".parse().unwrap(),
            logged_dst: "10.0.0.2:15008".parse().unwrap(),
            original_dst: None,
            actual_dst: "10.0.0.2:80".parse().unwrap(),
            source: peer(source, proven),
            target: peer(source, None),
            service: None,
            authority: Some("10.0.0.2:80".into()),
            trace: None,
            protocol: Protocol::Hbone,
        }
    }

    #[test]
    fn two_peers_have_one_series_and_what_differs_has_another() {
        let (by_peers, cache) = (TrafficByPeers::default(), TrafficCache::new());
        let (a, b) = (workload("a"), workload("b"));
        let series = |source: &Arc<Workload>, proven| by_peers.get(&opened(source, proven), &cache);

        let first = series(&a, a.identity());

        assert!(Arc::ptr_eq(&first, &series(&a, a.identity())));
        assert!(!Arc::ptr_eq(&first, &series(&b, a.identity())));
        assert!(!Arc::ptr_eq(&first, &series(&a, b.identity())), "what was proven counts, not what is known");
        assert_eq!(first.labels().source.principal, a.identity().unwrap().as_str().into());
    }
}
