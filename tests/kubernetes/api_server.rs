//! An API server that is away, and what it has logged.

use serde_json::Value;

use crate::{
    services::{deploy, get},
    stage::{CLUSTER, Cluster, eventually, expect_equal},
};

/// Time of the last heartbeat of a node.
fn heartbeat(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    cluster.field("kube-node-lease", &format!("lease/{node}"), ".spec.renewTime")
}

/// Returns true if a node reaches the API server within 2 s.
fn reaches_api(cluster: &Cluster, node: &str) -> bool {
    let curl = ["curl", "--silent", "--insecure", "--max-time", "2", "https://10.90.0.1:6443/version"];
    cluster.on(node, &curl).is_ok()
}

#[test]
fn a_cut_keeps_one_node_from_the_api_server_and_its_pods_go_on() {
    CLUSTER.run_alone(|cluster| {
        deploy(cluster, "cut");
        let address = cluster.field("cut", "pod/client-1", ".status.podIP").unwrap();
        let service = format!("http://{}", cluster.field("cut", "service/server", ".spec.clusterIP").unwrap());
        // The kubelet asks the API server whether exec is allowed, and remembers the answer for five minutes.
        get(cluster, "cut", &service).unwrap();

        cluster.command(&["api", "cut", "node-1"]).unwrap();

        assert!(!reaches_api(cluster, "node-1") && reaches_api(cluster, "node-2"));
        assert_eq!(cluster.field("cut", "pod/client-1", ".status.podIP").unwrap(), address, "kubectl is not cut");
        let answer = get(cluster, "cut", &service).unwrap();
        assert!(answer.starts_with("pod=server-"), "{answer}");

        cluster.command(&["api", "cut"]).unwrap();
        assert!(!reaches_api(cluster, "node-1") && !reaches_api(cluster, "node-2"));

        cluster.command(&["api", "mend"]).unwrap();
        assert!(reaches_api(cluster, "node-1") && reaches_api(cluster, "node-2"));
        let last = heartbeat(cluster, "node-1").unwrap();
        eventually("the node's heartbeats go on", || expect_equal(heartbeat(cluster, "node-1")? == last, false));
    });
}

#[test]
fn a_paused_api_server_does_not_answer_and_goes_on_where_it_was() {
    CLUSTER.run_alone(|cluster| {
        let ask = || cluster.kubectl(&["get", "--raw=/readyz", "--request-timeout=2s"]);

        cluster.command(&["api", "pause"]).unwrap();
        let paused = format!("{:#}", ask().expect_err("a paused API server answers"));

        cluster.command(&["api", "resume"]).unwrap();

        // It accepts connections and says nothing: a time-out of the client, no refusal.
        assert!(
            paused.contains("Client.Timeout") || paused.contains("deadline exceeded") || paused.contains("timeout"),
            "{paused}"
        );
        eventually("it answers again", ask);
    });
}

#[test]
fn a_killed_api_server_is_back_with_everything_it_stored() {
    CLUSTER.run_alone(|cluster| {
        cluster
            .apply("stored", "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n")
            .unwrap();

        cluster.command(&["api", "restart"]).unwrap();

        assert_eq!(cluster.field("stored", "configmap/kept", ".data.a").unwrap(), "b");
    });
}

#[test]
fn the_audit_log_says_who_did_what_and_whether_it_was_allowed() {
    CLUSTER.run(|cluster| {
        let as_nobody = ["get", "secrets", "--all-namespaces", "--as=system:serviceaccount:default:nobody"];
        cluster.kubectl(&as_nobody).expect_err("an account without a role reads all secrets");

        eventually("the refusal is in the audit log", || {
            let log = cluster.log("audit.log")?;
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut refused = events.filter(|event| {
                event["impersonatedUser"]["username"] == "system:serviceaccount:default:nobody"
                    && event["verb"] == "list"
                    && event["objectRef"]["resource"] == "secrets"
            });
            let decision = refused.next().map(|event| event["annotations"]["authorization.k8s.io/decision"].clone());
            expect_equal(decision, Some(Value::from("forbid")))
        });
    });
}
