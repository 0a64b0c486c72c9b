//! The state of a lab for others: resolves Services, and hands the outcome to kernel, DNS, state directory and clients.

use std::sync::Arc;

use kube_types::core::EndpointSlice;
use kube_types::{Kind, ObjectRef, Resource, Severity};

use super::{Supervisor, nodes::Node, publish::Desired, running};
use crate::{
    addresses::dns,
    control::{ServiceInfo, Status},
    kube_proxy,
    services::{self, Backend, Resolved},
    system,
    workloads::Objects,
};

impl Supervisor {
    /// Publishes the present state: kernel and DNS first, then the state directory and the status.
    pub(super) async fn publish(&mut self) {
        let written = &self.manifests.objects;
        let mut objects = self.all_objects();
        // An error was reported when the pods were planned.
        let _ = self.mesh.as_ref().map(|mesh| mesh.add_objects(&mut objects));
        system::cluster::add_objects(&mut objects, &self.cluster.system_nodes());
        let infos: Vec<_> = self.pods.values().map(|running| (running, running.info())).collect();
        let backends: Vec<Backend> = infos.iter().filter_map(|(running, info)| running.backend(info)).collect();
        let mut desired = Desired::default();
        let mut resolved = Vec::new();
        for resource in objects.values() {
            match resource {
                Resource::Service(service) => {
                    let service = services::with_addresses(service, &mut self.cluster.service_hosts);
                    let foreign = slices_of(&objects, &service.metadata.namespace, &service.metadata.name);
                    desired.service(&service, written.contains_key(&resource.key()));
                    resolved.push(services::resolve(&service, &backends, &foreign));
                }
                Resource::ServiceAccount(_) | Resource::Deployment(_)
                    if self.waypoints.objects.contains_key(&resource.key()) =>
                {
                    desired.whole(resource);
                }
                Resource::Namespace(_) | Resource::EndpointSlice(_) if !written.contains_key(&resource.key()) => {
                    desired.whole(resource);
                }
                _ => {}
            }
        }
        for slice in resolved.iter().flat_map(|service| &service.slices) {
            desired.whole(&Resource::EndpointSlice(Arc::new(slice.clone())));
        }
        for (running, info) in &infos {
            let key = ObjectRef::new(Kind::Pod, &info.namespace, &info.name);
            running.publish(&mut desired, info, written.contains_key(&key));
        }
        let manifests: Vec<_> = self.manifests.problems().cloned().collect();
        let summary = kube_types::summary(&manifests);
        let lines = |severity: Severity| {
            let lines = summary.iter().filter(move |(line, _)| *line == severity);
            lines.map(|(_, line)| line.clone())
        };
        let mut problems: Vec<_> = lines(Severity::Error).collect();
        let warnings = lines(Severity::Warning).collect();
        let notes = lines(Severity::Note).chain(self.findings.review.notes.iter().cloned()).collect();
        problems.extend(self.findings.problems().cloned());
        let mut pods: Vec<_> =
            infos.into_iter().map(|(_, info)| info).chain(self.findings.blocked.values().cloned()).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        running::publish_nodes(&mut desired, &self.cluster.nodes, written);
        // Names and rules come before the state directory and the status: whoever reads that a Service is there can use
        // it.
        self.cluster.zone.set(&resolved);
        problems.extend(self.apply_rules(&resolved).await);
        self.publisher.write(desired).await;
        self.status = Status {
            synced: true,
            nodes: self.cluster.nodes.iter().map(Node::info).collect(),
            pods,
            services: resolved.iter().map(service_info).collect(),
            problems,
            warnings,
            manifests,
            waiting: self.jobs.plan.waiting.clone(),
            without_image: self.findings.without_image,
            notes,
        };
    }

    /// Brings each node's rules up to date, all nodes at once.
    async fn apply_rules(&mut self, services: &[Resolved]) -> Vec<String> {
        // Nodes answer for cluster DNS at its Service's own addresses: nothing is to be rewritten.
        let dns = dns().both();
        let rewritten: Vec<_> =
            services.iter().filter(|service| !service.ips.iter().any(|ip| dns.contains(ip))).cloned().collect();
        let pods = &self.pods;
        let applied = self.cluster.nodes.iter_mut().map(|node| {
            let here = pods.values().filter(|running| running.setup.node == node.candidate.name);
            let local: Vec<_> = here.filter_map(|running| running.local(node.number)).collect();
            let rules = kube_proxy::render(&rewritten, &local, node.number.addresses());
            let name = node.candidate.name.clone();
            async move { node.apply(rules).await.map_err(|err| format!("node {name}: {err}")) }
        });
        futures::future::join_all(applied).await.into_iter().filter_map(Result::err).collect()
    }
}

fn slices_of<'a>(objects: &'a Objects, namespace: &str, service: &str) -> Vec<&'a EndpointSlice> {
    let slices = objects.values().filter_map(|resource| match resource {
        Resource::EndpointSlice(slice) => Some(slice.as_ref()),
        _ => None,
    });
    slices.filter(|slice| slice.metadata.namespace == namespace && slice.service_name() == Some(service)).collect()
}

fn service_info(service: &Resolved) -> ServiceInfo {
    ServiceInfo {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        ips: service.ips.clone(),
        endpoints: service.hosts.iter().map(|(ip, _)| *ip).collect(),
        endpoint_count: service.endpoint_count,
    }
}
