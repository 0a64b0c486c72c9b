//! The objects of the user's manifests as the supervisor has read them.

use std::{collections::BTreeMap, mem, path::PathBuf};

use kube_types::{Event, SourceProblem};

use crate::workloads::Objects;

/// Objects, and mistakes in their files.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    pub(super) objects: Objects,
    /// Every file was read once.
    pub(super) in_sync: bool,
    changed: bool,
    problems: BTreeMap<PathBuf, Vec<SourceProblem>>,
}

impl Manifests {
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Applied { resource, .. } => {
                self.objects.insert(resource.key(), resource);
                self.changed = true;
            }
            Event::Removed { key, .. } => {
                self.objects.remove(&key);
                self.changed = true;
            }
            Event::InSync { .. } => {
                self.in_sync = true;
                // Without any object, too, the catalogue has to be made once.
                self.changed = true;
            }
            Event::Problem(problem) => {
                tracing::warn!(severity = problem.severity.name(), "{problem}");
                self.problems.entry(problem.file.clone()).or_default().push(problem);
            }
            Event::Solved { file } => drop(self.problems.remove(&file)),
        }
    }

    /// True once after each change of objects.
    pub(super) fn take_changed(&mut self) -> bool {
        mem::take(&mut self.changed)
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &SourceProblem> {
        self.problems.values().flatten()
    }
}
