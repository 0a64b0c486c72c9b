//! Streams of one tunnel: both directions, ends, resets, and that they leave each other alone.

mod common;

use bytes::Bytes;
use common::{
    Count, CountsFlushes, at_once, echo_tunnel, exchange, open, pattern, read_to_end, serve, tunnel, wire, worker,
};
use hbone::{ConnectError, Reason, Settings, Stream, StreamError};
use http::{HeaderMap, StatusCode};
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// A stream whose peer resets it at the first bytes.
async fn stream_to_one_who_resets(reason: Reason) -> Stream {
    let (near, far) = wire();
    serve(far, Settings::default(), move |r| async move {
        let (mut send, mut recv) = r.accept(HeaderMap::new()).unwrap().split();
        recv.data().await.unwrap();
        send.reset(reason);
    });
    open(&tunnel(near, &Settings::default()).0).await
}

#[test]
fn a_hundred_and_fifty_streams_carry_their_own_bytes_at_once() {
    worker(false, async {
        let settings = Settings { initial_streams: 150, ..Settings::default() };
        let (near, far) = wire();
        serve(far, settings.clone(), |r| common::echo(r.accept(HeaderMap::new()).unwrap()));
        let (tunnel, _) = tunnel(near, &settings);

        let asking = tunnel.clone();
        at_once(150, move |i| {
            let tunnel = asking.clone();
            async move {
                let sent = pattern(40_000 + i * 100, i);
                assert!(exchange(open(&tunnel).await, sent.clone()).await == sent, "stream {i}");
            }
        })
        .await;

        assert_eq!(tunnel.open_streams(), 0);
    });
}

#[test]
fn what_many_streams_send_at_once_leaves_in_one_flush() {
    worker(false, async {
        let (near, far) = wire();
        serve(far, Settings::default(), |r| common::echo(r.accept(HeaderMap::new()).unwrap()));
        let flushes = Count::default();
        let (tunnel, _) = tunnel(CountsFlushes(near, flushes.clone()), &Settings::default());
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(open(&tunnel).await.split());
        }
        flushes.set(0);

        // Each is long enough for a frame of its own.
        for (send, _) in &mut streams {
            send.send(pattern(2000, 0)).await.unwrap();
        }
        for (_, recv) in &mut streams {
            let mut got = 0;
            while got < 2000 {
                got += recv.data().await.unwrap().unwrap().len();
            }
        }

        assert!(flushes.get() <= 2, "{} flushes for one turn", flushes.get());
    });
}

#[test]
fn the_client_may_end_first_and_still_read() {
    worker(false, async {
        let (near, far) = wire();
        serve(far, Settings::default(), |r| async {
            let (mut send, mut recv) = r.accept(HeaderMap::new()).unwrap().split();
            let got = read_to_end(&mut recv).await;
            send.send(Bytes::from(format!("{} bytes", got.len()))).await.unwrap();
            send.finish().unwrap();
        });
        let (tunnel, _) = tunnel(near, &Settings::default());
        let (mut send, mut recv) = open(&tunnel).await.split();

        send.send(pattern(100, 0)).await.unwrap();
        send.finish().unwrap();

        assert_eq!(read_to_end(&mut recv).await, b"100 bytes");
    });
}

#[test]
fn the_server_may_end_first_and_still_read() {
    worker(false, async {
        let (near, far) = wire();
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = std::cell::Cell::new(Some(tell));
        serve(far, Settings::default(), move |r| {
            let tell = tell.take();
            async move {
                let (mut send, mut recv) = r.accept(HeaderMap::new()).unwrap().split();
                send.send(Bytes::from_static(b"bye")).await.unwrap();
                send.finish().unwrap();
                let _ = tell.unwrap().send(read_to_end(&mut recv).await);
            }
        });
        let (tunnel, _) = tunnel(near, &Settings::default());
        let (mut send, mut recv) = open(&tunnel).await.split();

        assert_eq!(read_to_end(&mut recv).await, b"bye");
        send.send(pattern(300_000, 3)).await.unwrap();
        send.finish().unwrap();

        assert_eq!(told.await.unwrap(), pattern(300_000, 3));
    });
}

#[test]
fn a_stream_is_refused_in_order_by_no_error_and_lost_by_cancel() {
    for reason in [Reason::NoError, Reason::Cancel] {
        worker(false, async move {
            let (mut send, mut recv) = stream_to_one_who_resets(reason).await.split();
            send.send(pattern(10, 0)).await.unwrap();

            let (received, sent) = (recv.data().await, send.send(pattern(10, 0)).await);

            match reason {
                Reason::NoError => assert!(matches!((received, sent), (Ok(None), Err(StreamError::BrokenPipe)))),
                _ => {
                    assert!(matches!(received, Err(StreamError::Reset(Reason::Cancel))));
                    assert!(matches!(sent, Err(StreamError::Reset(Reason::Cancel))));
                }
            }
            assert_eq!(send.finish().is_ok(), reason == Reason::NoError, "{reason:?}");
        });
    }
}

#[test]
fn an_end_that_came_before_a_reset_stays_an_end() {
    worker(false, async {
        let (near, far) = wire();
        serve(far, Settings::default(), |r| async move {
            let (mut send, mut recv) = r.accept(HeaderMap::new()).unwrap().split();
            recv.data().await.unwrap();
            send.send(Bytes::from_static(b"all")).await.unwrap();
            send.finish().unwrap();
            tokio::task::yield_now().await;
            send.reset(Reason::Cancel);
        });
        let (tunnel, _) = tunnel(near, &Settings::default());
        let (mut send, mut recv) = open(&tunnel).await.split();
        send.send(pattern(10, 0)).await.unwrap();

        assert_eq!(read_to_end(&mut recv).await, b"all");
    });
}

#[test]
fn a_stream_reset_with_an_error_fails() {
    worker(false, async {
        let (near, far) = wire();
        serve(far, Settings::default(), |r| async {
            let (mut send, mut recv) = r.accept(HeaderMap::new()).unwrap().split();
            recv.data().await.unwrap();
            send.reset(Reason::InternalError);
        });
        let (tunnel, _) = tunnel(near, &Settings::default());
        let (mut send, mut recv) = open(&tunnel).await.split();
        send.send(pattern(10, 0)).await.unwrap();

        assert!(matches!(recv.data().await, Err(StreamError::Reset(Reason::InternalError))));
    });
}

#[test]
fn a_request_whose_peer_gave_up_is_told_before_it_is_answered() {
    worker(false, async {
        let (near, far) = wire();
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = std::cell::Cell::new(Some(tell));
        serve(far, Settings::default(), move |mut r| {
            let tell = tell.take();
            async move {
                r.closed().await;
                let _ = tell.unwrap().send(r.accept(HeaderMap::new()).is_none());
            }
        });
        let (tunnel, _driver) = tunnel(near, &Settings::default());
        let asking = spawn_local({
            let tunnel = tunnel.clone();
            async move { tunnel.connect("10.0.0.1:80", HeaderMap::new()).await.map(drop) }
        });
        // The request must be on its way before it can be given up.
        while tunnel.open_streams() == 0 {
            tokio::task::yield_now().await;
        }
        asking.abort();

        assert!(timeout(Duration::from_secs(10), told).await.expect("the reset was not told").unwrap());
    });
}

#[test]
fn a_sender_that_waits_for_more_to_send_is_told_of_a_reset() {
    for (reason, ordinary) in [(Reason::Cancel, false), (Reason::NoError, true), (Reason::InternalError, false)] {
        worker(false, async move {
            let (mut send, _recv) = stream_to_one_who_resets(reason).await.split();
            let idle = timeout(Duration::from_millis(1), send.closed()).await;
            assert!(idle.is_err(), "closed without a reason");
            send.send(pattern(10, 0)).await.unwrap();

            let end = timeout(Duration::from_secs(10), send.closed()).await.expect("the reset was not told");

            assert_eq!(matches!(end, StreamError::BrokenPipe), ordinary, "{reason:?}: {end}");
        });
    }
}

#[test]
fn a_sender_that_waits_for_more_to_send_is_told_that_the_tunnel_is_gone() {
    worker(false, async {
        let (near, far) = wire();
        let server = serve(far, Settings::default(), |r| common::echo(r.accept(HeaderMap::new()).unwrap()));
        let (tunnel, _driver) = tunnel(near, &Settings::default());
        let (mut send, _recv) = open(&tunnel).await.split();

        server.abort();

        let end = timeout(Duration::from_secs(10), send.closed()).await.expect("the loss was not told");
        assert!(matches!(end, StreamError::Tunnel(_)), "{end}");
    });
}

#[test]
fn a_sender_that_goes_without_finishing_is_no_end() {
    worker(false, async {
        let (near, far) = wire();
        serve(far, Settings::default(), |r| async {
            let (mut send, mut recv) = r.accept(HeaderMap::new()).unwrap().split();
            send.send(pattern(10, 0)).await.unwrap();
            recv.data().await.unwrap();
        });
        let (tunnel, _driver) = tunnel(near, &Settings::default());
        let (mut send, mut recv) = open(&tunnel).await.split();
        send.send(pattern(1, 0)).await.unwrap();

        let end = loop {
            match recv.data().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        };

        assert!(matches!(end, Err(StreamError::Reset(Reason::InternalError))), "{end:?}");
    });
}

#[test]
fn a_sender_that_has_finished_may_go() {
    worker(false, async {
        let (near, far) = wire();
        serve(far, Settings::default(), |r| async {
            let (mut send, _recv) = r.accept(HeaderMap::new()).unwrap().split();
            send.send(pattern(10, 0)).await.unwrap();
            send.finish().unwrap();
        });
        let (tunnel, _driver) = tunnel(near, &Settings::default());
        let (mut send, mut recv) = open(&tunnel).await.split();

        assert_eq!(read_to_end(&mut recv).await, pattern(10, 0));
        assert!(matches!(send.closed().await, StreamError::BrokenPipe));
    });
}

#[test]
fn a_refusal_is_told_with_its_status() {
    worker(false, async {
        let (near, far) = wire();
        serve(far, Settings::default(), |r| async {
            assert_eq!((r.method(), r.authority()), (&http::Method::CONNECT, "[fd00::1]:80"));
            r.refuse(StatusCode::UNAUTHORIZED);
        });
        let (tunnel, _) = tunnel(near, &Settings::default());

        let refused = tunnel.connect("[fd00::1]:80", HeaderMap::new()).await;

        assert!(matches!(refused, Err(ConnectError::Status(StatusCode::UNAUTHORIZED))));
        assert_eq!(refused.unwrap_err().to_string(), "http status: 401 Unauthorized");
    });
}

#[test]
fn a_stream_nobody_reads_holds_its_sender_back_but_not_the_other_streams() {
    worker(false, async {
        let (near, far) = wire();
        serve(far, Settings::default(), |r| async {
            let stalled = r.authority().starts_with("stalled");
            let stream = r.accept(HeaderMap::new()).unwrap();
            if stalled {
                let _held = stream;
                std::future::pending::<()>().await;
            } else {
                common::echo(stream).await;
            }
        });
        let (tunnel, _) = tunnel(near, &Settings::default());
        let (mut stalled, _recv) = tunnel.connect("stalled:80", HeaderMap::new()).await.unwrap().stream.split();
        let flood = timeout(Duration::from_secs(2), stalled.send(pattern(12 << 20, 0)));
        assert!(flood.await.is_err(), "more than the window and the queue was taken");

        let sent = pattern(9 << 20, 1);
        let other = exchange(open(&tunnel).await, sent.clone());
        let got = timeout(Duration::from_secs(30), other).await.expect("the other stream stalls too");

        assert!(got == sent);
    });
}

#[test]
fn dropping_both_halves_gives_the_place_back() {
    worker(false, async {
        let tunnel = echo_tunnel().await;
        let (send, recv) = open(&tunnel).await.split();
        assert_eq!(tunnel.open_streams(), 1);

        drop(send);
        assert_eq!(tunnel.open_streams(), 1);
        drop(recv);

        assert_eq!(tunnel.open_streams(), 0);
    });
}
