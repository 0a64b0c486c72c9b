//! One pod or one peer holds what it can get, and others are served as before. What is asked for again and again is in
//! `greedy_peers`.

mod pods;

use hbone::Tunnel;
use http::HeaderMap;
use pods::calm::{OTHER, assert_counted, assert_undisturbed, by_turns, plain, pods, tunnelled};
use pods::dialer::{Dialer, local, port, tls, uncaptured};
use pods::observe::eventually;
use pods::{Pod, Proxy};
use proxy_core::budget::Budgets;
use rustls::ClientConnection;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use ztunnel::proxy::{HANDSHAKES, SOURCE_TUNNELS};

/// The series that counts that somebody wanted more than a budget holds.
fn exceeded(budget: &str, owner: &str) -> String {
    format!("strake_budget_exceeded_total{{budget=\"{budget}\",owner=\"{owner}\"}}")
}

#[test]
fn first_bytes_of_thousands_of_handshakes_with_one_pod_delay_no_other_pod() {
    let Some((client, server, state)) = pods("bytes") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});
    let one_byte = || {
        let mut socket = TcpStream::from(uncaptured(&client.netns, client.ip, port(&server, 15008)).unwrap());
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
        let mut socket = TcpStream::from(uncaptured(&client.netns, client.ip, port(&server, 15008)).unwrap());
        socket.write_all(&hello).unwrap();
        socket
    };
    let flood = || (0..300).map(|_| silent()).collect::<Vec<_>>();

    let other_pod = by_turns(|| tunnelled(&server, server.ip, &client), flood);
    let other_client = by_turns(|| tunnelled(&client, OTHER, &server), flood);

    assert_undisturbed("whole ClientHellos, another pod", other_pod);
    assert_undisturbed("whole ClientHellos, another client", other_client);
    assert_counted(&exceeded("handshakes", "source"));
}

#[test]
fn a_pod_that_holds_all_descriptors_it_can_get_leaves_others_theirs() {
    let Some((client, server, state)) = pods("descriptors") else { return };
    let few = |shared: &mut ztunnel::proxy::Shared| shared.budgets = Arc::new(Budgets::new(Some(1200)));
    let proxy = Proxy::start_on(1, state, &[&client, &server], few);
    let flood = || {
        let held: Vec<_> =
            (0..600).map(|_| uncaptured(&client.netns, client.ip, port(&server, 8080)).unwrap()).collect();
        eventually("the pod holds what it can get", || used(&proxy, &server) >= 600);
        held
    };

    let times = by_turns(|| plain(&server, &client), flood);

    assert_undisturbed("descriptors", times);
    assert_counted(&exceeded("descriptors", "pod"));
    eventually("nothing is held any more", || used(&proxy, &server) == 0);
    plain(&client, &server);
}

#[test]
fn a_client_that_opens_tunnels_without_end_leaves_others_theirs() {
    let Some((client, server, state)) = pods("tunnels") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});

    local(async {
        let dialer = Dialer::new(&client, client.ip, &server);
        let mut held = Vec::new();
        for _ in 0..SOURCE_TUNNELS {
            held.push(dialer.tunnel().await.unwrap());
        }
        let connect = async |tunnel: &Tunnel| tunnel.connect("10.77.0.2:8080", HeaderMap::new()).await;

        // The handshake is over before the proxy counts.
        let refused = match dialer.tunnel().await {
            Ok(tunnel) => connect(&tunnel).await.is_err(),
            Err(_) => true,
        };
        let other = Dialer::new(&client, OTHER, &server).tunnel().await.unwrap();

        assert!(refused, "one more than the share");
        connect(&other).await.unwrap();
        connect(&held[0]).await.unwrap();
    });

    assert_counted(&exceeded("tunnels", "source"));
}

/// Descriptors that the connections of `pod` hold.
fn used(proxy: &Proxy, pod: &Pod) -> usize {
    let status = proxy.status.borrow();
    let running = status.pods.iter().find(|p| p.info.name == pod.name).and_then(|p| p.running.clone());
    running.unwrap().usage.descriptors()
}
