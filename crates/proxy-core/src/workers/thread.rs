//! The thread of a worker: a runtime of its own, and the loop that receives messages.

use super::handle::Lost;
use super::{Message, Worker, WorkerHandles};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Polls of tasks between two looks at the sockets. More of them make larger batches.
const EVENT_INTERVAL: u32 = 61;

/// Pause between two flushes of what a worker has counted and freed.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Starts a thread, and returns once it has its runtime. `lost` reports its end.
pub(super) fn start<W: Worker>(
    name: String,
    handles: WorkerHandles<W::Command>,
    messages: mpsc::Receiver<Message<W::Command>>,
    lost: Lost,
    make: impl FnOnce(WorkerHandles<W::Command>) -> W + Send + 'static,
) -> io::Result<()> {
    let (built, wait) = std::sync::mpsc::sync_channel(1);
    let run = move || {
        let _lost = lost;
        // The runtime belongs to its thread for life: tasks are scheduled without a lock.
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().event_interval(EVENT_INTERVAL).build_local(LocalOptions::default());
        let (runtime, outcome) = match runtime {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(e) => (None, Err(e)),
        };
        // The thread that starts this one waits for the outcome.
        let _ = built.send(outcome);
        if let Some(runtime) = runtime {
            runtime.block_on(receive(Rc::new(make(handles)), messages));
        }
    };
    std::thread::Builder::new().name(name).spawn(run)?;
    wait.recv().map_err(|_| io::Error::other("the thread has ended"))?
}

/// Handles messages until the last sender is gone.
async fn receive<W: Worker>(worker: Rc<W>, mut messages: mpsc::Receiver<Message<W::Command>>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            // Both may be dropped: messages stay in the channel, ticks come again.
            message = messages.recv() => message,
            _ = flush.tick() => {
                worker.flush();
                // Connections may have ended, and a worker without any would keep their memory.
                runtime::memory::collect();
                continue;
            }
        };
        match message {
            Some(Message::Ping(answer)) => {
                let _ = answer.send(());
            }
            Some(Message::Command(command)) => worker.handle(command),
            Some(Message::Drain(done)) => {
                let worker = worker.clone();
                tokio::task::spawn_local(async move {
                    let _ = done.send(worker.drain().await);
                });
            }
            None => return,
        }
    }
}
