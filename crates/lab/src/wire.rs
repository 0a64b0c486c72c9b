//! Reads captured frames: Ethernet, IP, TCP, and the TLS records of a stream. It captures nothing; see `capture`.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// `0x0304`: the only TLS version the mesh speaks.
pub const TLS13: u16 = 0x0304;

/// Length of a TLS record's header.
const RECORD_HEADER: usize = 5;

/// One frame of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it was on the wire, nanoseconds since 1970.
    pub nanos: u64,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// The frames of a file in pcap format with nanosecond timestamps, as `Capture` writes it.
///
/// # Errors
/// `InvalidData` for another format; a frame that is cut off ends the list.
pub fn read_pcap(file: &[u8]) -> io::Result<Vec<Frame>> {
    const MAGIC: u32 = 0xa1b2_3c4d;
    let word = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
    if word(0) != Some(MAGIC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no pcap file with nanosecond timestamps"));
    }
    let mut frames = Vec::new();
    let mut at = 24;
    while let (Some(seconds), Some(nanos), Some(length)) = (word(at), word(at + 4), word(at + 8)) {
        let Some(bytes) = file.get(at + 16..at + 16 + length as usize) else { break };
        frames.push(Frame { nanos: u64::from(seconds) * 1_000_000_000 + u64::from(nanos), bytes: bytes.to_vec() });
        at += 16 + length as usize;
    }
    Ok(frames)
}

/// One TCP segment of a captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Who sent it.
    pub src: SocketAddr,
    /// Whom it is for.
    pub dst: SocketAddr,
    /// Sequence number of the first payload byte (of the SYN itself when `syn`).
    pub seq: u32,
    /// First segment of a connection's direction.
    pub syn: bool,
    /// Sender is finished.
    pub fin: bool,
    /// Sender gave up.
    pub rst: bool,
    /// What follows the TCP header.
    pub payload: &'a [u8],
}

/// The TCP segment in an Ethernet frame; `None` for all that is not whole TCP over IPv4 or IPv6.
#[must_use]
pub fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    match u16_at(frame, 12)? {
        0x0800 => ipv4(&frame[14..]),
        0x86dd => ipv6(&frame[14..]),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Segment<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = match usize::from(u16_at(packet, 2)?) {
        0 => packet.len(), // a segment of more than 64 KiB, not yet split
        n => n,
    };
    let fragment = u16_at(packet, 6)? & 0x1fff;
    if *packet.get(9)? != 6 || fragment != 0 {
        return None;
    }
    let ip = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b)));
    tcp(ip(12)?, ip(16)?, packet.get(header..total.min(packet.len()))?)
}

fn ipv6(packet: &[u8]) -> Option<Segment<'_>> {
    let total = match usize::from(u16_at(packet, 4)?) {
        0 => packet.len(),
        n => 40 + n,
    };
    let ip = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b)));
    let (src, dst) = (ip(8)?, ip(24)?);
    let mut next = *packet.get(6)?;
    let mut at = 40;
    // hop-by-hop, routing and destination options carry their own length
    while matches!(next, 0 | 43 | 60) {
        next = *packet.get(at)?;
        at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
    }
    if next != 6 {
        return None;
    }
    tcp(src, dst, packet.get(at..total.min(packet.len()))?)
}

fn tcp(src: IpAddr, dst: IpAddr, segment: &[u8]) -> Option<Segment<'_>> {
    let header = usize::from(segment.get(12)? >> 4) * 4;
    let flags = *segment.get(13)?;
    Some(Segment {
        src: SocketAddr::new(src, u16_at(segment, 0)?),
        dst: SocketAddr::new(dst, u16_at(segment, 2)?),
        seq: u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?),
        syn: flags & 0x02 != 0,
        fin: flags & 0x01 != 0,
        rst: flags & 0x04 != 0,
        payload: segment.get(header..)?,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// One direction of one connection, put together from its segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Who sent the bytes.
    pub src: SocketAddr,
    /// Whom they are for.
    pub dst: SocketAddr,
    /// The first byte is the connection's first byte: its SYN is in the capture.
    pub from_start: bool,
    /// Bytes in order, up to the first hole.
    pub bytes: Vec<u8>,
    /// Bytes after a hole (a segment that the capture missed).
    pub lost_sync: bool,
}

/// Puts the streams of a capture together: retransmissions dropped, order restored.
pub fn streams<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Vec<Stream> {
    let mut open: BTreeMap<(SocketAddr, SocketAddr), Assembly> = BTreeMap::new();
    let mut done = Vec::new();
    for seg in frames.into_iter().filter_map(segment) {
        let key = (seg.src, seg.dst);
        if seg.syn {
            let fresh = Assembly::new(seg.seq.wrapping_add(1), true);
            // the same SYN again is a retransmission; another one is the next connection on the same ports
            if open.get(&key).is_some_and(|a| a.from_start && a.start == fresh.start) {
                continue;
            }
            if let Some(old) = open.insert(key, fresh) {
                done.push(old.finish(key));
            }
        } else if !seg.payload.is_empty() {
            open.entry(key).or_insert_with(|| Assembly::new(seg.seq, false)).add(seg.seq, seg.payload);
        }
    }
    done.extend(open.into_iter().map(|(key, assembly)| assembly.finish(key)));
    done
}

/// A stream while its segments come in. Offsets are relative to `start`, so that sequence numbers may wrap.
struct Assembly {
    start: u32,
    from_start: bool,
    bytes: Vec<u8>,
    early: BTreeMap<usize, Vec<u8>>,
}

impl Assembly {
    const fn new(start: u32, from_start: bool) -> Self {
        Self { start, from_start, bytes: Vec::new(), early: BTreeMap::new() }
    }

    fn add(&mut self, seq: u32, payload: &[u8]) {
        let ahead = seq.wrapping_sub(self.start.wrapping_add(self.bytes.len() as u32));
        let behind = ahead.wrapping_neg() as usize;
        if (ahead as i32) <= 0 {
            if let Some(new) = payload.get(behind..) {
                self.bytes.extend_from_slice(new);
            }
        } else {
            self.early.insert(self.bytes.len() + ahead as usize, payload.to_vec());
        }
        while let Some(entry) = self.early.first_entry().filter(|e| *e.key() <= self.bytes.len()) {
            let (at, early) = entry.remove_entry();
            let have = self.bytes.len() - at;
            self.bytes.extend_from_slice(early.get(have..).unwrap_or_default());
        }
    }

    fn finish(self, (src, dst): (SocketAddr, SocketAddr)) -> Stream {
        Stream { src, dst, from_start: self.from_start, bytes: self.bytes, lost_sync: !self.early.is_empty() }
    }
}

/// Why a stream is not a sequence of TLS records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTls {
    /// Offset of the record that is none.
    pub at: usize,
    /// Its first bytes.
    pub head: Vec<u8>,
}

impl fmt::Display for NotTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no TLS record at byte {}: {:?}", self.at, String::from_utf8_lossy(&self.head))
    }
}

impl std::error::Error for NotTls {}

/// What the records of one direction say.
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
/// At the first record whose type or version is none of TLS.
pub fn tls(bytes: &[u8]) -> Result<Tls, NotTls> {
    let mut found = Tls::default();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let kind = rest[0];
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
    let list = extension(rest, 43)?;
    Some(list.get(1..)?.chunks_exact(2).map(|v| u16::from_be_bytes([v[0], v[1]])).collect())
}

fn server_version(message: &[u8]) -> Option<u16> {
    let rest = skip(message.get(4 + 2 + 32..)?, 1)?; // session id
    u16_at(extension(rest.get(3..)?, 43)?, 0) // cipher suite, compression
}

/// What follows a vector whose length has `width` bytes.
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

/// Payload that crossed the wire outside TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// Who sent it.
    pub src: SocketAddr,
    /// Whom it was for.
    pub dst: SocketAddr,
    /// How much.
    pub bytes: usize,
    /// Its beginning, as text.
    pub head: String,
}

/// What a capture shows of the traffic between a set of addresses.
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
        } else if !stream.bytes.is_empty() || stream.lost_sync {
            let head = String::from_utf8_lossy(&stream.bytes[..stream.bytes.len().min(60)]).into_owned();
            audit.plain.push(Plain { src: stream.src, dst: stream.dst, bytes: stream.bytes.len(), head });
        }
    }
    audit
}

impl Audit {
    fn tunnel(&mut self, stream: &Stream, hbone_port: u16) {
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
                } else if from_server && found.protected_bytes > 0 {
                    self.broken.push(format!("{} speaks TLS {:04x?}", stream.src, found.server_version));
                }
            }
        }
    }
}

/// How often `needle` occurs in the raw bytes of the frames: headers and all, whatever the protocol.
pub fn occurrences<'a>(frames: impl IntoIterator<Item = &'a [u8]>, needle: &[u8]) -> usize {
    frames.into_iter().map(|f| f.windows(needle.len().max(1)).filter(|w| *w == needle).count()).sum()
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
