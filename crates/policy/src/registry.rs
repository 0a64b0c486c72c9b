//! The open connections to local workloads, asked about again whenever policies change. Shared by all workers; closes nothing itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::counter;
use model::{State, Workload};
use tokio::sync::watch;

use crate::{Connection, Decision, DenyReason, Logging, decide};

/// Connections that lost their permission while open.
const REVOKED: &str = "strake_policy_revoked_connections_total";
/// Locks that the entries are spread over, so that workers rarely meet.
const SHARDS: usize = 16;

/// Knows every inbound connection of the proxy. Clones share it.
#[derive(Debug, Clone)]
pub struct ConnectionRegistry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: State,
    logging: Logging,
    next: AtomicU64,
    shards: [Mutex<HashMap<u64, Entry>>; SHARDS],
}

#[derive(Debug)]
struct Entry {
    connection: Arc<Connection>,
    destination: Arc<Workload>,
    revoked: watch::Sender<Option<Revoked>>,
}

/// A permission was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connection closed due to policy change")]
pub struct Revoked {
    /// What decided.
    pub reason: DenyReason,
}

/// Keeps one connection in the registry until dropped.
#[derive(Debug)]
pub struct Registration {
    registry: ConnectionRegistry,
    id: u64,
    connection: Arc<Connection>,
    destination: Arc<Workload>,
    revoked: watch::Receiver<Option<Revoked>>,
}

impl ConnectionRegistry {
    /// Empty; asks about policies in `state`.
    #[must_use]
    pub fn new(state: State, logging: Logging) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self(Arc::new(Inner { state, logging, next: AtomicU64::new(0), shards }))
    }

    /// Enters a connection to `destination`. Do this first, then [`Registration::evaluate`]: whatever changes after the
    /// evaluation finds the connection here, so no update can slip between.
    #[must_use]
    pub fn register(&self, connection: Connection, destination: Arc<Workload>) -> Registration {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(connection);
        let (sender, revoked) = watch::channel(None);
        let entry = Entry { connection: connection.clone(), destination: destination.clone(), revoked: sender };
        self.shard(id).insert(id, entry);
        Registration { registry: self.clone(), id, connection, destination, revoked }
    }

    /// Asks about all connections again; returns how many lost their permission. Call after every change of policies.
    ///
    /// The destination is taken as discovery knows it now, so that a policy that begins to select it counts too.
    pub fn reevaluate(&self) -> usize {
        let mut closed = 0;
        for shard in &self.0.shards {
            // Copied out: evaluation is not done under the lock that workers wait for.
            let entries: Vec<_> = lock(shard)
                .values()
                .map(|e| (e.connection.clone(), e.destination.clone(), e.revoked.clone()))
                .collect();
            for (connection, destination, sender) in entries {
                if let Decision::Deny { reason, .. } = self.decide(&connection, &destination) {
                    closed += usize::from(sender.send_replace(Some(Revoked { reason })).is_none());
                }
            }
        }
        counter!(REVOKED).increment(closed as u64);
        closed
    }

    /// What is open now, in no order.
    #[must_use]
    pub fn connections(&self) -> Vec<(Arc<Connection>, Arc<Workload>)> {
        let mut all = Vec::new();
        for shard in &self.0.shards {
            all.extend(lock(shard).values().map(|e| (e.connection.clone(), e.destination.clone())));
        }
        all
    }

    fn decide(&self, connection: &Connection, destination: &Arc<Workload>) -> Decision {
        let state = &self.0.state;
        let current = state.workload(&destination.uid);
        decide(&state.policies_of(current.as_ref().unwrap_or(destination)), connection, self.0.logging)
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, Entry>> {
        // The modulus keeps it within the array.
        lock(&self.0.shards[(id % SHARDS as u64) as usize])
    }
}

impl Registration {
    /// May the connection be, by the policies of this moment?
    #[must_use]
    pub fn evaluate(&self) -> Decision {
        self.registry.decide(&self.connection, &self.destination)
    }

    /// What was registered.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns when the connection has lost its permission, also if that was before the call. Safe to drop at any point.
    pub async fn revoked(&mut self) -> Revoked {
        loop {
            if let Some(revoked) = self.revoked.borrow_and_update().clone() {
                return revoked;
            }
            if self.revoked.changed().await.is_err() {
                // The entry lives as long as this registration, so its sender does.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.shard(self.id).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use model::{Action, Address, Authorization, Change, Scope, StateConfig};

    const UID: &str = "Kubernetes//Pod/ns/a";

    fn mesh(policies: &str) -> (State, ConnectionRegistry) {
        let workload =
            format!(r#"{{"uid": "{UID}", "name": "a", "namespace": "ns", "authorizationPolicies": {policies}}}"#);
        let state = State::new(StateConfig::default());
        state.set_policies_synced();
        let address = Address::Workload(serde_json::from_str(&workload).unwrap());
        state.apply_addresses(vec![Change::Upsert(address)]);
        (state.clone(), ConnectionRegistry::new(state, Logging::Debug))
    }

    fn open(state: &State, registry: &ConnectionRegistry) -> Registration {
        let destination = "10.0.0.1:80".parse().unwrap();
        let connection = Connection { source: "10.0.0.2".parse().unwrap(), destination, identity: None };
        registry.register(connection, state.workload(UID).unwrap())
    }

    fn deny(name: &str) -> Vec<Change<Authorization>> {
        let (name, namespace) = (name.into(), "ns".into());
        let rules = vec![vec![]];
        let action = Action::Deny;
        vec![Change::Upsert(Authorization { name, namespace, scope: Scope::Namespace, action, rules, dry_run: false })]
    }

    #[tokio::test]
    async fn a_connection_loses_its_permission_with_the_policy_that_decided() {
        let (state, registry) = mesh("[]");
        let mut connection = open(&state, &registry);
        assert!(connection.evaluate().is_allowed());

        state.apply_authorizations(deny("p"));
        assert_eq!(registry.reevaluate(), 1);

        let revoked = connection.revoked().await;
        assert_eq!(revoked.to_string(), "connection closed due to policy change");
        assert_eq!(revoked.reason, DenyReason::Explicit("ns/p".into()));
        assert_eq!(registry.reevaluate(), 0);
    }

    #[tokio::test]
    async fn a_policy_that_changes_between_register_and_evaluate_is_seen_twice_rather_than_never() {
        let (state, registry) = mesh("[]");
        let mut connection = open(&state, &registry);

        state.apply_authorizations(deny("p"));
        registry.reevaluate();

        assert!(!connection.evaluate().is_allowed());
        connection.revoked().await;
    }

    #[tokio::test]
    async fn a_workload_that_is_gone_is_asked_about_as_it_was() {
        let (state, registry) = mesh(r#"["ns/p"]"#);
        let mut connection = open(&state, &registry);
        state.apply_addresses(vec![Change::Remove(UID.into())]);

        state.apply_authorizations(deny("p"));
        registry.reevaluate();

        connection.revoked().await;
    }

    #[test]
    fn a_connection_that_ended_is_forgotten() {
        let (state, registry) = mesh("[]");
        let connection = open(&state, &registry);
        assert_eq!(registry.connections().len(), 1);

        drop(connection);

        assert!(registry.connections().is_empty());
    }

    #[test]
    fn many_threads_register_while_policies_change_and_no_denied_connection_stays() {
        let (state, registry) = mesh("[]");

        thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..500).map(|_| open(&state, &registry)).collect::<Vec<_>>())).collect();
            state.apply_authorizations(deny("p"));
            registry.reevaluate();
            for connection in workers.into_iter().flat_map(|w| w.join().unwrap()) {
                let told = connection.revoked.borrow().is_some();
                assert!(told || !connection.evaluate().is_allowed());
            }
        });
    }
}
