//! Services as routes see them: names, ports, and the gateways that they are bound to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use graph::{EntryServices, Mesh, MeshService, Resolved};
use kube_types::ObjectRef;
use proto::workload::AppProtocol as Declared;
use route_compile::Port;
use waypoint_config::AppProtocol;

use super::{GatewayName, ServiceKey};
use crate::app_protocol::{app_protocol, by_name};

/// A service, whether it is bound to a waypoint or only a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) facts: route_compile::Service,
    /// By port.
    pub(super) protocols: BTreeMap<u16, AppProtocol>,
    pub(super) gateways: BTreeSet<GatewayName>,
}

/// All services, by key and by the object that they come from.
#[derive(Debug, Default)]
pub(super) struct Services {
    by_key: BTreeMap<ServiceKey, Service>,
    /// Namespaces of each host name.
    namespaces: BTreeMap<String, BTreeSet<String>>,
    of_object: HashMap<ObjectRef, BTreeSet<ServiceKey>>,
    /// Object that each service comes from.
    owners: HashMap<ServiceKey, ObjectRef>,
}

impl Services {
    /// Replaces the services of an object. Returns the keys of those that differ.
    pub(super) fn replace(&mut self, object: &ObjectRef, new: Vec<(ServiceKey, Service)>) -> Vec<ServiceKey> {
        let keys: BTreeSet<_> = new.iter().map(|(key, _)| key.clone()).collect();
        let old = match keys.is_empty() {
            true => self.of_object.remove(object),
            false => self.of_object.insert(object.clone(), keys.clone()),
        };
        let mut changed = Vec::new();
        for key in old.into_iter().flatten().filter(|key| !keys.contains(key)) {
            // A Service takes the host name of a ServiceEntry over before the entry steps back.
            if self.owners.get(&key) == Some(object) {
                self.owners.remove(&key);
                self.by_key.remove(&key);
                self.forget(&key);
                changed.push(key);
            }
        }
        for (key, service) in new {
            self.owners.insert(key.clone(), object.clone());
            if self.by_key.get(&key) != Some(&service) {
                self.namespaces.entry(key.1.clone()).or_default().insert(key.0.clone());
                self.by_key.insert(key.clone(), service);
                changed.push(key);
            }
        }
        changed
    }

    fn forget(&mut self, (namespace, host): &ServiceKey) {
        if let Some(namespaces) = self.namespaces.get_mut(host) {
            namespaces.remove(namespace);
            if namespaces.is_empty() {
                self.namespaces.remove(host);
            }
        }
    }

    pub(super) fn get(&self, key: &ServiceKey) -> Option<&Service> {
        self.by_key.get(key)
    }

    pub(super) fn is_bound(&self, key: &ServiceKey) -> bool {
        self.get(key).is_some_and(|service| !service.gateways.is_empty())
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.namespaces.keys()
    }

    /// Keys of the services with a host name.
    pub(super) fn of_host<'a>(&'a self, host: &'a str) -> impl Iterator<Item = ServiceKey> + 'a {
        let namespaces = self.namespaces.get(host).into_iter().flatten();
        namespaces.map(move |namespace| (namespace.clone(), host.to_owned()))
    }

    /// The service that a host name means in a namespace: its own before others.
    pub(super) fn named(&self, host: &str, namespace: &str) -> Option<&Service> {
        let namespaces = self.namespaces.get(host)?;
        let owner = namespaces.get(namespace).or_else(|| namespaces.first())?;
        self.by_key.get(&(owner.clone(), host.to_owned()))
    }
}

/// The services that an object makes.
pub(super) fn of(mesh: &Mesh, resolved: &Resolved) -> Vec<(ServiceKey, Service)> {
    match resolved {
        Resolved::Service(service) => vec![of_service(mesh, service)],
        Resolved::Entry(entry) => of_entry(entry),
        _ => Vec::new(),
    }
}

fn of_service(mesh: &Mesh, of: &MeshService) -> (ServiceKey, Service) {
    let meta = &of.service.metadata;
    // Other protocols than TCP do not go through a mesh.
    let ports: Vec<_> = of.service.spec.ports.iter().filter(|port| port.protocol() == "TCP").collect();
    let facts = route_compile::Service {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        ports: ports.iter().map(|port| Port { number: port.port, name: port.name.clone() }).collect(),
    };
    let protocols = ports.iter().map(|port| (port.port, protocol(app_protocol(port)))).collect();
    let key = (meta.namespace.clone(), mesh.hostname(&meta.namespace, &meta.name));
    (key, Service { facts, protocols, gateways: of.waypoints.gateways.clone() })
}

fn of_entry(of: &EntryServices) -> Vec<(ServiceKey, Service)> {
    let (namespace, spec) = (&of.entry.metadata.namespace, &of.entry.spec);
    let service = Service {
        facts: route_compile::Service {
            // A route that is attached to a Service of the same name is not meant.
            name: String::new(),
            namespace: namespace.clone(),
            ports: spec.ports.iter().map(|port| Port { number: port.number, name: port.name.clone() }).collect(),
        },
        protocols: spec.ports.iter().map(|port| (port.number, protocol(by_name(&port.protocol)))).collect(),
        gateways: of.waypoints.gateways.clone(),
    };
    of.hosts.iter().map(|host| ((namespace.clone(), host.host.clone()), service.clone())).collect()
}

const fn protocol(declared: Declared) -> AppProtocol {
    match declared {
        Declared::Unknown => AppProtocol::Undeclared,
        Declared::Http11 => AppProtocol::Http1,
        Declared::Http2 | Declared::Grpc => AppProtocol::Http2,
        Declared::Tcp | Declared::Tls => AppProtocol::Tcp,
    }
}
