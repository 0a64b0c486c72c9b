//! DaemonSets with what a node agent needs.

use crate::stage::{CLUSTER, Cluster, eventually, expect_equal};

const AGENT: &str = r#"---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      hostNetwork: true
      hostPID: true
      terminationGracePeriodSeconds: 2
      containers:
      - name: agent
        image: localhost/app:1
        imagePullPolicy: Never
        command: [/bin/sh, -c]
        args: ["app version >/host/state/version && exec app serve 19090"]
        securityContext: {privileged: true}
        readinessProbe: {httpGet: {path: /, port: 19090}, periodSeconds: 1}
        volumeMounts:
        - {name: state, mountPath: /host/state}
        - {name: bpf, mountPath: /sys/fs/bpf, mountPropagation: Bidirectional}
        - {name: netns, mountPath: /host/netns, mountPropagation: HostToContainer}
      volumes:
      - {name: state, hostPath: {path: /var/lib/test-agent, type: DirectoryOrCreate}}
      - {name: bpf, hostPath: {path: /sys/fs/bpf, type: Directory}}
      - {name: netns, hostPath: {path: /run/netns, type: DirectoryOrCreate}}
"#;

const NODES: [&str; 2] = ["node-1", "node-2"];

fn rollout(cluster: &Cluster) {
    cluster.kubectl(&["--namespace=agents", "rollout", "status", "daemonset/agent", "--timeout=60s"]).unwrap();
}

/// Pod of the agent on a node.
fn pod(cluster: &Cluster, node: &str) -> String {
    let on_node = format!("--field-selector=spec.nodeName={node}");
    let get = [
        "--namespace=agents",
        "get",
        "pods",
        "--selector=app=agent",
        &on_node,
        "--output=jsonpath={.items[*].metadata.name}",
    ];
    cluster.kubectl(&get).unwrap()
}

#[test]
fn a_node_agent_has_its_nodes_network_processes_and_paths_and_is_rolled_node_by_node() {
    CLUSTER.run(|cluster| {
        cluster.apply("agents", AGENT).unwrap();
        rollout(cluster);
        let exec = |node: &str, command: &str| {
            let pod = pod(cluster, node);
            cluster.kubectl(&["--namespace=agents", "exec", &pod, "--", "sh", "-c", command]).unwrap()
        };
        for node in NODES {
            assert_eq!(cluster.on(node, &["cat", "/var/lib/test-agent/version"]).unwrap(), "1");
            assert_eq!(exec(node, "tr '\\0' ' ' </proc/1/cmdline | cut -d' ' -f3"), node, "process 1 is the node's");
            assert!(exec(node, "ip address show eth0").contains("10.90.0.1"), "the network is the node's");
            exec(node, "mkdir /sys/fs/bpf/of-the-agent");
            // Other tests make pods meanwhile.
            eventually("network namespaces of pods are seen", || {
                expect_equal(
                    exec(node, "ls /host/netns | sort"),
                    cluster.on(node, &["sh", "-c", "ls /run/netns | sort"])?,
                )
            });
        }
        assert!(!std::path::Path::new("/var/lib/test-agent").exists(), "a host path is the machine's");
        assert!(!std::path::Path::new("/sys/fs/bpf/of-the-agent").exists(), "bpffs is the machine's");

        cluster.kubectl(&["--namespace=agents", "set", "image", "daemonset/agent", "agent=localhost/app:2"]).unwrap();
        rollout(cluster);

        for node in NODES {
            assert_eq!(cluster.on(node, &["cat", "/var/lib/test-agent/version"]).unwrap(), "2");
            cluster
                .on(node, &["rmdir", "/sys/fs/bpf/of-the-agent"])
                .expect("the directory outlived the pod that made it");
        }
    });
}
