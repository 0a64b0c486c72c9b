//! The program as scripts use it, without a mesh: exit codes, what is printed, readers that stop.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

const POLICY: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: NAME, namespace: \
                      shop}\nspec:\n  rules:\n  - from:\n    - source: {principals: [\"spiffe://cluster.local/ns/shop/sa/a\"]}\n";

/// The program with a kubeconfig that does not exist.
fn strake(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strake"));
    command.args(args).env("KUBECONFIG", "/nowhere/kubeconfig").env_remove("STRAKE_LAB");
    command
}

fn run(args: &[&str]) -> Output {
    strake(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory with one manifest.
fn manifests(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), text).unwrap();
    directory
}

fn analyze(directory: &Path, flags: &[&str]) -> Output {
    run(&[&["analyze", directory.to_str().unwrap()], flags].concat())
}

#[test]
fn only_an_error_of_a_manifest_is_a_failure_unless_it_is_strict() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let warned = manifests(&format!("{namespace}{}", POLICY.replace("NAME", "a")));
    let broken = manifests(&format!("{namespace}{}", POLICY.replace("NAME", "a").replace("rules", "rule")));

    let (good, strict) = (analyze(warned.path(), &[]), analyze(warned.path(), &["--strict"]));
    assert_eq!((good.status.code(), strict.status.code()), (Some(0), Some(1)), "{}", text(&good.stdout));
    let said = text(&good.stdout);
    assert!(said.contains("a.yaml:11: AuthorizationPolicy shop/a: spec.rules[0]"), "{said}");
    let bad = analyze(broken.path(), &[]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stdout).contains("spec.rule"), "{}", text(&bad.stdout));
    let json: serde_json::Value = serde_json::from_slice(&analyze(warned.path(), &["-o", "json"]).stdout).unwrap();
    assert_eq!(json["findings"][0]["reason"], "invalid_principal");
    assert_eq!(analyze(Path::new("/nowhere"), &[]).status.code(), Some(1));
}

#[test]
fn a_wrong_command_line_has_another_code_than_a_mesh_that_cannot_be_asked() {
    for wrong in [&["get", "pods", "--chek"][..], &["explain", "a"], &["get"], &["explain", "a", "b:http"]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    for args in [&["get", "services"][..], &["explain", "a", "b:1"], &["check"], &["logs"], &["status"], &["install"]] {
        let output = run(&[args, &["--kubeconfig", "/nowhere/kubeconfig"]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("/nowhere/kubeconfig") && !said.contains("panicked"), "{args:?}: {said}");
    }
    let both = run(&["get", "pods", "--lab", "a", "--context", "b"]);
    assert_eq!(both.status.code(), Some(2), "{}", text(&both.stderr));
}

#[test]
fn a_lab_that_does_not_run_is_named() {
    for args in [&["get", "pods"][..], &["describe", "pod", "a"], &["status"], &["logs", "ztunnel"], &["analyze", "-A"]]
    {
        let output = run(&[args, &["--lab", "no-such-lab"]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(said.contains("no-such-lab"), "{args:?}: {said}");
    }
}

#[test]
fn a_plugin_of_kubectl_asks_kubectl_s_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = directory.path().join("kubectl-strake");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_strake"), &plugin).unwrap();

    let output = Command::new(plugin).args(["get", "pods"]).env("KUBECONFIG", "/nowhere/kubeconfig").output().unwrap();

    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("strake: no cluster to ask: "), "{said}");
}

#[test]
fn a_reader_that_stops_ends_an_analysis_without_a_word() {
    let mut many = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned();
    for number in 0..3000 {
        write!(many, "{}", POLICY.replace("NAME", &format!("p{number}"))).unwrap();
    }
    let directory = manifests(&many);
    let mut child = strake(&["analyze", directory.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut first, mut said) = (String::new(), String::new());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut first).unwrap();
    drop(output);

    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();

    assert!(first.starts_with("warning: "), "{first}");
    assert_eq!((said.as_str(), status.signal()), ("", Some(13)), "SIGPIPE, as for other programs");
}

#[test]
fn completion_knows_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completion", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("explain"), "{shell}");
    }
}
