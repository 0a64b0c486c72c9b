//! The manifests as objects of the API, with the images of this installation.

use contract::manifests::{ADMISSION, CRDS, FILES};
use kube_cluster::{Collection, Location};
use serde_json::Value;

/// Origin of the images. Their names in the manifests are `PROGRAM:VERSION`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// Put before the name with a slash, for instance `localhost` or `HOST/PROJECT`.
    pub hub: Option<String>,
    /// In place of the version of this command.
    pub tag: Option<String>,
}

/// An object and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub at: Location,
    pub value: Value,
}

/// A manifest that cannot be applied: a mistake of this program.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct InvalidManifest {
    file: &'static str,
    reason: String,
}

/// Kinds in the manifests: name, plural, and whether they are in namespaces.
const KINDS: [(&str, &str, bool); 13] = [
    ("ClusterRole", "clusterroles", false),
    ("ClusterRoleBinding", "clusterrolebindings", false),
    ("ConfigMap", "configmaps", true),
    ("CustomResourceDefinition", "customresourcedefinitions", false),
    ("DaemonSet", "daemonsets", true),
    ("Deployment", "deployments", true),
    ("Namespace", "namespaces", false),
    ("Role", "roles", true),
    ("RoleBinding", "rolebindings", true),
    ("Service", "services", true),
    ("ServiceAccount", "serviceaccounts", true),
    ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", false),
    ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", false),
];

/// Flag of the control plane with the image of waypoints.
const WAYPOINT_FLAG: &str = "--waypoint-image=";

/// Every object, in the order in which it is applied.
///
/// # Errors
/// When a manifest is no YAML, or of a kind that is not known here.
pub fn objects(images: &Images) -> Result<Vec<Object>, InvalidManifest> {
    let mut objects = Vec::new();
    for (file, text) in FILES {
        objects.extend(read(file, text)?);
    }
    for object in &mut objects {
        for list in ["initContainers", "containers"] {
            let containers = object.value.pointer_mut(&format!("/spec/template/spec/{list}"));
            for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
                let image = container["image"].as_str().map(|image| images.name(image));
                container["image"] = image.into();
                name_waypoint(container, images);
            }
        }
    }
    Ok(objects)
}

/// The control plane makes the pods of waypoints: their image is a flag of its own.
fn name_waypoint(container: &mut Value, images: &Images) {
    for argument in container["args"].as_array_mut().into_iter().flatten() {
        let image = argument.as_str().and_then(|argument| argument.strip_prefix(WAYPOINT_FLAG));
        if let Some(image) = image.map(|image| images.name(image)) {
            *argument = format!("{WAYPOINT_FLAG}{image}").into();
        }
    }
}

/// The policies of admission, each before its binding.
///
/// # Errors
/// As [`objects`].
pub fn admission() -> Result<Vec<Object>, InvalidManifest> {
    read("admission.yaml", ADMISSION)
}

/// The custom resources of the mesh.
///
/// # Errors
/// As [`objects`].
pub fn custom_resources() -> Result<Vec<Object>, InvalidManifest> {
    read("crds.yaml", CRDS)
}

fn read(file: &'static str, text: &str) -> Result<Vec<Object>, InvalidManifest> {
    let documents = serde_saphyr::from_multiple::<Value>(text)
        .map_err(|error| InvalidManifest { file, reason: error.to_string() })?;
    let placed = documents.into_iter().map(|value| {
        let unknown = || format!("expected one of the kinds that are known, and a name, found {}", value["kind"]);
        let at = location(&value).ok_or_else(|| InvalidManifest { file, reason: unknown() })?;
        Ok(Object { at, value })
    });
    placed.collect()
}

fn location(value: &Value) -> Option<Location> {
    let (_, plural, is_namespaced) = KINDS.iter().find(|(kind, ..)| value["kind"] == *kind)?;
    let (api_version, metadata) = (value["apiVersion"].as_str()?, &value["metadata"]);
    let collection = if *is_namespaced {
        Collection::namespaced(api_version, plural, metadata["namespace"].as_str()?)
    } else {
        Collection::all(api_version, plural)
    };
    Some(collection.named(metadata["name"].as_str()?))
}

impl Images {
    fn name(&self, image: &str) -> String {
        let (name, version) = image.split_once(':').unwrap_or((image, "latest"));
        let tag = self.tag.as_deref().unwrap_or(version);
        match &self.hub {
            Some(hub) => format!("{}/{name}:{tag}", hub.trim_end_matches('/')),
            None => format!("{name}:{tag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_has_a_place_and_the_namespace_comes_first() {
        let objects = objects(&Images::default()).unwrap();

        assert_eq!(objects[0].at, Collection::all("v1", "namespaces").named("istio-system"));
        assert!(objects.iter().any(|object| object.at.collection.plural == "daemonsets"));
        let namespaced = objects.iter().filter_map(|object| object.at.collection.namespace.as_deref());
        assert!(namespaced.into_iter().all(|namespace| namespace == "istio-system"));
    }

    #[test]
    fn every_policy_of_admission_is_bound() {
        let objects = admission().unwrap();

        let of = |plural: &str| {
            let of_kind = objects.iter().filter(|object| object.at.collection.plural == plural);
            of_kind.map(|object| object.at.name.clone()).collect::<Vec<_>>()
        };
        let policies = of("validatingadmissionpolicies");
        assert!(policies.contains(&"redirection.strake.io".to_owned()), "{policies:?}");
        assert_eq!(of("validatingadmissionpolicybindings"), policies);
        for binding in objects.iter().filter(|object| object.value["kind"] == "ValidatingAdmissionPolicyBinding") {
            assert_eq!(binding.value["spec"]["policyName"], binding.at.name.as_str());
        }
    }

    #[test]
    fn images_come_from_the_hub_with_the_tag() {
        let images = Images { hub: Some("localhost/".to_owned()), tag: Some("dev".to_owned()) };

        let objects = objects(&images).unwrap();

        let image = |object: &Object| object.value.pointer("/spec/template/spec/containers/0/image").cloned();
        let mut names: Vec<_> = objects.iter().filter_map(image).collect();
        names.sort_by_key(|name| name.to_string());
        assert_eq!(names, ["localhost/strake-agent:dev", "localhost/strake-control:dev", "localhost/ztunnel:dev"]);
        let arguments =
            objects.iter().filter_map(|object| object.value.pointer("/spec/template/spec/containers/0/args"));
        let mut arguments = arguments.filter_map(Value::as_array).flatten();
        assert!(arguments.any(|argument| argument == "--waypoint-image=localhost/waypoint:dev"));
        assert_eq!(Images::default().name("ztunnel:0.1.0"), "ztunnel:0.1.0");
    }
}
