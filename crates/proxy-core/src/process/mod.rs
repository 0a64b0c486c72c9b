//! Life of a proxy's process: its own servers, the wait for a reason to end, the drain. It carries nothing; `workers` do.

mod servers;

use crate::admin::{Admin, Shutdown};
use crate::config::ListenersConfig;
use crate::workers::Workers;
use contract::Unsupported;
use runtime::drain::{Trigger, Watch};
use runtime::memory;
use runtime::signals::{self, Signal};
use std::future::Future;
use std::io;
use std::time::Duration;
use telemetry::http::Router;
use telemetry::logging;
use telemetry::metrics::{MetricsError, Recorder};
use telemetry::readiness::Readiness;
use tokio::sync::watch;

/// Time that the answer to a request for the end has to go out.
const ANSWER_GRACE: Duration = Duration::from_millis(100);

/// The process cannot start, or cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// One of the process's own ports or sockets.
    #[error("failed to bind to address {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
}

/// Raises the limit of open files to the hard limit and returns it; `None` for no limit. A failure is logged.
pub fn raise_nofile() -> Option<u64> {
    runtime::sys::raise_nofile().unwrap_or_else(|e| {
        tracing::warn!(error = %e, "failed to raise RLIMIT_NOFILE; connections share the limit as it is");
        runtime::sys::nofile()
    })
}

/// Logs the version, the configuration, and its settings that are not supported.
pub fn log_start(version: &str, configuration: &str, unsupported: &[Unsupported]) {
    tracing::info!(version, "configuration:\n{configuration}");
    for setting in unsupported {
        tracing::warn!("{setting}");
    }
}

/// The process of a proxy from its start to its end.
pub struct Process {
    program: &'static str,
    readiness: Readiness,
    recorder: Recorder,
    drain: Trigger,
    drain_deadline: Duration,
    shutdown: Shutdown,
    /// True once the admin interface has asked for the end.
    quit: watch::Receiver<bool>,
    /// To be set once the proxy has drained.
    drained: watch::Sender<bool>,
    /// Ends the process's own servers, after the drain.
    servers: Trigger,
}

/// Pause between two looks for memory of this thread that can go back to the kernel.
const COLLECT_EVERY: Duration = Duration::from_secs(1);

impl Process {
    /// Installs the recorder of metrics for `program`; `tag` is the label of `istio_build`.
    ///
    /// # Errors
    /// When the process has a recorder already.
    pub fn new(program: &'static str, tag: &str, drain_deadline: Duration) -> Result<Self, ProcessError> {
        let recorder = telemetry::metrics::install()?;
        telemetry::metrics::record_build(program, tag);
        // Two drains: that of connections, and, behind it, that of the process's own servers, which show the first one.
        let (shutdown, quit, drained) = Shutdown::channel();
        let (drain, _) = runtime::drain::channel();
        let (servers, _) = runtime::drain::channel();
        let readiness = Readiness::new();
        Ok(Self { program, readiness, recorder, drain, drain_deadline, shutdown, quit, drained, servers })
    }

    /// Readiness of the process; not ready while any of its tasks lasts.
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// A watch of the drain.
    pub fn drain(&self) -> Watch {
        self.drain.watch()
    }

    /// The admin pages that every proxy has.
    pub fn admin(&self, logging: logging::Handle) -> Admin {
        Admin { program: self.program, logging, shutdown: self.shutdown.clone(), drain_deadline: self.drain_deadline }
    }

    /// Binds the process's own ports and serves metrics, readiness and `admin` until the process has drained.
    ///
    /// # Errors
    /// When a port or socket cannot be bound.
    pub async fn serve_pages(&self, listeners: &ListenersConfig, admin: Router) -> Result<(), ProcessError> {
        servers::start(listeners, &self.recorder, &self.readiness, admin, &self.servers.watch()).await
    }

    /// Runs `serve` until it fails, a signal arrives or the admin interface asks for the end; then drains `workers`.
    /// Returns once connections have ended, or the deadline has passed.
    ///
    /// # Errors
    /// The error of `serve`, or that signals cannot be watched.
    pub async fn run<C, E>(&self, serve: impl Future<Output = Result<(), E>>, workers: &Workers<C>) -> Result<(), E>
    where
        C: Send + 'static,
        E: From<ProcessError>,
    {
        let mut quit = self.quit.clone();
        let result = tokio::select! {
            ended = serve => ended,
            signal = signals::shutdown() => signal.map(announce).map_err(|e| ProcessError::Signals(e).into()),
            _ = quit.wait_for(|asked| *asked) => {
                tracing::info!("asked to end by the admin interface");
                Ok(())
            }
            // This thread applies discovery; workloads may have been removed.
            never = memory::keep_collecting(COLLECT_EVERY) => match never {},
        };
        self.end(workers).await;
        result
    }

    /// Closes listeners, and waits for connections as long as the deadline allows.
    async fn end<C: Send + 'static>(&self, workers: &Workers<C>) {
        // Everything that accepts watches this: listeners of pods, the connection to the agent, the clients of the
        // control plane.
        self.drain.start(self.drain_deadline);
        let cut = tokio::select! {
            cut = workers.drain() => cut,
            // Somebody at a terminal does not want to wait for the deadline.
            () = second_interrupt() => 0,
        };
        // Istio's text, which users look for.
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "drain duration expired with pending connections, forcefully shutting down"
            );
        }
        // Before the servers end: `/quitquitquit` answers when this is set.
        self.drained.send_replace(true);
        if *self.quit.borrow() {
            // The client of the admin interface gets its answer before the process ends.
            self.servers.start(ANSWER_GRACE);
            self.servers.watch().expired().await;
        }
        tracing::info!("ended");
    }
}

fn announce(signal: Signal) {
    tracing::info!(signal = signal.name(), "draining");
}

/// Returns at a second Ctrl-C, which does not wait; a second SIGTERM does.
async fn second_interrupt() {
    while let Ok(signal) = signals::shutdown().await {
        if signal == Signal::Interrupt {
            return;
        }
    }
    // Signals cannot be watched: the deadline ends the drain.
    std::future::pending().await
}
