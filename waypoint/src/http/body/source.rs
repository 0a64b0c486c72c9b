//! The body of a client's request, from which every try and every mirror reads its own copy. Pieces are shared, not copied.
//!
//! Nothing is read from the client before somebody wants it, so a slow endpoint slows the client down. What was read is kept
//! while a further try may need it, up to [`MAX_REPLAY_BYTES`]; beyond that the request is not sent again. A mirror that
//! falls behind by as much is cut.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::BoxError;

/// Bytes of a request that are kept for further tries and for mirrors; Envoy's default for a buffer.
pub const MAX_REPLAY_BYTES: usize = 1 << 20;

/// A reader cannot have the rest of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    #[error("the client has broken off its request")]
    Client,
    #[error("the mirror is too slow")]
    Slow,
}

/// Body of a request. Clones share it.
#[derive(Debug, Clone)]
pub struct Source(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    state: RefCell<State>,
    /// Bytes received so far, for the report.
    received: Rc<Cell<u64>>,
    /// Bytes that this worker keeps for all of its requests.
    kept: Rc<Cell<usize>>,
    max_kept: usize,
}

struct State {
    body: Option<Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>>,
    length: SizeHint,
    pieces: VecDeque<Bytes>,
    /// Number of pieces that are no longer kept.
    dropped: usize,
    kept_bytes: usize,
    /// All pieces are kept, because a further try may need them.
    is_kept: bool,
    trailers: Option<HeaderMap>,
    end: Option<Result<(), Cut>>,
    readers: Vec<Position>,
    next_reader: usize,
    /// Task that waits for the end.
    waits_for_end: Option<Waker>,
}

#[derive(Debug)]
struct Position {
    reader: usize,
    /// Pieces read.
    at: usize,
    is_mirror: bool,
    waker: Option<Waker>,
}

/// One copy of a body.
#[derive(Debug)]
pub(super) struct Reader {
    source: Source,
    id: usize,
    has_trailers: bool,
}

impl Source {
    /// The body of a request. It is kept for further tries if `is_kept`, and as long as the requests of the worker, whose
    /// bytes `kept` counts, keep at most `max_kept` bytes together.
    pub fn new<B>(body: B, is_kept: bool, received: Rc<Cell<u64>>, kept: Rc<Cell<usize>>, max_kept: usize) -> Self
    where
        B: Body<Data = Bytes, Error = BoxError> + 'static,
    {
        let length = body.size_hint();
        let state = State {
            body: Some(Box::pin(body)),
            length,
            pieces: VecDeque::new(),
            dropped: 0,
            kept_bytes: 0,
            is_kept,
            trailers: None,
            end: None,
            readers: Vec::new(),
            next_reader: 0,
            waits_for_end: None,
        };
        Self(Rc::new(Shared { state: RefCell::new(state), received, kept, max_kept }))
    }

    pub(super) fn reader(&self, is_mirror: bool) -> Reader {
        let mut state = self.0.state.borrow_mut();
        let id = state.next_reader;
        state.next_reader += 1;
        let at = state.dropped;
        state.readers.push(Position { reader: id, at, is_mirror, waker: None });
        Reader { source: self.clone(), id, has_trailers: false }
    }

    /// Returns true if a further try can read the body from its beginning.
    pub fn can_replay(&self) -> bool {
        let state = self.0.state.borrow();
        state.is_kept && state.dropped == 0
    }

    /// No further try will come: only what readers have not read yet is kept from here on.
    pub fn stop_keeping(&self) {
        let mut state = self.0.state.borrow_mut();
        state.is_kept = false;
        self.trim(&mut state);
    }

    /// Returns true if the client has broken off its request.
    pub fn is_broken(&self) -> bool {
        self.0.state.borrow().end == Some(Err(Cut::Client))
    }

    /// Ready when the client has sent everything, or has broken off. One task may wait.
    pub fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.state.borrow_mut();
        if state.end.is_some() {
            return Poll::Ready(());
        }
        state.waits_for_end = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Reads the next piece from the client into the queue.
    fn poll_fill(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
        let Some(body) = &mut state.body else { return Poll::Ready(()) };
        let frame = ready!(body.as_mut().poll_frame(cx));
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => {
                    self.0.received.set(self.0.received.get() + piece.len() as u64);
                    state.kept_bytes += piece.len();
                    self.0.kept.set(self.0.kept.get() + piece.len());
                    state.pieces.push_back(piece);
                    self.limit(state);
                }
                Err(frame) => state.trailers = frame.into_trailers().ok(),
            },
            Some(Err(_)) => state.finish(Err(Cut::Client)),
            None => state.finish(Ok(())),
        }
        if state.body.as_ref().is_some_and(|body| body.is_end_stream()) {
            state.finish(Ok(()));
        }
        state.wake_readers();
        Poll::Ready(())
    }

    /// Drops what is beyond the bounds.
    fn limit(&self, state: &mut State) {
        let is_over = |state: &State| state.kept_bytes > MAX_REPLAY_BYTES || self.0.kept.get() > self.0.max_kept;
        if is_over(state) {
            state.is_kept = false;
            self.trim(state);
        }
        if is_over(state) {
            // All that is left waits for readers that are behind. The one that has asked for this piece is not.
            let newest = state.dropped + state.pieces.len();
            for lagging in state.readers.extract_if(.., |reader| reader.is_mirror && reader.at + 1 < newest) {
                if let Some(waker) = lagging.waker {
                    waker.wake();
                }
            }
            self.trim(state);
        }
    }

    /// Drops pieces that every reader has read.
    fn trim(&self, state: &mut State) {
        if state.is_kept {
            return;
        }
        let needed = state.readers.iter().map(|reader| reader.at).min();
        let needed = needed.unwrap_or(state.dropped + state.pieces.len());
        while state.dropped < needed
            && let Some(piece) = state.pieces.pop_front()
        {
            state.dropped += 1;
            state.kept_bytes -= piece.len();
            self.0.kept.set(self.0.kept.get() - piece.len());
        }
    }
}

impl State {
    fn finish(&mut self, end: Result<(), Cut>) {
        self.body = None;
        self.end.get_or_insert(end);
        if let Some(waker) = self.waits_for_end.take() {
            waker.wake();
        }
    }

    fn wake_readers(&mut self) {
        for reader in &mut self.readers {
            if let Some(waker) = reader.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Reader {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let state = &mut *self.source.0.state.borrow_mut();
        loop {
            let dropped = state.dropped;
            let Some(position) = state.readers.iter_mut().find(|position| position.reader == self.id) else {
                return Poll::Ready(Some(Err(Cut::Slow.into())));
            };
            if let Some(piece) = state.pieces.get(position.at - dropped) {
                let piece = piece.clone();
                position.at += 1;
                self.source.trim(state);
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match (&state.end, &state.trailers) {
                (Some(Err(cut)), _) => return Poll::Ready(Some(Err((*cut).into()))),
                (Some(Ok(())), Some(trailers)) if !self.has_trailers => {
                    self.has_trailers = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
                }
                (Some(Ok(())), _) => return Poll::Ready(None),
                (None, _) => {}
            }
            // The client's body wakes only the reader that has polled it last; that one wakes the others.
            position.waker = Some(cx.waker().clone());
            let is_mirror = position.is_mirror;
            if is_mirror && state.readers.iter().any(|position| !position.is_mirror) {
                // A mirror that is faster than the endpoint must not fill the queue.
                return Poll::Pending;
            }
            ready!(self.source.poll_fill(state, cx));
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        let state = self.source.0.state.borrow();
        let at = state.readers.iter().find(|position| position.reader == self.id).map(|position| position.at);
        let is_last = at.is_some_and(|at| at == state.dropped + state.pieces.len());
        let is_complete = state.end == Some(Ok(())) && (state.trailers.is_none() || self.has_trailers);
        is_last && is_complete
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        // Of the whole body: asked before the first piece is read.
        self.source.0.state.borrow().length
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let state = &mut *self.source.0.state.borrow_mut();
        state.readers.retain(|position| position.reader != self.id);
        // It may have been the one that the client's body would have woken.
        state.wake_readers();
        self.source.trim(state);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.kept.set(self.kept.get() - self.state.borrow().kept_bytes);
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("kept_bytes", &self.kept_bytes).field("end", &self.end).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
