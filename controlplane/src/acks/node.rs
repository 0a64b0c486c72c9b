//! One node: its workloads, and how far its proxy has come with them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graph::{Placement, Scope};
use kube_types::{Kind, ObjectRef};
use tokio::time::Instant;
use xds_server::Versions;

use super::proxy::{Key, Proxy, Type};
use super::verdict::{ANSWERS_WITHIN, Obstacle};

#[derive(Debug, Default)]
pub(super) struct Node {
    /// By name of the resource.
    pub(super) workloads: Workloads,
    /// Connected proxies by the number of their connection.
    pub(super) proxies: BTreeMap<u64, Proxy>,
    /// Where something of this node was said last.
    pub(super) scopes: Vec<Scope>,
}

#[derive(Debug)]
pub(super) struct Workload {
    pub(super) placement: Placement,
    /// Of its resource; empty before there is one.
    pub(super) version: Arc<str>,
    /// When the version became what is served.
    pub(super) since: Instant,
}

/// The workloads of one scope on one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) workloads: usize,
    /// Of those, for which the proxy refers to the policies of the scope.
    pub(super) linked: usize,
    /// Of these, for which a later version is on its way, and since when the oldest is.
    pub(super) updating: usize,
    pub(super) updating_since: Option<Instant>,
    /// Policies that have to be there for it, beside the one that asks.
    pub(super) needs: BTreeSet<String>,
    /// The worst of what keeps the others from being linked.
    pub(super) obstacle: Option<Obstacle>,
}

impl Node {
    /// The newest connection is the node's proxy; one before it is about to end.
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
        (resources, removed): (&Versions, &[Arc<str>]),
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

    /// The workloads that are in the mesh, by scope.
    pub(super) fn review(&self) -> BTreeMap<Scope, Place> {
        let mut places: BTreeMap<Scope, Place> = BTreeMap::new();
        for (uid, workload) in self.workloads.iter().filter(|(_, workload)| workload.placement.in_mesh) {
            let Placement { namespace, policies, peers, strictness, .. } = &workload.placement;
            let wide = [Scope::Mesh, Scope::Namespace(namespace.clone())];
            let named = policies.iter().chain(peers).cloned().map(Scope::Named);
            for scope in wide.into_iter().chain(named) {
                let is_linked = self.proxy().is_some_and(|proxy| is_linked(proxy, uid, &scope, strictness));
                let needs = match &scope {
                    Scope::Named(policy) if policy.kind == Kind::PeerAuthentication => strictness.clone(),
                    Scope::Named(_) | Scope::Namespace(_) | Scope::Mesh => None,
                };
                let place = places.entry(scope).or_default();
                place.workloads += 1;
                place.needs.extend(needs);
                place.count(is_linked, self.behind(uid, workload));
            }
        }
        places
    }

    /// Why the proxy does not hold the newest version of a workload, if so.
    fn behind(&self, uid: &Arc<str>, workload: &Workload) -> Option<Obstacle> {
        let is_current = self.proxy().is_some_and(|proxy| proxy.has_version(uid, &workload.version));
        (!is_current).then(|| self.obstacle(Type::Address, uid, &workload.version, workload.since))
    }

    /// Why the proxy does not hold a version that is served since then.
    pub(super) fn obstacle(&self, kind: Type, name: &Arc<str>, version: &str, since: Instant) -> Obstacle {
        let Some(proxy) = self.proxy() else { return Obstacle::Gone };
        match proxy.refusal(kind, name, version) {
            Some(refusal) if refusal.is_named => Obstacle::Refused(Arc::clone(&refusal.message)),
            Some(refusal) => Obstacle::RefusedBeside(Arc::clone(&refusal.message)),
            None => Obstacle::waiting(since.max(proxy.connected)),
        }
    }
}

impl Place {
    /// Counts a workload. One that is only behind keeps what holds of it for a while.
    fn count(&mut self, is_linked: bool, behind: Option<Obstacle>) {
        match behind {
            None | Some(Obstacle::RefusedBeside(_)) if is_linked => self.linked += 1,
            Some(Obstacle::Waiting(Reverse(since))) if is_linked => {
                self.linked += 1;
                self.updating += 1;
                self.updating_since = self.updating_since.into_iter().chain([since]).min();
            }
            behind => self.obstacle = self.obstacle.take().max(behind),
        }
    }

    /// For how many workloads the policies of the scope are acknowledged at this time, and what is in the way of others.
    pub(super) fn at(&self, now: Instant) -> (usize, Option<Obstacle>) {
        let overdue = self.updating_since.filter(|since| now >= *since + ANSWERS_WITHIN);
        let lost = if overdue.is_some() { self.updating } else { 0 };
        (self.linked - lost, self.obstacle.clone().max(overdue.map(Obstacle::waiting)))
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

/// What a version of a workload of this node says, if it is still the one that is served.
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
