//! Waypoints as the source describes them: Gateways and their classes, and the objects that serve them. A change marks the
//! Gateways that have to be looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use contract::labels::{CONTROLLER_VERSION_ANNOTATION, GATEWAY_DEFAULTS_LABEL, GATEWAY_NAME_LABEL};
use kube_types::core::{ConfigMap, Deployment, Pod, Service};
use kube_types::gateway::{Gateway, GatewayClass};
use kube_types::{Kind, ObjectMeta, ObjectRef, Resource};
use parking_lot::Mutex;
use tokio::sync::Notify;
use waypoint_manifests::{CLASS, CONTROLLER_NAME, ISTIO_CLASS, ISTIO_CONTROLLER_NAME, names};

/// Label of the pods of Istio's control plane, and its value.
const ISTIOD: (&str, &str) = ("app", "istiod");

/// Namespace and name.
pub(super) type Name = (String, String);

/// The view, written by the pipeline and read by the controller. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waypoints {
    view: Arc<Mutex<View>>,
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct View {
    is_in_sync: bool,
    gateways: BTreeMap<Name, Arc<Gateway>>,
    classes: BTreeMap<String, Arc<GatewayClass>>,
    services: BTreeMap<Name, Arc<Service>>,
    /// Pods that serve a Gateway: its name, and readiness.
    pods: BTreeMap<Name, (Name, bool)>,
    /// Objects that this controller has made for a Gateway.
    parts: HashMap<ObjectRef, Name>,
    /// Deployments of Istio's control plane.
    istiods: BTreeSet<Name>,
    config_maps: BTreeMap<Name, Arc<ConfigMap>>,
    marked: BTreeSet<Name>,
    are_classes_marked: bool,
}

/// A Gateway and everything that its status depends on.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) gateway: Arc<Gateway>,
    pub(super) is_ours: bool,
    /// The Service of its name, if it is labelled as its.
    pub(super) service: Option<Arc<Service>>,
    pub(super) ready_pods: usize,
    pub(super) pods: usize,
    /// There are objects that this controller has made for it.
    pub(super) has_parts: bool,
}

/// Changes since the last look.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) gateways: BTreeSet<Name>,
    pub(super) classes: bool,
}

impl Waypoints {
    /// Takes an object that exists now.
    pub(crate) fn applied(&self, resource: &Resource) {
        self.change(|view| view.applied(resource));
    }

    /// Takes the removal of an object.
    pub(crate) fn removed(&self, key: &ObjectRef) {
        self.change(|view| view.removed(key));
    }

    /// All objects have been read: before, what is missing may only be unread.
    pub(crate) fn in_sync(&self) {
        self.change(|view| {
            view.is_in_sync = true;
            view.are_classes_marked = true;
            true
        });
    }

    fn change(&self, change: impl FnOnce(&mut View) -> bool) {
        if change(&mut self.view.lock()) {
            self.wake.notify_one();
        }
    }

    /// Waits for a change. Dropping the future loses none.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes the marks; `None` before everything was read.
    pub(super) fn take_changes(&self) -> Option<Changes> {
        let view = &mut *self.view.lock();
        view.is_in_sync.then(|| Changes {
            gateways: std::mem::take(&mut view.marked),
            classes: std::mem::take(&mut view.are_classes_marked),
        })
    }

    /// Marks Gateways again.
    pub(super) fn mark(&self, names: impl IntoIterator<Item = Name>) {
        self.view.lock().marked.extend(names);
    }

    /// Marks everything, and wakes who waits for a change.
    pub(super) fn mark_all(&self) {
        self.change(|view| {
            view.marked.extend(view.gateways.keys().cloned());
            view.are_classes_marked = true;
            true
        });
    }

    /// Names of the Gateways for which this is true.
    pub(super) fn names(&self, wanted: impl Fn(&Gateway) -> bool) -> Vec<Name> {
        let view = self.view.lock();
        view.gateways.iter().filter(|(_, gateway)| wanted(gateway)).map(|(name, _)| name.clone()).collect()
    }

    /// The state of a Gateway; `with_istio`: those of Istio's class are ours, too, as long as no istiod runs.
    pub(super) fn snapshot(&self, name: &Name, with_istio: bool) -> Option<Snapshot> {
        let view = self.view.lock();
        let gateway = Arc::clone(view.gateways.get(name)?);
        let (namespace, _) = name;
        let at = (namespace.clone(), names(&gateway).workload);
        let service = view.services.get(&at).filter(|service| gateway_of(&service.metadata).as_ref() == Some(name));
        let pods = || view.pods.values().filter(|(gateway, _)| gateway == name);
        Some(Snapshot {
            is_ours: view.is_ours(&gateway, with_istio),
            service: service.cloned(),
            ready_pods: pods().filter(|(_, is_ready)| *is_ready).count(),
            pods: pods().count(),
            has_parts: view.parts.values().any(|of| of == name),
            gateway,
        })
    }

    /// The class of this name.
    pub(super) fn class(&self, name: &str) -> Option<Arc<GatewayClass>> {
        self.view.lock().classes.get(name).cloned()
    }

    /// Every class.
    pub(super) fn classes(&self) -> Vec<Arc<GatewayClass>> {
        self.view.lock().classes.values().cloned().collect()
    }

    pub(super) fn has_istiod(&self) -> bool {
        !self.view.lock().istiods.is_empty()
    }

    /// ConfigMaps with defaults of a namespace. Only a directory delivers them.
    pub(super) fn defaults(&self, namespace: &str) -> Vec<ConfigMap> {
        let view = self.view.lock();
        let in_namespace = view.config_maps.values().filter(|map| map.metadata.namespace == namespace);
        let defaults = in_namespace.filter(|map| map.metadata.labels.contains_key(GATEWAY_DEFAULTS_LABEL));
        defaults.map(|map| map.as_ref().clone()).collect()
    }

    /// A ConfigMap. Only a directory delivers them.
    pub(super) fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.view.lock().config_maps.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

/// Returns true if a class is for this controller; `with_istio` also that of Istio.
pub(super) fn is_our_class(class: &GatewayClass, with_istio: bool) -> bool {
    match class.spec.controller_name.as_str() {
        CONTROLLER_NAME => true,
        ISTIO_CONTROLLER_NAME => with_istio && class.metadata.name == ISTIO_CLASS,
        _ => false,
    }
}

impl View {
    fn is_ours(&self, gateway: &Gateway, with_istio: bool) -> bool {
        let name = gateway.spec.gateway_class_name.as_str();
        let with_istio = with_istio && self.istiods.is_empty();
        match self.classes.get(name) {
            Some(class) => is_our_class(class, with_istio),
            // In a directory nobody makes the class, and in a cluster it is made soon.
            None => name == CLASS || with_istio && name == ISTIO_CLASS,
        }
    }

    /// Returns true if something is marked.
    fn applied(&mut self, resource: &Resource) -> bool {
        match resource {
            Resource::Gateway(gateway) => {
                let name = name_of(&gateway.metadata);
                self.gateways.insert(name.clone(), Arc::clone(gateway));
                self.mark(name)
            }
            Resource::GatewayClass(class) => {
                self.classes.insert(class.metadata.name.clone(), Arc::clone(class));
                self.mark_class(&class.metadata.name)
            }
            Resource::Service(service) => {
                match gateway_of(&service.metadata) {
                    Some(_) => drop(self.services.insert(name_of(&service.metadata), Arc::clone(service))),
                    None => drop(self.services.remove(&name_of(&service.metadata))),
                }
                self.part(resource.key(), &service.metadata)
            }
            Resource::ServiceAccount(account) => self.part(resource.key(), &account.metadata),
            Resource::Deployment(deployment) => {
                self.part(resource.key(), &deployment.metadata) | self.istiod(deployment)
            }
            Resource::Pod(pod) => self.pod(pod),
            Resource::ConfigMap(map) => {
                self.config_maps.insert(name_of(&map.metadata), Arc::clone(map));
                self.mark_with_config_map(&map.metadata)
            }
            Resource::Namespace(_)
            | Resource::Node(_)
            | Resource::Secret(_)
            | Resource::PersistentVolumeClaim(_)
            | Resource::PeerAuthentication(_)
            | Resource::AuthorizationPolicy(_)
            | Resource::ServiceEntry(_)
            | Resource::ReplicaSet(_)
            | Resource::StatefulSet(_)
            | Resource::DaemonSet(_)
            | Resource::Job(_)
            | Resource::WorkloadEntry(_)
            | Resource::EndpointSlice(_)
            | Resource::VirtualService(_)
            | Resource::DestinationRule(_)
            | Resource::HTTPRoute(_)
            | Resource::GRPCRoute(_) => false,
        }
    }

    /// Returns true if something is marked.
    fn removed(&mut self, key: &ObjectRef) -> bool {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Gateway => {
                self.gateways.remove(&name);
                self.mark(name)
            }
            Kind::GatewayClass => {
                self.classes.remove(&key.name);
                self.mark_class(&key.name)
            }
            Kind::Pod => self.pods.remove(&name).is_some_and(|(gateway, _)| self.mark(gateway)),
            Kind::Service | Kind::ServiceAccount | Kind::Deployment => {
                if key.kind == Kind::Service {
                    self.services.remove(&name);
                }
                let was_istiod = key.kind == Kind::Deployment && self.istiods.remove(&name);
                let was_part = self.parts.remove(key).is_some_and(|gateway| self.mark(gateway));
                was_part | (was_istiod && self.mark_class(ISTIO_CLASS))
            }
            Kind::ConfigMap => {
                let map = self.config_maps.remove(&name);
                map.is_some_and(|map| self.mark_with_config_map(&map.metadata))
            }
            Kind::Namespace
            | Kind::Node
            | Kind::Secret
            | Kind::PersistentVolumeClaim
            | Kind::PeerAuthentication
            | Kind::AuthorizationPolicy
            | Kind::ServiceEntry
            | Kind::ReplicaSet
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::Job
            | Kind::WorkloadEntry
            | Kind::EndpointSlice
            | Kind::VirtualService
            | Kind::DestinationRule
            | Kind::HTTPRoute
            | Kind::GRPCRoute => false,
        }
    }

    fn pod(&mut self, pod: &Pod) -> bool {
        let name = name_of(&pod.metadata);
        // One that ends takes no new connections.
        let is_ready = pod.is_ready() && !pod.is_terminated() && pod.metadata.deletion_timestamp.is_none();
        let new = gateway_of(&pod.metadata).filter(|_| !pod.is_terminated()).map(|gateway| (gateway, is_ready));
        let old = match new.clone() {
            Some(new) => self.pods.insert(name, new),
            None => self.pods.remove(&name),
        };
        if old == new {
            return false;
        }
        let gateways: BTreeSet<_> = old.into_iter().chain(new).map(|(gateway, _)| gateway).collect();
        gateways.into_iter().fold(false, |is_marked, gateway| self.mark(gateway) | is_marked)
    }

    fn part(&mut self, key: ObjectRef, meta: &ObjectMeta) -> bool {
        // Istio's controller has the same labels.
        let new = gateway_of(meta).filter(|_| meta.annotations.contains_key(CONTROLLER_VERSION_ANNOTATION));
        let old = match new.clone() {
            Some(new) => self.parts.insert(key, new),
            None => self.parts.remove(&key),
        };
        let gateways: BTreeSet<_> = old.into_iter().chain(new).collect();
        gateways.into_iter().fold(false, |is_marked, gateway| self.mark(gateway) | is_marked)
    }

    fn istiod(&mut self, deployment: &Deployment) -> bool {
        let (label, value) = ISTIOD;
        let name = name_of(&deployment.metadata);
        let is_istiod = deployment.metadata.labels.get(label).is_some_and(|app| app == value);
        let has_changed = if is_istiod { self.istiods.insert(name) } else { self.istiods.remove(&name) };
        has_changed && self.mark_class(ISTIO_CLASS)
    }

    fn mark(&mut self, name: Name) -> bool {
        self.marked.insert(name);
        true
    }

    fn mark_class(&mut self, class: &str) -> bool {
        let gateways = self.gateways.iter().filter(|(_, gateway)| gateway.spec.gateway_class_name == class);
        self.marked.extend(gateways.map(|(name, _)| name.clone()));
        self.are_classes_marked = true;
        true
    }

    fn mark_with_config_map(&mut self, map: &ObjectMeta) -> bool {
        let is_default = map.labels.contains_key(GATEWAY_DEFAULTS_LABEL);
        let concerned = self.gateways.keys().filter(|(namespace, _)| is_default || *namespace == map.namespace);
        let before = self.marked.len();
        self.marked.extend(concerned.cloned().collect::<Vec<_>>());
        self.marked.len() > before
    }
}

fn name_of(meta: &ObjectMeta) -> Name {
    (meta.namespace.clone(), meta.name.clone())
}

/// The Gateway that an object was made for.
fn gateway_of(meta: &ObjectMeta) -> Option<Name> {
    meta.labels.get(GATEWAY_NAME_LABEL).map(|gateway| (meta.namespace.clone(), gateway.clone()))
}
