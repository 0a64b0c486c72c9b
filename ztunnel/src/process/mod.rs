//! The process from start to end: what is made in which order, and how it is brought down.
//! It reads no environment (`config` has) and carries nothing (`workers` do).

mod capabilities;
mod mode;
mod servers;

pub use capabilities::CapabilityError;

use crate::admin::{Admin, Shutdown};
use crate::budget::Budgets;
use crate::config::Config;
use crate::discovery::{self, Discovery};
use crate::enrolment;
use crate::inpod::Status;
use crate::proxy::Shared;
use crate::proxy::resolve::Names;
use crate::workers::Workers;
use ca_client::CertificateManager;
use hbone::Settings;
use hbone::pool::Limits;
use model::{State, StateConfig};
use policy::ConnectionRegistry;
use runtime::drain::{Trigger, Watch};
use runtime::signals::{self, Signal};
use std::sync::Arc;
use std::time::Duration;
use telemetry::logging;
use telemetry::readiness::{Readiness, Task};
use tokio::sync::watch;

/// The proxy cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Certificates(#[from] discovery::SourceError),
    #[error(transparent)]
    Discovery(#[from] discovery::DiscoveryError),
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    #[error(transparent)]
    Listen(#[from] enrolment::StartError),
    #[error(transparent)]
    Metrics(#[from] telemetry::metrics::MetricsError),
    /// One of the process's own ports.
    #[error("failed to bind to address {address}: {source}")]
    Bind { address: String, source: std::io::Error },
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
    /// It has panicked: what it carried is gone, and what it listens for nobody takes.
    #[error("worker {0} has failed")]
    WorkerLost(usize),
    /// So has something that runs beside the workers.
    #[error("{task} has failed: {error}")]
    TaskLost { task: &'static str, error: tokio::task::JoinError },
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
    /// The agent speaks something else.
    #[error(transparent)]
    Agent(#[from] zds::ZdsError),
}

/// How long the answer to a request for the end may take to go out.
const ANSWER_GRACE: Duration = Duration::from_millis(100);

/// What the process is made of.
struct Parts {
    config: Arc<Config>,
    readiness: Readiness,
    /// Not ready before listeners may be opened.
    starting: Option<Task>,
    discovery: Discovery,
    workers: Arc<Workers>,
    status: watch::Sender<Status>,
    /// The admin interface asks for the end.
    quit: watch::Receiver<bool>,
    drained: watch::Sender<bool>,
    drain: Watch,
    /// Ends the process's own servers, after the drain.
    servers: Trigger,
}

/// Runs until the process is asked to end and its connections have, or the deadline has passed.
pub async fn run(config: Config, logs: logging::Handle) -> Result<(), StartError> {
    let descriptors = runtime::sys::raise_nofile().unwrap_or_else(|e| {
        tracing::warn!(error = %e, "failed to raise RLIMIT_NOFILE; connections share the limit as it is");
        runtime::sys::nofile()
    });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "configuration:\n{}", config.to_yaml());
    for setting in &config.unsupported {
        tracing::warn!("{setting}");
    }
    let (trigger, drain) = runtime::drain::channel();
    let budgets = Arc::new(Budgets::new(descriptors));
    let mut parts = build(Arc::new(config), budgets, &logs, drain).await?;
    let mut quit = parts.quit.clone();
    let result = tokio::select! {
        ended = serve(&mut parts) => ended,
        signal = signals::shutdown() => signal.map(announce).map_err(StartError::Signals),
        _ = quit.wait_for(|asked| *asked) => {
            tracing::info!("asked to end by the admin interface");
            Ok(())
        }
    };
    end(&parts, &trigger).await;
    logs.flush();
    result
}

async fn build(
    config: Arc<Config>,
    budgets: Arc<Budgets>,
    logs: &logging::Handle,
    drain: Watch,
) -> Result<Parts, StartError> {
    let recorder = telemetry::metrics::install()?;
    telemetry::metrics::record_build("ztunnel", config.node.istio_version());
    let readiness = Readiness::new();
    let (status, _) = watch::channel(Status::default());
    let network = config.node.network.as_str().into();
    let state = State::new(StateConfig { network, node: config.node.name.as_deref().map(Into::into) });
    let certificates = CertificateManager::spawn(discovery::certificate_source(&config)?);
    let policies = ConnectionRegistry::new(state.clone(), config.telemetry.policy_logging());

    let (shutdown, quit, drained) = Shutdown::channel();
    let admin = Admin {
        config: config.clone(),
        state: state.clone(),
        certificates: certificates.clone(),
        pods: status.subscribe(),
        logging: logs.clone(),
        shutdown,
    };
    let updates = discovery::updates(state.clone(), certificates.clone(), policies.clone());
    let (manager, starting) = (readiness.task("state manager"), Some(readiness.task("proxy")));
    let (servers, served) = runtime::drain::channel();
    servers::start(&config, &recorder, &readiness, admin, &served).await?;
    let discovery = discovery::start(&config, updates, manager, drain.clone()).await?;

    let shared = Arc::new(Shared {
        state,
        certificates,
        policies,
        names: Names::system(),
        tunnels: tunnels(&config),
        pool_limits: limits(&config),
        budgets,
        drain: drain.clone(),
        localhost_app_tunnel: config.traffic.localhost_app_tunnel,
        response_baggage: config.traffic.response_baggage,
    });
    let workers = Arc::new(Workers::start(config.worker_threads, &shared).map_err(StartError::Worker)?);
    let probed = workers.clone();
    readiness.probe("workers", move || {
        let workers = probed.clone();
        async move { workers.answer().await }
    });
    Ok(Parts { config, readiness, starting, discovery, workers, status, quit, drained, drain, servers })
}

/// Opens listeners once the mesh is known, and serves; ends only with an error.
async fn serve(parts: &mut Parts) -> Result<(), StartError> {
    // No listener before the first complete picture of the mesh: nothing is decided on half of it.
    let mut synced = parts.discovery.synced();
    let Parts { config, readiness, workers, status, drain, starting, discovery, .. } = parts;
    let proxy = async {
        discovery::reached(&mut synced).await;
        let agent = mode::start(config, workers, readiness, status, drain.clone()).await?;
        *starting = None;
        tracing::info!(workers = workers.count(), "proxy started");
        match agent {
            Some(task) => task
                .await
                .map_err(|error| StartError::TaskLost { task: "the pods' manager", error })?
                .map_err(StartError::Agent),
            None => std::future::pending().await,
        }
    };
    // A part that has died must not be found out by those who need it.
    tokio::select! {
        ended = proxy => ended,
        error = discovery.failed() => Err(StartError::TaskLost { task: "discovery", error }),
        index = workers.lost() => Err(StartError::WorkerLost(index)),
    }
}

/// Closes listeners, and waits for connections as long as the deadline allows.
async fn end(parts: &Parts, trigger: &Trigger) {
    trigger.start(parts.config.drain_deadline);
    let cut = tokio::select! {
        cut = parts.workers.drain() => cut,
        () = second_interrupt() => 0,
    };
    if cut > 0 {
        tracing::warn!(connections = cut, "drain duration expired with pending connections, forcefully shutting down");
    }
    parts.drained.send_replace(true);
    if *parts.quit.borrow() {
        // Whoever asked by the admin interface hears that it is done.
        parts.servers.start(ANSWER_GRACE);
        parts.servers.watch().expired().await;
    }
    tracing::info!("ended");
}

fn announce(signal: Signal) {
    tracing::info!(signal = signal.name(), "draining");
}

/// A second Ctrl-C does not wait; a second SIGTERM does.
async fn second_interrupt() {
    while let Ok(signal) = signals::shutdown().await {
        if signal == Signal::Interrupt {
            return;
        }
    }
    std::future::pending().await
}

fn limits(config: &Config) -> Limits {
    Limits { streams: usize::from(config.tunnels.max_streams_per_tunnel), idle: config.tunnels.unused_release_timeout }
}

fn tunnels(config: &Config) -> Settings {
    Settings {
        stream_window_bytes: config.tunnels.stream_window_bytes,
        connection_window_bytes: config.tunnels.connection_window_bytes,
        frame_bytes: config.tunnels.frame_bytes,
        initial_streams: usize::from(config.tunnels.max_streams_per_tunnel),
        ..Settings::default()
    }
}
