//! Acknowledgements of node proxies that are connected to other replicas.
//!
//! Every replica follows every other one: over the port of discovery, with the token of its own pod, and checks that the other
//! has the control plane's certificate. Nothing goes through the API server, and a new leader knows everything already.
//! A replica that does not answer, is silent for 6 s, or says something that is not understood is forgotten, and with it what
//! its proxies acknowledged.

mod follow;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ca_server::CurrentIssuer;
use graph::PublishedPods;
use identity::Caller;
use tls::control_plane::Token;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::acks::Acks;

pub(crate) use serve::service;

/// Time until a new replica is noticed, and one that is gone.
const LOOK: Duration = Duration::from_secs(1);

/// Time between two messages of a replica, at most.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Time without a message after which nothing is known of a replica's proxies.
const SILENCE: Duration = Duration::from_secs(6);

/// The replicas of this control plane, by the pods of its ServiceAccount.
#[derive(Clone)]
pub(crate) struct Replicas {
    pub(crate) pods: PublishedPods,
    pub(crate) namespace: String,
    /// Name of this replica's pod.
    pub(crate) name: String,
    /// Port of discovery, the same in every replica.
    pub(crate) port: u16,
    /// Name that the certificate of the control plane has.
    pub(crate) host: String,
    /// Token of this pod, for the audience of the control plane.
    pub(crate) token: Token,
    pub(crate) issuer: CurrentIssuer,
}

impl Replicas {
    /// ServiceAccount of this replica; `None` when this program is not a pod, or its pod has not been read.
    fn account(&self) -> Option<String> {
        let pods = self.pods.load();
        pods.pod(&self.namespace, &self.name).map(|pod| pod.service_account().to_owned())
    }

    /// Returns true if the caller is a replica.
    fn is_replica(&self, caller: &Caller) -> bool {
        let Caller { node, identity } = caller;
        let is_ours = identity.namespace() == self.namespace
            && self.account().is_some_and(|account| account == identity.service_account());
        // A token that is bound to no pod is one of a tool.
        is_ours && !node.is_empty()
    }

    /// Address of each other replica, by the name of its pod.
    fn others(&self) -> HashMap<Arc<str>, SocketAddr> {
        let Some(account) = self.account() else { return HashMap::new() };
        let pods = self.pods.load();
        let others = pods
            .in_namespace(&self.namespace)
            .filter(|pod| pod.service_account() == account && pod.metadata.name != self.name && !pod.is_terminated());
        let address = |text: &str| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port));
        let located =
            others.filter_map(|pod| Some((pod.metadata.name.as_str().into(), address(pod.addresses().next()?)?)));
        located.collect()
    }

    /// Follows every other replica; ends never.
    pub(crate) async fn run(self, acks: Acks) {
        let mut followed: HashMap<Arc<str>, (SocketAddr, Task)> = HashMap::new();
        loop {
            let others = self.others();
            let gone = followed.extract_if(|name, (address, _)| others.get(name) != Some(address));
            for (_, (_, task)) in gone.collect::<Vec<_>>() {
                // What it knew of the replica is forgotten before another task learns anew.
                task.end().await;
            }
            for (name, address) in others {
                let follow = || follow::run(self.clone(), Arc::clone(&name), address, acks.clone());
                followed.entry(Arc::clone(&name)).or_insert_with(|| (address, Task(tokio::spawn(follow()))));
            }
            metrics::gauge!("strake_control_replicas").set(followed.len() as f64);
            sleep(LOOK).await;
        }
    }
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Task {
    async fn end(mut self) {
        self.0.abort();
        // Aborted on purpose: there is nothing to read.
        let _: Result<(), tokio::task::JoinError> = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
