//! The mesh on a real Kubernetes: installed, given a namespace, and removed.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::{
    services::{deploy, get, reaches_both},
    stage::{Cluster, Load, Options, TAKES_EFFECT, Wire, eventually, expect_equal, mesh, missing},
};
use testkit::prerequisites;

const PODS: [&str; 3] = ["server-1", "server-2", "client-1"];

/// Addresses of both families of each pod of a namespace.
fn addresses(cluster: &Cluster, namespace: &str) -> Vec<IpAddr> {
    let all = cluster.field(namespace, "pods", ".items[*].status.podIPs[*].ip").unwrap();
    all.split(' ').map(|address| address.parse().unwrap()).collect()
}

/// URLs of a server on the other node, by its address of each family and by its Service.
fn urls(cluster: &Cluster, namespace: &str) -> [String; 3] {
    let of = |index: u8| {
        cluster.field(namespace, "pod/server-2", &format!(".status.podIPs[{index}].ip")).unwrap().parse().unwrap()
    };
    let url = |address: IpAddr| match address {
        IpAddr::V4(address) => format!("http://{address}:8080"),
        IpAddr::V6(address) => format!("http://[{address}]:8080"),
    };
    [url(of(0)), url(of(1)), format!("http://server.{namespace}")]
}

/// Gets each URL from the client.
fn get_all(cluster: &Cluster, namespace: &str) -> Result<()> {
    for url in urls(cluster, namespace) {
        let answer = get(cluster, namespace, &url)?;
        ensure!(answer.starts_with("pod=server-"), "{url}: {answer}");
    }
    Ok(())
}

/// Pods that an agent has announced as enrolled, in the order of `PODS`.
fn announced(cluster: &Cluster, namespace: &str) -> Result<[bool; 3]> {
    let annotation = ".metadata.annotations.ambient\\.istio\\.io/redirection";
    let mut announced = [false; 3];
    for (pod, announced) in PODS.iter().zip(&mut announced) {
        *announced = cluster.field(namespace, &format!("pod/{pod}"), annotation)? == "enabled";
    }
    Ok(announced)
}

/// Containers of the namespace's pods, with the number of their restarts.
fn containers(cluster: &Cluster, namespace: &str) -> String {
    cluster.field(namespace, "pods", ".items[*].status.containerStatuses[*]['containerID','restartCount']").unwrap()
}

fn install(cluster: &Cluster) {
    mesh::import(cluster).unwrap();
    let printed = mesh::strake(cluster, &["install", "--hub", "localhost"])
        .unwrap_or_else(|error| panic!("{error:#}\n{}", mesh::logs(cluster)));
    assert!(printed.contains("the mesh is installed"), "{printed}");
}

#[test]
fn a_label_encrypts_the_traffic_of_a_namespace_and_the_removal_of_the_mesh_leaves_nothing() {
    if !prerequisites::met(missing()) {
        return;
    }
    let cluster = Cluster::start("mesh", &Options::default()).unwrap();
    let before = everything(&cluster);
    deploy(&cluster, "shop");
    deploy(&cluster, "outside");
    let (pods, running) = (addresses(&cluster, "shop"), containers(&cluster, "shop"));
    install(&cluster);

    // Without the label everything is as it was.
    let (answered, wire) = Wire::of(&cluster, "node-1", || get_all(&cluster, "shop")).unwrap();
    answered.unwrap();
    assert!(!wire.audit(&pods).plain.is_empty());

    cluster.kubectl(&["label", "namespace", "shop", "istio.io/dataplane-mode=ambient"]).unwrap();
    eventually("the pods are enrolled", || expect_equal(announced(&cluster, "shop")?, [true; 3]));
    let (answered, wire) = Wire::of(&cluster, "node-1", || get_all(&cluster, "shop")).unwrap();
    answered.unwrap_or_else(|error| panic!("{error:#}\n{}", mesh::logs(&cluster)));
    let audit = wire.audit(&pods);
    assert!(audit.only_tls13(), "{audit:?}");
    assert_eq!(containers(&cluster, "shop"), running, "a container was started again");
    assert_eq!(announced(&cluster, "outside").unwrap(), [false; 3]);
    let status = mesh::strake(&cluster, &["status", "--check"]).unwrap();
    assert!(status.contains("ztunnel") && status.contains("PODS SELECTED"), "{status}");

    strict_refuses_those_outside_and_not_the_kubelet(&cluster);
    every_request_of_a_new_pod_is_encrypted(&cluster);
    no_request_fails_while_programs_are_replaced(&cluster, &pods);
    a_node_that_reboots_sends_nothing_in_plaintext(&cluster, &pods);
    let (pods, running) = (addresses(&cluster, "shop"), containers(&cluster, "shop"));

    cluster.kubectl(&["label", "namespace", "shop", "istio.io/dataplane-mode-"]).unwrap();
    eventually("the pods have left", || expect_equal(announced(&cluster, "shop")?, [false; 3]));
    let (answered, wire) = Wire::of(&cluster, "node-1", || get_all(&cluster, "shop")).unwrap();
    answered.unwrap();
    assert!(!wire.audit(&pods).plain.is_empty());

    // Back in, so that the removal has pods to take out.
    cluster.kubectl(&["label", "namespace", "shop", "istio.io/dataplane-mode=ambient"]).unwrap();
    eventually("the pods are enrolled again", || expect_equal(announced(&cluster, "shop")?, [true; 3]));
    mesh::strake(&cluster, &["uninstall"]).unwrap_or_else(|error| panic!("{error:#}\n{}", mesh::logs(&cluster)));
    get_all(&cluster, "shop").unwrap();
    assert_eq!(announced(&cluster, "shop").unwrap(), [false; 3]);
    assert_eq!(containers(&cluster, "shop"), running, "a container was started again");
    cluster.kubectl(&["delete", "namespace", "shop", "outside"]).unwrap();
    eventually("nothing is left", || expect_equal(everything(&cluster), before.clone()));
}

fn strict_refuses_those_outside_and_not_the_kubelet(cluster: &Cluster) {
    let [by_address, ..] = urls(cluster, "shop");
    get(cluster, "outside", &by_address).expect("permissive lets those outside in");

    let strict = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict}\n\
                  spec: {mtls: {mode: STRICT}}\n";
    cluster.apply("shop", strict).unwrap();
    let wait = ["wait", "--namespace=shop", "--for=condition=Enforced", "peerauthentication/strict"];
    let timeout = format!("--timeout={}s", TAKES_EFFECT.as_secs());
    cluster.kubectl(&[&wait[..], &[&timeout]].concat()).unwrap();

    // What the condition says is so from the first request on.
    assert!(get(cluster, "outside", &by_address).is_err(), "STRICT lets plaintext in");
    get_all(cluster, "shop").unwrap();
    // The probes of a second each go on.
    let ready = cluster.field("shop", "pods", ".items[*].status.containerStatuses[*].ready").unwrap();
    assert_eq!(ready, "true true true");
    cluster.kubectl(&["delete", "--namespace=shop", "peerauthentication/strict"]).unwrap();
    eventually("those outside are let in again", || get(cluster, "outside", &by_address).map(drop));
}

/// Pods that make one request as their first act, and end.
fn every_request_of_a_new_pod_is_encrypted(cluster: &Cluster) {
    let [url, ..] = urls(cluster, "shop");
    let job = format!(
        "---\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: once}}\nspec:\n  completions: 20\n  parallelism: 10\n  \
         backoffLimit: 0\n  template:\n    metadata: {{labels: {{app: once}}}}\n    spec:\n      nodeName: node-1\n      \
         restartPolicy: Never\n      containers:\n      - {{name: app, image: localhost/app:1, imagePullPolicy: Never, \
         args: [get, \"{url}\"]}}\n"
    );
    let timeout = format!("--timeout={}s", TAKES_EFFECT.as_secs());
    let (done, wire) = Wire::of(cluster, "node-1", || {
        cluster.apply("shop", &job)?;
        cluster.kubectl(&["wait", "--namespace=shop", "--for=condition=complete", "job/once", &timeout])
    })
    .unwrap();
    done.unwrap_or_else(|error| panic!("{error:#}\n{}", mesh::logs(cluster)));
    // Those of pods that have ended are among them.
    let audit = wire.audit(&addresses(cluster, "shop"));
    assert!(audit.only_tls13(), "{audit:?}");
    cluster.kubectl(&["delete", "--namespace=shop", "job/once"]).unwrap();
}

fn no_request_fails_while_programs_are_replaced(cluster: &Cluster, pods: &[IpAddr]) {
    let [.., service] = urls(cluster, "shop");
    for program in ["daemonset/ztunnel", "daemonset/strake-agent", "deployment/strake-control"] {
        let rollout = |verb: &str| {
            cluster.kubectl(&["--namespace=istio-system", "rollout", verb, program]).map(drop).unwrap();
        };
        let (requests, wire) = Wire::of(cluster, "node-1", || {
            let load = Load::start(cluster, "shop", &service).unwrap();
            rollout("restart");
            rollout("status");
            load.stop().unwrap()
        })
        .unwrap();

        assert!(requests.answered > 0 && requests.failed.is_empty(), "{program}: {requests:?}");
        assert!(wire.audit(pods).plain.is_empty(), "{program}: plaintext on the wire");
    }
}

/// The node loses programs, rules and processes under traffic; its pods come back before or after its agent.
fn a_node_that_reboots_sends_nothing_in_plaintext(cluster: &Cluster, pods: &[IpAddr]) {
    let [.., service] = urls(cluster, "shop");
    let before = containers(cluster, "shop");
    let (requests, wire) = Wire::of(cluster, "node-1", || {
        let load = Load::start(cluster, "shop", &service).unwrap();
        cluster.command(&["reboot", "node-2"]).unwrap();
        eventually("the pods of the node run again", || expect_equal(containers(cluster, "shop") == before, false));
        // By the Service: its endpoints are known to proxies together with their addresses (0006, "What is not
        // guaranteed").
        reaches_both(cluster, "shop", &service);
        load.stop().unwrap()
    })
    .unwrap();

    // Requests to the server of that node have failed meanwhile.
    assert!(requests.answered > 0, "{requests:?}");
    let known: Vec<_> = pods.iter().copied().chain(addresses(cluster, "shop")).collect();
    let audit = wire.audit(&known);
    assert!(audit.plain.is_empty() && audit.records > 0, "{audit:?}");
    eventually("the pods are enrolled", || expect_equal(announced(cluster, "shop")?, [true; 3]));
    eventually("they answer by address", || get_all(cluster, "shop"));
}

/// Everything that an installation may leave: names of objects, and on each node kernel programs, rules and routes.
fn everything(cluster: &Cluster) -> Vec<String> {
    let kinds = "namespaces,clusterroles,clusterrolebindings,customresourcedefinitions";
    let mut found = vec![cluster.kubectl(&["get", kinds, "--output=name"]).unwrap()];
    for node in ["node-1", "node-2"] {
        for command in ["ls /sys/fs/bpf", "ip rule", "ip -6 rule", "ls /etc/cni/net.d"] {
            found.push(format!("{node}: {command}\n{}", cluster.on(node, &["sh", "-c", command]).unwrap()));
        }
    }
    found
}
