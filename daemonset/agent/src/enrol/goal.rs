//! Goals of pods, and the time that reaching them may take.

use std::time::Duration;

use super::Redirection;
use crate::pod::LocalPod;

/// Goal of a pod: in the mesh or outside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// In the mesh.
    In,
    /// Not in the mesh, for this reason; its connections may finish.
    Out { reason: String },
    /// Not in the mesh, and its processes have ended.
    Finished { reason: String },
    /// The pod no longer exists.
    Gone,
}

/// A pod and where it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    pub pod: LocalPod,
    pub wanted: Wanted,
    /// The pod's annotation as it was read last: not always what the agent wrote last.
    pub annotated: Option<Redirection>,
}

impl Goal {
    /// Somebody announces a pod that is not wanted in the mesh. In the mesh, the regular proof looks at the annotation.
    pub fn is_misannounced(&self) -> bool {
        self.wanted != Wanted::In && self.annotated.is_some()
    }
}

/// Durations and pauses of enrolment.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// `--unenrol-grace`: how long a pod that leaves keeps its proxied connections.
    pub unenrol_grace: Duration,
    /// Pause between two proofs of an enrolled pod.
    pub proof_interval: Duration,
    /// First pause after a failure.
    pub retry_min: Duration,
    /// Longest pause after failures in a row.
    pub retry_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            unenrol_grace: Duration::from_secs(30),
            proof_interval: Duration::from_secs(3),
            retry_min: Duration::from_millis(25),
            retry_max: Duration::from_secs(2),
        }
    }
}
