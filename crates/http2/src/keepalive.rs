//! PINGs that find a peer that is lost. They measure nothing else.

use super::Connection;
use crate::Settings;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Sends a PING every interval and fails when an answer takes too long.
#[derive(Debug)]
pub(crate) struct Keepalive {
    timer: Pin<Box<Sleep>>,
    /// A PING is sent and its acknowledgement has not come.
    is_waiting: bool,
    interval: Duration,
    timeout: Duration,
}

impl Keepalive {
    pub(crate) fn new(settings: &Settings) -> Self {
        let (interval, timeout) = (settings.ping_interval, settings.ping_timeout);
        Self { timer: Box::pin(tokio::time::sleep(interval)), is_waiting: false, interval, timeout }
    }

    /// Time for the peer to acknowledge a PING.
    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Ready when the peer is lost.
    pub(crate) fn poll_lost(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // The next interval begins at the answer, so a slow peer is not asked more often than a fast one.
            if self.is_waiting && connection.is_ping_acked() {
                self.is_waiting = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.is_waiting {
                return Poll::Ready(());
            }
            // Sent also while data flows: to notice that would cost a look at the clock for every frame.
            connection.send_ping();
            self.is_waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.timeout);
        }
    }
}
