//! The pods that run and that wait, for the dump, readiness and gauges. `enrolment` publishes it.

use super::{Pod, PodInfo};
use std::sync::Arc;

/// A pod as the dump shows it.
#[derive(Debug, Clone)]
pub struct PodStatus {
    pub uid: String,
    pub info: PodInfo,
    /// `None`: it waits for another attempt.
    pub running: Option<Arc<Pod>>,
}

/// All pods of this proxy.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The agent has named all pods, and each was started or tried. One that cannot be started is that pod's failure,
    /// which the agent has heard of: it never decides about the node.
    pub ready: bool,
    pub pods: Vec<PodStatus>,
    /// Pods started and stopped since the process began.
    pub started: u64,
    pub stopped: u64,
}

impl Status {
    /// Pods that run.
    pub fn active(&self) -> usize {
        self.pods.iter().filter(|p| p.running.is_some()).count()
    }

    /// Pods that wait for another attempt.
    pub fn pending(&self) -> usize {
        self.pods.len() - self.active()
    }
}
