//! Resources that were sent to proxies and acknowledged by them. The conditions that follow: see `changes`.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use compile::Update;
use graph::{ObjectStatus, Placement, PolicyState, Scope};
use kube_types::core::Condition;
use kube_types::{ClusterId, Kind, ObjectRef};
use proto::Change;
use tokio::sync::mpsc;
use tokio::time::Instant;
use xds_server::Report;

use super::event::{Event, Origin};
use super::node::{Count, Node, Workload};
use crate::conditions::StatusUpdate;

#[derive(Debug, Default)]
pub(super) struct State {
    /// The cluster of the objects, as the last update named it.
    pub(super) cluster: ClusterId,
    /// The policies that are served, by name of the resource.
    pub(super) served: HashMap<Arc<str>, Served>,
    pub(super) nodes: HashMap<String, Node>,
    /// Node of each pod, and name of the pod's resource.
    located: HashMap<ObjectRef, (String, Arc<str>)>,
    pub(super) policies: BTreeMap<ObjectRef, Policy>,
    /// Statuses of other objects to publish: they need no acknowledgement. The newest of each object.
    pub(super) statuses: BTreeMap<ObjectRef, StatusUpdate>,
    /// The workloads of each scope, by node.
    pub(super) counts: HashMap<Scope, BTreeMap<String, Count>>,
    /// Nodes of which something changed since the last look.
    pub(super) dirty: BTreeSet<String>,
    /// Policies of which something changed since the last look, wherever their workloads are.
    pub(super) touched: BTreeSet<ObjectRef>,
    /// Other replicas, which receive what happens here.
    followers: Vec<mpsc::Sender<Event>>,
}

#[derive(Debug)]
pub(super) struct Served {
    pub(super) version: Arc<str>,
    pub(super) since: Instant,
}

/// A policy and its conditions.
#[derive(Debug, Default)]
pub(super) struct Policy {
    /// State of the policy as proxies are sent it; `None` when the policy is gone.
    pub(super) state: Option<PolicyState>,
    /// The conditions read from the object.
    pub(super) current: Vec<Condition>,
    /// The conditions that were published last.
    pub(super) published: Vec<Condition>,
    /// Time at which the conditions may change though nothing happens.
    pub(super) deadline: Option<Instant>,
}

impl State {
    /// Records an update that proxies are about to be sent; `current` are statuses of objects as read.
    pub(super) fn on_update(&mut self, update: &Update, current: &HashMap<ObjectRef, ObjectStatus>, now: Instant) {
        self.cluster.clone_from(&update.cluster);
        for change in &update.authorizations {
            self.touch(change.name());
            match change {
                Change::Upsert { name, version, .. } => {
                    let served = Served { version: version.as_str().into(), since: now };
                    self.served.insert(name.as_str().into(), served);
                }
                // The proxies hold it until they are told: it may be back before.
                Change::Remove { name } => drop(self.served.remove(name.as_str())),
            }
        }
        let upserts = update.addresses.iter().filter_map(|change| match change {
            Change::Upsert { name, version, .. } => Some((name.as_str(), version.as_str())),
            Change::Remove { .. } => None,
        });
        // A placement without a version here is one whose resource did not change: the proxy holds what it held.
        let versions: HashMap<_, _> = upserts.collect();
        for (pod, placement) in &update.placements {
            let version = placement.as_ref().and_then(|placement| versions.get(placement.uid.as_str()));
            self.set_placement(pod, placement.clone(), version.copied(), now);
        }
        for (object, state) in &update.policies {
            let policy = self.policies.entry(object.clone()).or_default();
            policy.state.clone_from(state);
            policy.current = current.get(object).map(|current| current.conditions.clone()).unwrap_or_default();
            self.touched.insert(object.clone());
        }
        for (object, status) in &update.statuses {
            let current = current.get(object).cloned().unwrap_or_default();
            let (cluster, status) = (update.cluster.clone(), status.clone());
            self.statuses.insert(object.clone(), StatusUpdate { cluster, object: object.clone(), status, current });
        }
    }

    /// A resource is another one, or gone: the policy that it is made of, or any PeerAuthentication that needs it.
    fn touch(&mut self, resource: &str) {
        let own = resource
            .split_once('/')
            .map(|(namespace, name)| ObjectRef::new(Kind::AuthorizationPolicy, namespace, name));
        match own.filter(|own| self.policies.contains_key(own)) {
            Some(own) => drop(self.touched.insert(own)),
            None => {
                // Any of them may need the resource, and there are few: which ones need it is not kept.
                let peers = self.policies.keys().filter(|policy| policy.kind == Kind::PeerAuthentication);
                self.touched.extend(peers.cloned());
            }
        }
    }

    /// Records where a pod is now. Without a version its resource is what it was.
    fn set_placement(&mut self, pod: &ObjectRef, placement: Option<Placement>, version: Option<&str>, now: Instant) {
        let old = self.remove_pod(pod);
        let Some(placement) = placement else { return };
        let (version, since) = match (version, old) {
            (Some(version), _) => (version.into(), now),
            (None, Some(old)) => (old.version, old.since),
            (None, None) => (Arc::from(""), now),
        };
        let (uid, name) = (Arc::<str>::from(placement.uid.as_str()), placement.node.clone());
        let workload = Workload { placement, version, since };
        self.nodes.entry(name.clone()).or_default().set_workload(Arc::clone(&uid), workload);
        self.dirty.insert(name.clone());
        self.located.insert(pod.clone(), (name, uid));
    }

    /// Removes a pod from its node. What a proxy holds of it stays until its removal is sent.
    fn remove_pod(&mut self, pod: &ObjectRef) -> Option<Workload> {
        let (name, uid) = self.located.remove(pod)?;
        let workload = self.nodes.get_mut(&name)?.workloads.remove(&uid);
        self.dirty.insert(name);
        workload
    }

    /// Records what a proxy of this replica did, and passes it on to the others; true when that may change a condition.
    pub(super) fn on_report(&mut self, report: &Report, now: Instant) -> bool {
        // By the node of the token, not by what the proxy says of itself: a proxy acknowledges for its own node only.
        let node = self.nodes.get(&report.peer().caller.node);
        let event = Event::of(report, |kind, name| node.is_some_and(|node| node.remembers(kind, name)));
        let Some(event) = event.filter(|event| self.on_event(&Origin::Here, event, now)) else { return false };
        // One that is full or gone is dropped; its end makes the other replica begin anew.
        self.followers.retain(|follower| follower.try_send(event.clone()).is_ok());
        true
    }

    /// Records what happened on a connection; true when that may change a condition.
    pub(super) fn on_event(&mut self, origin: &Origin, event: &Event, now: Instant) -> bool {
        let node = self.nodes.entry(event.node.clone()).or_default();
        let matters = node.on_event(origin, event.connection, &event.action, now);
        if matters || node.is_empty() {
            self.dirty.insert(event.node.clone());
        }
        matters
    }

    /// Events that lead to the state of the proxies of this replica; those from now on go to `events`, which ends when it is full.
    pub(super) fn follow(&mut self, events: mpsc::Sender<Event>) -> Vec<Event> {
        self.followers.push(events);
        let history = self.nodes.iter().flat_map(|(node, state)| {
            let event = |(connection, action)| Event { node: node.clone(), connection, action };
            state.history().map(event)
        });
        history.collect()
    }

    /// Forgets the proxies of another replica: nothing is known of them any more.
    pub(super) fn forget_replica(&mut self, origin: &Origin) {
        for (name, node) in &mut self.nodes {
            if node.proxies.remove(origin).is_some() {
                self.dirty.insert(name.clone());
            }
        }
    }
}
