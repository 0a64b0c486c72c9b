//! Every way of using TCP that a mesh must not disturb, between all kinds of places, over IPv4 and IPv6.

use std::time::Duration;

use serde_json::Value;
use testkit::{
    Shared, TestLab,
    assert::assert_turned_away,
    eventually,
    labs::TAKES_EFFECT,
    manifests::{app, namespace, service},
};

static LAB: Shared = Shared::new("traffic", manifests);

/// The client in the mesh, on node-1.
const CLIENT: &str = "mesh/client";
/// Servers in the mesh on the other and on the same node, and outside of it on the other.
const FAR: &str = "mesh/far";
const NEAR: &str = "mesh/near";
const PLAIN: &str = "plain/server";
/// The client's own limit for an address that nobody has; the answer must come well before.
const UNREACHABLE_MS: u64 = 15_000;

/// Four gibibytes, side by side with the other tests of this file, on a small machine.
const BULK: Duration = Duration::from_secs(120);

const GIB: &str = "1073741824";

fn manifests() -> String {
    let mut text = namespace("mesh", true) + &namespace("plain", false);
    for (space, name, node) in [
        ("mesh", "client", "node-1"),
        ("mesh", "near", "node-1"),
        ("mesh", "far", "node-2"),
        ("plain", "client", "node-1"),
        ("plain", "server", "node-2"),
    ] {
        text += &app(space, name, node);
        text += &service(space, name);
    }
    text
}

async fn meshed(lab: &TestLab) {
    lab.meshed(&[CLIENT, NEAR, FAR]).await;
}

/// `address:port` of a pod, IPv4 and IPv6.
async fn both(lab: &TestLab, pod: &str, port: u16) -> [String; 2] {
    [format!("{}:{port}", lab.ip(pod, false).await), format!("[{}]:{port}", lab.ip(pod, true).await)]
}

/// One action to a pod's port over both families, by address; every report must be without error.
async fn to_pod(lab: &TestLab, from: &str, pod: &str, port: u16, action: &str, more: &[&str]) -> Vec<Value> {
    let mut reports = Vec::new();
    for target in both(lab, pod, port).await {
        reports.push(lab.client_ok(from, &[&[action, target.as_str()], more].concat()).await);
    }
    reports
}

/// One action to a Service over both families.
async fn to_service(lab: &TestLab, from: &str, target: &str, action: &str, more: &[&str]) {
    for family in ["v4", "v6"] {
        lab.client_ok(from, &[&[action, target, "--family", family], more].concat()).await;
    }
}

#[test]
fn a_pod_reaches_itself_by_its_own_address() {
    LAB.run(async |lab| {
        meshed(lab).await;

        to_pod(lab, CLIENT, CLIENT, 7000, "echo", &["--bytes", "100000"]).await;
        lab.client_ok(CLIENT, &["echo", "127.0.0.1:7000"]).await;
        lab.client_ok(CLIENT, &["echo", "[::1]:7000"]).await;
    });
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    LAB.run(async |lab| {
        meshed(lab).await;

        to_service(lab, CLIENT, "client.mesh:7000", "echo", &["--bytes", "100000"]).await;
    });
}

#[test]
fn pods_of_one_node_reach_each_other_in_the_mesh() {
    LAB.run(async |lab| {
        meshed(lab).await;

        let reports = to_pod(lab, CLIENT, NEAR, 8080, "http", &[]).await;
        to_service(lab, CLIENT, "near:7000", "echo", &["--bytes", "100000"]).await;

        let client = lab.pod(CLIENT).await.ips;
        for (report, ip) in reports.iter().zip(client) {
            assert!(report["body"].as_str().unwrap_or_default().contains(&format!("peer={ip} ")), "{report}");
        }
    });
}

#[test]
fn the_mesh_reaches_a_server_outside_of_it() {
    LAB.run(async |lab| {
        meshed(lab).await;

        to_pod(lab, CLIENT, PLAIN, 7000, "echo", &["--bytes", "100000"]).await;
        to_service(lab, CLIENT, "server.plain:7000", "echo", &["--bytes", "100000"]).await;
    });
}

#[test]
fn a_client_outside_reaches_the_mesh_and_is_seen_by_its_own_address() {
    LAB.run(async |lab| {
        meshed(lab).await;

        to_service(lab, "plain/client", "far.mesh:7000", "echo", &["--bytes", "100000"]).await;
        let reports = to_pod(lab, "plain/client", FAR, 8080, "http", &[]).await;

        let client = lab.pod("plain/client").await.ips;
        for (report, ip) in reports.iter().zip(client) {
            assert!(report["body"].as_str().unwrap_or_default().contains(&format!("peer={ip} ")), "{report}");
        }
    });
}

#[test]
fn a_client_may_finish_first_and_still_read() {
    LAB.run(async |lab| {
        meshed(lab).await;

        // the verdict of `upload` comes after the client's FIN
        for pod in [FAR, NEAR, PLAIN] {
            to_pod(lab, CLIENT, pod, 7002, "upload", &["--bytes", "300000"]).await;
        }
    });
}

#[test]
fn a_server_may_finish_first_and_still_read() {
    LAB.run(async |lab| {
        meshed(lab).await;

        for (index, target) in both(lab, FAR, 7006).await.iter().enumerate() {
            let id = format!("half-{index}");
            let report = lab.client_ok(CLIENT, &["read-then-write", target, "--text", &id, "--bytes", "300000"]).await;

            assert_eq!(report["word"], "bye");
            result(lab, FAR, &id, "300000 bytes after the end").await;
        }
    });
}

/// Waits for what a server noted of a connection's end; `expected` may be its beginning.
async fn result(lab: &TestLab, pod: &str, id: &str, expected: &str) {
    let path = format!("/result/{id}");
    eventually(&format!("{pod} notes {expected:?}"), TAKES_EFFECT, async || {
        let report = lab.client(pod, &["http", "127.0.0.1:8080", "--text", &path]).await;
        let body = report["body"].as_str().unwrap_or_default();
        if body.starts_with(expected) { Ok(()) } else { Err(format!("{report}")) }
    })
    .await;
}

#[test]
fn a_gibibyte_arrives_whole_in_each_direction_over_both_families_at_once() {
    LAB.run(async |lab| {
        meshed(lab).await;
        let [up4, up6] = both(lab, FAR, 7002).await;
        let [down4, down6] = both(lab, FAR, 7003).await;
        let transfer = async |action: &str, target: &str| {
            lab.client_ok(CLIENT, &[action, target, "--bytes", GIB, "--timeout-ms", "60000"]).await
        };

        let all = async {
            tokio::join!(
                transfer("upload", &up4),
                transfer("upload", &up6),
                transfer("download", &down4),
                transfer("download", &down6),
            )
        };
        tokio::time::timeout(BULK, all).await.expect("4 GiB in time");
    });
}

#[test]
fn both_directions_of_one_connection_carry_at_once() {
    LAB.run(async |lab| {
        meshed(lab).await;

        to_pod(lab, CLIENT, FAR, 7004, "duplex", &["--bytes", "134217728", "--timeout-ms", "60000"]).await;
    });
}

#[test]
fn two_thousand_short_connections_sixteen_at_a_time_have_no_error() {
    LAB.run(async |lab| {
        meshed(lab).await;

        for target in both(lab, FAR, 7000).await {
            let args = ["connections", &target, "--count", "2000", "--parallel", "16", "--timeout-ms", "30000"];
            let report = lab.client_ok(CLIENT, &args).await;

            assert_eq!((&report["ok"], &report["failed"]), (&2000.into(), &0.into()), "{report}");
        }
    });
}

#[test]
fn a_server_may_speak_first() {
    LAB.run(async |lab| {
        meshed(lab).await;

        for pod in [FAR, NEAR, PLAIN] {
            for report in to_pod(lab, CLIENT, pod, 7001, "server-first", &[]).await {
                assert_eq!((&report["greeting"], &report["answer"]), (&"220 ready".into(), &"hello".into()));
            }
        }
    });
}

#[test]
fn a_closed_port_ends_the_connection_at_once_and_the_log_says_why() {
    LAB.run(async |lab| {
        meshed(lab).await;

        // who knocks at the port: the server's own ztunnel, or the client's where there is no other
        for (pod, node) in [(FAR, "node-2"), (NEAR, "node-1"), (PLAIN, "node-1")] {
            for target in both(lab, pod, 9).await {
                // also who waits for the server's first word must not see an end
                for mode in ["echo", "server-first"] {
                    let report = lab.client(CLIENT, &[mode, &target]).await;

                    assert_turned_away(&format!("{mode} {target}"), &report);
                    assert!(report["seconds"].as_f64() < Some(5.0), "{target}: {report}");
                }
                lab.says(node, &[&format!("={target} "), "Connection refused"]).await;
            }
        }
    });
}

#[test]
fn the_proxys_own_ports_turn_everybody_away_by_every_address_of_the_pod() {
    LAB.run(async |lab| {
        meshed(lab).await;

        for from in [CLIENT, FAR, NEAR, "plain/client"] {
            for port in [15001, 15006] {
                for target in both(lab, CLIENT, port).await {
                    let report = lab.client(from, &["echo", &target]).await;

                    assert_turned_away(&format!("{from} calls {target}"), &report);
                    assert!(report["seconds"].as_f64() < Some(5.0), "{target}: {report}");
                }
            }
        }
        lab.says("node-1", &["attempted recursive call to ourselves"]).await;
        to_pod(lab, FAR, CLIENT, 7000, "echo", &["--bytes", "100000"]).await;
    });
}

#[test]
fn an_unreachable_address_is_an_error_in_time_and_the_log_says_why() {
    LAB.run(async |lab| {
        meshed(lab).await;

        // addresses of documentation: no pod, no route beyond the lab
        let limit = UNREACHABLE_MS.to_string();
        for target in ["203.0.113.7:80", "[2001:db8::7]:80"] {
            let report = lab.client(CLIENT, &["echo", target, "--timeout-ms", &limit]).await;

            assert_turned_away(target, &report);
            assert!(report["seconds"].as_f64() < Some(UNREACHABLE_MS as f64 / 2000.0), "{target}: {report}");
            lab.says("node-1", &[&format!("dst.addr={target} "), "unreachable"]).await;
        }
    });
}

#[test]
fn a_server_that_resets_resets_the_client() {
    LAB.run(async |lab| {
        meshed(lab).await;

        for pod in [FAR, NEAR, PLAIN] {
            for report in to_pod(lab, CLIENT, pod, 7005, "ask-reset", &[]).await {
                assert_eq!(report["end"], "ConnectionReset", "{pod}: {report}");
            }
        }
    });
}

#[test]
fn a_client_that_resets_resets_the_servers_connection() {
    LAB.run(async |lab| {
        meshed(lab).await;

        for pod in [FAR, NEAR, PLAIN] {
            for (index, target) in both(lab, pod, 7005).await.iter().enumerate() {
                let id = format!("abort-{index}");
                let report = lab.client_ok(CLIENT, &["abort", target, "--text", &id]).await;

                assert_eq!(report["answer"], "watching");
                result(lab, pod, &id, "error: Connection reset").await;
            }
        }
    });
}
