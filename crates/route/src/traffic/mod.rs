//! Traffic policy of a service: everything that a DestinationRule means to a waypoint, with precedence resolved and with
//! defaults filled in. Types only; the crate `balance` acts on them.

mod balancer;
mod hash;
mod locality;
mod outlier;
mod pool;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use balancer::{Algorithm, HashTable, LoadBalancer, Millionths, WarmUp};
pub use hash::{HashCookie, HashKey};
pub use locality::{Distribution, LocalityBalancing, LocalityPattern, RegionFailover};
pub use outlier::OutlierDetection;
pub use pool::{ConnectionPool, Http2KeepAlive, HttpPool, HttpVersion, TcpKeepalive, TcpPool};
pub use tls::{ClientCertificate, ClientTls, Trust};

use crate::request::Labels;

/// Policies and subsets of a service, for one waypoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceTraffic {
    /// Policies for all endpoints.
    pub policies: PortPolicies,
    /// By name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subsets: BTreeMap<String, Subset>,
    /// Object that the policies come from, as `DestinationRule shop/reviews`; `None` for the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// Endpoints of a service whose workloads have all labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Subset {
    /// Empty: all endpoints.
    pub labels: Labels,
    /// Complete: nothing of the service's policies has to be added.
    pub policies: PortPolicies,
    /// Object and field that the subset comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// A policy for each port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PortPolicies {
    /// For ports that have none of their own.
    pub default: Arc<TrafficPolicy>,
    /// Complete policies by port of the service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<u16, Arc<TrafficPolicy>>,
}

/// Policy for connections to one port of a service, or to a subset of its endpoints. The default is that of a service without
/// any DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TrafficPolicy {
    pub load_balancer: LoadBalancer,
    pub connection_pool: ConnectionPool,
    /// `None`: no endpoint is ejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS that the waypoint itself begins with the application; inside the tunnel if the endpoint is in the mesh. `None`:
    /// bytes as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// Header with the client's address that the application reads before anything else. `None`: no header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limit of concurrent retries in proportion to requests. Replaces `max_retries` of the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
}

/// Version of the PROXY protocol of HAProxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyProtocol {
    /// The header is a line of text.
    #[default]
    V1,
    /// The header is binary.
    V2,
}

/// Number of retries that may run at the same time: a share of the requests that run, and never less than a minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetryBudget {
    /// Share of the active requests; 0 to 1.
    pub share: Millionths,
    /// Number of concurrent retries that are always allowed.
    pub min_concurrency: u32,
}

impl Default for RetryBudget {
    /// Istio's and Envoy's: 20 %, at least 3.
    fn default() -> Self {
        Self { share: Millionths(200_000), min_concurrency: 3 }
    }
}

impl PortPolicies {
    /// The policy of a port.
    pub fn get(&self, port: u16) -> &Arc<TrafficPolicy> {
        self.ports.get(&port).unwrap_or(&self.default)
    }
}

impl ServiceTraffic {
    /// The policy for a port, or for a subset of the endpoints behind it. `None` if there is no such subset: the answer is
    /// 503, flag `NC`.
    pub fn policy(&self, port: u16, subset: Option<&str>) -> Option<&Arc<TrafficPolicy>> {
        match subset {
            Some(name) => Some(self.subsets.get(name)?.policies.get(port)),
            None => Some(self.policies.get(port)),
        }
    }
}

impl Subset {
    /// Returns true if a workload with these labels is an endpoint of the subset.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests;
