//! The open connections to local workloads, asked about again whenever policies change. Shared by all workers; closes nothing itself.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::counter;
use model::{State, Workload};
use parking_lot::{Mutex, MutexGuard};
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

/// Outcome of an evaluation of all open connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reevaluation {
    /// Connections that lost their permission.
    pub revoked: usize,
    /// Connections that stay open although a policy for their destination has not arrived.
    pub undecided: usize,
}

/// A permission was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connection closed due to policy change")]
pub struct Revoked {
    /// Reason of the decision.
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
        // Consecutive numbers spread evenly over the shards.
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(connection);
        let (sender, revoked) = watch::channel(None);
        let entry = Entry { connection: connection.clone(), destination: destination.clone(), revoked: sender };
        self.shard(id).insert(id, entry);
        Registration { registry: self.clone(), id, connection, destination, revoked }
    }

    /// Evaluates all connections again. Call after every change of policies, and of the policies that a workload names.
    ///
    /// The destination is taken as discovery knows it now, so that a policy that begins to select it counts too. A
    /// connection is not closed because a policy has not arrived yet: it was allowed by all policies before, and Istio's
    /// control plane announces who is selected before it sends the policy. The caller decides how long that may last; see
    /// [`ConnectionRegistry::revoke_undecided`].
    pub fn reevaluate(&self) -> Reevaluation {
        self.evaluate_all(|_| false)
    }

    /// Evaluates all connections again, and closes also those that cannot be decided for want of a policy. A connection to
    /// a workload that is gone stays: nothing says any more which policies it should have.
    pub fn revoke_undecided(&self) -> Reevaluation {
        self.evaluate_all(|destination| self.0.state.workload(&destination.uid).is_some())
    }

    fn evaluate_all(&self, revokes_undecided: impl Fn(&Workload) -> bool) -> Reevaluation {
        let mut result = Reevaluation::default();
        for shard in &self.0.shards {
            // Copied out: evaluation is not done under the lock that workers wait for.
            let entries: Vec<_> = shard
                .lock()
                .values()
                .map(|e| (e.connection.clone(), e.destination.clone(), e.revoked.clone()))
                .collect();
            for (connection, destination, sender) in entries {
                // All of them, also those that the change does not concern: done on the slow runtime, and simpler than to know which.
                let Decision::Deny { reason, .. } = self.decide(&connection, &destination) else { continue };
                if matches!(reason, DenyReason::NotYetKnown(_)) && !revokes_undecided(&destination) {
                    result.undecided += 1;
                    continue;
                }
                // Counted once, however often it is evaluated before its task has seen it.
                result.revoked += usize::from(sender.send_replace(Some(Revoked { reason })).is_none());
            }
        }
        counter!(REVOKED).increment(result.revoked as u64);
        result
    }

    /// Connections that are open now, in no order.
    #[must_use]
    pub fn connections(&self) -> Vec<(Arc<Connection>, Arc<Workload>)> {
        let mut all = Vec::new();
        for shard in &self.0.shards {
            all.extend(shard.lock().values().map(|e| (e.connection.clone(), e.destination.clone())));
        }
        all
    }

    fn decide(&self, connection: &Connection, destination: &Arc<Workload>) -> Decision {
        let state = &self.0.state;
        let current = state.workload(&destination.uid);
        // A destination that is gone keeps the policies of its last version.
        decide(&state.policies_of(current.as_ref().unwrap_or(destination)), connection, self.0.logging)
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, Entry>> {
        // The modulus keeps it within the array.
        self.0.shards[(id % SHARDS as u64) as usize].lock()
    }
}

impl Registration {
    /// May the connection be, by the policies of this moment?
    #[must_use]
    pub fn evaluate(&self) -> Decision {
        self.registry.decide(&self.connection, &self.destination)
    }

    /// Connection that was registered.
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

    /// Denies everything in its namespace.
    fn policy(name: &str) -> Authorization {
        let (name, namespace) = (name.into(), "ns".into());
        Authorization {
            name,
            namespace,
            scope: Scope::Namespace,
            action: Action::Deny,
            rules: vec![vec![]],
            dry_run: false,
        }
    }

    fn deny(name: &str) -> Vec<Change<Authorization>> {
        vec![Change::Upsert(policy(name))]
    }

    /// The workload names other policies than before.
    fn name_policies(state: &State, policies: &[&str]) {
        let mut workload = Workload::clone(&state.workload(UID).unwrap());
        workload.authorization_policies = policies.iter().map(|policy| (*policy).into()).collect();
        state.apply_addresses(vec![Change::Upsert(Address::Workload(workload))]);
    }

    #[tokio::test]
    async fn a_connection_loses_its_permission_with_the_policy_that_decided() {
        let (state, registry) = mesh("[]");
        let mut connection = open(&state, &registry);
        assert!(connection.evaluate().is_allowed());

        state.apply_authorizations(deny("p"));
        assert_eq!(registry.reevaluate().revoked, 1);

        let revoked = connection.revoked().await;
        assert_eq!(revoked.to_string(), "connection closed due to policy change");
        assert_eq!(revoked.reason, DenyReason::Explicit("ns/p".into()));
        assert_eq!(registry.reevaluate().revoked, 0);
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

    #[tokio::test]
    async fn an_open_connection_waits_for_a_policy_that_is_late_and_is_closed_when_it_does_not_come() {
        let (state, registry) = mesh("[]");
        let mut connection = open(&state, &registry);
        assert!(connection.evaluate().is_allowed());

        name_policies(&state, &["ns/late"]);

        assert!(!connection.evaluate().is_allowed(), "a new connection is refused");
        assert_eq!(registry.reevaluate(), Reevaluation { revoked: 0, undecided: 1 });
        assert_eq!(registry.revoke_undecided(), Reevaluation { revoked: 1, undecided: 0 });
        assert_eq!(connection.revoked().await.reason, DenyReason::NotYetKnown("ns/late".into()));
    }

    #[test]
    fn a_connection_to_a_workload_that_is_gone_outlives_the_policies_it_named() {
        let (state, registry) = mesh(r#"["ns/p"]"#);
        state.apply_authorizations(vec![Change::Upsert(Authorization { rules: vec![], ..policy("p") })]);
        let connection = open(&state, &registry);
        assert!(connection.evaluate().is_allowed());

        state.apply_addresses(vec![Change::Remove(UID.into())]);
        state.apply_authorizations(vec![Change::Remove("ns/p".into())]);

        assert_eq!(registry.revoke_undecided(), Reevaluation { revoked: 0, undecided: 1 });
    }

    #[tokio::test]
    async fn a_policy_that_is_removed_before_its_workload_changes_stays_in_force() {
        let (state, registry) = mesh(r#"["ns/p"]"#);
        let selective = Authorization { scope: Scope::WorkloadSelector, ..policy("p") };
        state.apply_authorizations(vec![Change::Upsert(selective)]);
        let connection = open(&state, &registry);

        state.apply_authorizations(vec![Change::Remove("ns/p".into())]);
        assert!(matches!(connection.evaluate(), Decision::Deny { reason: DenyReason::Explicit(_), .. }));
        assert_eq!(state.retained_policies(), 1);

        name_policies(&state, &[]);
        assert!(connection.evaluate().is_allowed());
        assert_eq!(state.retained_policies(), 0);
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
