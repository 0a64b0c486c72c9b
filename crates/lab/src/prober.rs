//! The supervisor's end of a node's prober process: asks it to try probes and hands the results to whoever asked.

use std::{collections::HashMap, io, net::IpAddr, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::process::{
    enter::Entry,
    kubelet::{Attempt, Outcome, Question},
};

/// Tries that wait for the prober; when it is this far behind, the probes wait too.
const QUEUE: usize = 64;

/// Pause before a prober that ended is started again.
const RESTART: Duration = Duration::from_millis(100);

/// Time limit for the end of a prober that was killed.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Time that the prober's answer may take beyond the probe's own limit.
const SLACK: Duration = Duration::from_secs(2);

/// Whom to ask what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) question: Question,
}

type Answer = oneshot::Sender<Option<String>>;

/// Whoever asks a node's prober.
#[derive(Debug, Clone)]
pub(crate) struct Prober {
    requests: mpsc::Sender<(Ask, Duration, Answer)>,
}

/// The task that keeps a prober's process running. The process ends with it.
#[derive(Debug)]
pub(crate) struct Keeper {
    task: JoinHandle<()>,
    end: watch::Sender<bool>,
}

impl Keeper {
    /// Returns when the process is gone and is not started again.
    pub(crate) async fn end(mut self) {
        self.end.send_replace(true);
        if timeout(END_DEADLINE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Prober {
    /// Starts the process that `entry` describes, and again whenever it ends, until the keeper ends it.
    pub(crate) fn start(entry: Entry, program: &Path) -> (Self, Keeper) {
        let (requests, mut received) = mpsc::channel(QUEUE);
        let (end, mut ending) = watch::channel(false);
        let program = program.to_owned();
        let task = tokio::spawn(async move {
            while let Err(err) = run(&entry, &program, &mut received, &mut ending).await {
                if *ending.borrow() {
                    return;
                }
                tracing::warn!(%err, "the prober of a node ended; starting it again");
                tokio::select! {
                    // Both are safe to drop: they only wait.
                    () = sleep(RESTART) => {}
                    () = ended(&mut ending) => return,
                }
            }
        });
        (Self { requests }, Keeper { task, end })
    }

    /// Tries once; the words say why it failed.
    pub(crate) async fn ask(&self, ask: Ask, limit: Duration) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| "the node's prober is gone".to_owned();
        self.requests.send((ask, limit, answer)).await.map_err(|_| gone(()))?;
        match timeout(limit + SLACK, answered).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(failure))) => Err(failure),
            Ok(Err(_)) => Err(gone(())),
            Err(_) => Err("the node's prober did not answer".to_owned()),
        }
    }
}

/// Waits for the end, or for nobody to be there who could call for it.
async fn ended(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|end| *end).await;
}

/// Serves one process until the end is called for (`Ok`) or it ends by itself.
async fn run(
    entry: &Entry,
    program: &Path,
    requests: &mut mpsc::Receiver<(Ask, Duration, Answer)>,
    ending: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let (mut child, mut input, mut output) = spawn(entry, program)?;
    let mut waiting: HashMap<u64, Answer> = HashMap::new();
    let mut next = 0;
    loop {
        tokio::select! {
            // Safe to drop: it only waits.
            () = ended(ending) => return child.kill().await,
            // Safe to drop: nothing is taken from the channel before it is returned.
            Some((ask, limit, answer)) = requests.recv() => {
                next += 1;
                let Ask { address, port, question } = ask;
                let attempt = Attempt { id: next, address, port, timeout: limit, question };
                let mut line = serde_json::to_vec(&attempt)?;
                line.push(b'\n');
                // When this fails the process is gone; the answers that wait are dropped with `waiting`, and whoever
                // asked hears of it.
                input.write_all(&line).await?;
                waiting.retain(|_, answer| !answer.is_closed());
                waiting.insert(next, answer);
            }
            // Safe to drop: `Lines` keeps what it has read.
            line = output.next_line() => {
                let line = line?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let outcome: Outcome = serde_json::from_str(&line)?;
                if let Some(answer) = waiting.remove(&outcome.id) {
                    // Whoever asked may have given up.
                    let _ = answer.send(outcome.failure);
                }
            }
        }
    }
}

fn spawn(entry: &Entry, program: &Path) -> io::Result<(Child, ChildStdin, Lines<BufReader<ChildStdout>>)> {
    let mut command = entry.command(program)?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((child, input, BufReader::new(output).lines()))
}
