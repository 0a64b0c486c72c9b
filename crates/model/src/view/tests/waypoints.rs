//! Connections that must pass a waypoint first.

use super::*;

#[test]
fn a_passthrough_service_keeps_the_original_destination_but_not_past_its_waypoint() {
    let svc = balanced(LoadBalancerMode::Passthrough, &[]);
    let (pod, waypoint_service) = waypoint();
    let guarded = Service { waypoint: waypoint_ref(WAYPOINT), ..svc.clone() };

    let open = outbound(&state(vec![workload("a", "10.0.0.1")], vec![svc]), &client(), addr("10.96.0.1:80")).unwrap();
    let closed = outbound(&state(vec![pod], vec![guarded, waypoint_service]), &client(), addr("10.96.0.1:80")).unwrap();

    assert_eq!(open.kind, RouteKind::Passthrough);
    assert!(hbone(&closed).via_waypoint);
}

#[test]
fn service_traffic_goes_to_the_service_s_waypoint_with_the_original_destination() {
    let (pod, waypoint_service) = waypoint();
    let waypoint_service =
        Service { subject_alt_names: vec!["spiffe://cluster.local/ns/ns/sa/alt".into()], ..waypoint_service };
    let svc = Service { waypoint: waypoint_ref(WAYPOINT), ..service("svc", "ns", VIP) };
    let state = state(vec![workload("a", "10.0.0.1"), pod], vec![svc, waypoint_service]);

    let route = outbound(&state, &client(), addr("10.96.0.1:80")).unwrap();

    assert_eq!(route.dial, Dial::Address(addr("10.0.0.50:15008")));
    assert_eq!(hbone(&route).authority, "10.96.0.1:80");
    assert_eq!(identities(hbone(&route)), ["alt", "waypoint"]);
    assert_eq!(route.workload.unwrap().name, "waypoint");
    assert_eq!(route.service.unwrap().name, "svc");
}

#[test]
fn a_waypoint_may_be_named_by_address() {
    let (pod, _) = waypoint();
    let svc = Service { waypoint: waypoint_ref("/10.0.0.50"), ..service("svc", "ns", VIP) };

    let route = outbound(&state(vec![pod], vec![svc]), &client(), addr("10.96.0.1:80")).unwrap();

    assert_eq!(route.dial, Dial::Address(addr("10.0.0.50:15008")));
}

#[test]
fn a_waypoint_that_cannot_be_resolved_fails_the_connection() {
    let (_, empty) = waypoint();
    let svc = Service { waypoint: waypoint_ref(WAYPOINT), ..service("svc", "ns", VIP) };
    let missing = state(vec![workload("a", "10.0.0.1")], vec![svc.clone()]);
    let without_endpoint = state(vec![workload("a", "10.0.0.1")], vec![svc, empty]);
    let guarded = Workload { waypoint: waypoint_ref(WAYPOINT), ..workload("a", "10.0.0.1") };
    let of_workload = state(vec![guarded], vec![]);

    for (state, destination) in
        [(missing, "10.96.0.1:80"), (without_endpoint, "10.96.0.1:80"), (of_workload, "10.0.0.1:80")]
    {
        let error = outbound(&state, &client(), addr(destination)).unwrap_err();
        assert!(error.to_string().starts_with("unknown waypoint: ns/waypoint"), "{error}");
    }
}

#[test]
fn weighted_waypoints_share_the_traffic_unless_their_weights_are_nothing() {
    let (pod, waypoint_service) = waypoint();
    let other = Workload { services: Memberships::default(), ..workload("other", "10.0.0.51") };
    let weighted = |weights: [u32; 2]| {
        let of =
            |destination: &str, weight| WeightedWaypoint { destination: waypoint_ref(destination).unwrap(), weight };
        let weighted_waypoints = vec![of(WAYPOINT, weights[0]), of("/10.0.0.51", weights[1])];
        let svc = Service { waypoint: waypoint_ref(WAYPOINT), weighted_waypoints, ..service("svc", "ns", VIP) };
        state(vec![pod.clone(), other.clone()], vec![svc, waypoint_service.clone()])
    };

    assert_eq!(chosen(&weighted([1, 1]), &client()), ["other", "waypoint"]);
    assert_eq!(chosen(&weighted([0, 1]), &client()), ["other"]);
    assert_eq!(chosen(&weighted([0, 0]), &client()), ["waypoint"]);
}

#[test]
fn a_workload_s_waypoint_counts_for_workload_traffic_only() {
    let (pod, waypoint_service) = waypoint();
    let guarded = Workload { waypoint: waypoint_ref(WAYPOINT), ..workload("a", "10.0.0.1") };
    let state = state(vec![guarded, pod], vec![service("svc", "ns", VIP), waypoint_service]);

    let by_address = outbound(&state, &client(), addr("10.0.0.1:80")).unwrap();
    let by_service = outbound(&state, &client(), addr("10.96.0.1:80")).unwrap();

    assert_eq!(hbone(&by_address).authority, "10.0.0.1:80");
    assert!(hbone(&by_address).via_waypoint);
    assert!(!hbone(&by_service).via_waypoint);
}

#[test]
fn the_waypoint_itself_goes_straight_to_the_workload() {
    let (pod, waypoint_service) = waypoint();
    let guarded = Workload { waypoint: waypoint_ref(WAYPOINT), ..workload("a", "10.0.0.1") };
    let state = state(vec![guarded, pod.clone()], vec![waypoint_service]);
    let pretender = Workload { workload_ips: vec!["10.0.0.77".parse().unwrap()], ..pod.clone() };

    assert!(!hbone(&outbound(&state, &pod, addr("10.0.0.1:80")).unwrap()).via_waypoint);
    assert!(hbone(&outbound(&state, &pretender, addr("10.0.0.1:80")).unwrap()).via_waypoint);
}

#[test]
fn another_replica_of_the_waypoint_is_tried_and_never_the_service_itself() {
    let (first, gateway) = waypoint();
    let second = Workload { services: first.services.clone(), ..workload("waypoint-2", "10.0.0.51") };
    let bound = Service { waypoint: waypoint_ref(WAYPOINT), ..service("svc", "ns", VIP) };
    let state = state(vec![first.clone(), second.clone(), workload("pod", "10.0.0.1")], vec![gateway, bound]);
    let after = |tried: &[&Workload]| {
        let tried: Vec<_> = tried.iter().map(|w| w.uid.clone()).collect();
        outbound_except(&state, &client(), addr("10.96.0.1:80"), &tried)
    };

    let route = after(&[&first]).unwrap();
    assert!(hbone(&route).via_waypoint);
    assert_eq!(route.workload.unwrap().uid, second.uid);
    assert_eq!(after(&[&first, &second]), None);
}
