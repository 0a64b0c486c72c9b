//! Problems by file, and which of them were reported.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use kube_types::{Event, ObjectRef, SourceProblem};

/// Problems that hold now and problems that were reported.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Problems of a file by itself.
    own: BTreeMap<PathBuf, Vec<SourceProblem>>,
    /// Problems of an object that come from its files taken together, by the file that has them.
    joint: BTreeMap<PathBuf, BTreeMap<ObjectRef, Vec<SourceProblem>>>,
    /// Files with joint problems of an object.
    files_of: HashMap<ObjectRef, BTreeSet<PathBuf>>,
    reported: BTreeMap<PathBuf, Vec<SourceProblem>>,
    dirty: BTreeSet<PathBuf>,
}

impl Ledger {
    /// Returns true if the file has a problem by itself.
    pub(super) fn has_own(&self, file: &Path) -> bool {
        self.own.contains_key(file)
    }

    /// Replaces the problems of a file by itself.
    pub(super) fn set_own(&mut self, file: &Path, problems: Vec<SourceProblem>) {
        // Also when nothing changes: `changes` compares with what was reported.
        self.dirty.insert(file.to_owned());
        if problems.is_empty() {
            self.own.remove(file);
        } else {
            self.own.insert(file.to_owned(), problems);
        }
    }

    /// Replaces the problems of an object that come from its files taken together.
    pub(super) fn set_joint(&mut self, key: &ObjectRef, problems: Vec<SourceProblem>) {
        // All of the object's old problems go first: a file may have none any more.
        for file in self.files_of.remove(key).into_iter().flatten() {
            if let Some(objects) = self.joint.get_mut(&file) {
                objects.remove(key);
                if objects.is_empty() {
                    self.joint.remove(&file);
                }
            }
            self.dirty.insert(file);
        }
        for problem in problems {
            self.dirty.insert(problem.file.clone());
            self.files_of.entry(key.clone()).or_default().insert(problem.file.clone());
            let objects = self.joint.entry(problem.file.clone()).or_default();
            objects.entry(key.clone()).or_default().push(problem);
        }
    }

    /// Events for the files whose problems are others than those reported.
    pub(super) fn changes(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for file in std::mem::take(&mut self.dirty) {
            let joint = self.joint.get(&file).into_iter().flat_map(BTreeMap::values).flatten();
            let own = self.own.get(&file).into_iter().flatten();
            let mut now: Vec<_> = own.chain(joint).cloned().collect();
            now.sort();
            // A file that is read again has its problems again; they are reported once.
            if self.reported.get(&file).map_or(&[][..], Vec::as_slice) == now {
                continue;
            }
            if self.reported.remove(&file).is_some() {
                events.push(Event::Solved { file: file.clone() });
            }
            events.extend(now.iter().cloned().map(Event::Problem));
            if !now.is_empty() {
                self.reported.insert(file, now);
            }
        }
        events
    }
}
