//! Policies: the rules that each becomes, its findings, and the facts from which its state follows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube_types::core::Condition;
use kube_types::istio::{Action, AuthorizationPolicy};
use kube_types::{Kind, ObjectRef, Resource, StringMap};

use super::Graph;
use super::coverage::CoverageIndex;
use super::settle::Output;
use crate::analysis::{self, Rules, Tallies};
use crate::authorization::{self, Converted};
use crate::enforcement::{Details, Effect};
use crate::finding::Finding;
use crate::mesh::Mesh;
use crate::peer_authentication::{self, Precedence};
use crate::resolved::Resolved;

/// Facts about the policies that are derived from them and from the workloads that they are for.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// AuthorizationPolicies as node proxies enforce them.
    enforceable: HashMap<ObjectRef, Enforceable>,
    /// Policies for all workloads of a namespace, by namespace, for which it depends on the workload whether they can match.
    varying: HashMap<String, BTreeSet<ObjectRef>>,
    /// Policies that select no workload.
    pub(super) idle: BTreeSet<ObjectRef>,
    pub(super) facts: HashMap<ObjectRef, PolicyFacts>,
    /// Number of workloads that each policy is for.
    pub(super) coverage: CoverageIndex,
}

/// An AuthorizationPolicy as node proxies enforce it.
#[derive(Debug)]
pub(super) struct Enforceable {
    converted: Converted,
    /// Its rules, prepared for the question whether they can match.
    pub(super) rules: Rules,
}

/// Facts about a policy that do not depend on the workloads that it selects.
#[derive(Debug)]
pub(super) struct PolicyFacts {
    pub(super) accepted: Vec<Condition>,
    pub(super) effect: Effect,
    pub(super) details: Details,
}

impl Policies {
    pub(super) fn enforceable(&self, policy: &ObjectRef) -> Option<&Enforceable> {
        self.enforceable.get(policy)
    }

    /// Policies for all workloads of a namespace, for which it depends on the workload whether they can match.
    pub(super) fn varying_in(&self, namespace: &str) -> impl Iterator<Item = &ObjectRef> {
        self.varying.get(namespace).into_iter().flatten()
    }

    /// Converts a policy, `None` when it is gone. Returns true if it depends, or depended, on the workload whether it can
    /// match.
    pub(super) fn convert(&mut self, mesh: &Mesh, key: &ObjectRef, policy: Option<&AuthorizationPolicy>) -> bool {
        let varied = self.enforceable.remove(key).is_some_and(|own| own.rules.varies);
        // The old form goes out whatever the new one is: the policy may have got a selector, which is indexed
        // elsewhere.
        if varied && let Some(varying) = self.varying.get_mut(&key.namespace) {
            varying.remove(key);
            if varying.is_empty() {
                self.varying.remove(&key.namespace);
            }
        }
        let Some(policy) = policy else { return varied };
        let converted = authorization::convert(mesh, key, policy);
        let rules = Rules::new(&converted.rules, &mesh.trust_domain);
        let varies = rules.varies;
        // Policies with a selector are found by it; only those without one need an index of their own.
        if varies && authorization::selector(policy).is_none() {
            self.varying.entry(key.namespace.clone()).or_default().insert(key.clone());
        }
        self.enforceable.insert(key.clone(), Enforceable { converted, rules });
        varied || varies
    }
}

impl Graph {
    /// Resolves a policy and analyses it; the facts for its state are kept.
    pub(super) fn policy_output(&mut self, key: &ObjectRef) -> Output {
        let output = if key.kind == Kind::PeerAuthentication { self.peer(key) } else { self.authorization(key) };
        let Some((output, facts)) = output else {
            // The policy is gone. Its state is reported as gone by `report_states`, which finds no facts.
            self.policies.facts.remove(key);
            self.policies.idle.remove(key);
            return Output::default();
        };
        // Kept by itself: when labels of pods change, these are the policies whose findings may.
        if self.coverage(key).selected == 0 {
            self.policies.idle.insert(key.clone());
        } else {
            self.policies.idle.remove(key);
        }
        self.policies.facts.insert(key.clone(), facts);
        output
    }

    fn authorization(&self, key: &ObjectRef) -> Option<(Output, PolicyFacts)> {
        let policy = self.objects.policies.get(&key.namespace, &key.name)?;
        let own = self.policies.enforceable(key)?;
        let Enforceable { converted, .. } = own;
        let resolved = match &converted.policy {
            Some(converted) => Resolved::Policy(converted.clone()),
            None if authorization::is_for_services(policy) => {
                Resolved::Routing(Resource::AuthorizationPolicy(Arc::clone(policy)))
            }
            None => Resolved::Nothing,
        };
        let mut output = Output { resolved, findings: converted.findings.clone(), ..Output::default() };
        let mut facts = PolicyFacts {
            accepted: converted.accepted.clone(),
            effect: converted.effect.clone(),
            details: Details {
                is_allow: policy.spec.action == Action::Allow,
                is_wide: authorization::selector(policy).is_none(),
                ..Details::default()
            },
        };
        // A policy that is not for node proxies has one finding that says so; details of its rules would only distract
        // from it.
        if converted.policy.is_some() {
            let review = self.review(key, policy, own);
            facts.effect = review.refine(facts.effect);
            facts.details.unmatched = review.unmatched();
            output.findings.extend(review.findings);
            facts.details.idle = self.review_subject(key, authorization::selector(policy), &mut output.findings);
        }
        Some((output, facts))
    }

    /// Analyses the rules of a policy: which of them can match.
    fn review(&self, key: &ObjectRef, policy: &AuthorizationPolicy, own: &Enforceable) -> analysis::Review {
        // The conversion gives no rule for one that it leaves out, in its place.
        let left_out = own.converted.rules.iter().enumerate().filter(|(_, rules)| rules.is_empty());
        let left_out: Vec<_> = left_out.map(|(index, _)| index).collect();
        let none = Tallies::new();
        let context = analysis::Context {
            world: &self.world,
            tallies: self.policies.coverage.tallies(key).unwrap_or(&none),
            rules: &own.rules,
            left_out: &left_out,
            is_dry_run: matches!(own.converted.effect, Effect::Logged),
        };
        analysis::authorization(key, policy, &context)
    }

    /// Returns the reason why a policy selects nothing when that looks like a mistake, and adds the finding.
    fn review_subject(
        &self,
        key: &ObjectRef,
        selector: Option<&StringMap>,
        findings: &mut Vec<Finding>,
    ) -> Option<String> {
        // The search below costs as much as the labels of the namespace, and a policy with a workload needs no
        // explanation.
        if self.coverage(key).selected > 0 {
            return None;
        }
        // A policy of the root namespace selects in all namespaces.
        let namespace = Some(key.namespace.as_str()).filter(|namespace| *namespace != self.mesh.root_namespace);
        let could_match = || selector.is_some_and(|selector| self.objects.has_pod_with(namespace, selector));
        let (finding, why) = analysis::subject(key, selector, &self.world, could_match)?;
        findings.push(finding);
        Some(why)
    }

    fn peer(&self, key: &ObjectRef) -> Option<(Output, PolicyFacts)> {
        let policy = self.peer_of(key)?;
        let peers = &self.objects.peers;
        let inherited = peer_authentication::inherited(&self.mesh, peers, &key.namespace);
        let precedence = match peer_authentication::older(&self.mesh, peers, policy) {
            Some(older) => Precedence::Shadowed(older),
            None => Precedence::First,
        };
        let (effect, losses) = peer_authentication::effect(&self.mesh, policy, precedence);
        let mut findings: Vec<_> =
            losses.into_iter().map(|loss| Finding::warning(key, loss.reason, loss.message).at(loss.field)).collect();
        let none = Tallies::new();
        let tallies = self.policies.coverage.tallies(key).unwrap_or(&none);
        let (port_findings, unmatched) = analysis::peer(key, policy, tallies);
        findings.extend(port_findings);
        // A mode for the whole workload holds also when those for ports never apply.
        // Without such a mode the ports are all that it sets, and `unmatched` in the details says what becomes of them.
        let effect = match (&unmatched, peer_authentication::sets_mode(policy)) {
            (Some(unmatched), true) => effect.but(unmatched),
            (Some(_) | None, _) => effect,
        };
        let is_for_root = key.namespace == self.mesh.root_namespace;
        let selector = peer_authentication::selector(policy);
        let is_ignored = is_for_root && selector.is_some();
        let idle = if is_ignored { None } else { self.review_subject(key, selector, &mut findings) };
        // In the root namespace selectors are ignored, so no workload would refer to it.
        let converted = peer_authentication::convert(policy, &inherited).filter(|_| !is_for_root);
        let resolved = converted.map_or(Resolved::Nothing, Resolved::Policy);
        let output = Output { resolved, findings, ..Output::default() };
        let details = Details { idle, unmatched, is_allow: false, is_wide: selector.is_none() };
        Some((output, PolicyFacts { accepted: Vec::new(), effect, details }))
    }

    /// Policy for workloads that are STRICT on every port. It exists as soon as there is any PeerAuthentication, so that
    /// proxies have it before a workload refers to it.
    pub(super) fn static_strict(&self) -> Resolved {
        if self.objects.peers.is_empty() {
            return Resolved::Nothing;
        }
        Resolved::Policy(peer_authentication::static_strict(&self.mesh))
    }
}
