//! The start of a container: its environment, mounts and log, until its command has really begun.

use std::{fs::OpenOptions, os::fd::OwnedFd, process::Stdio, time::Duration};

use kube_types::core::Container;
use tokio::{io::AsyncReadExt as _, process::Child, time::timeout};

use super::{Setup, environment, files, mounts, probe};
use crate::{handle::exit_code, process::enter::Entry};

/// Time limit from a container's start to its command; mounts are all that happens.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Starts the command and waits until it has really begun.
pub(super) async fn start(setup: &Setup, container: &Container) -> Result<Child, String> {
    let env = environment::environment(container, &setup.facts(), &setup.context.catalogue())?;
    let entry = Entry {
        cgroup: setup.cgroup().join(&container.name),
        netns: Some(setup.netns_path()),
        hostname: Some(files::hostname(&setup.pod)),
        binds: mounts::binds(&setup.places(), &setup.pod, container, &env)?,
        scratch: setup.dir().join("scratch"),
        report: true,
        argv: environment::command_line(container, &env),
        directory: container.working_dir.as_ref().map(Into::into),
        user: super::user(&setup.pod, container),
        group: super::group(&setup.pod, container),
        env,
        ..Entry::default()
    };
    let spawn = || {
        let (read, write) = std::io::pipe()?;
        let log = setup.log(container);
        if let Some(parent) = log.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Before the command can write its first byte: everything behind this mark is this run's.
        setup.context.marks.begin(&log)?;
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = entry.command(&setup.context.program)?;
        command.stdin(OwnedFd::from(write)).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        std::io::Result::Ok((command.spawn()?, tokio::fs::File::from_std(OwnedFd::from(read).into())))
    };
    let (mut child, mut report) = spawn().map_err(|err| err.to_string())?;
    let mut message = String::new();
    // The other end of this pipe closes at `exec`: an end without a message means that the command runs, and a message
    // says why it does not.
    match timeout(START_DEADLINE, report.read_to_string(&mut message)).await {
        Ok(Ok(0)) => Ok(child),
        outcome => {
            // It ends by itself or is killed when it is dropped.
            let _ = child.start_kill();
            let _ = child.wait().await;
            Err(if outcome.is_err() { format!("did not start within {START_DEADLINE:?}") } else { message })
        }
    }
}

/// Runs commands in a container that runs: exec probes and lifecycle hooks.
#[derive(Clone)]
pub(super) struct Inside {
    pub(super) setup: std::sync::Arc<Setup>,
    pub(super) container: Container,
    pub(super) pid: u32,
}

impl probe::RunInside for Inside {
    async fn run(&self, argv: &[String]) -> Result<(), String> {
        let entry = self.setup.exec(&self.container, self.pid, argv.to_vec())?;
        let mut command = entry.command(&self.setup.context.program).map_err(|err| err.to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        match command.status().await.map(exit_code) {
            Ok(0) => Ok(()),
            Ok(code) => Err(format!("the command exited with {code}")),
            Err(err) => Err(err.to_string()),
        }
    }
}
