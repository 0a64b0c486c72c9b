//! Peers that should not be believed: certificates of another trust domain, of another identity than discovery
//! promised, expired, or none; and a CONNECT to an address that is not this pod's.

use std::net::SocketAddr;

use kube_api::{Kind, ObjectRef, Status};
use serde_json::{Value, json};
use testkit::{
    Shared, TestLab, eventually,
    labs::TAKES_EFFECT,
    manifests::{app, command, idle, namespace},
    pki::{Authority, Leaf, Validity},
    prerequisites::bin_dir,
};

static LAB: Shared = Shared::new("certs", manifests);

/// A pod in the mesh whose HBONE port is dialled.
const SERVER: &str = "mesh/server";
/// A pod outside, from which peers dial.
const PEER: &str = "plain/peer";
/// Who may call.
const FRIEND: &str = "spiffe://cluster.local/ns/plain/sa/peer";

fn manifests() -> String {
    namespace("mesh", true)
        + &namespace("plain", false)
        + &app("mesh", "server", "node-2")
        + &idle("mesh", "client", "node-1")
        + &idle("plain", "peer", "node-1")
}

fn cluster_authority(lab: &TestLab) -> Authority {
    Authority::open(&lab.lab().run_dir().control().join("ca")).unwrap()
}

/// Dials the server's HBONE port and asks for its echo port, unless told otherwise.
async fn dial(lab: &TestLab, name: &str, leaf: Option<&Leaf>, v6: bool, authority: Option<&str>) -> Value {
    let ip = lab.ip(SERVER, v6).await;
    let address = |port: u16| SocketAddr::new(ip.parse().unwrap(), port).to_string();
    let authority = authority.map_or_else(|| address(7000), ToOwned::to_owned);
    let target = address(15008);
    let mut args = vec!["hbone-client", &target, "--authority", &authority, "--send", "hello"];
    let paths = leaf.map(|leaf| leaf.write(lab.manifests(), name).unwrap());
    if let Some((cert, key)) = &paths {
        args.extend(["--cert", cert, "--key", key]);
    }
    lab.testapp(PEER, &args).await
}

#[test]
fn a_peer_with_a_certificate_of_the_cluster_is_let_in() {
    LAB.run(async |lab| {
        lab.meshed(&[SERVER]).await;
        let leaf = cluster_authority(lab).issue(FRIEND, Validity::Now).unwrap();

        for v6 in [false, true] {
            let report = dial(lab, "good", Some(&leaf), v6, None).await;

            assert_eq!((&report["status"], &report["body"]), (&json!(200), &json!("hello")), "{report}");
            assert_eq!(report["peer"], "spiffe://cluster.local/ns/mesh/sa/server", "{report}");
        }
    });
}

#[test]
fn a_peer_that_cannot_prove_who_it_is_gets_no_tunnel() {
    LAB.run(async |lab| {
        lab.meshed(&[SERVER]).await;
        let cluster = cluster_authority(lab);
        let other_root = Authority::new("cluster.local").unwrap();
        let foreign = "spiffe://example.org/ns/plain/sa/peer";
        let cases = [
            ("other-trust-domain", Some(cluster.issue(foreign, Validity::Now).unwrap())),
            ("other-root", Some(other_root.issue(FRIEND, Validity::Now).unwrap())),
            ("expired", Some(cluster.issue(FRIEND, Validity::Expired).unwrap())),
            ("not-yet-valid", Some(cluster.issue(FRIEND, Validity::NotYet).unwrap())),
            ("no-workload", Some(cluster.issue("https://example.org/", Validity::Now).unwrap())),
            ("none", None),
        ];

        for (name, leaf) in cases {
            for v6 in [false, true] {
                let report = dial(lab, name, leaf.as_ref(), v6, None).await;

                // in TLS 1.3 a client hears of it with the first bytes after its own handshake
                assert!(["tls", "http"].contains(&report["stage"].as_str().unwrap()), "{name}: {report}");
                assert!(report["error"].is_string(), "{name}: {report}");
            }
        }
    });
}

#[test]
fn a_connect_to_an_address_that_is_not_the_pods_is_a_bad_request() {
    LAB.run(async |lab| {
        lab.meshed(&[SERVER]).await;
        let leaf = cluster_authority(lab).issue(FRIEND, Validity::Now).unwrap();
        let (client, client6) = (lab.ip("mesh/client", false).await, lab.ip("mesh/client", true).await);
        let foreign = [
            (format!("{client}:7000"), false),
            ("127.0.0.1:7000".into(), false),
            ("nonsense".into(), false),
            (format!("[{client6}]:7000"), true),
            ("[::1]:7000".into(), true),
        ];

        for (authority, v6) in foreign {
            let report = dial(lab, "foreign", Some(&leaf), v6, Some(&authority)).await;

            assert_eq!(report["status"], 400, "{authority}: {report}");
        }
    });
}

#[test]
fn a_connect_to_the_proxys_own_ports_is_refused() {
    LAB.run(async |lab| {
        lab.meshed(&[SERVER]).await;
        let leaf = cluster_authority(lab).issue(FRIEND, Validity::Now).unwrap();
        let ips = [lab.ip(SERVER, false).await, lab.ip(SERVER, true).await];

        for port in [15001, 15006, 15008] {
            for (ip, v6) in [(&ips[0], false), (&ips[1], true)] {
                let authority = SocketAddr::new(ip.parse().unwrap(), port).to_string();
                let report = dial(lab, "self", Some(&leaf), v6, Some(&authority)).await;

                assert_eq!(report["status"], 503, "{authority}: {report}");
            }
        }
    });
}

#[test]
fn a_server_with_another_certificate_than_discovery_promised_gets_no_byte() {
    LAB.run(async |lab| {
        lab.meshed(&["mesh/client"]).await;
        let cluster = cluster_authority(lab);
        let other_root = Authority::new("cluster.local").unwrap();
        let cases = [
            ("imp-right", cluster.issue("spiffe://cluster.local/ns/plain/sa/imp-right", Validity::Now).unwrap(), true),
            (
                "imp-identity",
                cluster.issue("spiffe://cluster.local/ns/plain/sa/another", Validity::Now).unwrap(),
                false,
            ),
            ("imp-domain", cluster.issue("spiffe://example.org/ns/plain/sa/imp-domain", Validity::Now).unwrap(), false),
            (
                "imp-root",
                other_root.issue("spiffe://cluster.local/ns/plain/sa/imp-root", Validity::Now).unwrap(),
                false,
            ),
            (
                "imp-expired",
                cluster.issue("spiffe://cluster.local/ns/plain/sa/imp-expired", Validity::Expired).unwrap(),
                false,
            ),
        ];

        for (name, leaf, served) in cases {
            let pod = impostor(lab, name, &leaf).await;
            for v6 in [false, true] {
                let target = SocketAddr::new(lab.ip(&pod, v6).await.parse().unwrap(), 7000).to_string();
                let report = lab.client("mesh/client", &["echo", &target, "--bytes", "64"]).await;

                assert_eq!(report.get("error").is_none(), served, "{name}: {report}");
            }
            let log = lab.log(&pod, "app");
            assert_eq!(log.contains("\"event\":\"connect\""), served, "{name}: {log}");
        }
    });
}

/// A pod that plays an HBONE workload with this certificate, and is announced as one.
async fn impostor(lab: &TestLab, name: &str, leaf: &Leaf) -> String {
    let (cert, key) = leaf.write(lab.manifests(), name).unwrap();
    let program = bin_dir().join("strake-testapp").display().to_string();
    let argv = [program.as_str(), "hbone-server", "--cert", &cert, "--key", &key];
    lab.write(&format!("{name}.yaml"), &command("plain", name, "node-2", &argv, false)).unwrap();
    let pod = format!("plain/{name}");
    eventually(&format!("{pod} listens"), TAKES_EFFECT, async || {
        if lab.log(&pod, "app").contains("listening") { Ok(()) } else { Err("not yet") }
    })
    .await;
    let status = Status::directory(&lab.lab().run_dir().state(), "test");
    let annotation = json!({ "metadata": { "annotations": { "ambient.istio.io/redirection": "enabled" } } });
    status.apply(&ObjectRef::new(Kind::Pod, "plain", name), annotation).await.unwrap();
    lab.announced(&[&pod], "HBONE").await;
    pod
}
