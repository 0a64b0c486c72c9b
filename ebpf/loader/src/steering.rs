//! Steering of one node: its programs, maps and pods.

use std::{
    collections::BTreeSet,
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use ebpf_common::{Counter, LocalKey, PodConfig, ProbePorts, SocketKey, Tag, names};
use rustix::fs::fstat;

use crate::{
    KernelLog, LoadError,
    cgroup::{self, Cgroup},
    kernel::{AttachType, Attached},
    link::{self, Target},
    map::Map,
    object::{self, Loaded, ROOT, TAGS},
    pins::Pins,
    survey::lookup_at,
};

/// Cgroup and directory at which a node's programs are attached and pinned. Two agents must not share either.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cgroup v2 directory below which every process of the node lives.
    pub cgroup_root: PathBuf,
    /// A directory on a bpf file system; made when it is missing.
    pub bpffs_dir: PathBuf,
    /// Cookie of the node's own network namespace: only there a prober is one.
    pub host_netns_cookie: u64,
}

/// Entries and tags that [`Steering::sweep`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Pods that nobody knows any more, by netns cookie.
    pub pods: BTreeSet<u64>,
    /// Tags of cgroups that have gone.
    pub cgroups: usize,
}

/// The loaded and attached programs. Dropping it detaches nothing: pins keep the links.
pub struct Steering {
    config: Config,
    pub(crate) pins: Pins,
    pub(crate) root: Cgroup,
    pub(crate) programs: Vec<Loaded>,
    /// Of the program that pods get; see `object`.
    pub(crate) lookup_tag: [u8; 8],
    log: Option<KernelLog>,
    pub(crate) pods: Map<u64, PodConfig>,
    pub(crate) sockets: Map<SocketKey, u64>,
    pub(crate) tags: Map<i32, Tag>,
    pub(crate) probes: Map<u64, ProbePorts>,
    pub(crate) locals: Map<LocalKey, u64>,
    pub(crate) locals_used: Map<u64, u64>,
    counters: Map<u32, u64>,
}

impl Steering {
    /// Loads the programs, or takes over what is pinned: maps are kept, links get the new programs in
    /// place. Then the root programs are attached. Pods that are pinned keep their program until
    /// [`Self::attach_pod`] is called for them.
    ///
    /// # Errors
    /// All of [`LoadError`]. What was attached before stays attached.
    pub fn open(config: Config) -> Result<Self, LoadError> {
        // Programs are loaded and verified before the first of them is attached or replaced: one that this kernel
        // refuses changes nothing.
        let root = Cgroup::open(&config.cgroup_root)?;
        let pins = Pins::prepare(&config.bpffs_dir)?;
        let (programs, mut ebpf) = object::mesh(&pins, config.host_netns_cookie)?;
        let lookup_tag = object::sk_lookup_tag(&pins)?;
        let steering = Self {
            pods: Map::open(&pins.map(names::PODS))?,
            sockets: Map::open(&pins.map(names::SOCKS))?,
            tags: Map::open(&pins.map(names::TAGS))?,
            probes: Map::open(&pins.map(names::PROBES))?,
            locals: Map::open(&pins.map(names::LOCALS))?,
            locals_used: Map::open(&pins.map(names::LOCALS_USED))?,
            counters: Map::open_per_cpu(&pins.map(names::COUNTERS))?,
            log: KernelLog::of(&mut ebpf),
            config,
            pins,
            root,
            programs,
            lookup_tag,
        };
        // Those who tag come first: a proxy that is not tagged would be captured.
        for (name, _, pin) in steering.pins.cgroup_links()? {
            if !link::update(steering.program(&name)?, &pin)? {
                link::remove(&pin)?;
            }
        }
        steering.attach_root()?;
        Ok(steering)
    }

    /// Attaches the programs of the node's cgroup root, or replaces them in place.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn attach_root(&self) -> Result<(), LoadError> {
        for (name, hook) in ROOT {
            let target = cgroup_target(&self.root, hook);
            link::attach(self.program(name)?, target, &self.pins.root_link(name))?;
        }
        Ok(())
    }

    /// Configuration with which it was opened.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The programs' log lines, once; `None` after that.
    #[must_use]
    pub fn take_log(&mut self) -> Option<KernelLog> {
        self.log.take()
    }

    /// From now on sockets made below this cgroup are the proxy's. Returns the cgroup's id.
    ///
    /// # Errors
    /// [`LoadError::TagsEverything`] unless the cgroup lies below the root; kernel errors.
    pub fn tag_proxy(&self, cgroup: &Path) -> Result<u64, LoadError> {
        self.tag(names::TAG_PROXY, cgroup)
    }

    /// From now on connections from sockets made below this cgroup bypass the proxy. Returns the
    /// cgroup's id.
    ///
    /// # Errors
    /// As [`Self::tag_proxy`].
    pub fn tag_prober(&self, cgroup: &Path) -> Result<u64, LoadError> {
        self.tag(names::TAG_PROBER, cgroup)
    }

    fn tag(&self, program: &str, cgroup: &Path) -> Result<u64, LoadError> {
        let cgroup = Cgroup::open(cgroup)?;
        if !cgroup.is_below(&self.root) {
            return Err(LoadError::TagsEverything { path: cgroup.path().to_path_buf() });
        }
        let target = cgroup_target(&cgroup, AttachType::SockCreate);
        link::attach(self.program(program)?, target, &self.pins.cgroup_link(program, cgroup.id()))?;
        Ok(cgroup.id())
    }

    /// New sockets of this cgroup are an application's again. Those made before keep their tag.
    /// Returns whether there was a tag. Tags of a cgroup that has gone are removed by [`Self::sweep`].
    ///
    /// # Errors
    /// Kernel errors.
    pub fn untag(&self, cgroup: &Path) -> Result<bool, LoadError> {
        let id = Cgroup::open(cgroup)?.id();
        let mut removed = false;
        for (program, _) in TAGS {
            removed |= link::remove(&self.pins.cgroup_link(program, id))?;
        }
        Ok(removed)
    }

    /// Takes the prober's tag from every cgroup but `kept`: those of an earlier choice, of a predecessor's too. Returns how
    /// many had one. Sockets made before keep their tag.
    ///
    /// # Errors
    /// Kernel errors; when `kept` has gone.
    pub fn untag_other_probers(&self, kept: Option<&Path>) -> Result<usize, LoadError> {
        let kept = kept.map(Cgroup::open).transpose()?.map(|cgroup| cgroup.id());
        let mut removed = 0;
        for (program, id, pin) in self.pins.cgroup_links()? {
            if program == names::TAG_PROBER && Some(id) != kept {
                removed += usize::from(link::remove(&pin)?);
            }
        }
        Ok(removed)
    }

    /// Enters or changes a pod. From the first entry with [`Self::attach_pod`] on the pod is closed
    /// until the proxy listens in it.
    ///
    /// # Errors
    /// Kernel errors; `E2BIG` when there are as many pods as the map holds.
    pub fn put_pod(&self, netns_cookie: u64, pod: &PodConfig) -> Result<(), LoadError> {
        // A pod without a number learns no addresses, so it gets one before the programs know it. A number that is
        // there stays: the pod may only be changed.
        self.locals_used
            .put_new(&netns_cookie, &0)
            .map_err(LoadError::kernel("count addresses of pod", netns_cookie))?;
        self.pods.put(&netns_cookie, pod).map_err(LoadError::kernel("enter pod", netns_cookie))
    }

    /// From now on a prober's connections to these ports of the pod bypass the proxy, and to no others.
    ///
    /// # Errors
    /// Kernel errors; `E2BIG` when there are as many pods as the map holds.
    pub fn put_probes(&self, netns_cookie: u64, probes: &ProbePorts) -> Result<(), LoadError> {
        self.probes.put(&netns_cookie, probes).map_err(LoadError::kernel("enter probes of pod", netns_cookie))
    }

    /// Ports of a pod on which a prober's connections bypass the proxy.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn probes(&self, netns_cookie: u64) -> Result<Option<ProbePorts>, LoadError> {
        self.probes.get(&netns_cookie).map_err(LoadError::kernel("read probes of pod", netns_cookie))
    }

    /// Entry of one pod in the kernel's map.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn pod(&self, netns_cookie: u64) -> Result<Option<PodConfig>, LoadError> {
        self.pods.get(&netns_cookie).map_err(LoadError::kernel("read pod", netns_cookie))
    }

    /// All pods that the kernel programs know, by netns cookie.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn pods(&self) -> Result<Vec<(u64, PodConfig)>, LoadError> {
        let failed = || LoadError::kernel("list", names::PODS);
        let mut pods = Vec::new();
        for netns_cookie in self.pods.keys().map_err(failed())? {
            if let Some(pod) = self.pods.get(&netns_cookie).map_err(failed())? {
                pods.push((netns_cookie, pod));
            }
        }
        Ok(pods)
    }

    /// Forgets a pod, its learnt addresses and its listeners. Its live proxied connections break: see
    /// [`ebpf_common::PodConfig`] for leaving gently.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn remove_pod(&self, netns_cookie: u64) -> Result<(), LoadError> {
        self.pods.delete(&netns_cookie).map_err(LoadError::kernel("forget pod", netns_cookie))?;
        self.clear_remains(netns_cookie)
    }

    /// Attaches the pod's `sk_lookup` program, or replaces it in place.
    ///
    /// # Errors
    /// Kernel errors; the verifier's.
    pub fn attach_pod(&self, netns_cookie: u64, netns: BorrowedFd<'_>) -> Result<(), LoadError> {
        let program = object::sk_lookup(&self.pins, netns_cookie)?;
        let target = Target { fd: netns, attached: lookup_at(netns)? };
        link::attach(&program, target, &self.pins.pod_link(netns_cookie))
    }

    /// Takes the pod's `sk_lookup` program away. Returns whether there was one.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn detach_pod(&self, netns_cookie: u64) -> Result<bool, LoadError> {
        link::remove(&self.pins.pod_link(netns_cookie))
    }

    /// Counters of the programs since they were loaded first, over all CPUs.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn stats(&self) -> Result<Vec<(Counter, u64)>, LoadError> {
        let failed = || LoadError::kernel("read", names::COUNTERS);
        let read = |counter: &Counter| {
            let values = self.counters.get_all(&(*counter as u32)).map_err(failed())?;
            // Without a slot nothing is counted, which is not the same as zero.
            let values = values.ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?;
            Ok((*counter, values.into_iter().sum()))
        };
        Counter::ALL.iter().map(read).collect()
    }

    /// Removes pods that are not in `known` and tags of cgroups that have gone: what a predecessor
    /// left. Namespaces that nobody holds any more cannot come back, nor can their cookies.
    ///
    /// # Errors
    /// Kernel errors.
    pub fn sweep(&self, known: &BTreeSet<u64>) -> Result<Swept, LoadError> {
        let mut swept = Swept::default();
        let entered = self.pods()?.into_iter().map(|(netns_cookie, _)| netns_cookie);
        for netns_cookie in entered.chain(self.pins.pod_links()?) {
            if !known.contains(&netns_cookie) {
                self.detach_pod(netns_cookie)?;
                self.remove_pod(netns_cookie)?;
                swept.pods.insert(netns_cookie);
            }
        }
        let tags = self.pins.cgroup_links()?;
        // After the pins: a cgroup that is tagged meanwhile is not among them.
        let alive = cgroup::ids(self.root.path())?;
        for (_, id, pin) in tags {
            // The kernel detaches a link some time after its cgroup has gone.
            if !alive.contains(&id) {
                link::remove(&pin)?;
                swept.cgroups += 1;
            }
        }
        Ok(swept)
    }

    pub(crate) fn program(&self, name: &str) -> Result<&Loaded, LoadError> {
        self.programs
            .iter()
            .find(|program| program.name == name)
            .ok_or_else(|| LoadError::Mismatch { object: "mesh", what: format!("no program {name}") })
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("config", &self.config).finish_non_exhaustive()
    }
}

pub(crate) fn cgroup_target(cgroup: &Cgroup, hook: AttachType) -> Target<'_> {
    Target { fd: cgroup.as_fd(), attached: Attached::Cgroup { id: cgroup.id(), hook: hook as u32 } }
}

/// The inode by which links name a namespace.
pub(crate) fn netns_inode(netns: BorrowedFd<'_>) -> Result<u32, LoadError> {
    let failed = || LoadError::kernel("inspect", "the network namespace");
    let inode = fstat(netns).map_err(|err| failed()(err.into()))?.st_ino;
    u32::try_from(inode).map_err(|_| failed()(io::ErrorKind::InvalidInput.into()))
}
