//! Pods that start: no packet of a labelled pod leaves before its node has it in the mesh, whatever is late or broken.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use capture::Frame;
use lab::{Phase, PodInfo, output::line_with};
use serde_json::{Value, json};
use testkit::{
    TestLab, eventually,
    labs::{self, TAKES_EFFECT},
    manifests::{app, client_and_server, idle, namespace, peer_authentication, service},
};

use crate::relay::{Fault, Relay};

const KILL: i32 = 9;

/// Jobs of one burst, all on one node.
const JOBS: usize = 100;

/// All jobs of a burst on two busy cores, the kernel's verifier included.
const BURST: Duration = Duration::from_secs(120);

/// A server in the mesh on node-2.
fn server() -> String {
    namespace("mesh", true) + &app("mesh", "server", "node-2") + &service("mesh", "server")
}

/// A Job on node-1 that sends one request as soon as it runs, over this family.
fn job(name: &str, family: &str) -> String {
    let path = format!("/order?marker-{name}");
    let program = testkit::prerequisites::bin_dir().join("strake-testapp").display().to_string();
    let args = ["client", "http", "server:80", "--family", family, "--timeout-ms", "20000", "--text", &path];
    let argv: Vec<String> = std::iter::once(program).chain(args.map(str::to_owned)).collect();
    let account = format!("---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: mesh\n");
    format!(
        "{account}---\napiVersion: batch/v1\nkind: Job\nmetadata:\n  name: {name}\n  namespace: mesh\nspec:\n  template:\n    \
         spec:\n      nodeName: node-1\n      serviceAccountName: {name}\n      restartPolicy: Never\n      containers:\n      \
         - name: app\n        image: none\n        command: {}\n",
        json!(argv)
    )
}

/// The pod of a Job, once there is one.
async fn pod_of(lab: &TestLab, job: &str) -> Option<PodInfo> {
    let pods = lab.lab().pods().await.unwrap();
    pods.into_iter().find(|pod| pod.namespace == "mesh" && pod.name.starts_with(&format!("{job}-")))
}

/// Waits until these Jobs have ended; their pods.
async fn ended(lab: &TestLab, jobs: &[String], deadline: Duration) -> Vec<PodInfo> {
    eventually("all jobs have ended", deadline, async || {
        let pods = lab.lab().pods().await.unwrap();
        let of =
            |job: &String| pods.iter().find(|pod| pod.namespace == "mesh" && pod.name.starts_with(&format!("{job}-")));
        let has_ended = |pod: &&PodInfo| matches!(pod.phase, Phase::Succeeded | Phase::Failed);
        let ended: Vec<_> = jobs.iter().filter_map(of).filter(has_ended).cloned().collect();
        let first = jobs.iter().filter_map(of).find(|pod| !has_ended(pod));
        let reason = first.map(|pod| format!("{}: {}", pod.name, pod.reason)).unwrap_or_default();
        if ended.len() == jobs.len() { Ok(ended) } else { Err(format!("{} of {}: {reason}", ended.len(), jobs.len())) }
    })
    .await
}

/// Fails unless every pod's only request was answered, and nothing of it was to be seen between the nodes: no payload, and no
/// packet at all that did not belong to a tunnel.
async fn assert_all_tunnelled(lab: &TestLab, pods: &[PodInfo], frames: &[Frame]) {
    let mut failed = Vec::new();
    for pod in pods {
        let log = lab.log(&format!("mesh/{}", pod.name), "app");
        let report: Value = serde_json::from_str(log.lines().last().unwrap_or_default()).unwrap_or_default();
        if report["status"] != 200 {
            failed.push(format!("{}: {report}", pod.name));
        }
    }
    assert!(failed.is_empty(), "{} not answered: {failed:?}\n{}", failed.len(), lab.ztunnel_tails());
    let names: Vec<String> = pods.iter().map(|pod| format!("mesh/{}", pod.name)).collect();
    let concerned: Vec<&str> = names.iter().map(String::as_str).chain(["mesh/server"]).collect();
    let audit = lab.audit(frames, &concerned).await;
    assert!(audit.only_tls13(), "{audit:?}");
    assert_eq!(capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), b"marker-"), 0);
    let clients: BTreeSet<IpAddr> = pods.iter().flat_map(|pod| pod.ips.clone()).collect();
    let strays: Vec<String> = frames
        .iter()
        .filter_map(|frame| capture::segment(&frame.bytes))
        .filter(|segment| clients.contains(&segment.src.ip()) && segment.dst.port() != 15008)
        .map(|segment| format!("{} -> {} syn {}", segment.src, segment.dst, segment.syn))
        .collect();
    assert!(strays.is_empty(), "{} packets past the proxy: {strays:?}", strays.len());
}

fn a_burst_of_jobs(name: &str, mode: &str) {
    let manifests = server() + &peer_authentication("mesh", mode);
    labs::run_alone(name, &manifests, async |lab| {
        lab.meshed(&["mesh/server"]).await;
        let jobs: Vec<String> = (0..JOBS).map(|number| format!("job{number:03}")).collect();
        let families = ["v4", "v6"].into_iter().cycle();
        let manifest: String = jobs.iter().zip(families).map(|(name, family)| job(name, family)).collect();

        let work = async {
            lab.write("jobs.yaml", &manifest).unwrap();
            ended(lab, &jobs, BURST).await
        };
        let (pods, frames) = lab.captured("node-1", work).await;

        assert_all_tunnelled(lab, &pods, &frames).await;
    });
}

#[test]
fn each_request_of_a_hundred_new_jobs_is_answered_and_encrypted_under_strict() {
    a_burst_of_jobs("jobs-strict", "STRICT");
}

#[test]
fn each_request_of_a_hundred_new_jobs_is_answered_and_encrypted_under_permissive() {
    a_burst_of_jobs("jobs-permissive", "PERMISSIVE");
}

/// Waits until a pod does not start for this reason; none of its processes runs.
async fn waits(lab: &TestLab, job: &str, reason: &str) {
    eventually(&format!("{job} waits: {reason}"), TAKES_EFFECT, async || {
        let pod = pod_of(lab, job).await.ok_or("there is no pod")?;
        assert!(pod.pid.is_none() && pod.containers.iter().all(|one| one.pid.is_none()), "it runs: {pod:?}");
        if pod.reason.contains(reason) { Ok(()) } else { Err(pod.reason) }
    })
    .await;
}

#[test]
fn without_its_agent_a_node_starts_no_pod_of_the_mesh_and_all_others() {
    let manifests = server() + &namespace("outside", false);
    labs::run_alone("agent-away", &manifests, async |lab| {
        lab.meshed(&["mesh/server"]).await;
        let agent = "istio-system/strake-agent-node-1";
        lab.lab().pause_restarts(agent, true).await.unwrap();
        lab.lab().kill(agent, KILL).await.unwrap();

        let work = async {
            lab.write("jobs.yaml", &job("late", "v4")).unwrap();
            lab.write("other.yaml", &idle("outside", "other", "node-1")).unwrap();
            waits(lab, "late", "cannot reach the node agent").await;
            lab.lab()
                .wait_for("a pod outside the mesh runs", TAKES_EFFECT, |status| {
                    status.pods.iter().any(|pod| pod.name == "other" && pod.ready)
                })
                .await
                .unwrap();
            waits(lab, "late", "cannot reach the node agent").await;
            lab.lab().pause_restarts(agent, false).await.unwrap();
            ended(lab, &["late".to_owned()], BURST).await
        };
        let (pods, frames) = lab.captured("node-1", work).await;

        assert_all_tunnelled(lab, &pods, &frames).await;
    });
}

#[test]
fn without_its_ztunnel_a_node_starts_no_pod_of_the_mesh_also_if_the_agent_is_restarted_meanwhile() {
    labs::run_alone("ztunnel-late", &server(), async |lab| {
        lab.meshed(&["mesh/server"]).await;
        let ztunnel = "istio-system/ztunnel-node-1";
        lab.lab().pause_restarts(ztunnel, true).await.unwrap();
        lab.lab().kill(ztunnel, KILL).await.unwrap();

        let work = async {
            lab.write("jobs.yaml", &job("late", "v6")).unwrap();
            waits(lab, "late", "the node agent refuses: not enrolled within").await;
            lab.lab().kill("istio-system/strake-agent-node-1", KILL).await.unwrap();
            waits(lab, "late", "the node agent refuses: not enrolled within").await;
            lab.lab().pause_restarts(ztunnel, false).await.unwrap();
            ended(lab, &["late".to_owned()], BURST).await
        };
        let (pods, frames) = lab.captured("node-1", work).await;

        assert_all_tunnelled(lab, &pods, &frames).await;
    });
}

#[test]
fn a_request_that_is_repeated_delayed_or_cut_and_an_answer_that_is_lost_start_the_pod_once_and_enrolled() {
    labs::run_alone("asked", &server(), async |lab| {
        lab.meshed(&["mesh/server"]).await;
        let relay = Relay::before_agent(lab, "node-1").unwrap();

        let work = async {
            let mut pods = Vec::new();
            for fault in Fault::ALL {
                relay.meet_next(fault);
                let name = fault.name().to_owned();
                lab.write(&format!("{name}.yaml"), &job(&name, "v4")).unwrap();
                pods.extend(ended(lab, &[name], BURST).await);
                assert!(relay.has_met(fault), "{fault:?} was not played");
            }
            pods
        };
        let (pods, frames) = lab.captured("node-1", work).await;

        assert_all_tunnelled(lab, &pods, &frames).await;
        for pod in pods {
            assert_eq!(pod.containers[0].restarts, 0, "{pod:?}");
        }
    });
}

#[test]
fn a_new_endpoint_of_a_service_gets_its_first_connection_through_a_tunnel() {
    labs::run_alone("endpoint", &client_and_server(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/server"]).await;
        let since = lab.ztunnel_log("node-2").len();

        let work = async {
            let requests =
                lab.load("mesh/client", &["loop", "server:80", "--text", "/marker-endpoint", "--every-ms", "5"]).await;
            let requests = requests.answered().await;
            // One more server behind the same Service.
            lab.write("more.yaml", &app("mesh", "more", "node-2").replace("app: more", "app: server")).unwrap();
            eventually("the new server is called", TAKES_EFFECT, async || {
                let log = lab.ztunnel_log("node-2");
                let line = line_with(&log[since..], &["direction=\"inbound\"", "dst.workload=\"more\""]);
                line.map(drop).ok_or("it is not")
            })
            .await;
            requests.stop().await
        };
        let (report, frames) = lab.captured("node-1", work).await;

        assert_eq!(report["failed"], 0, "{report}");
        let audit = lab.audit(&frames, &["mesh/client", "mesh/server", "mesh/more"]).await;
        assert!(audit.plain.is_empty() && audit.broken.is_empty(), "{audit:?}");
        assert_eq!(capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), b"marker-endpoint"), 0);
    });
}

#[test]
fn the_first_requests_after_a_start_with_labels_are_encrypted_and_answered() {
    labs::run_alone("labels-first", &client_and_server(), async |lab| {
        let work = async {
            for (target, family) in [("server:80", "v4"), ("server:8080", "v6"), ("server.mesh:80", "v4")] {
                // Also when the control plane refuses a certificate at first, as it does not know the pod yet.
                // A Service may have no endpoint yet; then the proxy says so, and nothing else is an excuse for a reset.
                eventually(&format!("{target} answers over {family}"), TAKES_EFFECT, async || {
                    let since = lab.ztunnel_log("node-1").len();
                    let args = ["http", target, "--family", family, "--text", "/order?marker-first"];
                    let report = lab.client("mesh/client", &args).await;
                    if report["status"] == 200 {
                        return Ok(());
                    }
                    // The line is written after the client has seen the end.
                    lab.says("node-1", &["direction=\"outbound\"", "error="]).await;
                    let log = lab.ztunnel_log("node-1");
                    let failed = line_with(&log[since..], &["direction=\"outbound\"", "error="]);
                    assert!(
                        failed.is_none_or(|line| line.contains("no_healthy_upstream")),
                        "{report}\n{}",
                        lab.ztunnel_tails()
                    );
                    Err(report.to_string())
                })
                .await;
            }
        };
        let ((), frames) = lab.captured("node-1", work).await;

        let audit = lab.audit(&frames, &["mesh/client", "mesh/server"]).await;
        assert!(audit.only_tls13(), "{audit:?}");
        assert_eq!(capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), b"marker-first"), 0);
    });
}
