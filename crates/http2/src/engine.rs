//! Moves the bytes of a connection, and notices when the peer is lost.

use super::closing::Closing;
use super::keepalive::Keepalive;
use super::reader::{Limits, Reader};
use super::writer::Writer;
use super::{Connection, Error, POLL_BYTES, Role, Shared};
use crate::Settings;
use crate::header_blocks::BLOCKS_PER_LIST;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncWrite};

/// A byte stream with HTTP/2 on it. Owns the byte stream; dropping it ends all streams with [`Error::Dropped`].
pub struct Engine<T> {
    io: T,
    connection: Shared,
    reader: Reader,
    writer: Writer,
    keepalive: Keepalive,
    /// Error of a write. Nothing is written any more, but what the peer sent before it closed is still read.
    broken: Option<io::Error>,
    closing: Option<Closing>,
}

impl<T: AsyncBufRead + AsyncWrite + Unpin> Engine<T> {
    pub fn new(io: T, role: Role, settings: &Settings) -> Self {
        let limits = Limits {
            frame: settings.frame_bytes as usize,
            header_block: BLOCKS_PER_LIST * role.header_list_bytes(settings) as usize,
        };
        Self {
            io,
            connection: Rc::new(RefCell::new(Connection::new(role, settings))),
            reader: Reader::new(role == Role::Server, limits),
            writer: Writer::default(),
            keepalive: Keepalive::new(settings),
            broken: None,
            closing: None,
        }
    }

    pub const fn connection(&self) -> &Shared {
        &self.connection
    }

    /// Returns whether the client's connection preface has come.
    pub const fn has_begun(&self) -> bool {
        self.reader.has_begun()
    }

    /// Reads and writes until both have to wait. Ready when the connection is over.
    ///
    /// # Errors
    /// The reason, if it did not end in order.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Arc<Error>>> {
        if self.closing.is_some() {
            return self.poll_closing(cx);
        }
        // From here on whoever adds output need not wake us: it is written below.
        self.connection.borrow_mut().begin_poll(cx);
        let reading = match self.read(cx) {
            Ok(reading) => reading,
            Err(error) => return self.give_up(cx, error),
        };
        // Without open streams a peer may close at any time, with or without GOAWAY.
        if matches!(reading, Reading::Ended) {
            let cut = self.connection.borrow().has_streams();
            let error = if cut { Error::UnexpectedEof } else { Error::Dropped };
            let over = self.fail(error);
            return Poll::Ready(if cut { Err(over) } else { Ok(()) });
        }
        // A write that failed in the last poll is not tried again: what the peer sent before was read meanwhile.
        let (known, written) = match self.broken.take() {
            Some(e) => (true, Poll::Ready(Err(e))),
            None => (false, self.writer.poll_write(&mut self.io, &self.connection, cx)),
        };
        match written {
            // A peer that has closed may have ended its streams in order before that: read what it sent, then fail.
            Poll::Ready(Err(e)) if !known || matches!(reading, Reading::HasMore) => {
                self.broken = Some(e);
                cx.waker().wake_by_ref();
            }
            Poll::Ready(Err(e)) => return Poll::Ready(Err(self.fail(Error::Io(e)))),
            Poll::Ready(Ok(())) if self.connection.borrow().is_finished() => {
                self.connection.borrow_mut().send_final_goaway();
                self.closing = Some(Closing::in_order(self.keepalive.timeout()));
                return self.poll_closing(cx);
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        // Everything that is added after this wakes us, so nothing may be added between the write and here.
        let mut connection = self.connection.borrow_mut();
        // From here on, what is added wakes this task again.
        connection.end_poll();
        match reading {
            Reading::HasMore => cx.waker().wake_by_ref(),
            // Otherwise whoever makes room wakes us: the byte stream, or the task that takes requests.
            Reading::Paused if !connection.is_full() => cx.waker().wake_by_ref(),
            Reading::Waits | Reading::Paused | Reading::Ended => {}
        }
        ready!(self.keepalive.poll_lost(&mut connection, cx));
        drop(connection);
        Poll::Ready(Err(self.fail(Error::PingTimeout(self.keepalive.timeout()))))
    }

    /// Reads and processes what is there, up to [`POLL_BYTES`].
    fn read(&mut self, cx: &mut Context<'_>) -> Result<Reading, Error> {
        // One borrow for all frames of a poll. Wakers that run meanwhile only mark their tasks.
        let connection = &mut *self.connection.borrow_mut();
        let mut taken = 0;
        // A peer that does not read our answers, or sends more requests than are taken, is not read: its own window and
        // the kernel's buffers stop it.
        while !connection.is_full() {
            let input = match Pin::new(&mut self.io).poll_fill_buf(cx) {
                Poll::Pending => return Ok(Reading::Waits),
                // TLS without close_notify. With open streams it is an error all the same; see `poll`.
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Reading::Ended),
                Poll::Ready(input) => input.map_err(Error::Io)?,
            };
            let n = input.len();
            if n == 0 {
                return Ok(Reading::Ended);
            }
            let mut rest = input;
            while let Some(event) = self.reader.next(&mut rest)? {
                connection.recv(event)?;
            }
            // Only now: frames borrow the input until they are processed.
            Pin::new(&mut self.io).consume(n);
            taken += n;
            // Let the other connections of the thread have their turn.
            if taken >= POLL_BYTES {
                return Ok(Reading::HasMore);
            }
        }
        Ok(Reading::Paused)
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Arc<Error>>> {
        let Some(closing) = &mut self.closing else { return Poll::Ready(Ok(())) };
        closing.poll(&mut self.io, &self.connection, &mut self.reader, &mut self.writer, cx)
    }

    /// Ends the connection because of `error`. All streams end at once. A peer that has violated the protocol gets a
    /// GOAWAY with the error code, and time to read it.
    fn give_up(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<Result<(), Arc<Error>>> {
        let code = error.code();
        if let Some(code) = code {
            self.connection.borrow_mut().send_goaway(code);
        }
        let error = self.fail(error);
        if code.is_none() {
            return Poll::Ready(Err(error));
        }
        // A peer that violates the protocol could send for ever; one that is only wrong has at most its window on its
        // way.
        let window = self.connection.borrow().window_bytes();
        self.closing = Some(Closing::after(error, window));
        self.poll_closing(cx)
    }

    fn fail(&self, error: Error) -> Arc<Error> {
        let error = Arc::new(error);
        self.connection.borrow_mut().fail(&error);
        error
    }
}

enum Reading {
    /// The byte stream has nothing.
    Waits,
    /// There may be more; other tasks have their turn first.
    HasMore,
    /// Nothing is read until what has been read is dealt with.
    Paused,
    /// The peer has closed its side.
    Ended,
}

impl<T> Drop for Engine<T> {
    fn drop(&mut self) {
        self.connection.borrow_mut().fail(&Arc::new(Error::Dropped));
    }
}

impl<T> fmt::Debug for Engine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("closing", &self.closing.is_some()).finish_non_exhaustive()
    }
}
