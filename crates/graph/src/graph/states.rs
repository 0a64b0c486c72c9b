//! States of policies, and which of them may differ after a change.

use std::collections::BTreeSet;

use kube_types::{Kind, ObjectRef};

use super::coverage::Recount;
use super::selection::peer_key;
use super::{Graph, Update};
use crate::authorization;
use crate::enforcement::{Coverage, Enforcement, PolicyState};
use crate::peer_authentication;
use crate::placement::Scope;

impl Graph {
    /// Policies whose coverage changed.
    pub(super) fn recounted(&self, recount: &Recount) -> BTreeSet<ObjectRef> {
        let mut keys = recount.policies.clone();
        for namespace in &recount.wide_of {
            keys.extend(self.wide_policies(namespace));
        }
        // Policies of the root namespace count the workloads of all.
        if !recount.wide_of.is_empty() {
            keys.extend(self.wide_policies(&self.mesh.root_namespace));
        }
        keys
    }

    /// Returns the policies whose findings may differ now, because something that they select or refer to came or went.
    pub(super) fn doubtful(&mut self, recount: &Recount, recounted: &BTreeSet<ObjectRef>) -> BTreeSet<ObjectRef> {
        let mut keys = recount.fits.clone();
        let changed = self.world.take_changed();
        // Any rule may name any namespace or account, and which of them do is not indexed: names come and go seldom.
        if changed.names {
            keys.extend(self.policies.facts.keys().cloned());
        }
        // Only a policy that selects nothing has a finding that depends on the labels of other pods.
        if !changed.labels.is_empty() {
            let is_near = |policy: &&ObjectRef| {
                changed.labels.contains(&policy.namespace) || policy.namespace == self.mesh.root_namespace
            };
            keys.extend(self.policies.idle.iter().filter(is_near).cloned());
        }
        for policy in recounted {
            let is_idle = self.coverage(policy).selected == 0;
            // It has got its first workload, or lost its last one.
            if is_idle != self.policies.idle.contains(policy) {
                keys.insert(policy.clone());
            }
        }
        keys
    }

    /// Reports the states of these policies.
    pub(super) fn report_states(&mut self, update: &mut Update, keys: &BTreeSet<ObjectRef>) {
        for key in keys {
            // Neither exists for a policy that was removed, which `set_state` then reports as gone.
            let state = self.policies.facts.get(key).zip(self.scope(key)).map(|(facts, scope)| PolicyState {
                generation: self.generation(key),
                accepted: facts.accepted.clone(),
                enforcement: Enforcement {
                    effect: facts.effect.clone(),
                    coverage: self.coverage(key),
                    details: facts.details.clone(),
                    scope,
                },
            });
            self.reported.set_state(update, key, state);
        }
    }

    /// Returns the workloads that a policy is for; `None` when there is no such policy.
    fn scope(&self, key: &ObjectRef) -> Option<Scope> {
        if key.kind == Kind::PeerAuthentication {
            return self.peer_of(key).map(|_| Scope::Named(key.clone()));
        }
        let policy = self.objects.policies.get(&key.namespace, &key.name)?;
        Some(authorization::scope(&self.mesh, key, policy))
    }

    fn generation(&self, key: &ObjectRef) -> Option<i64> {
        if key.kind == Kind::PeerAuthentication {
            return self.peer_of(key)?.metadata.generation;
        }
        self.objects.policies.get(&key.namespace, &key.name)?.metadata.generation
    }

    /// Policies of a namespace that select by no labels.
    fn wide_policies(&self, namespace: &str) -> Vec<ObjectRef> {
        let policies = self.objects.policies.within(namespace);
        let policies = policies.filter(|(_, policy)| authorization::selector(policy).is_none());
        let policies = policies.map(|(name, _)| ObjectRef::new(Kind::AuthorizationPolicy, namespace, name));
        let peers = self.objects.peers.get(namespace).into_iter().flatten().map(|(_, peer)| peer.as_ref());
        policies.chain(peers.filter(|peer| peer_authentication::selector(peer).is_none()).map(peer_key)).collect()
    }

    pub(super) fn coverage(&self, key: &ObjectRef) -> Coverage {
        let has_selector = if key.kind == Kind::PeerAuthentication {
            self.peer_of(key).is_some_and(|policy| peer_authentication::selector(policy).is_some())
        } else {
            let policy = self.objects.policies.get(&key.namespace, &key.name);
            policy.is_some_and(|policy| authorization::selector(policy).is_some())
        };
        if has_selector {
            self.policies.coverage.narrow(key)
        } else {
            let namespace = (key.namespace != self.mesh.root_namespace).then_some(key.namespace.as_str());
            self.policies.coverage.wide(key, namespace)
        }
    }
}
