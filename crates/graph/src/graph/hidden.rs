//! The mesh configuration, and objects in namespaces that it leaves out of the mesh. They are kept aside, so that they are
//! there at once when a label or the configuration changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube_types::core::ConfigMap;
use kube_types::{Kind, ObjectRef, Resource, StringMap};

use super::Graph;
use super::objects::Name;
use super::settle::Output;
use crate::mesh_config::{self, MESH_CONFIG_MAP, MeshConfig};
use crate::resolved::Visibility;

/// Kinds whose objects are of the mesh only in namespaces that it discovers. The others say nothing to a proxy.
const HIDDEN: [Kind; 12] = [
    Kind::PeerAuthentication,
    Kind::AuthorizationPolicy,
    Kind::Gateway,
    Kind::Service,
    Kind::ServiceEntry,
    Kind::Pod,
    Kind::WorkloadEntry,
    Kind::EndpointSlice,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::HTTPRoute,
    Kind::GRPCRoute,
];

#[derive(Debug, Default)]
pub(super) struct Hidden {
    config: MeshConfig,
    map: Option<Arc<ConfigMap>>,
    objects: BTreeMap<String, BTreeMap<ObjectRef, Resource>>,
}

impl Hidden {
    fn set_aside(&mut self, key: &ObjectRef, resource: Resource) {
        self.objects.entry(key.namespace.clone()).or_default().insert(key.clone(), resource);
    }

    pub(super) fn remove(&mut self, key: &ObjectRef) {
        if let Some(objects) = self.objects.get_mut(&key.namespace) {
            objects.remove(key);
            if objects.is_empty() {
                self.objects.remove(&key.namespace);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

impl Graph {
    /// Keeps a resource aside if its namespace is not of the mesh; returns it otherwise.
    pub(super) fn visible(&mut self, resource: Resource) -> Option<Resource> {
        let key = resource.key();
        if !HIDDEN.contains(&key.kind) || self.discovers(&key.namespace) {
            self.hidden.remove(&key);
            return Some(resource);
        }
        self.hidden.set_aside(&key, resource);
        None
    }

    /// Policies of the root namespace hold for the whole mesh, so it is always of the mesh.
    fn discovers(&self, namespace: &str) -> bool {
        namespace == self.mesh.root_namespace || self.hidden.config.discovers(self.labels_of(namespace))
    }

    /// Labels of a namespace; none when nothing is known of it.
    fn labels_of(&self, namespace: &str) -> &StringMap {
        // Namespaces and their objects come in any order. Selectors without `NotIn` or `DoesNotExist` leave out a
        // namespace that is unknown, which is repaired when it arrives.
        static NONE: StringMap = StringMap::new();
        self.index.pods.namespace(namespace).map_or(&NONE, |namespace| &namespace.metadata.labels)
    }

    /// Clients that see the ServiceEntries of a namespace; `None` for nobody.
    pub(super) fn visibility(&self, namespace: &str) -> Option<Visibility> {
        self.hidden.config.visibility(self.labels_of(namespace))
    }

    pub(super) fn set_config_map(&mut self, name: &Name, new: Option<Arc<ConfigMap>>) {
        // Other ConfigMaps mean nothing to the mesh.
        if name.0 != self.mesh.root_namespace || name.1 != MESH_CONFIG_MAP {
            return;
        }
        self.mark(Kind::ConfigMap, name);
        // Kept also when it is invalid, so that its findings can be computed by `mesh_config`.
        self.hidden.map = new;
        let config = match &self.hidden.map {
            // Deleting the ConfigMap is a decision; a mistake in it is none and keeps the last valid configuration.
            None => Some(MeshConfig::default()),
            Some(map) => mesh_config::read(&self.mesh, &config_key(name), map).0,
        };
        let Some(config) = config.filter(|config| *config != self.hidden.config) else { return };
        // Also namespaces that no Namespace object is known of: their objects may have come first.
        let namespaces = self.all_namespaces();
        // All of them before the configuration is replaced: afterwards the old visibility cannot be computed.
        let before: Vec<_> = namespaces.iter().map(|namespace| self.visibility(namespace)).collect();
        self.hidden.config = config;
        for (namespace, before) in namespaces.iter().zip(before) {
            self.review_discovery(namespace);
            if before != self.visibility(namespace) {
                self.mark_entries_in(namespace);
            }
        }
    }

    /// The mesh configuration, if this is its key.
    pub(super) fn config_map(&self, key: &ObjectRef) -> Option<&Arc<ConfigMap>> {
        self.hidden.map.as_ref().filter(|map| map.metadata.name == key.name && map.metadata.namespace == key.namespace)
    }

    /// Findings about the mesh configuration.
    pub(super) fn mesh_config(&self, key: &ObjectRef) -> Output {
        let findings = self.hidden.map.as_ref().map(|map| mesh_config::read(&self.mesh, key, map).1);
        Output { findings: findings.unwrap_or_default(), ..Output::default() }
    }

    /// Follows a change of a namespace's labels.
    pub(super) fn review_namespace(&mut self, name: &str, visibility: Option<Visibility>) {
        self.review_discovery(name);
        if visibility != self.visibility(name) {
            self.mark_entries_in(name);
        }
    }

    /// Takes the objects of a namespace into the mesh or out of it, if the configuration says so now.
    fn review_discovery(&mut self, namespace: &str) {
        if self.discovers(namespace) {
            let objects = self.hidden.objects.remove(namespace).unwrap_or_default();
            objects.into_values().for_each(|resource| self.apply_visible(resource));
            return;
        }
        // A clone of each pointer: the loop changes the maps that it would otherwise borrow.
        for resource in self.resources_in(namespace) {
            let key = resource.key();
            self.remove_visible(&key);
            self.hidden.set_aside(&key, resource);
        }
    }

    /// Marks the ServiceEntries of a namespace, and those that share a host with one.
    fn mark_entries_in(&mut self, namespace: &str) {
        let entries = self.objects.service_entries.within(namespace);
        let hosts: BTreeSet<_> = entries.flat_map(|(_, entry)| entry.spec.hosts.iter().cloned()).collect();
        for host in hosts {
            self.mark_host(&host);
        }
    }

    fn all_namespaces(&self) -> BTreeSet<String> {
        let objects = &self.objects;
        let of_objects = [objects.pods.namespaces().collect::<Vec<_>>(), objects.services.namespaces().collect()];
        let others = [
            objects.slices.namespaces().collect::<Vec<_>>(),
            objects.service_entries.namespaces().collect(),
            objects.workload_entries.namespaces().collect(),
            objects.gateways.namespaces().collect(),
            objects.policies.namespaces().collect(),
            objects.peers.keys().collect(),
            objects.routing.keys().map(|key| &key.namespace).collect(),
            self.hidden.objects.keys().collect(),
        ];
        of_objects.into_iter().chain(others).flatten().cloned().collect()
    }

    /// Objects of a namespace that are of the mesh only when it is discovered.
    fn resources_in(&self, namespace: &str) -> Vec<Resource> {
        let objects = &self.objects;
        // Must list the kinds of `HIDDEN`: one that is missing here would stay in the mesh when its namespace leaves.
        let peers = objects.peers.get(namespace).into_iter().flatten();
        let mut all: Vec<_> = peers.map(|(_, peer)| Resource::PeerAuthentication(Arc::clone(peer))).collect();
        all.extend(objects.policies.within(namespace).map(|(_, it)| Resource::AuthorizationPolicy(Arc::clone(it))));
        all.extend(objects.gateways.within(namespace).map(|(_, it)| Resource::Gateway(Arc::clone(it))));
        all.extend(objects.services.within(namespace).map(|(_, it)| Resource::Service(Arc::clone(it))));
        all.extend(objects.service_entries.within(namespace).map(|(_, it)| Resource::ServiceEntry(Arc::clone(it))));
        all.extend(objects.pods.within(namespace).map(|(_, it)| Resource::Pod(Arc::clone(it))));
        all.extend(objects.workload_entries.within(namespace).map(|(_, it)| Resource::WorkloadEntry(Arc::clone(it))));
        all.extend(objects.routing.values().filter(|it| it.meta().namespace == namespace).cloned());
        all.extend(objects.slices.within(namespace).map(|(_, it)| Resource::EndpointSlice(Arc::clone(it))));
        all
    }
}

fn config_key(name: &Name) -> ObjectRef {
    ObjectRef::new(Kind::ConfigMap, &name.0, &name.1)
}
