//! EndpointSlice.

use contract::labels::SERVICE_NAME_LABEL;
use serde::{Deserialize, Serialize};

use crate::meta::ObjectMeta;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6`, `FQDN`.
    pub address_type: String,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<EndpointPort>,
}

impl EndpointSlice {
    /// Name of the Service it belongs to.
    pub fn service_name(&self) -> Option<&str> {
        // Not the name of the slice: that is generated, and a Service may have many slices.
        self.metadata.labels.get(SERVICE_NAME_LABEL).map(String::as_str)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    // The first is the one to use (API of discovery.k8s.io/v1); others are alternatives of the same endpoint.
    pub addresses: Vec<String>,
    pub conditions: EndpointConditions,
    // Absent for endpoints outside of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    // Absent in hand-made slices, whose endpoints then count as external.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Absent counts as ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    // As `ready`, but true also for an endpoint that is terminating and still answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    // Empty in hand-made slices. Tells a pod from a later one of the same name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointPort {
    // The name of the Service's port; empty for a Service with one port that has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    // Absent: not restricted (API), so that there is no port to send to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}
