//! `strake lab up --foreground` that is interrupted or killed, at any point of its start: nothing is left.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use lab::paths::{Cgroups, RunDir};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// Longest time that anything here may take; the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
                   containers:\n  - {name: c, command: [sleep, infinity]}\n";

/// Stage of the start at which the signal is sent.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// The supervisor's process is there; nobody may hold it yet.
    Started,
    /// It answers; pods are being started.
    Listens,
    /// Everything runs.
    Ready,
}

const POINTS: [Point; 3] = [Point::Started, Point::Listens, Point::Ready];

/// A lab of the command line, brought to a point.
struct Lab {
    name: String,
    run: RunDir,
    child: Child,
    _manifests: tempfile::TempDir,
}

impl Lab {
    async fn up_to(point: Point, signal: &str) -> Self {
        let manifests = tempfile::tempdir().unwrap();
        fs::write(manifests.path().join("a.yaml"), POD).unwrap();
        let name = format!("ends-{}-{}-{}", std::process::id(), signal.to_lowercase(), point as u8);
        let mut child = Command::new(env!("CARGO_BIN_EXE_strake"))
            .args(["lab", "up", "--foreground", "--no-mesh", "--lab", &name])
            .arg(manifests.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let run = RunDir::of(&name);
        match point {
            Point::Started => eventually("a process", || run.pid_file().exists()).await,
            Point::Listens => eventually("a socket", || run.socket().exists()).await,
            Point::Ready => {
                let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
                let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap();
                assert!(line.is_some_and(|line| line.contains("is ready")), "it ended");
            }
        }
        Self { name, run, child, _manifests: manifests }
    }

    /// Sends the signal; the exit code, if it ended with one.
    async fn ends_by(&mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().await.unwrap().success());
        tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("it does not end").unwrap().code()
    }

    async fn leaves_nothing(&self, point: Point) {
        let cgroups = Cgroups::of(&self.name).unwrap();
        let left = || {
            let files = [self.run.root().to_owned(), self.run.lock(), cgroups.root().to_owned()];
            let mut left: Vec<_> =
                files.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
            left.extend(processes(&self.name));
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            left.extend(mounts.lines().filter(|line| line.contains(&self.name)).map(str::to_owned));
            left
        };
        eventually(&format!("{point:?}: nothing is left"), || left().is_empty()).await;
    }
}

/// Command lines of processes that hold `text`.
fn processes(text: &str) -> Vec<String> {
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(text)).collect()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while !condition() {
        assert!(Instant::now() < end, "not in time: {what}");
        tick.tick().await;
    }
}

/// Tells if labs can be made here. With `CI` set a machine that cannot is a failure.
fn possible() -> bool {
    let root = fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nUid:\t0\t0\t"));
    let possible = root && Path::new("/proc/self/ns/pid").exists();
    assert!(possible || std::env::var_os("CI").is_none(), "skipped: a lab needs root");
    possible
}

#[tokio::test]
async fn an_interrupted_lab_leaves_nothing() {
    if !possible() {
        return;
    }
    for point in POINTS {
        let mut lab = Lab::up_to(point, "INT").await;

        assert_eq!(lab.ends_by("INT").await, Some(130), "{point:?}");
        lab.leaves_nothing(point).await;
    }
}

#[tokio::test]
async fn a_killed_lab_leaves_nothing() {
    if !possible() {
        return;
    }
    for point in POINTS {
        let mut lab = Lab::up_to(point, "KILL").await;

        assert_eq!(lab.ends_by("KILL").await, None, "{point:?}");
        lab.leaves_nothing(point).await;
    }
}

#[tokio::test]
async fn down_of_a_lab_that_is_not_there_says_so() {
    let name = format!("ends-{}-none", std::process::id());

    let output = Command::new(env!("CARGO_BIN_EXE_strake")).args(["lab", "down", "--lab", &name]).output().await;

    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with(&format!("strake: no lab named {name:?} is running; ")), "{said}");
}
