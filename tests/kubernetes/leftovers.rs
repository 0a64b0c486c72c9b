//! Clusters that end in every possible way leave nothing on the machine.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout},
};

use testkit::prerequisites;

use crate::stage::{Cluster, Leftovers, Options, eventually, missing, script, unique};

/// Options of a cluster that is quick to start.
fn small() -> Options {
    Options { nodes: 1, dns: false, ..Options::default() }
}

/// A command that runs a cluster, with its output, which it could not do without.
struct Runner {
    process: Child,
    _output: BufReader<ChildStdout>,
}

/// Starts a cluster and returns when its runner has printed a line that ends with this.
fn until(name: &str, point: &str) -> Runner {
    let mut process = Cluster::runner(name, &small()).unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim_end() != point && !line.trim_end().ends_with(&format!("  {point}")) {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the runner ended before \"{point}\"");
    }
    Runner { process, _output: output }
}

fn command(name: &str, command: &str) -> std::process::Output {
    std::process::Command::new(script()).args(["--name", name, command]).output().unwrap()
}

#[test]
fn a_runner_that_is_killed_takes_every_process_and_mount_with_it_and_down_removes_the_rest() {
    if !prerequisites::met(missing()) {
        return;
    }
    for point in ["API server ready", "nodes ready", "ready"] {
        let name = unique("killed");
        let left = Leftovers::of(&name);
        let mut runner = until(&name, point);
        assert!(left.processes().len() > 3, "{:?}", left.processes());

        runner.process.kill().unwrap();
        runner.process.wait().unwrap();

        eventually(&format!("no process is left after a kill at \"{point}\""), || {
            anyhow::ensure!(left.processes().is_empty(), "{:?}", left.processes());
            Ok(())
        });
        // The start of another test's cluster may have removed the files already: then there is nothing to end.
        let down = command(&name, "down");
        assert!(down.status.success() || String::from_utf8_lossy(&down.stderr).contains("there is no cluster"));
        eventually("nothing is left", || left.none());
    }
}

#[test]
fn down_ends_a_cluster_that_is_starting() {
    if !prerequisites::met(missing()) {
        return;
    }
    let name = unique("starting");
    let mut runner = until(&name, "API server ready");

    let down = command(&name, "down");

    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(!runner.process.wait().unwrap().success(), "the runner of a cluster that was ended says so");
    eventually("nothing is left", || Leftovers::of(&name).none());
}

#[test]
fn the_end_of_the_runners_input_ends_its_cluster() {
    if !prerequisites::met(missing()) {
        return;
    }
    let name = unique("input");
    let mut runner = until(&name, "ready");

    drop(runner.process.stdin.take());

    assert!(runner.process.wait().unwrap().success());
    eventually("nothing is left", || Leftovers::of(&name).none());
}

#[test]
fn a_name_is_used_once_and_a_cluster_that_is_not_there_is_an_error() {
    if !prerequisites::met(missing()) {
        return;
    }
    let name = unique("twice");
    let absent = command(&name, "down");
    assert!(!absent.status.success() && String::from_utf8_lossy(&absent.stderr).contains("there is no cluster"));
    let runner = until(&name, "API server ready");

    let second = command(&name, "up");

    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("is running already"), "{said}");
    assert!(Leftovers::of(&name).processes().len() > 3, "the second start ended the first cluster");
    drop(runner);
    assert!(command(&name, "down").status.success());
    eventually("nothing is left", || Leftovers::of(&name).none());
}
