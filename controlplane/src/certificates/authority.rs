//! Authorisation of requests for certificates: a node proxy may have those of the pods that its own node runs.

use std::sync::Arc;

use ca_server::{Authoriser, Denial};
use graph::enrolment::{self, Enablement};
use graph::{Pods, PublishedPods};
use identity::{Caller, Identity, TrustDomain};
use kube_types::core::Pod;

/// Settings of the decision.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) trust_domain: TrustDomain,
    /// Namespace and name of the service accounts of node proxies.
    pub(crate) trusted: Vec<(String, String)>,
    pub(crate) enablement: Enablement,
}

/// Decides about requests for certificates, by the pods that the graph published last. They are those of the cluster whose
/// nodes ask: pods of another cluster run on none of them, though a node there may have the same name.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    rules: Arc<Rules>,
    pods: PublishedPods,
}

impl Authority {
    pub(crate) fn new(rules: Rules, pods: PublishedPods) -> Self {
        Self { rules: Arc::new(rules), pods }
    }

    /// Returns true if this pod makes its node's proxy need the identity.
    fn needs(&self, pods: &Pods, pod: &Pod, requested: &Identity) -> bool {
        let namespace = pods.namespace(&pod.metadata.namespace);
        pod.metadata.namespace == requested.namespace()
            && pod.service_account() == requested.service_account()
            // Its processes are gone, and with them the reason for a key on that node.
            && !pod.is_terminated()
            // Selected, and not only enrolled: the proxy asks ahead, so that the certificate is there before the pod is
            // announced. Enrolled, and not only selected: a pod that leaves has connections for a while.
            && (enrolment::is_enrolled(pod) || self.rules.enablement.selected(pod, namespace).is_selected())
    }
}

/// Returns true if the identity is of one of these service accounts, given by namespace and name.
pub(crate) fn is_node_proxy(accounts: &[(String, String)], identity: &Identity) -> bool {
    accounts.iter().any(|(namespace, name)| namespace == identity.namespace() && name == identity.service_account())
}

impl Authoriser for Authority {
    fn authorise(&self, caller: &Caller, requested: &Identity) -> Result<(), Denial> {
        if !is_node_proxy(&self.rules.trusted, &caller.identity) {
            let (namespace, name) = (caller.identity.namespace(), caller.identity.service_account());
            return Err(Denial(format!("{namespace}/{name} is not a service account of node proxies")));
        }
        if requested.trust_domain() != self.rules.trust_domain.as_str() {
            return Err(Denial(format!("{} is not the mesh's trust domain", requested.trust_domain())));
        }
        // A snapshot: requests for certificates neither wait for the pipeline nor delay it.
        let pods = self.pods.load();
        if pods.on_node(&caller.node).any(|pod| self.needs(&pods, pod, requested)) {
            Ok(())
        } else {
            Err(Denial(format!("node {} runs no pod in the mesh with this identity", caller.node)))
        }
    }
}

#[cfg(test)]
mod tests {
    use graph::{Graph, Mesh};
    use kube_types::{Kind, ObjectRef, Resource};

    use super::*;

    fn authority() -> (Graph, Authority) {
        let graph = Graph::new(Mesh::default());
        let rules = Rules {
            trust_domain: "cluster.local".parse().unwrap(),
            trusted: vec![("istio-system".to_owned(), "ztunnel".to_owned())],
            enablement: Enablement::default(),
        };
        let authority = Authority::new(rules, graph.pods());
        (graph, authority)
    }

    fn pod(name: &str, node: &str, account: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = name.to_owned();
        pod.metadata.namespace = "app".to_owned();
        pod.metadata.labels.insert(contract::labels::DATAPLANE_MODE_LABEL.to_owned(), "ambient".to_owned());
        pod.spec.node_name = Some(node.to_owned());
        pod.spec.service_account_name = Some(account.to_owned());
        pod.status.phase = Some("Running".to_owned());
        pod
    }

    fn apply(graph: &mut Graph, pod: Pod) {
        graph.apply(Resource::Pod(Arc::new(pod)));
        graph.publish_pods();
    }

    fn asks(authority: &Authority, node: &str, requested: &str) -> bool {
        let identity = "spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap();
        let caller = Caller { node: node.to_owned(), identity };
        authority.authorise(&caller, &requested.parse().unwrap()).is_ok()
    }

    const WEB: &str = "spiffe://cluster.local/ns/app/sa/web";

    #[test]
    fn only_the_node_that_runs_a_pod_gets_its_identity() {
        let (mut graph, authority) = authority();
        apply(&mut graph, pod("web-0", "n1", "web"));

        assert!(asks(&authority, "n1", WEB));
        assert!(!asks(&authority, "n2", WEB));
        assert!(!asks(&authority, "n1", "spiffe://cluster.local/ns/app/sa/other"));
        assert!(!asks(&authority, "n1", "spiffe://elsewhere/ns/app/sa/web"));
        apply(&mut graph, pod("web-0", "n2", "web"));
        assert!(!asks(&authority, "n1", WEB), "the pod has moved");
        assert!(asks(&authority, "n2", WEB));
        graph.remove(&ObjectRef::new(Kind::Pod, "app", "web-0"));
        graph.publish_pods();
        assert!(!asks(&authority, "n2", WEB));
    }

    #[test]
    fn pods_that_ended_or_are_not_in_the_mesh_count_for_nothing() {
        let (mut graph, authority) = authority();
        let mut ended = pod("web-0", "n1", "web");
        ended.status.phase = Some("Succeeded".to_owned());
        apply(&mut graph, ended);
        let mut outside = pod("web-1", "n1", "web");
        outside.metadata.labels.clear();
        apply(&mut graph, outside.clone());

        assert!(!asks(&authority, "n1", WEB));
        let annotation = contract::labels::REDIRECTION_ANNOTATION.to_owned();
        outside.metadata.annotations.insert(annotation, contract::labels::REDIRECTION_ENABLED.to_owned());
        apply(&mut graph, outside);
        assert!(asks(&authority, "n1", WEB), "enrolled, though no longer selected");
    }

    #[test]
    fn other_accounts_get_nobody_elses_identity() {
        let (mut graph, authority) = authority();
        apply(&mut graph, pod("web-0", "n1", "web"));
        let identity = "spiffe://cluster.local/ns/istio-system/sa/waypoint".parse().unwrap();
        let caller = Caller { node: "n1".to_owned(), identity };

        assert!(authority.authorise(&caller, &WEB.parse().unwrap()).is_err());
    }
}
