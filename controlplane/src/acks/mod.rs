//! Acknowledgements of policies by node proxies: they make the condition `Enforced` true.
//!
//! A policy is enforced on a workload when the proxy of the workload's node has acknowledged, on the connection that it
//! has now, the version of the policy that is served, and a version of the workload that refers to it. What a proxy says
//! it holds when it connects counts, too. Until then the condition is `Unknown`, or `False` when the proxy refused it.
//! A later version of the workload that refers to the policy, too, changes nothing while its answer may still come.

mod changes;
mod event;
mod node;
mod proxy;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod unacked;

use std::collections::HashMap;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use compile::Update;
use graph::ObjectStatus;
use kube_types::ObjectRef;
use parking_lot::Mutex;
use runtime::Debounce;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use xds_server::Report;

use crate::certificates::is_node_proxy;
use crate::conditions;
use crate::events::Events;
use crate::reports::Reports;
pub(crate) use event::{Action, Event, Origin, Type};
use state::State;

/// Answers within 20 ms are one change of a condition; most updates are acknowledged by then.
const DEBOUNCE: Debounce = Debounce::new(Duration::from_millis(20), Duration::from_millis(20));

/// Events that may wait for another replica; beyond that it has to begin anew. A change of one policy is two events for each of
/// a thousand nodes.
const FOLLOWER_QUEUE: usize = 1 << 16;

/// Resources that proxies were sent, and those that they acknowledged. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Acks {
    state: Arc<Mutex<State>>,
    wake: Arc<Notify>,
    /// Namespace and name of the service accounts of node proxies: nobody else enforces anything.
    accounts: Arc<[(String, String)]>,
}

impl Acks {
    pub(crate) fn new(accounts: &[(String, String)]) -> Self {
        Self { state: Arc::default(), wake: Arc::default(), accounts: accounts.into() }
    }

    /// Records an update before proxies are sent it; `current` are statuses of objects as read.
    pub(crate) fn on_update(&self, update: &Update, current: &HashMap<ObjectRef, ObjectStatus>) {
        self.state.lock().on_update(update, current, Instant::now());
        self.wake.notify_one();
    }

    /// Records what a proxy did. Must not block.
    pub(crate) fn on_report(&self, report: &Report) {
        // Any workload with a token may subscribe to discovery; its answers say nothing about what a node enforces.
        let is_trusted = is_node_proxy(&self.accounts, &report.peer().caller.identity);
        if is_trusted && self.state.lock().on_report(report, Instant::now()) {
            self.wake.notify_one();
        }
    }

    /// Events that lead to the state of the proxies that are connected to this replica, and a receiver of those from now on. It
    /// ends when it falls behind: the events that it has heard are then worth nothing.
    pub(crate) fn follow(&self) -> (Vec<Event>, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(FOLLOWER_QUEUE);
        (self.state.lock().follow(sender), receiver)
    }

    /// Records what happened to proxies of another replica, in order.
    pub(crate) fn on_events(&self, replica: &Origin, events: &[Event]) {
        let now = Instant::now();
        let mut state = self.state.lock();
        for event in events {
            state.on_event(replica, event, now);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Forgets the proxies of a replica that is gone, or of which nothing is heard: nothing is known of their nodes.
    pub(crate) fn forget_replica(&self, replica: &Origin) {
        self.state.lock().forget_replica(replica);
        self.wake.notify_one();
    }

    /// Publishes conditions as they change. Dropping it is safe: the next process publishes them again.
    pub(crate) async fn run(self, reports: Reports, events: Events, writer: conditions::Sender) {
        let mut deadline = None;
        loop {
            let overdue = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => future::pending().await,
                }
            };
            // Both arms may be dropped: a wake-up that comes meanwhile is stored.
            tokio::select! {
                () = self.wake.notified() => {
                    let burst = DEBOUNCE.begin();
                    while burst.next(self.wake.notified()).await.is_some() {}
                }
                () = overdue => {}
            }
            let changed;
            (changed, deadline) = self.state.lock().changed_conditions(Instant::now());
            for update in changed {
                reports.conditions(&update);
                events.conditions(&update);
                // The writer lives as long as this does; without it there is nothing to write.
                let _ = writer.send(update).await;
            }
        }
    }
}
