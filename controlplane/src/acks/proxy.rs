//! Acknowledgements of one connected node proxy. It knows no policies' statuses: see `changes`.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use graph::Placement;
use kube_types::ObjectRef;
use tokio::time::Instant;

use super::event::{Action, Type};

/// A resource by type and name.
pub(super) type Key = (Type, Arc<str>);

/// A connection of a node proxy. What it has acknowledged ends with it: the next one says what it holds.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) connected: Instant,
    /// Versions of policies that were acknowledged, until another one is sent.
    policies: HashMap<Arc<str>, Arc<str>>,
    /// Policies that the proxy refers to for each workload, by name of the workload, whatever became of responses in
    /// flight.
    links: HashMap<Arc<str>, Links>,
    /// Versions of workloads that the proxy holds and this replica has not served: not the newest, or another replica was
    /// faster. By name of the workload.
    unknown: HashMap<Arc<str>, Arc<str>>,
    /// Workloads of which it holds a version, or was sent one.
    addresses: HashSet<Arc<str>>,
    /// The newest response that each resource was in, until it is answered.
    in_flight: HashMap<Key, Sent>,
    refused: HashMap<Key, Refusal>,
}

#[derive(Debug)]
struct Sent {
    nonce: String,
    version: Arc<str>,
}

/// The answer to a version of a resource, or to the response that it was in.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    version: Arc<str>,
    /// Message of the proxy.
    pub(super) message: Arc<str>,
    /// The message names this resource. A response has many, and the proxy may have accepted some of them.
    pub(super) is_named: bool,
}

/// Policies that a workload's proxy certainly refers to.
#[derive(Debug)]
struct Links {
    /// Version of the workload that was acknowledged last.
    version: Arc<str>,
    policies: HashSet<ObjectRef>,
    /// `None` when it may be one or another.
    strictness: Option<Option<String>>,
}

impl Links {
    fn of(version: Arc<str>, placement: &Placement) -> Self {
        let policies = placement.policies.iter().cloned().collect();
        Self { version, policies, strictness: Some(placement.strictness.clone()) }
    }

    /// Another version is on its way: only what is in both is certain.
    fn narrow(&mut self, placement: &Placement) {
        self.policies.retain(|policy| placement.policies.contains(policy));
        if self.strictness.as_ref() != Some(&placement.strictness) {
            self.strictness = None;
        }
    }
}

impl Proxy {
    pub(super) fn new(connected: Instant) -> Self {
        let (policies, links, unknown) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (addresses, in_flight, refused) = (HashSet::new(), HashMap::new(), HashMap::new());
        Self { connected, policies, links, unknown, addresses, in_flight, refused }
    }

    /// A response with this version goes out; `placement` is what the version says, if it is an address and still served.
    pub(super) fn sent(&mut self, key: Key, nonce: &str, version: &Arc<str>, placement: Option<&Placement>) {
        match (key.0, placement) {
            // The proxy may apply the new version at any time from now on, so the old one is no longer certain.
            (Type::Authorization, _) => drop(self.policies.remove(&key.1)),
            (Type::Address, Some(placement)) => {
                if let Some(links) = self.links.get_mut(&key.1) {
                    links.narrow(placement);
                }
            }
            (Type::Address, None) => drop(self.links.remove(&key.1)),
        }
        if key.0 == Type::Address {
            self.unknown.remove(&key.1);
            self.addresses.insert(Arc::clone(&key.1));
        }
        // The refusal was of an earlier version.
        self.refused.remove(&key);
        self.in_flight.insert(key, Sent { nonce: nonce.to_owned(), version: Arc::clone(version) });
    }

    /// Takes what a response held out of flight: resources and versions.
    pub(super) fn answered(&mut self, kind: Type, nonce: &str) -> Vec<(Arc<str>, Arc<str>)> {
        let answered = self.in_flight.extract_if(|key, sent| key.0 == kind && sent.nonce == nonce);
        answered.map(|((_, name), sent)| (name, sent.version)).collect()
    }

    /// The proxy holds this version; `placement` as for [`Proxy::sent`].
    pub(super) fn holds(&mut self, kind: Type, name: Arc<str>, version: Arc<str>, placement: Option<&Placement>) {
        if kind == Type::Address {
            self.addresses.insert(Arc::clone(&name));
        }
        match (kind, placement) {
            (Type::Authorization, _) => drop(self.policies.insert(name, version)),
            (Type::Address, Some(placement)) => drop(self.links.insert(name, Links::of(version, placement))),
            // Nothing is certain of it until this replica serves it, too.
            (Type::Address, None) => drop(self.unknown.insert(name, version)),
        }
    }

    /// The proxy keeps what it had.
    pub(super) fn refused(&mut self, kind: Type, name: Arc<str>, version: Arc<str>, message: &Arc<str>) {
        // A NACK has one text for all resources of the response; ztunnel's names the ones that it refused.
        let is_named = message.contains(&*name);
        self.refused.insert((kind, name), Refusal { version, message: Arc::clone(message), is_named });
    }

    /// The resource is gone.
    pub(super) fn forget(&mut self, key: &Key) {
        match key.0 {
            Type::Authorization => drop(self.policies.remove(&key.1)),
            Type::Address => {
                self.links.remove(&key.1);
                self.unknown.remove(&key.1);
                self.addresses.remove(&key.1);
            }
        }
        self.in_flight.remove(key);
        self.refused.remove(key);
    }

    /// This replica serves this version of a workload now: if the proxy holds it, it is known what it refers to.
    pub(super) fn resolve(&mut self, name: &Arc<str>, version: &Arc<str>, placement: &Placement) {
        if self.unknown.get(name).is_some_and(|held| held == version) {
            self.unknown.remove(name);
            self.links.insert(Arc::clone(name), Links::of(Arc::clone(version), placement));
        }
    }

    /// Returns true if it has acknowledged this version, and was sent no other policy of this name since.
    pub(super) fn has(&self, kind: Type, name: &str, version: &str) -> bool {
        let held = match kind {
            Type::Authorization => self.policies.get(name),
            Type::Address => self.links.get(name).map(|links| &links.version),
        };
        held.is_some_and(|held| **held == *version)
    }

    /// Returns true if it holds the workload in any version, or is about to.
    pub(super) fn has_address(&self, name: &str) -> bool {
        self.addresses.contains(name)
    }

    /// Returns true if it knows the workload.
    pub(super) fn has_workload(&self, uid: &str) -> bool {
        self.links.contains_key(uid)
    }

    /// Returns true if it applies the policy to the workload.
    pub(super) fn refers_to(&self, uid: &str, policy: &ObjectRef) -> bool {
        self.links.get(uid).is_some_and(|links| links.policies.contains(policy))
    }

    /// Returns true if this resource makes it refuse plaintext to the workload; for `None`, if it accepts plaintext.
    pub(super) fn is_as_strict(&self, uid: &str, strictness: &Option<String>) -> bool {
        self.links.get(uid).is_some_and(|links| links.strictness.as_ref() == Some(strictness))
    }

    /// Reason why the proxy rejected this version, if it did.
    pub(super) fn refusal(&self, kind: Type, name: &Arc<str>, version: &str) -> Option<&Refusal> {
        self.refused.get(&(kind, Arc::clone(name))).filter(|refusal| *refusal.version == *version)
    }

    /// Actions that lead a new connection to the state of this one.
    pub(super) fn history(&self) -> Vec<Action> {
        let clone = |(name, version): (&Arc<str>, &Arc<str>)| (Arc::clone(name), Arc::clone(version));
        let policies = self.policies.iter().map(clone).collect();
        let links = self.links.iter().map(|(name, links)| (name, &links.version));
        let addresses = links.chain(&self.unknown).map(clone).collect();
        let mut history = vec![
            Action::Connected,
            Action::Holds { kind: Type::Authorization, resources: policies },
            Action::Holds { kind: Type::Address, resources: addresses },
        ];
        for ((kind, name), refusal) in &self.refused {
            // No response that is in flight has this nonce.
            let (kind, nonce) = (*kind, String::new());
            let resources = vec![(Arc::clone(name), Arc::clone(&refusal.version))];
            history.push(Action::Sent { kind, nonce: nonce.clone(), resources, removed: Vec::new() });
            history.push(Action::Nacked { kind, nonce, error: refusal.message.to_string() });
        }
        let mut in_flight: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((kind, name), sent) in &self.in_flight {
            let resources = in_flight.entry((*kind, &sent.nonce)).or_default();
            resources.push((Arc::clone(name), Arc::clone(&sent.version)));
        }
        history.extend(in_flight.into_iter().map(|((kind, nonce), resources)| Action::Sent {
            kind,
            nonce: nonce.clone(),
            resources,
            removed: Vec::new(),
        }));
        history
    }
}
