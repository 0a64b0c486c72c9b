//! Peers for the tests of tunnels. Every test runs on one thread with a `LocalSet`, as a worker does.
#![allow(dead_code, unreachable_pub)]

#[path = "../../../tls/tests/common/configs.rs"]
pub mod configs;
pub mod frames;

use bytes::Bytes;
use hbone::{Driver, Request, Server, Settings, Stream, Tunnel, client};
use http::HeaderMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, DuplexStream, ReadBuf};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// Runs a test on a worker of its own.
pub fn worker(paused: bool, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A pair of byte streams in memory.
pub fn wire() -> (Wire, Wire) {
    let (a, b) = tokio::io::duplex(1 << 20);
    (Wire::new(a), Wire::new(b))
}

/// One end of it.
pub type Wire = BufReader<DuplexStream>;

/// Serves every stream of a tunnel with `serve`; ends with the tunnel.
pub fn serve<T, F>(io: T, settings: Settings, serve: impl Fn(Request) -> F + 'static) -> JoinHandle<bool>
where
    T: AsyncBufRead + AsyncWrite + Unpin + 'static,
    F: Future<Output = ()> + 'static,
{
    spawn_local(async move {
        let Ok(mut server) = Server::handshake(io, &settings).await else { return false };
        loop {
            match server.accept().await {
                Ok(Some(request)) => drop(spawn_local(serve(request))),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    })
}

/// The client's end, its driver running.
pub fn tunnel<T>(io: T, settings: &Settings) -> (Tunnel, JoinHandle<Result<(), hbone::TunnelError>>)
where
    T: AsyncBufRead + AsyncWrite + Unpin + 'static,
{
    let (tunnel, driver): (_, Driver<T>) = client::start(io, settings);
    (tunnel, spawn_local(driver))
}

/// A tunnel in memory whose server sends back what it gets.
pub async fn echo_tunnel() -> Tunnel {
    let (near, far) = wire();
    serve(far, Settings::default(), |r| echo(r.accept(HeaderMap::new()).unwrap()));
    tunnel(near, &Settings::default()).0
}

/// Sends back what it gets, then ends.
pub async fn echo(stream: Stream) {
    let (mut send, mut recv) = stream.split();
    while let Ok(Some(piece)) = recv.data().await {
        let n = piece.len();
        if send.send(piece).await.is_err() {
            return;
        }
        recv.release(n);
    }
    let _ = send.finish();
}

/// Opens a stream.
pub async fn open(tunnel: &Tunnel) -> Stream {
    tunnel.connect("10.0.0.1:80", HeaderMap::new()).await.unwrap().stream
}

/// Does so many tasks at once, and waits for all.
pub async fn at_once<F: Future<Output = ()> + 'static>(count: usize, task: impl Fn(usize) -> F) {
    let all: Vec<_> = (0..count).map(|i| spawn_local(task(i))).collect();
    for one in all {
        one.await.unwrap();
    }
}

/// Sends all and ends, while it reads what comes back until that ends.
pub async fn exchange(stream: Stream, sent: Bytes) -> Vec<u8> {
    let (mut send, mut recv) = stream.split();
    let sending = async {
        send.send(sent).await.unwrap();
        send.finish().unwrap();
    };
    tokio::join!(sending, read_to_end(&mut recv)).1
}

/// All bytes of a half until its end.
pub async fn read_to_end(recv: &mut hbone::RecvHalf) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = recv.data().await.unwrap() {
        recv.release(piece.len());
        all.extend_from_slice(&piece);
    }
    all
}

/// Bytes that tell their place.
pub fn pattern(n: usize, seed: usize) -> Bytes {
    (0..n).map(|i| ((i * 31 + seed * 7) % 251) as u8).collect()
}

/// A shared counter.
pub type Count = Rc<std::cell::Cell<usize>>;

/// A byte stream that counts its flushes.
pub struct CountsFlushes<T>(pub T, pub Count);

impl<T: AsyncRead + Unpin> AsyncRead for CountsFlushes<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, out)
    }
}

impl<T: AsyncBufRead + Unpin> AsyncBufRead for CountsFlushes<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().0).poll_fill_buf(cx)
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        Pin::new(&mut self.get_mut().0).consume(n);
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CountsFlushes<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.1.set(this.1.get() + 1);
        Pin::new(&mut this.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
