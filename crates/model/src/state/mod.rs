//! The mesh as discovery told it: one store behind one lock, applied response by response. No I/O; not for policy evaluation.

mod departed;
mod dump;
mod index;
mod restore;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use identity::Identity;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

pub use dump::Dump;
pub(crate) use store::Store;

use crate::{Authorization, InboundProtocol, NamespacedHostname, RefusedPolicy, Service, Text, Workload};

/// Time for which a new connection waits for discovery to send its own workload.
pub const LOCAL_WORKLOAD_WAIT: Duration = Duration::from_secs(5);

/// Settings that are fixed for the life of a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateConfig {
    /// Network of this node; the default network is the empty one.
    pub network: Text,
    /// Name of this node; none: every workload is local.
    pub node: Option<Text>,
}

/// A discovered address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An endpoint.
    Workload(Workload),
    /// A service.
    Service(Service),
}

/// One step of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// New, or replaces what has its key.
    Upsert(T),
    /// Name of the resource as in discovery.
    Remove(Text),
}

/// Meaning of an update of addresses for the rest of the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Identities of upserted local workloads that take HBONE: worth fetching certificates for.
    pub wanted: Vec<Identity>,
    /// Identities whose last local workload is gone.
    pub unused: Vec<Identity>,
    /// A local workload is now selected by other policies than before.
    pub policies_changed: bool,
}

/// The policies of one workload, as of one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// Global ones, those of its namespace, those it names.
    pub policies: Vec<Arc<Authorization>>,
    /// Names it has for policies that discovery did not send.
    pub unknown: Vec<Text>,
    /// Policies for it that discovery sent and that could not be read, without an earlier version in force.
    pub refused: Vec<Text>,
    /// Has the first complete set of policies arrived?
    pub synced: bool,
}

/// Handle of the store; clones share it.
#[derive(Debug, Clone)]
pub struct State(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: StateConfig,
    store: RwLock<Store>,
    /// Counts updates that brought workloads.
    arrivals: watch::Sender<u64>,
    /// Counts updates of addresses.
    version: AtomicU64,
    policies_synced: AtomicBool,
}

impl State {
    /// Empty.
    #[must_use]
    pub fn new(config: StateConfig) -> Self {
        Self(Arc::new(Shared {
            store: RwLock::new(Store::new(config.node.clone())),
            config,
            arrivals: watch::Sender::new(0),
            version: AtomicU64::new(0),
            policies_synced: AtomicBool::new(false),
        }))
    }

    /// The state that a dump shows ([`State::dump`], or the whole config dump of a proxy), as JSON. Refused policies and
    /// addresses of departed pods are not in a dump, and so not in the result.
    ///
    /// # Errors
    /// When it is no dump, or of a version with other fields.
    pub fn from_dump(dump: &[u8]) -> Result<Self, serde_json::Error> {
        restore::restore(dump)
    }

    /// Settings that are fixed.
    #[must_use]
    pub fn config(&self) -> &StateConfig {
        &self.0.config
    }

    /// Applies one response: readers see all of it or nothing of it.
    pub fn apply_addresses(&self, changes: Vec<Change<Address>>) -> Applied {
        let mut arrived = false;
        // Identities whose last local workload may be gone. Asked at the end: a pod that only moves must not lose its
        // certificate.
        let mut touched = BTreeSet::new();
        let mut applied = Applied::default();
        {
            let mut store = self.write();
            for change in changes {
                match change {
                    Change::Upsert(Address::Workload(workload)) => {
                        arrived = true;
                        upsert_workload(&mut store, workload, &mut applied, &mut touched);
                    }
                    Change::Upsert(Address::Service(service)) => store.upsert_service(service),
                    Change::Remove(name) => {
                        if let Some(removed) = store.remove_address(&name) {
                            touched.insert(local_key(&removed));
                        }
                    }
                }
            }
            for (identity, namespace, account) in touched {
                if let Some(identity) = identity
                    && !store.has_local(&namespace, &account, &identity)
                {
                    applied.unused.push(identity);
                }
            }
        }
        // Behind the change: whoever reads a version finds at least what it stands for.
        self.0.version.fetch_add(1, Ordering::Release);
        // After the lock is free: those who wait read the store at once.
        if arrived {
            self.0.arrivals.send_modify(|count| *count += 1);
        }
        applied
    }

    /// Version of workloads and services. What was computed from them is still right while it is the same.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Applies one response of policies. Evaluate open connections again afterwards.
    pub fn apply_authorizations(&self, changes: Vec<Change<Authorization>>) {
        let mut store = self.write();
        for change in changes {
            match change {
                Change::Upsert(policy) => store.policies.upsert(policy),
                Change::Remove(key) => store.remove_policy(&key),
            }
        }
    }

    /// Remembers policies that could not be read, until a readable version or a removal of the same key is applied.
    /// Does nothing for a key of which an earlier version is in force: that one stays.
    pub fn refuse_authorizations(&self, refused: Vec<RefusedPolicy>) {
        let mut store = self.write();
        for policy in refused {
            store.policies.refuse(policy);
        }
    }

    /// Number of policies that are missing because they could not be read.
    #[must_use]
    pub fn refused_policies(&self) -> usize {
        self.read().policies.refused()
    }

    /// Number of policies that discovery removed and that stay in force, because a local workload still names them.
    #[must_use]
    pub fn retained_policies(&self) -> usize {
        self.read().policies.retained()
    }

    /// All policies have arrived once. A policy that a workload names and that is not there is missing from then on, not late.
    pub fn set_policies_synced(&self) {
        self.0.policies_synced.store(true, Ordering::Release);
    }

    /// See [`State::set_policies_synced`].
    #[must_use]
    pub fn policies_synced(&self) -> bool {
        self.0.policies_synced.load(Ordering::Acquire)
    }

    /// The policies that apply to connections to `workload`.
    #[must_use]
    pub fn policies_of(&self, workload: &Workload) -> PolicySet {
        // Read before the policies: set between the two, it would make a late policy look like a missing one.
        let synced = self.policies_synced();
        let store::Found { policies, unknown, refused } = self.read().policies.of(workload);
        PolicySet { policies, unknown, refused, synced }
    }

    /// The workload of this node with that name, namespace and service account; waits for discovery up to `wait`
    /// (usually [`LOCAL_WORKLOAD_WAIT`]). Safe to drop at any point.
    pub async fn wait_for_local(
        &self,
        namespace: &str,
        name: &str,
        service_account: &str,
        wait: Duration,
    ) -> Option<Arc<Workload>> {
        let mut arrivals = self.0.arrivals.subscribe();
        let found = async {
            loop {
                // Marked as seen before the look: an arrival between the look and the wait wakes it.
                arrivals.borrow_and_update();
                if let Some(found) = self.local(namespace, name, service_account) {
                    return Some(found);
                }
                arrivals.changed().await.ok()?;
            }
        };
        tokio::time::timeout(wait, found).await.ok().flatten()
    }

    /// The workload of this node with that name, namespace and service account, if discovery told of it.
    #[must_use]
    pub fn local(&self, namespace: &str, name: &str, service_account: &str) -> Option<Arc<Workload>> {
        self.read().local(namespace, name, service_account)
    }

    /// The workload of that key.
    #[must_use]
    pub fn workload(&self, uid: &str) -> Option<Arc<Workload>> {
        self.read().workload(uid)
    }

    /// The workload that has `address` in `network`; of several the best: pods before other entries, HBONE before plain.
    #[must_use]
    pub fn workload_by_address(&self, network: &str, address: IpAddr) -> Option<Arc<Workload>> {
        self.read().index.workload(&Text::from(network), address)
    }

    /// Does discovery name `address` as the way to another network? Looks at all workloads: ask once per tunnel.
    #[must_use]
    pub fn is_network_gateway(&self, address: IpAddr) -> bool {
        self.read().is_network_gateway(&self.0.config.network, address)
    }

    /// The service of exactly that key.
    #[must_use]
    pub fn service(&self, key: &NamespacedHostname) -> Option<Arc<Service>> {
        self.read().service(key)
    }

    /// Number of workloads, services and policies.
    #[must_use]
    pub fn sizes(&self) -> [usize; 3] {
        self.read().sizes()
    }

    /// A copy of everything, in the shape and order of the config dump.
    #[must_use]
    pub fn dump(&self) -> Dump {
        dump::dump(&self.read())
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.0.store.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.0.store.write()
    }
}

type LocalKey = (Option<Identity>, Text, Text);

fn local_key(workload: &Workload) -> LocalKey {
    (workload.identity(), workload.namespace.clone(), workload.service_account.clone())
}

fn upsert_workload(store: &mut Store, workload: Workload, applied: &mut Applied, touched: &mut BTreeSet<LocalKey>) {
    let wants_certificate = workload.protocol == InboundProtocol::HBONE || workload.native_tunnel;
    // Certificates of other nodes' workloads are not ours to fetch.
    let local = store.is_local(&workload);
    if local && wants_certificate {
        applied.wanted.extend(workload.identity());
    }
    let before = store.workload(&workload.uid);
    match before.filter(|before| store.is_local(before)) {
        Some(before) => {
            applied.policies_changed |= local && before.authorization_policies != workload.authorization_policies;
            touched.insert(local_key(&before));
        }
        // It may have been here before: connections to it may still be open, with the policies it had.
        None => applied.policies_changed |= local && !workload.authorization_policies.is_empty(),
    }
    store.upsert_workload(Arc::new(workload));
}
