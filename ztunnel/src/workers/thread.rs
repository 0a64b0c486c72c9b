//! A worker's thread: a runtime of its own, and the loop that obeys commands.

use super::context::HANDSHAKES;
use super::{Command, Handle, ListenerKind, PodHere, WorkerContext, accept};
use crate::inpod::{Listening, Pod};
use crate::proxy::{FLUSH_EVERY, Foreign, Live, Shared};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, timeout};

/// Polls of tasks between two looks at the sockets. More of them make larger batches.
const EVENT_INTERVAL: u32 = 61;

/// How long tasks that are cut may take to be gone.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn start(
    index: usize,
    shared: Arc<Shared>,
    handles: Arc<[Handle]>,
    commands: mpsc::Receiver<Command>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build()?;
    let run = move || {
        let context = Rc::new(WorkerContext {
            index,
            shared,
            handles,
            scratch: crate::proxy::relay::Scratch::default(),
            traffic: telemetry::metrics::TrafficCache::new(),
            foreign: Foreign::default(),
            live: Live::default(),
            pods: RefCell::default(),
            draining: Cell::new(false),
            handshakes: Semaphore::new(HANDSHAKES),
        });
        let local = LocalSet::new();
        local.block_on(&runtime, obey(context, commands));
    };
    std::thread::Builder::new().name(format!("ztunnel-{index}")).spawn(run)?;
    Ok(())
}

async fn obey(worker: Rc<WorkerContext>, mut commands: mpsc::Receiver<Command>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Both may be dropped: commands stay in the channel, ticks come again.
            command = commands.recv() => match command {
                Some(command) => carry_out(&worker, command),
                None => return,
            },
            _ = flush.tick() => worker.live.flush(),
        }
    }
}

fn carry_out(worker: &Rc<WorkerContext>, command: Command) {
    match command {
        Command::Ping(answer) => {
            let _ = answer.send(());
        }
        Command::Take(handover) => {
            let pod = handover.pod.clone();
            // A socket that cannot be watched is closed: its client sees a reset.
            if !pod.is_stopped()
                && let Ok(connection) = handover.arrive()
            {
                worker.pod(&pod).take(connection);
            }
        }
        Command::Start { pod, listeners, done } => {
            let _ = done.send(start_pod(worker, &pod, listeners));
        }
        Command::Stop { pod, done } => {
            let stopped = worker.pods.borrow_mut().remove(&pod.serial);
            if let Some(here) = stopped {
                here.listeners.cut();
                here.connections.cut();
            }
            let _ = done.send(());
        }
        Command::Drain { done } => {
            worker.draining.set(true);
            let worker = worker.clone();
            tokio::task::spawn_local(async move {
                let _ = done.send(drain(&worker).await);
            });
        }
    }
}

fn start_pod(worker: &Rc<WorkerContext>, pod: &Arc<Pod>, listeners: Vec<(ListenerKind, Listening)>) -> io::Result<()> {
    if worker.draining.get() || pod.is_stopped() {
        return Err(io::Error::other("the proxy drains, or the pod was stopped meanwhile"));
    }
    let here = worker.pod(pod);
    for (kind, listening) in listeners {
        let transparent = listening.transparent;
        let listener = accept::register(listening)?;
        here.listeners.spawn(accept::accept(Rc::downgrade(&here), kind, listener, transparent));
    }
    Ok(())
}

/// Closes listeners, waits for connections, cuts what is left at the deadline; returns how many.
async fn drain(worker: &Rc<WorkerContext>) -> usize {
    for here in pods(worker) {
        here.listeners.cut();
    }
    let mut watch = worker.shared.drain.clone();
    tokio::select! {
        () = all_ended(worker) => return 0,
        () = watch.expired() => {}
    }
    let mut left = 0;
    for here in pods(worker) {
        left += here.connections.count();
        here.connections.cut();
    }
    // A cut connection is reset when its task is gone, which the process must not end before.
    let _ = timeout(CUT_TIMEOUT, all_ended(worker)).await;
    left
}

/// Returns when no pod has a connection, including those that other workers hand over meanwhile.
async fn all_ended(worker: &Rc<WorkerContext>) {
    while let Some(busy) = pods(worker).into_iter().find(|here| here.connections.count() > 0) {
        busy.connections.ended().await;
    }
}

fn pods(worker: &Rc<WorkerContext>) -> Vec<Rc<PodHere>> {
    worker.pods.borrow().values().cloned().collect()
}
