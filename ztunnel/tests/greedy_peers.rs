//! A peer reads nothing, opens no window, or asks again and again: other pods, and other clients of the same pod, are served
//! as before.

mod pods;

use hbone::Settings;
use http::{HeaderMap, HeaderName, HeaderValue};
use pods::calm::{Misbehaving, OTHER, assert_undisturbed, by_turns, plain, pods, tunnelled};
use pods::dialer::{Dialer, port, uncaptured};
use pods::{Pod, Proxy};
use std::future::pending;
use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Streams of one tunnel whose bytes nobody takes.
const UNREAD: usize = 100;
/// Between two requests of a peer that asks again and again.
const PACE: Duration = Duration::from_millis(1);

/// Sends on each connection until that is reset.
fn fountain(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || while socket.write_all(&[7; 16 << 10]).is_ok() {})
                .unwrap();
        }
    });
}

/// Measures another pod, and another client of the pod that is asked, beside what `flood` does.
fn assert_nobody_is_disturbed(name: &str, client: &Pod, server: &Pod, flood: impl Fn() -> Misbehaving) {
    assert_undisturbed(&format!("{name}, another pod"), by_turns(|| tunnelled(server, server.ip, client), &flood));
    assert_undisturbed(&format!("{name}, another client"), by_turns(|| tunnelled(client, OTHER, server), &flood));
    assert_undisturbed(&format!("{name}, in plain text"), by_turns(|| plain(server, client), &flood));
}

/// Opens [`UNREAD`] streams to a server that sends without end, and never reads.
fn takes_nothing(dialer: Dialer, authority: String) -> Misbehaving {
    Misbehaving::start(move |begins| async move {
        let tunnel = dialer.tunnel().await.unwrap();
        let mut unread = Vec::new();
        for _ in 0..UNREAD {
            unread.push(tunnel.connect(&authority, HeaderMap::new()).await.unwrap());
        }
        let _ = begins.send(());
        pending().await
    })
}

#[test]
fn a_peer_that_never_reads_disturbs_nobody() {
    let Some((client, server, state)) = pods("unread") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});
    fountain(server.listen("0.0.0.0:8081"));
    let authority = port(&server, 8081).to_string();

    assert_nobody_is_disturbed("a peer that never reads", &client, &server, || {
        takes_nothing(Dialer::new(&client, client.ip, &server), authority.clone())
    });
}

#[test]
fn a_peer_that_never_opens_its_window_disturbs_nobody() {
    let Some((client, server, state)) = pods("window") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});
    fountain(server.listen("0.0.0.0:8081"));
    let authority = port(&server, 8081).to_string();

    assert_nobody_is_disturbed("a peer that never opens its window", &client, &server, || {
        let mut dialer = Dialer::new(&client, client.ip, &server);
        dialer.settings = Settings { stream_window_bytes: 0, ..Settings::default() };
        takes_nothing(dialer, authority.clone())
    });
}

/// Asks again and again on one tunnel, and on another one when that is closed.
fn asks(dialer: Dialer, authority: String, headers: HeaderMap, patience: Duration) -> Misbehaving {
    Misbehaving::start(move |begins| async move {
        let mut begins = Some(begins);
        loop {
            let Ok(tunnel) = dialer.tunnel().await else { continue };
            while tunnel.is_usable() {
                let asked = tunnel.connect(&authority, headers.clone());
                let _ = timeout(patience, asked).await;
                if let Some(begins) = begins.take() {
                    let _ = begins.send(());
                }
                sleep(PACE).await;
            }
        }
    })
}

#[test]
fn a_peer_that_opens_streams_and_gives_them_up_disturbs_nobody() {
    let Some((client, server, state)) = pods("streams") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});
    let authority = port(&server, 8080).to_string();

    assert_nobody_is_disturbed("streams that are given up", &client, &server, || {
        let dialer = Dialer::new(&client, client.ip, &server);
        // Reset as soon as the request is on its way.
        asks(dialer, authority.clone(), HeaderMap::new(), Duration::ZERO)
    });
}

#[test]
fn a_peer_that_sends_big_headers_disturbs_nobody() {
    let Some((client, server, state)) = pods("headers") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});
    let authority = port(&server, 8080).to_string();
    let filler = HeaderValue::from_str(&"f".repeat(7 << 10)).unwrap();
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-filler"), filler)]);

    assert_nobody_is_disturbed("big headers", &client, &server, || {
        let dialer = Dialer::new(&client, client.ip, &server);
        asks(dialer, authority.clone(), headers.clone(), Duration::from_secs(1))
    });
}

#[test]
fn a_pod_that_opens_connections_and_resets_them_disturbs_nobody() {
    let Some((client, server, state)) = pods("storm") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});
    let (source, to) = (client.ip, port(&server, 8080));

    assert_nobody_is_disturbed("connections that are reset", &client, &server, || {
        let netns = client.netns.try_clone().unwrap();
        Misbehaving::start(move |begins| async move {
            let mut begins = Some(begins);
            loop {
                if let Ok(socket) = uncaptured(&netns, source, to) {
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                }
                if let Some(begins) = begins.take() {
                    let _ = begins.send(());
                }
                sleep(PACE).await;
            }
        })
    });
}
