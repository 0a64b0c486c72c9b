//! Resolution of the objects that are marked.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube_types::core::{Pod, Service};
use kube_types::{Kind, ObjectRef};

use super::coverage::{Recount, Selection};
use super::{Graph, Update};
use crate::addresses;
use crate::binding::Binding;
use crate::finding::Finding;
use crate::locality::Locality;
use crate::peer_authentication::STATIC_STRICT;
use crate::resolved::{Endpoints, MeshService, Resolved, Workload, is_in_mesh, is_workload};
use crate::status::{ObjectStatus, has_ours};
use crate::unsupported;
use crate::waypoint::{Traffic, WaypointName};
use crate::wish;

/// An object, resolved, and the findings about it.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) resolved: Resolved,
    pub(super) findings: Vec<Finding>,
    /// Status of the object, for kinds whose status follows from the graph alone.
    pub(super) status: ObjectStatus,
    /// Waypoints that the result depends on.
    pub(super) uses: BTreeSet<WaypointName>,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            resolved: Resolved::Nothing,
            findings: Vec::new(),
            status: ObjectStatus::default(),
            uses: BTreeSet::new(),
        }
    }
}

impl Graph {
    /// Returns the changes since the last call.
    pub fn settle(&mut self) -> Update {
        // A set in the order of kinds and names: the result does not depend on the order of events.
        let marked = std::mem::take(&mut self.marked);
        let mut update = Update { cluster: self.cluster.clone(), ..Update::default() };
        let mut recount = Recount::default();
        // Before the entries are resolved, which read the addresses of their hosts.
        self.allocate_addresses(&marked);
        let (mut objects, mut policies) = (Vec::new(), BTreeSet::new());
        let has_peers = marked.iter().any(|key| key.kind == Kind::PeerAuthentication);
        for key in marked {
            let output = match key.kind {
                Kind::Namespace => self.namespace(&key),
                Kind::Pod => self.pod(&key, &mut update, &mut recount),
                Kind::Service => self.service(&key),
                Kind::EndpointSlice => self.endpoints(&key),
                Kind::ServiceEntry => self.service_entry(&key),
                Kind::WorkloadEntry => self.workload_entry(&key),
                Kind::ConfigMap => self.mesh_config(&key),
                Kind::VirtualService | Kind::DestinationRule | Kind::HTTPRoute | Kind::GRPCRoute => self.routing(&key),
                Kind::AuthorizationPolicy | Kind::PeerAuthentication => {
                    policies.insert(key);
                    continue;
                }
                // Never marked: they are no resources of their own, and mark the objects that depend on them instead.
                Kind::Node
                | Kind::ServiceAccount
                | Kind::Gateway
                | Kind::GatewayClass
                | Kind::Secret
                | Kind::PersistentVolumeClaim
                | Kind::Deployment
                | Kind::ReplicaSet
                | Kind::StatefulSet
                | Kind::DaemonSet
                | Kind::Job => continue,
            };
            self.reported.set_findings(&mut update, &key, output.findings);
            // Also when the graph says nothing about the object: a status of an earlier process has to be removed.
            let is_stale = self.has_status(&key);
            self.reported.set_status(&mut update, &key, output.status, is_stale);
            self.waypoints.set_used(&key, output.uses);
            objects.push((key, output.resolved));
        }
        // After the pods: the state of a policy depends on the workloads that it selects.
        let mut recounted = self.recounted(&recount);
        policies.extend(self.doubtful(&recount, &recounted));
        for key in &policies {
            let output = self.policy_output(key);
            self.reported.set_findings(&mut update, key, output.findings);
            objects.push((key.clone(), output.resolved));
        }
        // The one policy that no object stands for: it comes with the first PeerAuthentication and goes with the last.
        if has_peers {
            objects.push((ObjectRef::new(Kind::PeerAuthentication, "", STATIC_STRICT), self.static_strict()));
        }
        // A policy whose facts changed has a new state even if its numbers did not.
        recounted.extend(policies);
        self.report_states(&mut update, &recounted);
        update.objects = objects;
        update
    }

    fn namespace(&self, key: &ObjectRef) -> Output {
        let mut output = Output::default();
        if let Some(namespace) = self.index.pods.namespace(&key.name) {
            let meta = &namespace.metadata;
            output.findings = unsupported::findings(key, meta);
            output.findings.extend(unsupported::distribution(key, meta, None));
            // For any traffic: which objects of the namespace it is for is their affair.
            let binding = self.namespace_binding(&key.name, &namespace.metadata.labels);
            output.findings.extend(binding.findings(key));
            output.uses = binding.names();
            if key.name == self.mesh.root_namespace {
                // Other namespaces may carry the label, too, but only that of the control plane counts.
                output.findings.extend(unsupported::network(key, meta));
            }
        }
        output
    }

    fn pod(&mut self, key: &ObjectRef, update: &mut Update, recount: &mut Recount) -> Output {
        let pod = self.objects.pods.get(&key.namespace, &key.name).filter(|pod| is_workload(pod)).cloned();
        // Before the output, which reads the same selection: both must name the same policies.
        let selection = pod.as_ref().map(|pod| self.selection(pod));
        let resolved = pod.as_ref().zip(selection.as_ref());
        let placement = resolved.map(|(pod, selection)| self.placement(pod, selection));
        let output = resolved.map(|(pod, selection)| self.workload(key, pod, selection)).unwrap_or_default();
        update.placements.push((key.clone(), placement));
        self.policies.coverage.set(&(key.namespace.clone(), key.name.clone()), selection, recount);
        output
    }

    fn workload(&self, key: &ObjectRef, pod: &Arc<Pod>, selection: &Selection) -> Output {
        let mut findings = unsupported::findings(key, &pod.metadata);
        findings.extend(addresses::of_pod(key, pod));
        let node = pod.spec.node_name.as_ref().and_then(|node| self.objects.nodes.get(node));
        let meta = &pod.metadata;
        let gateway = Self::gateway_of(meta);
        let is_waypoint = gateway.as_ref().is_some_and(|gateway| self.is_waypoint(gateway));
        // A waypoint that sends to itself would be a loop. This holds also for one that a user runs by hand, without
        // the label of a controller.
        let binding = if is_waypoint { Binding::default() } else { self.binding(meta, Traffic::Workload) };
        findings.extend(binding.findings(key));
        let workload = Workload {
            pod: Arc::clone(pod),
            locality: Locality::of(node.map(AsRef::as_ref)),
            services: self.services_in_front(pod),
            entries: self.selecting_entries(&meta.namespace, &meta.labels),
            policies: self.references(pod, selection),
            waypoint: binding.address().cloned(),
        };
        // With its own Gateway: the pod has to be looked at again when that becomes a waypoint.
        let uses = binding.names().into_iter().chain(gateway).collect();
        Output { resolved: Resolved::Workload(workload), findings, uses, ..Output::default() }
    }

    /// Returns true if an object has a status that this mesh may have written.
    fn has_status(&self, key: &ObjectRef) -> bool {
        if key.kind == Kind::ServiceEntry {
            let entry = self.objects.service_entries.get(&key.namespace, &key.name);
            let status = entry.map(|entry| &entry.status);
            // Addresses in the status of a ServiceEntry are this mesh's or Istio's, which it takes over.
            return status.is_some_and(|status| has_ours(&status.conditions) || !status.addresses.is_empty());
        }
        let service = self.objects.services.get(&key.namespace, &key.name).filter(|_| key.kind == Kind::Service);
        service.is_some_and(|service| has_ours(&service.status.conditions))
    }

    pub(super) fn mesh_service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.objects.services.get(namespace, name).filter(|service| is_in_mesh(service))
    }

    fn service(&self, key: &ObjectRef) -> Output {
        let Some(service) = self.mesh_service(&key.namespace, &key.name) else { return Output::default() };
        let mut findings = addresses::of_service(key, service);
        findings.extend(unsupported::findings(key, &service.metadata));
        let field = service.spec.traffic_distribution.as_deref();
        findings.extend(unsupported::distribution(key, &service.metadata, field));
        let namespace = self.index.pods.shared_namespace(&key.namespace).cloned();
        let binding = self.binding(&service.metadata, Traffic::Service);
        let labels = namespace.as_ref().map(|namespace| &namespace.metadata.labels);
        let ingress = wish::ingress(&service.metadata.labels, labels);
        findings.extend(binding.findings(key));
        let conditions = binding.condition(ingress, service.metadata.generation).into_iter().collect();
        let waypoints = binding.waypoints(ingress);
        Output {
            resolved: Resolved::Service(MeshService { service: Arc::clone(service), namespace, waypoints }),
            findings,
            status: ObjectStatus { conditions, addresses: Vec::new() },
            uses: binding.names(),
        }
    }

    fn endpoints(&self, key: &ObjectRef) -> Output {
        let slice = self.objects.slices.get(&key.namespace, &key.name);
        let service =
            slice.and_then(|slice| slice.service_name()).and_then(|service| self.mesh_service(&key.namespace, service));
        // A slice may come before its Service, which marks it when it comes.
        let Some((slice, service)) = slice.zip(service) else { return Output::default() };
        let endpoints = Endpoints { slice: Arc::clone(slice), service: Arc::clone(service) };
        let findings = addresses::of_endpoints(key, &endpoints);
        Output { resolved: Resolved::Endpoints(endpoints), findings, ..Output::default() }
    }
}
