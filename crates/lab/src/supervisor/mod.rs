//! The supervisor: reads the manifests, decides what should run where, starts and stops it, and says how it stands. One task
//! owns all of that; pods run as tasks of their own and only report. What clients ask comes through `requests`.

mod capture;
mod leave;
mod nodes;
pub(crate) mod prober;
mod publish;
mod requests;
mod running;
mod unplayed;
mod view;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use kube_api::{DirectoryConfig, Event, Kind, ObjectRef, Resource, Source, SourceProblem, core::ConfigMap, manifest};
use tokio::sync::{Notify, mpsc, watch};

pub(crate) use self::leave::{HOME_VARIABLE, current_cgroup};
use self::{nodes::Node, publish::Publisher, requests::Command, running::Running};
use crate::{
    addresses::ServiceHosts,
    control::Status,
    dns::Zone,
    network::Wire,
    options::Options,
    paths::{Cgroups, RunDir},
    pod::Context,
    scheduler::Scheduler,
    system::{self, Mesh, SystemNode},
    workloads::{self, Objects, Planned},
};

/// How long changes of files are collected before they take effect together.
const SETTLE: Duration = Duration::from_millis(5);

/// How long the starter may take to hold the lab; it tries every few milliseconds.
const LEASH_DEADLINE: Duration = Duration::from_secs(5);

/// Requests that wait for the supervisor; further clients wait to be heard.
const COMMANDS: usize = 64;

/// Namespace and name of a pod.
type PodKey = (String, String);

/// Reads the options that the starter wrote.
pub(crate) fn read_options(file: &Path) -> io::Result<Options> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// Runs a lab to its end.
pub(crate) fn run(file: &Path) -> Result<ExitCode, String> {
    let options = read_options(file).map_err(|err| format!("{}: {err}", file.display()))?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,hickory_server=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(io::stderr).init();
    if let Err(err) = runtime::sys::raise_nofile() {
        tracing::warn!(%err, "the limit of open files stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|err| err.to_string())?;
    let ended = runtime.block_on(async { Supervisor::new(options).await?.supervise().await });
    runtime.shutdown_background();
    ended.map_err(|err| err.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Everything that one lab is.
struct Supervisor {
    options: Options,
    context: Arc<Context>,
    mesh: Option<Mesh>,
    wire: Wire,
    zone: Zone,
    nodes: Vec<Node>,
    pods: BTreeMap<PodKey, Running>,
    objects: Objects,
    in_sync: bool,
    /// Problems of manifests by file, and those of pods, as of the last look.
    file_problems: BTreeMap<PathBuf, Vec<SourceProblem>>,
    pod_problems: Vec<String>,
    /// What is not played, as of the last look.
    notes: Vec<String>,
    scheduler: Scheduler,
    service_hosts: ServiceHosts,
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
        let context = Context { program: options.program.clone(), run: run.clone(), cgroups: cgroups.clone() };
        Ok(Self {
            context: Arc::new(context),
            mesh: options.mesh.then(|| Mesh::new(&options, run.clone(), cgroups)),
            wire: Wire::create().await?,
            zone: Zone::default(),
            nodes: Vec::new(),
            pods: BTreeMap::new(),
            objects: Objects::new(),
            in_sync: false,
            file_problems: BTreeMap::new(),
            pod_problems: Vec::new(),
            notes: Vec::new(),
            scheduler: Scheduler::default(),
            service_hosts: ServiceHosts::default(),
            publisher: Publisher::new(run),
            status: Status::default(),
            changed: Arc::new(Notify::new()),
            stopping: false,
            options,
        })
    }

    /// Until every pod is stopped after somebody asked for the end.
    async fn supervise(mut self) -> io::Result<()> {
        let (commands, mut asked) = mpsc::channel(COMMANDS);
        // The user's files only: what the lab writes about them must not come back as a wish.
        let state = self.context.run.root().join("none");
        let config = DirectoryConfig { manifests: self.options.manifests.clone(), state };
        let mut source = Source::directory(config).map_err(io::Error::other)?;
        let held = requests::listen(&self.context.run, commands)?;
        let forgotten = never_held(held);
        tokio::pin!(forgotten);
        let mut ended = Vec::new();
        loop {
            tokio::select! {
                // Each is safe to drop: nothing is taken before it is returned.
                event = source.next() => match event {
                    Some(event) => self.read_all(event, &mut source).await,
                    None => return Err(io::Error::other("the reader of the manifests ended")),
                },
                () = self.changed.notified() => {}
                () = &mut forgotten, if !self.stopping => {
                    tracing::warn!("whoever started the lab is gone");
                    self.stopping = true;
                }
                command = asked.recv() => match command {
                    Some(Command::Down(done)) => {
                        self.stopping = true;
                        ended.push(done);
                    }
                    Some(command) => {
                        if self.in_sync {
                            self.publish().await;
                        }
                        requests::answer(command, &self.status, &self.pods, &self.nodes);
                        continue;
                    }
                    None => return Err(io::Error::other("nobody listens for requests")),
                },
            }
            if self.in_sync {
                self.reconcile().await;
                self.publish().await;
            }
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
        for node in self.nodes.drain(..) {
            names.push(node.candidate.name);
            // Before its cgroup goes: nothing may be started again in there.
            node.keeper.end().await;
        }
        for left in leave::clean_up(&self.context.run, &self.context.cgroups, &names, leave::home().as_deref()) {
            tracing::warn!(%left, "something is left, which the next start sweeps");
        }
    }

    /// Takes an event and those that follow at once.
    async fn read_all(&mut self, first: Event, source: &mut Source) {
        self.read(first);
        while let Ok(Some(event)) = tokio::time::timeout(SETTLE, source.next()).await {
            self.read(event);
        }
    }

    fn read(&mut self, event: Event) {
        match event {
            Event::Applied { resource, .. } => drop(self.objects.insert(resource.key(), resource)),
            Event::Removed { key, .. } => drop(self.objects.remove(&key)),
            Event::InSync { .. } => self.in_sync = true,
            Event::Problem(problem) => {
                tracing::warn!(severity = problem.severity.name(), "{problem}");
                self.file_problems.entry(problem.file.clone()).or_default().push(problem);
            }
            Event::Solved { file } => drop(self.file_problems.remove(&file)),
        }
    }

    /// Brings what runs to what should run.
    async fn reconcile(&mut self) {
        let mut problems = self.ensure_nodes().await;
        let planned = self.plan(&mut problems);
        self.forget_stopped().await;
        self.stop_unwanted(&planned);
        if !self.stopping {
            for (key, planned) in planned {
                if !self.pods.contains_key(&key)
                    && let Err(reason) = self.start(planned).await
                {
                    problems.push(format!("pod {}/{}: {reason}", key.0, key.1));
                }
            }
        }
        problems.extend(self.refresh_volumes());
        self.pod_problems = problems;
        self.notes = unplayed::notes(&self.objects, &self.options.manifests);
    }

    /// Makes the nodes that are missing. A node stays as long as the lab.
    async fn ensure_nodes(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        // Nodes that no manifest names are made once: the first named one does not replace them.
        let counted = !self.nodes.is_empty() && !self.objects.keys().any(|key| key.kind == Kind::Node);
        for candidate in nodes::wanted(&self.objects, self.options.nodes) {
            if let Some(node) = self.nodes.iter_mut().find(|node| node.candidate.name == candidate.name) {
                node.candidate = candidate;
                continue;
            }
            if counted {
                continue;
            }
            let name = candidate.name.clone();
            match nodes::create(candidate, &self.wire, &self.nodes, &self.context, &self.zone).await {
                Ok(node) => self.nodes.push(node),
                Err(err) => problems.push(format!("node {name}: {err}")),
            }
        }
        if let Some(mesh) = &self.mesh
            && let Err(err) = mesh.prepare(&self.system_nodes())
        {
            problems.push(format!("the mesh's files: {err}"));
        }
        problems
    }

    fn system_nodes(&self) -> Vec<SystemNode> {
        self.nodes.iter().map(Node::system).collect()
    }

    /// Every pod that should run, by name.
    fn plan(&self, problems: &mut Vec<String>) -> BTreeMap<PodKey, Planned> {
        let candidates: Vec<_> = self.nodes.iter().map(|node| node.candidate.clone()).collect();
        let system = self.mesh.iter().flat_map(|mesh| mesh.pods(&self.system_nodes()));
        let mut planned = BTreeMap::new();
        for pod in system.chain(workloads::expand(&self.objects, &candidates)) {
            if let Some(container) = workloads::without_command(&pod.pod.spec) {
                problems.push(self.no_command(&pod, container));
                continue;
            }
            planned.entry(pod.key()).or_insert(pod);
        }
        problems.dedup();
        planned
    }

    fn no_command(&self, planned: &Planned, container: &str) -> String {
        let meta = &planned.pod.metadata;
        // A pod of a ReplicaSet is in the manifest of its Deployment.
        let owner = meta.controller().map_or(meta.name.as_str(), |owner| owner.name.as_str());
        let is_source = |key: &ObjectRef| {
            key.namespace == meta.namespace
                && (key.name == owner || planned.rollout.as_ref() == Some(key))
                && matches!(key.kind, Kind::Pod | Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Job)
        };
        let found = self.options.manifests.iter().find_map(|path| {
            let loaded = manifest::load_directory(path).ok()?;
            loaded.objects.into_iter().find(|object| is_source(&object.resource.key()))
        });
        let place =
            found.map(|object| format!("{}:{}: {}: ", object.file.display(), object.line, object.resource.key()));
        format!(
            "{}container {container:?} has no command, which a lab needs: images are not run here",
            place.unwrap_or_else(|| format!("Pod {}/{}: ", meta.namespace, meta.name))
        )
    }

    /// Asks pods to stop that are not wanted any more, or not as they are.
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

    /// Frees what pods had that are gone.
    async fn forget_stopped(&mut self) {
        let stopped: Vec<_> =
            self.pods.iter().filter(|(_, running)| running.shared.get().stopped).map(|(key, _)| key.clone()).collect();
        for key in stopped {
            let Some(running) = self.pods.remove(&key) else { continue };
            let node = self.nodes.iter_mut().find(|node| node.candidate.name == running.setup.node);
            if let Some(node) = node {
                running.release(node).await;
            }
        }
    }

    async fn start(&mut self, planned: Planned) -> Result<(), String> {
        let candidates: Vec<_> = self.nodes.iter().map(|node| node.candidate.clone()).collect();
        let name = self.scheduler.place(&planned.pod.spec, &candidates).map_err(|err| err.to_string())?;
        let Some(node) = self.nodes.iter_mut().find(|node| node.candidate.name == name) else {
            return Err(format!("there is no node {name:?}"));
        };
        let key = planned.key();
        let objects = &self.objects;
        let maps = |name: &str| config_map(objects, &key.0, name);
        let running = Running::start(planned, node, &self.context, &self.changed, maps).await;
        self.pods.insert(key.clone(), running.map_err(|err| err.to_string())?);
        Ok(())
    }

    /// Brings changed ConfigMaps to the pods that mount them.
    fn refresh_volumes(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for ((namespace, name), running) in &self.pods {
            let maps = |map: &str| config_map(&self.objects, namespace, map);
            if let Err(err) = crate::pod::files::write_volumes(&running.setup.dir(), &running.setup.pod, maps) {
                problems.push(format!("pod {namespace}/{name}: {err}"));
            }
        }
        problems
    }
}

/// Ends when nobody has taken the leash in time: the starter was killed before it could.
async fn never_held(mut held: watch::Receiver<bool>) {
    if let Ok(taken) = tokio::time::timeout(LEASH_DEADLINE, held.wait_for(|held| *held)).await {
        drop(taken);
        std::future::pending::<()>().await;
    }
}

fn config_map<'a>(objects: &'a Objects, namespace: &str, name: &str) -> Option<&'a ConfigMap> {
    match objects.get(&ObjectRef::new(Kind::ConfigMap, namespace, name)) {
        Some(Resource::ConfigMap(map)) => Some(map),
        _ => None,
    }
}
