//! Settings in manifests that a lab does not support although it runs the objects: reported with file and line. A setting
//! that keeps a pod from running is a problem and found elsewhere.

use contract::Unsupported;
use kube_types::core::{IntOrString, PodSpec, ServiceSpec, Volume};
use kube_types::{Resource, is_subset};

use crate::{services::container_port, workloads, workloads::Objects};

/// A line for each such thing of an object.
pub(super) fn about(resource: &Resource, objects: &Objects) -> Vec<String> {
    if let Resource::Service(service) = resource {
        let mut notes = of_service(&service.spec);
        notes.extend(of_target_ports(&service.metadata.namespace, &service.spec, objects));
        return notes;
    }
    workloads::pod_spec(resource).map(of_pod).unwrap_or_default()
}

fn of_service(spec: &ServiceSpec) -> Vec<String> {
    let kind = spec.r#type.as_deref();
    let note = |holds: bool, what: String, instead: &str| holds.then(|| Unsupported::new(what, instead).to_string());
    [
        note(
            matches!(kind, Some("NodePort" | "LoadBalancer")),
            format!("type {}", kind.unwrap_or_default()),
            "it is reached at its cluster address only",
        ),
        note(kind == Some("ExternalName"), "type ExternalName".to_owned(), "its name does not resolve"),
        note(
            spec.session_affinity.as_deref().is_some_and(|affinity| affinity != "None"),
            "sessionAffinity".to_owned(),
            "each connection goes to any endpoint",
        ),
        note(
            spec.internal_traffic_policy.as_deref().is_some_and(|policy| policy != "Cluster"),
            "internalTrafficPolicy".to_owned(),
            "connections go to endpoints on every node",
        ),
        note(!spec.external_ips.is_empty(), "externalIPs".to_owned(), "nothing answers at these addresses"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Ports whose `targetPort` is a name that no container of the selected pods has.
fn of_target_ports(namespace: &str, spec: &ServiceSpec, objects: &Objects) -> Vec<String> {
    if spec.selector.is_empty() {
        return Vec::new();
    }
    let selected: Vec<_> = objects
        .values()
        .filter(|resource| resource.meta().namespace == namespace)
        .filter_map(workloads::template)
        .filter(|(labels, _)| is_subset(&spec.selector, labels))
        .collect();
    // Pods may come later, and then with the port.
    if selected.is_empty() {
        return Vec::new();
    }
    let nobody_has = |name: &&String| selected.iter().all(|(_, pod)| container_port(&pod.containers, name).is_none());
    let names = spec.ports.iter().filter_map(|port| match &port.target_port {
        Some(IntOrString::String(name)) => Some((port.port, name)),
        Some(IntOrString::Int(_)) | None => None,
    });
    names
        .filter(|(_, name)| nobody_has(name))
        .map(|(port, name)| {
            format!("targetPort {name:?} is a port that no container of the selected pods names: nothing answers on port {port}")
        })
        .collect()
}

fn of_pod(spec: &PodSpec) -> Vec<String> {
    let mut notes: Vec<_> = spec.volumes.iter().filter_map(of_volume).collect();
    if let Some(affinity) = &spec.affinity {
        let between = [("podAffinity", &affinity.pod_affinity), ("podAntiAffinity", &affinity.pod_anti_affinity)];
        let given = between.into_iter().filter(|(_, affinity)| affinity.is_some());
        notes.extend(given.map(|(name, _)| Unsupported::new(name, "pods go to the nodes in turn").to_string()));
    }
    let mut hosted = spec.containers.iter().flat_map(|container| &container.ports);
    // On the host network a port is the node's in any case.
    if hosted.any(|port| port.host_port.is_some()) && !spec.host_network {
        notes.push(Unsupported::new("hostPort", "the port is open at the pod's address only").to_string());
    }
    notes
}

fn of_volume(volume: &Volume) -> Option<String> {
    let sources = volume.projected.iter().flat_map(|projected| &projected.sources);
    let token = sources.into_iter().any(|source| source.service_account_token.is_some());
    let name = &volume.name;
    if token {
        let what = format!("serviceAccountToken of volume {name:?}");
        return Some(Unsupported::new(what, "the lab has no API server, the file does not exist").to_string());
    }
    volume.host_path.as_ref().map(|path| {
        let what = format!("hostPath {:?} of volume {name:?}", path.path);
        Unsupported::new(what, "it is a directory of the lab, not of this machine").to_string()
    })
}

#[cfg(test)]
mod tests {
    use kube_types::Kind;
    use serde_json::json;

    use super::*;

    fn objects(list: &[(Kind, serde_json::Value)]) -> Objects {
        let read = |(kind, value): &(Kind, serde_json::Value)| Resource::from_value(*kind, value.clone()).unwrap();
        list.iter().map(read).map(|resource| (resource.key(), resource)).collect()
    }

    fn all(objects: &Objects) -> Vec<String> {
        objects.values().flat_map(|resource| about(resource, objects)).collect()
    }

    #[test]
    fn each_thing_that_is_not_supported_is_named() {
        let service = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "sessionAffinity": "ClientIP",
            "internalTrafficPolicy": "Local", "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]}});
        let plain = json!({"metadata": {"name": "plain"}, "spec": {"type": "ClusterIP", "ports": [{"port": 80}]}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"affinity": {"podAntiAffinity": {}},
            "containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 1}]}],
            "volumes": [{"name": "v", "hostPath": {"path": "/x"}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}});

        let notes = all(&objects(&[(Kind::Service, service), (Kind::Service, plain), (Kind::Pod, pod)]));

        let said = |what: &str| notes.iter().filter(|note| note.contains(what)).count() == 1;
        assert_eq!(notes.len(), 8, "{notes:#?}");
        for what in [
            "type NodePort",
            "sessionAffinity",
            "internalTrafficPolicy",
            "externalIPs",
            "podAntiAffinity",
            "hostPort",
            "hostPath \"/x\"",
            "serviceAccountToken",
        ] {
            assert!(said(what), "{what}: {notes:#?}");
        }
    }

    #[test]
    fn a_target_port_that_no_pod_has_is_named() {
        let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "htpp"}, {"port": 81, "targetPort": "http"}, {"port": 82}]}});
        let pod = json!({"metadata": {"name": "p", "labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]}});

        let notes = all(&objects(&[(Kind::Service, service.clone()), (Kind::Pod, pod)]));

        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("\"htpp\"") && notes[0].contains("port 80"), "{notes:?}");
        assert_eq!(all(&objects(&[(Kind::Service, service)])), Vec::<String>::new(), "there is no pod yet");
    }
}
