//! The resources and what they refer to. A change marks exactly what depends on it; [`Graph::settle`]
//! then converts what is marked and tells what differs from before.

mod names;
mod outputs;
mod policies;
mod reach;
mod settle;
mod subjects;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube_types::core::{EndpointSlice, Namespace, Node, Pod, Service};
use kube_types::istio::AuthorizationPolicy;
use kube_types::{ClusterId, Kind, ObjectRef, Resource, StringMap, is_subset};
use proto::Change;

use crate::analysis::{Rules, World};
use crate::authorization::Converted;
use crate::enforcement::PolicyState;
use crate::finding::Finding;
use crate::mesh::Mesh;
use crate::peer_authentication::ByNamespace;
use crate::placement::Placement;
use crate::pods::{Pods, PublishedPods};
use crate::selectors::Selectors;
use crate::service;
use crate::workload;
use names::Template;
use outputs::Outputs;
use policies::Consequence;
use reach::Reaches;

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
    /// All findings of an object whose findings changed; none when they are gone.
    pub findings: Vec<(ObjectRef, Vec<Finding>)>,
    /// Policies whose states changed; `None` when they are gone.
    pub policies: Vec<(ObjectRef, Option<PolicyState>)>,
    /// The workloads that were looked at; `None` when they are gone. Not only those that differ.
    pub placements: Vec<(ObjectRef, Option<Placement>)>,
}

impl Update {
    pub fn is_empty(&self) -> bool {
        *self == Self { cluster: self.cluster.clone(), ..Self::default() }
    }
}

type Map<T> = BTreeMap<String, Arc<T>>;
type Namespaced<T> = HashMap<String, Map<T>>;
/// Namespace and name.
type Name = (String, String);

/// The resources of one cluster, indexed by what depends on them.
#[derive(Debug)]
pub struct Graph {
    mesh: Mesh,
    cluster: ClusterId,
    /// Pods by node, and namespaces.
    index: Pods,
    /// The index has changed since it was published.
    is_unpublished: bool,
    published: PublishedPods,
    nodes: Map<Node>,
    pods: Namespaced<Pod>,
    services: Namespaced<Service>,
    slices: Namespaced<EndpointSlice>,
    policies: Namespaced<AuthorizationPolicy>,
    peers: ByNamespace,
    /// Per namespace.
    service_selectors: HashMap<String, Selectors>,
    /// Per namespace.
    policy_selectors: HashMap<String, Selectors>,
    slices_of_service: HashMap<Name, BTreeSet<String>>,
    /// Slices that have an endpoint for a pod.
    slices_of_pod: HashMap<Name, BTreeSet<Name>>,
    dirty: BTreeSet<ObjectRef>,
    /// Names that exist, for what policies refer to.
    world: World,
    /// Labels and service accounts of pods that a workload kind makes or would make.
    templates: BTreeMap<ObjectRef, Template>,
    accounts: BTreeSet<Name>,
    /// AuthorizationPolicies as node proxies get them.
    converted: HashMap<ObjectRef, (Converted, Rules)>,
    /// Policies for all workloads of a namespace, by namespace, for which it depends on the workload whether they can
    /// match.
    varying: HashMap<String, BTreeSet<ObjectRef>>,
    /// Policies that select no workload.
    idle: BTreeSet<ObjectRef>,
    /// Facts about each policy that do not depend on the workloads that it selects.
    consequences: HashMap<ObjectRef, Consequence>,
    /// Number of workloads that each policy is for.
    reaches: Reaches,
    outputs: Outputs,
}

impl Graph {
    pub fn new(mesh: Mesh) -> Self {
        Self {
            world: World::new(&mesh.root_namespace, &mesh.trust_domain),
            templates: BTreeMap::new(),
            accounts: BTreeSet::new(),
            converted: HashMap::new(),
            varying: HashMap::new(),
            idle: BTreeSet::new(),
            cluster: ClusterId::new(&mesh.cluster_id),
            mesh,
            index: Pods::default(),
            is_unpublished: false,
            published: PublishedPods::default(),
            nodes: Map::new(),
            pods: Namespaced::new(),
            services: Namespaced::new(),
            slices: Namespaced::new(),
            policies: Namespaced::new(),
            peers: ByNamespace::new(),
            service_selectors: HashMap::new(),
            policy_selectors: HashMap::new(),
            slices_of_service: HashMap::new(),
            slices_of_pod: HashMap::new(),
            dirty: BTreeSet::new(),
            consequences: HashMap::new(),
            reaches: Reaches::default(),
            outputs: Outputs::default(),
        }
    }

    /// The cluster whose resources these are.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// Reader of the pods as they were published last.
    pub fn pods(&self) -> PublishedPods {
        self.published.clone()
    }

    /// Publishes the pods and namespaces if any has changed.
    pub fn publish_pods(&mut self) {
        if std::mem::take(&mut self.is_unpublished) {
            self.published.store(self.index.clone());
        }
    }

    /// Takes a resource that is new or changed. Kinds that mean nothing to the mesh are skipped.
    pub fn apply(&mut self, resource: Resource) {
        match resource {
            Resource::Namespace(new) => self.set_namespace(&new.metadata.name.clone(), Some(new)),
            Resource::Node(new) => self.set_node(&new.metadata.name.clone(), Some(new)),
            Resource::Pod(new) => self.set_pod(name_of(&new.metadata), Some(new)),
            Resource::Service(new) => self.set_service(name_of(&new.metadata), Some(new)),
            Resource::EndpointSlice(new) => self.set_slice(name_of(&new.metadata), Some(new)),
            Resource::AuthorizationPolicy(new) => self.set_policy(name_of(&new.metadata), Some(new)),
            Resource::PeerAuthentication(new) => self.set_peer(name_of(&new.metadata), Some(new)),
            Resource::ServiceAccount(new) => self.set_account(name_of(&new.metadata), true),
            Resource::Deployment(_)
            | Resource::ReplicaSet(_)
            | Resource::StatefulSet(_)
            | Resource::DaemonSet(_)
            | Resource::Job(_) => self.set_template(&resource.key(), resource.pod_template()),
            Resource::ConfigMap(_) | Resource::Secret(_) | Resource::PersistentVolumeClaim(_) => {}
        }
    }

    /// Forgets a resource.
    pub fn remove(&mut self, key: &ObjectRef) {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Namespace => self.set_namespace(&key.name, None),
            Kind::Node => self.set_node(&key.name, None),
            Kind::Pod => self.set_pod(name, None),
            Kind::Service => self.set_service(name, None),
            Kind::EndpointSlice => self.set_slice(name, None),
            Kind::AuthorizationPolicy => self.set_policy(name, None),
            Kind::PeerAuthentication => self.set_peer(name, None),
            Kind::ServiceAccount => self.set_account(name, false),
            Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet | Kind::Job => {
                self.set_template(key, None);
            }
            Kind::ConfigMap | Kind::Secret | Kind::PersistentVolumeClaim => {}
        }
    }

    fn mark(&mut self, kind: Kind, name: &Name) {
        self.dirty.insert(ObjectRef::new(kind, &name.0, &name.1));
    }

    /// Marks the pods of a namespace with these labels.
    fn mark_pods(&mut self, namespace: &str, selector: &StringMap) {
        let pods = self.pods.get(namespace).into_iter().flatten();
        let matching = pods.filter(|(_, pod)| is_subset(selector, &pod.metadata.labels));
        self.dirty.extend(matching.map(|(name, _)| ObjectRef::new(Kind::Pod, namespace, name)));
    }

    /// Marks the pods that a policy of this namespace may select.
    fn mark_pods_in_scope(&mut self, namespace: &str, selector: &StringMap) {
        if namespace == self.mesh.root_namespace {
            let all: Vec<_> = self.pods.keys().cloned().collect();
            for namespace in all {
                self.mark_pods(&namespace, selector);
            }
        } else {
            self.mark_pods(namespace, selector);
        }
    }

    fn set_namespace(&mut self, name: &str, new: Option<Arc<Namespace>>) {
        self.dirty.insert(ObjectRef::new(Kind::Namespace, "", name));
        let old = self.index.set_namespace(name, new.clone());
        self.is_unpublished = true;
        let names = |namespace: &Option<Arc<Namespace>>| namespace.is_some().then_some(names::of_namespace(name));
        self.world.exchange(names(&old), names(&new));
        if service::namespace_setting(old.as_deref()) == service::namespace_setting(new.as_deref()) {
            return;
        }
        let services = self.services.get(name).into_iter().flatten();
        self.dirty.extend(services.map(|(service, _)| ObjectRef::new(Kind::Service, name, service)));
    }

    fn set_node(&mut self, name: &str, new: Option<Arc<Node>>) {
        let old = put(&mut self.nodes, name, new.clone());
        if workload::locality(old.as_deref()) == workload::locality(new.as_deref()) {
            return;
        }
        self.dirty.extend(self.index.names_on(name).map(|(namespace, pod)| ObjectRef::new(Kind::Pod, namespace, pod)));
    }

    fn set_pod(&mut self, name: Name, new: Option<Arc<Pod>>) {
        self.mark(Kind::Pod, &name);
        let old = put_in(&mut self.pods, &name, new.clone());
        self.world.exchange(old.as_deref().map(names::of_pod), new.as_deref().map(names::of_pod));
        self.index.set_pod(&name, old.as_deref(), new.as_ref());
        self.is_unpublished = true;
    }

    fn set_service(&mut self, name: Name, new: Option<Arc<Service>>) {
        self.mark(Kind::Service, &name);
        let slices = self.slices_of_service.get(&name).into_iter().flatten();
        let slices: Vec<_> = slices.map(|slice| (name.0.clone(), slice.clone())).collect();
        for slice in slices {
            self.mark(Kind::EndpointSlice, &slice);
            self.mark_targets(&slice);
        }
        let selectors = self.service_selectors.entry(name.0.clone()).or_default();
        let old = selectors.get(&name.1).cloned();
        let sent = new.as_ref().filter(|service| service::is_sent(service));
        match sent {
            Some(service) => selectors.insert(&name.1, &service.spec.selector),
            None => selectors.remove(&name.1),
        }
        let selected = sent.map(|service| service.spec.selector.clone());
        let new_names = new.is_some().then_some(names::of_namespace(&name.0));
        let replaced = put_in(&mut self.services, &name, new);
        self.world.exchange(replaced.is_some().then_some(names::of_namespace(&name.0)), new_names);
        for selector in [old, selected].into_iter().flatten() {
            if !selector.is_empty() {
                self.mark_pods(&name.0, &selector);
            }
        }
    }

    fn set_slice(&mut self, name: Name, new: Option<Arc<EndpointSlice>>) {
        self.mark(Kind::EndpointSlice, &name);
        self.mark_targets(&name);
        let old = put_in(&mut self.slices, &name, new.clone());
        if let Some(old) = old {
            if let Some(service) = old.service_name() {
                let service = (name.0.clone(), service.to_owned());
                discard(&mut self.slices_of_service, &service, &name.1);
            }
            for pod in targets(&old) {
                discard(&mut self.slices_of_pod, &pod, &name);
            }
        }
        if let Some(new) = new {
            if let Some(service) = new.service_name() {
                let service = (name.0.clone(), service.to_owned());
                let slices = self.slices_of_service.entry(service).or_default();
                slices.insert(name.1.clone());
            }
            for pod in targets(&new) {
                self.slices_of_pod.entry(pod).or_default().insert(name.clone());
            }
            self.mark_targets(&name);
        }
    }

    fn mark_targets(&mut self, slice: &Name) {
        let slice = self.slices.get(&slice.0).and_then(|slices| slices.get(&slice.1));
        let pods: Vec<_> = slice.into_iter().flat_map(|slice| targets(slice)).collect();
        for pod in pods {
            self.mark(Kind::Pod, &pod);
        }
    }
}

fn name_of(meta: &kube_types::ObjectMeta) -> Name {
    (meta.namespace.clone(), meta.name.clone())
}

fn targets(slice: &EndpointSlice) -> BTreeSet<Name> {
    slice
        .endpoints
        .iter()
        .filter_map(workload::pod_target)
        .map(|(namespace, name, _)| (namespace.to_owned(), name.to_owned()))
        .collect()
}

fn put<T>(map: &mut Map<T>, name: &str, new: Option<Arc<T>>) -> Option<Arc<T>> {
    match new {
        Some(new) => map.insert(name.to_owned(), new),
        None => map.remove(name),
    }
}

fn put_in<T>(maps: &mut Namespaced<T>, name: &Name, new: Option<Arc<T>>) -> Option<Arc<T>> {
    let map = maps.entry(name.0.clone()).or_default();
    let old = put(map, &name.1, new);
    if map.is_empty() {
        maps.remove(&name.0);
    }
    old
}

fn discard<K, T>(sets: &mut HashMap<K, BTreeSet<T>>, key: &K, item: &T)
where
    K: std::hash::Hash + Eq,
    T: Ord,
{
    if let Some(set) = sets.get_mut(key) {
        set.remove(item);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::labels::{REDIRECTION_ANNOTATION, REDIRECTION_ENABLED};
    use kube_types::istio::PeerAuthentication;

    use super::*;
    use crate::placement::Scope;

    fn pod(name: usize, app: usize) -> Resource {
        let mut pod = Pod::default();
        pod.metadata.name = format!("p{name}");
        pod.metadata.namespace = "app".to_owned();
        pod.metadata.labels.insert("app".to_owned(), format!("a{app}"));
        pod.status.pod_ip = Some(format!("10.0.{}.{}", name / 256, name % 256));
        Resource::Pod(Arc::new(pod))
    }

    fn service(app: usize) -> Resource {
        let mut service = Service::default();
        service.metadata.name = format!("s{app}");
        service.metadata.namespace = "app".to_owned();
        service.spec.selector.insert("app".to_owned(), format!("a{app}"));
        Resource::Service(Arc::new(service))
    }

    #[test]
    fn a_change_of_one_pod_costs_one_pod_and_of_a_service_the_pods_it_selects() {
        let mut graph = Graph::new(Mesh::default());
        for number in 0..1000 {
            graph.apply(pod(number, number / 10));
        }
        for app in 0..100 {
            graph.apply(service(app));
        }
        assert_eq!(graph.settle().addresses.len(), 1100);

        graph.apply(pod(7, 1));
        assert_eq!(graph.dirty.len(), 1);
        assert_eq!(graph.settle().addresses.len(), 1);
        graph.remove(&service(3).key());
        assert_eq!(graph.dirty.len(), 11);
        assert_eq!(graph.settle().addresses.len(), 11);
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
    fn where_a_policy_has_to_be_in_force_is_told_with_workloads_and_policies() {
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

        assert_eq!(update.addresses.len(), 2);
        assert!(update.addresses.iter().all(|change| matches!(change, Change::Remove { .. })));
        assert!(graph.pods.is_empty() && graph.services.is_empty() && graph.index.is_empty());
        assert!(graph.reaches.is_empty());
        graph.apply(pod(1, 1));
        assert_eq!(graph.settle().addresses.len(), 1, "it is sent again when it comes back");
    }
}
