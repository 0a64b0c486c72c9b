//! Time for a request, which begins when the client has sent all of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::body::Source;

/// Deadline of a request.
pub struct Deadline {
    time: Duration,
    /// Body that has to arrive first; `None` for a request without one.
    source: Option<Source>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// `time` from the end of the request on; from now on without a body.
    pub fn new(time: Duration, source: Option<Source>) -> Self {
        Self { time, source, sleep: None }
    }

    /// Ready once the time is over. One task may poll the deadlines of a request.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sleep.is_none() {
            if let Some(source) = &self.source {
                ready!(source.poll_end(cx));
            }
            self.sleep = Instant::now().checked_add(self.time).map(|end| Box::pin(sleep_until(end)));
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            // Later than any clock shows.
            None => Poll::Pending,
        }
    }
}
