//! The story of `make demo`, a test per step, each in a namespace of its own. Step 7 is in `faults`.

use std::net::SocketAddr;

use capture::Frame;
use lab::output::{line_with, metric};
use serde_json::Value;
use testkit::{
    Shared, TestLab, eventually,
    labs::TAKES_EFFECT,
    manifests::{app, deny, idle, namespace, peer_authentication, service},
};

use crate::kernel_state::Place;

static LAB: Shared = Shared::new("story", manifests);

/// Namespaces with a client on node-1 and a server on node-2: not in the mesh, or in it.
const OUTSIDE: [&str; 2] = ["before", "joins"];
const INSIDE: [&str; 6] = ["wire", "tunnel", "counts", "strict", "denied", "leaves"];

fn manifests() -> String {
    let mut text = namespace("stranger", false) + &idle("stranger", "mallory", "node-1");
    for (name, ambient) in OUTSIDE.map(|name| (name, false)).into_iter().chain(INSIDE.map(|name| (name, true))) {
        text += &namespace(name, ambient);
        text += &idle(name, "client", "node-1");
        text += &app(name, "server", "node-2");
        text += &service(name, "server");
    }
    text
}

fn pods(namespace: &str) -> [String; 2] {
    [format!("{namespace}/client"), format!("{namespace}/server")]
}

async fn meshed(lab: &TestLab, namespace: &str) {
    let [client, server] = pods(namespace);
    lab.meshed(&[&client, &server]).await;
}

fn occurrences(frames: &[Frame], marker: &str) -> usize {
    capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), marker.as_bytes())
}

/// A GET over each family to the Service's name.
async fn get(lab: &TestLab, from: &str, host: &str, path: &str) -> Vec<Value> {
    let mut reports = Vec::new();
    for family in ["v4", "v6"] {
        let args = ["http", host, "--family", family, "--text", path, "--timeout-ms", "5000"];
        reports.push(lab.client(from, &args).await);
    }
    reports
}

#[track_caller]
fn assert_answered(reports: &[Value]) {
    for report in reports {
        assert_eq!(report["status"], 200, "{report}");
    }
}

#[test]
fn before_the_label_the_payload_is_readable_between_the_nodes() {
    LAB.run(async |lab| {
        let path = "/order?marker-before";

        let work = get(lab, "before/client", "server:8080", path);
        let (reports, frames) = lab.captured("node-1", work).await;

        assert_answered(&reports);
        let audit = lab.audit(&frames, &["before/client", "before/server"]).await;
        assert!(occurrences(&frames, "marker-before") >= 4, "{audit:?}");
        assert_eq!(audit.records, 0, "{audit:?}");
    });
}

#[test]
fn the_label_enrols_running_pods_and_the_same_calls_work() {
    LAB.run(async |lab| {
        let before = [lab.pod("joins/client").await.containers, lab.pod("joins/server").await.containers];

        lab.strake(&["label", "namespace", "joins", "istio.io/dataplane-mode=ambient"]).unwrap();
        meshed(lab, "joins").await;

        let after = [lab.pod("joins/client").await.containers, lab.pod("joins/server").await.containers];
        assert_eq!(before.map(|c| c[0].pid), after.map(|c| c[0].pid), "a process was restarted");
        let report = lab.report("joins/server").unwrap();
        let checks = report["checks"].as_array().unwrap();
        assert!(!checks.is_empty() && checks.iter().all(|check| check["ok"] == true), "{report}");
        let by_address = format!("{}:8080", lab.ip("joins/server", false).await);
        let by_address6 = format!("[{}]:8080", lab.ip("joins/server", true).await);
        let services = lab.lab().status().await.unwrap().services;
        let service = services.into_iter().find(|s| s.namespace == "joins").unwrap();
        let mut targets =
            vec![by_address, by_address6, "server:8080".into(), "server.joins.svc.cluster.local:80".into()];
        targets.extend(service.ips.iter().map(|ip| SocketAddr::new(*ip, 8080).to_string()));
        for target in targets {
            lab.client_ok("joins/client", &["http", &target]).await;
        }
    });
}

#[test]
fn the_wire_shows_tls13_only_and_both_logs_name_both_ends() {
    LAB.run(async |lab| {
        meshed(lab, "wire").await;

        let work = get(lab, "wire/client", "server:80", "/order?marker-wire");
        let (reports, frames) = lab.captured("node-1", work).await;

        assert_answered(&reports);
        let audit = lab.audit(&frames, &["wire/client", "wire/server"]).await;
        assert!(audit.only_tls13() && audit.tunnels > 0, "{audit:?}");
        assert_eq!(occurrences(&frames, "marker-wire"), 0);
        let ends = [
            "src.identity=\"spiffe://cluster.local/ns/wire/sa/client\"",
            "dst.identity=\"spiffe://cluster.local/ns/wire/sa/server\"",
        ];
        for (node, direction) in [("node-1", "direction=\"outbound\""), ("node-2", "direction=\"inbound\"")] {
            let wanted = [ends[0], ends[1], direction];
            eventually(&format!("a line on {node} with {wanted:?}"), TAKES_EFFECT, async || {
                line_with(&lab.ztunnel_log(node), &wanted).map(drop).ok_or("there is none")
            })
            .await;
        }
        let client = lab.pod("wire/client").await.ips;
        for (report, ip) in reports.iter().zip(client) {
            let body = report["body"].as_str().unwrap_or_default();
            assert!(body.contains(&format!("peer={ip} ")), "the server saw {body}, the client is {ip}");
        }
    });
}

#[test]
fn what_goes_to_the_other_node_takes_the_tunnel_by_address_and_by_service() {
    LAB.run(async |lab| {
        meshed(lab, "tunnel").await;
        let before = [opened(lab, "node-1", "source").await, opened(lab, "node-2", "destination").await];

        let work = async {
            for v6 in [false, true] {
                let address = SocketAddr::new(lab.ip("tunnel/server", v6).await.parse().unwrap(), 8080).to_string();
                lab.client_ok("tunnel/client", &["http", &address, "--text", "/marker-tunnel"]).await;
            }
            assert_answered(&get(lab, "tunnel/client", "server:80", "/marker-tunnel").await);
        };
        let ((), frames) = lab.captured("node-1", work).await;

        let audit = lab.audit(&frames, &["tunnel/client", "tunnel/server"]).await;
        assert!(audit.plain.is_empty() && audit.broken.is_empty(), "{audit:?}");
        assert!(audit.only_tls13() && audit.tunnels > 0, "{audit:?}");
        assert_eq!(occurrences(&frames, "marker-tunnel"), 0, "{audit:?}");
        for ((node, reporter), before) in [("node-1", "source"), ("node-2", "destination")].into_iter().zip(before) {
            eventually(&format!("{node} has counted four connections"), TAKES_EFFECT, async || {
                let count = opened(lab, node, reporter).await - before;
                if count.to_bits() == 4f64.to_bits() { Ok(()) } else { Err(format!("{count}")) }
            })
            .await;
        }
    });
}

/// Connections of `tunnel` that a node has counted as mutual TLS.
async fn opened(lab: &TestLab, node: &str, reporter: &str) -> f64 {
    let labels = [
        ("reporter", reporter),
        ("connection_security_policy", "mutual_tls"),
        ("source_workload_namespace", "tunnel"),
        ("destination_workload_namespace", "tunnel"),
    ];
    metric(&lab.metrics(node).await.unwrap(), "istio_tcp_connections_opened_total", &labels).unwrap_or_default()
}

#[test]
fn both_nodes_count_the_connection_and_its_bytes_as_mutual_tls() {
    LAB.run(async |lab| {
        meshed(lab, "counts").await;

        assert_answered(&get(lab, "counts/client", "server:80", "/").await);

        for (node, reporter) in [("node-1", "source"), ("node-2", "destination")] {
            let labels = [
                ("reporter", reporter),
                ("connection_security_policy", "mutual_tls"),
                ("source_principal", "spiffe://cluster.local/ns/counts/sa/client"),
                ("destination_service", "server.counts.svc.cluster.local"),
            ];
            for (name, least) in [("istio_tcp_connections_opened_total", 2.0), ("istio_tcp_sent_bytes_total", 100.0)] {
                eventually(&format!("{name} on {node}"), TAKES_EFFECT, async || {
                    let text = lab.metrics(node).await?;
                    match metric(&text, name, &labels) {
                        Some(value) if value >= least => Ok(()),
                        other => Err(anyhow::anyhow!("{other:?}, expected {least} or more")),
                    }
                })
                .await;
            }
        }
    });
}

#[test]
fn strict_refuses_plaintext_but_not_the_mesh_and_not_the_probe() {
    LAB.run(async |lab| {
        meshed(lab, "strict").await;
        assert_answered(&get(lab, "stranger/mallory", "server.strict:80", "/").await);

        lab.write("strict.yaml", &peer_authentication("strict", "STRICT")).unwrap();

        eventually("plaintext is refused over both families", TAKES_EFFECT, async || {
            let since = lab.ztunnel_log("node-2").len();
            let reports = get(lab, "stranger/mallory", "server.strict:80", "/").await;
            lab.refused_by(&reports, "strict/server", "istio-system/istio_converted_static_strict", since).await
        })
        .await;
        assert_answered(&get(lab, "strict/client", "server:80", "/").await);
        for v6 in [false, true] {
            let address = SocketAddr::new(lab.ip("strict/server", v6).await.parse().unwrap(), 8080);
            let answer = lab.probe("node-2", &format!("http://{address}/from-the-node")).await.unwrap();
            assert!(answer.contains("path=/from-the-node"), "{answer}");
        }
        // the readiness probe asks for /ready, and nobody else does
        let before = probes(lab).await;
        eventually("the readiness probe goes on", TAKES_EFFECT, async || {
            let since = probes(lab).await - before;
            if since >= 2 { Ok(()) } else { Err(format!("{since} probes since the policy")) }
        })
        .await;
        assert!(lab.pod("strict/server").await.ready);
    });
}

/// Number of readiness probes that the server has answered.
async fn probes(lab: &TestLab) -> u64 {
    let report = lab.client_ok("strict/server", &["http", "127.0.0.1:8080", "--text", "/hits/ready"]).await;
    report["body"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_deny_policy_cuts_live_connections_and_refuses_new_ones_until_it_is_removed() {
    LAB.run(async |lab| {
        meshed(lab, "denied").await;
        let live = lab.load("denied/client", &["hold", "server:7000", "--every-ms", "50"]).await;

        lab.write("deny.yaml", &deny("denied", "no-client", "cluster.local/ns/denied/sa/client")).unwrap();

        let report = live.ended().await;
        assert!(report["broken"].is_string(), "the live connection ended by itself: {report}");
        eventually("new connections are refused over both families", TAKES_EFFECT, async || {
            let since = lab.ztunnel_log("node-2").len();
            let reports = get(lab, "denied/client", "server:80", "/").await;
            lab.refused_by(&reports, "denied/server", "denied/no-client", since).await
        })
        .await;
        lab.remove("deny.yaml").unwrap();
        eventually("without the policy it works again", TAKES_EFFECT, async || {
            let reports = get(lab, "denied/client", "server:80", "/").await;
            if reports.iter().all(|report| report["status"] == 200) { Ok(()) } else { Err(format!("{reports:?}")) }
        })
        .await;
    });
}

#[test]
fn the_label_is_removed_under_traffic_without_a_failure_and_the_kernel_forgets_the_pods() {
    LAB.run(async |lab| {
        meshed(lab, "leaves").await;
        let mut places = Vec::new();
        for pod in pods("leaves") {
            let place = Place::of(lab, &pod).await;
            place.assert_steered();
            assert!(place.has_listeners(), "{pod}");
            assert_eq!(place.settings(), ["1", "1", "1"], "{pod}");
            places.push(place);
        }
        let load = lab.load("leaves/client", &["loop", "server:80", "--every-ms", "5"]).await.answered().await;

        lab.strake(&["label", "namespace", "leaves", "istio.io/dataplane-mode-"]).unwrap();
        for pod in pods("leaves") {
            lab.wait_state(&pod, "not-selected").await;
        }

        let report = load.stop().await;
        assert_eq!(report["failed"], 0, "{report}");
        let work = get(lab, "leaves/client", "server:80", "/order?marker-leaves");
        let (reports, frames) = lab.captured("node-1", work).await;
        assert_answered(&reports);
        assert!(occurrences(&frames, "marker-leaves") >= 4, "traffic is not plain");
        let never = Place::of(lab, "stranger/mallory").await;
        for place in places {
            place.assert_forgotten(lab, &never).await;
        }
    });
}
