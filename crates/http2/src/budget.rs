//! Limits of frames that cost the peer less than us (RFC 9113, section 10.5). Each kind of frame that makes work
//! without moving data has its own budget; a peer that exceeds one is disconnected with ENHANCE_YOUR_CALM.
//!
//! DATA and requests that are answered have no budget here: flow control and the limit of streams hold them.

use crate::{Error, Flood};
use std::time::Duration;
use tokio::time::Instant;

/// Time after which a budget is full again.
const WINDOW: Duration = Duration::from_secs(10);

/// Streams per window that the peer resets before they are answered, or that we have to reset because of what the peer
/// does. A request whose client gives up costs one; 500 of them in a second, for as long as one likes, are about 1 % of
/// a core.
const RESETS: u32 = 5_000;
/// Bytes of header lists per window after decompression, counted as SETTINGS_MAX_HEADER_LIST_SIZE is. A CONNECT of a
/// proxy has about 500: enough for 13 000 connections a second.
const HEADER_BYTES: u32 = 64 << 20;
/// SETTINGS frames per window. Peers send one or two in all.
const SETTINGS: u32 = 100;
/// PING frames per window. A peer that measures its round-trip time sends one per round trip, 1 ms or more.
const PINGS: u32 = 10_000;
/// Frames per window that carry nothing: DATA without payload that is no end, CONTINUATION without a fragment.
const EMPTY_FRAMES: u32 = 1_000;
/// WINDOW_UPDATE frames per window, beside those that answer our DATA.
const WINDOW_UPDATES: u32 = 10_000;
/// WINDOW_UPDATE frames that answer one of our DATA frames, and as many more per so many bytes of it. Peers send one
/// for the stream and one for the connection when they have read a few KiB.
const UPDATES_PER_FRAME: u32 = 2;
const BYTES_PER_UPDATE: usize = 512;
/// Frames per window that have no effect: PRIORITY, types that we do not know, RST_STREAM and WINDOW_UPDATE for streams
/// that are closed, GOAWAY after the first.
const IGNORED_FRAMES: u32 = 10_000;

/// Use of one connection's budgets.
#[derive(Debug)]
pub(crate) struct Budgets {
    /// By kind, in the order of [`Flood`].
    used: [u32; Flood::ALL.len()],
    /// Time at which all budgets were full last.
    since: Instant,
}

impl Budgets {
    pub(crate) fn new() -> Self {
        Self { used: [0; Flood::ALL.len()], since: Instant::now() }
    }

    /// Charges `amount` to the budget of `flood`. The clock is read only when a budget is used up, so that this costs
    /// an addition.
    pub(crate) fn charge(&mut self, flood: Flood, amount: u32) -> Result<(), Error> {
        let used = &mut self.used[flood as usize];
        *used = used.saturating_add(amount);
        if *used <= limit(flood) {
            return Ok(());
        }
        // Only now is the clock read: in the ordinary case a charge is an addition and a comparison.
        let now = Instant::now();
        if now.duration_since(self.since) < WINDOW {
            return Err(Error::Flood(flood));
        }
        // All budgets at once: one time stamp for seven counters. A flood of two kinds gets no more by it.
        self.since = now;
        self.used = [0; Flood::ALL.len()];
        self.used[flood as usize] = amount;
        if amount <= limit(flood) { Ok(()) } else { Err(Error::Flood(flood)) }
    }

    /// Notes that a DATA frame with `bytes` of payload is sent: WINDOW_UPDATEs that answer it are no flood.
    #[expect(clippy::cast_possible_truncation, reason = "a payload is shorter than 2^24 bytes")]
    pub(crate) const fn send_data(&mut self, bytes: usize) {
        // A credit, paid before the updates can come: they answer DATA that is sent now.
        let used = &mut self.used[Flood::WindowUpdates as usize];
        *used = used.saturating_sub(UPDATES_PER_FRAME * (1 + (bytes / BYTES_PER_UPDATE) as u32));
    }
}

/// Size of each budget per window.
const fn limit(flood: Flood) -> u32 {
    match flood {
        Flood::Resets => RESETS,
        Flood::HeaderBytes => HEADER_BYTES,
        Flood::Settings => SETTINGS,
        Flood::Pings => PINGS,
        Flood::EmptyFrames => EMPTY_FRAMES,
        Flood::WindowUpdates => WINDOW_UPDATES,
        Flood::IgnoredFrames => IGNORED_FRAMES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_full_again_after_its_window() {
        let mut budgets = Budgets::new();
        let mut many = |count| (0..count).find_map(|_| budgets.charge(Flood::Settings, 1).err());

        assert!(many(SETTINGS).is_none());
        assert!(matches!(many(1), Some(Error::Flood(Flood::Settings))));
        tokio::time::sleep(WINDOW).await;
        assert!(many(SETTINGS).is_none());
        assert!(many(1).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_kind_does_not_use_up_the_budget_of_another() {
        let mut budgets = Budgets::new();

        for flood in Flood::ALL {
            assert!(budgets.charge(flood, 50).is_ok(), "{flood:?}");
            assert!(budgets.charge(flood, u32::MAX).is_err(), "{flood:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn window_updates_that_answer_data_are_no_flood() {
        let mut budgets = Budgets::new();

        for _ in 0..10 * WINDOW_UPDATES {
            budgets.send_data(2048);
            for _ in 0..8 {
                budgets.charge(Flood::WindowUpdates, 1).unwrap();
            }
        }
    }
}
