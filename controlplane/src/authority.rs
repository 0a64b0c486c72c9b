//! Who may have which certificate: a node proxy, those of the pods that its own node runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use ca_server::{Authoriser, Denial};
use graph::enrolment::{self, Enablement};
use identity::{Caller, Identity, TrustDomain};
use kube_types::core::{Namespace, Pod};
use kube_types::{ClusterId, Kind, ObjectRef, Resource};

/// Settings of the decision.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) trust_domain: TrustDomain,
    /// The cluster whose nodes ask. Pods of another cluster run on none of them, though a node there may have the same name.
    pub(crate) cluster: ClusterId,
    /// Namespace and name of the service accounts of node proxies.
    pub(crate) trusted: Vec<(String, String)>,
    pub(crate) enablement: Enablement,
}

/// The pods of each node, as the last event said. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    rules: Arc<Rules>,
    pods: Arc<RwLock<Pods>>,
}

#[derive(Debug, Default)]
struct Pods {
    by_key: HashMap<ObjectRef, Arc<Pod>>,
    by_node: HashMap<String, BTreeSet<ObjectRef>>,
    namespaces: HashMap<String, Arc<Namespace>>,
}

impl Authority {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules: Arc::new(rules), pods: Arc::default() }
    }

    /// Takes a resource that is new or changed.
    pub(crate) fn apply(&self, cluster: &ClusterId, resource: &Resource) {
        if *cluster != self.rules.cluster {
            return;
        }
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        match resource {
            Resource::Pod(pod) => {
                let key = resource.key();
                pods.forget(&key);
                if let Some(node) = &pod.spec.node_name {
                    pods.by_node.entry(node.clone()).or_default().insert(key.clone());
                }
                pods.by_key.insert(key, pod.clone());
            }
            Resource::Namespace(namespace) => {
                pods.namespaces.insert(namespace.metadata.name.clone(), namespace.clone());
            }
            Resource::Node(_)
            | Resource::ServiceAccount(_)
            | Resource::ConfigMap(_)
            | Resource::Secret(_)
            | Resource::PersistentVolumeClaim(_)
            | Resource::PeerAuthentication(_)
            | Resource::AuthorizationPolicy(_)
            | Resource::Service(_)
            | Resource::Deployment(_)
            | Resource::ReplicaSet(_)
            | Resource::StatefulSet(_)
            | Resource::DaemonSet(_)
            | Resource::Job(_)
            | Resource::EndpointSlice(_) => {}
        }
    }

    pub(crate) fn remove(&self, cluster: &ClusterId, key: &ObjectRef) {
        if *cluster != self.rules.cluster {
            return;
        }
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        if key.kind == Kind::Pod {
            pods.forget(key);
        } else if key.kind == Kind::Namespace {
            pods.namespaces.remove(&key.name);
        }
    }

    /// Does this pod make its node's proxy need the identity?
    fn wants(&self, pods: &Pods, pod: &Pod, requested: &Identity) -> bool {
        let namespace = pods.namespaces.get(&pod.metadata.namespace);
        pod.metadata.namespace == requested.namespace()
            && pod.service_account() == requested.service_account()
            && !pod.is_terminated()
            && (enrolment::is_enrolled(pod)
                || self.rules.enablement.selected(pod, namespace.map(AsRef::as_ref)).is_selected())
    }
}

impl Pods {
    fn forget(&mut self, key: &ObjectRef) {
        let Some(old) = self.by_key.remove(key) else {
            return;
        };
        if let Some(node) = &old.spec.node_name
            && let Some(keys) = self.by_node.get_mut(node)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_node.remove(node);
            }
        }
    }
}

/// Whether the identity is of one of these service accounts, given by namespace and name.
pub(crate) fn is_node_proxy(accounts: &[(String, String)], identity: &Identity) -> bool {
    accounts.iter().any(|(namespace, name)| namespace == identity.namespace() && name == identity.service_account())
}

impl Authoriser for Authority {
    fn authorise(&self, caller: &Caller, requested: &Identity) -> Result<(), Denial> {
        if !is_node_proxy(&self.rules.trusted, &caller.identity) {
            let (namespace, name) = (caller.identity.namespace(), caller.identity.service_account());
            return Err(Denial(format!("{namespace}/{name} is no service account of node proxies")));
        }
        if requested.trust_domain() != self.rules.trust_domain.as_str() {
            return Err(Denial(format!("{} is not the mesh's trust domain", requested.trust_domain())));
        }
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        let here = pods.by_node.get(&caller.node).into_iter().flatten();
        let wanted = here.filter_map(|key| pods.by_key.get(key)).any(|pod| self.wants(&pods, pod, requested));
        if wanted { Ok(()) } else { Err(Denial(format!("node {} runs no such pod of the mesh", caller.node))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        Authority::new(Rules {
            trust_domain: "cluster.local".parse().unwrap(),
            cluster: here(),
            trusted: vec![("istio-system".to_owned(), "ztunnel".to_owned())],
            enablement: Enablement::default(),
        })
    }

    fn pod(name: &str, node: &str, account: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = name.to_owned();
        pod.metadata.namespace = "app".to_owned();
        pod.metadata.labels.insert(enrolment::DATAPLANE_MODE_LABEL.to_owned(), "ambient".to_owned());
        pod.spec.node_name = Some(node.to_owned());
        pod.spec.service_account_name = Some(account.to_owned());
        pod.status.phase = Some("Running".to_owned());
        pod
    }

    fn here() -> ClusterId {
        ClusterId::new("Kubernetes")
    }

    fn apply(authority: &Authority, pod: Pod) {
        authority.apply(&here(), &Resource::Pod(Arc::new(pod)));
    }

    fn asks(authority: &Authority, node: &str, requested: &str) -> bool {
        let identity = "spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap();
        let caller = Caller { node: node.to_owned(), identity };
        authority.authorise(&caller, &requested.parse().unwrap()).is_ok()
    }

    const WEB: &str = "spiffe://cluster.local/ns/app/sa/web";

    #[test]
    fn only_the_node_that_runs_a_pod_gets_its_identity() {
        let authority = authority();
        apply(&authority, pod("web-0", "n1", "web"));

        assert!(asks(&authority, "n1", WEB));
        assert!(!asks(&authority, "n2", WEB));
        assert!(!asks(&authority, "n1", "spiffe://cluster.local/ns/app/sa/other"));
        assert!(!asks(&authority, "n1", "spiffe://elsewhere/ns/app/sa/web"));
        apply(&authority, pod("web-0", "n2", "web"));
        assert!(!asks(&authority, "n1", WEB), "the pod has moved");
        assert!(asks(&authority, "n2", WEB));
        authority.remove(&here(), &ObjectRef::new(Kind::Pod, "app", "web-0"));
        assert!(!asks(&authority, "n2", WEB));
    }

    #[test]
    fn pods_that_ended_or_are_not_in_the_mesh_count_for_nothing() {
        let authority = authority();
        let mut ended = pod("web-0", "n1", "web");
        ended.status.phase = Some("Succeeded".to_owned());
        apply(&authority, ended);
        let mut outside = pod("web-1", "n1", "web");
        outside.metadata.labels.clear();
        apply(&authority, outside.clone());

        assert!(!asks(&authority, "n1", WEB));
        let annotation = enrolment::REDIRECTION_ANNOTATION.to_owned();
        outside.metadata.annotations.insert(annotation, enrolment::REDIRECTION_ENABLED.to_owned());
        apply(&authority, outside);
        assert!(asks(&authority, "n1", WEB), "enrolled, though no longer selected");
    }

    #[test]
    fn pods_of_another_cluster_give_a_node_of_the_same_name_no_identity() {
        let authority = authority();
        let there = ClusterId::new("elsewhere");

        authority.apply(&there, &Resource::Pod(Arc::new(pod("web-0", "n1", "web"))));
        assert!(!asks(&authority, "n1", WEB));

        apply(&authority, pod("web-0", "n1", "web"));
        authority.remove(&there, &ObjectRef::new(Kind::Pod, "app", "web-0"));
        assert!(asks(&authority, "n1", WEB), "another cluster's pod of that name is gone, not this one");
    }

    #[test]
    fn other_accounts_get_nobody_elses_identity() {
        let authority = authority();
        apply(&authority, pod("web-0", "n1", "web"));
        let identity = "spiffe://cluster.local/ns/istio-system/sa/waypoint".parse().unwrap();
        let caller = Caller { node: "n1".to_owned(), identity };

        assert!(authority.authorise(&caller, &WEB.parse().unwrap()).is_err());
    }
}
