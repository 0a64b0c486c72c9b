//! The kubelet's part of one pod: its pause process, its containers and its end. Its network is made before and taken away
//! after by the supervisor.

mod admission;
pub(crate) mod catalogue;
pub(crate) mod container;
pub(crate) mod environment;
pub(crate) mod facts;
pub(crate) mod files;
mod lifecycle;
mod mounts;
pub(crate) mod probe;
mod start;
pub(crate) mod state;
pub(crate) mod volumes;

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use kube_types::core::{Container, Pod, SecurityContext};
use parking_lot::RwLock;
use runtime::sys::Netns;
use tokio::{process::Child, sync::watch, task::JoinSet};

use crate::{
    control::Role,
    logs::Marks,
    paths::{Cgroups, PAUSE, RunDir, remove_tree},
    pod::{catalogue::Catalogue, facts::Facts, state::Shared, volumes::Places},
    prober::Prober,
    process::enter::Entry,
};

/// `terminationGracePeriodSeconds` when nothing is said.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// State that all pods of a lab share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) program: PathBuf,
    pub(crate) run: RunDir,
    pub(crate) cgroups: Cgroups,
    /// When which log began and grew.
    pub(crate) marks: Marks,
    catalogue: RwLock<Arc<Catalogue>>,
}

impl Context {
    pub(crate) fn new(program: PathBuf, run: RunDir, cgroups: Cgroups) -> Self {
        Self { program, run, cgroups, marks: Marks::default(), catalogue: RwLock::default() }
    }

    /// Objects that containers may refer to now.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read())
    }

    /// Replaces what containers that start from now on may refer to.
    pub(crate) fn set_catalogue(&self, catalogue: Catalogue) {
        *self.catalogue.write() = Arc::new(catalogue);
    }
}

/// The containers of a pod in the order of their indexes, with their roles.
pub(crate) fn roles(pod: &Pod) -> impl Iterator<Item = (&Container, Role)> {
    let initial = pod.spec.init_containers.iter().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (container, if sidecar { Role::Sidecar } else { Role::Init })
    });
    initial.chain(pod.spec.containers.iter().map(|container| (container, Role::Main)))
}

/// Everything that is settled about a pod before it starts.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) context: Arc<Context>,
    pub(crate) pod: Pod,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) host_ips: Vec<IpAddr>,
    pub(crate) netns: Arc<Netns>,
    pub(crate) prober: Prober,
    /// True if the node agent has to enrol the pod before it starts: the lab has a mesh, and the labels ask for it.
    pub(crate) selected: watch::Receiver<bool>,
}

impl Setup {
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts { pod: &self.pod, uid: &self.uid, node: &self.node, ips: &self.ips, host_ips: &self.host_ips }
    }

    /// The pod's cgroup.
    pub(crate) fn cgroup(&self) -> PathBuf {
        self.context.cgroups.pod(&self.node, &self.uid)
    }

    /// The directories that the pod's volumes are made in.
    pub(crate) fn places(&self) -> Places {
        let run = &self.context.run;
        Places { pod: self.dir(), host: run.host(&self.node), claims: run.claims(&self.pod.metadata.namespace) }
    }

    /// The file that a container's output goes to.
    pub(crate) fn log(&self, container: &Container) -> PathBuf {
        let meta = &self.pod.metadata;
        self.context.run.log(&meta.namespace, &meta.name, &container.name)
    }

    /// The directory of the pod's files.
    pub(crate) fn dir(&self) -> PathBuf {
        self.context.run.pod(&self.uid)
    }

    pub(crate) fn grace(&self) -> Duration {
        self.pod.spec.termination_grace_period_seconds.map_or(DEFAULT_GRACE, Duration::from_secs)
    }

    /// A path to the pod's network namespace for a child of this process.
    pub(crate) fn netns_path(&self) -> PathBuf {
        netns_path(&self.netns)
    }

    /// A command in a container that runs as process `pid`.
    pub(crate) fn exec(&self, container: &Container, pid: u32, argv: Vec<String>) -> Result<Entry, String> {
        Ok(Entry {
            cgroup: self.cgroup().join(&container.name),
            netns: Some(self.netns_path()),
            like: Some(pid),
            env: environment::environment(container, &self.facts(), &self.context.catalogue())?,
            directory: container.working_dir.as_ref().map(PathBuf::from),
            user: user(&self.pod, container),
            group: group(&self.pod, container),
            argv,
            ..Entry::default()
        })
    }
}

/// User of a container's processes: that of its own `securityContext`, else the pod's.
pub(crate) fn user(pod: &Pod, container: &Container) -> Option<u32> {
    security_contexts(pod, container).find_map(|context| context.run_as_user)
}

/// Group of a container's processes, chosen like the user.
pub(crate) fn group(pod: &Pod, container: &Container) -> Option<u32> {
    security_contexts(pod, container).find_map(|context| context.run_as_group)
}

fn security_contexts(pod: &Pod, container: &Container) -> impl Iterator<Item = SecurityContext> {
    [container.security_context, pod.spec.security_context].into_iter().flatten()
}

/// A path to a namespace that this process holds open, for its children.
pub(crate) fn netns_path(netns: &Netns) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd()))
}

/// Runs a pod until `stop` turns true and everything in it has ended.
pub(crate) async fn run(setup: Arc<Setup>, shared: Shared, mut stop: watch::Receiver<bool>) {
    // As a CNI plugin is asked: the network is there, and no process.
    if admission::passed(&setup, &shared, &mut stop).await {
        match start_pause(&setup) {
            Ok(mut pause) => {
                run_containers(&setup, &shared, &stop).await;
                stopped(&mut stop).await;
                // It may be gone already, when somebody killed it.
                let _ = pause.kill().await;
            }
            Err(err) => {
                shared.update(|state| state.failure = Some(format!("the pod's first process: {err}")));
                stopped(&mut stop).await;
            }
        }
    }
    // Only an empty cgroup can be removed, and the kernel's programs know the pod by it, so it goes when nothing runs
    // in it any more.
    let cgroup = setup.cgroup();
    let removed = tokio::task::spawn_blocking(move || remove_tree(&cgroup));
    if let Ok(Err(err)) = removed.await {
        tracing::warn!(pod = setup.pod.metadata.name, %err, "failed to remove a pod's cgroup");
    }
    shared.update(|state| state.stopped = true);
}

/// Waits until a pod is to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the supervisor has forgotten the pod, which ends it as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Init containers one after the other, then all others at once, until each has ended for good. Sidecars end last.
async fn run_containers(setup: &Arc<Setup>, shared: &Shared, stop: &watch::Receiver<bool>) {
    // Sidecars have an end of their own to wait for: the main containers may still need them after the pod was told to
    // stop.
    let (end_sidecars, sidecars_end) = watch::channel(false);
    let run =
        |index, stop: &watch::Receiver<bool>| container::run(Arc::clone(setup), index, shared.clone(), stop.clone());
    let (mut sidecars, mut mains) = (JoinSet::new(), JoinSet::new());
    for (index, (_, role)) in roles(&setup.pod).enumerate() {
        match role {
            Role::Sidecar => {
                sidecars.spawn(run(index, &sidecars_end));
                let mut stop = stop.clone();
                tokio::select! {
                    // Both are safe to drop: they only wait.
                    () = shared.started(index) => {}
                    () = stopped(&mut stop) => break,
                }
            }
            Role::Init => {
                run(index, stop).await;
                let failed = shared.get().containers.get(index).is_none_or(|container| container.last_exit != Some(0));
                // An init container that failed and was not started again keeps the rest from starting; the pod has
                // failed.
                if *stop.borrow() || failed {
                    break;
                }
            }
            Role::Main => drop(mains.spawn(run(index, stop))),
        }
    }
    mains.join_all().await;
    end_sidecars.send_replace(true);
    // Nothing of the pod is started again once this returns.
    sidecars.join_all().await;
}

/// The process that keeps the pod together, and the oldest in its cgroup.
fn start_pause(setup: &Setup) -> io::Result<Child> {
    let program = &setup.context.program;
    let argv = [program.to_string_lossy().as_ref(), "lab", "process", "pause"].map(str::to_owned).to_vec();
    let entry = Entry {
        cgroup: setup.cgroup().join(PAUSE),
        netns: Some(setup.netns_path()),
        hostname: Some(files::hostname(&setup.pod)),
        argv,
        ..Entry::default()
    };
    std::fs::create_dir_all(setup.cgroup())?;
    entry.command(program)?.stdin(Stdio::null()).kill_on_drop(true).spawn()
}
