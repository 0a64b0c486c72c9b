//! The demo itself, ended from outside at all kinds of points: whatever it was doing, nothing of it is left.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, SystemTime},
};

use lab::{
    Lab, Target,
    paths::{Cgroups, RunDir},
};
use runtime::sys::Netns;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use testkit::{eventually, labs, labs::TAKES_EFFECT, prerequisites};

/// Longest time from the line at which a demo is ended until it is: somewhere within the step.
const WITHIN_STEP: Duration = Duration::from_millis(1500);

/// A running demo; killed with the test.
struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    name: String,
    /// Directory for its temporary files, empty before.
    scratch: tempfile::TempDir,
    /// Cookies of network namespaces of its lab, as far as they were noted.
    networks: BTreeSet<u64>,
    /// Step at which it was ended, for messages.
    point: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    /// Starts it and goes on for a moment after the line that begins with `point`; the empty one is its very start.
    async fn until(name: &str, point: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let name = format!("t-{name}-{}", std::process::id());
        let mut child = Command::new(prerequisites::bin_dir().join("strake"))
            .args(["lab", "demo", "--lab", &name])
            .env(lab::BIN_DIR_VARIABLE, prerequisites::bin_dir())
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut demo = Self { child, output, name, scratch, networks: BTreeSet::new(), point: String::new() };
        while !demo.line().starts_with(point) {}
        let pause = random(WITHIN_STEP);
        demo.point = format!("{pause:?} after {point:?}");
        tokio::time::sleep(pause).await;
        demo.note_networks().await;
        demo
    }

    /// The next line; fails at the end of the output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "the demo has ended");
        line
    }

    fn rest(&mut self) -> String {
        (&mut self.output).lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
    }

    /// Resources that exist already; a demo that has just begun has no lab.
    async fn note_networks(&mut self) {
        let Ok(lab) = Lab::attach(&self.name).await else { return };
        let nodes = lab.nodes().await.unwrap_or_default().into_iter().map(|node| Target::Node(node.name));
        let pods = lab.pods().await.unwrap_or_default().into_iter();
        let pods = pods.map(|pod| Target::Pod { pod: format!("{}/{}", pod.namespace, pod.name), container: None });
        for target in nodes.chain(pods) {
            let Ok(netns) = lab.netns(target).await else { continue };
            self.networks.insert(Netns::from_fd(netns).unwrap().cookie().unwrap());
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills the demo and the first process of its lab in one go: nobody is left to tidy up.
    fn crash(&mut self) {
        let supervisor = fs::read_to_string(RunDir::of(&self.name).pid_file()).unwrap();
        let supervisor = Pid::from_raw(supervisor.trim().parse().unwrap()).unwrap();
        let gone = pidfd_open(supervisor, PidfdFlags::empty()).unwrap();
        // Stopped first: between the two kills a running demo would notice that its lab is gone, and tidy up.
        self.signal(Signal::STOP);
        kill_process(supervisor, Signal::KILL).unwrap();
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
        // Until it has ended it holds the lab's lock, and on a busy machine that takes a while.
        poll(&mut [PollFd::new(&gone, PollFlags::IN)], None).unwrap();
    }

    /// Files, cgroups, mounts, processes and network namespaces that are the lab's.
    fn left(&self) -> Vec<String> {
        let run = RunDir::of(&self.name);
        let cgroups = Cgroups::of(&self.name).unwrap();
        let mut paths = vec![run.root().to_path_buf(), run.lock(), cgroups.root().to_path_buf()];
        paths.extend(fs::read_dir(self.scratch.path()).unwrap().map(|entry| entry.unwrap().path()));
        let mut left: Vec<_> = paths.iter().filter(|p| p.exists()).map(|p| p.display().to_string()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&self.name)).map(ToOwned::to_owned));
        let own = self.child.id().to_string();
        for process in processes().filter(|process| !process.ends_with(&own)) {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&self.name) || self.is_inside(&process) {
                left.push(format!("{}: {}", process.display(), String::from_utf8_lossy(&command).replace('\0', " ")));
            }
        }
        left
    }

    /// Returns true if a process is in, or holds, one of the network namespaces.
    fn is_inside(&self, process: &Path) -> bool {
        let held = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        let mut all = held.chain([process.join("ns/net")]);
        all.any(|path| {
            fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().starts_with("net:["))
                && Netns::open(&path)
                    .and_then(|netns| netns.cookie())
                    .is_ok_and(|cookie| self.networks.contains(&cookie))
        })
    }

    async fn leaves_nothing(&self) {
        eventually(&format!("nothing is left of a demo that was ended {}", self.point), TAKES_EFFECT, async || {
            let left = self.left();
            if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
        })
        .await;
    }
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let number = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit());
    fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(number)
}

/// Any duration below `most`: the clock's microseconds are as good as dice here.
fn random(most: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    most * (now.subsec_micros() % 1000) / 1000
}

/// Ends a demo politely at each point: it says where it was, tidies up itself and exits with `code`.
async fn ends_by(signal: Signal, code: i32, name: &str, points: &[&str]) {
    for point in points {
        let mut demo = Demo::until(name, point).await;

        demo.signal(signal);

        let rest = demo.rest();
        let at = &demo.point;
        assert_eq!(demo.child.wait().unwrap().code(), Some(code), "{at}: {rest}");
        assert!(rest.contains("stopped in step ") || rest.contains("stopped before step 1 of 9"), "{at}: {rest}");
        assert!(rest.contains("left behind: nothing") && !rest.contains("all hold"), "{at}: {rest}");
        assert_eq!(demo.left(), Vec::<String>::new(), "{at}");
    }
}

#[test]
fn a_demo_that_is_interrupted_says_where_and_leaves_nothing() {
    labs::run(async || ends_by(Signal::INT, 130, "int", &["", "1.", "5."]).await);
}

#[test]
fn a_demo_that_is_terminated_says_where_and_leaves_nothing() {
    labs::run(async || ends_by(Signal::TERM, 143, "term", &["2.", "6."]).await);
}

#[test]
fn a_demo_that_is_killed_leaves_nothing() {
    labs::run(async || {
        for point in ["", "3.", "7."] {
            let mut demo = Demo::until("kill", point).await;

            demo.signal(Signal::KILL);

            demo.child.wait().unwrap();
            demo.leaves_nothing().await;
        }
    });
}

#[test]
fn what_a_crash_leaves_is_removed_by_down_or_by_the_next_demo() {
    labs::run(async || {
        let mut crashed = Demo::until("crash", "4.").await;
        crashed.crash();
        assert!(!crashed.left().is_empty(), "nobody tidied up, and nothing is left");
        lab::down(&crashed.name).await.unwrap();
        crashed.leaves_nothing().await;

        let mut crashed = Demo::until("crash", "1.").await;
        crashed.crash();
        let mut next = Demo::until("crash", "1.").await;
        next.signal(Signal::INT);
        assert!(next.rest().contains("left behind: nothing"));
        assert_eq!(next.child.wait().unwrap().code(), Some(130));
        next.networks.extend(&crashed.networks);
        next.leaves_nothing().await;
        crashed.leaves_nothing().await;
    });
}
