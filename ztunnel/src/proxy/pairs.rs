//! What the proxy says of a workload again and again, put together once: its series of metrics with each peer, and what
//! other proxies are told of it. Entries are found by the workload's allocation, which every update replaces.

use super::report::{self, Opened};
use hbone::headers::Baggage;
use http::HeaderValue;
use identity::Identity;
use model::{Service, Workload};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use telemetry::access::Direction;
use telemetry::metrics::{TrafficCache, TrafficHandles};

/// Pairs of one worker that are remembered. Beyond them all are put together anew.
const PAIRS: usize = 4096;

/// Series by the two sides of a connection.
#[derive(Debug, Default)]
pub struct Pairs(RefCell<HashMap<Pair, Known>>);

/// Addresses of allocations, which [`Known`] keeps from being used again.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Pair {
    direction: Direction,
    mutual_tls: bool,
    source: usize,
    target: usize,
    service: usize,
    /// What was proven need not be what discovery says.
    proven: Option<Identity>,
}

#[derive(Debug)]
struct Known {
    _source: Option<Weak<Workload>>,
    _target: Option<Weak<Workload>>,
    _service: Option<Weak<Service>>,
    traffic: Arc<TrafficHandles>,
}

impl Pairs {
    /// The series that `opened` is counted in.
    pub(super) fn traffic(&self, opened: &Opened, cache: &TrafficCache) -> Arc<TrafficHandles> {
        // What a gateway says of a workload has no allocation that would stand for it.
        if opened.source.baggage.is_some() || opened.target.baggage.is_some() {
            return cache.get(&report::labels(opened));
        }
        let pair = Pair {
            direction: opened.direction,
            mutual_tls: opened.is_mutual_tls(),
            source: place(opened.source.workload.as_ref()),
            target: place(opened.target.workload.as_ref()),
            service: place(opened.service.as_ref()),
            proven: opened.source.identity.clone(),
        };
        let mut pairs = self.0.borrow_mut();
        if let Some(known) = pairs.get(&pair) {
            return known.traffic.clone();
        }
        let traffic = cache.get(&report::labels(opened));
        if pairs.len() >= PAIRS {
            pairs.clear();
        }
        let known = Known {
            _source: opened.source.workload.as_ref().map(Arc::downgrade),
            _target: opened.target.workload.as_ref().map(Arc::downgrade),
            _service: opened.service.as_ref().map(Arc::downgrade),
            traffic: traffic.clone(),
        };
        pairs.insert(pair, known);
        traffic
    }
}

fn place<T>(shared: Option<&Arc<T>>) -> usize {
    shared.map_or(0, |shared| Arc::as_ptr(shared).addr())
}

/// How a pod describes itself to other proxies.
#[derive(Debug, Default)]
pub struct Description(RefCell<Option<Described>>);

#[derive(Debug)]
struct Described {
    workload: Arc<Workload>,
    baggage: Option<HeaderValue>,
    identity: Option<Identity>,
}

impl Description {
    /// The header `baggage`, if there is anything to say.
    pub fn baggage(&self, workload: &Arc<Workload>) -> Option<HeaderValue> {
        self.of(workload, |described| described.baggage.clone())
    }

    /// The identity that the workload has by discovery.
    pub fn identity(&self, workload: &Arc<Workload>) -> Option<Identity> {
        self.of(workload, |described| described.identity.clone())
    }

    fn of<T>(&self, workload: &Arc<Workload>, read: impl FnOnce(&Described) -> T) -> T {
        let mut known = self.0.borrow_mut();
        match &*known {
            Some(described) if Arc::ptr_eq(&described.workload, workload) => read(described),
            Some(_) | None => {
                let baggage = baggage(workload).to_header();
                let described = Described { workload: workload.clone(), baggage, identity: workload.identity() };
                read(known.insert(described))
            }
        }
    }
}

fn baggage(w: &Workload) -> Baggage {
    Baggage {
        cluster: w.cluster_id.to_string(),
        namespace: w.namespace.to_string(),
        workload_type: w.workload_type.as_str().to_owned(),
        workload_name: w.workload_name.to_string(),
        service_name: w.canonical_name.to_string(),
        service_version: w.canonical_revision.to_string(),
        region: w.locality.region.to_string(),
        zone: w.locality.zone.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Peer;
    use super::*;

    fn workload(name: &str) -> Arc<Workload> {
        let text = format!(
            r#"{{"uid": "c//Pod/ns/{name}", "name": "{name}", "namespace": "ns", "workloadName": "{name}", "serviceAccount": "{name}"}}"#
        );
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    fn opened(source: &Arc<Workload>, proven: Option<Identity>) -> Opened {
        let peer = |w: &Arc<Workload>, identity| Peer { workload: Some(w.clone()), identity, baggage: None };
        Opened {
            direction: Direction::Inbound,
            client: "10.0.0.1:1".parse().unwrap(),
            destination: "10.0.0.2:15008".parse().unwrap(),
            listed: "10.0.0.2:80".parse().unwrap(),
            original: None,
            source: peer(source, proven),
            target: peer(source, None),
            service: None,
            authority: Some("10.0.0.2:80".into()),
            trace: None,
            protocol: "HBONE",
        }
    }

    #[test]
    fn a_pair_has_one_series_and_what_differs_has_another() {
        let (pairs, cache) = (Pairs::default(), TrafficCache::new());
        let (a, b) = (workload("a"), workload("b"));
        let series = |source: &Arc<Workload>, proven| pairs.traffic(&opened(source, proven), &cache);

        let first = series(&a, a.identity());

        assert!(Arc::ptr_eq(&first, &series(&a, a.identity())));
        assert!(!Arc::ptr_eq(&first, &series(&b, a.identity())));
        assert!(!Arc::ptr_eq(&first, &series(&a, b.identity())), "what was proven counts, not what is known");
        assert_eq!(first.labels().source.principal, a.identity().unwrap().as_str().into());
    }

    #[test]
    fn a_workload_that_was_replaced_is_described_anew() {
        let description = Description::default();
        let (old, new) = (workload("a"), workload("b"));

        assert_eq!(description.identity(&old), old.identity());
        assert_eq!(
            description.baggage(&old).unwrap(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.deployment.name=a"
        );
        assert_eq!(description.identity(&new), new.identity());
        assert_eq!(
            description.baggage(&new).unwrap(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.deployment.name=b"
        );
    }
}
