//! A request between its HEADERS and its answer, on either side.

use super::{Shared, StreamRef};
use crate::Reason;

/// A stream that is given up unless it is answered: dropped, it is reset.
pub struct PendingResponse {
    connection: Shared,
    stream: Option<StreamRef>,
    reason: Reason,
}

impl PendingResponse {
    /// `reason` is what the peer is told of a stream that is given up.
    pub const fn new(connection: Shared, stream: StreamRef, reason: Reason) -> Self {
        Self { connection, stream: Some(stream), reason }
    }

    /// Whether the stream has been cut meanwhile.
    pub fn is_reset(&self) -> bool {
        self.stream.as_ref().is_none_or(|stream| stream.borrow().abort_cause().is_some())
    }

    /// The stream, until it is answered.
    pub const fn stream(&self) -> Option<&StreamRef> {
        self.stream.as_ref()
    }

    /// The stream is answered: whoever calls this has it from here on. `None` if it was cut.
    pub fn into_stream(mut self) -> Option<(Shared, StreamRef)> {
        if self.is_reset() {
            return None;
        }
        Some((self.connection.clone(), self.stream.take()?))
    }

    /// As [`into_stream`](Self::into_stream), for the side that gets the answer and has the stream already.
    pub fn disarm(mut self) {
        self.stream = None;
    }
}

impl Drop for PendingResponse {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            let mut connection = self.connection.borrow_mut();
            connection.reset(stream, self.reason);
            connection.discard_data(stream);
        }
    }
}
