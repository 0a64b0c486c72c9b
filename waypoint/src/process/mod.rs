//! The waypoint from its start to its end: its parts, in the order in which they are made. It reads no environment (`config`
//! does) and carries nothing (`workers` do).

use std::sync::Arc;

use ca_client::CertificateManager;
use jwt::KeyStore;
use model::State;
use proxy_core::budget::{Budgets, Usage};
use proxy_core::discovery::{self, Discovery, Updates};
use proxy_core::process::{self, Process, ProcessError};
use telemetry::http::json;
use telemetry::logging;
use telemetry::readiness::Task;
use waypoint_config::Handle;

use crate::config::Config;
use crate::context::Shared;
use crate::dump::DumpSource;
use crate::keys::HttpFetcher;
use crate::report::AccessLog;
use crate::workers::WaypointWorkers;

/// Name of the program for control planes, in metrics, and of its threads.
const PROGRAM: &str = "waypoint";

/// The waypoint cannot start, or cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Certificates(#[from] discovery::SourceError),
    #[error(transparent)]
    Discovery(#[from] discovery::DiscoveryError),
    #[error("failed to listen for tunnels on {address}: {source}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
    /// A worker has panicked: its connections are gone, and its listener accepts no more.
    #[error("worker {0} has failed")]
    WorkerLost(usize),
    /// Discovery has panicked.
    #[error("discovery has failed: {0}")]
    DiscoveryLost(tokio::task::JoinError),
}

/// Parts of the waypoint.
struct Parts {
    config: Arc<Config>,
    /// Not ready before tunnels are accepted.
    starting: Option<Task>,
    discovery: Discovery,
    workers: Arc<WaypointWorkers>,
}

/// Runs until the process is asked to end and its connections have ended, or the deadline has passed.
pub async fn run(config: Config, logs: logging::Handle) -> Result<(), StartError> {
    let descriptors = process::raise_nofile();
    process::log_start(env!("CARGO_PKG_VERSION"), &config.to_yaml(), &config.unsupported);
    let common = &config.common;
    let process = Process::new(PROGRAM, common.node.istio_version(), common.drain_deadline)?;
    let budgets = Arc::new(Budgets::new(descriptors));
    let mut parts = build(&process, Arc::new(config), budgets, &logs).await?;
    let workers = parts.workers.clone();
    let result = process.run(serve(&mut parts), workers.threads()).await;
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
    let updates = Updates::from_config(common, false)?;
    let (state, certificates) = (updates.state.clone(), updates.certificates.clone());
    // Registered before the readiness page is served: a proxy without tasks counts as ready.
    let (manager, starting) = (readiness.task("state manager"), Some(readiness.task("waypoint")));
    let source = DumpSource { config: config.clone(), state: state.clone(), certificates: certificates.clone() };
    let admin = process.admin(logs.clone()).router(move || json(200, &source.dump()));
    process.serve_pages(&common.listeners, admin).await?;
    let routes = Handle::default();
    let subscribe = |client| discovery::subscribe_waypoint(client, routes.clone());
    let discovery = discovery::start_with(PROGRAM, common, updates, manager, process.drain(), subscribe).await?;
    certificates.prefetch(&config.traffic.identity);
    let shared = Shared { config: routes, ..shared(&config, process, budgets, (state, certificates), logs) };
    let shared = Arc::new(shared);
    let workers = Arc::new(WaypointWorkers::start(common.worker_threads, &shared).map_err(StartError::Worker)?);
    let probed = workers.clone();
    readiness.probe("workers", move || {
        let workers = probed.clone();
        async move { workers.threads().answer().await }
    });
    Ok(Parts { config, starting, discovery, workers })
}

fn shared(
    config: &Config,
    process: &Process,
    budgets: Arc<Budgets>,
    (state, certificates): (State, CertificateManager),
    logs: &logging::Handle,
) -> Shared {
    let node = &config.common.node;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let lines = logs.clone();
    Shared {
        identity: config.traffic.identity.clone(),
        state,
        certificates,
        tunnels: (&config.common.tunnels).into(),
        pool_limits: (&config.common.tunnels).into(),
        budgets,
        usage: Arc::new(Usage::new(text(&node.pod_namespace), text(&node.pod_name))),
        drain: process.drain(),
        config: Handle::default(),
        keys: KeyStore::new(Arc::new(HttpFetcher::default()), tokio::runtime::Handle::current()),
        access_log: config.traffic.access_log.then(|| AccessLog::new(move |line| lines.write_line(line))),
    }
}

/// Accepts tunnels once the mesh is known, and serves; ends only with an error.
async fn serve(parts: &mut Parts) -> Result<(), StartError> {
    // No tunnel before the first complete picture of the mesh: nothing is decided on half of it.
    let mut synced = parts.discovery.synced();
    let Parts { config, workers, starting, discovery, .. } = parts;
    let address = config.traffic.listen;
    let proxy = async {
        discovery::reached(&mut synced).await;
        workers.listen(address).await.map_err(|source| StartError::Listen { address, source })?;
        *starting = None;
        tracing::info!(workers = workers.threads().count(), "waypoint started");
        std::future::pending().await
    };
    tokio::select! {
        ended = proxy => ended,
        error = discovery.failed() => Err(StartError::DiscoveryLost(error)),
        index = workers.threads().lost() => Err(StartError::WorkerLost(index)),
    }
}
