//! The differences between the mesh of a lab and that of a cluster: fields of the manifests that have no effect in a lab, and
//! values that the lab replaces or adds. Everything else in the manifests holds in a lab as it stands.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Mesh, SystemNode, manifests::title};

/// One difference.
pub(super) struct Difference {
    /// `Kind/name`; `*` stands for any.
    pub(super) object: &'static str,
    /// Names of fields, joined by dots. An element of a list is named by its `name`, a flag by itself; `*` is every element.
    /// Empty: the whole object.
    pub(super) field: &'static str,
    pub(super) change: Change,
}

/// The lab's treatment of a field.
#[derive(Clone, Copy)]
pub(super) enum Change {
    /// It has no effect.
    LeaveOut,
    /// It has this value if the manifest has the field.
    Replace(fn(&Place<'_>) -> Value),
    /// The container has the environment variable of this name and value.
    Variable(&'static str, fn(&Place<'_>) -> String),
    /// The container's arguments have the flag with each of these values.
    Flag(&'static str, fn(&Place<'_>) -> Vec<String>),
}

/// The surroundings of a program in a lab.
pub(super) struct Place<'a> {
    pub(super) mesh: &'a Mesh,
    /// Name of the program, of its container and of the object that describes its pods.
    pub(super) program: &'a str,
    /// `None`: it runs once in the lab.
    pub(super) node: Option<&'a SystemNode>,
}

impl Place<'_> {
    fn node_name(&self) -> &str {
        self.node.map(|node| node.name.as_str()).unwrap_or_default()
    }

    /// A file or directory of the program's node.
    fn of_node(&self, path: &str) -> String {
        text(self.mesh.run.node(self.node_name()).join(path))
    }

    fn manifests(&self) -> Vec<String> {
        self.mesh.options.manifests.iter().cloned().map(text).collect()
    }

    fn root_certificate(&self) -> String {
        text(self.mesh.authority().join("root-cert.pem"))
    }
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

/// Path of a field below the pod specification of a Deployment or DaemonSet.
macro_rules! pod {
    ($field:literal) => {
        concat!("spec.template.spec.", $field)
    };
}

const fn left_out(object: &'static str, field: &'static str) -> Difference {
    Difference { object, field, change: Change::LeaveOut }
}

const fn replaced(object: &'static str, field: &'static str, value: fn(&Place<'_>) -> Value) -> Difference {
    Difference { object, field, change: Change::Replace(value) }
}

const fn variable(object: &'static str, name: &'static str, value: fn(&Place<'_>) -> String) -> Difference {
    Difference { object, field: pod!("containers.*"), change: Change::Variable(name, value) }
}

const fn flag(object: &'static str, name: &'static str, values: fn(&Place<'_>) -> Vec<String>) -> Difference {
    Difference { object, field: pod!("containers.*"), change: Change::Flag(name, values) }
}

const AGENT: &str = "DaemonSet/strake-agent";
const ZTUNNEL: &str = "DaemonSet/ztunnel";
const CONTROL: &str = "Deployment/strake-control";

/// All differences, applied in this order.
pub(super) static DIFFERENCES: &[Difference] = &[
    // There is no API server: nobody asks for permissions, and a pod's identity follows from the names in its manifest.
    left_out("ServiceAccount/*", ""),
    left_out("ClusterRole/*", ""),
    left_out("ClusterRoleBinding/*", ""),
    left_out("Role/*", ""),
    left_out("RoleBinding/*", ""),
    left_out("*", pod!("automountServiceAccountToken")),
    // The lab makes the pods itself, one of the control plane and one of each DaemonSet on every node, named after the node
    // so that commands can name them. It replaces them when its options change.
    left_out("DaemonSet/*", "metadata.labels"),
    left_out("Deployment/*", "metadata.labels"),
    left_out("*", "spec.selector.matchLabels"),
    left_out("DaemonSet/*", "spec.updateStrategy"),
    left_out("Deployment/*", "spec.strategy"),
    left_out("Deployment/*", "spec.replicas"),
    left_out("DaemonSet/*", pod!("nodeSelector")),
    left_out("*", pod!("tolerations")),
    left_out("*", pod!("priorityClassName")),
    // There are no images: programs are those of `--bin-dir` and see this machine's files and processes.
    left_out("*", pod!("containers.*.image")),
    left_out("*", pod!("containers.*.imagePullPolicy")),
    left_out("*", pod!("hostPID")),
    left_out("*", pod!("volumes")),
    left_out("*", pod!("containers.*.volumeMounts")),
    replaced("*", pod!("containers.*.command"), |place| json!([place.mesh.program(place.program)])),
    // They have all capabilities of the lab itself. The control plane's files are root's, as the lab makes them.
    left_out("*", pod!("containers.*.securityContext.privileged")),
    left_out("*", pod!("containers.*.securityContext.allowPrivilegeEscalation")),
    left_out("*", pod!("containers.*.securityContext.readOnlyRootFilesystem")),
    left_out("*", pod!("containers.*.securityContext.runAsNonRoot")),
    left_out("*", pod!("containers.*.securityContext.capabilities")),
    left_out("*", pod!("containers.*.securityContext.appArmorProfile")),
    left_out("*", pod!("containers.*.securityContext.seccompProfile")),
    left_out(CONTROL, pod!("containers.*.securityContext.runAsUser")),
    left_out(CONTROL, pod!("containers.*.securityContext.runAsGroup")),
    // A lab does not account for resources, and ports are open without being declared.
    left_out("*", pod!("containers.*.resources")),
    left_out("*", pod!("containers.*.ports")),
    // Labs start and end while somebody waits: readiness shows within a second, and a pod ends sooner than in a cluster.
    replaced("*", pod!("containers.*.readinessProbe.periodSeconds"), |_| json!(1)),
    replaced("DaemonSet/*", pod!("terminationGracePeriodSeconds"), |_| json!(10)),
    replaced("Deployment/*", pod!("terminationGracePeriodSeconds"), |_| json!(5)),
    // Connections that remain have 5 s then, the default of ztunnel.
    left_out(ZTUNNEL, pod!("containers.*.env.TERMINATION_GRACE_PERIOD_SECONDS")),
    replaced("ConfigMap/strake-agent", "data.STRAKE_UNENROL_GRACE", |place| {
        json!(format!("{}s", place.mesh.options.unenrol_grace_seconds))
    }),
    // The lab's kubelet asks the agent itself: there is no CNI plugin to install.
    left_out("ConfigMap/strake-agent", "data.STRAKE_CNI_AGENT_DOWN"),
    left_out(AGENT, pod!("containers.*.env.MOUNTED_CNI_NET_DIR")),
    left_out(AGENT, pod!("containers.*.env.CNI_NET_DIR")),
    left_out(AGENT, pod!("containers.*.env.STRAKE_CNI_BIN_DIR")),
    // Each node has a cgroup tree, a bpffs and sockets of its own below the lab's.
    variable(AGENT, "STRAKE_CGROUP_ROOT", |place| text(place.mesh.cgroups.node(place.node_name()))),
    variable(AGENT, "STRAKE_PROBER_CGROUP", |place| text(place.mesh.cgroups.kubelet(place.node_name()))),
    variable(AGENT, "STRAKE_HOST_NETNS", |place| place.node.map(|node| text(node.netns.clone())).unwrap_or_default()),
    variable(AGENT, "STRAKE_BPFFS_DIR", |place| place.of_node("bpffs")),
    variable(AGENT, "STRAKE_RUN_DIR", |place| place.of_node("agent")),
    variable(AGENT, "CNI_AGENT_RUN_DIR", |place| place.of_node("agent")),
    variable(AGENT, "ZTUNNEL_UDS_ADDRESS", |place| place.of_node("zds/ztunnel.sock")),
    variable(ZTUNNEL, "INPOD_UDS", |place| place.of_node("zds/ztunnel.sock")),
    variable(ZTUNNEL, "STRAKE_RUN_DIR", |place| place.of_node("ztunnel")),
    variable(ZTUNNEL, "AUTH_TOKEN", |place| place.of_node("ztunnel/token")),
    variable(ZTUNNEL, "XDS_ROOT_CA", |place| place.root_certificate()),
    variable(ZTUNNEL, "CA_ROOT_CA", |place| place.root_certificate()),
    // Certificates are signed by a root that the lab has made.
    flag(CONTROL, "--ca-dir", |place| vec![text(place.mesh.authority())]),
    flag(CONTROL, "--run-dir", |place| vec![text(place.mesh.run.control())]),
    left_out(AGENT, pod!("containers.*.env.STRAKE_SOURCE")),
    flag(CONTROL, "--source", |_| Vec::new()),
    left_out(CONTROL, pod!("containers.*.env.POD_NAME")),
    // The lab makes the pods of waypoints itself.
    flag(CONTROL, "--waypoint-image", |_| Vec::new()),
    flag(CONTROL, "--waypoint-image-pull-policy", |_| Vec::new()),
    // Objects come from directories, and node proxies show tokens that the lab has made.
    variable(AGENT, "STRAKE_MANIFESTS", |place| place.manifests().join(",")),
    variable(AGENT, "STRAKE_STATE", |place| text(place.mesh.run.state())),
    flag(CONTROL, "--manifests", |place| place.manifests()),
    flag(CONTROL, "--state", |place| vec![text(place.mesh.run.state())]),
    flag(CONTROL, "--node-tokens", |place| vec![text(place.mesh.node_tokens())]),
];

/// Makes an object that of a lab; `None` when the lab does without it.
pub(super) fn apply(mut document: Value, place: &Place<'_>) -> Option<Value> {
    for difference in about(&title(&document)) {
        if difference.field.is_empty() {
            return None;
        }
        let steps: Vec<_> = difference.field.split('.').collect();
        edit(&mut document, &steps, &mut |field| match difference.change {
            Change::LeaveOut => None,
            Change::Replace(value) => Some(value(place)),
            Change::Variable(name, value) => Some(with_variable(field, name, &value(place))),
            Change::Flag(name, values) => Some(with_flag(field, name, &values(place))),
        });
    }
    Some(document)
}

/// The differences of an object, by its `Kind/name`.
pub(super) fn about(title: &str) -> impl Iterator<Item = &'static Difference> {
    DIFFERENCES.iter().filter(move |difference| difference.is_about(title))
}

impl Difference {
    fn is_about(&self, title: &str) -> bool {
        let (kind, name) = self.object.split_once('/').unwrap_or(("*", "*"));
        let (own_kind, own_name) = title.split_once('/').unwrap_or_default();
        [(kind, own_kind), (name, own_name)].iter().all(|(wanted, own)| *wanted == "*" || wanted == own)
    }
}

/// Replaces, or removes, every field of that path that is there.
fn edit(value: &mut Value, steps: &[&str], change: &mut dyn FnMut(Value) -> Option<Value>) {
    let [step, rest @ ..] = steps else { return };
    match value {
        Value::Object(fields) if rest.is_empty() => {
            // Only a field that is there changes. That a difference has a field to change is what the tests of this
            // module ask for.
            if let Some(new) = fields.remove(*step).and_then(change) {
                fields.insert((*step).to_owned(), new);
            }
        }
        Value::Object(fields) => {
            if let Some(field) = fields.get_mut(*step) {
                edit(field, rest, change);
            }
        }
        Value::Array(elements) if rest.is_empty() => {
            let change = |element: Value| if names(&element, step) { change(element) } else { Some(element) };
            *elements = std::mem::take(elements).into_iter().filter_map(change).collect();
        }
        Value::Array(elements) => {
            elements.iter_mut().filter(|element| names(element, step)).for_each(|element| edit(element, rest, change));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn names(element: &Value, step: &str) -> bool {
    step == "*" || element["name"] == step
}

/// A container in whose environment the variable has this value.
pub(super) fn with_variable(container: Value, name: &str, value: &str) -> Value {
    let variable = json!({"name": name, "value": value});
    with_list(container, "env", |env| match env.iter_mut().find(|present| present["name"] == name) {
        Some(present) => *present = variable,
        None => env.push(variable),
    })
}

/// A container whose arguments have the flag once for each value, and with no other.
fn with_flag(container: Value, name: &str, values: &[String]) -> Value {
    with_list(container, "args", |args| {
        args.retain(|argument| flag_of(argument) != Some(name));
        args.extend(values.iter().map(|value| json!(format!("{name}={value}"))));
    })
}

/// The flag of an argument `--flag=value`.
pub(super) fn flag_of(argument: &Value) -> Option<&str> {
    argument.as_str()?.split_once('=').map(|(flag, _)| flag).filter(|flag| flag.starts_with("--"))
}

/// The object with another list in the field, which may be absent before.
fn with_list(mut object: Value, field: &str, change: impl FnOnce(&mut Vec<Value>)) -> Value {
    let mut elements = match object.get_mut(field).map(Value::take) {
        Some(Value::Array(elements)) => elements,
        _ => Vec::new(),
    };
    change(&mut elements);
    if let Value::Object(fields) = &mut object {
        fields.insert(field.to_owned(), Value::Array(elements));
    }
    object
}
