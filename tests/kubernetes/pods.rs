//! Pods: their traffic, commands, output and end.

use crate::{
    services::{deploy, get},
    stage::{CLUSTER, eventually, expect_equal},
};

#[test]
fn pods_reach_pods_of_both_nodes_over_both_families_with_their_own_address() {
    CLUSTER.run(|cluster| {
        deploy(cluster, "traffic");
        let addresses = |pod: &str| {
            let found = cluster.field("traffic", &format!("pod/{pod}"), ".status.podIPs[*].ip").unwrap();
            found.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let client = addresses("client-1");
        assert_eq!(client.len(), 2, "{client:?}");

        for (server, node) in [("server-1", "node-1"), ("server-2", "node-2")] {
            let server_addresses = addresses(server);
            let v4 = get(cluster, "traffic", &format!("http://{}:8080", server_addresses[0])).unwrap();
            let v6 = get(cluster, "traffic", &format!("http://[{}]:8080", server_addresses[1])).unwrap();

            assert!(v4.starts_with(&format!("pod={server} node={node} version=1 client={}:", client[0])), "{v4}");
            assert!(v6.starts_with(&format!("pod={server} node={node} version=1 client=[{}]:", client[1])), "{v6}");
        }
    });
}

#[test]
fn exec_passes_output_and_exit_code_and_logs_show_what_a_container_printed() {
    CLUSTER.run(|cluster| {
        deploy(cluster, "commands");
        let address = cluster.field("commands", "pod/server-1", ".status.podIP").unwrap();
        get(cluster, "commands", &format!("http://{address}:8080/seen-in-the-log")).unwrap();

        let exec =
            |command: &str| cluster.kubectl(&["--namespace=commands", "exec", "client-1", "--", "sh", "-c", command]);

        assert_eq!(exec("echo $POD on $(hostname)").unwrap(), "client-1 on client-1");
        let failed = format!("{:#}", exec("echo refused >&2; exit 7").unwrap_err());
        assert!(failed.contains("exit code 7") && failed.contains("refused"), "{failed}");
        eventually("the request is in the log", || {
            let log = cluster.kubectl(&["--namespace=commands", "logs", "server-1"])?;
            expect_equal(log.contains("GET /seen-in-the-log from "), true)
        });
    });
}

#[test]
fn the_api_server_reaches_pods_as_webhooks_need() {
    CLUSTER.run(|cluster| {
        deploy(cluster, "proxied");

        let answer = cluster.kubectl(&["get", "--raw=/api/v1/namespaces/proxied/services/server:http/proxy/"]).unwrap();

        assert!(answer.starts_with("pod=server-"), "{answer}");
    });
}

#[test]
fn a_deleted_pod_leaves_nothing_on_its_node() {
    CLUSTER.run(|cluster| {
        deploy(cluster, "deleted");
        let uid = cluster.field("deleted", "pod/server-2", ".metadata.uid").unwrap();
        let address = cluster.field("deleted", "pod/server-2", ".status.podIP").unwrap();
        let traces = || {
            let search = format!("find /sys/fs/cgroup -name '*{uid}*'; ls /run/cni/pods | grep -Fx {address}; true");
            cluster.on("node-2", &["sh", "-c", &search])
        };
        assert_eq!(traces().unwrap().lines().count(), 2, "{:?}", traces());

        cluster.kubectl(&["--namespace=deleted", "delete", "pod", "server-2", "--timeout=60s"]).unwrap();

        eventually("cgroup and address are released", || expect_equal(traces()?, String::new()));
    });
}
