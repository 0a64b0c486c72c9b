//! Conditions that follow from acknowledgements and differ from those published.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::collections::BTreeSet;

use graph::{Delivery, ObjectStatus, Scope};
use kube_types::{Kind, ObjectRef};
use tokio::time::Instant;

use super::event::Type;
use super::node::Node;
use super::state::{Policy, State};
use super::unacked::{ANSWERS_WITHIN, Unacked};
use crate::conditions::StatusUpdate;

/// Delivery of a policy, and the times since which answers are outstanding: also those of workloads that still count as
/// acknowledged.
#[derive(Debug, Default)]
struct Progress {
    delivery: Delivery,
    waits: Vec<Instant>,
}

impl Progress {
    /// The next time at which a proxy that does not answer is called silent.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.waits.iter().map(|since| *since + ANSWERS_WITHIN).filter(|next| *next > now).min()
    }
}

impl State {
    /// The conditions that changed, and the time at which some may change though nothing happens.
    pub(super) fn changed_conditions(&mut self, now: Instant) -> (Vec<StatusUpdate>, Option<Instant>) {
        // Only these: a mesh of ten thousand pods gets acknowledgements all the time, and each concerns the policies of
        // one node.
        let outdated = self.outdated(now);
        let mut changed = Vec::new();
        // Taken out, as `progress` reads the rest of the state meanwhile.
        let mut policies = std::mem::take(&mut self.policies);
        for object in outdated {
            let Some(policy) = policies.get_mut(&object) else { continue };
            // Set again below if an answer is still outstanding.
            policy.deadline = None;
            let conditions = match &policy.state {
                None => Vec::new(),
                Some(state) if !state.needs_delivery() => state.conditions(None),
                Some(state) => {
                    let progress = self.progress(&object, state.scope(), now);
                    policy.deadline = progress.next_deadline(now);
                    state.conditions(Some(&progress.delivery))
                }
            };
            // Writing what is there already would wake every reader of the object for nothing.
            if conditions != policy.published {
                policy.published.clone_from(&conditions);
                let of = |conditions| ObjectStatus { conditions, addresses: Vec::new() };
                let (cluster, current) = (self.cluster.clone(), of(policy.current.clone()));
                changed.push(StatusUpdate { cluster, object, status: of(conditions), current });
            }
        }
        changed.extend(std::mem::take(&mut self.statuses).into_values());
        // A policy that is gone stayed until here, so that its conditions could be cleared.
        policies.retain(|_, policy| policy.state.is_some());
        let deadline = policies.values().filter_map(|policy| policy.deadline).min();
        self.policies = policies;
        (changed, deadline)
    }

    /// Policies whose conditions may differ from those published: their state or their resource changed, a workload that
    /// they are for is on a node of which something changed, or a deadline has passed.
    pub(super) fn outdated(&mut self, now: Instant) -> Vec<ObjectRef> {
        let (scopes, touched) = (self.review_nodes(), std::mem::take(&mut self.touched));
        let is_outdated = |(object, policy): &(&ObjectRef, &Policy)| {
            touched.contains(*object)
                || policy.state.as_ref().is_some_and(|state| scopes.contains(state.scope()))
                || policy.deadline.is_some_and(|deadline| deadline <= now)
        };
        self.policies.iter().filter(is_outdated).map(|(object, _)| object.clone()).collect()
    }

    /// Counts the workloads of the nodes of which something changed, and returns the scopes that have workloads there, or
    /// had.
    fn review_nodes(&mut self) -> BTreeSet<Scope> {
        let mut scopes = BTreeSet::new();
        for name in std::mem::take(&mut self.dirty) {
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            // Scopes that had workloads here before count as changed too: the last workload of one may have left.
            for scope in node.scopes.drain(..) {
                if let Some(nodes) = self.counts.get_mut(&scope) {
                    nodes.remove(&name);
                    if nodes.is_empty() {
                        self.counts.remove(&scope);
                    }
                }
                scopes.insert(scope);
            }
            let counts = node.count_workloads();
            node.scopes = counts.keys().cloned().collect();
            scopes.extend(node.scopes.iter().cloned());
            for (scope, count) in counts {
                self.counts.entry(scope).or_default().insert(name.clone(), count);
            }
            // Nodes come and go; without this the table would grow with every node that ever was.
            if node.is_empty() {
                self.nodes.remove(&name);
            }
        }
        scopes
    }

    fn progress(&self, policy: &ObjectRef, scope: &Scope, now: Instant) -> Progress {
        let mut progress = Progress::default();
        // A PeerAuthentication has no resource of its own: it becomes policies that workloads refer to (`needs`).
        let own = (policy.kind == Kind::AuthorizationPolicy).then(|| policy.path());
        for (name, count) in self.counts.get(scope).into_iter().flatten() {
            let Some(node) = self.nodes.get(name) else { continue };
            let resources = own.iter().chain(&count.needs);
            let unacked = resources.filter_map(|resource| self.unacked(node, resource, now)).max();
            let (acknowledged, behind) = count.at(now);
            progress.delivery.workloads += count.workloads;
            // Without the policy's own resource no workload of the node has it.
            if unacked.is_none() {
                progress.delivery.acknowledged += acknowledged;
            }
            progress.waits.extend(count.updating_since);
            if let Some(reason) = unacked.max(behind) {
                progress.waits.extend(reason.since());
                progress.delivery.missing.insert(name.clone(), reason.at(now));
            }
        }
        progress
    }

    /// Reason why the proxy of a node does not have a policy's resource as it is served, if so.
    fn unacked(&self, node: &Node, resource: &str, now: Instant) -> Option<Unacked> {
        let Some((name, served)) = self.served.get_key_value(resource) else {
            // Not served yet: the update that brings it is on its way to the cache.
            return Some(Unacked::waiting(now));
        };
        node.unacked(Type::Authorization, name, &served.version, served.since)
    }
}
