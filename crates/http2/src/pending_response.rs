//! A request between its HEADERS and its response, on either side.

use super::{Shared, StreamRef};
use crate::Reason;

/// A stream without a response yet. Dropping it resets the stream.
pub struct PendingResponse {
    connection: Shared,
    stream: Option<StreamRef>,
    reason: Reason,
}

impl PendingResponse {
    /// Guards `stream`. `reason` is the error code of the reset.
    pub const fn new(connection: Shared, stream: StreamRef, reason: Reason) -> Self {
        Self { connection, stream: Some(stream), reason }
    }

    /// Returns whether the stream has been closed meanwhile.
    pub fn is_reset(&self) -> bool {
        self.stream.as_ref().is_none_or(|stream| stream.borrow().abort_cause().is_some())
    }

    /// Returns the stream, until it is answered.
    pub const fn stream(&self) -> Option<&StreamRef> {
        self.stream.as_ref()
    }

    /// Ends the guard as the stream is answered, and returns the stream; `None` if it has been closed meanwhile.
    pub fn into_stream(mut self) -> Option<(Shared, StreamRef)> {
        if self.is_reset() {
            return None;
        }
        Some((self.connection.clone(), self.stream.take()?))
    }

    /// Ends the guard, for the side that gets the response and has the stream already.
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
