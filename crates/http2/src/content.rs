//! Length of a message's content as `content-length` promises it (RFC 9113, section 8.1.1).

/// Stands for a length that is not known.
const UNKNOWN: i64 = i64::MAX;

/// Bytes of content that are still to come. One that is not known, as with all tunnels, is never wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    left: i64,
}

impl Content {
    pub(crate) const UNKNOWN: Self = Self { left: UNKNOWN };

    /// Expects as many bytes as `content-length` says, if there is one.
    pub(crate) const fn of_length(length: Option<i64>) -> Self {
        match length {
            Some(left) => Self { left },
            None => Self::UNKNOWN,
        }
    }

    /// Counts received bytes.
    #[inline]
    pub(crate) const fn recv(&mut self, bytes: usize) {
        if self.left != UNKNOWN {
            self.left = self.left.saturating_sub_unsigned(bytes as u64);
        }
    }

    /// Returns whether more has come than promised or, with `end_stream`, less.
    #[inline]
    pub(crate) const fn is_wrong(&self, end_stream: bool) -> bool {
        self.left != UNKNOWN && (self.left < 0 || end_stream && self.left > 0)
    }
}
