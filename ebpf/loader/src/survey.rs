//! One look at all links of the kernel, which the proofs of all pods then read: a look costs five calls for each link of
//! the machine, whoever's it is, and a proof that looked by itself would pay that for every pod.
//!
//! It says how things were when it was taken, and only of links: pins and map entries are read by who asks (`verify`).

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
    links: HashMap<Attached, Vec<Found>>,
    root: Vec<Check>,
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
    /// The programs of the node: `connect4`, `connect6`, `sockops`, and a `tag_proxy` or `tag_prober` for each tagged cgroup.
    #[must_use]
    pub fn root(&self) -> &[Check] {
        &self.root
    }

    /// Programs that are attached to a network namespace, each with its link: pinned or not, ours by name or not.
    ///
    /// # Errors
    /// When the descriptor is no namespace's.
    pub fn links_at(&self, netns: impl AsFd) -> Result<Vec<String>, LoadError> {
        Ok(self.at(lookup_at(netns.as_fd())?).iter().map(described).collect())
    }

    pub(crate) fn at(&self, place: Attached) -> &[Found] {
        self.links.get(&place).map_or(&[], Vec::as_slice)
    }

    /// Is what is expected there, once, pinned, and the right program?
    pub(crate) fn check(&self, expected: &Expected) -> Result<Check, LoadError> {
        let Expected { name, program, place, pin, .. } = expected;
        let here: Vec<&Found> = self.at(*place).iter().filter(|found| found.program.name() == *program).collect();
        let [one] = here.as_slice() else {
            let what = format!("{} links with {program} at {}, expected 1", here.len(), place.words());
            return Ok(Check::failed(*name, what));
        };
        let tag: String = one.program.tag.iter().map(|byte| format!("{byte:02x}")).collect();
        let detail = format!("link {} at {}, program {} tag {tag}", one.link.id, place.words(), one.program.id);
        let Some(pinned) = link::open(pin)? else { return Ok(Check::failed(*name, format!("{detail}: not pinned"))) };
        Ok(match link::info(pinned.as_fd()) {
            Ok(info) if info.id != one.link.id => Check::failed(*name, format!("{detail}: pinned is link {}", info.id)),
            Err(err) => Check::failed(*name, format!("{detail}: the pin cannot be read: {err}")),
            Ok(_) => match expected.code.differs_from(&one.program) {
                Some(other) => Check::failed(*name, format!("{detail}: {other}")),
                None => Check::passed(*name, detail),
            },
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

/// Links and programs that go away meanwhile are left out.
pub(crate) fn links() -> Result<HashMap<Attached, Vec<Found>>, LoadError> {
    let failed = || LoadError::kernel("list", "the links of the kernel");
    let mut links: HashMap<Attached, Vec<Found>> = HashMap::new();
    let mut id = 0;
    while let Some(next) = kernel::next_link(id).map_err(failed())? {
        id = next;
        match look(id) {
            Ok(Some((place, found))) => links.entry(place).or_default().push(found),
            Ok(None) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(failed()(err)),
        }
    }
    Ok(links)
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
