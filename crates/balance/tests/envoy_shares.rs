//! Numbers of 4 000 requests that endpoints of Envoy 1.40 took (round robin, one thread), beside ours for the same levels,
//! localities, health and weights.

use std::sync::Arc;
use std::time::Instant;

use balance::{Balancer, Endpoint, PickRequest, Place};
use route::traffic::{
    Algorithm, Distribution, LoadBalancer, LocalityBalancing, LocalityPattern, OutlierDetection, TrafficPolicy,
};

const REQUESTS: u64 = 4000;

/// Region, health and weight of an endpoint. The proxy is in region `a`.
type Shape = (&'static str, bool, u32);

fn place(region: &str) -> Place {
    Place { region: region.into(), ..Place::default() }
}

/// Numbers of requests by endpoint.
fn counts(locality: LocalityBalancing, min_health_percent: u8, shapes: &[Shape]) -> Vec<u32> {
    let now = Instant::now();
    let endpoint = |(target, (region, is_healthy, weight)): (usize, &Shape)| {
        let id: Arc<str> = target.to_string().into();
        let (hash_key, place) = (Arc::clone(&id), place(region));
        Endpoint { id, hash_key, weight: *weight, is_healthy: *is_healthy, place, target }
    };
    let policy = TrafficPolicy {
        load_balancer: LoadBalancer { algorithm: Algorithm::RoundRobin, locality, warm_up: None },
        outlier_detection: Some(OutlierDetection { min_health_percent, ..OutlierDetection::default() }),
        ..TrafficPolicy::default()
    };
    let balancer = Balancer::new(1, now);
    let endpoints = shapes.iter().enumerate().map(endpoint).collect();
    balancer.apply(Arc::new(policy), place("a"), Vec::new(), endpoints, now);
    let mut counts = vec![0; shapes.len()];
    for number in 0..REQUESTS {
        let random = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        counts[balancer.pick(&PickRequest::new(random, now)).unwrap().endpoint().target] += 1;
    }
    counts
}

fn near(counts: &[u32], envoys: &[u32]) {
    for (count, envoy) in counts.iter().zip(envoys) {
        // The difference of two draws of 4 000 has a standard deviation of at most 45.
        let is_near = if *envoy == 0 { *count == 0 } else { count.abs_diff(*envoy) < 150 };
        assert!(is_near, "{counts:?}, Envoy: {envoys:?}");
    }
}

fn failover() -> LocalityBalancing {
    LocalityBalancing::Failover { labels: Vec::new(), regions: Vec::new() }
}

fn level(region: &'static str, healthy: usize, sick: usize) -> Vec<Shape> {
    let shape = |number| (region, number < healthy, 1);
    (0..healthy + sick).map(shape).collect()
}

#[test]
fn levels_share_the_traffic_as_in_envoy() {
    for (near_level, far_level, min_health_percent, envoys) in [
        (level("a", 2, 2), level("z", 4, 0), 0, [1415, 1416, 0, 0, 292, 293, 292, 292]),
        (level("a", 3, 1), level("z", 4, 0), 0, [1333, 1334, 1333, 0, 0, 0, 0, 0]),
        (level("a", 1, 3), level("z", 1, 3), 0, [1997, 0, 0, 0, 2003, 0, 0, 0]),
        // Panic on both levels: by their numbers of endpoints. Panic on the first alone: the second has all.
        (level("a", 0, 2), level("z", 1, 5), 50, [507, 507, 498, 497, 497, 498, 498, 498]),
        (level("a", 0, 2), level("z", 3, 3), 50, [0, 0, 1333, 1333, 1334, 0, 0, 0]),
    ] {
        near(&counts(failover(), min_health_percent, &[near_level, far_level].concat()), &envoys);
    }
}

#[test]
fn localities_share_the_traffic_as_in_envoy() {
    let pattern = |text| LocalityPattern::new(text).unwrap();
    let distribute = || {
        let to = vec![(pattern("a"), 80), (pattern("z"), 20)];
        LocalityBalancing::Distribute(vec![Distribution { from: pattern("a"), to }])
    };
    near(&counts(distribute(), 0, &[level("a", 1, 0), level("z", 2, 0)].concat()), &[3200, 400, 400]);
    // A locality that lost half of its endpoints keeps 1.4 x 1/2 of its weight.
    near(&counts(distribute(), 0, &[level("a", 1, 1), level("z", 2, 0)].concat()), &[2947, 0, 526, 527]);
}

#[test]
fn turns_follow_weights_as_in_envoy() {
    let shapes = [("a", true, 1), ("a", true, 2), ("a", true, 5)];
    assert_eq!(counts(LocalityBalancing::Disabled, 0, &shapes), [500, 1000, 2500]);
}
