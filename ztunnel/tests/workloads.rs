//! Memory of the program by the number of workloads that discovery sends, while it has them and after they are gone. The
//! server is the control plane's, over plain TCP. The bounds are those of a debug build.

mod pods;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pods::{PATIENCE, Pod};
use prost::Message as _;
use proto::workload::{Address, TunnelProtocol, Workload, address};
use proto::{ADDRESS_TYPE_URL, Change};
use runtime::drain;
use tokio_stream::wrappers::TcpListenerStream;
use xds_server::{Cache, Options};

const WORKLOADS: u32 = 100_000;
/// Anonymous memory of a program without workloads, KiB.
const IDLE_KIB: usize = 8 << 10;
/// Memory that each workload may add, bytes.
const WORKLOAD_BYTES: usize = 1300;
/// Peak while a first answer is applied, as a multiple of what stays.
const PEAK_PERCENT: usize = 200;
/// More than idle, once all workloads are gone, KiB: the addresses of the last 64 Ki departed pods, which are refused for
/// an hour (7 MiB), and pages that the allocator still holds.
const KEPT_KIB: usize = 40 << 10;

/// Name and encoded form of a pod of a large mesh: 50 pods of a service account, 100 nodes.
fn workload(number: u32) -> Change {
    let name = format!("shop-{}-{number:05}", number / 50);
    let uid = format!("Kubernetes//Pod/namespace-{}/{name}", number % 200);
    let workload = Workload {
        uid: uid.clone(),
        namespace: format!("namespace-{}", number % 200),
        service_account: format!("account-{}", number / 50),
        workload_name: format!("shop-{}", number / 50),
        canonical_name: format!("shop-{}", number / 50),
        canonical_revision: "v1".to_owned(),
        node: format!("node-{}", number % 100),
        cluster_id: "Kubernetes".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        addresses: vec![Ipv4Addr::from_bits(0x0a00_0000 + number + 1).octets().to_vec()],
        name,
        ..Workload::default()
    };
    let value = Address { r#type: Some(address::Type::Workload(workload)) }.encode_to_vec().into();
    Change::Upsert { name: uid, version: "1".to_owned(), value }
}

fn name(change: &Change) -> String {
    match change {
        Change::Upsert { name, .. } | Change::Remove { name } => name.clone(),
    }
}

/// The program in the pod's namespace, killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn start(pod: &Pod, discovery: SocketAddr) -> Self {
        let child = Command::new("ip")
            .args(["netns", "exec", &pod.namespace, env!("CARGO_BIN_EXE_ztunnel")])
            .env("PROXY_MODE", "dedicated")
            .env("PROXY_WORKLOAD_INFO", "namespace-0/shop-0-00000/account-0")
            .env("XDS_ADDRESS", format!("http://{discovery}"))
            .env("CA_ADDRESS", "https://127.0.0.1:1")
            .env("CA_ROOT_CA", "SYSTEM")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// A line of a file of `/proc/<pid>`, KiB.
    fn kib(&self, file: &str, field: &str) -> usize {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel says so");
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    fn anonymous_kib(&self) -> usize {
        self.kib("smaps_rollup", "Anonymous:")
    }
}

fn page(pod: &Pod, port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut socket = pod.netns.run(|| TcpStream::connect_timeout(&address, PATIENCE)).ok()?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + 6 * PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Serves the cache within the namespace until the runtime ends.
fn serve(runtime: &tokio::runtime::Runtime, pod: &Pod, cache: Cache) -> (SocketAddr, drain::Trigger) {
    let listener = pod.netns.run(|| std::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, drain) = drain::channel();
    let service = xds_server::service(cache, Options::new(Arc::new(drop), drain));
    let identify = |mut request: tonic::Request<()>| {
        let identity = "spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap();
        request.extensions_mut().insert(identity::Caller { node: "node-0".to_owned(), identity });
        Ok(request)
    };
    let server =
        tonic::transport::Server::builder().layer(tonic::service::InterceptorLayer::new(identify)).add_service(service);
    runtime.spawn(async move {
        let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
        server.serve_with_incoming(incoming).await.unwrap();
    });
    (address, trigger)
}

#[test]
fn a_hundred_thousand_workloads_fit_into_their_budget_and_leave_nothing_behind() {
    let Some(pod) = Pod::new("workloads", "proxy", "127.0.0.1") else { return };
    assert!(pod.exec("ip link set lo up"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cache = Cache::new();
    let (address, _trigger) = serve(&runtime, &pod, cache.clone());
    cache.apply(ADDRESS_TYPE_URL, Vec::new());
    cache.mark_synced();
    let empty = Program::start(&pod, address);
    until("ready", || page(&pod, 15021, "/healthz/ready").filter(|answer| answer.starts_with("HTTP/1.1 200")));
    let idle = empty.anonymous_kib();
    drop(empty);

    let changes: Vec<Change> = (0..WORKLOADS).map(workload).collect();
    let names: Vec<String> = changes.iter().map(name).collect();
    cache.apply(ADDRESS_TYPE_URL, changes);
    let begun = Instant::now();
    let program = Program::start(&pod, address);
    until("ready", || page(&pod, 15021, "/healthz/ready").filter(|answer| answer.starts_with("HTTP/1.1 200")));
    let (ready, peak) = (begun.elapsed(), program.kib("status", "VmHWM:"));
    let file = program.kib("status", "RssFile:");
    let full = program.anonymous_kib();
    cache.apply(ADDRESS_TYPE_URL, names.into_iter().map(|name| Change::Remove { name }).collect::<Vec<_>>());
    let after = until("memory is given back", || {
        let after = program.anonymous_kib();
        (after <= idle + KEPT_KIB).then_some(after)
    });

    let each = (full - idle) * 1024 / WORKLOADS as usize;
    println!(
        "idle {idle} KiB; {WORKLOADS} workloads: ready after {ready:.1?}, {full} KiB ({each} bytes for each), peak {} KiB, {after} KiB after them",
        peak - file
    );
    assert!(idle <= IDLE_KIB, "{idle} KiB idle");
    assert!(each <= WORKLOAD_BYTES, "{each} bytes for each workload");
    assert!((peak - file) * 100 <= full * PEAK_PERCENT, "peak of {} KiB for {full} KiB", peak - file);
}
