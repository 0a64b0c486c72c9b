//! Writes what a connection has to send. What that is, `connection` decides.

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
    /// What is being written, if anything is.
    batch: Option<Box<Batch>>,
    /// Written, and perhaps not yet with the kernel.
    unflushed: bool,
}

impl Writer {
    /// Writes all that is to be sent, and flushes once.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        connection: &RefCell<Connection>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // A batch is taken only while there is something to write.
        while self.batch.is_some() || connection.borrow().has_output() {
            let mut batch = self.batch.take().unwrap_or_else(Batch::take);
            if batch.is_empty() {
                connection.borrow_mut().fill(&mut batch);
            }
            if batch.is_empty() {
                // What is there has to wait for the peer's windows.
                batch.release_capacity();
                break;
            }
            self.unflushed = true;
            let written = batch.poll_write(io, cx);
            if !matches!(written, Poll::Ready(Ok(()))) {
                self.batch = Some(batch);
                return written;
            }
            batch.release_capacity();
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
