//! Commands of `strake lab` as scripts and people use them, on a lab without the mesh.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Shared, TestLab, eventually, labs::TAKES_EFFECT, prerequisites};

static LAB: Shared = Shared::plain("commands", manifests);

/// A pod that has printed a lot, one that prints when it starts, and a namespace.
fn manifests() -> String {
    let pod = |name: &str, script: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: talk}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
             containers:\n  - {{name: c, command: [sh, -c, '{script}; exec sleep infinity']}}\n"
        )
    };
    pod("much", "seq 100000")
        + &pod("little", "echo one; echo two")
        + &testkit::manifests::idle("talk", "waits", "node-1")
}

fn strake() -> Command {
    let mut command = Command::new(prerequisites::bin_dir().join("strake"));
    command.env(lab::BIN_DIR_VARIABLE, prerequisites::bin_dir());
    command
}

fn run(lab: &TestLab, args: &[&str]) -> Output {
    strake().arg("lab").args(args.split_at(1).0).args(["--lab", lab.lab().name()]).args(&args[1..]).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn standard_input_is_read_only_when_it_is_asked_for() {
    LAB.run(async |lab| {
        for (flags, expected) in [(&[][..], ""), (&["-i"], "typed")] {
            let mut child = strake()
                .args(["lab", "exec", "--lab", lab.lab().name(), "-n", "talk", "waits"])
                .args(flags)
                .args(["--", "cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(b"typed").unwrap();

            let output = child.wait_with_output().unwrap();

            assert_eq!(text(&output.stdout), expected, "{flags:?}");
        }
    });
}

#[test]
fn a_reader_that_stops_ends_a_command_without_a_word() {
    LAB.run(async |lab| {
        // The lab is up when its pods run, and they may not have written yet.
        eventually("the pod has written", TAKES_EFFECT, async || {
            let output = run(lab, &["logs", "talk/much", "--tail", "1"]);
            if output.stdout.is_empty() { Err("nothing yet") } else { Ok(()) }
        })
        .await;
        let mut child = strake()
            .args(["lab", "logs", "--lab", lab.lab().name(), "talk/much"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut first).unwrap();
        drop(output);

        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        child.wait().unwrap();

        assert_eq!((first.as_str(), said.as_str()), ("1\n", ""));
    });
}

#[test]
fn logs_are_chosen_by_lines_time_and_run() {
    LAB.run(async |lab| {
        let logs = |args: &[&str]| {
            let output = run(lab, &[&["logs", "-n", "talk", "little"], args].concat());
            (output.status.code(), text(&output.stdout))
        };
        assert_eq!(logs(&["--tail", "1"]), (Some(0), "two\n".to_owned()));
        assert_eq!(logs(&["--since", "1h"]), (Some(0), "one\ntwo\n".to_owned()));
        let written_before = async || if logs(&["--since", "0s"]).1.is_empty() { Ok(()) } else { Err("it is new") };
        eventually("nothing was written just now", TAKES_EFFECT, written_before).await;
        assert_eq!(logs(&["-p"]).0, Some(1), "there is no run before the first");

        lab.lab().kill("talk/little", 9).await.unwrap();
        eventually("the second run", TAKES_EFFECT, async || match logs(&[]).1.as_str() {
            "one\ntwo\none\ntwo\n" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await;
        assert_eq!(logs(&["-p"]), (Some(0), "one\ntwo\n".to_owned()));
    });
}

#[test]
fn a_copy_of_the_manifests_is_edited_instead_of_them() {
    if !prerequisites::met(prerequisites::missing(false)) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    let manifest = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: copied\n";
    fs::write(&file, manifest).unwrap();
    let name = format!("t-copy-{}", std::process::id());
    let up = strake().args(["lab", "up", "--copy", "--no-mesh", "--lab", &name]).arg(dir.path()).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));

    let label = strake().args(["label", "namespace", "copied", "a=b", "--lab", &name]).output().unwrap();
    let copy: PathBuf = lab::paths::RunDir::of(&name).manifests().join("a.yaml");
    let edited = fs::read_to_string(copy).unwrap();
    let down = strake().args(["lab", "down", "--lab", &name]).status().unwrap();

    assert!(label.status.success(), "{}", text(&label.stderr));
    assert!(edited.contains("a: b"), "{edited}");
    assert_eq!(fs::read_to_string(&file).unwrap(), manifest);
    assert!(down.success());
}

#[test]
fn a_lab_in_the_foreground_says_that_it_ends_and_exits_as_the_signal_asks() {
    if !prerequisites::met(prerequisites::missing(false)) {
        return;
    }
    for (signal, word, code) in [(Signal::TERM, "SIGTERM", 143), (Signal::INT, "SIGINT", 130)] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), testkit::manifests::idle("default", "a", "node-1")).unwrap();
        let name = format!("t-fore-{code}-{}", std::process::id());
        let mut child = strake()
            .args(["lab", "up", "--foreground", "--no-mesh", "--lab", &name])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        // Held until the end: what is printed later has a reader.
        let mut printed = BufReader::new(child.stdout.take().unwrap());
        printed.read_line(&mut ready).unwrap();
        assert!(ready.contains("is ready after"), "{ready}");

        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();

        assert_eq!(output.status.code(), Some(code));
        assert_eq!(text(&output.stderr), format!("{word}: lab {name} ends\n"));
    }
}
