//! Tunnels with a peer that is somebody else's HTTP/2: the crate `h2`, on either side.

mod common;

use bytes::Bytes;
use common::{Wire, at_once, echo, exchange, open, pattern, read_to_end, serve, tunnel, worker};
use h2::{RecvStream, SendStream};
use hbone::{ConnectError, Reason, Settings, StreamError};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use std::future::poll_fn;
use tokio::io::{DuplexStream, duplex};
use tokio::task::spawn_local;

/// The two ends of a byte stream: ours and theirs.
fn wire() -> (Wire, DuplexStream) {
    let (ours, theirs) = duplex(100_000);
    (Wire::new(ours), theirs)
}

async fn send_all(send: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let room = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
        send.send_data(data.split_to(room.min(data.len())), false).unwrap();
    }
    send.send_data(Bytes::new(), true).unwrap();
}

async fn receive_all(recv: &mut RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = recv.data().await {
        let piece = piece.unwrap();
        recv.flow_control().release_capacity(piece.len()).unwrap();
        all.extend_from_slice(&piece);
    }
    all
}

/// A request, and the means to answer it.
type Asked = (Request<RecvStream>, h2::server::SendResponse<Bytes>);

/// A server of theirs that does `serve` with each stream.
fn their_server<F>(io: DuplexStream, window: u32, serve: impl Fn(Asked) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    spawn_local(async move {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(window.max(65_535));
        let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
        while let Some(Ok(asked)) = connection.accept().await {
            spawn_local(serve(asked));
        }
    });
}

async fn their_client(io: DuplexStream, window: u32) -> h2::client::SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window.max(65_535));
    let (requests, connection) = builder.handshake(io).await.unwrap();
    spawn_local(connection);
    requests.ready().await.unwrap()
}

fn connect(headers: &HeaderMap) -> Request<()> {
    let mut request = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80").body(()).unwrap();
    *request.headers_mut() = headers.clone();
    request
}

#[test]
fn their_client_moves_much_through_our_server() {
    for window in [1000, 65_535, 4 << 20] {
        worker(false, async move {
            let (ours, theirs) = wire();
            serve(ours, Settings::default(), |r| echo(r.accept(HeaderMap::new()).unwrap()));
            let requests = their_client(theirs, window).await;

            at_once(20, move |i| {
                let mut requests = requests.clone();
                async move {
                    poll_fn(|cx| requests.poll_ready(cx)).await.unwrap();
                    let (answer, mut send) = requests.send_request(connect(&HeaderMap::new()), false).unwrap();
                    let (head, mut recv) = answer.await.unwrap().into_parts();
                    assert_eq!(head.status, StatusCode::OK);
                    let sent = pattern(200_000 + i, i);
                    let (_, got) = tokio::join!(send_all(&mut send, sent.clone()), receive_all(&mut recv));
                    assert!(got == sent, "stream {i}");
                }
            })
            .await;
        });
    }
}

#[test]
fn our_client_moves_much_through_their_server() {
    for window in [1000, 65_535, 4 << 20] {
        worker(false, async move {
            let (ours, theirs) = wire();
            their_server(theirs, window, |(request, mut respond)| async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                let all = receive_all(&mut request.into_body()).await;
                send_all(&mut send, all.into()).await;
            });
            let (tunnel, _) = tunnel(ours, &Settings::default());

            at_once(20, move |i| {
                let tunnel = tunnel.clone();
                async move {
                    let sent = pattern(200_000 + i, i);
                    assert!(exchange(open(&tunnel).await, sent.clone()).await == sent, "stream {i}");
                }
            })
            .await;
        });
    }
}

#[test]
fn headers_mean_the_same_to_both_again_and_again() {
    worker(false, async {
        let headers = HeaderMap::from_iter([
            (hbone::headers::BAGGAGE, HeaderValue::from_static("k8s.namespace.name=ns,service.name=a")),
            (http::header::FORWARDED, HeaderValue::from_static("for=\"10.0.0.1:99\"")),
            (hbone::headers::TRACEPARENT, HeaderValue::from_static("00-1-2-00")),
            (http::header::COOKIE, HeaderValue::from_bytes(b"\xff\x80 and so on").unwrap()),
        ]);
        let (ours, theirs) = wire();
        let answer = headers.clone();
        serve(ours, Settings::default(), move |r| {
            let answer = answer.clone();
            async move {
                assert_eq!(r.authority(), "10.0.0.1:80");
                let mut got = r.headers().clone();
                got.extend(answer);
                echo(r.accept(got).unwrap()).await;
            }
        });
        let mut requests = their_client(theirs, 65_535).await;

        for _ in 0..20 {
            let (response, mut send) = requests.send_request(connect(&headers), false).unwrap();
            assert_eq!(response.await.unwrap().headers(), &headers);
            send.send_data(Bytes::new(), true).unwrap();
        }

        let (ours, theirs) = wire();
        their_server(theirs, 65_535, |(request, mut respond)| async move {
            let mut response = Response::new(());
            response.headers_mut().extend(request.headers().clone());
            respond.send_response(response, true).unwrap();
        });
        let (tunnel, _) = tunnel(ours, &Settings::default());
        for _ in 0..20 {
            assert_eq!(tunnel.connect("10.0.0.1:80", headers.clone()).await.unwrap().headers, headers);
        }
    });
}

#[test]
fn their_refusals_and_resets_are_told() {
    worker(false, async {
        let (ours, theirs) = wire();
        their_server(theirs, 65_535, |(request, mut respond)| async move {
            match request.uri().port_u16().unwrap() {
                401 => {
                    let response = Response::builder().status(StatusCode::UNAUTHORIZED).body(()).unwrap();
                    respond.send_response(response, true).unwrap();
                }
                1 => respond.send_reset(h2::Reason::REFUSED_STREAM),
                _ => {
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    send.send_data(Bytes::from_static(b"some"), false).unwrap();
                    receive_all(&mut request.into_body()).await;
                    send.send_reset(h2::Reason::CONNECT_ERROR);
                }
            }
        });
        let (tunnel, _) = tunnel(ours, &Settings::default());
        let connect = |port| tunnel.connect(port, HeaderMap::new());

        let refused = connect("10.0.0.1:401").await;
        assert!(matches!(refused, Err(ConnectError::Status(StatusCode::UNAUTHORIZED))), "{refused:?}");
        let unseen = connect("10.0.0.1:1").await.unwrap_err();
        assert!(unseen.is_unprocessed(), "{unseen}");
        let (mut send, mut recv) = connect("10.0.0.1:2").await.unwrap().stream.split();
        assert_eq!(recv.data().await.unwrap().unwrap(), "some");
        send.finish().unwrap();
        let lost = recv.data().await;
        assert!(matches!(lost, Err(StreamError::Reset(Reason::Other(0xa)))), "{lost:?}");
    });
}

#[test]
fn our_ends_are_told_to_them() {
    worker(false, async {
        let (ours, theirs) = wire();
        serve(ours, Settings::default(), |r| async {
            let authority = r.authority().to_owned();
            match authority.as_str() {
                "a:401" => r.refuse(StatusCode::UNAUTHORIZED),
                "a:2" => drop(r),
                _ => r.accept(HeaderMap::new()).unwrap().split().0.reset(Reason::Other(0xa)),
            }
        });
        let mut requests = their_client(theirs, 65_535).await;
        let mut ask = |uri: &str| {
            let request = Request::builder().method(Method::CONNECT).uri(uri).body(()).unwrap();
            requests.send_request(request, false).unwrap()
        };

        let (refused, _send) = ask("a:401");
        let mut refused = refused.await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert!(receive_all(refused.body_mut()).await.is_empty());
        let (dropped, _send) = ask("a:2");
        assert_eq!(dropped.await.unwrap_err().reason(), Some(h2::Reason::INTERNAL_ERROR));
        let (reset, _send) = ask("a:3");
        let lost = reset.await.unwrap().into_body().data().await.unwrap().unwrap_err();
        assert_eq!(lost.reason(), Some(h2::Reason::CONNECT_ERROR));
    });
}

#[test]
fn their_drain_ends_what_there_is_and_refuses_more() {
    worker(false, async {
        let (ours, theirs) = wire();
        let server = spawn_local(async move {
            let mut connection = h2::server::handshake(theirs).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            connection.graceful_shutdown();
            let serving = spawn_local(async move {
                let all = receive_all(&mut request.into_body()).await;
                send_all(&mut send, all.into()).await;
            });
            while connection.accept().await.is_some() {}
            serving.await.unwrap();
        });
        let (tunnel, driver) = tunnel(ours, &Settings::default());
        let (mut send, mut recv) = open(&tunnel).await.split();
        while tunnel.is_usable() {
            tokio::task::yield_now().await;
        }

        assert!(tunnel.connect("10.0.0.1:80", HeaderMap::new()).await.unwrap_err().is_unprocessed());
        send.send(pattern(1000, 1)).await.unwrap();
        send.finish().unwrap();

        assert_eq!(read_to_end(&mut recv).await, pattern(1000, 1));
        driver.await.unwrap().unwrap();
        server.await.unwrap();
    });
}

#[test]
fn more_streams_than_they_take_wait_for_their_turn() {
    worker(false, async {
        let (ours, theirs) = wire();
        spawn_local(async move {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(2);
            let mut connection = builder.handshake::<_, Bytes>(theirs).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                spawn_local(async move {
                    let all = receive_all(&mut request.into_body()).await;
                    send_all(&mut send, all.into()).await;
                });
            }
        });
        let (tunnel, _) = tunnel(ours, &Settings { initial_streams: 1, ..Settings::default() });

        at_once(10, move |i| {
            let tunnel = tunnel.clone();
            async move {
                assert_eq!(exchange(open(&tunnel).await, pattern(100, i)).await, pattern(100, i));
            }
        })
        .await;
    });
}
