//! A request between its HEADERS and its answer, on either side.

use super::{Line, Shared};
use crate::Reason;

/// A stream that is given up unless it is answered: dropped, it is reset.
pub struct Unanswered {
    connection: Shared,
    line: Option<Line>,
    reason: Reason,
}

impl Unanswered {
    /// `reason` is what the peer is told of a stream that is given up.
    pub const fn new(connection: Shared, line: Line, reason: Reason) -> Self {
        Self { connection, line: Some(line), reason }
    }

    /// Whether the stream has been cut meanwhile.
    pub fn is_cut(&self) -> bool {
        self.line.as_ref().is_none_or(|line| line.borrow().abort_cause().is_some())
    }

    /// The stream, until it is answered.
    pub const fn line(&self) -> Option<&Line> {
        self.line.as_ref()
    }

    /// The stream is answered: whoever calls this has it from here on. `None` if it was cut.
    pub fn answer(mut self) -> Option<(Shared, Line)> {
        if self.is_cut() {
            return None;
        }
        Some((self.connection.clone(), self.line.take()?))
    }

    /// As [`answer`](Self::answer), for the side that gets the answer and has the stream already.
    pub fn keep(mut self) {
        self.line = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            let mut connection = self.connection.borrow_mut();
            connection.reset(line, self.reason);
            connection.leave(line);
        }
    }
}
