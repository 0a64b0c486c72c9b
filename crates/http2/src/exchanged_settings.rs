//! SETTINGS of both sides (RFC 9113, section 6.5).

use crate::frame::{
    DEFAULT_INITIAL_WINDOW_SIZE, DEFAULT_MAX_FRAME_SIZE, LARGEST_MAX_FRAME_SIZE, MAX_WINDOW_SIZE, PREFACE,
    encode_settings, encode_u32, kind, setting,
};
use crate::{Error, Role, Settings};

/// Settings that either side has announced.
#[derive(Debug)]
pub(crate) struct ExchangedSettings {
    pub(crate) local: LocalSettings,
    pub(crate) peer: PeerSettings,
}

impl ExchangedSettings {
    pub(crate) fn new(role: Role, config: &Settings) -> Self {
        Self {
            local: LocalSettings { role, config: config.clone(), is_acked: false },
            peer: PeerSettings {
                is_received: false,
                initial_window_size: DEFAULT_INITIAL_WINDOW_SIZE,
                max_frame_size: DEFAULT_MAX_FRAME_SIZE,
                max_concurrent_streams: config.initial_streams,
            },
        }
    }
}

/// Our settings. They are sent once, in the connection preface.
#[derive(Debug)]
pub(crate) struct LocalSettings {
    role: Role,
    pub(crate) config: Settings,
    /// The peer has acknowledged them. Until then it may send as if it did not know them.
    is_acked: bool,
}

impl LocalSettings {
    /// Returns the connection preface of this side (section 3.4), and what gives the connection its window.
    pub(crate) fn preface(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let about_streams = match self.role {
            Role::Client => {
                out.extend_from_slice(PREFACE);
                // Else a server may push, and pushed streams would need a state of their own.
                (setting::ENABLE_PUSH, 0)
            }
            Role::Server => (setting::MAX_CONCURRENT_STREAMS, self.config.max_concurrent_streams),
        };
        encode_settings(
            &mut out,
            &[
                about_streams,
                (setting::INITIAL_WINDOW_SIZE, self.config.stream_window_bytes),
                (setting::MAX_FRAME_SIZE, self.config.frame_bytes),
                (setting::MAX_HEADER_LIST_SIZE, self.role.header_list_bytes(&self.config)),
            ],
        );
        // The connection's window is no setting: it begins with the default and can only grow (section 6.9.2).
        // 16 MiB by default: room for 1 Gbit/s at a round trip of 100 ms.
        let more = self.connection_window_size() - DEFAULT_INITIAL_WINDOW_SIZE;
        if more > 0 {
            encode_u32(&mut out, kind::WINDOW_UPDATE, 0, more);
        }
        out
    }

    /// Notes the peer's acknowledgement.
    pub(crate) const fn acked(&mut self) {
        self.is_acked = true;
    }

    /// Window of a new stream, bytes.
    pub(crate) fn initial_window_size(&self) -> u32 {
        // A peer that has not seen our SETTINGS may believe in a larger window.
        let least = if self.is_acked { 0 } else { DEFAULT_INITIAL_WINDOW_SIZE };
        self.config.stream_window_bytes.max(least)
    }

    /// Window of the connection, bytes.
    pub(crate) fn connection_window_size(&self) -> u32 {
        self.config.connection_window_bytes.max(DEFAULT_INITIAL_WINDOW_SIZE)
    }
}

/// The peer's settings, or their defaults until they come.
#[derive(Debug)]
pub(crate) struct PeerSettings {
    is_received: bool,
    initial_window_size: u32,
    pub(crate) max_frame_size: usize,
    /// Number of streams that we may have open at once. No limit is the default, but one is assumed until the peer's
    /// SETTINGS come, as streams beyond it would be refused.
    pub(crate) max_concurrent_streams: usize,
}

impl PeerSettings {
    /// Returns whether the peer's first SETTINGS have come, which complete its connection preface.
    pub(crate) const fn is_received(&self) -> bool {
        self.is_received
    }

    /// Send window of a new stream, bytes.
    pub(crate) const fn initial_window_size(&self) -> u32 {
        self.initial_window_size
    }

    /// Applies the peer's SETTINGS. Returns by how much the send windows of all streams change (section 6.9.2).
    ///
    /// # Errors
    /// Values that section 6.5.2 forbids. The connection ends, so it does not matter which settings were applied before.
    pub(crate) fn recv(
        &mut self,
        role: Role,
        settings: impl Iterator<Item = (u16, u32)>,
    ) -> Result<Option<i32>, Error> {
        // SETTINGS that do not name a limit for the first time mean that there is none (section 6.5.2).
        let mut max_concurrent_streams = if self.is_received { self.max_concurrent_streams } else { usize::MAX };
        let mut initial_window_size = None;
        for (id, value) in settings {
            match id {
                setting::MAX_CONCURRENT_STREAMS => max_concurrent_streams = value as usize,
                setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW_SIZE => {
                    return Err(Error::flow_control("received SETTINGS_INITIAL_WINDOW_SIZE beyond 2^31-1"));
                }
                setting::INITIAL_WINDOW_SIZE => initial_window_size = Some(value),
                setting::MAX_FRAME_SIZE => self.max_frame_size = max_frame_size(value)?,
                setting::ENABLE_PUSH if value > 1 => {
                    return Err(Error::protocol("received SETTINGS_ENABLE_PUSH that is neither 0 nor 1"));
                }
                setting::ENABLE_PUSH if value == 1 && role == Role::Client => {
                    return Err(Error::protocol("received SETTINGS_ENABLE_PUSH of 1 from a server"));
                }
                // The rest limits what this side does not do (section 6.5.2).
                _ => {}
            }
        }
        self.max_concurrent_streams = max_concurrent_streams;
        self.is_received = true;
        // Only the last value counts, however often it is in the frame: it concerns every stream.
        Ok(initial_window_size.map(|size| {
            // The difference, because streams have used up different parts of the old window.
            let before = std::mem::replace(&mut self.initial_window_size, size);
            // Both are below 2^31.
            size.wrapping_sub(before).cast_signed()
        }))
    }
}

fn max_frame_size(value: u32) -> Result<usize, Error> {
    let size = value as usize;
    if (DEFAULT_MAX_FRAME_SIZE..=LARGEST_MAX_FRAME_SIZE).contains(&size) {
        Ok(size)
    } else {
        Err(Error::protocol("received SETTINGS_MAX_FRAME_SIZE outside of 2^14 to 2^24-1"))
    }
}
