//! Choice of an endpoint of a service.

use super::*;

#[test]
fn capacity_is_a_weight_and_zero_gets_nothing() {
    let with = |name: &str, ip: &str, capacity| Workload { capacity, ..workload(name, ip) };
    let endpoints = vec![with("none", "10.0.0.1", 0), with("little", "10.0.0.2", 1), with("much", "10.0.0.3", 9)];
    let state_of = |endpoints: &[Workload]| state(endpoints.to_vec(), vec![service("svc", "ns", VIP)]);

    let counts = spread(&state_of(&endpoints), &client());

    assert!(!counts.contains_key("none"));
    assert!(counts["much"] > counts["little"] * 3, "{counts:?}");
    assert_eq!(chosen(&state_of(&endpoints[..1]), &client()), ["no_healthy_upstream"]);
}

fn placed(name: &str, ip: &str, region: &str, zone: &str) -> Workload {
    let locality = Locality { region: region.into(), zone: zone.into(), subzone: Text::default() };
    Workload { locality, ..workload(name, ip) }
}

#[test]
fn strict_wants_all_preferences() {
    use LoadBalancerScope::{Region, Zone};
    let endpoints = || {
        vec![
            placed("both", "10.0.0.1", "r", "z"),
            placed("region", "10.0.0.2", "r", "x"),
            placed("none", "10.0.0.3", "x", "z"),
        ]
    };
    let source = placed("client", "10.0.0.9", "r", "z");
    let lonely = placed("client", "10.0.0.9", "q", "q");
    let state = state(endpoints(), vec![balanced(LoadBalancerMode::Strict, &[Region, Zone])]);

    assert_eq!(chosen(&state, &source), ["both"]);
    assert_eq!(chosen(&state, &lonely), ["no_healthy_upstream"]);
}

#[test]
fn failover_takes_those_that_match_most_from_the_start() {
    use LoadBalancerScope::{Region, Zone};
    let source = placed("client", "10.0.0.9", "r", "z");
    let both = placed("both", "10.0.0.1", "r", "z");
    let region = placed("region", "10.0.0.2", "r", "x");
    let zone_only = placed("zone", "10.0.0.3", "x", "z");
    let of = |endpoints: &[&Workload]| {
        let endpoints = endpoints.iter().map(|w| (*w).clone()).collect();
        chosen(&state(endpoints, vec![balanced(LoadBalancerMode::Failover, &[Region, Zone])]), &source)
    };

    assert_eq!(of(&[&both, &region, &zone_only]), ["both"]);
    assert_eq!(of(&[&region, &zone_only]), ["region"]);
    assert_eq!(of(&[&zone_only]), ["zone"]);
}

#[test]
fn a_leading_network_preference_outweighs_all_others() {
    use LoadBalancerScope::{Network, Region, Zone};
    let source = placed("client", "10.0.0.9", "r", "z");
    let far_here = placed("far-here", "10.0.0.1", "x", "x");
    let near_there = Workload {
        network: "net-2".into(),
        network_gateway: waypoint_ref("/10.0.0.60"),
        ..placed("near-there", "10.0.0.2", "r", "z")
    };
    let state = state(vec![far_here, near_there], vec![balanced(LoadBalancerMode::Failover, &[Network, Region, Zone])]);

    assert_eq!(chosen(&state, &source), ["far-here"]);
}

/// Names of endpoints by which the connection can go once `except` have failed, in the order in which they are found.
fn ways_after(state: &State, source: &Workload, destination: &str, except: &[&str]) -> Vec<String> {
    let mut tried: Vec<Text> = except.iter().map(|name| workload(name, "10.0.0.1").uid).collect();
    let mut ways = Vec::new();
    while let Some(route) = outbound_except(state, source, addr(destination), &tried) {
        let found = route.workload.unwrap();
        ways.push(found.name.to_string());
        tried.push(found.uid.clone());
    }
    ways
}

#[test]
fn an_endpoint_that_failed_is_not_chosen_again_and_the_next_preference_holds_among_the_others() {
    use LoadBalancerScope::{Region, Zone};
    let source = placed("client", "10.0.0.9", "r", "z");
    let endpoints = || {
        let near = placed("near", "10.0.0.1", "r", "z");
        vec![near, placed("region", "10.0.0.2", "r", "x"), placed("far", "10.0.0.3", "x", "z")]
    };
    let failover = state(endpoints(), vec![balanced(LoadBalancerMode::Failover, &[Region, Zone])]);
    let strict = state(endpoints(), vec![balanced(LoadBalancerMode::Strict, &[Region, Zone])]);

    assert_eq!(ways_after(&failover, &source, "10.96.0.1:80", &["near"]), ["region", "far"]);
    assert_eq!(ways_after(&failover, &source, "10.96.0.1:80", &["near", "region", "far"]), [""; 0]);
    assert_eq!(ways_after(&strict, &source, "10.96.0.1:80", &["near"]), [""; 0], "the preference is a condition");
}

#[test]
fn a_connection_to_a_workload_or_to_an_unknown_address_has_no_other_way() {
    let state = state(vec![workload("pod", "10.0.0.1")], vec![balanced(LoadBalancerMode::Standard, &[])]);

    assert_eq!(ways_after(&state, &client(), "10.0.0.1:80", &["pod"]), [""; 0]);
    assert_eq!(ways_after(&state, &client(), "10.0.0.77:80", &[]), [""; 0]);
    assert_eq!(ways_after(&state, &client(), "10.96.0.1:80", &[]), ["pod"]);
}
