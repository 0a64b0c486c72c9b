//! The resources and what they refer to. A change marks exactly the objects that depend on it; [`Graph::settle`] then
//! resolves those that are marked and returns the differences.

mod changes;
mod coverage;
mod entries;
mod entry;
mod hidden;
mod links;
mod names;
mod objects;
mod policies;
mod reported;
mod routing;
mod selection;
mod settle;
mod states;
mod uids;
mod waypoints;

use std::collections::BTreeSet;

use kube_types::{ClusterId, Kind, ObjectRef, Resource};

use crate::allocation::Allocator;
use crate::analysis::World;
use crate::enforcement::PolicyState;
use crate::finding::Finding;
use crate::mesh::Mesh;
use crate::placement::Placement;
use crate::pods::{PodIndex, PublishedPods};
use crate::resolved::Resolved;
use crate::status::ObjectStatus;
use entries::EntryIndex;
use hidden::Hidden;
use links::Links;
use objects::{Objects, name_of};
use policies::Policies;
use reported::Reported;
use waypoints::WaypointIndex;

/// Changes since the last update, each list in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The cluster whose objects it names.
    pub cluster: ClusterId,
    /// Objects whose resources may differ now: policies last.
    pub objects: Vec<(ObjectRef, Resolved)>,
    /// All findings of an object whose findings changed; none when they are gone.
    pub findings: Vec<(ObjectRef, Vec<Finding>)>,
    /// Policies whose states changed; `None` when they are gone.
    pub policies: Vec<(ObjectRef, Option<PolicyState>)>,
    /// Statuses of other objects that differ from those that were reported last, or at first from those that were read;
    /// empty when nothing is to be said.
    pub statuses: Vec<(ObjectRef, ObjectStatus)>,
    /// Pods that were resolved, not only those that differ; `None` for one that is not a workload any more.
    pub placements: Vec<(ObjectRef, Option<Placement>)>,
}

/// The resources of one cluster, indexed by what depends on them.
#[derive(Debug)]
pub struct Graph {
    mesh: Mesh,
    cluster: ClusterId,
    objects: Objects,
    links: Links,
    /// Pods by node, and namespaces.
    index: PodIndex,
    /// Names that exist, for those in policies.
    world: World,
    policies: Policies,
    waypoints: WaypointIndex,
    entries: EntryIndex,
    allocator: Allocator,
    hidden: Hidden,
    /// Objects to resolve, because they or something that they depend on changed.
    marked: BTreeSet<ObjectRef>,
    reported: Reported,
}

impl Graph {
    pub fn new(mesh: Mesh) -> Self {
        Self {
            world: World::new(&mesh.root_namespace, &mesh.trust_domain),
            cluster: ClusterId::new(&mesh.cluster_id),
            mesh,
            objects: Objects::default(),
            links: Links::default(),
            index: PodIndex::default(),
            policies: Policies::default(),
            waypoints: WaypointIndex::default(),
            entries: EntryIndex::default(),
            allocator: Allocator::default(),
            hidden: Hidden::default(),
            marked: BTreeSet::new(),
            reported: Reported::default(),
        }
    }

    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The cluster whose resources these are.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// Reader of the pods as they were published last.
    pub fn pods(&self) -> PublishedPods {
        self.index.reader()
    }

    /// Publishes the pods and namespaces if any has changed.
    pub fn publish_pods(&mut self) {
        self.index.publish();
    }

    /// Applies a resource that is new or changed. Kinds that mean nothing to the mesh are skipped.
    pub fn apply(&mut self, resource: Resource) {
        if let Some(resource) = self.visible(resource) {
            self.apply_visible(resource);
        }
    }

    fn apply_visible(&mut self, resource: Resource) {
        match resource {
            Resource::Namespace(new) => self.set_namespace(&new.metadata.name.clone(), Some(new)),
            Resource::Node(new) => self.set_node(&new.metadata.name.clone(), Some(new)),
            Resource::Pod(new) => self.set_pod(name_of(&new.metadata), Some(new)),
            Resource::Service(new) => self.set_service(name_of(&new.metadata), Some(new)),
            Resource::EndpointSlice(new) => self.set_slice(name_of(&new.metadata), Some(new)),
            Resource::AuthorizationPolicy(new) => self.set_policy(name_of(&new.metadata), Some(new)),
            Resource::PeerAuthentication(new) => self.set_peer(name_of(&new.metadata), Some(new)),
            Resource::ServiceEntry(new) => self.set_service_entry(name_of(&new.metadata), Some(new)),
            Resource::WorkloadEntry(new) => self.set_workload_entry(name_of(&new.metadata), Some(new)),
            Resource::Gateway(new) => self.set_gateway(name_of(&new.metadata), Some(new)),
            Resource::GatewayClass(new) => self.set_gateway_class(&new.metadata.name.clone(), Some(new)),
            Resource::ConfigMap(new) => self.set_config_map(&name_of(&new.metadata), Some(new)),
            Resource::ServiceAccount(new) => self.set_account(name_of(&new.metadata), true),
            Resource::Deployment(_)
            | Resource::ReplicaSet(_)
            | Resource::StatefulSet(_)
            | Resource::DaemonSet(_)
            | Resource::Job(_) => self.set_template(&resource.key(), resource.pod_template()),
            Resource::VirtualService(_)
            | Resource::DestinationRule(_)
            | Resource::HTTPRoute(_)
            | Resource::GRPCRoute(_) => {
                self.set_routing(resource.key(), Some(resource));
            }
            Resource::Secret(_) | Resource::PersistentVolumeClaim(_) => {}
        }
    }

    /// Removes a resource.
    pub fn remove(&mut self, key: &ObjectRef) {
        self.hidden.remove(key);
        self.remove_visible(key);
    }

    fn remove_visible(&mut self, key: &ObjectRef) {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Namespace => self.set_namespace(&key.name, None),
            Kind::Node => self.set_node(&key.name, None),
            Kind::Pod => self.set_pod(name, None),
            Kind::Service => self.set_service(name, None),
            Kind::EndpointSlice => self.set_slice(name, None),
            Kind::AuthorizationPolicy => self.set_policy(name, None),
            Kind::PeerAuthentication => self.set_peer(name, None),
            Kind::ServiceEntry => self.set_service_entry(name, None),
            Kind::WorkloadEntry => self.set_workload_entry(name, None),
            Kind::Gateway => self.set_gateway(name, None),
            Kind::GatewayClass => self.set_gateway_class(&key.name, None),
            Kind::ConfigMap => self.set_config_map(&name, None),
            Kind::ServiceAccount => self.set_account(name, false),
            Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet | Kind::Job => {
                self.set_template(key, None);
            }
            Kind::VirtualService | Kind::DestinationRule | Kind::HTTPRoute | Kind::GRPCRoute => {
                self.set_routing(key.clone(), None);
            }
            Kind::Secret | Kind::PersistentVolumeClaim => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::labels::{REDIRECTION_ANNOTATION, REDIRECTION_ENABLED};
    use kube_types::istio::{AuthorizationPolicy, PeerAuthentication};

    use super::*;
    use crate::placement::Scope;
    use crate::testing::{pod, service};

    #[test]
    fn a_change_of_one_pod_costs_one_pod_and_of_a_service_the_pods_it_selects() {
        let mut graph = Graph::new(Mesh::default());
        for number in 0..1000 {
            graph.apply(pod(number, number / 10));
        }
        for app in 0..100 {
            graph.apply(service(app));
        }
        assert_eq!(graph.settle().objects.len(), 1100);

        graph.apply(pod(7, 1));
        assert_eq!(graph.settle().objects.len(), 1);
        graph.remove(&service(3).key());
        assert_eq!(graph.settle().objects.len(), 11);
        assert!(graph.settle().objects.is_empty());
    }

    #[test]
    fn a_workload_that_joins_changes_the_status_of_the_policies_that_select_it_and_no_other() {
        let policy = |name: &str, app: Option<&str>| {
            let mut policy = AuthorizationPolicy::default();
            policy.metadata.name = name.to_owned();
            policy.metadata.namespace = "app".to_owned();
            policy.spec.selector = app.map(|app| kube_types::istio::WorkloadSelector {
                match_labels: [("app".to_owned(), app.to_owned())].into(),
            });
            Resource::AuthorizationPolicy(Arc::new(policy))
        };
        let mut graph = Graph::new(Mesh::default());
        for resource in [policy("one", Some("a1")), policy("two", Some("a2")), policy("all", None), pod(1, 1)] {
            graph.apply(resource);
        }
        assert_eq!(graph.settle().policies.len(), 3);

        let Resource::Pod(mut joined) = pod(1, 1) else { unreachable!() };
        let annotation = (REDIRECTION_ANNOTATION.to_owned(), REDIRECTION_ENABLED.to_owned());
        Arc::make_mut(&mut joined).metadata.annotations.extend([annotation]);
        graph.apply(Resource::Pod(joined));
        let changed = graph.settle().policies;

        assert_eq!(changed.iter().map(|(policy, _)| policy.name.as_str()).collect::<Vec<_>>(), ["all", "one"]);
        let conditions = changed[1].1.as_ref().unwrap().conditions(None);
        let message = conditions.last().and_then(|condition| condition.message.as_deref());
        assert_eq!(message, Some("allows nothing; enforced on 1 of 1 selected workload"));
    }

    #[test]
    fn an_update_has_the_place_of_workloads_and_the_scope_of_policies() {
        let mut strict = PeerAuthentication::default();
        (strict.metadata.name, strict.metadata.namespace) = ("strict".to_owned(), "app".to_owned());
        strict.spec.mtls = Some(kube_types::istio::MutualTls { mode: kube_types::istio::TlsMode::Strict });
        let mut wide = AuthorizationPolicy::default();
        (wide.metadata.name, wide.metadata.namespace) = ("wide".to_owned(), "istio-system".to_owned());
        let Resource::Pod(mut scheduled) = pod(1, 1) else { unreachable!() };
        Arc::make_mut(&mut scheduled).spec.node_name = Some("n1".to_owned());
        let mut graph = Graph::new(Mesh::default());
        for resource in [
            Resource::Pod(scheduled),
            Resource::PeerAuthentication(Arc::new(strict)),
            Resource::AuthorizationPolicy(Arc::new(wide)),
        ] {
            graph.apply(resource);
        }

        let update = graph.settle();
        let peer = ObjectRef::new(Kind::PeerAuthentication, "app", "strict");
        let wide = ObjectRef::new(Kind::AuthorizationPolicy, "istio-system", "wide");
        let placement = Placement {
            uid: "Kubernetes//Pod/app/p1".to_owned(),
            namespace: "app".to_owned(),
            node: "n1".to_owned(),
            in_mesh: false,
            policies: Vec::new(),
            peers: vec![peer.clone()],
            strictness: Some("istio-system/istio_converted_static_strict".to_owned()),
        };
        assert_eq!(update.placements, [(pod(1, 1).key(), Some(placement))]);
        let found = update.policies.iter().map(|(policy, state)| (policy, state.as_ref().map(PolicyState::scope)));
        let found: Vec<_> = found.collect();
        assert_eq!(found, [(&peer, Some(&Scope::Named(peer.clone()))), (&wide, Some(&Scope::Mesh))]);
        graph.remove(&peer);
        graph.remove(&pod(1, 1).key());
        let update = graph.settle();
        assert_eq!(update.placements, [(pod(1, 1).key(), None)]);
        assert!(update.policies.contains(&(peer, None)));
    }

    #[test]
    fn what_was_removed_leaves_nothing_behind() {
        let mut graph = Graph::new(Mesh::default());
        graph.apply(pod(1, 1));
        graph.apply(service(1));
        graph.settle();

        graph.remove(&pod(1, 1).key());
        graph.remove(&service(1).key());
        let update = graph.settle();

        let service = ObjectRef::new(Kind::Service, "app", "s1");
        assert_eq!(update.objects, [(service, Resolved::Nothing), (pod(1, 1).key(), Resolved::Nothing)]);
        assert!(graph.objects.pods.is_empty() && graph.objects.services.is_empty() && graph.index.pods.is_empty());
        assert!(graph.policies.coverage.is_empty());
        assert!(graph.waypoints.is_empty() && graph.entries.is_empty() && graph.hidden.is_empty());
    }
}
