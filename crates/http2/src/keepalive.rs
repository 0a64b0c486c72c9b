//! PINGs that find a dead peer. It measures nothing else.

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
    waiting: bool,
    interval: Duration,
    timeout: Duration,
}

impl Keepalive {
    pub(crate) fn new(settings: &Settings) -> Self {
        let (interval, timeout) = (settings.ping_interval, settings.ping_timeout);
        Self { timer: Box::pin(tokio::time::sleep(interval)), waiting: false, interval, timeout }
    }

    /// How long an answer may take.
    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Ready when the peer is lost. A tunnel that ends otherwise is the engine's to notice.
    pub(crate) fn poll_lost(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting && connection.is_ping_acked() {
                self.waiting = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.waiting {
                return Poll::Ready(());
            }
            connection.send_ping();
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.timeout);
        }
    }
}
