//! The whole path of a connection between two pods, through our listeners on both sides.

mod pods;

use pods::{PATIENCE, Proxy, echo_server, exchange, state, two_pods};
use std::io::{ErrorKind, Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

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
    assert!(server.exec("nft flush chain ip istio nat_prerouting"));
    let _proxy = Proxy::start(state(&client, &server, "TCP"), &[&client]);
    echo_server(server.listen("0.0.0.0:8080"));

    assert_eq!(exchange(client.connect("10.77.0.2:8080").unwrap(), 1_000_000), (client.ip.to_owned(), 1_000_000));
}

#[test]
fn plain_text_from_outside_reaches_a_captured_pod_with_its_address() {
    let Some((client, server)) = two_pods("plainin") else { return };
    assert!(client.exec("nft flush chain ip istio nat_output"));
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
    // The reset may come before the client has seen that it was connected.
    let refused = client.connect("10.77.0.2:8080").and_then(|mut socket| socket.read(&mut line));
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "a new connection is allowed");
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
    // Goes on when a signal interrupts it.
    assert_eq!(open.read_exact(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_application_on_loopback_stays_unreachable() {
    let Some((client, server)) = two_pods("loopback") else { return };
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&client, &server]);
    echo_server(server.listen("127.0.0.1:8080"));

    let refused = client.connect("10.77.0.2:8080").and_then(|mut socket| socket.read(&mut [0; 10]));

    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
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
    assert!(server.refuses("127.0.0.1:15008"));
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
    let drained = proxy.runtime.spawn(async move { workers.threads().drain().await });
    open.write_all(b"still here").unwrap();
    open.read_exact(&mut line).unwrap();

    assert_eq!(&line, b"still here");
    assert!(proxy.runtime.block_on(drained).unwrap() > 0, "something was left to cut");
    assert!(open.read(&mut line).is_err(), "a connection that was cut looks like one that has ended");
    assert!(server.refuses("127.0.0.1:15008"));
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
    assert!(client.refuses("127.0.0.1:15008"));
    assert!(server.connect("127.0.0.1:15008").is_ok());
}

#[test]
fn a_pod_whose_port_is_taken_fails_alone_and_starts_once_it_is_free() {
    let Some((client, server)) = two_pods("taken") else { return };
    let mut proxy = Proxy::start(state(&client, &server, "HBONE"), &[]);
    let taken = client.listen("0.0.0.0:15006");

    let refused = proxy.add("uid", &client).unwrap_err();

    assert!(refused.starts_with("failed to bind to address [::]:15006"), "{refused}");
    assert_eq!(proxy.status(), (0, 1, true), "one pod decides about the node");
    assert!(client.refuses("127.0.0.1:15008"), "half a pod was started");
    drop(taken);
    // A program that another test starts at this moment holds a copy of the listener until it runs.
    let deadline = Instant::now() + PATIENCE;
    while proxy.status() != (1, 0, true) && Instant::now() < deadline {
        proxy.runtime.block_on(proxy.pods.retry());
    }
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
    assert!(server.refuses("127.0.0.1:15008"));
    assert!(client.connect("127.0.0.1:15008").is_ok());
}
