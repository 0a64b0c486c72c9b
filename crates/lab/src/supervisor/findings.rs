//! Everything that keeps a lab from being as its manifests describe it, as of the last reconciliation.

use std::collections::BTreeMap;

use super::{PodKey, review::Review};
use crate::control::PodInfo;

#[derive(Debug, Default)]
pub(super) struct Findings {
    /// About the manifests as a whole.
    pub(super) review: Review,
    /// Pods that are pending or failed, nodes and Jobs.
    pub(super) pods: Vec<String>,
    /// Volumes of running pods that could not be updated.
    pub(super) volumes: Vec<String>,
    /// Pods that cannot start.
    pub(super) blocked: BTreeMap<PodKey, PodInfo>,
    /// Number of pods that need a container image.
    pub(super) without_image: u32,
}

impl Findings {
    pub(super) fn problems(&self) -> impl Iterator<Item = &String> {
        self.review.problems.iter().chain(&self.pods).chain(&self.volumes)
    }
}
