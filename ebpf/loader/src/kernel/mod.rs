//! bpf(2) where aya lacks it: links of cgroups and namespaces, pins, descriptions of objects, elements of maps. One
//! structure per command, as in `linux/bpf.h`.
#![allow(unsafe_code)]

mod element;
mod info;
mod load;
mod test_run;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub(crate) use element::{Write, constants, freeze, map_delete, map_lookup, map_next_key, map_update};
pub(crate) use info::{Attached, LinkInfo, MapInfo, ProgramInfo, info, program_info};
pub(crate) use load::load_sk_lookup;
pub(crate) use test_run::test_run;

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
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Getpeername4 = 29,
    Getpeername6 = 30,
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

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of `bpf_ktime_get_ns`.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a structure of this call's type, which the kernel fills. It does not fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
