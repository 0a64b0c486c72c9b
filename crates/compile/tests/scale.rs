//! Costs of changes in a mesh of 10 000 pods and 200 policies: `cargo test --workspace --test scale -- --ignored --nocapture`.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::time::Instant;

use compile::{Compiler, Update};
use graph::Mesh;
use kube_types::Resource;
use kube_types::core::Pod;
use proxy::resources;

const NAMESPACES: usize = 50;
const PODS_PER_NAMESPACE: usize = 200;
const APPS: usize = 10;

fn pod(namespace: usize, number: usize) -> Resource {
    let mut pod = Pod::default();
    pod.metadata.namespace = format!("n{namespace}");
    pod.metadata.name = format!("p{number}");
    pod.metadata.labels.insert("app".to_owned(), format!("a{}", number % APPS));
    let annotation = ("ambient.istio.io/redirection".to_owned(), "enabled".to_owned());
    pod.metadata.annotations.extend([annotation]);
    pod.spec.service_account_name = Some(format!("a{}", number % APPS));
    pod.spec.node_name = Some(format!("node{}", number % 100));
    pod.status.pod_ip = Some(format!("10.{namespace}.{}.{}", number / 200, number % 200));
    Resource::Pod(Arc::new(pod))
}

/// Four policies in each namespace, of which two select by labels and one has a port.
fn policies() -> Vec<Resource> {
    let mut text = String::new();
    for namespace in 0..NAMESPACES {
        for (name, spec) in [
            ("all", "{rules: [{from: [{source: {namespaces: [n1, n2]}}]}]}".to_owned()),
            ("port", "{action: DENY, rules: [{to: [{operation: {ports: ['80', '8080']}}]}]}".to_owned()),
            (
                "one",
                format!(
                    "{{selector: {{matchLabels: {{app: a1}}}}, rules: [{{from: [{{source: {{serviceAccounts: [a2, n{namespace}/a3, nobody]}}}}]}}]}}"
                ),
            ),
            ("idle", "{selector: {matchLabels: {app: gone}}, rules: [{}]}".to_owned()),
        ] {
            text += &format!(
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: n{namespace}}}\nspec: {spec}\n"
            );
        }
        for app in 0..APPS {
            text += &format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: a{app}, namespace: n{namespace}}}\nspec: {{selector: {{app: a{app}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
            );
        }
    }
    resources(&text)
}

fn measured(what: &str, change: impl FnOnce() -> Update) -> Update {
    let started = Instant::now();
    let update = change();
    println!(
        "{what}: {:?}, {} workloads, {} conditions, {} findings",
        started.elapsed(),
        update.placements.len(),
        update.policies.len(),
        update.findings.len()
    );
    update
}

#[test]
#[ignore = "measures"]
fn changes_cost_what_changes() {
    let mut compiler = Compiler::new(Mesh::default());
    for namespace in 0..NAMESPACES {
        (0..PODS_PER_NAMESPACE).for_each(|number| compiler.apply(pod(namespace, number)));
    }
    policies().into_iter().for_each(|policy| compiler.apply(policy));
    measured("everything", || compiler.settle());

    let mut one = |what: &str, resource: Resource| {
        measured(what, || {
            compiler.apply(resource);
            compiler.settle()
        })
    };
    let update = one("a pod joins", pod(7, PODS_PER_NAMESPACE));
    assert_eq!(update.placements.len(), 1);
    let account =
        resources("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: nobody, namespace: n7}\n").remove(0);
    let update = one("a service account comes", account);
    assert_eq!(update.placements.len(), 0);
    assert!(update.findings.iter().any(|(object, findings)| object.namespace == "n7" && findings.is_empty()));
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: port, namespace: n7}\nspec: {action: DENY, rules: [{to: [{operation: {ports: ['81']}}]}]}\n";
    let update = one("a policy of a namespace with a port changes", resources(policy).remove(0));
    assert_eq!(update.placements.len(), PODS_PER_NAMESPACE + 1);
    let wide = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: mesh, namespace: istio-system}\nspec: {action: DENY, rules: [{from: [{source: {namespaces: [n3]}}]}]}\n";
    let update = one("a policy of the mesh comes", resources(wide).remove(0));
    assert_eq!(update.placements.len(), 0);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a1, namespace: n7}\nspec: {selector: {app: a1}, ports: [{port: 81, targetPort: 8080}]}\n";
    one("a service changes its port", resources(service).remove(0));
}
