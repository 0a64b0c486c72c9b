//! Connections to the proxy's own ports in a pod that is leaving the mesh. In pods of the mesh: `traffic`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use testkit::{TestLab, eventually, labs, labs::TAKES_EFFECT, manifests::client_and_server};

const PODS: [&str; 2] = ["mesh/client", "mesh/server"];

/// A user without any privilege.
const NOBODY: &str = "65534";

/// Descriptors that a ztunnel may have open beyond those of a moment ago: a call that it makes to itself takes all there are.
const MORE_DESCRIPTORS: u64 = 50;

#[test]
fn the_proxys_own_ports_turn_everybody_away_in_a_pod_that_is_leaving() {
    // The pod leaves for as long as the test takes, on a busy machine too.
    let patient = |options: &mut lab::Options| options.unenrol_grace = Duration::from_secs(60);
    labs::run_alone_with("selfcall", &client_and_server(), patient, async |lab| {
        lab.meshed(&PODS).await;
        // As long as it lives, the pod is leaving.
        let held = lab.load("mesh/client", &["hold", "server:7000", "--every-ms", "20"]).await;
        let before = open_descriptors(lab).await;
        lab.strake(&["label", "namespace", "mesh", "istio.io/dataplane-mode-"]).unwrap();
        lab.wait_state("mesh/client", "leaving").await;

        for port in [15001, 15006] {
            for v6 in [false, true] {
                let own: IpAddr = lab.ip("mesh/client", v6).await.parse().unwrap();
                let target = SocketAddr::new(own, port).to_string();
                let args = ["echo", &target, "--timeout-ms", "3000"];

                assert_turned_away(&target, &as_nobody(lab, &args).await);
                assert_turned_away(&target, &lab.client("mesh/server", &args).await);
            }
        }

        eventually("ztunnel has not used up descriptors", TAKES_EFFECT, async || {
            let now = open_descriptors(lab).await;
            if now < before + MORE_DESCRIPTORS { Ok(()) } else { Err(format!("{now} open, {before} before")) }
        })
        .await;
        assert_eq!(lab.report("mesh/client").unwrap()["state"], "leaving");
        let held = held.stop().await;
        assert!(held.get("broken").is_none(), "ztunnel goes on: {held}");
    });
}

/// The test application in the client's pod, as a user without privileges.
async fn as_nobody(lab: &TestLab, args: &[&str]) -> Value {
    let drop_privileges = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    let argv = drop_privileges
        .iter()
        .map(ToString::to_string)
        .chain(lab.testapp_argv(&[&["client"], args].concat()))
        .collect::<Vec<_>>();
    let output = lab.exec("mesh/client", &argv).await;
    let text = output.text();
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|err| panic!("{argv:?}: {err}: {text} {}", output.error_text()))
}

fn assert_turned_away(target: &str, report: &Value) {
    assert!(report["error"].is_string() || report["end"] == "ConnectionReset", "{target}: {report}");
    assert!(report["seconds"].as_f64().is_none_or(|seconds| seconds < 2.5), "{target} took its time: {report}");
}

async fn open_descriptors(lab: &TestLab) -> u64 {
    let metrics = lab.metrics("node-1").await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("process_open_fds ")).unwrap();
    line.trim().parse::<f64>().unwrap() as u64
}
