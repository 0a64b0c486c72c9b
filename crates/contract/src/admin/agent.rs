//! The agent's page `/pods`: state of each pod of its node in the mesh, as the kernel shows it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Path of the page, a [`NodeReport`].
pub const PODS_PATH: &str = "/pods";

/// All pods that an agent knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Name of the node.
    pub node: String,
    /// Version of the agent; empty from agents that do not tell it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// What the node's kernel has of what the mesh needs, in the order in which it was looked at; empty as for `version`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel: Vec<Check>,
    /// Pods in the order of namespace and name.
    pub pods: Vec<PodReport>,
}

/// State of a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodState {
    /// The agent has not examined the pod yet.
    // Before the first look nothing is claimed, not even that the pod is outside.
    #[default]
    Unknown,
    /// The pod is not selected for the mesh: it has no program, rule or listener of Strake.
    NotSelected,
    /// Selected; some step is missing.
    Enrolling,
    /// Every step was read back from the kernel.
    Enrolled,
    /// The pod is no longer selected; open connections may finish.
    Leaving,
    /// A step failed; it is tried again. See `reason`.
    Failed,
    /// Enrolled before and still announced so, and some facts cannot be read; they are read again. See `reason`.
    Unverified,
    /// Enrolled before and still announced so, and some facts do not hold; they are being repaired. See `reason`.
    Broken,
}

impl PodState {
    /// Returns the name that the serialised form has.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotSelected => "not-selected",
            Self::Enrolling => "enrolling",
            Self::Enrolled => "enrolled",
            Self::Leaving => "leaving",
            Self::Failed => "failed",
            Self::Unverified => "unverified",
            Self::Broken => "broken",
        }
    }
}

/// One fact that was read back from the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Name of the fact.
    pub name: String,
    /// The value is as expected.
    pub ok: bool,
    /// The value could not be read; then `ok` is false.
    // Left out when false: old readers see such a check as one that fails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
    /// Value that was found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// One pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// Kubernetes' uid.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Addresses.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// Selected for the mesh by labels of pod and namespace.
    // Apart from `state`: a selected pod may not be enrolled yet, and one that leaves is not selected any more.
    pub selected: bool,
    /// State in the mesh.
    pub state: PodState,
    /// Reason for the state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Unsupported settings of the pod, whatever its state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Other programs and rules in the pod's network namespace that may take connections away from the proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hazards: Vec<String>,
    /// The facts behind `state`.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Its network namespace, as inode number or path; empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub netns: String,
    /// The kernel's cookie of that namespace.
    // The CNI plugin's request is compared with it: an enrolment in an earlier namespace does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// Since when it is in this state, RFC 3339.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
}
