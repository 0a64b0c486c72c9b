//! Requests that have arrived and that the server has not taken yet.

use crate::StreamRef;
use crate::fields::RequestHead;
use std::collections::VecDeque;

/// Number of requests for which room is kept while there are none. A burst needs more.
const KEPT_REQUESTS: usize = 4;

/// A request with its stream.
type Request = (StreamRef, RequestHead);

/// Requests in the order of their arrival.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests(VecDeque<Request>);

impl PendingRequests {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(crate) fn push(&mut self, stream: StreamRef, head: RequestHead) {
        self.0.push_back((stream, head));
    }

    /// Removes the oldest request, and the memory that only a burst has needed.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Request> {
        let next = self.0.pop_front();
        if self.0.is_empty() && self.0.capacity() > KEPT_REQUESTS {
            self.0 = VecDeque::new();
        }
        next
    }

    /// Removes all requests.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Room in the queue, bytes.
    #[cfg(test)]
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Request>()
    }
}
