//! Labs that come and go beside the tests: they share the machine's kernel, and no test may depend on being alone.

use std::{
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;

/// Line by which `strake lab up` says that everything runs.
const READY: &str = " is ready after ";

/// Exit code of a lab that an interrupt has ended.
const INTERRUPTED: i32 = 130;

/// Failures after which a thread starts no more labs: what fails each time would otherwise be tried without a pause.
const MOST_FAILURES: usize = 5;

/// Number of labs that worked, and why the others failed.
#[derive(Debug, Default)]
pub(super) struct Labs {
    /// Labs that became ready and went down.
    pub(super) completed: u32,
    /// One text for each lab that did not.
    pub(super) failures: Vec<String>,
}

/// Threads that each start a lab, stop it when it is ready, and begin again.
#[derive(Debug)]
pub(super) struct Neighbours {
    ending: Arc<AtomicBool>,
    labs: Arc<Mutex<Labs>>,
    threads: Vec<JoinHandle<()>>,
}

impl Neighbours {
    /// Starts `count` threads with a lab each, named `repeat-0` and so on.
    pub(super) fn start(bin_dir: &Path, workspace: &Path, count: usize) -> Self {
        let (ending, labs) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Labs::default())));
        let threads = (0..count)
            .map(|index| {
                let (ending, labs) = (Arc::clone(&ending), Arc::clone(&labs));
                let lab = LabCommand {
                    program: bin_dir.join("strake"),
                    manifests: workspace.join("examples/shop"),
                    name: format!("repeat-{index}"),
                };
                thread::spawn(move || {
                    let mut failed = 0;
                    while failed < MOST_FAILURES && !ending.load(Ordering::Relaxed) {
                        let result = lab.start_and_stop();
                        // After the lab is down: the lock is held for the note only.
                        let mut labs = labs.lock();
                        match result {
                            Ok(()) => labs.completed += 1,
                            Err(error) => {
                                failed += 1;
                                labs.failures.push(format!("{}: {error:#}", lab.name));
                            }
                        }
                    }
                })
            })
            .collect();
        Self { ending, labs, threads }
    }

    /// Waits until the present labs are down.
    pub(super) fn stop(self) -> Labs {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A thread that panicked has printed why; its labs are counted so far.
            let _ = thread.join();
        }
        std::mem::take(&mut *self.labs.lock())
    }
}

struct LabCommand {
    program: PathBuf,
    manifests: PathBuf,
    name: String,
}

impl LabCommand {
    /// Runs the lab in the foreground, so that Ctrl-C, which the terminal sends to the whole process group, ends the
    /// lab too.
    fn start_and_stop(&self) -> Result<()> {
        let mut up = Command::new(&self.program)
            .args(["lab", "up", "--foreground", "--lab", &self.name])
            .arg(&self.manifests)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", self.program.display()))?;
        let stdout = up.stdout.take().context("no output of the lab")?;
        let mut stderr = up.stderr.take().context("no errors of the lab")?;
        // Read beside: a lab with much to say would wait for a reader.
        let errors = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text)
        });
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let is_ready = lines.any(|line| line.contains(READY));
        if is_ready {
            terminate(&up)?;
        }
        // Reads on, so that the lab never waits for a reader while it goes down.
        lines.for_each(drop);
        // Also for a lab that was not ready: its end is waited for, so that the next one finds the name free.
        let status = up.wait().context("failed to wait for the lab")?;
        let errors = errors.join().map_err(|_| anyhow!("the reader of the lab's errors panicked"))??;
        match (is_ready, status.code()) {
            (true, Some(INTERRUPTED)) => Ok(()),
            (true, _) => bail!("ended with {status}: {}", errors.trim()),
            (false, _) => bail!("not ready, {status}: {}", errors.trim()),
        }
    }
}

/// Asks a lab to end, as Ctrl-C would.
fn terminate(lab: &Child) -> Result<()> {
    let pid = i32::try_from(lab.id()).ok().and_then(rustix::process::Pid::from_raw).context("no process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT).context("failed to signal the lab")
}
