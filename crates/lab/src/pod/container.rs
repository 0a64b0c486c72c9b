//! One container: started, watched, started again when it ends, ended with its grace period.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    sync::Arc,
    time::Duration,
};

use kube_types::core::Container;
use runtime::Backoff;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::Child,
    select,
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    Setup,
    lifecycle::{pre_stop, watch_over},
    start::start,
    state::Shared,
    stopped,
};
use crate::{handle::exit_code, paths::kill_cgroup};

/// Pauses before a container is started again: short, because tests wait for them.
const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);

/// A container that ran this long starts over with the shortest pause.
const STABLE: Duration = Duration::from_secs(10);

/// Time of a container between SIGTERM and SIGKILL when its `preStop` hook took all of the grace period.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// Most bytes of a log that are looked at for its last line.
const LAST_LINE_BYTES: u64 = 300;

/// Runs a container until it has ended for good or `stop` turns true. `index` counts init containers first.
pub(crate) async fn run(setup: Arc<Setup>, index: usize, shared: Shared, mut stop: watch::Receiver<bool>) {
    let spec = &setup.pod.spec;
    let Some(container) = spec.init_containers.iter().chain(&spec.containers).nth(index) else { return };
    let policy = restart_policy(&setup, index);
    let mut backoff = Backoff::new(RESTART_MIN, RESTART_MAX);
    while !*stop.borrow() {
        let began = Instant::now();
        let code = match start(&setup, container).await {
            Ok(child) => live(&setup, index, container, &shared, child, &mut stop).await,
            Err(reason) => {
                shared.container(index, |state| state.reason = reason);
                None
            }
        };
        // A container that was told to stop has not failed and is not counted as restarted.
        if *stop.borrow() {
            break;
        }
        if code.is_some_and(|code| policy.is_final(code)) {
            shared.container(index, |state| state.finished = true);
            return;
        }
        // As kubelet does, but after a shorter time: a container that ran for a while is not in a crash loop.
        if began.elapsed() > STABLE {
            backoff.reset();
        }
        let pause = backoff.pause();
        select! {
            // Each is safe to drop: they only wait.
            () = async { sleep(pause).await; shared.restarts_allowed().await } => {}
            () = stopped(&mut stop) => break,
        }
        // A command that never began was not ended either.
        if code.is_some() {
            shared.container(index, |state| state.restarts += 1);
        }
    }
    shared.container(index, |state| state.reason = "stopped".to_owned());
}

/// Returns true if a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    const fn is_final(self, code: i32) -> bool {
        match self {
            Self::Always => false,
            Self::OnFailure => code == 0,
            Self::Never => true,
        }
    }
}

fn restart_policy(setup: &Setup, index: usize) -> RestartPolicy {
    let spec = &setup.pod.spec;
    let initial = spec.init_containers.get(index);
    if initial.is_some_and(|container| container.restart_policy.as_deref() == Some("Always")) {
        return RestartPolicy::Always;
    }
    match spec.restart_policy.as_deref() {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        // An init container that succeeded has done its work, also in a pod that always restarts.
        _ if initial.is_some() => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// Watches over a container that runs; returns its exit code when it ended by itself or by a probe.
async fn live(
    setup: &Arc<Setup>,
    index: usize,
    container: &Container,
    shared: &Shared,
    mut child: Child,
    stop: &mut watch::Receiver<bool>,
) -> Option<i32> {
    let pid = child.id()?;
    let hook = container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
    shared.container(index, |state| {
        state.pid = Some(pid);
        state.started = false;
        state.probe = container.readiness_probe.is_some().then_some(false);
        state.reason = match (hook, container.startup_probe.is_some()) {
            (true, _) => "its postStart hook has not ended".to_owned(),
            (false, true) => "its startup probe has not passed".to_owned(),
            (false, false) => String::new(),
        };
    });
    // The state is written before the first probe runs, which changes it.
    let (mut probes, fatal) = watch_over(setup, index, container, shared, pid);
    let mut dead = String::new();
    let status = select! {
        // Each is safe to drop: they only wait.
        status = child.wait() => status.ok(),
        fatal = fatal => {
            dead = format!(" ({})", fatal.reason);
            terminate(setup, container, &mut child, pid, fatal.grace.unwrap_or_else(|| setup.grace())).await
        }
        () = stopped(stop) => terminate(setup, container, &mut child, pid, setup.grace()).await,
    };
    probes.abort_all();
    // Children of the main process would hold ports that the next run of the container needs.
    if let Err(err) = kill_cgroup(&setup.cgroup().join(&container.name)) {
        tracing::warn!(container = container.name, %err, "failed to kill the processes that a container left");
    }
    let code = status.map(exit_code);
    let words = last_line(&setup.log(container));
    shared.container(index, |state| {
        state.pid = None;
        state.started = false;
        state.probe = None;
        state.last_exit = code;
        state.reason = format!("exited with {}{dead}{words}", code.unwrap_or(-1));
    });
    code
}

/// The `preStop` hook, SIGTERM, and SIGKILL when the grace period is over.
async fn terminate(
    setup: &Arc<Setup>,
    container: &Container,
    child: &mut Child,
    pid: u32,
    grace: Duration,
) -> Option<std::process::ExitStatus> {
    // The hook runs while the process still works (`terminationGracePeriodSeconds` counts from here): it is where a
    // program takes itself out of use before it is told to end.
    let end = Instant::now() + grace;
    select! {
        // Both are safe to drop: they only wait.
        status = child.wait() => return status.ok(),
        () = pre_stop(setup, container, pid, grace) => {}
    }
    send(pid, Signal::TERM);
    // The hook's time counts, but never all of it: the process can always handle SIGTERM.
    let left = end.saturating_duration_since(Instant::now());
    let left = if left < LEAST_GRACE { left.max(grace.min(LEAST_GRACE)) } else { left };
    if let Ok(status) = timeout(left, child.wait()).await {
        return status.ok();
    }
    // An error means that it has just ended.
    let _ = child.start_kill();
    child.wait().await.ok()
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // An error means that it has just ended.
        let _ = kill_process(pid, signal);
    }
}

/// The last line of a log, as an addition to a reason.
fn last_line(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read().unwrap_or_default().lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!(", last words: {line}"),
        None => String::new(),
    }
}
