//! Two pods in network namespaces of their own, joined by a wire, with Istio's redirection rules, and a proxy in this
//! process that serves them. Skipped without root, `ip` or `nft`.
#![allow(dead_code, unreachable_pub)]

pub mod calm;
pub mod dialer;
pub mod observe;

use ca_client::CertificateManager;
use ca_server::testing::FixedRoot;
use model::{Address, Authorization, Change, State, StateConfig, Workload};
use policy::{ConnectionRegistry, Logging};
use proxy_core::discovery::Lookups;
use runtime::drain::Trigger;
use runtime::sys::Netns;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use ztunnel::enrolment::Pods;
use ztunnel::inpod::{DnsOptions, PodInfo, SocketOptions, Status};
use ztunnel::proxy::Shared;
use ztunnel::proxy::resolve::Names;
use ztunnel::workers::PodWorkers;

/// Rules of Istio's agent in a pod, for nft.
const RULES: &str = r#"
table ip istio {
    chain mangle_prerouting {
        type filter hook prerouting priority mangle;
        meta mark and 0xfff == 0x539 ct mark set 0x111
    }
    chain mangle_output {
        type route hook output priority mangle;
        ct mark and 0xfff == 0x111 meta mark set ct mark
    }
    chain nat_prerouting {
        type nat hook prerouting priority dstnat;
        ip daddr != 127.0.0.1 tcp dport != 15008 meta mark and 0xfff != 0x539 redirect to :15006
    }
    chain nat_output {
        type nat hook output priority -100;
        meta l4proto tcp meta mark and 0xfff == 0x111 accept
        ip daddr != 127.0.0.1 oifname "lo" accept
        ip daddr != 127.0.0.1 meta l4proto tcp meta mark and 0xfff != 0x539 redirect to :15001
    }
}
"#;

pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(command: &str) -> bool {
    let words: Vec<_> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).stderr(Stdio::null()).stdout(Stdio::null()).status();
    output.is_ok_and(|s| s.success())
}

/// A pod: a namespace with an address and Istio's rules. Removed when dropped.
pub struct Pod {
    pub namespace: String,
    pub name: &'static str,
    pub ip: &'static str,
    pub netns: Netns,
}

impl Pod {
    pub fn new(test: &str, name: &'static str, ip: &'static str) -> Option<Self> {
        let namespace = format!("strake-dp-{}-{test}-{name}", std::process::id());
        if !run(&format!("ip netns add {namespace}")) {
            return None;
        }
        let netns = Netns::open(format!("/run/netns/{namespace}")).ok()?;
        Some(Self { namespace, name, ip, netns })
    }

    pub fn exec(&self, command: &str) -> bool {
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
        let words = ["netns", "exec", &self.namespace, "nft", "-f", "-"];
        let mut child = Command::new("ip").args(words).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().ok_or(ErrorKind::BrokenPipe)?.write_all(RULES.as_bytes())?;
        Ok(child.wait()?.success())
    }

    pub fn connect(&self, to: &str) -> io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        let socket = self.netns.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    /// Returns whether the port refuses connections, now or soon: a program that another test starts at this moment holds a copy
    /// of a closed listener until it runs.
    pub fn refuses(&self, to: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.connect(to).is_err() {
                return true;
            }
            thread::yield_now();
        }
        false
    }

    pub fn listen(&self, address: &str) -> TcpListener {
        self.netns.run(|| TcpListener::bind(address)).unwrap()
    }

    pub fn info(&self) -> PodInfo {
        PodInfo { name: self.name.into(), namespace: "test".into(), service_account: format!("sa-{}", self.name) }
    }

    pub fn workload(&self, protocol: &str) -> Workload {
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

/// Authority of every workload of these tests.
pub fn root() -> FixedRoot {
    FixedRoot::new(identity::TrustDomain::default(), Duration::from_secs(3600)).unwrap()
}

/// A proxy in this process that serves both pods, or only those that are named.
pub struct Proxy {
    pub runtime: Runtime,
    pub state: State,
    pub policies: ConnectionRegistry,
    pub workers: Arc<PodWorkers>,
    pub pods: Pods,
    pub status: watch::Receiver<Status>,
    pub drain: Trigger,
}

impl Proxy {
    pub fn start(state: State, pods: &[&Pod]) -> Self {
        Self::start_with(state, pods, |_| {})
    }

    /// With other settings than usual.
    pub fn start_with(state: State, pods: &[&Pod], change: impl FnOnce(&mut Shared)) -> Self {
        Self::start_on(2, state, pods, change)
    }

    /// With so many workers.
    pub fn start_on(count: usize, state: State, pods: &[&Pod], change: impl FnOnce(&mut Shared)) -> Self {
        Self::start_all(count, state, pods, None, change)
    }

    /// Answers the pods' DNS questions, too.
    pub fn start_with_dns(count: usize, state: State, pods: &[&Pod], dns: DnsOptions) -> Self {
        Self::start_all(count, state, pods, Some(dns), |_| {})
    }

    fn start_all(
        count: usize,
        state: State,
        pods: &[&Pod],
        dns: Option<DnsOptions>,
        change: impl FnOnce(&mut Shared),
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (drain, watch) = runtime::drain::channel();
        let policies = ConnectionRegistry::new(state.clone(), Logging::Debug);
        state.set_policies_synced();
        let inside = runtime.enter();
        let mut shared = Shared {
            state: state.clone(),
            certificates: CertificateManager::spawn(Arc::new(root())),
            policies: policies.clone(),
            lookups: Lookups::default(),
            names: Names::none(),
            tunnels: hbone::Settings::default(),
            pool_limits: hbone::pool::Limits::default(),
            budgets: Arc::new(proxy_core::budget::Budgets::new(None)),
            drain: watch,
            localhost_app_tunnel: true,
            connect_retries: 3,
            response_baggage: true,
        };
        change(&mut shared);
        drop(inside);
        let workers = Arc::new(PodWorkers::start(count, &Arc::new(shared)).unwrap());
        let options = SocketOptions {
            mark: Some(1337),
            reuse_port: true,
            ipv6: true,
            preserve_source: None,
            keepalive: None,
            user_timeout: false,
            dns,
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

    pub fn add(&mut self, uid: &str, pod: &Pod) -> Result<(), String> {
        let netns = pod.netns.try_clone().unwrap();
        self.runtime.block_on(self.pods.add(uid.to_owned(), pod.info(), netns)).map_err(|e| e.to_string())
    }

    /// Active and pending pods, and readiness.
    pub fn status(&self) -> (usize, usize, bool) {
        let now = self.status.borrow();
        (now.active(), now.pending(), now.ready)
    }

    pub fn apply_policy(&self, policy: serde_json::Value) {
        let policy: Authorization = serde_json::from_value(policy).unwrap();
        self.state.apply_authorizations(vec![Change::Upsert(policy)]);
        self.policies.reevaluate();
    }
}

/// Two pods on one wire; `None` when the machine does not allow it.
pub fn two_pods(test: &str) -> Option<(Pod, Pod)> {
    let skip = || {
        assert!(std::env::var_os("CI").is_none(), "skipped: no root, ip or nft");
        eprintln!("skipped: no root, ip or nft");
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

pub fn state(client: &Pod, server: &Pod, server_protocol: &str) -> State {
    let state = State::new(StateConfig::default());
    let workloads = [client.workload("HBONE"), server.workload(server_protocol)];
    state.apply_addresses(workloads.into_iter().map(|w| Change::Upsert(Address::Workload(w))).collect());
    state
}

/// Echoes each connection until its end; answers with the client's address first.
pub fn echo_server(listener: TcpListener) {
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
pub fn exchange(mut socket: TcpStream, n: usize) -> (String, usize) {
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
