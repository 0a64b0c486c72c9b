//! Pods that start in the mesh, and the names by which they are called.

use anyhow::{Context as _, Result, ensure};

use super::{
    Story,
    shop::{self, INTRUDER, SHOP, Urls},
};
use crate::stage::{eventually, mesh};

/// Jobs of one request each.
const JOBS: u8 = 20;

/// A host that no DNS server knows, with the pods of `db` behind it.
const PARTNER: &str = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner}
spec:
  hosts: [partner.example]
  location: MESH_INTERNAL
  ports: [{number: 8080, name: http, protocol: HTTP}]
  resolution: STATIC
  workloadSelector: {labels: {app: db}}
";

/// Pods that make one request as their first act, and end.
fn jobs(url: &str) -> String {
    format!(
        "---\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: once}}\nspec:\n  completions: {JOBS}\n  parallelism: 10\n  \
         backoffLimit: 0\n  template:\n    metadata: {{labels: {{app: once}}}}\n    spec:\n      nodeName: node-1\n      \
         restartPolicy: Never\n      containers:\n      - {{name: app, image: localhost/app:1, imagePullPolicy: Never, \
         args: [get, \"{url}\"]}}\n"
    )
}

pub(super) fn newborn(story: &mut Story) -> Result<()> {
    story.report.step("New pods are in the mesh before their first packet");
    let urls = Urls::of(&story.cluster)?;
    let ((), wire) = story.wire(|| {
        story.report.command("kubectl apply -n shop -f jobs.yaml");
        story.cluster.apply(SHOP, &jobs(&urls.v4))?;
        let complete = ["wait", "--namespace", SHOP, "--for=condition=complete", "job/once", "--timeout=60s"];
        story.cluster.kubectl(&complete).map(drop).with_context(|| mesh::logs(&story.cluster))
    })?;
    // Those of pods that have ended are among them.
    let sealed = story.only_tls(&wire, &shop::addresses(&story.cluster, SHOP)?)?;
    story.report.proved(&format!("{JOBS} Jobs end, each with its one request in a tunnel"), &[sealed]);
    story.cluster.kubectl(&["delete", "--namespace", SHOP, "job/once"])?;

    story.report.command("kubectl apply -n shop -f checkout.yaml");
    story.cluster.apply(SHOP, &shop::on_node("checkout", "node-1", &["http"]))?;
    shop::rolled_out(&story.cluster, SHOP, "deployment/checkout")?;
    // At once: the plugin let the pod start only when it was in the mesh.
    let enrolled = shop::announced(&story.cluster, SHOP, true)?;
    story.report.proved("a new Deployment is born enrolled", &[format!("{enrolled} pods, no restart")]);
    story.cluster.kubectl(&["delete", "--namespace", SHOP, "deployment/checkout", "--wait"])?;
    Ok(())
}

pub(super) fn services(story: &mut Story) -> Result<()> {
    story.report.step("Services by name: cluster IP through kube-proxy's Service, headless, by CoreDNS");
    let names = ["db", "db.shop.svc.cluster.local", "db-pods:8080"];
    let (answers, wire) = story.wire(|| {
        let call = |name: &&str| {
            let answer = shop::get(&story.cluster, SHOP, "deploy/cart", &format!("http://{name}/order"))?;
            Ok(format!("{name}: {answer}"))
        };
        names.iter().map(call).collect::<Result<Vec<_>>>()
    })?;
    ensure!(wire.audit(&shop::addresses(&story.cluster, SHOP)?).plain.is_empty(), "plaintext on the wire");
    story.report.proved("each is answered, and nothing of it is in plaintext between the nodes", &answers);
    partner(story)
}

/// A name that only the mesh knows: ztunnel answers in the place of CoreDNS, which the pod has asked.
fn partner(story: &mut Story) -> Result<()> {
    story.report.command("kubectl apply -n shop -f service-entry.yaml");
    story.cluster.apply(SHOP, PARTNER)?;
    let resolve = ["--namespace", SHOP, "exec", "deploy/cart", "--", "app", "resolve", "partner.example"];
    let addresses = eventually("the host is resolved", || {
        let addresses = story.cluster.kubectl(&resolve)?;
        ensure!(addresses.contains("240.240."), "{addresses}");
        Ok(addresses)
    });
    let call = || shop::get(&story.cluster, SHOP, "deploy/cart", "http://partner.example:8080/order");
    let (answer, wire) = story.wire(call)?;
    ensure!(wire.audit(&shop::addresses(&story.cluster, SHOP)?).plain.is_empty(), "plaintext on the wire");
    let outside = ["--namespace", INTRUDER, "exec", "deploy/mallory", "--", "app", "resolve", "partner.example"];
    ensure!(story.cluster.kubectl(&outside).is_err(), "a pod outside the mesh resolves it, too");
    let found = format!("{} -> {answer}", addresses.replace('\n', " "));
    story.report.proved("a host of a ServiceEntry, which CoreDNS does not know, is resolved and called", &[found]);
    story.cluster.kubectl(&["delete", "--namespace", SHOP, "serviceentry/partner"])?;
    Ok(())
}
