//! What manifests say that a lab does not do although it runs what they describe: said aloud, with file and line. What keeps
//! a pod from running is a problem and found elsewhere.

use std::{collections::BTreeMap, path::PathBuf};

use kube_api::{
    Resource,
    core::{PodSpec, ServiceSpec},
    manifest,
};

use crate::workloads::Objects;

/// A line for each such thing.
pub(super) fn notes(objects: &Objects, manifests: &[PathBuf]) -> Vec<String> {
    let found: Vec<_> =
        objects.iter().flat_map(|(key, resource)| about(resource).map(move |note| (key, note))).collect();
    if found.is_empty() {
        return Vec::new();
    }
    let loaded = manifests.iter().filter_map(|path| manifest::load_directory(path).ok());
    let places: BTreeMap<_, _> = loaded
        .flat_map(|loaded| loaded.objects)
        .map(|object| (object.resource.key(), format!("{}:{}: ", object.file.display(), object.line)))
        .collect();
    let place = |key| places.get(key).map(String::as_str).unwrap_or_default();
    found.into_iter().map(|(key, note)| format!("{}{key}: {note}", place(key))).collect()
}

fn about(resource: &Resource) -> impl Iterator<Item = String> + use<> {
    let notes = match resource {
        Resource::Service(service) => of_service(&service.spec),
        Resource::Pod(pod) => of_pod(&pod.spec),
        Resource::Deployment(owner) => of_pod(&owner.spec.template.spec),
        Resource::StatefulSet(owner) => of_pod(&owner.spec.template.spec),
        Resource::DaemonSet(owner) => of_pod(&owner.spec.template.spec),
        Resource::Job(owner) => of_pod(&owner.spec.template.spec),
        Resource::Namespace(_)
        | Resource::Node(_)
        | Resource::ServiceAccount(_)
        | Resource::ConfigMap(_)
        | Resource::PeerAuthentication(_)
        | Resource::AuthorizationPolicy(_)
        | Resource::EndpointSlice(_) => Vec::new(),
    };
    notes.into_iter()
}

fn of_service(spec: &ServiceSpec) -> Vec<String> {
    let kind = spec.r#type.as_deref();
    let note =
        |holds: bool, what: String, instead: &str| holds.then(|| format!("{what} is not played by the lab: {instead}"));
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

fn of_pod(spec: &PodSpec) -> Vec<String> {
    let secrets = spec.volumes.iter().filter_map(|volume| Some((&volume.name, volume.secret.as_ref()?)));
    secrets
        .map(|(name, secret)| {
            let instead = if secret.optional { "it is empty" } else { "a container that mounts it does not start" };
            format!("the Secret of volume {name:?} is not played by the lab: {instead}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_thing_that_is_not_played_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let text = "# one\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: NodePort\n  \
                    sessionAffinity: ClientIP\n  internalTrafficPolicy: Local\n  externalIPs: [192.0.2.1]\n  ports: [{port: 80}]\n\
                    ---\napiVersion: v1\nkind: Service\nmetadata: {name: plain}\nspec: {type: ClusterIP, ports: [{port: 80}]}\n\
                    ---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, command: [x]}]\n  \
                    volumes: [{name: keys, secret: {secretName: s, optional: true}}]\n";
        fs::write(dir.path().join("web.yaml"), text).unwrap();
        let paths = [dir.path().to_owned()];
        let loaded = manifest::load_directory(dir.path()).unwrap();
        let objects = loaded.objects.into_iter().map(|object| (object.resource.key(), object.resource)).collect();

        let notes = notes(&objects, &paths);

        let says = |what: &str, line: usize| {
            notes.iter().any(|note| note.contains(what) && note.contains(&format!("web.yaml:{line}: ")))
        };
        assert_eq!(notes.len(), 5, "{notes:#?}");
        assert!(
            ["type NodePort", "sessionAffinity", "internalTrafficPolicy", "externalIPs"]
                .iter()
                .all(|what| says(what, 2))
        );
        assert!(says("the Secret of volume \"keys\" is not played by the lab: it is empty", 17), "{notes:#?}");
    }
}
