//! pcap files with nanosecond timestamps, written and read.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

/// pcap with nanoseconds. Written in the byte order of this machine, read as little-endian.
const MAGIC: u32 = 0xa1b2_3c4d;

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;

/// Longest frame that is kept whole, in bytes: a segment before it is cut into packets.
pub(crate) const SNAPSHOT_BYTES: usize = 1 << 17;

/// One frame of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it was on the wire, nanoseconds since 1970.
    pub nanos: u64,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// The frames of a file in pcap format with nanosecond timestamps, as a recording writes it.
///
/// # Errors
/// `InvalidData` for another format; a frame that is cut off ends the list.
pub fn read_pcap(file: &[u8]) -> io::Result<Vec<Frame>> {
    let word = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
    if word(0) != Some(MAGIC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a pcap file with nanosecond timestamps"));
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

pub(crate) fn write_header(output: &mut impl io::Write) -> io::Result<()> {
    let snapshot = u32::try_from(SNAPSHOT_BYTES).map_err(io::Error::other)?;
    output.write_all(&MAGIC.to_ne_bytes())?;
    // Version 2.4 of the format, the only one in use.
    output.write_all(&2u16.to_ne_bytes())?;
    output.write_all(&4u16.to_ne_bytes())?;
    for field in [0, 0, snapshot, ETHERNET] {
        output.write_all(&u32::to_ne_bytes(field))?;
    }
    Ok(())
}

pub(crate) fn write_packet(output: &mut impl io::Write, at: SystemTime, frame: &[u8]) -> io::Result<()> {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
    // The length in the file and that on the wire are the same: no frame is cut.
    for field in [seconds, at.subsec_nanos(), length, length] {
        output.write_all(&field.to_ne_bytes())?;
    }
    output.write_all(frame)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_is_what_tcpdump_reads() {
        let mut file = Vec::new();

        write_header(&mut file).unwrap();
        write_packet(&mut file, UNIX_EPOCH + Duration::new(3, 4), b"frame").unwrap();

        assert_eq!(file.len(), 24 + 16 + 5);
        assert_eq!(file[..4], MAGIC.to_ne_bytes());
        assert_eq!(file[24..28], 3u32.to_ne_bytes());
        assert_eq!(file[32..36], 5u32.to_ne_bytes());
    }
}
