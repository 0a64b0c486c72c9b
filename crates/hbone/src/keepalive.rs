//! PINGs that find a dead peer. It measures nothing else.

use crate::{Settings, TunnelError};
use h2::{Ping, PingPong};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Sends a PING every interval and fails when an answer takes too long.
pub(crate) struct Keepalive {
    ping: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
    interval: Duration,
    timeout: Duration,
}

impl Keepalive {
    pub(crate) fn new(ping: Option<PingPong>, settings: &Settings) -> Self {
        let (interval, timeout) = (settings.ping_interval, settings.ping_timeout);
        Self { ping, timer: Box::pin(tokio::time::sleep(interval)), waiting: false, interval, timeout }
    }

    /// Ready when the peer is lost. A tunnel that ends otherwise is the engine's to notice.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<TunnelError> {
        let Some(ping) = self.ping.as_mut() else { return Poll::Pending };
        loop {
            if self.waiting {
                match ping.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.waiting = false;
                        self.timer.as_mut().reset(Instant::now() + self.interval);
                    }
                    Poll::Ready(Err(_)) => {
                        self.ping = None;
                        return Poll::Pending;
                    }
                    Poll::Pending => {
                        return self.timer.as_mut().poll(cx).map(|()| TunnelError::PingTimeout(self.timeout));
                    }
                }
            } else {
                if self.timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if ping.send_ping(Ping::opaque()).is_err() {
                    self.ping = None;
                    return Poll::Pending;
                }
                self.waiting = true;
                self.timer.as_mut().reset(Instant::now() + self.timeout);
            }
        }
    }
}
