//! The nodes of a lab with the wire between them, and the addresses and places that pods and Services get on them. Pods are
//! started in `running`.

use std::io;

use kube_types::core::{PodSpec, Service};
use kube_types::{Kind, Resource};

use super::nodes::{self, Node};
use crate::{
    addresses::ServiceHosts,
    dns::Zone,
    network::Wire,
    pod::Context,
    scheduler::{Candidate, Scheduler},
    services,
    system::SystemNode,
    workloads::Objects,
};

/// Nodes stay as long as the lab.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) zone: Zone,
    pub(super) service_hosts: ServiceHosts,
    wire: Wire,
    scheduler: Scheduler,
}

impl Cluster {
    pub(super) async fn create() -> io::Result<Self> {
        Ok(Self {
            nodes: Vec::new(),
            zone: Zone::default(),
            service_hosts: ServiceHosts::default(),
            wire: Wire::create().await?,
            scheduler: Scheduler::default(),
        })
    }

    /// Makes the nodes that the manifests name, or `count` of them; returns a line for each that could not be made.
    pub(super) async fn ensure_nodes(&mut self, objects: &Objects, count: usize, context: &Context) -> Vec<String> {
        let mut problems = Vec::new();
        // Nodes that no manifest names are made once: the first named one does not replace them.
        let counted = !self.nodes.is_empty() && !objects.keys().any(|key| key.kind == Kind::Node);
        for candidate in nodes::wanted(objects, count) {
            if let Some(node) = self.node_mut(&candidate.name) {
                node.candidate = candidate;
                continue;
            }
            if counted {
                continue;
            }
            let name = candidate.name.clone();
            match nodes::create(candidate, &self.wire, &self.nodes, context, &self.zone).await {
                Ok(node) => self.nodes.push(node),
                Err(err) => problems.push(format!("node {name}: {err}")),
            }
        }
        problems
    }

    pub(super) fn node_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.candidate.name == name)
    }

    pub(super) fn system_nodes(&self) -> Vec<SystemNode> {
        self.nodes.iter().map(Node::system).collect()
    }

    pub(super) fn candidates(&self) -> Vec<Candidate> {
        self.nodes.iter().map(|node| node.candidate.clone()).collect()
    }

    /// The node for a pod.
    ///
    /// # Errors
    /// When no node takes it, in the words of Kubernetes' scheduler.
    pub(super) fn place(&mut self, spec: &PodSpec) -> Result<&mut Node, String> {
        let candidates = self.candidates();
        let name = self.scheduler.place(spec, &candidates).map_err(|err| err.to_string())?;
        self.node_mut(&name).ok_or_else(|| format!("node {name:?} does not exist"))
    }

    /// Services of the manifests with their addresses.
    pub(super) fn services(&mut self, objects: &Objects) -> Vec<Service> {
        let mut found = Vec::new();
        for resource in objects.values() {
            if let Resource::Service(service) = resource {
                found.push(services::with_addresses(service, &mut self.service_hosts));
            }
        }
        found
    }
}
