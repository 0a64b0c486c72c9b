//! Callers by TokenReview: the API server says whose a token is, and on which node its pod runs.

use ca_server::{Authenticator, Unauthenticated};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use graph::PublishedPods;
use identity::{Caller, Identity, TrustDomain};
use kube_cluster::{BoundPod, ReviewError, TokenOwner, TokenReviewer};

/// Checks tokens with the API server, each time: it keeps answers for some seconds itself.
pub(super) struct ReviewedTokens {
    reviewer: TokenReviewer,
    trust_domain: TrustDomain,
    pods: PublishedPods,
    /// Namespace whose tokens need not be bound to a pod: tools ask for one there.
    system_namespace: String,
}

impl ReviewedTokens {
    pub(super) fn new(
        reviewer: TokenReviewer,
        trust_domain: TrustDomain,
        pods: PublishedPods,
        system_namespace: String,
    ) -> Self {
        Self { reviewer, trust_domain, pods, system_namespace }
    }
}

impl Authenticator for ReviewedTokens {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, Unauthenticated>> {
        async {
            let owner = self.reviewer.review(token).await.map_err(|error| match error {
                ReviewError::Invalid(reason) => Unauthenticated::Invalid(reason),
                ReviewError::Unchecked(reason) => Unauthenticated::Unchecked(reason),
            })?;
            caller(owner, &self.pods, &self.trust_domain, &self.system_namespace)
        }
        .boxed()
    }
}

/// The node is the API server's word where it says one, which is newer than what we have read; else that of the pod as read.
fn caller(
    owner: TokenOwner,
    pods: &PublishedPods,
    trust_domain: &TrustDomain,
    system_namespace: &str,
) -> Result<Caller, Unauthenticated> {
    let TokenOwner { namespace, service_account, pod } = owner;
    let invalid = |reason: String| Unauthenticated::Invalid(reason);
    let identity = Identity::new(trust_domain, &namespace, &service_account)
        .map_err(|error| invalid(format!("{namespace}/{service_account}: {error}")))?;
    let Some(BoundPod { name, uid, node }) = pod else {
        if namespace == system_namespace {
            return Ok(Caller { node: String::new(), identity });
        }
        return Err(invalid(format!("the token of {namespace}/{service_account} is not bound to a pod")));
    };
    let read = || {
        let pods = pods.load();
        let found = pods.pod(&namespace, &name).filter(|pod| pod.metadata.uid == uid);
        found.and_then(|pod| pod.spec.node_name.clone())
    };
    // A pod that was made just now may not have been read.
    let unknown = || Unauthenticated::Unchecked(format!("the node of pod {namespace}/{name} is not known yet"));
    let node = node.or_else(read).ok_or_else(unknown)?;
    Ok(Caller { node, identity })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use graph::{Graph, Mesh};
    use kube_types::Resource;
    use kube_types::core::Pod;

    use super::*;

    fn owner(uid: &str, node: Option<&str>) -> TokenOwner {
        let pod = BoundPod { name: "ztunnel-x".to_owned(), uid: uid.to_owned(), node: node.map(str::to_owned) };
        let (namespace, service_account) = ("istio-system".to_owned(), "ztunnel".to_owned());
        TokenOwner { namespace, service_account, pod: Some(pod) }
    }

    fn read_pod(uid: &str, node: &str) -> Graph {
        let mut pod = Pod::default();
        pod.metadata.name = "ztunnel-x".to_owned();
        pod.metadata.namespace = "istio-system".to_owned();
        pod.metadata.uid = uid.to_owned();
        pod.spec.node_name = Some(node.to_owned());
        let mut graph = Graph::new(Mesh::default());
        graph.apply(Resource::Pod(Arc::new(pod)));
        graph.publish_pods();
        graph
    }

    fn node(owner: TokenOwner, graph: &Graph) -> Result<String, Unauthenticated> {
        let caller = caller(owner, &graph.pods(), &TrustDomain::default(), "istio-system")?;
        assert_eq!(caller.identity.as_str(), "spiffe://cluster.local/ns/istio-system/sa/ztunnel");
        Ok(caller.node)
    }

    #[test]
    fn the_node_is_what_the_api_server_says_and_else_what_the_pod_says() {
        let graph = read_pod("7", "n1");

        assert_eq!(node(owner("7", Some("n2")), &graph).as_deref(), Ok("n2"));
        assert_eq!(node(owner("7", None), &graph).as_deref(), Ok("n1"));
    }

    #[test]
    fn a_pod_of_the_same_name_says_nothing_and_an_unbound_token_proves_nothing() {
        let graph = read_pod("7", "n1");
        let unbound = TokenOwner { pod: None, ..owner("7", None) };
        let elsewhere = TokenOwner { namespace: "app".to_owned(), ..unbound.clone() };

        assert!(matches!(node(owner("8", None), &graph), Err(Unauthenticated::Unchecked(_))));
        assert!(matches!(node(elsewhere, &graph), Err(Unauthenticated::Invalid(_))));
        assert_eq!(node(unbound, &graph).as_deref(), Ok(""), "a tool, which is on no node");
    }
}
