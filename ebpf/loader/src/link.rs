//! One pinned link: made once, its program replaced in place ever after.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use crate::{
    LoadError,
    kernel::{self, Attached, LinkInfo},
    object::Loaded,
};

/// Cgroup or namespace to which a program is attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    /// As the kernel tells it of a link.
    pub(crate) attached: Attached,
}

/// Makes `program` the one that runs at `target`: updates the pinned link when it is attached
/// there, else makes a link and pins it in place of the old one.
pub(crate) fn attach(program: &Loaded, target: Target<'_>, pin: &Path) -> Result<(), LoadError> {
    let failed = |action| LoadError::kernel(action, program.name);
    if let Some(link) = open(pin)? {
        let attached = info(link.as_fd()).map_err(failed("inspect the link of"))?.attached();
        if attached == target.attached {
            return kernel::link_update(link.as_fd(), program.fd.as_fd()).map_err(failed("replace"));
        }
        // Its cgroup or namespace has gone, or it is another's: of no use here.
        remove(pin)?;
    }
    let link = kernel::link_create(program.fd.as_fd(), target.fd, program.hook).map_err(failed("attach"))?;
    kernel::pin(link.as_fd(), pin).map_err(failed("pin the link of"))
}

/// Replaces the program of a pinned link that may be attached to anything; false when nothing is
/// left that it is attached to.
pub(crate) fn update(program: &Loaded, pin: &Path) -> Result<bool, LoadError> {
    let failed = |action| LoadError::kernel(action, program.name);
    let Some(link) = open(pin)? else { return Ok(false) };
    let gone = match info(link.as_fd()).map_err(failed("inspect the link of"))?.attached() {
        Attached::Cgroup { id, .. } => id == 0,
        Attached::Netns { inode, .. } => inode == 0,
        Attached::Other => true,
    };
    if gone {
        return Ok(false);
    }
    kernel::link_update(link.as_fd(), program.fd.as_fd()).map_err(failed("replace"))?;
    Ok(true)
}

/// Reads to what the pinned link is attached; `None` when no link is pinned.
pub(crate) fn attached(pin: &Path) -> Result<Option<Attached>, LoadError> {
    let Some(link) = open(pin)? else { return Ok(None) };
    let info = info(link.as_fd()).map_err(LoadError::kernel("inspect the link", pin.display()))?;
    Ok(Some(info.attached()))
}

/// The link that is pinned there, if any.
pub(crate) fn open(pin: &Path) -> Result<Option<OwnedFd>, LoadError> {
    match kernel::get(pin) {
        Ok(link) => Ok(Some(link)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(LoadError::kernel("open the pin", pin.display())(err)),
    }
}

pub(crate) fn info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    kernel::info(link)
}

/// Detaches the link now and removes its pin; false when there was none.
pub(crate) fn remove(pin: &Path) -> Result<bool, LoadError> {
    let Some(link) = open(pin)? else { return Ok(false) };
    match kernel::link_detach(link.as_fd()) {
        Ok(()) => {}
        // What it was attached to has gone before it.
        Err(err) if err.raw_os_error() == Some(libc::ENOLINK) => {}
        Err(err) => return Err(LoadError::kernel("detach", pin.display())(err)),
    }
    fs::remove_file(pin).map_err(LoadError::kernel("unpin", pin.display()))?;
    Ok(true)
}
