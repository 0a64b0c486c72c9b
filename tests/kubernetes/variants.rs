//! Other forms of a cluster, beside the shared one.

use crate::{
    services::{deploy, reaches_both},
    stage::{CLUSTER, Cluster, Leftovers, Options, eventually, missing},
};
use testkit::prerequisites;

#[test]
fn iptables_and_ptp_serve_both_families_beside_another_cluster_with_the_same_addresses() {
    // Started first, so that there are two.
    CLUSTER.run(|shared| {
        let options = Options { kube_proxy: "iptables", cni: "ptp", ..Options::default() };
        let cluster = Cluster::start("iptables", &options).unwrap();
        deploy(&cluster, "services");
        let addresses = cluster.field("services", "service/server", ".spec.clusterIPs[*]").unwrap();
        let (v4, v6) = addresses.split_once(' ').expect("two addresses");

        reaches_both(&cluster, "services", &format!("http://{v4}"));
        reaches_both(&cluster, "services", &format!("http://[{v6}]"));
        reaches_both(&cluster, "services", "http://server");

        let rules = |tool: &str| cluster.on("node-1", &["sh", "-c", &format!("{tool} | grep -c KUBE-SVC")]).unwrap();
        assert_ne!((rules("iptables-save").as_str(), rules("ip6tables-save").as_str()), ("0", "0"));
        assert!(cluster.on("node-1", &["ip", "link", "show", "cni0"]).is_err(), "there is a bridge");
        assert!(shared.kubectl(&["get", "namespace", "iptables"]).is_err(), "the clusters share their objects");
        let left = Leftovers::of(cluster.name());
        drop(cluster);
        eventually("nothing is left of the second cluster", || left.none());
    });
}

#[test]
fn an_api_server_alone_serves_custom_resources_and_has_no_nodes() {
    if !prerequisites::met(missing()) {
        return;
    }
    let cluster = Cluster::start("api", &Options { nodes: 0, ..Options::default() }).unwrap();
    let definition = "---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: cups.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: cups, singular: cup, kind: Cup}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
";
    cluster.apply("custom", definition).unwrap();
    let cup = "---\napiVersion: example.org/v1\nkind: Cup\nmetadata: {name: blue}\nspec: {full: true}\n";

    eventually("the new kind is served", || cluster.apply("custom", cup));

    assert_eq!(cluster.field("custom", "cup/blue", ".spec.full").unwrap(), "true");
    assert_eq!(cluster.kubectl(&["get", "nodes", "--output=name"]).unwrap(), "");
}
