//! DNS questions of pods: names that only the mesh knows, asked in the ways of the C library, musl and Go, over both families.

use std::fmt::Write as _;

use serde_json::Value;
use testkit::{
    Shared, TestLab, eventually, labs,
    labs::TAKES_EFFECT,
    manifests::{app, idle, namespace, service},
};

/// A host of the mesh alone, whose endpoint is the pod `mesh/server`.
const PARTNER: &str = "partner.example";
/// A host with so many addresses that they do not fit into an answer over UDP.
const MANY: &str = "many.example";
const ADDRESSES: usize = 40;

/// Cluster DNS of a lab.
const NAMESERVERS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];

const WAYS: [&str; 3] = ["unconnected", "connected", "tcp"];

const CLIENT: &str = "mesh/client";
const KILL: i32 = 9;

static LAB: Shared = Shared::new("dns", manifests);

fn entry(name: &str, host: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {name}\n  namespace: mesh\nspec:\n  hosts: \
         [{host}]\n  ports:\n  - {{number: 8080, name: http, protocol: HTTP}}\n  resolution: STATIC\n{rest}"
    )
}

fn partner() -> String {
    entry("partner", PARTNER, "  location: MESH_INTERNAL\n  workloadSelector: {labels: {app: server}}\n")
}

/// A pod that waits to be told what to do, with the annotation for DNS.
fn annotated(name: &str, value: &str) -> String {
    let annotation = format!("  annotations:\n    ambient.istio.io/dns-capture: \"{value}\"\n  labels:\n    app:");
    idle("mesh", name, "node-1").replacen("  labels:\n    app:", &annotation, 1)
}

fn manifests() -> String {
    let mut many = "  addresses:\n".to_owned();
    for number in 1..=ADDRESSES {
        let _ = writeln!(many, "  - 10.200.0.{number}");
    }
    many += "  endpoints:\n  - address: 192.0.2.1\n";
    namespace("mesh", true)
        + &namespace("plain", false)
        + &app("mesh", "client", "node-1")
        + &app("mesh", "server", "node-2")
        + &service("mesh", "server")
        + &idle("plain", "client", "node-1")
        + &annotated("out", "false")
        + &annotated("unclear", "yes")
        + &partner()
        + &entry("many", MANY, &many)
}

async fn resolve(lab: &TestLab, pod: &str, args: &[&str]) -> Value {
    lab.testapp(pod, &[&["resolve"], args].concat()).await
}

fn addresses(report: &Value) -> Vec<&str> {
    report["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Waits until the client's proxy answers with an address that was allocated for a host, and returns it.
async fn allocated(lab: &TestLab) -> String {
    lab.meshed(&[CLIENT, "mesh/server"]).await;
    eventually("the host has an address", TAKES_EFFECT, async || {
        let report = resolve(lab, CLIENT, &["connected", PARTNER]).await;
        let first = addresses(&report).first().map(|address| (*address).to_owned());
        first.filter(|address| address.starts_with("240.240.")).ok_or(report)
    })
    .await
}

#[test]
fn a_name_that_only_the_mesh_knows_is_resolved_however_it_is_asked_for() {
    LAB.run(async |lab| {
        let address = allocated(lab).await;

        for nameserver in NAMESERVERS {
            for way in WAYS {
                let report = resolve(lab, CLIENT, &[way, PARTNER, "--nameserver", nameserver]).await;

                assert_eq!(addresses(&report), [address.as_str()], "{way} {nameserver}: {report}");
                assert_eq!(report["peer"], report["nameserver"], "{way}: {report}");
            }
            let report = resolve(lab, CLIENT, &["unconnected", PARTNER, "--aaaa", "--nameserver", nameserver]).await;
            assert!(addresses(&report).iter().all(|address| address.contains(':')), "{report}");
        }
        let output = lab.exec(CLIENT, &["getent", "ahostsv4", PARTNER]).await;
        assert!(output.code == 0 && output.text().contains(&address), "{} {}", output.text(), output.error_text());
    });
}

#[test]
fn a_connection_to_such_a_name_goes_through_the_mesh() {
    LAB.run(async |lab| {
        allocated(lab).await;

        let target = format!("{PARTNER}:8080");
        let args = ["http", target.as_str(), "--family", "v4", "--text", "/marker-partner"];
        let calls = lab.client_ok(CLIENT, &args);
        let (report, frames) = lab.captured("node-1", calls).await;

        let client = lab.ip(CLIENT, false).await;
        assert!(report["body"].as_str().unwrap().contains(&format!("peer={client} ")), "{report}");
        let marker = capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), b"marker-partner");
        assert_eq!(marker, 0, "in plaintext");
    });
}

#[test]
fn an_answer_that_is_too_long_for_udp_comes_over_tcp() {
    LAB.run(async |lab| {
        allocated(lab).await;

        let report = resolve(lab, CLIENT, &["connected", MANY]).await;

        assert_eq!(addresses(&report).len(), ADDRESSES, "{report}");
        let cut = resolve(lab, CLIENT, &["unconnected", MANY]).await;
        assert!(addresses(&cut).len() < ADDRESSES, "{cut}");
        let output = lab.exec(CLIENT, &["getent", "ahostsv4", MANY]).await;
        assert!(output.text().contains("10.200.0.1 "), "{}", output.text());
    });
}

#[test]
fn other_names_are_answered_by_the_clusters_nameserver() {
    LAB.run(async |lab| {
        allocated(lab).await;

        for way in WAYS {
            let service = resolve(lab, CLIENT, &[way, "server.mesh.svc.cluster.local"]).await;
            assert!(addresses(&service).iter().all(|address| address.starts_with("10.96.")), "{service}");
            assert_eq!(addresses(&service).len(), 1, "{service}");
            let nobody = resolve(lab, CLIENT, &[way, "nobody.mesh.svc.cluster.local"]).await;
            assert_eq!(nobody["code"], "Non-Existent Domain", "{nobody}");
        }
    });
}

#[test]
fn pods_outside_the_mesh_and_pods_that_opted_out_ask_the_nameserver_themselves() {
    LAB.run(async |lab| {
        allocated(lab).await;
        lab.meshed(&["mesh/out"]).await;

        for pod in ["plain/client", "mesh/out"] {
            for way in WAYS {
                let partner = resolve(lab, pod, &[way, PARTNER]).await;
                assert!(addresses(&partner).is_empty(), "{pod} {way}: {partner}");
                let service = resolve(lab, pod, &[way, "server.mesh.svc.cluster.local"]).await;
                assert_eq!(addresses(&service).len(), 1, "{pod} {way}: {service}");
            }
        }
    });
}

#[test]
fn an_annotation_that_cannot_be_read_is_reported_and_the_default_counts() {
    LAB.run(async |lab| {
        allocated(lab).await;
        let report = lab.wait_state("mesh/unclear", "enrolled").await;

        let notes = report["notes"].to_string();

        let expected = "dns-capture: invalid value \\\"yes\\\", expected true or false; DNS questions go to ztunnel";
        assert!(notes.contains(expected), "{notes}");
        assert_eq!(addresses(&resolve(lab, "mesh/unclear", &["connected", PARTNER]).await).len(), 1);
    });
}

#[test]
fn a_pod_that_opts_out_and_in_again_is_followed_while_it_runs() {
    let manifests =
        namespace("mesh", true) + &app("mesh", "server", "node-1") + &idle("mesh", "client", "node-1") + &partner();
    labs::run_alone("dns-choice", &manifests, async |lab| {
        allocated(lab).await;

        for (value, found) in [("false", 0), ("true", 1)] {
            let text =
                namespace("mesh", true) + &app("mesh", "server", "node-1") + &annotated("client", value) + &partner();
            lab.write("base.yaml", &text).unwrap();
            eventually(&format!("dns-capture is {value}"), TAKES_EFFECT, async || {
                let report = resolve(lab, CLIENT, &["connected", PARTNER, "--timeout-ms", "2000"]).await;
                if addresses(&report).len() == found { Ok(()) } else { Err(report) }
            })
            .await;
            lab.wait_state(CLIENT, "enrolled").await;
        }
    });
}

#[test]
fn without_ztunnel_questions_fail_soon_and_are_answered_again_afterwards() {
    let manifests =
        namespace("mesh", true) + &app("mesh", "server", "node-1") + &idle("mesh", "client", "node-1") + &partner();
    labs::run_alone("dns-gap", &manifests, async |lab| {
        let address = allocated(lab).await;
        let proxy = "istio-system/ztunnel-node-1";

        lab.lab().pause_restarts(proxy, true).await.unwrap();
        lab.lab().kill(proxy, KILL).await.unwrap();
        for way in ["connected", "tcp"] {
            // The kernel refuses: such a resolver tries its next server, or says so to the application.
            let report = resolve(lab, CLIENT, &[way, PARTNER]).await;
            assert!(report["error"].as_str().is_some_and(|error| error.contains("refused")), "{way}: {report}");
            assert!(report["ms"].as_u64() < Some(1000), "{way}: {report}");
        }
        let report =
            resolve(lab, CLIENT, &["unconnected", "server.mesh.svc.cluster.local", "--timeout-ms", "1500"]).await;
        assert!(report.get("error").is_some(), "a name left the pod: {report}");
        lab.lab().pause_restarts(proxy, false).await.unwrap();

        for way in WAYS {
            eventually(&format!("{way}: questions are answered"), TAKES_EFFECT, async || {
                let report = resolve(lab, CLIENT, &[way, PARTNER, "--timeout-ms", "2000"]).await;
                if addresses(&report) == [address.as_str()] { Ok(()) } else { Err(report) }
            })
            .await;
        }
        lab.wait_state(CLIENT, "enrolled").await;
    });
}
