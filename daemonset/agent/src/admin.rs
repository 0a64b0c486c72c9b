//! Health, metrics and `GET /pods`, over TCP and over a unix socket in the run directory.

use std::io;
use std::sync::Arc;

use contract::admin::agent::PodState;
use runtime::drain::Watch;
use telemetry::http::{Router, Server, json, text};
use telemetry::metrics::Recorder;
use telemetry::readiness::Readiness;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::metrics;
use crate::report::Reports;

/// Every state, for the gauge.
const STATES: [PodState; 8] = [
    PodState::Unknown,
    PodState::NotSelected,
    PodState::Enrolling,
    PodState::Enrolled,
    PodState::Leaving,
    PodState::Failed,
    PodState::Unverified,
    PodState::Broken,
];

/// Binds all addresses and serves them as long as the agent runs: none of the tasks ends before it.
///
/// # Errors
/// When an address cannot be bound.
pub async fn serve(
    config: &Config,
    recorder: &Recorder,
    readiness: &Readiness,
    reports: &Reports,
    drain: &Watch,
) -> io::Result<JoinSet<()>> {
    let node: Arc<str> = config.node.as_str().into();
    let pods = |router: Router| {
        let (node, reports) = (node.clone(), reports.clone());
        router.get("/pods", move |_| std::future::ready(json(200, &reports.node(&node))))
    };
    let monitoring = pods(recorder.routes(Router::new()));
    // The kubelet's port answers nothing but health: whoever reaches it does not see the pods.
    let health_only = health(Router::new(), readiness);
    let everything = health(pods(recorder.routes(Router::new())), readiness);
    // For the socket: `/run` is empty after a boot.
    std::fs::create_dir_all(&config.run_dir)?;
    let mut serving = JoinSet::new();
    for (server, router) in [
        (Server::tcp(config.monitoring_address).await?, monitoring),
        (Server::tcp(config.health_address).await?, health_only),
        (Server::unix(&config.run_dir.join("admin.sock"))?, everything),
    ] {
        serving.spawn(server.serve(Arc::new(router), drain.clone()));
    }
    Ok(serving)
}

/// `/healthz`: the process answers. `/readyz`: it also knows its pods and takes proxies.
fn health(router: Router, readiness: &Readiness) -> Router {
    let readiness = readiness.clone();
    router.get("/healthz", |_| std::future::ready(text(200, "ok\n"))).get("/readyz", move |_| {
        let readiness = readiness.clone();
        async move {
            match readiness.pending().await.as_slice() {
                [] => text(200, "ready\n"),
                pending => text(503, format!("not ready: {}\n", pending.join(", "))),
            }
        }
    })
}

/// Sets the gauges that are looked up rather than counted.
pub fn refresh(reports: &Reports) {
    for state in STATES {
        metrics::pods(state.as_str(), reports.count(state));
    }
}
