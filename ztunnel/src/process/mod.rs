//! The node proxy from its start to its end: its parts, in the order in which they are made. It reads no environment
//! (`config` does) and carries nothing (`workers` do).

mod capabilities;
mod mode;

pub use capabilities::CapabilityError;

use crate::admin::{self, DumpSource};
use crate::config::{Config, Mode};
use crate::enrolment;
use crate::inpod::Status;
use crate::proxy::Shared;
use crate::proxy::resolve::Names;
use crate::workers::PodWorkers;
use proxy_core::budget::Budgets;
use proxy_core::discovery::{self, Discovery, Updates};
use proxy_core::process::{self, Process, ProcessError};
use std::sync::Arc;
use telemetry::logging;
use telemetry::readiness::Task;
use tokio::sync::watch;

/// Name of the program for control planes, in metrics, and of its threads.
const PROGRAM: &str = "ztunnel";

/// The proxy cannot start, or cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Certificates(#[from] discovery::SourceError),
    #[error(transparent)]
    Discovery(#[from] discovery::DiscoveryError),
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    #[error(transparent)]
    Listen(#[from] enrolment::StartError),
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
    /// A worker has panicked: its connections are gone, and its listeners accept no more.
    #[error("worker {0} has failed")]
    WorkerLost(usize),
    /// Something that runs beside the workers has panicked.
    #[error("{task} has failed: {error}")]
    TaskLost { task: &'static str, error: tokio::task::JoinError },
    /// The agent speaks another protocol.
    #[error(transparent)]
    Agent(#[from] zds::ZdsError),
}

/// Parts of the proxy.
struct Parts {
    config: Arc<Config>,
    /// Not ready before listeners may be opened.
    starting: Option<Task>,
    discovery: Discovery,
    workers: Arc<PodWorkers>,
    status: watch::Sender<Status>,
}

/// Runs until the process is asked to end and its connections have ended, or the deadline has passed.
pub async fn run(config: Config, logs: logging::Handle) -> Result<(), StartError> {
    let descriptors = process::raise_nofile();
    process::log_start(env!("CARGO_PKG_VERSION"), &config.to_yaml(), &config.unsupported);
    let common = &config.common;
    let process = Process::new(PROGRAM, common.node.istio_version(), common.drain_deadline)?;
    let budgets = Arc::new(Budgets::new(descriptors));
    let mut parts = build(&process, Arc::new(config), budgets, &logs).await?;
    // Kept here: after `serve` has ended, the threads still carry what is open until the drain is over.
    let workers = parts.workers.clone();
    let result = process.run(serve(&mut parts, &process), workers.threads()).await;
    logs.flush();
    result
}

async fn build(
    process: &Process,
    config: Arc<Config>,
    budgets: Arc<Budgets>,
    logs: &logging::Handle,
) -> Result<Parts, StartError> {
    let (common, readiness) = (&config.common, process.readiness());
    let (status, pods) = watch::channel(Status::default());
    // Only a shared proxy gets certificates of workloads other than its own.
    let updates = Updates::from_config(common, config.traffic.mode == Mode::Shared)?;
    let (state, certificates) = (updates.state.clone(), updates.certificates.clone());
    let source = DumpSource { config: config.clone(), state: state.clone(), certificates: certificates.clone(), pods };
    // Registered before the readiness page is served: a proxy without tasks counts as ready.
    let (manager, starting) = (readiness.task("state manager"), Some(readiness.task("proxy")));
    // Before discovery: while the proxy waits for its control plane, these pages are how an operator sees that it does.
    process.serve_pages(&common.listeners, admin::router(process.admin(logs.clone()), source)).await?;
    let (policies, lookups) = (updates.policies.clone(), updates.lookups.clone());
    let discovery = discovery::start(PROGRAM, common, updates, manager, process.drain()).await?;

    let shared = Arc::new(Shared {
        state,
        certificates,
        policies,
        lookups,
        names: Names::system(),
        tunnels: (&common.tunnels).into(),
        pool_limits: (&common.tunnels).into(),
        budgets,
        drain: process.drain(),
        localhost_app_tunnel: config.traffic.localhost_app_tunnel,
        connect_retries: config.traffic.connect_retries,
        response_baggage: config.traffic.response_baggage,
    });
    let workers = Arc::new(PodWorkers::start(common.worker_threads, &shared).map_err(StartError::Worker)?);
    let probed = workers.clone();
    // A thread that is stuck takes the proxy out of service: its pods' connections would wait without end.
    readiness.probe("workers", move || {
        let workers = probed.clone();
        async move { workers.threads().answer().await }
    });
    Ok(Parts { config, starting, discovery, workers, status })
}

/// Opens listeners once the mesh is known, and serves; ends only with an error.
async fn serve(parts: &mut Parts, process: &Process) -> Result<(), StartError> {
    // No listener before the first complete picture of the mesh: nothing is decided on half of it.
    let mut synced = parts.discovery.synced();
    let Parts { config, workers, status, starting, discovery, .. } = parts;
    let proxy = async {
        discovery::reached(&mut synced).await;
        let agent = mode::start(config, workers, process, status).await?;
        // Ready only when listeners are open or the agent can ask for them.
        *starting = None;
        tracing::info!(workers = workers.threads().count(), "proxy started");
        match agent {
            Some(task) => task
                .await
                .map_err(|error| StartError::TaskLost { task: "the pods' manager", error })?
                .map_err(StartError::Agent),
            None => std::future::pending().await,
        }
    };
    // A part that has panicked ends the process, instead of failing for those who need it later.
    tokio::select! {
        ended = proxy => ended,
        error = discovery.failed() => Err(StartError::TaskLost { task: "discovery", error }),
        index = workers.threads().lost() => Err(StartError::WorkerLost(index)),
    }
}
