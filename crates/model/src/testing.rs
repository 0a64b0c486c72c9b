//! Small workloads and services for this crate's tests.

use crate::{InboundProtocol, Membership, NamespacedHostname, Service, Text, Workload, WorkloadType};

/// Captured pod `name` of namespace `ns`, account `sa`, node `node-1`; endpoint of service `svc`.
pub(crate) fn workload(name: &str, ip: &str) -> Workload {
    let service = NamespacedHostname::new("ns", "svc.ns.svc.cluster.local");
    Workload {
        uid: Text::from(format!("Kubernetes//Pod/ns/{name}")),
        workload_ips: vec![ip.parse().unwrap()],
        waypoint: None,
        network_gateway: None,
        protocol: InboundProtocol::HBONE,
        network_mode: Default::default(),
        name: name.into(),
        namespace: "ns".into(),
        trust_domain: "cluster.local".into(),
        service_account: "sa".into(),
        network: "".into(),
        workload_name: name.into(),
        workload_type: WorkloadType::Pod,
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        hostname: "".into(),
        node: "node-1".into(),
        native_tunnel: false,
        application_tunnel: None,
        authorization_policies: vec![],
        status: Default::default(),
        cluster_id: "Kubernetes".into(),
        locality: Default::default(),
        services: [Membership { service, ports: Default::default() }].into_iter().collect(),
        capacity: 1,
    }
}

/// Service `name.namespace.svc.cluster.local` with port 80 to 8080.
pub(crate) fn service(name: &str, namespace: &str, vip: &str) -> Service {
    Service {
        name: name.into(),
        namespace: namespace.into(),
        hostname: Text::from(format!("{name}.{namespace}.svc.cluster.local")),
        vips: vec![format!("/{vip}").parse().unwrap()],
        cidr_vips: vec![],
        ports: [(80, 8080)].into_iter().collect(),
        subject_alt_names: vec![],
        waypoint: None,
        weighted_waypoints: vec![],
        load_balancer: None,
        ip_families: None,
        canonical: false,
        visibility: Default::default(),
    }
}
