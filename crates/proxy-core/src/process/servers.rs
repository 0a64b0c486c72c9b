//! The process's own ports: metrics, readiness, admin. Their content is made elsewhere.

use super::ProcessError;
use crate::config::ListenersConfig;
use runtime::drain::Watch;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use telemetry::http::{Router, Server};
use telemetry::metrics::Recorder;
use telemetry::readiness::Readiness;

/// Pause between two rounds of folding samples and counting descriptors.
const UPKEEP: Duration = Duration::from_secs(5);

/// Binds all of them, then serves until `end` has passed: also while connections drain, so that their end can be watched.
pub(super) async fn start(
    listeners: &ListenersConfig,
    recorder: &Recorder,
    readiness: &Readiness,
    admin: Router,
    end: &Watch,
) -> Result<(), ProcessError> {
    let metrics = Arc::new(recorder.routes(Router::new()));
    // Bound before anything else starts, so that a port in use ends the process at once, with its address.
    serve(tcp(listeners.metrics).await?, metrics, end);
    let ready = Arc::new(readiness.routes(Router::new()));
    serve(tcp(listeners.readiness).await?, ready, end);
    let pages = Arc::new(admin);
    serve(tcp(listeners.admin).await?, pages.clone(), end);
    if let Some(v6) = listeners.admin_v6() {
        serve(tcp(v6).await?, pages.clone(), end);
    }
    if let Some(dir) = &listeners.run_dir {
        let path = dir.join("admin.sock");
        let failed = |source| ProcessError::Bind { address: path.display().to_string(), source };
        // For tools on the node, which need no port-forward and no namespace.
        std::fs::create_dir_all(dir).map_err(failed)?;
        let socket = Server::unix(&path).map_err(failed)?;
        serve(socket, pages, end);
    }
    upkeep(recorder.clone());
    Ok(())
}

async fn tcp(address: SocketAddr) -> Result<Server, ProcessError> {
    Server::tcp(address).await.map_err(|source| ProcessError::Bind { address: address.to_string(), source })
}

fn serve(server: Server, router: Arc<Router>, end: &Watch) {
    tokio::spawn(server.serve(router, end.clone()));
}

fn upkeep(recorder: Recorder) {
    tokio::spawn(async move {
        // Samples of histograms are kept one by one until they are folded: without it they would grow with the traffic
        // until somebody reads the metrics.
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tick.tick().await;
            recorder.upkeep();
        }
    });
}
