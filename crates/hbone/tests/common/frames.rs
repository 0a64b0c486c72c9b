//! Frames of a peer that writes them by hand.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// `:method: CONNECT` and `:authority: a:1`.
pub const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x03a:1";
/// `:status: 200`.
pub const OK: &[u8] = b"\x88";

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The next frame: type, flags, payload. `None` at the end.
pub async fn next<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Option<(u8, u8, Vec<u8>)>> {
    let mut head = [0; 9];
    match io.read_exact(&mut head).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    io.read_exact(&mut payload).await?;
    Ok(Some((head[3], head[4], payload)))
}
