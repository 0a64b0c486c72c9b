//! Packet captures: recording an interface into a file, and the audit of what the frames carry between pods.

mod audit;
mod pcap;
mod record;
mod segment;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

pub use audit::{Audit, Plain, audit, occurrences};
pub use pcap::{Frame, read_pcap};
pub use record::{Counts, Recording, record};
pub use segment::{Segment, segment};
pub use stream::{Stream, streams};
pub use tls::{NotTls, TLS13, Tls, tls};

/// The big-endian number at an offset.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
