//! Connections that lead to the proxy's own listeners: by every address of the pod's namespace, whoever opens them and
//! whatever discovery says of the address. None of them may come back to the proxy.

mod pods;

use model::{Address, Change, Service, State, StateConfig, Workload};
use pods::{Pod, Proxy, echo_server, two_pods};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Ports of the proxy that take an application's bytes.
const CAPTURE: [u16; 2] = [15001, 15006];
const HBONE: u16 = 15008;
/// Ports that Istio's programs use, and that are nobody's in a pod until an application listens.
const FREE: [u16; 3] = [15020, 15021, 15053];
/// Addresses of the client pod.
const POD: [&str; 2] = ["10.77.0.1", "fd77::1"];
/// Addresses of its namespace that discovery has never heard of.
const OTHER: [&str; 2] = ["10.99.0.1", "fd99::1"];
/// More than a refused connection needs for a moment, and far less than a loop takes.
const DESCRIPTORS: usize = 300;

/// Workload of the client pod with its addresses.
#[derive(Debug, Clone, Copy)]
enum Known {
    Hbone,
    Tcp,
    Nothing,
}

impl Known {
    const ALL: [Self; 3] = [Self::Hbone, Self::Tcp, Self::Nothing];

    fn workload(self, of: &Pod) -> Workload {
        let ip = |text: &str| text.parse().unwrap();
        match self {
            Self::Hbone => Workload { workload_ips: POD.map(ip).to_vec(), ..of.workload("HBONE") },
            Self::Tcp => Workload { workload_ips: POD.map(ip).to_vec(), ..of.workload("TCP") },
            Self::Nothing => Workload { workload_ips: vec![ip("192.0.2.7")], ..of.workload("TCP") },
        }
    }

    fn state(self, of: &Pod) -> State {
        let state = State::new(StateConfig::default());
        state.apply_addresses(vec![Change::Upsert(Address::Workload(self.workload(of)))]);
        state
    }
}

/// Two pods, of which the first has more addresses and the second is not captured.
fn pods(test: &str) -> Option<(Pod, Pod)> {
    let (client, stranger) = two_pods(test)?;
    let ready = client.exec("ip addr add fd77::1/64 dev eth0 nodad")
        && client.exec("ip addr add 10.99.0.1/32 dev lo")
        && client.exec("ip addr add fd99::1/128 dev lo")
        && client.exec("ip route add 10.98.0.0/24 dev eth0")
        && stranger.exec("ip addr add fd77::2/64 dev eth0 nodad")
        && stranger.exec("ip route add 10.99.0.1/32 via 10.77.0.1")
        && stranger.exec("ip route add fd99::1/128 via fd77::1")
        && stranger.exec("nft flush chain ip istio nat_output");
    assert!(ready, "the pods' addresses");
    Some((client, stranger))
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// End of a connection whose client sends a line and reads.
fn outcome(from: &Pod, to: SocketAddr) -> io::Result<Vec<u8>> {
    let mut socket = from.connect(&to.to_string())?;
    socket.write_all(b"hello\n")?;
    let mut first = [0; 64];
    let n = socket.read(&mut first)?;
    Ok(first[..n].to_vec())
}

/// Every address by which the client pod can be meant; the mapped one is a client's way to say the first.
fn addresses() -> Vec<std::net::IpAddr> {
    let mapped = ["::ffff:10.77.0.1"];
    POD.iter().chain(&OTHER).chain(&mapped).map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_listener_of_ours_is_refused_by_every_address_and_what_applications_listen_on_is_not() {
    let Some((client, stranger)) = pods("own") else { return };
    for port in FREE {
        echo_server(client.listen(&format!("[::]:{port}")));
    }
    for known in Known::ALL {
        let _proxy = Proxy::start(known.state(&client), &[&client]);
        let before = descriptors();
        for (from, ip) in
            [&client, &stranger].into_iter().flat_map(|from| addresses().into_iter().map(move |ip| (from, ip)))
        {
            let case = |port| format!("{known:?}: {} calls {ip} port {port}", from.name);
            for port in CAPTURE {
                let refused = outcome(from, SocketAddr::new(ip, port)).map_err(|e| e.kind());
                assert_eq!(refused, Err(ErrorKind::ConnectionReset), "{}", case(port));
            }
            // It speaks TLS there, to whoever does: an alert, an end, and never a loop.
            let tls = outcome(from, SocketAddr::new(ip, HBONE)).unwrap_or_default();
            assert!(!tls.starts_with(b"hello"), "{}: {tls:?}", case(HBONE));
            for port in FREE {
                let line = outcome(from, SocketAddr::new(ip, port)).unwrap_or_else(|e| panic!("{}: {e}", case(port)));
                assert!(!line.is_empty(), "{}", case(port));
            }
            assert!(descriptors() < before + DESCRIPTORS, "{}: {} descriptors", case(0), descriptors());
        }
    }
}

#[test]
fn calling_the_proxys_listeners_in_a_loop_costs_no_descriptors() {
    let Some((client, stranger)) = pods("loop") else { return };
    let _proxy = Proxy::start(Known::Nothing.state(&client), &[&client]);
    let before = descriptors();
    let mut most = 0;

    for _ in 0..100 {
        let from = |pod: &Pod, ip: &str| pod.connect(&SocketAddr::new(ip.parse().unwrap(), 15001).to_string());
        // Reset at once, perhaps before the client has seen that it was connected.
        let open: Vec<io::Result<TcpStream>> =
            vec![from(&client, POD[0]), from(&client, OTHER[0]), from(&client, POD[1]), from(&stranger, POD[0])];
        most = most.max(descriptors());
        drop(open);
    }

    assert!(most < before + DESCRIPTORS, "{most} descriptors at once, {before} before");
}

#[test]
fn a_service_that_leads_back_to_the_proxy_is_refused() {
    let Some((client, _stranger)) = pods("service") else { return };
    let state = Known::Tcp.state(&client);
    let services: Vec<_> = [("a", "10.98.0.1", 15001), ("b", "10.98.0.2", 15006), ("c", "10.98.0.3", 15008)]
        .map(|(name, vip, target)| service(name, vip, target))
        .into();
    let names: serde_json::Map<_, _> =
        services.iter().map(|s| (format!("test/{}", s.hostname), serde_json::json!({}))).collect();
    state.apply_addresses(services.into_iter().map(|s| Change::Upsert(Address::Service(s))).collect());
    let mut member = serde_json::to_value(Known::Tcp.workload(&client)).unwrap();
    member["services"] = names.into();
    let member: Workload = serde_json::from_value(member).unwrap();
    state.apply_addresses(vec![Change::Upsert(Address::Workload(member))]);
    let _proxy = Proxy::start(state, &[&client]);
    let before = descriptors();

    for vip in ["10.98.0.1", "10.98.0.2", "10.98.0.3"] {
        let refused = outcome(&client, SocketAddr::new(vip.parse().unwrap(), 80)).map_err(|e| e.kind());

        assert_eq!(refused, Err(ErrorKind::ConnectionReset), "{vip}");
        assert!(descriptors() < before + DESCRIPTORS, "{vip}: {} descriptors", descriptors());
    }
}

fn service(name: &str, vip: &str, target: u16) -> Service {
    let text = serde_json::json!({
        "name": name, "namespace": "test", "hostname": format!("{name}.test.svc.cluster.local"),
        "vips": [format!("/{vip}")], "ports": {"80": target},
    });
    serde_json::from_value(text).unwrap()
}
