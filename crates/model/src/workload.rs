//! A workload: one endpoint of the mesh, usually a pod. Types only; see `convert` for the wire and `state` for the store.

use std::{fmt, net::IpAddr};

use identity::Identity;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use crate::{GatewayAddress, NamespacedHostname, Ports, Text, address::deserialize_addresses};

/// Protocol in which a workload takes traffic of the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InboundProtocol {
    /// Plain TCP: not in the mesh.
    #[default]
    TCP,
    /// HBONE on port 15008.
    HBONE,
}

/// Owner of a workload's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// Its own.
    #[default]
    Standard,
    /// Its node's: it cannot be found by address.
    HostNetwork,
}

/// Is the workload fit to take traffic of a service?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthStatus {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready, or on its way out.
    Unhealthy,
}

/// Kind of the object that owns the workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadType {
    /// Deployment.
    #[default]
    Deployment,
    /// CronJob.
    Cronjob,
    /// Pod without owner.
    Pod,
    /// Job.
    Job,
}

impl WorkloadType {
    /// Lower-case name, as in a baggage key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Cronjob => "cronjob",
            Self::Pod => "pod",
            Self::Job => "job",
        }
    }
}

/// Region, zone and subzone of a workload. Empty: not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Locality {
    /// Region.
    #[serde(skip_serializing_if = "is_default")]
    pub region: Text,
    /// Zone.
    #[serde(skip_serializing_if = "is_default")]
    pub zone: Text,
    /// Subzone.
    #[serde(skip_serializing_if = "is_default")]
    pub subzone: Text,
}

/// Header before the payload of a connection that is delivered through an application tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TunnelProtocol {
    /// Nothing.
    #[default]
    NONE,
    /// A PROXY protocol v2 header.
    PROXY,
}

/// The application takes traffic for other addresses than its own (a waypoint that is no HBONE server itself).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationTunnel {
    /// Header before the payload.
    pub protocol: TunnelProtocol,
    /// Port to deliver to; none: the port of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Membership of a workload in one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Name of the service.
    pub service: NamespacedHostname,
    /// Ports of this endpoint that differ from, or complete, the service's.
    pub ports: Ports,
}

/// The services of a workload. Written as a list of names; read from a list or from a map of name to ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memberships(Box<[Membership]>);

/// One endpoint of the mesh. Replaced as a whole on every update.
///
/// One flat type with as many fields as discovery has: local files and the config dump have this form, in which an unknown
/// field is an error, and serde cannot refuse unknown fields of a type that is put together from groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// Key, such as `Kubernetes//Pod/shop/web-1`.
    #[serde(default)]
    pub uid: Text,
    /// Addresses; canonical, in the order of discovery.
    #[serde(default, deserialize_with = "deserialize_addresses")]
    pub workload_ips: Vec<IpAddr>,
    /// Waypoint that workload-addressed traffic has to pass first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<GatewayAddress>,
    /// Gateway by which it is reached from another network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_gateway: Option<GatewayAddress>,
    /// HBONE or plain.
    #[serde(default)]
    pub protocol: InboundProtocol,
    /// Own addresses or the node's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network_mode: NetworkMode,
    /// Name, usually the pod's.
    pub name: Text,
    /// Namespace.
    pub namespace: Text,
    /// Trust domain of its identity.
    #[serde(default = "default_trust_domain")]
    pub trust_domain: Text,
    /// Service account of its identity.
    #[serde(default = "default_service_account")]
    pub service_account: Text,
    /// Network of its addresses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Text,
    /// Name of the owner.
    #[serde(default, skip_serializing_if = "is_default")]
    pub workload_name: Text,
    /// Kind of the owner.
    #[serde(default)]
    pub workload_type: WorkloadType,
    /// `service.istio.io/canonical-name`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub canonical_name: Text,
    /// `service.istio.io/canonical-revision`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub canonical_revision: Text,
    /// DNS name, for workloads without address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hostname: Text,
    /// Node it runs on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub node: Text,
    /// It terminates HBONE itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub native_tunnel: bool,
    /// See the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Names (`namespace/name`) of the policies that select this workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorization_policies: Vec<Text>,
    /// Ready?
    #[serde(default)]
    pub status: HealthStatus,
    /// Cluster it runs in.
    #[serde(default = "default_cluster_id")]
    pub cluster_id: Text,
    /// Region, zone, subzone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub locality: Locality,
    /// Services it is an endpoint of.
    #[serde(default, skip_serializing_if = "Memberships::is_empty")]
    pub services: Memberships,
    /// Weight among the endpoints of a service; 0: none of the traffic.
    #[serde(default = "default_capacity")]
    pub capacity: u32,
}

impl Workload {
    /// The identity that its peers expect of it. None when discovery gave no namespace (some gateways), or names that
    /// cannot be part of an identity: nobody can open a tunnel to such a workload.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        format!("spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account).parse().ok()
    }

    /// Its entry for `service`, when it is an endpoint of it.
    #[must_use]
    pub fn membership(&self, service: &NamespacedHostname) -> Option<&Membership> {
        self.services.iter().find(|m| m.service == *service)
    }

    /// A pod, as opposed to an entry that a user wrote.
    #[must_use]
    pub fn is_pod(&self) -> bool {
        // The core API group is empty, so that two slashes stand before `Pod`; see `Mesh::pod_uid` of the control
        // plane.
        self.uid.contains("//Pod/")
    }
}

impl Memberships {
    /// In the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = &Membership> {
        self.0.iter()
    }

    /// Of no service?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Membership> for Memberships {
    fn from_iter<I: IntoIterator<Item = Membership>>(memberships: I) -> Self {
        let mut all: Vec<_> = memberships.into_iter().collect();
        all.sort_by(|a, b| a.service.cmp(&b.service));
        all.dedup_by(|a, b| a.service == b.service);
        Self(all.into_boxed_slice())
    }
}

impl Serialize for Memberships {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|m| &m.service))
    }
}

impl<'de> Deserialize<'de> for Memberships {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembershipsVisitor;
        impl<'de> Visitor<'de> for MembershipsVisitor {
            type Value = Memberships;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of namespace/hostname to ports, or a list of namespace/hostname")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Memberships, A::Error> {
                let mut all = Vec::new();
                while let Some((service, ports)) = map.next_entry()? {
                    all.push(Membership { service, ports });
                }
                Ok(all.into_iter().collect())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Memberships, A::Error> {
                let mut all = Vec::new();
                while let Some(service) = list.next_element()? {
                    all.push(Membership { service, ports: Ports::default() });
                }
                Ok(all.into_iter().collect())
            }
            fn visit_unit<E>(self) -> Result<Memberships, E> {
                Ok(Memberships::default())
            }
        }
        deserializer.deserialize_any(MembershipsVisitor)
    }
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(crate) fn default_trust_domain() -> Text {
    "cluster.local".into()
}

pub(crate) fn default_service_account() -> Text {
    "default".into()
}

pub(crate) fn default_cluster_id() -> Text {
    "Kubernetes".into()
}

const fn default_capacity() -> u32 {
    1
}
