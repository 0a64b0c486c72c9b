//! Holds flushes back while the HTTP/2 engine takes its turn, so that all frames of a turn leave in one write.
//! The engine itself flushes after each DATA frame.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream that two hold: the engine reads and writes it, whoever polls the engine flushes it.
///
/// Bounds nothing: the stream below says by `Pending` when it has enough to write.
pub(crate) struct Cork<T>(Rc<RefCell<Held<T>>>);

struct Held<T> {
    io: T,
    /// Flushes wait for the end of the turn.
    corked: bool,
    /// A flush was asked for and is not done.
    owed: bool,
    /// The flush at the end of a turn failed; the engine hears of it at its next read.
    failed: Option<io::Error>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Cork<T> {
    pub(crate) fn new(io: T) -> Self {
        Self(Rc::new(RefCell::new(Held { io, corked: false, owed: false, failed: None })))
    }

    /// The same stream once more.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// One turn of the engine. What it flushes is flushed at the turn's end, once; a flush that has to wait wakes `cx`.
    pub(crate) fn turn<R>(&self, cx: &mut Context<'_>, engine: impl FnOnce(&mut Context<'_>) -> R) -> R {
        self.0.borrow_mut().corked = true;
        let result = engine(cx);
        self.0.borrow_mut().uncork(cx);
        result
    }
}

impl<T: AsyncWrite + Unpin> Held<T> {
    fn uncork(&mut self, cx: &mut Context<'_>) {
        self.corked = false;
        if !self.owed {
            return;
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.owed = false,
            Poll::Ready(Err(e)) => {
                self.owed = false;
                self.failed = Some(e);
                cx.waker().wake_by_ref();
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.corked {
            self.owed = true;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Cork<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut held = self.0.borrow_mut();
        match held.failed.take() {
            Some(e) => Poll::Ready(Err(e)),
            None => Pin::new(&mut held.io).poll_read(cx, out),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cork<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt, BufWriter, duplex};

    fn write(cork: &mut Cork<BufWriter<tokio::io::DuplexStream>>, cx: &mut Context<'_>) {
        assert!(matches!(Pin::new(&mut *cork).poll_write(cx, b"frame"), Poll::Ready(Ok(5))));
        assert!(matches!(Pin::new(&mut *cork).poll_flush(cx), Poll::Ready(Ok(()))));
    }

    #[tokio::test]
    async fn what_a_turn_flushes_leaves_at_its_end() {
        let (near, mut far) = duplex(100);
        let mut cork = Cork::new(BufWriter::new(near));
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut room, engine) = ([0; 100], cork.share());

        engine.turn(cx, |cx| {
            write(&mut cork, cx);
            write(&mut cork, cx);
            assert!(Pin::new(&mut far).poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
        });
        assert_eq!(far.read(&mut room).await.unwrap(), 10);

        write(&mut cork, cx);
        assert_eq!(far.read(&mut room).await.unwrap(), 5, "outside of a turn nothing is held");
    }

    #[tokio::test]
    async fn a_flush_that_fails_is_told_at_the_next_read() {
        let (near, far) = duplex(100);
        let mut cork = Cork::new(BufWriter::new(near));
        let cx = &mut Context::from_waker(Waker::noop());
        drop(far);

        cork.share().turn(cx, |cx| write(&mut cork, cx));

        assert_eq!(cork.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
