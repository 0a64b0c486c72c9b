//! Policies of admission and custom resources on a real API server, as the chart installs them. There are no nodes: nothing
//! runs, and everything is admitted or refused.

mod objects;

use self::objects::{ACCEPTED, REFUSED, manifest};
use crate::stage::{Cluster, Options, eventually, expect_equal, mesh, missing};
use testkit::prerequisites;

/// Installs the chart with everything in it that an API server without other custom resources takes.
fn install(cluster: &Cluster) {
    let values = "--set=global.hub=localhost,admission.enabled=true,pilot.replicaCount=2,global.networkPolicy.enabled=true,\
                  resourceQuotas.enabled=true,cni.startupTaint=example.org/new,meshConfig.discoverySelectors[0].matchLabels.a=b";
    let install = ["install", "strake", "daemonset/chart", "--namespace=istio-system", "--create-namespace", values];
    let notes = mesh::helm(cluster, &install).unwrap();
    assert!(notes.contains("kubectl label namespace NAME istio.io/dataplane-mode=ambient"), "{notes}");
}

#[test]
fn what_can_never_work_is_refused_and_the_rest_is_not() {
    if !prerequisites::met(missing()) {
        return;
    }
    let cluster = Cluster::start("admission", &Options { nodes: 0, ..Options::default() }).unwrap();
    // There before the policies, which must not keep anybody from changing it.
    cluster
        .apply(
            "old",
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: former, labels: {istio.io/dataplane-mode: 'on'}}\n",
        )
        .unwrap();
    install(&cluster);
    let create = ["create", "--dry-run=server", "--filename=-"];
    // The API server reads new policies and kinds within seconds.
    for (kind, name, rest, reason) in REFUSED {
        let manifest = manifest([(kind, name, rest)]);
        eventually(name, || {
            let answer = cluster.kubectl_reading(&create, &manifest).map(|_| "admitted".to_owned());
            let answer = answer.unwrap_or_else(|error| format!("{error:#}"));
            anyhow::ensure!(answer.contains(reason), "expected {reason:?}, found {answer}");
            Ok(())
        });
    }

    let admitted = cluster.kubectl_reading(&create, &manifest(ACCEPTED)).unwrap();

    assert_eq!(admitted.lines().count(), ACCEPTED.len(), "{admitted}");
    cluster.kubectl(&["label", "namespace", "former", "other=label"]).unwrap();
    cluster.kubectl(&["label", "namespace", "former", "istio.io/dataplane-mode=ambient", "--overwrite"]).unwrap();
    cluster.kubectl(&["delete", "namespace", "former"]).unwrap();
    only_the_agent_writes_the_annotation(&cluster);
    columns_are_those_of_istio(&cluster);
}

fn only_the_agent_writes_the_annotation(cluster: &Cluster) {
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, annotations: {other: before}}\nspec: {containers: [{name: app, image: app}]}\n";
    cluster.kubectl_reading(&["create", "--filename=-"], pod).unwrap();
    let annotation =
        || cluster.field("default", "pod/web", ".metadata.annotations.ambient\\.istio\\.io/redirection").unwrap();
    let patch = |value: &str, account: &str| {
        let patch = format!("{{\"metadata\": {{\"annotations\": {{\"ambient.istio.io/redirection\": {value}}}}}}}");
        let account = format!("--as=system:serviceaccount:istio-system:{account}");
        let args = ["patch", "pod", "web", "--subresource=status", "--type=merge", "--patch", &patch];
        let own: &[&str] = if account.ends_with(':') { &[] } else { &[&account] };
        cluster.kubectl(&[&args[..], own].concat())
    };
    let is_refused = |result: anyhow::Result<String>| {
        let error = format!("{:#}", result.expect_err("somebody else writes the annotation"));
        assert!(error.contains("is written by the agent of the node alone"), "{error}");
    };
    // The cluster's administrator is not the agent either.
    is_refused(patch("\"enabled\"", ""));
    is_refused(cluster.kubectl(&["annotate", "pod", "web", "ambient.istio.io/redirection=enabled"]));
    let binding = "{\"apiVersion\": \"v1\", \"kind\": \"Binding\", \"metadata\": {\"name\": \"web\", \"annotations\": \
                   {\"ambient.istio.io/redirection\": \"enabled\"}}, \"target\": {\"kind\": \"Node\", \"name\": \"n\"}}";
    let bind = ["create", "--raw=/api/v1/namespaces/default/pods/web/binding", "--filename=-"];
    is_refused(cluster.kubectl_reading(&bind, binding));
    assert_eq!(annotation(), "");

    // kubectl reads before it writes, as the agent does not.
    cluster.kubectl(&["create", "clusterrole", "reads", "--verb=get", "--resource=pods,pods/status"]).unwrap();
    let account = "--serviceaccount=istio-system:strake-agent";
    cluster.kubectl(&["create", "clusterrolebinding", "reads", "--clusterrole=reads", account]).unwrap();
    eventually("the agent writes the annotation", || patch("\"enabled\"", "strake-agent"));

    assert_eq!(annotation(), "enabled");
    cluster.kubectl(&["annotate", "pod", "web", "other=after", "--overwrite"]).unwrap();
    is_refused(cluster.kubectl(&["annotate", "pod", "web", "ambient.istio.io/redirection-"]));
    is_refused(patch("\"pending\"", ""));
    patch("null", "strake-agent").unwrap();
    assert_eq!(annotation(), "");
    cluster.kubectl(&["delete", "pod", "web", "--now"]).unwrap();
}

fn columns_are_those_of_istio(cluster: &Cluster) {
    cluster.kubectl_reading(&["create", "--filename=-"], &manifest(ACCEPTED.into_iter().skip(4))).unwrap();

    for (name, head, row) in [
        ("ap", "NAME ACTION AGE", "policy DENY"),
        ("pa", "NAME MODE AGE", "ports STRICT"),
        ("se", "NAME HOSTS LOCATION RESOLUTION AGE", "service [\"a.example\"] MESH_INTERNAL STATIC"),
        ("we", "NAME AGE ADDRESS", "machine"),
    ] {
        let table = cluster.kubectl(&["get", name]).unwrap();
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines.first().map(String::as_str), Some(head));
        assert!(lines.iter().any(|line| line.starts_with(row)), "{table}");
    }
    // Every version is the same object.
    let version = "serviceentries.v1alpha3.networking.istio.io";
    let host = cluster.kubectl(&["get", version, "service", "--output=jsonpath={.spec.hosts[0]}"]).unwrap();
    expect_equal(host, "a.example".to_owned()).unwrap();
}
