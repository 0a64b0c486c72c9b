//! One node: its workloads, and which of them its proxy has acknowledged.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graph::{Placement, Scope};
use kube_types::{Kind, ObjectRef};
use tokio::time::Instant;

use super::event::{Action, Origin, Type};
use super::proxy::{Proxy, Refusal};
use super::unacked::{ANSWERS_WITHIN, Unacked};

#[derive(Debug, Default)]
pub(super) struct Node {
    /// Workloads by name of the resource.
    pub(super) workloads: Workloads,
    /// Connected proxies by replica and number of the connection.
    pub(super) proxies: BTreeMap<Origin, BTreeMap<u64, Proxy>>,
    /// Scopes that had workloads here at the last look.
    pub(super) scopes: Vec<Scope>,
}

#[derive(Debug)]
pub(super) struct Workload {
    pub(super) placement: Placement,
    /// Version of its resource; empty before there is one.
    pub(super) version: Arc<str>,
    /// Time since which this version is served.
    pub(super) since: Instant,
}

/// The workloads of one scope on one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    pub(super) workloads: usize,
    /// Number of those for which the proxy applies the policies of the scope.
    pub(super) linked: usize,
    /// Number of the linked ones for which a later version is on its way, and the time since which the oldest is.
    pub(super) updating: usize,
    pub(super) updating_since: Option<Instant>,
    /// Policies that have to be there for it, beside the one that asks.
    pub(super) needs: BTreeSet<String>,
    /// The worst reason why the others are not linked.
    pub(super) unacked: Option<Unacked>,
}

impl Node {
    /// The newest connection of each replica: one before it is about to end. Between replicas there is no order, so what
    /// counts has to be true of all of them: a replica may not have noticed yet that its proxy is gone.
    // While a new ztunnel takes over, both are connected; the numbers of connections only grow.
    fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.values().filter_map(|connections| connections.values().next_back())
    }

    /// Returns true if a proxy is connected, and this is true of it.
    fn is_confirmed(&self, is_true: impl Fn(&Proxy) -> bool) -> bool {
        self.proxies().next().is_some() && self.proxies().all(is_true)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workloads.is_empty() && self.proxies.is_empty()
    }

    /// Returns true if something is remembered of this resource: of every policy, of the workloads of this node, and of what
    /// a proxy holds.
    pub(super) fn remembers(&self, kind: Type, name: &str) -> bool {
        let mut proxies = self.proxies.values().flat_map(BTreeMap::values);
        kind == Type::Authorization || self.workloads.contains_key(name) || proxies.any(|proxy| proxy.has_address(name))
    }

    /// Takes what happened on a connection; true when that may change a condition.
    pub(super) fn on_event(&mut self, origin: &Origin, connection: u64, action: &Action, now: Instant) -> bool {
        let Self { workloads, proxies, .. } = self;
        match action {
            Action::Connected => {
                proxies.entry(origin.clone()).or_default().insert(connection, Proxy::new(now));
                return true;
            }
            Action::Disconnected => {
                if let Some(connections) = proxies.get_mut(origin) {
                    connections.remove(&connection);
                    if connections.is_empty() {
                        proxies.remove(origin);
                    }
                }
                return true;
            }
            Action::Holds { .. } | Action::Sent { .. } | Action::Acked { .. } | Action::Nacked { .. } => {}
        }
        let proxy = proxies.get_mut(origin).and_then(|connections| connections.get_mut(&connection));
        let Some(proxy) = proxy else { return false };
        match action {
            Action::Connected | Action::Disconnected => true,
            Action::Holds { kind, resources } => {
                for (name, version) in resources {
                    let placement = placement(workloads, *kind, name, version);
                    proxy.holds(*kind, Arc::clone(name), Arc::clone(version), placement);
                }
                true
            }
            Action::Sent { kind, nonce, resources, removed } => {
                for (name, version) in resources {
                    let placement = placement(workloads, *kind, name, version);
                    proxy.sent((*kind, Arc::clone(name)), nonce, version, placement);
                }
                removed.iter().for_each(|name| proxy.forget(&(*kind, Arc::clone(name))));
                true
            }
            Action::Acked { kind, nonce } => {
                let answered = proxy.answered(*kind, nonce);
                let matters = !answered.is_empty();
                for (name, version) in answered {
                    let placement = placement(workloads, *kind, &name, &version);
                    proxy.holds(*kind, name, version, placement);
                }
                matters
            }
            Action::Nacked { kind, nonce, error } => {
                let (answered, error) = (proxy.answered(*kind, nonce), Arc::from(error.as_str()));
                let matters = !answered.is_empty();
                answered.into_iter().for_each(|(name, version)| proxy.refused(*kind, name, version, &error));
                matters
            }
        }
    }

    /// Puts a workload here, in the version that is served from now on or since earlier.
    pub(super) fn set_workload(&mut self, uid: Arc<str>, workload: Workload) {
        for proxy in self.proxies.values_mut().flat_map(BTreeMap::values_mut) {
            // Another replica may have sent it before this one knew of it.
            proxy.resolve(&uid, &workload.version, &workload.placement);
        }
        self.workloads.insert(uid, workload);
    }

    /// Actions, by connection, that lead from nothing to the state of the proxies of this replica.
    pub(super) fn history(&self) -> impl Iterator<Item = (u64, Action)> {
        let connections = self.proxies.get(&Origin::Here).into_iter().flatten();
        connections.flat_map(|(connection, proxy)| proxy.history().into_iter().map(|action| (*connection, action)))
    }

    /// Counts the workloads that are in the mesh, by scope.
    pub(super) fn count_workloads(&self) -> BTreeMap<Scope, Count> {
        let mut counts: BTreeMap<Scope, Count> = BTreeMap::new();
        for (uid, workload) in self.workloads.iter().filter(|(_, workload)| workload.placement.in_mesh) {
            let Placement { namespace, policies, peers, strictness, .. } = &workload.placement;
            // A policy without a selector applies to workloads that do not name it.
            let wide = [Scope::Mesh, Scope::Namespace(namespace.clone())];
            let named = policies.iter().chain(peers).cloned().map(Scope::Named);
            for scope in wide.into_iter().chain(named) {
                let is_linked = self.is_confirmed(|proxy| is_linked(proxy, uid, &scope, strictness));
                // STRICT is a policy of its own that a workload refers to; the condition depends on that one too.
                let needs = match &scope {
                    Scope::Named(policy) if policy.kind == Kind::PeerAuthentication => strictness.clone(),
                    Scope::Named(_) | Scope::Namespace(_) | Scope::Mesh => None,
                };
                let count = counts.entry(scope).or_default();
                count.workloads += 1;
                count.needs.extend(needs);
                count.add(is_linked, self.unacked(Type::Address, uid, &workload.version, workload.since));
            }
        }
        counts
    }

    /// Reason why a version that is served since then is not acknowledged, if so.
    pub(super) fn unacked(&self, kind: Type, name: &Arc<str>, version: &str, since: Instant) -> Option<Unacked> {
        let lacks = |proxy: &&Proxy| !proxy.has(kind, name, version);
        let reason = |proxy: &Proxy| match proxy.refusal(kind, name, version) {
            // A NACK refuses a response, which has many resources. Only of one that the message names is it certain
            // that it was refused.
            Some(Refusal { is_named: true, message, .. }) => Unacked::Rejected(Arc::clone(message)),
            Some(Refusal { message, .. }) => Unacked::RejectedInBatch(Arc::clone(message)),
            // A proxy that has just connected has not had the time since the version is served.
            None => Unacked::waiting(since.max(proxy.connected)),
        };
        match self.proxies().next() {
            None => Some(Unacked::Disconnected),
            Some(_) => self.proxies().filter(lacks).map(reason).max(),
        }
    }
}

impl Count {
    /// Counts a workload. One whose proxy has the policies and waits for a later version counts as linked for a while.
    fn add(&mut self, is_linked: bool, behind: Option<Unacked>) {
        match behind {
            None | Some(Unacked::RejectedInBatch(_)) if is_linked => self.linked += 1,
            Some(Unacked::Waiting(Reverse(since))) if is_linked => {
                self.linked += 1;
                self.updating += 1;
                self.updating_since = self.updating_since.into_iter().chain([since]).min();
            }
            behind => self.unacked = self.unacked.take().max(behind),
        }
    }

    /// Number of workloads for which the policies of the scope are acknowledged at this time, and the worst reason why they
    /// are not for the others.
    pub(super) fn at(&self, now: Instant) -> (usize, Option<Unacked>) {
        let overdue = self.updating_since.filter(|since| now >= *since + ANSWERS_WITHIN);
        let lost = if overdue.is_some() { self.updating } else { 0 };
        (self.linked - lost, self.unacked.clone().max(overdue.map(Unacked::waiting)))
    }
}

type Workloads = HashMap<Arc<str>, Workload>;

/// Placement of a workload of this node in a version, if that is still the one that is served.
fn placement<'a>(workloads: &'a Workloads, kind: Type, name: &str, version: &str) -> Option<&'a Placement> {
    let workload = workloads.get(name).filter(|_| kind == Type::Address)?;
    (*workload.version == *version).then_some(&workload.placement)
}

fn is_linked(proxy: &Proxy, uid: &str, scope: &Scope, strictness: &Option<String>) -> bool {
    match scope {
        Scope::Mesh | Scope::Namespace(_) => proxy.has_workload(uid),
        Scope::Named(ObjectRef { kind: Kind::PeerAuthentication, .. }) => proxy.is_as_strict(uid, strictness),
        Scope::Named(policy) => proxy.refers_to(uid, policy),
    }
}
