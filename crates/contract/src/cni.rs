//! The request that a CNI plugin sends to the node agent before a pod's first container starts, and the answer.
//!
//! HTTP/1.1 `POST /cmdadd` with a JSON body over a unix socket; `GET /alive` is answered with 200 by an agent that lives. The body is the one of Istio's plugin, as Go's
//! `encoding/json` writes it: names begin with a capital letter, an absent list is `null`, an absent address is `""`.
//! Fields that only one side knows are ignored by the other.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Name of the agent's socket, in its run directory. Istio's.
pub const SOCKET_NAME: &str = "pluginevent.sock";

/// Path of the request for a pod that starts. Istio's.
pub const ADD_PATH: &str = "/cmdadd";

/// Path of the request that asks for nothing but an answer.
pub const ALIVE_PATH: &str = "/alive";

/// Longest time that a plugin waits for the answer. Istio's.
pub const PLUGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Status of an answer that lets the pod start. With any other, it must not start.
// Istio's plugin looks at the status alone, and lets the pod start with 200 only.
pub const STATUS_ENROLLED: u16 = 200;
/// Status of an answer to a body that is not an [`AddRequest`].
pub const STATUS_INVALID: u16 = 400;
/// Status of every other answer.
pub const STATUS_FAILED: u16 = 500;

/// Body of `POST /cmdadd`: a pod has a network namespace and addresses, and no container yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AddRequest {
    /// Path of the network namespace, on the node.
    pub netns: String,
    pub pod_name: String,
    pub pod_namespace: String,
    /// `metadata.uid`. Istio's plugin does not send it; then the newest pod of this name is meant.
    // Older container runtimes do not tell their plugins the uid either (`K8S_POD_UID`).
    #[serde(rename = "PodUID", default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Addresses that the plugins before this one assigned.
    #[serde(rename = "IPs", default, deserialize_with = "list_or_null")]
    pub ips: Vec<IpConfig>,
}

/// One address of the pod, an element of the CNI result's `ips`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpConfig {
    /// Index into the CNI result's `interfaces`.
    // Absent where a plugin says nothing about interfaces, as the specification allows.
    #[serde(default)]
    pub interface: Option<u32>,
    pub address: IpNet,
    #[serde(default, serialize_with = "address_or_empty", deserialize_with = "empty_or_address")]
    pub gateway: Option<IpAddr>,
}

/// Go's `net.IPNet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpNet {
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// The netmask's 4 or 16 bytes in base64. The agent does not read it.
    // Kept, so that the request is the one that Istio's agent expects as well.
    #[serde(default)]
    pub mask: Option<String>,
}

impl IpConfig {
    /// An address that is alone in its subnet (`/32` or `/128`), without a gateway.
    #[must_use]
    pub fn host(ip: IpAddr) -> Self {
        // Base64 of 4 and of 16 bytes 0xff.
        let mask = if ip.is_ipv4() { "/////w==" } else { "/////////////////////w==" };
        Self { interface: None, address: IpNet { ip, mask: Some(mask.to_owned()) }, gateway: None }
    }
}

/// Body of the agent's answer. Istio's plugin shows it when the status is not 200, and reads nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddResponse {
    // More than the status: `NotSelected` and `Failed` have the same one, for Istio's plugin.
    pub outcome: Outcome,
    /// Reason that the pod is not enrolled; empty when it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The pod's traffic is steered, proved by reading back, and served by the proxy.
    Enrolled,
    /// The pod does not belong into the mesh as far as the agent knows.
    NotSelected,
    /// The body is not a request.
    Invalid,
    /// The pod belongs into the mesh and is not, or not yet, proved to be in it. Ask again.
    Failed,
}

impl Outcome {
    /// Value of a label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::NotSelected => "not_selected",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }

    /// Status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Enrolled => STATUS_ENROLLED,
            Self::Invalid => STATUS_INVALID,
            // Istio's plugin asks for selected pods only, so that both mean "not now" to it; ours reads the outcome.
            Self::NotSelected | Self::Failed => STATUS_FAILED,
        }
    }
}

/// A nil slice of Go is `null`.
fn list_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpConfig>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A nil `net.IP` of Go is `""`.
fn empty_or_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

#[allow(clippy::ref_option, reason = "serde passes a reference to the field")]
fn address_or_empty<S: Serializer>(address: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        // As Go writes a nil `net.IP`.
        None => serializer.serialize_str(""),
    }
}
