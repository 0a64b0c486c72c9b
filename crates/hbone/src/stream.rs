//! One application connection inside a tunnel. It opens nothing; see `client` and `server`.

use crate::{Reason, StreamError};
use bytes::Bytes;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A place among the streams of a tunnel, given back when the last half that holds it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Rc<Cell<usize>>);

impl Place {
    pub(crate) fn take(count: &Rc<Cell<usize>>) -> Rc<Self> {
        count.set(count.get() + 1);
        Rc::new(Self(count.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Both halves of a stream.
///
/// Dropping a half that sends and has not [finished](SendHalf::finish) resets the stream with
/// `INTERNAL_ERROR`: Istio's ztunnel reads `CANCEL` as an end, and would take half a message for a whole one.
/// Dropping the half that receives stops nothing while the other one lives; after it has finished, the
/// peer's bytes are refused with `CANCEL` or `NO_ERROR`.
#[derive(Debug)]
pub struct Stream {
    send: SendHalf,
    recv: RecvHalf,
}

impl Stream {
    pub(crate) fn new(send: h2::SendStream<Bytes>, recv: h2::RecvStream, place: Option<Rc<Place>>) -> Self {
        Self {
            send: SendHalf { send, ended: false, _place: place.clone() },
            recv: RecvHalf { recv, ended: false, held: None, _place: place },
        }
    }

    /// The halves, to be used side by side.
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

/// The half that sends.
#[derive(Debug)]
pub struct SendHalf {
    send: h2::SendStream<Bytes>,
    /// Finished, or reset by us.
    ended: bool,
    _place: Option<Rc<Place>>,
}

impl SendHalf {
    /// Queues all of `data` and waits for room where the peer's window or the queue is full.
    ///
    /// Dropping the future before it is done loses the part that is not queued yet.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        while !data.is_empty() {
            self.send.reserve_capacity(data.len());
            let room = match self.send.capacity() {
                0 => poll_fn(|cx| self.send.poll_capacity(cx))
                    .await
                    .ok_or(StreamError::BrokenPipe)?
                    .map_err(StreamError::sending)?,
                n => n,
            };
            let part = data.split_to(room.min(data.len()));
            if !part.is_empty() {
                self.send.send_data(part, false).map_err(StreamError::sending)?;
            }
        }
        Ok(())
    }

    /// Ends this direction (`END_STREAM`). The other one goes on.
    ///
    /// On a stream that the peer has reset without an error this is nothing; else a broken pipe.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        let Err(e) = self.send.send_data(Bytes::new(), true) else {
            self.ended = true;
            return Ok(());
        };
        let reset = match self.send.poll_reset(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(reason)) => Some(reason),
            Poll::Ready(Err(_)) | Poll::Pending => e.reason(),
        };
        if reset == Some(h2::Reason::NO_ERROR) { Ok(()) } else { Err(StreamError::BrokenPipe) }
    }

    /// Ends both directions at once; what is queued is thrown away.
    pub fn reset(&mut self, reason: Reason) {
        self.ended = true;
        self.send.send_reset(reason.into());
    }

    /// Ready when the peer has reset the stream or the tunnel is gone, with what [`send`](Self::send) would say.
    ///
    /// A reset with `NO_ERROR`, `CANCEL` or `STREAM_CLOSED` is a broken pipe. After [`finish`](Self::finish)
    /// too it waits for a reset; an ordered end of both directions never makes it ready.
    /// Dropping the future loses nothing, so it can stand in a `select!` beside the wait for more to send.
    /// [`send`](Self::send) itself ends when the stream does and needs no watch.
    pub async fn closed(&mut self) -> StreamError {
        poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// As [`closed`](Self::closed), for those who poll.
    ///
    /// A stream wakes one task for this and for [`send`](Self::send): the last that polled either. Poll
    /// both from the same task. [`RecvHalf`] has a wake-up of its own.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.send.poll_reset(cx).map(|end| match end {
            Ok(reason) => StreamError::reset(reason.into()),
            Err(e) => StreamError::sending(e),
        })
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.ended {
            // Nothing on a stream that the peer has reset or whose tunnel is gone.
            self.send.send_reset(h2::Reason::INTERNAL_ERROR);
        }
    }
}

/// The half that receives.
#[derive(Debug)]
pub struct RecvHalf {
    recv: h2::RecvStream,
    ended: bool,
    /// An end that `try_data` has met.
    held: Option<StreamError>,
    _place: Option<Rc<Place>>,
}

impl RecvHalf {
    /// The next piece, or `None` at the end. A reset with `NO_ERROR` is an end; one with `CANCEL`
    /// is none, but leaves an `END_STREAM` alone that came before it.
    ///
    /// The peer's window shrinks by the piece until it is given back with [`release`](Self::release).
    /// Dropping the future loses nothing.
    pub async fn data(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// The next piece if it is there already. Whoever uses it must come back to [`data`](Self::data),
    /// which tells an end or a failure, and which alone wakes the task.
    pub fn try_data(&mut self) -> Option<Bytes> {
        match self.poll_data(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(piece)) => piece,
            Poll::Ready(Err(e)) => {
                self.held = Some(e);
                None
            }
            Poll::Pending => None,
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        if let Some(e) = self.held.take() {
            return Poll::Ready(Err(e));
        }
        while !self.ended {
            match self.recv.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(piece))) if piece.is_empty() => self.ended = self.recv.is_end_stream(),
                Poll::Ready(Some(Ok(piece))) => return Poll::Ready(Ok(Some(piece))),
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(e))) => {
                    self.ended = true;
                    if let Some(e) = StreamError::receiving(e) {
                        return Poll::Ready(Err(e));
                    }
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Gives the peer room for `bytes` more, once the pieces have gone where they belong.
    pub fn release(&mut self, bytes: usize) {
        // Fails only for more than was received, or when the stream is gone: then nobody needs the room.
        let _ = self.recv.flow_control().release_capacity(bytes);
    }
}
