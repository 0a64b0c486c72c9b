//! A node that loses everything but its disk.

use crate::{
    services::{deploy, get},
    stage::{CLUSTER, Cluster, eventually, expect_equal},
};

/// First container of a pod: its id and number of restarts.
fn container(cluster: &Cluster, pod: &str) -> anyhow::Result<String> {
    let path = ".status.containerStatuses[0]['containerID','restartCount']";
    cluster.field("reboot", &format!("pod/{pod}"), path)
}

#[test]
fn a_rebooted_node_has_its_disk_and_its_pods_again_and_nothing_else_that_was() {
    CLUSTER.run_alone(|cluster| {
        deploy(cluster, "reboot");
        let marks = ["/etc/test-disk", "/run/test-memory", "/sys/fs/cgroup/test-cgroup", "/sys/fs/bpf/test-bpf"];
        cluster.on("node-1", &[&["mkdir"], &marks[..]].concat()).unwrap();
        cluster.on("node-1", &["ip", "link", "add", "test-link", "type", "bridge"]).unwrap();
        let before = [container(cluster, "server-1").unwrap(), container(cluster, "server-2").unwrap()];

        cluster.command(&["reboot", "node-1"]).unwrap();

        let exists = |path: &str| cluster.on("node-1", &["test", "-e", path]).is_ok();
        assert_eq!(marks.map(exists), [true, false, false, false]);
        assert!(cluster.on("node-1", &["ip", "link", "show", "test-link"]).is_err(), "the network outlived the reboot");
        eventually("pods of the node run again", || {
            expect_equal(container(cluster, "server-1")? == before[0], false)?;
            cluster.wait_ready("reboot")
        });
        assert_eq!(container(cluster, "server-2").unwrap(), before[1], "the other node was disturbed");
        let answer = eventually("traffic flows again", || get(cluster, "reboot", "http://server.reboot"));
        assert!(answer.starts_with("pod=server-"), "{answer}");
    });
}

#[test]
fn a_node_that_is_off_stays_off_until_it_is_switched_on() {
    CLUSTER.run_alone(|cluster| {
        cluster.command(&["off", "node-2"]).unwrap();
        assert!(cluster.command(&["pid", "node-2"]).is_err(), "a process of the node is alive");

        cluster.command(&["on", "node-2"]).unwrap();

        assert_eq!(cluster.on("node-2", &["hostname"]).unwrap(), "node-2");
    });
}
