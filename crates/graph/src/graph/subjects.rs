//! Policies that come, change and go: what depends on them is marked.

use std::sync::Arc;

use kube_types::istio::{AuthorizationPolicy, PeerAuthentication};
use kube_types::{Kind, ObjectRef, StringMap};

use super::{Graph, Name, put, put_in};
use crate::analysis::Rules;
use crate::authorization;
use crate::peer_authentication;

impl Graph {
    pub(super) fn set_policy(&mut self, name: Name, new: Option<Arc<AuthorizationPolicy>>) {
        let key = ObjectRef::new(Kind::AuthorizationPolicy, &name.0, &name.1);
        self.dirty.insert(key.clone());
        let selectors = self.policy_selectors.entry(name.0.clone()).or_default();
        let old = selectors.get(&name.1).cloned();
        let selected = new.as_ref().and_then(|policy| authorization::selector(policy)).cloned();
        match &selected {
            Some(selector) => selectors.insert(&name.1, selector),
            None => selectors.remove(&name.1),
        }
        let varied = self.convert(&key, new.as_deref(), selected.is_none());
        let replaced = put_in(&mut self.policies, &name, new);
        if old != selected {
            for selector in [&old, &selected].into_iter().flatten() {
                self.mark_pods_in_scope(&name.0, selector);
            }
        }
        if varied {
            // Where the policy can match may differ now.
            let everything = StringMap::new();
            let was = replaced.as_ref().map(|_| old.as_ref().unwrap_or(&everything));
            let is = self.converted.contains_key(&key).then(|| selected.as_ref().unwrap_or(&everything));
            for selector in [was, is].into_iter().flatten() {
                self.mark_pods_in_scope(&name.0, selector);
            }
        }
    }

    /// Keeps what the policy becomes; true when it depends, or depended, on the workload whether it can match.
    fn convert(&mut self, key: &ObjectRef, policy: Option<&AuthorizationPolicy>, is_wide: bool) -> bool {
        let old = self.converted.remove(key).is_some_and(|(_, rules)| rules.varies);
        if old && let Some(varying) = self.varying.get_mut(&key.namespace) {
            varying.remove(key);
            if varying.is_empty() {
                self.varying.remove(&key.namespace);
            }
        }
        let Some(policy) = policy else { return old };
        let converted = authorization::convert(&self.mesh, key, policy);
        let rules = Rules::new(&converted.rules, &self.mesh.trust_domain);
        let varies = rules.varies;
        if varies && is_wide {
            self.varying.entry(key.namespace.clone()).or_default().insert(key.clone());
        }
        self.converted.insert(key.clone(), (converted, rules));
        old || varies
    }

    pub(super) fn set_peer(&mut self, name: Name, new: Option<Arc<PeerAuthentication>>) {
        let peers = self.peers.entry(name.0.clone()).or_default();
        let old = put(peers, &name.1, new.clone());
        if peers.is_empty() {
            self.peers.remove(&name.0);
        }
        self.mark(Kind::PeerAuthentication, &name);
        let wide = |policy: &Arc<PeerAuthentication>| peer_authentication::selector(policy).is_none();
        if [&old, &new].into_iter().flatten().any(wide) {
            // What others inherit may differ now.
            let root = name.0 == self.mesh.root_namespace;
            let inheriting = self.peers.iter().filter(|(namespace, _)| root || **namespace == name.0);
            let keys = inheriting.flat_map(|(namespace, peers)| {
                peers.keys().map(move |peer| ObjectRef::new(Kind::PeerAuthentication, namespace, peer))
            });
            self.dirty.extend(keys);
        } else {
            // Another one may be the oldest now, and be told so.
            let keys = self.peers.get(&name.0).into_iter().flatten();
            self.dirty.extend(keys.map(|(peer, _)| ObjectRef::new(Kind::PeerAuthentication, &name.0, peer)));
        }
        for policy in [old, new].into_iter().flatten() {
            let everything = StringMap::new();
            let selector = peer_authentication::selector(&policy).unwrap_or(&everything);
            self.mark_pods_in_scope(&name.0, selector);
        }
    }
}
