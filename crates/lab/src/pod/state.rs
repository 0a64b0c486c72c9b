//! What is known of a running pod: written by its tasks, read by the supervisor.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::control::{ContainerInfo, Phase};

/// One container as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerState {
    pub(crate) name: String,
    /// Process id of the main process in the lab's pid namespace, while it runs.
    pub(crate) pid: Option<u32>,
    /// Result of the readiness probe; `None` without one.
    pub(crate) probe: Option<bool>,
    pub(crate) restarts: u32,
    pub(crate) last_exit: Option<i32>,
    /// It will not be started again.
    pub(crate) finished: bool,
    /// Why it is not as it should be; empty when it is.
    pub(crate) reason: String,
}

impl ContainerState {
    pub(crate) fn ready(&self) -> bool {
        self.pid.is_some() && self.probe.unwrap_or(true)
    }

    pub(crate) fn info(&self) -> ContainerInfo {
        ContainerInfo {
            name: self.name.clone(),
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
    /// What keeps it from starting at all.
    pub(crate) failure: Option<String>,
}

impl PodState {
    pub(crate) fn phase(&self) -> Phase {
        if !self.containers.is_empty() && self.containers.iter().all(|container| container.finished) {
            let good = self.containers.iter().all(|container| container.last_exit == Some(0));
            return if good { Phase::Succeeded } else { Phase::Failed };
        }
        let started =
            |container: &ContainerState| container.pid.is_some() || container.last_exit.is_some() || container.finished;
        if self.failure.is_none() && !self.containers.is_empty() && self.containers.iter().all(started) {
            Phase::Running
        } else {
            Phase::Pending
        }
    }

    pub(crate) fn ready(&self) -> bool {
        self.phase() == Phase::Running && self.containers.iter().all(ContainerState::ready)
    }

    /// Why the pod is not ready, in words.
    pub(crate) fn reason(&self) -> String {
        if let Some(failure) = &self.failure {
            return failure.clone();
        }
        let lines = self.containers.iter().filter(|container| !container.ready() && !container.finished);
        let lines: Vec<_> = lines
            .map(|container| {
                let reason = if container.reason.is_empty() { "starting" } else { &container.reason };
                format!("{}: {reason}", container.name)
            })
            .collect();
        lines.join("; ")
    }
}

/// A `PodState` that tells the supervisor when it changes.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<PodState>>,
    changed: Arc<Notify>,
    paused: Arc<watch::Sender<bool>>,
}

impl Shared {
    pub(crate) fn new(containers: impl Iterator<Item = String>, changed: Arc<Notify>) -> Self {
        let containers = containers.map(|name| ContainerState { name, ..ContainerState::default() }).collect();
        let state = PodState { containers, ..PodState::default() };
        Self { state: Arc::new(Mutex::new(state)), changed, paused: Arc::new(watch::Sender::new(false)) }
    }

    /// The state now.
    pub(crate) fn get(&self) -> PodState {
        self.lock().clone()
    }

    /// Changes the state, and says so when that made a difference.
    pub(crate) fn update(&self, change: impl FnOnce(&mut PodState)) {
        let mut state = self.lock();
        let before = state.clone();
        change(&mut state);
        if *state != before {
            self.changed.notify_one();
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

    /// Whether containers that exit stay down.
    pub(crate) fn pause_restarts(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Waits until containers may be started again.
    pub(crate) async fn restarts_allowed(&self) {
        // The sender lives as long as `self`.
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
    }

    fn lock(&self) -> MutexGuard<'_, PodState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(containers: &[ContainerState]) -> PodState {
        PodState { containers: containers.to_vec(), ..PodState::default() }
    }

    fn running(probe: Option<bool>) -> ContainerState {
        ContainerState { pid: Some(7), probe, ..ContainerState::default() }
    }

    fn finished(code: i32) -> ContainerState {
        ContainerState { finished: true, last_exit: Some(code), ..ContainerState::default() }
    }

    #[test]
    fn a_pod_is_ready_when_every_container_is() {
        assert!(state(&[running(None), running(Some(true))]).ready());
        assert!(!state(&[running(None), running(Some(false))]).ready());
        assert!(!state(&[running(None), ContainerState::default()]).ready());
        assert!(!PodState::default().ready());
    }

    #[test]
    fn the_phase_follows_the_containers() {
        assert_eq!(state(&[ContainerState::default()]).phase(), Phase::Pending);
        assert_eq!(state(&[running(None), finished(0)]).phase(), Phase::Running);
        assert_eq!(state(&[finished(0), finished(0)]).phase(), Phase::Succeeded);
        assert_eq!(state(&[finished(0), finished(137)]).phase(), Phase::Failed);
    }
}
