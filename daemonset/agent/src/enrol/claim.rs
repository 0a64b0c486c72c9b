//! What the cluster was told of a pod, as far as its task knows, and why that is taken back.

use super::{PodSpec, Redirection};

/// What the cluster was told of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing.
    None,
    /// A write did not succeed, or nobody knows whether there was one: the pod may count as enrolled.
    Uncertain,
    /// This.
    Told(Redirection),
}

impl Claim {
    /// May peers take the pod for enrolled?
    pub(super) fn may_count(self) -> bool {
        matches!(self, Self::Uncertain | Self::Told(Redirection::Enabled))
    }
}

impl From<Option<Redirection>> for Claim {
    fn from(told: Option<Redirection>) -> Self {
        told.map_or(Self::None, Self::Told)
    }
}

/// Why a claim is taken back.
pub(super) enum Cause<'a> {
    /// The pod is to leave.
    Unwanted(&'a str),
    /// Traffic may pass the proxy by.
    Unproved(String),
}

impl Cause<'_> {
    pub(super) fn log(&self, pod: &PodSpec) {
        let pod = pod.key.path();
        match self {
            Self::Unwanted(reason) => {
                tracing::info!(pod, reason, "a pod leaves and is no longer announced as enrolled")
            }
            Self::Unproved(reason) => {
                tracing::warn!(
                    pod,
                    reason,
                    "a pod is no longer announced as enrolled: its traffic may pass the proxy by"
                );
            }
        }
    }
}
