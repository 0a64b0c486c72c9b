//! `BPF_PROG_LOAD` for `sk_lookup` programs.

use std::{ffi::CStr, os::fd::OwnedFd};

use aya::programs::ProgramError;
use aya_obj::VerifierLog;

use super::{AttachType, Command, bpf, owned};

/// `union bpf_attr` of `BPF_PROG_LOAD` up to the attach type.
#[repr(C)]
#[derive(Default)]
struct ProgramLoadAttr {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// Bytes of the verifier's explanation that are kept.
const VERIFIER_LOG_BYTES: usize = 1 << 16;

/// Loads a `sk_lookup` program, which the kernel verifies. Needs Linux 5.9.
pub(crate) fn load_sk_lookup(
    name: &CStr,
    license: &CStr,
    instructions: &[aya_obj::generated::bpf_insn],
) -> Result<OwnedFd, ProgramError> {
    // `BPF_PROG_TYPE_SK_LOOKUP`.
    const SK_LOOKUP: u32 = 30;
    let mut attr = ProgramLoadAttr {
        kind: SK_LOOKUP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        attach_type: AttachType::SkLookup as u32,
        ..ProgramLoadAttr::default()
    };
    // The last byte stays zero.
    attr.name.iter_mut().zip(name.to_bytes()).take(15).for_each(|(to, from)| *to = *from);
    // SAFETY: the structure of the command; its pointers are to what the caller lends for the call.
    match unsafe { bpf(Command::ProgramLoad, &mut attr) } {
        Ok(fd) => Ok(owned(fd)),
        Err(io_error) => {
            // Once more, for the verifier's words: with a log it is slower.
            let mut log = vec![0_u8; VERIFIER_LOG_BYTES];
            (attr.log_level, attr.log_size, attr.log) = (1, VERIFIER_LOG_BYTES as u32, log.as_mut_ptr() as u64);
            // SAFETY: as above; the log has as many bytes as the structure says.
            if let Ok(fd) = unsafe { bpf(Command::ProgramLoad, &mut attr) } {
                return Ok(owned(fd));
            }
            let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
            let verifier_log = VerifierLog::new(String::from_utf8_lossy(text).into_owned());
            Err(ProgramError::LoadError { io_error, verifier_log })
        }
    }
}
