//! Properties of choices that hold for every set of endpoints, seen from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use balance::{Balancer, Endpoint, PickRequest, Place, Refused};
use proptest::prelude::*;
use route::traffic::{
    Algorithm, Distribution, HashKey, HashTable, LoadBalancer, LocalityBalancing, LocalityPattern, OutlierDetection,
    TrafficPolicy,
};

const ZONES: [&str; 4] = ["near", "next", "far", "farthest"];

/// Zone, weight and health of an endpoint.
type Shape = (usize, u32, bool);

fn place(zone: &str) -> Place {
    let region = if matches!(zone, "near" | "next") { "home" } else { zone };
    Place { region: region.into(), zone: zone.into(), ..Place::default() }
}

fn endpoints(shapes: &[Shape]) -> Vec<Endpoint<Shape>> {
    let endpoint = |(number, shape): (usize, &Shape)| {
        let id: Arc<str> = format!("10.0.0.{number}:80").into();
        let (zone, weight, is_healthy) = *shape;
        Endpoint { hash_key: Arc::clone(&id), id, weight, is_healthy, place: place(ZONES[zone]), target: *shape }
    };
    shapes.iter().enumerate().map(endpoint).collect()
}

fn policy(algorithm: Algorithm, locality: LocalityBalancing) -> Arc<TrafficPolicy> {
    Arc::new(TrafficPolicy {
        load_balancer: LoadBalancer { algorithm, locality, warm_up: None },
        outlier_detection: Some(OutlierDetection::default()),
        ..TrafficPolicy::default()
    })
}

fn balancer(policy: Arc<TrafficPolicy>, endpoints: Vec<Endpoint<Shape>>, now: Instant) -> Balancer<Shape> {
    let balancer = Balancer::new(3, now);
    balancer.apply(policy, place("near"), Vec::new(), endpoints, now);
    balancer
}

fn hashing(table: HashTable) -> Algorithm {
    Algorithm::ConsistentHash { key: HashKey::SourceAddress, table }
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::LeastRequest),
        Just(Algorithm::RoundRobin),
        Just(Algorithm::Random),
        Just(hashing(HashTable::Ring { minimum_size: 64 })),
        Just(hashing(HashTable::Maglev { size: 101 })),
    ]
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    prop::collection::vec((0usize..4, 0u32..4, any::<bool>()), 0..24)
}

/// Numbers that are spread over all hashes.
fn spread(number: u64) -> u64 {
    number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn only_ready_endpoints_with_weight_are_chosen_and_nearer_ones_first(algorithm in algorithm(), shapes in shapes()) {
        let now = Instant::now();
        let locality = LocalityBalancing::Failover { labels: Vec::new(), regions: Vec::new() };
        let balancer = balancer(policy(algorithm, locality), endpoints(&shapes), now);
        let is_usable = |shape: &&Shape| shape.1 > 0 && shape.2;
        for number in 0..200 {
            let picked = balancer.pick(&PickRequest { hash: Some(spread(number)), ..PickRequest::new(number, now) });
            let Ok(pick) = picked else {
                let expected = if shapes.is_empty() { Refused::NoEndpoint } else { Refused::NoHealthyEndpoint };
                prop_assert_eq!(picked.unwrap_err(), expected);
                prop_assert_eq!(shapes.iter().filter(is_usable).count(), 0);
                continue;
            };
            let shape = pick.endpoint().target;
            prop_assert!(is_usable(&&shape));
            // The far zones are both foreign regions: one level.
            let level = |zone: usize| zone.min(2);
            for nearer in 0..level(shape.0) {
                let of_level: Vec<_> = shapes.iter().filter(|shape| level(shape.0) == nearer && shape.1 > 0).collect();
                let ready = of_level.iter().filter(|shape| shape.2).count();
                prop_assert!(of_level.is_empty() || ready * 140 < of_level.len() * 100, "level {nearer} was enough");
            }
        }
    }

    #[test]
    fn localities_get_their_shares(weights in prop::collection::vec(1u32..100, 2..4), counts in prop::collection::vec(1usize..6, 4)) {
        let now = Instant::now();
        let pattern = |zone: &str| LocalityPattern::new(&format!("{}/{zone}", place(zone).region)).unwrap();
        let to: Vec<_> = weights.iter().zip(ZONES).map(|(weight, zone)| (pattern(zone), *weight)).collect();
        let locality = LocalityBalancing::Distribute(vec![Distribution { from: LocalityPattern::new("*").unwrap(), to }]);
        let shapes: Vec<_> = (0..4).flat_map(|zone| vec![(zone, 1, true); counts[zone]]).collect();
        let balancer = balancer(policy(Algorithm::RoundRobin, locality), endpoints(&shapes), now);
        let mut found = BTreeMap::<usize, u32>::new();
        let picks = 4000u32;
        for number in 0..picks {
            let pick = balancer.pick(&PickRequest::new(spread(number.into()), now)).unwrap();
            *found.entry(pick.endpoint().target.0).or_default() += 1;
        }
        let total: u32 = weights.iter().sum();
        for (zone, weight) in weights.iter().enumerate() {
            let share = f64::from(*weight) / f64::from(total);
            let bound = 5.0 * (f64::from(picks) * share * (1.0 - share)).sqrt() + 1.0;
            let count = f64::from(found.remove(&zone).unwrap_or_default());
            prop_assert!((count - f64::from(picks) * share).abs() <= bound, "zone {zone}: {count} of share {share}");
        }
        prop_assert!(found.is_empty(), "a zone without a weight has requests: {found:?}");
    }

    #[test]
    fn a_new_endpoint_takes_keys_and_moves_few_others(count in 2usize..20, maglev: bool) {
        let now = Instant::now();
        let table = if maglev { HashTable::Maglev { size: 65_537 } } else { HashTable::Ring { minimum_size: 4096 } };
        let of = |count| {
            let shapes: Vec<Shape> = vec![(0, 1, true); count];
            balancer(policy(hashing(table), LocalityBalancing::Disabled), endpoints(&shapes), now)
        };
        let (before, after) = (of(count), of(count + 1));
        let new: Arc<str> = format!("10.0.0.{count}:80").into();
        let (mut taken, mut moved) = (0usize, 0usize);
        let keys = 2000;
        for number in 0..keys {
            let id = |balancer: &Balancer<Shape>| {
                let request = PickRequest { hash: Some(spread(number)), ..PickRequest::new(number, now) };
                Arc::clone(&balancer.pick(&request).unwrap().endpoint().id)
            };
            let (was, is) = (id(&before), id(&after));
            if is == new { taken += 1 } else if was != is { moved += 1 }
        }
        let share = keys as usize / (count + 1);
        prop_assert!(taken * 2 > share && taken < share * 2, "{taken} keys of a share of {share}");
        // Hash by modulus would move nearly all. A smaller part of the ring for each moves keys between neighbours.
        prop_assert!(moved <= share * 2, "{moved} keys moved between endpoints that stay, share {share}");
    }
}
