//! Nodes, as the API shows them and as they are.

use std::collections::BTreeSet;

use crate::stage::{CLUSTER, eventually, expect_equal};

#[test]
fn nodes_are_ready_with_addresses_and_pod_ranges_of_both_families() {
    CLUSTER.run(|cluster| {
        let nodes = |path: &str| cluster.field("default", "nodes", &format!(".items[*]{path}")).unwrap();

        assert_eq!(nodes(".metadata.name"), "node-1 node-2");
        assert_eq!(nodes(r#".status.conditions[?(@.type=="Ready")].status"#), "True True");
        let addresses = nodes(r#".status.addresses[?(@.type=="InternalIP")].address"#);
        assert_eq!(addresses, "10.90.0.11 fd90::11 10.90.0.12 fd90::12");
        assert_eq!(nodes(".spec.podCIDRs"), r#"["10.91.1.0/24","fd91:0:0:1::/64"] ["10.91.2.0/24","fd91:0:0:2::/64"]"#);
    });
}

#[test]
fn versions_are_those_that_the_modules_name() {
    CLUSTER.run(|cluster| {
        let modules = include_str!("cluster/binaries/go.mod");
        let version_of = |module: &str| {
            let line = modules.lines().map(str::trim).find(|line| line.starts_with(&format!("{module} v")));
            line.unwrap_or_else(|| panic!("no {module} in go.mod")).split(' ').nth(1).unwrap().to_owned()
        };

        let server = cluster.kubectl(&["version"]).unwrap();
        let kubelets = cluster.field("default", "nodes", ".items[*].status.nodeInfo.kubeletVersion").unwrap();

        let kubernetes = version_of("k8s.io/kubernetes");
        assert!(server.contains(&format!("Server Version: {kubernetes}")), "{server}");
        assert_eq!(kubelets, format!("{kubernetes} {kubernetes}"));
    });
}

#[test]
fn a_node_has_its_own_host_name_root_processes_and_boot() {
    CLUSTER.run(|cluster| {
        let on = |node: &str, command: &str| cluster.on(node, &["sh", "-c", command]).unwrap();
        let boot = "cat /proc/sys/kernel/random/boot_id";

        on("node-1", "echo written >/etc/strake-test-own-root");

        assert_eq!([on("node-1", "hostname"), on("node-2", "hostname")], ["node-1", "node-2"]);
        assert_eq!(on("node-2", "cat /etc/strake-test-own-root || echo absent"), "absent");
        assert!(!std::path::Path::new("/etc/strake-test-own-root").exists(), "a node writes to the machine");
        let init = "tr '\\0' ' ' </proc/1/cmdline";
        assert!(on("node-1", init).contains("init.sh node-1"), "{}", on("node-1", init));
        let boots = BTreeSet::from([
            on("node-1", boot),
            on("node-2", boot),
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap(),
        ]);
        assert_eq!(boots.len(), 3);
    });
}

#[test]
fn a_static_pod_of_a_node_runs() {
    CLUSTER.run(|cluster| {
        let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: static}\nspec: {terminationGracePeriodSeconds: 1, \
                        containers: [{name: app, image: \"localhost/app:1\", imagePullPolicy: Never, args: [serve, \"8080\"]}]}\n";
        let file = "/etc/kubernetes/manifests/static.yaml";

        cluster.on("node-2", &["sh", "-c", &format!("printf '%s' '{manifest}' >{file}")]).unwrap();

        eventually("the mirror pod runs", || {
            expect_equal(cluster.field("default", "pod/static-node-2", ".status.phase")?, "Running".to_owned())
        });
        cluster.on("node-2", &["rm", file]).unwrap();
        eventually("the mirror pod is gone", || {
            expect_equal(cluster.kubectl(&["get", "pods", "--output=name"])?.contains("static-node-2"), false)
        });
    });
}
