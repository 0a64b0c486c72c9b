//! Probes of the kubelet: those that a pod declares for itself pass its proxy by; those of others meet it like everybody.

use std::fmt::Write as _;

use testkit::{
    TestLab, eventually, labs,
    labs::TAKES_EFFECT,
    manifests::{app, command, namespace, peer_authentication},
};

/// Nobody may call anybody in the namespace.
const DENY_ALL: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: deny-all\n  \
                        namespace: mesh\nspec:\n  action: DENY\n  rules:\n  - {}\n";

/// A pod outside the mesh whose readiness probe is a GET of its own choice from somebody else's server.
fn deputy(victim: &str) -> String {
    let mut text =
        namespace("stranger", false) + &command("stranger", "deputy", "node-1", &["sleep", "infinity"], false);
    let _ = write!(
        text,
        "    readinessProbe:\n      periodSeconds: 1\n      httpGet:\n        host: \"{victim}\"\n        path: /marker-deputy\n        \
         port: 8080\n"
    );
    text
}

async fn is_ready(lab: &TestLab, pod: &str) -> Result<(), String> {
    let pod = lab.lab().pod(pod).await.map_err(|err| err.to_string())?;
    if pod.ready { Ok(()) } else { Err(pod.reason) }
}

#[test]
fn a_probe_of_another_pods_address_meets_its_policies_while_its_own_probes_are_answered() {
    let program = testkit::prerequisites::bin_dir().join("strake-testapp").display().to_string();
    let manifests = namespace("mesh", true)
        + &app("mesh", "probed", "node-1")
        + &command("mesh", "victim", "node-1", &[&program, "serve"], false)
        + &peer_authentication("mesh", "STRICT")
        + DENY_ALL;
    labs::run_alone("deputy", &manifests, async |lab| {
        lab.meshed(&["mesh/probed", "mesh/victim"]).await;

        for v6 in [false, true] {
            let victim = lab.ip("mesh/victim", v6).await;
            lab.write("deputy.yaml", &deputy(&victim)).unwrap();
            let target = std::net::SocketAddr::new(victim.parse().unwrap(), 8080).to_string();
            lab.says("node-1", &["direction=\"inbound\"", &format!("={target} "), "mesh/deny-all"]).await;
            let reason = is_ready(lab, "stranger/deputy").await.unwrap_err();
            assert!(reason.contains("readiness probe"), "{reason}");
            lab.remove("deputy.yaml").unwrap();
            lab.wait_gone("stranger/deputy").await;
        }
        is_ready(lab, "mesh/probed").await.expect("a declared probe is not answered");
        assert!(!lab.log("mesh/victim", "app").contains("marker-deputy"));

        // Only the policies kept it out: to the proxy the kubelet is a client like others.
        lab.write(
            "base.yaml",
            &(namespace("mesh", true) + &command("mesh", "victim", "node-1", &[&program, "serve"], false)),
        )
        .unwrap();
        let victim = lab.ip("mesh/victim", false).await;
        lab.write("deputy.yaml", &deputy(&victim)).unwrap();
        eventually("the deputy's probe is let in", TAKES_EFFECT, async || is_ready(lab, "stranger/deputy").await).await;
    });
}

#[test]
fn a_probe_of_a_foreign_host_is_named_in_the_report_of_its_pod() {
    let manifests = namespace("mesh", true)
        + &command("mesh", "asks", "node-1", &["sleep", "infinity"], false)
        + "    livenessProbe:\n      periodSeconds: 60\n      tcpSocket:\n        host: 192.0.2.1\n        port: 80\n";
    labs::run_alone("foreign-host", &manifests, async |lab| {
        let report = lab.wait_state("mesh/asks", "enrolled").await;

        let notes = report["notes"].to_string();
        assert!(notes.contains("livenessProbe of container app: host \\\"192.0.2.1\\\" is not this pod"), "{notes}");
    });
}
