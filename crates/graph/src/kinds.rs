//! Kinds on which the meaning of a mesh depends.

use kube_types::Kind;

/// Kinds that the graph reads, besides the ConfigMap of the mesh ([`crate::MESH_CONFIG_MAP`]). ReplicaSets and Jobs are left out: pods tell all that they would.
pub const KINDS: [Kind; 19] = [
    Kind::Namespace,
    Kind::Node,
    Kind::ServiceAccount,
    Kind::PeerAuthentication,
    Kind::AuthorizationPolicy,
    Kind::GatewayClass,
    Kind::Gateway,
    Kind::Service,
    Kind::ServiceEntry,
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::Pod,
    Kind::WorkloadEntry,
    Kind::EndpointSlice,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::HTTPRoute,
    Kind::GRPCRoute,
];
