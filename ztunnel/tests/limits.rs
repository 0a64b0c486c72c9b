//! Limits of a proxy: peers that open and give up, many connections, authorities and applications that do not
//! answer, work that comes during a drain.

mod pods;

use ca_client::{CertificateManager, CertificateSource, SourceError};
use futures::future::BoxFuture;
use hbone::headers::{Baggage, FORWARDED_NETWORK};
use http::{HeaderMap, HeaderValue, StatusCode};
use identity::Identity;
use model::{Address, Change};
use pods::dialer::{Dialer, local, port, uncaptured};
use pods::observe::{eventually, open_connections, tunnels_from};
use pods::{PATIENCE, Pod, Proxy, echo_server, exchange, state, two_pods};
use std::io::{ErrorKind, Read};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tls::WorkloadCertificate;
use ztunnel::proxy::HANDSHAKES;

#[test]
fn a_peer_that_opens_and_resets_streams_keeps_little_busy_and_others_are_served() {
    let Some((client, server)) = two_pods("rapid") else { return };
    let proxy = Proxy::start(state(&client, &server, "HBONE"), &[&server]);
    echo_server(server.listen("0.0.0.0:8080"));

    let most = local(async {
        let flood = Dialer::new(&client, client.ip, &server).tunnel().await.unwrap();
        let mut most = 0;
        for i in 0..20_000 {
            // Given up as soon as the request is on its way.
            let asked = flood.connect("10.77.0.2:8080", HeaderMap::new());
            let _ = tokio::time::timeout(Duration::ZERO, asked).await;
            if i % 50 == 0 {
                tokio::task::yield_now().await;
                most = most.max(open_connections(&proxy, &server));
            }
            if !flood.is_usable() {
                break;
            }
        }
        let other = Dialer::new(&client, client.ip, &server).tunnel().await.unwrap();
        let asked = other.connect("10.77.0.2:8080", HeaderMap::new());
        tokio::time::timeout(PATIENCE, asked).await.expect("others are served").unwrap();
        most
    });

    let bound = 2 * hbone::Settings::default().max_concurrent_streams as usize;
    assert!(most <= bound, "{most} at once, at most {bound} are meant to be");
    eventually("nothing of the flood is left", || open_connections(&proxy, &server) == 0);
}

#[test]
fn who_says_nothing_keeps_nobody_from_a_handshake() {
    let Some((client, server)) = two_pods("mute") else { return };
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&server]);
    echo_server(server.listen("0.0.0.0:8080"));
    // More than both workers have places, however they share them.
    let connect = || {
        let socket = uncaptured(&client.netns, client.ip, port(&server, 15008)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let silent: Vec<_> = (0..2 * HANDSHAKES + 100).map(|_| connect()).collect();

    local(async {
        let other = Dialer::new(&client, client.ip, &server).tunnel().await.unwrap();
        other.connect("10.77.0.2:8080", HeaderMap::new()).await.unwrap();
    });

    // All the time that a handshake may take, they would have been in the way.
    for socket in &silent {
        let read = socket.peek(&mut [MaybeUninit::new(0)]);
        assert_eq!(read.map_err(|e| e.kind()), Err(ErrorKind::WouldBlock), "given up already");
    }
}

#[test]
fn a_tunnel_that_is_full_gets_another_beside_it() {
    const STREAMS: usize = 10;
    let Some((client, server)) = two_pods("full") else { return };
    let change = |shared: &mut ztunnel::proxy::Shared| shared.pool_limits.streams = STREAMS;
    let _proxy = Proxy::start_with(state(&client, &server, "HBONE"), &[&client, &server], change);
    echo_server(server.listen("0.0.0.0:8080"));

    let mut open: Vec<_> = (0..45).map(|_| client.connect("10.77.0.2:8080").unwrap()).collect();
    for socket in &mut open {
        socket.read_exact(&mut [0; 10]).unwrap();
    }

    // Two workers share the connections, and each has tunnels of its own.
    let tunnels = tunnels_from(&client);
    assert!((45usize.div_ceil(STREAMS)..=45usize.div_ceil(STREAMS) + 1).contains(&tunnels), "{tunnels} tunnels");
    for socket in open {
        assert_eq!(exchange_rest(socket), 1000);
    }
}

/// As [`exchange`], when the server's line has been read.
fn exchange_rest(mut socket: std::net::TcpStream) -> usize {
    use std::io::Write;
    socket.write_all(&[7; 1000]).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    all.len()
}

#[test]
fn a_certificate_that_never_comes_ends_the_connection_in_time() {
    struct Silent;
    impl CertificateSource for Silent {
        fn fetch(&self, _: &Identity) -> BoxFuture<'_, Result<WorkloadCertificate, SourceError>> {
            Box::pin(std::future::pending())
        }
    }
    let Some((client, server)) = two_pods("silent") else { return };
    let change =
        |shared: &mut ztunnel::proxy::Shared| shared.certificates = CertificateManager::spawn(Arc::new(Silent));
    let _proxy = Proxy::start_with(state(&client, &server, "HBONE"), &[&client], change);

    let begun = Instant::now();
    let mut socket = client.connect("10.77.0.2:8080").unwrap();
    socket.set_read_timeout(Some(2 * ztunnel::proxy::dial::CONNECT_TIMEOUT)).unwrap();

    // Goes on when a signal interrupts it.
    let ended = socket.read_exact(&mut [0]).map_err(|e| e.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset), "neither data nor an end nor a wait without one");
    assert!(begun.elapsed() >= ztunnel::proxy::dial::CONNECT_TIMEOUT, "given up before its time");
}

#[test]
fn a_proxy_that_drains_takes_no_new_pod() {
    let Some((client, server)) = two_pods("late") else { return };
    let mut proxy = Proxy::start(state(&client, &server, "HBONE"), &[&server]);
    proxy.drain.start(PATIENCE);
    let workers = proxy.workers.clone();
    proxy.runtime.block_on(async move { workers.threads().drain().await });

    let refused = proxy.add("late", &client).unwrap_err();

    assert!(refused.contains("drains"), "{refused}");
    assert!(client.refuses("127.0.0.1:15008"), "and yet it listens");
}

#[test]
fn only_a_gateway_of_another_network_may_say_who_a_client_is() {
    let Some((client, server)) = two_pods("gateway") else { return };
    let state = state(&client, &server, "HBONE");
    let proxy = Proxy::start(state.clone(), &[&server]);
    echo_server(server.listen("0.0.0.0:8080"));
    let told = Baggage { namespace: "far".into(), workload_name: "away".into(), ..Baggage::default() };
    let described = HeaderMap::from_iter([
        (hbone::headers::BAGGAGE, told.to_header().unwrap()),
        (FORWARDED_NETWORK, HeaderValue::from_static("other-network")),
    ]);
    let recorder = telemetry::metrics::install().unwrap();
    let connect = || {
        local(async {
            let tunnel = Dialer::new(&client, client.ip, &server).tunnel().await.unwrap();
            tunnel.connect("10.77.0.2:8080", described.clone()).await.unwrap();
        });
        eventually("the connection is over", || open_connections(&proxy, &server) == 0);
        recorder.render()
    };

    let stranger = connect();
    assert!(stranger.contains("source_workload_namespace=\"test\""), "{stranger}");
    assert!(!stranger.contains("source_workload_namespace=\"far\""), "anybody is believed");

    let mut remote = server.workload("HBONE");
    remote.uid = "Kubernetes//Pod/far/away".into();
    remote.workload_ips.clear();
    remote.network = "other-network".into();
    remote.network_gateway = serde_json::from_value(serde_json::json!({
        "destination": format!("/{}", client.ip), "hboneMtlsPort": 15008,
    }))
    .unwrap();
    state.apply_addresses(vec![Change::Upsert(Address::Workload(remote))]);
    let gateway = connect();
    assert!(gateway.contains("source_workload_namespace=\"far\""), "{gateway}");
}

#[test]
fn what_is_no_connect_or_names_no_address_of_the_pod_is_refused() {
    let Some((client, server)) = two_pods("wrong") else { return };
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&server]);

    local(async {
        let tunnel = Dialer::new(&client, client.ip, &server).tunnel().await.unwrap();
        for (authority, expected) in [
            ("10.77.0.9:8080", StatusCode::BAD_REQUEST),
            ("10.77.0.2:15008", StatusCode::SERVICE_UNAVAILABLE),
            ("nowhere.test.svc:80", StatusCode::SERVICE_UNAVAILABLE),
            ("10.77.0.2:8081", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let refused = tunnel.connect(authority, HeaderMap::new()).await.unwrap_err();

            assert!(matches!(refused, hbone::ConnectError::Status(s) if s == expected), "{authority}: {refused}");
        }
    });
}

/// Error that the client of a stream sees when the application resets its connection at once.
async fn reset_seen_by(client: &Pod, server: &Pod, headers: HeaderMap) -> String {
    let tunnel = Dialer::new(client, client.ip, server).tunnel().await.unwrap();
    let accepted = tunnel.connect("10.77.0.2:8080", headers).await.unwrap();
    let (mut send, mut recv) = accepted.stream.split();
    send.send("go".into()).await.unwrap();
    let seen = tokio::time::timeout(PATIENCE, recv.data()).await.expect("the client is not left waiting");
    format!("{:?}", seen.unwrap_err())
}

#[test]
fn a_peer_is_told_of_a_loss_by_cancel_whatever_headers_it_sends() {
    let Some((client, server)) = two_pods("losses") else { return };
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&server]);
    let listener = server.listen("0.0.0.0:8080");
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            // Reset before it has connected, the connection would be refused.
            socket.read_exact(&mut [0]).unwrap();
            socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
    });

    local(async {
        let plain = reset_seen_by(&client, &server, HeaderMap::new()).await;
        // A proxy in between, such as Envoy's waypoint, may pass any header on that it does not know.
        let unknown = http::HeaderName::from_static("x-strake-passes-resets");
        let headers = HeaderMap::from_iter([(unknown, HeaderValue::from_static("1"))]);
        let with_header = reset_seen_by(&client, &server, headers).await;

        assert_eq!((plain.as_str(), with_header.as_str()), ("Reset(Cancel)", "Reset(Cancel)"));
    });
}

#[test]
fn two_hundred_connections_at_once_share_few_tunnels() {
    let Some((client, server)) = two_pods("many") else { return };
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&client, &server]);
    echo_server(server.listen("0.0.0.0:8080"));

    let open: Vec<_> = (0..200).map(|_| client.connect("10.77.0.2:8080").unwrap()).collect();
    for socket in open {
        assert_eq!(exchange(socket, 1000), (client.ip.to_owned(), 1000));
    }

    assert!(tunnels_from(&client) <= 4, "{}", tunnels_from(&client));
}
