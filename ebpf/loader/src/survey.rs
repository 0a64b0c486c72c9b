//! One look at all links of the kernel, which the proofs of all pods then read: a look costs five calls for each link of
//! the machine, whoever's it is, and a proof that looked by itself would pay that for every pod.
//!
//! It says how things were when it was taken, and only of links: pins and map entries are read by who asks (`verify`).
//! Our own links are proved through their pins. The look at all links shows only what else is attached, so links that other
//! processes are creating or removing meanwhile, which cannot be opened, prove nothing.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use ebpf_common::names;

use crate::{
    Check, LoadError, Steering,
    kernel::{self, AttachType, Attached, LinkInfo, ProgramInfo},
    link,
    steering::netns_inode,
    verify::Expected,
};

/// A link of the kernel and the program that it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) link: LinkInfo,
    pub(crate) program: ProgramInfo,
}

impl Found {
    /// One of our programs, by its name?
    pub(crate) fn is_ours(&self) -> bool {
        names::PROGRAMS.contains(&self.program.name())
    }
}

/// The links of cgroups and network namespaces at one moment.
#[derive(Debug)]
pub struct Survey {
    links: Links,
    root: Vec<Check>,
}

/// Links by what they are attached to.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_place: HashMap<Attached, Vec<Found>>,
    /// Reason why some links could not be read, other than that they come or go.
    unread: Option<String>,
}

impl Links {
    /// The links at one place that could be read.
    pub(crate) fn at(&self, place: Attached) -> &[Found] {
        self.by_place.get(&place).map_or(&[], Vec::as_slice)
    }

    /// Fails when there may be more links than could be read.
    pub(crate) fn complete(&self) -> Result<&Self, LoadError> {
        match &self.unread {
            None => Ok(self),
            Some(reason) => {
                Err(LoadError::kernel("read all of", "the links of the kernel")(io::Error::other(reason.clone())))
            }
        }
    }
}

impl Steering {
    /// Looks at all links of the kernel and proves those of the node: is exactly one program of each kind attached to the
    /// cgroup root, and to each cgroup of proxy and probers, and is it the one that is pinned and that this process has
    /// loaded? Tags of cgroups that have gone are left out; [`Self::sweep`] removes them.
    ///
    /// Blocks for some microseconds per link.
    ///
    /// # Errors
    /// When the kernel's links cannot be listed (needs `CAP_SYS_ADMIN`).
    pub fn survey(&self) -> Result<Survey, LoadError> {
        // Before the look: what is attached meanwhile is not expected yet.
        let expected = self.expected()?;
        let mut survey = Survey { links: links()?, root: Vec::new() };
        survey.root = expected.iter().map(|one| survey.check(one)).collect::<Result<_, _>>()?;
        Ok(survey)
    }
}

impl Survey {
    /// The programs of the node: `connect4|6`, `sendmsg4|6`, `recvmsg4|6`, `getpeername4|6`, `bind4|6`, `egress`, `sockops`, and a `tag_proxy` or `tag_prober` for each tagged cgroup.
    #[must_use]
    pub fn root(&self) -> &[Check] {
        &self.root
    }

    /// Programs that are attached to a network namespace, each with its link: pinned or not, ours by name or not.
    ///
    /// # Errors
    /// When the descriptor is no namespace's; when some links of the kernel could not be read.
    pub fn links_at(&self, netns: impl AsFd) -> Result<Vec<String>, LoadError> {
        Ok(self.complete()?.at(lookup_at(netns.as_fd())?).iter().map(described).collect())
    }

    /// The `sk_lookup` programs at a network namespace that are not ours: each may take connections from the proxy.
    ///
    /// # Errors
    /// As [`Self::links_at`].
    pub fn foreign_lookups(&self, netns: impl AsFd) -> Result<Vec<String>, LoadError> {
        let here = self.complete()?.at(lookup_at(netns.as_fd())?);
        Ok(here.iter().filter(|found| !found.is_ours()).map(described).collect())
    }

    pub(crate) fn complete(&self) -> Result<&Links, LoadError> {
        self.links.complete()
    }

    /// Checks that the expected program is pinned, attached to its place, the right one, and the only one of its name there.
    ///
    /// # Errors
    /// When the pinned link cannot be read, which says nothing about it.
    pub(crate) fn check(&self, expected: &Expected) -> Result<Check, LoadError> {
        let Expected { name, program, place, pin, code } = expected;
        let unread = || LoadError::kernel("read the pinned link", pin.display());
        let Some(pinned) = link::open(pin)? else {
            return Ok(Check::failed(*name, format!("not pinned at {}", pin.display())));
        };
        let info = link::info(pinned.as_fd()).map_err(unread())?;
        // The checks go from the pin to the link to the program, so that the first that fails names the cause and not a
        // consequence.
        if info.attached() != *place {
            let what =
                format!("link {} is attached to {}, expected {}", info.id, info.attached().words(), place.words());
            return Ok(Check::failed(*name, what));
        }
        let runs = kernel::program_info(info.program).map_err(unread())?;
        let tag: String = runs.tag.iter().map(|byte| format!("{byte:02x}")).collect();
        let detail = format!("link {} at {}, program {} tag {tag}", info.id, place.words(), runs.id);
        if let Some(other) = code.differs_from(&runs) {
            return Ok(Check::failed(*name, format!("{detail}: {other}")));
        }
        let same_name = |found: &&Found| found.program.name() == *program && found.link.id != info.id;
        Ok(match self.links.at(*place).iter().find(same_name) {
            Some(second) => Check::failed(*name, format!("{detail}: a second one is link {}", second.link.id)),
            None => Check::passed(*name, detail),
        })
    }
}

/// The place of a pod's program.
pub(crate) fn lookup_at(netns: BorrowedFd<'_>) -> Result<Attached, LoadError> {
    Ok(Attached::Netns { inode: netns_inode(netns)?, hook: AttachType::SkLookup as u32 })
}

/// For a reader.
pub(crate) fn described(found: &Found) -> String {
    format!("link {} of program {}", found.link.id, found.program.name())
}

/// All links. Those that come or go meanwhile are left out.
///
/// # Errors
/// When the ids cannot be listed.
pub(crate) fn links() -> Result<Links, LoadError> {
    let mut links = Links::default();
    // Ids begin at 1, and each call asks for the next one after this.
    let mut id = 0;
    while let Some(next) = kernel::next_link(id).map_err(LoadError::kernel("list", "the links of the kernel"))? {
        id = next;
        match look(id) {
            Ok(Some((place, found))) => links.by_place.entry(place).or_default().push(found),
            Ok(None) => {}
            Err(err) if comes_or_goes(&err) => {}
            Err(err) => links.unread = Some(format!("link {id}: {err}")),
        }
    }
    Ok(links)
}

/// `ENOENT`: removed since its id was listed. `EAGAIN`: its creator has reserved the id and not attached it yet.
fn comes_or_goes(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::ENOENT | libc::EAGAIN))
}

/// `None` for a link that is attached to something else than a cgroup or namespace.
fn look(id: u32) -> io::Result<Option<(Attached, Found)>> {
    let link = kernel::link_by_id(id)?;
    let link = link::info(link.as_fd())?;
    match link.attached() {
        Attached::Other => Ok(None),
        place => Ok(Some((place, Found { link, program: kernel::program_info(link.program)? }))),
    }
}
