//! Objects together with the objects that their discovery resources depend on, as the graph delivers them. The crate
//! `compile` makes resources of them.

use std::net::IpAddr;
use std::sync::Arc;

use kube_types::core::{Endpoint, EndpointSlice, Namespace, Pod, Service};
use kube_types::istio::{ServiceEntry, WorkloadEntry, WorkloadEntrySpec};
use kube_types::{Resource, StringMap};

use crate::locality::Locality;
use crate::rule::Authorization;
use crate::waypoint::{GatewayAddress, Waypoints};

/// Meaning of one object for the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    Workload(Workload),
    Service(MeshService),
    Entry(EntryServices),
    EntryWorkload(EntryWorkload),
    Endpoints(Endpoints),
    Policy(Authorization),
    /// A VirtualService, DestinationRule, HTTPRoute or GRPCRoute.
    Routing(Resource),
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
    /// ServiceEntries that select it.
    pub entries: Vec<SelectedEntry>,
    /// Resource names of the policies that it refers to.
    pub policies: Vec<String>,
    /// Waypoint of connections to its address.
    pub waypoint: Option<GatewayAddress>,
}

/// A ServiceEntry that selects a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedEntry {
    pub entry: Arc<ServiceEntry>,
    /// Hosts for which it counts; at least one.
    pub hosts: Vec<String>,
}

/// The services of a ServiceEntry, and the endpoints that it lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryServices {
    pub entry: Arc<ServiceEntry>,
    /// Namespace whose settings it inherits.
    pub namespace: Option<Arc<Namespace>>,
    /// Hosts for which it counts.
    pub hosts: Vec<EntryHost>,
    pub waypoints: Waypoints,
    pub visibility: Visibility,
    pub endpoints: Vec<EntryEndpoint>,
    /// Resource names of the policies that its endpoints refer to.
    pub policies: Vec<String>,
}

/// Host name for which a ServiceEntry counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHost {
    pub host: String,
    /// Clients of other namespaces get this service for the host name.
    pub is_canonical: bool,
    /// Allocated addresses that are in use.
    pub allocated: Vec<IpAddr>,
}

/// Endpoint in a ServiceEntry, or a host of it that is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEndpoint {
    pub spec: WorkloadEntrySpec,
    /// Hosts behind which it is.
    pub hosts: Vec<String>,
    pub waypoint: Option<GatewayAddress>,
}

/// Clients that see a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    #[default]
    Public,
    /// Those of its own namespace.
    Namespace,
}

/// A WorkloadEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryWorkload {
    pub entry: Arc<WorkloadEntry>,
    pub labels: StringMap,
    /// Services that select it.
    pub services: Vec<Arc<Service>>,
    /// ServiceEntries that select it.
    pub entries: Vec<SelectedEntry>,
    /// Resource names of the policies that it refers to.
    pub policies: Vec<String>,
    pub waypoint: Option<GatewayAddress>,
}

/// A Service, with the namespace whose settings it inherits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshService {
    pub service: Arc<Service>,
    pub namespace: Option<Arc<Namespace>>,
    pub waypoints: Waypoints,
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
        // Other kinds are no workloads here; their addresses count as external.
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
