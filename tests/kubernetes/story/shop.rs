//! The applications of the story: ordinary Deployments on both nodes, and what the API says of their pods.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};

use crate::stage::{Cluster, eventually};

/// The namespace that joins the mesh: `cart` on node-1 calls `db`, which runs on both nodes.
pub(super) const SHOP: &str = "shop";
/// The namespace that never does, with the client `mallory` on node-1.
pub(super) const INTRUDER: &str = "intruder";
/// Each kind of probe, once a second.
const PROBES: [(&str, &str); 4] = [
    ("http", "readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}"),
    ("tcp", "livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 5}"),
    ("exec", "startupProbe: {exec: {command: [app, probe]}, periodSeconds: 1}"),
    ("grpc", "readinessProbe: {grpc: {port: 8080}, periodSeconds: 1}"),
];

/// A Deployment of the test image, with a service account of its name.
fn deployment(name: &str, replicas: u8, placement: &str, probes: &[&str]) -> String {
    let probes: String = PROBES
        .iter()
        .filter(|(kind, _)| probes.contains(kind))
        .map(|(_, probe)| format!("\n        {probe}"))
        .collect();
    format!(
        "---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      terminationGracePeriodSeconds: 2
      {placement}
      containers:
      - name: app
        image: localhost/app:1
        imagePullPolicy: Never
        args: [serve, \"8080\"]
        env:
        - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}{probes}
"
    )
}

const SPREAD: &str = "topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, \
                      whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: db}}}]";

const SERVICES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: db}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: db-pods}
spec:
  clusterIP: None
  ipFamilyPolicy: RequireDualStack
  selector: {app: db}
  ports: [{name: http, port: 8080}]
";

/// A Deployment on one node.
pub(super) fn on_node(name: &str, node: &str, probes: &[&str]) -> String {
    deployment(name, 1, &format!("nodeSelector: {{kubernetes.io/hostname: {node}}}"), probes)
}

/// Deploys both namespaces, and waits until their pods are ready.
///
/// # Errors
/// When the API server refuses an object, or a pod does not become ready.
pub(super) fn deploy(cluster: &Cluster) -> Result<()> {
    let db = deployment("db", 2, SPREAD, &["http", "tcp", "exec"]);
    cluster.apply(SHOP, &format!("{db}{SERVICES}{}", on_node("cart", "node-1", &["grpc"])))?;
    cluster.apply(INTRUDER, &on_node("mallory", "node-1", &[]))?;
    for (namespace, name) in [(SHOP, "db"), (SHOP, "cart"), (INTRUDER, "mallory")] {
        rolled_out(cluster, namespace, &format!("deployment/{name}"))?;
    }
    Ok(())
}

/// Waits until a rollout has ended.
///
/// # Errors
/// When it has not within a minute, with the namespace's pods and events.
pub(super) fn rolled_out(cluster: &Cluster, namespace: &str, program: &str) -> Result<()> {
    let status = ["--namespace", namespace, "rollout", "status", program, "--timeout=60s"];
    cluster.kubectl(&status).map(drop).map_err(|error| {
        let show =
            |what| cluster.kubectl(&["--namespace", namespace, "get", what, "--output=wide"]).unwrap_or_default();
        error.context(format!("{}\n{}", show("pods"), show("events")))
    })
}

/// Addresses of both families of each pod of a namespace, those of pods that have ended included.
///
/// # Errors
/// When the API server does not answer.
pub(super) fn addresses(cluster: &Cluster, namespace: &str) -> Result<Vec<IpAddr>> {
    let all = cluster.field(namespace, "pods", ".items[*].status.podIPs[*].ip")?;
    all.split_whitespace().map(|address| address.parse().with_context(|| address.to_owned())).collect()
}

/// Calls of `cart` on node-1 to `db`: its pod on node-2 by each address, and its Service by name.
#[derive(Debug, Clone)]
pub(super) struct Urls {
    pub(super) v4: String,
    pub(super) v6: String,
    pub(super) service: String,
}

impl Urls {
    /// # Errors
    /// When `db` has no pod with two addresses on node-2.
    pub(super) fn of(cluster: &Cluster) -> Result<Self> {
        let pods = cluster.kubectl(&[
            "--namespace",
            SHOP,
            "get",
            "pods",
            "--selector=app=db",
            "--field-selector=spec.nodeName=node-2,status.phase=Running",
            "--output=jsonpath={.items[0].status.podIPs[*].ip}",
        ])?;
        let (mut v4, mut v6) = (None, None);
        for address in pods.split_whitespace() {
            match address.parse()? {
                IpAddr::V4(address) => v4 = Some(format!("http://{address}:8080/order")),
                IpAddr::V6(address) => v6 = Some(format!("http://[{address}]:8080/order")),
            }
        }
        let service = format!("http://db.{SHOP}/order");
        Ok(Self { v4: v4.context("no IPv4 address")?, v6: v6.context("no IPv6 address")?, service })
    }

    fn all(&self) -> [&str; 3] {
        [&self.v4, &self.v6, &self.service]
    }
}

/// Answer to a GET from a pod, named as kubectl takes it.
///
/// # Errors
/// When there is none, with what the client printed.
pub(super) fn get(cluster: &Cluster, namespace: &str, from: &str, url: &str) -> Result<String> {
    let answer = cluster.kubectl(&["--namespace", namespace, "exec", from, "--", "app", "get", url])?;
    ensure!(answer.starts_with("pod=db-"), "{url}: {answer}");
    Ok(answer)
}

/// Calls `db` from `cart` by each of its addresses and by its Service; the answers.
///
/// # Errors
/// When one of them fails.
pub(super) fn call_all(cluster: &Cluster) -> Result<Vec<String>> {
    let urls = Urls::of(cluster)?;
    let call = |url: &&str| get(cluster, SHOP, "deploy/cart", url).map(|answer| format!("{url}: {answer}"));
    urls.all().iter().map(call).collect()
}

/// Name of a pod of a Deployment that runs on a node.
///
/// # Errors
/// When there is none.
pub(super) fn pod(cluster: &Cluster, namespace: &str, deployment: &str, node: &str) -> Result<String> {
    let name = cluster.kubectl(&[
        "--namespace",
        namespace,
        "get",
        "pods",
        &format!("--selector=app={deployment}"),
        &format!("--field-selector=status.phase=Running,spec.nodeName={node}"),
        "--output=jsonpath={.items[0].metadata.name}",
    ])?;
    ensure!(!name.is_empty(), "no pod of {namespace}/{deployment} runs");
    Ok(name)
}

/// Fails unless all pods of a namespace that run are announced as enrolled, or none of them, as `expected` says; their
/// number.
///
/// # Errors
/// With the number of those that are.
pub(super) fn announced(cluster: &Cluster, namespace: &str, expected: bool) -> Result<usize> {
    let pods = cluster.kubectl(&[
        "--namespace",
        namespace,
        "get",
        "pods",
        "--field-selector=status.phase=Running",
        "--output=jsonpath={range .items[*]}{.metadata.name}={.metadata.annotations.ambient\\.istio\\.io/redirection} {end}",
    ])?;
    let pods: Vec<_> = pods.split_whitespace().collect();
    let enrolled = pods.iter().filter(|pod| pod.ends_with("=enabled")).count();
    ensure!(!pods.is_empty(), "no pod runs");
    ensure!(enrolled == if expected { pods.len() } else { 0 }, "{enrolled} of {} are enrolled: {pods:?}", pods.len());
    Ok(pods.len())
}

/// Waits until a namespace's pods are announced as enrolled, or none is.
pub(super) fn until_announced(cluster: &Cluster, namespace: &str, expected: bool) -> usize {
    let what = if expected { "enrolled" } else { "out of the mesh" };
    eventually(&format!("the pods of {namespace} are {what}"), || announced(cluster, namespace, expected))
}

/// Adds a namespace to the mesh, or takes it out, as a user would.
///
/// # Errors
/// When the API server refuses.
pub(super) fn set_label(cluster: &Cluster, label: &str) -> Result<()> {
    cluster.kubectl(&["label", "namespace", SHOP, label]).map(drop)
}

/// Containers of a namespace's pods, with the number of their restarts.
///
/// # Errors
/// When the API server does not answer.
pub(super) fn containers(cluster: &Cluster) -> Result<String> {
    cluster.field(SHOP, "pods", ".items[*].status.containerStatuses[*]['containerID','restartCount']")
}
