//! Value of a pod's redirection annotation that its task has written, as far as it knows.

use super::Redirection;

/// Value of the annotation that was written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement {
    /// No annotation.
    None,
    /// A write did not succeed, or nobody knows whether there was one: the pod may count as enrolled.
    Unknown,
    /// This value.
    Written(Redirection),
}

impl Announcement {
    /// Returns whether peers may take the pod for enrolled.
    pub(super) fn may_be_enabled(self) -> bool {
        // `Unknown` counts as announced: what follows (an alarm, a withdrawal) is then done once too often rather than
        // not at all.
        matches!(self, Self::Unknown | Self::Written(Redirection::Enabled))
    }
}

impl From<Option<Redirection>> for Announcement {
    fn from(annotated: Option<Redirection>) -> Self {
        annotated.map_or(Self::None, Self::Written)
    }
}
