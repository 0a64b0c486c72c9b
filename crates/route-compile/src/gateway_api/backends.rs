//! Backends of a rule to weighted destinations. A backend that cannot be used keeps its share, which is answered with 500.

use kube_types::gateway::{BackendReference, GrpcBackendRef, HttpBackendRef};
use route::{Destination, Origin, Target, Weighted};

use crate::finding::{Findings, Reason};
use crate::world::World;

/// Reference to a backend, of any kind of route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference<'a> {
    group: Option<&'a str>,
    kind: Option<&'a str>,
    name: &'a str,
    namespace: Option<&'a str>,
    port: Option<u16>,
    weight: Option<i32>,
}

impl<'a> From<&'a HttpBackendRef> for Reference<'a> {
    fn from(of: &'a HttpBackendRef) -> Self {
        let (group, kind, namespace) = (of.group.as_deref(), of.kind.as_deref(), of.namespace.as_deref());
        Self { group, kind, name: &of.name, namespace, port: of.port, weight: of.weight }
    }
}

impl<'a> From<&'a GrpcBackendRef> for Reference<'a> {
    fn from(of: &'a GrpcBackendRef) -> Self {
        let (group, kind, namespace) = (of.group.as_deref(), of.kind.as_deref(), of.namespace.as_deref());
        Self { group, kind, name: &of.name, namespace, port: of.port, weight: of.weight }
    }
}

impl<'a> From<&'a BackendReference> for Reference<'a> {
    fn from(of: &'a BackendReference) -> Self {
        let (group, kind, namespace) = (of.group.as_deref(), of.kind.as_deref(), of.namespace.as_deref());
        Self { group, kind, name: &of.name, namespace, port: of.port, weight: None }
    }
}

impl Reference<'_> {
    /// The destination with its share; one without weight has 1.
    pub(crate) fn weighted(&self, world: &World, at: &Origin, findings: &mut Findings) -> Weighted {
        let target = match self.destination(world, at, "its share of the requests is answered with 500", findings) {
            Some(destination) => Target::Service(destination),
            None => Target::Invalid,
        };
        let weight = u32::try_from(self.weight.unwrap_or(1)).unwrap_or_else(|_| {
            findings.add(Reason::Invalid, at, "weight", "the weight is negative: it counts as 0");
            0
        });
        Weighted::new(target, weight)
    }

    /// The destination; `None`, with a finding that says what happens `instead`, if it cannot be used.
    pub(crate) fn destination(
        &self,
        world: &World,
        at: &Origin,
        instead: &str,
        findings: &mut Findings,
    ) -> Option<Destination> {
        let namespace = self.namespace.unwrap_or(&at.namespace);
        let host = match (self.group.unwrap_or_default(), self.kind.unwrap_or("Service")) {
            ("" | "core", "Service") => format!("{}.{namespace}.svc.{}", self.name, world.cluster_domain),
            ("networking.istio.io", "Hostname") => self.name.to_owned(),
            (group, kind) => {
                let message = format!("{kind} of group {group:?} is not supported as a backend: {instead}");
                findings.add(Reason::Unsupported, at, "kind", message);
                return None;
            }
        };
        let Some(service) = world.services.get(&host) else {
            findings.add(Reason::Missing, at, "name", format!("there is no service {host:?}: {instead}"));
            return None;
        };
        let Some(port) = self.port else {
            findings.add(Reason::Invalid, at, "port", format!("a Service needs a port: {instead}"));
            return None;
        };
        if !service.has_port(port) {
            findings.add(Reason::Missing, at, "port", format!("{host} has no port {port}: {instead}"));
            return None;
        }
        Some(Destination { host, port, subset: None })
    }
}

/// Destinations of a rule. Without any share, all requests are answered with 500.
pub(crate) fn complete(destinations: Vec<Weighted>) -> Vec<Weighted> {
    if destinations.iter().any(|destination| destination.weight > 0) {
        return destinations;
    }
    vec![Weighted::new(Target::Invalid, 1)]
}
