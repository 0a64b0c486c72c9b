//! The demo itself, ended from outside at several points: whatever it was doing, nothing of it is left.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use lab::paths::{Cgroups, RunDir};
use testkit::{eventually, labs, labs::TAKES_EFFECT, prerequisites};

/// The first line of a step: where the demo is ended.
const POINTS: [&str; 3] = ["1.", "5.", "7."];

/// A running demo; killed with the test.
struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    name: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    /// Starts it and reads on until it says `point`.
    fn until(name: &str, point: &str) -> Self {
        let name = format!("t-{name}-{}", std::process::id());
        let mut child = Command::new(prerequisites::bin_dir().join("strake"))
            .args(["lab", "demo", "--name", &name])
            .env(lab::BIN_DIR_VARIABLE, prerequisites::bin_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut demo = Self { child, output, name };
        while !demo.line().starts_with(point) {}
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

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Files, cgroups, mounts and processes that bear the lab's name.
    fn left(&self, manifests: &[PathBuf]) -> Vec<String> {
        let run = RunDir::of(&self.name);
        let cgroups = Cgroups::of(&self.name).unwrap();
        let mut paths = vec![run.root().to_path_buf(), run.lock(), cgroups.root().to_path_buf()];
        paths.extend_from_slice(manifests);
        let mut left: Vec<_> = paths.iter().filter(|p| p.exists()).map(|p| p.display().to_string()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&self.name)).map(ToOwned::to_owned));
        let own = self.child.id().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten().filter(|entry| *entry.file_name() != *own) {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&self.name) {
                left.push(format!("process {}", entry.file_name().display()));
            }
        }
        left
    }

    /// The directories of the manifests that the lab was started with.
    fn manifests(&self) -> Vec<PathBuf> {
        let options = fs::read(RunDir::of(&self.name).root().join("options.json")).unwrap();
        let options: lab::Options = serde_json::from_slice(&options).unwrap();
        options.manifests
    }
}

#[test]
fn a_demo_that_is_interrupted_says_where_and_leaves_nothing() {
    labs::run(async || {
        for point in POINTS {
            let mut demo = Demo::until("int", point);
            let manifests = demo.manifests();
            assert!(manifests.iter().all(|dir| dir.exists()));

            demo.signal(rustix::process::Signal::INT);

            let rest = demo.rest();
            let step = point.trim_end_matches('.');
            assert!(rest.contains(&format!("stopped in step {step} of 8")), "{rest}");
            assert!(rest.contains("left behind: nothing") && !rest.contains("all hold"), "{rest}");
            assert_eq!(demo.child.wait().unwrap().code(), Some(130), "{rest}");
            assert_eq!(demo.left(&manifests), Vec::<String>::new(), "{point}");
        }
    });
}

#[test]
fn a_demo_that_is_killed_leaves_nothing() {
    labs::run(async || {
        for point in POINTS {
            let mut demo = Demo::until("kill", point);
            let manifests = demo.manifests();

            demo.signal(rustix::process::Signal::KILL);

            demo.child.wait().unwrap();
            eventually(&format!("nothing is left of a demo killed at {point}"), TAKES_EFFECT, async || {
                let left = demo.left(&manifests);
                if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
            })
            .await;
        }
    });
}
