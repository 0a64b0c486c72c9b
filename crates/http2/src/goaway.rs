//! GOAWAY in both directions (RFC 9113, section 6.8): the last streams that are processed.

use crate::Error;
use crate::frame::MAX_STREAM_ID;

/// Decision of this side about new streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    Open,
    /// A server has announced a GOAWAY without naming a last stream yet, so that requests on their way are processed.
    Draining,
    /// Streams up to this one are processed, and no others will be.
    Closing {
        last_stream_id: u32,
    },
}

/// GOAWAY of either side.
#[derive(Debug)]
pub(crate) struct GoAway {
    local: Local,
    /// Last stream that the peer processes, once it has sent GOAWAY.
    peer: Option<u32>,
}

impl GoAway {
    pub(crate) const fn new() -> Self {
        Self { local: Local::Open, peer: None }
    }

    /// Begins a drain. Returns whether that is news.
    pub(crate) fn drain(&mut self) -> bool {
        let is_first = self.local == Local::Open;
        if is_first {
            self.local = Local::Draining;
        }
        is_first
    }

    /// Returns whether a drain has begun and its last stream is not decided.
    pub(crate) fn is_draining(&self) -> bool {
        self.local == Local::Draining
    }

    /// Processes no stream behind `last_stream_id`.
    pub(crate) const fn close(&mut self, last_stream_id: u32) {
        self.local = Local::Closing { last_stream_id };
    }

    /// Returns whether no new streams are processed on this side.
    pub(crate) const fn is_closing(&self) -> bool {
        matches!(self.local, Local::Closing { .. })
    }

    /// Last stream of the peer that this side processes.
    pub(crate) const fn last_stream_id(&self) -> u32 {
        match self.local {
            // While draining, requests that crossed the first GOAWAY are still processed.
            Local::Open | Local::Draining => MAX_STREAM_ID,
            Local::Closing { last_stream_id } => last_stream_id,
        }
    }

    /// Applies the peer's GOAWAY.
    ///
    /// # Errors
    /// The identifier must not be higher than that of an earlier GOAWAY.
    pub(crate) const fn recv(&mut self, last_stream_id: u32) -> Result<(), Error> {
        // Streams above an earlier identifier may have been tried again elsewhere by now (section 6.8).
        if let Some(earlier) = self.peer
            && last_stream_id > earlier
        {
            return Err(Error::protocol("received GOAWAY with a higher stream identifier than before"));
        }
        self.peer = Some(last_stream_id);
        Ok(())
    }

    /// Returns whether the peer takes no new streams.
    pub(crate) const fn is_received(&self) -> bool {
        self.peer.is_some()
    }
}
