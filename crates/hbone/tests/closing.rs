//! Tunnels that close while the byte stream is full, after a violation of the protocol, and beside a peer that does
//! nothing.

mod common;

use common::frames::{self, ACK, CONNECT, DATA, END_HEADERS, GOAWAY, HEADERS, PING, PREFACE, SETTINGS, frame};
use common::{Wire, open, pattern, tunnel, worker};
use hbone::{Flood, SendHalf, Server, Settings, TunnelError};
use http::HeaderMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, duplex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

/// Far less than until a PING finds anything.
const SOON: Duration = Duration::from_secs(5);

/// Two ends of a connection of the kernel with small buffers.
async fn sockets() -> (TcpStream, TcpStream) {
    let small = |socket: TcpSocket| {
        socket.set_recv_buffer_size(8 << 10).unwrap();
        socket.set_send_buffer_size(8 << 10).unwrap();
        socket
    };
    let listener: TcpListener = {
        let socket = small(TcpSocket::new_v4().unwrap());
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(1).unwrap()
    };
    let to = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(small(TcpSocket::new_v4().unwrap()).connect(to), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A server that says why its tunnel ended.
fn server<T>(io: T, settings: Settings, bytes: usize) -> tokio::task::JoinHandle<Result<(), TunnelError>>
where
    T: tokio::io::AsyncBufRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    spawn_local(async move {
        let mut server = Server::handshake(io, &settings).await?;
        while let Some(request) = server.accept().await? {
            spawn_local(async move {
                let (mut send, _recv) = request.accept(HeaderMap::new()).unwrap().split();
                let _ = send.send(pattern(bytes, 1)).await;
                let _ = send.closed().await;
            });
        }
        Ok(())
    })
}

/// A client by hand that has opened stream 1 with room for all that is sent.
fn opening() -> Vec<u8> {
    let large = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let window = [0x7f, 0, 0, 0];
    [PREFACE, &frame(SETTINGS, 0, 0, &large), &frame(8, 0, 0, &window), &frame(HEADERS, END_HEADERS, 1, CONNECT)]
        .concat()
}

#[test]
fn a_peer_hears_why_it_is_disconnected_although_both_directions_are_full() {
    worker(false, async {
        let (mut near, far) = sockets().await;
        let settings = Settings { send_buffer_bytes: 16 << 20, ..Settings::default() };
        let ended = server(BufReader::new(far), settings, 4 << 20);
        near.write_all(&opening()).await.unwrap();
        // Much that waits for us to read it, then something forbidden, and much behind that.
        near.readable().await.unwrap();
        let (mut read, mut write) = near.split();
        let writing = async {
            write.write_all(&frame(DATA, 0, 2, b"on a stream that cannot be")).await.unwrap();
            for _ in 0..100 {
                write.write_all(&frame(DATA, 0, 1, &[0; 16 << 10])).await.unwrap();
            }
        };
        timeout(SOON, writing).await.expect("the peer does not read on");

        let mut last = None;
        while let Some((kind, _, payload)) = timeout(SOON, frames::next(&mut read)).await.unwrap().unwrap() {
            last = Some((kind, payload));
        }

        let (kind, payload) = last.unwrap();
        assert_eq!((kind, &payload[4..]), (GOAWAY, &[0, 0, 0, 1][..]));
        drop(near);
        let error = timeout(SOON, ended).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, TunnelError::Protocol(_)) && error.flood().is_none(), "{error}");
    });
}

#[test]
fn a_peer_that_floods_is_told_and_named() {
    worker(false, async {
        let (mut near, far) = sockets().await;
        let ended = server(BufReader::new(far), Settings::default(), 0);
        near.write_all(&opening()).await.unwrap();
        for _ in 0..200 {
            near.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
        }

        let mut last = None;
        while let Some((kind, _, payload)) = timeout(SOON, frames::next(&mut near)).await.unwrap().unwrap() {
            last = Some((kind, payload));
        }

        let (kind, payload) = last.unwrap();
        assert_eq!((kind, &payload[4..]), (GOAWAY, &[0, 0, 0, 0xb][..]), "ENHANCE_YOUR_CALM");
        drop(near);
        let error = timeout(SOON, ended).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.flood(), Some(Flood::Settings), "{error}");
    });
}

#[test]
fn a_peer_that_violates_the_protocol_and_does_not_close_is_not_waited_for() {
    worker(true, async {
        let (mut near, far) = duplex(1 << 20);
        let begin = Instant::now();
        let ended = server(Wire::new(far), Settings::default(), 0);
        near.write_all(&[opening(), frame(PING, 0, 1, &[0; 8])].concat()).await.unwrap();

        assert!(ended.await.unwrap().is_err());

        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    });
}

#[test]
fn two_ends_that_close_at_once_do_not_wait_for_each_other() {
    worker(true, async {
        for bytes in [1, 5, 16, 17, 33, 50, 100] {
            let (near, far) = duplex(bytes);
            let closed = spawn_local(async move {
                let mut server = Server::handshake(Wire::new(far), &Settings::default()).await.unwrap();
                let request = server.accept().await.unwrap().unwrap();
                let (mut send, mut recv) = request.accept(HeaderMap::new()).unwrap().split();
                spawn_local(async move {
                    assert!(recv.data().await.unwrap().is_none());
                    send.finish().unwrap();
                });
                server.drain();
                server.accept().await
            });
            let (tunnel, driver) = tunnel(Wire::new(near), &Settings::default());
            let (mut send, mut recv) = open(&tunnel).await.split();
            while tunnel.is_usable() {
                tokio::task::yield_now().await;
            }
            let begin = Instant::now();

            send.finish().unwrap();
            assert!(recv.data().await.unwrap().is_none());
            drop((send, recv, tunnel));

            assert!(timeout(SOON, driver).await.expect("the client waits").unwrap().is_ok(), "{bytes}");
            assert!(timeout(SOON, closed).await.expect("the server waits").unwrap().unwrap().is_none(), "{bytes}");
            assert!(begin.elapsed() < Duration::from_secs(1), "{bytes}: {:?}", begin.elapsed());
        }
    });
}

/// Bytes that each stream queues at once.
const QUEUED: usize = 1 << 20;

/// Waits until `parts` of `all` parts of [`QUEUED`] bytes are on their way, or the stream is closed.
async fn until_sent(send: &SendHalf, parts: usize, all: usize) {
    while send.queued_bytes() > QUEUED / all * (all - parts) + all {
        tokio::task::yield_now().await;
    }
}

#[test]
fn ends_that_close_over_full_sockets_close_soon() {
    worker(false, async {
        for round in 0..30 {
            let (near, far) = sockets().await;
            let settings = || Settings { send_buffer_bytes: QUEUED, ..Settings::default() };
            let ended = spawn_local(async move {
                let mut server = Server::handshake(BufReader::new(far), &settings()).await.unwrap();
                let mut streams = Vec::new();
                for _ in 0..4 {
                    let request = server.accept().await.unwrap().unwrap();
                    let (mut send, recv) = request.accept(HeaderMap::new()).unwrap().split();
                    spawn_local(async move {
                        let _ = send.send(pattern(QUEUED, 1)).await;
                        until_sent(&send, round % 5, 5).await;
                        drop(send);
                    });
                    streams.push(recv);
                }
                server.drain();
                while let Ok(Some(_)) = server.accept().await {}
            });
            let (tunnel, driver) = tunnel(BufReader::new(near), &settings());
            for _ in 0..4 {
                let (mut send, recv) = open(&tunnel).await.split();
                spawn_local(async move {
                    let _ = send.send(pattern(QUEUED, 2)).await;
                    until_sent(&send, round % 3, 3).await;
                    drop((send, recv));
                });
            }
            drop(tunnel);

            timeout(SOON, driver).await.expect("the client waits").unwrap().ok();
            timeout(SOON, ended).await.expect("the server waits").unwrap();
        }
    });
}

/// A server by hand: takes one tunnel in order and answers PINGs if told so, but never closes.
async fn never_closes(mut io: tokio::io::DuplexStream, answers: bool) {
    let mut preface = [0; 24];
    io.read_exact(&mut preface).await.unwrap();
    io.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    while let Ok(Some((kind, flags, payload))) = frames::next(&mut io).await {
        if kind == PING && flags & ACK == 0 && answers {
            io.write_all(&frame(PING, ACK, 0, &payload)).await.unwrap();
        }
    }
    std::future::pending::<()>().await;
}

#[test]
fn a_tunnel_does_not_wait_for_a_peer_that_has_read_all_and_never_closes() {
    worker(true, async {
        for (answers, least, most) in [(true, 0, 1), (false, 20, 21)] {
            let (near, far) = duplex(1000);
            let peer = spawn_local(never_closes(far, answers));
            let (tunnel, driver) = tunnel(Wire::new(near), &Settings::default());
            let begin = Instant::now();

            drop(tunnel);
            assert!(driver.await.unwrap().is_ok());

            let took = begin.elapsed().as_secs();
            assert!((least..=most).contains(&took), "answers: {answers}, after {took} s");
            peer.abort();
        }
    });
}
