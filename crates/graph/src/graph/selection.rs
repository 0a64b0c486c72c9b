//! Policies that are for a workload: those that select it, and how each applies to it.

use std::net::IpAddr;
use std::sync::Arc;

use kube_types::core::{Pod, Service};
use kube_types::istio::PeerAuthentication;
use kube_types::{Kind, ObjectRef, StringMap};

use super::Graph;
use super::coverage::Selection;
use crate::analysis::{Fits, PodPorts};
use crate::enrolment;
use crate::peer_authentication::{self, Levels};
use crate::placement::Placement;
use crate::resolved::{PodTarget, is_in_mesh};

impl Graph {
    /// Finds the policies that are for a pod, and how each applies to it.
    pub(super) fn selection(&self, pod: &Pod) -> Selection {
        let meta = &pod.metadata;
        let mut selected_by = self.selecting_policies(&meta.namespace, &meta.labels);
        let peers = peer_authentication::selecting(&self.mesh, &self.objects.peers, &meta.namespace, &meta.labels);
        selected_by.extend(peers.map(peer_key));
        // Selecting is not deciding: of several PeerAuthentications with a matching selector only the oldest holds.
        let decided_by: Vec<_> = self.levels(pod).deciding().into_iter().map(peer_key).collect();
        let (unmatched_by, fits) = self.matching(pod, &selected_by, &decided_by);
        Selection { in_mesh: enrolment::is_enrolled(pod), selected_by, decided_by, unmatched_by, fits }
    }

    /// AuthorizationPolicies whose selectors match a workload of a namespace, in the order of their paths.
    fn selecting_policies(&self, namespace: &str, labels: &StringMap) -> Vec<ObjectRef> {
        // Once only for workloads of the root namespace itself.
        let root = Some(self.mesh.root_namespace.as_str()).filter(|root| *root != namespace);
        let namespaces = [Some(namespace), root].into_iter().flatten();
        let mut selecting: Vec<_> = namespaces
            .flat_map(|namespace| {
                let names = self.links.policies.matching(namespace, labels).into_iter();
                names.map(move |name| ObjectRef::new(Kind::AuthorizationPolicy, namespace, name))
            })
            .collect();
        // In a fixed order, so that an equal selection is an equal resource.
        selecting.sort_by_cached_key(ObjectRef::path);
        selecting
    }

    /// Names of the policies that a workload which is no pod refers to, in the order of those of a pod.
    pub(super) fn references_of(&self, namespace: &str, labels: &StringMap) -> Vec<String> {
        let levels = peer_authentication::levels(&self.mesh, &self.objects.peers, namespace, labels);
        let policies = self.selecting_policies(namespace, labels).into_iter().map(|policy| policy.path());
        // As for a pod: AuthorizationPolicies by path, then the one from PeerAuthentication, so that equal selections
        // are equal resources.
        policies.chain(levels.reference(&self.mesh)).collect()
    }

    fn levels(&self, pod: &Pod) -> Levels<'_> {
        let meta = &pod.metadata;
        peer_authentication::levels(&self.mesh, &self.objects.peers, &meta.namespace, &meta.labels)
    }

    /// The policies for a pod that can match no connection to it, and how their port numbers fit its own.
    fn matching(&self, pod: &Pod, selected_by: &[ObjectRef], decided_by: &[ObjectRef]) -> (Vec<ObjectRef>, Fits) {
        let (mut unmatched, mut fits) = (Vec::new(), Fits::new());
        let namespace = &pod.metadata.namespace;
        let root = Some(&self.mesh.root_namespace).filter(|root| *root != namespace);
        let wide = [Some(namespace), root].into_iter().flatten();
        let wide = wide.flat_map(|namespace| self.policies.varying_in(namespace));
        let all: Vec<_> = selected_by.iter().chain(wide).filter(|policy| self.varies(policy)).collect();
        // Most policies match every workload alike; the ports of a pod are compared only for the others.
        if all.is_empty() {
            return (unmatched, fits);
        }
        let services = self.services_in_front(pod);
        let ports = PodPorts::of(pod, services.iter().map(AsRef::as_ref));
        // An invalid address has a finding of its own.
        let addresses: Vec<IpAddr> = pod.addresses().filter_map(|text| text.parse().ok()).collect();
        for policy in all {
            let can_match = match self.policies.enforceable(policy) {
                Some(own) => {
                    fits.extend(own.rules.ports.iter().map(|port| (policy.clone(), *port, ports.fit(*port))));
                    own.rules.can_match(&ports, &addresses)
                }
                // A PeerAuthentication: only AuthorizationPolicies are in `enforceable`.
                None => self.peer_of(policy).is_some_and(|peer| {
                    let numbers = || peer_authentication::ports(peer);
                    fits.extend(numbers().map(|port| (policy.clone(), port, ports.fit(port))));
                    // One that does not decide is shadowed, which is another count than unmatched.
                    !decided_by.contains(policy)
                        || peer_authentication::sets_mode(peer)
                        || numbers().any(|port| ports.can_be(port))
                }),
            };
            if !can_match {
                unmatched.push(policy.clone());
            }
        }
        (unmatched, fits)
    }

    /// Returns true if it depends on the workload whether the policy can match.
    fn varies(&self, policy: &ObjectRef) -> bool {
        if policy.kind == Kind::PeerAuthentication {
            self.peer_of(policy).is_some_and(|peer| peer_authentication::ports(peer).next().is_some())
        } else {
            self.policies.enforceable(policy).is_some_and(|own| own.rules.varies)
        }
    }

    pub(super) fn peer_of(&self, key: &ObjectRef) -> Option<&Arc<PeerAuthentication>> {
        self.objects.peers.get(&key.namespace)?.get(&key.name)
    }

    /// Names of the policies that a workload refers to, sorted; then the one from PeerAuthentication.
    pub(super) fn references(&self, pod: &Pod, selection: &Selection) -> Vec<String> {
        let policies = selection.selected_by.iter().filter(|policy| policy.kind == Kind::AuthorizationPolicy);
        policies.map(ObjectRef::path).chain(self.levels(pod).reference(&self.mesh)).collect()
    }

    /// Returns where the pod is and what its node proxy needs to enforce the policies that are for it.
    pub(super) fn placement(&self, pod: &Pod, selection: &Selection) -> Placement {
        let meta = &pod.metadata;
        let policies = selection.selected_by.iter().filter(|policy| policy.kind == Kind::AuthorizationPolicy);
        Placement {
            uid: self.mesh.pod_uid(&meta.namespace, &meta.name),
            namespace: meta.namespace.clone(),
            node: pod.spec.node_name.clone().unwrap_or_default(),
            in_mesh: selection.in_mesh,
            policies: policies.cloned().collect(),
            peers: selection.decided_by.clone(),
            strictness: self.levels(pod).reference(&self.mesh),
        }
    }

    /// Services that select the pod, and those whose hand-made endpoints are the pod.
    pub(super) fn services_in_front(&self, pod: &Pod) -> Vec<Arc<Service>> {
        let meta = &pod.metadata;
        let own = (meta.namespace.clone(), meta.name.clone());
        let by_slice = self.links.slices_of_pod(&own).filter_map(|(namespace, slice)| {
            let slice = self.objects.slices.get(namespace, slice)?;
            let target = PodTarget { namespace: &meta.namespace, name: &meta.name, uid: &meta.uid };
            // By uid, too: the pod may have been replaced by another of its name, which the slice does not mean.
            let is_target = slice.endpoints.iter().filter_map(PodTarget::of).any(|other| other == target);
            let service = slice.service_name()?;
            // With a selector the labels decide: slices of such a Service follow them a little later, and would be a
            // second truth.
            let has_no_selector = self.objects.services.get(&meta.namespace, service)?.spec.selector.is_empty();
            (is_target && has_no_selector && *namespace == meta.namespace).then_some(service)
        });
        let mut names = self.links.services.matching(&meta.namespace, &meta.labels);
        names.extend(by_slice);
        let services = names.into_iter().filter_map(|name| self.objects.services.get(&meta.namespace, name));
        services.filter(|service| is_in_mesh(service)).cloned().collect()
    }
}

pub(super) fn peer_key(policy: &PeerAuthentication) -> ObjectRef {
    ObjectRef::new(Kind::PeerAuthentication, &policy.metadata.namespace, &policy.metadata.name)
}
