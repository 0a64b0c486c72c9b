//! Finds the network namespace of a running pod by its processes. It changes nothing in there.
//!
//! Only processes below the node's cgroup are looked at; the cgroup's name says which pod they belong to. A process
//! may be on its way through somebody else's namespace, so a namespace counts only when it holds an address of the pod.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::net::IpAddr;

use runtime::sys::Netns;
use runtime::sys::netns::NetnsId;
use rustix::io::Errno;

use crate::cgroups::{CgroupTree, canonical_uid};
use crate::netlink::{NetlinkError, interface_of};

/// A pod's namespace and the interface in it that holds the pod's address.
#[derive(Debug)]
pub struct Found {
    pub netns: Netns,
    pub interface: u32,
    /// The process it was found by, the oldest one of the pod in this namespace.
    pub pid: u32,
}

/// Reason why a pod has no network namespace to work with.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The cgroup tree cannot be read.
    #[error("cannot list the processes of the node: {0}")]
    Processes(#[source] io::Error),
    /// Kubernetes has not assigned an address yet.
    #[error("the pod has no address yet")]
    NoAddress,
    /// No process is in a cgroup of the pod.
    #[error("no process of the pod is running")]
    NoProcess,
    /// Its processes are all in the node's own namespace, or gone again.
    #[error("no process of the pod has a network namespace of its own")]
    NoNamespace,
    /// Namespaces were found, and none of them is the pod's.
    #[error("none of {candidates} network namespaces of the pod's processes holds an address of the pod")]
    ForeignNamespace { candidates: usize },
    /// A candidate cannot be asked for its addresses.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Looks for namespaces of pods on one node.
#[derive(Debug, Clone)]
pub struct Finder {
    tree: CgroupTree,
    host: NetnsId,
}

impl Finder {
    /// `host` is the node's own namespace, which is nobody's.
    pub fn new(tree: CgroupTree, host: NetnsId) -> Self {
        Self { tree, host }
    }

    /// The namespace of the pod `uid` that holds one of `ips`; of several the one with the oldest process.
    ///
    /// # Errors
    /// [`FindError::NoAddress`] to [`FindError::ForeignNamespace`] mean "not yet" for a pod that starts.
    pub async fn find(&self, uid: &str, ips: &[IpAddr]) -> Result<Found, FindError> {
        if ips.is_empty() {
            return Err(FindError::NoAddress);
        }
        let candidates = self.candidates(uid)?;
        let count = candidates.len();
        // Oldest first: the pause process made the pod's namespace, and later processes may have entered another one.
        for Candidate { pid, netns } in candidates {
            // An address is proof: a process may have entered a namespace that is not its pod's.
            if let Some(interface) = interface_of(&netns, ips).await? {
                return Ok(Found { netns, interface, pid });
            }
        }
        match count {
            0 => Err(FindError::NoNamespace),
            candidates => Err(FindError::ForeignNamespace { candidates }),
        }
    }

    /// One process of each namespace, oldest first.
    fn candidates(&self, uid: &str) -> Result<Vec<Candidate>, FindError> {
        let uid = canonical_uid(uid);
        let members = self.tree.members().map_err(FindError::Processes)?;
        let pids = members.iter().filter(|member| self.tree.pod_uid(&member.cgroup).as_ref() == Some(&uid));
        // Ordered by start; a process that ends meanwhile has neither a start time nor a namespace to open.
        let mut by_age = BTreeSet::new();
        for member in pids {
            if let Some(started) = start_time(member.pid).map_err(FindError::Processes)? {
                by_age.insert((started, member.pid));
            }
        }
        if by_age.is_empty() {
            return Err(FindError::NoProcess);
        }
        // Containers of the host network, and processes that have not entered their namespace yet, are in the node's
        // own.
        let mut seen = HashSet::from([self.host]);
        let mut candidates = Vec::new();
        for (_, pid) in by_age {
            let opened = unless_gone(Netns::open(format!("/proc/{pid}/ns/net"))).map_err(FindError::Processes)?;
            if let Some(netns) = opened.filter(|netns| seen.insert(netns.id())) {
                candidates.push(Candidate { pid, netns });
            }
        }
        Ok(candidates)
    }
}

struct Candidate {
    pid: u32,
    netns: Netns,
}

/// `None` for a process that has ended; every other error is one.
fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Field 22 of `/proc/<pid>/stat`, clock ticks since boot. The name in field 2 may contain anything, also `) `.
fn start_time(pid: u32) -> io::Result<Option<u64>> {
    let stat = unless_gone(fs::read_to_string(format!("/proc/{pid}/stat")))?;
    Ok(stat.as_deref().and_then(parse_start_time))
}

fn parse_start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_hostile_name() {
        let stat = "7 (a) b) 1 2) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 100 200";

        assert_eq!(parse_start_time(stat), Some(12345));
        assert_eq!(parse_start_time("7 (x"), None);
        assert!(start_time(std::process::id()).unwrap().is_some());
        assert!(start_time(u32::MAX).unwrap().is_none());
    }
}
