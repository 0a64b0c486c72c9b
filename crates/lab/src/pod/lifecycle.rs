//! Probes and hooks of a container that runs: its `postStart` hook, then its probes; and before its end its `preStop` hook.

use std::{future, sync::Arc, time::Duration};

use kube_types::core::{Container, LifecycleHandler, Probe};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Setup,
    probe::{self, Action, Plan, ProbeKind, Target},
    start::Inside,
    state::Shared,
};

/// Time limit of an `httpGet` hook; kubelet has none of its own.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Reason why a container has to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fatal {
    pub(super) reason: String,
    /// Its grace period where the probe has one of its own.
    pub(super) grace: Option<Duration>,
}

/// Starts the hook and the probes of a container. The future ends when the container must be ended; the set ends
/// everything when it is dropped.
pub(super) fn watch_over(
    setup: &Arc<Setup>,
    index: usize,
    container: &Container,
    shared: &Shared,
    pid: u32,
) -> (JoinSet<()>, impl Future<Output = Fatal> + use<>) {
    let mut tasks = JoinSet::new();
    let (killed, kill) = tokio::sync::oneshot::channel();
    let inside = Inside { setup: Arc::clone(setup), container: container.clone(), pid };
    let shared = shared.clone();
    tasks.spawn(async move {
        let fatal = run(&inside, index, &shared).await;
        // The receiver is gone when the container ended by itself.
        let _ = killed.send(fatal);
    });
    let fatal = async move {
        match kill.await {
            Ok(fatal) => fatal,
            Err(_) => future::pending().await,
        }
    };
    (tasks, fatal)
}

/// Returns when the container has to be ended.
async fn run(inside: &Inside, index: usize, shared: &Shared) -> Fatal {
    let container = &inside.container;
    // The order is kubelet's: the hook has to end before any probe is tried, and the startup probe has to pass before
    // the other two begin, so that a slow start is not taken for a container that hangs.
    if let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
        && let Err(reason) = run_hook(hook, inside).await
    {
        return Fatal { reason: format!("its postStart hook failed: {reason}"), grace: None };
    }
    if let Some(plan) = plan(ProbeKind::Startup, container.startup_probe.as_ref(), inside, index, shared) {
        let Ok(plan) = plan else { return future::pending().await };
        if let Err(reason) = probe::startup(&plan, &inside.setup.prober, inside).await {
            return Fatal { reason: format!("its {} failed: {reason}", ProbeKind::Startup), grace: plan.grace };
        }
    }
    shared.container(index, |state| {
        state.started = true;
        state.reason = match state.probe {
            Some(false) => format!("its {} has not passed", ProbeKind::Readiness),
            _ => String::new(),
        };
    });
    let ready = async {
        match plan(ProbeKind::Readiness, container.readiness_probe.as_ref(), inside, index, shared) {
            Some(Ok(plan)) => {
                let tell = |ready: bool, reason: String| {
                    shared.container(index, |state| {
                        state.probe = Some(ready);
                        let failing = || format!("its {} fails: {reason}", ProbeKind::Readiness);
                        state.reason = if ready { String::new() } else { failing() };
                    });
                };
                probe::readiness(&plan, &inside.setup.prober, inside, tell).await;
            }
            Some(Err(())) | None => future::pending().await,
        }
    };
    let alive = async {
        match plan(ProbeKind::Liveness, container.liveness_probe.as_ref(), inside, index, shared) {
            Some(Ok(plan)) => {
                let reason = probe::liveness(&plan, &inside.setup.prober, inside).await;
                Fatal { reason: format!("its {} failed: {reason}", ProbeKind::Liveness), grace: plan.grace }
            }
            Some(Err(())) | None => future::pending().await,
        }
    };
    tokio::select! {
        // Both only wait and report.
        () = ready => future::pending().await,
        fatal = alive => fatal,
    }
}

/// Reads a probe. One that cannot be tried is the container's reason and ends nothing: no restart would mend it.
fn plan(
    kind: ProbeKind,
    probe: Option<&Probe>,
    inside: &Inside,
    index: usize,
    shared: &Shared,
) -> Option<Result<Plan, ()>> {
    let address = inside.setup.ips.first().copied()?;
    let plan = Plan::read(probe?, &inside.container, address).map_err(|reason| {
        shared.container(index, |state| state.reason = format!("its {kind} cannot be tried: {reason}"));
    });
    Some(plan)
}

async fn run_hook(hook: &LifecycleHandler, inside: &Inside) -> Result<(), String> {
    if let Some(pause) = &hook.sleep {
        sleep(Duration::from_secs(pause.seconds)).await;
        return Ok(());
    }
    let action = match (&hook.exec, &hook.http_get) {
        (Some(exec), _) => Action::Exec(exec.command.clone()),
        (None, Some(get)) => {
            let address = inside.setup.ips.first().copied().ok_or("the pod has no address")?;
            Target { container: &inside.container, address }.http(get)?
        }
        // Kubernetes keeps `tcpSocket` for old manifests and does nothing for it.
        (None, None) => return Ok(()),
    };
    match &action {
        Action::Exec(argv) => probe::RunInside::run(inside, argv).await,
        Action::Network(_) => probe::attempt(&action, HOOK_TIMEOUT, &inside.setup.prober, inside).await,
    }
}

/// Runs the `preStop` hook, for at most the grace period. That it failed is logged and changes nothing.
pub(super) async fn pre_stop(setup: &Arc<Setup>, container: &Container, pid: u32, grace: Duration) {
    let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return };
    let inside = Inside { setup: Arc::clone(setup), container: container.clone(), pid };
    let outcome = match timeout(grace, run_hook(hook, &inside)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("it took longer than the grace period, {grace:?}")),
    };
    if let Err(reason) = outcome {
        let meta = &setup.pod.metadata;
        tracing::warn!(
            pod = format!("{}/{}", meta.namespace, meta.name),
            container = container.name,
            reason,
            "preStop hook failed"
        );
    }
}
