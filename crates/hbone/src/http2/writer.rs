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
    batch: Batch,
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
        loop {
            if self.batch.is_empty() {
                connection.borrow_mut().fill(&mut self.batch);
                if self.batch.is_empty() {
                    break;
                }
            }
            self.unflushed = true;
            ready!(self.batch.poll_write(io, cx))?;
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
