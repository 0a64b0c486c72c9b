use std::{collections::HashMap, fmt::Write as _, net::IpAddr};

use kube_types::Resource;
use kube_types::core::{Container, IntOrString};
use serde_json::json;

use super::*;
use crate::{
    addresses::{NodeNumber, ServiceHosts},
    pod::{self, catalogue::Catalogue, environment, facts::Facts, probe},
    scheduler::{Candidate, Scheduler},
    services::{self, Backend},
};

const NODE_NAME: &str = "node-1";

fn node() -> SystemNode {
    SystemNode {
        name: NODE_NAME.to_owned(),
        addresses: NodeNumber(1).addresses(),
        netns: PathBuf::from("/proc/1/ns/net"),
    }
}

pub(super) fn mesh() -> Mesh {
    let set = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let options = SystemOptions {
        bin_dir: PathBuf::from("/bin"),
        manifests: vec![PathBuf::from("/m"), PathBuf::from("/n")],
        env: BTreeMap::from([
            ("RUST_LOG".to_owned(), "debug".to_owned()),
            ("STRAKE_RUN_DIR".to_owned(), "/elsewhere".to_owned()),
        ]),
        program_env: BTreeMap::from([("ztunnel".to_owned(), set("LOG_FORMAT", "json"))]),
        unenrol_grace_seconds: 2.0,
    };
    Mesh {
        manifests: manifests::embedded().unwrap(),
        options,
        run: RunDir::of("x"),
        cgroups: Cgroups::of("x").unwrap(),
    }
}

/// A pod of the mesh as a container of it finds it.
struct Started {
    pod: Pod,
    env: HashMap<String, String>,
    argv: Vec<String>,
}

fn started(mesh: &Mesh, name: &str) -> Started {
    let pods = mesh.pods(&[node()]).unwrap();
    let pod = pods.into_iter().find(|planned| planned.pod.metadata.name == name).unwrap().pod;
    let mut objects = Objects::new();
    mesh.add_objects(&mut objects).unwrap();
    let container = &pod.spec.containers[0];
    let facts = Facts { pod: &pod, uid: "u", node: NODE_NAME, ips: &[], host_ips: &[] };
    let env = environment::environment(container, &facts, &Catalogue::new(&objects, Vec::new())).unwrap();
    let argv = environment::command_line(container, &env);
    Started { env: env.into_iter().collect(), argv, pod }
}

#[test]
fn there_is_a_control_plane_and_two_programs_on_each_node() {
    let pods = mesh().pods(&[node()]).unwrap();

    let names: Vec<_> = pods.iter().map(|planned| planned.pod.metadata.name.as_str()).collect();
    assert_eq!(names, ["strake-control", "strake-agent-node-1", "ztunnel-node-1"]);
    for (planned, (path, port)) in pods.iter().zip([("/readyz", 15014), ("/readyz", 8000), ("/healthz/ready", 15021)]) {
        let probe = planned.pod.spec.containers[0].readiness_probe.as_ref().unwrap();
        let get = probe.http_get.as_ref().unwrap();
        assert_eq!((get.path.as_str(), &get.port), (path, &IntOrString::Int(port)));
        assert_eq!(probe.period_seconds, Some(1));
        assert_eq!(planned.pod.metadata.namespace, SYSTEM_NAMESPACE);
        assert_eq!(planned.pod.metadata.labels["istio.io/dataplane-mode"], "none");
    }
    assert!(pods[1].pod.spec.host_network && !pods[2].pod.spec.host_network);
}

#[test]
fn programs_have_paths_of_their_node_and_settings_of_the_lab() {
    let mesh = mesh();
    let (control, agent) = (started(&mesh, "strake-control"), started(&mesh, "strake-agent-node-1"));
    let ztunnel = started(&mesh, "ztunnel-node-1");

    assert_eq!(
        (control.argv[0].as_str(), agent.argv.as_slice()),
        ("/bin/strake-control", &["/bin/strake-agent".into()][..])
    );
    let flag = |name: &str| control.argv.iter().filter(|argument| argument.starts_with(name)).collect::<Vec<_>>();
    assert_eq!(flag("--manifests="), ["--manifests=/m", "--manifests=/n"]);
    assert_eq!(flag("--ca-dir="), [&format!("--ca-dir={}", mesh.authority().display())]);
    assert_eq!(flag("--root-namespace="), [&format!("--root-namespace={SYSTEM_NAMESPACE}")]);
    assert_eq!(agent.env["NODE_NAME"], NODE_NAME);
    assert_eq!(agent.env["STRAKE_UNENROL_GRACE"], "2s");
    assert_eq!(agent.env["EXCLUDE_NAMESPACES"], "kube-system");
    assert_eq!(agent.env["STRAKE_MANIFESTS"], "/m,/n");
    assert_eq!(agent.env["STRAKE_RUN_DIR"], "/run/strake/lab/x/nodes/node-1/agent", "no setting of all programs wins");
    assert_eq!(ztunnel.env["INPOD_UDS"], agent.env["ZTUNNEL_UDS_ADDRESS"]);
    assert_eq!(ztunnel.env["SERVICE_ACCOUNT"], "ztunnel");
    assert_eq!(ztunnel.env["RUST_LOG"], "debug");
    assert_eq!((ztunnel.env.get("LOG_FORMAT").map(String::as_str), agent.env.get("LOG_FORMAT")), (Some("json"), None));
    assert_eq!(ztunnel.pod.spec.service_account_name.as_deref(), Some("ztunnel"));
}

#[test]
fn images_have_the_version_of_the_workspace() {
    for document in manifests::embedded().unwrap() {
        let Some(containers) = document.pointer("/spec/template/spec/containers").and_then(Value::as_array) else {
            continue;
        };
        for container in containers {
            let image = format!("{}:{}", container["name"].as_str().unwrap(), env!("CARGO_PKG_VERSION"));
            assert_eq!(container["image"], image);
        }
    }
}

#[test]
fn each_field_of_a_manifest_takes_effect_or_is_a_difference() {
    let mesh = mesh();
    let original = try_effects(&mesh).unwrap();
    let (mut without_effect, mut wrong) = (Vec::new(), Vec::new());
    for (index, document) in mesh.manifests.iter().enumerate() {
        let title = manifests::title(document);
        for leaf in leaves(document) {
            let mut changed = mesh.clone();
            change(changed.manifests[index].pointer_mut(&leaf.pointer).unwrap());
            let has_effect = effects(&changed) != original;
            let listed = differences::about(&title).find(|difference| leaf.is_of(difference));
            match listed {
                None if !has_effect => without_effect.push(format!("{title} {}", leaf.names.join("."))),
                // Another kind or name makes an object or element another one, which nothing leaves out.
                Some(difference) if has_effect && !difference.field.is_empty() && !leaf.is_name() => {
                    wrong.push(format!("{title} {}", leaf.names.join(".")));
                }
                None | Some(_) => {}
            }
        }
    }

    assert_eq!(without_effect, Vec::<String>::new(), "these have no effect and no difference says so");
    assert_eq!(wrong, Vec::<String>::new(), "these are said to have no effect");
}

#[test]
fn each_difference_is_about_something_in_the_manifests() {
    let documents = manifests::embedded().unwrap();
    for difference in differences::DIFFERENCES {
        let mut about = documents.iter().filter(|document| {
            differences::about(&manifests::title(document)).any(|other| std::ptr::eq(other, difference))
        });
        let is_used = about.any(|document| leaves(document).iter().any(|leaf| leaf.is_below(difference.field)));
        assert!(is_used, "{} {}", difference.object, difference.field);
    }
}

/// A value of a manifest that is neither an object nor a list.
struct Leaf {
    /// RFC 6901.
    pointer: String,
    /// Fields and elements on the way, as differences name them.
    names: Vec<String>,
}

impl Leaf {
    /// Does a difference say that the value does not matter?
    fn is_of(&self, difference: &differences::Difference) -> bool {
        let named = |list: &str, name: &str| match self.names.as_slice() {
            [.., of, found] if list == "args" => of == list && found == name,
            [.., of, found, value] => of == list && found == name && value == "value",
            _ => false,
        };
        match difference.change {
            Change::LeaveOut | Change::Replace(_) => self.is_below(difference.field),
            Change::Variable(name, _) => named("env", name),
            Change::Flag(name, _) => named("args", name),
        }
    }

    fn is_name(&self) -> bool {
        self.names.last().is_some_and(|name| name == "name")
    }

    fn is_below(&self, field: &str) -> bool {
        let steps: Vec<_> = field.split('.').filter(|step| !step.is_empty()).collect();
        steps.len() <= self.names.len()
            && steps.iter().zip(&self.names).all(|(step, name)| *step == "*" || step == name)
    }
}

fn leaves(document: &Value) -> Vec<Leaf> {
    fn walk(value: &Value, pointer: &str, names: &[String], found: &mut Vec<Leaf>) {
        let below = |key: &str, name: &str| {
            let escaped = key.replace('~', "~0").replace('/', "~1");
            (format!("{pointer}/{escaped}"), [names, &[name.to_owned()]].concat())
        };
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| {
                let (pointer, names) = below(key, key);
                walk(value, &pointer, &names, found);
            }),
            Value::Array(elements) => elements.iter().enumerate().for_each(|(index, value)| {
                let name = value["name"].as_str().or_else(|| differences::flag_of(value)).unwrap_or("-");
                let (pointer, names) = below(&index.to_string(), name);
                walk(value, &pointer, &names, found);
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                found.push(Leaf { pointer: pointer.to_owned(), names: names.to_vec() });
            }
        }
    }
    let mut found = Vec::new();
    walk(document, "", &[], &mut found);
    found
}

/// Another value of the same type.
fn change(value: &mut Value) {
    *value = match value {
        Value::Bool(held) => json!(!*held),
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        Value::String(text) => json!(format!("{text}x")),
        other => panic!("{other} is not a leaf"),
    };
}

/// Everything that the manifests bring about in a lab, as text: objects that others see, and of each pod its node, its
/// description and what its containers are started and asked with.
fn effects(mesh: &Mesh) -> String {
    match try_effects(mesh) {
        Ok(text) => text,
        Err(err) => format!("refused: {err}"),
    }
}

fn try_effects(mesh: &Mesh) -> io::Result<String> {
    let mut text = String::new();
    let mut objects = Objects::new();
    mesh.add_objects(&mut objects)?;
    let pods = mesh.pods(&[node()])?;
    let backends: Vec<_> = pods.iter().map(|planned| backend(&planned.pod)).collect();
    let mut hosts = ServiceHosts::default();
    let mut with_addresses = Vec::new();
    for resource in objects.values() {
        match resource {
            Resource::Namespace(_) => writeln!(text, "{}", resource.to_value()).unwrap(),
            Resource::Service(service) => {
                let service = services::with_addresses(service, &mut hosts);
                let resolved = services::resolve(&service, &backends, &[]);
                writeln!(text, "{} {resolved:?}", resource.to_value()).unwrap();
                with_addresses.push(service);
            }
            // Containers refer to it.
            Resource::ConfigMap(_) => {}
            other => panic!("{:?}: nobody has thought of its effect", other.key()),
        }
    }
    let catalogue = Catalogue::new(&objects, with_addresses);
    for planned in &pods {
        let pod = &planned.pod;
        let labels = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
        let candidate = Candidate { name: NODE_NAME.to_owned(), labels, schedulable: true, taints: Vec::new() };
        let node = Scheduler::default().place(&pod.spec, &[candidate]);
        writeln!(text, "{:?} {node:?} {} {}", pod.metadata, pod.service_account(), pod.spec.host_network).unwrap();
        writeln!(text, "{:?}", pod.spec.termination_grace_period_seconds).unwrap();
        for container in &pod.spec.containers {
            describe(pod, container, &catalogue, &mut text);
        }
    }
    Ok(text)
}

fn describe(pod: &Pod, container: &Container, catalogue: &Catalogue, text: &mut String) {
    let address = IpAddr::from([10, 244, 1, 2]);
    let facts = Facts { pod, uid: "u", node: NODE_NAME, ips: &[address], host_ips: &[] };
    let env = environment::environment(container, &facts, catalogue);
    let argv = env.as_ref().map(|env| environment::command_line(container, env));
    let probe = container.readiness_probe.as_ref().map(|probe| probe::Plan::read(probe, container, address));
    let user = pod::user(pod, container);
    let group = pod::group(pod, container);
    writeln!(text, "{} {argv:?} {env:?} {probe:?} {user:?} {group:?}", container.name).unwrap();
}

fn backend(pod: &Pod) -> Backend {
    Backend {
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: "u".to_owned(),
        labels: pod.metadata.labels.clone(),
        node: NODE_NAME.to_owned(),
        ips: vec![IpAddr::from([10, 244, 1, 2])],
        hostname: None,
        subdomain: None,
        containers: pod.spec.containers.clone(),
        ready: true,
        terminating: false,
    }
}
