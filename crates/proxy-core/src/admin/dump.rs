//! `GET /config_dump`, in the shape that `istioctl ztunnel-config` reads. Keys are never in it.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ca_client::{CertificateManager, CertificateStatus};
use identity::Leaf;
use model::Dump;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Admin;
use crate::{
    config::Config,
    inpod::{ConnectionEntry, PodInfo, PodStatus},
};

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

/// What a local file brought is among the rest; the key is there for readers that expect it.
#[derive(Serialize)]
struct StaticConfig {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateDump {
    identity: String,
    state: String,
    cert_chain: Vec<Certificate>,
    root_certs: Vec<Certificate>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    /// Base64 of the PEM text.
    pem: String,
    serial_number: String,
    valid_from: String,
    expiration_time: String,
}

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

/// What was built.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    build_profile: &'static str,
    istio_version: String,
    crypto_provider: &'static str,
}

pub(super) fn dump(admin: &Admin) -> ConfigDump<'_> {
    let pods = admin.pods.borrow().pods.clone();
    ConfigDump {
        mesh: admin.state.dump(),
        certificates: certificates(&admin.certificates),
        workload_state: pods.into_iter().map(|pod| (pod.uid.clone(), workload_state(pod))).collect(),
        static_config: StaticConfig {},
        version: Version {
            version: env!("CARGO_PKG_VERSION"),
            build_profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            istio_version: admin.config.node.istio_version().to_owned(),
            crypto_provider: "aws-lc-rs",
        },
        config: &admin.config,
    }
}

fn certificates(manager: &CertificateManager) -> Vec<CertificateDump> {
    let mut all: Vec<_> = manager.snapshot().iter().map(certificate_dump).collect();
    all.sort_by(|a, b| a.identity.cmp(&b.identity));
    all
}

fn certificate_dump(status: &CertificateStatus) -> CertificateDump {
    let held = status.certificate.as_ref();
    let chain = held.map(|c| c.chain()).unwrap_or_default();
    let roots = held.map(|c| c.roots()).unwrap_or_default();
    CertificateDump {
        identity: status.identity.to_string(),
        state: status.state.to_string(),
        cert_chain: chain.iter().filter_map(certificate).collect(),
        root_certs: roots.iter().filter_map(certificate).collect(),
    }
}

/// None for what cannot be read, which no holder would have accepted.
fn certificate(der: &CertificateDer<'_>) -> Option<Certificate> {
    let facts = Leaf::parse(der).ok()?;
    Some(Certificate {
        pem: STANDARD.encode(pem(der)),
        serial_number: decimal(&facts.serial),
        valid_from: seconds(facts.not_before)?,
        expiration_time: seconds(facts.not_after)?,
    })
}

fn pem(der: &[u8]) -> String {
    const WIDTH: usize = 64;
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(WIDTH) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// Hex digits as a decimal number of any size.
fn decimal(hex: &str) -> String {
    // Least significant digit first.
    let mut digits = vec![0_u32];
    for nibble in hex.chars().filter_map(|c| c.to_digit(16)) {
        let mut carry = nibble;
        for digit in &mut digits {
            let value = *digit * 16 + carry;
            (*digit, carry) = (value % 10, value / 10);
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().filter_map(|digit| char::from_digit(*digit, 10)).collect()
}

fn seconds(time: SystemTime) -> Option<String> {
    OffsetDateTime::from(time).replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

fn workload_state(pod: PodStatus) -> WorkloadState {
    let mut connections = Connections::default();
    let listed = pod.running.as_ref().map(|running| running.connections.snapshot()).unwrap_or_default();
    for entry in listed {
        if entry.inbound { connections.inbound.push(entry) } else { connections.outbound.push(entry) }
    }
    WorkloadState { state: if pod.running.is_some() { "Up" } else { "Pending" }, connections, info: pod.info }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use futures::future::BoxFuture;
    use model::{State, StateConfig};
    use telemetry::logging::{LogFormat, Sink, build};
    use tokio::sync::watch;

    use super::*;
    use crate::{
        admin::Shutdown,
        config::Environment,
        inpod::Status,
        local_xds::{Known, LocalMesh},
    };

    struct Nothing;
    impl ca_client::CertificateSource for Nothing {
        fn fetch(
            &self,
            _: &identity::Identity,
        ) -> BoxFuture<'_, Result<tls::WorkloadCertificate, ca_client::SourceError>> {
            Box::pin(std::future::pending())
        }
    }

    fn admin(mesh: &str) -> Admin {
        let variables = [("ISTIO_META_ISTIO_VERSION".to_owned(), "1.31".to_owned())].into();
        let environment = Environment { variables, mesh_config: None, processors: 2 };
        let state = State::new(StateConfig::default());
        let changes = LocalMesh::parse(mesh).unwrap().into_changes(&mut Known::default());
        state.apply_authorizations(changes.policies);
        state.apply_addresses(changes.addresses);
        let info = PodInfo { name: "a".into(), namespace: "ns".into(), service_account: "sa".into() };
        let pods = vec![PodStatus { uid: "uid-1".into(), info, running: None }];
        let (logging, _) = build(LogFormat::Plain, None, Sink::new(std::io::sink())).unwrap();
        Admin {
            config: Arc::new(Config::from_env(&environment).unwrap()),
            state,
            certificates: CertificateManager::spawn(Arc::new(Nothing)),
            pods: watch::channel(Status { pods, ..Status::default() }).1,
            logging,
            shutdown: Shutdown::channel().0,
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
        let admin = admin(MESH);

        let dump = serde_json::to_value(dump(&admin)).unwrap();

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
        let admin = admin("{}");
        admin.certificates.prefetch(&"spiffe://cluster.local/ns/ns/sa/sa".parse().unwrap());

        let dump = serde_json::to_value(dump(&admin)).unwrap();

        assert_eq!(dump["certificates"][0]["identity"], "spiffe://cluster.local/ns/ns/sa/sa");
        assert_eq!(dump["certificates"][0]["state"], "Initializing");
        assert_eq!(dump["certificates"][0]["certChain"], serde_json::json!([]));
    }

    #[test]
    fn a_certificate_is_shown_with_decimal_serial_and_times_in_seconds() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[1, 0xab]));
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(2024, 1, 2);
        let der = params.self_signed(&key).unwrap().der().clone();

        let shown = certificate(&der).unwrap();

        assert_eq!(shown.serial_number, "427");
        assert_eq!(shown.valid_from, "2024-01-01T00:00:00Z");
        assert_eq!(shown.expiration_time, "2024-01-02T00:00:00Z");
        let pem = String::from_utf8(STANDARD.decode(shown.pem).unwrap()).unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && pem.ends_with("-----END CERTIFICATE-----\n"));
    }

    #[test]
    fn serials_of_any_length_become_decimal() {
        assert_eq!(decimal("00"), "0");
        assert_eq!(decimal("ff"), "255");
        assert_eq!(decimal("ffffffffffffffffffffffffffffffff"), u128::MAX.to_string());
    }

    #[tokio::test]
    async fn quitquitquit_asks_for_the_end_and_answers_when_it_has_come() {
        let mut admin = admin("{}");
        let (shutdown, mut requested, drained) = Shutdown::channel();
        admin.shutdown = shutdown;
        let router = admin.router();
        let request = |method| {
            let mut request = telemetry::http::Request::default();
            *request.method_mut() = method;
            *request.uri_mut() = "/quitquitquit".parse().unwrap();
            request
        };

        assert_eq!(router.answer(request(http::Method::GET)).await.status(), 405);
        assert!(!*requested.borrow());
        let ending = async {
            requested.wait_for(|requested| *requested).await.unwrap();
            drained.send_replace(true);
        };
        let (response, ()) = tokio::join!(router.answer(request(http::Method::POST)), ending);
        assert_eq!(telemetry::http::body_text(response).await, "shutdown now\n");
    }
}
