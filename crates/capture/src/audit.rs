//! Payload between a set of addresses: inside TLS 1.3 tunnels, or outside of them.

use std::net::{IpAddr, SocketAddr};

use crate::{
    segment::{Segment, segment},
    stream::{Stream, streams},
    tls::{TLS13, tls},
};

/// Payload that crossed the wire outside TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
    pub dst: SocketAddr,
    /// Number of bytes.
    pub bytes: usize,
    /// Its beginning, as text.
    pub head: String,
}

/// Traffic between a set of addresses, as a capture shows it.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// Frames looked at, of whatever kind.
    pub frames: usize,
    /// TCP segments with payload between the addresses.
    pub segments: usize,
    /// Connections to the HBONE port whose hellos are in the capture and agree on TLS 1.3.
    pub tunnels: usize,
    /// Directions to or from the HBONE port whose beginning the capture has not seen.
    pub tunnels_joined_late: usize,
    /// TLS records to and from the HBONE port.
    pub records: usize,
    /// Payload bytes inside those.
    pub protected_bytes: usize,
    /// Everything else that carried payload.
    pub plain: Vec<Plain>,
    /// Streams to or from the HBONE port that are not TLS 1.3, with the reason.
    pub broken: Vec<String>,
}

impl Audit {
    /// Nothing but TLS 1.3 to the HBONE port, and some of it.
    #[must_use]
    pub fn only_tls13(&self) -> bool {
        self.plain.is_empty() && self.broken.is_empty() && self.records > 0
    }
}

/// Looks through a capture at the TCP traffic of which both ends are in `concerns`.
pub fn audit<'a>(
    frames: impl IntoIterator<Item = &'a [u8]>,
    hbone_port: u16,
    concerns: impl Fn(IpAddr) -> bool,
) -> Audit {
    let frames: Vec<&[u8]> = frames.into_iter().collect();
    let ours = |s: &Segment<'_>| concerns(s.src.ip()) && concerns(s.dst.ip());
    let mut audit = Audit { frames: frames.len(), ..Audit::default() };
    let relevant: Vec<&[u8]> = frames.into_iter().filter(|f| segment(f).is_some_and(|s| ours(&s))).collect();
    audit.segments = relevant.iter().filter(|f| segment(f).is_some_and(|s| !s.payload.is_empty())).count();
    for stream in streams(relevant) {
        if stream.src.port() == hbone_port || stream.dst.port() == hbone_port {
            audit.tunnel(&stream, hbone_port);
        // A stream of which only bytes after a hole are known carried payload as well.
        } else if !stream.bytes.is_empty() || stream.lost_sync {
            let head = String::from_utf8_lossy(&stream.bytes[..stream.bytes.len().min(60)]).into_owned();
            audit.plain.push(Plain { src: stream.src, dst: stream.dst, bytes: stream.bytes.len(), head });
        }
    }
    audit
}

impl Audit {
    fn tunnel(&mut self, stream: &Stream, hbone_port: u16) {
        // Without its beginning nobody can tell where a TLS record begins, so nothing is claimed about its bytes.
        if !stream.from_start {
            self.tunnels_joined_late += 1;
            return;
        }
        match tls(&stream.bytes) {
            Err(not) => self.broken.push(format!("{} -> {}: {not}", stream.src, stream.dst)),
            Ok(found) => {
                self.records += found.records;
                self.protected_bytes += found.protected_bytes;
                let from_server = stream.src.port() == hbone_port;
                if from_server && found.server_version == Some(TLS13) {
                    self.tunnels += 1;
                // A server that has sent no protected byte yet may still be in its handshake. One that has must have
                // agreed on TLS 1.3.
                } else if from_server && found.protected_bytes > 0 {
                    self.broken.push(format!("{} speaks TLS {:04x?}", stream.src, found.server_version));
                }
            }
        }
    }
}

/// Counts how often `needle` occurs in the raw bytes of the frames: headers and all, whatever the protocol.
pub fn occurrences<'a>(frames: impl IntoIterator<Item = &'a [u8]>, needle: &[u8]) -> usize {
    frames.into_iter().map(|f| f.windows(needle.len().max(1)).filter(|w| *w == needle).count()).sum()
}
