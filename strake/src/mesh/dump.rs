//! The proxy's dump as lists need it: fields that are not read may come and go.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::Deserialize;

/// `/config_dump`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ProxyDump {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) services: Vec<Service>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) certificates: Vec<CertificateState>,
    /// By uid of the pod.
    pub(crate) workload_state: BTreeMap<String, PodState>,
    pub(crate) version: Version,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Workload {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) workload_ips: Vec<IpAddr>,
    /// `HBONE` or `TCP`.
    pub(crate) protocol: String,
    pub(crate) trust_domain: String,
    pub(crate) service_account: String,
    pub(crate) status: String,
    pub(crate) waypoint: Option<Waypoint>,
    pub(crate) services: Vec<String>,
    pub(crate) authorization_policies: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Waypoint {
    pub(crate) destination: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) hostname: String,
    /// `network/address`.
    pub(crate) vips: Vec<String>,
    /// Target port by port.
    pub(crate) ports: BTreeMap<String, u16>,
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    pub(crate) waypoint: Option<Waypoint>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Endpoint {
    pub(crate) workload_uid: String,
    pub(crate) port: BTreeMap<String, u16>,
    pub(crate) status: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Policy {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) action: String,
    pub(crate) scope: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CertificateState {
    pub(crate) identity: String,
    pub(crate) state: String,
    /// The first is the workload's own.
    pub(crate) cert_chain: Vec<Certificate>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Certificate {
    pub(crate) serial_number: String,
    pub(crate) valid_from: String,
    pub(crate) expiration_time: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PodState {
    /// `Up` or `Pending`.
    pub(crate) state: String,
    pub(crate) info: PodName,
    pub(crate) connections: Connections,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Connections {
    pub(crate) inbound: Vec<Connection>,
    pub(crate) outbound: Vec<Connection>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Connection {
    pub(crate) src: SocketAddr,
    pub(crate) original_dst: Option<String>,
    pub(crate) actual_dst: SocketAddr,
    pub(crate) protocol: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Version {
    pub(crate) version: String,
}

impl ProxyDump {
    /// The workload of this name.
    pub(crate) fn workload(&self, namespace: &str, name: &str) -> Option<&Workload> {
        self.workloads.iter().find(|workload| workload.namespace == namespace && workload.name == name)
    }

    /// Names of workloads and Services by address.
    pub(crate) fn names(&self) -> BTreeMap<IpAddr, String> {
        let services = self.services.iter().flat_map(|service| {
            let addresses = service.vips.iter().filter_map(|vip| vip.rsplit('/').next()?.parse().ok());
            addresses.map(move |address| (address, format!("svc/{}/{}", service.namespace, service.name)))
        });
        let workloads = self.workloads.iter().flat_map(|workload| {
            let name = format!("{}/{}", workload.namespace, workload.name);
            workload.workload_ips.iter().map(move |address| (*address, name.clone()))
        });
        services.chain(workloads).collect()
    }
}

impl Workload {
    /// The identity that its proxy proves.
    pub(crate) fn identity(&self) -> String {
        format!("spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}
