//! Writes the output of a connection to a byte stream. The connection decides what that is.

use super::Connection;
use super::batch::Batch;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Frames on their way to a byte stream.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Batch that is being written, if any.
    batch: Option<Box<Batch>>,
    /// Bytes were written and not flushed: the byte stream may still hold them.
    unflushed: bool,
}

impl Writer {
    /// Writes all output, then flushes once.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        connection: &RefCell<Connection>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // Take a batch only while there is something to write: an idle connection holds none.
        while self.batch.is_some() || connection.borrow().has_output() {
            let mut batch = self.batch.take().unwrap_or_else(Batch::take);
            if batch.is_empty() {
                connection.borrow_mut().fill(&mut batch);
            }
            if batch.is_empty() {
                // All output waits for the peer's windows.
                batch.recycle();
                break;
            }
            // Set before the write: one that waits or fails may have written a part.
            self.unflushed = true;
            let written = batch.poll_write(io, cx);
            if !matches!(written, Poll::Ready(Ok(()))) {
                // The rest stays in the batch, with its place, for the next poll.
                self.batch = Some(batch);
                return written;
            }
            batch.recycle();
        }
        // Once for all batches of a poll: a flush seals a TLS record, and small records cost 22 bytes and a system call
        // each.
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
