//! Reads back what runs where: what is expected of the kernel's links, not our own notes, and of the pods' entries.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use ebpf_common::{F_BYPASS_IN, F_DNS, F_IN, F_OUT, PodConfig, names};

use crate::{
    Check, LoadError, Steering, Survey,
    cgroup::{self, Cgroup},
    kernel::{self, Attached, ProgramInfo},
    object::ROOT,
    steering::cgroup_target,
    survey::lookup_at,
};

/// A program that is to run at one place, once, through the link that is pinned.
pub(crate) struct Expected {
    /// Of the check.
    pub(crate) name: &'static str,
    /// Of the program.
    pub(crate) program: &'static str,
    pub(crate) place: Attached,
    pub(crate) pin: PathBuf,
    pub(crate) code: Code,
}

/// Identity of the right program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Code {
    /// By its id: this process has loaded it.
    Loaded(u32),
    /// By its instructions, which the kernel sums up in the tag: each pod has a program of its own, which differs in a constant.
    Tagged([u8; 8]),
}

impl Code {
    /// Difference of `program` from the right one, for a reader.
    pub(crate) fn differs_from(self, program: &ProgramInfo) -> Option<String> {
        match self {
            Self::Loaded(id) if id != program.id => Some(format!("loaded was program {id}")),
            Self::Tagged(tag) if tag != program.tag => Some("not the program of this version".to_owned()),
            Self::Loaded(_) | Self::Tagged(_) => None,
        }
    }
}

impl Steering {
    /// Checks that this cgroup is tagged as a proxy's, by exactly one program, the one that is loaded.
    ///
    /// # Errors
    /// When the cgroup has gone or the pin cannot be read.
    pub fn verify_proxy(&self, survey: &Survey, cgroup: &Path) -> Result<Check, LoadError> {
        survey.check(&self.expected_tag(names::TAG_PROXY, Cgroup::open(cgroup)?.id())?)
    }

    /// As [`Self::verify_proxy`], for a prober's cgroup.
    ///
    /// # Errors
    /// As [`Self::verify_proxy`].
    pub fn verify_prober(&self, survey: &Survey, cgroup: &Path) -> Result<Check, LoadError> {
        survey.check(&self.expected_tag(names::TAG_PROBER, Cgroup::open(cgroup)?.id())?)
    }

    /// Checks that the pod is known to the programs, that the namespace has this cookie, and that exactly one
    /// `sk_lookup` program attached to it, with the instructions that this version has?
    ///
    /// # Errors
    /// When the kernel's maps or pins cannot be read.
    pub fn verify_pod(
        &self,
        survey: &Survey,
        netns_cookie: u64,
        netns: BorrowedFd<'_>,
    ) -> Result<Vec<Check>, LoadError> {
        let entry = match self.pod(netns_cookie)? {
            Some(pod) => Check::passed("pod_entry", describe(&pod)),
            None => Check::failed("pod_entry", format!("no entry for netns cookie {netns_cookie}")),
        };
        let cookie = match cookie_of(netns) {
            Ok(cookie) if cookie == netns_cookie => Check::passed("netns_cookie", cookie.to_string()),
            Ok(cookie) => Check::failed("netns_cookie", format!("{cookie}, expected {netns_cookie}")),
            Err(err) => return Err(LoadError::kernel("read the cookie of", "the network namespace")(err)),
        };
        // By its tag and not by its id: the program may have been loaded by a predecessor of this process.
        let lookup = Expected {
            name: "sk_lookup",
            program: names::SK_LOOKUP,
            place: lookup_at(netns)?,
            pin: self.pins.pod_link(netns_cookie),
            code: Code::Tagged(self.lookup_tag),
        };
        Ok(vec![entry, cookie, survey.check(&lookup)?])
    }

    /// Lists the programs that are to run at the cgroup root and at tagged cgroups.
    pub(crate) fn expected(&self) -> Result<Vec<Expected>, LoadError> {
        let mut all = Vec::new();
        for (program, hook) in ROOT {
            let place = cgroup_target(&self.root, hook).attached;
            let code = Code::Loaded(self.program_id(program)?);
            all.push(Expected { name: short(program), program, place, pin: self.pins.root_link(program), code });
        }
        let tags = self.pins.cgroup_links()?;
        if !tags.is_empty() {
            let alive = cgroup::ids(self.root.path())?;
            for (program, id, _) in tags.into_iter().filter(|(_, id, _)| alive.contains(id)) {
                all.push(self.expected_tag(&program, id)?);
            }
        }
        Ok(all)
    }

    fn expected_tag(&self, program: &str, cgroup: u64) -> Result<Expected, LoadError> {
        let loaded = self.program(program)?;
        Ok(Expected {
            name: short(loaded.name),
            program: loaded.name,
            place: Attached::Cgroup { id: cgroup, hook: loaded.hook as u32 },
            pin: self.pins.cgroup_link(program, cgroup),
            code: Code::Loaded(self.program_id(program)?),
        })
    }

    fn program_id(&self, name: &str) -> Result<u32, LoadError> {
        let fd = self.program(name)?.fd.as_fd();
        Ok(kernel::info::<ProgramInfo>(fd).map_err(LoadError::kernel("inspect", name))?.id)
    }
}

/// `strake_connect4` is shown as `connect4`, `strake_proxy` as `tag_proxy`.
fn short(program: &'static str) -> &'static str {
    match program {
        names::CONNECT4 => "connect4",
        names::CONNECT6 => "connect6",
        names::SENDMSG4 => "sendmsg4",
        names::SENDMSG6 => "sendmsg6",
        names::RECVMSG4 => "recvmsg4",
        names::RECVMSG6 => "recvmsg6",
        names::PEERNAME4 => "getpeername4",
        names::PEERNAME6 => "getpeername6",
        names::BIND4 => "bind4",
        names::BIND6 => "bind6",
        names::EGRESS => "egress",
        names::SOCKOPS => "sockops",
        names::TAG_PROXY => "tag_proxy",
        names::TAG_PROBER => "tag_prober",
        other => other,
    }
}

impl Attached {
    /// For a reader.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Cgroup { id, hook } => format!("hook {hook} of cgroup {id}"),
            Self::Netns { inode, .. } => format!("netns {inode}"),
            Self::Other => "nowhere".to_owned(),
        }
    }
}

fn describe(pod: &PodConfig) -> String {
    let flags: Vec<&str> = [(F_OUT, "out"), (F_IN, "in"), (F_DNS, "dns"), (F_BYPASS_IN, "bypass_in")]
        .into_iter()
        .filter_map(|(flag, name)| (pod.flags & flag != 0).then_some(name))
        .collect();
    let addresses: Vec<String> =
        [pod.ipv4, pod.ipv6].iter().filter_map(|address| address.to_ip().map(|ip| ip.to_string())).collect();
    format!(
        "captures [{}], addresses [{}], ports {}/{}/{}/{}, interface {}",
        flags.join(" "),
        addresses.join(" "),
        pod.out_port,
        pod.in_port,
        pod.hbone_port,
        pod.dns_port,
        pod.interface
    )
}

fn cookie_of(netns: BorrowedFd<'_>) -> io::Result<u64> {
    runtime::sys::Netns::from_fd(netns.try_clone_to_owned()?)?.cookie()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_what_this_process_has_of_it() {
        let mut program = ProgramInfo::default();
        (program.id, program.tag) = (7, [1; 8]);

        assert_eq!(Code::Loaded(7).differs_from(&program), None);
        assert_eq!(Code::Tagged([1; 8]).differs_from(&program), None);
        assert!(Code::Loaded(8).differs_from(&program).is_some());
        assert!(Code::Tagged([2; 8]).differs_from(&program).is_some());
    }
}
