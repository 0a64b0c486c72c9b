//! Configuration of a connection: what a side announces and enforces. Defaults are those of the ambient mesh.

use std::time::Duration;

/// HTTP/2 settings and keepalive of a connection, for both roles unless stated otherwise.
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
    /// Bytes that a stream may keep queued while the peer or the network does not take them.
    pub send_buffer_bytes: usize,
    /// Time that a request waits until the peer takes another stream (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub stream_wait: Duration,
    /// Time between the acknowledgement of a PING and the next PING.
    pub ping_interval: Duration,
    /// Time for the peer to acknowledge a PING.
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
