//! `GET /config_dump` of the node proxy, in the shape that `istioctl ztunnel-config` reads. Keys are never in it.

use std::{collections::BTreeMap, sync::Arc};

use ca_client::CertificateManager;
use model::{Dump, State};
use proxy_core::admin::{CertificateDump, Version, certificates};
use serde::Serialize;
use telemetry::Direction;
use tokio::sync::watch;

use crate::{
    config::Config,
    inpod::{ConnectionEntry, PodInfo, PodStatus, Status},
};

/// Parts of the proxy that the dump shows.
pub struct DumpSource {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The mesh.
    pub state: State,
    /// Certificates held.
    pub certificates: CertificateManager,
    /// Pods and their connections.
    pub pods: watch::Receiver<Status>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigDump<'a> {
    #[serde(flatten)]
    mesh: Dump,
    certificates: Vec<CertificateDump>,
    workload_state: BTreeMap<String, WorkloadState>,
    static_config: StaticConfig,
    version: Version,
    config: &'a Config,
}

/// Always empty: resources of a local file are among the rest. Readers expect the key.
#[derive(Serialize)]
struct StaticConfig {}

#[derive(Serialize)]
struct WorkloadState {
    state: &'static str,
    connections: Connections,
    info: PodInfo,
}

#[derive(Default, Serialize)]
struct Connections {
    inbound: Vec<ConnectionEntry>,
    outbound: Vec<ConnectionEntry>,
}

pub(super) fn dump(source: &DumpSource) -> ConfigDump<'_> {
    // Copied, so that whoever starts and stops pods does not wait until the dump is made.
    let pods = source.pods.borrow().pods.clone();
    ConfigDump {
        mesh: source.state.dump(),
        certificates: certificates(&source.certificates),
        workload_state: pods.into_iter().map(|pod| (pod.uid.clone(), workload_state(pod))).collect(),
        static_config: StaticConfig {},
        version: Version::new(env!("CARGO_PKG_VERSION"), source.config.common.node.istio_version()),
        config: &source.config,
    }
}

fn workload_state(pod: PodStatus) -> WorkloadState {
    let mut connections = Connections::default();
    let listed = pod.running.as_ref().map(|running| running.connections.snapshot()).unwrap_or_default();
    for entry in listed {
        match entry.direction {
            Direction::Inbound => connections.inbound.push(entry),
            Direction::Outbound => connections.outbound.push(entry),
        }
    }
    WorkloadState { state: if pod.running.is_some() { "Up" } else { "Pending" }, connections, info: pod.info }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use futures::future::BoxFuture;
    use model::{State, StateConfig};
    use proxy_core::config::Environment;
    use proxy_core::discovery::{KnownNames, LocalMesh};
    use tokio::sync::watch;

    use super::*;
    use crate::inpod::Status;

    struct Nothing;
    impl ca_client::CertificateSource for Nothing {
        fn fetch(
            &self,
            _: &identity::Identity,
        ) -> BoxFuture<'_, Result<tls::WorkloadCertificate, ca_client::SourceError>> {
            Box::pin(std::future::pending())
        }
    }

    fn source(mesh: &str) -> DumpSource {
        let variables = [("ISTIO_META_ISTIO_VERSION".to_owned(), "1.31".to_owned())].into();
        let environment = Environment { variables, mesh_config: None, processors: 2 };
        let state = State::new(StateConfig::default());
        let changes = LocalMesh::parse(mesh).unwrap().into_changes(&mut KnownNames::default());
        state.apply_authorizations(changes.policies);
        state.apply_addresses(changes.addresses);
        let info = PodInfo { name: "a".into(), namespace: "ns".into(), service_account: "sa".into() };
        let pods = vec![PodStatus { uid: "uid-1".into(), info, running: None }];
        DumpSource {
            config: Arc::new(Config::from_env(&environment).unwrap()),
            state,
            certificates: CertificateManager::spawn(Arc::new(Nothing)),
            pods: watch::channel(Status { pods, ..Status::default() }).1,
        }
    }

    const MESH: &str = r#"
workloads:
- uid: Kubernetes//Pod/ns/a
  name: a
  namespace: ns
  serviceAccount: sa
  workloadIps: ["10.0.0.1"]
  waypoint: {destination: ns/waypoint.ns.svc.cluster.local, hboneMtlsPort: 15008}
  protocol: HBONE
  workloadType: pod
  locality: {region: r}
  services:
    "ns/a.ns.svc.cluster.local": {80: 8080}
    "ns/later.ns.svc.cluster.local": {80: 8080}
services:
- name: a
  namespace: ns
  hostname: a.ns.svc.cluster.local
  vips: [/10.98.0.1]
  ports: {80: 8080}
policies:
- {name: p, namespace: ns, scope: Namespace, action: Deny, rules: [[[{principals: [{Presence: []}]}]]]}
"#;

    #[tokio::test]
    async fn the_dump_has_the_keys_and_shapes_that_istio_s_tools_read() {
        let source = source(MESH);

        let dump = serde_json::to_value(dump(&source)).unwrap();

        let expected: HashMap<&str, serde_json::Value> = serde_json::from_str(
            r#"{
            "workloads": [{
                "uid": "Kubernetes//Pod/ns/a", "workloadIps": ["10.0.0.1"],
                "waypoint": {"destination": "ns/waypoint.ns.svc.cluster.local", "hboneMtlsPort": 15008},
                "protocol": "HBONE", "name": "a", "namespace": "ns", "trustDomain": "cluster.local",
                "serviceAccount": "sa", "workloadType": "pod", "status": "Healthy", "clusterId": "Kubernetes",
                "locality": {"region": "r"}, "capacity": 1,
                "services": ["ns/a.ns.svc.cluster.local", "ns/later.ns.svc.cluster.local"]}],
            "services": [{
                "name": "a", "namespace": "ns", "hostname": "a.ns.svc.cluster.local", "vips": ["/10.98.0.1"],
                "ports": {"80": 8080},
                "endpoints": {"Kubernetes//Pod/ns/a":
                    {"workloadUid": "Kubernetes//Pod/ns/a", "port": {"80": 8080}, "status": "Healthy"}}}],
            "policies": [{
                "name": "p", "namespace": "ns", "scope": "Namespace", "action": "Deny",
                "rules": [[[{"principals": [{"Presence": []}]}]]]}],
            "stagedServices": {"ns/later.ns.svc.cluster.local": {"Kubernetes//Pod/ns/a":
                {"workloadUid": "Kubernetes//Pod/ns/a", "port": {"80": 8080}, "status": "Healthy"}}},
            "certificates": [],
            "workloadState": {"uid-1": {"state": "Pending", "connections": {"inbound": [], "outbound": []},
                "info": {"name": "a", "namespace": "ns", "serviceAccount": "sa"}}},
            "staticConfig": {}
        }"#,
        )
        .unwrap();
        for (key, value) in expected {
            assert_eq!(dump[key], value, "{key}");
        }
        assert_eq!(dump["version"]["istioVersion"], "1.31");
        assert_eq!(dump["config"]["workerThreads"], 2);
    }

    #[tokio::test]
    async fn a_certificate_that_is_asked_for_is_shown_as_initializing() {
        let source = source("{}");
        source.certificates.prefetch(&"spiffe://cluster.local/ns/ns/sa/sa".parse().unwrap());

        let dump = serde_json::to_value(dump(&source)).unwrap();

        assert_eq!(dump["certificates"][0]["identity"], "spiffe://cluster.local/ns/ns/sa/sa");
        assert_eq!(dump["certificates"][0]["state"], "Initializing");
        assert_eq!(dump["certificates"][0]["certChain"], serde_json::json!([]));
    }
}
