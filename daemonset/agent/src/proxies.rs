//! The node proxies that connected: which of them is admitted, and what the kernel must know of each.
//! Their messages are in `zds`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ebpf_loader::Steering;
use parking_lot::{Mutex, MutexGuard};
use zds::PodId;
use zds::server::{ConnectionId, Incoming, Peer, Registry, Server};

use crate::cgroups::{CgroupTree, Member, canonical_uid};
use crate::described::described;
use crate::metrics;

/// Pause after a connection that could not be accepted: descriptors may be short for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A proxy that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub pid: u32,
    /// Its pod's cgroup, or its own where it runs in no pod: a restarted container stays tagged.
    pub cgroup: PathBuf,
}

/// Reason why a process that connected gets no pods.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Whoever gets a pod's namespace can do everything in it.
    #[error("the process runs as uid {uid}, expected 0")]
    NotRoot { uid: u32 },
    /// Nothing can be tagged for a process that we do not see.
    #[error("the process is in a pid namespace that is not visible from here")]
    Unseen,
    #[error("process {pid} is not in a cgroup below {}", .root.display())]
    NotOnNode { pid: u32, root: PathBuf },
    /// Every socket of the node would count as the proxy's, and nothing would be captured.
    #[error("process {pid} sits in the cgroup root of the node")]
    InRoot { pid: u32 },
    /// The pod's own connections would count as the proxy's.
    #[error("process {pid} shares cgroup {} with the enrolled pod {pod}", .cgroup.display())]
    SharesCgroup { pid: u32, cgroup: PathBuf, pod: String },
    #[error("the cgroups of the node cannot be read: {0}")]
    Cgroups(#[source] io::Error),
    #[error("the proxy's cgroup cannot be tagged: {reason}")]
    Tag { reason: String },
}

impl Refusal {
    /// Stable: metric label and log key.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotRoot { .. } => "not_root",
            Self::Unseen => "unseen",
            Self::NotOnNode { .. } => "not_on_node",
            Self::InRoot { .. } => "in_root",
            Self::SharesCgroup { .. } => "shares_cgroup",
            Self::Cgroups(_) => "cgroups",
            Self::Tag { .. } => "tag",
        }
    }
}

/// The admitted proxies that are connected; clones share them.
#[derive(Debug, Clone)]
pub struct Proxies {
    tree: CgroupTree,
    live: Arc<Mutex<BTreeMap<ConnectionId, Proxy>>>,
    /// Uids in the names of the enrolled pods' cgroups, which no proxy may share.
    enrolled: Arc<Mutex<BTreeMap<PodId, String>>>,
}

impl Proxies {
    pub fn new(tree: CgroupTree) -> Self {
        Self { tree, live: Arc::default(), enrolled: Arc::default() }
    }

    /// The proxy that new pods go to.
    pub fn newest(&self) -> Option<(ConnectionId, Proxy)> {
        // Connection numbers rise, so that the last is the newest.
        self.live.lock().last_key_value().map(|(id, proxy)| (*id, proxy.clone()))
    }

    /// From now on no proxy may share a cgroup with this pod.
    pub fn excludes(&self, pod: &PodId, cgroup_uid: &str) {
        self.lock_enrolled().insert(pod.clone(), canonical_uid(cgroup_uid));
    }

    /// The pod is no longer enrolled.
    pub fn no_longer_excludes(&self, pod: &PodId) {
        self.lock_enrolled().remove(pod);
    }

    /// The cgroup of a live proxy that holds a process of this pod.
    pub fn shared_with(&self, cgroup_uid: &str, members: &[Member]) -> Option<PathBuf> {
        let uids = BTreeSet::from([canonical_uid(cgroup_uid)]);
        let live = self.live.lock();
        let cgroups = live.values().map(|proxy| &proxy.cgroup);
        cgroups.into_iter().find(|cgroup| sharing(&self.tree, cgroup, members, &uids).is_some()).cloned()
    }

    /// The cgroups of the live proxies, each once: those that hold a process of an enrolled pod, and the others.
    pub fn partition(&self, members: &[Member]) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let cgroups: BTreeSet<PathBuf> = self.live.lock().values().map(|proxy| proxy.cgroup.clone()).collect();
        let enrolled: BTreeSet<String> = self.lock_enrolled().values().cloned().collect();
        cgroups.into_iter().partition(|cgroup| sharing(&self.tree, cgroup, members, &enrolled).is_some())
    }

    /// Returns whether one of them runs in the pod with this uid.
    pub fn runs_in(&self, uid: &str) -> bool {
        let uid = canonical_uid(uid);
        self.live.lock().values().any(|proxy| self.tree.pod_uid(&proxy.cgroup).as_ref() == Some(&uid))
    }

    /// Decides whether this process may be told of pods. `registered` are pods whose connections must not count as its own, beside those that
    /// are [excluded](Self::excludes).
    fn judge(&self, peer: Peer, registered: &[PodId]) -> Result<Proxy, Refusal> {
        if peer.uid != 0 {
            return Err(Refusal::NotRoot { uid: peer.uid });
        }
        // `SO_PEERCRED` gives 0 for a process in a pid namespace that is not below ours.
        let pid = peer.pid.ok_or(Refusal::Unseen)?;
        let mut enrolled: BTreeSet<String> = self.lock_enrolled().values().cloned().collect();
        enrolled.extend(registered.iter().map(|uid| canonical_uid(uid.as_str())));
        judge(&self.tree, pid, &self.tree.members().map_err(Refusal::Cgroups)?, &enrolled)
    }

    fn lock_enrolled(&self) -> MutexGuard<'_, BTreeMap<PodId, String>> {
        self.enrolled.lock()
    }
}

fn judge(tree: &CgroupTree, pid: u32, members: &[Member], enrolled: &BTreeSet<String>) -> Result<Proxy, Refusal> {
    let own = members.iter().find(|member| member.pid == pid).map(|member| member.cgroup.as_path());
    let own = own.ok_or_else(|| Refusal::NotOnNode { pid, root: tree.root().to_owned() })?;
    if own == tree.root() {
        return Err(Refusal::InRoot { pid });
    }
    // The pod's, not the container's: a container that restarts gets a new cgroup, whose sockets the kernel would not
    // know.
    let cgroup = tree.pod_cgroup(own).unwrap_or_else(|| own.to_owned());
    match sharing(tree, &cgroup, members, enrolled) {
        Some(pod) => Err(Refusal::SharesCgroup { pid, cgroup, pod }),
        None => Ok(Proxy { pid, cgroup }),
    }
}

/// The uid of an enrolled pod with a process in a proxy's cgroup, or whose cgroup holds that of the proxy.
fn sharing(tree: &CgroupTree, cgroup: &Path, members: &[Member], enrolled: &BTreeSet<String>) -> Option<String> {
    // Either way round: a tag holds for everything below its cgroup.
    let overlaps = |other: &Path| other.starts_with(cgroup) || cgroup.starts_with(other);
    members.iter().find_map(|member| {
        let (pod, uid) = (tree.pod_cgroup(&member.cgroup)?, tree.pod_uid(&member.cgroup)?);
        (enrolled.contains(&uid) && overlaps(&pod)).then_some(uid)
    })
}

/// Admits and serves proxies as long as the agent runs.
pub async fn accept(mut server: Server, proxies: Proxies, steering: Arc<Steering>) -> Infallible {
    loop {
        let Some(incoming) = accepted(server.accept().await).await else { continue };
        let peer = incoming.peer();
        match admit(&proxies, &steering, peer, server.registry().pods()).await {
            Ok(proxy) => {
                tracing::info!(connection = %peer.connection, pid = proxy.pid, cgroup = %proxy.cgroup.display(), "ztunnel connected");
                // Not awaited: while an old proxy drains, the new one must be admitted.
                tokio::spawn(serve(incoming, proxy, proxies.clone(), steering.clone(), server.registry()));
            }
            Err(refusal) => {
                metrics::proxy_refused(refusal.code());
                tracing::warn!(
                    code = refusal.code(),
                    pid = peer.pid,
                    uid = peer.uid,
                    "refused a ztunnel connection: {refusal}"
                );
            }
        }
    }
}

/// The connection; else says why there is none and waits a little. One that failed is no reason to serve no other.
async fn accepted<T>(outcome: io::Result<T>) -> Option<T> {
    match outcome {
        Ok(incoming) => Some(incoming),
        Err(error) => {
            metrics::proxy_refused("accept");
            tracing::warn!(code = "accept", %error, "failed to accept a ztunnel connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// The tag comes first: the listeners that the proxy opens for its first pod must not be missed.
async fn admit(
    proxies: &Proxies,
    steering: &Arc<Steering>,
    peer: Peer,
    enrolled: Vec<PodId>,
) -> Result<Proxy, Refusal> {
    let (proxies, steering) = (proxies.clone(), steering.clone());
    let judged = tokio::task::spawn_blocking(move || {
        let proxy = proxies.judge(peer, &enrolled)?;
        steering.tag_proxy(&proxy.cgroup).map_err(|error| Refusal::Tag { reason: described(&error) })?;
        Ok(proxy)
    });
    judged.await.unwrap_or_else(|error| Err(Refusal::Tag { reason: error.to_string() }))
}

async fn serve(incoming: Incoming, proxy: Proxy, proxies: Proxies, steering: Arc<Steering>, registry: Registry) {
    let id = incoming.peer().connection;
    // Listed before the first byte is exchanged: pods that are proved from here on are compared with this proxy.
    let listed = Listed::new(&proxies, id, proxy);
    let ended = incoming.serve().await;
    // Before `newest` is asked: the ended proxy must not be the answer.
    drop(listed);
    tracing::info!(connection = %id, code = ended.cause.code(), remaining = registry.connections().len(), "{ended}");
    // The kernel forgot the ended proxy's listeners, which had replaced those of the one before.
    if let Some((survivor, proxy)) = proxies.newest() {
        match tokio::task::spawn_blocking(move || steering.catch_up(proxy.pid)).await {
            Ok(Ok(found)) => {
                tracing::info!(connection = %survivor, listeners = found.noted.len(), "another ztunnel takes over")
            }
            Ok(Err(error)) => {
                tracing::warn!(connection = %survivor, "failed to find the listeners of a ztunnel; its pods are closed until it reconnects: {}", described(&error))
            }
            Err(error) => {
                tracing::warn!(connection = %survivor, %error, "failed to find the listeners of a ztunnel; its pods are closed until it reconnects")
            }
        }
    }
}

/// A proxy among those that are connected, until its task ends, however it ends.
struct Listed {
    proxies: Proxies,
    id: ConnectionId,
}

impl Listed {
    fn new(proxies: &Proxies, id: ConnectionId, proxy: Proxy) -> Self {
        let mut live = proxies.live.lock();
        live.insert(id, proxy);
        metrics::proxies_connected(live.len());
        Self { proxies: proxies.clone(), id }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut live = self.proxies.live.lock();
        live.remove(&self.id);
        metrics::proxies_connected(live.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: u32 = 100;

    fn judged(cgroup: &str, others: &[&str]) -> Result<Proxy, Refusal> {
        let member = |(pid, path): (u32, &str)| Member { pid, cgroup: path.into() };
        let members: Vec<Member> = (PROXY..).zip([&[cgroup], others].concat()).map(member).collect();
        let enrolled = BTreeSet::from(["aaaaaaaa-1".to_owned()]);
        judge(&CgroupTree::new("/n"), PROXY, &members, &enrolled)
    }

    #[test]
    fn the_whole_pod_of_the_proxy_is_tagged() {
        let proxy = judged("/n/kubepods/podbbbbbbbb-2/app", &["/n/kubepods/podaaaaaaaa-1/app"]).unwrap();

        assert_eq!(proxy.cgroup, Path::new("/n/kubepods/podbbbbbbbb-2"));
        assert_eq!(judged("/n/system/ztunnel", &[]).unwrap().cgroup, Path::new("/n/system/ztunnel"));
    }

    #[test]
    fn a_proxy_whose_tag_would_cover_others_is_refused() {
        assert!(matches!(judged("/n", &[]), Err(Refusal::InRoot { .. })));
        assert!(matches!(
            judged("/n/kubepods/podaaaaaaaa-1/x", &["/n/kubepods/podaaaaaaaa-1/app"]),
            Err(Refusal::SharesCgroup { .. })
        ));
        assert!(matches!(judged("/n/kubepods", &["/n/kubepods/podaaaaaaaa-1/app"]), Err(Refusal::SharesCgroup { .. })));
        let elsewhere = judge(&CgroupTree::new("/n"), 7, &[], &BTreeSet::new());
        assert!(matches!(elsewhere, Err(Refusal::NotOnNode { pid: 7, .. })));
    }

    #[test]
    fn a_proxy_that_shares_its_cgroup_later_is_found_and_a_static_pod_is_known_by_its_cgroup() {
        let proxies = Proxies::new(CgroupTree::new("/n"));
        let cgroup = PathBuf::from("/n/kubepods/podcccccccc-3");
        proxies.live.lock().insert(ConnectionId::default(), Proxy { pid: PROXY, cgroup: cgroup.clone() });
        let members = [Member { pid: 7, cgroup: cgroup.join("app") }];
        assert_eq!(proxies.partition(&members), (vec![], vec![cgroup.clone()]));

        // The API's uid is another one.
        proxies.excludes(&PodId::new("aaaaaaaa-1").unwrap(), "cccccccc_3");

        assert_eq!(proxies.partition(&members), (vec![cgroup.clone()], vec![]));
        assert_eq!(proxies.shared_with("cccccccc-3", &members), Some(cgroup.clone()));
        assert_eq!(proxies.shared_with("cccccccc-3", &[]), None);
        proxies.no_longer_excludes(&PodId::new("aaaaaaaa-1").unwrap());
        assert_eq!(proxies.partition(&members), (vec![], vec![cgroup]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_cannot_be_accepted_costs_a_pause_and_nothing_else() {
        let begun = tokio::time::Instant::now();

        let failed: Option<()> = accepted(Err(rustix::io::Errno::MFILE.into())).await;

        assert_eq!(failed, None);
        assert_eq!(begun.elapsed(), ACCEPT_PAUSE);
        assert_eq!(accepted(Ok(1)).await, Some(1));
    }

    #[test]
    fn only_root_that_is_visible_is_admitted() {
        let proxies = Proxies::new(CgroupTree::new("/nonexistent"));
        let connection = ConnectionId::default();

        let user = proxies.judge(Peer { connection, pid: Some(1), uid: 1000 }, &[]);
        let hidden = proxies.judge(Peer { connection, pid: None, uid: 0 }, &[]);

        assert!(matches!(user, Err(Refusal::NotRoot { uid: 1000 })));
        assert!(matches!(hidden, Err(Refusal::Unseen)));
    }
}
