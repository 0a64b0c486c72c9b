//! Network namespaces: opening, comparing, and running code inside one.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process, thread,
};

use rustix::{
    fs::fstat,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::socket;

/// Key that tells one namespace from another: device and inode of its file in nsfs.
///
/// The kernel may use an inode again once the namespace is gone; whoever keeps an id must
/// keep the descriptor too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Device of nsfs.
    pub dev: u64,
    /// Inode in nsfs.
    pub ino: u64,
}

/// An open network namespace. Keeps it alive, also when no process and no path is left.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

impl Netns {
    /// Opens a path such as `/proc/<pid>/ns/net` or a bind mount of it.
    ///
    /// # Errors
    /// When it cannot be opened or is no namespace file.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::from_fd(File::open(path)?.into())
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Takes over a descriptor that was received from somebody.
    ///
    /// # Errors
    /// When its status cannot be read.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        let id = NetnsId { dev: stat.st_dev, ino: stat.st_ino };
        Ok(Self { fd, id })
    }

    /// Makes a new namespace, empty but for a loopback interface that is down.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, or when the thread that makes it cannot be started.
    pub fn create() -> io::Result<Self> {
        let maker = thread::Builder::new().name("netns".into()).spawn(|| {
            // SAFETY: only this thread, which ends right after, leaves its network namespace;
            // no memory or descriptor table is unshared.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
            Self::current()
        })?;
        maker.join().map_err(|_| io::Error::other("the thread that makes a network namespace has panicked"))?
    }

    /// Device and inode.
    #[must_use]
    pub const fn id(&self) -> NetnsId {
        self.id
    }

    /// A second descriptor of the same namespace.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, id: self.id })
    }

    /// The number by which kernel programs know the namespace; never used twice while the
    /// kernel runs. Needs Linux 5.14 (`SO_NETNS_COOKIE`).
    ///
    /// # Errors
    /// When the namespace cannot be entered or the kernel is too old.
    pub fn cookie(&self) -> io::Result<u64> {
        self.run(|| {
            let probe = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
            socket::netns_cookie(&probe)
        })
    }

    /// Runs `work` with the calling thread inside the namespace and returns to where the
    /// thread was. `work` must not spawn threads that it relies on being inside, and must not wait.
    ///
    /// Sockets made inside stay in the namespace for life.
    ///
    /// # Errors
    /// When the namespace cannot be entered (needs `CAP_SYS_ADMIN`), or those of `work`.
    ///
    /// Ends the process when the thread cannot return: code of other pods must never run in this one.
    pub fn run<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let home = Self::current()?;
        if home.id == self.id {
            return work();
        }
        self.run_from(&home, work)
    }

    /// As [`run`](Self::run), for callers that know where their thread is at home: it goes in and
    /// returns without asking the kernel where it was.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn run_from<T>(&self, home: &Self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
        let _return = Return(home);
        work()
    }
}

/// Brings the thread home when dropped, also while a panic unwinds.
struct Return<'a>(&'a Netns);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if move_into_link_name_space(self.0.fd.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            process::abort();
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_inside_and_the_thread_returns() {
        let Ok(inside) = Netns::create() else {
            assert!(std::env::var_os("CI").is_none(), "skipped: no permission to make a netns");
            return;
        };
        let home = Netns::current().unwrap().id();

        let seen = inside.run(|| Ok(Netns::current()?.id())).unwrap();

        assert_eq!(seen, inside.id());
        assert_eq!(Netns::current().unwrap().id(), home);
        assert_ne!(inside.cookie().unwrap(), Netns::current().unwrap().cookie().unwrap());
    }

    #[test]
    fn the_thread_returns_when_work_panics() {
        let Ok(inside) = Netns::create() else { return };
        let home = Netns::current().unwrap().id();

        let result = std::panic::catch_unwind(|| inside.run(|| -> io::Result<()> { panic!("on purpose") }));

        assert!(result.is_err());
        assert_eq!(Netns::current().unwrap().id(), home);
    }
}
