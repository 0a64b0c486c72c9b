//! Which names are the mesh's, for whom, and what they answer.

use super::*;
use model::{Address, Change, Service, StateConfig};
use serde_json::json;

fn service(namespace: &str, hostname: &str, rest: serde_json::Value) -> Change<Address> {
    let mut text = json!({"name": "x", "namespace": namespace, "hostname": hostname});
    text.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    Change::Upsert(Address::Service(serde_json::from_value::<Service>(text).unwrap()))
}

fn workload(namespace: &str, name: &str, ips: &[&str], service: &str) -> Workload {
    let text = json!({
        "uid": format!("Kubernetes//Pod/{namespace}/{name}"), "name": name, "namespace": namespace,
        "workloadIps": ips, "services": [service],
    });
    serde_json::from_value(text).unwrap()
}

fn vips(addresses: &[&str]) -> serde_json::Value {
    json!({"vips": addresses.iter().map(|ip| format!("/{ip}")).collect::<Vec<_>>()})
}

/// A mesh with a service of each kind.
fn mesh() -> State {
    let state = State::new(StateConfig::default());
    let private = json!({"vips": ["/10.96.0.9"], "visibility": "Namespace"});
    let v4_only = json!({"vips": ["/10.96.0.4", "/fd00::4"], "ipFamilies": "IPv4"});
    state.apply_addresses(vec![
        service("ns", "web.ns.svc.cluster.local", vips(&["10.96.0.1", "fd00::1"])),
        service("shop", "web.shop.svc.cluster.local", vips(&["10.96.0.2"])),
        service("shop", "private.shop.svc.cluster.local", private),
        service("ns", "v4.ns.svc.cluster.local", v4_only),
        service("ns", "headless.ns.svc.cluster.local", json!({})),
        service("ns", "empty.ns.svc.cluster.local", json!({})),
        service("other", "api.example.com", vips(&["240.240.0.1", "2001:2::1"])),
        service("ns", "api.example.com", vips(&["240.240.0.2"])),
        service("ns", "dynamic.example.com", json!({})),
        service("ns", "*.wild.example.com", vips(&["240.240.0.3"])),
        service("ns", "deep.wild.example.com", vips(&["240.240.0.4"])),
    ]);
    let headless = "ns/headless.ns.svc.cluster.local";
    let endpoints = [("a", &["10.0.0.1", "fd00::1"][..]), ("b", &["10.0.0.2"][..])];
    let endpoints = endpoints.map(|(name, ips)| Address::Workload(workload("ns", name, ips, headless)));
    state.apply_addresses(endpoints.into_iter().map(Change::Upsert).collect());
    state
}

fn settings() -> Settings {
    Settings {
        cluster_domain: "cluster.local".into(),
        preferred_namespace: None,
        ipv6: true,
        search: None,
        nameservers: Vec::new(),
    }
}

/// The answer as text: addresses in order, and after `=` the name that an alias leads to. `None`: not the mesh's.
fn ask_with(settings: &Settings, namespace: &str, name: &str, family: Family) -> Option<String> {
    let client = workload(namespace, "client", &["10.0.0.9"], "ns/none");
    let name = Name::from_ascii(name).unwrap();
    let mut found = find(&mesh(), settings, &client, &name, family)?;
    found.addresses.sort_unstable();
    let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
    let alias = found.alias_of.map(|labels| name.iter().take(labels).map(String::from_utf8_lossy).collect::<Vec<_>>());
    let alias = alias.map_or(String::new(), |labels| format!(" = {}", labels.join(".")));
    Some(addresses.join(" ") + &alias)
}

fn v4(name: &str) -> Option<String> {
    ask_with(&settings(), "ns", name, Family::V4)
}

fn v6(name: &str) -> Option<String> {
    ask_with(&settings(), "ns", name, Family::V6)
}

#[test]
fn a_service_answers_to_all_its_names() {
    for name in ["web.", "web.ns.", "web.ns.svc.", "web.ns.svc.cluster.local.", "WEB.Ns.svc.CLUSTER.local."] {
        assert_eq!(v4(name).as_deref(), Some("10.96.0.1"), "{name}");
        assert_eq!(v6(name).as_deref(), Some("fd00::1"), "{name}");
    }
    for name in ["web.shop.", "web.shop.svc.", "web.shop.svc.cluster.local."] {
        assert_eq!(v4(name).as_deref(), Some("10.96.0.2"), "{name}");
    }
    let short = |namespace| ask_with(&settings(), namespace, "web.", Family::V4);
    assert_eq!(short("shop").as_deref(), Some("10.96.0.2"));
    assert_eq!(short("empty"), None);
}

#[test]
fn a_name_with_a_search_domain_is_an_alias_of_the_name_without() {
    for domain in ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"] {
        let asked = format!("api.example.com.{domain}.");
        assert_eq!(v4(&asked).as_deref(), Some("240.240.0.2 = api.example.com"), "{asked}");
    }
    assert_eq!(v4("web.shop.ns.svc.cluster.local.").as_deref(), Some("10.96.0.2 = web.shop"));
    let elsewhere = Settings { search: Some(vec!["corp.test".into()]), ..settings() };
    let ask = |name| ask_with(&elsewhere, "ns", name, Family::V4);
    assert_eq!(ask("api.example.com.corp.test.").as_deref(), Some("240.240.0.2 = api.example.com"));
    assert_eq!(ask("api.example.com.svc.cluster.local."), None, "not a search domain of this client");
}

#[test]
fn a_wildcard_answers_for_every_name_below_it_unless_there_is_a_nearer_one() {
    assert_eq!(v4("a.wild.example.com.").as_deref(), Some("240.240.0.3"));
    assert_eq!(v4("a.b.wild.example.com.").as_deref(), Some("240.240.0.3"));
    assert_eq!(v4("deep.wild.example.com.").as_deref(), Some("240.240.0.4"));
    assert_eq!(v4("wild.example.com."), None);
    // No alias: the name without the search domain is not one of its own.
    assert_eq!(v4("a.wild.example.com.svc.cluster.local.").as_deref(), Some("240.240.0.3"));
}

#[test]
fn of_several_services_of_one_name_the_clients_own_answers() {
    let from = |namespace| ask_with(&settings(), namespace, "api.example.com.", Family::V4);
    let preferring = Settings { preferred_namespace: Some("ns".into()), ..settings() };

    assert_eq!(from("ns").as_deref(), Some("240.240.0.2"));
    assert_eq!(from("shop").as_deref(), Some("240.240.0.1"), "the oldest");
    assert_eq!(ask_with(&preferring, "shop", "api.example.com.", Family::V4).as_deref(), Some("240.240.0.2"));
}

#[test]
fn a_private_service_exists_for_its_own_namespace_only() {
    let from = |namespace| ask_with(&settings(), namespace, "private.shop.svc.cluster.local.", Family::V4);

    assert_eq!(from("shop").as_deref(), Some("10.96.0.9"));
    assert_eq!(from("ns"), None);
}

#[test]
fn a_headless_service_answers_with_its_endpoints_and_without_any_with_nothing() {
    assert_eq!(v4("headless.ns.").as_deref(), Some("10.0.0.1 10.0.0.2"));
    assert_eq!(v6("headless.").as_deref(), Some("fd00::1"));
    assert_eq!(v4("empty.ns.").as_deref(), Some(""));
}

#[test]
fn a_known_name_without_addresses_of_the_family_is_no_data_and_is_not_asked_elsewhere() {
    let without = Settings { ipv6: false, ..settings() };

    assert_eq!(v6("web.shop.").as_deref(), Some(""), "no such address");
    assert_eq!(v6("v4.ns.").as_deref(), Some(""), "the service's families");
    assert_eq!(v4("v4.ns.").as_deref(), Some("10.96.0.4"));
    assert_eq!(ask_with(&without, "ns", "web.", Family::V6).as_deref(), Some(""), "IPV6_ENABLED=false");
}

#[test]
fn other_names_are_not_the_mesh_s() {
    let foreign = [
        ".",
        "com.",
        "example.com.",
        "dynamic.example.com.",
        "a.headless.ns.svc.cluster.local.",
        "nobody.",
        "kubernetes.default.svc.cluster.local.",
        "1.0.0.10.in-addr.arpa.",
        "_http._tcp.web.ns.svc.cluster.local.",
    ];
    for name in foreign {
        assert_eq!(v4(name), None, "{name}");
    }
}

#[test]
fn labels_that_no_host_has_are_not_the_mesh_s() {
    let odd = |label: &[u8]| {
        let labels = [label, b"svc", b"cluster", b"local"];
        text(&Name::from_labels(labels).unwrap())
    };

    // One label with a dot in it must not pass for two.
    assert_eq!(odd(b"web.ns"), None);
    assert_eq!(odd(b"web\0"), None);
    assert_eq!(odd("wéb".as_bytes()), None);
    assert_eq!(odd(b"Web").as_deref(), Some("web.svc.cluster.local"));
}

#[test]
fn the_order_of_addresses_is_chance() {
    let client = workload("ns", "client", &["10.0.0.9"], "ns/none");
    let (state, name) = (mesh(), Name::from_ascii("headless.").unwrap());
    let first = || find(&state, &settings(), &client, &name, Family::V4).unwrap().addresses[0];

    // 2^-199 that all are alike.
    let firsts: std::collections::HashSet<_> = (0..200).map(|_| first()).collect();

    assert_eq!(firsts.len(), 2);
}
