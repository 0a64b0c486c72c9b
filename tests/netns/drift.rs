//! Routing rules that others add or delete inside enrolled pods, under traffic, with the wire recorded.

use std::time::{Duration, Instant};

use lab::Target;
use runtime::sys::Netns;
use serde_json::Value;
use testkit::{TestLab, eventually, labs, labs::Load, manifests::client_and_server};

const PODS: [&str; 2] = ["mesh/client", "mesh/server"];

/// Longest time that a rule of the mesh may be away after somebody deleted it. Measured: some milliseconds; a busy machine
/// schedules late. Polling alone takes up to 3 s.
const BACK_WITHIN: Duration = Duration::from_millis(500);

/// Changes that VPN clients, network plugins and init containers make in good faith.
const FOREIGN_RULES: [&str; 5] = [
    "rule add pref 100 lookup main",
    "rule add lookup main",
    "rule add pref 0 lookup main suppress_prefixlength 0",
    "rule add fwmark 0x111/0xfff lookup main",
    "rule flush",
];

/// Clients that call over both families until they are stopped; each request is a connection of its own, and the first
/// has been answered.
async fn callers(lab: &TestLab, marker: &str) -> Vec<Load> {
    let mut callers = Vec::new();
    for family in ["v4", "v6"] {
        let args =
            ["loop", "server:80", "--family", family, "--text", marker, "--timeout-ms", "3000", "--every-ms", "5"];
        callers.push(lab.load("mesh/client", &args).await.answered().await);
    }
    callers
}

async fn stop(callers: Vec<Load>) -> Vec<Value> {
    let mut reports = Vec::new();
    for caller in callers {
        reports.push(caller.stop().await);
    }
    reports
}

async fn ip(lab: &TestLab, pod: &str, family: &str, arguments: &str) {
    let argv: Vec<&str> = ["ip", family].into_iter().chain(arguments.split(' ')).collect();
    let output = lab.exec(pod, &argv).await;
    assert_eq!(output.code, 0, "{pod}: ip {family} {arguments}: {}", output.error_text());
}

/// Fails when a frame between the nodes shows anything of the calls.
async fn assert_sealed(lab: &TestLab, frames: &[capture::Frame], marker: &[u8]) {
    let audit = lab.audit(frames, &PODS).await;
    assert!(audit.plain.is_empty() && audit.broken.is_empty(), "{audit:?}");
    assert_eq!(capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), marker), 0, "{audit:?}");
}

#[test]
fn rules_that_somebody_adds_in_enrolled_pods_bring_nothing_in_plaintext_onto_the_wire() {
    labs::run_alone("rules", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;

        let work = async {
            let callers = callers(lab, "/marker-drift").await;
            for rule in FOREIGN_RULES {
                for (pod, family) in PODS.into_iter().flat_map(|pod| [(pod, "-4"), (pod, "-6")]) {
                    ip(lab, pod, family, rule).await;
                }
                for family in ["v4", "v6"] {
                    lab.client_ok("mesh/client", &["http", "server:80", "--family", family, "--text", "/marker-drift"])
                        .await;
                }
            }
            stop(callers).await
        };
        let (reports, frames) = lab.captured("node-1", work).await;

        assert_sealed(lab, &frames, b"marker-drift").await;
        for report in reports {
            assert_eq!(report["failed"], 0, "{report}");
            assert!(report["ok"].as_u64() > Some(5), "{report}");
        }
        for pod in PODS {
            lab.wait_state(pod, "enrolled").await;
        }
    });
}

#[test]
fn a_rule_of_the_mesh_that_somebody_deletes_is_back_within_milliseconds_and_nothing_is_plain_meanwhile() {
    labs::run_alone("deleted", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;

        let work = async {
            let callers = callers(lab, "/marker-away").await;
            for (pod, family) in PODS.into_iter().flat_map(|pod| [(pod, "-4"), (pod, "-6")]) {
                let away = delete_rule(lab, pod, family).await;
                println!("{pod} {family}: the rule was away for {away:?}");
                assert!(away < BACK_WITHIN, "{pod} {family}: {away:?}");
            }
            stop(callers).await
        };
        let (reports, frames) = lab.captured("node-1", work).await;

        assert_sealed(lab, &frames, b"marker-away").await;
        for report in reports {
            assert!(report["ok"].as_u64() > Some(0), "nobody called: {report}");
        }
        calls_work(lab).await;
        for pod in PODS {
            lab.wait_state(pod, "enrolled").await;
            lab.knows("node-1", &[pod], "HBONE").await.unwrap();
        }
    });
}

/// Number of times that [`ROUTING_TAKEN_AWAY`] is done to each pod and family.
const ROUNDS: usize = 10;

/// Changes to the routing of the mesh by somebody who is root in a pod. Loopback comes back by [`LOOPBACK_UP`].
const ROUTING_TAKEN_AWAY: [&str; 3] =
    ["rule del fwmark 0x111/0xfff lookup 1500111", "route flush table 1500111", "link set lo down"];

const LOOPBACK_UP: &str = "link set lo up";

#[test]
fn routing_of_the_mesh_that_somebody_takes_away_again_and_again_under_traffic_lets_nothing_out_in_plaintext() {
    labs::run_alone("taken", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;

        let work = async {
            let callers = callers(lab, "/marker-taken").await;
            for _ in 0..ROUNDS {
                for (pod, family) in PODS.into_iter().flat_map(|pod| [(pod, "-4"), (pod, "-6")]) {
                    for act in ROUTING_TAKEN_AWAY {
                        // The rule may not be back yet.
                        let argv: Vec<&str> = ["ip", family].into_iter().chain(act.split(' ')).collect();
                        lab.exec(pod, &argv).await;
                    }
                    ip(lab, pod, family, LOOPBACK_UP).await;
                }
            }
            stop(callers).await
        };
        let (reports, frames) = lab.captured("node-1", work).await;

        println!("{reports:?}");
        assert_sealed(lab, &frames, b"marker-taken").await;
        calls_work(lab).await;
        for pod in PODS {
            lab.wait_state(pod, "enrolled").await;
            lab.knows("node-1", &[pod], "HBONE").await.unwrap();
        }
    });
}

/// Waits until calls are answered over both families.
async fn calls_work(lab: &TestLab) {
    for family in ["v4", "v6"] {
        eventually("calls are answered", labs::TAKES_EFFECT, async || {
            let report =
                lab.client("mesh/client", &["http", "server:80", "--family", family, "--timeout-ms", "3000"]).await;
            if report["status"] == 200 { Ok(()) } else { Err(format!("{report}")) }
        })
        .await;
    }
}

/// Deletes the mesh's rule of one family in a pod; returns how long it was away.
async fn delete_rule(lab: &TestLab, pod: &str, family: &str) -> Duration {
    let netns = lab.lab().netns(Target::Pod { pod: pod.to_owned(), container: None }).await.unwrap();
    let netns = Netns::from_fd(netns).unwrap();
    let run = |arguments: &str| {
        let output =
            netns.run(|| std::process::Command::new("ip").arg(family).args(arguments.split(' ')).output()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let ours = |rules: &str| {
        rules.lines().find(|rule| rule.contains("fwmark 0x111/0xfff") && rule.contains("proto")).map(ToOwned::to_owned)
    };
    let rule = ours(&run("rule show")).expect("the rule of the mesh");
    let table = rule.split("lookup ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    run(&format!("rule del fwmark 0x111/0xfff lookup {table}"));
    let begun = Instant::now();
    while ours(&run("rule show")).is_none() {
        assert!(begun.elapsed() < labs::TAKES_EFFECT, "{pod}: the rule does not come back");
        tokio::task::yield_now().await;
    }
    begun.elapsed()
}
