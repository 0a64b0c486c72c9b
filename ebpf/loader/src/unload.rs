//! Takes everything off the kernel, and reads back that it is off.

use crate::{
    LoadError, Steering,
    kernel::Attached,
    link,
    object::ROOT,
    survey::{self, described},
};

impl Steering {
    /// Takes everything off the kernel: links, pins, maps. Pods are open after that, and this handle
    /// reaches nothing any more.
    ///
    /// # Errors
    /// Kernel errors; what was not reached stays. [`LoadError::StillAttached`] when programs of ours run on where they
    /// were attached, because somebody else holds their links.
    pub fn unload(&self) -> Result<(), LoadError> {
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
        let links = survey::links()?;
        let left = places.iter().filter_map(|place| links.get(place)).flatten();
        let left: Vec<String> = left.filter(|found| found.is_ours()).map(described).collect();
        if left.is_empty() { Ok(()) } else { Err(LoadError::StillAttached { left }) }
    }

    /// Wherever a program of ours may be attached: at the root and at what pins are attached to.
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
