//! A worker's thread: a runtime of its own, and the loop that obeys commands.

use super::dispatch::dispatch;
use super::worker::Worker;
use super::{Command, Handle, accept};
use crate::inpod::{ListenerKind, Listening, Pod};
use crate::proxy::{FLUSH_EVERY, Shared, WorkerContext};
use runtime::sys::Listener;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};

/// Polls of tasks between two looks at the sockets. More of them make larger batches.
const EVENT_INTERVAL: u32 = 61;

/// How long tasks that are cut may take to be gone.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Tells that a thread is gone, or a task that it cannot do without.
struct Lost {
    index: usize,
    tell: watch::Sender<Option<usize>>,
}

impl Drop for Lost {
    fn drop(&mut self) {
        self.tell.send_replace(Some(self.index));
    }
}

/// Starts a thread, and returns once it has its runtime. `lost` hears of its end.
pub(super) fn start(
    index: usize,
    shared: Arc<Shared>,
    handles: Arc<[Handle]>,
    commands: mpsc::Receiver<Command>,
    lost: watch::Sender<Option<usize>>,
) -> io::Result<()> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let run = move || {
        let _lost = Lost { index, tell: lost.clone() };
        // The runtime belongs to its thread for life: tasks are scheduled without a lock.
        let mut builder = Builder::new_current_thread();
        let built = builder.enable_all().event_interval(EVENT_INTERVAL).build_local(LocalOptions::default());
        let (runtime, built) = match built {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(e) => (None, Err(e)),
        };
        // Whoever starts threads waits for each.
        let _ = tell.send(built);
        let Some(runtime) = runtime else { return };
        let context = Rc::new(WorkerContext::new(shared, handles[index].load.clone()));
        let (pods, draining) = (RefCell::default(), Cell::new(false));
        let worker = Rc::new(Worker { index, handles, context, pods, draining, lost });
        runtime.block_on(obey(worker, commands));
    };
    std::thread::Builder::new().name(format!("ztunnel-{index}")).spawn(run)?;
    told.recv().map_err(|_| io::Error::other("the thread has ended"))?
}

async fn obey(worker: Rc<Worker>, mut commands: mpsc::Receiver<Command>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Both may be dropped: commands stay in the channel, ticks come again.
            command = commands.recv() => match command {
                Some(command) => carry_out(&worker, command),
                None => return,
            },
            _ = flush.tick() => worker.context.live.flush(),
        }
    }
}

fn carry_out(worker: &Rc<Worker>, command: Command) {
    match command {
        Command::Ping(answer) => {
            let _ = answer.send(());
        }
        Command::Take(handover) => {
            let pod = handover.pod.clone();
            if pod.is_stopped() {
                return;
            }
            match handover.arrive() {
                Ok(connection) => dispatch(&worker.pod(&pod).context, connection),
                Err(e) => accept::unwatchable(&pod, &e),
            }
        }
        Command::Start { pod, listeners, done } => {
            let _ = done.send(start_pod(worker, &pod, listeners));
        }
        Command::Stop { pod, done } => {
            let stopped = worker.pods.borrow_mut().remove(&pod.serial);
            tokio::task::spawn_local(async move {
                if let Some(pod) = stopped {
                    pod.listeners.cut();
                    pod.context.connections.cut();
                    // A socket is closed when its task is gone, not when that is cut: the agent must not hear of it before.
                    pod.listeners.ended().await;
                    pod.context.connections.ended().await;
                }
                let _ = done.send(());
            });
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

fn start_pod(worker: &Rc<Worker>, pod: &Arc<Pod>, listeners: Vec<(ListenerKind, Listening)>) -> io::Result<()> {
    if worker.draining.get() || pod.is_stopped() {
        return Err(io::Error::other("the proxy drains, or the pod was stopped meanwhile"));
    }
    let served = worker.pod(pod);
    for (kind, listening) in listeners {
        let transparent = listening.transparent;
        // Belongs to this worker's runtime from here on.
        let listener = Listener::new(listening.listener)?;
        let drain = worker.context.shared.drain.clone();
        let accepting = accept::accept(worker.clone(), Rc::downgrade(&served), kind, listener, transparent, drain);
        served.listeners.spawn(or_lost(worker.clone(), accepting));
    }
    Ok(())
}

/// Does `work`. Without it the worker is of no use: a panic in it counts as the loss of the worker.
async fn or_lost(worker: Rc<Worker>, work: impl Future<Output = ()>) {
    struct Guard(Rc<Worker>);
    impl Drop for Guard {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.lost.send_replace(Some(self.0.index));
            }
        }
    }
    let _guard = Guard(worker);
    work.await;
}

/// Waits for listeners to close and for connections to end, cuts what is left at the deadline; returns how many.
async fn drain(worker: &Rc<Worker>) -> usize {
    // They have seen the drain as well. One whose pod holds all that there is for it does not come to its end.
    let closed = async {
        for pod in worker.pods() {
            pod.listeners.ended().await;
        }
    };
    let _ = timeout(CUT_TIMEOUT, closed).await;
    for pod in worker.pods() {
        pod.listeners.cut();
        pod.listeners.ended().await;
    }
    let mut watch = worker.context.shared.drain.clone();
    tokio::select! {
        () = all_ended(worker) => return 0,
        () = watch.expired() => {}
    }
    let mut left = 0;
    for pod in worker.pods() {
        left += pod.context.connections.count();
        pod.context.connections.cut();
    }
    // A cut connection is reset when its task is gone, which the process must not end before.
    let _ = timeout(CUT_TIMEOUT, all_ended(worker)).await;
    left
}

/// Returns when no pod has a connection, including those that other workers hand over meanwhile.
async fn all_ended(worker: &Rc<Worker>) {
    while let Some(busy) = worker.pods().into_iter().find(|pod| pod.context.connections.count() > 0) {
        busy.context.connections.ended().await;
    }
}
