//! Checks of a cluster by the objects of its API server.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use contract::manifests::{AGENT, CONTROL, SYSTEM_NAMESPACE, ZTUNNEL};
use install::Images;
use kube_cluster::{Collection, may, server_facts};
use serde_json::Value;

use super::{KUBERNETES, Line, at_least, kernel};
use crate::{
    mesh::{ClusterMesh, object_name},
    times,
};

/// Difference of clocks that certificates and tokens bear. The answer's time is in whole seconds, and takes a while.
const CLOCKS: Duration = Duration::from_secs(10);

/// Label of namespaces that says which pods they take.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

/// DaemonSets of CNI plugins, by a part of their names.
const PLUGINS: [&str; 10] = [
    "antrea-agent",
    "aws-node",
    "azure-cni",
    "calico-node",
    "canal",
    "cilium",
    "kindnet",
    "kube-flannel",
    "kube-router",
    "weave-net",
];

/// Permissions of the commands that look into a mesh.
const LOOK: [(&str, &str, &str); 5] = [
    ("list", "", "pods"),
    ("list", "", "nodes"),
    ("create", "", "pods/portforward"),
    ("get", "", "pods/log"),
    ("list", "security.istio.io", "authorizationpolicies"),
];

/// Returns true if the mesh is installed, or was begun to be.
pub(super) async fn is_installed(cluster: &ClusterMesh) -> Result<bool> {
    let at = Collection::namespaced("apps/v1", "deployments", SYSTEM_NAMESPACE).named(CONTROL);
    Ok(cluster.objects().get(&at).await?.is_some())
}

/// Checks that hold before and after the installation.
pub(super) async fn checks(cluster: &ClusterMesh) -> Result<Vec<Line>> {
    let facts = server_facts(cluster.server()).await?;
    let mut lines = vec![
        at_least("API server", &facts.version, KUBERNETES, "upgrade the cluster"),
        clock(facts.clock, SystemTime::now()),
    ];
    lines.extend(permissions(cluster).await?);
    let list =
        async |version: &str, plural: &str| cluster.objects().list(&Collection::all(version, plural), None, None).await;
    lines.extend(list("v1", "nodes").await?.iter().flat_map(node));
    let sets = list("apps/v1", "daemonsets").await?;
    lines.push(plugins(&sets));
    let deployments = list("apps/v1", "deployments").await?;
    lines.push(istio(&sets, &deployments));
    let config = Collection::namespaced("v1", "configmaps", "kube-system").named("cilium-config");
    lines.extend(cluster.objects().get(&config).await?.as_ref().and_then(cilium));
    let namespace = Collection::all("v1", "namespaces").named(SYSTEM_NAMESPACE);
    lines.push(pod_security(cluster.objects().get(&namespace).await?.as_ref()));
    Ok(lines)
}

/// Programs of the mesh, by their Deployment and DaemonSets.
pub(super) async fn programs(cluster: &ClusterMesh) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (plural, name) in [("deployments", CONTROL), ("daemonsets", AGENT), ("daemonsets", ZTUNNEL)] {
        let at = Collection::namespaced("apps/v1", plural, SYSTEM_NAMESPACE).named(name);
        lines.push(program(name, cluster.objects().get(&at).await?.as_ref()));
    }
    Ok(lines)
}

fn program(name: &str, object: Option<&Value>) -> Line {
    let Some(object) = object else {
        return Line::error(name, "not installed", "run `strake install`");
    };
    let status = &object["status"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (wanted, ready) = match object["kind"].as_str() {
        Some("DaemonSet") => (number(&status["desiredNumberScheduled"]), number(&status["numberAvailable"])),
        _ => (object["spec"]["replicas"].as_u64().unwrap_or(1), number(&status["availableReplicas"])),
    };
    let image = object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    let found = format!("{ready} of {wanted} ready ({image})");
    if ready >= wanted && wanted > 0 {
        return Line::ok(name, found);
    }
    let pods = format!("`kubectl -n {SYSTEM_NAMESPACE} describe pods -l app={name}` and `strake logs` say why");
    Line::error(name, found, pods)
}

fn clock(theirs: Option<SystemTime>, ours: SystemTime) -> Line {
    let Some(theirs) = theirs else {
        return Line::warning("clock of the API server", "its answer has no time", "compare the clocks of all nodes");
    };
    let difference = ours.duration_since(theirs).unwrap_or_else(|error| error.duration());
    if difference <= CLOCKS {
        return Line::ok("clock of the API server", "as this machine's");
    }
    let found = format!("differs from this machine's by {}", times::rounded(difference));
    Line::warning(
        "clock of the API server",
        found,
        "let all machines take their time from a server (NTP): certificates depend on it",
    )
}

/// Permissions to install, and to look.
async fn permissions(cluster: &ClusterMesh) -> Result<Vec<Line>> {
    let mut missing = Vec::new();
    for (group, resource, namespace) in installed()? {
        for verb in ["create", "patch"] {
            if !may(cluster.server(), verb, (&group, &resource), namespace.as_deref()).await? {
                missing.push(format!("{verb} {resource}"));
            }
        }
    }
    let install = match missing.as_slice() {
        [] => Line::ok("permission to install", "granted"),
        missing => Line::error(
            "permission to install",
            format!("you may not {}", missing.join(", ")),
            "install as a user with the ClusterRole cluster-admin",
        ),
    };
    let mut missing = Vec::new();
    for (verb, group, resource) in LOOK {
        if !may(cluster.server(), verb, (group, resource), None).await? {
            missing.push(format!("{verb} {resource}"));
        }
    }
    let look = match missing.as_slice() {
        [] => Line::ok("permission to look", "granted"),
        missing => Line::warning(
            "permission to look",
            format!("you may not {}", missing.join(", ")),
            "ask for a role that allows it: commands such as `strake get` need it",
        ),
    };
    Ok(vec![install, look])
}

/// Group, resource and namespace of everything that an installation makes.
fn installed() -> Result<BTreeSet<(String, String, Option<String>)>> {
    let objects = install::custom_resources()?.into_iter().chain(install::objects(&Images::default())?);
    let key = |at: kube_cluster::Location| {
        let group = at.collection.api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
        (group, at.collection.plural, at.collection.namespace)
    };
    Ok(objects.map(|object| key(object.at)).collect())
}

/// Kernel, readiness and system of a node. Before the installation nothing runs there that could look further.
fn node(node: &Value) -> Vec<Line> {
    let (name, info) = (object_name(node), &node["status"]["nodeInfo"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let system = text(&info["operatingSystem"]);
    if system != "linux" {
        let found = format!("operating system {system:?}: no program of the mesh runs on it");
        return vec![Line::warning(format!("node {name}"), found, "keep pods of the mesh off it")];
    }
    let mut lines = vec![kernel(format!("kernel of {name}"), &text(&info["kernelVersion"]))];
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    let runtime = text(&info["containerRuntimeVersion"]);
    lines.push(match ready {
        Some(ready) if ready["status"] == "True" => Line::ok(format!("node {name}"), format!("ready, {runtime}")),
        ready => {
            let why = ready.map(|ready| text(&ready["message"])).unwrap_or_default();
            Line::warning(format!("node {name}"), format!("not ready: {why}"), "repair it: pods there do not start")
        }
    });
    lines
}

fn plugins(sets: &[Value]) -> Line {
    let names: BTreeSet<_> = sets.iter().map(object_name).collect();
    let found: Vec<_> = names.iter().filter(|name| PLUGINS.iter().any(|plugin| name.contains(plugin))).collect();
    match found.as_slice() {
        [] => Line::ok("CNI plugin", "no DaemonSet of a known one: it is in the nodes' own configuration"),
        found => Line::ok("CNI plugin", found.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

/// Cilium renames the configurations of others unless `cni.exclusive` is false.
fn cilium(config: &Value) -> Option<Line> {
    let exclusive = config["data"]["cni-exclusive"].as_str().unwrap_or("true");
    Some(match exclusive {
        "false" => Line::ok("Cilium", "cni.exclusive=false"),
        _ => Line::error(
            "Cilium",
            "cni.exclusive is set: it renames the configuration of strake-cni",
            "set cni.exclusive=false in Cilium's values",
        ),
    })
}

/// Components of Istio that capture the same connections, or answer to the same names.
fn istio(sets: &[Value], deployments: &[Value]) -> Line {
    let image = |object: &Value| {
        object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
    };
    let mut found = BTreeSet::new();
    for object in sets {
        let (name, image) = (object_name(object), image(object));
        // Istio's ztunnel has our DaemonSet's name, and an image of another program's.
        let is_istio = name == "istio-cni-node" || (name == ZTUNNEL && image.contains("istio"));
        if is_istio {
            found.insert(format!("DaemonSet {name}"));
        }
    }
    for object in deployments {
        let name = object_name(object);
        if name == "istiod" || name.starts_with("istiod-") {
            found.insert(format!("Deployment {name}"));
        }
    }
    if found.is_empty() {
        return Line::ok("components of Istio", "none");
    }
    let found: Vec<_> = found.into_iter().collect();
    Line::error(
        "components of Istio",
        format!("{}: two meshes would capture the same pods", found.join(", ")),
        "remove them first (`istioctl uninstall`), or install into another cluster",
    )
}

/// The agent and ztunnel need more than the levels `baseline` and `restricted` allow.
fn pod_security(namespace: Option<&Value>) -> Line {
    let subject = format!("pod security of {SYSTEM_NAMESPACE}");
    let level = namespace.and_then(|namespace| namespace["metadata"]["labels"][POD_SECURITY].as_str());
    match level {
        None | Some("privileged") => Line::ok(subject, level.unwrap_or("not restricted")),
        Some(level) => Line::error(
            subject,
            format!("the label {POD_SECURITY} is {level}: agents and ztunnels do not start"),
            format!("kubectl label namespace {SYSTEM_NAMESPACE} {POD_SECURITY}=privileged --overwrite"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Outcome;
    use super::*;

    fn named(name: &str, image: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"template": {"spec": {"containers": [{"image": image}]}}}})
    }

    #[test]
    fn another_mesh_is_an_error_and_our_own_ztunnel_is_none() {
        let ours = [named("ztunnel", "localhost/ztunnel:0.1.0"), named("strake-agent", "strake-agent:0.1.0")];

        assert_eq!(istio(&ours, &[]).outcome, Outcome::Ok);
        assert_eq!(istio(&[named("ztunnel", "istio/ztunnel:1.29")], &[]).outcome, Outcome::Error);
        assert_eq!(istio(&[], &[named("istiod-1-29", "pilot")]).outcome, Outcome::Error);
    }

    #[test]
    fn a_node_is_checked_by_its_status() {
        let checked = |kernel: &str, ready: &str, system: &str| {
            let value = json!({"metadata": {"name": "n1"}, "status": {
                "nodeInfo": {"kernelVersion": kernel, "operatingSystem": system, "containerRuntimeVersion": "containerd://2.1"},
                "conditions": [{"type": "Ready", "status": ready, "message": "m"}]}});
            node(&value).into_iter().map(|line| line.outcome).collect::<Vec<_>>()
        };

        assert_eq!(checked("6.1.0", "True", "linux"), [Outcome::Ok, Outcome::Ok]);
        assert_eq!(checked("5.10.0", "False", "linux"), [Outcome::Error, Outcome::Warning]);
        assert_eq!(checked("10.0", "True", "windows"), [Outcome::Warning]);
    }

    #[test]
    fn cilium_has_to_leave_the_configuration_of_others() {
        let config = |data: Value| cilium(&json!({"data": data})).unwrap().outcome;

        assert_eq!(config(json!({})), Outcome::Error);
        assert_eq!(config(json!({"cni-exclusive": "true"})), Outcome::Error);
        assert_eq!(config(json!({"cni-exclusive": "false"})), Outcome::Ok);
    }

    #[test]
    fn a_restricted_namespace_and_a_wrong_clock_are_said() {
        let namespace = json!({"metadata": {"labels": {POD_SECURITY: "restricted"}}});
        let now = SystemTime::now();

        assert_eq!(pod_security(Some(&namespace)).outcome, Outcome::Error);
        assert_eq!(pod_security(None).outcome, Outcome::Ok);
        assert_eq!(clock(Some(now - Duration::from_secs(3)), now).outcome, Outcome::Ok);
        let late = clock(Some(now + Duration::from_secs(300)), now);
        assert_eq!((late.outcome, late.found.as_str()), (Outcome::Warning, "differs from this machine's by 5m"));
        assert_eq!(clock(None, now).outcome, Outcome::Warning);
    }

    #[test]
    fn permissions_are_those_of_the_manifests() {
        let needed = installed().unwrap();

        let daemonsets = ("apps".to_owned(), "daemonsets".to_owned(), Some("istio-system".to_owned()));
        assert!(needed.contains(&daemonsets));
        assert!(needed.contains(&("apiextensions.k8s.io".to_owned(), "customresourcedefinitions".to_owned(), None)));
    }

    #[test]
    fn a_program_is_in_order_when_all_of_it_is_ready() {
        let set = |ready: u64| json!({"kind": "DaemonSet", "status": {"desiredNumberScheduled": 2, "numberAvailable": ready}});

        assert_eq!(program("ztunnel", Some(&set(2))).outcome, Outcome::Ok);
        assert_eq!(program("ztunnel", Some(&set(1))).outcome, Outcome::Error);
        assert_eq!(program("ztunnel", None).outcome, Outcome::Error);
    }
}
