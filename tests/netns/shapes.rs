//! Applications of the shapes that are public everywhere, in one lab with the mesh: each file below `tests/shapes` is one,
//! and everything in it that a lab can run becomes ready.

use std::{fs, path::Path, process::Command};

use lab::{Phase, Status};
use testkit::prerequisites;

/// A lab that goes down with the test.
struct Up(String);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = strake(&["lab", "down", "--lab", &self.0]);
    }
}

/// Exit code and everything that was printed.
fn strake(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(prerequisites::bin_dir().join("strake"))
        .args(args)
        .env(lab::BIN_DIR_VARIABLE, prerequisites::bin_dir())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// The manifests, with the path of the test application filled in.
fn shapes() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bin = prerequisites::bin_dir().display().to_string();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shapes");
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap().replace("${BIN}", &bin);
        fs::write(dir.path().join(path.file_name().unwrap()), text).unwrap();
    }
    dir
}

#[test]
fn public_applications_run_unchanged() {
    if !prerequisites::met(prerequisites::missing(true)) {
        return;
    }
    let dir = shapes();
    let up = Up(format!("t-shapes-{}", std::process::id()));

    let path = dir.path().display().to_string();
    let (code, said) = strake(&["lab", "up", &path, "--lab", &up.0, "--timeout", "120"]);

    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" is ready after "), "{said}");
    // A kind that is not read is one line, and does not fail anything.
    for kind in
        ["HorizontalPodAutoscaler", "PodDisruptionBudget", "Ingress", "ClusterRole", "ServiceMonitor", "CronJob"]
    {
        assert_eq!(said.lines().filter(|line| line.contains(kind)).count(), 1, "{kind}: {said}");
    }
    let (_, status) = strake(&["lab", "status", "--lab", &up.0, "-o", "json"]);
    let status: Status = serde_json::from_str(&status).unwrap();
    assert_eq!(status.problems, Vec::<String>::new());
    let counted = |namespace: &str| status.pods.iter().filter(|pod| pod.namespace == namespace).count();
    let expected = [("books", 5), ("bin", 2), ("boutique", 4), ("info", 2), ("emoji", 3), ("guests", 6), ("voting", 7)];
    for (namespace, pods) in expected {
        assert_eq!(counted(namespace), pods, "{namespace}: {:#?}", status.pods);
    }
    let late = status.pods.iter().filter(|pod| !(pod.ready || pod.phase == Phase::Succeeded));
    assert_eq!(late.map(|pod| &pod.name).collect::<Vec<_>>(), Vec::<&String>::new());
    let (code, page) = strake(&[
        "lab",
        "exec",
        "--lab",
        &up.0,
        "-n",
        "bin",
        &pod(&status, "bin", "sleep-"),
        "--",
        "curl",
        "-sS",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "http://httpbin:8000/",
    ]);
    assert_eq!((code, page.as_str()), (Some(0), "200"));
}

fn pod(status: &Status, namespace: &str, prefix: &str) -> String {
    let found = status.pods.iter().find(|pod| pod.namespace == namespace && pod.name.starts_with(prefix));
    found.unwrap().name.clone()
}
