//! HBONE settings: windows, frames, the pool of tunnels.

use std::time::Duration;

use serde::Serialize;

use super::{
    source::Reader,
    values::{self, DURATION, serialize_duration},
};

/// HBONE.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelsConfig {
    /// `POOL_MAX_STREAMS_PER_CONNECTION`; default 100, at least 1.
    pub max_streams_per_tunnel: u16,
    /// `POOL_UNUSED_RELEASE_TIMEOUT`; default 5 min.
    #[serde(serialize_with = "serialize_duration")]
    pub unused_release_timeout: Duration,
    /// `HTTP2_STREAM_WINDOW_SIZE`, bytes; default 4 MiB, up to 2^31 - 1.
    pub stream_window_bytes: u32,
    /// `HTTP2_CONNECTION_WINDOW_SIZE`, bytes; default 16 MiB, up to 2^31 - 1. Keep it several times the stream window.
    pub connection_window_bytes: u32,
    /// `HTTP2_FRAME_SIZE`, bytes; default 1 MiB, 16384 to 2^24 - 1.
    pub frame_bytes: u32,
}

impl TunnelsConfig {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        // RFC 9113, section 6.9.1.
        const WINDOW: &str = "a number of bytes from 1 to 2147483647";
        // RFC 9113, section 4.2: the bounds of SETTINGS_MAX_FRAME_SIZE.
        const FRAME: &str = "a number of bytes from 16384 to 16777215";
        let window = |value: &str| values::number::<u32>(value).filter(|n| (1..=0x7fff_ffff).contains(n));
        let frame = |value: &str| values::number::<u32>(value).filter(|n| (16_384..=0xff_ffff).contains(n));
        let streams = |value: &str| values::number::<u16>(value).filter(|n| *n > 0);
        let streams = reader.optional("POOL_MAX_STREAMS_PER_CONNECTION", "a number from 1 to 65535", streams);
        let release = reader.optional("POOL_UNUSED_RELEASE_TIMEOUT", DURATION, values::duration);
        Self {
            max_streams_per_tunnel: streams.unwrap_or(100),
            unused_release_timeout: release.unwrap_or(Duration::from_secs(300)),
            stream_window_bytes: reader.optional("HTTP2_STREAM_WINDOW_SIZE", WINDOW, window).unwrap_or(4 << 20),
            connection_window_bytes: reader
                .optional("HTTP2_CONNECTION_WINDOW_SIZE", WINDOW, window)
                .unwrap_or(16 << 20),
            frame_bytes: reader.optional("HTTP2_FRAME_SIZE", FRAME, frame).unwrap_or(1 << 20),
        }
    }
}

impl From<&TunnelsConfig> for hbone::Settings {
    fn from(config: &TunnelsConfig) -> Self {
        Self {
            stream_window_bytes: config.stream_window_bytes,
            connection_window_bytes: config.connection_window_bytes,
            frame_bytes: config.frame_bytes,
            initial_streams: usize::from(config.max_streams_per_tunnel),
            ..Self::default()
        }
    }
}

impl From<&TunnelsConfig> for hbone::pool::Limits {
    fn from(config: &TunnelsConfig) -> Self {
        Self { streams: usize::from(config.max_streams_per_tunnel), idle: config.unused_release_timeout }
    }
}
