//! Changes that are delivered together: one per object, in the order that a source promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kube_types::{ClusterId, Event, InForce, ObjectRef, Resource, SourceProblem, Subject};

use crate::decode::Mistake;
use crate::path;

/// Changes of one reader since its last delivery. Of several changes of an object the last one counts.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    removed: BTreeSet<ObjectRef>,
    applied: BTreeMap<ObjectRef, Applied>,
    /// Problems by place; none: they are over.
    problems: BTreeMap<PathBuf, Vec<SourceProblem>>,
    /// All that existed at the start is in these changes and in those before.
    pub(crate) is_first_list: bool,
}

#[derive(Debug)]
struct Applied {
    resource: Resource,
    /// The consumer does not have the object.
    is_new: bool,
}

/// Place of an object's problems: its path in the API.
pub(crate) fn place(key: &ObjectRef) -> PathBuf {
    path::object(key, path::preferred(key.kind)).into()
}

impl Changes {
    /// No changes yet, of a list.
    pub(crate) fn of_list(is_first_list: bool) -> Self {
        Self { is_first_list, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let Self { removed, applied, problems, is_first_list } = self;
        removed.is_empty() && applied.is_empty() && problems.is_empty() && !is_first_list
    }

    pub(crate) fn apply(&mut self, key: ObjectRef, resource: Resource, is_new: bool) {
        // Removed and made again: for the consumer the object has changed.
        let is_new = self.applied.get(&key).map_or(is_new, |applied| applied.is_new) && !self.removed.remove(&key);
        self.applied.insert(key, Applied { resource, is_new });
    }

    pub(crate) fn remove(&mut self, key: &ObjectRef) {
        // Made and removed within one delivery: the consumer never hears of it.
        if !self.applied.remove(key).is_some_and(|applied| applied.is_new) {
            self.removed.insert(key.clone());
        }
    }

    /// An object cannot be decoded.
    pub(crate) fn broken(&mut self, key: &ObjectRef, mistake: Mistake, in_force: InForce) {
        let Mistake { uid, field, message, code } = mistake;
        let place = place(key);
        let problem = SourceProblem {
            subject: Subject { uid, ..Subject::from(key) },
            field,
            in_force: Some(in_force),
            ..SourceProblem::of_file(&place, code, message)
        };
        self.report(place, vec![problem]);
    }

    /// An object can be decoded again, or is gone.
    pub(crate) fn solved(&mut self, key: &ObjectRef) {
        self.report(place(key), Vec::new());
    }

    /// Replaces the problems of a place.
    pub(crate) fn report(&mut self, place: PathBuf, problems: Vec<SourceProblem>) {
        self.problems.insert(place, problems);
    }

    /// Problems by place.
    pub(crate) fn take_problems(&mut self) -> BTreeMap<PathBuf, Vec<SourceProblem>> {
        std::mem::take(&mut self.problems)
    }

    /// Lays these changes over objects that nobody has yet.
    pub(crate) fn hold(self, held: &mut BTreeMap<ObjectRef, Resource>) {
        for key in &self.removed {
            held.remove(key);
        }
        held.extend(self.applied.into_iter().map(|(key, applied)| (key, applied.resource)));
    }

    /// Removals, then what applies, both in the order of keys.
    pub(crate) fn into_events(self, cluster: &ClusterId) -> impl Iterator<Item = Event> {
        let removed = self.removed.into_iter().map(|key| Event::Removed { cluster: cluster.clone(), key });
        let applied = self.applied.into_values().map(|applied| applied.resource);
        removed.chain(applied.map(|resource| Event::Applied { cluster: cluster.clone(), resource }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube_types::Kind;
    use kube_types::core::Node;

    use super::*;

    fn key(name: &str) -> ObjectRef {
        ObjectRef::new(Kind::Node, "", name)
    }

    fn node(name: &str) -> Resource {
        let mut node = Node::default();
        node.metadata.name = name.to_owned();
        Resource::Node(Arc::new(node))
    }

    fn events(changes: Changes) -> Vec<String> {
        let text = |event| match event {
            Event::Removed { key, .. } => format!("-{}", key.name),
            Event::Applied { resource, .. } => format!("+{}", resource.meta().name),
            Event::InSync { .. } | Event::Problem(_) | Event::Solved { .. } => unreachable!(),
        };
        changes.into_events(&ClusterId::default()).map(text).collect()
    }

    #[test]
    fn removals_come_first_and_keys_are_in_order() {
        let mut changes = Changes::default();
        changes.apply(key("b"), node("b"), true);
        changes.apply(key("a"), node("a"), false);
        changes.remove(&key("d"));
        changes.remove(&key("c"));

        assert_eq!(events(changes), ["-c", "-d", "+a", "+b"]);
    }

    #[test]
    fn of_several_changes_of_an_object_the_last_one_counts() {
        let mut changes = Changes::default();
        for name in ["known", "again"] {
            changes.apply(key(name), node(name), false);
            changes.remove(&key(name));
        }
        changes.apply(key("again"), node("again"), true);
        changes.apply(key("new"), node("new"), true);
        changes.apply(key("new"), node("new"), false);
        changes.remove(&key("new"));

        assert_eq!(events(changes), ["-known", "+again"], "nobody heard of the new one");
    }
}
