//! Objects that come, change and go: each change marks the objects that depend on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use contract::labels::{NETWORK_LABEL, TRAFFIC_DISTRIBUTION_ANNOTATION};
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
    pub(super) fn mark(&mut self, kind: Kind, name: &Name) {
        self.marked.insert(ObjectRef::new(kind, &name.0, &name.1));
    }

    /// Marks everything of a namespace that goes out.
    pub(super) fn mark_all_in(&mut self, namespace: &str) {
        // An empty selector is a subset of any labels.
        let everything = StringMap::new();
        self.mark_workloads(namespace, &everything);
        let services = self.objects.services.within(namespace).map(|(name, _)| (Kind::Service, name));
        let entries = self.objects.service_entries.within(namespace).map(|(name, _)| (Kind::ServiceEntry, name));
        let all = services.chain(entries);
        self.marked.extend(all.map(|(kind, name)| ObjectRef::new(kind, namespace, name)));
    }

    /// Marks everything that is on the network of the cluster.
    fn mark_everything(&mut self) {
        let objects = &self.objects;
        let namespaces = objects.pods.namespaces().chain(objects.services.namespaces());
        let namespaces = namespaces.chain(objects.service_entries.namespaces());
        let namespaces: BTreeSet<_> = namespaces.chain(objects.workload_entries.namespaces()).cloned().collect();
        for namespace in namespaces {
            self.mark_all_in(&namespace);
        }
        // Endpoints carry the network, too. `mark_all_in` leaves them out because no setting of a namespace is in them.
        let slices: Vec<_> = self.objects.slices.values().map(|slice| objects::name_of(&slice.metadata)).collect();
        for slice in slices {
            self.mark(Kind::EndpointSlice, &slice);
        }
    }

    /// Marks the workloads of a namespace with these labels that refer to policies.
    fn mark_governed(&mut self, namespace: &str, selector: &StringMap) {
        self.mark_workloads(namespace, selector);
        // The endpoints that a ServiceEntry lists are workloads with the labels of the entry.
        let entries = self.objects.service_entries.within(namespace);
        let matching = entries.filter(|(_, entry)| is_subset(selector, &entry.metadata.labels));
        self.marked.extend(matching.map(|(name, _)| ObjectRef::new(Kind::ServiceEntry, namespace, name)));
    }

    /// Marks the pods of a namespace with these labels.
    pub(super) fn mark_pods(&mut self, namespace: &str, selector: &StringMap) {
        let pods = self.objects.pods.within(namespace);
        let matching = pods.filter(|(_, pod)| is_subset(selector, &pod.metadata.labels));
        self.marked.extend(matching.map(|(name, _)| ObjectRef::new(Kind::Pod, namespace, name)));
    }

    /// Marks the workloads that a policy of this namespace may select.
    fn mark_in_scope(&mut self, namespace: &str, selector: &StringMap) {
        if namespace == self.mesh.root_namespace {
            let objects = &self.objects;
            let namespaces = objects.pods.namespaces().chain(objects.workload_entries.namespaces());
            let all: BTreeSet<_> = namespaces.chain(objects.service_entries.namespaces()).cloned().collect();
            for namespace in all {
                self.mark_governed(&namespace, selector);
            }
        } else {
            self.mark_governed(namespace, selector);
        }
    }

    pub(super) fn set_namespace(&mut self, name: &str, new: Option<Arc<Namespace>>) {
        self.marked.insert(ObjectRef::new(Kind::Namespace, "", name));
        // Before the labels change: the comparison below needs the visibility under the old ones.
        let visibility = self.visibility(name);
        let old = self.index.set_namespace(name, new.clone());
        self.review_namespace(name, visibility);
        self.mark_bound_in(name, old.as_deref(), new.as_deref());
        if name == self.mesh.root_namespace {
            let network = network(new.as_deref());
            // Every address carries its network, and a proxy does not find an address of another network: all have to
            // go out anew.
            if network != self.mesh.network {
                self.mesh.network = network;
                self.mark_everything();
            }
        }
        let names = |namespace: &Option<Arc<Namespace>>| namespace.is_some().then_some(names::of_namespace(name));
        self.world.exchange(names(&old), names(&new));
        // Nothing else of a namespace is part of other objects' resources: its labels say which pods the agent enrols,
        // and discovery follows the agent.
        if distribution(old.as_deref()) != distribution(new.as_deref()) {
            let services = self.objects.services.within(name);
            self.marked.extend(services.map(|(service, _)| ObjectRef::new(Kind::Service, name, service)));
            let entries = self.objects.service_entries.within(name);
            self.marked.extend(entries.map(|(entry, _)| ObjectRef::new(Kind::ServiceEntry, name, entry)));
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
        // A pod is proof that its namespace, its labels and its ServiceAccount exist, also when those are not read.
        self.world.exchange(old.as_deref().map(names::of_pod), new.as_deref().map(names::of_pod));
        self.index.set_pod(&name, old.as_deref(), new.as_ref());
    }

    pub(super) fn set_service(&mut self, name: Name, new: Option<Arc<Service>>) {
        self.mark(Kind::Service, &name);
        // Endpoints take port names and the host name from their Service.
        let slices: Vec<_> = self.links.slices_of_service(&name).cloned().collect();
        for slice in slices {
            self.mark(Kind::EndpointSlice, &slice);
            // A pod carries the ports of the Services in front of it, and which of these its hand-made slices name.
            self.mark_targets(&slice);
        }
        let selector = new.as_ref().filter(|service| is_in_mesh(service)).map(|service| service.spec.selector.clone());
        let old = self.links.services.set(&name, selector.as_ref());
        let exists = |service: &Option<Arc<Service>>| service.is_some().then_some(names::of_namespace(&name.0));
        let new_names = exists(&new);
        let was_in_mesh = self.objects.services.get(&name.0, &name.1).is_some_and(|service| is_in_mesh(service));
        let is_in_mesh = new.as_ref().is_some_and(|service| is_in_mesh(service));
        let replaced = self.objects.services.set(&name, new);
        // ServiceEntries with this host name step back for a Service, and come back when it goes.
        if was_in_mesh != is_in_mesh {
            self.mark_host(&self.mesh.hostname(&name.0, &name.1));
        }
        self.world.exchange(exists(&replaced), new_names);
        // Pods that the Service has left lose it, those that it has now get it. A Service without a selector has
        // hand-made endpoints.
        for selector in [old, selector].into_iter().flatten().filter(|selector| !selector.is_empty()) {
            self.mark_workloads(&name.0, &selector);
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
        // A clone, because the policy itself moves into the store below.
        let selector = new.as_ref().and_then(|policy| authorization::selector(policy)).cloned();
        let old = self.links.policies.set(&name, selector.as_ref());
        // Converted here and not in `settle`: the selection of each workload, which is resolved before the policies,
        // needs the rules.
        let varies = self.policies.convert(&self.mesh, &key, new.as_deref());
        let exists = new.is_some();
        let replaced = self.objects.policies.set(&name, new);
        // The rules of a policy are a resource of its own: workloads name it, and change only when another set of them
        // does.
        if old != selector {
            for selector in [&old, &selector].into_iter().flatten() {
                self.mark_in_scope(&name.0, selector);
            }
        }
        if varies {
            // The workloads on which the policy can match may differ now.
            let everything = StringMap::new();
            // The old workloads, too: they count the policy as one that cannot match, and have to give that up.
            let was = replaced.map(|_| old.as_ref().unwrap_or(&everything));
            let is = exists.then(|| selector.as_ref().unwrap_or(&everything));
            for selector in [was, is].into_iter().flatten() {
                self.mark_in_scope(&name.0, selector);
            }
        }
    }

    pub(super) fn set_peer(&mut self, name: Name, new: Option<Arc<PeerAuthentication>>) {
        let old = self.objects.set_peer(&name, new.clone());
        self.mark(Kind::PeerAuthentication, &name);
        // The old and the new form: a policy that has got a selector decides for the namespace no more.
        let is_wide = |policy: &Arc<PeerAuthentication>| peer_authentication::selector(policy).is_none();
        if [&old, &new].into_iter().flatten().any(is_wide) {
            // The mode that others inherit may differ now.
            let is_root = name.0 == self.mesh.root_namespace;
            // A mode of the root namespace is inherited in all of them.
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
        // The mode is a part of the workload's references, so that each workload under the policy has to be looked at,
        // whatever changed in it.
        for policy in [old, new].into_iter().flatten() {
            let everything = StringMap::new();
            let selector = peer_authentication::selector(&policy).unwrap_or(&everything);
            self.mark_in_scope(&name.0, selector);
        }
    }
}

/// Network that the namespace of the control plane names.
fn network(namespace: Option<&Namespace>) -> String {
    namespace.and_then(|namespace| namespace.metadata.labels.get(NETWORK_LABEL)).cloned().unwrap_or_default()
}

/// Setting of a namespace that applies to its services.
fn distribution(namespace: Option<&Namespace>) -> Option<&String> {
    namespace?.metadata.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION)
}
