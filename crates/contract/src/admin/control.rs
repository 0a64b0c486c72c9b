//! Pages of the control plane's admin socket. Each is a list, in the order of objects.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Path of the list of [`Finding`]s.
pub const FINDINGS_PATH: &str = "/debug/findings";
/// Path of the list of [`Policy`]s.
pub const POLICIES_PATH: &str = "/debug/policies";
/// Path of the list of [`Proxy`]s, in the order of connections.
pub const PROXIES_PATH: &str = "/debug/proxies";
/// Path of the list of [`Route`]s, in the order of gateways, services, ports and precedence.
pub const ROUTES_PATH: &str = "/debug/routes";
/// Path of the list of problems of manifests: `kube_types::SourceProblem`.
pub const PROBLEMS_PATH: &str = "/debug/problems";

/// Fact about a valid object that its author should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Kind, then namespace and name, as `AuthorizationPolicy app/web`.
    pub object: String,
    pub severity: Severity,
    /// Code of `graph::Reason`.
    pub reason: String,
    /// Path of the field, as `spec.rules[0]`; empty when the finding is about the object as a whole.
    #[serde(default)]
    pub field: String,
    pub message: String,
    /// Manifest of the object; none when no manifest defines it.
    // Absent for objects of an API server.
    #[serde(default)]
    pub file: Option<String>,
    /// Line in the manifest, from 1.
    #[serde(default)]
    pub line: Option<usize>,
}

/// Severity of a [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A part of the object has no effect, or another effect than it says.
    Warning,
    /// Nothing is certainly wrong.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

/// A policy and its conditions; the same, with times, are in the status of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Kind, then namespace and name, as `AuthorizationPolicy app/web`.
    pub object: String,
    pub conditions: Vec<Condition>,
}

/// Type of the [`Condition`] that tells on which workloads a policy is enforced.
pub const ENFORCED: &str = "Enforced";

/// A condition of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Such as [`ENFORCED`].
    pub r#type: String,
    pub status: ConditionStatus,
    pub reason: Option<String>,
    pub message: Option<String>,
}

/// Status of a [`Condition`], as in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// A route of a service port, as the waypoints of a gateway try it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Namespace and name of the Gateway, as `shop/waypoint`.
    pub gateway: String,
    /// Namespace and host name of the service.
    pub service: String,
    pub port: u16,
    /// `HTTP`, `HTTP/2`, `TCP`, or `detected` from the first bytes of a connection.
    pub protocol: String,
    /// Namespace of the clients that this route is for alone; none: clients of every other one.
    pub clients: Option<String>,
    /// Place among the routes that a request tries, from 1.
    pub order: usize,
    /// Conditions, joined by AND; `any` without one.
    pub r#match: String,
    pub action: String,
    /// Object and field, as `VirtualService shop/canary spec.http[0]`; `default` when no object says anything.
    pub from: String,
}

/// A connected proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Number of the connection.
    pub connection: u64,
    /// Node of the proxy, proven by its token.
    pub node: String,
    /// Identity of the proxy, proven by its token.
    pub identity: String,
    /// Name that the proxy gives itself; not proven.
    pub node_id: String,
    /// Progress by type URL.
    pub types: BTreeMap<String, Progress>,
}

/// Answers of a proxy to the responses of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Number of responses that were accepted.
    pub acked: u64,
    /// Number of responses that were rejected, at least in part.
    pub nacked: u64,
    pub last_acked_nonce: String,
    /// Error of the last response, when it was rejected.
    // Cleared by the next response that is accepted.
    pub error: Option<String>,
}
