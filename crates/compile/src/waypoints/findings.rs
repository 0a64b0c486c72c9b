//! Findings about the objects that routes come from: those of each service that an object is for, and that it is for none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use graph::{Finding, Reason, Severity};
use kube_types::{ObjectRef, Resource};

use super::ServiceKey;
use super::index::Index;
use super::references::is_service;

#[derive(Debug, Default)]
pub(super) struct Findings {
    /// By object, then by the service that it is for.
    found: HashMap<ObjectRef, BTreeMap<ServiceKey, Vec<Finding>>>,
    /// Objects of each service.
    objects: HashMap<ServiceKey, BTreeSet<ObjectRef>>,
    /// As they were reported last; no entry stands for none.
    reported: HashMap<ObjectRef, Vec<Finding>>,
    /// Objects whose findings may differ.
    touched: BTreeSet<ObjectRef>,
}

impl Findings {
    pub(super) fn touch(&mut self, key: &ObjectRef) {
        self.touched.insert(key.clone());
    }

    /// Replaces what was found while a service was compiled.
    pub(super) fn set_unit(&mut self, service: &ServiceKey, found: BTreeMap<ObjectRef, Vec<Finding>>) {
        for object in self.objects.remove(service).into_iter().flatten() {
            if let Some(services) = self.found.get_mut(&object) {
                services.remove(service);
                if services.is_empty() {
                    self.found.remove(&object);
                }
            }
            self.touched.insert(object);
        }
        for (object, found) in found {
            self.touched.insert(object.clone());
            self.objects.entry(service.clone()).or_default().insert(object.clone());
            self.found.entry(object).or_default().insert(service.clone(), found);
        }
    }

    /// All findings of each object whose findings changed, in the order of objects.
    pub(super) fn settle(&mut self, index: &Index) -> Vec<(ObjectRef, Vec<Finding>)> {
        let mut changed = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let findings = index.get(&key).map(|object| self.of(&key, object)).unwrap_or_default();
            if self.reported.get(&key).map_or(&[][..], Vec::as_slice) == findings {
                continue;
            }
            match findings.is_empty() {
                true => drop(self.reported.remove(&key)),
                false => drop(self.reported.insert(key.clone(), findings.clone())),
            }
            changed.push((key, findings));
        }
        changed
    }

    fn of(&self, key: &ObjectRef, object: &Resource) -> Vec<Finding> {
        match self.found.get(key) {
            // Of several services the same is found often.
            Some(services) => services.values().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            None => unused(key, object).into_iter().collect(),
        }
    }
}

/// Finding about an object that is for no service with a waypoint.
fn unused(key: &ObjectRef, object: &Resource) -> Option<Finding> {
    let field = match object {
        // Another rule names it.
        Resource::VirtualService(of) if of.spec.hosts.is_empty() => return None,
        Resource::VirtualService(_) => "spec.hosts",
        Resource::DestinationRule(_) => "spec.host",
        // Routes of an ingress are for others.
        Resource::HTTPRoute(of) if !of.spec.parent_refs.iter().any(is_service) => return None,
        Resource::GRPCRoute(of) if !of.spec.parent_refs.iter().any(is_service) => return None,
        Resource::HTTPRoute(_) | Resource::GRPCRoute(_) => "spec.parentRefs",
        Resource::AuthorizationPolicy(_) => "spec.targetRefs",
        _ => return None,
    };
    Some(Finding {
        object: key.clone(),
        severity: Severity::Warning,
        reason: Reason::NeedsWaypoint,
        field: field.to_owned(),
        message: "no service that it is for is bound to a waypoint: it has no effect".to_owned(),
    })
}
