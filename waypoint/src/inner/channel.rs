//! A client's byte stream on another thread than its tunnel's.
//!
//! A tunnel belongs to one thread, and a client's node proxy puts a hundred connections into it. Their HTTP is served on all
//! threads: pieces of bytes go through two bounded channels, without a copy. The peer's window is given back when a piece has
//! found its place in the channel, so at most [`PIECES`] of them wait in each direction.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::channel::mpsc::{Receiver, Sender, channel as bounded};
use futures::{SinkExt, StreamExt};
use hbone::{RecvHalf, SendHalf, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Pieces that may wait in each direction.
const PIECES: usize = 4;
/// Longest piece that is written at once.
const PIECE_BYTES: usize = 64 << 10;

/// A part of a stream. A channel that ends without `End` was broken off.
enum Piece {
    Data(Bytes),
    End,
}

/// End of the thread that serves the connection.
pub struct ChannelIo {
    from_client: Receiver<Piece>,
    to_client: Sender<Piece>,
    rest: Bytes,
    has_ended: bool,
}

/// End of the tunnel's thread.
pub struct Far {
    to_server: Sender<Piece>,
    from_server: Receiver<Piece>,
}

/// Both ends.
pub fn channel() -> (ChannelIo, Far) {
    let (to_server, from_client) = bounded(PIECES);
    let (to_client, from_server) = bounded(PIECES);
    let io = ChannelIo { from_client, to_client, rest: Bytes::new(), has_ended: false };
    (io, Far { to_server, from_server })
}

impl Far {
    /// Carries the bytes of a stream until both directions have ended, or one was broken off: then both are.
    pub async fn carry(self, stream: Stream) {
        let Self { to_server, from_server } = self;
        let (send, recv) = stream.split();
        // An error drops both halves, which resets the stream, and both channels, which the other thread sees as a reset.
        let _ = tokio::try_join!(to_channel(recv, to_server), to_stream(from_server, send));
    }
}

async fn to_channel(mut from: RecvHalf, mut to: Sender<Piece>) -> io::Result<()> {
    while let Some(piece) = from.data().await? {
        let bytes = piece.len();
        to.send(Piece::Data(piece)).await.map_err(|_| broken())?;
        from.release(bytes);
    }
    // A server that needs no more is not an error: it has its answer on the other channel.
    let _ = to.send(Piece::End).await;
    Ok(())
}

async fn to_stream(mut from: Receiver<Piece>, mut to: SendHalf) -> io::Result<()> {
    loop {
        let next = tokio::select! {
            next = from.next() => next,
            gone = to.closed() => return Err(gone.into()),
        };
        match next {
            Some(Piece::Data(piece)) => to.send(piece).await?,
            Some(Piece::End) => return to.finish().map_err(Into::into),
            None => return Err(broken()),
        }
    }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for ChannelIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            if self.has_ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.from_client.poll_next_unpin(cx)) {
                Some(Piece::Data(piece)) => self.rest = piece,
                Some(Piece::End) => self.has_ended = true,
                None => return Poll::Ready(Err(broken())),
            }
        }
        let n = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChannelIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.to_client.poll_ready(cx)).map_err(|_| broken())?;
        let n = data.len().min(PIECE_BYTES);
        self.to_client.start_send(Piece::Data(Bytes::copy_from_slice(&data[..n]))).map_err(|_| broken())?;
        Poll::Ready(Ok(n))
    }

    /// Ready at once: the tunnel's thread sends what is in the channel.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.to_client.is_closed() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.to_client.poll_ready(cx)).map_err(|_| broken())?;
        let sent = self.to_client.start_send(Piece::End).map_err(|_| broken());
        // A second call finds it closed.
        self.to_client.close_channel();
        Poll::Ready(sent)
    }
}

impl std::fmt::Debug for ChannelIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChannelIo").field("rest", &self.rest.len()).finish_non_exhaustive()
    }
}
