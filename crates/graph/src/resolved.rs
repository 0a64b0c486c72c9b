//! Objects together with the objects that their discovery resources depend on, as the graph delivers them. The crate
//! `compile` makes resources of them.

use std::sync::Arc;

use kube_types::core::{Endpoint, EndpointSlice, Namespace, Pod, Service};

use crate::locality::Locality;
use crate::rule::Authorization;

/// Meaning of one object for the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    Workload(Workload),
    Service(MeshService),
    Endpoints(Endpoints),
    Policy(Authorization),
    /// No resource follows from the object: it is gone, or it has no effect on the mesh.
    Nothing,
}

/// A pod that is a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub pod: Arc<Pod>,
    /// Locality of its node.
    pub locality: Option<Locality>,
    /// Services that send to it.
    pub services: Vec<Arc<Service>>,
    /// Resource names of the policies that it refers to.
    pub policies: Vec<String>,
}

/// A Service, with the namespace whose settings it inherits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshService {
    pub service: Arc<Service>,
    pub namespace: Option<Arc<Namespace>>,
}

/// An EndpointSlice of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub slice: Arc<EndpointSlice>,
    pub service: Arc<Service>,
}

impl Endpoints {
    /// Endpoints that are not pods of the cluster, with at least one address each. None for host names (`FQDN`), which
    /// discovery cannot carry.
    pub fn external(&self) -> impl Iterator<Item = &Endpoint> {
        let is_supported = self.slice.address_type != "FQDN";
        let endpoints = self.slice.endpoints.iter().filter(move |_| is_supported);
        endpoints.filter(|endpoint| PodTarget::of(endpoint).is_none() && !endpoint.addresses.is_empty())
    }
}

/// Pod that an endpoint stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodTarget<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
}

impl<'a> PodTarget<'a> {
    pub(crate) fn of(endpoint: &'a Endpoint) -> Option<Self> {
        let target = endpoint.target_ref.as_ref()?;
        (target.kind == "Pod").then_some(Self { namespace: &target.namespace, name: &target.name, uid: &target.uid })
    }
}

/// Returns true if the pod is a workload: from its first address to its end.
pub(crate) fn is_workload(pod: &Pod) -> bool {
    !pod.is_terminated() && pod.addresses().next().is_some()
}

/// Returns true if the mesh carries connections to the service. An `ExternalName` is only a name for something outside.
pub(crate) fn is_in_mesh(service: &Service) -> bool {
    service.spec.r#type.as_deref() != Some("ExternalName")
}
