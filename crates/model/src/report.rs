//! What an agent answers to `GET /pods`: how far each pod of its node is in the mesh, as the kernel shows it. Data only.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// All pods that an agent knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Name of the node.
    pub node: String,
    /// By namespace and name.
    pub pods: Vec<PodReport>,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodState {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// Not selected for the mesh, nothing of ours in it.
    NotSelected,
    /// Selected; some step is missing.
    Enrolling,
    /// Every step was read back from the kernel.
    Enrolled,
    /// No longer selected; open connections may finish.
    Leaving,
    /// A step failed; it is tried again. See `reason`.
    Failed,
    /// Enrolled before and still announced so, and some facts cannot be read; they are read again. See `reason`.
    Unverified,
    /// Enrolled before and still announced so, and some facts do not hold; they are being repaired. See `reason`.
    Broken,
}

impl PodState {
    /// As in the serialised form.
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

/// One fact that was looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// As it should be?
    pub ok: bool,
    /// It could not be read, which says nothing about it; then `ok` is false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
    /// What was found.
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
    /// Do labels and namespace ask for the mesh?
    pub selected: bool,
    /// How far it is.
    pub state: PodState,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the pod asks for and does not get, in words; whatever the state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What else in the pod's network namespace may take connections away from the proxy, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hazards: Vec<String>,
    /// The facts behind `state`.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Its network namespace, as inode number or path; empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub netns: String,
    /// The kernel's cookie of that namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// Since when it is in this state, RFC 3339.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_way_to_the_command_line() {
        let pod =
            PodReport { name: "web-1".into(), state: PodState::Enrolled, cookie: Some(7), ..PodReport::default() };
        let report = NodeReport { node: "node-1".into(), pods: vec![pod] };

        let text = serde_json::to_string(&report).unwrap();

        assert!(text.contains(r#""state":"enrolled""#));
        assert_eq!(serde_json::from_str::<NodeReport>(&text).unwrap(), report);
    }
}
