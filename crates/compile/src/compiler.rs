//! The graph and the resources that follow from it: objects in, differences of discovery out.

use std::collections::BTreeMap;

use graph::{Finding, Graph, Mesh, ObjectStatus, Placement, PolicyState, PublishedPods};
use kube_types::{ClusterId, ObjectRef, Resource};
use proto::Change;

use crate::published::Published;
use crate::waypoints::{GatewayName, Waypoints};

/// Changes since the last update, each list in the order of names. Policies go out before the workloads that refer to
/// them; removals of policies may follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The cluster whose objects it names.
    pub cluster: ClusterId,
    /// Resources of type `istio.security.Authorization`.
    pub authorizations: Vec<Change>,
    /// Resources of type `istio.workload.Address`.
    pub addresses: Vec<Change>,
    /// Resources of type `strake.waypoint.v1.Resource` for the waypoints of each gateway.
    pub waypoints: BTreeMap<GatewayName, Vec<Change>>,
    /// Number of services whose routes were compiled.
    pub compiled_services: usize,
    /// Findings as in [`graph::Update`].
    pub findings: Vec<(ObjectRef, Vec<Finding>)>,
    /// States of policies as in [`graph::Update`].
    pub policies: Vec<(ObjectRef, Option<PolicyState>)>,
    /// Statuses of other objects as in [`graph::Update`].
    pub statuses: Vec<(ObjectRef, ObjectStatus)>,
    /// Placements of pods as in [`graph::Update`].
    pub placements: Vec<(ObjectRef, Option<Placement>)>,
}

impl Update {
    pub fn is_empty(&self) -> bool {
        *self == Self { cluster: self.cluster.clone(), ..Self::default() }
    }
}

/// A graph, with the resources that were sent of it.
#[derive(Debug)]
pub struct Compiler {
    graph: Graph,
    published: Published,
    waypoints: Waypoints,
}

impl Compiler {
    pub fn new(mesh: Mesh) -> Self {
        Self { graph: Graph::new(mesh), published: Published::default(), waypoints: Waypoints::default() }
    }

    /// The cluster whose resources these are.
    pub fn cluster(&self) -> &ClusterId {
        self.graph.cluster()
    }

    /// Reader of the pods as they were published last.
    pub fn pods(&self) -> PublishedPods {
        self.graph.pods()
    }

    /// Publishes the pods and namespaces if any has changed.
    pub fn publish_pods(&mut self) {
        self.graph.publish_pods();
    }

    /// Applies a resource that is new or changed.
    pub fn apply(&mut self, resource: Resource) {
        self.graph.apply(resource);
    }

    /// Removes a resource.
    pub fn remove(&mut self, key: &ObjectRef) {
        self.graph.remove(key);
    }

    /// uid of an object as it was applied last; `None` when it is not kept, or its source knows no uids.
    pub fn uid(&self, key: &ObjectRef) -> Option<&str> {
        self.graph.uid(key)
    }

    /// Returns the changes since the last call.
    pub fn settle(&mut self) -> Update {
        let graph::Update { cluster, objects, mut findings, policies, statuses, placements } = self.graph.settle();
        // What the graph resolves again need not differ: only content that does is sent.
        let mesh = self.graph.mesh();
        let changes = self.published.replace(mesh, &objects);
        self.waypoints.replace(mesh, &objects);
        let waypoints = self.waypoints.settle(mesh);
        // The graph finds nothing in the objects that routes come from.
        findings.extend(waypoints.findings);
        Update {
            cluster,
            authorizations: changes.authorizations,
            addresses: changes.addresses,
            waypoints: waypoints.resources,
            compiled_services: waypoints.compiled,
            findings,
            policies,
            statuses,
            placements,
        }
    }
}

#[cfg(test)]
mod tests {
    use graph::testing::{pod, service};

    use super::*;

    #[test]
    fn only_differences_are_sent() {
        let mut compiler = Compiler::new(Mesh::default());
        (0..10).for_each(|number| compiler.apply(pod(number, number / 5)));
        (0..2).for_each(|app| compiler.apply(service(app)));
        assert_eq!(compiler.settle().addresses.len(), 12);

        compiler.apply(pod(7, 1));
        assert!(compiler.settle().addresses.is_empty(), "the same pod again");
        compiler.apply(pod(7, 0));
        assert_eq!(compiler.settle().addresses.len(), 1);
        compiler.remove(&service(0).key());
        assert_eq!(compiler.settle().addresses.len(), 7, "the service, and the workloads behind it");
    }

    #[test]
    fn what_was_removed_is_removed_once_and_sent_again_when_it_comes_back() {
        let mut compiler = Compiler::new(Mesh::default());
        compiler.apply(pod(1, 1));
        compiler.settle();

        compiler.remove(&pod(1, 1).key());
        let update = compiler.settle();
        assert_eq!(update.addresses, [Change::Remove { name: "Kubernetes//Pod/app/p1".to_owned() }]);
        assert!(compiler.settle().is_empty() && compiler.published.is_empty());
        compiler.apply(pod(1, 1));
        assert_eq!(compiler.settle().addresses.len(), 1);
    }
}
