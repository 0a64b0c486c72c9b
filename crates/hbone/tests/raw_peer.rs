//! Tunnels with a peer that writes its frames by hand, and does with its connection what no library does.

mod common;

use bytes::Bytes;
use common::frames::{CONNECT, DATA, END_HEADERS, END_STREAM, HEADERS, OK, PREFACE, RST_STREAM, SETTINGS, frame};
use common::{Wire, pattern, read_to_end, tunnel, wire, worker};
use hbone::{Server, Settings};
use http::HeaderMap;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

#[test]
fn requests_behind_many_that_were_given_up_are_heard_at_once() {
    worker(false, async {
        let (mut near, far) = wire();
        let mut said = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
        for id in (1..2_000).step_by(2) {
            said.extend(frame(HEADERS, END_HEADERS, id, CONNECT));
            said.extend(frame(RST_STREAM, 0, id, &[0, 0, 0, 8]));
        }
        said.extend(frame(HEADERS, END_HEADERS, 2_001, CONNECT));
        near.write_all(&said).await.unwrap();
        let mut server = Server::handshake(far, &Settings::default()).await.unwrap();

        // Far less than until the next PING.
        let next = timeout(Duration::from_secs(3), server.accept()).await.expect("nobody reads on");

        assert_eq!(next.unwrap().unwrap().authority(), "a:1");
    });
}

/// A byte stream that takes no more once it is said to be broken. What has come can still be read.
struct Breaks(Wire, Rc<Cell<bool>>);

impl AsyncRead for Breaks {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, out)
    }
}

impl AsyncBufRead for Breaks {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().0).poll_fill_buf(cx)
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        Pin::new(&mut self.get_mut().0).consume(n);
    }
}

impl AsyncWrite for Breaks {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.1.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.get_mut().0).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[test]
fn what_a_peer_said_before_it_closed_is_read_although_it_takes_no_more() {
    worker(false, async {
        let (near, far) = tokio::io::duplex(4 << 20);
        let (broken, mut far) = (Rc::new(Cell::new(false)), far);
        let (tunnel, _driver) = tunnel(Breaks(Wire::new(near), broken.clone()), &Settings::default());
        let opening = async { tunnel.connect("a:1", HeaderMap::new()).await.unwrap().stream.split() };
        let answering = async {
            far.read_exact(&mut [0; 24]).await.unwrap();
            // Whatever the client begins with.
            tokio::task::yield_now().await;
            far.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
            far.write_all(&frame(HEADERS, END_HEADERS, 1, OK)).await.unwrap();
        };
        let ((mut send, mut recv), ()) = tokio::join!(opening, answering);
        let sent = pattern(2_000_000, 1);

        for piece in sent.chunks(10_000) {
            far.write_all(&frame(DATA, 0, 1, piece)).await.unwrap();
        }
        far.write_all(&frame(DATA, END_STREAM, 1, b"")).await.unwrap();
        drop(far);
        broken.set(true);
        send.send(Bytes::from_static(b"for nobody")).await.unwrap();

        assert!(read_to_end(&mut recv).await == sent);
    });
}
