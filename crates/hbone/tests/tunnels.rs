//! Tunnels as a whole: TLS, draining, lost peers, and peers that speak something else.

mod common;

use bytes::Bytes;
use common::configs::configs;
use common::{at_once, echo, exchange, open, pattern, read_to_end, serve, tunnel, wire, worker};
use hbone::{Server, Settings, TunnelError, client};
use http::HeaderMap;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;

#[test]
fn many_streams_run_over_tls_on_a_socket() {
    worker(false, async {
        let (server_config, client_config) = configs(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        spawn_local(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let tls = tls::stream::accept(socket, server_config, |_| ()).await.unwrap().0;
            serve(tls, Settings::default(), |r| echo(r.accept(HeaderMap::new()).unwrap())).await.unwrap();
        });
        let tls = tls::stream::connect(TcpStream::connect(to).await.unwrap(), client_config, |_| ()).await.unwrap().0;
        let (tunnel, _) = tunnel(tls, &Settings::default());

        at_once(40, move |i| {
            let tunnel = tunnel.clone();
            async move {
                let sent = pattern(300_000 + i, i);
                assert!(exchange(open(&tunnel).await, sent.clone()).await == sent, "stream {i}");
            }
        })
        .await;
    });
}

#[test]
fn a_drained_tunnel_finishes_its_streams_and_takes_no_more() {
    worker(false, async {
        let (near, far) = wire();
        let (drain, drained) = tokio::sync::oneshot::channel::<()>();
        let server = spawn_local(async move {
            let mut server = Server::handshake(far, &Settings::default()).await.unwrap();
            let mut drained = std::pin::pin!(drained);
            let mut waiting = true;
            loop {
                tokio::select! {
                    next = server.accept() => match next.unwrap() {
                        Some(r) => drop(spawn_local(echo(r.accept(HeaderMap::new()).unwrap()))),
                        None => return,
                    },
                    _ = &mut drained, if waiting => {
                        waiting = false;
                        server.drain();
                    }
                }
            }
        });
        let (tunnel, _driver) = tunnel(near, &Settings::default());
        let (mut send, mut recv) = open(&tunnel).await.split();
        send.send(Bytes::from_static(b"one")).await.unwrap();
        assert_eq!(recv.data().await.unwrap().unwrap(), "one");

        drain.send(()).unwrap();
        while tunnel.is_usable() {
            tokio::task::yield_now().await;
        }
        let refused = tunnel.connect("10.0.0.1:80", HeaderMap::new()).await.unwrap_err();
        assert!(refused.is_unprocessed(), "{refused}");
        send.send(Bytes::from_static(b"two")).await.unwrap();
        send.finish().unwrap();

        assert_eq!(read_to_end(&mut recv).await, b"two");
        drop((send, recv, tunnel));
        server.await.unwrap();
    });
}

#[test]
fn a_client_finds_out_that_its_peer_is_silent() {
    worker(true, async {
        let (near, far) = wire();
        let server = spawn_local(async move {
            let mut server = Server::handshake(far, &Settings::default()).await.unwrap();
            let request = server.accept().await.unwrap().unwrap();
            let stream = request.accept(HeaderMap::new());
            let _ = tokio::time::timeout(Duration::from_secs(1), server.accept()).await;
            // From here on nothing is read or written.
            std::future::pending::<()>().await;
            drop((server, stream));
        });
        let (tunnel, driver) = tunnel(near, &Settings::default());
        let (_send, mut recv) = open(&tunnel).await.split();
        let begin = tokio::time::Instant::now();

        let ended = driver.await.unwrap();

        assert!(matches!(ended, Err(TunnelError::PingTimeout(_))), "{ended:?}");
        assert_eq!(begin.elapsed().as_secs(), 30);
        assert!(recv.data().await.is_err());
        assert!(!tunnel.is_usable());
        server.abort();
    });
}

#[test]
fn a_server_finds_out_that_its_peer_is_silent() {
    worker(true, async {
        let (near, far) = wire();
        let (_tunnel, driver) = client::start(near, &Settings::default());
        // Says what it says first, and nothing more.
        let mut driver = std::pin::pin!(driver);
        assert!(tokio::time::timeout(Duration::ZERO, &mut driver).await.is_err());
        let mut server = Server::handshake(far, &Settings::default()).await.unwrap();
        let begin = tokio::time::Instant::now();

        let ended = server.accept().await;

        assert!(matches!(ended, Err(TunnelError::PingTimeout(_))), "{ended:?}");
        assert_eq!(begin.elapsed().as_secs(), 30);
    });
}

#[test]
fn an_answering_peer_is_kept_for_long() {
    worker(true, async {
        let (near, far) = wire();
        serve(far, Settings::default(), |r| echo(r.accept(HeaderMap::new()).unwrap()));
        let (tunnel, driver) = tunnel(near, &Settings::default());

        tokio::time::sleep(Duration::from_secs(600)).await;

        assert!(tunnel.is_usable());
        assert!(!driver.is_finished());
    });
}

#[test]
fn garbage_in_place_of_http2_is_an_error_and_no_hang() {
    worker(false, async {
        let (near, mut far) = wire();
        far.write_all(&[0x16; 4096]).await.unwrap();

        let refused = Server::handshake(near, &Settings::default()).await.err();

        assert!(matches!(refused, Some(TunnelError::Handshake(_))), "{refused:?}");
    });
}

#[test]
fn nothing_in_place_of_http2_is_an_error_too() {
    worker(false, async {
        let (near, far) = wire();
        drop(far);

        let refused = Server::handshake(near, &Settings::default()).await.err();

        assert!(matches!(refused, Some(TunnelError::Handshake(_))), "{refused:?}");
    });
}

#[test]
fn a_cut_tunnel_ends_its_streams() {
    worker(false, async {
        let (near, far) = wire();
        let server = serve(far, Settings::default(), |r| echo(r.accept(HeaderMap::new()).unwrap()));
        let (tunnel, _driver) = tunnel(near, &Settings::default());
        let (mut send, mut recv) = open(&tunnel).await.split();

        server.abort();

        assert!(recv.data().await.is_err());
        assert!(send.send(pattern(10, 0)).await.is_err());
        assert!(!tunnel.is_usable());
    });
}

#[test]
fn a_drained_tunnel_closes_only_when_its_peer_has_all() {
    worker(false, async {
        let (server_config, client_config) = configs(false);
        let listener = TcpSocket::new_v4().unwrap();
        listener.set_send_buffer_size(1 << 20).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let to = listener.local_addr().unwrap();
        let sent = pattern(12 << 20, 1);
        let server = spawn_local({
            let sent = sent.clone();
            async move {
                let (socket, _) = listener.accept().await.unwrap();
                let tls = tls::stream::accept(socket, server_config, |_| ()).await.unwrap().0;
                let mut server = Server::handshake(tls, &Settings::default()).await.unwrap();
                let (mut send, mut recv) =
                    server.accept().await.unwrap().unwrap().accept(HeaderMap::new()).unwrap().split();
                server.drain();
                spawn_local(async move {
                    assert_eq!(recv.data().await.unwrap(), None);
                    send.send(sent).await.unwrap();
                    send.finish().unwrap();
                });
                assert!(server.accept().await.unwrap().is_none());
            }
        });
        // Takes little at a time, so that much is on the way when the server has said all.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let socket = socket.connect(to).await.unwrap();
        let tls = tls::stream::connect(socket, client_config, |_| ()).await.unwrap().0;
        // Something is on its way to the server at any time.
        let settings = Settings { ping_interval: Duration::from_millis(1), ..Settings::default() };
        let (tunnel, _) = tunnel(tls, &settings);
        let (mut send, mut recv) = open(&tunnel).await.split();
        send.finish().unwrap();

        let mut got = 0;
        while let Some(piece) = recv.data().await.unwrap() {
            got += piece.len();
            recv.release(piece.len());
            tokio::task::yield_now().await;
        }

        assert_eq!(got, sent.len());
        server.await.unwrap();
    });
}
