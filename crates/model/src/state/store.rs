//! Everything discovery sent, by the keys discovery uses. Lookups by address and name are in `index`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use identity::Identity;
use runtime::collections::shrink_sparse;

use super::departed::Departed;
use super::index::Index;
use crate::{Authorization, GatewayDestination, NamespacedHostname, RefusedPolicy, Scope, Service, Text, Workload};

/// Endpoints of one service by uid, healthy or not. Kept by the service's name, so a workload may come before its service.
pub(crate) type Members = BTreeMap<Text, Arc<Workload>>;

#[derive(Debug)]
pub(crate) struct Store {
    node: Option<Text>,
    workloads: HashMap<Text, Arc<Workload>>,
    services: HashMap<NamespacedHostname, Arc<Service>>,
    members: HashMap<NamespacedHostname, Members>,
    /// Local workloads by namespace and service account.
    local: HashMap<(Text, Text), Vec<Arc<Workload>>>,
    pub(crate) index: Index,
    pub(crate) policies: Policies,
    pub(crate) departed: Departed,
}

/// Policies by name, and which of them apply without being named.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    by_key: HashMap<Text, Arc<Authorization>>,
    /// By namespace; global ones under "".
    by_namespace: HashMap<Text, BTreeSet<Text>>,
    /// Sent, not readable, and without an earlier version that is in force. Few or none.
    refused: BTreeMap<Text, RefusedPolicy>,
    /// Removed while a local workload still names it. Stays in force for workloads that name it, until none does: discovery
    /// may say that a policy is gone before it says what replaces it.
    retained: HashMap<Text, Arc<Authorization>>,
}

/// The policies of a workload.
pub(super) struct Found {
    pub(super) policies: Vec<Arc<Authorization>>,
    /// Names the workload has for policies that are not here.
    pub(super) unknown: Vec<Text>,
    /// Those that could not be read.
    pub(super) refused: Vec<Text>,
}

impl Store {
    pub(super) fn new(node: Option<Text>) -> Self {
        Self {
            node,
            workloads: HashMap::new(),
            services: HashMap::new(),
            members: HashMap::new(),
            local: HashMap::new(),
            index: Index::default(),
            departed: Departed::default(),
            policies: Policies::default(),
        }
    }

    pub(super) fn is_local(&self, workload: &Workload) -> bool {
        // Without the name of a node every workload counts as local.
        self.node.as_ref().is_none_or(|node| workload.node == *node)
    }

    /// A full replacement of what had the uid: uids are used again (StatefulSets).
    pub(super) fn upsert_workload(&mut self, workload: Arc<Workload>) {
        // Addresses and memberships of the old version must not stay in the indexes.
        self.remove_workload(&workload.uid);
        for membership in workload.services.iter() {
            let members = self.members.entry(membership.service.clone()).or_default();
            members.insert(workload.uid.clone(), workload.clone());
        }
        if self.is_local(&workload) {
            let key = (workload.namespace.clone(), workload.service_account.clone());
            self.local.entry(key).or_default().push(workload.clone());
        }
        // The address is in use again, so its new owner is reached in plaintext if it is not in the mesh.
        self.departed.forget(&workload);
        self.index.insert_workload(&workload);
        self.workloads.insert(workload.uid.clone(), workload);
        self.drop_retained();
    }

    /// Removes a policy. One that a local workload names stays in force for it.
    pub(super) fn remove_policy(&mut self, key: &str) {
        // Istio's control plane may remove a policy before it sends the workloads that no longer name it.
        let removed = self.policies.remove(key);
        if let Some(policy) = removed.filter(|_| self.names(key)) {
            self.policies.retained.insert(key.into(), policy);
        }
    }

    /// Forgets retained policies that no local workload names any more.
    fn drop_retained(&mut self) {
        if self.policies.retained.is_empty() {
            return;
        }
        // Taken out, as `names` borrows the store.
        let mut retained = std::mem::take(&mut self.policies.retained);
        retained.retain(|key, _| self.names(key));
        self.policies.retained = retained;
    }

    /// Does a local workload name the policy?
    fn names(&self, policy: &str) -> bool {
        let mut local = self.local.values().flatten();
        local.any(|workload| workload.authorization_policies.iter().any(|key| *key == *policy))
    }

    fn remove_workload(&mut self, uid: &str) -> Option<Arc<Workload>> {
        let workload = self.workloads.remove(uid)?;
        for membership in workload.services.iter() {
            if let Some(members) = self.members.get_mut(&membership.service) {
                members.remove(uid);
                if members.is_empty() {
                    self.members.remove(&membership.service);
                }
            }
        }
        let key = (workload.namespace.clone(), workload.service_account.clone());
        if let Some(same) = self.local.get_mut(&key) {
            same.retain(|w| w.uid != workload.uid);
            if same.is_empty() {
                self.local.remove(&key);
            }
        }
        self.index.remove_workload(&workload);
        Some(workload)
    }

    pub(super) fn upsert_service(&mut self, service: Service) {
        let service = Arc::new(service);
        let before = self.services.insert(service.key(), service.clone());
        self.index.replace_service(before.as_ref(), Some(&service));
    }

    /// `name` is a workload's uid or a service's `namespace/hostname`. Returns a removed local workload.
    pub(super) fn remove_address(&mut self, name: &str) -> Option<Arc<Workload>> {
        if let Some(workload) = self.remove_workload(name) {
            self.drop_retained();
            // Only pods with HBONE are remembered, for an hour: see `departed`.
            self.departed.remember(&workload, Instant::now());
            self.give_memory_back();
            return Some(workload).filter(|w| self.is_local(w));
        }
        // A removal carries only a name. It was no workload's uid, so it is a service's key.
        // Neither: a name that was never sent, whose removal changes nothing.
        let key: NamespacedHostname = name.parse().ok()?;
        let before = self.services.remove(&key)?;
        self.index.replace_service(Some(&before), None);
        None
    }

    /// Shrinks the tables once most workloads of a large mesh were removed.
    fn give_memory_back(&mut self) {
        // Looked at only when the largest table shrinks; the others follow it.
        if shrink_sparse(&mut self.workloads) {
            shrink_sparse(&mut self.members);
            self.index.give_memory_back();
            // Strings that nobody holds any more lie between others, so that whole pages of memory stay in use.
            Text::sweep();
        }
    }

    pub(crate) fn workload(&self, uid: &str) -> Option<Arc<Workload>> {
        self.workloads.get(uid).cloned()
    }

    pub(crate) fn service(&self, key: &NamespacedHostname) -> Option<Arc<Service>> {
        self.services.get(key).cloned()
    }

    pub(super) fn local(&self, namespace: &str, name: &str, account: &str) -> Option<Arc<Workload>> {
        let same = self.local.get(&(Text::from(namespace), Text::from(account)))?;
        same.iter().find(|w| w.name == *name).cloned()
    }

    pub(super) fn has_local(&self, namespace: &Text, account: &Text, identity: &Identity) -> bool {
        let same = self.local.get(&(namespace.clone(), account.clone()));
        same.is_some_and(|same| same.iter().any(|w| w.trust_domain == *identity.trust_domain()))
    }

    /// All that name the service, healthy or not.
    pub(crate) fn members(&self, service: &NamespacedHostname) -> impl Iterator<Item = &Arc<Workload>> {
        self.members.get(service).into_iter().flat_map(|members| members.values())
    }

    pub(crate) fn workload_by_hostname(&self, hostname: &str) -> Option<Arc<Workload>> {
        // Gateways only, and rarely: no index.
        let named = self.workloads.values().filter(|w| w.hostname == *hostname);
        named.min_by(|a, b| a.uid.cmp(&b.uid)).cloned()
    }

    pub(super) fn is_network_gateway(&self, own: &Text, address: IpAddr) -> bool {
        let mut asked = BTreeSet::new();
        let remote = self.workloads.values().filter(|w| w.network != *own);
        remote.filter_map(|w| w.network_gateway.as_ref()).any(|gateway| match &gateway.destination {
            GatewayDestination::Address(there) => there.address == address,
            GatewayDestination::Hostname(name) => {
                // Many workloads have the same gateway: each is looked at once.
                asked.insert(name) && self.members(name).any(|w| w.workload_ips.contains(&address))
            }
        })
    }

    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.workloads.len(), self.services.len(), self.policies.by_key.len()]
    }

    pub(super) fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Members of services that did not arrive.
    pub(super) fn staged(&self) -> impl Iterator<Item = (&NamespacedHostname, &Members)> {
        self.members.iter().filter(|(key, _)| !self.services.contains_key(*key))
    }
}

impl Policies {
    pub(super) fn upsert(&mut self, policy: Authorization) {
        let key = policy.key();
        self.remove(&key);
        self.retained.remove(&key);
        match policy.scope {
            Scope::Global => self.by_namespace.entry(Text::default()).or_default().insert(key.clone()),
            Scope::Namespace => self.by_namespace.entry(policy.namespace.clone()).or_default().insert(key.clone()),
            // Applies only to workloads that name it.
            Scope::WorkloadSelector => false,
        };
        self.by_key.insert(key, Arc::new(policy));
    }

    /// An earlier version stays in force; without one the policy is remembered as missing.
    pub(super) fn refuse(&mut self, policy: RefusedPolicy) {
        // The earlier version stays in force; the NACK tells the sender.
        if !self.by_key.contains_key(&policy.key) {
            self.refused.insert(policy.key.clone(), policy);
        }
    }

    fn remove(&mut self, key: &str) -> Option<Arc<Authorization>> {
        self.refused.remove(key);
        let policy = self.by_key.remove(key)?;
        let namespace = match policy.scope {
            Scope::Global => "",
            Scope::Namespace => policy.namespace.as_str(),
            Scope::WorkloadSelector => return Some(policy),
        };
        if let Some(keys) = self.by_namespace.get_mut(namespace) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
        Some(policy)
    }

    /// Those that apply to `workload`, each once.
    pub(super) fn of(&self, workload: &Workload) -> Found {
        let mut keys: Vec<&Text> = Vec::new();
        for namespace in ["", workload.namespace.as_str()] {
            // Global ones are listed under the empty namespace.
            keys.extend(self.by_namespace.get(namespace).into_iter().flatten());
        }
        for key in &workload.authorization_policies {
            // A workload may name one that applies anyway. Few keys, so a scan is cheaper than a set.
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let mut unknown = Vec::new();
        let mut policies = Vec::with_capacity(keys.len());
        for key in keys {
            match self.by_key.get(key) {
                Some(policy) => policies.push(policy.clone()),
                // Listed below, by their scope and by name.
                None if self.refused.contains_key(key) => {}
                None => match self.retained.get(key) {
                    Some(policy) => policies.push(policy.clone()),
                    None => unknown.push(key.clone()),
                },
            }
        }
        let applies = |policy: &&RefusedPolicy| {
            policy.applies_in().is_some_and(|namespace| namespace.is_empty() || workload.namespace == *namespace)
                || workload.authorization_policies.contains(&policy.key)
        };
        let refused = self.refused.values().filter(applies).map(|policy| policy.key.clone()).collect();
        Found { policies, unknown, refused }
    }

    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }

    pub(super) fn retained(&self) -> usize {
        self.retained.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Authorization>> {
        self.by_key.values()
    }
}
