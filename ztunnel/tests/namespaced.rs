//! Two pods in network namespaces of their own, joined by a wire, with Istio's redirection rules: the whole path
//! of a connection through our listeners on both sides. Skipped without root, `ip` or `iptables-restore`.

#![cfg(feature = "testing")]

use ca::CertificateManager;
use ca::testing::FixedRoot;
use model::{Address, Authorization, Change, State, StateConfig, Workload};
use policy::{ConnectionRegistry, Logging};
use runtime::drain::Trigger;
use runtime::sys::Netns;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use ztunnel::inpod::{PodInfo, Pods, SocketOptions, Status};
use ztunnel::proxy::Shared;
use ztunnel::proxy::resolve::Names;
use ztunnel::workers::Workers;

/// What Istio's agent writes into a pod.
const RULES: &str = "*mangle
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A OUTPUT -j ISTIO_OUTPUT
-A PREROUTING -j ISTIO_PRERT
-A ISTIO_PRERT ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
";

const PATIENCE: Duration = Duration::from_secs(10);

fn run(command: &str) -> bool {
    let words: Vec<_> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).stderr(Stdio::null()).stdout(Stdio::null()).status();
    output.is_ok_and(|s| s.success())
}

/// A pod: a namespace with an address and Istio's rules. Removed when dropped.
struct Pod {
    namespace: String,
    name: &'static str,
    ip: &'static str,
    netns: Netns,
}

impl Pod {
    fn new(test: &str, name: &'static str, ip: &'static str) -> Option<Self> {
        let namespace = format!("strake-dp-{}-{test}-{name}", std::process::id());
        if !run(&format!("ip netns add {namespace}")) {
            return None;
        }
        let netns = Netns::open(format!("/run/netns/{namespace}")).ok()?;
        Some(Self { namespace, name, ip, netns })
    }

    fn exec(&self, command: &str) -> bool {
        run(&format!("ip netns exec {} {command}", self.namespace))
    }

    fn configure(&self) -> bool {
        let commands = [
            "ip link set lo up".to_owned(),
            "ip link set eth0 up".to_owned(),
            format!("ip addr add {}/24 dev eth0", self.ip),
            "ip route add local 0.0.0.0/0 dev lo table 100".to_owned(),
            "ip rule add fwmark 0x111/0xfff pref 32764 lookup 100".to_owned(),
        ];
        commands.iter().all(|c| self.exec(c)) && self.restore_rules().is_ok_and(|done| done)
    }

    fn restore_rules(&self) -> io::Result<bool> {
        let words = ["netns", "exec", &self.namespace, "iptables-restore", "--wait", "10", "--noflush"];
        let mut child = Command::new("ip").args(words).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().ok_or(ErrorKind::BrokenPipe)?.write_all(RULES.as_bytes())?;
        Ok(child.wait()?.success())
    }

    fn connect(&self, to: &str) -> io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        let socket = self.netns.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    fn listen(&self, address: &str) -> TcpListener {
        self.netns.run(|| TcpListener::bind(address)).unwrap()
    }

    fn info(&self) -> PodInfo {
        PodInfo { name: self.name.into(), namespace: "test".into(), service_account: format!("sa-{}", self.name) }
    }

    fn workload(&self, protocol: &str) -> Workload {
        let text = serde_json::json!({
            "uid": format!("Kubernetes//Pod/test/{}", self.name), "name": self.name, "namespace": "test",
            "serviceAccount": format!("sa-{}", self.name), "workloadIps": [self.ip], "protocol": protocol,
        });
        serde_json::from_value(text).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.namespace));
    }
}

/// A proxy in this process that serves both pods, or only those that are named.
struct Proxy {
    runtime: Runtime,
    state: State,
    policies: ConnectionRegistry,
    workers: Arc<Workers>,
    pods: Pods,
    status: watch::Receiver<Status>,
    drain: Trigger,
}

impl Proxy {
    fn start(state: State, pods: &[&Pod]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (drain, watch) = runtime::drain::channel();
        let source = FixedRoot::new(identity::TrustDomain::default(), Duration::from_secs(3600)).unwrap();
        let policies = ConnectionRegistry::new(state.clone(), Logging::Debug);
        state.set_policies_synced();
        let shared = Shared {
            state: state.clone(),
            certificates: runtime.block_on(async { CertificateManager::spawn(Arc::new(source)) }),
            policies: policies.clone(),
            names: Names::none(),
            tunnels: hbone::Settings::default(),
            pool_limits: hbone::pool::Limits::default(),
            drain: watch,
            localhost_app_tunnel: true,
            response_baggage: true,
        };
        let workers = Arc::new(Workers::start(2, &Arc::new(shared)).unwrap());
        let options = SocketOptions {
            mark: Some(1337),
            reuse_port: true,
            ipv6: true,
            preserve_source: None,
            keepalive: None,
            user_timeout: false,
        };
        let home = Arc::new(Netns::current().unwrap());
        let (publish, status) = watch::channel(Status::default());
        let mut all = Pods::new(workers.clone(), home, Arc::new(options), publish);
        runtime.block_on(async {
            for pod in pods {
                let netns = pod.netns.try_clone().unwrap();
                all.add(pod.namespace.clone(), pod.info(), netns).await.unwrap();
            }
            all.snapshot_complete().await;
        });
        Self { runtime, state, policies, workers, pods: all, status, drain }
    }

    fn add(&mut self, uid: &str, pod: &Pod) -> Result<(), String> {
        let netns = pod.netns.try_clone().unwrap();
        self.runtime.block_on(self.pods.add(uid.to_owned(), pod.info(), netns)).map_err(|e| e.to_string())
    }

    /// Active and pending pods, and readiness.
    fn status(&self) -> (usize, usize, bool) {
        let now = self.status.borrow();
        (now.active(), now.pending(), now.ready)
    }

    fn apply_policy(&self, policy: serde_json::Value) {
        let policy: Authorization = serde_json::from_value(policy).unwrap();
        self.state.apply_authorizations(vec![Change::Upsert(policy)]);
        self.policies.reevaluate();
    }
}

/// Two pods on one wire; `None` when the machine does not allow it.
fn two_pods(test: &str) -> Option<(Pod, Pod)> {
    let skip = || {
        assert!(std::env::var_os("CI").is_none(), "skipped: no root, ip or iptables");
        eprintln!("skipped: no root, ip or iptables");
    };
    let made = Pod::new(test, "client", "10.77.0.1").zip(Pod::new(test, "server", "10.77.0.2"));
    let Some((client, server)) = made else {
        skip();
        return None;
    };
    let (c, s) = (&client.namespace, &server.namespace);
    let wire = format!("ip -n {c} link add eth0 type veth peer name eth0 netns {s}");
    if !run(&wire) || !client.configure() || !server.configure() {
        skip();
        return None;
    }
    Some((client, server))
}

fn state(client: &Pod, server: &Pod, server_protocol: &str) -> State {
    let state = State::new(StateConfig::default());
    let workloads = [client.workload("HBONE"), server.workload(server_protocol)];
    state.apply_addresses(workloads.into_iter().map(|w| Change::Upsert(Address::Workload(w))).collect());
    state
}

/// Echoes each connection until its end; answers with the client's address first.
fn echo_server(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((mut socket, peer)) = listener.accept() {
            thread::spawn(move || {
                let _ = socket.write_all(format!("{}\n", peer.ip()).as_bytes());
                let mut reader = socket.try_clone().unwrap();
                let _ = io::copy(&mut reader, &mut socket);
                let _ = socket.shutdown(Shutdown::Write);
            });
        }
    });
}

/// Sends `n` bytes, ends, and returns what came back after the line with the address, and the address.
fn exchange(mut socket: TcpStream, n: usize) -> (String, usize) {
    let mut writer = socket.try_clone().unwrap();
    let sender = thread::spawn(move || {
        writer.write_all(&vec![7; n]).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    sender.join().unwrap();
    let line = all.iter().position(|b| *b == b'\n').expect("the server's line");
    (String::from_utf8_lossy(&all[..line]).into_owned(), all.len() - line - 1)
}

#[test]
fn captured_pods_talk_through_a_tunnel_with_the_clients_address_kept() {
    let Some((client, server)) = two_pods("hbone") else { return };
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&client, &server]);
    echo_server(server.listen("0.0.0.0:8080"));

    let many: Vec<_> = (0..20).map(|_| client.connect("10.77.0.2:8080").unwrap()).collect();
    let results: Vec<_> = many.into_iter().map(|s| thread::spawn(|| exchange(s, 3_000_000))).collect();

    for r in results {
        assert_eq!(r.join().unwrap(), (client.ip.to_owned(), 3_000_000));
    }
    let tunnels = Command::new("ip")
        .args(["netns", "exec", &client.namespace, "ss", "-tnH", "state", "established", "dport", "=", ":15008"])
        .output()
        .unwrap();
    assert!(!tunnels.stdout.is_empty(), "no tunnel was used");
}

#[test]
fn a_pod_outside_the_mesh_is_reached_in_plain_text() {
    let Some((client, server)) = two_pods("plainout") else { return };
    assert!(server.exec("iptables -t nat -F ISTIO_PRERT"));
    let _proxy = Proxy::start(state(&client, &server, "TCP"), &[&client]);
    echo_server(server.listen("0.0.0.0:8080"));

    assert_eq!(exchange(client.connect("10.77.0.2:8080").unwrap(), 1_000_000), (client.ip.to_owned(), 1_000_000));
}

#[test]
fn plain_text_from_outside_reaches_a_captured_pod_with_its_address() {
    let Some((client, server)) = two_pods("plainin") else { return };
    assert!(client.exec("iptables -t nat -F ISTIO_OUTPUT"));
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&server]);
    echo_server(server.listen("0.0.0.0:8080"));

    assert_eq!(exchange(client.connect("10.77.0.2:8080").unwrap(), 1_000_000), (client.ip.to_owned(), 1_000_000));
}

#[test]
fn a_policy_refuses_new_connections_and_cuts_open_ones() {
    let Some((client, server)) = two_pods("policy") else { return };
    let proxy = Proxy::start(state(&client, &server, "HBONE"), &[&client, &server]);
    echo_server(server.listen("0.0.0.0:8080"));
    let mut open = client.connect("10.77.0.2:8080").unwrap();
    let mut line = [0; 10];
    open.read_exact(&mut line).unwrap();

    proxy.apply_policy(serde_json::json!({
        "name": "deny", "namespace": "test", "scope": "Namespace", "action": "Deny",
        "rules": [[[{"destinationPorts": [8080]}]]],
    }));

    assert!(
        open.read(&mut line).is_err(),
        "a connection that lost its permission goes on, or looks like one that has ended"
    );
    let mut refused = client.connect("10.77.0.2:8080").unwrap();
    assert!(matches!(refused.read(&mut line), Ok(0) | Err(_)), "a new connection is allowed");
}

#[test]
fn a_server_that_resets_resets_its_client_after_what_it_has_said() {
    let Some((client, server)) = two_pods("reset") else { return };
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&client, &server]);
    let listener = server.listen("0.0.0.0:8080");
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0]).unwrap();
        socket.write_all(b"last words").unwrap();
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        // Acknowledged by the other side before the reset.
        let _ = socket.read(&mut [0]);
    });
    let mut open = client.connect("10.77.0.2:8080").unwrap();
    open.write_all(b"x").unwrap();
    let mut line = [0; 10];
    open.read_exact(&mut line).unwrap();
    open.write_all(b"x").unwrap();

    assert_eq!(&line, b"last words");
    assert_eq!(open.read(&mut line).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_application_on_loopback_stays_unreachable() {
    let Some((client, server)) = two_pods("loopback") else { return };
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&client, &server]);
    echo_server(server.listen("127.0.0.1:8080"));

    let mut socket = client.connect("10.77.0.2:8080").unwrap();

    assert!(matches!(socket.read(&mut [0; 10]), Ok(0) | Err(_)));
}

#[test]
fn a_stopped_pod_loses_its_connections_and_listeners_at_once() {
    let Some((client, server)) = two_pods("stop") else { return };
    let mut proxy = Proxy::start(state(&client, &server, "HBONE"), &[&client, &server]);
    echo_server(server.listen("0.0.0.0:8080"));
    let mut open = client.connect("10.77.0.2:8080").unwrap();
    let mut line = [0; 10];
    open.read_exact(&mut line).unwrap();

    let (runtime, pods) = (&proxy.runtime, &mut proxy.pods);
    runtime.block_on(pods.del(&server.namespace));

    assert!(open.read(&mut line).is_err(), "a lost connection looks like one that has ended");
    assert!(server.connect("127.0.0.1:15008").is_err());
}

#[test]
fn a_drain_lets_open_connections_finish_until_its_deadline() {
    let Some((client, server)) = two_pods("drain") else { return };
    let proxy = Proxy::start(state(&client, &server, "HBONE"), &[&client, &server]);
    echo_server(server.listen("0.0.0.0:8080"));
    let mut open = client.connect("10.77.0.2:8080").unwrap();
    let mut line = [0; 10];
    open.read_exact(&mut line).unwrap();

    proxy.drain.start(Duration::from_secs(2));
    let workers = proxy.workers.clone();
    let drained = proxy.runtime.spawn(async move { workers.drain().await });
    open.write_all(b"still here").unwrap();
    open.read_exact(&mut line).unwrap();

    assert_eq!(&line, b"still here");
    assert!(proxy.runtime.block_on(drained).unwrap() > 0, "something was left to cut");
    assert!(open.read(&mut line).is_err(), "a connection that was cut looks like one that has ended");
    assert!(server.connect("127.0.0.1:15008").is_err());
}

#[test]
fn a_pod_added_again_is_kept_and_in_another_namespace_replaced() {
    let Some((client, server)) = two_pods("again") else { return };
    let mut proxy = Proxy::start(state(&client, &server, "HBONE"), &[]);
    proxy.add("uid", &client).unwrap();
    assert_eq!(proxy.status(), (1, 0, true));

    proxy.add("uid", &client).unwrap();
    assert_eq!(proxy.status.borrow().started, 1);
    proxy.add("uid", &server).unwrap();

    assert_eq!((proxy.status.borrow().started, proxy.status.borrow().stopped), (2, 1));
    assert!(client.connect("127.0.0.1:15008").is_err());
    assert!(server.connect("127.0.0.1:15008").is_ok());
}

#[test]
fn a_pod_whose_port_is_taken_waits_and_starts_once_it_is_free() {
    let Some((client, server)) = two_pods("taken") else { return };
    let mut proxy = Proxy::start(state(&client, &server, "HBONE"), &[]);
    let taken = client.listen("0.0.0.0:15006");

    let refused = proxy.add("uid", &client).unwrap_err();

    assert!(refused.starts_with("failed to bind to address [::]:15006"), "{refused}");
    assert_eq!(proxy.status(), (0, 1, false));
    assert!(client.connect("127.0.0.1:15008").is_err(), "half a pod was started");
    drop(taken);
    proxy.runtime.block_on(proxy.pods.retry());
    assert_eq!(proxy.status(), (1, 0, true));
}

#[test]
fn a_new_agent_names_all_pods_anew() {
    let Some((client, server)) = two_pods("snapshot") else { return };
    let mut proxy = Proxy::start(state(&client, &server, "HBONE"), &[]);
    proxy.add("client", &client).unwrap();
    proxy.add("server", &server).unwrap();

    proxy.pods.disconnected();
    assert_eq!(proxy.status(), (2, 0, false));
    proxy.pods.keep("client".into());
    proxy.runtime.block_on(proxy.pods.del("server"));
    assert_eq!(proxy.status(), (2, 0, false), "it ends with the snapshot, not before");
    proxy.runtime.block_on(proxy.pods.snapshot_complete());

    assert_eq!(proxy.status(), (1, 0, true));
    assert!(server.connect("127.0.0.1:15008").is_err());
    assert!(client.connect("127.0.0.1:15008").is_ok());
}
