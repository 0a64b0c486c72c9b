//! What a side announces and enforces on a tunnel. Defaults are those of the ambient mesh.

use std::time::Duration;

/// HTTP/2 settings and keepalive of a tunnel, the same for both roles where not said otherwise.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `SETTINGS_INITIAL_WINDOW_SIZE`, bytes.
    pub stream_window_bytes: u32,
    /// Connection window, bytes. Several times the stream window: with equal sizes one unread stream
    /// uses up the window of all of them.
    pub connection_window_bytes: u32,
    /// `SETTINGS_MAX_FRAME_SIZE`, bytes; 16384 to 2^24 - 1.
    pub frame_bytes: u32,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS` announced by a server.
    pub max_concurrent_streams: u32,
    /// Streams a client opens before it has seen the peer's settings.
    pub initial_streams: usize,
    /// `SETTINGS_MAX_HEADER_LIST_SIZE` announced by a server, bytes. A CONNECT of a proxy has about 500; a longer list
    /// than this is answered with 431.
    pub server_header_list_bytes: u32,
    /// `SETTINGS_MAX_HEADER_LIST_SIZE` announced by a client, bytes.
    pub client_header_list_bytes: u32,
    /// What a stream may keep queued for a peer or a network that does not take it, bytes.
    pub send_buffer_bytes: usize,
    /// How long a request waits for the peer to take another stream (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub stream_wait: Duration,
    /// Pause before each PING.
    pub ping_interval: Duration,
    /// How long the answer to a PING may take.
    pub ping_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 16 << 20,
            frame_bytes: 1 << 20,
            max_concurrent_streams: 200,
            initial_streams: 100,
            server_header_list_bytes: 8 << 10,
            client_header_list_bytes: 16 << 10,
            send_buffer_bytes: 128 << 10,
            stream_wait: Duration::from_secs(10),
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
        }
    }
}
