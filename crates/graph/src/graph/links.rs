//! Indexes by which an object finds those that refer to it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use kube_types::StringMap;
use kube_types::core::EndpointSlice;

use super::objects::Name;
use crate::resolved::PodTarget;
use crate::selectors::Selectors;

#[derive(Debug, Default)]
pub(super) struct Links {
    /// Selectors of Services, by namespace.
    pub(super) services: BySelector,
    /// Selectors of AuthorizationPolicies, by namespace.
    pub(super) policies: BySelector,
    slices_of_service: HashMap<Name, BTreeSet<Name>>,
    /// Slices that have an endpoint for a pod.
    slices_of_pod: HashMap<Name, BTreeSet<Name>>,
}

/// Selectors of objects of one kind, by namespace.
#[derive(Debug, Default)]
pub(super) struct BySelector(HashMap<String, Selectors>);

impl BySelector {
    /// Names of the objects of a namespace whose selectors match, sorted.
    pub(super) fn matching(&self, namespace: &str, labels: &StringMap) -> BTreeSet<&str> {
        self.0.get(namespace).map(|selectors| selectors.matching(labels)).unwrap_or_default()
    }

    /// Replaces the selector of an object and returns the old one. `None` and an empty one select nothing.
    pub(super) fn set(&mut self, name: &Name, new: Option<&StringMap>) -> Option<StringMap> {
        let selectors = self.0.entry(name.0.clone()).or_default();
        // A copy for the caller, which has to mark the objects that matched the old one.
        let old = selectors.get(&name.1).cloned();
        match new {
            Some(new) => selectors.insert(&name.1, new),
            None => selectors.remove(&name.1),
        }
        if selectors.is_empty() {
            self.0.remove(&name.0);
        }
        old
    }
}

impl Links {
    /// Slices of a Service, sorted.
    pub(super) fn slices_of_service(&self, service: &Name) -> impl Iterator<Item = &Name> {
        self.slices_of_service.get(service).into_iter().flatten()
    }

    /// Slices that have an endpoint for a pod, sorted.
    pub(super) fn slices_of_pod(&self, pod: &Name) -> impl Iterator<Item = &Name> {
        self.slices_of_pod.get(pod).into_iter().flatten()
    }

    /// Replaces the links of a slice.
    pub(super) fn set_slice(&mut self, name: &Name, old: Option<&EndpointSlice>, new: Option<&EndpointSlice>) {
        // Out with all of the old links first: an endpoint may have moved from one pod to another.
        if let Some(old) = old {
            if let Some(service) = service_of(name, old) {
                discard(&mut self.slices_of_service, &service, name);
            }
            for pod in targets(old) {
                discard(&mut self.slices_of_pod, &pod, name);
            }
        }
        if let Some(new) = new {
            if let Some(service) = service_of(name, new) {
                self.slices_of_service.entry(service).or_default().insert(name.clone());
            }
            for pod in targets(new) {
                self.slices_of_pod.entry(pod).or_default().insert(name.clone());
            }
        }
    }
}

/// Service of a slice, which is in the same namespace.
fn service_of(slice: &Name, object: &EndpointSlice) -> Option<Name> {
    // By the label `kubernetes.io/service-name`; a slice without it belongs to no Service.
    object.service_name().map(|service| (slice.0.clone(), service.to_owned()))
}

/// Pods that a slice has endpoints for.
pub(super) fn targets(slice: &EndpointSlice) -> BTreeSet<Name> {
    let targets = slice.endpoints.iter().filter_map(PodTarget::of);
    targets.map(|target| (target.namespace.to_owned(), target.name.to_owned())).collect()
}

fn discard<K: Hash + Eq, T: Ord>(sets: &mut HashMap<K, BTreeSet<T>>, key: &K, item: &T) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(item);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
