//! A stream as a byte stream of tokio, for protocols that are written for one (HTTP inside of a tunnel).
//!
//! Reading copies out of the received pieces and gives their room back to the peer at once; writing copies into pieces of the
//! stream's own. A relay of bytes uses the halves, which copy nothing.

use crate::{RecvHalf, SendHalf, Stream, StreamError};
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that is read and written in one task.
///
/// `shutdown` ends the sending direction (`END_STREAM`). Dropped without it, the stream is reset, so that its peer does not
/// take a part for the whole.
#[derive(Debug)]
pub struct StreamIo {
    send: SendHalf,
    recv: RecvHalf,
    /// Rest of the piece that was received last.
    rest: Bytes,
}

impl StreamIo {
    /// Reads and writes this stream.
    pub fn new(stream: Stream) -> Self {
        let (send, recv) = stream.split();
        Self { send, recv, rest: Bytes::new() }
    }

    /// Returns the halves again, and what was received and not read.
    pub fn into_halves(self) -> (SendHalf, RecvHalf, Bytes) {
        (self.send, self.recv, self.rest)
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Ok(Some(piece)) => self.rest = piece,
                Ok(None) => return Poll::Ready(Ok(())),
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
        let n = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        self.recv.release(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.send.poll_write(data, cx).map_err(io::Error::from)
    }

    /// Ready at once: the tunnel's driver sends what is queued, as soon as the peer's window has room.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.send.finish() {
            // The peer has closed first.
            Ok(()) | Err(StreamError::BrokenPipe) => Ok(()),
            Err(e) => Err(e.into()),
        })
    }
}
