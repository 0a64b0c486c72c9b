//! From what was acknowledged to the conditions that differ from those given out.

use std::collections::BTreeSet;

use graph::{ENFORCED, Scope};
use kube_types::core::Condition;
use kube_types::{Kind, ObjectRef};
use tokio::time::Instant;

use super::node::Node;
use super::proxy::Type;
use super::state::{Ruling, State};
use super::verdict::{ANSWERS_WITHIN, Obstacle, Standing, acknowledged};
use crate::conditions::Wanted;

impl State {
    /// The conditions that changed, and when to look again though nothing happens.
    pub(super) fn settle(&mut self, now: Instant) -> (Vec<Wanted>, Option<Instant>) {
        let outdated = self.outdated(now);
        let mut changed = Vec::new();
        let mut rulings = std::mem::take(&mut self.rulings);
        for policy in outdated {
            let Some(ruling) = rulings.get_mut(&policy) else { continue };
            let standing = ruling.scope.as_ref().map(|scope| self.standing(&policy, scope, now)).unwrap_or_default();
            let mut conditions = ruling.told.clone();
            ruling.next = None;
            for condition in conditions.iter_mut().filter(|condition| is_claim(condition)) {
                *condition = acknowledged(condition, &standing, now);
                let next = standing.waits.iter().map(|since| *since + ANSWERS_WITHIN).filter(|next| *next > now);
                ruling.next = next.min();
            }
            if conditions != ruling.given {
                ruling.given.clone_from(&conditions);
                let current = ruling.current.clone();
                changed.push(Wanted { object: policy, conditions, current });
            }
        }
        rulings.retain(|_, ruling| !ruling.told.is_empty());
        let deadline = rulings.values().filter_map(|ruling| ruling.next).min();
        self.rulings = rulings;
        (changed, deadline)
    }

    /// Policies whose conditions may differ from those given out: what they say or what is served of them changed, a
    /// workload that they are for is on a node of which something changed, or a deadline has passed.
    pub(super) fn outdated(&mut self, now: Instant) -> Vec<ObjectRef> {
        let (scopes, touched) = (self.review(), std::mem::take(&mut self.touched));
        let is_outdated = |(policy, ruling): &(&ObjectRef, &Ruling)| {
            touched.contains(*policy)
                || ruling.scope.as_ref().is_some_and(|scope| scopes.contains(scope))
                || ruling.next.is_some_and(|next| next <= now)
        };
        self.rulings.iter().filter(is_outdated).map(|(policy, _)| policy.clone()).collect()
    }

    /// Looks at the nodes of which something changed, and returns the scopes that have workloads there, or had.
    fn review(&mut self) -> BTreeSet<Scope> {
        let mut scopes = BTreeSet::new();
        for name in std::mem::take(&mut self.dirty) {
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            for scope in node.scopes.drain(..) {
                if let Some(places) = self.places.get_mut(&scope) {
                    places.remove(&name);
                    if places.is_empty() {
                        self.places.remove(&scope);
                    }
                }
                scopes.insert(scope);
            }
            let places = node.review();
            node.scopes = places.keys().cloned().collect();
            scopes.extend(node.scopes.iter().cloned());
            for (scope, place) in places {
                self.places.entry(scope).or_default().insert(name.clone(), place);
            }
            if node.is_empty() {
                self.nodes.remove(&name);
            }
        }
        scopes
    }

    fn standing(&self, policy: &ObjectRef, scope: &Scope, now: Instant) -> Standing {
        let mut standing = Standing::default();
        let own = (policy.kind == Kind::AuthorizationPolicy).then(|| policy.path());
        for (name, place) in self.places.get(scope).into_iter().flatten() {
            let Some(node) = self.nodes.get(name) else { continue };
            let missing = own.iter().chain(&place.needs).filter_map(|needed| self.missing(node, needed, now)).max();
            let (acknowledged, obstacle) = place.at(now);
            standing.workloads += place.workloads;
            if missing.is_none() {
                standing.acknowledged += acknowledged;
            }
            standing.waits.extend(place.updating_since);
            if let Some(obstacle) = missing.max(obstacle) {
                standing.waits.extend(obstacle.since());
                standing.obstacles.insert(name.clone(), obstacle);
            }
        }
        standing
    }

    /// What keeps the proxy of a node from having a policy as it is served, if anything.
    fn missing(&self, node: &Node, needed: &str, now: Instant) -> Option<Obstacle> {
        let Some((name, served)) = self.served.get_key_value(needed) else {
            return Some(Obstacle::waiting(now));
        };
        if node.proxy().is_some_and(|proxy| proxy.has_policy(name, &served.version)) {
            return None;
        }
        Some(node.obstacle(Type::Authorization, name, &served.version, served.since))
    }
}

/// Does it say that something is enforced?
fn is_claim(condition: &Condition) -> bool {
    condition.r#type == ENFORCED && condition.status == "True"
}
