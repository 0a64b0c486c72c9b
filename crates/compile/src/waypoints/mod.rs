//! Resources of waypoints: the routes of each service that is bound to one, compiled again when something changes that they
//! depend on, and findings about the objects that they come from. What a change costs depends on the services that it
//! concerns, not on the others.

mod describe;
mod findings;
mod index;
mod policies;
mod references;
mod services;
mod unit;

use std::collections::{BTreeMap, BTreeSet};

use graph::{Finding, Mesh, Resolved};
use kube_types::{Kind, ObjectRef};
use proto::Change;

use crate::encode;
pub use describe::{describe, routes};
use findings::Findings;
use index::Index;
use services::Services;
use unit::Unit;

/// Namespace and name of a Gateway.
pub type GatewayName = (String, String);

/// Namespace and host name of a service.
type ServiceKey = (String, String);

/// Result of the changes since the last call.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Differences for the waypoints of each gateway, in the order of names.
    pub(crate) resources: BTreeMap<GatewayName, Vec<Change>>,
    /// All findings of an object whose findings changed.
    pub(crate) findings: Vec<(ObjectRef, Vec<Finding>)>,
    /// Number of services that were compiled.
    pub(crate) compiled: usize,
}

/// Services that are bound to waypoints, and the objects that routes come from.
#[derive(Debug, Default)]
pub(crate) struct Waypoints {
    services: Services,
    index: Index,
    findings: Findings,
    units: BTreeMap<ServiceKey, Unit>,
    /// Services to compile.
    dirty: BTreeSet<ServiceKey>,
}

impl Waypoints {
    /// Takes over what has become of these objects.
    pub(crate) fn replace(&mut self, mesh: &Mesh, objects: &[(ObjectRef, Resolved)]) {
        for (key, resolved) in objects {
            match (resolved, key.kind) {
                (Resolved::Service(_) | Resolved::Entry(_), _)
                | (Resolved::Nothing, Kind::Service | Kind::ServiceEntry) => {
                    self.set_services(key, services::of(mesh, resolved));
                }
                (Resolved::Routing(object), _) => {
                    let old = self.index.set(mesh, key, Some(object));
                    self.mark_object(mesh, key, &old);
                }
                (
                    Resolved::Nothing,
                    Kind::VirtualService
                    | Kind::DestinationRule
                    | Kind::HTTPRoute
                    | Kind::GRPCRoute
                    | Kind::AuthorizationPolicy,
                ) => {
                    let old = self.index.set(mesh, key, None);
                    self.mark_object(mesh, key, &old);
                }
                _ => {}
            }
        }
    }

    /// Compiles the services that are concerned.
    pub(crate) fn settle(&mut self, mesh: &Mesh) -> Outcome {
        let mut outcome = Outcome::default();
        for key in std::mem::take(&mut self.dirty) {
            let is_bound = self.services.get(&key).is_some_and(|service| !service.gateways.is_empty());
            let new = is_bound.then(|| Unit::compile(mesh, &self.services, &self.index, &key)).flatten();
            outcome.compiled += usize::from(new.is_some());
            let old = match new {
                Some(new) => {
                    self.findings.set_unit(&key, new.findings.clone());
                    self.units.insert(key.clone(), new)
                }
                None => {
                    self.findings.set_unit(&key, BTreeMap::new());
                    self.units.remove(&key)
                }
            };
            let new = self.units.get(&key);
            self.index.set_needs(&key, new.map(|unit| unit.needs.clone()).unwrap_or_default());
            changes(&key, old.as_ref(), new, &mut outcome.resources);
        }
        outcome.findings = self.findings.settle(&self.index);
        outcome
    }

    /// Replaces the services of an object.
    fn set_services(&mut self, key: &ObjectRef, new: Vec<(ServiceKey, services::Service)>) {
        // Most updates of a Service are about its endpoints or its status, which no route depends on.
        for changed in self.services.replace(key, new) {
            self.dirty.extend(self.index.users_of_host(&changed.1).cloned());
            self.dirty.insert(changed);
        }
    }

    /// Marks the services that an object was for, and those that it is for now.
    fn mark_object(&mut self, mesh: &Mesh, key: &ObjectRef, old: &references::Subject) {
        self.findings.touch(key);
        self.dirty.extend(self.index.users_of_object(key).cloned());
        for subject in [old, &self.index.subject(mesh, key)] {
            for host in &subject.hosts {
                match host.starts_with('*') {
                    true => {
                        let hosts = self.services.hosts().filter(|name| route_compile::covers(host, name));
                        let keys: Vec<_> = hosts.flat_map(|name| self.services.of_host(name)).collect();
                        self.dirty.extend(keys.into_iter().filter(|key| self.services.is_bound(key)));
                    }
                    false => self.dirty.extend(self.services.of_host(host).filter(|key| self.services.is_bound(key))),
                }
            }
            // A DestinationRule says something to everybody who sends to its host.
            if key.kind == Kind::DestinationRule {
                self.dirty.extend(subject.hosts.iter().flat_map(|host| self.index.users_of_pattern(host)).cloned());
            }
        }
    }
}

/// Differences between what was sent of a service and what is to be sent.
fn changes(
    (namespace, host): &ServiceKey,
    old: Option<&Unit>,
    new: Option<&Unit>,
    changes: &mut BTreeMap<GatewayName, Vec<Change>>,
) {
    let name = || format!("{namespace}/{host}");
    let none = BTreeMap::new();
    let (old, new) = (old.map_or(&none, |unit| &unit.resources), new.map_or(&none, |unit| &unit.resources));
    for (gateway, resource) in new {
        if old.get(gateway).is_none_or(|before| before.hash != resource.hash) {
            let (version, value) = (encode::version(resource.hash), resource.bytes.clone().into());
            changes.entry(gateway.clone()).or_default().push(Change::Upsert { name: name(), version, value });
        }
    }
    for gateway in old.keys().filter(|gateway| !new.contains_key(*gateway)) {
        changes.entry(gateway.clone()).or_default().push(Change::Remove { name: name() });
    }
}
