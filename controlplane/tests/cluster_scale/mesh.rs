//! The objects of a large mesh, in a real API server.

use std::fmt;

use futures::{StreamExt as _, stream};
use kube_cluster::{Collection, Location, Objects};
use serde_json::{Value, json};

const NODES: usize = 1000;
const NAMESPACES: usize = 50;
const SERVICES_PER_NAMESPACE: usize = 20;
const POLICIES_PER_NAMESPACE: usize = 4;

/// Requests at a time.
const AT_ONCE: usize = 64;

/// A mesh with this many pods.
pub(crate) struct Mesh {
    pods: usize,
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (services, policies) = (NAMESPACES * SERVICES_PER_NAMESPACE, NAMESPACES * POLICIES_PER_NAMESPACE);
        write!(f, "{NODES} nodes, {} pods, {services} services, {policies} policies", self.pods)
    }
}

fn of(api_version: &str, plural: &str, namespace: &str, name: &str) -> Location {
    Collection::namespaced(api_version, plural, namespace).named(name)
}

fn namespace(number: usize) -> String {
    format!("n{}", number % NAMESPACES)
}

impl Mesh {
    pub(crate) const fn new(pods: usize) -> Self {
        Self { pods }
    }

    /// Number of resources that discovery has of it: pods, services, and those of policies.
    pub(crate) fn addresses(&self) -> usize {
        self.pods + NAMESPACES * SERVICES_PER_NAMESPACE
    }

    pub(crate) fn policies(&self) -> usize {
        NAMESPACES * POLICIES_PER_NAMESPACE
    }

    pub(crate) async fn create(&self, objects: &Objects) {
        let all = Collection::all("v1", "namespaces");
        let names = ["istio-system".to_owned()].into_iter().chain((0..NAMESPACES).map(namespace));
        create(
            objects,
            names.map(|name| {
                let labels = json!({"istio.io/dataplane-mode": "ambient"});
                let object =
                    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
                (all.clone().named(&name), object)
            }),
        )
        .await;
        let all = Collection::all("v1", "nodes");
        create(
            objects,
            (0..NODES).map(|number| {
                let name = format!("node-{number}");
                (all.clone().named(&name), json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))
            }),
        )
        .await;
        create(objects, (0..NAMESPACES * SERVICES_PER_NAMESPACE).map(service)).await;
        create(objects, (0..NAMESPACES * POLICIES_PER_NAMESPACE).map(policy)).await;
        create(objects, (0..self.pods).map(pod)).await;
        // The status of a new object is the API server's.
        let statuses = (0..self.pods).map(|number| {
            let (at, _) = pod(number);
            (Location { name: format!("{}/status", at.name), ..at }, status(number, 0))
        });
        let patches =
            stream::iter(statuses).map(|(at, patch)| async move { objects.merge(&at, &patch).await.unwrap().unwrap() });
        patches.buffer_unordered(AT_ONCE).for_each(|_| std::future::ready(())).await;
    }

    /// Gives one pod another address; returns the name of its resource.
    pub(crate) async fn change_one(&self, objects: &Objects, change: usize) -> String {
        let number = change * 7 % self.pods;
        let (at, _) = pod(number);
        let name = format!("Kubernetes//Pod/{}/{}", namespace(number), at.name);
        let at = Location { name: format!("{}/status", at.name), ..at };
        objects.merge(&at, &status(number, change + 1)).await.unwrap().unwrap();
        name
    }
}

async fn create(objects: &Objects, all: impl Iterator<Item = (Location, Value)>) {
    let requests = stream::iter(all).map(|(at, object)| async move { objects.create(&at, &object).await.unwrap() });
    requests.buffer_unordered(AT_ONCE).for_each(|_| std::future::ready(())).await;
}

fn service(number: usize) -> (Location, Value) {
    let (namespace, name) = (namespace(number), format!("s{}", number / NAMESPACES));
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    (of("v1", "services", &namespace, &name), object)
}

fn policy(number: usize) -> (Location, Value) {
    let (namespace, name) = (namespace(number), format!("p{}", number / NAMESPACES));
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": format!("s{}", number / NAMESPACES)}},
            "rules": [{"from": [{"source": {"namespaces": [namespace]}}]}],
        },
    });
    (of("security.istio.io/v1", "authorizationpolicies", &namespace, &name), object)
}

fn pod(number: usize) -> (Location, Value) {
    let (namespace, name) = (namespace(number), format!("pod-{number}"));
    let app = format!("s{}", number / NAMESPACES % SERVICES_PER_NAMESPACE);
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {"app": app, "pod-template-hash": "5d4f8c7b9", "version": "v1"},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {
            "nodeName": format!("node-{}", number % NODES), "serviceAccountName": app,
            "containers": [{"name": "app", "image": "example/app:1", "ports": [{"containerPort": 8080}]}],
        },
    });
    (of("v1", "pods", &namespace, &name), object)
}

fn status(number: usize, change: usize) -> Value {
    let ip = format!("10.{}.{}.{}", change + 1, number / 250, number % 250 + 1);
    json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }})
}
