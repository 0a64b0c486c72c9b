//! Mistakes in workloads for which an API server would refuse them: each is reported with its field, and nothing of the object is
//! started. Mistakes of types and unknown fields are found earlier, in `manifests`.

use std::collections::BTreeSet;

use kube_types::core::{ClaimVolume, Container, LifecycleHandler, PodSpec, Probe, Volume};
use kube_types::{LabelSelector, Resource, StringMap};

use crate::{pod::catalogue::undecodable, workloads};

/// Longest value of a label, and longest label of a DNS name.
const MAX_LABEL: usize = 63;

/// Longest value of an environment, a path or a name in the kernel that a lab gives a pod: a file's name.
const MAX_NAME: usize = 253;

/// Mistakes of an object, each with its field.
pub(crate) fn mistakes(resource: &Resource) -> Vec<String> {
    let mut found = Vec::new();
    let (prefix, selector, labels) = match resource {
        Resource::Pod(_) => ("spec", None, None),
        Resource::Deployment(owner) => template(&owner.spec.selector, &owner.spec.template.metadata.labels),
        Resource::ReplicaSet(owner) => template(&owner.spec.selector, &owner.spec.template.metadata.labels),
        Resource::StatefulSet(owner) => {
            stateful(&owner.metadata.name, owner.spec.replicas, &mut found);
            template(&owner.spec.selector, &owner.spec.template.metadata.labels)
        }
        Resource::DaemonSet(owner) => template(&owner.spec.selector, &owner.spec.template.metadata.labels),
        Resource::Job(owner) => {
            if owner.spec.template.spec.restart_policy.as_deref() == Some("Always") {
                found.push("spec.template.spec.restartPolicy: a Job's is OnFailure or Never".to_owned());
            }
            // A Job's selector is made by its controller.
            ("spec.template.spec", None, None)
        }
        Resource::ConfigMap(_) | Resource::Secret(_) => {
            found.extend(undecodable(resource));
            return found;
        }
        Resource::Namespace(_)
        | Resource::Node(_)
        | Resource::ServiceAccount(_)
        | Resource::PersistentVolumeClaim(_)
        | Resource::PeerAuthentication(_)
        | Resource::AuthorizationPolicy(_)
        | Resource::GatewayClass(_)
        | Resource::Gateway(_)
        | Resource::Service(_)
        | Resource::ServiceEntry(_)
        | Resource::WorkloadEntry(_)
        | Resource::VirtualService(_)
        | Resource::DestinationRule(_)
        | Resource::HTTPRoute(_)
        | Resource::GRPCRoute(_)
        | Resource::EndpointSlice(_) => return found,
    };
    if let (Some(selector), Some(labels)) = (selector, labels) {
        of_selector(selector, labels, &mut found);
    }
    if let Some(spec) = workloads::pod_spec(resource) {
        let mut spec = spec.clone();
        // Before mounts are checked: they may name a claim template, which is not among the `volumes` of the manifest.
        spec.volumes.extend(claimed_volumes(resource));
        of_pod(&spec, prefix, &mut found);
    }
    found
}

/// Volumes that a StatefulSet's controller adds to its pods, one per claim template.
fn claimed_volumes(resource: &Resource) -> Vec<Volume> {
    let Resource::StatefulSet(set) = resource else { return Vec::new() };
    let names = set.spec.volume_claim_templates.iter().map(|claim| &claim.metadata.name);
    let volume = |name: &String| {
        let claim = ClaimVolume { claim_name: name.clone(), read_only: false };
        Volume { name: name.clone(), persistent_volume_claim: Some(claim), ..Volume::default() }
    };
    names.map(volume).collect()
}

type Template<'a> = (&'static str, Option<&'a LabelSelector>, Option<&'a StringMap>);

const fn template<'a>(selector: &'a LabelSelector, labels: &'a StringMap) -> Template<'a> {
    ("spec.template.spec", Some(selector), Some(labels))
}

fn of_selector(selector: &LabelSelector, labels: &StringMap, found: &mut Vec<String>) {
    // One that is missing was refused when the manifest was read.
    if !selector.matches(labels) {
        found.push("spec.selector: does not match the labels of spec.template.metadata".to_owned());
    }
}

fn stateful(name: &str, replicas: Option<u32>, found: &mut Vec<String>) {
    // The highest number makes the longest name.
    let last = format!("{name}-{}", replicas.unwrap_or(1).saturating_sub(1));
    if last.len() > MAX_LABEL {
        let message = "metadata.name: its pods' names, which are labels of theirs, would be longer than 63 bytes";
        found.push(message.to_owned());
    }
}

fn of_pod(spec: &PodSpec, prefix: &str, found: &mut Vec<String>) {
    if spec.containers.is_empty() {
        found.push(format!("{prefix}.containers: at least one is required"));
    }
    if let Some(hostname) = spec.hostname.as_deref().filter(|name| name.len() > MAX_LABEL) {
        found.push(format!("{prefix}.hostname: {hostname:?} is longer than {MAX_LABEL} bytes"));
    }
    // One set for both lists: a name may be used once in a pod.
    let mut names = BTreeSet::new();
    for (list, containers, initial) in
        [("initContainers", &spec.init_containers, true), ("containers", &spec.containers, false)]
    {
        for (index, container) in containers.iter().enumerate() {
            let path = format!("{prefix}.{list}[{index}]");
            if !is_label(&container.name) {
                let message = "expected at most 63 lower-case letters, digits and '-'";
                found.push(format!("{path}.name: {:?} is not a container's name: {message}", container.name));
            }
            if !names.insert(&container.name) {
                found.push(format!("{path}.name: another container is called {:?}", container.name));
            }
            let runs_on = !initial || container.restart_policy.as_deref() == Some("Always");
            of_container(container, &path, runs_on, found);
            of_mounts(spec, container, &path, found);
        }
    }
    of_volumes(spec, prefix, found);
}

fn is_label(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=MAX_LABEL).contains(&name.len())
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
        && name.chars().all(|c| alphanumeric(c) || c == '-')
}

fn of_container(container: &Container, path: &str, runs_on: bool, found: &mut Vec<String>) {
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ];
    for (name, probe) in probes {
        let Some(probe) = probe else { continue };
        let path = format!("{path}.{name}");
        if !runs_on {
            found.push(format!("{path}: an init container has no probes unless its restartPolicy is Always"));
        }
        of_probe(probe, &path, name, found);
    }
    let lifecycle = container.lifecycle.as_ref();
    let hooks = [
        ("postStart", lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref())),
        ("preStop", lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref())),
    ];
    for (name, hook) in hooks {
        let Some(LifecycleHandler { exec, http_get, tcp_socket, sleep }) = hook else { continue };
        let handlers = [exec.is_some(), http_get.is_some(), tcp_socket.is_some(), sleep.is_some()];
        one_handler(&handlers, &format!("{path}.lifecycle.{name}"), found);
    }
    for (index, variable) in container.env.iter().enumerate() {
        let name = &variable.name;
        if name.is_empty() || name.contains(['=', '\0']) {
            found.push(format!("{path}.env[{index}].name: {name:?} cannot be a variable's name"));
        }
        if variable.value_from.is_some() && variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
            found.push(format!("{path}.env[{index}].valueFrom: may not be given beside value"));
        }
    }
}

fn of_probe(probe: &Probe, path: &str, name: &str, found: &mut Vec<String>) {
    let handlers = [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
    one_handler(&handlers, path, found);
    if probe.exec.as_ref().is_some_and(|exec| exec.command.is_empty()) {
        found.push(format!("{path}.exec.command: a value is required"));
    }
    if name != "readinessProbe" {
        if probe.success_threshold.is_some_and(|threshold| threshold > 1) {
            found.push(format!("{path}.successThreshold: must be 1"));
        }
    } else if probe.termination_grace_period_seconds.is_some() {
        found.push(format!("{path}.terminationGracePeriodSeconds: must not be set for readiness probes"));
    }
}

fn one_handler(handlers: &[bool], path: &str, found: &mut Vec<String>) {
    // In the words of the API server, which users look for.
    match handlers.iter().filter(|given| **given).count() {
        0 => found.push(format!(
            "{path}: must specify a handler type: exec, httpGet, tcpSocket, grpc (probes), sleep (hooks)"
        )),
        1 => {}
        _ => found.push(format!("{path}: may not specify more than 1 handler type")),
    }
}

fn of_mounts(spec: &PodSpec, container: &Container, path: &str, found: &mut Vec<String>) {
    let mut places = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if !spec.volumes.iter().any(|volume| volume.name == mount.name) {
            found.push(format!("{path}.name: volume {:?} not found", mount.name));
        }
        if !mount.mount_path.starts_with('/') {
            found.push(format!("{path}.mountPath: {:?} is not an absolute path", mount.mount_path));
        }
        if !places.insert(&mount.mount_path) {
            found.push(format!("{path}.mountPath: {:?} must be unique", mount.mount_path));
        }
    }
}

fn of_volumes(spec: &PodSpec, prefix: &str, found: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().enumerate() {
        if !is_label(&volume.name) {
            found.push(format!("{prefix}.volumes[{index}].name: {:?} is not a volume's name", volume.name));
        }
        if !names.insert(&volume.name) {
            found.push(format!("{prefix}.volumes[{index}].name: another volume is called {:?}", volume.name));
        }
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| &claim.claim_name);
        if claim.is_some_and(|name| name.is_empty() || name.len() > MAX_NAME || name.contains('/')) {
            found.push(format!("{prefix}.volumes[{index}].persistentVolumeClaim.claimName: a name is required"));
        }
    }
}

#[cfg(test)]
mod tests {
    use kube_types::Kind;
    use serde_json::{Value, json};

    use super::*;

    fn of(kind: Kind, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "x", "namespace": "n"}, "spec": spec});
        mistakes(&Resource::from_value(kind, object).unwrap())
    }

    fn of_one(container: Value) -> Vec<String> {
        of(Kind::Pod, json!({"containers": [container], "volumes": [{"name": "v"}]}))
    }

    #[test]
    fn a_selector_has_to_match_its_template() {
        let spec = |label: &str| {
            json!({"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": label}},
                "spec": {"containers": [{"name": "c"}]}}})
        };

        for kind in [Kind::Deployment, Kind::ReplicaSet, Kind::StatefulSet, Kind::DaemonSet] {
            assert_eq!(of(kind, spec("web")), Vec::<String>::new());
            let said = of(kind, spec("other"));
            assert_eq!(said, ["spec.selector: does not match the labels of spec.template.metadata"]);
        }
    }

    #[test]
    fn a_probe_has_one_handler() {
        let none = of_one(json!({"name": "c", "livenessProbe": {"periodSeconds": 1}}));
        let two = of_one(json!({"name": "c", "startupProbe": {"exec": {"command": ["x"]}, "grpc": {"port": 1}}}));
        let one = of_one(json!({"name": "c", "readinessProbe": {"grpc": {"port": 1}, "successThreshold": 2}}));

        assert!(none[0].starts_with("spec.containers[0].livenessProbe: must specify a handler type"), "{none:?}");
        assert_eq!(two, ["spec.containers[0].startupProbe: may not specify more than 1 handler type"]);
        assert_eq!(one, Vec::<String>::new());
        let threshold = json!({"name": "c", "livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}});
        assert_eq!(of_one(threshold), ["spec.containers[0].livenessProbe.successThreshold: must be 1"]);
    }

    #[test]
    fn names_are_labels_and_unique() {
        let long = "n".repeat(64);
        let spec = json!({"containers": [{"name": "c"}, {"name": "c"}, {"name": long}, {"name": "a_b"}]});

        assert_eq!(of(Kind::Pod, spec).len(), 3);
        assert_eq!(of(Kind::Pod, json!({"containers": [{"name": "n".repeat(63)}]})), Vec::<String>::new());
    }

    #[test]
    fn a_mount_names_a_volume_of_the_pod() {
        let mounts = json!([{"name": "v", "mountPath": "/x"}, {"name": "w", "mountPath": "/y"},
            {"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "z"}]);

        let said = of_one(json!({"name": "c", "volumeMounts": mounts}));

        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(said[0], "spec.containers[0].volumeMounts[1].name: volume \"w\" not found");
    }

    #[test]
    fn a_mount_names_a_claim_of_its_stateful_set() {
        let container = json!({"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
        let spec = json!({"template": {"spec": {"containers": [container]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}]});

        assert_eq!(of(Kind::StatefulSet, spec), Vec::<String>::new());
    }

    #[test]
    fn a_stateful_set_whose_pods_cannot_be_named_is_refused_at_once() {
        let object = |length: usize| {
            let spec = json!({"replicas": 11, "template": {"spec": {"containers": [{"name": "c"}]}}});
            let object = json!({"metadata": {"name": "n".repeat(length)}, "spec": spec});
            mistakes(&Resource::from_value(Kind::StatefulSet, object).unwrap())
        };

        assert_eq!(object(60), Vec::<String>::new());
        assert_eq!(object(61).len(), 1);
    }

    #[test]
    fn a_job_does_not_restart_always() {
        let spec = json!({"template": {"spec": {"restartPolicy": "Always", "containers": [{"name": "c"}]}}});

        assert_eq!(of(Kind::Job, spec), ["spec.template.spec.restartPolicy: a Job's is OnFailure or Never"]);
    }
}
