//! Converts what is marked.

use std::collections::BTreeSet;

use kube_types::core::{Pod, Service};
use kube_types::{Kind, ObjectRef};
use proto::workload::PortList;

use super::outputs::{Batch, Output, Type};
use super::reach::{Selection, Touched};
use super::{Graph, Update};
use crate::encode;
use crate::peer_authentication::STATIC_STRICT;
use crate::service;
use crate::unsupported;
use crate::workload::{self, Surroundings};

impl Graph {
    /// Returns the changes since the last call.
    pub fn settle(&mut self) -> Update {
        let dirty = std::mem::take(&mut self.dirty);
        let mut batch = Batch::default();
        let mut touched = Touched::default();
        if dirty.iter().any(|key| key.kind == Kind::PeerAuthentication) {
            let key = ObjectRef::new(Kind::PeerAuthentication, "", STATIC_STRICT);
            let output = self.static_strict();
            self.outputs.set(&mut batch, &key, Type::Authorization, output);
        }
        let mut policies = BTreeSet::new();
        for key in dirty {
            let output = match key.kind {
                Kind::Namespace => self.namespace(&key),
                Kind::Pod => self.pod(&key, &mut batch, &mut touched),
                Kind::Service => self.service(&key),
                Kind::EndpointSlice => self.slice(&key),
                Kind::AuthorizationPolicy | Kind::PeerAuthentication => {
                    policies.insert(key);
                    continue;
                }
                Kind::Node
                | Kind::ServiceAccount
                | Kind::ConfigMap
                | Kind::Secret
                | Kind::PersistentVolumeClaim
                | Kind::Deployment
                | Kind::ReplicaSet
                | Kind::StatefulSet
                | Kind::DaemonSet
                | Kind::Job => continue,
            };
            self.outputs.set(&mut batch, &key, Type::Address, output);
        }
        // After the pods: the state of a policy depends on what it selects.
        let mut recounted = self.recounted(&touched);
        policies.extend(self.doubtful(&touched, &recounted));
        for key in &policies {
            let output = self.policy_output(key);
            self.outputs.set(&mut batch, key, Type::Authorization, output);
        }
        recounted.extend(policies);
        self.set_states(&mut batch, &recounted);
        self.outputs.finish(&self.cluster, batch)
    }

    fn namespace(&self, key: &ObjectRef) -> Output {
        let mut output = Output::default();
        if let Some(namespace) = self.index.namespace(&key.name) {
            let meta = &namespace.metadata;
            output.findings = unsupported::findings(key, meta);
            output.findings.extend(unsupported::distribution(key, meta, None));
            if key.name == self.mesh.root_namespace {
                output.findings.extend(unsupported::network(key, meta));
            }
        }
        output
    }

    fn pod(&mut self, key: &ObjectRef, batch: &mut Batch, touched: &mut Touched) -> Output {
        let pod = self.pods.get(&key.namespace).and_then(|pods| pods.get(&key.name)).cloned();
        let pod = pod.filter(|pod| workload::is_sent(pod));
        let selection = pod.as_ref().map(|pod| self.selection(pod));
        let output = pod.iter().zip(&selection).map(|(pod, selection)| self.workload(key, pod, selection)).next();
        let placement = pod.iter().zip(&selection).map(|(pod, selection)| self.placement(pod, selection)).next();
        batch.update.placements.push((key.clone(), placement));
        self.reaches.set(&(key.namespace.clone(), key.name.clone()), selection, touched);
        output.unwrap_or_default()
    }

    fn workload(&self, key: &ObjectRef, pod: &Pod, selection: &Selection) -> Output {
        let mut output = Output { findings: unsupported::findings(key, &pod.metadata), ..Output::default() };
        let node = pod.spec.node_name.as_ref().and_then(|node| self.nodes.get(node));
        let around = Surroundings {
            locality: workload::locality(node.map(AsRef::as_ref)),
            services: self.services_of(pod),
            policies: self.references(pod, selection),
        };
        let converted = workload::from_pod(&self.mesh, key, pod, around, &mut output.findings);
        if !converted.addresses.is_empty() {
            output.resources.push((converted.uid.clone(), encode::workload(converted)));
        }
        output
    }

    /// Services that select the pod, and those whose hand-made endpoints are the pod.
    pub(super) fn services_in_front(&self, pod: &Pod) -> Vec<&Service> {
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
        let sent = names.into_iter().filter_map(|name| services.get(name)).filter(|service| service::is_sent(service));
        sent.map(AsRef::as_ref).collect()
    }

    fn services_of(&self, pod: &Pod) -> Vec<(String, PortList)> {
        let services = self.services_in_front(pod).into_iter();
        services
            .map(|service| {
                let meta = &service.metadata;
                (self.mesh.service_key(&meta.namespace, &meta.name), service::pod_ports(service, pod))
            })
            .collect()
    }

    fn service_named(&self, namespace: &str, name: &str) -> Option<&Service> {
        let service = self.services.get(namespace)?.get(name)?;
        service::is_sent(service).then_some(service)
    }

    fn service(&self, key: &ObjectRef) -> Output {
        let mut output = Output::default();
        if let Some(service) = self.service_named(&key.namespace, &key.name) {
            let namespace = self.index.namespace(&key.namespace);
            let converted = service::convert(&self.mesh, key, service, namespace, &mut output.findings);
            let name = self.mesh.service_key(&key.namespace, &key.name);
            output.resources.push((name, encode::service(&converted)));
            output.findings.extend(unsupported::findings(key, &service.metadata));
            let field = service.spec.traffic_distribution.as_deref();
            output.findings.extend(unsupported::distribution(key, &service.metadata, field));
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
}
