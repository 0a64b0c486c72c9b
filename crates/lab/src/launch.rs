//! Starting a supervisor and sweeping what one left behind. What the supervisor does is in `supervisor`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use tokio::{net::UnixStream, process::Command};

use crate::{
    control::{Connection, Reply, Request},
    error::LabError,
    options::Options,
    paths::{Cgroups, RunDir},
};

/// Time within which a supervisor has to answer; on an idle machine it takes some 20 ms.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Pause between two tries to reach a supervisor that is starting.
const POLL: Duration = Duration::from_millis(5);

/// Time within which a supervisor has to return its lab's status, on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Time within which the processes of a killed lab have to be gone.
const SWEEP_DEADLINE: Duration = Duration::from_secs(10);

/// Starts the supervisor of a lab and returns the connection that is its leash.
pub(crate) async fn supervisor(mut options: Options) -> Result<Connection, LabError> {
    let run = RunDir::of(&options.name);
    let lock = Lock::take_from_silent(&options.name).await?;
    // A lab of this name that was killed has had nobody to clean up after it.
    remove_leftovers(&options.name)?;
    fs::DirBuilder::new().mode(0o755).create(run.root()).map_err(|err| LabError::of(err, run.root()))?;
    // The manifests that come along are in the options that are written next, by their path.
    options.write_own_manifests(&run)?;
    let file = options.write(&run)?;
    let log = File::create(run.supervisor_log())?;
    // The lock is the standard input of every process that belongs to the supervisor: it is free
    // when the last of them is gone.
    let status = Command::new(&options.program)
        .args(["lab", "process", "launch"])
        .arg(&file)
        .stdin(lock.file)
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .await?;
    let started = if status.success() { leash(&run).await } else { None };
    match started {
        Some(connection) => Ok(connection),
        None => {
            // The log has to be read before the sweep removes it.
            let reason = last_words(&run);
            sweep(&options.name)?;
            Err(LabError::Start { reason })
        }
    }
}

/// Connects to a supervisor as soon as it listens; `None` when it does not in time.
async fn leash(run: &RunDir) -> Option<Connection> {
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        if let Ok(stream) = UnixStream::connect(run.socket()).await {
            let mut connection = Connection::new(stream);
            connection.send(&Request::Leash, &[]).await.ok()?;
            return matches!(connection.receive().await, Ok(Some(Reply::Done))).then_some(connection);
        }
        // No reason to wait for the deadline: its log says why it ended.
        if !is_alive(run) {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
    None
}

/// Returns true if the process that the launcher started is still there.
fn is_alive(run: &RunDir) -> bool {
    let Ok(pid) = fs::read_to_string(run.pid_file()) else { return false };
    // A zombie has ended, though its entry in /proc stays until somebody reaps it.
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Returns true if a lab's supervisor is there and works. One that is being killed may still take connections.
async fn answers(run: &RunDir) -> bool {
    let asked = async {
        let mut connection = Connection::new(UnixStream::connect(run.socket()).await.ok()?);
        connection.send(&Request::Status, &[]).await.ok()?;
        connection.receive::<Reply>().await.ok()?
    };
    tokio::time::timeout(ANSWERS_WITHIN, asked).await.is_ok_and(|reply| reply.is_some())
}

fn last_words(run: &RunDir) -> String {
    let log = fs::read_to_string(run.supervisor_log()).unwrap_or_default();
    let lines: Vec<_> = log.lines().rev().take(5).collect();
    if lines.is_empty() {
        return format!("it said nothing within {START_DEADLINE:?}");
    }
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Kills whatever runs of a lab and removes its files and cgroups.
pub(crate) fn sweep(name: &str) -> Result<(), LabError> {
    // Processes hold the lock until they are gone, which is some milliseconds after they were killed.
    sweep_cgroups(name)?;
    let deadline = Instant::now() + SWEEP_DEADLINE;
    let lock = loop {
        if let Some(lock) = Lock::take(name)? {
            break lock;
        }
        if Instant::now() > deadline {
            return Err(LabError::Running { name: name.to_owned() });
        }
        std::thread::sleep(POLL);
    };
    remove_leftovers(name)?;
    lock.remove()?;
    Ok(())
}

fn remove_leftovers(name: &str) -> Result<(), LabError> {
    sweep_cgroups(name)?;
    let run = RunDir::of(name);
    match fs::remove_dir_all(run.root()) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(LabError::of(err, run.root())),
        _ => Ok(()),
    }
}

fn sweep_cgroups(name: &str) -> Result<(), LabError> {
    let cgroups = Cgroups::of(name)?;
    cgroups.sweep().map_err(|err| LabError::of(err, cgroups.root()))
}

/// Tells when the last process of a supervisor is gone.
pub(crate) struct Alive(Option<File>);

impl Alive {
    /// Looks at the lab of that name, if there is one.
    pub(crate) fn look(name: &str) -> Self {
        Self(File::open(RunDir::of(name).lock()).ok())
    }

    /// Waits until the lock is free, which is when all who hold it have ended; not longer than a sweep would.
    pub(crate) async fn ended(self) {
        let Some(file) = self.0 else { return };
        let deadline = Instant::now() + SWEEP_DEADLINE;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A file that is locked as long as a lab of its name lives.
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock; `None` while a lab holds it.
    fn take(name: &str) -> Result<Option<Self>, LabError> {
        let path = RunDir::of(name).lock();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|err| LabError::of(err, parent))?;
        }
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(|err| LabError::of(err, &path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(err) => return Err(io::Error::from(err).into()),
            }
            // Whoever held it before may have removed the file in the meantime.
            if fs::metadata(&path).is_ok_and(|found| file.metadata().is_ok_and(|ours| ours.ino() == found.ino())) {
                return Ok(Some(Self { file, path }));
            }
        }
    }

    /// As `take`, but waits while a lab holds it that does not answer: its processes were killed and are not gone yet, or it
    /// is about to start.
    async fn take_from_silent(name: &str) -> Result<Self, LabError> {
        let deadline = Instant::now() + SWEEP_DEADLINE;
        loop {
            if let Some(lock) = Self::take(name)? {
                return Ok(lock);
            }
            // One that answers is in use: it is not this start's to end.
            if answers(&RunDir::of(name)).await || Instant::now() > deadline {
                return Err(LabError::Running { name: name.to_owned() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn remove(self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}
