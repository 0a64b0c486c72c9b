//! Flow-control windows of a stream and of the connection (RFC 9113, sections 5.2 and 6.9).

use crate::code;
use crate::frame::MAX_WINDOW_SIZE;

/// The two windows of a stream, or of the connection: how many bytes of DATA each side may still send.
///
/// The receive window is counted as the peer knows it. Capacity that its consumer has released is collected in
/// `released` until it is worth a WINDOW_UPDATE, and only then added. With a window of 100 bytes:
///
/// ```text
///                       recv_window   released   the peer may send
/// at first                      100          0                 100
/// DATA of 60 bytes               40          0                  40
/// 60 bytes released              40         60                  40
/// WINDOW_UPDATE by 60           100          0                 100
/// ```
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlowControl {
    /// Bytes that we may send. Negative when the peer has lowered SETTINGS_INITIAL_WINDOW_SIZE below what is on its
    /// way (section 6.9.2).
    send_window: i32,
    /// Bytes that the peer may send. Negative only when it has sent too many.
    recv_window: i32,
    /// Bytes that were released and that no WINDOW_UPDATE has announced.
    released: u32,
}

impl FlowControl {
    /// Windows of so many bytes; both are at most [`MAX_WINDOW_SIZE`].
    pub(crate) const fn new(send_window: u32, recv_window: u32) -> Self {
        Self { send_window: to_window(send_window), recv_window: to_window(recv_window), released: 0 }
    }

    /// Bytes of DATA that may be sent now.
    #[inline]
    pub(crate) const fn send_capacity(&self) -> usize {
        if self.send_window > 0 { self.send_window.unsigned_abs() as usize } else { 0 }
    }

    /// Counts DATA that is sent, at most [`send_capacity`](Self::send_capacity).
    #[inline]
    pub(crate) const fn send_data(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.send_capacity());
        self.send_window -= bytes as i32;
    }

    /// Applies a WINDOW_UPDATE.
    ///
    /// # Errors
    /// An increment of 0 is a PROTOCOL_ERROR, a window beyond [`MAX_WINDOW_SIZE`] a FLOW_CONTROL_ERROR (sections 6.9 and
    /// 6.9.1). Whether that ends the stream or the connection depends on whose window it is.
    pub(crate) const fn recv_window_update(&mut self, increment: u32) -> Result<(), u32> {
        if increment == 0 {
            return Err(code::PROTOCOL_ERROR);
        }
        self.adjust_send_window(to_window(increment))
    }

    /// Changes what may be sent by the difference between two values of the peer's SETTINGS_INITIAL_WINDOW_SIZE
    /// (section 6.9.2).
    ///
    /// # Errors
    /// FLOW_CONTROL_ERROR if the window leaves the range of 31 bits.
    pub(crate) const fn adjust_send_window(&mut self, change: i32) -> Result<(), u32> {
        // i32 has exactly the range of section 6.9.2: from -(2^31-1), after a decrease, to 2^31-1.
        match self.send_window.checked_add(change) {
            Some(window) => {
                self.send_window = window;
                Ok(())
            }
            None => Err(code::FLOW_CONTROL_ERROR),
        }
    }

    /// Counts DATA that is received, with its padding.
    ///
    /// # Errors
    /// FLOW_CONTROL_ERROR if the peer has sent more than it may.
    #[inline]
    pub(crate) const fn recv_data(&mut self, bytes: u32) -> Result<(), u32> {
        // Padding counts too (section 6.1), so the caller passes the length of the frame.
        self.recv_window = self.recv_window.saturating_sub_unsigned(bytes);
        if self.recv_window < 0 { Err(code::FLOW_CONTROL_ERROR) } else { Ok(()) }
    }

    /// Bytes that the peer may send, as far as it knows.
    pub(crate) const fn recv_window(&self) -> i32 {
        self.recv_window
    }

    /// Counts bytes that were received and are consumed: the peer may send as many again.
    #[inline]
    pub(crate) const fn release_capacity(&mut self, bytes: u32) {
        self.released += bytes;
    }

    /// Returns the increment of the WINDOW_UPDATE that is due, if at least `threshold` bytes are released.
    #[inline]
    pub(crate) fn window_update(&mut self, threshold: i32) -> Option<u32> {
        // An increment of 0 would be a PROTOCOL_ERROR (section 6.9).
        if self.released == 0 || i64::from(self.released) < i64::from(threshold) {
            return None;
        }
        let increment = std::mem::take(&mut self.released);
        self.recv_window = self.recv_window.saturating_add_unsigned(increment);
        Some(increment)
    }

    /// Bytes that the peer may send once it knows of all that was released.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> i64 {
        i64::from(self.recv_window) + i64::from(self.released)
    }
}

const fn to_window(bytes: u32) -> i32 {
    if bytes > MAX_WINDOW_SIZE { i32::MAX } else { bytes as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_window_goes_down_to_its_negative_maximum_and_up_to_its_maximum() {
        let mut flow = FlowControl::new(MAX_WINDOW_SIZE, 0);
        flow.send_data(MAX_WINDOW_SIZE as usize);

        assert_eq!(flow.adjust_send_window(-i32::MAX), Ok(()));
        assert_eq!(flow.send_capacity(), 0);
        assert_eq!(flow.adjust_send_window(i32::MAX), Ok(()));
        assert_eq!(flow.recv_window_update(MAX_WINDOW_SIZE), Ok(()));
        assert_eq!(flow.send_capacity(), MAX_WINDOW_SIZE as usize);
        assert_eq!(flow.recv_window_update(1), Err(code::FLOW_CONTROL_ERROR));
        assert_eq!(flow.recv_window_update(0), Err(code::PROTOCOL_ERROR));
    }

    #[test]
    fn an_update_is_due_at_the_threshold_and_announces_all_that_was_released() {
        let mut flow = FlowControl::new(0, 100);
        flow.recv_data(60).unwrap();

        flow.release_capacity(49);
        assert_eq!(flow.window_update(50), None);
        flow.release_capacity(11);
        assert_eq!(flow.window_update(50), Some(60));
        assert_eq!((flow.recv_window(), flow.window_update(0)), (100, None));
        assert_eq!(flow.recv_data(101), Err(code::FLOW_CONTROL_ERROR));
    }

    proptest! {
        #[test]
        fn a_peer_that_keeps_to_its_window_never_exceeds_it(
            steps in proptest::collection::vec((0..5_000_u32, 0..5_000_u32), 1..200),
        ) {
            let mut flow = FlowControl::new(0, 65_535);
            let (mut may_send, mut held) = (65_535_u32, 0_u32);
            for (sent, released) in steps {
                let sent = sent.min(may_send);
                may_send -= sent;
                prop_assert_eq!(flow.recv_data(sent), Ok(()));
                held += sent;
                let released = released.min(held);
                held -= released;
                flow.release_capacity(released);
                may_send += flow.window_update(flow.recv_window()).unwrap_or(0);
                prop_assert_eq!(flow.free_bytes(), i64::from(65_535 - held));
            }
        }
    }
}
