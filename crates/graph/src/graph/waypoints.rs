//! Waypoints of the cluster, and the objects that ask for one: a change of a waypoint marks its users.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use contract::labels::{GATEWAY_MANAGED_LABEL, GATEWAY_MANAGED_MESH, GATEWAY_NAME_LABEL, WAYPOINT_FAILURE_LABEL};
use kube_types::core::Namespace;
use kube_types::gateway::{Gateway, GatewayClass};
use kube_types::{Kind, ObjectMeta, ObjectRef, StringMap};

use super::Graph;
use super::objects::{self, Name};
use crate::binding::{Binding, Bound, Canary};
use crate::waypoint::{BindingError, GatewayAddress, Traffic, Waypoint, WaypointName};
use crate::wish::{self, FailureMode, Wish};

#[derive(Debug, Default)]
pub(super) struct WaypointIndex {
    waypoints: BTreeMap<WaypointName, Waypoint>,
    by_class: HashMap<String, BTreeSet<Name>>,
    /// Objects that name a waypoint, whether it exists or not.
    users: BTreeMap<WaypointName, BTreeSet<ObjectRef>>,
    used: HashMap<ObjectRef, BTreeSet<WaypointName>>,
}

impl WaypointIndex {
    /// Replaces the waypoints that an object depends on.
    pub(super) fn set_used(&mut self, key: &ObjectRef, names: BTreeSet<WaypointName>) {
        let old = if names.is_empty() { self.used.remove(key) } else { self.used.insert(key.clone(), names.clone()) };
        // A name that stays is not taken out and put in again: its set of users may be long.
        for name in old.into_iter().flatten().filter(|name| !names.contains(name)) {
            if let Some(users) = self.users.get_mut(&name) {
                users.remove(key);
                if users.is_empty() {
                    self.users.remove(&name);
                }
            }
        }
        for name in names {
            self.users.entry(name).or_default().insert(key.clone());
        }
    }

    fn users(&self, name: &WaypointName) -> impl Iterator<Item = &ObjectRef> {
        self.users.get(name).into_iter().flatten()
    }

    /// Objects of a namespace that name a waypoint.
    fn users_in(&self, namespace: &str) -> impl Iterator<Item = &ObjectRef> {
        self.used.keys().filter(move |user| is_in(user, namespace))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.waypoints.is_empty() && self.by_class.is_empty() && self.users.is_empty() && self.used.is_empty()
    }
}

fn is_in(object: &ObjectRef, namespace: &str) -> bool {
    object.namespace == namespace || object.kind == Kind::Namespace && object.name == namespace
}

impl Graph {
    pub(super) fn set_gateway(&mut self, name: Name, new: Option<Arc<Gateway>>) {
        let class =
            |gateway: &Option<Arc<Gateway>>| gateway.as_ref().map(|gateway| gateway.spec.gateway_class_name.clone());
        let new_class = class(&new);
        let old = self.objects.gateways.set(&name, new);
        let old_class = class(&old);
        if old_class != new_class {
            if let Some(gateways) = old_class.as_ref().and_then(|class| self.waypoints.by_class.get_mut(class)) {
                gateways.remove(&name);
            }
            // There are few classes, so that looking at all costs nothing.
            self.waypoints.by_class.retain(|_, gateways| !gateways.is_empty());
            if let Some(class) = new_class {
                self.waypoints.by_class.entry(class).or_default().insert(name.clone());
            }
        }
        self.review_waypoint(&name);
    }

    pub(super) fn set_gateway_class(&mut self, name: &str, new: Option<Arc<GatewayClass>>) {
        objects::set(&mut self.objects.gateway_classes, name, new);
        // A class may set the traffic that its Gateways are for.
        for gateway in self.waypoints.by_class.get(name).cloned().unwrap_or_default() {
            self.review_waypoint(&gateway);
        }
    }

    /// Computes a waypoint anew, and marks its users when it differs.
    fn review_waypoint(&mut self, name: &Name) {
        let gateway = self.objects.gateways.get(&name.0, &name.1);
        let new = gateway.and_then(|gateway| {
            let class = self.objects.gateway_classes.get(&gateway.spec.gateway_class_name);
            Waypoint::of(gateway, class.map(AsRef::as_ref))
        });
        let old = match new.clone() {
            Some(new) => self.waypoints.waypoints.insert(name.clone(), new),
            None => self.waypoints.waypoints.remove(name),
        };
        // A Gateway's status changes often (listeners, conditions); only what its users see counts.
        if old != new {
            self.marked.extend(self.waypoints.users(name).cloned());
        }
    }

    /// Marks the objects whose waypoint may depend on the labels of their namespace, after these changed.
    pub(super) fn mark_bound_in(&mut self, name: &str, old: Option<&Namespace>, new: Option<&Namespace>) {
        let inherited = |namespace: Option<&Namespace>| namespace.map(|namespace| namespace.metadata.clone());
        let (old, new) = (inherited(old).unwrap_or_default(), inherited(new).unwrap_or_default());
        if wish::inherited(&old) != wish::inherited(&new) {
            self.mark_all_in(name);
        } else if old.labels != new.labels {
            // `allowedRoutes` may admit namespaces by any label, so that a change of any of them can open or close a
            // waypoint.
            let users: Vec<_> = self.waypoints.users_in(name).cloned().collect();
            self.marked.extend(users);
        }
    }

    /// Finds the waypoints of an object with these labels in a namespace.
    pub(super) fn binding(&self, meta: &ObjectMeta, traffic: Traffic) -> Binding {
        // Else connections to the waypoint itself would be sent to the waypoint, in a circle.
        if is_of_waypoint(&meta.labels) {
            return Binding::default();
        }
        self.binding_of(&meta.labels, &meta.annotations, &meta.namespace, traffic)
    }

    /// Finds the waypoints for labels that are not those of an object itself.
    pub(super) fn binding_of(
        &self,
        labels: &StringMap,
        annotations: &StringMap,
        namespace: &str,
        traffic: Traffic,
    ) -> Binding {
        let parent = self.index.pods.namespace(namespace).map(|parent| &parent.metadata);
        let inherited = || parent.and_then(|parent| wish::wish(&parent.labels, namespace));
        let own = wish::wish(labels, namespace);
        let is_own = own.is_some();
        // `istio.io/use-waypoint: none` of the object wins over its namespace: `own` is then `Wish::Nothing`.
        let Some(Wish::Named(name)) = own.or_else(inherited) else { return Binding::default() };
        let mode = wish::failure_mode(labels, parent.map(|parent| &parent.labels));
        let bound = match self.find_waypoint(&name, namespace, traffic, mode) {
            // A waypoint for services only is no mistake of a namespace with workloads.
            Err(BindingError::UnsupportedTraffic(Traffic::Workload)) if !is_own => Bound::Nothing,
            Err(error) => Bound::failed(error, &name, mode),
            Ok(address) => Bound::To(address.clone()),
        };
        let is_own_mode = labels.contains_key(WAYPOINT_FAILURE_LABEL);
        // The second waypoint is named where the first one is.
        let (labels, annotations) = match parent {
            Some(parent) if !is_own => (&parent.labels, &parent.annotations),
            Some(_) | None => (labels, annotations),
        };
        // Weights are a field of a Service in discovery; a workload has one waypoint.
        let canary = (traffic == Traffic::Service).then(|| wish::canary(labels, namespace)).flatten();
        let canary = canary.map(|canary| {
            let weight = wish::canary_weight(annotations).ok_or(BindingError::CanaryWeight);
            let outcome = match self.find_waypoint(&canary, namespace, traffic, mode) {
                // Before the result of the search: the same waypoint twice is the mistake, whether it is ready or not.
                _ if canary == name => Err(BindingError::CanaryIsPrimary),
                Err(error) => Err(error),
                Ok(address) => weight.map(|weight| (address.clone(), weight)),
            };
            Canary { name: canary, outcome }
        });
        Binding { name: Some(name), bound, canary, is_own, mode, is_own_mode }
    }

    /// Finds the waypoint that a namespace names, whatever traffic it is for.
    pub(super) fn namespace_binding(&self, namespace: &str, labels: &StringMap) -> Binding {
        let Some(Wish::Named(name)) = wish::wish(labels, namespace) else { return Binding::default() };
        let mode = wish::failure_mode(labels, None);
        let found = |traffic| self.find_waypoint(&name, namespace, traffic, mode).cloned();
        // Of a waypoint that is missing or refuses, both searches say the same.
        let bound = match found(Traffic::Service).or_else(|_| found(Traffic::Workload)) {
            Ok(address) => Bound::To(address),
            Err(error) => Bound::failed(error, &name, mode),
        };
        Binding { name: Some(name), bound, canary: None, is_own: true, mode, is_own_mode: true }
    }

    fn find_waypoint(
        &self,
        name: &WaypointName,
        namespace: &str,
        traffic: Traffic,
        mode: Option<FailureMode>,
    ) -> Result<&GatewayAddress, BindingError> {
        let none = StringMap::new();
        let labels = self.index.pods.namespace(namespace).map_or(&none, |namespace| &namespace.metadata.labels);
        let waypoint = self.waypoints.waypoints.get(name).ok_or(BindingError::NotReady)?;
        // Before the traffic: a client that may not use the waypoint is reported first.
        if !waypoint.admits(namespace, labels) {
            return Err(BindingError::Denied);
        }
        if !waypoint.handles(traffic) {
            return Err(BindingError::UnsupportedTraffic(traffic));
        }
        // Once it was ready it stays bound, and connections fail while it is not, unless the object asks for something else.
        if mode == Some(FailureMode::Open) && !waypoint.is_ready() {
            return Err(BindingError::NotReady);
        }
        Ok(waypoint.address())
    }

    /// Returns the Gateway of which a pod is an instance, whether it is one or not.
    pub(super) fn gateway_of(meta: &ObjectMeta) -> Option<WaypointName> {
        // The label counts whether or not the Gateway is known: the pod is then marked when it comes.
        meta.labels.get(GATEWAY_NAME_LABEL).map(|gateway| (meta.namespace.clone(), gateway.clone()))
    }

    pub(super) fn is_waypoint(&self, name: &WaypointName) -> bool {
        self.waypoints.waypoints.contains_key(name)
    }
}

/// Returns true for the Service and the pods that a controller has made for a waypoint.
fn is_of_waypoint(labels: &StringMap) -> bool {
    labels.get(GATEWAY_MANAGED_LABEL).is_some_and(|controller| controller == GATEWAY_MANAGED_MESH)
}
