//! `Lab`: what tests and the command line hold of a running lab. It only asks; the work is the supervisor's.

use std::{
    fs, io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use tokio::net::UnixStream;

use crate::{
    command::{Capture, Output, Pipes, Process, Running},
    control::{Connection, Followup, NodeInfo, Phase, PodInfo, Reply, Request, Status, Target},
    error::LabError,
    launch,
    options::{Options, validate_name},
    paths::{Cgroups, RunDir},
    process_ids,
};

/// Pause between two looks at the status while waiting for it to change.
const POLL: Duration = Duration::from_millis(25);

/// How long `down` waits for the pods to stop before it kills them.
const DOWN_DEADLINE: Duration = Duration::from_secs(60);

/// A running lab.
///
/// One from `start` or `up` holds a leash: the lab goes down when the handle is dropped,
/// unless `detach` was called. One from `attach` holds none.
#[derive(Debug)]
pub struct Lab {
    name: String,
    run: RunDir,
    cgroups: Cgroups,
    leash: Option<Connection>,
}

impl Lab {
    /// Starts a lab and waits until everything in it that should be ready is.
    ///
    /// # Errors
    /// When it cannot start, or `NotReady` with what is missing; it is down again then.
    pub async fn up(options: Options, deadline: Duration) -> Result<Self, LabError> {
        let lab = Self::start(options).await?;
        lab.wait_ready(deadline).await?;
        Ok(lab)
    }

    /// Starts a lab's supervisor and waits until it answers, not for the pods. What an
    /// earlier lab of the same name left behind is removed first.
    ///
    /// # Errors
    /// When one of that name runs, or the supervisor does not come up.
    pub async fn start(options: Options) -> Result<Self, LabError> {
        let options = options.validate()?;
        let name = options.name.clone();
        let leash = launch::supervisor(options).await?;
        Ok(Self { run: RunDir::of(&name), cgroups: Cgroups::of(&name)?, name, leash: Some(leash) })
    }

    /// A handle for a lab that somebody else started.
    ///
    /// # Errors
    /// When none of that name runs.
    pub async fn attach(name: &str) -> Result<Self, LabError> {
        validate_name(name)?;
        let lab = Self { name: name.to_owned(), run: RunDir::of(name), cgroups: Cgroups::of(name)?, leash: None };
        lab.connect().await?;
        Ok(lab)
    }

    /// Lets the lab run on when this handle is dropped.
    ///
    /// # Errors
    /// When the lab is gone already.
    pub async fn detach(&mut self) -> Result<(), LabError> {
        let Some(mut leash) = self.leash.take() else { return Ok(()) };
        leash.send(&Followup::Detach, &[]).await?;
        expect_done(leash.receive().await?)
    }

    /// Waits until the lab ends by itself. Safe to drop half-way.
    ///
    /// # Errors
    /// When the connection fails otherwise than by the lab's end.
    pub async fn ended(&mut self) -> Result<(), LabError> {
        let Some(leash) = &mut self.leash else { return Err(LabError::Gone) };
        while leash.receive::<Reply>().await?.is_some() {}
        Ok(())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its files.
    #[must_use]
    pub const fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// Its cgroups.
    #[must_use]
    pub const fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Everything the supervisor knows, with process ids as this process sees them.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn status(&self) -> Result<Status, LabError> {
        match self.ask(&Request::Status).await? {
            Reply::Status(mut status) => {
                status.pods.iter_mut().for_each(process_ids::fill_in);
                Ok(*status)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The pods.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn pods(&self) -> Result<Vec<PodInfo>, LabError> {
        Ok(self.status().await?.pods)
    }

    /// One pod, by `namespace/name` or by name in `default`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pod(&self, pod: &str) -> Result<PodInfo, LabError> {
        let (namespace, name) = split_pod(pod);
        let found = self.pods().await?.into_iter().find(|pod| pod.namespace == namespace && pod.name == name);
        found.ok_or_else(|| LabError::Refused(format!("there is no pod {namespace}/{name}")))
    }

    /// The nodes.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, LabError> {
        Ok(self.status().await?.nodes)
    }

    /// Waits until the manifests were read and every pod that should be ready is.
    ///
    /// # Errors
    /// `NotReady` with a line for each thing that is wrong, then for each that is missing: when the deadline
    /// passes, or when all is ready that can be.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<(), LabError> {
        let start = Instant::now();
        loop {
            let status = self.status().await?;
            let waiting = waiting(&status);
            if waiting.is_empty() && status.problems.is_empty() {
                return Ok(());
            }
            // A problem does not keep the rest from becoming ready, and is not all there is to say before.
            if waiting.is_empty() || start.elapsed() >= deadline {
                let reasons = [status.problems, waiting].concat();
                return Err(LabError::NotReady { waited: start.elapsed(), reasons });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until `condition` holds of the status.
    ///
    /// # Errors
    /// `NotReady` naming `what` and the pods as they are, when the deadline passes.
    pub async fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Status) -> bool,
    ) -> Result<Status, LabError> {
        let start = Instant::now();
        loop {
            let status = self.status().await?;
            if condition(&status) {
                return Ok(status);
            }
            if start.elapsed() >= deadline {
                let mut reasons = vec![format!("waited for: {what}")];
                reasons.extend(status.pods.iter().map(describe));
                reasons.extend(status.problems);
                return Err(LabError::NotReady { waited: start.elapsed(), reasons });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs a command in a pod to its end, with no input, and returns what it printed.
    ///
    /// # Errors
    /// When the pod is not there or the command cannot be started.
    pub async fn exec<A: AsRef<str>>(&self, pod: &str, argv: &[A]) -> Result<Output, LabError> {
        self.spawn(pod, argv).await?.output().await
    }

    /// Runs a command in a node's network namespace to its end.
    ///
    /// # Errors
    /// When there is no such node or the command cannot be started.
    pub async fn exec_on_node<A: AsRef<str>>(&self, node: &str, argv: &[A]) -> Result<Output, LabError> {
        self.spawn_at(Target::Node(node.to_owned()), argv).await?.output().await
    }

    /// Starts a command in a pod with pipes as its input and output. It is killed when the
    /// `Process` is dropped.
    ///
    /// # Errors
    /// When the pod is not there or the command cannot be started.
    pub async fn spawn<A: AsRef<str>>(&self, pod: &str, argv: &[A]) -> Result<Process, LabError> {
        self.spawn_at(Target::Pod { pod: pod.to_owned(), container: None }, argv).await
    }

    /// As `spawn`, anywhere.
    ///
    /// # Errors
    /// As `spawn`.
    pub async fn spawn_at<A: AsRef<str>>(&self, target: Target, argv: &[A]) -> Result<Process, LabError> {
        let pipes = Pipes::new()?;
        let running = self.exec_with(target, argv, pipes.theirs()).await?;
        Ok(pipes.around(running))
    }

    /// Starts a command with descriptors of the caller's choice as input, output and error.
    ///
    /// # Errors
    /// When the target is not there or the command cannot be started.
    pub async fn exec_with<A: AsRef<str>>(
        &self,
        target: Target,
        argv: &[A],
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Running, LabError> {
        let argv = argv.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let mut connection = self.connect().await?;
        connection.send(&Request::Exec { target, argv, env: Vec::new() }, &stdio).await?;
        match connection.receive().await?.ok_or(LabError::Gone)? {
            Reply::Started => Ok(Running::new(connection)),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a signal to the main process of a pod's first container.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, pod: &str, signal: i32) -> Result<(), LabError> {
        let request = Request::Kill { pod: pod.to_owned(), container: None, signal };
        expect_done(Some(self.ask(&request).await?))
    }

    /// Whether containers of a pod that exit stay down (`true`) or are started again.
    ///
    /// # Errors
    /// When there is no such pod.
    pub async fn pause_restarts(&self, pod: &str, paused: bool) -> Result<(), LabError> {
        expect_done(Some(self.ask(&Request::PauseRestarts { pod: pod.to_owned(), paused }).await?))
    }

    /// Records everything on a node's wire until `Capture::stop`.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn capture(&self, node: &str) -> Result<Capture, LabError> {
        let mut connection = self.connect().await?;
        connection.send(&Request::Capture { node: node.to_owned() }, &[]).await?;
        match connection.receive().await?.ok_or(LabError::Gone)? {
            Reply::Capturing(file) => Ok(Capture::new(connection, file)),
            other => Err(unexpected(&other)),
        }
    }

    /// The network namespace of a pod or node: for tests that look into the kernel.
    ///
    /// # Errors
    /// When there is no such target.
    pub async fn netns(&self, target: Target) -> Result<OwnedFd, LabError> {
        let mut connection = self.connect().await?;
        connection.send(&Request::Netns(target), &[]).await?;
        expect_done(connection.receive().await?)?;
        connection.take_descriptors().pop().ok_or(LabError::Gone)
    }

    /// The file that a container's output goes to.
    #[must_use]
    pub fn log(&self, pod: &str, container: &str) -> PathBuf {
        let (namespace, name) = split_pod(pod);
        self.run.log(namespace, name, container)
    }

    /// Stops every pod with its grace period and removes everything.
    ///
    /// # Errors
    /// When something is left.
    pub async fn down(mut self) -> Result<(), LabError> {
        self.leash = None;
        down(&self.name).await
    }

    async fn connect(&self) -> Result<Connection, LabError> {
        connect(&self.name).await
    }

    async fn ask(&self, request: &Request) -> Result<Reply, LabError> {
        let mut connection = self.connect().await?;
        connection.send(request, &[]).await?;
        match connection.receive().await?.ok_or(LabError::Gone)? {
            Reply::Error(message) => Err(LabError::Refused(message)),
            reply => Ok(reply),
        }
    }
}

/// Takes the lab `name` down: asks its supervisor, and when it does not answer or there is
/// none, kills what runs. Removes its files and cgroups.
///
/// # Errors
/// When something is left.
pub async fn down(name: &str) -> Result<(), LabError> {
    validate_name(name)?;
    let alive = launch::Alive::look(name);
    if let Ok(mut connection) = connect(name).await {
        let asked = connection.send(&Request::Down, &[]).await;
        let ended = async { while let Ok(Some(Reply::Done)) = connection.receive().await {} };
        if asked.is_ok() {
            // After the deadline the sweep below kills what is left.
            let _ = tokio::time::timeout(DOWN_DEADLINE, ended).await;
        }
        alive.ended().await;
    }
    launch::sweep(name)
}

/// Whether there is anything of the lab `name`: it runs, or files or cgroups of it are left.
///
/// # Errors
/// When the name cannot be one.
pub fn exists(name: &str) -> Result<bool, LabError> {
    validate_name(name)?;
    let run = RunDir::of(name);
    Ok(run.root().exists() || run.lock().exists() || Cgroups::of(name)?.root().exists())
}

/// Names of the labs that have a run directory.
///
/// # Errors
/// When the directories cannot be listed.
pub fn names() -> Result<Vec<String>, LabError> {
    let root = RunDir::of("x").root().parent().map(Path::to_path_buf).unwrap_or_default();
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err.into()),
    };
    let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// `namespace/name`, or a name in `default`.
#[must_use]
pub fn split_pod(pod: &str) -> (&str, &str) {
    pod.split_once('/').unwrap_or(("default", pod))
}

/// An exit status as shells give it: the code, or 128 and the signal.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

async fn connect(name: &str) -> Result<Connection, LabError> {
    match UnixStream::connect(RunDir::of(name).socket()).await {
        Ok(stream) => Ok(Connection::new(stream)),
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(LabError::NotRunning { name: name.to_owned() })
        }
        Err(err) => Err(err.into()),
    }
}

fn expect_done(reply: Option<Reply>) -> Result<(), LabError> {
    match reply.ok_or(LabError::Gone)? {
        Reply::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn unexpected(reply: &Reply) -> LabError {
    match reply {
        Reply::Error(message) => LabError::Refused(message.clone()),
        other => LabError::Refused(format!("the lab answered {other:?}")),
    }
}

/// A line for each thing that may become ready and is not.
fn waiting(status: &Status) -> Vec<String> {
    let mut reasons = Vec::new();
    if !status.synced {
        reasons.push("the manifests have not been read".to_owned());
    }
    let waiting = |pod: &&PodInfo| !(pod.ready || pod.phase == Phase::Succeeded);
    reasons.extend(status.pods.iter().filter(waiting).map(describe));
    reasons
}

fn describe(pod: &PodInfo) -> String {
    let reason = if pod.reason.is_empty() { "ready" } else { &pod.reason };
    format!("{}/{} on {}: {}: {reason}", pod.namespace, pod.name, pod.node, pod.phase.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_namespace_is_in_default() {
        assert_eq!(split_pod("client"), ("default", "client"));
        assert_eq!(split_pod("shop/client"), ("shop", "client"));
    }

    #[test]
    fn a_lab_is_waited_for_until_its_manifests_are_read() {
        assert_eq!(waiting(&Status { synced: true, ..Status::default() }), Vec::<String>::new());
        assert_eq!(waiting(&Status::default()).len(), 1);
    }
}
