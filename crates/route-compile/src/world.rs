//! Objects that routes are compiled from, and what is known about services.

use std::collections::BTreeMap;

use kube_types::ObjectMeta;
use kube_types::gateway::{GrpcRoute, HttpRoute};
use kube_types::istio::{DestinationRule, VirtualService};
use route::retry::RetryPolicy;
use route::{Destination, Origin, Target, Weighted};

use crate::destination_rule;
use crate::finding::{Findings, Reason};

/// A service that routes may be for, or lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub namespace: String,
    pub ports: Vec<Port>,
}

/// Port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    pub number: u16,
    /// Empty for a port without a name.
    pub name: String,
}

impl Service {
    pub(crate) fn has_port(&self, number: u16) -> bool {
        self.ports.iter().any(|port| port.number == number)
    }
}

/// Everything that tables are compiled from.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Suffix of host names of Kubernetes Services, as `cluster.local`.
    pub cluster_domain: String,
    /// Namespace whose DestinationRules are for the whole mesh.
    pub root_namespace: String,
    /// By host name.
    pub services: BTreeMap<String, Service>,
    pub virtual_services: Vec<VirtualService>,
    pub destination_rules: Vec<DestinationRule>,
    pub http_routes: Vec<HttpRoute>,
    pub grpc_routes: Vec<GrpcRoute>,
}

/// One service port of a waypoint.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Namespace of the waypoint.
    pub waypoint: &'a str,
    /// Host name of the service.
    pub host: &'a str,
    pub service: &'a Service,
    pub port: u16,
}

/// Objects of the same kind in order of age; a name decides between those that are equally old.
pub(crate) fn by_age<T>(objects: &[T], meta: impl Fn(&T) -> &ObjectMeta) -> Vec<&T> {
    let mut sorted: Vec<_> = objects.iter().collect();
    sorted.sort_by(|one, other| age(meta(one)).cmp(&age(meta(other))));
    sorted
}

/// Sorts by age, then by namespace and name.
pub(crate) fn age(meta: &ObjectMeta) -> (Option<&str>, &str, &str) {
    (meta.creation_timestamp.as_deref(), &meta.namespace, &meta.name)
}

pub(crate) fn origin(kind: &'static str, meta: &ObjectMeta) -> Origin {
    Origin { kind, namespace: meta.namespace.clone(), name: meta.name.clone(), field: String::new() }
}

impl World {
    /// Retries of a rule that has none of its own: Istio's. Where a request's endpoint follows from a hash, a retry goes to
    /// the same one.
    pub(crate) fn default_retry(&self, place: Place<'_>, destinations: &[Weighted]) -> RetryPolicy {
        let is_hashed = destinations.iter().any(|of| match &of.target {
            Target::Service(destination) => destination_rule::is_hashed(self, place.waypoint, destination),
            Target::Missing(_) | Target::Invalid => false,
        });
        RetryPolicy { avoid_previous_hosts: !is_hashed, ..RetryPolicy::default() }
    }

    /// Resolves a destination of a VirtualService: a port that is not given is the service's only one, else that of the
    /// request.
    pub(crate) fn destination(
        &self,
        place: Place<'_>,
        host: String,
        port: Option<u16>,
        subset: &str,
        at: &Origin,
        findings: &mut Findings,
    ) -> Target {
        let service = self.services.get(&host);
        let only = service.and_then(|service| match service.ports.as_slice() {
            [port] => Some(port.number),
            _ => None,
        });
        let subset = (!subset.is_empty()).then(|| subset.to_owned());
        let destination = Destination { host, port: port.or(only).unwrap_or(place.port), subset };
        let missing = match service {
            None => Some(("host", format!("there is no service {:?}", destination.host))),
            Some(service) if !service.has_port(destination.port) => {
                Some(("port", format!("{} has no port {}", destination.host, destination.port)))
            }
            Some(service) => destination.subset.as_ref().and_then(|subset| {
                let is_known = destination_rule::has_subset(self, place.waypoint, &destination.host, service, subset);
                let message = || format!("no DestinationRule of {} has a subset {subset:?}", destination.host);
                (!is_known).then(|| ("subset", message()))
            }),
        };
        let Some((field, message)) = missing else {
            return Target::Service(destination);
        };
        findings.add(Reason::Missing, at, field, format!("{message}: requests for it are answered with 503"));
        Target::Missing(destination)
    }
}
