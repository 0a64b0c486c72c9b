//! Objects that every cluster has and a lab adds: namespaces and cluster DNS.

use contract::labels::{NAMESPACE_NAME_LABEL, SERVICE_NAME_LABEL};
use kube_types::{Kind, Resource};
use serde_json::{Value, json};

use super::SystemNode;
use crate::{addresses::dns, workloads::Objects};

/// Namespace of what Kubernetes itself runs.
pub(super) const KUBE_NAMESPACE: &str = "kube-system";

/// Adds them where the user's manifests have nothing of that name.
pub(crate) fn add_objects(objects: &mut Objects, nodes: &[SystemNode]) {
    let mut namespaces = vec!["default".to_owned(), KUBE_NAMESPACE.to_owned()];
    // A namespace that manifests use without declaring it exists in a lab: examples of workloads leave it out.
    namespaces.extend(objects.keys().map(|key| key.namespace.clone()).filter(|name| !name.is_empty()));
    namespaces.sort();
    namespaces.dedup();
    for name in namespaces {
        let labels = json!({NAMESPACE_NAME_LABEL: name});
        add(objects, Kind::Namespace, json!({"metadata": {"name": name, "labels": labels}}));
    }
    add(objects, Kind::Service, dns_service());
    for family in [true, false] {
        add(objects, Kind::EndpointSlice, dns_slice(nodes, family));
    }
}

fn add(objects: &mut Objects, kind: Kind, value: Value) {
    if let Ok(resource) = Resource::from_value(kind, value) {
        objects.entry(resource.key()).or_insert(resource);
    }
}

fn dns_service() -> Value {
    let dns = dns();
    json!({
        "metadata": {"name": "kube-dns", "namespace": KUBE_NAMESPACE, "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "clusterIP": dns.v4, "clusterIPs": [dns.v4, dns.v6], "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
        },
    })
}

/// Every node answers for cluster DNS, at its own address too.
fn dns_slice(nodes: &[SystemNode], v4: bool) -> Value {
    let address = |node: &SystemNode| if v4 { node.addresses.both()[0] } else { node.addresses.both()[1] };
    let endpoint =
        |node: &SystemNode| json!({"addresses": [address(node)], "conditions": {"ready": true}, "nodeName": node.name});
    json!({
        "metadata": {
            "name": if v4 { "kube-dns-ipv4" } else { "kube-dns-ipv6" }, "namespace": KUBE_NAMESPACE,
            "labels": {SERVICE_NAME_LABEL: "kube-dns"},
        },
        "addressType": if v4 { "IPv4" } else { "IPv6" },
        "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::addresses::NodeNumber;

    #[test]
    fn an_object_of_the_user_is_not_replaced() {
        let mut objects = Objects::new();
        let own = json!({"metadata": {"name": "default", "labels": {"mine": "yes"}}});
        add(&mut objects, Kind::Namespace, own);
        let node = SystemNode {
            name: "node-1".to_owned(),
            addresses: NodeNumber(1).addresses(),
            netns: PathBuf::from("/proc/1/ns/net"),
        };

        add_objects(&mut objects, &[node]);

        let namespaces: Vec<_> = objects.values().filter(|resource| resource.kind() == Kind::Namespace).collect();
        assert_eq!(namespaces.len(), 2);
        assert!(namespaces[0].meta().labels.contains_key("mine"));
        assert_eq!(objects.values().filter(|resource| resource.kind() == Kind::EndpointSlice).count(), 2);
    }
}
