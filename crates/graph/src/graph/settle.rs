//! Converts what is marked.

use kube_api::core::{Pod, Service};
use kube_api::istio::TlsMode;
use kube_api::{Kind, ObjectRef};
use proto::workload::PortList;

use super::outputs::{Batch, Output, Type};
use super::{Graph, Update};
use crate::authorization;
use crate::encode;
use crate::finding::{Finding, Reason};
use crate::peer_authentication::{self, STATIC_STRICT};
use crate::service;
use crate::workload::{self, Surroundings};

impl Graph {
    /// What changed since the last call.
    pub fn settle(&mut self) -> Update {
        let dirty = std::mem::take(&mut self.dirty);
        let mut batch = Batch::default();
        if dirty.iter().any(|key| key.kind == Kind::PeerAuthentication) {
            let key = ObjectRef::new(Kind::PeerAuthentication, "", STATIC_STRICT);
            let output = self.static_strict();
            self.outputs.set(&mut batch, &key, Type::Authorization, output);
        }
        for key in dirty {
            let (kind, output) = match key.kind {
                Kind::Pod => (Type::Address, self.pod(&key)),
                Kind::Service => (Type::Address, self.service(&key)),
                Kind::EndpointSlice => (Type::Address, self.slice(&key)),
                Kind::AuthorizationPolicy => (Type::Authorization, self.policy(&key)),
                Kind::PeerAuthentication => (Type::Authorization, self.peer(&key)),
                Kind::Namespace
                | Kind::Node
                | Kind::ServiceAccount
                | Kind::ConfigMap
                | Kind::Deployment
                | Kind::StatefulSet
                | Kind::DaemonSet
                | Kind::Job => continue,
            };
            self.outputs.set(&mut batch, &key, kind, output);
        }
        self.outputs.finish(batch)
    }

    fn pod(&self, key: &ObjectRef) -> Output {
        let mut output = Output::default();
        let Some(pod) = self.pods.get(&key.namespace).and_then(|pods| pods.get(&key.name)) else {
            return output;
        };
        if !workload::is_sent(pod) {
            return output;
        }
        let node = pod.spec.node_name.as_ref().and_then(|node| self.nodes.get(node));
        let around = Surroundings {
            locality: workload::locality(node.map(AsRef::as_ref)),
            services: self.services_of(pod),
            policies: self.policies_of(pod),
        };
        let converted = workload::from_pod(&self.mesh, key, pod, around, &mut output.findings);
        if converted.addresses.is_empty() {
            return output;
        }
        let name = converted.uid.clone();
        output.resources.push((name, encode::workload(converted)));
        output
    }

    /// Services that select the pod, and those whose hand-made endpoints are the pod.
    fn services_of(&self, pod: &Pod) -> Vec<(String, PortList)> {
        let meta = &pod.metadata;
        let Some(services) = self.services.get(&meta.namespace) else {
            return Vec::new();
        };
        let selecting = self
            .service_selectors
            .get(&meta.namespace)
            .map(|selectors| selectors.matching(&meta.labels))
            .unwrap_or_default();
        let own = (meta.namespace.clone(), meta.name.clone());
        let slices = self.slices_of_pod.get(&own).into_iter().flatten();
        let by_slice = slices.filter_map(|(namespace, slice)| {
            let slice = self.slices.get(namespace)?.get(slice)?;
            let is_target = slice
                .endpoints
                .iter()
                .filter_map(workload::pod_target)
                .any(|(namespace, name, uid)| (namespace, name, uid) == (&meta.namespace, &meta.name, &meta.uid));
            let service = slice.service_name()?;
            let selectorless = services.get(service)?.spec.selector.is_empty();
            (is_target && selectorless && *namespace == meta.namespace).then_some(service)
        });
        let mut names = selecting;
        names.extend(by_slice);
        names
            .into_iter()
            .filter_map(|name| services.get(name))
            .filter(|service| service::is_sent(service))
            .map(|service| {
                let name = &service.metadata.name;
                let key = self.mesh.service_key(&meta.namespace, name);
                (key, service::pod_ports(service, pod))
            })
            .collect()
    }

    /// Policies with a selector that matches, sorted, then the one from PeerAuthentication.
    fn policies_of(&self, pod: &Pod) -> Vec<String> {
        let meta = &pod.metadata;
        let root = &self.mesh.root_namespace;
        let mut namespaces = vec![&meta.namespace];
        if meta.namespace != *root {
            namespaces.push(root);
        }
        let mut policies: Vec<_> = namespaces
            .into_iter()
            .filter_map(|namespace| Some((namespace, self.policy_selectors.get(namespace)?)))
            .flat_map(|(namespace, selectors)| {
                let names = selectors.matching(&meta.labels).into_iter();
                names.map(move |name| format!("{namespace}/{name}"))
            })
            .collect();
        policies.sort();
        let levels = peer_authentication::levels(&self.mesh, &self.peers, &meta.namespace, &meta.labels);
        policies.extend(levels.reference(&self.mesh));
        policies
    }

    fn service_named(&self, namespace: &str, name: &str) -> Option<&Service> {
        let service = self.services.get(namespace)?.get(name)?;
        service::is_sent(service).then_some(service)
    }

    fn service(&self, key: &ObjectRef) -> Output {
        let mut output = Output::default();
        if let Some(service) = self.service_named(&key.namespace, &key.name) {
            let namespace = self.namespaces.get(&key.namespace).map(AsRef::as_ref);
            let converted = service::convert(&self.mesh, key, service, namespace, &mut output.findings);
            let name = self.mesh.service_key(&key.namespace, &key.name);
            output.resources.push((name, encode::service(&converted)));
        }
        output
    }

    fn slice(&self, key: &ObjectRef) -> Output {
        let mut output = Output::default();
        let slice = self.slices.get(&key.namespace).and_then(|slices| slices.get(&key.name));
        let service = slice
            .and_then(|slice| slice.service_name())
            .and_then(|service| self.service_named(&key.namespace, service));
        if let (Some(slice), Some(service)) = (slice, service) {
            let workloads = workload::from_slice(&self.mesh, key, slice, service, &mut output.findings);
            output.resources =
                workloads.into_iter().map(|workload| (workload.uid.clone(), encode::workload(workload))).collect();
        }
        output
    }

    fn policy(&self, key: &ObjectRef) -> Output {
        let policies = self.policies.get(&key.namespace);
        let Some(policy) = policies.and_then(|policies| policies.get(&key.name)) else {
            return Output::default();
        };
        let converted = authorization::convert(&self.mesh, key, policy);
        Output {
            resources: converted.policy.iter().map(|policy| (key.path(), encode::authorization(policy))).collect(),
            findings: converted.findings,
            conditions: converted.conditions,
        }
    }

    fn peer(&self, key: &ObjectRef) -> Output {
        let mut output = Output::default();
        let Some(policy) = self.peers.get(&key.namespace).and_then(|peers| peers.get(&key.name)) else {
            return output;
        };
        let selector = peer_authentication::selector(policy);
        let has_ports = policy.spec.port_level_mtls.values().any(|port| port.mode != TlsMode::Unset);
        let mut tell = |finding| output.findings.push(finding);
        if selector.is_some() && key.namespace == self.mesh.root_namespace {
            tell(Finding::warning(
                key,
                Reason::Ignored,
                "a selector counts for nothing in the root namespace: the policy has no effect",
            ));
            return output;
        }
        if selector.is_none() && has_ports {
            tell(Finding::warning(key, Reason::Ignored, "portLevelMtls needs a selector: its ports follow mtls.mode"));
        }
        let inherited = peer_authentication::inherited(&self.mesh, &self.peers, &key.namespace);
        let decides = if key.namespace == self.mesh.root_namespace { inherited.mesh } else { inherited.namespace };
        if let Some(older) = decides
            && selector.is_none()
            && older.metadata.name != key.name
        {
            tell(Finding::warning(
                key,
                Reason::Shadowed,
                format!("{} is older and decides: the policy has no effect", older.metadata.name),
            ));
        }
        if let Some(converted) = peer_authentication::convert(policy, &inherited) {
            let name = format!("{}/{}", converted.namespace, converted.name);
            output.resources.push((name, encode::authorization(&converted)));
        }
        output
    }

    /// Sent as soon as there is any PeerAuthentication, so that it is there before it is needed.
    fn static_strict(&self) -> Output {
        let mut output = Output::default();
        if !self.peers.is_empty() {
            let policy = peer_authentication::static_strict(&self.mesh);
            let name = format!("{}/{}", policy.namespace, policy.name);
            output.resources.push((name, encode::authorization(&policy)));
        }
        output
    }
}
