//! ServiceEntry: services that are no Kubernetes Services, inside or outside of the mesh.

use serde::{Deserialize, Serialize};

use super::workload_entry::WorkloadEntrySpec;
use crate::core::Condition;
use crate::meta::{ObjectMeta, StringMap};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntry {
    pub metadata: ObjectMeta,
    pub spec: ServiceEntrySpec,
    pub status: ServiceEntryStatus,
}

impl ServiceEntry {
    /// Labels that select workloads of the namespace; `None` for an empty selector, which selects nothing.
    pub fn selector(&self) -> Option<&StringMap> {
        self.spec.workload_selector.as_ref().map(|selector| &selector.labels).filter(|labels| !labels.is_empty())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntrySpec {
    /// One service each; `*.example.com` stands for all names of a domain.
    pub hosts: Vec<String>,
    /// IP addresses or CIDR blocks of each of the services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EntryPort>,
    // Absent means outside of the mesh (protobuf's zero value).
    pub location: Location,
    pub resolution: Resolution,
    // Excludes `workloadSelector` (API).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<WorkloadEntrySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<EntrySelector>,
    /// Namespaces that see the services. Has no effect on ambient workloads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Further identities of the endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
}

/// Port of the services of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EntryPort {
    pub number: u16,
    /// `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `TCP`, `TLS`, ...; compared without regard to case.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Port of the endpoints; 0 or absent: the same as `number`.
    // 0 is protobuf's way to leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
}

/// Selects workloads of the namespace by equal labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EntrySelector {
    pub labels: StringMap,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    #[default]
    MeshExternal,
    MeshInternal,
}

/// Way to find the addresses of the endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// A connection goes to the address that the client has asked for.
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    /// The name that the request asks for is looked up by a waypoint.
    DynamicDns,
}

impl Resolution {
    /// Returns true if the hosts themselves are looked up when no endpoints are given.
    pub const fn is_by_name(self) -> bool {
        match self {
            Self::Dns | Self::DnsRoundRobin | Self::DynamicDns => true,
            Self::None | Self::Static => false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntryStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Addresses that a control plane has allocated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<HostAddress>,
}

/// Allocated address of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostAddress {
    pub value: String,
    pub host: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_the_api_are_read_and_others_are_not() {
        let read = |spec: serde_json::Value| serde_json::from_value::<ServiceEntrySpec>(spec);

        let spec = read(serde_json::json!({"resolution": "DNS_ROUND_ROBIN", "location": "MESH_INTERNAL"})).unwrap();

        assert_eq!((spec.resolution, spec.location), (Resolution::DnsRoundRobin, Location::MeshInternal));
        assert_eq!(read(serde_json::json!({})).unwrap().resolution, Resolution::None);
        assert!(read(serde_json::json!({"resolution": "dns"})).is_err());
    }
}
