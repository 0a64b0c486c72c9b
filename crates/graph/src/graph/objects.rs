//! Objects of the cluster that mean something to the mesh, by namespace and name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube_types::core::{EndpointSlice, Node, Pod, Service};
use kube_types::gateway::{Gateway, GatewayClass};
use kube_types::istio::{AuthorizationPolicy, PeerAuthentication, ServiceEntry, WorkloadEntry};
use kube_types::{ObjectMeta, ObjectRef, Resource, StringMap, is_subset};

use super::names::Template;
use crate::peer_authentication::ByNamespace;

/// Namespace and name.
pub(super) type Name = (String, String);

/// Objects of one kind by name.
pub(super) type Named<T> = BTreeMap<String, Arc<T>>;

#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) nodes: Named<Node>,
    pub(super) pods: Namespaced<Pod>,
    pub(super) services: Namespaced<Service>,
    pub(super) slices: Namespaced<EndpointSlice>,
    pub(super) service_entries: Namespaced<ServiceEntry>,
    pub(super) workload_entries: Namespaced<WorkloadEntry>,
    pub(super) gateways: Namespaced<Gateway>,
    pub(super) gateway_classes: Named<GatewayClass>,
    pub(super) policies: Namespaced<AuthorizationPolicy>,
    pub(super) peers: ByNamespace,
    /// Labels and service accounts of pods that a workload kind makes or would make.
    pub(super) templates: BTreeMap<ObjectRef, Template>,
    pub(super) accounts: BTreeSet<Name>,
    /// VirtualServices, DestinationRules, HTTPRoutes and GRPCRoutes.
    pub(super) routing: BTreeMap<ObjectRef, Resource>,
}

/// Objects of one kind by namespace and name.
#[derive(Debug)]
pub(super) struct Namespaced<T>(HashMap<String, Named<T>>);

impl<T> Default for Namespaced<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Namespaced<T> {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.0.get(namespace)?.get(name)
    }

    /// Objects of one namespace in the order of names.
    pub(super) fn within(&self, namespace: &str) -> impl Iterator<Item = (&String, &Arc<T>)> {
        self.0.get(namespace).into_iter().flatten()
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values().flat_map(BTreeMap::values)
    }

    /// Replaces an object and returns the old one.
    pub(super) fn set(&mut self, name: &Name, new: Option<Arc<T>>) -> Option<Arc<T>> {
        // Also for a removal; an entry that this makes is taken out again below.
        let map = self.0.entry(name.0.clone()).or_default();
        let old = set(map, &name.1, new);
        if map.is_empty() {
            self.0.remove(&name.0);
        }
        old
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Objects {
    /// Replaces a PeerAuthentication and returns the old one.
    pub(super) fn set_peer(
        &mut self,
        name: &Name,
        new: Option<Arc<PeerAuthentication>>,
    ) -> Option<Arc<PeerAuthentication>> {
        let peers = self.peers.entry(name.0.clone()).or_default();
        let old = set(peers, &name.1, new);
        if peers.is_empty() {
            self.peers.remove(&name.0);
        }
        old
    }

    /// Returns true if a pod, also one that is not a workload yet, or a pod template has these labels; in this namespace,
    /// or anywhere for `None`.
    pub(super) fn has_pod_with(&self, namespace: Option<&str>, selector: &StringMap) -> bool {
        let is_near = |other: &str| namespace.is_none_or(|namespace| other == namespace);
        // A Deployment with no replicas has no pods, but its policy is no mistake.
        let mut templates = self.templates.iter().filter(|(key, _)| is_near(&key.namespace));
        if templates.any(|(_, template)| is_subset(selector, &template.labels)) {
            return true;
        }
        let has_labels = |pod: &Arc<Pod>| is_subset(selector, &pod.metadata.labels);
        match namespace {
            Some(namespace) => self.pods.within(namespace).any(|(_, pod)| has_labels(pod)),
            None => self.pods.values().any(has_labels),
        }
    }
}

/// Replaces an object and returns the old one.
pub(super) fn set<T>(map: &mut Named<T>, name: &str, new: Option<Arc<T>>) -> Option<Arc<T>> {
    match new {
        Some(new) => map.insert(name.to_owned(), new),
        None => map.remove(name),
    }
}

/// Name of an object with these metadata.
pub(super) fn name_of(meta: &ObjectMeta) -> Name {
    (meta.namespace.clone(), meta.name.clone())
}
