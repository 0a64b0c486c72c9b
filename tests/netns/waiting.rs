//! The command line as a gate: `--wait` returns when the mesh carries the traffic, `--check` is green then and only then.

use std::process::{Command, Output};

use testkit::{
    TestLab, labs,
    manifests::{app, command, idle, namespace, service},
    prerequisites,
};

const AMBIENT: &str = "istio.io/dataplane-mode=ambient";

/// Exit code of `get pods --check` when a pod is not where its labels want it.
const CHECK_FAILED: i32 = 3;

/// A client and a server outside of the mesh, and a pod that has ended.
fn manifests() -> String {
    let ended = command("mesh", "ended", "node-1", &["true"], false);
    let ended = ended.replace("spec:\n  serviceAccountName", "spec:\n  restartPolicy: Never\n  serviceAccountName");
    namespace("mesh", false)
        + &idle("mesh", "client", "node-1")
        + &app("mesh", "server", "node-2")
        + &service("mesh", "server")
        + &ended
}

fn strake(lab: &TestLab, args: &[&str]) -> Output {
    let program = prerequisites::bin_dir().join("strake");
    Command::new(program).args(args).args(["--lab", lab.lab().name()]).output().expect("strake starts")
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_first_request_after_a_label_with_wait_is_encrypted_and_the_first_after_its_removal_works() {
    labs::run_alone("wait", &manifests(), async |lab| {
        for label in [AMBIENT, "istio.io/dataplane-mode-"] {
            let labelled = strake(lab, &["label", "namespace", "mesh", label, "--wait"]);
            assert!(labelled.status.success(), "{}", error_of(&labelled));

            let request = lab.client("mesh/client", &["http", "server:80", "--text", "/order?marker-wait"]);
            let (report, frames) = lab.captured("node-1", request).await;

            assert_eq!(report["status"], 200, "{report}");
            let audit = lab.audit(&frames, &["mesh/client", "mesh/server"]).await;
            let is_encrypted = audit.plain.is_empty() && audit.broken.is_empty();
            assert_eq!(is_encrypted, label == AMBIENT, "{label}: {audit:?}");
            assert!(audit.segments > 0, "nothing was on the wire: {audit:?}");
        }
    });
}

#[test]
fn a_check_fails_from_the_label_on_until_every_pod_is_enrolled() {
    labs::run_alone("check", &manifests(), async |lab| {
        let before = strake(lab, &["get", "pods", "-n", "mesh", "--check"]);
        assert!(before.status.success(), "nothing is selected: {}", error_of(&before));
        // An agent that is down sees no label.
        for node in ["node-1", "node-2"] {
            let agent = format!("istio-system/strake-agent-{node}");
            lab.lab().pause_restarts(&agent, true).await.unwrap();
            lab.lab().kill(&agent, 9).await.unwrap();
        }

        let version = strake(lab, &["version"]);
        assert_eq!(version.status.code(), Some(1), "an agent is down: {version:?}");

        assert!(strake(lab, &["label", "namespace", "mesh", AMBIENT]).status.success());
        let unseen = strake(lab, &["get", "pods", "-n", "mesh", "--check"]);
        assert_eq!(unseen.status.code(), Some(CHECK_FAILED), "{unseen:?}");
        for pod in ["mesh/client", "mesh/server"] {
            assert!(error_of(&unseen).contains(&format!("check failed: {pod} is ")), "{}", error_of(&unseen));
        }
        assert!(!error_of(&unseen).contains("mesh/ended"), "it has ended: {}", error_of(&unseen));
        let late = strake(lab, &["get", "pods", "-n", "mesh", "--wait", "--timeout", "1"]);
        assert_eq!(late.status.code(), Some(1));
        assert!(error_of(&late).contains("not in place after 1 s: mesh/client is "), "{}", error_of(&late));

        for node in ["node-1", "node-2"] {
            lab.lab().pause_restarts(&format!("istio-system/strake-agent-{node}"), false).await.unwrap();
        }
        let settled = strake(lab, &["get", "pods", "-n", "mesh", "--wait", "--check"]);
        assert!(settled.status.success(), "{}", error_of(&settled));
    });
}

#[test]
fn a_name_that_does_not_exist_fails_whatever_else_is_asked() {
    labs::run_alone("names", &manifests(), async |lab| {
        let pod = strake(lab, &["get", "pods", "-n", "mesh", "client", "nosuch"]);
        assert_eq!(pod.status.code(), Some(1));
        assert!(error_of(&pod).contains("pod nosuch not found in mesh"), "{}", error_of(&pod));

        let gate = strake(lab, &["get", "pods", "-n", "mehs", "--check"]);
        assert_eq!(gate.status.code(), Some(1));
        assert!(error_of(&gate).contains("no pods found in mehs: there are pods in "), "{}", error_of(&gate));

        assert!(strake(lab, &["version"]).status.success());
        let program = prerequisites::bin_dir().join("strake");
        let no_lab = Command::new(program).args(["version", "--lab", "nosuch"]).output().expect("strake starts");
        assert_eq!(no_lab.status.code(), Some(1), "{no_lab:?}");

        let usage = strake(lab, &["get", "pods", "--chek"]);
        assert_eq!(usage.status.code(), Some(2), "{}", error_of(&usage));
    });
}
