//! A connection that is reset on one side is reset on the other, whatever state it is in: through a tunnel and in
//! plain text, from client to server and back. Real sockets; the tunnel is real HTTP/2 over a byte stream in memory.

mod relayed;

use hbone::{Reason, Settings};
use http::HeaderMap;
use relayed::{
    MUCH, PATIENCE, STUCK, Way, acknowledged, connected, counts, end, fill, greet, mesh, read_all,
    relay_through_tunnel, tunnel,
};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use ztunnel::proxy::relay::{self, Scratch};

/// The applications' ends of a connection through the mesh.
struct Ends {
    /// Resets.
    near: TcpStream,
    /// Must see it.
    far: TcpStream,
}

/// Runs `case` both ways through both kinds of relay; the far application must see a reset after it.
fn is_reset<F: Future<Output = Ends>>(case: impl Fn(Ends) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for way in [Way::Tunnel, Way::Plain] {
        for client_resets in [true, false] {
            LocalSet::new().block_on(&runtime, async {
                let (client, server) = mesh(way).await;
                let ends =
                    if client_resets { Ends { near: client, far: server } } else { Ends { near: server, far: client } };
                let Ends { near, far } = case(ends).await;
                socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
                drop(near);
                let seen = timeout(PATIENCE, far.ready(Interest::ERROR)).await;
                assert!(seen.is_ok(), "{way:?}, the client resets: {client_resets}: no reset arrives");
            });
        }
    }
}

#[test]
fn of_an_idle_connection() {
    is_reset(|mut ends| async move {
        greet(&mut ends.near, &mut ends.far).await;
        greet(&mut ends.far, &mut ends.near).await;
        ends
    });
}

#[test]
fn before_the_first_byte() {
    is_reset(|ends| async move { ends });
}

#[test]
fn while_what_it_sent_waits_for_its_reader() {
    is_reset(|mut ends| async move {
        fill(&mut ends.near).await;
        ends
    });
}

#[test]
fn while_it_does_not_read_what_it_is_sent() {
    is_reset(|mut ends| async move {
        fill(&mut ends.far).await;
        ends
    });
}

#[test]
fn while_both_wait_for_their_readers() {
    is_reset(|mut ends| async move {
        fill(&mut ends.far).await;
        fill(&mut ends.near).await;
        ends
    });
}

#[test]
fn after_its_own_half_has_ended() {
    is_reset(|mut ends| async move {
        end(&mut ends.near, &mut ends.far).await;
        ends
    });
}

#[test]
fn after_the_other_half_has_ended() {
    is_reset(|mut ends| async move {
        end(&mut ends.far, &mut ends.near).await;
        ends
    });
}

#[test]
fn after_its_own_half_has_ended_while_it_does_not_read() {
    is_reset(|mut ends| async move {
        end(&mut ends.near, &mut ends.far).await;
        fill(&mut ends.far).await;
        ends
    });
}

#[test]
fn after_the_other_half_has_ended_while_what_it_sent_waits() {
    is_reset(|mut ends| async move {
        end(&mut ends.far, &mut ends.near).await;
        fill(&mut ends.near).await;
        ends
    });
}

#[test]
fn what_was_said_before_a_reset_arrives_and_no_end_does() {
    is_reset(|mut ends| async move {
        ends.near.write_all(b"last words").await.unwrap();
        let mut words = [0; 10];
        timeout(PATIENCE, ends.far.read_exact(&mut words)).await.unwrap().unwrap();
        assert_eq!(&words, b"last words");
        ends
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for way in [Way::Tunnel, Way::Plain] {
        LocalSet::new().block_on(&runtime, async {
            let (client, mut server) = mesh(way).await;
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);

            let read = timeout(PATIENCE, server.read(&mut [0])).await.unwrap();

            assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset, "{way:?}");
        });
    }
}

#[test]
fn connections_that_end_in_order_are_not_reset() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for way in [Way::Tunnel, Way::Plain] {
        LocalSet::new().block_on(&runtime, async {
            let (mut client, mut server) = mesh(way).await;
            greet(&mut client, &mut server).await;
            end(&mut client, &mut server).await;
            greet(&mut server, &mut client).await;
            end(&mut server, &mut client).await;

            for socket in [&client, &server] {
                assert!(socket.take_error().unwrap().is_none(), "{way:?}");
            }
        });
    }
}

#[test]
fn a_stream_that_a_peer_ends_with_an_error_is_a_reset_by_whatever_code_it_says_so() {
    // Of our proxies and of those of others: CANCEL, INTERNAL_ERROR, and CONNECT_ERROR as RFC 9113, 8.5 has it.
    for reason in [Reason::Cancel, Reason::InternalError, Reason::Other(0xa)] {
        is_passed_on_as_reset(reason);
    }
}

fn is_passed_on_as_reset(reason: Reason) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (mut app, mut captured) = connected().await;
        let (tunnel, mut server) = tunnel(&Settings::default()).await;
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        spawn_local(async move {
            let request = server.accept().await.unwrap().unwrap();
            spawn_local(async move {
                let (mut send, _recv) = request.accept(HeaderMap::new()).unwrap().split();
                send.send("last words".into()).await.unwrap();
                gone.await.unwrap();
                // As a proxy does whose application was reset.
                send.reset(reason);
            });
            while let Ok(Some(_)) = server.accept().await {}
        });
        let stream = tunnel.connect("10.0.0.1:80", HeaderMap::new()).await.unwrap().stream;
        spawn_local(async move { relay::outbound(&mut captured, stream, &Scratch::default(), &counts()).await });
        timeout(PATIENCE, app.read_exact(&mut [0; 10])).await.unwrap().unwrap();

        go.send(()).unwrap();

        let end = timeout(PATIENCE, app.read(&mut [0])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "{reason:?}");
    });
}

#[test]
fn a_peer_that_has_ended_its_half_is_probed_until_the_other_half_ends_too() {
    const EVERY: Duration = Duration::from_secs(20);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for way in [Way::Tunnel, Way::Plain] {
        LocalSet::new().block_on(&runtime, async {
            let (client_app, mut captured) = connected().await;
            let (mut dialled, mut server_app) = connected().await;
            // Another descriptor of the same socket.
            let socket = socket2::SockRef::from(&captured).try_clone().unwrap();
            let scratch = Rc::new(Scratch::default());
            match way {
                Way::Plain => {
                    spawn_local(async move { relay::plain(&mut captured, &mut dialled, &scratch, &counts()).await });
                }
                Way::Tunnel => relay_through_tunnel(captured, dialled, scratch, &Settings::default()).await,
            }
            let mut client_app = client_app;
            greet(&mut client_app, &mut server_app).await;
            assert!(!socket.keepalive().unwrap(), "{way:?}: a whole connection has what its listener gives it");

            end(&mut client_app, &mut server_app).await;

            assert!(socket.keepalive().unwrap(), "{way:?}");
            let times = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
            assert_eq!(times, (EVERY, EVERY), "{way:?}");
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3, "{way:?}");
            greet(&mut server_app, &mut client_app).await;
        });
    }
}

#[test]
fn everything_that_the_proxy_has_read_before_a_reset_arrives_before_it() {
    const SAID: usize = 60 << 10;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (way, client_resets) in [(Way::Tunnel, true), (Way::Tunnel, false), (Way::Plain, true), (Way::Plain, false)] {
        LocalSet::new().block_on(&runtime, async {
            let (client, server) = mesh(way).await;
            let (mut near, mut far) = if client_resets { (client, server) } else { (server, client) };
            near.write_all(&vec![7; SAID]).await.unwrap();
            acknowledged(&near).await;

            socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
            drop(near);

            let seen = read_all(&mut far).await;
            assert_eq!(seen, (SAID, Err(ErrorKind::ConnectionReset)), "{way:?}, the client resets: {client_resets}");
        });
    }
}

#[test]
fn a_body_that_arrived_before_its_stream_was_reset_is_delivered_whole() {
    const BODY: usize = 3 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for half_closed in [false, true] {
        LocalSet::new().block_on(&runtime, async {
            let (mut app, mut captured) = connected().await;
            let (tunnel, mut server) = tunnel(&Settings::default()).await;
            let (reset, was_reset) = tokio::sync::oneshot::channel::<()>();
            spawn_local(async move {
                let request = server.accept().await.unwrap().unwrap();
                spawn_local(async move {
                    let (mut send, _recv) = request.accept(HeaderMap::new()).unwrap().split();
                    send.send(vec![7; BODY].into()).await.unwrap();
                    while send.queued_bytes() > 0 {
                        tokio::task::yield_now().await;
                    }
                    // As Envoy does when the server behind it stops in the middle of a body.
                    send.reset(Reason::InternalError);
                    reset.send(()).unwrap();
                });
                while let Ok(Some(_)) = server.accept().await {}
            });
            let stream = tunnel.connect("10.0.0.1:80", HeaderMap::new()).await.unwrap().stream;
            if half_closed {
                app.shutdown().await.unwrap();
            }
            let relayed = async move {
                let ended = relay::outbound(&mut captured, stream, &Scratch::default(), &counts()).await;
                assert!(ended.is_err(), "a loss counts as a success");
                drop(captured);
            };
            let read = async {
                // Not a byte is read before the reset is on its way.
                timeout(PATIENCE, was_reset).await.unwrap().unwrap();
                read_all(&mut app).await
            };

            let (_, seen) = tokio::join!(relayed, read);

            assert_eq!(seen, (BODY, Err(ErrorKind::ConnectionReset)), "half closed: {half_closed}");
        });
    }
}

#[test]
fn a_reader_that_does_not_read_holds_a_reset_back_for_a_while_and_no_longer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for way in [Way::Tunnel, Way::Plain] {
        LocalSet::new().block_on(&runtime, async {
            let (mut client, server) = mesh(way).await;
            fill(&mut client).await;
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);

            let seen = timeout(PATIENCE, server.ready(Interest::ERROR)).await;

            assert!(seen.is_ok(), "{way:?}: the reader keeps the connection for ever");
        });
    }
}

#[test]
fn a_reader_that_does_not_read_holds_a_bounded_amount() {
    // Both proxies' buffers, the stream's window, and what two pairs of small sockets take.
    const BOUND: usize = 2 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for way in [Way::Tunnel, Way::Plain] {
        LocalSet::new().block_on(&runtime, async {
            let (mut client, _server) = mesh(way).await;
            let (all, mut sent) = (vec![7; MUCH], 0);
            while let Ok(n) = timeout(STUCK, client.write(&all[sent..])).await {
                sent += n.unwrap();
            }

            assert!(sent < BOUND, "{way:?}: {sent} bytes were taken that nobody reads");
        });
    }
}
