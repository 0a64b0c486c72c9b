//! Selection of workloads by policies, the resources and findings of each policy, and the state that its status
//! reports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kube_types::core::{Condition, Pod};
use kube_types::istio::{Action, AuthorizationPolicy, PeerAuthentication};
use kube_types::{Kind, ObjectRef};

use super::Graph;
use super::outputs::{Batch, Output};
use super::reach::{Selection, Touched};
use crate::analysis::{self, Fits, PodPorts, Rules, Tallies};
use crate::authorization::{self, Converted};
use crate::encode;
use crate::enforcement::{About, Effect, Enforcement, PolicyState, Reach};
use crate::enrolment;
use crate::finding::Finding;
use crate::peer_authentication::{self, Standing};
use crate::placement::{Placement, Scope};

/// Facts about a policy that do not depend on the workloads that it selects.
#[derive(Debug)]
pub(super) struct Consequence {
    accepted: Vec<Condition>,
    effect: Effect,
    about: About,
}

impl Graph {
    /// Finds the policies that are for a pod, and how each applies to it.
    pub(super) fn selection(&self, pod: &Pod) -> Selection {
        let meta = &pod.metadata;
        let root = &self.mesh.root_namespace;
        let mut namespaces = vec![&meta.namespace];
        if meta.namespace != *root {
            namespaces.push(root);
        }
        let mut selected_by: Vec<_> = namespaces
            .into_iter()
            .filter_map(|namespace| Some((namespace, self.policy_selectors.get(namespace)?)))
            .flat_map(|(namespace, selectors)| {
                let names = selectors.matching(&meta.labels).into_iter();
                names.map(move |name| ObjectRef::new(Kind::AuthorizationPolicy, namespace, name))
            })
            .collect();
        selected_by.sort_by_cached_key(ObjectRef::path);
        let peers = peer_authentication::selecting(&self.mesh, &self.peers, &meta.namespace, &meta.labels);
        selected_by.extend(peers.map(peer_key));
        let levels = peer_authentication::levels(&self.mesh, &self.peers, &meta.namespace, &meta.labels);
        let decided_by: Vec<_> = levels.deciding().into_iter().map(peer_key).collect();
        let (unmatched_by, fits) = self.matching(pod, &selected_by, &decided_by);
        Selection { in_mesh: enrolment::is_enrolled(pod), selected_by, decided_by, unmatched_by, fits }
    }

    /// The policies for a pod that can match no connection to it, and how their port numbers fit its own.
    fn matching(&self, pod: &Pod, selected_by: &[ObjectRef], decided_by: &[ObjectRef]) -> (Vec<ObjectRef>, Fits) {
        let (mut unmatched, mut fits) = (Vec::new(), Fits::new());
        let namespace = &pod.metadata.namespace;
        let root = Some(&self.mesh.root_namespace).filter(|root| *root != namespace);
        let wide = [Some(namespace), root].into_iter().flatten().filter_map(|namespace| self.varying.get(namespace));
        let all: Vec<_> = selected_by.iter().chain(wide.flatten()).filter(|policy| self.varies(policy)).collect();
        if all.is_empty() {
            return (unmatched, fits);
        }
        let ports = PodPorts::of(pod, self.services_in_front(pod).into_iter());
        let addresses: Vec<IpAddr> = pod.addresses().filter_map(|text| text.parse().ok()).collect();
        for policy in all {
            let can_match = match self.converted.get(policy) {
                Some((_, rules)) => {
                    fits.extend(rules.ports.iter().map(|port| (policy.clone(), *port, ports.fit(*port))));
                    rules.can_match(&ports, &addresses)
                }
                None => {
                    self.peers.get(&policy.namespace).and_then(|peers| peers.get(&policy.name)).is_some_and(|peer| {
                        let numbers = || peer_authentication::ports(peer);
                        fits.extend(numbers().map(|port| (policy.clone(), port, ports.fit(port))));
                        !decided_by.contains(policy)
                            || peer_authentication::sets_mode(peer)
                            || numbers().any(|port| ports.can_be(port))
                    })
                }
            };
            if !can_match {
                unmatched.push(policy.clone());
            }
        }
        (unmatched, fits)
    }

    /// Returns true if it depends on the workload whether the policy can match.
    fn varies(&self, policy: &ObjectRef) -> bool {
        if policy.kind == Kind::PeerAuthentication {
            let peer = self.peers.get(&policy.namespace).and_then(|peers| peers.get(&policy.name));
            peer.is_some_and(|peer| peer_authentication::ports(peer).next().is_some())
        } else {
            self.converted.get(policy).is_some_and(|(_, rules)| rules.varies)
        }
    }

    /// Names of the policies that a workload refers to, sorted; then the one from PeerAuthentication.
    pub(super) fn references(&self, pod: &Pod, selection: &Selection) -> Vec<String> {
        let meta = &pod.metadata;
        let policies = selection.selected_by.iter().filter(|policy| policy.kind == Kind::AuthorizationPolicy);
        let levels = peer_authentication::levels(&self.mesh, &self.peers, &meta.namespace, &meta.labels);
        policies.map(ObjectRef::path).chain(levels.reference(&self.mesh)).collect()
    }

    /// Returns where the pod is and what its node proxy needs to enforce the policies that are for it.
    pub(super) fn placement(&self, pod: &Pod, selection: &Selection) -> Placement {
        let meta = &pod.metadata;
        let levels = peer_authentication::levels(&self.mesh, &self.peers, &meta.namespace, &meta.labels);
        let policies = selection.selected_by.iter().filter(|policy| policy.kind == Kind::AuthorizationPolicy);
        Placement {
            uid: self.mesh.pod_uid(&meta.namespace, &meta.name),
            namespace: meta.namespace.clone(),
            node: pod.spec.node_name.clone().unwrap_or_default(),
            in_mesh: selection.in_mesh,
            policies: policies.cloned().collect(),
            peers: selection.decided_by.clone(),
            strictness: levels.reference(&self.mesh),
        }
    }

    /// Returns the workloads that a policy is for; `None` when there is no such policy.
    pub(super) fn scope(&self, key: &ObjectRef) -> Option<Scope> {
        if key.kind == Kind::PeerAuthentication {
            self.peers.get(&key.namespace)?.get(&key.name)?;
            return Some(Scope::Named(key.clone()));
        }
        let policy = self.policies.get(&key.namespace)?.get(&key.name)?;
        Some(match authorization::selector(policy) {
            Some(_) => Scope::Named(key.clone()),
            None if key.namespace == self.mesh.root_namespace => Scope::Mesh,
            None => Scope::Namespace(key.namespace.clone()),
        })
    }

    /// Resources and findings of a policy now; what else follows from it is kept.
    pub(super) fn policy_output(&mut self, key: &ObjectRef) -> Output {
        let converted = if key.kind == Kind::PeerAuthentication { self.peer(key) } else { self.policy(key) };
        let Some((output, consequence)) = converted else {
            self.consequences.remove(key);
            self.idle.remove(key);
            return Output::default();
        };
        if self.reach(key).selected == 0 {
            self.idle.insert(key.clone());
        } else {
            self.idle.remove(key);
        }
        self.consequences.insert(key.clone(), consequence);
        output
    }

    fn policy(&self, key: &ObjectRef) -> Option<(Output, Consequence)> {
        let policy = self.policies.get(&key.namespace)?.get(&key.name)?;
        let (converted, rules) = self.converted.get(key)?;
        let resources = converted.policy.iter().map(|policy| (key.path(), encode::authorization(policy))).collect();
        let mut output = Output { resources, findings: converted.findings.clone() };
        let mut consequence = Consequence {
            accepted: converted.accepted.clone(),
            effect: converted.effect.clone(),
            about: About {
                is_allow: policy.spec.action == Action::Allow,
                is_wide: authorization::selector(policy).is_none(),
                ..About::default()
            },
        };
        if converted.policy.is_some() {
            let review = self.review(key, policy, converted, rules);
            consequence.effect = review.refine(consequence.effect);
            consequence.about.unmatched = review.unmatched();
            output.findings.extend(review.findings);
            consequence.about.idle = self.look_for_subjects(key, authorization::selector(policy), &mut output.findings);
        }
        Some((output, consequence))
    }

    /// Analyses the rules of a policy: which of them can match.
    fn review(
        &self,
        key: &ObjectRef,
        policy: &AuthorizationPolicy,
        converted: &Converted,
        rules: &Rules,
    ) -> analysis::Review {
        let left_out = converted.rules.iter().enumerate().filter(|(_, rules)| rules.is_empty());
        let left_out: Vec<_> = left_out.map(|(index, _)| index).collect();
        let none = Tallies::new();
        let tallies = self.reaches.tallies(key).unwrap_or(&none);
        let is_dry_run = matches!(converted.effect, Effect::Logged);
        let around = analysis::Surroundings { world: &self.world, tallies, rules, left_out: &left_out, is_dry_run };
        analysis::authorization(key, policy, &around)
    }

    /// Returns the reason why a policy selects nothing when that looks like a mistake, and adds the finding.
    fn look_for_subjects(
        &self,
        key: &ObjectRef,
        selector: Option<&kube_types::StringMap>,
        findings: &mut Vec<Finding>,
    ) -> Option<String> {
        if self.reach(key).selected > 0 {
            return None;
        }
        let could_match = || selector.is_some_and(|selector| self.could_select(&key.namespace, selector));
        let (finding, why) = analysis::subject(key, selector, &self.world, could_match)?;
        findings.push(finding);
        Some(why)
    }

    fn peer(&self, key: &ObjectRef) -> Option<(Output, Consequence)> {
        let policy = self.peers.get(&key.namespace)?.get(&key.name)?;
        let inherited = peer_authentication::inherited(&self.mesh, &self.peers, &key.namespace);
        let standing = match peer_authentication::older(&self.mesh, &self.peers, policy) {
            Some(older) => Standing::Shadowed(older),
            None => Standing::Counts,
        };
        let (effect, losses) = peer_authentication::effect(&self.mesh, policy, standing);
        let mut findings: Vec<_> =
            losses.into_iter().map(|loss| Finding::warning(key, loss.reason, loss.message).at(loss.field)).collect();
        let none = Tallies::new();
        let (about_ports, dead) = analysis::peer(key, policy, self.reaches.tallies(key).unwrap_or(&none));
        findings.extend(about_ports);
        let effect = match (&dead, peer_authentication::sets_mode(policy)) {
            (Some(dead), true) => effect.but(dead),
            (Some(_) | None, _) => effect,
        };
        let is_for_root = key.namespace == self.mesh.root_namespace;
        let selector = peer_authentication::selector(policy);
        let idle =
            if is_for_root && selector.is_some() { None } else { self.look_for_subjects(key, selector, &mut findings) };
        let mut output = Output { findings, ..Output::default() };
        if let Some(converted) = peer_authentication::convert(policy, &inherited).filter(|_| !is_for_root) {
            let name = format!("{}/{}", converted.namespace, converted.name);
            output.resources.push((name, encode::authorization(&converted)));
        }
        let about = About { idle, unmatched: dead, is_allow: false, is_wide: selector.is_none() };
        Some((output, Consequence { accepted: Vec::new(), effect, about }))
    }

    /// Sent as soon as there is any PeerAuthentication, so that it is there before it is needed.
    pub(super) fn static_strict(&self) -> Output {
        let mut output = Output::default();
        if !self.peers.is_empty() {
            let policy = peer_authentication::static_strict(&self.mesh);
            let name = format!("{}/{}", policy.namespace, policy.name);
            output.resources.push((name, encode::authorization(&policy)));
        }
        output
    }

    /// Policies whose numbers of workloads changed.
    pub(super) fn recounted(&self, touched: &Touched) -> BTreeSet<ObjectRef> {
        let mut keys = touched.policies.clone();
        for namespace in &touched.wide_of {
            keys.extend(self.wide_policies(namespace));
        }
        if !touched.wide_of.is_empty() {
            keys.extend(self.wide_policies(&self.mesh.root_namespace));
        }
        keys
    }

    /// Returns the policies whose findings may differ now, because something that they select or refer to came or went.
    pub(super) fn doubtful(&mut self, touched: &Touched, recounted: &BTreeSet<ObjectRef>) -> BTreeSet<ObjectRef> {
        let mut keys = touched.fits.clone();
        let changed = self.world.take_changed();
        if changed.names {
            keys.extend(self.consequences.keys().cloned());
        }
        if !changed.labels.is_empty() {
            let is_near = |policy: &&ObjectRef| {
                changed.labels.contains(&policy.namespace) || policy.namespace == self.mesh.root_namespace
            };
            keys.extend(self.idle.iter().filter(is_near).cloned());
        }
        for policy in recounted {
            let is_idle = self.reach(policy).selected == 0;
            if is_idle != self.idle.contains(policy) {
                keys.insert(policy.clone());
            }
        }
        keys
    }

    /// Keeps the states of these policies.
    pub(super) fn set_states(&mut self, batch: &mut Batch, keys: &BTreeSet<ObjectRef>) {
        for key in keys {
            let state = self.consequences.get(key).zip(self.scope(key)).map(|(consequence, scope)| PolicyState {
                accepted: consequence.accepted.clone(),
                enforcement: Enforcement {
                    effect: consequence.effect.clone(),
                    reach: self.reach(key),
                    about: consequence.about.clone(),
                    scope,
                },
            });
            self.outputs.set_policy(batch, key, state);
        }
    }

    /// Policies of a namespace that select by no labels.
    fn wide_policies(&self, namespace: &str) -> Vec<ObjectRef> {
        let policies = self.policies.get(namespace).into_iter().flatten();
        let policies = policies.filter(|(_, policy)| authorization::selector(policy).is_none());
        let policies = policies.map(|(name, _)| ObjectRef::new(Kind::AuthorizationPolicy, namespace, name));
        let peers = self.peers.get(namespace).into_iter().flatten().map(|(_, peer)| peer.as_ref());
        policies.chain(peers.filter(|peer| peer_authentication::selector(peer).is_none()).map(peer_key)).collect()
    }

    fn reach(&self, key: &ObjectRef) -> Reach {
        let is_narrow = if key.kind == Kind::PeerAuthentication {
            let policy = self.peers.get(&key.namespace).and_then(|peers| peers.get(&key.name));
            policy.is_some_and(|policy| peer_authentication::selector(policy).is_some())
        } else {
            let policy = self.policies.get(&key.namespace).and_then(|policies| policies.get(&key.name));
            policy.is_some_and(|policy| authorization::selector(policy).is_some())
        };
        if is_narrow {
            self.reaches.narrow(key)
        } else {
            self.reaches.wide(key, (key.namespace != self.mesh.root_namespace).then_some(key.namespace.as_str()))
        }
    }
}

fn peer_key(policy: &PeerAuthentication) -> ObjectRef {
    ObjectRef::new(Kind::PeerAuthentication, &policy.metadata.namespace, &policy.metadata.name)
}
