//! The state of a mesh, from the objects of the API server alone.

use contract::manifests::{AGENT, CONTROL, SYSTEM_NAMESPACE, ZTUNNEL};
use graph::enrolment::{self, Enablement};
use kube_types::core::{Namespace, Pod};
use serde::Serialize;
use serde_json::Value;

/// Objects as they were read.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) nodes: Vec<Value>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) pods: Vec<Pod>,
    pub(super) policies: Vec<Value>,
    /// The agents' ConfigMap.
    pub(super) settings: Option<Value>,
}

/// The state of a mesh.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    pub(super) programs: Vec<Program>,
    pub(super) nodes: Vec<Node>,
    /// Texts about everything that is not as it should be.
    pub(super) problems: Vec<String>,
}

/// A pod of the mesh itself.
#[derive(Debug, Serialize)]
pub(super) struct Program {
    pub(super) program: String,
    pub(super) node: String,
    pub(super) pod: String,
    pub(super) image: String,
    pub(super) ready: bool,
}

/// Pods of a node that labels select for the mesh, and those of them that the node's agent has proved to be in it.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) selected: usize,
    pub(super) in_mesh: usize,
}

impl Overview {
    pub(super) fn new(input: &Input) -> Self {
        let mut programs: Vec<_> = input.pods.iter().filter_map(program).collect();
        programs.sort_by(|a, b| (&a.program, &a.node, &a.pod).cmp(&(&b.program, &b.node, &b.pod)));
        let mut nodes: Vec<_> = input.nodes.iter().filter_map(|node| node["metadata"]["name"].as_str()).collect();
        nodes.sort_unstable();
        let mut problems = missing(&programs, &nodes);
        let enablement = enablement(input.settings.as_ref());
        let nodes = nodes.into_iter().map(|name| {
            let selected = input
                .pods
                .iter()
                .filter(|pod| is_selected(pod, &input.namespaces, &enablement))
                .filter(|pod| on(pod, name));
            let mut node = Node { name: name.to_owned(), selected: 0, in_mesh: 0 };
            for pod in selected {
                node.selected += 1;
                if enrolment::is_enrolled(pod) {
                    node.in_mesh += 1;
                } else {
                    problems.push(format!(
                        "pod {}/{} on {name} is selected and not in the mesh; look at the log of {}",
                        pod.metadata.namespace,
                        pod.metadata.name,
                        agent_of(&programs, name)
                    ));
                }
            }
            node
        });
        let nodes = nodes.collect();
        problems.extend(input.policies.iter().filter_map(unenforced));
        Self { programs, nodes, problems }
    }
}

fn program(pod: &Pod) -> Option<Program> {
    let meta = &pod.metadata;
    let app = meta.labels.get("app").filter(|app| [AGENT, CONTROL, ZTUNNEL].contains(&app.as_str()))?;
    if meta.namespace != SYSTEM_NAMESPACE || meta.deletion_timestamp.is_some() {
        return None;
    }
    Some(Program {
        program: app.clone(),
        node: pod.spec.node_name.clone().unwrap_or_default(),
        pod: meta.name.clone(),
        image: pod.spec.containers.first().and_then(|container| container.image.clone()).unwrap_or_default(),
        ready: pod.is_ready(),
    })
}

/// Programs that do not run where they have to.
fn missing(programs: &[Program], nodes: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    let of = |name: &'static str| programs.iter().filter(move |program| program.program == name);
    match (of(CONTROL).count(), of(CONTROL).filter(|program| program.ready).count()) {
        (0, _) => problems.push(format!("{CONTROL} is not installed; strake install does that")),
        (_, 0) => problems
            .push(format!("no {CONTROL} is ready: changes do not reach the proxies, and no certificate is renewed")),
        _ => {}
    }
    for node in nodes {
        for name in [AGENT, ZTUNNEL] {
            let here: Vec<_> = of(name).filter(|program| program.node == *node).collect();
            match here.iter().find(|program| program.ready).or(here.first()) {
                None => problems.push(format!("{node} has no {name}")),
                Some(program) if !program.ready => {
                    problems.push(format!("{name} on {node} is not ready ({})", program.pod))
                }
                Some(_) => {}
            }
        }
    }
    problems
}

fn agent_of(programs: &[Program], node: &str) -> String {
    let agent = programs.iter().find(|program| program.program == AGENT && program.node == node);
    agent.map_or_else(|| format!("the {AGENT} of the node, which has none"), |agent| agent.pod.clone())
}

/// The agents' own rule, with their settings.
pub(crate) fn enablement(settings: Option<&Value>) -> Enablement {
    let excluded = settings.and_then(|settings| settings["data"]["EXCLUDE_NAMESPACES"].as_str());
    let default = Enablement::default();
    let listed = excluded.map(|list| list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect());
    Enablement { excluded_namespaces: listed.unwrap_or(default.excluded_namespaces), ..default }
}

pub(crate) fn is_selected(pod: &Pod, namespaces: &[Namespace], enablement: &Enablement) -> bool {
    let namespace = namespaces.iter().find(|namespace| namespace.metadata.name == pod.metadata.namespace);
    !pod.is_terminated() && enablement.selected(pod, namespace).is_selected()
}

fn on(pod: &Pod, node: &str) -> bool {
    pod.spec.node_name.as_deref() == Some(node)
}

/// Text about a policy that is not known to be enforced.
fn unenforced(policy: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = policy["status"]["conditions"].as_array().into_iter().flatten();
    let enforced = conditions.into_iter().find(|condition| condition["type"] == "Enforced");
    let metadata = &policy["metadata"];
    let name = format!("{} {}/{}", text(&policy["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
    match enforced {
        Some(condition) if condition["status"] == "True" || condition["reason"] == "DryRun" => None,
        Some(condition) => Some(format!("{name} is not enforced: {}", text(&condition["message"]))),
        None => Some(format!("{name} has no condition Enforced: the control plane has not said that it is enforced")),
    }
}

#[cfg(test)]
mod tests {
    use contract::labels::REDIRECTION_ANNOTATION;
    use kube_types::{Kind, Resource};
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, name: &str, node: &str, ready: bool) -> Pod {
        let status = if ready { "True" } else { "False" };
        let value = json!({
            "metadata": {"namespace": namespace, "name": name, "labels": {"app": name.split('.').next()}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "image:1"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
        });
        let Resource::Pod(pod) = Resource::from_value(Kind::Pod, value).unwrap() else { unreachable!() };
        pod.as_ref().clone()
    }

    fn meshed(namespace: &str) -> Namespace {
        let mut meshed = Namespace::default();
        meshed.metadata.name = namespace.to_owned();
        meshed.metadata.labels.insert("istio.io/dataplane-mode".to_owned(), "ambient".to_owned());
        meshed
    }

    fn healthy() -> Input {
        let mut enrolled = pod("shop", "db", "n1", true);
        enrolled.metadata.annotations.insert(REDIRECTION_ANNOTATION.to_owned(), "enabled".to_owned());
        Input {
            nodes: vec![json!({"metadata": {"name": "n1"}})],
            namespaces: vec![meshed("shop")],
            pods: vec![
                pod(SYSTEM_NAMESPACE, "strake-control.1", "n1", true),
                pod(SYSTEM_NAMESPACE, "strake-agent.1", "n1", true),
                pod(SYSTEM_NAMESPACE, "ztunnel.1", "n1", true),
                enrolled,
            ],
            ..Input::default()
        }
    }

    #[test]
    fn a_mesh_that_is_in_order_has_no_problem() {
        let overview = Overview::new(&healthy());

        assert_eq!(overview.problems, [""; 0]);
        assert_eq!((overview.nodes[0].selected, overview.nodes[0].in_mesh), (1, 1));
        assert_eq!(overview.programs.len(), 3);
    }

    #[test]
    fn each_thing_that_is_not_in_place_is_a_problem() {
        let mut input = healthy();
        input.nodes.push(json!({"metadata": {"name": "n2"}}));
        input.pods[0] = pod(SYSTEM_NAMESPACE, "strake-control.1", "n1", false);
        input.pods[2] = pod(SYSTEM_NAMESPACE, "ztunnel.1", "n1", false);
        input.pods.push(pod("shop", "web", "n1", true));
        let condition = json!({"type": "Enforced", "status": "False", "reason": "R", "message": "no workload"});
        let policy = |name: &str, conditions: Value| json!({"kind": "P", "metadata": {"namespace": "a", "name": name}, "status": {"conditions": conditions}});
        input.policies = vec![policy("said", json!([condition])), policy("silent", json!([]))];

        let problems = Overview::new(&input).problems;

        assert_eq!(
            problems,
            [
                "no strake-control is ready: changes do not reach the proxies, and no certificate is renewed",
                "ztunnel on n1 is not ready (ztunnel.1)",
                "n2 has no strake-agent",
                "n2 has no ztunnel",
                "pod shop/web on n1 is selected and not in the mesh; look at the log of strake-agent.1",
                "P a/said is not enforced: no workload",
                "P a/silent has no condition Enforced: the control plane has not said that it is enforced",
            ]
        );
    }

    #[test]
    fn the_agents_settings_decide_which_namespaces_are_excluded() {
        let mut input = healthy();
        input.settings = Some(json!({"data": {"EXCLUDE_NAMESPACES": "kube-system,shop"}}));

        assert_eq!(Overview::new(&input).nodes[0].selected, 0);
    }
}
