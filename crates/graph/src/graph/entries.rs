//! ServiceEntries and WorkloadEntries that come, change and go, and which entry stands for a host name.
//!
//! Several objects may have one host name. In each namespace one of them counts: the Kubernetes Service, else the oldest
//! ServiceEntry. Of all namespaces one is canonical, which clients elsewhere use: again the Service, else the oldest.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube_types::istio::{ServiceEntry, WorkloadEntry};
use kube_types::{Kind, ObjectRef, StringMap};

use super::Graph;
use super::links::BySelector;
use super::objects::Name;
use crate::resolved::{SelectedEntry, Visibility, is_in_mesh};

#[derive(Debug, Default)]
pub(super) struct EntryIndex {
    by_host: HashMap<String, BTreeSet<Name>>,
    /// Selectors of workloads, by namespace.
    pub(super) selectors: BySelector,
}

impl EntryIndex {
    fn with_host(&self, host: &str) -> impl Iterator<Item = &Name> {
        self.by_host.get(host).into_iter().flatten()
    }

    fn set_hosts(&mut self, name: &Name, old: &[String], new: &[String]) {
        for host in old {
            if let Some(names) = self.by_host.get_mut(host) {
                names.remove(name);
                if names.is_empty() {
                    self.by_host.remove(host);
                }
            }
        }
        for host in new {
            self.by_host.entry(host.clone()).or_default().insert(name.clone());
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_host.is_empty()
    }
}

impl Graph {
    pub(super) fn set_service_entry(&mut self, name: Name, new: Option<Arc<ServiceEntry>>) {
        self.mark(Kind::ServiceEntry, &name);
        let selector = new.as_ref().and_then(|entry| entry.selector()).cloned();
        let old_selector = self.entries.selectors.set(&name, selector.as_ref());
        let hosts = |entry: &Option<Arc<ServiceEntry>>| {
            entry.as_ref().map(|entry| entry.spec.hosts.clone()).unwrap_or_default()
        };
        let new_hosts = hosts(&new);
        let old = self.objects.service_entries.set(&name, new);
        let old_hosts = hosts(&old);
        self.entries.set_hosts(&name, &old_hosts, &new_hosts);
        // Other entries with one of the hosts may count now, or count no more. After `set_hosts`, so that the index has
        // this entry already.
        for host in old_hosts.iter().chain(&new_hosts) {
            self.mark_host(host);
        }
        // Workloads that the entry has left lose its hosts, those that it has now get them.
        for selector in [old_selector, selector].into_iter().flatten() {
            self.mark_workloads(&name.0, &selector);
        }
    }

    pub(super) fn set_workload_entry(&mut self, name: Name, new: Option<Arc<WorkloadEntry>>) {
        self.mark(Kind::WorkloadEntry, &name);
        // Nothing else depends on a WorkloadEntry: services and policies are found by its labels when it is resolved.
        self.objects.workload_entries.set(&name, new);
    }

    /// Marks the entries with a host name, and the workloads that they select.
    pub(super) fn mark_host(&mut self, host: &str) {
        let entries: Vec<_> = self.entries.with_host(host).cloned().collect();
        for entry in entries {
            self.mark_entry(&entry);
        }
    }

    pub(super) fn mark_entry(&mut self, name: &Name) {
        self.mark(Kind::ServiceEntry, name);
        let entry = self.objects.service_entries.get(&name.0, &name.1);
        if let Some(selector) = entry.and_then(|entry| entry.selector()).cloned() {
            self.mark_workloads(&name.0, &selector);
        }
    }

    /// Marks the pods and WorkloadEntries of a namespace with these labels.
    pub(super) fn mark_workloads(&mut self, namespace: &str, selector: &StringMap) {
        self.mark_pods(namespace, selector);
        let entries = self.objects.workload_entries.within(namespace);
        let matching = entries.filter(|(_, entry)| kube_types::is_subset(selector, &entry.labels()));
        self.marked.extend(matching.map(|(name, _)| ObjectRef::new(Kind::WorkloadEntry, namespace, name)));
    }

    /// The entries that select a workload of a namespace, each with the hosts for which it counts.
    pub(super) fn selecting_entries(&self, namespace: &str, labels: &StringMap) -> Vec<SelectedEntry> {
        let names = self.entries.selectors.matching(namespace, labels).into_iter();
        let entries = names.filter_map(|name| self.objects.service_entries.get(namespace, name));
        let entries = entries.map(|entry| SelectedEntry { entry: Arc::clone(entry), hosts: self.hosts_of(entry) });
        entries.filter(|selected| !selected.hosts.is_empty()).collect()
    }

    /// Hosts for which an entry counts in its namespace, in its order.
    pub(super) fn hosts_of(&self, entry: &ServiceEntry) -> Vec<String> {
        if self.visibility(&entry.metadata.namespace).is_none() {
            return Vec::new();
        }
        // A host that is listed twice would become two resources of one name.
        let mut seen = BTreeSet::new();
        let hosts = entry.spec.hosts.iter().filter(|host| seen.insert(host.as_str()));
        hosts.filter(|host| self.counts(entry, host)).cloned().collect()
    }

    /// Returns true if no Service and no older entry of the namespace has this host.
    fn counts(&self, entry: &ServiceEntry, host: &str) -> bool {
        let namespace = &entry.metadata.namespace;
        let is_service = self.service_with(host).is_some_and(|(owner, _)| owner == namespace);
        let others = self.entries.with_host(host).filter(|(owner, _)| owner == namespace);
        let mut others = others.filter_map(|(owner, name)| self.objects.service_entries.get(owner, name));
        // The entry itself is among the others, and is as old as itself.
        !is_service && others.all(|other| age(entry) <= age(other))
    }

    /// Returns true if clients of other namespaces get this entry for a host.
    pub(super) fn is_canonical(&self, entry: &ServiceEntry, host: &str) -> bool {
        // In any namespace: clients elsewhere get the Service.
        if self.service_with(host).is_some() {
            return false;
        }
        let is_public = |entry: &ServiceEntry| self.visibility(&entry.metadata.namespace) == Some(Visibility::Public);
        let others = self.entries.with_host(host);
        let others = others.filter_map(|(owner, name)| self.objects.service_entries.get(owner, name));
        // An entry that is hidden from other namespaces cannot be the one that they use, however old it is.
        let mut public = others.filter(|other| is_public(other));
        is_public(entry) && public.all(|other| age(entry) <= age(other))
    }

    /// Namespace and name of the Kubernetes Service with a host name.
    fn service_with<'a>(&self, host: &'a str) -> Option<(&'a str, &'a str)> {
        let (namespace, name) = self.mesh.service_of(host)?;
        self.objects.services.get(namespace, name).filter(|service| is_in_mesh(service)).map(|_| (namespace, name))
    }
}

/// Older first; of the same age, by name.
fn age(entry: &ServiceEntry) -> (&Option<String>, &str, &str) {
    let meta = &entry.metadata;
    // RFC 3339 times in UTC, as the API server writes them, sort as text.
    (&meta.creation_timestamp, &meta.namespace, &meta.name)
}
