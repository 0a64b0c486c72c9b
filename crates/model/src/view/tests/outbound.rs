//! Routes of connections.

use super::*;

#[test]
fn an_unknown_destination_passes_through_once_discovery_was_asked() {
    let route = outbound(&state(vec![], vec![]), &client(), addr("1.2.3.4:80")).unwrap();

    assert_eq!(route.kind, RouteKind::Unknown);
    assert_eq!(route.dial, Dial::Address(addr("1.2.3.4:80")));
    assert!(route.workload.is_none());
}

#[test]
fn of_addresses_that_discovery_never_announces_it_is_not_asked() {
    let state = state(vec![], vec![]);

    for destination in [
        "127.0.0.1:80",
        "127.9.9.9:80",
        "0.0.0.0:80",
        "169.254.169.254:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "10.0.0.9:80",
        "[::1]:80",
        "[::]:80",
        "[fe80::1]:80",
        "[ff02::1]:80",
        "[::ffff:169.254.1.1]:80",
    ] {
        assert_eq!(
            outbound(&state, &client(), addr(destination)).unwrap().kind,
            RouteKind::Passthrough,
            "{destination}"
        );
    }
    for destination in ["10.0.0.8:80", "[fd00::1]:80", "[::ffff:10.0.0.8]:80", "192.0.2.1:80"] {
        assert_eq!(outbound(&state, &client(), addr(destination)).unwrap().kind, RouteKind::Unknown, "{destination}");
    }
}

#[test]
fn a_pod_of_the_mesh_that_discovery_removes_gets_no_plaintext_until_its_address_is_announced_again() {
    let state = state(vec![workload("a", "10.0.0.1")], vec![]);
    let route = || outbound(&state, &client(), addr("10.0.0.1:80"));
    state.apply_addresses(vec![Change::Remove(workload("a", "10.0.0.1").uid)]);
    assert_eq!(route(), Err(RouteError::Departed(addr("10.0.0.1:80"))));

    let plain = Workload { protocol: InboundProtocol::TCP, ..workload("b", "10.0.0.1") };
    state.apply_addresses(vec![Change::Upsert(Address::Workload(plain))]);
    assert_eq!(route().unwrap().kind, RouteKind::Tcp);
    state.apply_addresses(vec![Change::Remove(workload("b", "10.0.0.1").uid)]);
    assert_eq!(route().unwrap().kind, RouteKind::Unknown);
}

#[test]
fn an_address_of_another_network_is_unknown() {
    let elsewhere = Workload { network: "net-2".into(), ..workload("a", "10.0.0.1") };

    let route = outbound(&state(vec![elsewhere], vec![]), &client(), addr("10.0.0.1:80")).unwrap();

    assert_eq!(route.kind, RouteKind::Unknown);
}

#[test]
fn a_captured_workload_is_reached_by_hbone_at_its_own_port() {
    let route = outbound(&state(vec![workload("a", "10.0.0.1")], vec![]), &client(), addr("10.0.0.1:81")).unwrap();

    assert_eq!(route.dial, Dial::Address(addr("10.0.0.1:15008")));
    assert_eq!(hbone(&route).authority, "10.0.0.1:81");
    assert_eq!(identities(hbone(&route)), ["sa"]);
    assert!(!hbone(&route).via_waypoint);
}

#[test]
fn an_ipv6_authority_has_brackets() {
    let route = outbound(&state(vec![workload("a", "fd00::1")], vec![]), &client(), addr("[fd00::1]:81")).unwrap();

    assert_eq!(hbone(&route).authority, "[fd00::1]:81");
}

#[test]
fn a_mapped_ipv4_destination_is_found_as_ipv4() {
    let state = state(vec![workload("a", "10.0.0.1")], vec![]);

    let route = outbound(&state, &client(), addr("[::ffff:10.0.0.1]:81")).unwrap();

    assert_eq!(hbone(&route).authority, "10.0.0.1:81");
}

#[test]
fn a_workload_outside_the_mesh_is_reached_by_tcp() {
    let plain = Workload { protocol: InboundProtocol::TCP, ..workload("a", "10.0.0.1") };

    let route = outbound(&state(vec![plain], vec![]), &client(), addr("10.0.0.1:81")).unwrap();

    assert_eq!(route.kind, RouteKind::Tcp);
    assert_eq!(route.dial, Dial::Address(addr("10.0.0.1:81")));
    assert_eq!(route.workload.unwrap().name, "a");
}

#[test]
fn a_service_leads_to_an_endpoint_at_its_target_port() {
    let svc = Service {
        subject_alt_names: vec!["spiffe://cluster.local/ns/ns/sa/extra".into(), "not an identity".into()],
        ..service("svc", "ns", VIP)
    };
    let state = state(vec![workload("a", "10.0.0.1")], vec![svc]);

    let route = outbound(&state, &client(), addr("10.96.0.1:80")).unwrap();

    assert_eq!(route.dial, Dial::Address(addr("10.0.0.1:15008")));
    assert_eq!(hbone(&route).authority, "10.0.0.1:8080");
    assert_eq!(identities(hbone(&route)), ["extra", "sa"]);
    assert_eq!(route.service.unwrap().name, "svc");
}

#[test]
fn the_endpoint_s_own_port_comes_before_the_service_s() {
    let own = Workload { services: member_of("svc.ns.svc.cluster.local", &[(80, 9090)]), ..workload("a", "10.0.0.1") };

    let route = outbound(&state(vec![own], vec![service("svc", "ns", VIP)]), &client(), addr("10.96.0.1:80")).unwrap();

    assert_eq!(hbone(&route).authority, "10.0.0.1:9090");
}

#[test]
fn a_named_port_needs_an_endpoint_that_has_it() {
    let named = Service { ports: [(80, 0)].into_iter().collect(), ..service("svc", "ns", VIP) };
    let with = Workload { services: member_of("svc.ns.svc.cluster.local", &[(80, 9090)]), ..workload("b", "10.0.0.2") };
    let state = state(vec![workload("a", "10.0.0.1"), with], vec![named]);

    assert_eq!(chosen(&state, &client()), ["b"]);
}

#[test]
fn no_endpoint_or_no_such_port_is_an_error_and_not_a_passthrough() {
    let empty = state(vec![], vec![service("svc", "ns", VIP)]);
    let one = state(vec![workload("a", "10.0.0.1")], vec![service("svc", "ns", VIP)]);
    let no_service_port = outbound(&one, &client(), addr("10.96.0.1:81"));

    let error = outbound(&empty, &client(), addr("10.96.0.1:80")).unwrap_err();
    assert_eq!(error.to_string(), "no healthy upstream: 10.96.0.1:80");
    assert_eq!(no_service_port, Err(RouteError::NoHealthyUpstream(addr("10.96.0.1:81"))));
}

#[test]
fn a_private_service_is_unknown_to_other_namespaces() {
    let private = Service { visibility: crate::Visibility::Namespace, ..service("svc", "ns", VIP) };
    let stranger = Workload { namespace: "other".into(), ..client() };

    let route = outbound(&state(vec![workload("a", "10.0.0.1")], vec![private]), &stranger, addr("10.96.0.1:80"));

    assert_eq!(route.unwrap().kind, RouteKind::Unknown);
}

#[test]
fn a_connection_to_the_proxy_s_own_ports_on_loopback_is_refused() {
    let error = outbound(&state(vec![], vec![]), &client(), addr("127.0.0.1:15008")).unwrap_err();

    assert_eq!(error.to_string(), "attempted recursive call to ourselves");
    assert!(outbound(&state(vec![], vec![]), &client(), addr("127.0.0.1:80")).is_ok());
}

#[test]
fn an_endpoint_of_the_host_network_is_reached_through_its_service_only() {
    let host = Workload {
        network_mode: NetworkMode::HostNetwork,
        protocol: InboundProtocol::TCP,
        ..workload("host", "10.0.0.1")
    };
    let state = state(vec![host], vec![service("svc", "ns", VIP)]);

    let by_service = outbound(&state, &client(), addr("10.96.0.1:80")).unwrap();
    let by_address = outbound(&state, &client(), addr("10.0.0.1:8080")).unwrap();

    assert_eq!((by_service.kind, by_service.dial), (RouteKind::Tcp, Dial::Address(addr("10.0.0.1:8080"))));
    assert_eq!(by_address.kind, RouteKind::Unknown);
}

#[test]
fn the_family_of_the_destination_is_kept_unless_the_service_admits_only_the_other() {
    let dual = Workload {
        workload_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        ..workload("a", "10.0.0.1")
    };
    let vips = vec!["/10.96.0.1".parse().unwrap(), "/fd96::1".parse().unwrap()];
    let with = |ip_families| Service { vips: vips.clone(), ip_families, ..service("svc", "ns", VIP) };
    let to = |families, destination: &str| {
        let state = state(vec![dual.clone()], vec![with(families)]);
        outbound(&state, &client(), addr(destination)).unwrap().dial.address().unwrap().ip().to_string()
    };

    assert_eq!(to(None, "10.96.0.1:80"), "10.0.0.1");
    assert_eq!(to(None, "[fd96::1]:80"), "fd00::1");
    assert_eq!(to(Some(IpFamilies::IPv6), "10.96.0.1:80"), "fd00::1");
    assert_eq!(to(Some(IpFamilies::IPv4), "[fd96::1]:80"), "10.0.0.1");
}

#[test]
fn an_endpoint_with_a_name_only_has_to_be_resolved() {
    let named = Workload {
        workload_ips: vec![],
        hostname: "db.example.com".into(),
        protocol: InboundProtocol::TCP,
        ..workload("db", "10.0.0.1")
    };

    let route =
        outbound(&state(vec![named], vec![service("svc", "ns", VIP)]), &client(), addr("10.96.0.1:80")).unwrap();

    let expected = Dial::Hostname { hostname: "db.example.com".into(), port: 8080, original: addr("10.96.0.1:80") };
    assert_eq!(route.dial, expected);
}

#[test]
fn an_endpoint_of_another_network_is_a_typed_error_and_never_plain_text() {
    let remote = Workload { network: "net-2".into(), workload_ips: vec![], ..workload("remote", "10.0.0.1") };
    let gateway = Workload { network_gateway: waypoint_ref("/10.0.0.60"), ..remote.clone() };
    let svc = || vec![service("svc", "ns", VIP)];

    let without = outbound(&state(vec![remote], svc()), &client(), addr("10.96.0.1:80"));
    let with = outbound(&state(vec![gateway], svc()), &client(), addr("10.96.0.1:80"));

    assert_eq!(without.unwrap_err().code(), "no_healthy_upstream");
    assert_eq!(with.unwrap_err().code(), "other_network");
}
