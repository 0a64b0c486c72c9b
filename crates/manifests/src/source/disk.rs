//! Calls of the file system with a deadline: one that does not return (a server that is gone, a file system in user
//! space that hangs) costs its own path and nothing else.
//!
//! Calls run on a thread of their own. One that makes no progress in time is left behind with its thread, and its path
//! is not tried again until the thread comes back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Longest time without progress of one call.
const DEADLINE: Duration = Duration::from_secs(5);

/// Most threads that are left behind; with so many nothing is tried any more.
const MAX_STUCK: usize = 4;

/// A reader that has not gone round its loop for this long is stuck, whatever holds it.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The file system did not answer in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer from the file system for {} s at {}", DEADLINE.as_secs(), path.display())]
pub(crate) struct NoAnswer {
    pub(crate) path: PathBuf,
}

/// State of a reader of files, for readiness. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ReaderHealth(Arc<Mutex<Health>>);

#[derive(Debug)]
struct Health {
    /// Paths at which a call is still waited for.
    stuck: BTreeSet<PathBuf>,
    beat: Instant,
    has_ended: bool,
}

impl Default for ReaderHealth {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Health { stuck: BTreeSet::new(), beat: Instant::now(), has_ended: false })))
    }
}

impl ReaderHealth {
    /// Returns true if the reader completes its rounds, with every file answering.
    pub(crate) fn is_well(&self) -> bool {
        let health = self.0.lock();
        // A reader that is stuck cannot say so itself, so that the age of its last round counts, too.
        health.stuck.is_empty() && !health.has_ended && health.beat.elapsed() < HEARTBEAT
    }

    /// Paths that do not answer.
    #[cfg(test)]
    fn stuck(&self) -> Vec<PathBuf> {
        self.0.lock().stuck.iter().cloned().collect()
    }

    pub(super) fn beat(&self) {
        self.0.lock().beat = Instant::now();
    }

    pub(super) fn end(&self) {
        self.0.lock().has_ended = true;
    }
}

/// Path at which a call is, and how often it has moved on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Mutex<(PathBuf, u64)>>);

impl Progress {
    pub(crate) fn at(&self, path: &Path) {
        let mut place = self.0.lock();
        path.clone_into(&mut place.0);
        place.1 += 1;
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs calls one after the other.
#[derive(Debug)]
pub(super) struct Disk {
    health: ReaderHealth,
    deadline: Duration,
    worker: Option<SyncSender<Job>>,
}

impl Disk {
    pub(super) fn new(health: ReaderHealth) -> Self {
        Self { health, deadline: DEADLINE, worker: None }
    }

    /// Runs `work`, which begins at `path` and says in the [`Progress`] where it is.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        path: &Path,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        {
            let health = self.health.0.lock();
            let blocked =
                // The path itself first, because the message names it.
                health.stuck.get(path).or_else(|| health.stuck.first().filter(|_| health.stuck.len() >= MAX_STUCK));
            if let Some(path) = blocked {
                return Err(NoAnswer { path: path.clone() });
            }
        }
        let progress = Progress::default();
        progress.at(path);
        // Room for one result: the worker never waits for a caller that has given up.
        let (sender, receiver) = sync_channel(1);
        let (place, health) = (progress.clone(), self.health.clone());
        let job: Job = Box::new(move || {
            let result = work(&place);
            // The path at which the call is now, which is the one that `wait` has entered as stuck.
            let path = place.0.lock().0.clone();
            // Under the lock, so that a call is either answered or left behind.
            let mut health = health.0.lock();
            if sender.send(result).is_err() {
                health.stuck.remove(&path);
            }
        });
        self.send(job);
        let result = self.wait(receiver, &progress);
        if result.is_err() {
            // It is left behind with its call; the next call gets a thread of its own.
            self.worker = None;
        }
        result
    }

    fn send(&mut self, job: Job) {
        let job = match &self.worker {
            Some(worker) => match worker.send(job) {
                Ok(()) => return,
                // The thread has ended, because a call panicked in it; the job runs on a new one.
                Err(returned) => returned.0,
            },
            None => job,
        };
        // The thread ends by itself when its sender is dropped and its call returns.
        let (worker, jobs) = sync_channel::<Job>(1);
        let run = move || jobs.into_iter().for_each(|job| job());
        match std::thread::Builder::new().name("manifest-files".to_owned()).spawn(run) {
            Ok(_) => {
                // The queue has room for one job and is empty.
                let _ = worker.send(job);
                self.worker = Some(worker);
            }
            // Without a thread the call is made here, without a deadline.
            Err(_) => job(),
        }
    }

    fn wait<T>(&self, receiver: Receiver<T>, progress: &Progress) -> Result<T, NoAnswer> {
        // `call` has counted the path at which the work begins.
        let mut seen = 1;
        loop {
            match receiver.recv_timeout(self.deadline) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {
                    let (path, count) = progress.0.lock().clone();
                    if count == seen {
                        let mut health = self.health.0.lock();
                        // It came while the lock was waited for.
                        if let Ok(result) = receiver.try_recv() {
                            return Ok(result);
                        }
                        drop(receiver);
                        health.stuck.insert(path.clone());
                        return Err(NoAnswer { path });
                    }
                    seen = count;
                    // Slow is not stuck: a large directory on a network takes its time.
                    self.health.beat();
                }
                // The call panicked.
                Err(RecvTimeoutError::Disconnected) => return Err(NoAnswer { path: progress.0.lock().0.clone() }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn disk() -> (Disk, ReaderHealth) {
        let health = ReaderHealth::default();
        (Disk { deadline: SOON, ..Disk::new(health.clone()) }, health)
    }

    #[test]
    fn a_call_that_does_not_return_is_left_behind_and_named_until_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let (mut disk, health) = disk();

        // Opening a pipe for reading waits for a writer.
        let path = pipe.clone();
        let stuck = disk.call(&pipe, move |_| fs::read(path));
        assert_eq!(stuck.unwrap_err(), NoAnswer { path: pipe.clone() });
        assert_eq!((health.is_well(), health.stuck()), (false, vec![pipe.clone()]));
        assert_eq!(disk.call(dir.path(), |_| 5), Ok(5), "other paths answer");
        assert!(disk.call(&pipe, |_| 5).is_err(), "it is not tried again");
        drop(fs::OpenOptions::new().write(true).open(&pipe).unwrap());

        let deadline = Instant::now() + Duration::from_secs(10);
        while !health.is_well() {
            assert!(Instant::now() < deadline, "{:?}", health.stuck());
            std::thread::yield_now();
        }
        assert_eq!(disk.call(&pipe, |_| 6), Ok(6));
    }

    #[test]
    fn a_call_that_moves_on_has_more_time() {
        let (mut disk, health) = disk();

        let result = disk.call(Path::new("/a"), |progress| {
            let end = Instant::now() + 4 * SOON;
            while Instant::now() < end {
                progress.at(Path::new("/b"));
                std::thread::yield_now();
            }
            7
        });

        assert_eq!(result, Ok(7));
        assert!(health.is_well());
    }

    #[test]
    fn nothing_is_tried_any_more_when_many_calls_are_stuck() {
        let (mut disk, health) = disk();
        let (release, released) = sync_channel::<()>(0);
        let released = Arc::new(Mutex::new(released));
        for index in 0..MAX_STUCK {
            let released = released.clone();
            let path = PathBuf::from(format!("/{index}"));
            disk.call(&path, move |_| released.lock().recv().is_ok()).unwrap_err();
        }

        assert!(disk.call(Path::new("/other"), |_| ()).is_err());
        assert_eq!(health.stuck().len(), MAX_STUCK);
        drop(release);
    }
}
