//! PeerAuthentication: which inbound connections must prove an identity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PolicyStatus;
use super::authorization_policy::WorkloadSelector;
use crate::meta::ObjectMeta;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PeerAuthentication {
    pub metadata: ObjectMeta,
    pub spec: PeerAuthenticationSpec,
    pub status: PolicyStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PeerAuthenticationSpec {
    // Absent: the namespace, or the mesh in the root namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    // Absent is as `UNSET`: the mode of the level above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MutualTls>,
    /// Keys are ports of the pod, not of a Service.
    // Ignored without a selector.
    #[serde(with = "port_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MutualTls {
    pub mode: TlsMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TlsMode {
    /// Inherits the mode of the level above.
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

/// Keys of a mapping are text in JSON and numbers in YAML: both are accepted.
mod port_keys {
    use std::collections::BTreeMap;
    use std::fmt;

    use serde::de::{self, Deserialize, Deserializer, Visitor};
    use serde::ser::{Serialize, Serializer};

    use super::MutualTls;

    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Port(u16);

    struct PortVisitor;

    impl Visitor<'_> for PortVisitor {
        type Value = Port;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a port number from 1 to 65535")
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Port, E> {
            match u16::try_from(value) {
                // Port 0 would never match and so hide a mistake.
                Ok(port) if port > 0 => Ok(Port(port)),
                _ => Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
            }
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<Port, E> {
            match value.parse::<u16>() {
                Ok(port) if port > 0 => Ok(Port(port)),
                _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
            }
        }
    }

    impl<'de> Deserialize<'de> for Port {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(PortVisitor)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u16, MutualTls>, D::Error> {
        let ports = BTreeMap::<Port, MutualTls>::deserialize(deserializer)?;
        Ok(ports.into_iter().map(|(port, mode)| (port.0, mode)).collect())
    }

    pub(super) fn serialize<S: Serializer>(ports: &BTreeMap<u16, MutualTls>, serializer: S) -> Result<S::Ok, S::Error> {
        // JSON's keys are text; serde writes the numbers as such.
        ports.serialize(serializer)
    }
}
