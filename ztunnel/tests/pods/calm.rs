//! Effect of a misbehaving neighbour on pods: the same thing measured by turns, with and without it. The bound leaves
//! room for a busy machine; `make bench BENCH="--only neighbours"` has the figures.
#![allow(dead_code, unreachable_pub)]

use super::dialer::{Dialer, local, port, uncaptured};
use super::{PATIENCE, Pod, echo_server, state, two_pods};
use http::HeaderMap;
use model::State;
use runtime::sys::raise_nofile;
use std::future::Future;
use std::io::Read;
use std::net::TcpStream;
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use telemetry::metrics::Recorder;
use tokio::sync::oneshot;

/// Number of measurements of the calm pod, with the flood and without it.
const ROUNDS: usize = 20;
/// A second address of the client pod.
pub const OTHER: &str = "10.77.0.3";

/// The series of this process's metrics, from the first call on.
pub fn recorder() -> &'static Recorder {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    RECORDER.get_or_init(|| telemetry::metrics::install().unwrap())
}

pub fn assert_counted(series: &str) {
    let text = recorder().render();
    assert!(text.contains(series), "{series} is not in\n{text}");
}

/// Value of a series; zero as long as nothing was counted.
pub fn counted(series: &str) -> f64 {
    let text = recorder().render();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or_default()
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

/// Time of a new tunnel and a connection on it.
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

/// Time of a connection in plain text.
pub fn plain(from: &Pod, to: &Pod) -> Duration {
    let begun = Instant::now();
    let mut socket: TcpStream = uncaptured(&from.netns, from.ip, port(to, 8080)).unwrap().into();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.read_exact(&mut [0; 4]).expect("served in time");
    begun.elapsed()
}

/// The slowest of several measurements, but for the worst one in twenty.
pub struct Slowest {
    without_flood: Duration,
    with_flood: Duration,
}

/// Measures `calm` by turns without and with a flood.
pub fn by_turns<T>(calm: impl Fn() -> Duration, flood: impl Fn() -> T) -> Slowest {
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
    Slowest { without_flood: slow(without), with_flood: slow(with) }
}

pub fn assert_undisturbed(name: &str, slowest: Slowest) {
    let Slowest { without_flood: without, with_flood: with } = slowest;
    println!(
        "{name}: {without:?} without, {with:?} with the flood, ratio {:.2}",
        with.as_secs_f64() / without.as_secs_f64()
    );
    assert!(with <= 2 * without + Duration::from_millis(250), "{name}: {without:?} without, {with:?} with the flood");
}
