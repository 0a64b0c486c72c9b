//! The cgroup whose probes reach pods past the proxy: the kubelet's. It finds and remembers it; probes are not made here.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ebpf_loader::{Steering, Survey};
use parking_lot::Mutex;
use runtime::sys::Netns;
use runtime::sys::netns::NetnsId;
use tokio::time::Instant;

use crate::cgroups::{CgroupTree, Member};
use crate::described::described;
use crate::node::LiveNode;

/// Pause between two looks, until the prober is found and to see that its tag is still there.
const INTERVAL: Duration = Duration::from_secs(2);

/// Names of processes that are a kubelet.
const KUBELETS: [&str; 3] = ["kubelet", "kubelite", "k3s"];

/// The prober's cgroup once it is tagged; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Handle(Arc<Mutex<Option<PathBuf>>>);

impl Handle {
    /// `None` until it is found.
    pub fn cgroup(&self) -> Option<PathBuf> {
        // A cgroup that is gone cannot be tagged; the search finds the kubelet's next one.
        self.0.lock().clone().filter(|cgroup| cgroup.exists())
    }

    fn set(&self, cgroup: Option<PathBuf>) {
        *self.0.lock() = cgroup;
    }
}

/// Cgroup of the prober, or the reason why there is none.
#[derive(Debug)]
pub struct Search {
    pub tree: CgroupTree,
    /// `--prober-cgroup`; without it the kubelet is searched.
    pub configured: Option<PathBuf>,
    /// The node's own network namespace.
    pub host: Netns,
}

/// Reason why no cgroup is the prober's.
#[derive(Debug, thiserror::Error)]
enum Unfound {
    #[error("the cgroups of the node cannot be read: {0}")]
    Cgroups(#[from] std::io::Error),
    #[error("no kubelet of the node runs below its cgroup")]
    None,
    /// Whoever starts a process of that name as root outside a pod must not become the prober by it.
    #[error("several cgroups have a kubelet ({}): name one with --prober-cgroup", listed(.0))]
    Several(BTreeSet<PathBuf>),
    #[error("it cannot be tagged: {reason}")]
    Tag { reason: String },
}

fn listed(cgroups: &BTreeSet<PathBuf>) -> String {
    cgroups.iter().map(|cgroup| cgroup.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Keeps the prober tagged and nobody else, as long as the agent runs.
pub async fn keep_tagged(search: Search, node: LiveNode) -> Infallible {
    let search = Arc::new(search);
    let mut said = None;
    loop {
        let search = search.clone();
        let LiveNode { steering, surveys, prober, .. } = node.clone();
        // Shared with the pods' proofs; a tag that it lacks is put there once more, which changes nothing.
        let now = Instant::now();
        let survey = surveys.since(now.checked_sub(INTERVAL / 2).unwrap_or(now)).await;
        let tagged = tokio::task::spawn_blocking(move || tag(&search, &steering, survey, &prober)).await;
        let (outcome, doubtful) = match tagged {
            Ok(Ok(cgroup)) => (format!("health probes from cgroup {} bypass the proxy", cgroup.display()), false),
            Ok(Err(reason)) => (
                format!("health probes are not exempted from the proxy: {reason}"),
                matches!(reason, Unfound::Several(_)),
            ),
            Err(error) => (format!("health probes are not exempted from the proxy: {error}"), true),
        };
        // Looked at every two seconds, said when it changes.
        if said.as_ref() != Some(&outcome) {
            if doubtful {
                tracing::warn!("{outcome}");
            } else {
                tracing::info!("{outcome}");
            }
            said = Some(outcome);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// A kubelet that restarts keeps its tag meanwhile; one among several loses it.
fn tag(
    search: &Search,
    steering: &Steering,
    survey: Result<Arc<Survey>, String>,
    handle: &Handle,
) -> Result<PathBuf, Unfound> {
    let survey = survey.map_err(|reason| Unfound::Tag { reason })?;
    let refused = |error: ebpf_loader::LoadError| Unfound::Tag { reason: described(&error) };
    let chosen = match &search.configured {
        Some(cgroup) => Ok(cgroup.clone()),
        None => find(&search.tree, &search.tree.members()?, search.host.id(), look),
    };
    match chosen {
        Ok(cgroup) => {
            if !steering.verify_prober(&survey, &cgroup).map_err(refused)?.ok {
                steering.tag_prober(&cgroup).map_err(refused)?;
            }
            // After the tag, so that repairs by `tag_all` never name a cgroup that has none.
            handle.set(Some(cgroup.clone()));
            said_untagged(steering.untag_other_probers(Some(&cgroup)).map_err(refused)?);
            Ok(cgroup)
        }
        Err(several @ Unfound::Several(_)) => {
            handle.set(None);
            // Which of them is the kubelet cannot be told, so that none may bypass the proxy.
            said_untagged(steering.untag_other_probers(None).map_err(refused)?);
            Err(several)
        }
        // Nothing is taken away: that it was not found, or could not be read, does not say that it is another one.
        Err(other) => Err(other),
    }
}

fn said_untagged(cgroups: usize) {
    if cgroups > 0 {
        tracing::info!(cgroups, "health probes from cgroups that were chosen earlier go through the proxy");
    }
}

/// Names that a process gives itself, and facts that the kernel knows of it.
struct Process {
    name: String,
    /// Real and effective.
    uids: [u32; 2],
    netns: NetnsId,
}

/// `None` for a process that has gone.
fn look(pid: u32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let (name, uids) = parse_status(&status)?;
    // A process that has gone, or whose namespace cannot be opened, is not taken as the kubelet.
    let netns = Netns::open(format!("/proc/{pid}/ns/net")).ok()?.id();
    Some(Process { name, uids, netns })
}

/// Name, real and effective uid.
fn parse_status(status: &str) -> Option<(String, [u32; 2])> {
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let mut uids = line("Uid:")?.split_whitespace().map(str::parse);
    let (real, effective) = (uids.next()?.ok()?, uids.next()?.ok()?);
    Some((line("Name:")?.trim().to_owned(), [real, effective]))
}

/// The one cgroup with a kubelet. A name is everybody's to choose: a kubelet is in no pod, runs as root and in the node's own
/// network namespace.
fn find(
    tree: &CgroupTree,
    members: &[Member],
    host: NetnsId,
    look: impl Fn(u32) -> Option<Process>,
) -> Result<PathBuf, Unfound> {
    let outside_pods = members.iter().filter(|member| !in_pod(tree, &member.cgroup));
    let kubelets = outside_pods.filter(|member| look(member.pid).is_some_and(|process| is_kubelet(&process, host)));
    let mut cgroups: BTreeSet<PathBuf> = kubelets.map(|member| member.cgroup.clone()).collect();
    match (cgroups.pop_first(), cgroups.is_empty()) {
        (Some(cgroup), true) => Ok(cgroup),
        (Some(cgroup), false) => {
            cgroups.insert(cgroup);
            Err(Unfound::Several(cgroups))
        }
        (None, _) => Err(Unfound::None),
    }
}

fn in_pod(tree: &CgroupTree, cgroup: &Path) -> bool {
    tree.pod_uid(cgroup).is_some()
}

fn is_kubelet(process: &Process, host: NetnsId) -> bool {
    KUBELETS.contains(&process.name.as_str()) && process.uids == [0, 0] && process.netns == host
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: NetnsId = NetnsId { dev: 4, ino: 1 };
    const SYSTEM: &str = "/n/system.slice/kubelet.service";

    /// Finds among processes called kubelet, given as cgroup, uid and inode of the network namespace.
    fn found(processes: &[(&str, u32, u64)]) -> Result<PathBuf, Unfound> {
        let member = |(pid, (cgroup, ..)): (u32, &(&str, u32, u64))| Member { pid, cgroup: cgroup.into() };
        let members: Vec<Member> = (0..).zip(processes).map(member).collect();
        find(&CgroupTree::new("/n"), &members, HOST, |pid| {
            let (_, uid, ino) = processes[pid as usize];
            Some(Process { name: "kubelet".to_owned(), uids: [uid, uid], netns: NetnsId { dev: 4, ino } })
        })
    }

    #[test]
    fn nobody_becomes_the_kubelet_by_its_name() {
        let kubelet = (SYSTEM, 0, 1);
        for pretender in [
            ("/n/kubepods/besteffort/pod0c7f2a0e-5b7e/app", 0, 1),
            ("/n/kubepods.slice/kubepods-pod0c7f2a0e.slice/cri-1.scope", 0, 1),
            ("/n/user.slice/one", 1000, 1),
            ("/n/docker/one", 0, 2),
        ] {
            assert!(matches!(found(&[pretender]), Err(Unfound::None)), "{pretender:?}");
            assert_eq!(found(&[pretender, kubelet]).unwrap(), Path::new(SYSTEM), "{pretender:?}");
        }
    }

    #[test]
    fn of_several_cgroups_none_is_taken() {
        let refused = found(&[(SYSTEM, 0, 1), ("/n/docker/host-net", 0, 1), (SYSTEM, 0, 1)]).unwrap_err();

        assert!(matches!(&refused, Unfound::Several(cgroups) if cgroups.len() == 2), "{refused}");
        assert!(refused.to_string().contains(SYSTEM) && refused.to_string().contains("--prober-cgroup"));
        assert_eq!(found(&[(SYSTEM, 0, 1), (SYSTEM, 0, 1)]).unwrap(), Path::new(SYSTEM));
    }

    #[test]
    fn a_process_is_read_from_proc() {
        let own = look(std::process::id()).unwrap();

        assert_eq!(own.uids, [rustix::process::getuid().as_raw(), rustix::process::geteuid().as_raw()]);
        assert_eq!(own.netns, Netns::current().unwrap().id());
        assert_eq!(parse_status("Name:\tk3s\nUid:\t0\t1\t0\t0\n"), Some(("k3s".to_owned(), [0, 1])));
        assert!(look(u32::MAX).is_none());
    }
}
