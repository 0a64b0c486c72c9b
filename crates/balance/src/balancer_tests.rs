//! The whole: choices, outcomes, updates.

use std::time::Duration;

use route::traffic::{
    Algorithm, Distribution, HashKey, HashTable, LoadBalancer, LocalityBalancing, LocalityPattern, OutlierDetection,
    WarmUp,
};

use super::*;
use crate::limits::Limit;
use crate::outlier::Failure;
use crate::testing::endpoints;

struct Fixture {
    balancer: Balancer<usize>,
    now: Instant,
    random: Random,
}

fn policy(algorithm: Algorithm) -> TrafficPolicy {
    TrafficPolicy { load_balancer: LoadBalancer { algorithm, ..LoadBalancer::default() }, ..TrafficPolicy::default() }
}

fn hashing() -> Algorithm {
    Algorithm::ConsistentHash { key: HashKey::SourceAddress, table: HashTable::default() }
}

/// Ejects at the third error, as many as there are.
fn outliers() -> OutlierDetection {
    OutlierDetection { consecutive_5xx: Some(3), max_ejection_percent: 100, ..OutlierDetection::default() }
}

fn place(region: &str, zone: &str) -> Place {
    Place { region: region.into(), zone: zone.into(), ..Place::default() }
}

impl Fixture {
    fn new(policy: TrafficPolicy, endpoints: Vec<Endpoint<usize>>) -> Self {
        let now = Instant::now();
        let fixture = Self { balancer: Balancer::new(1, now), now, random: Random::new(2) };
        fixture.apply(policy, endpoints);
        fixture
    }

    fn apply(&self, policy: TrafficPolicy, endpoints: Vec<Endpoint<usize>>) {
        self.balancer.apply(Arc::new(policy), place("a", "b"), Vec::new(), endpoints, self.now);
    }

    fn request(&mut self) -> PickRequest<'static> {
        PickRequest::new(self.random.next(), self.now)
    }

    fn pick(&mut self) -> Result<Pick<usize>, Refused> {
        let request = self.request();
        self.balancer.pick(&request)
    }

    /// Numbers of picks by target.
    fn counts(&mut self, picks: usize, targets: usize) -> Vec<usize> {
        let mut counts = vec![0; targets];
        for _ in 0..picks {
            counts[self.pick().unwrap().endpoint().target] += 1;
        }
        counts
    }

    /// Lets an endpoint fail as often as it takes.
    fn fail(&mut self, target: usize) {
        let mut failures = 0;
        for _ in 0..10_000 {
            let pick = self.pick().unwrap();
            if pick.endpoint().target == target {
                pick.on_answer(503, self.now);
                failures += 1;
            } else {
                pick.on_answer(200, self.now);
            }
            if failures == 3 {
                return;
            }
        }
        panic!("endpoint {target} got no requests");
    }
}

#[test]
fn nobody_takes_a_request_where_no_endpoint_is_or_none_is_ready() {
    let mut none = Fixture::new(TrafficPolicy::default(), Vec::new());
    let refused = none.pick().unwrap_err();
    assert_eq!((refused, refused.flag()), (Refused::NoEndpoint, "UH"));

    let mut sick = endpoints("a/b", 0, 2);
    sick.iter_mut().for_each(|endpoint| endpoint.is_healthy = false);
    let mut sick = Fixture::new(TrafficPolicy::default(), sick);
    let refused = sick.pick().unwrap_err();
    assert_eq!((refused, refused.details()), (Refused::NoHealthyEndpoint, "no_healthy_upstream"));

    let mut idle = endpoints("a/b", 0, 2);
    idle[0].weight = 0;
    assert_eq!(Fixture::new(TrafficPolicy::default(), idle).counts(100, 2), [0, 100]);
}

#[test]
fn every_algorithm_reaches_every_endpoint() {
    for algorithm in [
        Algorithm::LeastRequest,
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::Passthrough,
        hashing(),
        Algorithm::ConsistentHash { key: HashKey::SourceAddress, table: HashTable::Maglev { size: 101 } },
    ] {
        let counts = Fixture::new(policy(algorithm.clone()), endpoints("a/b", 0, 3)).counts(3000, 3);
        assert!(counts.iter().all(|count| *count > 600), "{algorithm:?}: {counts:?}");
    }
}

#[test]
fn a_request_counts_while_it_runs() {
    let mut fixture = Fixture::new(TrafficPolicy::default(), endpoints("a/b", 0, 2));
    let first = fixture.pick().unwrap();
    let busy = first.endpoint().target;
    let others: Vec<_> = (0..100).map(|_| fixture.pick().unwrap().endpoint().target).collect();
    assert!(others.iter().all(|target| *target != busy), "the other endpoint has no request");
    drop(first);
    assert_eq!(fixture.balancer.limits().used(Limit::Requests), 0);
}

#[test]
fn more_requests_than_the_limit_are_refused() {
    let mut limited = TrafficPolicy::default();
    limited.connection_pool.http.max_requests = Some(2);
    limited.connection_pool.tcp.max_connections = Some(1);
    let mut fixture = Fixture::new(limited, endpoints("a/b", 0, 5));
    let running = (fixture.pick().unwrap(), fixture.pick().unwrap());
    let refused = fixture.pick().unwrap_err();
    assert_eq!((refused, refused.flag()), (Refused::Overflow(Limit::Requests), "UO"));
    drop(running);
    assert!(fixture.pick().is_ok());

    let tcp = PickRequest { limit: Limit::Connections, ..fixture.request() };
    let connection = fixture.balancer.pick(&tcp).unwrap();
    assert_eq!(fixture.balancer.pick(&tcp).unwrap_err(), Refused::Overflow(Limit::Connections));
    drop(connection);
}

#[test]
fn an_endpoint_that_fails_is_ejected_and_comes_back() {
    let policy = TrafficPolicy { outlier_detection: Some(outliers()), ..policy(Algorithm::RoundRobin) };
    let mut fixture = Fixture::new(policy, endpoints("a/b", 0, 3));
    fixture.fail(1);
    assert_eq!(fixture.balancer.ejected().len(), 1);
    assert_eq!(fixture.counts(100, 3), [50, 0, 50]);

    fixture.now += Duration::from_secs(29);
    assert_eq!(fixture.counts(100, 3)[1], 0);
    fixture.now += Duration::from_secs(1);
    assert_eq!(fixture.counts(99, 3), [33, 33, 33], "the choice that finds it due makes the sweep");
    assert!(fixture.balancer.ejected().is_empty());
    assert_eq!(fixture.balancer.ejections(), 1);
}

#[test]
fn all_may_be_ejected_and_then_nobody_is_healthy() {
    let policy = TrafficPolicy { outlier_detection: Some(outliers()), ..TrafficPolicy::default() };
    let mut fixture = Fixture::new(policy, endpoints("a/b", 0, 2));
    fixture.fail(0);
    fixture.fail(1);
    assert_eq!(fixture.pick().unwrap_err(), Refused::NoHealthyEndpoint);

    let min_health_percent = 50;
    let policy = TrafficPolicy {
        outlier_detection: Some(OutlierDetection { min_health_percent, ..outliers() }),
        ..TrafficPolicy::default()
    };
    fixture.apply(policy, endpoints("a/b", 0, 2));
    assert!(fixture.counts(1000, 2).iter().all(|count| *count > 300), "too few are healthy: health is ignored");
}

#[test]
fn the_default_share_ejects_none_of_three() {
    let default = OutlierDetection { consecutive_5xx: Some(3), ..OutlierDetection::default() };
    let policy = TrafficPolicy { outlier_detection: Some(default), ..policy(Algorithm::RoundRobin) };
    let mut fixture = Fixture::new(policy, endpoints("a/b", 0, 3));
    fixture.fail(0);
    assert!(fixture.balancer.ejected().is_empty());
    assert_eq!((fixture.balancer.ejections(), fixture.balancer.refused_ejections()), (0, 1));
}

#[test]
fn state_outlives_updates_of_endpoints_that_stay() {
    let with = || TrafficPolicy { outlier_detection: Some(outliers()), ..policy(Algorithm::RoundRobin) };
    let mut fixture = Fixture::new(with(), endpoints("a/b", 0, 3));
    fixture.fail(1);
    let running = fixture.pick().unwrap();

    let mut changed = endpoints("a/b", 0, 6);
    changed.reverse();
    changed.iter_mut().for_each(|endpoint| endpoint.weight = 2);
    fixture.apply(with(), changed);
    assert_eq!(fixture.counts(100, 6)[1], 0, "still ejected");

    // A report for an endpoint that is gone ejects nobody.
    let gone = running.endpoint().target;
    let left = endpoints("a/b", 0, 6).into_iter().filter(|endpoint| endpoint.target != gone).collect();
    fixture.apply(with(), left);
    (0..3).for_each(|_| running.on_failure(Failure::Connect, fixture.now));
    assert_eq!(fixture.balancer.ejected().len(), 1);
    drop(running);

    fixture.apply(policy(Algorithm::RoundRobin), endpoints("a/b", 0, 3));
    assert_eq!(fixture.counts(99, 3), [33, 33, 33], "without outlier detection nobody is ejected");
    fixture.apply(with(), endpoints("a/b", 0, 3));
    assert_eq!(fixture.counts(99, 3), [33, 33, 33]);
}

#[test]
fn farther_endpoints_take_over_as_nearer_ones_are_ejected() {
    let policy = TrafficPolicy { outlier_detection: Some(outliers()), ..policy(Algorithm::RoundRobin) };
    let all = [endpoints("a/b", 0, 4), endpoints("a/x", 4, 4), endpoints("z", 8, 2)].concat();
    let mut fixture = Fixture::new(policy, all);
    let by_place =
        |counts: &[usize]| [&counts[..4], &counts[4..8], &counts[8..]].map(|part| part.iter().sum::<usize>());
    assert_eq!(by_place(&fixture.counts(1000, 10)), [1000, 0, 0]);
    fixture.fail(0);
    assert_eq!(by_place(&fixture.counts(1000, 10)), [1000, 0, 0], "three of four are enough");
    fixture.fail(1);
    let [near, far, farthest] = by_place(&fixture.counts(10_000, 10));
    // 1.4 x 2 / 4 is 70 %.
    assert!(near.abs_diff(7000) < 200 && farthest == 0, "{near} {far} {farthest}");
    fixture.fail(2);
    fixture.fail(3);
    assert_eq!(by_place(&fixture.counts(1000, 10)), [0, 1000, 0]);

    let request = PickRequest { avoid_levels: 0b10, ..fixture.request() };
    assert!(fixture.balancer.pick(&request).unwrap().endpoint().target >= 8);
    let request = PickRequest { avoid_levels: u64::MAX, ..request };
    assert!(fixture.balancer.pick(&request).is_ok(), "there is no other level");
}

#[test]
fn preferences_of_the_service_need_no_outlier_detection() {
    let fixture = Fixture::new(TrafficPolicy::default(), Vec::new());
    let all = [endpoints("a/b", 0, 1), endpoints("a/x", 1, 5)].concat();
    let preferences = vec!["topology.kubernetes.io/region".to_owned(), "topology.kubernetes.io/zone".to_owned()];
    let policy = Arc::new(TrafficPolicy::default());
    fixture.balancer.apply(Arc::clone(&policy), place("a", "b"), preferences, all.clone(), fixture.now);
    let mut fixture = fixture;
    assert_eq!(fixture.counts(100, 6)[0], 100);
    fixture.balancer.apply(policy, place("a", "b"), Vec::new(), all, fixture.now);
    assert!(fixture.counts(600, 6)[0] < 300);
}

#[test]
fn localities_get_their_shares_and_lose_them_with_their_endpoints() {
    let pattern = |text| LocalityPattern::new(text).unwrap();
    let to = vec![(pattern("a/b/*"), 80), (pattern("z/*"), 20)];
    let mut policy = policy(Algorithm::RoundRobin);
    policy.load_balancer.locality = LocalityBalancing::Distribute(vec![Distribution { from: pattern("a/*"), to }]);
    let all = [endpoints("a/b", 0, 1), endpoints("z/z", 1, 4), endpoints("y/y", 5, 3)].concat();
    let mut fixture = Fixture::new(policy.clone(), all.clone());
    let counts = fixture.counts(10_000, 8);
    assert!(counts[0].abs_diff(8000) < 200, "{counts:?}");
    assert_eq!(counts[5..], [0, 0, 0], "a locality that is not listed gets nothing");

    let mut sick = all.clone();
    sick[0].is_healthy = false;
    fixture.apply(policy.clone(), sick);
    assert_eq!(fixture.counts(1000, 8)[0], 0);

    // Hashes honour the shares, too.
    policy.load_balancer.algorithm = hashing();
    fixture.apply(policy, all);
    let counts = fixture.counts(10_000, 8);
    assert!(counts[0].abs_diff(8000) < 800, "{counts:?}");
}

#[test]
fn one_key_goes_to_one_endpoint_on_every_replica() {
    let all = endpoints("a/b", 0, 20);
    let reversed = all.iter().rev().cloned().collect();
    let (first, second) = (Fixture::new(policy(hashing()), all), Fixture::new(policy(hashing()), reversed));
    for (hash, random) in (0..2000u64).map(|number| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15), number)) {
        let target = |fixture: &Fixture, random| {
            let request = PickRequest { hash: Some(hash), ..PickRequest::new(random, fixture.now) };
            fixture.balancer.pick(&request).unwrap().endpoint().target
        };
        assert_eq!(target(&first, random), target(&second, random + 1));
    }
}

#[test]
fn an_ejection_moves_only_the_keys_of_the_ejected_endpoint() {
    let policy = TrafficPolicy { outlier_detection: Some(outliers()), ..policy(hashing()) };
    let mut fixture = Fixture::new(policy, endpoints("a/b", 0, 4));
    let targets = |fixture: &Fixture| -> Vec<usize> {
        let hashes = (0..2000u64).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let request = |hash| PickRequest { hash: Some(hash), ..PickRequest::new(hash, fixture.now) };
        hashes.map(|hash| fixture.balancer.pick(&request(hash)).unwrap().endpoint().target).collect()
    };
    let before = targets(&fixture);
    fixture.fail(2);
    let after = targets(&fixture);
    assert!(after.iter().all(|target| *target != 2));
    let moved = before.iter().zip(&after).filter(|(was, is)| was != is && **was != 2).count();
    // The others get more points on the ring, so that a few keys move between them.
    assert!(moved * 4 < before.len(), "{moved} keys of other endpoints moved");
}

#[test]
fn a_retry_goes_to_an_endpoint_that_was_not_tried() {
    for algorithm in [Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random] {
        let mut fixture = Fixture::new(policy(algorithm), endpoints("a/b", 0, 50));
        let ids: Vec<_> = endpoints("a/b", 0, 49).into_iter().map(|endpoint| endpoint.id).collect();
        for _ in 0..100 {
            let request = PickRequest { previous: &ids, ..fixture.request() };
            assert_eq!(fixture.balancer.pick(&request).unwrap().endpoint().target, 49);
        }
        let all: Vec<_> = endpoints("a/b", 0, 50).into_iter().map(|endpoint| endpoint.id).collect();
        let request = PickRequest { previous: &all, ..fixture.request() };
        assert!(fixture.balancer.pick(&request).is_ok(), "all were tried: one of them is tried again");
    }
}

#[test]
fn only_endpoints_that_come_later_warm_up() {
    let mut policy = policy(Algorithm::RoundRobin);
    policy.load_balancer.warm_up = Some(WarmUp::new(Duration::from_secs(100)));
    let mut fixture = Fixture::new(policy.clone(), endpoints("a/b", 0, 1));
    fixture.apply(policy.clone(), endpoints("a/b", 0, 2));
    assert_eq!(fixture.counts(1100, 2), [1000, 100]);
    fixture.now += Duration::from_secs(50);
    fixture.apply(policy.clone(), endpoints("a/b", 0, 2));
    assert_eq!(fixture.counts(1500, 2), [1000, 500], "an update does not begin it again");
    fixture.now += Duration::from_secs(50);
    assert_eq!(fixture.counts(1000, 2), [500, 500]);

    let mut sick = endpoints("a/b", 0, 2);
    sick[1].is_healthy = false;
    fixture.apply(policy.clone(), sick);
    fixture.apply(policy, endpoints("a/b", 0, 2));
    assert_eq!(fixture.counts(1100, 2), [1000, 100], "an endpoint that becomes ready again is cold");
}

#[test]
fn workers_and_updates_go_on_at_the_same_time() {
    let policy = || TrafficPolicy { outlier_detection: Some(outliers()), ..policy(Algorithm::LeastRequest) };
    let fixture = Fixture::new(policy(), endpoints("a/b", 0, 8));
    let (balancer, now) = (&fixture.balancer, fixture.now);
    std::thread::scope(|scope| {
        for worker in 0..4u64 {
            scope.spawn(move || {
                let mut random = Random::new(worker);
                for number in 0..5000u64 {
                    let now = now + Duration::from_millis(number);
                    let Ok(pick) = balancer.pick(&PickRequest::new(random.next(), now)) else { continue };
                    pick.on_answer(if random.below(3) == 0 { 503 } else { 200 }, now);
                }
            });
        }
        for round in 0..100 {
            fixture.apply(policy(), endpoints("a/b", round % 3, 8));
        }
    });
    assert_eq!(balancer.limits().used(Limit::Requests), 0);
    let control = balancer.0.control.lock();
    assert!(control.hosts.iter().all(|host| host.state.active() == 0));
    let ejected = control.hosts.iter().filter(|host| host.state.is_ejected()).count();
    assert_eq!(ejected, control.ejections.active(), "flags and records agree");
}
