//! Tunnels of clients and to endpoints, and connections that are not HTTP.

use crate::common::client::{Client, answer, request};
use crate::common::node_proxy::{NodeProxy, pattern};
use crate::common::server::Server;
use crate::common::{HOST, Lab, default_route, forward, identity, test};
use bytes::Bytes;
use hbone::{ConnectError, Settings};
use http::Method;
use model::{Address, Change, Workload};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::sleep;
use waypoint_config::AppProtocol;

fn refused(result: Result<hbone::StreamIo, ConnectError>) -> u16 {
    match result {
        Err(ConnectError::Status(status)) => status.as_u16(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_services_of_the_waypoint_are_reached_by_address_or_name() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        lab.add_service("other", "10.96.0.2");
        let client = lab.client().await;

        for authority in ["10.96.0.1:80", "web.shop.svc.cluster.local:80"] {
            let mut stream = client.open_to(authority).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with("\r\n\r\none"), "{text}");
        }
        for (authority, status) in [
            // Another port, a service of another waypoint, nobody, and what is no authority.
            ("10.96.0.1:81", 503),
            ("10.96.0.2:80", 503),
            ("10.96.0.3:80", 503),
            ("other.shop.svc.cluster.local:80", 503),
            ("10.96.0.1", 400),
        ] {
            assert_eq!(refused(client.open_to(authority).await), status, "{authority}");
        }
    });
}

fn workload(name: &str, at: SocketAddr, waypoint: Option<&str>) -> Workload {
    let waypoint = waypoint.map(|to| serde_json::json!({"destination": to, "hboneMtlsPort": 15008}));
    let mut text = serde_json::json!({
        "uid": format!("Kubernetes//Pod/shop/{name}"), "name": name, "namespace": "shop", "serviceAccount": name,
        "workloadIps": [at.ip()], "protocol": "HBONE",
    });
    if let Some(waypoint) = waypoint {
        text["waypoint"] = waypoint;
    }
    serde_json::from_value(text).unwrap()
}

#[test]
fn a_workload_that_has_this_waypoint_is_reached_and_no_other() {
    test(async {
        let (lab, server) = (Lab::start(vec![]).await, Server::named("pod").await);
        let proxy = NodeProxy::start("bound", server.address, Settings::default()).await;
        let other = NodeProxy::start("unbound", server.address, Settings::default()).await;
        let own: SocketAddr = "10.1.0.1:0".parse().unwrap();
        let changes = [
            workload("waypoint", own, None),
            workload("bound", SocketAddr::new(proxy.ip, 0), Some("/10.1.0.1")),
            workload("unbound", SocketAddr::new(other.ip, 0), None),
        ];
        let changes = changes.map(|w| Change::Upsert(Address::Workload(w)));
        lab.shared.state.apply_addresses(changes.into());
        let client = lab.client().await;

        let mut stream = client.open_to(&format!("{}:8080", proxy.ip)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();

        assert!(text.ends_with("\r\n\r\npod"), "{text}");
        assert_eq!(*proxy.connects.borrow(), [format!("{}:8080", proxy.ip)]);
        assert_eq!(refused(client.open_to(&format!("{}:8080", other.ip)).await), 503);
        assert_eq!(other.tunnels.get(), 0);
    });
}

#[test]
fn more_streams_than_are_announced_do_not_close_the_tunnel() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        let client = Rc::new(lab.client().await);
        let mut held = Vec::new();
        for _ in 0..200 {
            held.push(client.open().await);
        }

        // The 201st waits until there is room.
        let waiting = client.clone();
        let next = spawn_local(async move { waiting.get("/").await.status });
        sleep(Duration::from_millis(50)).await;
        assert!(!next.is_finished());
        let mut first = held.remove(0);
        first.shutdown().await.unwrap();
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
        drop(first);

        assert_eq!(next.await.unwrap(), 200);
        for stream in &mut held {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
        }
        for stream in &mut held {
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
        }
    });
}

#[test]
fn the_streams_of_one_tunnel_are_served_by_all_workers() {
    test(async {
        let lab = Lab::with(3, AppProtocol::Http1, vec![default_route()]).await;
        let server = Server::answering(|seen| http::Response::new(http_body_util::Full::new(seen.body.clone()))).await;
        lab.add_endpoint("web-1", "web", server.address);
        let client = lab.client().await;
        let mut senders = Vec::new();
        for _ in 0..60 {
            senders.push(client.http1().await);
        }

        let body = pattern(300_000);
        for sender in &mut senders {
            let response = sender.send_request(crate::common::client::post("/", body.clone())).await.unwrap();
            assert_eq!(answer(response).await.unwrap().body.len(), String::from_utf8_lossy(&body).len());
        }

        // One after the other, so one connection of each worker's own pool is enough.
        assert_eq!(server.connections.get(), 3);
        assert_eq!(lab.lines(60).await.len(), 60);
    });
}

#[test]
fn a_burst_of_new_connections_through_a_cold_waypoint_is_answered() {
    test(async {
        let (lab, server) = (Lab::with(2, AppProtocol::Http1, vec![default_route()]).await, Server::named("one").await);
        let proxy = NodeProxy::start("web-1", server.address, Settings::default()).await;
        lab.add_workload("web-1", "web", SocketAddr::new(proxy.ip, 8080), "HBONE");
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(Rc::new(lab.client().await));
        }

        let mut burst = JoinSet::new();
        for number in 0..1000 {
            let client: Rc<Client> = clients[number % 10].clone();
            burst.spawn_local(async move { client.get("/").await.status });
        }
        let statuses = burst.join_all().await;

        let failed = statuses.iter().filter(|status| **status != 200).count();
        assert_eq!((statuses.len(), failed), (1000, 0));
    });
}

/// Requests without pause until told to stop; the next waypoint when one closes. Returns answers that were not 200, and errors.
async fn load(labs: Rc<Vec<Lab>>, stop: Rc<Cell<bool>>, done: Rc<Cell<usize>>) -> Vec<String> {
    let mut failures = Vec::new();
    for lab in labs.iter() {
        let client = lab.client().await;
        while !stop.get() && client.0.is_usable() {
            let Ok(stream) = client.open_to(crate::common::WEB).await else { break };
            let io = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await.unwrap();
            spawn_local(driver);
            while !stop.get() && sender.ready().await.is_ok() {
                match sender.send_request(request(Method::GET, "/a")).await {
                    Ok(response) => {
                        let answer = answer(response).await;
                        if !matches!(&answer, Ok(a) if a.status == 200) {
                            failures.push(format!("{answer:?}"));
                        }
                    }
                    Err(error) => failures.push(format!("{error:?}")),
                }
                done.set(done.get() + 1);
            }
        }
    }
    failures
}

async fn until(done: &Cell<usize>, count: usize) {
    while done.get() < count {
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_drain_under_load_fails_no_request() {
    test(async {
        let server = Server::named("one").await;
        let labs = [Lab::start(vec![default_route()]).await, Lab::start(vec![default_route()]).await];
        for lab in &labs {
            lab.add_endpoint("web-1", "web", server.address);
        }
        let (labs, stop, done) = (Rc::new(Vec::from(labs)), Rc::<Cell<bool>>::default(), Rc::<Cell<usize>>::default());
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            clients.spawn_local(load(labs.clone(), stop.clone(), done.clone()));
        }
        until(&done, 200).await;

        labs[0].drain.start(Duration::from_secs(10));
        let cut = labs[0].workers.threads().drain().await;
        let drained = done.get();
        until(&done, drained + 200).await;
        stop.set(true);

        let failures: Vec<_> = clients.join_all().await.concat();
        assert_eq!((cut, failures), (0, vec![]));
    });
}

#[test]
fn a_thousand_changes_of_routes_under_load_fail_no_request() {
    test(async {
        let server = Server::named("one").await;
        let lab = Lab::start(vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let (labs, stop, done) = (Rc::new(vec![lab]), Rc::<Cell<bool>>::default(), Rc::<Cell<usize>>::default());
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            clients.spawn_local(load(labs.clone(), stop.clone(), done.clone()));
        }

        for change in 0..1000 {
            let further = (0..change % 5).map(|n| crate::common::below(&format!("/{n}"), forward(|_| {})));
            let routes = further.chain([default_route()]).collect();
            labs[0].configure(HOST, AppProtocol::Http1, routes);
            tokio::task::yield_now().await;
        }
        until(&done, 200).await;
        stop.set(true);

        let failures: Vec<_> = clients.join_all().await.concat();
        assert_eq!(failures, Vec::<String>::new());
    });
}

/// Sends back what it gets.
async fn echo() -> Server {
    Server::raw(|mut socket, _| async move {
        let (mut from, mut to) = socket.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await
}

async fn echoed(client: &Client, bytes: Bytes) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(client.open().await);
    let writing = async {
        to.write_all(&bytes).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, read) = tokio::join!(writing, from.read_to_end(&mut back));
    read.unwrap();
    back
}

#[test]
fn bytes_of_other_protocols_go_both_ways_and_ends_are_passed_on() {
    test(async {
        let server = echo().await;
        let lab = Lab::with(2, AppProtocol::Tcp, vec![]).await;
        let proxy = NodeProxy::start("web-1", server.address, Settings::default()).await;
        lab.add_workload("web-1", "web", SocketAddr::new(proxy.ip, 8080), "HBONE");
        let (client, bytes) = (lab.client().await, pattern(3 << 20));

        assert!(echoed(&client, bytes.clone()).await == bytes);

        let line = lab.lines(1).await.remove(0);
        assert!(line.contains("\"- - -\" 0 - - - \"-\" 3145728 3145728 "), "{line}");
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_on_a_port_without_protocol() {
    test(async {
        let server = Server::raw(|mut socket, _| async move {
            let _ = socket.write_all(b"220 ready\r\n").await;
            let _ = socket.read(&mut [0; 64]).await;
        })
        .await;
        let lab = Lab::with(1, AppProtocol::Undeclared, vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let mut stream = lab.client().await.open().await;

        let mut greeting = [0; 11];
        stream.read_exact(&mut greeting).await.unwrap();

        assert_eq!(&greeting, b"220 ready\r\n");
    });
}

#[test]
fn a_connection_that_is_not_http_is_bytes_on_a_port_without_protocol() {
    test(async {
        let server = echo().await;
        let lab = Lab::with(1, AppProtocol::Undeclared, vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);

        assert_eq!(
            echoed(&lab.client().await, Bytes::from_static(b"*1\r\n$4\r\nPING\r\n")).await,
            b"*1\r\n$4\r\nPING\r\n"
        );
    });
}

#[test]
fn a_client_without_a_good_certificate_has_no_tunnel() {
    test(async {
        let lab = Lab::start(vec![default_route()]).await;
        // Expects another identity than the waypoint's, and ends the handshake.
        let certificate = crate::common::root().certificate(&identity("client")).unwrap();
        let config = tls::client_config(&certificate, &[identity("other")]).unwrap();
        let socket = tokio::net::TcpStream::connect(lab.address).await.unwrap();
        assert!(tls::stream::connect(socket, config, |_| ()).await.is_err());

        // The waypoint serves others as before.
        assert_eq!(lab.client().await.get("/").await.status, 503);
    });
}
