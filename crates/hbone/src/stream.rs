//! One application connection inside a tunnel. It opens nothing; see `client` and `server`.

use crate::{Reason, StreamError};
use bytes::Bytes;
use http2::{Shared, StreamRef};
use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};

/// One of the streams that a tunnel may have. Counts as open until the last half that holds it is dropped.
#[derive(Debug)]
pub(crate) struct StreamPermit(Rc<Cell<usize>>);

impl StreamPermit {
    pub(crate) fn new(count: &Rc<Cell<usize>>) -> Rc<Self> {
        count.set(count.get() + 1);
        Rc::new(Self(count.clone()))
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Both halves of a stream.
///
/// Dropping the half that sends before it has [finished](SendHalf::finish) resets the stream with
/// `INTERNAL_ERROR`: Istio's ztunnel reads `CANCEL` as an end, and would take half a message for a whole one.
/// Dropping the half that receives stops nothing while the other one sends: what is received is thrown away. After the
/// other one has finished, the stream is reset with `CANCEL` or `NO_ERROR`.
#[derive(Debug)]
pub struct Stream {
    send: SendHalf,
    recv: RecvHalf,
}

impl Stream {
    pub(crate) fn new(connection: Shared, stream: StreamRef, permit: Option<Rc<StreamPermit>>) -> Self {
        Self {
            send: SendHalf { connection: connection.clone(), stream: stream.clone(), _permit: permit.clone() },
            recv: RecvHalf { connection, stream, _permit: permit },
        }
    }

    /// Returns the halves, to be used side by side.
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

/// The half that sends.
pub struct SendHalf {
    connection: Shared,
    stream: StreamRef,
    _permit: Option<Rc<StreamPermit>>,
}

impl SendHalf {
    /// Queues all of `data`, and waits for room when the queue is full because the peer's window is.
    ///
    /// Dropping the future before it is ready loses the part that is not queued yet.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_send(&mut data, cx)).await
    }

    fn poll_send(&self, data: &mut Bytes, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut connection = self.connection.borrow_mut();
        let mut stream = self.stream.borrow_mut();
        if let Some(end) = StreamError::end_of_sending(&stream) {
            return Poll::Ready(Err(end));
        }
        if stream.is_send_finished() {
            return Poll::Ready(Err(StreamError::BrokenPipe));
        }
        // Queue as much as fits. The rest waits here, so that a slow peer costs the buffer's size and no more.
        let room = connection.send_buffer_bytes().saturating_sub(stream.queued_bytes());
        let part = if data.len() <= room { mem::take(data) } else { data.split_to(room) };
        if !part.is_empty() {
            stream.send_data(part);
        }
        let done = data.is_empty();
        if !done {
            stream.watch_capacity(cx);
        }
        // The schedule borrows the stream too.
        drop(stream);
        connection.schedule(&self.stream);
        if done { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Queues a copy of as much of `data` as there is room for, and returns its length.
    ///
    /// Ready when at least one byte fits, or `data` is empty.
    pub fn poll_write(&self, data: &[u8], cx: &Context<'_>) -> Poll<Result<usize, StreamError>> {
        let room = self.connection.borrow().send_buffer_bytes().saturating_sub(self.stream.borrow().queued_bytes());
        let fits = room.min(data.len());
        let mut piece = Bytes::copy_from_slice(&data[..fits]);
        match self.poll_send(&mut piece, cx) {
            Poll::Ready(Ok(())) if fits > 0 || data.is_empty() => Poll::Ready(Ok(fits)),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            // No room: wait for some.
            Poll::Ready(Ok(())) | Poll::Pending => {
                self.stream.borrow_mut().watch_capacity(cx);
                Poll::Pending
            }
        }
    }

    /// Ends this direction (`END_STREAM`). The other one stays open.
    ///
    /// # Errors
    /// A broken pipe if the stream is closed, unless the peer has reset it with `NO_ERROR`.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        let mut stream = self.stream.borrow_mut();
        if stream.is_reset_without_error() {
            return Ok(());
        }
        if stream.abort_cause().is_some() {
            return Err(StreamError::BrokenPipe);
        }
        stream.send_end_stream();
        drop(stream);
        self.connection.borrow_mut().schedule(&self.stream);
        Ok(())
    }

    /// Number of bytes that are queued and not on their way; 0 once the stream is closed.
    pub fn queued_bytes(&self) -> usize {
        self.stream.borrow().queued_bytes()
    }

    /// Ends both directions at once. What is queued is thrown away.
    pub fn reset(&mut self, reason: Reason) {
        self.connection.borrow_mut().reset(&self.stream, reason);
    }

    /// Ready when the peer has reset the stream or the tunnel is lost, with the error that [`send`](Self::send) would
    /// return.
    ///
    /// A reset with `NO_ERROR` or `STREAM_CLOSED` is a broken pipe. It waits for a reset also after
    /// [`finish`](Self::finish); an ordered end of both directions never makes it ready.
    /// Dropping the future loses nothing, so it can stand in a `select!` beside the wait for more to send.
    /// [`send`](Self::send) itself ends when the stream does and needs no watch.
    pub async fn closed(&mut self) -> StreamError {
        poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// Polls for what [`closed`](Self::closed) waits for.
    ///
    /// A stream wakes one task for this and for [`send`](Self::send): the last that polled either. Poll
    /// both from the same task. [`RecvHalf`] wakes a task of its own.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let mut stream = self.stream.borrow_mut();
        if let Some(end) = StreamError::end_of_sending(&stream) {
            return Poll::Ready(end);
        }
        stream.watch_reset(cx);
        Poll::Pending
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.stream.borrow().is_send_finished() {
            // No effect on a stream that is reset or whose tunnel is lost.
            self.reset(Reason::InternalError);
        }
    }
}

/// The half that receives.
pub struct RecvHalf {
    connection: Shared,
    stream: StreamRef,
    _permit: Option<Rc<StreamPermit>>,
}

impl RecvHalf {
    /// Returns the next piece, or `None` at the end. A reset with `NO_ERROR` is an end. One with `CANCEL` is an error,
    /// unless `END_STREAM` came before it.
    ///
    /// The peer's window shrinks by the piece until it is given back with [`release`](Self::release).
    /// Dropping the future loses nothing.
    pub async fn data(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// Returns the next piece if it is there already. Callers must come back to [`data`](Self::data),
    /// which alone returns an end or an error, and wakes the task.
    pub fn try_data(&mut self) -> Option<Bytes> {
        self.stream.borrow_mut().pop_data()
    }

    /// Polls for what [`data`](Self::data) waits for.
    pub fn poll_data(&self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut stream = self.stream.borrow_mut();
        if let Some(piece) = stream.pop_data() {
            return Poll::Ready(Ok(Some(piece)));
        }
        if let Some(end) = StreamError::end_of_data(&stream) {
            return Poll::Ready(end.map(|()| None));
        }
        stream.watch_recv(cx);
        Poll::Pending
    }

    /// Gives the peer room for `bytes` more, once the pieces are consumed.
    pub fn release(&mut self, bytes: usize) {
        self.connection.borrow_mut().release_capacity(&mut self.stream.borrow_mut(), bytes);
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.connection.borrow_mut().discard_data(&self.stream);
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf").field("stream", &self.stream.borrow()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecvHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvHalf").field("stream", &self.stream.borrow()).finish_non_exhaustive()
    }
}
