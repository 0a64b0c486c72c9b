//! Moves the bytes of a connection, and notices when the peer is silent or gone.

use super::batch::Batch;
use super::keepalive::Keepalive;
use super::reader::Reader;
use super::{Connection, Fault, Role, Shared};
use crate::{Settings, TunnelError};
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::Sleep;

/// What one turn reads before others have theirs, bytes.
const TURN_BYTES: usize = 512 << 10;

/// A byte stream with HTTP/2 on it. Dropping it cuts all streams.
pub(crate) struct Engine<T> {
    io: T,
    connection: Shared,
    reader: Reader,
    batch: Batch,
    keepalive: Keepalive,
    /// Written, and perhaps not yet with the kernel.
    unflushed: bool,
    /// Why nothing can be written any more. What the peer said before is still read.
    broken: Option<io::Error>,
    /// The last word is said; what remains is to close.
    closing: bool,
    /// Closed; how long the peer may take to do the same.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<T: AsyncBufRead + AsyncWrite + Unpin> Engine<T> {
    pub(crate) fn new(io: T, role: Role, settings: &Settings) -> Self {
        Self {
            io,
            connection: Rc::new(RefCell::new(Connection::new(role, settings))),
            reader: Reader::new(role == Role::Server, settings.frame_bytes as usize),
            batch: Batch::default(),
            keepalive: Keepalive::new(settings),
            unflushed: false,
            broken: None,
            closing: false,
            lingering: None,
        }
    }

    pub(crate) const fn connection(&self) -> &Shared {
        &self.connection
    }

    /// Whether the peer has begun as a client does.
    pub(crate) const fn has_begun(&self) -> bool {
        self.reader.has_begun()
    }

    /// Reads, writes, and waits for more of both. Ready when the connection is over: in order, or with why not.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        if self.lingering.is_some() {
            return self.poll_linger(cx).map(Ok);
        }
        self.connection.borrow_mut().begin_turn(cx);
        let read = if self.closing { Ok(Reading::Waits) } else { self.read(cx) };
        let reading = match read {
            Ok(reading) => reading,
            Err(fault) => return Poll::Ready(Err(self.give_up(cx, fault))),
        };
        if matches!(reading, Reading::Ended) {
            let cut = self.connection.borrow().has_streams();
            let fault = if cut { Fault::Cut } else { Fault::Dropped };
            let over = TunnelError::Protocol(self.fail(fault));
            return Poll::Ready(if cut { Err(over) } else { Ok(()) });
        }
        let (known, written) = match self.broken.take() {
            Some(e) => (true, Poll::Ready(Err(e))),
            None => (false, self.poll_write(cx)),
        };
        match written {
            // A peer that has closed may have ended its streams in order before: what there is gets another turn.
            Poll::Ready(Err(e)) if !known || matches!(reading, Reading::HasMore) => {
                self.broken = Some(e);
                cx.waker().wake_by_ref();
            }
            Poll::Ready(Err(e)) => return Poll::Ready(Err(TunnelError::Protocol(self.fail(Fault::Io(e))))),
            Poll::Ready(Ok(())) if self.connection.borrow().is_finished() || self.closing => {
                return self.poll_close(cx).map(Ok);
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        let mut connection = self.connection.borrow_mut();
        connection.end_turn();
        match reading {
            Reading::HasMore => cx.waker().wake_by_ref(),
            // Else whoever makes room wakes: the byte stream, or the one who takes requests.
            Reading::Paused if !connection.is_full() => cx.waker().wake_by_ref(),
            Reading::Waits | Reading::Paused | Reading::Ended => {}
        }
        ready!(self.keepalive.poll_lost(&mut connection, cx));
        drop(connection);
        self.fail(Fault::Silent);
        Poll::Ready(Err(TunnelError::PingTimeout(self.keepalive.timeout())))
    }

    /// Takes what is there, up to a turn's worth.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<Reading, Fault> {
        let connection = &mut *self.connection.borrow_mut();
        let mut taken = 0;
        while !connection.is_full() {
            let input = match Pin::new(&mut self.io).poll_fill_buf(cx) {
                Poll::Pending => return Ok(Reading::Waits),
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Reading::Ended),
                Poll::Ready(input) => input.map_err(Fault::Io)?,
            };
            let n = input.len();
            if n == 0 {
                return Ok(Reading::Ended);
            }
            let mut rest = input;
            while let Some(event) = self.reader.next(&mut rest)? {
                connection.take(event)?;
            }
            Pin::new(&mut self.io).consume(n);
            taken += n;
            if taken >= TURN_BYTES {
                return Ok(Reading::HasMore);
            }
        }
        Ok(Reading::Paused)
    }

    /// Writes what there is to be sent, and flushes once.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.batch.is_empty() {
                self.connection.borrow_mut().fill(&mut self.batch);
                if self.batch.is_empty() {
                    break;
                }
            }
            self.unflushed = true;
            ready!(self.batch.poll_write(&mut self.io, cx))?;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Says goodbye and closes. A peer that is gone already is fine.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closing {
            self.closing = true;
            self.connection.borrow_mut().say_goodbye(0);
            if ready!(self.poll_write(cx)).is_err() {
                return Poll::Ready(());
            }
        }
        if ready!(Pin::new(&mut self.io).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        self.poll_linger(cx)
    }

    /// Waits until the peer has closed too, whatever it says. Else the kernel would answer that with a reset, and throw
    /// away what the peer has not got yet of our last words.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.keepalive.timeout();
        let timer = self.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            match ready!(Pin::new(&mut self.io).poll_fill_buf(cx)) {
                Ok(input) if !input.is_empty() => {
                    let n = input.len();
                    Pin::new(&mut self.io).consume(n);
                }
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// The peer, or the way to it, cannot be used: tells it why, as far as that goes at once.
    fn give_up(&mut self, cx: &mut Context<'_>, fault: Fault) -> TunnelError {
        if let Fault::Violation { code, .. } = fault {
            self.connection.borrow_mut().say_goodbye(code);
            if matches!(self.poll_write(cx), Poll::Ready(Ok(()))) {
                let _ = Pin::new(&mut self.io).poll_shutdown(cx);
            }
        }
        TunnelError::Protocol(self.fail(fault))
    }

    fn fail(&self, fault: Fault) -> Arc<Fault> {
        let fault = Arc::new(fault);
        self.connection.borrow_mut().fail(&fault);
        fault
    }
}

enum Reading {
    /// Nothing is there.
    Waits,
    /// Others have their turn first.
    HasMore,
    /// What has been read causes enough already.
    Paused,
    /// The peer has closed.
    Ended,
}

impl<T> Drop for Engine<T> {
    fn drop(&mut self) {
        self.connection.borrow_mut().fail(&Arc::new(Fault::Dropped));
    }
}

impl<T> fmt::Debug for Engine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("closing", &self.closing).finish_non_exhaustive()
    }
}
