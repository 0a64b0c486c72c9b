//! The uid of an object, for what is said about it elsewhere.

use kube_types::{Kind, ObjectRef};

use super::Graph;

impl Graph {
    /// uid of an object as it was applied last; `None` when the graph keeps no such object, or its source knows no uids.
    pub fn uid(&self, key: &ObjectRef) -> Option<&str> {
        let (namespace, name) = (key.namespace.as_str(), key.name.as_str());
        let objects = &self.objects;
        let meta = match key.kind {
            Kind::Namespace => &self.index.pods.shared_namespace(name)?.metadata,
            Kind::Node => &objects.nodes.get(name)?.metadata,
            Kind::Pod => &objects.pods.get(namespace, name)?.metadata,
            Kind::Service => &objects.services.get(namespace, name)?.metadata,
            Kind::EndpointSlice => &objects.slices.get(namespace, name)?.metadata,
            Kind::ServiceEntry => &objects.service_entries.get(namespace, name)?.metadata,
            Kind::WorkloadEntry => &objects.workload_entries.get(namespace, name)?.metadata,
            Kind::Gateway => &objects.gateways.get(namespace, name)?.metadata,
            Kind::GatewayClass => &objects.gateway_classes.get(name)?.metadata,
            Kind::AuthorizationPolicy => &objects.policies.get(namespace, name)?.metadata,
            Kind::PeerAuthentication => &self.peer_of(key)?.metadata,
            Kind::ConfigMap => &self.config_map(key)?.metadata,
            Kind::VirtualService | Kind::DestinationRule | Kind::HTTPRoute | Kind::GRPCRoute => {
                objects.routing.get(key)?.meta()
            }
            Kind::ServiceAccount
            | Kind::Secret
            | Kind::PersistentVolumeClaim
            | Kind::Deployment
            | Kind::ReplicaSet
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::Job => return None,
        };
        Some(meta.uid.as_str()).filter(|uid| !uid.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube_types::core::Namespace;
    use kube_types::istio::PeerAuthentication;
    use kube_types::{ObjectMeta, Resource};

    use super::*;
    use crate::mesh::Mesh;

    #[test]
    fn the_uid_is_that_of_the_object_as_it_is_now() {
        let mut graph = Graph::new(Mesh::default());
        let meta = |uid: &str| ObjectMeta {
            name: "one".to_owned(),
            namespace: "app".to_owned(),
            uid: uid.to_owned(),
            ..ObjectMeta::default()
        };
        let policy = |uid: &str| {
            let policy = PeerAuthentication { metadata: meta(uid), ..PeerAuthentication::default() };
            Resource::PeerAuthentication(Arc::new(policy))
        };
        let namespace = Namespace { metadata: ObjectMeta { namespace: String::new(), ..meta("n") } };
        let key = ObjectRef::new(Kind::PeerAuthentication, "app", "one");

        assert_eq!(graph.uid(&key), None);
        graph.apply(Resource::Namespace(Arc::new(namespace)));
        graph.apply(policy("a"));
        graph.apply(policy("b"));

        assert_eq!(graph.uid(&key), Some("b"));
        assert_eq!(graph.uid(&ObjectRef::new(Kind::Namespace, "", "one")), Some("n"));
        graph.apply(policy(""));
        assert_eq!(graph.uid(&key), None);
    }
}
