//! Answers clients on the control socket. Each connection is a task; for what only the supervisor knows it asks
//! the supervisor as a `Command`.

use std::{collections::BTreeMap, io, os::fd::AsFd as _, process::Stdio, sync::Arc};

use runtime::sys::Netns;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    net::{UnixListener, UnixStream},
    select,
    sync::{mpsc, oneshot, watch},
};

use super::{PodKey, capture, nodes::Node, running::Running};
use crate::{
    control::{Connection, Followup, Reply, Request, Status, Target},
    handle::{exit_code, no_pod, split_pod},
    paths::RunDir,
    pod::netns_path,
    process::enter::Entry,
};

/// Cgroup of commands on a node itself, below the node's root.
const NODE_CGROUP: &str = "exec";

/// Told when the lab is down.
#[derive(Debug)]
pub(crate) struct Done(oneshot::Sender<()>);

impl Done {
    pub(crate) fn tell(self) {
        // Whoever asked may have gone.
        let _ = self.0.send(());
    }
}

type Answer<T> = oneshot::Sender<Result<T, String>>;

/// Request of a connection to the supervisor.
pub(crate) enum Command {
    Status(oneshot::Sender<Status>),
    /// Asks for the way into a pod or node.
    Enter(Target, Answer<(Entry, Arc<Netns>)>),
    /// Process id of a container's main process.
    Process {
        pod: String,
        container: Option<String>,
        answer: Answer<u32>,
    },
    PauseRestarts {
        pod: String,
        paused: bool,
        answer: Answer<()>,
    },
    Down(Done),
}

/// A command that a client wants to be run.
struct Call {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    terminal: bool,
}

/// State that all connections share.
struct Desk {
    commands: mpsc::Sender<Command>,
    /// True once anybody has held the lab.
    held: watch::Sender<bool>,
    run: RunDir,
    program: std::path::PathBuf,
}

/// Listens on the control socket until the process ends. The receiver turns true with the first leash.
pub(crate) fn listen(run: &RunDir, commands: mpsc::Sender<Command>) -> io::Result<watch::Receiver<bool>> {
    let program = std::env::current_exe()?;
    let (held, is_held) = watch::channel(false);
    let desk = Arc::new(Desk { commands, held, run: run.clone(), program });
    // Under another name until it listens: a client that finds the socket can connect.
    let hidden = run.root().join("ctl.new");
    let listener = UnixListener::bind(&hidden)?;
    std::fs::rename(&hidden, run.socket())?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(Arc::clone(&desk), stream))),
                Err(err) => {
                    tracing::error!(%err, "failed to accept a client on the control socket; trying again");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(is_held)
}

/// Answers from what the supervisor knows.
pub(crate) fn answer(command: Command, status: &Status, pods: &BTreeMap<PodKey, Running>, nodes: &[Node]) {
    // Whoever asked may have gone: nothing is to be done about that.
    match command {
        Command::Status(answer) => drop(answer.send(status.clone())),
        Command::Enter(target, answer) => drop(answer.send(enter(&target, pods, nodes))),
        Command::Process { pod, container, answer } => {
            drop(answer.send(container_of(&pod, container.as_deref(), pods).map(|(_, _, pid)| pid)));
        }
        Command::PauseRestarts { pod, paused, answer } => {
            let found = find(&pod, pods).map(|running| running.shared.pause_restarts(paused));
            drop(answer.send(found));
        }
        Command::Down(done) => done.tell(),
    }
}

fn find<'a>(pod: &str, pods: &'a BTreeMap<PodKey, Running>) -> Result<&'a Running, String> {
    let (namespace, name) = split_pod(pod);
    let found = pods.get(&(namespace.to_owned(), name.to_owned()));
    found.ok_or_else(|| {
        no_pod(namespace, name, pods.keys().map(|(namespace, name)| (namespace.as_str(), name.as_str())))
    })
}

/// A container that runs: the named one, or the pod's first.
fn container_of<'a>(
    pod: &str,
    container: Option<&str>,
    pods: &'a BTreeMap<PodKey, Running>,
) -> Result<(&'a Running, &'a kube_types::core::Container, u32), String> {
    let running = find(pod, pods)?;
    let spec = &running.setup.pod.spec;
    let name = container.or_else(|| spec.containers.first().map(|first| first.name.as_str())).unwrap_or_default();
    let mut all = spec.init_containers.iter().chain(&spec.containers);
    let found = all.find(|candidate| candidate.name == name);
    let found = found.ok_or_else(|| format!("pod {pod} has no container {name:?}"))?;
    let state = running.shared.get();
    let pid = state.containers.iter().find(|state| state.name == name).and_then(|state| state.pid);
    Ok((running, found, pid.ok_or_else(|| format!("container {name:?} of pod {pod} is not running"))?))
}

fn enter(target: &Target, pods: &BTreeMap<PodKey, Running>, nodes: &[Node]) -> Result<(Entry, Arc<Netns>), String> {
    match target {
        Target::Pod { pod, container } => {
            let (running, container, pid) = container_of(pod, container.as_deref(), pods)?;
            Ok((running.setup.exec(container, pid, Vec::new())?, Arc::clone(&running.setup.netns)))
        }
        Target::Node(name) => {
            let node = nodes.iter().find(|node| node.candidate.name == *name);
            let node = node.ok_or_else(|| format!("node {name:?} not found"))?;
            let env = std::env::vars().filter(|(name, _)| name == "PATH" || name == "HOME").collect();
            let entry = Entry { netns: Some(netns_path(&node.netns)), env, ..Entry::default() };
            Ok((entry, Arc::clone(&node.netns)))
        }
    }
}

async fn serve(desk: Arc<Desk>, stream: UnixStream) {
    let mut connection = Connection::new(stream);
    let result = match connection.receive().await {
        Ok(Some(request)) => desk.handle(request, &mut connection).await,
        Ok(None) => Ok(()),
        Err(err) => Err(err.to_string()),
    };
    if let Err(message) = result {
        // The client may have gone.
        let _ = connection.send(&Reply::Error(message), &[]).await;
    }
}

impl Desk {
    async fn handle(&self, request: Request, connection: &mut Connection) -> Result<(), String> {
        match request {
            Request::Status => {
                let status = self.ask(Command::Status).await?;
                reply(connection, &Reply::Status(Box::new(status))).await
            }
            Request::Exec { target, argv, env, terminal } => {
                self.exec(target, Call { argv, env, terminal }, connection).await
            }
            Request::Kill { pod, container, signal } => {
                let pid = self.ask(|answer| Command::Process { pod, container, answer }).await??;
                kill_process(pid_of(pid)?, signal_of(signal)?).map_err(|err| err.to_string())?;
                reply(connection, &Reply::Done).await
            }
            Request::PauseRestarts { pod, paused } => {
                self.ask(|answer| Command::PauseRestarts { pod, paused, answer }).await??;
                reply(connection, &Reply::Done).await
            }
            Request::Capture { node } => self.capture(node, connection).await,
            Request::Netns(target) => {
                let (_, netns) = self.ask(|answer| Command::Enter(target, answer)).await??;
                connection.send(&Reply::Done, &[netns.as_fd()]).await.map_err(|err| err.to_string())
            }
            Request::Leash => self.leash(connection).await,
            Request::Down => {
                self.down().await?;
                reply(connection, &Reply::Done).await
            }
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, String> {
        let (answer, answered) = oneshot::channel();
        let gone = "the lab is going down";
        self.commands.send(command(answer)).await.map_err(|_| gone)?;
        answered.await.map_err(|_| gone.to_owned())
    }

    async fn down(&self) -> Result<(), String> {
        self.ask(|answer| Command::Down(Done(answer))).await
    }

    /// Holds the lab: it goes down when the client goes.
    async fn leash(&self, connection: &mut Connection) -> Result<(), String> {
        self.held.send_replace(true);
        if reply(connection, &Reply::Done).await.is_err() {
            return self.down().await;
        }
        match connection.receive::<Followup>().await {
            Ok(Some(Followup::Detach)) => reply(connection, &Reply::Done).await,
            Ok(Some(other)) => Err(format!("{other:?} means nothing here")),
            // A client that crashed looks the same as one that closed the connection. Both leave nobody who would take
            // the lab down.
            Ok(None) | Err(_) => self.down().await,
        }
    }

    async fn exec(&self, target: Target, call: Call, connection: &mut Connection) -> Result<(), String> {
        let node = if let Target::Node(node) = &target { Some(node.clone()) } else { None };
        // The namespace is held until the command has ended: its path in `entry` is a descriptor of this process, and
        // the pod may be removed meanwhile.
        let (mut entry, netns) = self.ask(|answer| Command::Enter(target, answer)).await??;
        if let Some(node) = node {
            let name = self.run.root().file_name().unwrap_or_default().to_string_lossy().into_owned();
            let cgroups = crate::paths::Cgroups::of(&name).map_err(|err| err.to_string())?;
            entry.cgroup = cgroups.node(&node).join(NODE_CGROUP);
        }
        entry.argv = call.argv;
        entry.env.extend(call.env);
        entry.terminal = call.terminal;
        let Ok([stdin, stdout, stderr]) = <[_; 3]>::try_from(connection.take_descriptors()) else {
            return Err("a command needs the three descriptors of input, output and error".to_owned());
        };
        let mut command = entry.command(&self.program).map_err(|err| err.to_string())?;
        command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr)).kill_on_drop(true);
        let mut child = command.spawn().map_err(|err| err.to_string())?;
        // The command holds our copies of the descriptors; whoever reads from them waits for the last one.
        drop(command);
        let pid = pid_of(child.id().unwrap_or_default())?;
        reply(connection, &Reply::Started).await?;
        loop {
            select! {
                // Both are safe to drop: they take nothing before they return.
                status = child.wait() => {
                    drop(netns);
                    return reply(connection, &Reply::Exited(status.map_or(-1, exit_code))).await;
                }
                followup = connection.receive::<Followup>() => match followup {
                    Ok(Some(Followup::Signal(signal))) => signal_group(pid, signal_of(signal)?),
                    Ok(Some(other)) => return Err(format!("{other:?} means nothing here")),
                    Ok(None) | Err(_) => {
                        signal_group(pid, Signal::KILL);
                        return Ok(());
                    }
                },
            }
        }
    }

    async fn capture(&self, node: String, connection: &mut Connection) -> Result<(), String> {
        let target = Target::Node(node.clone());
        let (_, netns) = self.ask(|answer| Command::Enter(target, answer)).await??;
        let capture = capture::start(&netns, &self.run, &node).map_err(|err| err.to_string())?;
        reply(connection, &Reply::Capturing(capture.file().to_path_buf())).await?;
        // Whatever the client says or when it goes: that is the end.
        let _ = connection.receive::<Followup>().await;
        let counts = capture.stop().await.map_err(|err| err.to_string())?;
        reply(connection, &Reply::Captured { packets: counts.recorded, dropped: counts.lost }).await
    }
}

async fn reply(connection: &Connection, reply: &Reply) -> Result<(), String> {
    connection.send(reply, &[]).await.map_err(|err| err.to_string())
}

fn pid_of(pid: u32) -> Result<Pid, String> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| "the process has ended".to_owned())
}

fn signal_of(number: i32) -> Result<Signal, String> {
    Signal::from_named_raw(number).ok_or_else(|| format!("invalid signal {number}"))
}

/// The command leads a group of its own once it is inside; before that it is alone.
fn signal_group(pid: Pid, signal: Signal) {
    if kill_process_group(pid, signal).is_err() {
        // It may have ended.
        let _ = kill_process(pid, signal);
    }
}
