//! Services and their endpoints: which address and port of which pod answers for which Service. How that reaches the
//! kernel is in `kube_proxy`, how it reaches a resolver in `dns`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use contract::labels::SERVICE_NAME_LABEL;
use kube_types::core::{
    Container, Endpoint, EndpointConditions, EndpointPort, EndpointSlice, IntOrString, Service, ServicePort, TargetRef,
};
use kube_types::{ObjectMeta, is_subset};

use crate::{addresses::ServiceHosts, workloads::digest};

/// Facts about a running pod that Services depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) node: String,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) hostname: Option<String>,
    pub(crate) subdomain: Option<String>,
    pub(crate) containers: Vec<Container>,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
}

/// A Service with everything resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Its addresses, IPv4 first; empty for a headless one.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) ports: Vec<ResolvedPort>,
    /// Ready addresses, each with the host name that DNS serves it under.
    pub(crate) hosts: Vec<(IpAddr, Option<String>)>,
    /// Ready endpoints, those of both families once.
    pub(crate) endpoint_count: usize,
    /// The slices that say so; none when the user writes them.
    pub(crate) slices: Vec<EndpointSlice>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedPort {
    pub(crate) port: u16,
    pub(crate) udp: bool,
    /// Addresses that its connections go to, one for each connection.
    pub(crate) endpoints: Vec<SocketAddr>,
}

/// Address families of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As in `ipFamilies` and `addressType`.
    const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A Service with the addresses it has in the lab: what it asks for, else from the allocator. As in Kubernetes it has one
/// family, IPv4, unless it asks for more.
pub(crate) fn with_addresses(service: &Service, hosts: &mut ServiceHosts) -> Service {
    let mut service = service.clone();
    let spec = &mut service.spec;
    let named: Vec<_> = spec.addresses().filter_map(|text| text.parse().ok()).map(Family::of).collect();
    let dual = match spec.ip_family_policy.as_deref() {
        Some("PreferDualStack" | "RequireDualStack") => true,
        // Nothing says which families the endpoints have that somebody else writes.
        None => spec.is_headless() && spec.selector.is_empty(),
        Some(_) => false,
    };
    if spec.ip_families.is_empty() {
        let first = named.first().copied().unwrap_or(Family::V4);
        let families = if named.len() > 1 { named.clone() } else { vec![first] };
        spec.ip_families = families.iter().map(|family| family.name().to_owned()).collect();
    }
    if dual && named.is_empty() {
        for family in [Family::V4, Family::V6].map(Family::name) {
            if !spec.ip_families.iter().any(|known| known == family) {
                spec.ip_families.push(family.to_owned());
            }
        }
    }
    // The families above matter to these as well, but they have no address.
    if spec.is_headless() || spec.r#type.as_deref() == Some("ExternalName") {
        return service;
    }
    if spec.addresses().next().is_none() {
        let dual = hosts.get(&service.metadata.namespace, &service.metadata.name).both();
        spec.cluster_ips = spec
            .ip_families
            .iter()
            .filter_map(|family| dual.into_iter().find(|ip| Family::of(*ip).name() == *family))
            .map(|ip| ip.to_string())
            .collect();
    } else if spec.cluster_ips.is_empty() {
        spec.cluster_ips.extend(spec.cluster_ip.clone());
    }
    // The API server keeps the two fields equal in this way.
    spec.cluster_ip = spec.cluster_ips.first().cloned();
    service
}

/// Resolves a Service that has its addresses. `foreign` are the slices that the user wrote for it.
pub(crate) fn resolve(service: &Service, backends: &[Backend], foreign: &[&EndpointSlice]) -> Resolved {
    let slices = if service.spec.selector.is_empty() { Vec::new() } else { slices(service, backends) };
    let all: Vec<&EndpointSlice> = foreign.iter().copied().chain(&slices).collect();
    let ports = service.spec.ports.iter().map(|port| resolve_port(port, &all)).collect();
    let mut hosts: Vec<_> = usable(&all)
        .flat_map(|(_, endpoint)| {
            endpoint.addresses.iter().filter_map(|ip| Some((ip.parse().ok()?, endpoint.hostname.clone())))
        })
        .collect();
    // The same address may be in several slices, and each reader has to sort that out.
    hosts.sort();
    hosts.dedup();
    Resolved {
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone(),
        ips: service.spec.addresses().filter_map(|ip| ip.parse().ok()).collect(),
        ports,
        hosts,
        endpoint_count: count(&all, !service.spec.ports.is_empty()),
        slices,
    }
}

/// Pods that may be used, and addresses that belong to no pod: of those the larger family, since nothing
/// says which two are one machine's. With `ports`, those that have none of the Service's ports are left out.
fn count(slices: &[&EndpointSlice], ports: bool) -> usize {
    let mut pods = BTreeSet::new();
    let mut others: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
    for (slice, endpoint) in usable(slices).filter(|(slice, _)| !ports || !slice.ports.is_empty()) {
        match &endpoint.target_ref {
            Some(target) => drop(pods.insert((&target.kind, &target.namespace, &target.name))),
            None => others.entry(&slice.address_type).or_default().extend(&endpoint.addresses),
        }
    }
    pods.len() + others.values().map(BTreeSet::len).max().unwrap_or_default()
}

/// The endpoints that may be used: the ready ones, or when there are none those that
/// are going but still answer.
fn usable<'a>(slices: &'a [&EndpointSlice]) -> impl Iterator<Item = (&'a EndpointSlice, &'a Endpoint)> {
    let all = || slices.iter().flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (*slice, endpoint)));
    let ready = |endpoint: &Endpoint| endpoint.conditions.ready.unwrap_or(true);
    let any_ready = all().any(|(_, endpoint)| ready(endpoint));
    all().filter(move |(_, endpoint)| {
        let conditions = &endpoint.conditions;
        let leaving = conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false);
        if any_ready { ready(endpoint) } else { leaving }
    })
}

fn resolve_port(port: &ServicePort, slices: &[&EndpointSlice]) -> ResolvedPort {
    let mut endpoints: Vec<_> = usable(slices)
        .flat_map(|(slice, endpoint)| {
            let matches = |candidate: &&EndpointPort| {
                candidate.name.as_deref().unwrap_or_default() == port.name
                    && candidate.protocol.as_deref().unwrap_or("TCP") == port.protocol()
            };
            // The number is the slice's: a target port that is a name may be another number in each pod.
            let number = slice.ports.iter().find(matches).and_then(|found| found.port);
            let addresses = endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
            addresses.filter_map(move |ip| Some(SocketAddr::new(ip, number?)))
        })
        .collect();
    endpoints.sort();
    endpoints.dedup();
    ResolvedPort { port: port.port, udp: port.protocol() == "UDP", endpoints }
}

/// Name, protocol and number of a target port.
type NamedPort = (String, String, u16);

/// The slices of a Service with a selector: one for each family and each set of port numbers.
fn slices(service: &Service, backends: &[Backend]) -> Vec<EndpointSlice> {
    let meta = &service.metadata;
    let mut groups: BTreeMap<(Family, Vec<NamedPort>), Vec<Endpoint>> = BTreeMap::new();
    let selected = backends
        .iter()
        .filter(|backend| backend.namespace == meta.namespace && is_subset(&service.spec.selector, &backend.labels));
    for backend in selected {
        let ports = target_ports(&service.spec.ports, &backend.containers);
        for ip in &backend.ips {
            let family = Family::of(*ip);
            if service.spec.ip_families.iter().any(|name| name == family.name()) {
                groups.entry((family, ports.clone())).or_default().push(endpoint(service, backend, *ip));
            }
        }
    }
    groups.into_iter().map(|((family, ports), endpoints)| slice(service, family, &ports, endpoints)).collect()
}

fn endpoint(service: &Service, backend: &Backend, ip: IpAddr) -> Endpoint {
    let serving = backend.ready || service.spec.publish_not_ready_addresses;
    let named = backend.subdomain.as_deref() == Some(service.metadata.name.as_str());
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: EndpointConditions {
            ready: Some(serving && (!backend.terminating || service.spec.publish_not_ready_addresses)),
            serving: Some(serving),
            terminating: Some(backend.terminating),
        },
        node_name: Some(backend.node.clone()),
        zone: None,
        hostname: backend.hostname.clone().filter(|_| named),
        target_ref: Some(TargetRef {
            kind: "Pod".to_owned(),
            namespace: backend.namespace.clone(),
            name: backend.name.clone(),
            uid: backend.uid.clone(),
        }),
    }
}

/// Name, protocol and number of each port that the pod has; a port it does not name is left out.
fn target_ports(ports: &[ServicePort], containers: &[Container]) -> Vec<NamedPort> {
    let number = |port: &ServicePort| match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => container_port(containers, name),
    };
    ports.iter().filter_map(|port| Some((port.name.clone(), port.protocol().to_owned(), number(port)?))).collect()
}

/// The number of a port by the name that a container gives it.
pub(crate) fn container_port(containers: &[Container], name: &str) -> Option<u16> {
    let mut ports = containers.iter().flat_map(|container| &container.ports);
    ports.find(|port| port.name == name).map(|port| port.container_port)
}

fn slice(service: &Service, family: Family, ports: &[NamedPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
    let meta = &service.metadata;
    // From what the slice is about and not from a counter: the same slice has the same name when others come and go.
    let suffix = digest(&(family.name(), ports)) & 0xf_ffff;
    EndpointSlice {
        metadata: ObjectMeta {
            name: format!("{}-{suffix:05x}", meta.name),
            namespace: meta.namespace.clone(),
            labels: BTreeMap::from([(SERVICE_NAME_LABEL.to_owned(), meta.name.clone())]),
            ..ObjectMeta::default()
        },
        address_type: family.name().to_owned(),
        endpoints,
        ports: ports
            .iter()
            .map(|(name, protocol, number)| EndpointPort {
                name: Some(name.clone()),
                port: Some(*number),
                protocol: Some(protocol.clone()),
                app_protocol: None,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(spec: serde_json::Value) -> Service {
        let value = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        with_addresses(&serde_json::from_value(value).unwrap(), &mut ServiceHosts::default())
    }

    fn backend(name: &str, ips: &[&str]) -> Backend {
        Backend {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            node: "node-1".to_owned(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            hostname: Some(name.to_owned()),
            subdomain: Some("web".to_owned()),
            containers: serde_json::from_value(
                json!([{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]),
            )
            .unwrap(),
            ready: true,
            terminating: false,
        }
    }

    fn web() -> Service {
        service(json!({"selector": {"app": "web"}, "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"name": "p", "port": 80, "targetPort": "http"}]}))
    }

    #[test]
    fn a_service_has_one_family_unless_it_asks_for_both() {
        let families = |spec: serde_json::Value| service(spec).spec.ip_families.join(",");
        assert_eq!(families(json!({})), "IPv4");
        assert_eq!(families(json!({"ipFamilyPolicy": "SingleStack"})), "IPv4");
        assert_eq!(families(json!({"ipFamilyPolicy": "PreferDualStack"})), "IPv4,IPv6");
        assert_eq!(families(json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]})), "IPv6,IPv4");
        assert_eq!(families(json!({"clusterIP": "None"})), "IPv4,IPv6");
        assert_eq!(families(json!({"clusterIP": "None", "selector": {"a": "b"}})), "IPv4");
        assert_eq!(web().spec.cluster_ips.len(), 2);
        assert_eq!(web().spec.cluster_ip, web().spec.cluster_ips.first().cloned());
        assert_eq!(service(json!({"ipFamilies": ["IPv6"]})).spec.cluster_ips.len(), 1);
        assert_eq!(service(json!({"clusterIP": "10.96.7.7"})).spec.cluster_ips, ["10.96.7.7"]);
        assert_eq!(families(json!({"clusterIP": "10.96.7.7"})), "IPv4");
        assert!(service(json!({"clusterIP": "None"})).spec.cluster_ips.is_empty());
    }

    #[test]
    fn an_endpoint_without_any_port_of_the_service_is_not_counted() {
        let ports = json!([{"name": "p", "port": 80, "targetPort": "none"}]);
        let service = service(json!({"selector": {"app": "web"}, "ports": ports}));

        let resolved = resolve(&service, &[backend("a", &["10.244.1.2"])], &[]);

        assert_eq!(resolved.endpoint_count, 0);
    }

    #[test]
    fn named_ports_are_resolved_and_families_are_separate_slices() {
        let backends = [backend("a", &["10.244.1.2", "fd00::2"]), backend("b", &["10.244.2.2", "fd00::3"])];

        let resolved = resolve(&web(), &backends, &[]);

        assert_eq!(resolved.slices.len(), 2);
        assert_eq!(resolved.endpoint_count, 2, "an endpoint with two addresses is one");
        let expected = ["10.244.1.2:8080", "10.244.2.2:8080", "[fd00::2]:8080", "[fd00::3]:8080"];
        let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(resolved.ports[0].endpoints, expected);
    }

    #[test]
    fn an_endpoint_that_is_not_ready_is_listed_but_not_used() {
        let mut late = backend("b", &["10.244.2.2"]);
        late.ready = false;

        let resolved = resolve(&web(), &[backend("a", &["10.244.1.2"]), late], &[]);

        assert_eq!(resolved.ports[0].endpoints.len(), 1);
        assert_eq!(resolved.slices[0].endpoints[1].conditions.ready, Some(false));
    }

    #[test]
    fn the_last_endpoint_is_used_while_it_leaves() {
        let mut leaving = backend("a", &["10.244.1.2"]);
        leaving.terminating = true;

        assert_eq!(resolve(&web(), &[leaving.clone()], &[]).ports[0].endpoints.len(), 1);
        let both = resolve(&web(), &[leaving, backend("b", &["10.244.2.2"])], &[]);
        assert_eq!(both.ports[0].endpoints, ["10.244.2.2:8080".parse().unwrap()]);
    }

    #[test]
    fn slices_of_the_user_stand_in_for_a_selector() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "x", "namespace": "shop"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"name": "p", "port": 9}]}))
        .unwrap();
        let service = service(json!({"ports": [{"name": "p", "port": 80}]}));

        let resolved = resolve(&service, &[backend("a", &["10.244.1.2"])], &[&slice]);

        assert_eq!(resolved.ports[0].endpoints, ["192.0.2.1:9".parse().unwrap()]);
        assert!(resolved.slices.is_empty());
        assert_eq!(resolved.endpoint_count, 1);
    }
}
