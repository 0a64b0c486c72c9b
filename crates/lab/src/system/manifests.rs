//! The Kubernetes manifests of the mesh's own programs, as a cluster gets them: `daemonset/manifests`. Differences between
//! a lab and a cluster are in `differences`.

use std::io;

use contract::manifests::FILES;
use kube_types::{Kind, Resource};
use serde_json::Value;

/// Every object of the manifests.
///
/// # Errors
/// When a file is not YAML.
pub(super) fn embedded() -> io::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for (_, text) in FILES {
        documents.extend(serde_saphyr::from_multiple::<Value>(text).map_err(io::Error::other)?);
    }
    Ok(documents)
}

/// `Kind/name` of an object.
pub(super) fn title(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text(&document["kind"]), text(&document["metadata"]["name"]))
}

/// Reads an object as one of those that a lab runs.
///
/// # Errors
/// When the lab does not know its kind or version, or a field has another type.
pub(super) fn read(document: Value) -> io::Result<Resource> {
    let kind = Kind::ALL.iter().find(|kind| document["kind"] == kind.name());
    let api_version = document["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let Some(kind) = kind.filter(|kind| kind.group() == group && kind.has_version(version)) else {
        return Err(io::Error::other(format!("{} of {api_version} is not supported in the lab", title(&document))));
    };
    Resource::from_value(*kind, document).map_err(io::Error::other)
}
