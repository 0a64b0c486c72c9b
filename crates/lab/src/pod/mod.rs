//! The kubelet's part of one pod: its pause process, its containers and its end. Its network is made before and taken away
//! after by the supervisor.

pub(crate) mod container;
pub(crate) mod environment;
pub(crate) mod files;
pub(crate) mod probe;
pub(crate) mod state;

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use kube_api::core::{Container, Pod, SecurityContext};
use runtime::sys::Netns;
use tokio::{process::Child, sync::watch, task::JoinSet};

use crate::{
    paths::{Cgroups, RunDir, remove_tree},
    pod::{environment::Facts, state::Shared},
    process::enter::Entry,
    supervisor::prober::Prober,
};

/// `terminationGracePeriodSeconds` when nothing is said.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Name of the pause process's cgroup.
const PAUSE: &str = "pause";

/// What all pods of a lab share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) program: PathBuf,
    pub(crate) run: RunDir,
    pub(crate) cgroups: Cgroups,
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
}

impl Setup {
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts { pod: &self.pod, uid: &self.uid, node: &self.node, ips: &self.ips, host_ips: &self.host_ips }
    }

    /// The pod's cgroup.
    pub(crate) fn cgroup(&self) -> PathBuf {
        self.context.cgroups.pod(&self.node, &self.uid)
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

    /// Whom a container's processes run as: its own `securityContext`, else the pod's.
    fn user(&self, container: &Container) -> Option<u32> {
        self.security_contexts(container).find_map(|context| context.run_as_user)
    }

    fn group(&self, container: &Container) -> Option<u32> {
        self.security_contexts(container).find_map(|context| context.run_as_group)
    }

    fn security_contexts(&self, container: &Container) -> impl Iterator<Item = SecurityContext> {
        [container.security_context, self.pod.spec.security_context].into_iter().flatten()
    }

    /// A command in a container that runs as process `pid`.
    pub(crate) fn exec(&self, container: &Container, pid: u32, argv: Vec<String>) -> Result<Entry, String> {
        Ok(Entry {
            cgroup: self.cgroup().join(&container.name),
            netns: Some(self.netns_path()),
            like: Some(pid),
            env: environment::environment(container, &self.facts())?,
            directory: container.working_dir.as_ref().map(PathBuf::from),
            user: self.user(container),
            group: self.group(container),
            argv,
            ..Entry::default()
        })
    }
}

/// A path to a namespace that this process holds open, for its children.
pub(crate) fn netns_path(netns: &Netns) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd()))
}

/// Runs a pod until `stop` turns true and everything in it has ended.
pub(crate) async fn run(setup: Arc<Setup>, shared: Shared, mut stop: watch::Receiver<bool>) {
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
    let cgroup = setup.cgroup();
    let removed = tokio::task::spawn_blocking(move || remove_tree(&cgroup));
    if let Ok(Err(err)) = removed.await {
        tracing::warn!(pod = setup.pod.metadata.name, %err, "the pod's cgroup was not removed");
    }
    shared.update(|state| state.stopped = true);
}

/// Waits until a pod is to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the supervisor has forgotten the pod, which ends it as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Init containers one after the other, then all others at once, until each has ended for good.
async fn run_containers(setup: &Arc<Setup>, shared: &Shared, stop: &watch::Receiver<bool>) {
    let spec = &setup.pod.spec;
    let initial = spec.init_containers.len();
    // Sidecars too: nothing of the pod is started again once this returns.
    let mut tasks = JoinSet::new();
    for index in 0..initial {
        let sidecar = spec.init_containers[index].restart_policy.as_deref() == Some("Always");
        if sidecar {
            tasks.spawn(container::run(Arc::clone(setup), index, shared.clone(), stop.clone()));
            continue;
        }
        container::run(Arc::clone(setup), index, shared.clone(), stop.clone()).await;
        let failed = shared.get().containers.get(index).is_none_or(|container| container.last_exit != Some(0));
        if *stop.borrow() || failed {
            tasks.join_all().await;
            return;
        }
    }
    for index in initial..initial + spec.containers.len() {
        tasks.spawn(container::run(Arc::clone(setup), index, shared.clone(), stop.clone()));
    }
    tasks.join_all().await;
}

/// The process that keeps the pod together, and the oldest in its cgroup.
fn start_pause(setup: &Setup) -> io::Result<Child> {
    let program = &setup.context.program;
    let argv = [program.to_string_lossy().as_ref(), "lab", "process", PAUSE].map(str::to_owned).to_vec();
    let entry = Entry {
        cgroup: setup.cgroup().join(PAUSE),
        netns: Some(setup.netns_path()),
        hostname: Some(files::hostname(&setup.pod).to_owned()),
        argv,
        ..Entry::default()
    };
    std::fs::create_dir_all(setup.cgroup())?;
    entry.command(program)?.stdin(Stdio::null()).kill_on_drop(true).spawn()
}
