//! State of a running pod: written by its tasks, read by the supervisor.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::control::{ContainerInfo, Phase, Role};

/// One container as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerState {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Process id of the main process in the lab's pid namespace, while it runs.
    pub(crate) pid: Option<u32>,
    /// Its `postStart` hook and its startup probe have passed, where it has them.
    pub(crate) started: bool,
    /// Result of the readiness probe; `None` without one.
    pub(crate) probe: Option<bool>,
    pub(crate) restarts: u32,
    pub(crate) last_exit: Option<i32>,
    /// It will not be started again.
    pub(crate) finished: bool,
    /// Reason why it is not as it should be; empty when it is.
    pub(crate) reason: String,
}

impl ContainerState {
    pub(crate) fn ready(&self) -> bool {
        self.pid.is_some() && self.started && self.probe.unwrap_or(true)
    }

    /// Its code when it has ended for good, but not well.
    fn failed(&self) -> Option<i32> {
        self.last_exit.filter(|code| self.finished && *code != 0)
    }

    pub(crate) fn info(&self) -> ContainerInfo {
        ContainerInfo {
            name: self.name.clone(),
            role: self.role,
            running: self.pid.is_some(),
            ready: self.ready(),
            restarts: self.restarts,
            last_exit: self.last_exit,
            pid: None,
        }
    }
}

/// A pod as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodState {
    pub(crate) containers: Vec<ContainerState>,
    /// All its processes are gone and its network is free.
    pub(crate) stopped: bool,
    /// Error that keeps it from starting at all.
    pub(crate) failure: Option<String>,
}

impl PodState {
    fn of(&self, role: Role) -> impl Iterator<Item = &ContainerState> {
        self.containers.iter().filter(move |container| container.role == role)
    }

    pub(crate) fn phase(&self) -> Phase {
        // The order of the questions is that of Kubernetes' phases: what has ended for good comes before what still
        // runs.
        if self.of(Role::Init).any(|container| container.failed().is_some()) {
            return Phase::Failed;
        }
        let main = || self.of(Role::Main);
        if main().next().is_some() && main().all(|container| container.finished) {
            let good = main().all(|container| container.last_exit == Some(0));
            return if good { Phase::Succeeded } else { Phase::Failed };
        }
        let started =
            |container: &ContainerState| container.pid.is_some() || container.last_exit.is_some() || container.finished;
        let initialized = self.of(Role::Init).all(|container| container.finished);
        if self.failure.is_none() && initialized && main().next().is_some() && main().all(started) {
            Phase::Running
        } else {
            Phase::Pending
        }
    }

    /// Init containers have done their work and do not count; sidecars run with the others.
    pub(crate) fn ready(&self) -> bool {
        let counts = |container: &&ContainerState| container.role != Role::Init;
        self.phase() == Phase::Running && self.containers.iter().filter(counts).all(ContainerState::ready)
    }

    /// Restarts of all its containers.
    pub(crate) fn restarts(&self) -> u32 {
        self.containers.iter().map(|container| container.restarts).sum()
    }

    /// The container that made the pod fail, or whose end is the last that is known, with its code.
    pub(crate) fn failed_container(&self) -> Option<String> {
        let exit = |container: &ContainerState, code: i32| format!("container {} exited with {code}", container.name);
        let failed = self.containers.iter().find_map(|container| Some(exit(container, container.failed()?)));
        let ended = |container: &ContainerState| container.last_exit.filter(|code| *code != 0);
        failed.or_else(|| self.containers.iter().find_map(|container| Some(exit(container, ended(container)?))))
    }

    /// Reason why the pod is not ready; empty when it is, or has ended well.
    pub(crate) fn reason(&self) -> String {
        if let Some(failure) = &self.failure {
            return failure.clone();
        }
        let turn = self.of(Role::Init).find(|init| !init.finished);
        let counts = |container: &&ContainerState| match (self.phase(), turn) {
            (Phase::Failed, _) => container.failed().is_some(),
            // Nobody waits for the containers that come later yet.
            (Phase::Pending, Some(turn)) => {
                std::ptr::eq(*container, turn) || (container.role == Role::Sidecar && container.pid.is_some())
            }
            (Phase::Pending | Phase::Running | Phase::Succeeded, _) => !container.finished,
        };
        let counts = |container: &&ContainerState| {
            let runs = container.role == Role::Init && container.pid.is_some();
            counts(container) && (runs || !container.ready())
        };
        let line = |container: &ContainerState| {
            let reason = match (container.reason.as_str(), container.pid) {
                ("", Some(_)) => "running",
                ("", None) => "starting",
                (reason, _) => reason,
            };
            format!("{}: {reason}", container.name)
        };
        self.containers.iter().filter(counts).map(line).collect::<Vec<_>>().join("; ")
    }
}

/// A `PodState` that tells the supervisor when it changes.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<PodState>>,
    changed: Arc<Notify>,
    /// Counts changes, for whoever waits inside of the pod.
    turns: Arc<watch::Sender<u64>>,
    paused: Arc<watch::Sender<bool>>,
}

impl Shared {
    pub(crate) fn new(containers: impl Iterator<Item = (String, Role)>, changed: Arc<Notify>) -> Self {
        let state = |(name, role)| ContainerState { name, role, ..ContainerState::default() };
        let containers = containers.map(state).collect();
        let state = PodState { containers, ..PodState::default() };
        let turns = Arc::new(watch::Sender::new(0));
        Self { state: Arc::new(Mutex::new(state)), changed, turns, paused: Arc::new(watch::Sender::new(false)) }
    }

    /// The state now.
    pub(crate) fn get(&self) -> PodState {
        self.state.lock().clone()
    }

    /// Changes the state, and says so when that made a difference.
    pub(crate) fn update(&self, change: impl FnOnce(&mut PodState)) {
        let mut state = self.state.lock();
        let before = state.clone();
        change(&mut state);
        if *state != before {
            self.changed.notify_one();
            self.turns.send_modify(|turn| *turn += 1);
        }
    }

    /// Changes one container's state.
    pub(crate) fn container(&self, index: usize, change: impl FnOnce(&mut ContainerState)) {
        self.update(|state| {
            if let Some(container) = state.containers.get_mut(index) {
                change(container);
            }
        });
    }

    /// True if containers that exit are not started again.
    pub(crate) fn pause_restarts(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Waits until a container has started or ended for good.
    pub(crate) async fn started(&self, index: usize) {
        // Subscribed before the first look: a change between the look and the wait is not missed.
        let mut turns = self.turns.subscribe();
        loop {
            let done = self.state.lock().containers.get(index).is_none_or(|state| state.started || state.finished);
            // The sender lives as long as `self`.
            if done || turns.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until containers may be started again.
    pub(crate) async fn restarts_allowed(&self) {
        // The sender lives as long as `self`.
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(containers: &[ContainerState]) -> PodState {
        PodState { containers: containers.to_vec(), ..PodState::default() }
    }

    fn running(probe: Option<bool>) -> ContainerState {
        ContainerState { pid: Some(7), started: true, probe, ..ContainerState::default() }
    }

    fn finished(code: i32) -> ContainerState {
        let reason = format!("ended with {code}");
        ContainerState { finished: true, last_exit: Some(code), reason, ..ContainerState::default() }
    }

    fn init(container: ContainerState) -> ContainerState {
        ContainerState { role: Role::Init, name: "i".to_owned(), ..container }
    }

    fn sidecar(container: ContainerState) -> ContainerState {
        ContainerState { role: Role::Sidecar, ..container }
    }

    #[test]
    fn a_pod_is_ready_when_every_container_is() {
        assert!(state(&[running(None), running(Some(true))]).ready());
        assert!(!state(&[running(None), running(Some(false))]).ready());
        assert!(!state(&[running(None), ContainerState::default()]).ready());
        assert!(!state(&[ContainerState { started: false, ..running(None) }]).ready());
        assert!(!PodState::default().ready());
    }

    #[test]
    fn an_init_container_that_has_finished_does_not_count_and_a_sidecar_does() {
        assert!(state(&[init(finished(0)), running(None)]).ready());
        assert_eq!(state(&[init(finished(0)), running(None)]).reason(), "");
        assert!(state(&[sidecar(running(None)), init(finished(0)), running(None)]).ready());
        assert!(!state(&[sidecar(running(Some(false))), running(None)]).ready());
    }

    #[test]
    fn the_phase_follows_the_containers() {
        assert_eq!(state(&[ContainerState::default()]).phase(), Phase::Pending);
        assert_eq!(state(&[running(None), finished(0)]).phase(), Phase::Running);
        assert_eq!(state(&[finished(0), finished(0)]).phase(), Phase::Succeeded);
        assert_eq!(state(&[finished(0), finished(137)]).phase(), Phase::Failed);
        assert_eq!(state(&[init(running(None)), ContainerState::default()]).phase(), Phase::Pending);
        assert_eq!(state(&[init(finished(3)), ContainerState::default()]).phase(), Phase::Failed);
        assert_eq!(state(&[sidecar(running(None)), finished(0)]).phase(), Phase::Succeeded);
    }

    #[test]
    fn a_pod_that_is_not_ready_says_what_it_waits_for() {
        assert_eq!(state(&[init(running(None)), ContainerState::default()]).reason(), "i: running");
        assert_eq!(state(&[init(ContainerState::default()), ContainerState::default()]).reason(), "i: starting");
        let failed = state(&[init(finished(3)), ContainerState::default()]);
        assert_eq!(failed.reason(), "i: ended with 3");
        assert_eq!(failed.failed_container().as_deref(), Some("container i exited with 3"));
        assert_eq!(state(&[finished(0)]).reason(), "");
    }
}
