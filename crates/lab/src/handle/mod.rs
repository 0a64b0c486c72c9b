//! `Lab`: what tests and the command line hold of a running lab, from its start to its end. It only asks; the work is
//! the supervisor's. How the lab stands is asked in `watch`, what is done in it in `act`.

mod act;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use tokio::net::UnixStream;

use crate::{
    control::{Connection, Followup, Reply, Request},
    error::LabError,
    launch,
    options::{Options, validate_name},
    paths::{Cgroups, RunDir},
};

/// Time for which `down` waits for the pods to stop before it kills them.
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
        // Without its leash the lab begins to go down at once, and `down` waits for what is under way already.
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
    // The lock is opened before the supervisor is asked: a supervisor that ends removes the file, and then nobody could
    // tell when its last process is gone.
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

/// Returns true if there is anything of the lab `name`: it runs, or files or cgroups of it are left.
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
    let name = |entry: io::Result<fs::DirEntry>| {
        // Locks lie beside the directories.
        let entry = entry.ok().filter(|entry| entry.path().is_dir())?;
        entry.file_name().into_string().ok()
    };
    let mut names: Vec<_> = entries.filter_map(name).collect();
    names.sort();
    Ok(names)
}

/// `namespace/name`, or a name in `default`.
#[must_use]
pub fn split_pod(pod: &str) -> (&str, &str) {
    pod.split_once('/').unwrap_or(("default", pod))
}

/// That there is no such pod, with those of the same name in other namespaces, or how to find one.
pub(crate) fn no_pod<'a>(namespace: &str, name: &str, known: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let same: Vec<_> =
        known.filter(|(_, other)| *other == name).map(|(space, name)| format!("{space}/{name}")).collect();
    let instead = match same.is_empty() {
        true => "`strake lab status` lists them, as NAMESPACE/NAME".to_owned(),
        false => format!("there is {}", same.join(", ")),
    };
    format!("pod {namespace}/{name} not found; {instead}")
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
        // Refused: the socket's file has outlived its supervisor.
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(LabError::not_running(name))
        }
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Err(LabError::of(err, &RunDir::of(name).socket())),
        Err(err) => Err(err.into()),
    }
}

impl LabError {
    /// That no lab of this name runs, with those that do.
    #[must_use]
    pub fn not_running(name: &str) -> Self {
        let others = names().unwrap_or_default().into_iter().filter(|other| other != name).collect();
        Self::NotRunning { name: name.to_owned(), others }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_namespace_is_in_default() {
        assert_eq!(split_pod("client"), ("default", "client"));
        assert_eq!(split_pod("shop/client"), ("shop", "client"));
    }
}
