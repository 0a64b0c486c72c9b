//! Which policies select a workload, what becomes of each policy, and what its status says.

use kube_api::core::{Condition, Pod};
use kube_api::istio::PeerAuthentication;
use kube_api::{Kind, ObjectRef};

use super::Graph;
use super::outputs::{Batch, Output};
use super::reach::{Selection, Touched};
use crate::authorization;
use crate::encode;
use crate::enforcement::{self, Effect, Reach};
use crate::enrolment;
use crate::finding::Finding;
use crate::peer_authentication::{self, Standing};
use crate::placement::{Placement, Scope};

/// What becomes of a policy: the conditions that hold whatever it selects, and what it does where it selects something.
#[derive(Debug)]
pub(super) struct Verdict {
    conditions: Vec<Condition>,
    effect: Effect,
}

impl Graph {
    /// What the policies say of a pod.
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
        let decided_by = levels.deciding().into_iter().map(peer_key).collect();
        Selection { in_mesh: enrolment::is_enrolled(pod), selected_by, decided_by }
    }

    /// Names of the policies that a workload refers to, sorted; then the one from PeerAuthentication.
    pub(super) fn references(&self, pod: &Pod, selection: &Selection) -> Vec<String> {
        let meta = &pod.metadata;
        let policies = selection.selected_by.iter().filter(|policy| policy.kind == Kind::AuthorizationPolicy);
        let levels = peer_authentication::levels(&self.mesh, &self.peers, &meta.namespace, &meta.labels);
        policies.map(ObjectRef::path).chain(levels.reference(&self.mesh)).collect()
    }

    /// What the pod's node proxy needs for it.
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

    /// Whom a policy is for; `None` when there is no such policy.
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

    /// What becomes of a policy now; its verdict is kept.
    pub(super) fn judge(&mut self, key: &ObjectRef) -> Output {
        let judged = if key.kind == Kind::PeerAuthentication { self.peer(key) } else { self.policy(key) };
        let Some((output, verdict)) = judged else {
            self.verdicts.remove(key);
            return Output::default();
        };
        self.verdicts.insert(key.clone(), verdict);
        output
    }

    fn policy(&self, key: &ObjectRef) -> Option<(Output, Verdict)> {
        let policy = self.policies.get(&key.namespace)?.get(&key.name)?;
        let converted = authorization::convert(&self.mesh, key, policy);
        let resources = converted.policy.iter().map(|policy| (key.path(), encode::authorization(policy))).collect();
        let output = Output { resources, findings: converted.findings };
        Some((output, Verdict { conditions: converted.conditions, effect: converted.effect }))
    }

    fn peer(&self, key: &ObjectRef) -> Option<(Output, Verdict)> {
        let policy = self.peers.get(&key.namespace)?.get(&key.name)?;
        let inherited = peer_authentication::inherited(&self.mesh, &self.peers, &key.namespace);
        let standing = match peer_authentication::older(&self.mesh, &self.peers, policy) {
            Some(older) => Standing::Shadowed(older),
            None => Standing::Counts,
        };
        let (effect, losses) = peer_authentication::effect(&self.mesh, policy, standing);
        let findings = losses.into_iter().map(|(reason, message)| Finding::warning(key, reason, message)).collect();
        let mut output = Output { findings, ..Output::default() };
        let is_for_root = key.namespace == self.mesh.root_namespace;
        if let Some(converted) = peer_authentication::convert(policy, &inherited).filter(|_| !is_for_root) {
            let name = format!("{}/{}", converted.namespace, converted.name);
            output.resources.push((name, encode::authorization(&converted)));
        }
        Some((output, Verdict { conditions: Vec::new(), effect }))
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

    /// Says what holds of each policy whose verdict or number of workloads changed.
    pub(super) fn set_conditions(&mut self, batch: &mut Batch, touched: Touched) {
        let mut keys = touched.policies;
        for namespace in &touched.wide_of {
            keys.extend(self.wide_policies(namespace));
        }
        if !touched.wide_of.is_empty() {
            keys.extend(self.wide_policies(&self.mesh.root_namespace));
        }
        for key in keys {
            let conditions = match self.verdicts.get(&key) {
                Some(verdict) => {
                    let enforced = enforcement::enforced(&verdict.effect, self.reach(&key));
                    verdict.conditions.iter().cloned().chain([enforced]).collect()
                }
                None => Vec::new(),
            };
            self.outputs.set_conditions(batch, &key, conditions);
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
