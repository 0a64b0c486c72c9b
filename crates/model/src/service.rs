//! A service: a name and addresses that stand for a set of workloads. Types only.

use std::net::IpAddr;

use identity::Identity;
use serde::{Deserialize, Serialize};

use crate::{
    GatewayAddress, NamespacedHostname, NetworkAddress, NetworkCidr, Ports, Text,
    workload::{HealthStatus, is_default},
};

/// One property by which endpoints are preferred that share it with the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadBalancerScope {
    /// Same region.
    Region,
    /// Same zone.
    Zone,
    /// Same subzone.
    Subzone,
    /// Same node.
    Node,
    /// Same cluster.
    Cluster,
    /// Same network.
    Network,
}

/// Way in which preferences are applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadBalancerMode {
    /// All endpoints, preferences ignored.
    #[default]
    Standard,
    /// Only endpoints that match all preferences.
    Strict,
    /// The endpoints that match the most preferences from the start.
    Failover,
    /// The original destination; the proxy chooses no endpoint.
    Passthrough,
}

/// Endpoints that count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthPolicy {
    /// Healthy ones.
    #[default]
    OnlyHealthy,
    /// All.
    AllowAll,
}

/// Load balancing of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// In order of weight.
    pub routing_preferences: Vec<LoadBalancerScope>,
    /// Way in which they are applied.
    pub mode: LoadBalancerMode,
    /// Endpoints that count.
    pub health_policy: HealthPolicy,
}

/// Address families of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpFamilies {
    /// Both.
    Dual,
    /// IPv4 only.
    IPv4,
    /// IPv6 only.
    IPv6,
}

impl IpFamilies {
    /// May endpoints be reached by `ip`?
    #[must_use]
    pub const fn accepts(self, ip: IpAddr) -> bool {
        match self {
            Self::Dual => true,
            Self::IPv4 => ip.is_ipv4(),
            Self::IPv6 => ip.is_ipv6(),
        }
    }
}

/// Clients that may use a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// Clients of its own namespace.
    Namespace,
}

/// One of several waypoints that share a service's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedWaypoint {
    /// Address or name of the waypoint.
    #[serde(flatten)]
    pub destination: GatewayAddress,
    /// Share of the traffic, relative to the sum.
    pub weight: u32,
}

/// A name with ports and, mostly, addresses. Its endpoints are the workloads that name it; see `state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// Name.
    pub name: Text,
    /// Namespace.
    pub namespace: Text,
    /// Fully qualified host name.
    pub hostname: Text,
    /// Addresses.
    #[serde(default)]
    pub vips: Vec<NetworkAddress>,
    /// Blocks of addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidr_vips: Vec<NetworkCidr>,
    /// Service port to target port; target 0: each endpoint says its own.
    #[serde(default)]
    pub ports: Ports,
    /// Identities, besides the endpoints' own, that a server of this service may prove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<Text>,
    /// Waypoint that service-addressed traffic has to pass first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<GatewayAddress>,
    /// Several of them; they count before `waypoint` when their weights do not add up to 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// None: all endpoints alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// None: decided by the endpoints' addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_families: Option<IpFamilies>,
    /// The one to prefer among services of one hostname or address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub canonical: bool,
    /// Clients that may use it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub visibility: Visibility,
}

impl Service {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> NamespacedHostname {
        NamespacedHostname { namespace: self.namespace.clone(), hostname: self.hostname.clone() }
    }

    /// May a client of `namespace` use it?
    #[must_use]
    pub fn is_visible_to(&self, namespace: &str) -> bool {
        match self.visibility {
            Visibility::Public => true,
            Visibility::Namespace => self.namespace == *namespace,
        }
    }

    /// Does a workload of that health count as endpoint?
    #[must_use]
    pub fn admits(&self, status: HealthStatus) -> bool {
        match status {
            HealthStatus::Healthy => true,
            HealthStatus::Unhealthy => {
                // A Service with `publishNotReadyAddresses`.
                self.load_balancer.as_ref().is_some_and(|lb| lb.health_policy == HealthPolicy::AllowAll)
            }
        }
    }

    /// Rule by which an endpoint is chosen.
    #[must_use]
    pub fn mode(&self) -> LoadBalancerMode {
        self.load_balancer.as_ref().map_or(LoadBalancerMode::Standard, |lb| lb.mode)
    }

    /// The alternative names that are identities; others cannot appear in a workload's certificate.
    pub fn identities(&self) -> impl Iterator<Item = Identity> + '_ {
        // As ztunnel: a name that is no SPIFFE ID is ignored, and the endpoint's own identity is still accepted.
        self.subject_alt_names.iter().filter_map(|san| san.parse().ok())
    }
}
