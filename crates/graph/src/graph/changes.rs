//! Objects that come, change and go: each change marks the objects that depend on it.

use std::sync::Arc;

use contract::labels::TRAFFIC_DISTRIBUTION_ANNOTATION;
use kube_types::core::{EndpointSlice, Namespace, Node, Pod, Service};
use kube_types::istio::{AuthorizationPolicy, PeerAuthentication};
use kube_types::{Kind, ObjectRef, StringMap, is_subset};

use super::links::targets;
use super::objects::{self, Name};
use super::{Graph, names};
use crate::authorization;
use crate::locality::Locality;
use crate::peer_authentication;
use crate::resolved::is_in_mesh;

impl Graph {
    fn mark(&mut self, kind: Kind, name: &Name) {
        self.marked.insert(ObjectRef::new(kind, &name.0, &name.1));
    }

    /// Marks the pods of a namespace with these labels.
    fn mark_pods(&mut self, namespace: &str, selector: &StringMap) {
        let pods = self.objects.pods.within(namespace);
        let matching = pods.filter(|(_, pod)| is_subset(selector, &pod.metadata.labels));
        self.marked.extend(matching.map(|(name, _)| ObjectRef::new(Kind::Pod, namespace, name)));
    }

    /// Marks the pods that a policy of this namespace may select.
    fn mark_pods_in_scope(&mut self, namespace: &str, selector: &StringMap) {
        if namespace == self.mesh.root_namespace {
            let all: Vec<_> = self.objects.pods.namespaces().cloned().collect();
            for namespace in all {
                self.mark_pods(&namespace, selector);
            }
        } else {
            self.mark_pods(namespace, selector);
        }
    }

    pub(super) fn set_namespace(&mut self, name: &str, new: Option<Arc<Namespace>>) {
        self.marked.insert(ObjectRef::new(Kind::Namespace, "", name));
        let old = self.index.set_namespace(name, new.clone());
        let names = |namespace: &Option<Arc<Namespace>>| namespace.is_some().then_some(names::of_namespace(name));
        self.world.exchange(names(&old), names(&new));
        // Nothing else of a namespace is part of other objects' resources: its labels say which pods the agent enrols,
        // and discovery follows the agent.
        if distribution(old.as_deref()) != distribution(new.as_deref()) {
            let services = self.objects.services.within(name);
            self.marked.extend(services.map(|(service, _)| ObjectRef::new(Kind::Service, name, service)));
        }
    }

    pub(super) fn set_node(&mut self, name: &str, new: Option<Arc<Node>>) {
        let old = objects::set(&mut self.objects.nodes, name, new.clone());
        // The status of a node changes often, and nothing of it counts here.
        if Locality::of(old.as_deref()) != Locality::of(new.as_deref()) {
            let pods = self.index.pods.names_on(name);
            self.marked.extend(pods.map(|(namespace, pod)| ObjectRef::new(Kind::Pod, namespace, pod)));
        }
    }

    pub(super) fn set_pod(&mut self, name: Name, new: Option<Arc<Pod>>) {
        self.mark(Kind::Pod, &name);
        let old = self.objects.pods.set(&name, new.clone());
        self.world.exchange(old.as_deref().map(names::of_pod), new.as_deref().map(names::of_pod));
        self.index.set_pod(&name, old.as_deref(), new.as_ref());
    }

    pub(super) fn set_service(&mut self, name: Name, new: Option<Arc<Service>>) {
        self.mark(Kind::Service, &name);
        // Endpoints take port names and the host name from their Service.
        let slices: Vec<_> = self.links.slices_of_service(&name).cloned().collect();
        for slice in slices {
            self.mark(Kind::EndpointSlice, &slice);
            self.mark_targets(&slice);
        }
        let selector = new.as_ref().filter(|service| is_in_mesh(service)).map(|service| service.spec.selector.clone());
        let old = self.links.services.set(&name, selector.as_ref());
        let exists = |service: &Option<Arc<Service>>| service.is_some().then_some(names::of_namespace(&name.0));
        let new_names = exists(&new);
        let replaced = self.objects.services.set(&name, new);
        self.world.exchange(exists(&replaced), new_names);
        // Pods that the Service has left lose it, those that it has now get it. A Service without a selector has
        // hand-made endpoints.
        for selector in [old, selector].into_iter().flatten().filter(|selector| !selector.is_empty()) {
            self.mark_pods(&name.0, &selector);
        }
    }

    pub(super) fn set_slice(&mut self, name: Name, new: Option<Arc<EndpointSlice>>) {
        self.mark(Kind::EndpointSlice, &name);
        // Pods of the old endpoints before, and of the new ones after.
        self.mark_targets(&name);
        let old = self.objects.slices.set(&name, new.clone());
        self.links.set_slice(&name, old.as_deref(), new.as_deref());
        self.mark_targets(&name);
    }

    fn mark_targets(&mut self, slice: &Name) {
        let pods = self.objects.slices.get(&slice.0, &slice.1).map(|slice| targets(slice)).unwrap_or_default();
        for pod in pods {
            self.mark(Kind::Pod, &pod);
        }
    }

    pub(super) fn set_policy(&mut self, name: Name, new: Option<Arc<AuthorizationPolicy>>) {
        let key = ObjectRef::new(Kind::AuthorizationPolicy, &name.0, &name.1);
        self.marked.insert(key.clone());
        let selector = new.as_ref().and_then(|policy| authorization::selector(policy)).cloned();
        let old = self.links.policies.set(&name, selector.as_ref());
        let varies = self.policies.convert(&self.mesh, &key, new.as_deref());
        let exists = new.is_some();
        let replaced = self.objects.policies.set(&name, new);
        // The rules of a policy are a resource of its own: workloads name it, and change only when another set of them
        // does.
        if old != selector {
            for selector in [&old, &selector].into_iter().flatten() {
                self.mark_pods_in_scope(&name.0, selector);
            }
        }
        if varies {
            // The workloads on which the policy can match may differ now.
            let everything = StringMap::new();
            let was = replaced.map(|_| old.as_ref().unwrap_or(&everything));
            let is = exists.then(|| selector.as_ref().unwrap_or(&everything));
            for selector in [was, is].into_iter().flatten() {
                self.mark_pods_in_scope(&name.0, selector);
            }
        }
    }

    pub(super) fn set_peer(&mut self, name: Name, new: Option<Arc<PeerAuthentication>>) {
        let old = self.objects.set_peer(&name, new.clone());
        self.mark(Kind::PeerAuthentication, &name);
        let is_wide = |policy: &Arc<PeerAuthentication>| peer_authentication::selector(policy).is_none();
        if [&old, &new].into_iter().flatten().any(is_wide) {
            // The mode that others inherit may differ now.
            let is_root = name.0 == self.mesh.root_namespace;
            let inheriting = self.objects.peers.iter().filter(|(namespace, _)| is_root || **namespace == name.0);
            let keys = inheriting.flat_map(|(namespace, peers)| {
                peers.keys().map(move |peer| ObjectRef::new(Kind::PeerAuthentication, namespace, peer))
            });
            self.marked.extend(keys);
        } else {
            // Another one may be the oldest now.
            let keys = self.objects.peers.get(&name.0).into_iter().flatten();
            self.marked.extend(keys.map(|(peer, _)| ObjectRef::new(Kind::PeerAuthentication, &name.0, peer)));
        }
        for policy in [old, new].into_iter().flatten() {
            let everything = StringMap::new();
            let selector = peer_authentication::selector(&policy).unwrap_or(&everything);
            self.mark_pods_in_scope(&name.0, selector);
        }
    }
}

/// Setting of a namespace that applies to its services.
fn distribution(namespace: Option<&Namespace>) -> Option<&String> {
    namespace?.metadata.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION)
}
