//! One pod or one peer misbehaves, and others are served as before. In each test the same thing is measured by turns, with
//! and without the flood; the bound leaves room for a busy machine.

mod pods;

use hbone::{Tunnel, client};
use http::HeaderMap;
use identity::Identity;
use model::State;
use pods::{PATIENCE, Pod, Proxy, echo_server, root, state, two_pods};
use runtime::sys::raise_nofile;
use runtime::sys::socket::set_mark;
use rustls::ClientConnection;
use socket2::{Domain, Socket, Type};
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use telemetry::metrics::Recorder;
use tokio::task::{LocalSet, spawn_local};
use ztunnel::budget::Budgets;
use ztunnel::workers::{HANDSHAKES, SOURCE_TUNNELS};

/// How often the calm pod is measured, with the flood and without it.
const ROUNDS: usize = 20;
/// A second address of the client pod.
const OTHER: &str = "10.77.0.3";

/// The series of this process's metrics.
fn recorder() -> &'static Recorder {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    RECORDER.get_or_init(|| telemetry::metrics::install().unwrap())
}

fn assert_counted(budget: &str, owner: &str) {
    let series = format!("strake_budget_exceeded_total{{budget=\"{budget}\",owner=\"{owner}\"}}");
    let text = recorder().render();
    assert!(text.contains(&series), "{series} is not in\n{text}");
}

/// Runs `work` on a thread like a worker's.
fn local<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

/// Two pods whose proxy has one worker, so that nothing but the budgets keeps them apart.
fn pods(test: &str) -> Option<(Pod, Pod, State)> {
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

/// A connection that no proxy beside `from` takes.
fn uncaptured(from: &Pod, source: &str, to: SocketAddr) -> io::Result<Socket> {
    let socket = from.netns.run(|| Socket::new(Domain::IPV4, Type::STREAM, None))?;
    set_mark(&socket, 1337)?;
    socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket)
}

fn port(of: &Pod, port: u16) -> SocketAddr {
    SocketAddr::new(of.ip.parse::<IpAddr>().unwrap(), port)
}

fn tls(from: &Pod, to: &Pod) -> Arc<rustls::ClientConfig> {
    let identity =
        |pod: &Pod| format!("spiffe://cluster.local/ns/test/sa/sa-{}", pod.name).parse::<Identity>().unwrap();
    tls::client_config(&root().certificate(&identity(from)).unwrap(), &[identity(to)]).unwrap()
}

async fn tunnel(from: &Pod, source: &str, to: &Pod) -> io::Result<Tunnel> {
    let socket = uncaptured(from, source, port(to, 15008))?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpStream::from_std(socket.into())?;
    let (tls, ()) = tls::stream::connect(socket, tls(from, to), |_| ()).await?;
    let (tunnel, driver) = client::start(tls, &hbone::Settings::default());
    spawn_local(driver);
    Ok(tunnel)
}

/// How long a new tunnel and a connection on it take.
fn tunnelled(from: &Pod, source: &str, to: &Pod) -> Duration {
    let begun = Instant::now();
    local(async {
        let authority = port(to, 8080).to_string();
        let connected = async { tunnel(from, source, to).await.unwrap().connect(&authority, HeaderMap::new()).await };
        tokio::time::timeout(PATIENCE, connected).await.expect("served in time").unwrap();
    });
    begun.elapsed()
}

/// How long a connection in plain text takes.
fn plain(from: &Pod, to: &Pod) -> Duration {
    let begun = Instant::now();
    let mut socket: TcpStream = uncaptured(from, from.ip, port(to, 8080)).unwrap().into();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.read_exact(&mut [0; 4]).expect("served in time");
    begun.elapsed()
}

/// Measures `calm` by turns without and with a flood. The slowest of each, but for the worst one in twenty.
fn by_turns<T>(calm: impl Fn() -> Duration, flood: impl Fn() -> T) -> (Duration, Duration) {
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

fn assert_undisturbed(name: &str, (without, with): (Duration, Duration)) {
    println!(
        "{name}: {without:?} without, {with:?} with the flood, ratio {:.2}",
        with.as_secs_f64() / without.as_secs_f64()
    );
    assert!(with <= 2 * without + Duration::from_millis(250), "{name}: {without:?} without, {with:?} with the flood");
}

#[test]
fn first_bytes_of_thousands_of_handshakes_with_one_pod_delay_no_other_pod() {
    let Some((client, server, state)) = pods("bytes") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});
    let one_byte = || {
        let mut socket = TcpStream::from(uncaptured(&client, client.ip, port(&server, 15008)).unwrap());
        socket.write_all(&[22]).unwrap();
        socket
    };

    let times = by_turns(
        || tunnelled(&server, server.ip, &client),
        || (0..2 * HANDSHAKES + 252).map(|_| one_byte()).collect::<Vec<_>>(),
    );

    assert_undisturbed("one byte of a ClientHello", times);
}

#[test]
fn handshakes_that_stand_still_delay_neither_another_pod_nor_another_client_of_the_same() {
    let Some((client, server, state)) = pods("hellos") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});
    let mut hello = Vec::new();
    let mut session = ClientConnection::new(tls(&client, &server), tls::server_name()).unwrap();
    session.write_tls(&mut hello).unwrap();
    let silent = || {
        let mut socket = TcpStream::from(uncaptured(&client, client.ip, port(&server, 15008)).unwrap());
        socket.write_all(&hello).unwrap();
        socket
    };
    let flood = || (0..300).map(|_| silent()).collect::<Vec<_>>();

    let other_pod = by_turns(|| tunnelled(&server, server.ip, &client), flood);
    let other_client = by_turns(|| tunnelled(&client, OTHER, &server), flood);

    assert_undisturbed("whole ClientHellos, another pod", other_pod);
    assert_undisturbed("whole ClientHellos, another client", other_client);
    assert_counted("handshakes", "source");
}

#[test]
fn a_pod_that_holds_all_descriptors_it_can_get_leaves_others_theirs() {
    let Some((client, server, state)) = pods("descriptors") else { return };
    let few = |shared: &mut ztunnel::proxy::Shared| shared.budgets = Arc::new(Budgets::new(Some(1200)));
    let proxy = Proxy::start_on(1, state, &[&client, &server], few);
    let flood = || {
        let held: Vec<_> = (0..600).map(|_| uncaptured(&client, client.ip, port(&server, 8080)).unwrap()).collect();
        eventually("the pod holds what it can get", || used(&proxy, &server) >= 600);
        held
    };

    let times = by_turns(|| plain(&server, &client), flood);

    assert_undisturbed("descriptors", times);
    assert_counted("descriptors", "pod");
    eventually("nothing is held any more", || used(&proxy, &server) == 0);
    plain(&client, &server);
}

#[test]
fn a_client_that_opens_tunnels_without_end_leaves_others_theirs() {
    let Some((client, server, state)) = pods("tunnels") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});

    local(async {
        let mut held = Vec::new();
        for _ in 0..SOURCE_TUNNELS {
            held.push(tunnel(&client, client.ip, &server).await.unwrap());
        }
        let connect = async |tunnel: &Tunnel| tunnel.connect("10.77.0.2:8080", HeaderMap::new()).await;

        // The handshake is over before the proxy counts.
        let refused = match tunnel(&client, client.ip, &server).await {
            Ok(tunnel) => connect(&tunnel).await.is_err(),
            Err(_) => true,
        };
        let other = tunnel(&client, OTHER, &server).await.unwrap();

        assert!(refused, "one more than the share");
        connect(&other).await.unwrap();
        connect(&held[0]).await.unwrap();
    });

    assert_counted("tunnels", "source");
}

/// Descriptors that the connections of `pod` hold.
fn used(proxy: &Proxy, pod: &Pod) -> usize {
    let status = proxy.status.borrow();
    let running = status.pods.iter().find(|p| p.info.name == pod.name).and_then(|p| p.running.clone());
    running.unwrap().usage.descriptors()
}

/// Polls until `holds`.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}
