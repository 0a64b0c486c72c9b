//! The mesh of a cluster: objects from the API server, pages of programs through it.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use contract::{
    admin::agent::PODS_PATH,
    admin::control::{Condition, ConditionStatus, Policy},
    manifests::{AGENT, CONTROL, SYSTEM_NAMESPACE, ZTUNNEL},
    ports,
};
use kube_cluster::{ApiServer, Collection, Objects, PodPort, RequestError, pod_page};
use kube_types::{
    Kind, Resource,
    core::{Namespace, Pod},
};
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{ByNode, PodFacts};
use crate::{
    admin::CONFIG_DUMP_PATH,
    cluster::Cluster,
    status::overview::{enablement, is_selected},
};

/// Pages that are asked for at the same time.
const AT_ONCE: usize = 16;

/// Kinds of policies, by plural, in the order of the list.
const POLICIES: [(&str, &str); 2] =
    [("authorizationpolicies", "AuthorizationPolicy"), ("peerauthentications", "PeerAuthentication")];

/// A cluster with an API server.
#[derive(Debug)]
pub(crate) struct ClusterMesh {
    pub(crate) name: String,
    server: ApiServer,
    objects: Objects,
}

/// A page of a program that every node has one of.
#[derive(Clone, Copy)]
struct Page {
    program: &'static str,
    port: u16,
    path: &'static str,
}

impl ClusterMesh {
    /// Reads the credentials; the API server is not asked yet.
    ///
    /// # Errors
    /// When there are none, or they cannot be read.
    pub(crate) async fn connect(cluster: &Cluster) -> Result<Self> {
        let server = cluster.connect().await?;
        let objects = Objects::new(&server);
        Ok(Self { name: cluster.name(), server, objects })
    }

    pub(crate) const fn server(&self) -> &ApiServer {
        &self.server
    }

    pub(crate) const fn objects(&self) -> &Objects {
        &self.objects
    }

    async fn list(&self, version: &str, plural: &str) -> Result<Vec<Value>, RequestError> {
        self.objects.list(&Collection::all(version, plural), None, None).await
    }

    async fn nodes(&self) -> Result<Vec<String>> {
        Ok(self.list("v1", "nodes").await?.iter().map(object_name).collect())
    }

    pub(super) async fn pods(&self) -> Result<Vec<PodFacts>> {
        let settings = Collection::namespaced("v1", "configmaps", SYSTEM_NAMESPACE).named(AGENT);
        let enablement = enablement(self.objects.get(&settings).await?.as_ref());
        let namespaces = self.list("v1", "namespaces").await?.into_iter().map(namespace);
        let namespaces = namespaces.collect::<Result<Vec<_>>>()?;
        let pods = self.list("v1", "pods").await?.into_iter().map(pod);
        let facts = |pod: Pod| facts(&pod, is_selected(&pod, &namespaces, &enablement));
        pods.map(|pod| pod.map(&facts)).collect()
    }

    pub(super) async fn agents(&self) -> Result<ByNode<Bytes>> {
        self.pages(Page { program: AGENT, port: ports::MONITORING, path: PODS_PATH }).await
    }

    pub(super) async fn proxies(&self) -> Result<ByNode<Bytes>> {
        self.pages(Page { program: ZTUNNEL, port: ports::PROXY_ADMIN, path: CONFIG_DUMP_PATH }).await
    }

    pub(super) async fn controls(&self, path: &str) -> Result<ByNode<Bytes>> {
        let mut answers = Vec::new();
        for pod in self.program_pods(CONTROL).await?.iter().filter(|pod| !pod.is_terminated()) {
            let name = pod.metadata.name.clone();
            let at = PodPort { namespace: SYSTEM_NAMESPACE.to_owned(), pod: name.clone(), port: ports::MONITORING };
            answers.push((name, pod_page(&self.server, &at, path).await.map_err(anyhow::Error::from)));
        }
        if answers.is_empty() {
            answers.push((CONTROL.to_owned(), Err(anyhow::anyhow!("no pod of it"))));
        }
        Ok(answers)
    }

    /// Pods of a program of the mesh.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub(crate) async fn program_pods(&self, program: &str) -> Result<Vec<Pod>> {
        let pods = Collection::namespaced("v1", "pods", SYSTEM_NAMESPACE);
        let found = self.objects.list(&pods, None, Some(&format!("app={program}"))).await?;
        found.into_iter().map(pod).collect()
    }

    async fn pages(&self, page: Page) -> Result<ByNode<Bytes>> {
        let nodes = self.nodes().await?;
        let pods = self.program_pods(page.program).await?;
        let limit = Arc::new(Semaphore::new(AT_ONCE));
        let mut asked = JoinSet::new();
        let mut answers = Vec::new();
        for node in nodes {
            let Some(pod) = serving(&pods, &node) else {
                answers.push((node.clone(), Err(anyhow::anyhow!("{node} has no pod of {}", page.program))));
                continue;
            };
            let at =
                PodPort { namespace: SYSTEM_NAMESPACE.to_owned(), pod: pod.metadata.name.clone(), port: page.port };
            let (server, limit) = (self.server.clone(), limit.clone());
            asked.spawn(async move {
                let _permit = limit.acquire_owned().await;
                (node, pod_page(&server, &at, page.path).await.map_err(anyhow::Error::from))
            });
        }
        while let Some(answer) = asked.join_next().await {
            answers.push(answer?);
        }
        answers.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(answers)
    }

    pub(super) async fn policies(&self) -> Result<Vec<Policy>> {
        let mut policies = Vec::new();
        for (plural, kind) in POLICIES {
            // A cluster without the custom resources has no policies; anything else is an error.
            let kinds = Collection::all("apiextensions.k8s.io/v1", "customresourcedefinitions");
            if self.objects.get(&kinds.named(&format!("{plural}.security.istio.io"))).await?.is_some() {
                let found = self.list("security.istio.io/v1", plural).await?;
                policies.extend(found.iter().map(|object| policy(kind, object)));
            }
        }
        policies.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(policies)
    }
}

/// The pod of a program that serves a node: while one replaces another, the one that is ready.
fn serving<'a>(pods: &'a [Pod], node: &str) -> Option<&'a Pod> {
    let here = pods.iter().filter(|pod| pod.spec.node_name.as_deref() == Some(node) && !pod.is_terminated());
    here.max_by_key(|pod| (pod.metadata.deletion_timestamp.is_none(), pod.is_ready(), pod.metadata.name.clone()))
}

fn facts(pod: &Pod, selected: bool) -> PodFacts {
    let meta = &pod.metadata;
    let phase = pod.status.phase.clone().unwrap_or_default();
    PodFacts {
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        node: pod.spec.node_name.clone().unwrap_or_default(),
        ips: pod.addresses().filter_map(|address| address.parse().ok()).collect(),
        phase: if meta.deletion_timestamp.is_some() { "Terminating".to_owned() } else { phase },
        ready: pod.is_ready(),
        // The agents look at no pod that has ended, whatever its labels.
        selected: (!pod.is_terminated()).then_some(selected),
    }
}

/// Name of an object.
pub(crate) fn object_name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn policy(kind: &str, object: &Value) -> Policy {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten().map(|condition| Condition {
        r#type: text(&condition["type"]).unwrap_or_default(),
        status: match condition["status"].as_str() {
            Some("True") => ConditionStatus::True,
            Some("False") => ConditionStatus::False,
            _ => ConditionStatus::Unknown,
        },
        reason: text(&condition["reason"]),
        message: text(&condition["message"]),
    });
    let namespace = text(&object["metadata"]["namespace"]).unwrap_or_default();
    Policy { object: format!("{kind} {namespace}/{}", object_name(object)), conditions: conditions.collect() }
}

pub(crate) fn pod(value: Value) -> Result<Pod> {
    match Resource::from_value(Kind::Pod, value).context("a pod of the API server")? {
        Resource::Pod(pod) => Ok(pod.as_ref().clone()),
        other => anyhow::bail!("{} in a list of pods", other.key()),
    }
}

pub(crate) fn namespace(value: Value) -> Result<Namespace> {
    match Resource::from_value(Kind::Namespace, value).context("a namespace of the API server")? {
        Resource::Namespace(namespace) => Ok(namespace.as_ref().clone()),
        other => anyhow::bail!("{} in a list of namespaces", other.key()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proxy(name: &str, ready: bool, is_deleted: bool) -> Pod {
        let status = if ready { "True" } else { "False" };
        let mut value = json!({
            "metadata": {"name": name, "namespace": "istio-system", "uid": name},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": status}]},
        });
        if is_deleted {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        pod(value).unwrap()
    }

    #[test]
    fn of_two_proxies_of_a_node_the_one_that_stays_and_is_ready_is_asked() {
        let pods = [proxy("a", true, true), proxy("b", true, false), proxy("c", false, false)];

        assert_eq!(serving(&pods, "n1").unwrap().metadata.name, "b");
        assert_eq!(serving(&pods[..1], "n1").unwrap().metadata.name, "a");
        assert!(serving(&pods, "n2").is_none());
    }

    #[test]
    fn a_pod_of_the_api_server_has_what_a_list_shows() {
        let facts = facts(&proxy("a", true, true), true);

        assert_eq!((facts.phase.as_str(), facts.ready, facts.selected), ("Terminating", true, Some(true)));
        assert_eq!(facts.ips, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    }

    #[test]
    fn conditions_of_a_policy_are_read() {
        let object = json!({"metadata": {"namespace": "shop", "name": "db"}, "status": {"conditions": [
            {"type": "Enforced", "status": "False", "reason": "NoWorkload", "message": "m"}]}});

        let policy = policy("AuthorizationPolicy", &object);

        assert_eq!(policy.object, "AuthorizationPolicy shop/db");
        assert_eq!(policy.conditions[0].status, ConditionStatus::False);
    }
}
