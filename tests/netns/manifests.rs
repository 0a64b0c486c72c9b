//! Mistakes in the user's manifests: said with file, line and field; everything else goes on as it was.

use testkit::{
    TestLab, eventually, labs,
    labs::TAKES_EFFECT,
    manifests::{app, idle, namespace, peer_authentication, service},
};

fn manifests() -> String {
    namespace("mesh", true)
        + &namespace("plain", false)
        + &idle("plain", "stranger", "node-1")
        + &idle("mesh", "client", "node-1")
        + &app("mesh", "server", "node-2")
        + &service("mesh", "server")
}

/// Waits until the control plane's log has a line with all of these.
async fn said(lab: &TestLab, parts: &[&str]) {
    eventually(&format!("the control plane says {parts:?}"), TAKES_EFFECT, async || {
        let log = lab.log("istio-system/strake-control", "strake-control");
        lab::output::line_with(&log, parts).map(drop).ok_or_else(|| format!("no line of:\n{log}"))
    })
    .await;
}

async fn refused(lab: &TestLab) -> Result<(), String> {
    let report = lab.client("plain/stranger", &["http", "server.mesh:80", "--timeout-ms", "3000"]).await;
    if report.get("error").is_some() { Ok(()) } else { Err(format!("{report}")) }
}

#[test]
fn a_policy_with_a_mistake_keeps_its_last_good_state() {
    labs::run_alone("mistakes", &manifests(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/server"]).await;
        let good = peer_authentication("mesh", "STRICT");
        lab.write("policy.yaml", &good).unwrap();
        eventually("plaintext is refused", TAKES_EFFECT, async || refused(lab).await).await;

        let mistakes = [
            (good.replace("  mtls:", "  mtls: ["), "policy.yaml"),
            (good.replace("  mtls:", "  speed: fast\n  mtls:"), "speed"),
            (good.replace("mode: STRICT", "mode: [STRICT]"), "mode"),
            (good.replace("mode: STRICT", "mode: STRICTLY"), "mode"),
        ];
        for (text, word) in mistakes {
            lab.write("policy.yaml", &text).unwrap();

            said(lab, &["policy.yaml", word]).await;
            refused(lab).await.unwrap();
            lab.client_ok("mesh/client", &["http", "server:80"]).await;
        }

        lab.remove("policy.yaml").unwrap();
        eventually("without the policy plaintext is let in", TAKES_EFFECT, async || match refused(lab).await {
            Ok(()) => Err("it is refused"),
            Err(_) => Ok(()),
        })
        .await;
    });
}

#[test]
fn pods_come_and_go_with_their_manifests() {
    labs::run_alone("pods", &manifests(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/server"]).await;

        lab.write("late.yaml", &app("mesh", "late", "node-1")).unwrap();
        eventually("the new pod is there", TAKES_EFFECT, async || lab.lab().pod("mesh/late").await.map(drop)).await;
        lab.meshed(&["mesh/late"]).await;
        let address = format!("{}:7000", lab.ip("mesh/late", false).await);
        lab.client_ok("mesh/client", &["echo", &address]).await;
        lab.client_ok("mesh/late", &["http", "server:80"]).await;

        lab.remove("late.yaml").unwrap();
        eventually("the pod is gone", TAKES_EFFECT, async || match lab.lab().pod("mesh/late").await {
            Ok(pod) => Err(format!("{pod:?}")),
            Err(_) => Ok(()),
        })
        .await;
        lab.client_ok("mesh/client", &["http", "server:80"]).await;
    });
}
