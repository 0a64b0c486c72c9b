//! TCP segments of captured frames: Ethernet, IPv4 or IPv6, TCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::u16_at;

/// One TCP segment of a captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
    pub dst: SocketAddr,
    /// Sequence number of the first payload byte (of the SYN itself when `syn`).
    pub seq: u32,
    /// First segment of a connection's direction.
    pub syn: bool,
    /// Sender is finished.
    pub fin: bool,
    /// Sender gave up.
    pub rst: bool,
    /// Bytes behind the TCP header.
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
    // Only the first fragment has a TCP header.
    let fragment = u16_at(packet, 6)? & 0x1fff;
    if *packet.get(9)? != 6 || fragment != 0 {
        return None;
    }
    let ip = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b)));
    // Up to the length in the header: Ethernet pads short frames, and the padding is no payload.
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
