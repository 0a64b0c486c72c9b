//! Step 7 of the story: programs are killed while traffic runs. Each test has a lab of its own.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{
    TestLab, eventually, labs,
    labs::{Load, TAKES_EFFECT},
    manifests::{app, client_and_server, peer_authentication},
};

use crate::kernel_state::Place;

const PODS: [&str; 2] = ["mesh/client", "mesh/server"];
const POLICY: &str = "PeerAuthentication mesh/default";
const KILL: i32 = 9;

/// Pause between two looks at the kernel and at what is announced, during a long outage.
const LOOK: Duration = Duration::from_millis(500);

/// Longer than any grace or proof period of agents and proxies.
const LONG: Duration = Duration::from_secs(35);

#[test]
fn nothing_leaves_in_plaintext_while_a_ztunnel_is_down() {
    // A policy that lets everything in: what is said of it must not depend on what it says.
    let manifests = client_and_server() + &peer_authentication("mesh", "PERMISSIVE");
    labs::run_alone("gap", &manifests, async |lab| {
        lab.meshed(&PODS).await;
        is_enforced(lab).await;

        for node in ["node-1", "node-2"] {
            let ((), frames) = lab.captured("node-1", through_a_gap(lab, node)).await;

            let audit = lab.audit(&frames, &PODS).await;
            assert!(audit.plain.is_empty() && audit.broken.is_empty(), "{node}: {audit:?}");
            let marker = capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), b"marker-gap");
            assert_eq!(marker, 0, "{node}: {audit:?}");
        }
    });
}

/// Waits until the proxies of both pods have acknowledged the policy.
async fn is_enforced(lab: &TestLab) {
    eventually("the policy is enforced", TAKES_EFFECT, async || {
        let status = lab.strake(&["lab", "status"]).map_err(|err| err.to_string())?;
        if ["policy: ", " is not known"].iter().any(|said| status.contains(said)) { Err(status) } else { Ok(()) }
    })
    .await;
}

/// Calls fail while the ztunnel is down, over both families, and work once it is back; the policy counts as enforced
/// while both proxies are there.
async fn through_a_gap(lab: &TestLab, node: &str) {
    let proxy = format!("istio-system/ztunnel-{node}");
    lab.lab().pause_restarts(&proxy, true).await.unwrap();
    lab.lab().kill(&proxy, KILL).await.unwrap();
    for family in ["v4", "v6"] {
        let args = ["http", "server:80", "--family", family, "--text", "/order?marker-gap", "--timeout-ms", "700"];
        let report = lab.client("mesh/client", &args).await;
        assert!(report.get("error").is_some(), "{node}, {family}: {report}");
    }
    let begin = format!("policy: {POLICY} is not known to be enforced: ");
    let end = format!("no connection to the proxy of node {node} (ProxyGone)");
    eventually("the policy is not known to be enforced", TAKES_EFFECT, async || {
        let status = lab.strake(&["lab", "status"]).map_err(|err| err.to_string())?;
        let is_told = status.lines().any(|line| line.starts_with(&begin) && line.ends_with(&end));
        if is_told { Ok(()) } else { Err(status) }
    })
    .await;
    lab.lab().pause_restarts(&proxy, false).await.unwrap();
    is_enforced(lab).await;
    for family in ["v4", "v6"] {
        eventually(&format!("calls work after the restart of {node}'s ztunnel"), TAKES_EFFECT, async || {
            let args = ["http", "server:80", "--family", family, "--text", "/order?marker-gap", "--timeout-ms", "3000"];
            let report = lab.client("mesh/client", &args).await;
            if report["status"] == 200 { Ok(()) } else { Err(format!("{report}")) }
        })
        .await;
    }
}

#[test]
fn a_long_outage_of_the_far_ztunnel_makes_nobody_fall_back_to_plaintext() {
    labs::run_alone("outage", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;

        let ((during, across), frames) = lab.captured("node-1", outage(lab, "node-2")).await;

        let audit = lab.audit(&frames, &PODS).await;
        assert!(audit.plain.is_empty() && audit.broken.is_empty(), "{audit:?}");
        let marker = capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), b"marker-outage");
        assert_eq!(marker, 0, "{audit:?}");
        for report in during {
            assert_eq!(report["ok"], 0, "answered without the server's ztunnel: {report}");
            assert!(report["failed"].as_u64() > Some(3), "nobody called: {report}");
        }
        for report in across {
            assert!(report["ok"].as_u64() > Some(0), "no call after the restart: {report}");
        }
    });
}

/// Calls over both families, by name and by address, that stop before the ztunnel is back, and others that go on until
/// the mesh has recovered: how they went. A peer that took the server for one outside of the mesh would send plaintext,
/// which the server's next ztunnel takes: calls have to go on while that starts.
async fn outage(lab: &TestLab, node: &str) -> (Vec<Value>, Vec<Value>) {
    let proxy = format!("istio-system/ztunnel-{node}");
    let places = [Place::of(lab, PODS[0]).await, Place::of(lab, PODS[1]).await];
    lab.lab().pause_restarts(&proxy, true).await.unwrap();
    lab.lab().kill(&proxy, KILL).await.unwrap();
    let begun = Instant::now();
    let during = callers(lab, "300").await;
    let mut tick = tokio::time::interval(LOOK);
    while begun.elapsed() < LONG {
        tick.tick().await;
        places.iter().for_each(Place::assert_steered);
        let known = lab.knows("node-1", &["mesh/server"], "HBONE").await;
        known.unwrap_or_else(|err| panic!("after {:?} without its ztunnel: {err}", begun.elapsed()));
    }
    let during = stop_all(during).await;
    let across = callers(lab, "10").await;
    lab.lab().pause_restarts(&proxy, false).await.unwrap();
    for target in ["server:80", "server:8080"] {
        eventually("calls work after the restart", TAKES_EFFECT, async || {
            let report = lab.client("mesh/client", &["http", target, "--timeout-ms", "3000"]).await;
            if report["status"] == 200 { Ok(()) } else { Err(format!("{report}")) }
        })
        .await;
    }
    lab.meshed(&PODS).await;
    (during, stop_all(across).await)
}

/// Clients of the server that go on: by name and by address, over both families.
async fn callers(lab: &TestLab, every_ms: &str) -> Vec<Load> {
    let address = format!("{}:8080", lab.ip("mesh/server", false).await);
    let address6 = format!("[{}]:8080", lab.ip("mesh/server", true).await);
    let mut callers = Vec::new();
    for [target, family] in [["server:80", "v4"], ["server:80", "v6"], [&address, "v4"], [&address6, "v6"]] {
        let text = ["--text", "/marker-outage", "--timeout-ms", "700", "--every-ms", every_ms];
        callers.push(lab.load("mesh/client", &[&["loop", target, "--family", family], &text[..]].concat()).await);
    }
    callers
}

async fn stop_all(loads: Vec<Load>) -> Vec<Value> {
    let mut reports = Vec::new();
    for load in loads {
        reports.push(load.stop().await);
    }
    reports
}

#[test]
fn a_download_that_loses_the_far_ztunnel_is_reset_and_does_not_look_whole() {
    labs::run_alone("cut", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;

        for v6 in [false, true] {
            let address = std::net::SocketAddr::new(lab.ip("mesh/server", v6).await.parse().unwrap(), 7003);
            let endless = "1099511627776";
            let watch = lab.load("mesh/client", &["watch", &address.to_string(), "--bytes", endless]).await;
            lab.lab().kill("istio-system/ztunnel-node-2", KILL).await.unwrap();

            let report = watch.ended().await;
            assert_eq!(report["end"], "ConnectionReset", "{address}: {report}");
            eventually("the server is reached again", TAKES_EFFECT, async || {
                let report = lab.client("mesh/client", &["echo", "server:7000", "--timeout-ms", "3000"]).await;
                if report.get("error").is_none() { Ok(()) } else { Err(format!("{report}")) }
            })
            .await;
        }
    });
}

#[test]
fn traffic_goes_on_while_the_control_plane_is_killed() {
    labs::run_alone("control", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;
        let held = lab.load("mesh/client", &["hold", "server:7000", "--every-ms", "20"]).await;
        let requests = lab.load("mesh/client", &["loop", "server:80", "--every-ms", "5"]).await.answered().await;
        let control = "istio-system/strake-control";

        lab.lab().kill(control, KILL).await.unwrap();
        eventually("the control plane runs again", TAKES_EFFECT, async || {
            let pod = lab.pod(control).await;
            if pod.ready && pod.containers[0].restarts > 0 { Ok(()) } else { Err(format!("{pod:?}")) }
        })
        .await;
        // its first word after the restart must not take away what the ztunnels know
        lab.write("late.yaml", &app("mesh", "late", "node-2")).unwrap();
        lab.wait_pod("mesh/late").await;
        lab.meshed(&["mesh/late"]).await;

        let requests = requests.stop().await;
        assert_eq!(requests["failed"], 0, "{requests}");
        let held = held.stop().await;
        assert!(held.get("broken").is_none(), "{held}");
    });
}

#[test]
fn traffic_goes_on_while_agents_are_killed_and_they_find_everything_proved() {
    labs::run_alone("agents", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;
        let held = lab.load("mesh/client", &["hold", "server:7000", "--every-ms", "20"]).await;
        let requests = lab.load("mesh/client", &["loop", "server:80", "--every-ms", "5"]).await.answered().await;

        for node in ["node-1", "node-2"] {
            let agent = format!("istio-system/strake-agent-{node}");
            lab.lab().kill(&agent, KILL).await.unwrap();
            eventually(&format!("{agent} runs again"), TAKES_EFFECT, async || {
                let pod = lab.pod(&agent).await;
                if pod.ready && pod.containers[0].restarts > 0 { Ok(()) } else { Err(format!("{pod:?}")) }
            })
            .await;
        }
        for pod in PODS {
            let report = lab.wait_state(pod, "enrolled").await;
            let checks = report["checks"].as_array().unwrap();
            assert!(!checks.is_empty() && checks.iter().all(|check| check["ok"] == true), "{report}");
        }

        let requests = requests.stop().await;
        assert_eq!(requests["failed"], 0, "{requests}");
        let held = held.stop().await;
        assert!(held.get("broken").is_none(), "{held}");
    });
}

#[test]
fn a_pod_that_goes_while_its_agent_is_down_leaves_nothing_in_the_kernel() {
    labs::run_alone("gone", &client_and_server(), async |lab| {
        lab.write("late.yaml", &app("mesh", "late", "node-1")).unwrap();
        lab.wait_pod("mesh/late").await;
        lab.meshed(&["mesh/client", "mesh/server", "mesh/late"]).await;
        let traces = Place::of(lab, "mesh/late").await.traces();
        // A map each for the pod, its listeners and its address, and the link.
        assert!(traces.left().len() >= 3, "{:?}", traces.left());
        let agent = "istio-system/strake-agent-node-1";

        lab.lab().pause_restarts(agent, true).await.unwrap();
        lab.lab().kill(agent, KILL).await.unwrap();
        lab.remove("late.yaml").unwrap();
        lab.wait_gone("mesh/late").await;
        assert!(!traces.left().is_empty(), "nobody was there to remove it");
        lab.client_ok("mesh/client", &["http", "server:80"]).await;
        lab.lab().pause_restarts(agent, false).await.unwrap();

        eventually("the agent has removed what was left", TAKES_EFFECT, async || match traces.left() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        })
        .await;
        lab.meshed(&PODS).await;
        lab.client_ok("mesh/client", &["http", "server:80"]).await;
    });
}
