//! A pod whose address a client has before discovery has announced it to the client's node: the proxy asks, and the first
//! connection goes through a tunnel.

use std::sync::Arc;

use lab::output::line_with;
use parking_lot::Mutex;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use serde_json::Value;
use testkit::{
    TestLab, eventually, labs,
    labs::TAKES_EFFECT,
    manifests::{app, client_and_server},
};
use xds_server::testing::{Faults, Passed};

use crate::interposed::Interposed;

const CLIENT: &str = "mesh/client";
const PROXY: &str = "istio-system/ztunnel-node-1";
const KILL: i32 = 9;

/// Part of discovery that reaches the proxy of node-1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    All,
    /// Nothing new that it has not asked for.
    Answers,
    /// Nothing new, and its questions are lost.
    Nothing,
}

#[derive(Clone)]
struct Held(Arc<Mutex<Mode>>);

impl Faults for Held {
    fn request(&mut self, _: usize, request: DeltaDiscoveryRequest) -> Vec<DeltaDiscoveryRequest> {
        let is_lost = *self.0.lock() == Mode::Nothing && !request.resource_names_subscribe.is_empty();
        if is_lost { Vec::new() } else { vec![request] }
    }

    fn response(&mut self, _: usize, mut response: DeltaDiscoveryResponse) -> Vec<Passed> {
        if *self.0.lock() != Mode::All {
            // Only an answer says by which other names the resource can be found.
            response.resources.retain(|resource| !resource.aliases.is_empty());
        }
        vec![response.into()]
    }
}

/// A pod that the whole mesh knows but the proxy of node-1.
async fn late(lab: &TestLab, name: &str) -> String {
    lab.write(&format!("{name}.yaml"), &app("mesh", name, "node-2")).unwrap();
    let pod = format!("mesh/{name}");
    lab.wait_pod(&pod).await;
    lab.wait_state(&pod, "enrolled").await;
    eventually(&format!("the ztunnel of node-2 knows {pod}"), TAKES_EFFECT, async || {
        lab.knows("node-2", &[&pod], "HBONE").await
    })
    .await;
    assert!(lab.knows("node-1", &[&pod], "HBONE").await.is_err(), "the relay holds back what it should");
    format!("{}:8080", lab.ip(&pod, false).await)
}

/// One request of the client, which is answered.
async fn request(lab: &TestLab, address: &str, marker: &str) -> Value {
    let report = lab.client_ok(CLIENT, &["http", address, "--text", marker, "--timeout-ms", "10000"]).await;
    assert_eq!(report["status"], 200, "{report}\n{}", lab.ztunnel_tails());
    report
}

fn occurrences(frames: &[capture::Frame], marker: &[u8]) -> usize {
    capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), marker)
}

/// Lookups of node-1's proxy with this outcome.
async fn lookups(lab: &TestLab, outcome: &str) -> u64 {
    let metrics = lab.metrics("node-1").await.unwrap();
    let sample = format!("strake_address_lookups_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&sample)?.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn a_pod_that_discovery_has_not_announced_yet_gets_its_first_connection_through_a_tunnel() {
    labs::run_alone("unannounced", &client_and_server(), async |lab| {
        lab.meshed(&[CLIENT, "mesh/server"]).await;
        let mode = Arc::new(Mutex::new(Mode::All));
        let interposed = Interposed::start(lab, PROXY, Held(mode.clone())).await;
        // Its next proxy has its discovery through the relay.
        lab.lab().kill(PROXY, KILL).await.unwrap();
        eventually("discovery goes through the relay", TAKES_EFFECT, async || match interposed.relay.streams() {
            0 => Err("it does not"),
            _ => Ok(()),
        })
        .await;
        lab.meshed(&[CLIENT, "mesh/server"]).await;
        eventually("the client is served again", TAKES_EFFECT, async || {
            let report = lab.client(CLIENT, &["http", "server:80", "--timeout-ms", "2000"]).await;
            if report["status"] == 200 { Ok(()) } else { Err(report) }
        })
        .await;

        *mode.lock() = Mode::Answers;
        let address = late(lab, "late").await;
        let since = lab.ztunnel_log("node-1").len();
        let (_, frames) = lab.captured("node-1", request(lab, &address, "/marker-asked")).await;

        let audit = lab.audit(&frames, &[CLIENT, "mesh/late"]).await;
        assert!(audit.only_tls13(), "{audit:?}");
        assert_eq!(occurrences(&frames, b"marker-asked"), 0);
        assert_eq!(lookups(lab, "known").await, 1);
        lab.knows("node-1", &["mesh/late"], "HBONE").await.unwrap();
        let log = lab.ztunnel_log("node-1");
        assert!(line_with(&log[since..], &["direction=\"outbound\"", "dst.workload=\"late\""]).is_some());

        // An address outside of the mesh is asked about, too, and nobody answers there as before.
        let report = lab.client(CLIENT, &["http", "192.0.2.1:80", "--timeout-ms", "1000"]).await;
        assert!(report.get("error").is_some(), "{report}");
        assert_eq!(lookups(lab, "absent").await, 1);

        // What is lost without an answer is what was lost before there were questions, and it is said.
        *mode.lock() = Mode::Nothing;
        let address = late(lab, "later").await;
        let (_, frames) = lab.captured("node-1", request(lab, &address, "/marker-unanswered")).await;

        assert!(occurrences(&frames, b"marker-unanswered") > 0, "the capture sees what is not encrypted");
        assert_eq!(lookups(lab, "unanswered").await, 1);
        lab.says("node-1", &["address_unanswered", "passed through without the mesh's encryption"]).await;
    });
}
