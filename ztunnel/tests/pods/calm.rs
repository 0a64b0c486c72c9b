//! What pods notice of a neighbour that misbehaves: the same thing measured by turns, with and without it. The bound leaves
//! room for a busy machine; `make bench BENCH="--only neighbours"` has the figures.
#![allow(dead_code, unreachable_pub)]

use super::{PATIENCE, Pod, echo_server, root, state, two_pods};
use hbone::{Settings, Tunnel, client};
use http::HeaderMap;
use identity::Identity;
use model::State;
use runtime::sys::Netns;
use runtime::sys::raise_nofile;
use runtime::sys::socket::set_mark;
use socket2::{Domain, Socket, Type};
use std::future::Future;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use telemetry::metrics::Recorder;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

/// How often the calm pod is measured, with the flood and without it.
const ROUNDS: usize = 20;
/// A second address of the client pod.
pub const OTHER: &str = "10.77.0.3";

/// The series of this process's metrics.
fn recorder() -> &'static Recorder {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    RECORDER.get_or_init(|| telemetry::metrics::install().unwrap())
}

pub fn assert_counted(series: &str) {
    let text = recorder().render();
    assert!(text.contains(series), "{series} is not in\n{text}");
}

/// Runs `work` on a thread like a worker's.
pub fn local<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

/// Two pods whose proxy has one worker, so that nothing but the budgets keeps them apart.
pub fn pods(test: &str) -> Option<(Pod, Pod, State)> {
    raise_nofile().unwrap();
    recorder();
    let (client, server) = two_pods(test)?;
    assert!(client.exec(&format!("ip addr add {OTHER}/24 dev eth0")));
    let state = state(&client, &server, "HBONE");
    for pod in [&client, &server] {
        echo_server(pod.listen("0.0.0.0:8080"));
    }
    Some((client, server, state))
}

/// A connection from `source` in a pod that no proxy beside the pod takes.
pub fn uncaptured(netns: &Netns, source: &str, to: SocketAddr) -> io::Result<Socket> {
    let socket = netns.run(|| Socket::new(Domain::IPV4, Type::STREAM, None))?;
    set_mark(&socket, 1337)?;
    socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket)
}

pub fn port(of: &Pod, port: u16) -> SocketAddr {
    SocketAddr::new(of.ip.parse::<IpAddr>().unwrap(), port)
}

pub fn tls(from: &Pod, to: &Pod) -> Arc<rustls::ClientConfig> {
    let identity =
        |pod: &Pod| format!("spiffe://cluster.local/ns/test/sa/sa-{}", pod.name).parse::<Identity>().unwrap();
    tls::client_config(&root().certificate(&identity(from)).unwrap(), &[identity(to)]).unwrap()
}

/// A way to open tunnels that needs no pod, so that a thread can own it.
pub struct Dialer {
    netns: Netns,
    source: String,
    to: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    pub settings: Settings,
}

impl Dialer {
    /// From `source` in `from` to the HBONE port of `to`, as `from`.
    pub fn new(from: &Pod, source: &str, to: &Pod) -> Self {
        Self {
            netns: from.netns.try_clone().unwrap(),
            source: source.to_owned(),
            to: port(to, 15008),
            tls: tls(from, to),
            settings: Settings::default(),
        }
    }

    pub async fn tunnel(&self) -> io::Result<Tunnel> {
        let socket = uncaptured(&self.netns, &self.source, self.to)?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpStream::from_std(socket.into())?;
        let (tls, ()) = tls::stream::connect(socket, self.tls.clone(), |_| ()).await?;
        let (tunnel, driver) = client::start(tls, &self.settings);
        spawn_local(driver);
        Ok(tunnel)
    }
}

/// A peer that misbehaves on a thread of its own, until it is dropped.
pub struct Misbehaving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Misbehaving {
    /// Starts `work`; returns when it says that it has begun.
    pub fn start<F>(work: impl FnOnce(oneshot::Sender<()>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()>,
    {
        let (stop, stopped) = oneshot::channel();
        let (begins, begun) = oneshot::channel();
        let thread = thread::spawn(move || {
            local(async {
                tokio::select! {
                    _ = stopped => {}
                    () = work(begins) => {}
                }
            });
        });
        begun.blocking_recv().expect("the peer begins");
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the peer has failed");
    }
}

/// How long a new tunnel and a connection on it take.
pub fn tunnelled(from: &Pod, source: &str, to: &Pod) -> Duration {
    let begun = Instant::now();
    local(async {
        let authority = port(to, 8080).to_string();
        let dialer = Dialer::new(from, source, to);
        let connected = async { dialer.tunnel().await.unwrap().connect(&authority, HeaderMap::new()).await };
        tokio::time::timeout(PATIENCE, connected).await.expect("served in time").unwrap();
    });
    begun.elapsed()
}

/// How long a connection in plain text takes.
pub fn plain(from: &Pod, to: &Pod) -> Duration {
    let begun = Instant::now();
    let mut socket: TcpStream = uncaptured(&from.netns, from.ip, port(to, 8080)).unwrap().into();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.read_exact(&mut [0; 4]).expect("served in time");
    begun.elapsed()
}

/// Measures `calm` by turns without and with a flood. The slowest of each, but for the worst one in twenty.
pub fn by_turns<T>(calm: impl Fn() -> Duration, flood: impl Fn() -> T) -> (Duration, Duration) {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    calm();
    for _ in 0..2 {
        without.extend((0..ROUNDS / 2).map(|_| calm()));
        let held = flood();
        with.extend((0..ROUNDS / 2).map(|_| calm()));
        drop(held);
    }
    let slow = |mut all: Vec<Duration>| {
        all.sort();
        all[all.len() * 95 / 100 - 1]
    };
    (slow(without), slow(with))
}

pub fn assert_undisturbed(name: &str, (without, with): (Duration, Duration)) {
    println!(
        "{name}: {without:?} without, {with:?} with the flood, ratio {:.2}",
        with.as_secs_f64() / without.as_secs_f64()
    );
    assert!(with <= 2 * without + Duration::from_millis(250), "{name}: {without:?} without, {with:?} with the flood");
}

/// Polls until `holds`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::yield_now();
    }
}
