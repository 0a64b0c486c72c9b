//! Reads back what runs where: walks all links of the kernel, not our own notes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use ebpf_common::{F_DNS, F_IN, F_OUT, PodConfig, names};

use crate::{
    Check, LoadError, Steering,
    cgroup::{self, Cgroup},
    kernel::{self, AttachType, Attached, LinkInfo, ProgramInfo},
    link,
    object::ROOT,
    steering::{cgroup_target, netns_inode},
};

/// A link of the kernel with one of our programs.
pub(crate) struct Found {
    pub(crate) link: LinkInfo,
    pub(crate) program: ProgramInfo,
}

impl Steering {
    /// Is exactly one program of each kind attached to the cgroup root, and to each cgroup of proxy and
    /// probers, and is it the one that is pinned and that this process has loaded? Tags of cgroups that
    /// have gone are left out; [`Self::sweep`] removes them.
    ///
    /// # Errors
    /// When the kernel's links cannot be listed.
    pub fn verify(&self) -> Result<Vec<Check>, LoadError> {
        let found = links()?;
        let mut checks = Vec::new();
        for (name, hook) in ROOT {
            let pin = link::open(&self.pins.root_link(name))?;
            let wanted = cgroup_target(&self.root, hook).attached;
            let loaded = self.program_id(name)?;
            checks.push(exactly_one(short(name), &found, name, wanted, pin.as_ref().map(AsFd::as_fd), Some(loaded)));
        }
        for (name, id, pin) in self.pins.cgroup_links()? {
            if !cgroup::exists(self.root.path(), id) {
                continue;
            }
            let loaded = self.program(&name)?;
            let wanted = Attached::Cgroup { id, hook: loaded.hook as u32 };
            let pin = link::open(&pin)?;
            let expected = Some(self.program_id(&name)?);
            checks.push(exactly_one(short(&name), &found, &name, wanted, pin.as_ref().map(AsFd::as_fd), expected));
        }
        Ok(checks)
    }

    /// Is this cgroup tagged as a proxy's, by exactly one program, the one that is loaded?
    ///
    /// # Errors
    /// When the cgroup has gone or the kernel's links cannot be listed.
    pub fn verify_proxy(&self, cgroup: &Path) -> Result<Check, LoadError> {
        self.verify_tag(names::TAG_PROXY, cgroup)
    }

    /// As [`Self::verify_proxy`], for a prober's cgroup.
    ///
    /// # Errors
    /// As [`Self::verify_proxy`].
    pub fn verify_prober(&self, cgroup: &Path) -> Result<Check, LoadError> {
        self.verify_tag(names::TAG_PROBER, cgroup)
    }

    fn verify_tag(&self, name: &str, cgroup: &Path) -> Result<Check, LoadError> {
        let cgroup = Cgroup::open(cgroup)?;
        let pin = link::open(&self.pins.cgroup_link(name, cgroup.id()))?;
        let wanted = cgroup_target(&cgroup, AttachType::SockCreate).attached;
        let loaded = Some(self.program_id(name)?);
        Ok(exactly_one(short(name), &links()?, name, wanted, pin.as_ref().map(AsFd::as_fd), loaded))
    }

    /// Is the pod known to the programs, does the namespace have this cookie, and is exactly one
    /// `sk_lookup` program attached to it?
    ///
    /// # Errors
    /// When the kernel's links or maps cannot be read.
    pub fn verify_pod(&self, netns_cookie: u64, netns: BorrowedFd<'_>) -> Result<Vec<Check>, LoadError> {
        let mut checks = vec![match self.pod(netns_cookie)? {
            Some(pod) => Check::passed("pod_entry", describe(&pod)),
            None => Check::failed("pod_entry", format!("no entry for netns cookie {netns_cookie}")),
        }];
        checks.push(match cookie_of(netns) {
            Ok(cookie) if cookie == netns_cookie => Check::passed("netns_cookie", cookie.to_string()),
            Ok(cookie) => Check::failed("netns_cookie", format!("{cookie}, expected {netns_cookie}")),
            Err(err) => Check::failed("netns_cookie", err.to_string()),
        });
        let pin = link::open(&self.pins.pod_link(netns_cookie))?;
        let wanted = Attached::Netns { inode: netns_inode(netns)?, hook: AttachType::SkLookup as u32 };
        checks.push(exactly_one("sk_lookup", &links()?, names::SK_LOOKUP, wanted, pin.as_ref().map(AsFd::as_fd), None));
        Ok(checks)
    }

    fn program_id(&self, name: &str) -> Result<u32, LoadError> {
        let fd = self.program(name)?.fd.as_fd();
        Ok(kernel::info::<ProgramInfo>(fd).map_err(LoadError::kernel("inspect", name))?.id)
    }
}

/// `strake_connect4` is shown as `connect4`, `strake_proxy` as `tag_proxy`.
fn short(program: &str) -> &str {
    match program {
        names::CONNECT4 => "connect4",
        names::CONNECT6 => "connect6",
        names::SOCKOPS => "sockops",
        names::TAG_PROXY => "tag_proxy",
        names::TAG_PROBER => "tag_prober",
        other => other,
    }
}

fn exactly_one(
    name: &str,
    found: &[Found],
    program: &str,
    wanted: Attached,
    pin: Option<BorrowedFd<'_>>,
    loaded: Option<u32>,
) -> Check {
    let here: Vec<&Found> =
        found.iter().filter(|found| found.program.name() == program && found.link.attached() == wanted).collect();
    let place = place(wanted);
    let [one] = here.as_slice() else {
        return Check::failed(name, format!("{} links with {program} at {place}, expected 1", here.len()));
    };
    let tag: String = one.program.tag.iter().map(|byte| format!("{byte:02x}")).collect();
    let detail = format!("link {} at {place}, program {} tag {tag}", one.link.id, one.program.id);
    let Some(pin) = pin else { return Check::failed(name, format!("{detail}: not pinned")) };
    match link::info(pin) {
        Ok(info) if info.id != one.link.id => Check::failed(name, format!("{detail}: pinned is link {}", info.id)),
        Err(err) => Check::failed(name, format!("{detail}: the pin cannot be read: {err}")),
        Ok(_) => match loaded {
            Some(id) if id != one.program.id => Check::failed(name, format!("{detail}: loaded was program {id}")),
            _ => Check::passed(name, detail),
        },
    }
}

fn place(attached: Attached) -> String {
    match attached {
        Attached::Cgroup { id, .. } => format!("cgroup {id}"),
        Attached::Netns { inode, .. } => format!("netns {inode}"),
        Attached::Other => "nowhere".to_owned(),
    }
}

fn describe(pod: &PodConfig) -> String {
    let flags: Vec<&str> = [(F_OUT, "out"), (F_IN, "in"), (F_DNS, "dns")]
        .into_iter()
        .filter_map(|(flag, name)| (pod.flags & flag != 0).then_some(name))
        .collect();
    let addresses: Vec<String> =
        [pod.ipv4, pod.ipv6].iter().filter_map(|address| address.to_ip().map(|ip| ip.to_string())).collect();
    format!(
        "captures [{}], addresses [{}], ports {}/{}/{}, interface {}",
        flags.join(" "),
        addresses.join(" "),
        pod.out_port,
        pod.in_port,
        pod.hbone_port,
        pod.interface
    )
}

/// All links of this kernel that run a program of ours. Links and programs that go away meanwhile
/// are left out.
pub(crate) fn links() -> Result<Vec<Found>, LoadError> {
    let failed = || LoadError::kernel("list", "the links of the kernel");
    let mut found = Vec::new();
    let mut id = 0;
    while let Some(next) = kernel::next_link(id).map_err(failed())? {
        id = next;
        let looked = kernel::link_by_id(id).and_then(|link| {
            let link = link::info(link.as_fd())?;
            Ok(Found { link, program: kernel::program_info(link.program)? })
        });
        match looked {
            Ok(one) => found.push(one),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(failed()(err)),
        }
    }
    Ok(found)
}

fn cookie_of(netns: BorrowedFd<'_>) -> io::Result<u64> {
    runtime::sys::Netns::from_fd(netns.try_clone_to_owned()?)?.cookie()
}
