//! One service that is bound to waypoints: its routes for each of them.

use std::collections::{BTreeMap, BTreeSet};

use graph::{Finding, Mesh, Reason, Severity};
use kube_types::{Kind, ObjectRef, Resource};
use route_compile::{Place, World, compile};
use waypoint_config::{PortConfig, ServiceConfig, encode_service};

use super::index::{Index, Need};
use super::services::{Service, Services};
use super::{GatewayName, ServiceKey, policies, references};
use crate::encode::Encoded;

/// Result of compiling a service.
#[derive(Debug)]
pub(super) struct Unit {
    /// Resource for each of its gateways.
    pub(super) resources: BTreeMap<GatewayName, Encoded>,
    /// Findings in each object that is for the service; none for an object without mistakes.
    pub(super) findings: BTreeMap<ObjectRef, Vec<Finding>>,
    pub(super) needs: BTreeSet<Need>,
}

impl Unit {
    /// Compiles the routes of a service. `None` if there is none of this key.
    pub(super) fn compile(mesh: &Mesh, services: &Services, index: &Index, key: &ServiceKey) -> Option<Self> {
        let service = services.get(key)?;
        let selection = Selection::of(mesh, index, key);
        let world = selection.world(mesh, services, &key.0);
        let mut findings: BTreeMap<ObjectRef, Vec<Finding>> =
            selection.objects.keys().map(|key| ((*key).clone(), Vec::new())).collect();
        // The same for every gateway.
        let (policies, found) = policies::of(mesh, &service.facts, selection.objects.values().copied());
        for (object, found) in found {
            findings.entry(object).or_default().push(found);
        }
        // Of the routes, only the namespace of a gateway makes a difference: the gateways of one share the work.
        let mut by_namespace: BTreeMap<&str, Encoded> = BTreeMap::new();
        for (namespace, _) in &service.gateways {
            by_namespace.entry(namespace).or_insert_with(|| {
                let (mut config, found) = config(&world, service, &key.1, namespace);
                config.policies = policies.clone();
                for (object, found) in found {
                    findings.entry(object).or_default().push(found);
                }
                Encoded::new(encode_service(&key.0, &key.1, &config))
            });
        }
        let of = |gateway: &GatewayName| Some((gateway.clone(), by_namespace.get(gateway.0.as_str())?.clone()));
        let resources = service.gateways.iter().filter_map(of).collect();
        Some(Self { resources, findings, needs: selection.needs })
    }
}

/// Configuration of a service for the waypoints of one namespace.
fn config(world: &World, service: &Service, host: &str, waypoint: &str) -> (ServiceConfig, Vec<(ObjectRef, Finding)>) {
    let (mut config, mut findings) = (ServiceConfig::default(), Vec::new());
    for port in &service.facts.ports {
        let place = Place { waypoint, host, service: &service.facts, port: port.number };
        let compiled = compile(world, place);
        findings.extend(compiled.findings.iter().filter_map(of_object));
        let protocol = service.protocols.get(&port.number).copied().unwrap_or_default();
        config.ports.insert(port.number, PortConfig { protocol, routes: compiled.routes });
    }
    (config, findings)
}

pub(super) fn of_object(found: &route_compile::Finding) -> Option<(ObjectRef, Finding)> {
    let route_compile::Finding { origin, reason, message } = found;
    let object = ObjectRef::new(origin.kind.parse().ok()?, &origin.namespace, &origin.name);
    let reason = match reason {
        route_compile::Reason::Invalid => Reason::InvalidValue,
        route_compile::Reason::Unsupported => Reason::Unsupported,
        route_compile::Reason::Ignored => Reason::Ignored,
        route_compile::Reason::Missing => Reason::MissingReference,
        route_compile::Reason::Shadowed => Reason::Shadowed,
    };
    let (field, message) = (origin.field.clone(), message.clone());
    Some((object.clone(), Finding { object, severity: Severity::Warning, reason, field, message }))
}

/// Objects that may say something about a service, and all that its routes depend on.
struct Selection<'a> {
    objects: BTreeMap<&'a ObjectRef, &'a Resource>,
    needs: BTreeSet<Need>,
}

impl<'a> Selection<'a> {
    fn of(mesh: &Mesh, index: &'a Index, (_, host): &ServiceKey) -> Self {
        let mut objects: BTreeMap<_, _> = index.of_host(host).into_iter().collect();
        let mut needs: BTreeSet<_> = [Need::Host(host.clone())].into();
        // A delegate cannot delegate further.
        let named: Vec<_> = objects.values().flat_map(|object| references::delegates(object)).collect();
        objects.extend(named.iter().filter_map(|key| index.get_key_value(key)));
        needs.extend(named.into_iter().map(Need::Object));
        let hosts = objects.values().flat_map(|object| references::destinations(mesh, object));
        needs.extend(hosts.map(Need::Host));
        // The rules of all hosts that requests are sent to, not only of the service's own.
        for need in &needs {
            let Need::Host(host) = need else { continue };
            objects.extend(index.of_host(host).into_iter().filter(|(key, _)| key.kind == Kind::DestinationRule));
        }
        Self { objects, needs }
    }

    /// The part of the mesh that the routes depend on.
    fn world(&self, mesh: &Mesh, services: &Services, namespace: &str) -> World {
        let mut world = World {
            cluster_domain: mesh.cluster_domain.clone(),
            root_namespace: mesh.root_namespace.clone(),
            ..World::default()
        };
        let hosts = self.needs.iter().filter_map(|need| match need {
            Need::Host(host) => Some(host),
            Need::Object(_) => None,
        });
        for host in hosts {
            if let Some(service) = services.named(host, namespace) {
                world.services.insert(host.clone(), service.facts.clone());
            }
        }
        for object in self.objects.values() {
            match object {
                Resource::DestinationRule(of) => world.destination_rules.push((**of).clone()),
                Resource::VirtualService(of) => world.virtual_services.push((**of).clone()),
                Resource::HTTPRoute(of) => world.http_routes.push((**of).clone()),
                Resource::GRPCRoute(of) => world.grpc_routes.push((**of).clone()),
                _ => {}
            }
        }
        world
    }
}
