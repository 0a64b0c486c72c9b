//! Mistakes in the user's manifests: reported with file, line, object and field; everything else is in force, also when
//! the control plane starts with them, and when the directory of the manifests itself is gone.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use serde_json::Value;
use testkit::{
    TestLab, eventually, labs,
    labs::TAKES_EFFECT,
    manifests::{app, deny, idle, namespace, peer_authentication, service},
};

const CONTROL: &str = "istio-system/strake-control";
const KILL: i32 = 9;

fn manifests() -> String {
    namespace("mesh", true)
        + &namespace("plain", false)
        + &idle("plain", "stranger", "node-1")
        + &idle("mesh", "client", "node-1")
        + &app("mesh", "server", "node-2")
        + &service("mesh", "server")
}

fn strict() -> String {
    peer_authentication("mesh", "STRICT")
}

/// A page of the control plane's admin socket.
fn page(lab: &TestLab, path: &str) -> anyhow::Result<Value> {
    let socket = lab.lab().run_dir().control().join("admin.sock");
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "5", "--unix-socket"])
        .arg(socket)
        .arg(format!("http://control{path}"))
        .output()?;
    anyhow::ensure!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Waits until the problem of a file is this one and no other; what is said of it.
async fn problem(lab: &TestLab, file: &str, line: u64, field: &str) -> Value {
    eventually(&format!("{file}:{line}: {field}"), TAKES_EFFECT, async || {
        let page = page(lab, "/debug/problems")?;
        let all = page.as_array().into_iter().flatten();
        let of_file: Vec<_> =
            all.filter(|problem| problem["file"].as_str().is_some_and(|path| path.ends_with(file))).collect();
        match of_file[..] {
            [problem] if problem["line"] == line && problem["field"] == field => Ok(problem.clone()),
            _ => Err(anyhow::anyhow!("{page}")),
        }
    })
    .await
}

async fn no_problems(lab: &TestLab) {
    eventually("nothing is wrong with the manifests", TAKES_EFFECT, async || match page(lab, "/debug/problems")? {
        Value::Array(problems) if problems.is_empty() => Ok(()),
        problems => Err(anyhow::anyhow!("{problems}")),
    })
    .await;
}

/// Is plaintext refused?
async fn refused(lab: &TestLab) -> Result<(), String> {
    let report = lab.client("plain/stranger", &["http", "server.mesh:80", "--timeout-ms", "3000"]).await;
    if report.get("error").is_some() { Ok(()) } else { Err(format!("{report}")) }
}

async fn becomes_refused(lab: &TestLab) {
    eventually("plaintext is refused", TAKES_EFFECT, async || refused(lab).await).await;
}

async fn becomes_let_in(lab: &TestLab) {
    eventually("plaintext is let in", TAKES_EFFECT, async || match refused(lab).await {
        Ok(()) => Err("it is refused"),
        Err(_) => Ok(()),
    })
    .await;
}

async fn still_strict(lab: &TestLab) {
    refused(lab).await.unwrap();
    lab.client_ok("mesh/client", &["http", "server:80"]).await;
}

/// Waits until a container was started again and is ready.
async fn again(lab: &TestLab, pod: &str, restarts: u32) {
    eventually(&format!("{pod} runs again"), TAKES_EFFECT, async || {
        let info = lab.pod(pod).await;
        if info.ready && info.containers[0].restarts > restarts { Ok(()) } else { Err(format!("{info:?}")) }
    })
    .await;
}

/// Starts the control plane anew, and then the server's ztunnel, which has to learn everything from it.
async fn start_again(lab: &TestLab, while_down: impl FnOnce()) {
    let ztunnel = "istio-system/ztunnel-node-2";
    let restarts = async |pod| lab.pod(pod).await.containers[0].restarts;
    let (control_before, ztunnel_before) = (restarts(CONTROL).await, restarts(ztunnel).await);
    lab.lab().pause_restarts(CONTROL, true).await.unwrap();
    lab.lab().kill(CONTROL, KILL).await.unwrap();
    eventually("the control plane is down", TAKES_EFFECT, async || match page(lab, "/debug/problems") {
        Ok(page) => Err(page),
        Err(_) => Ok(()),
    })
    .await;
    while_down();
    lab.lab().pause_restarts(CONTROL, false).await.unwrap();
    again(lab, CONTROL, control_before).await;
    lab.lab().kill(ztunnel, KILL).await.unwrap();
    again(lab, ztunnel, ztunnel_before).await;
    lab.meshed(&["mesh/client", "mesh/server"]).await;
    // The client's proxy may still hold a tunnel to the one that was killed.
    eventually("the mesh carries calls again", TAKES_EFFECT, async || {
        let report = lab.client("mesh/client", &["http", "server:80", "--timeout-ms", "3000"]).await;
        if report.get("error").is_none() { Ok(()) } else { Err(format!("{report}")) }
    })
    .await;
}

#[test]
fn a_policy_with_a_mistake_keeps_its_last_good_state() {
    labs::run_alone("mistakes", &manifests(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/server"]).await;
        let good = strict();
        lab.write("policy.yaml", &good).unwrap();
        becomes_refused(lab).await;

        // One good object and a bad one: the good one is in force.
        let one_of_two = good.clone()
            + &deny("mesh", "nobody", "cluster.local/ns/mesh/sa/nobody").replace("principals:", "principal:");
        let mistakes = [
            (good.replace("  mtls:", "  mtls: ["), 8, ""),
            (good.replace("  mtls:", "  speed: fast\n  mtls:"), 8, "spec.speed"),
            (good.replace("mode: STRICT", "mode: [STRICT]"), 9, "spec.mtls.mode"),
            (good.replace("mode: STRICT", "mode: STRICTLY"), 9, "spec.mtls.mode"),
            (one_of_two, 21, "spec.rules[0].from[0].source.principal"),
        ];
        for (text, line, field) in mistakes {
            lab.write("policy.yaml", &text).unwrap();

            let problem = problem(lab, "policy.yaml", line, field).await;
            assert_eq!(problem["severity"], "error");
            let is_new = problem["name"] == "nobody";
            assert_eq!(problem["lastGood"].is_null(), is_new, "{problem}");
            let state = if is_new { "NOT in force" } else { "the last good state of" };
            said(lab, &["policy.yaml", &format!("line={line}"), field, state]).await;
            still_strict(lab).await;
        }
        // The lab reads the manifests itself, and may be later than the control plane, whose log was waited for.
        eventually("the lab shows the newest problem", TAKES_EFFECT, async || {
            let status = lab.strake(&["lab", "status"]).unwrap();
            let line = status.lines().find(|line| line.starts_with("problem: ")).unwrap_or_default();
            let wanted = "policy.yaml:21: AuthorizationPolicy mesh/nobody: spec.rules[0].from[0].source.principal: ";
            if line.contains(wanted) { Ok(()) } else { Err(status) }
        })
        .await;

        lab.remove("policy.yaml").unwrap();
        becomes_let_in(lab).await;
        no_problems(lab).await;
    });
}

/// Waits until the control plane's log has a line with all of these.
async fn said(lab: &TestLab, parts: &[&str]) {
    eventually(&format!("the control plane says {parts:?}"), TAKES_EFFECT, async || {
        let log = lab.log(CONTROL, "strake-control");
        lab::output::line_with(&log, parts).map(drop).ok_or_else(|| format!("no line of:\n{log}"))
    })
    .await;
}

#[test]
fn a_policy_that_is_broken_when_the_control_plane_starts_keeps_its_last_good_state() {
    labs::run_alone("broken", &manifests(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/server"]).await;
        lab.write("policy.yaml", &strict()).unwrap();
        becomes_refused(lab).await;

        lab.write("policy.yaml", &strict().replace("mode:", "mod:")).unwrap();
        lab.write("never.yaml", &deny("mesh", "client", "cluster.local/ns/mesh/sa/client").replace("DENY", "DENI"))
            .unwrap();
        problem(lab, "policy.yaml", 9, "spec.mtls.mod").await;
        start_again(lab, || {}).await;
        let told = problem(lab, "policy.yaml", 9, "spec.mtls.mod").await;
        assert!(told["lastGood"].is_string(), "{told}");
        let told = problem(lab, "never.yaml", 8, "spec.action").await;
        assert!(told["lastGood"].is_null(), "{told}");
        still_strict(lab).await;
        all_private(&lab.lab().run_dir().state().join("last-good"));

        // Broken and deleted while it runs; then deleted while it is down.
        lab.remove("policy.yaml").unwrap();
        lab.remove("never.yaml").unwrap();
        becomes_let_in(lab).await;
        no_problems(lab).await;
        lab.write("policy.yaml", &strict()).unwrap();
        becomes_refused(lab).await;
        start_again(lab, || lab.remove("policy.yaml").unwrap()).await;
        becomes_let_in(lab).await;
        no_problems(lab).await;
    });
}

/// Every copy is its owner's alone, and there are some.
fn all_private(path: &Path) {
    let mut found = 0;
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
        if metadata.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found += 1;
        }
    }
    assert!(found >= 2, "{found} below {}", path.display());
}

#[test]
fn a_directory_that_vanishes_takes_nothing_with_it() {
    labs::run_alone("vanished", &manifests(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/server"]).await;
        lab.write("policy.yaml", &strict()).unwrap();
        becomes_refused(lab).await;
        let (manifests, aside) = (lab.manifests(), lab.manifests().with_extension("aside"));
        let before = lab.pod("mesh/server").await;

        // A run that failed half-way left it there.
        let _ = fs::remove_dir_all(&aside);
        fs::rename(manifests, &aside).unwrap();
        let told = problem(lab, "labs/vanished", 0, "").await;
        assert!(told["message"].as_str().unwrap().contains("is gone"), "{told}");
        still_strict(lab).await;
        fs::create_dir(manifests).unwrap();
        eventually("an empty directory is told from the one that was read", TAKES_EFFECT, async || {
            let told = problem(lab, "labs/vanished", 0, "").await;
            if told["message"].as_str().unwrap().contains("replaced by a directory without manifests") {
                Ok(())
            } else {
                Err(told)
            }
        })
        .await;
        still_strict(lab).await;
        start_again(lab, || {}).await;
        problem(lab, "labs/vanished", 0, "").await;
        still_strict(lab).await;
        let status = lab.strake(&["lab", "status"]).unwrap();
        assert!(status.contains("labs/vanished: replaced by a directory without manifests"), "{status}");

        fs::remove_dir(manifests).unwrap();
        fs::rename(&aside, manifests).unwrap();
        no_problems(lab).await;
        still_strict(lab).await;
        assert_eq!(lab.pod("mesh/server").await.uid, before.uid, "the pod ran on");
        lab.remove("policy.yaml").unwrap();
        becomes_let_in(lab).await;
    });
}

#[test]
fn a_mistake_in_one_document_leaves_the_policies_beside_it_in_force_from_the_first_load() {
    let misspelt = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: hours, namespace: mesh}\n\
                    spec:\n  rules:\n  - when:\n    - {key: request.time, values: ['9']}\n";
    labs::run_alone("beside", &manifests(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/server"]).await;

        lab.write("policies.yaml", &(strict() + misspelt)).unwrap();

        becomes_refused(lab).await;
        lab.client_ok("mesh/client", &["http", "server:80"]).await;
        let status = lab.strake(&["lab", "status"]).unwrap();
        let line = status.lines().find(|line| line.starts_with("problem: ")).unwrap_or_default();
        assert!(line.contains("AuthorizationPolicy mesh/hours") && line.contains("NOT in force"), "{status}");
    });
}
