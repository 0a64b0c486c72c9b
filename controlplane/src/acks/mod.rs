//! Which node proxies have acknowledged which policies: what makes the condition `Enforced` true.
//!
//! A policy is enforced on a workload when the proxy of the workload's node has acknowledged, on the connection that it
//! has now, the version of the policy that is served, and a version of the workload that refers to it. What a proxy says
//! it holds when it connects counts, too. Until then the condition is `Unknown`, or `False` when the proxy refused it.
//! A later version of the workload that refers to the policy, too, changes nothing while its answer may still come.

mod node;
mod proxy;
mod settle;
mod state;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::HashMap;
use std::future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use graph::Update;
use kube_types::ObjectRef;
use kube_types::core::Condition;
use tokio::sync::Notify;
use tokio::time::Instant;
use xds_server::Report;

use crate::authority::is_node_proxy;
use crate::conditions;
use crate::reports::Reports;
use state::State;

/// Answers that come within this time of each other are one change of a condition; most updates are acknowledged by then.
const GATHER: Duration = Duration::from_millis(20);

/// What proxies were told and what they acknowledged. Clones share it.
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

    /// Takes what proxies are about to be told, before they can be; `current` are conditions of policies as read.
    pub(crate) fn tell(&self, update: &Update, current: &HashMap<ObjectRef, Vec<Condition>>) {
        self.lock().tell(update, current, Instant::now());
        self.wake.notify_one();
    }

    /// Takes what a proxy did. Must not block.
    pub(crate) fn report(&self, report: &Report) {
        let is_trusted = is_node_proxy(&self.accounts, &report.peer().caller.identity);
        if is_trusted && self.lock().report(report, Instant::now()) {
            self.wake.notify_one();
        }
    }

    /// Gives conditions out as they change. Dropping it is safe: they are given out again by the next process.
    pub(crate) async fn run(self, reports: Reports, writer: conditions::Sender) {
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
                () = self.wake.notified() => tokio::time::sleep(GATHER).await,
                () = overdue => {}
            }
            let changed;
            (changed, deadline) = self.lock().settle(Instant::now());
            for wanted in changed {
                reports.conditions(&wanted.object, &wanted.conditions);
                // The writer lives as long as this does; without it there is nothing to write.
                let _ = writer.send(wanted).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
