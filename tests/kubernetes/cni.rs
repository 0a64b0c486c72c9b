//! The CNI plugin with a real kubelet, containerd and reference plugins. The agent is the test: it says when pods may start.

use anyhow::{Context as _, Result, ensure};
use cni::{
    AgentDown, Kubeconfig, PLUGIN_TYPE, PluginConfig,
    conflist::{self, File},
};
use testkit::prerequisites;

use crate::stage::{
    Cluster, FakeAgent, Options, RUN_DIR, Workload, enrolled, eventually, expect_equal, failed, missing,
};

const NODE: &str = "node-1";

/// Manifest with the plugin's ServiceAccount and its permissions.
const MANIFEST: &str = include_str!("../../daemonset/manifests/strake-agent.yaml");

/// Text of a file on the node.
fn read(cluster: &Cluster, path: &str) -> String {
    cluster.on(NODE, &["cat", path]).unwrap()
}

/// Installs the plugin as the agent does.
fn install(cluster: &Cluster) {
    let of_plugin = MANIFEST.split("\n---\n").filter(|document| document.contains("  name: strake-cni\n"));
    let of_plugin: Vec<_> = of_plugin.collect();
    assert_eq!(of_plugin.len(), 3, "ServiceAccount, ClusterRole and ClusterRoleBinding");
    cluster.apply("istio-system", &of_plugin.join("\n---\n")).unwrap();
    let token = cluster.kubectl(&["--namespace=istio-system", "create", "token", "strake-cni"]).unwrap();
    let kubeconfig = Kubeconfig {
        authority: "10.90.0.1:6443".to_owned(),
        certificates: read(cluster, "/etc/kubernetes/ca.crt").into_bytes(),
        token,
    };
    let plugin = PluginConfig {
        r#type: PLUGIN_TYPE.to_owned(),
        cni_agent_run_dir: RUN_DIR.into(),
        agent_down: AgentDown::RefuseSelected,
        kubeconfig: Some("/etc/cni/net.d/strake-cni-kubeconfig".into()),
        exclude_namespaces: vec!["kube-system".to_owned()],
        pod_namespace: "istio-system".to_owned(),
        log_file: Some("/run/strake-cni.log".into()),
    };
    let name = "10-pods.conflist".to_owned();
    let bytes = read(cluster, &format!("/etc/cni/net.d/{name}")).into_bytes();
    let chained = conflist::chain(vec![File { name, bytes }], None, &plugin).unwrap();
    let program = std::fs::read(prerequisites::bin_dir().join(PLUGIN_TYPE)).expect("the plugin's program");
    for (path, mode, bytes) in [
        ("/opt/cni/bin/strake-cni".to_owned(), "755", program),
        ("/etc/cni/net.d/strake-cni-kubeconfig".to_owned(), "600", kubeconfig.to_json()),
        (format!("/etc/cni/net.d/{}", chained.name), "600", chained.bytes),
    ] {
        cluster.write_on(NODE, &path, mode, &bytes).unwrap();
    }
    // Pods that ran before were not asked for; from the first question on the plugin is in force.
    eventually("the container runtime has read the configuration", || {
        let status = cluster.on(NODE, &["sh", "-c", "ls /etc/cni/net.d | sort | head -1"])?;
        expect_equal(status.as_str(), "00-strake.conflist")
    });
}

fn start(cluster: &Cluster, namespace: &str, name: &str) {
    cluster.apply(namespace, &Workload::client(name, NODE).yaml()).unwrap();
}

fn is_ready(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    let path = ".status.conditions[?(@.type==\"Ready\")].status";
    expect_equal(cluster.field(namespace, &format!("pod/{name}"), path)?.as_str(), "True")
}

/// The newest reason that the kubelet gives for a pod that does not start.
fn refusal(cluster: &Cluster, namespace: &str, name: &str) -> Result<String> {
    let of_pod = format!("--field-selector=involvedObject.name={name},reason=FailedCreatePodSandBox");
    let get = ["--namespace", namespace, "get", "events", &of_pod, "--output=jsonpath={.items[*].message}"];
    let text = cluster.kubectl(&get)?;
    ensure!(!text.is_empty(), "no event");
    Ok(text)
}

#[test]
fn pods_start_when_the_agent_says_so_and_without_an_agent_only_those_outside_the_mesh() {
    if !prerequisites::met(missing()) {
        return;
    }
    let cluster = &Cluster::start("cni", &Options { nodes: 1, dns: false, ..Options::default() }).unwrap();
    install(cluster);
    let agent = FakeAgent::start(cluster, NODE).unwrap();
    for namespace in ["shop", "outside"] {
        cluster.apply(namespace, "").unwrap();
    }
    cluster.kubectl(&["label", "namespace", "shop", "istio.io/dataplane-mode=ambient"]).unwrap();

    a_pod_waits_for_its_answer(cluster, &agent);
    a_refusal_is_an_event_and_is_tried_again(cluster, &agent);
    a_pod_that_is_not_selected_starts(cluster, &agent);
    agent.stop().unwrap();
    without_an_agent_only_pods_outside_start(cluster);
    pods_can_be_deleted_without_an_agent(cluster);
}

fn a_pod_waits_for_its_answer(cluster: &Cluster, agent: &FakeAgent) {
    agent.hold("held");
    start(cluster, "shop", "held");
    let request = eventually("the agent is asked", || agent.requests("held").into_iter().next().context("no request"));

    let pod = |path| cluster.field("shop", "pod/held", path).unwrap();
    assert_eq!(request.pod_uid, Some(pod(".metadata.uid")));
    assert_eq!(request.ips.len(), 2, "addresses of both families: {request:?}");
    assert!(cluster.on(NODE, &["test", "-e", &request.netns]).is_ok(), "{}", request.netns);
    assert_eq!(pod(".status.containerStatuses[*].state.running"), "", "a container runs already");

    agent.answer("held", [enrolled()]);
    eventually("the pod starts", || is_ready(cluster, "shop", "held"));
    let address = pod(".status.podIP");
    assert!(request.ips.iter().any(|ip| ip.address.ip.to_string() == address), "{address}: {request:?}");
}

fn a_refusal_is_an_event_and_is_tried_again(cluster: &Cluster, agent: &FakeAgent) {
    agent.answer("refused", [failed("no ztunnel connection"), enrolled()]);
    start(cluster, "shop", "refused");

    eventually("the pod starts at the second attempt", || is_ready(cluster, "shop", "refused"));

    let text = eventually("the refusal is an event", || refusal(cluster, "shop", "refused"));
    assert!(text.contains("shop/refused is not enrolled in the mesh yet: no ztunnel connection"), "{text}");
    assert_eq!(agent.requests("refused").len(), 2);
}

fn a_pod_that_is_not_selected_starts(cluster: &Cluster, agent: &FakeAgent) {
    start(cluster, "outside", "asked");

    eventually("the pod starts", || is_ready(cluster, "outside", "asked"));

    assert_eq!(agent.requests("asked").len(), 1);
}

fn without_an_agent_only_pods_outside_start(cluster: &Cluster) {
    start(cluster, "shop", "selected");
    start(cluster, "outside", "unasked");

    eventually("the pod outside starts", || is_ready(cluster, "outside", "unasked"));
    let text = eventually("the refusal is an event", || refusal(cluster, "shop", "selected"));
    assert!(text.contains("cannot reach the node agent"), "{text}");
    assert!(text.contains("pod shop/selected is selected for the mesh"), "{text}");
    assert!(is_ready(cluster, "shop", "selected").is_err());
    let log = read(cluster, "/run/strake-cni.log");
    assert!(log.contains("starts unasked pod=outside/unasked"), "{log}");

    let agent = FakeAgent::start(cluster, NODE).unwrap();
    agent.answer("selected", [enrolled()]);
    eventually("the pod starts when there is an agent again", || is_ready(cluster, "shop", "selected"));
    agent.stop().unwrap();
}

fn pods_can_be_deleted_without_an_agent(cluster: &Cluster) {
    let delete = ["delete", "pods", "--all", "--wait", "--timeout=60s"];
    for namespace in ["shop", "outside"] {
        cluster.kubectl(&[&["--namespace", namespace], &delete[..]].concat()).unwrap();
    }
}
