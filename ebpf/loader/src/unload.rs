//! Takes everything off the kernel, and reads back that it is off.

use std::{fs, path::Path};

use crate::{
    LoadError, Steering,
    kernel::{self, Attached},
    link,
    object::ROOT,
    pins,
    survey::{self, described},
};

/// Detaches and removes what versions with other layouts have pinned in this directory, which this version cannot take over.
/// Returns how many such layouts there were. Stop the agents of those versions first.
///
/// # Errors
/// Kernel errors; what was not reached stays.
pub fn remove_other_layouts(bpffs_dir: &Path) -> Result<usize, LoadError> {
    let others = pins::other_layouts(bpffs_dir)?;
    for layout in &others {
        detach_all(layout)?;
        fs::remove_dir_all(layout).map_err(LoadError::kernel("remove", layout.display()))?;
    }
    Ok(others.len())
}

/// Detaches every link that is pinned below this directory. A map is none, and goes with its pin.
fn detach_all(directory: &Path) -> Result<(), LoadError> {
    for path in pins::entries(directory)? {
        if path.is_dir() {
            detach_all(&path)?;
            continue;
        }
        let Some(object) = link::open(&path)? else { continue };
        match kernel::link_detach(std::os::fd::AsFd::as_fd(&object)) {
            Ok(()) => {}
            // What it was attached to has gone, or it is a map.
            Err(err) if matches!(err.raw_os_error(), Some(libc::ENOLINK | libc::EINVAL | libc::EOPNOTSUPP)) => {}
            Err(err) => return Err(LoadError::kernel("detach", path.display())(err)),
        }
    }
    Ok(())
}

impl Steering {
    /// Removes everything from the kernel: links, pins, maps. Pods are open after that, and this handle
    /// reaches nothing any more.
    ///
    /// # Errors
    /// Kernel errors; what was not reached stays. [`LoadError::StillAttached`] when programs of Strake still run where they
    /// were attached, because somebody else holds their links.
    pub fn unload(&self) -> Result<(), LoadError> {
        // Noted first: without pins nobody knows any more where to look.
        let places = self.places()?;
        for netns_cookie in self.pins.pod_links()? {
            self.detach_pod(netns_cookie)?;
        }
        for (name, _) in ROOT {
            link::remove(&self.pins.root_link(name))?;
        }
        for (_, _, pin) in self.pins.cgroup_links()? {
            link::remove(&pin)?;
        }
        self.pins.remove_all()?;
        // Read back from the kernel and not from the pins: another process may hold a link, which then works on without
        // a pin.
        let links = survey::links()?;
        let links = links.complete()?;
        let left = places.iter().flat_map(|place| links.at(*place));
        let left: Vec<String> = left.filter(|found| found.is_ours()).map(described).collect();
        if left.is_empty() { Ok(()) } else { Err(LoadError::StillAttached { left }) }
    }

    /// Lists the places to which Strake's programs may be attached: the root, and the places that pinned links are attached to.
    fn places(&self) -> Result<Vec<Attached>, LoadError> {
        let mut places: Vec<Attached> = self.expected()?.into_iter().map(|expected| expected.place).collect();
        for netns_cookie in self.pins.pod_links()? {
            places.extend(link::attached(&self.pins.pod_link(netns_cookie))?);
        }
        // Where a place has gone, the kernel says 0.
        places.retain(|place| !matches!(place, Attached::Netns { inode: 0, .. } | Attached::Cgroup { id: 0, .. }));
        Ok(places)
    }
}
