//! Protocol of a connection by its first bytes. They are read once and go on to whoever serves the connection.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// First bytes of HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest request line that is waited for, bytes; Envoy's limit.
const MAX_LINE_BYTES: usize = 8 << 10;
/// Longest method, bytes.
const MAX_METHOD_BYTES: usize = 32;

/// Protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detected {
    Http1,
    Http2,
    Other,
}

/// Reads until the protocol is clear, for `wait` at most; it is none of HTTP's then. Returns what was read, too.
///
/// # Errors
/// Those of the stream, and an end before the first byte.
pub(super) async fn detect<T: AsyncRead + Unpin>(io: &mut T, wait: Option<Duration>) -> io::Result<(Detected, Bytes)> {
    let mut read = BytesMut::new();
    let detecting = async {
        loop {
            // `read_buf` may be dropped: what it has read is in the buffer.
            if io.read_buf(&mut read).await? == 0 {
                let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
                return if read.is_empty() { Err(gone()) } else { Ok(Detected::Other) };
            }
            if let Some(detected) = decide(&read) {
                return Ok(detected);
            }
        }
    };
    let detected = match wait {
        Some(wait) => timeout(wait, detecting).await.unwrap_or(Ok(Detected::Other)),
        None => detecting.await,
    };
    Ok((detected?, read.freeze()))
}

/// Decides by the first bytes; `None` if more are needed.
fn decide(read: &[u8]) -> Option<Detected> {
    if read.starts_with(PREFACE) {
        return Some(Detected::Http2);
    }
    if PREFACE.starts_with(read) {
        return None;
    }
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let method = read.iter().take_while(|byte| is_token(byte)).count();
    match read.get(method) {
        // RFC 9112, section 2.2: empty lines before a request are skipped.
        Some(b'\r' | b'\n') if method == 0 && read.len() <= 4 => return None,
        Some(b'\r' | b'\n') if method == 0 => return decide(&read[1..]),
        Some(b' ') if (1..=MAX_METHOD_BYTES).contains(&method) => {}
        Some(_) => return Some(Detected::Other),
        None if method > MAX_METHOD_BYTES => return Some(Detected::Other),
        None => return None,
    }
    let Some(end) = read.iter().position(|byte| *byte == b'\n') else {
        return (read.len() > MAX_LINE_BYTES).then_some(Detected::Other);
    };
    let line = read[..end].strip_suffix(b"\r").unwrap_or(&read[..end]);
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    Some(if version.starts_with(b"HTTP/1.") { Detected::Http1 } else { Detected::Other })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn the_first_line_decides() {
        for (read, expected) in [
            ("", None),
            ("P", None),
            ("PRI * HTTP/2.0\r\n\r\nSM", None),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Some(Detected::Http2)),
            ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some(Detected::Other)),
            ("POST /a HTTP/1.1\r\n", Some(Detected::Http1)),
            ("GET / HTTP/1.0\n", Some(Detected::Http1)),
            ("get / HTTP/1.1\r\n", Some(Detected::Http1)),
            ("GET / HTT", None),
            ("\r\n\r\nGET / HTTP/1.1\r\n", Some(Detected::Http1)),
            ("GET key\r\n", Some(Detected::Other)),
            ("SSH-2.0-OpenSSH_9\r\n", Some(Detected::Other)),
            ("\x16\x03\x01", Some(Detected::Other)),
            ("*1\r\n$4\r\nPING\r\n", Some(Detected::Other)),
        ] {
            assert_eq!(decide(read.as_bytes()), expected, "{read:?}");
        }
        assert_eq!(decide(format!("GET /{}", "a".repeat(MAX_LINE_BYTES)).as_bytes()), Some(Detected::Other));
    }

    #[tokio::test]
    async fn a_request_in_single_bytes_is_found_and_nothing_is_lost() {
        let (mut near, mut far) = tokio::io::duplex(1);
        let text = b"GET / HTTP/1.1\r\n";
        let writer = tokio::spawn(async move { near.write_all(text).await.map(|()| near) });

        let (detected, read) = detect(&mut far, None).await.unwrap();

        assert_eq!((detected, read.as_ref()), (Detected::Http1, &text[..]));
        writer.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_its_server_is_not_kept_waiting() {
        let (mut near, mut far) = tokio::io::duplex(64);
        assert_eq!(detect(&mut far, Some(Duration::from_millis(100))).await.unwrap(), (Detected::Other, Bytes::new()));

        near.write_all(b"GE").await.unwrap();
        let (detected, read) = detect(&mut far, Some(Duration::from_millis(100))).await.unwrap();
        assert_eq!((detected, read.as_ref()), (Detected::Other, &b"GE"[..]));
    }

    #[tokio::test]
    async fn an_end_before_the_first_byte_is_an_error() {
        let (near, mut far) = tokio::io::duplex(64);
        drop(near);
        assert!(detect(&mut far, None).await.is_err());
    }
}
