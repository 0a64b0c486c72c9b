//! The proxy's listeners: which ones the programs know, and those that were there before us.

use std::{
    fs, io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use ebpf_common::{Family, Kind, LOOP_MARK_MASK, PodConfig, SocketKey, Tag};
use runtime::sys::socket::netns_cookie;
use rustix::{
    io::Errno,
    net::{AddressFamily, getsockname, ipproto, sockopt},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use socket2::SockRef;

use crate::{LoadError, Steering};

/// A listener of the proxy that connections are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Purpose of the listener.
    pub kind: Kind,
    /// Of which family it is; one of IPv6 may take IPv4 too.
    pub family: Family,
    /// The kernel's number of the socket, as `ss -e` shows it.
    pub socket_cookie: u64,
}

/// Sockets and listeners that [`Steering::catch_up`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaughtUp {
    /// Sockets of the process that were looked at.
    pub seen: usize,
    /// Listeners that connections are given to now, by netns cookie.
    pub noted: Vec<(u64, Kind, Family)>,
}

impl Steering {
    /// The listeners of one pod.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn listeners(&self, netns_cookie: u64) -> Result<Vec<Listener>, LoadError> {
        let mut listeners = Vec::new();
        for kind in Kind::ALL {
            for family in Family::ALL {
                let key = SocketKey::new(netns_cookie, kind, family);
                let found =
                    self.sockets.get(&key).map_err(LoadError::kernel("read the listeners of pod", netns_cookie))?;
                if let Some(socket_cookie) = found {
                    listeners.push(Listener { kind, family, socket_cookie });
                }
            }
        }
        Ok(listeners)
    }

    /// Notes the listeners of a proxy that began to listen before its cgroup was tagged or its pods
    /// were entered: what `sockops` would have done, done from here.
    ///
    /// # Errors
    /// When the process has gone or may not be looked into (needs `CAP_SYS_PTRACE`).
    pub fn catch_up(&self, pid: u32) -> Result<CaughtUp, LoadError> {
        let failed = |action| LoadError::kernel(action, format!("process {pid}"));
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let process = process.ok_or_else(|| failed("find")(io::ErrorKind::InvalidInput.into()))?;
        // A pidfd stays with its process: the number alone could belong to another one by the time a socket is taken.
        let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(|err| failed("open")(err.into()))?;
        let mut caught_up = CaughtUp::default();
        for number in sockets_of(pid).map_err(failed("list the sockets of"))? {
            let socket = match pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) {
                // Closed between the listing and here.
                Err(Errno::BADF) => continue,
                taken => taken.map_err(|err| failed("take a socket of")(err.into()))?,
            };
            caught_up.seen += 1;
            let noted = self.note(&socket).map_err(failed("take over a listener of"))?;
            caught_up.noted.extend(noted);
        }
        Ok(caught_up)
    }

    /// Notes a socket if it is a listener that an enrolled pod's connections can be given to.
    fn note(&self, socket: &OwnedFd) -> io::Result<Option<(u64, Kind, Family)>> {
        let family = match sockopt::socket_domain(socket)? {
            AddressFamily::INET => Family::V4,
            AddressFamily::INET6 => Family::V6,
            _ => return Ok(None),
        };
        if sockopt::socket_protocol(socket)? != Some(ipproto::TCP) || !sockopt::socket_acceptconn(socket)? {
            return Ok(None);
        }
        let cookie = netns_cookie(socket)?;
        let Some(pod) = self.pods.get(&cookie)? else { return Ok(None) };
        let Ok(address) = SocketAddr::try_from(getsockname(socket)?) else { return Ok(None) };
        let Some(kind) = kind_of(address.port(), &pod) else { return Ok(None) };
        // Questions are sent to the pod's address; a DNS listener that is bound to loopback gets none.
        if kind == Kind::Dns && !pod.owns(&address.ip().into()) {
            return Ok(None);
        }
        // Mark and interface come first: from the entry in `SOCKS` on, connections are given to the socket.
        prepare(socket, kind, &pod)?;
        self.tags.put(&socket.as_raw_fd(), &Tag::listener(kind, cookie))?;
        // The kernel takes a descriptor and keeps the socket; a reader gets the socket's cookie.
        let descriptor = socket.as_raw_fd() as u64;
        self.sockets.put(&SocketKey::new(cookie, kind, family), &descriptor)?;
        Ok(Some((cookie, kind, family)))
    }
}

/// Returns the kind of the proxy's listener on this port, as in the kernel's `sockops` program.
fn kind_of(port: u16, pod: &PodConfig) -> Option<Kind> {
    match port {
        port if port == pod.out_port => Some(Kind::Outbound),
        port if port == pod.in_port => Some(Kind::Inbound),
        port if port == pod.hbone_port => Some(Kind::Hbone),
        port if pod.is_dns_port(port) => Some(Kind::Dns),
        _ => None,
    }
}

/// Mark and interface as the kernel's `sockops` program sets them.
fn prepare(socket: &OwnedFd, kind: Kind, pod: &PodConfig) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let mark = socket.mark()?;
    if mark & LOOP_MARK_MASK != 0 {
        socket.set_mark(mark & !LOOP_MARK_MASK)?;
    }
    match kind {
        Kind::Outbound | Kind::Dns => Ok(()),
        // The option is the same for both families (`SO_BINDTOIFINDEX`).
        Kind::Inbound | Kind::Hbone => socket.bind_device_by_index_v4(std::num::NonZeroU32::new(pod.interface)),
    }
}

fn sockets_of(pid: u32) -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"))? {
        let entry = entry?;
        let is_socket = fs::read_link(entry.path())
            .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (true, Some(number)) = (is_socket, number) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}
