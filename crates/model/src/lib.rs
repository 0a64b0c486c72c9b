//! State of the mesh by discovery: workloads, services and policies; their store; and views of it for one connection.
//! Opens no connection and evaluates no policy.

mod address;
mod authorization;
pub mod convert;
mod ports;
mod service;
mod state;
#[cfg(test)]
mod testing;
mod text;
pub mod view;
mod workload;

pub use address::{AddressError, GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress, NetworkCidr};
pub use authorization::{Action, Authorization, Match, RefusedPolicy, Scope, ServiceAccountMatch, StringMatch};
pub use ports::Ports;
pub use service::{
    HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, LoadBalancerScope, Service, Visibility, WeightedWaypoint,
};
pub use state::{Address, Applied, Change, Dump, LOCAL_WORKLOAD_WAIT, PolicySet, State, StateConfig};
pub use text::Text;
pub use workload::{
    ApplicationTunnel, HealthStatus, InboundProtocol, Locality, Membership, Memberships, NetworkMode, TunnelProtocol,
    Workload, WorkloadType,
};
