//! Endpoints and clients that fail: what is tried again, what clients see, and what is reported.

use crate::common::client::{call, post, request};
use crate::common::node_proxy::{NodeProxy, pattern};
use crate::common::server::{Server, closed_port};
use crate::common::{Lab, default_route, forward, test};
use bytes::Bytes;
use hbone::Settings;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use route::retry::{RetryOn, RetryPolicy};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use waypoint_config::AppProtocol;

fn retrying(attempts: u32, on: &str) -> route::Route {
    let retry = RetryPolicy {
        attempts,
        on: RetryOn::parse(on).0,
        base_pause: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    forward(|f| f.retry = Some(retry))
}

fn status(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

#[test]
fn a_closed_port_behind_a_node_proxy_is_a_connect_failure_and_another_endpoint_is_tried() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        let closed = NodeProxy::start("web-1", closed_port().await, Settings::default()).await;
        let open = NodeProxy::start("web-2", server.address, Settings::default()).await;
        lab.add_workload("web-1", "web", SocketAddr::new(closed.ip, 8080), "HBONE");
        lab.add_workload("web-2", "web", SocketAddr::new(open.ip, 8080), "HBONE");
        let client = lab.client().await;

        for _ in 0..6 {
            let answer = client.get("/").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "one"));
        }

        assert!(!closed.connects.borrow().is_empty());
        assert_eq!(open.connects.borrow()[0], format!("{}:8080", open.ip));
        assert_eq!(open.clients.borrow()[0], "spiffe://cluster.local/ns/shop/sa/waypoint");
        assert!(server.seen.borrow().iter().any(|seen| seen.header("x-envoy-attempt-count") == "2"));
    });
}

#[test]
fn without_another_endpoint_a_connect_failure_is_the_clients() {
    test(async {
        let lab = Lab::start(vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", closed_port().await);

        let answer = lab.client().await.get("/").await;

        let text = "upstream connect error or disconnect/reset before headers. \
                    retried and the latest reset reason: remote connection failure";
        assert_eq!((answer.status, answer.body.as_str()), (503, text));
        let outcome = lab.outcome(1).await;
        let expected = "503 URX,UF upstream_reset_before_response_started{remote_connection_failure|";
        assert!(outcome.starts_with(expected), "{outcome}");
    });
}

#[test]
fn an_endpoint_that_proves_another_identity_gets_nothing() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        // Of the same namespace and trust domain, which Istio's waypoints accept.
        let other = NodeProxy::start("other", server.address, Settings::default()).await;
        lab.add_workload("web-1", "web", SocketAddr::new(other.ip, 8080), "HBONE");

        assert_eq!(lab.client().await.get("/").await.status, 503);

        assert_eq!((server.count(), other.connects.borrow().len()), (0, 0));
        assert!(lab.outcome(1).await.starts_with("503 URX,UF "));
    });
}

#[test]
fn a_server_that_closes_before_its_answer_is_not_tried_again_by_default() {
    test(async {
        let server = Server::raw(|mut socket, _| async move {
            let _ = socket.read(&mut [0; 1024]).await;
        })
        .await;
        let lab = Lab::start(vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);

        let answer = lab.client().await.get("/").await;

        let text = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        assert_eq!((answer.status, answer.body.as_str(), server.connections.get()), (503, text, 1));
        let expected = "503 UC upstream_reset_before_response_started{connection_termination}";
        assert_eq!(lab.outcome(1).await, expected);

        lab.configure(crate::common::HOST, AppProtocol::Http1, vec![retrying(2, "reset")]);
        assert_eq!(lab.client().await.get("/").await.status, 503);
        assert_eq!(server.connections.get(), 4);
        assert!(lab.outcome(2).await.starts_with("503 URX,UC "));
    });
}

#[test]
fn an_answer_that_breaks_off_breaks_off_at_the_client() {
    test(async {
        let server = Server::raw(|mut socket, _| async move {
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789").await;
        })
        .await;
        let lab = Lab::start(vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);

        let mut sender = lab.client().await.http1().await;
        let response = sender.send_request(request(Method::GET, "/")).await.unwrap();

        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.is_err());
        let expected = "200 UPE upstream_reset_after_response_started{protocol_error}";
        assert_eq!(lab.outcome(1).await, expected);
    });
}

#[test]
fn what_is_not_http_is_a_bad_gateway() {
    test(async {
        let server = Server::raw(|mut socket, _| async move {
            let _ = socket.write_all(b"SSH-2.0-OpenSSH_9\r\n").await;
            let _ = socket.read(&mut [0; 1024]).await;
        })
        .await;
        let lab = Lab::start(vec![forward(|f| f.retry = None)]).await;
        lab.add_endpoint("web-1", "web", server.address);

        let answer = lab.client().await.get("/").await;

        assert!(answer.status == 502 || answer.status == 503, "{answer:?}");
    });
}

#[test]
fn the_time_for_a_request_ends_it() {
    test(async {
        let server = Server::with(|_, _| async {
            sleep(Duration::from_secs(5)).await;
            Ok(Response::new(Full::default().boxed_unsync()))
        })
        .await;
        let lab = Lab::start(vec![forward(|f| f.timeout = Some(Duration::from_millis(50)))]).await;
        lab.add_endpoint("web-1", "web", server.address);

        let answer = lab.client().await.get("/").await;

        assert_eq!((answer.status, answer.body.as_str()), (504, "upstream request timeout"));
        assert_eq!(lab.outcome(1).await, "504 UT response_timeout");
    });
}

#[test]
fn the_time_for_a_request_begins_with_the_end_of_its_body() {
    test(async {
        let server = Server::named("one").await;
        let lab = Lab::start(vec![forward(|f| f.timeout = Some(Duration::from_millis(100)))]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let mut stream = lab.client().await.open().await;

        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: web\r\nconnection: close\r\ncontent-length: 4\r\n\r\nab")
            .await
            .unwrap();
        sleep(Duration::from_millis(300)).await;
        stream.write_all(b"cd").await.unwrap();

        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    });
}

#[test]
fn a_grpc_client_that_sets_a_time_gets_deadline_exceeded() {
    test(async {
        let server = Server::with(|_, _| async {
            sleep(Duration::from_secs(5)).await;
            Ok(Response::new(Full::default().boxed_unsync()))
        })
        .await;
        let lab = Lab::with(1, AppProtocol::Http2, vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let mut call = call("/shop.Cart/Add");
        call.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());

        let answer = lab.client().await.send2(call).await;

        assert_eq!((answer.status, answer.header("grpc-status")), (200, "4"));
        assert_eq!(lab.outcome(1).await, "200 UT response_timeout");
    });
}

#[test]
fn a_try_that_takes_too_long_is_repeated_only_if_the_policy_says_so() {
    test(async {
        let tries = Rc::new(Cell::new(0));
        let counted = tries.clone();
        let server = Server::with(move |_, _| {
            counted.set(counted.get() + 1);
            async {
                sleep(Duration::from_secs(5)).await;
                Ok(Response::new(Full::default().boxed_unsync()))
            }
        })
        .await;
        let with = |on: &str| {
            let mut retry = RetryPolicy { base_pause: Duration::from_millis(1), ..RetryPolicy::default() };
            retry.per_try_timeout = Some(Duration::from_millis(30));
            retry.on = RetryOn::parse(on).0;
            forward(|f| f.retry = Some(retry))
        };
        let lab = Lab::start(vec![with("5xx")]).await;
        lab.add_endpoint("web-1", "web", server.address);

        assert_eq!(lab.client().await.get("/").await.status, 504);
        assert_eq!((tries.get(), lab.outcome(1).await.as_str()), (3, "504 URX,UT upstream_per_try_timeout"));

        lab.configure(crate::common::HOST, AppProtocol::Http1, vec![with("connect-failure")]);
        assert_eq!(lab.client().await.get("/").await.status, 504);
        assert_eq!((tries.get(), lab.outcome(2).await.as_str()), (4, "504 UT upstream_per_try_timeout"));
    });
}

#[test]
fn a_retry_sends_the_body_again_to_another_endpoint() {
    test(async {
        let failing = Server::answering(|_| status(503, "busy")).await;
        let server = Server::named("one").await;
        let lab = Lab::start(vec![retrying(2, "5xx")]).await;
        lab.add_endpoint("web-1", "web", failing.address);
        lab.add_endpoint("web-2", "web", server.address);
        let (client, body) = (lab.client().await, pattern(200_000));

        for _ in 0..2 {
            assert_eq!(client.send(post("/", body.clone())).await.body, "one");
        }

        assert!(failing.count() >= 1);
        assert!(failing.seen.borrow().iter().chain(server.seen.borrow().iter()).all(|seen| seen.body == body));
    });
}

#[test]
fn a_body_that_is_too_long_to_keep_is_sent_once() {
    test(async {
        let failing = Server::answering(|_| status(503, "busy")).await;
        let lab = Lab::start(vec![retrying(2, "5xx")]).await;
        lab.add_endpoint("web-1", "web", failing.address);
        let body = pattern(3 << 20);

        let answer = lab.client().await.send(post("/", body.clone())).await;

        assert_eq!((answer.status, answer.body.as_str(), failing.count()), (503, "busy", 1));
        assert_eq!(failing.last().body, body);
        assert_eq!(lab.outcome(1).await, "503 - via_upstream");
    });
}

#[test]
fn when_all_retries_are_used_the_last_answer_is_passed_on() {
    test(async {
        let failing = Server::answering(|_| status(503, "busy")).await;
        let lab = Lab::start(vec![retrying(2, "5xx")]).await;
        lab.add_endpoint("web-1", "web", failing.address);

        let answer = lab.client().await.get("/").await;

        assert_eq!((answer.status, answer.body.as_str(), failing.count()), (503, "busy", 3));
        assert_eq!(lab.outcome(1).await, "503 URX via_upstream");
    });
}

#[test]
fn endpoints_may_change_between_two_tries() {
    test(async {
        let server = Server::named("two").await;
        let lab = Rc::new(Lab::start(vec![retrying(2, "5xx")]).await);
        let (this, to) = (lab.clone(), server.address);
        // Gone from the mesh with its first answer; the request goes to the one that has come.
        let failing = Server::answering(move |_| {
            this.remove_workload("web-1");
            this.add_endpoint("web-2", "web", to);
            status(503, "busy")
        })
        .await;
        lab.add_endpoint("web-1", "web", failing.address);

        let first = lab.client().await.get("/").await;
        let second = lab.client().await.get("/").await;

        // A request keeps the endpoints that it began with.
        assert_eq!((first.status, second.status, second.body.as_str()), (503, 200, "two"));
    });
}

#[test]
fn a_client_that_goes_away_ends_its_request() {
    test(async {
        let begun = Rc::new(Cell::new(false));
        let flag = begun.clone();
        let server = Server::with(move |_, _| {
            flag.set(true);
            async {
                sleep(Duration::from_secs(60)).await;
                Ok(Response::new(Full::default().boxed_unsync()))
            }
        })
        .await;
        let lab = Lab::start(vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let mut stream = lab.client().await.open().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
        while !begun.get() {
            sleep(Duration::from_millis(1)).await;
        }

        drop(stream);

        assert_eq!(lab.outcome(1).await, "0 DC downstream_remote_disconnect");
    });
}

#[test]
fn a_kept_connection_that_the_server_has_closed_is_no_failure() {
    test(async {
        // One request for each connection, which closes in order behind its answer.
        let server = Server::raw(|mut socket, server| async move {
            let _ = socket.read(&mut [0; 4096]).await;
            server.seen.borrow_mut().clear();
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        })
        .await;
        let lab = Lab::start(vec![forward(|f| f.retry = None)]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let mut sender = lab.client().await.http1().await;

        for _ in 0..20 {
            sender.ready().await.unwrap();
            let response = sender.send_request(request(Method::GET, "/")).await.unwrap();
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap();
            // The end of the connection needs a moment to be known.
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(server.connections.get(), 20);
    });
}

#[test]
fn a_client_that_reads_nothing_stops_its_server() {
    test(async {
        let sent = Rc::new(Cell::new(0_usize));
        let counter = sent.clone();
        let server = Server::raw(move |mut socket, _| {
            let counter = counter.clone();
            async move {
                // The kernel would go on growing its buffer for many seconds.
                socket2::SockRef::from(&socket).set_send_buffer_size(64 << 10).unwrap();
                let _ = socket.read(&mut [0; 1024]).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while socket.write_all(&[7; 64 << 10]).await.is_ok() {
                    counter.set(counter.get() + (64 << 10));
                }
            }
        })
        .await;
        let lab = Lab::start(vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let mut stream = lab.client().await.open().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();

        // Until nothing moves any more.
        let mut before = usize::MAX;
        while before != sent.get() || before == 0 {
            before = sent.get();
            sleep(Duration::from_millis(300)).await;
        }
        // Kernel buffers, the waypoint's, and the window of 4 MiB of the client's stream.
        assert!(before < 24 << 20, "{before} bytes");
        let mut some = vec![0; 1 << 20];
        for _ in 0..32 {
            stream.read_exact(&mut some).await.unwrap();
        }
        assert!(sent.get() > before);
    });
}

#[test]
fn a_refused_stream_is_tried_again_and_a_reset_one_is_not() {
    test(async {
        let refuse = Rc::new(Cell::new(true));
        let flag = refuse.clone();
        let server = Server::raw(move |socket, _| {
            let flag = flag.clone();
            async move {
                let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    match (request.uri().path(), flag.replace(false)) {
                        ("/refused", true) => respond.send_reset(h2::Reason::REFUSED_STREAM),
                        ("/reset", _) => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                        _ => drop(respond.send_response(Response::new(()), true)),
                    }
                }
            }
        })
        .await;
        let lab = Lab::with(1, AppProtocol::Http2, vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let client = lab.client().await;

        let get = |path: &str| http::Request::get(format!("http://web{path}")).body(Full::default()).unwrap();
        assert_eq!(client.send2(get("/refused")).await.status, 200);
        assert_eq!(lab.outcome(1).await, "200 - via_upstream");

        let answer = client.send2(get("/reset")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE.as_u16());
        assert!(answer.body.ends_with("reset reason: remote reset"), "{answer:?}");
        assert_eq!(lab.outcome(2).await, "503 UR upstream_reset_before_response_started{remote_reset}");
    });
}

#[test]
fn a_server_that_needs_no_more_of_the_body_answers_early() {
    test(async {
        let server = Server::raw(|mut socket, _| async move {
            let _ = socket.read(&mut [0; 1024]).await;
            let _ =
                socket.write_all(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno").await;
            let _ = timeout(Duration::from_secs(2), socket.read(&mut [0; 1024])).await;
        })
        .await;
        let lab = Lab::start(vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let mut stream = lab.client().await.open().await;
        stream.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 1000000\r\n\r\nab").await.unwrap();

        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();

        assert_eq!(&head, b"HTTP/1.1 413");
    });
}
