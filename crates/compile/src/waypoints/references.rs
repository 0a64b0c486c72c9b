//! Names in objects: the hosts that an object is for, and those that it sends to.

use graph::Mesh;
use kube_types::gateway::ParentReference;
use kube_types::istio::{Destination, VirtualService};
use kube_types::{Kind, ObjectRef, Resource};
use route_compile::full_host;

/// Hosts that an object is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// Host names, `*` and `*.suffix` among them. Of a route the services that it is attached to.
    pub(super) hosts: Vec<String>,
}

impl Subject {
    pub(super) fn of(mesh: &Mesh, object: &Resource) -> Self {
        let namespace = object.meta().namespace.as_str();
        let full = |host: &String| full_host(host, namespace, &mesh.cluster_domain);
        let hosts = match object {
            Resource::VirtualService(of) => of.spec.hosts.iter().map(full).collect(),
            Resource::DestinationRule(of) => vec![full(&of.spec.host)],
            Resource::HTTPRoute(of) => parents(mesh, namespace, &of.spec.parent_refs),
            Resource::GRPCRoute(of) => parents(mesh, namespace, &of.spec.parent_refs),
            // Only those whose targets are all Services are passed on by the graph. Targets are in the policy's namespace.
            Resource::AuthorizationPolicy(of) => {
                let targets = of.spec.target_ref.iter().chain(&of.spec.target_refs);
                targets.map(|target| mesh.hostname(namespace, &target.name)).collect()
            }
            _ => Vec::new(),
        };
        Self { hosts }
    }
}

/// Host names of the Services that a route is attached to.
fn parents(mesh: &Mesh, namespace: &str, parents: &[ParentReference]) -> Vec<String> {
    let services = parents.iter().filter(|parent| is_service(parent));
    services.map(|parent| mesh.hostname(parent.namespace.as_deref().unwrap_or(namespace), &parent.name)).collect()
}

/// Returns true for the reference to a Service; one to a Gateway is for an ingress.
pub(super) fn is_service(parent: &ParentReference) -> bool {
    parent.kind.as_deref() == Some("Service") && matches!(parent.group.as_deref(), Some("" | "core"))
}

/// Host names of the services that an object sends to.
pub(super) fn destinations(mesh: &Mesh, object: &Resource) -> Vec<String> {
    let namespace = object.meta().namespace.as_str();
    let backend = |kind: Option<&str>, name: &str, of: Option<&str>| match kind {
        None | Some("Service") => mesh.hostname(of.unwrap_or(namespace), name),
        Some(_) => name.to_owned(),
    };
    match object {
        Resource::VirtualService(of) => destinations_of(of, &mesh.cluster_domain),
        Resource::HTTPRoute(of) => {
            let rules = || of.spec.rules.iter();
            let backends = || rules().flat_map(|rule| &rule.backend_refs);
            let filters = rules().flat_map(|rule| &rule.filters).chain(backends().flat_map(|of| &of.filters));
            let mirrors = filters.filter_map(|filter| filter.request_mirror.as_ref()).map(|mirror| &mirror.backend_ref);
            let mirrors = mirrors.map(|of| backend(of.kind.as_deref(), &of.name, of.namespace.as_deref()));
            let own = backends().map(|of| backend(of.kind.as_deref(), &of.name, of.namespace.as_deref()));
            own.chain(mirrors).collect()
        }
        Resource::GRPCRoute(of) => {
            let rules = || of.spec.rules.iter();
            let backends = || rules().flat_map(|rule| &rule.backend_refs);
            let filters = rules().flat_map(|rule| &rule.filters).chain(backends().flat_map(|of| &of.filters));
            let mirrors = filters.filter_map(|filter| filter.request_mirror.as_ref()).map(|mirror| &mirror.backend_ref);
            let mirrors = mirrors.map(|of| backend(of.kind.as_deref(), &of.name, of.namespace.as_deref()));
            let own = backends().map(|of| backend(of.kind.as_deref(), &of.name, of.namespace.as_deref()));
            own.chain(mirrors).collect()
        }
        _ => Vec::new(),
    }
}

fn destinations_of(of: &VirtualService, cluster_domain: &str) -> Vec<String> {
    let full = |destination: &Destination| full_host(&destination.host, &of.metadata.namespace, cluster_domain);
    let rules = || of.spec.http.iter();
    let routes = rules().flat_map(|rule| &rule.route).map(|route| full(&route.destination));
    let mirror = rules().filter_map(|rule| rule.mirror.as_ref()).map(full);
    let mirrors = rules().flat_map(|rule| &rule.mirrors).map(|mirror| full(&mirror.destination));
    routes.chain(mirror).chain(mirrors).collect()
}

/// VirtualServices that a VirtualService delegates to, whether they exist or not.
pub(super) fn delegates(object: &Resource) -> Vec<ObjectRef> {
    let Resource::VirtualService(of) = object else { return Vec::new() };
    let delegates = of.spec.http.iter().filter_map(|rule| rule.delegate.as_ref());
    let name = |namespace: &str, name: &str| ObjectRef::new(Kind::VirtualService, namespace, name);
    delegates
        .map(|delegate| match delegate.namespace.as_str() {
            "" => name(&of.metadata.namespace, &delegate.name),
            namespace => name(namespace, &delegate.name),
        })
        .collect()
}
