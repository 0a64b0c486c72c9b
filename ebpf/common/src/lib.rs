//! Types and constants shared by the kernel programs and user space: map keys, map values, marks,
//! flags, names, counters. No logic beyond comparing addresses; see `programs` and `loader`.
//!
//! Everything here is `repr(C)` without hidden padding and of asserted size, because both sides
//! read the same bytes. A layout changes together with [`LAYOUT`]: a test sees to it.
#![no_std]
#![cfg_attr(feature = "user", allow(unsafe_code))]

mod address;
mod counter;
mod dns;
pub mod layout;
pub mod names;
mod pod;
mod probe;
mod socket;
mod tuple;

#[cfg(feature = "user")]
mod user;

pub use address::Address;
pub use counter::Counter;
pub use dns::{DnsPeer, DnsRoute, NAMESERVER_PORT};
pub use layout::LAYOUT;
pub use pod::{F_BYPASS_IN, F_DNS, F_IN, F_OUT, PodConfig};
pub use probe::{PROBES_PER_POD, ProbePorts};
pub use socket::{Family, Kind, SocketKey, TAG_PROBER, TAG_PROXY, Tag};
pub use tuple::{Admission, LOCALS_PER_POD, LocalKey, Tuple};

/// Mark of packets that the pod's routing rule sends to `lo`: those of application sockets on
/// their way to the proxy, and both directions between proxy and application.
pub const LOOP_MARK: u32 = 0x111;

/// The bits of a socket's mark that steering owns; the others stay as the application set them.
pub const LOOP_MARK_MASK: u32 = 0xfff;

/// Interface index of `lo`, the same in every network namespace (`LOOPBACK_IFINDEX`).
pub const LOOPBACK_INTERFACE: u32 = 1;
