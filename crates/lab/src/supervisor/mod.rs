//! The supervisor: reads the manifests, decides what should run where, starts and stops it, and says how it stands. One task
//! owns all of that; pods run as tasks of their own and only report. What clients ask comes through `requests`.

mod capture;
mod cluster;
mod findings;
mod leave;
mod manifests;
mod nodes;
mod plan;
mod publish;
mod requests;
mod review;
mod running;
mod unsupported;
mod view;

use std::{
    collections::BTreeMap, fs, io, os::unix::fs::DirBuilderExt as _, path::Path, process::ExitCode, sync::Arc,
    time::Duration,
};

use ::manifests::DirectoryConfig;
use kube_types::core::Pod;
use kube_types::{Event, Kind, ObjectRef, Resource, Source};
use runtime::Debounce;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, sleep_until},
};

use self::{
    cluster::Cluster, findings::Findings, manifests::Manifests, plan::JobController, publish::Publisher,
    requests::Command, running::Running,
};
use crate::{
    control::{PodInfo, Status},
    logs,
    options::Options,
    paths::{Cgroups, RunDir},
    pod::{Context, catalogue::Catalogue},
    system::{self, Mesh, Waypoints},
    workloads::{Objects, Planned},
};

/// Changes of files that follow each other take effect together, 100 ms after the first of them at the latest.
const DEBOUNCE: Debounce = Debounce::new(Duration::from_millis(5), Duration::from_millis(100));

/// Time within which the starter has to hold the lab; it tries every few milliseconds.
const LEASH_DEADLINE: Duration = Duration::from_secs(5);

/// Requests that wait for the supervisor; further clients wait to be heard.
const COMMANDS: usize = 64;

/// Namespace and name of a pod.
type PodKey = (String, String);

/// Runs a lab to its end.
pub(crate) fn run(file: &Path) -> Result<ExitCode, String> {
    let options = Options::read(file).map_err(|err| format!("{}: {err}", file.display()))?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,hickory_server=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(io::stderr).init();
    if let Err(err) = runtime::sys::raise_nofile() {
        tracing::warn!(%err, "failed to raise RLIMIT_NOFILE");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|err| err.to_string())?;
    let ended = runtime.block_on(async { Supervisor::new(options).await?.supervise().await });
    runtime.shutdown_background();
    ended.map_err(|err| err.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// One lab.
struct Supervisor {
    options: Options,
    context: Arc<Context>,
    mesh: Option<Mesh>,
    cluster: Cluster,
    manifests: Manifests,
    pods: BTreeMap<PodKey, Running>,
    jobs: JobController,
    findings: Findings,
    /// Waypoints of the manifests, with the objects that run them.
    waypoints: Waypoints,
    publisher: Publisher,
    status: Status,
    changed: Arc<Notify>,
    stopping: bool,
}

impl Supervisor {
    async fn new(options: Options) -> io::Result<Self> {
        let run = RunDir::of(&options.name);
        let cgroups = Cgroups::of(&options.name)?;
        fs::create_dir_all(run.logs())?;
        fs::create_dir_all(run.state())?;
        // Volumes have Secrets in them.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(run.pods())?;
        let context = Context::new(options.program.clone(), run.clone(), cgroups.clone());
        let mesh = options.mesh.then(|| Mesh::new(&options, run.clone(), cgroups)).transpose()?;
        Ok(Self {
            context: Arc::new(context),
            mesh,
            cluster: Cluster::create().await?,
            manifests: Manifests::default(),
            pods: BTreeMap::new(),
            jobs: JobController::default(),
            findings: Findings::default(),
            waypoints: Waypoints::default(),
            publisher: Publisher::new(run.state()),
            status: Status::default(),
            changed: Arc::new(Notify::new()),
            stopping: false,
            options,
        })
    }

    /// Keeps the lab as its manifests describe it, until every pod is stopped after somebody asked for the end.
    async fn supervise(mut self) -> io::Result<()> {
        let (commands, mut asked) = mpsc::channel(COMMANDS);
        // The user's files only: the status that the lab writes about them is no wish of theirs.
        let state = self.context.run.root().join("none");
        let config = DirectoryConfig::new(self.options.manifests.clone(), state);
        let mut source = ::manifests::open(config).map_err(io::Error::other)?;
        // The socket appears when everything that requests need is there: a client that can connect is answered.
        let held = requests::listen(&self.context.run, commands)?;
        let forgotten = never_held(held);
        tokio::pin!(forgotten);
        let mut ended = Vec::new();
        tokio::spawn(look_at_logs(Arc::clone(&self.context)));
        loop {
            let wake = self.jobs.plan.wake;
            tokio::select! {
                // Each is safe to drop: nothing is taken before it is returned.
                event = source.next() => match event {
                    Some(event) => self.read_all(event, &mut source).await,
                    None => return Err(io::Error::other("the reader of the manifests ended")),
                },
                () = self.changed.notified() => {}
                () = at(wake) => {}
                () = &mut forgotten, if !self.stopping => {
                    tracing::warn!("the process that started the lab has ended before it held the lab; stopping");
                    self.stopping = true;
                }
                command = asked.recv() => match command {
                    Some(Command::Down(done)) => {
                        self.stopping = true;
                        ended.push(done);
                    }
                    Some(command) => {
                        if self.manifests.in_sync {
                            self.publish().await;
                        }
                        requests::answer(command, &self.status, &self.pods, &self.cluster.nodes);
                        continue;
                    }
                    None => return Err(io::Error::other("nobody listens for requests")),
                },
            }
            if self.manifests.in_sync {
                self.reconcile().await;
                self.publish().await;
            }
            // Clients that asked for the end are told last, when nothing is left.
            if self.stopping && self.pods.is_empty() {
                self.leave().await;
                ended.into_iter().for_each(|done: requests::Done| done.tell());
                return Ok(());
            }
        }
    }

    /// Removes everything that is not a process of this lab's own.
    async fn leave(&mut self) {
        let mut names = Vec::new();
        for node in self.cluster.nodes.drain(..) {
            names.push(node.candidate.name);
            // Before its cgroup goes: nothing may be started again in there.
            node.keeper.end().await;
        }
        for left in leave::clean_up(&self.context.run, &self.context.cgroups, &names, leave::home().as_deref()) {
            tracing::warn!(%left, "failed to remove a part of the lab; the next start or `strake lab down` removes it");
        }
    }

    /// Takes an event and those that follow at once.
    async fn read_all(&mut self, first: Event, source: &mut Source) {
        // One reconciliation for a burst of events: a directory that is copied file by file would otherwise start pods
        // from half of it.
        self.manifests.apply(first);
        let burst = DEBOUNCE.begin();
        while let Some(Some(event)) = burst.next(source.next()).await {
            self.manifests.apply(event);
        }
    }

    /// Starts and stops pods until those run that the manifests ask for.
    async fn reconcile(&mut self) {
        // Nodes come before pods, which are placed on them, and stopped pods are forgotten before others start, which
        // may need their names and addresses.
        let has_changed = self.manifests.take_changed();
        if has_changed {
            // Before the files of the mesh are made: each waypoint has a token.
            let waypoints = self.mesh.as_ref().map(|mesh| mesh.waypoints(&self.manifests.objects));
            self.waypoints = waypoints.unwrap_or_default();
        }
        let mut problems = self.ensure_nodes().await;
        problems.extend(self.waypoints.problems.iter().cloned());
        if has_changed {
            self.take_over_objects(&mut problems);
        }
        let planned = self.plan(&mut problems);
        self.forget_stopped().await;
        self.stop_unwanted(&planned);
        for running in self.pods.values() {
            running.select(self.selected(&running.planned.pod));
        }
        self.findings.blocked.clear();
        if !self.stopping {
            for (key, planned) in planned {
                if self.pods.contains_key(&key) {
                    continue;
                }
                let blocked = running::blocked_info(&planned);
                if let Err(reason) = self.start(planned).await {
                    problems.push(format!("pod {}/{} is pending: {reason}", key.0, key.1));
                    self.findings.blocked.insert(key, PodInfo { reason, ..blocked });
                }
            }
        }
        problems.extend(self.jobs.plan.problems.iter().cloned());
        problems.extend(self.failed_pods());
        self.findings.pods = problems;
    }

    /// Reviews changed objects, and hands them to the containers that refer to them.
    fn take_over_objects(&mut self, problems: &mut Vec<String>) {
        self.findings.review = review::review(&self.manifests.objects, &self.options.manifests);
        self.findings.review.notes.extend(self.waypoints.notes.iter().cloned());
        let objects = self.all_objects();
        let mut with_mesh = objects.clone();
        if let Some(Err(err)) = self.mesh.as_ref().map(|mesh| mesh.add_objects(&mut with_mesh)) {
            problems.push(format!("manifests of the mesh: {err}"));
        }
        let services = self.cluster.services(&objects);
        self.context.set_catalogue(Catalogue::new(&with_mesh, services));
        self.findings.volumes = self.refresh_volumes();
    }

    /// Objects of the manifests and of waypoints.
    fn all_objects(&self) -> Objects {
        let of_waypoints = self.waypoints.objects.iter().map(|(key, resource)| (key.clone(), resource.clone()));
        self.manifests.objects.clone().into_iter().chain(of_waypoints).collect()
    }

    /// Makes the nodes that are missing, and the files of the mesh on them.
    async fn ensure_nodes(&mut self) -> Vec<String> {
        let mut problems = self.cluster.ensure_nodes(&self.manifests.objects, self.options.nodes, &self.context).await;
        if let Some(mesh) = &self.mesh
            && let Err(err) = mesh.prepare(&self.cluster.system_nodes(), &self.waypoints.accounts)
        {
            problems.push(format!("files of the mesh: {err}"));
        }
        problems
    }

    /// Asks pods to stop that no manifest asks for any more, or whose description has changed.
    fn stop_unwanted(&mut self, planned: &BTreeMap<PodKey, Planned>) {
        let ready: Vec<&ObjectRef> = planned
            .iter()
            .filter(|(key, _)| !self.pods.get(*key).is_some_and(|running| running.shared.get().ready()))
            .filter_map(|(_, planned)| planned.rollout.as_ref())
            .collect();
        let users_left = self.pods.keys().any(|(namespace, _)| namespace != system::SYSTEM_NAMESPACE);
        let stopping = self.stopping;
        for (key, running) in &mut self.pods {
            if stopping {
                // The mesh goes last, so that connections of the others can end well.
                if key.0 != system::SYSTEM_NAMESPACE || !users_left {
                    running.stop();
                }
                continue;
            }
            match planned.get(key) {
                // Labels and annotations may change while a pod runs, as in Kubernetes. Only another specification
                // makes another pod.
                Some(wanted) if wanted.fingerprint == running.planned.fingerprint => {
                    running.planned.pod.metadata = wanted.pod.metadata.clone();
                    running.planned.by_user = wanted.by_user;
                }
                Some(_) => running.stop(),
                // Old pods of a Deployment serve until the new ones can.
                None if running.planned.rollout.as_ref().is_some_and(|rollout| ready.contains(&rollout)) => {}
                None => running.stop(),
            }
        }
    }

    /// True if the pod belongs into the mesh, so that it has to be enrolled before it starts.
    fn selected(&self, pod: &Pod) -> bool {
        let namespace = match self.manifests.objects.get(&ObjectRef::new(Kind::Namespace, "", &pod.metadata.namespace))
        {
            Some(Resource::Namespace(namespace)) => Some(namespace.as_ref()),
            _ => None,
        };
        self.mesh.is_some() && system::enablement().selected(pod, namespace).is_selected()
    }

    /// Frees addresses, interfaces and files of pods that have stopped.
    async fn forget_stopped(&mut self) {
        let stopped: Vec<_> =
            self.pods.iter().filter(|(_, running)| running.shared.get().stopped).map(|(key, _)| key.clone()).collect();
        for key in stopped {
            let Some(running) = self.pods.remove(&key) else { continue };
            if let Some(node) = self.cluster.node_mut(&running.setup.node) {
                running.release(node).await;
            }
        }
    }

    async fn start(&mut self, planned: Planned) -> Result<(), String> {
        let selected = self.selected(&planned.pod);
        let node = self.cluster.place(&planned.pod.spec)?;
        let key = planned.key();
        self.pods.insert(key, Running::start(planned, selected, node, &self.context, &self.changed).await?);
        Ok(())
    }

    /// Brings changed ConfigMaps and Secrets to the pods that mount them.
    fn refresh_volumes(&self) -> Vec<String> {
        let catalogue = self.context.catalogue();
        let refresh = |((namespace, name), running): (&PodKey, &Running)| {
            let written = running.write_volumes(&catalogue);
            written.err().map(|reason| format!("pod {namespace}/{name}: {reason}"))
        };
        self.pods.iter().filter_map(refresh).collect()
    }
}

/// Notes how the containers' logs grow, as long as the lab runs.
async fn look_at_logs(context: Arc<Context>) {
    let mut tick = tokio::time::interval(logs::LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        context.marks.look();
    }
}

/// Waits for a time, for ever when there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Ends when nobody has taken the leash in time: the starter was killed before it could.
async fn never_held(mut held: watch::Receiver<bool>) {
    if let Ok(taken) = tokio::time::timeout(LEASH_DEADLINE, held.wait_for(|held| *held)).await {
        drop(taken);
        std::future::pending::<()>().await;
    }
}
