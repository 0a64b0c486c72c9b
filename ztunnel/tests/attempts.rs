//! Connections to a service some of whose endpoints cannot be connected to.

mod pods;

use model::{Address, Change, Service, State, Workload};
use pods::{Pod, Proxy, echo_server, exchange, two_pods};
use std::io::Read;

const VIP: &str = "10.96.0.1:80";

fn service() -> Service {
    let text = serde_json::json!({
        "name": "web", "namespace": "test", "hostname": "web.test.svc.cluster.local", "vips": ["/10.96.0.1"],
        "ports": {"80": 8080},
    });
    serde_json::from_value(text).unwrap()
}

/// An endpoint of the service at `ip`, where its port is `target`.
fn endpoint(name: &str, ip: &str, target: u16, protocol: &str) -> Workload {
    let text = serde_json::json!({
        "uid": format!("Kubernetes//Pod/test/{name}"), "name": name, "namespace": "test",
        "serviceAccount": "sa-server", "workloadIps": [ip], "protocol": protocol,
        "services": {"test/web.test.svc.cluster.local": {"80": target}},
    });
    serde_json::from_value(text).unwrap()
}

/// The mesh of both pods with a service of these endpoints, whose address the client routes to the server's link.
fn mesh(client: &Pod, endpoints: Vec<Workload>) -> State {
    assert!(client.exec("ip route add 10.96.0.0/16 dev eth0"));
    // Nobody has this address, and the kernel says so at once.
    assert!(client.exec("ip route add unreachable 10.77.0.99/32"));
    let state = State::new(model::StateConfig::default());
    let workloads = endpoints.into_iter().chain([client.workload("HBONE")]).map(Address::Workload);
    state.apply_addresses(workloads.chain([Address::Service(service())]).map(Change::Upsert).collect());
    state
}

#[test]
fn a_connection_reaches_the_endpoint_that_works_whichever_was_chosen_first() {
    let Some((client, server)) = two_pods("attempts") else { return };
    let endpoints = vec![
        endpoint("server", server.ip, 8080, "HBONE"),
        endpoint("gone", "10.77.0.99", 8080, "HBONE"),
        endpoint("gone-outside", "10.77.0.99", 8081, "TCP"),
    ];
    let _proxy = Proxy::start(mesh(&client, endpoints), &[&client, &server]);
    echo_server(server.listen("0.0.0.0:8080"));

    for _ in 0..20 {
        let (_, echoed) = exchange(client.connect(VIP).unwrap(), 100_000);
        assert_eq!(echoed, 100_000, "what the application sent before the connection stood arrives once and whole");
    }
}

#[test]
fn a_port_that_the_endpoint_s_proxy_cannot_connect_to_is_tried_elsewhere() {
    let Some((client, server)) = two_pods("attempts-port") else { return };
    assert!(server.exec("ip addr add 10.77.0.22/24 dev eth0"));
    let mut closed = endpoint("server", server.ip, 8080, "HBONE");
    closed.workload_ips.push("10.77.0.22".parse().unwrap());
    let endpoints = vec![endpoint("other", "10.77.0.99", 8080, "HBONE"), closed];
    let _proxy = Proxy::start(mesh(&client, endpoints), &[&client, &server]);

    // Nobody listens at all: the last endpoint's failure is the connection's, and it comes as a reset.
    let mut refused = client.connect(VIP).unwrap();
    let ended = refused.read(&mut [0; 1]);
    assert!(ended.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset), "{ended:?}");

    echo_server(server.listen("0.0.0.0:8080"));
    let (_, echoed) = exchange(client.connect(VIP).unwrap(), 10);
    assert_eq!(echoed, 10);
}

#[test]
fn without_further_attempts_a_failed_connect_ends_the_connection() {
    let Some((client, server)) = two_pods("attempts-none") else { return };
    let endpoints = vec![endpoint("server", server.ip, 8080, "HBONE"), endpoint("gone", "10.77.0.99", 8080, "HBONE")];
    let state = mesh(&client, endpoints);
    let _proxy = Proxy::start_with(state, &[&client, &server], |shared| shared.connect_retries = 0);
    echo_server(server.listen("0.0.0.0:8080"));

    // The first endpoint is chosen by chance; after three failures on each of two workers the other one is preferred.
    let is_lost = |_| client.connect(VIP).and_then(|mut socket| socket.read_exact(&mut [0; 1])).is_err();
    let lost = (0..60).map(is_lost).filter(|lost| *lost).count();
    assert!((1..=6).contains(&lost), "{lost} of 60");
}
