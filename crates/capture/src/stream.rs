//! Streams of a capture, put together from their segments.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::segment::segment;

/// One direction of one connection, put together from its segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
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
                done.push(old.finish(seg.src, seg.dst));
            }
        } else if !seg.payload.is_empty() {
            open.entry(key).or_insert_with(|| Assembly::new(seg.seq, false)).add(seg.seq, seg.payload);
        }
    }
    done.extend(open.into_iter().map(|((src, dst), assembly)| assembly.finish(src, dst)));
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
        // Sequence numbers wrap at 4 GiB. Seen as a signed number, the difference says whether the segment begins
        // behind the bytes that are there or before their end (RFC 9293, section 3.4).
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

    fn finish(self, src: SocketAddr, dst: SocketAddr) -> Stream {
        Stream { src, dst, from_start: self.from_start, bytes: self.bytes, lost_sync: !self.early.is_empty() }
    }
}
