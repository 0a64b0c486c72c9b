//! Namespaces of processes: leaving those of the caller. Network namespaces are in `netns`;
//! joining a namespace that exists needs nothing of this (`rustix::thread`).

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Children that the calling thread starts from here on live in a new pid namespace; the first
/// of them is its process 1, and the namespace dies with it. The thread itself stays, and can
/// start no further threads.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`.
pub fn unshare_pids() -> io::Result<()> {
    // SAFETY: descriptors stay shared: the flags do not hold `FILES`.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.map_err(io::Error::from)
}

/// The calling thread gets a mount namespace of its own (a copy), and with it a working
/// directory and root that no other thread shares. Mounts still propagate as they did: see
/// `rustix::mount::mount_change`.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: descriptors stay shared: the flags do not hold `FILES`.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(io::Error::from)
}

/// The calling thread gets a host name of its own, the same at first.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`.
pub fn unshare_hostname() -> io::Result<()> {
    // SAFETY: descriptors stay shared: the flags do not hold `FILES`.
    unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }.map_err(io::Error::from)
}

/// The calling thread stops sharing working directory and root with other threads, which the
/// kernel asks of whoever joins a mount namespace.
///
/// # Errors
/// When memory is short.
pub fn unshare_directories() -> io::Result<()> {
    // SAFETY: descriptors stay shared: the flags do not hold `FILES`.
    unsafe { unshare_unsafe(UnshareFlags::FS) }.map_err(io::Error::from)
}

/// A write to a pipe that nobody reads any more ends this process, as it does for programs that are not Rust's; without
/// this it is an error, and a panic of `println!`. Sockets are not concerned: writes to them do not raise the signal.
pub fn end_on_closed_pipe() {
    // SAFETY: the disposition is the system's own, so no code of ours runs in a signal handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    fn link(kind: &str) -> String {
        fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap().display().to_string()
    }

    #[test]
    fn a_thread_leaves_its_mount_and_host_name_namespaces_alone() {
        let home = (link("mnt"), link("uts"));

        let inside = thread::spawn(|| {
            unshare_mounts().and_then(|()| unshare_hostname()).and_then(|()| unshare_directories())?;
            io::Result::Ok((link("mnt"), link("uts")))
        })
        .join()
        .unwrap();

        let Ok(inside) = inside else {
            assert!(std::env::var_os("CI").is_none(), "skipped: no permission to leave a namespace");
            return;
        };
        assert_ne!(inside.0, home.0);
        assert_ne!(inside.1, home.1);
        assert_eq!((link("mnt"), link("uts")), home);
    }
}
