//! The running agent: builds the node, watches the cluster, and ends when it is asked to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ebpf_loader::{LoadError, Steering};
use graph::enrolment::Enablement;
use kube_cluster::{ConfigError, ConnectError};
use kube_types::{Event, Severity, Source};
use manifests::SourceError;
use runtime::drain;
use runtime::sys::Netns;
use telemetry::metrics::Recorder;
use telemetry::readiness::Readiness;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::interval;
use zds::server::Server;

use crate::cgroups::CgroupTree;
use crate::cni::{RequestHandler, Requests};
use crate::config::Config;
use crate::controller::{Controller, TaskContext};
use crate::described::described;
use crate::enrol::{Goal, Node as _, StepError, Timing, unenrol_now};
use crate::finder::Finder;
use crate::install::{InstallError, Installation, Installer};
use crate::node::LiveNode;
use crate::pod::LocalPod;
use crate::pod_settings::PodSettings;
use crate::proxies::Proxies;
use crate::report::Reports;
use crate::source::Objects;
use crate::surveys::Surveys;
use crate::sysctl::PreviousValues;
use crate::takeover::TakenOver;
use crate::{admin, cni, install, locals, metrics, prober, proxies, taint, takeover};

/// Pause between two reads of gauges and of the kernel's counters.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// Error that ends the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Config(#[from] runtime::Problems),
    #[error("cannot {action} {}: {source}", .path.display())]
    Path { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot serve health and metrics: {0}")]
    Admin(#[source] io::Error),
    #[error("health, metrics or CNI plugins are no longer served")]
    AdminEnded,
    #[error(transparent)]
    Unsupported(#[from] ebpf_loader::probe::Unsupported),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Cluster(#[from] ConfigError),
    #[error("the cluster's objects are no longer read")]
    SourceEnded,
    #[error("signals cannot be received: {0}")]
    Signals(#[source] io::Error),
    #[error("a task panicked: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("cannot take a pod out of the mesh: {0}")]
    Step(#[from] StepError),
    #[error("the CNI plugin is no longer kept installed")]
    InstallerEnded,
    #[error("cannot remove the CNI plugin: {0}")]
    Plugin(#[from] InstallError),
}

/// Runs until SIGTERM or SIGINT. Pods stay enrolled then, unless `--cleanup-on-exit`.
///
/// # Errors
/// All of [`AgentError`]; what is in the kernel stays.
pub async fn run(config: Config, recorder: Recorder) -> Result<(), AgentError> {
    config.check()?;
    // First, so that a signal during a slow start ends the agent in order.
    let shutdown = tokio::spawn(runtime::signals::shutdown());
    let (_trigger, drain) = drain::channel();
    let (readiness, reports) = (Readiness::new(), Reports::default());
    // Held until the end of the start: it makes `/readyz` fail with this reason.
    let starting = readiness.task("pods are not known yet");
    let mut serving =
        admin::serve(&config, &recorder, &readiness, &reports, &drain).await.map_err(AgentError::Admin)?;
    // Early, though nobody is answered before the pods are known: a plugin that asks meanwhile waits instead of failing.
    let mut requests = serve_plugins(&config, &reports, &drain, &mut serving)?;

    // Before anything is loaded, so that an agent that ends for want of a feature has told of it.
    reports.set_kernel(tokio::task::spawn_blocking(ebpf_loader::probe::features).await?);
    let objects = Objects::new(&config).await?;
    let (node, server) = build(&config, &objects).await?;
    let mut source = objects.source(&config.node)?;
    let reader = source.health();
    // Also in a cluster: the source there says whether its watches are open.
    readiness.probe("manifest reader", move || std::future::ready(reader.is_well()));
    let mut controller = Controller::new(&config.node, enablement(&config), settings(&config));
    let mut problems = Problems::default();
    // Nothing is changed in the kernel before all pods are known: a stale entry could not be told from that of a pod
    // that has not been read yet.
    until_in_sync(&mut source, &mut controller, &mut problems).await?;
    // Before proxies are accepted: a proxy drains every pod that the first snapshot does not name.
    let TakenOver { steered, swept } = takeover::take_over(&node, controller.goals().collect()).await;
    let context = TaskContext {
        node: Arc::new(node.clone()),
        reports: reports.clone(),
        timing: Timing { unenrol_grace: config.unenrol_grace, ..Timing::default() },
        node_changes: node.registry.changes(),
    };
    controller.start(context, &steered);
    // Tasks hold the namespaces that are in use; a copy here would keep them open after their pods have gone.
    drop(steered);
    let search =
        prober::Search { tree: tree(&config)?, configured: config.prober_cgroup.clone(), host: host_netns(&config)? };
    let probing = tokio::spawn(prober::keep_tagged(search, node.clone()));
    let accepting = tokio::spawn(proxies::accept(server, node.proxies.clone(), node.steering.clone()));
    let ageing = tokio::spawn(locals::keep_young(node.steering.clone()));
    // Only now: from here on every request of the plugin can be answered.
    let installer = install::start(&config, objects.server(), &readiness);
    let tainting = start_tainting(&config, &objects, &readiness, &node);
    let mut tasks = Tasks { serving, probing, accepting, ageing, installer, tainting, shutdown, swept };
    drop(starting);
    tracing::info!(node = config.node, "ready");

    let ended = work(&mut source, &mut controller, (&mut problems, &mut requests), &mut tasks, (&node, &reports)).await;
    // Aborted before `clear`: it would tag a cgroup anew.
    tasks.probing.abort();
    tasks.ageing.abort();
    tasks.tainting.abort();
    if let Some(installer) = tasks.installer.take() {
        // Stopped before the plugin is removed, or it would write the configuration once more.
        installer.stop().await;
    }
    // A plugin that cannot be removed keeps no pod in the mesh: the error is for the end.
    let removed = install::remove_if_uninstalled(&config, objects.server()).await;
    // Without goals every task ends and leaves its pod as it is.
    // Before `ended?`: an agent that ends by an error must not leave tasks that change the kernel.
    let goals = controller.stop().await;
    ended?;
    if config.cleanup_on_exit || is_uninstalled(&config, &objects).await {
        clear(&config, &node, goals).await?;
    } else {
        tracing::info!("pods stay enrolled");
    }
    Ok(removed?)
}

/// Returns true if the user uninstalls the mesh. What cannot be read is no decision of the user.
async fn is_uninstalled(config: &Config, objects: &Objects) -> bool {
    match objects.is_uninstalled(&config.system_namespace).await {
        Ok(is_uninstalled) => is_uninstalled,
        Err(error) => {
            tracing::warn!(%error, code = "uninstall_unknown", "failed to read whether the mesh is uninstalled");
            false
        }
    }
}

/// Tasks beside the pods' tasks. All of them run as long as the agent: one that ends early ends the agent, which is
/// restarted, whereas without it the agent would only look alive.
struct Tasks {
    serving: JoinSet<()>,
    probing: JoinHandle<Infallible>,
    accepting: JoinHandle<Infallible>,
    ageing: JoinHandle<Infallible>,
    /// `None`: the plugin is not installed.
    installer: Option<Installer>,
    tainting: JoinHandle<Infallible>,
    shutdown: JoinHandle<io::Result<runtime::signals::Signal>>,
    /// State that a predecessor left and no pod owns was removed.
    swept: bool,
}

/// Follows the cluster until a signal comes or something that the agent depends on ends.
async fn work(
    source: &mut Source,
    controller: &mut Controller<LiveNode>,
    (problems, requests): (&mut Problems, &mut Requests),
    tasks: &mut Tasks,
    (node, reports): (&LiveNode, &Reports),
) -> Result<(), AgentError> {
    let mut upkeep = interval(METRICS_INTERVAL);
    loop {
        // Every arm is cancel-safe: `Source::next` says so, the others are.
        tokio::select! {
            event = source.next() => {
                // Nothing would be enrolled or released any more, so the agent is restarted.
                let event = event.ok_or(AgentError::SourceEnded)?;
                problems.note(&event);
                // Before `note_change`: requests that wake up ask the controller.
                controller.apply(event);
                requests.note_change();
            }
            Some(enrol_request) = requests.queue.recv() => {
                // A plugin may have gone meanwhile; what its pod's task has been given stays.
                let decision = controller.handle_request(&enrol_request);
                let _: Result<(), cni::Decision> = enrol_request.answer.send(decision);
            }
            // `Infallible` has no value: such a task can end by a panic only, which `?` returns.
            ended = &mut tasks.accepting => match ended? {},
            ended = &mut tasks.probing => match ended? {},
            ended = &mut tasks.ageing => match ended? {},
            ended = &mut tasks.tainting => match ended? {},
            ended = install::ended(&mut tasks.installer) => {
                ended?;
                return Err(AgentError::InstallerEnded);
            }
            Some(ended) = tasks.serving.join_next() => {
                ended?;
                return Err(AgentError::AdminEnded);
            }
            signal = &mut tasks.shutdown => {
                let signal = signal?.map_err(AgentError::Signals)?;
                tracing::info!(signal = signal.name(), "shutting down");
                return Ok(());
            }
            _ = upkeep.tick() => {
                // Gauges are computed on a timer and not at each change: a node that starts has many changes in a
                // second.
                admin::refresh(reports);
                count_steering(&node.steering);
                // Pods may have gone, and an agent that has nothing to do would keep their memory.
                runtime::memory::collect();
                // At the start a pod could not be found, so its entry could not be told from a stale one.
                if !tasks.swept {
                    tasks.swept = takeover::sweep_when_found(node, controller.goals()).await;
                }
            }
        }
    }
}

fn start_tainting(
    config: &Config,
    objects: &Objects,
    readiness: &Readiness,
    node: &LiveNode,
) -> JoinHandle<Infallible> {
    let (taint, server) = (config.plugin.startup_taint.clone(), objects.server().cloned());
    let (name, readiness, registry) = (config.node.clone(), readiness.clone(), node.registry.clone());
    tokio::spawn(async move {
        match taint.zip(server) {
            Some((key, server)) => taint::keep_removed(server, name, key, readiness, registry).await,
            // A task that never ends stands for one that is not needed, so that `work` has one form.
            None => std::future::pending().await,
        }
    })
}

fn serve_plugins(
    config: &Config,
    reports: &Reports,
    drain: &drain::Watch,
    serving: &mut JoinSet<()>,
) -> Result<Requests, AgentError> {
    let directory = &config.cni_agent_run_dir;
    let (handler, requests) = RequestHandler::new(reports.clone(), host_netns(config)?.id());
    // Bound here and not in the task: a socket that cannot be made ends the start.
    let served = cni::serve(directory, handler, drain.clone());
    let failed = |source| AgentError::Path { action: "serve CNI plugins in", path: directory.clone(), source };
    serving.spawn(served.map_err(failed)?);
    Ok(requests)
}

fn count_steering(steering: &Steering) {
    match steering.stats() {
        Ok(stats) => stats.into_iter().for_each(|(counter, value)| metrics::steering(counter.name(), value)),
        Err(error) => {
            // Counted, because the gauges look healthy while they are not read.
            metrics::steering_unread();
            tracing::warn!(
                "failed to read the kernel programs' counters; the metrics keep old values: {}",
                described(&error)
            );
        }
    }
}

/// Loads or takes over the kernel programs and opens the proxies' socket; nobody is accepted yet.
async fn build(config: &Config, objects: &Objects) -> Result<(LiveNode, Server), AgentError> {
    let at = |action, path: &PathBuf| {
        let path = path.clone();
        move |source| AgentError::Path { action, path, source }
    };
    let host = host_netns(config)?;
    let tree = tree(config)?;
    let steering = open_steering(kernel_config(config)?).await?;
    let socket = &config.ztunnel_uds_address;
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory).map_err(at("make", &directory.to_owned()))?;
    }
    let server = Server::bind(socket).map_err(at("listen on", socket))?;
    let node = LiveNode {
        surveys: Surveys::of(steering.clone(), tree.clone()),
        steering,
        finder: Finder::new(tree.clone(), host.id()),
        registry: server.registry(),
        proxies: Proxies::new(tree),
        previous: PreviousValues::new(config.run_dir.join("settings")),
        status: objects.status(&config.node),
        prober: prober::Handle::default(),
    };
    Ok((node, server))
}

fn tree(config: &Config) -> Result<CgroupTree, AgentError> {
    let root = match &config.cgroup_root {
        Some(root) => root.clone(),
        None => runtime::sys::cgroup2_mount().map_err(|source| AgentError::Path {
            action: "find",
            path: "the cgroup v2 hierarchy".into(),
            source,
        })?,
    };
    Ok(CgroupTree::new(root))
}

fn host_netns(config: &Config) -> Result<Netns, AgentError> {
    let path = &config.host_netns;
    Netns::open(path).map_err(|source| AgentError::Path { action: "open", path: path.clone(), source })
}

fn kernel_config(config: &Config) -> Result<ebpf_loader::Config, AgentError> {
    let cookie = host_netns(config)?.cookie();
    let host_netns_cookie = cookie.map_err(|source| AgentError::Path {
        action: "read the cookie of",
        path: config.host_netns.clone(),
        source,
    })?;
    let cgroup_root = tree(config)?.root().to_owned();
    Ok(ebpf_loader::Config { cgroup_root, bpffs_dir: config.bpffs_dir.clone(), host_netns_cookie })
}

async fn open_steering(config: ebpf_loader::Config) -> Result<Arc<Steering>, AgentError> {
    let opened = tokio::task::spawn_blocking(move || -> Result<Steering, AgentError> {
        // An old kernel gets a message about itself, instead of an error of the first call that it does not know.
        ebpf_loader::probe::kernel()?;
        Ok(Steering::open(config)?)
    });
    let mut steering = opened.await??;
    // Not one of the `Tasks`: steering works without its log.
    if let Some(log) = steering.take_log() {
        tokio::spawn(async move {
            if let Err(error) = log.run().await {
                tracing::warn!(%error, "failed to read log lines of the kernel programs; no more are logged until the agent restarts");
            }
        });
    }
    Ok(Arc::new(steering))
}

fn enablement(config: &Config) -> Enablement {
    Enablement {
        excluded_namespaces: config.exclude_namespaces.clone(),
        system_namespace: config.system_namespace.clone(),
    }
}

/// Settings of pods that choose nothing else.
const fn settings(config: &Config) -> PodSettings {
    PodSettings { captures_dns: config.ambient_dns_capture, bypasses_inbound: false }
}

async fn until_in_sync(
    source: &mut Source,
    controller: &mut Controller<LiveNode>,
    problems: &mut Problems,
) -> Result<(), AgentError> {
    loop {
        let event = source.next().await.ok_or(AgentError::SourceEnded)?;
        problems.note(&event);
        // Not applied: the controller has no goals before `start`.
        if matches!(event, Event::InSync { .. }) {
            return Ok(());
        }
        controller.apply(event);
    }
}

/// Errors in manifests, which the agent only counts: the control plane explains them.
#[derive(Default)]
struct Problems(HashMap<PathBuf, usize>);

impl Problems {
    fn note(&mut self, event: &Event) {
        match event {
            // Warnings and notes take nothing out of force.
            Event::Problem(problem) if problem.severity != Severity::Error => return,
            Event::Problem(problem) => {
                *self.0.entry(problem.file.clone()).or_default() += 1;
                tracing::debug!("{problem}");
            }
            Event::Solved { file } => {
                self.0.remove(file);
            }
            Event::Applied { .. } | Event::Removed { .. } | Event::InSync { .. } => return,
        }
        metrics::source_problems(self.0.len());
    }
}

/// Takes every pod of the node out of the mesh, and then removes everything from the kernel. Proxied connections are cut.
///
/// # Errors
/// All of [`AgentError`]; what was not reached stays, and the next attempt continues there.
pub async fn uninstall(config: Config) -> Result<(), AgentError> {
    config.check()?;
    let pins = config.bpffs_dir.clone();
    // Programs of another layout would keep their hooks beside ours.
    // Before anything is loaded by `build`.
    let removed = tokio::task::spawn_blocking(move || ebpf_loader::remove_other_layouts(&pins)).await??;
    if removed > 0 {
        tracing::info!(layouts = removed, "removed pins of other versions");
    }
    // First: nobody would answer it while pods leave.
    if let Some(installation) = Installation::new(&config, false) {
        installation.uninstall()?;
    }
    // The proxies' socket is ours from here on and nobody is accepted: no proxy is told of pods meanwhile.
    let objects = Objects::new(&config).await?;
    let (node, _server) = build(&config, &objects).await?;
    let mut source = objects.source(&config.node)?;
    let mut controller = Controller::new(&config.node, enablement(&config), settings(&config));
    until_in_sync(&mut source, &mut controller, &mut Problems::default()).await?;
    // No task was started: it only returns the pods.
    let goals = controller.stop().await;
    clear(&config, &node, goals).await
}

/// Directories that are empty now. Those that are mounts, as of a lab or a container, stay, and so does what others put there.
fn remove_directories(config: &Config) {
    for directory in [config.run_dir.join("settings"), config.bpffs_dir.clone()] {
        // `remove_dir` refuses a directory that is not empty, so that nothing of others is lost.
        if let Err(error) = std::fs::remove_dir(&directory) {
            tracing::debug!(directory = %directory.display(), %error, "directory stays");
        }
    }
}

fn unfound(pod: &LocalPod, error: &StepError) {
    tracing::warn!(pod = pod.key.path(), %error, "failed to find an enrolled pod; its rules stay until the pod is deleted");
}

async fn clear(config: &Config, node: &LiveNode, goals: Vec<Goal>) -> Result<(), AgentError> {
    let TakenOver { steered, .. } = takeover::take_over(node, goals.clone()).await;
    for Goal { pod, annotated, .. } in goals {
        let pod_netns = match steered.get(&pod.uid) {
            Some(pod_netns) => Some(pod_netns.clone()),
            // Announced, and this version has no entry of it: another one enrolled it, whose rules may be there.
            None if annotated.is_some() => node.locate(&pod).await.inspect_err(|error| unfound(&pod, error)).ok(),
            None => None,
        };
        // Pods first: which of them have rules and links is known from the maps, which are unloaded below.
        // An error ends it: the programs stay loaded, and the next attempt still finds this pod in the maps.
        unenrol_now(node, &pod, pod_netns, annotated).await?;
    }
    let steered = kernel_config(config)?;
    let unloaded = tokio::task::spawn_blocking(move || Steering::open(steered)?.unload());
    unloaded.await??;
    let socket_removed = std::fs::remove_file(&config.ztunnel_uds_address).is_ok();
    remove_directories(config);
    tracing::info!(socket_removed, "removed everything of the mesh from the node");
    Ok(())
}
