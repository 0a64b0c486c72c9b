//! The time that kernel programs take for a packet, measured by the kernel itself (`BPF_PROG_TEST_RUN`). Nothing is sent.

use std::{os::fd::AsFd, time::Duration};

use ebpf_common::names;

use crate::{LoadError, Steering, kernel, link};

/// Bytes of a `struct __sk_buff` up to its end in Linux 5.2; the kernel takes the rest as zero.
const CONTEXT_BYTES: usize = 176;

/// Place of `ifindex` in `struct __sk_buff`.
const IFINDEX_OFFSET: usize = 40;

/// An Ethernet frame with the beginning of an IPv4 header: as short as the kernel takes one.
const FRAME: [u8; 64] = {
    let mut frame = [0; 64];
    // EtherType IPv4; version 4, header of 20 bytes.
    (frame[12], frame[13], frame[14]) = (0x08, 0x00, 0x45);
    frame
};

/// Cost of one packet, and the program's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketCost {
    pub passes: bool,
    pub mean: Duration,
}

impl Steering {
    /// Runs the node's program at `cgroup_skb/egress` for a packet that leaves by the interface of this number in the caller's
    /// network namespace, from a socket that is not confined. Needs Linux 5.8 for another interface than `lo`.
    ///
    /// # Errors
    /// When nothing is pinned, or the kernel does not run the program.
    pub fn egress_cost(&self, interface: u32, repeat: u32) -> Result<PacketCost, LoadError> {
        let pin = self.pins.root_link(names::EGRESS);
        let failed = || LoadError::kernel("run the program of", pin.display());
        // The program is found through its pinned link: that one is in force, whatever this process has loaded.
        let link = link::open(&pin)?.ok_or(std::io::ErrorKind::NotFound).map_err(|kind| failed()(kind.into()))?;
        let program = link::info(link.as_fd()).and_then(|info| kernel::program_by_id(info.program)).map_err(failed())?;
        let mut context = [0; CONTEXT_BYTES];
        context[IFINDEX_OFFSET..IFINDEX_OFFSET + size_of::<u32>()].copy_from_slice(&interface.to_ne_bytes());
        let run = kernel::test_run(program.as_fd(), &FRAME, &context, repeat).map_err(failed())?;
        Ok(PacketCost { passes: run.retval == 1, mean: Duration::from_nanos(run.duration_ns.into()) })
    }
}
