//! From what was acknowledged to the conditions that differ from those given out.

use graph::{ENFORCED, Scope};
use kube_api::core::Condition;
use kube_api::{Kind, ObjectRef};
use tokio::time::Instant;

use super::node::Node;
use super::proxy::Type;
use super::state::State;
use super::verdict::{ANSWERS_WITHIN, Obstacle, Standing, acknowledged};
use crate::conditions::Wanted;

impl State {
    /// The conditions that changed, and when to look again though nothing happens.
    pub(super) fn settle(&mut self, now: Instant) -> (Vec<Wanted>, Option<Instant>) {
        self.review();
        let (mut changed, mut deadline) = (Vec::new(), None);
        let mut rulings = std::mem::take(&mut self.rulings);
        for (policy, ruling) in &mut rulings {
            let standing = ruling.scope.as_ref().map(|scope| self.standing(policy, scope, now)).unwrap_or_default();
            let mut conditions = ruling.told.clone();
            for condition in conditions.iter_mut().filter(|condition| is_claim(condition)) {
                *condition = acknowledged(condition, &standing, now);
                let next = standing.waits.iter().map(|since| *since + ANSWERS_WITHIN).filter(|next| *next > now);
                deadline = next.chain(deadline).min();
            }
            if conditions != ruling.given {
                ruling.given.clone_from(&conditions);
                let current = ruling.current.clone();
                changed.push(Wanted { object: policy.clone(), conditions, current });
            }
        }
        rulings.retain(|_, ruling| !ruling.told.is_empty());
        self.rulings = rulings;
        (changed, deadline)
    }

    /// Looks at the nodes of which something changed.
    fn review(&mut self) {
        for name in std::mem::take(&mut self.dirty) {
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            for scope in node.scopes.drain(..) {
                if let Some(places) = self.places.get_mut(&scope) {
                    places.remove(&name);
                    if places.is_empty() {
                        self.places.remove(&scope);
                    }
                }
            }
            let places = node.review();
            node.scopes = places.keys().cloned().collect();
            for (scope, place) in places {
                self.places.entry(scope).or_default().insert(name.clone(), place);
            }
            if node.is_empty() {
                self.nodes.remove(&name);
            }
        }
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
