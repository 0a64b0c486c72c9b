//! What the cluster was told of a pod, as far as its task knows.

use super::Redirection;

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
