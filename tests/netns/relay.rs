//! Stands between a node's kubelet and its agent, and spoils what they say to each other. It understands nothing of it.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use testkit::TestLab;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// Longer than the kubelet waits for an answer.
const TOO_LATE: Duration = Duration::from_secs(6);

/// Fate of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The agent gets it twice, at the same time.
    Repeated,
    /// The agent gets the first half of it.
    Cut,
    /// The kubelet does not wait for it as long as it takes to the agent.
    Delayed,
    /// The agent has answered, and the kubelet hears nothing.
    AnswerLost,
    /// The kubelet hears the first half of the answer.
    AnswerCut,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [Self::Repeated, Self::Cut, Self::Delayed, Self::AnswerLost, Self::AnswerCut];

    /// Usable as a pod's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::Cut => "cut",
            Self::Delayed => "delayed",
            Self::AnswerLost => "answer-lost",
            Self::AnswerCut => "answer-cut",
        }
    }
}

#[derive(Debug, Default)]
struct Plan {
    next: Option<Fault>,
    met: Vec<Fault>,
}

/// The relay; it ends when it is dropped.
pub(crate) struct Relay {
    plan: Arc<Mutex<Plan>>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Takes the place of the agent's socket, for as long as that agent runs.
    pub(crate) fn before_agent(lab: &TestLab, node: &str) -> io::Result<Self> {
        let path = lab.lab().run_dir().plugin_socket(node);
        let agent = path.with_extension("agent");
        fs::rename(&path, &agent)?;
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let plan = Arc::new(Mutex::new(Plan::default()));
        let task = tokio::spawn(serve(listener, agent, Arc::clone(&plan)));
        Ok(Self { plan, task })
    }

    /// The next request meets this.
    pub(crate) fn meet_next(&self, fault: Fault) {
        self.plan.lock().next = Some(fault);
    }

    pub(crate) fn has_met(&self, fault: Fault) -> bool {
        self.plan.lock().met.contains(&fault)
    }
}

async fn serve(listener: UnixListener, agent: PathBuf, plan: Arc<Mutex<Plan>>) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection of the kubelet's");
        let fault = {
            let mut plan = plan.lock();
            let fault = plan.next.take();
            plan.met.extend(fault);
            fault
        };
        let agent = agent.clone();
        tokio::spawn(async move {
            // A side that goes away is part of what is played.
            let _: io::Result<()> = relay(client, &agent, fault).await;
        });
    }
}

async fn relay(mut client: UnixStream, agent: &Path, fault: Option<Fault>) -> io::Result<()> {
    let request = read_message(&mut client).await?;
    match fault {
        Some(Fault::Cut) => {
            let mut upstream = UnixStream::connect(agent).await?;
            upstream.write_all(&request[..request.len() / 2]).await
        }
        Some(Fault::Delayed) => {
            tokio::time::sleep(TOO_LATE).await;
            ask(agent, &request).await.map(drop)
        }
        Some(Fault::Repeated) => {
            let (first, second) = tokio::join!(ask(agent, &request), ask(agent, &request));
            assert!(first?.starts_with(b"HTTP/1.1 200"), "the first of two is refused");
            client.write_all(&second?).await
        }
        Some(Fault::AnswerLost) => ask(agent, &request).await.map(drop),
        Some(Fault::AnswerCut) => {
            let answer = ask(agent, &request).await?;
            client.write_all(&answer[..answer.len() / 2]).await
        }
        None => client.write_all(&ask(agent, &request).await?).await,
    }
}

async fn ask(agent: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut upstream = UnixStream::connect(agent).await?;
    upstream.write_all(request).await?;
    read_message(&mut upstream).await
}

/// One HTTP message with a `content-length`.
async fn read_message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&message).to_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let whole = head.len() + 4 + length.unwrap_or(0_usize);
            if message.len() >= whole {
                return Ok(message);
            }
        }
        if stream.read_buf(&mut message).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
