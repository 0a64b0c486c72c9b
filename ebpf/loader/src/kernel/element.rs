//! Elements of maps, and the read-only map of an object's constants.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::{Command, bpf, owned};

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
    // `BPF_MAP_TYPE_ARRAY`.
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
