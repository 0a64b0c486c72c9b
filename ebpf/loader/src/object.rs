//! The two embedded kernel objects, and the programs in them.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{CgroupSkb, CgroupSock, CgroupSockAddr, Program, ProgramError, SockOps},
};
use ebpf_common::names;

use crate::{
    LoadError, instance,
    kernel::{self, AttachType, ProgramInfo},
    pins::Pins,
};

static MESH: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh"));
static SK_LOOKUP: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sk_lookup"));

/// Programs at the cgroup root and their hooks.
// Answers are understood before questions are redirected, and the proxy's sockets are where these go.
pub(crate) const ROOT: [(&str, AttachType); 12] = [
    (names::EGRESS, AttachType::Egress),
    (names::BIND4, AttachType::Bind4),
    (names::BIND6, AttachType::Bind6),
    (names::RECVMSG4, AttachType::Recvmsg4),
    (names::RECVMSG6, AttachType::Recvmsg6),
    (names::PEERNAME4, AttachType::Getpeername4),
    (names::PEERNAME6, AttachType::Getpeername6),
    (names::SENDMSG4, AttachType::Sendmsg4),
    (names::SENDMSG6, AttachType::Sendmsg6),
    (names::CONNECT4, AttachType::Connect4),
    (names::CONNECT6, AttachType::Connect6),
    (names::SOCKOPS, AttachType::SockOps),
];

/// Programs at the cgroups of proxy and probers and their hooks.
pub(crate) const TAGS: [(&str, AttachType); 2] =
    [(names::TAG_PROXY, AttachType::SockCreate), (names::TAG_PROBER, AttachType::SockCreate)];

/// A verified program that is attached to nothing yet.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: &'static str,
    pub(crate) hook: AttachType,
    pub(crate) fd: OwnedFd,
}

/// Loads all programs of the object `mesh`, with its maps from the pins or pinned there. The object
/// comes back too, for the map that its log lines go through.
pub(crate) fn mesh(pins: &Pins, host_netns_cookie: u64) -> Result<(Vec<Loaded>, Ebpf), LoadError> {
    let mut object = load(MESH, pins, (names::HOST_NETNS_COOKIE, host_netns_cookie))?;
    let mut loaded = Vec::new();
    for (name, hook) in ROOT.into_iter().chain(TAGS) {
        loaded.push(Loaded { name, hook, fd: program(&mut object, "mesh", name)? });
    }
    Ok((loaded, object))
}

/// Loads the `sk_lookup` program of one pod. It shares the maps of `mesh`.
pub(crate) fn sk_lookup(pins: &Pins, netns_cookie: u64) -> Result<Loaded, LoadError> {
    let constant = (names::NETNS_COOKIE, netns_cookie);
    let fd = instance::load("sk_lookup", SK_LOOKUP, pins, names::SK_LOOKUP, constant)?;
    Ok(Loaded { name: names::SK_LOOKUP, hook: AttachType::SkLookup, fd })
}

/// Costs 25 MiB for a moment: aya parses the type information of the kernel.
fn load(bytes: &[u8], pins: &Pins, constant: (&str, u64)) -> Result<Ebpf, LoadError> {
    let paths = names::MAPS.map(|map| (map, pins.map(map)));
    let mut loader = EbpfLoader::new();
    for (map, path) in &paths {
        loader.map_pin_path(map, path.as_path() as &Path);
    }
    // `true`: an object without this constant is not this version's.
    loader.override_global(constant.0, &constant.1, true);
    loader.load(bytes).map_err(|source| LoadError::Object { object: "mesh", source: Box::new(source) })
}

/// The sum of the instructions of [`sk_lookup`]'s program, which is the same for every pod: constants are not among them.
/// Loading it for nobody proves, before the first pod depends on it, that the kernel takes it.
pub(crate) fn sk_lookup_tag(pins: &Pins) -> Result<[u8; 8], LoadError> {
    let program = sk_lookup(pins, 0)?;
    let info: ProgramInfo = kernel::info(program.fd.as_fd()).map_err(LoadError::kernel("inspect", program.name))?;
    Ok(info.tag)
}

/// Loads one program, which the kernel verifies.
fn program(ebpf: &mut Ebpf, object: &'static str, name: &str) -> Result<OwnedFd, LoadError> {
    let mismatch = || LoadError::Mismatch { object, what: format!("no program {name}") };
    let refused = |source| LoadError::Program { program: name.to_owned(), source: Box::new(source) };
    let program = ebpf.program_mut(name).ok_or_else(mismatch)?;
    let fd = match program {
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program).and_then(|()| clone(program.fd()?)),
        Program::CgroupSkb(program) => CgroupSkb::load(program).and_then(|()| clone(program.fd()?)),
        Program::CgroupSock(program) => CgroupSock::load(program).and_then(|()| clone(program.fd()?)),
        Program::SockOps(program) => SockOps::load(program).and_then(|()| clone(program.fd()?)),
        _ => return Err(mismatch()),
    };
    fd.map_err(refused)
}

fn clone(fd: &impl AsFd) -> Result<OwnedFd, ProgramError> {
    fd.as_fd().try_clone_to_owned().map_err(ProgramError::IOError)
}
