//! A ztunnel that is asked to end (SIGTERM) while it carries connections: they may finish until its deadline, none is
//! broken before, and its successor takes the new ones. Killed ztunnels are in `faults`.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{
    TestLab, eventually, labs,
    labs::{Load, TAKES_EFFECT},
    manifests::client_and_server,
};

const PODS: [&str; 2] = ["mesh/client", "mesh/server"];
const NODES: [&str; 2] = ["node-1", "node-2"];
const FAMILIES: [&str; 2] = ["v4", "v6"];
const TERM: i32 = 15;

/// A ztunnel's deadline when its environment names neither `CONNECTION_TERMINATION_DEADLINE` nor
/// `TERMINATION_GRACE_PERIOD_SECONDS`, as in a lab.
const DEADLINE: Duration = Duration::from_secs(5);

/// Time for which connections are used after the signal before they finish by themselves: a part of the deadline.
const USED: Duration = Duration::from_secs(1);

#[test]
fn connections_may_finish_while_either_ztunnel_drains_which_then_ends_at_once() {
    labs::run_alone("drain", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;

        for node in NODES {
            let held = [hold(lab, "v4").await, hold(lab, "v6").await];
            let asked = Asked::to_end(lab, node).await;
            let work = async {
                refused_meanwhile(lab, node).await;
                eventually("the connections are used on", TAKES_EFFECT, async || asked.since(USED)).await;
                for load in held {
                    let report = load.stop().await;
                    assert!(report.get("broken").is_none(), "{node}: {report}");
                }
            };
            let ((), frames) = lab.captured("node-1", work).await;

            assert!(asked.at.elapsed() < DEADLINE, "{node}: too slow a machine to tell draining from its end");
            asked.restarted(lab).await;
            let said = asked.said(lab);
            assert!(!said.contains("drain duration expired"), "{node}: it waited for nothing\n{said}");
            let audit = lab.audit(&frames, &PODS).await;
            assert!(audit.plain.is_empty() && audit.broken.is_empty(), "{node}: {audit:?}");
        }
    });
}

#[test]
fn connections_that_do_not_finish_are_reset_at_the_deadline_and_not_before() {
    labs::run_alone("deadline", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;

        for node in NODES {
            let (v4, v6) = (hold(lab, "v4").await, hold(lab, "v6").await);
            let asked = Asked::to_end(lab, node).await;
            let end = async |load: Load| (load.ended().await, asked.at.elapsed());

            let ends = tokio::join!(end(v4), end(v6));

            for (report, took) in [ends.0, ends.1] {
                assert!(took >= DEADLINE, "{node}: broken after {took:?}: {report}");
                assert_eq!(report["kind"], "ConnectionReset", "{node}: {report}");
            }
            asked.restarted(lab).await;
            let said = asked.said(lab);
            assert!(said.contains("drain duration expired with pending connections"), "{node}: {said}");
        }
    });
}

async fn hold(lab: &TestLab, family: &str) -> Load {
    lab.load("mesh/client", &["hold", "server:7000", "--family", family, "--every-ms", "20"]).await
}

/// A ztunnel that drains soon takes no new connection: not by itself, and not as plaintext beside it. Each listener still accepts
/// for some milliseconds what the kernel has begun to complete for it, and a busy machine makes that longer.
async fn refused_meanwhile(lab: &TestLab, node: &str) {
    for family in FAMILIES {
        let args = ["http", "server:80", "--family", family, "--timeout-ms", "700"];
        eventually(&format!("{node}: no new connection over {family}"), TAKES_EFFECT, async || {
            let report = lab.client("mesh/client", &args).await;
            if report["error"].is_string() { Ok(()) } else { Err(report.to_string()) }
        })
        .await;
    }
}

/// A ztunnel that was sent SIGTERM.
struct Asked {
    node: &'static str,
    at: Instant,
    /// Bytes of its log before that.
    logged: usize,
    restarts: u32,
}

impl Asked {
    /// Returns when it has begun to drain. Until `restarted` is called it is not started again.
    async fn to_end(lab: &TestLab, node: &'static str) -> Self {
        let logged = lab.ztunnel_log(node).len();
        let pod = Self::pod(node);
        let restarts = lab.pod(&pod).await.containers[0].restarts;
        lab.lab().pause_restarts(&pod, true).await.unwrap();
        let asked = Self { node, at: Instant::now(), logged, restarts };
        lab.lab().kill(&pod, TERM).await.unwrap();
        eventually(&format!("the ztunnel of {node} drains"), TAKES_EFFECT, async || {
            let said = asked.said(lab);
            if said.contains("draining") { Ok(()) } else { Err(said) }
        })
        .await;
        asked
    }

    fn pod(node: &str) -> String {
        format!("istio-system/ztunnel-{node}")
    }

    /// Output since.
    fn said(&self, lab: &TestLab) -> String {
        lab.ztunnel_log(self.node).split_off(self.logged)
    }

    fn since(&self, duration: Duration) -> Result<(), String> {
        let passed = self.at.elapsed();
        if passed >= duration { Ok(()) } else { Err(format!("{passed:?}")) }
    }

    /// Waits until it has ended well and its successor carries connections over both families.
    async fn restarted(&self, lab: &TestLab) {
        let pod = Self::pod(self.node);
        eventually(&format!("the ztunnel of {} has ended", self.node), TAKES_EFFECT, async || {
            let container = lab.pod(&pod).await.containers.remove(0);
            if container.running { Err(format!("{container:?}")) } else { Ok(()) }
        })
        .await;
        lab.lab().pause_restarts(&pod, false).await.unwrap();
        eventually(&format!("the ztunnel of {} is back", self.node), TAKES_EFFECT, async || {
            let info = lab.pod(&pod).await;
            let container = &info.containers[0];
            let back = info.ready && container.restarts > self.restarts && container.last_exit == Some(0);
            if back { Ok(()) } else { Err(format!("{info:?}")) }
        })
        .await;
        for family in FAMILIES {
            eventually("new connections go on", TAKES_EFFECT, async || works(lab, family).await).await;
        }
    }
}

async fn works(lab: &TestLab, family: &str) -> Result<(), String> {
    let args = ["http", "server:80", "--family", family, "--timeout-ms", "3000"];
    let report: Value = lab.client("mesh/client", &args).await;
    if report["status"] == 200 { Ok(()) } else { Err(format!("{report}")) }
}
