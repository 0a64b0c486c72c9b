//! Services by name: which of several is meant, and its addresses.

use super::*;
use crate::view::names::{Asker, Family, Names};
use crate::{HealthPolicy, HealthStatus, IpFamilies, LoadBalancer, Visibility};

fn upsert(state: &State, service: Service) {
    state.apply_addresses(vec![Change::Upsert(Address::Service(service))]);
}

fn entry(hostname: &str, namespace: &str, vip: &str) -> Service {
    Service { hostname: hostname.into(), ..service("entry", namespace, vip) }
}

/// Namespace of the service that a client of `ns` means by `hostname`.
fn meant(state: &State, hostname: &str, preferred: Option<&str>) -> Option<String> {
    let client = workload("client", "10.0.0.9");
    let asker = Asker { client: &client, service_suffix: "svc.cluster.local", preferred_namespace: preferred };
    Names::of(state).service(hostname, &asker).map(|s| s.namespace.to_string())
}

fn addresses(state: &State, key: &str, family: Family) -> Vec<String> {
    let service = state.service(&key.parse().unwrap()).unwrap();
    let found = Names::of(state).addresses(&service, &workload("client", "10.0.0.9"), family);
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn own_namespace_then_canonical_then_preferred_then_the_oldest() {
    let state = State::new(StateConfig::default());
    let host = "api.example.com";
    upsert(&state, entry(host, "a", "240.0.0.1"));
    assert_eq!(meant(&state, host, None).as_deref(), Some("a"));
    upsert(&state, entry(host, "b", "240.0.0.2"));
    assert_eq!(meant(&state, host, None).as_deref(), Some("a"));
    assert_eq!(meant(&state, host, Some("b")).as_deref(), Some("b"));
    upsert(&state, Service { canonical: true, ..entry(host, "c", "240.0.0.3") });
    assert_eq!(meant(&state, host, Some("b")).as_deref(), Some("c"));
    upsert(&state, entry(host, "ns", "240.0.0.4"));

    assert_eq!(meant(&state, host, Some("b")).as_deref(), Some("ns"));
}

#[test]
fn a_service_that_is_private_to_another_namespace_does_not_exist() {
    let state = State::new(StateConfig::default());
    let private = |namespace| Service { visibility: Visibility::Namespace, ..entry("x.test", namespace, "240.0.0.1") };
    upsert(&state, private("a"));

    assert_eq!(meant(&state, "x.test", None), None);
    upsert(&state, private("ns"));
    assert_eq!(meant(&state, "x.test", None).as_deref(), Some("ns"));
}

#[test]
fn a_host_without_addresses_counts_only_below_the_suffix_of_services() {
    let state = State::new(StateConfig::default());
    let bare = |hostname: &str| Service { vips: vec![], ..entry(hostname, "ns", "240.0.0.1") };
    for hostname in ["db.example.com", "headless.ns.svc.cluster.local", "xsvc.cluster.local", "svc.cluster.local"] {
        upsert(&state, bare(hostname));
    }

    assert_eq!(meant(&state, "db.example.com", None), None);
    assert!(meant(&state, "headless.ns.svc.cluster.local", None).is_some());
    assert_eq!(meant(&state, "xsvc.cluster.local", None), None);
    assert_eq!(meant(&state, "svc.cluster.local", None), None);
}

#[test]
fn case_does_not_count_on_either_side() {
    let state = State::new(StateConfig::default());
    upsert(&state, entry("API.Example.com", "ns", "240.0.0.1"));

    assert!(meant(&state, "api.example.com", None).is_some());
    assert!(meant(&state, "Api.EXAMPLE.com", None).is_some());
    state.apply_addresses(vec![Change::Remove("ns/API.Example.com".into())]);
    assert_eq!(meant(&state, "api.example.com", None), None);
}

#[test]
fn addresses_are_those_of_the_clients_network_and_of_one_family() {
    let state = State::new(StateConfig::default());
    let vips = ["/10.96.0.1", "/fd00::1", "/10.96.0.1", "far/10.96.0.2"].map(|vip| vip.parse().unwrap());
    let dual = Service { vips: vips.to_vec(), ..service("web", "ns", "10.96.0.1") };
    upsert(&state, dual.clone());
    let key = "ns/web.ns.svc.cluster.local";

    assert_eq!(addresses(&state, key, Family::V4), ["10.96.0.1"]);
    assert_eq!(addresses(&state, key, Family::V6), ["fd00::1"]);
    upsert(&state, Service { ip_families: Some(IpFamilies::IPv4), ..dual });
    assert!(addresses(&state, key, Family::V6).is_empty());
}

#[test]
fn a_headless_service_has_an_address_of_each_endpoint_that_is_fit() {
    let state = State::new(StateConfig::default());
    let headless = Service { vips: vec![], ..service("svc", "ns", "10.96.0.1") };
    upsert(&state, headless.clone());
    let mut dual = workload("a", "10.0.0.1");
    dual.workload_ips.push("fd00::1".parse().unwrap());
    dual.workload_ips.push("10.0.1.1".parse().unwrap());
    let unready = Workload { status: HealthStatus::Unhealthy, ..workload("b", "10.0.0.2") };
    let far = Workload { network: "far".into(), ..workload("c", "10.0.0.3") };
    let endpoints = [dual, unready, far].map(|w| Change::Upsert(Address::Workload(w)));
    state.apply_addresses(endpoints.into());
    let key = "ns/svc.ns.svc.cluster.local";

    assert_eq!(addresses(&state, key, Family::V4), ["10.0.0.1"]);
    assert_eq!(addresses(&state, key, Family::V6), ["fd00::1"]);
    let all = LoadBalancer { health_policy: HealthPolicy::AllowAll, ..LoadBalancer::default() };
    upsert(&state, Service { load_balancer: Some(all), ..headless });
    assert_eq!(addresses(&state, key, Family::V4), ["10.0.0.1", "10.0.0.2"]);
}
