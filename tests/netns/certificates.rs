//! Peers that should not be believed: certificates of another trust domain, of another identity than discovery
//! promised, expired, or none; and a CONNECT to an address that is not this pod's.

use std::net::SocketAddr;

use kube_types::{Kind, ObjectRef};
use serde_json::{Value, json};
use testkit::{
    Shared, TestLab,
    assert::assert_turned_away,
    eventually,
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
/// Identity that may call.
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

/// Waits until the server's ztunnel has said `words` of the connection of this report.
async fn said_of(lab: &TestLab, report: &Value, words: &str) {
    let source = format!("src.addr={} ", report["local"].as_str().unwrap_or_else(|| panic!("{report}")));
    lab.says("node-2", &["direction=\"inbound\"", &source, words]).await;
}

#[test]
fn a_peer_that_cannot_prove_who_it_is_gets_an_alert_and_the_log_says_why() {
    LAB.run(async |lab| {
        lab.meshed(&[SERVER]).await;
        let cluster = cluster_authority(lab);
        let friend = |validity| Some(cluster.issue(FRIEND, validity).unwrap());
        let named = |uri: &str| Some(cluster.issue(uri, Validity::Now).unwrap());
        let foreign = Some(Authority::new("example.org").unwrap().issue(FRIEND, Validity::Now).unwrap());
        let age = "the peer's certificate is expired or not yet valid";
        let cases = [
            (
                "other-trust-domain",
                named("spiffe://example.org/ns/plain/sa/peer"),
                "CertificateUnknown",
                "peer is of trust domain example.org, expected cluster.local",
            ),
            ("other-root", foreign, "UnknownCA", "the peer's certificate is not signed by a root of the mesh"),
            ("expired", friend(Validity::Expired), "CertificateExpired", age),
            ("not-yet-valid", friend(Validity::NotYet), "CertificateExpired", age),
            (
                "no-workload",
                named("https://example.org/"),
                "CertificateUnknown",
                "the peer's certificate has no SPIFFE id",
            ),
            ("none", None, "CertificateRequired", "the peer has sent no certificate"),
        ];

        for (name, leaf, alert, words) in cases {
            for v6 in [false, true] {
                let report = dial(lab, name, leaf.as_ref(), v6, None).await;

                assert_eq!((&report["stage"], &report["alert"]), (&json!("tls"), &json!(alert)), "{name}: {report}");
                said_of(lab, &report, words).await;
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
            let words = if authority == "nonsense" { "invalid CONNECT address" } else { "ip mismatch: " };
            said_of(lab, &report, words).await;
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
                said_of(lab, &report, "attempted recursive call to ourselves").await;
            }
        }
    });
}

#[test]
fn a_server_with_the_certificate_that_discovery_promised_is_believed() {
    LAB.run(async |lab| {
        lab.meshed(&["mesh/client"]).await;
        let leaf = cluster_authority(lab).issue("spiffe://cluster.local/ns/plain/sa/imp-right", Validity::Now).unwrap();
        let pod = impostor(lab, "imp-right", &leaf).await;

        for v6 in [false, true] {
            let target = SocketAddr::new(lab.ip(&pod, v6).await.parse().unwrap(), 7000).to_string();
            lab.client_ok("mesh/client", &["echo", &target, "--bytes", "64"]).await;
        }

        let log = lab.log(&pod, "app");
        let peer = "\"peer\":\"spiffe://cluster.local/ns/mesh/sa/client\"";
        assert!(lab::output::line_with(&log, &["\"event\":\"connect\"", peer]).is_some(), "{log}");
    });
}

#[test]
fn a_server_with_another_certificate_than_discovery_promised_gets_an_alert_and_no_byte() {
    LAB.run(async |lab| {
        lab.meshed(&["mesh/client"]).await;
        let cluster = cluster_authority(lab);
        let named = |uri: &str| cluster.issue(uri, Validity::Now).unwrap();
        let own = |name: &str| format!("spiffe://cluster.local/ns/plain/sa/{name}");
        let other_root = Authority::new("example.org").unwrap();
        let cases = [
            (
                "imp-identity",
                named(&own("another")),
                "CertificateUnknown",
                ["peer is [", "plain/sa/another", "expected one of [", "plain/sa/imp-identity"].as_slice(),
            ),
            (
                "imp-domain",
                named("spiffe://example.org/ns/plain/sa/imp-domain"),
                "CertificateUnknown",
                &["peer is [", "example.org", "expected one of [", "cluster.local"],
            ),
            (
                "imp-root",
                other_root.issue(&own("imp-root"), Validity::Now).unwrap(),
                "UnknownCA",
                &["the peer's certificate is not signed by a root of the mesh"],
            ),
            (
                "imp-expired",
                cluster.issue(&own("imp-expired"), Validity::Expired).unwrap(),
                "CertificateExpired",
                &["the peer's certificate is expired or not yet valid"],
            ),
        ];

        for (name, leaf, alert, words) in cases {
            let pod = impostor(lab, name, &leaf).await;
            for v6 in [false, true] {
                let ip = lab.ip(&pod, v6).await.parse().unwrap();
                let target = SocketAddr::new(ip, 7000).to_string();
                let report = lab.client("mesh/client", &["echo", &target, "--bytes", "64"]).await;

                assert_turned_away(name, &report);
                let hop = format!("dst.addr={} ", SocketAddr::new(ip, 15008));
                let line = ["direction=\"outbound\"", "src.workload=\"client\"", &hop];
                lab.says("node-1", &[&line, words].concat()).await;
            }
            let refused = format!("\"alert\":\"{alert}\"");
            eventually(&format!("{pod} got {refused} twice"), TAKES_EFFECT, async || {
                let log = lab.log(&pod, "app");
                if log.matches(&refused).count() >= 2 { Ok(()) } else { Err(log) }
            })
            .await;
            let log = lab.log(&pod, "app");
            assert!(!log.contains("\"event\":\"connect\""), "{name}: {log}");
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
    let status = manifests::status(&lab.lab().run_dir().state(), "test");
    let annotation = json!({ "metadata": { "annotations": { "ambient.istio.io/redirection": "enabled" } } });
    status.apply(&ObjectRef::new(Kind::Pod, "plain", name), annotation).await.unwrap();
    lab.announced(&[&pod], "HBONE").await;
    pod
}
