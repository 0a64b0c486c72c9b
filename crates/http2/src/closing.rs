//! The end of a connection: GOAWAY and everything before it are sent, then the write side closes, then the peer has
//! time to read it all. Bytes of the peer are read and thrown away meanwhile, for two reasons:
//!
//! - Two ends that close at once, over a byte stream that is full both ways, would wait for each other.
//! - A socket that is closed with unread bytes answers with a reset, and a reset throws away what the peer has not
//!   read.

use super::reader::Reader;
use super::writer::Writer;
use super::{Connection, Error, POLL_BYTES, ping};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::Sleep;

/// Time for a peer that has violated the protocol to read the GOAWAY that says so.
const AFTER_VIOLATION: Duration = Duration::from_secs(2);

/// Step of a connection that is being closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Write,
    ShutDown,
    /// Wait for the peer to close, or to have read everything.
    Linger,
}

/// A connection that is being closed.
pub(super) struct Closing {
    /// Reason for closing, if not in order.
    error: Option<Arc<Error>>,
    step: Step,
    /// The peer has closed its side too, or has read everything.
    is_peer_done: bool,
    /// Frames are looked for in what the peer sends. After a violation there may be none.
    finds_frames: bool,
    /// Bytes that are still read of a peer that has violated the protocol: one that keeps to its window has no more on
    /// its way.
    left_bytes: usize,
    timer: Pin<Box<Sleep>>,
}

impl Closing {
    /// Closes in order. `timeout` is the time for the peer to acknowledge a PING.
    pub(super) fn in_order(timeout: Duration) -> Self {
        Self::new(None, timeout, usize::MAX)
    }

    /// Closes because of `error`. A peer that keeps to its window has at most `window_bytes` on its way.
    pub(super) fn after(error: Arc<Error>, window_bytes: usize) -> Self {
        Self::new(Some(error), AFTER_VIOLATION, window_bytes)
    }

    fn new(error: Option<Arc<Error>>, timeout: Duration, left_bytes: usize) -> Self {
        let finds_frames = error.is_none();
        let timer = Box::pin(tokio::time::sleep(timeout));
        Self { error, step: Step::Write, is_peer_done: false, finds_frames, left_bytes, timer }
    }

    /// Ready when the byte stream can be dropped.
    pub(super) fn poll<T: AsyncBufRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        connection: &RefCell<Connection>,
        reader: &mut Reader,
        writer: &mut Writer,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Arc<Error>>> {
        // In this order: what is left to write goes out before the peer's bytes, or the time, end the wait.
        let is_over = self.poll_write(io, connection, writer, cx).is_ready()
            || self.poll_read(io, reader, cx).is_ready()
            || self.timer.as_mut().poll(cx).is_ready();
        if is_over { Poll::Ready(self.error.take().map_or(Ok(()), Err)) } else { Poll::Pending }
    }

    /// Writes, then shuts down. Ready when nothing can be written any more.
    fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        connection: &RefCell<Connection>,
        writer: &mut Writer,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.step == Step::Write {
            match writer.poll_write(io, connection, cx) {
                Poll::Ready(Ok(())) => self.step = Step::ShutDown,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.step == Step::ShutDown {
            match Pin::new(io).poll_shutdown(cx) {
                // FIN is on its way, so a peer that reads to the end sees it.
                Poll::Ready(Ok(())) => self.step = Step::Linger,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Throws away what the peer sends. Ready when there is nothing more to wait for.
    fn poll_read<T: AsyncBufRead + Unpin>(
        &mut self,
        io: &mut T,
        reader: &mut Reader,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut taken = 0;
        while !self.is_peer_done {
            let mut input = match Pin::new(&mut *io).poll_fill_buf(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(input)) => input,
            };
            let n = input.len();
            // The acknowledgement of the last PING says that the peer has read everything before it.
            while self.finds_frames && !input.is_empty() {
                match reader.next(&mut input) {
                    Ok(Some(event)) => self.is_peer_done |= ping::is_close_ack(&event),
                    Ok(None) => {}
                    Err(_) => self.finds_frames = false,
                }
            }
            Pin::new(&mut *io).consume(n);
            self.left_bytes = self.left_bytes.saturating_sub(n);
            // n is 0 at the peer's FIN.
            self.is_peer_done |= n == 0 || self.left_bytes == 0;
            taken += n;
            // Other connections of the thread have their turn.
            if taken >= POLL_BYTES && !self.is_peer_done {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if self.step == Step::Linger { Poll::Ready(()) } else { Poll::Pending }
    }
}
