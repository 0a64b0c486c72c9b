//! One node: its workloads, and which of them its proxy has acknowledged.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graph::{Placement, Scope};
use kube_types::{Kind, ObjectRef};
use tokio::time::Instant;
use xds_server::Versions;

use super::proxy::{Key, Proxy, Type};
use super::unacked::{ANSWERS_WITHIN, Unacked};

#[derive(Debug, Default)]
pub(super) struct Node {
    /// Workloads by name of the resource.
    pub(super) workloads: Workloads,
    /// Connected proxies by the number of their connection.
    pub(super) proxies: BTreeMap<u64, Proxy>,
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
    /// The newest connection is the node's proxy; one before it is about to end.
    // While a new ztunnel takes over, both are connected; the numbers of connections only grow.
    pub(super) fn proxy(&self) -> Option<&Proxy> {
        self.proxies.values().next_back()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workloads.is_empty() && self.proxies.is_empty()
    }

    /// A resource is gone.
    pub(super) fn forget(&mut self, key: &Key) {
        self.proxies.values_mut().for_each(|proxy| proxy.forget(key));
    }

    /// A proxy says what it holds; true when anything of it matters here, as for the others.
    pub(super) fn holds(&mut self, connection: u64, kind: Type, resources: &Versions) -> bool {
        let Self { workloads, proxies, .. } = self;
        let Some(proxy) = proxies.get_mut(&connection) else { return false };
        let mut matters = false;
        for (name, version) in resources.iter().filter(|(name, _)| is_ours(workloads, kind, name)) {
            proxy.holds(kind, Arc::clone(name), Arc::clone(version), placement(workloads, kind, name, version));
            matters = true;
        }
        matters
    }

    /// A proxy is sent these resources, and told that others are gone.
    pub(super) fn sent(
        &mut self,
        connection: u64,
        kind: Type,
        nonce: &str,
        resources: &Versions,
        removed: &[Arc<str>],
    ) -> bool {
        let Self { workloads, proxies, .. } = self;
        let Some(proxy) = proxies.get_mut(&connection) else { return false };
        let mut matters = false;
        for (name, version) in resources.iter().filter(|(name, _)| is_ours(workloads, kind, name)) {
            proxy.sent((kind, Arc::clone(name)), nonce, version, placement(workloads, kind, name, version));
            matters = true;
        }
        for name in removed.iter().filter(|name| is_ours(workloads, kind, name)) {
            proxy.forget(&(kind, Arc::clone(name)));
            matters = true;
        }
        matters
    }

    /// A proxy has answered a response, with an error when it refused it.
    pub(super) fn answered(&mut self, connection: u64, kind: Type, nonce: &str, error: Option<&str>) -> bool {
        let Self { workloads, proxies, .. } = self;
        let Some(proxy) = proxies.get_mut(&connection) else { return false };
        let (answered, error) = (proxy.answered(kind, nonce), error.map(Arc::from));
        let matters = !answered.is_empty();
        for (name, version) in answered {
            match &error {
                None => {
                    let placement = placement(workloads, kind, &name, &version);
                    proxy.holds(kind, name, version, placement);
                }
                Some(error) => proxy.refused(kind, name, version, error),
            }
        }
        matters
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
                let is_linked = self.proxy().is_some_and(|proxy| is_linked(proxy, uid, &scope, strictness));
                // STRICT is a policy of its own that a workload refers to; the condition depends on that one too.
                let needs = match &scope {
                    Scope::Named(policy) if policy.kind == Kind::PeerAuthentication => strictness.clone(),
                    Scope::Named(_) | Scope::Namespace(_) | Scope::Mesh => None,
                };
                let count = counts.entry(scope).or_default();
                count.workloads += 1;
                count.needs.extend(needs);
                count.add(is_linked, self.behind(uid, workload));
            }
        }
        counts
    }

    /// Reason why the proxy does not hold the newest version of a workload, if so.
    fn behind(&self, uid: &Arc<str>, workload: &Workload) -> Option<Unacked> {
        let is_current = self.proxy().is_some_and(|proxy| proxy.has_version(uid, &workload.version));
        (!is_current).then(|| self.unacked(Type::Address, uid, &workload.version, workload.since))
    }

    /// Reason why the proxy does not hold a version that is served since then.
    pub(super) fn unacked(&self, kind: Type, name: &Arc<str>, version: &str, since: Instant) -> Unacked {
        let Some(proxy) = self.proxy() else { return Unacked::Disconnected };
        match proxy.refusal(kind, name, version) {
            // A NACK refuses a response, which has many resources. Only of one that the message names is it certain
            // that it was refused.
            Some(refusal) if refusal.is_named => Unacked::Rejected(Arc::clone(&refusal.message)),
            Some(refusal) => Unacked::RejectedInBatch(Arc::clone(&refusal.message)),
            // A proxy that has just connected has not had the time since the version is served.
            None => Unacked::waiting(since.max(proxy.connected)),
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

/// Every policy, and the workloads of this node: nothing else is remembered of a proxy.
fn is_ours(workloads: &Workloads, kind: Type, name: &str) -> bool {
    match kind {
        Type::Authorization => true,
        Type::Address => workloads.contains_key(name),
    }
}

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
