//! `BPF_PROG_TEST_RUN`: runs a program without a packet of the network.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{Command, bpf};

/// The `test` member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    program: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// Result of running a program on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TestRun {
    pub(crate) retval: u32,
    /// Mean time of one run in nanoseconds, as the kernel has measured it.
    pub(crate) duration_ns: u32,
}

/// Runs a program `repeat` times on `packet`, an Ethernet frame, without sending anything. `context` is a `struct __sk_buff`.
/// Needs Linux 5.2.
pub(crate) fn test_run(program: BorrowedFd<'_>, packet: &[u8], context: &[u8], repeat: u32) -> io::Result<TestRun> {
    let mut attr = TestRunAttr {
        program: program.as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        repeat,
        ctx_size_in: context.len() as u32,
        ctx_in: context.as_ptr() as u64,
        ..TestRunAttr::default()
    };
    // SAFETY: the structure of the command; both buffers outlive the call, which only reads them.
    unsafe { bpf(Command::ProgramTestRun, &mut attr) }?;
    Ok(TestRun { retval: attr.retval, duration_ns: attr.duration_ns })
}
