//! Control frames on their way to the peer, and the task that writes them. DATA is taken from the streams instead, when
//! it is written; see `streams`.

use crate::Reason;
use crate::frame::{encode, encode_goaway, encode_headers, encode_u32, flag, kind};
use std::task::{Context, Waker};

/// Bytes of control frames from which on nothing more is read of a peer that does not read them.
const FULL_BYTES: usize = 64 << 10;

/// Room that is kept while nothing is to be sent, bytes: some WINDOW_UPDATEs and a request.
const KEPT_BYTES: usize = 256;

/// Encoded control frames. Whatever is added wakes the connection's driver.
#[derive(Debug)]
pub(crate) struct Outbox {
    frames: Vec<u8>,
    driver: Option<Waker>,
    /// The driver is being polled, or has been woken: it looks here anyway.
    is_driver_woken: bool,
}

impl Outbox {
    /// Begins with `frames`: the connection preface (RFC 9113, section 3.4).
    pub(crate) const fn new(frames: Vec<u8>) -> Self {
        Self { frames, driver: None, is_driver_woken: false }
    }

    /// Notes that the driver is being polled. What is added after the poll wakes `cx`.
    #[inline]
    pub(crate) fn begin_poll(&mut self, cx: &Context<'_>) {
        self.is_driver_woken = true;
        watch(&mut self.driver, cx);
    }

    /// Notes that the driver has written what there was.
    #[inline]
    pub(crate) const fn end_poll(&mut self) {
        self.is_driver_woken = false;
    }

    /// Wakes the driver, once until its next poll.
    #[inline]
    pub(crate) fn wake_driver(&mut self) {
        if !self.is_driver_woken
            // No driver before the first poll: it looks here by itself then.
            && let Some(driver) = &self.driver
        {
            self.is_driver_woken = true;
            driver.wake_by_ref();
        }
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns whether the peer has so many frames to read that nothing more is read of it.
    #[inline]
    pub(crate) const fn is_full(&self) -> bool {
        self.frames.len() >= FULL_BYTES
    }

    /// Moves all frames to the end of `to`.
    #[inline]
    pub(crate) fn drain_into(&mut self, to: &mut Vec<u8>) {
        if self.frames.is_empty() {
            return;
        }
        // Copied, as control frames are short: a few dozen bytes between two writes.
        to.append(&mut self.frames);
        // A connection that waits keeps little of what its busiest moment needed.
        if self.frames.capacity() > KEPT_BYTES {
            self.frames = Vec::new();
        }
    }

    pub(crate) fn send_settings_ack(&mut self) {
        encode(&mut self.frames, kind::SETTINGS, flag::ACK, 0, &[]);
        self.wake_driver();
    }

    pub(crate) fn send_ping(&mut self, payload: &[u8; 8]) {
        encode(&mut self.frames, kind::PING, 0, 0, payload);
        self.wake_driver();
    }

    pub(crate) fn send_ping_ack(&mut self, payload: &[u8; 8]) {
        encode(&mut self.frames, kind::PING, flag::ACK, 0, payload);
        self.wake_driver();
    }

    pub(crate) fn send_goaway(&mut self, last_stream_id: u32, code: u32) {
        encode_goaway(&mut self.frames, last_stream_id, code);
        self.wake_driver();
    }

    pub(crate) fn send_window_update(&mut self, stream_id: u32, increment: u32) {
        encode_u32(&mut self.frames, kind::WINDOW_UPDATE, stream_id, increment);
        self.wake_driver();
    }

    pub(crate) fn send_rst_stream(&mut self, stream_id: u32, reason: Reason) {
        encode_u32(&mut self.frames, kind::RST_STREAM, stream_id, reason.into());
        self.wake_driver();
    }

    /// Adds a header block as HEADERS and as many CONTINUATIONs as `max_frame_size` makes necessary.
    pub(crate) fn send_headers(&mut self, stream_id: u32, block: &[u8], end_stream: bool, max_frame_size: usize) {
        encode_headers(&mut self.frames, stream_id, block, end_stream, max_frame_size);
        self.wake_driver();
    }

    /// Room in its buffer, bytes.
    #[cfg(test)]
    pub(crate) const fn capacity(&self) -> usize {
        self.frames.capacity()
    }
}

/// Makes `waker` wake the task of `cx`.
pub(crate) fn watch(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        // `clone_from` skips the reference counts when it is the same task, as it nearly always is.
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}
