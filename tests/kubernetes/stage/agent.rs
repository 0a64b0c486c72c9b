//! An agent of a node as its CNI plugin knows it: a socket, and answers that a test decides on.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread::spawn,
};

use anyhow::{Context as _, Result};
use contract::cni::{AddRequest, AddResponse, Outcome, SOCKET_NAME};
use parking_lot::{Condvar, Mutex};

use super::Cluster;

/// Directory of the socket, on the node.
pub(crate) const RUN_DIR: &str = "/run/istio-cni";

/// A listening agent. Pods that nobody speaks about are not selected.
#[derive(Debug)]
pub(crate) struct FakeAgent {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<AddRequest>,
    /// Next answers for a pod, by name; the last one stays. Without any, its requests wait.
    answers: HashMap<String, VecDeque<AddResponse>>,
}

impl FakeAgent {
    /// Listens on a node.
    ///
    /// # Errors
    /// When the node has no process, or the socket cannot be made.
    pub(crate) fn start(cluster: &Cluster, node: &str) -> Result<Self> {
        let directory = root_of(cluster, node)?.join(RUN_DIR.trim_start_matches('/'));
        fs::create_dir_all(&directory)?;
        let socket = directory.join(SOCKET_NAME);
        let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        // It ends with the process: after `stop` nobody can connect.
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = serving.clone();
                // A plugin that has gone is the test's to notice.
                spawn(move || serve(&shared, stream).ok());
            }
        });
        Ok(Self { socket, shared })
    }

    /// Lets requests for a pod wait until there is an answer.
    pub(crate) fn hold(&self, pod: &str) {
        self.shared.state.lock().answers.insert(pod.to_owned(), VecDeque::new());
    }

    /// Gives answers for a pod, one for each request; the last one is for all that follow.
    pub(crate) fn answer(&self, pod: &str, answers: impl IntoIterator<Item = AddResponse>) {
        self.shared.state.lock().answers.insert(pod.to_owned(), answers.into_iter().collect());
        self.shared.changed.notify_all();
    }

    /// Requests for a pod so far.
    pub(crate) fn requests(&self, pod: &str) -> Vec<AddRequest> {
        self.shared.state.lock().requests.iter().filter(|request| request.pod_name == pod).cloned().collect()
    }

    /// From here on nobody reaches it.
    ///
    /// # Errors
    /// When the socket cannot be removed.
    pub(crate) fn stop(self) -> Result<()> {
        Ok(fs::remove_file(&self.socket)?)
    }
}

pub(crate) fn enrolled() -> AddResponse {
    AddResponse { outcome: Outcome::Enrolled, reason: String::new() }
}

pub(crate) fn failed(reason: &str) -> AddResponse {
    AddResponse { outcome: Outcome::Failed, reason: reason.to_owned() }
}

fn serve(shared: &Shared, mut stream: UnixStream) -> Result<()> {
    let mut asked = Vec::new();
    let mut buffer = [0; 4096];
    // The body is an object whose last field is a list.
    while !asked.ends_with(b"]}") {
        let count = stream.read(&mut buffer)?;
        anyhow::ensure!(count > 0, "half a request");
        asked.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8(asked)?;
    let (_, body) = text.split_once("\r\n\r\n").context("no body")?;
    let answer = shared.answer(serde_json::from_str(body)?);
    let (status, body) = (answer.outcome.status(), serde_json::to_string(&answer)?);
    write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    Ok(())
}

impl Shared {
    /// Notes a request, and waits for its answer.
    fn answer(&self, request: AddRequest) -> AddResponse {
        let pod = request.pod_name.clone();
        let mut state = self.state.lock();
        state.requests.push(request);
        loop {
            match state.answers.get_mut(&pod) {
                None => return AddResponse { outcome: Outcome::NotSelected, reason: "nobody selects it".to_owned() },
                Some(answers) if answers.len() > 1 => return answers.pop_front().expect("two answers"),
                Some(answers) => match answers.front() {
                    Some(last) => return last.clone(),
                    None => self.changed.wait(&mut state),
                },
            }
        }
    }
}

/// The root directory of a node, by one of its processes.
fn root_of(cluster: &Cluster, node: &str) -> Result<PathBuf> {
    let process = cluster.command(&["pid", node])?;
    Ok(Path::new("/proc").join(process).join("root"))
}
