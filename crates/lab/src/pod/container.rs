//! One container: started, probed, started again when it ends, ended with its grace period.

use std::{
    fs::{File, OpenOptions},
    future,
    io::{Read as _, Seek as _, SeekFrom},
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use kube_api::core::{Container, Probe};
use runtime::Backoff;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::AsyncReadExt as _,
    process::Child,
    select,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use super::{Setup, environment, files, probe, state::Shared, stopped};
use crate::{handle::exit_code, paths::kill_cgroup, process::enter::Entry};

/// Pauses before a container is started again: short, because tests wait for them.
const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);

/// A container that ran this long starts over with the shortest pause.
const STABLE: Duration = Duration::from_secs(10);

/// How long a container may take from its start to its command; mounts are all that happens.
const START_DEADLINE: Duration = Duration::from_secs(20);

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
        if *stop.borrow() {
            break;
        }
        if code.is_some_and(|code| policy.is_final(code)) {
            shared.container(index, |state| state.finished = true);
            return;
        }
        if began.elapsed() > STABLE {
            backoff.reset();
        }
        let pause = backoff.pause();
        select! {
            // Each is safe to drop: they only wait.
            () = async { sleep(pause).await; shared.restarts_allowed().await } => {}
            () = stopped(&mut stop) => break,
        }
        shared.container(index, |state| state.restarts += 1);
    }
    shared.container(index, |state| state.reason = "stopped".to_owned());
}

/// Whether a container that ended is started again.
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
        _ if initial.is_some() => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// Starts the command and waits until it has really begun.
async fn start(setup: &Setup, container: &Container) -> Result<Child, String> {
    let env = environment::environment(container, &setup.facts())?;
    let binds = files::binds(&setup.dir(), &setup.pod, container).map_err(|err| err.to_string())?;
    let entry = Entry {
        cgroup: setup.cgroup().join(&container.name),
        netns: Some(setup.netns_path()),
        hostname: Some(files::hostname(&setup.pod).to_owned()),
        binds,
        scratch: setup.dir().join("scratch"),
        report: true,
        argv: environment::command_line(container, &env),
        directory: container.working_dir.as_ref().map(Into::into),
        user: setup.user(container),
        group: setup.group(container),
        env,
        ..Entry::default()
    };
    let spawn = || {
        let (read, write) = std::io::pipe()?;
        let meta = &setup.pod.metadata;
        let log = setup.context.run.log(&meta.namespace, &meta.name, &container.name);
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = entry.command(&setup.context.program)?;
        command.stdin(OwnedFd::from(write)).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        std::io::Result::Ok((command.spawn()?, tokio::fs::File::from_std(OwnedFd::from(read).into())))
    };
    let (mut child, mut report) = spawn().map_err(|err| err.to_string())?;
    let mut message = String::new();
    match timeout(START_DEADLINE, report.read_to_string(&mut message)).await {
        Ok(Ok(0)) => Ok(child),
        outcome => {
            // It ends by itself or is killed when it is dropped.
            let _ = child.start_kill();
            let _ = child.wait().await;
            Err(if outcome.is_err() { format!("did not start within {START_DEADLINE:?}") } else { message })
        }
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
    let (mut probes, liveness) = watch_over(setup, index, container, shared, pid);
    shared.container(index, |state| {
        state.pid = Some(pid);
        state.probe = container.readiness_probe.is_some().then_some(false);
        state.reason =
            if state.probe.is_some() { "its readiness probe has not passed".to_owned() } else { String::new() };
    });
    let mut dead = String::new();
    let status = select! {
        // Each is safe to drop: they only wait.
        status = child.wait() => status.ok(),
        reason = liveness => {
            dead = format!(" (its liveness probe failed: {reason})");
            terminate(&mut child, pid, setup.grace()).await
        }
        () = stopped(stop) => terminate(&mut child, pid, setup.grace()).await,
    };
    probes.abort_all();
    if let Err(err) = kill_cgroup(&setup.cgroup().join(&container.name)) {
        tracing::warn!(container = container.name, %err, "what the container left was not killed");
    }
    let code = status.map(exit_code);
    let meta = &setup.pod.metadata;
    let words = last_line(&setup.context.run.log(&meta.namespace, &meta.name, &container.name));
    shared.container(index, |state| {
        state.pid = None;
        state.probe = None;
        state.last_exit = code;
        state.reason = format!("ended with {}{dead}{words}", code.unwrap_or(-1));
    });
    code
}

/// SIGTERM, and SIGKILL when the grace period is over.
async fn terminate(child: &mut Child, pid: u32, grace: Duration) -> Option<std::process::ExitStatus> {
    send(pid, Signal::TERM);
    if let Ok(status) = timeout(grace, child.wait()).await {
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

/// Starts the probes of a container. The future ends with the reason when the container must be
/// killed; the set ends everything when it is dropped.
fn watch_over(
    setup: &Arc<Setup>,
    index: usize,
    container: &Container,
    shared: &Shared,
    pid: u32,
) -> (JoinSet<()>, impl Future<Output = String> + use<>) {
    let mut tasks = JoinSet::new();
    let (killed, kill) = tokio::sync::oneshot::channel();
    let plan = |probe: &Option<Probe>| {
        let address = setup.ips.first().copied()?;
        Some(probe::Plan::read(probe.as_ref()?, container, address))
    };
    let plans = (plan(&container.startup_probe), plan(&container.readiness_probe), plan(&container.liveness_probe));
    let (setup, shared, container) = (Arc::clone(setup), shared.clone(), container.clone());
    let _owned_by_the_set: AbortHandle = tasks.spawn(async move {
        let inside = Inside { setup: Arc::clone(&setup), container, pid };
        let reason = probes(plans, &inside, index, &shared).await;
        // The receiver is gone when the container ended by itself.
        let _ = killed.send(reason);
    });
    let fatal = async move {
        match kill.await {
            Ok(reason) => reason,
            Err(_) => future::pending().await,
        }
    };
    (tasks, fatal)
}

type Planned = Option<Result<probe::Plan, String>>;

/// Runs a container's probes; returns when it has to be killed, with the reason.
async fn probes(
    (startup, readiness, liveness): (Planned, Planned, Planned),
    inside: &Inside,
    index: usize,
    shared: &Shared,
) -> String {
    let tell = |ready: bool, reason: String| {
        shared.container(index, |state| {
            state.probe = Some(ready);
            state.reason = if ready { String::new() } else { format!("its readiness probe fails: {reason}") };
        });
    };
    let prober = &inside.setup.prober;
    match startup {
        Some(Ok(plan)) => {
            if let Err(reason) = probe::startup(&plan, prober, inside).await {
                return reason;
            }
        }
        Some(Err(reason)) => return reason,
        None => {}
    }
    let ready = async {
        match &readiness {
            Some(Ok(plan)) => probe::readiness(plan, prober, inside, tell).await,
            Some(Err(reason)) => tell(false, reason.clone()),
            None => {}
        }
        future::pending::<()>().await;
    };
    let alive = async {
        match &liveness {
            Some(Ok(plan)) => probe::liveness(plan, prober, inside).await,
            Some(Err(reason)) => reason.clone(),
            None => future::pending().await,
        }
    };
    select! {
        // Both only wait and report.
        () = ready => future::pending().await,
        reason = alive => reason,
    }
}

/// Runs the commands of exec probes.
struct Inside {
    setup: Arc<Setup>,
    container: Container,
    pid: u32,
}

impl probe::RunInside for Inside {
    async fn run(&self, argv: &[String]) -> Result<(), String> {
        let entry = self.setup.exec(&self.container, self.pid, argv.to_vec())?;
        let mut command = entry.command(&self.setup.context.program).map_err(|err| err.to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        match command.status().await.map(exit_code) {
            Ok(0) => Ok(()),
            Ok(code) => Err(format!("the command ended with {code}")),
            Err(err) => Err(err.to_string()),
        }
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
