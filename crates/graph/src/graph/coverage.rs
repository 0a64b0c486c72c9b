//! Number of workloads that each policy is for, kept up to date one workload at a time.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use kube_types::{Kind, ObjectRef};

use super::objects::Name;
use crate::analysis::{Fits, Tallies};
use crate::enforcement::Coverage;

/// Policies that are for one workload, and how each applies to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// The agent has confirmed that the workload is in the mesh.
    pub(super) in_mesh: bool,
    /// Policies with a selector that matches.
    pub(super) selected_by: Vec<ObjectRef>,
    /// PeerAuthentications whose mode holds.
    pub(super) decided_by: Vec<ObjectRef>,
    /// Policies that are for it, with a selector or without, and can match no connection to it.
    pub(super) unmatched_by: Vec<ObjectRef>,
    /// Port numbers of policies that are for the workload, each compared with the ports that it declares.
    pub(super) fits: Fits,
}

/// Policies whose coverage changed.
#[derive(Debug, Default)]
pub(super) struct Recount {
    pub(super) policies: BTreeSet<ObjectRef>,
    /// Namespaces whose number of workloads in the mesh changed: it is that of their policies without a selector, and part
    /// of that of the root namespace.
    pub(super) wide_of: BTreeSet<String>,
    /// Policies whose port numbers fit other workloads than before.
    pub(super) fits: BTreeSet<ObjectRef>,
}

#[derive(Debug, Default)]
pub(super) struct CoverageIndex {
    pods: HashMap<Name, Selection>,
    by_policy: HashMap<ObjectRef, Coverage>,
    by_namespace: HashMap<String, Coverage>,
    all: Coverage,
    tallies: HashMap<ObjectRef, Tallies>,
}

impl CoverageIndex {
    /// Replaces the selection of a workload; `None` when it is gone.
    pub(super) fn set(&mut self, pod: &Name, new: Option<Selection>, recount: &mut Recount) {
        let old = match &new {
            Some(new) => self.pods.insert(pod.clone(), new.clone()),
            None => self.pods.remove(pod),
        };
        if old == new {
            return;
        }
        // Subtracts the old selection and adds the new one, so a change costs as much as the policies of one workload.
        for (selection, add) in old.iter().map(|old| (old, false)).chain(new.iter().map(|new| (new, true))) {
            self.count(&pod.0, selection, add);
            let policies = selection.selected_by.iter().chain(&selection.decided_by).chain(&selection.unmatched_by);
            recount.policies.extend(policies.cloned());
        }
        // Tallies are compared apart: most changes of a selection touch no port, and would mark the policy for a new
        // analysis.
        let fits = |selection: &Option<Selection>| selection.as_ref().map(|selection| selection.fits.clone());
        if fits(&old) != fits(&new) {
            for (selection, add) in old.iter().map(|old| (old, false)).chain(new.iter().map(|new| (new, true))) {
                self.tally(&selection.fits, add, &mut recount.fits);
            }
        }
        // A pod that comes or goes differs here, too: it is none on one side.
        if old.map(|old| old.in_mesh) != new.map(|new| new.in_mesh) {
            recount.wide_of.insert(pod.0.clone());
        }
    }

    fn count(&mut self, namespace: &str, selection: &Selection, add: bool) {
        let in_mesh = selection.in_mesh;
        let whole = Coverage { selected: 1, in_mesh: in_mesh.into(), decided: in_mesh.into(), unmatched: 0 };
        // Wide policies are not counted one by one: they read the sums of their namespace, so that a pod costs the same
        // however many there are.
        change(&mut self.all, whole, add);
        change_in(&mut self.by_namespace, &namespace.to_owned(), whole, add);
        for policy in &selection.selected_by {
            // AuthorizationPolicies add up; of PeerAuthentications only the ones in `decided_by` take effect.
            let decided = if policy.kind == Kind::PeerAuthentication { 0 } else { whole.decided };
            change_in(&mut self.by_policy, policy, Coverage { decided, ..whole }, add);
        }
        for policy in &selection.decided_by {
            // Added to what `selected_by` counted for the same policy: it selects, and it also decides.
            let part = Coverage { decided: whole.decided, ..Coverage::default() };
            change_in(&mut self.by_policy, policy, part, add);
        }
        for policy in &selection.unmatched_by {
            let part = Coverage { unmatched: in_mesh.into(), ..Coverage::default() };
            change_in(&mut self.by_policy, policy, part, add);
        }
    }

    fn tally(&mut self, fits: &Fits, add: bool, recount: &mut BTreeSet<ObjectRef>) {
        for (policy, port, fit) in fits {
            let tallies = self.tallies.entry(policy.clone()).or_default();
            let tally = tallies.entry(*port).or_default();
            tally.count(fit, add);
            if tally.is_empty() {
                tallies.remove(port);
            }
            if tallies.is_empty() {
                self.tallies.remove(policy);
            }
            recount.insert(policy.clone());
        }
    }

    /// Port numbers of a policy, each compared with the ports of the workloads that the policy is for.
    pub(super) fn tallies(&self, policy: &ObjectRef) -> Option<&Tallies> {
        self.tallies.get(policy)
    }

    /// Numbers of a policy with a selector.
    pub(super) fn narrow(&self, policy: &ObjectRef) -> Coverage {
        self.by_policy.get(policy).copied().unwrap_or_default()
    }

    /// Numbers of a policy for a namespace, or for all of them.
    pub(super) fn wide(&self, policy: &ObjectRef, namespace: Option<&str>) -> Coverage {
        let whole = match namespace {
            Some(namespace) => self.by_namespace.get(namespace).copied().unwrap_or_default(),
            None => self.all,
        };
        // These two are counted for each policy, also for those without a selector.
        let Coverage { decided, unmatched, .. } = self.narrow(policy);
        if policy.kind == Kind::PeerAuthentication {
            Coverage { decided, unmatched, ..whole }
        } else {
            Coverage { unmatched, ..whole }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.by_policy.is_empty()
            && self.by_namespace.is_empty()
            && self.tallies.is_empty()
            && self.all == Coverage::default()
    }
}

fn change(coverage: &mut Coverage, by: Coverage, add: bool) {
    // Never below zero: a number that is off by one in a message is better than a control plane that panics.
    let sum = |old: usize, by: usize| if add { old + by } else { old.saturating_sub(by) };
    coverage.selected = sum(coverage.selected, by.selected);
    coverage.in_mesh = sum(coverage.in_mesh, by.in_mesh);
    coverage.decided = sum(coverage.decided, by.decided);
    coverage.unmatched = sum(coverage.unmatched, by.unmatched);
}

/// Adds or subtracts; numbers that are all zero are removed.
fn change_in<K: Clone + Eq + Hash>(all: &mut HashMap<K, Coverage>, key: &K, by: Coverage, add: bool) {
    let mut coverage = all.remove(key).unwrap_or_default();
    change(&mut coverage, by, add);
    if coverage != Coverage::default() {
        all.insert(key.clone(), coverage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_workloads() {
        let policy = ObjectRef::new(Kind::AuthorizationPolicy, "app", "web");
        let peer = ObjectRef::new(Kind::PeerAuthentication, "app", "default");
        let pod = |name: &str| ("app".to_owned(), name.to_owned());
        let selection = |in_mesh| Selection {
            in_mesh,
            selected_by: vec![policy.clone()],
            decided_by: vec![peer.clone()],
            ..Selection::default()
        };
        let mut index = CoverageIndex::default();
        let mut recount = Recount::default();

        index.set(&pod("a"), Some(selection(false)), &mut recount);
        index.set(&pod("b"), Some(selection(true)), &mut recount);
        assert_eq!(index.narrow(&policy), Coverage { selected: 2, in_mesh: 1, decided: 1, unmatched: 0 });
        assert_eq!(index.wide(&peer, Some("app")), Coverage { selected: 2, in_mesh: 1, decided: 1, unmatched: 0 });
        assert_eq!(recount.policies.len(), 2);
        let mut recount = Recount::default();
        index.set(&pod("a"), Some(selection(false)), &mut recount);
        assert!(recount.policies.is_empty() && recount.wide_of.is_empty(), "nothing changed: {recount:?}");
        index.set(&pod("a"), Some(selection(true)), &mut recount);
        assert_eq!(index.wide(&peer, None), Coverage { selected: 2, in_mesh: 2, decided: 2, unmatched: 0 });
        assert!(recount.wide_of.contains("app"));
        index.set(&pod("a"), None, &mut recount);
        index.set(&pod("b"), None, &mut recount);

        assert!(index.is_empty());
    }
}
