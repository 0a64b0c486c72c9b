//! TLS records of a stream, and the version that its hello messages agree on.

use std::fmt;

use crate::u16_at;

/// `0x0304`: the only TLS version the mesh speaks.
pub const TLS13: u16 = 0x0304;

/// Length of a TLS record's header.
const RECORD_HEADER: usize = 5;

/// Place where a stream is not a sequence of TLS records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTls {
    /// Offset of the invalid record header.
    pub at: usize,
    /// Its first bytes.
    pub head: Vec<u8>,
}

impl fmt::Display for NotTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid TLS record at byte {}: {:?}", self.at, String::from_utf8_lossy(&self.head))
    }
}

impl std::error::Error for NotTls {}

/// Summary of the records of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Records, the unfinished last one included.
    pub records: usize,
    /// `supported_versions` of the ClientHello.
    pub client_versions: Vec<u16>,
    /// `supported_versions` of the ServerHello: the version that is spoken.
    pub server_version: Option<u16>,
    /// Bytes in records of type application data (in TLS 1.3 everything after the hellos).
    pub protected_bytes: usize,
}

/// Walks the TLS records of a stream from its first byte.
///
/// # Errors
/// At the first record whose type or version is not one of TLS.
pub fn tls(bytes: &[u8]) -> Result<Tls, NotTls> {
    let mut found = Tls::default();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let kind = rest[0];
        // The version in the header of a record is the same whatever is spoken (RFC 8446, section 5.1). Only the hellos
        // say which version that is.
        let versions = rest.get(1).is_none_or(|v| *v == 3) && rest.get(2).is_none_or(|v| *v <= 4);
        if !(20..=23).contains(&kind) || !versions {
            return Err(NotTls { at, head: rest[..rest.len().min(24)].to_vec() });
        }
        found.records += 1;
        let Some(length) = u16_at(rest, 3).map(usize::from) else { break };
        let body = &rest[RECORD_HEADER..rest.len().min(RECORD_HEADER + length)];
        match kind {
            22 => hello(body, &mut found),
            23 => found.protected_bytes += body.len(),
            _ => {}
        }
        at += RECORD_HEADER + length;
    }
    Ok(found)
}

/// Notes the versions of a ClientHello (1) or ServerHello (2); other messages are of no interest.
fn hello(message: &[u8], found: &mut Tls) {
    match message.first() {
        Some(1) => found.client_versions = client_versions(message).unwrap_or_default(),
        Some(2) => found.server_version = server_version(message),
        _ => {}
    }
}

fn client_versions(message: &[u8]) -> Option<Vec<u16>> {
    let mut rest = message.get(4 + 2 + 32..)?; // header, legacy version, random
    rest = skip(rest, 1)?; // session id
    rest = skip(rest, 2)?; // cipher suites
    rest = skip(rest, 1)?; // compression
    // `supported_versions` (RFC 8446, section 4.2.1): the older field always says TLS 1.2.
    let list = extension(rest, 43)?;
    Some(list.get(1..)?.chunks_exact(2).map(|v| u16::from_be_bytes([v[0], v[1]])).collect())
}

fn server_version(message: &[u8]) -> Option<u16> {
    let rest = skip(message.get(4 + 2 + 32..)?, 1)?; // session id
    u16_at(extension(rest.get(3..)?, 43)?, 0) // cipher suite, compression
}

/// Returns the bytes behind a vector whose length has `width` bytes.
fn skip(bytes: &[u8], width: usize) -> Option<&[u8]> {
    let length = bytes.get(..width)?.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
    bytes.get(width + length..)
}

/// The content of one extension of a hello.
fn extension(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let total = usize::from(u16_at(bytes, 0)?);
    let mut rest = bytes.get(2..(2 + total).min(bytes.len()))?;
    loop {
        let (kind, length) = (u16_at(rest, 0)?, usize::from(u16_at(rest, 2)?));
        let content = rest.get(4..4 + length)?;
        if kind == wanted {
            return Some(content);
        }
        rest = &rest[4 + length..];
    }
}
