//! `BPF_OBJ_GET_INFO_BY_FD`: the kernel's description of links, programs and maps.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use super::{Command, bpf, program_by_id};

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

/// Reads the kernel's description of a program by its id.
pub(crate) fn program_info(id: u32) -> io::Result<ProgramInfo> {
    info(program_by_id(id)?.as_fd())
}
