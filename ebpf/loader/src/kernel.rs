//! bpf(2) where aya lacks it: links of cgroups and namespaces, pins, what the kernel tells of an
//! object, elements of maps. One structure per command, as in `linux/bpf.h`.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::programs::ProgramError;
use aya_obj::VerifierLog;

/// `enum bpf_cmd`: what is used of it.
#[derive(Clone, Copy)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ProgramLoad = 5,
    Pin = 6,
    Get = 7,
    ProgramTestRun = 10,
    ProgramById = 13,
    Info = 15,
    MapFreeze = 22,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkById = 30,
    LinkNextId = 31,
    LinkDetach = 34,
}

/// `enum bpf_attach_type`: the hooks in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum AttachType {
    Egress = 1,
    SockCreate = 2,
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    SkLookup = 36,
}

/// Issues one command.
///
/// # Safety
/// `attr` is the structure that `command` takes, and every pointer in it is valid for what the
/// kernel reads or writes there.
unsafe fn bpf<T>(command: Command, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the pointer and the size belong to `attr`; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// A descriptor that a command returned.
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made the descriptor for this caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Gives an object a name on bpffs, which keeps it alive.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: object.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the structure of the command, with a C string that outlives the call.
    unsafe { bpf(Command::Pin, &mut attr) }.map(drop)
}

/// Opens a pinned object.
pub(crate) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, ..ObjectAttr::default() };
    // SAFETY: the structure of the command, with a C string that outlives the call.
    unsafe { bpf(Command::Get, &mut attr) }.map(owned)
}

#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup or network namespace. Needs Linux 5.7; `sk_lookup` 5.9.
pub(crate) fn link_create(program: BorrowedFd<'_>, target: BorrowedFd<'_>, hook: AttachType) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        program: program.as_raw_fd() as u32,
        target: target.as_raw_fd() as u32,
        attach_type: hook as u32,
        flags: 0,
    };
    // SAFETY: the structure of the command; it holds no pointers.
    unsafe { bpf(Command::LinkCreate, &mut attr) }.map(owned)
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link at once: no packet sees neither. Needs Linux 5.7.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        ..LinkUpdateAttr::default()
    };
    // SAFETY: the structure of the command; it holds no pointers.
    unsafe { bpf(Command::LinkUpdate, &mut attr) }.map(drop)
}

/// Takes the program off the hook now; closing the last descriptor does so a little later. Linux 5.9.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [link.as_raw_fd() as u32];
    // SAFETY: the structure of the command, one descriptor.
    unsafe { bpf(Command::LinkDetach, &mut attr) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

/// The id of the link after `id`; `None`: it was the last.
pub(crate) fn next_link(id: u32) -> io::Result<Option<u32>> {
    let mut attr = IdAttr { id, ..IdAttr::default() };
    // SAFETY: the structure of the command; it holds no pointers.
    match unsafe { bpf(Command::LinkNextId, &mut attr) } {
        Ok(_) => Ok(Some(attr.next)),
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(err) => Err(err),
    }
}

/// Opens a link; `NotFound` when it has gone.
pub(crate) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { id, ..IdAttr::default() };
    // SAFETY: the structure of the command; it holds no pointers.
    unsafe { bpf(Command::LinkById, &mut attr) }.map(owned)
}

/// Opens a program; `NotFound` when it has gone.
pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { id, ..IdAttr::default() };
    // SAFETY: the structure of the command; it holds no pointers.
    unsafe { bpf(Command::ProgramById, &mut attr) }.map(owned)
}

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

#[repr(C)]
struct InfoAttr {
    fd: u32,
    size: u32,
    info: u64,
}

/// A beginning of a `struct bpf_*_info`, which the kernel fills as far as it goes.
///
/// # Safety
/// `repr(C)`, valid for every bit pattern, and without pointers that the kernel follows when zero.
pub(crate) unsafe trait Info: Default {}

/// `struct bpf_link_info`, for links of cgroups and namespaces.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) program: u32,
    pad: u32,
    /// cgroup: id (two words), attach type; namespace: inode, attach type.
    target: [u32; 4],
}

// SAFETY: integers only.
unsafe impl Info for LinkInfo {}

/// Cgroup or namespace to which a link is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Attached {
    /// A cgroup by id; 0 when it has been detached.
    Cgroup { id: u64, hook: u32 },
    /// A network namespace by inode; 0 when it has gone.
    Netns { inode: u32, hook: u32 },
    /// Something that is not ours.
    Other,
}

impl LinkInfo {
    /// `BPF_LINK_TYPE_CGROUP` and `BPF_LINK_TYPE_NETNS`.
    pub(crate) fn attached(&self) -> Attached {
        let [first, second, third, _] = self.target;
        match self.kind {
            3 => {
                let mut id = [0; 8];
                id[..4].copy_from_slice(&first.to_ne_bytes());
                id[4..].copy_from_slice(&second.to_ne_bytes());
                Attached::Cgroup { id: u64::from_ne_bytes(id), hook: third }
            }
            5 => Attached::Netns { inode: first, hook: second },
            _ => Attached::Other,
        }
    }
}

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProgramInfo {
    kind: u32,
    pub(crate) id: u32,
    pub(crate) tag: [u8; 8],
    sizes: [u32; 2],
    instructions: [u64; 2],
    loaded_at: u64,
    owner_and_map_count: [u32; 2],
    map_ids: u64,
    name: [u8; 16],
}

// SAFETY: integers only; the kernel follows `instructions` and `map_ids` only with a size before them.
unsafe impl Info for ProgramInfo {}

impl ProgramInfo {
    pub(crate) fn name(&self) -> &str {
        let length = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        std::str::from_utf8(&self.name[..length]).unwrap_or_default()
    }
}

/// `struct bpf_map_info` up to the flags.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

// SAFETY: integers only.
unsafe impl Info for MapInfo {}

/// Reads the kernel's description of a link, program or map. Needs Linux 5.8 for links.
pub(crate) fn info<T: Info>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut attr = InfoAttr {
        fd: object.as_raw_fd() as u32,
        size: size_of::<T>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the structure of the command; the kernel writes no more than `size` bytes to `info`.
    unsafe { bpf(Command::Info, &mut attr) }?;
    Ok(info)
}

#[repr(C)]
struct MapCreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Makes an array with one element that programs may only read: an object's constants.
pub(crate) fn constants(bytes: &[u8]) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    // `BPF_F_RDONLY_PROG`, Linux 5.2.
    const READ_ONLY: u32 = 1 << 7;
    let value_size = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut attr = MapCreateAttr { kind: ARRAY, key_size: 4, value_size, max_entries: 1, flags: READ_ONLY };
    // SAFETY: the structure of the command; it holds no pointers.
    let map = unsafe { bpf(Command::MapCreate, &mut attr) }.map(owned)?;
    // The value has as many bytes as the map that was just made with their number.
    element(Command::MapUpdate, map.as_raw_fd(), Some(&0_u32), bytes.as_ptr() as u64, Write::Any as u64)?;
    Ok(map)
}

/// Forbids user space to change the map, so that the verifier may rely on its values. Linux 5.2.
pub(crate) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [map.as_raw_fd() as u32];
    // SAFETY: the structure of the command, one descriptor.
    unsafe { bpf(Command::MapFreeze, &mut attr) }.map(drop)
}

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

#[repr(C)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A map's element. The sizes of `K` and of `value` are the map's; [`crate::map::Map`] sees to that.
fn element<K>(command: Command, map: RawFd, key: Option<&K>, value: u64, flags: u64) -> io::Result<()> {
    let key = key.map_or(0, |key| std::ptr::from_ref(key) as u64);
    let mut attr = ElementAttr { map: map as u32, pad: 0, key, value, flags };
    // SAFETY: the structure of the command; the callers below pass pointers to as many bytes as the map's
    // keys and values have.
    unsafe { bpf(command, &mut attr) }.map(drop)
}

/// Reads an element. `values` has one entry, or as many as there may be CPUs.
pub(crate) fn map_lookup<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>, key: &K, values: &mut [V]) -> io::Result<()> {
    element(Command::MapLookup, map.as_raw_fd(), Some(key), values.as_mut_ptr() as u64, 0)
}

/// Elements that an update may write.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(crate) enum Write {
    /// New or not (`BPF_ANY`).
    Any = 0,
    /// A new one; else `AlreadyExists` (`BPF_NOEXIST`).
    New = 1,
    /// One that is there; else `NotFound` (`BPF_EXIST`).
    Existing = 2,
}

/// Writes an element.
pub(crate) fn map_update<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
    write: Write,
) -> io::Result<()> {
    element(Command::MapUpdate, map.as_raw_fd(), Some(key), std::ptr::from_ref(value) as u64, write as u64)
}

/// Deletes an element.
pub(crate) fn map_delete<K: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    element(Command::MapDelete, map.as_raw_fd(), Some(key), 0, 0)
}

/// The key after `key`; without one, or when it has gone, the first; `None`: it was the last.
pub(crate) fn map_next_key<K: aya::Pod>(map: BorrowedFd<'_>, key: Option<&K>, next: &mut K) -> io::Result<bool> {
    match element(Command::MapNextKey, map.as_raw_fd(), key, std::ptr::from_mut(next) as u64, 0) {
        Ok(()) => Ok(true),
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(err) => Err(err),
    }
}

/// Reads the kernel's description of a program by its id.
pub(crate) fn program_info(id: u32) -> io::Result<ProgramInfo> {
    info(program_by_id(id)?.as_fd())
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of `bpf_ktime_get_ns`.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a structure of this call's type, which the kernel fills. It does not fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
