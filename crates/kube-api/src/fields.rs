//! The fields that say what an object is, whatever its kind does with the rest: its metadata, and what stands beside it.

use serde_json::Value;

use crate::document::Step;
use crate::kind::Kind;
use crate::mistake::Mistake;

/// Every field of Kubernetes' `ObjectMeta`, with those that were removed and still are in old manifests.
const METADATA: [&str; 17] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "initializers",
    "finalizers",
    "clusterName",
    "managedFields",
];

/// Fields of an object that are not known.
pub(crate) fn mistakes(kind: Kind, value: &Value) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let known = |name: &str| ["apiVersion", "kind", "metadata"].contains(&name) || beside(kind).contains(&name);
    find(value, &[], known, &mut mistakes);
    for path in [&["metadata"][..], &["spec", "template", "metadata"]] {
        if path.len() > 1 && !has_template(kind) {
            continue;
        }
        let part = path.iter().try_fold(value, |value, name| value.get(name));
        if let Some(metadata) = part {
            find(metadata, path, |name| METADATA.contains(&name), &mut mistakes);
        }
    }
    mistakes
}

fn find(value: &Value, path: &[&str], known: impl Fn(&str) -> bool, mistakes: &mut Vec<Mistake>) {
    let names = value.as_object().into_iter().flatten().map(|(name, _)| name);
    mistakes.extend(names.filter(|name| !known(name)).map(|name| {
        let steps = path.iter().copied().chain([name.as_str()]);
        Mistake::unknown_field(steps.map(|name| Step::Field(name.to_owned())).collect())
    }));
}

/// What stands beside the metadata.
const fn beside(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Namespace
        | Kind::Node
        | Kind::PeerAuthentication
        | Kind::AuthorizationPolicy
        | Kind::Service
        | Kind::Deployment
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::Job
        | Kind::Pod => &["spec", "status"],
        Kind::ServiceAccount => &["secrets", "imagePullSecrets", "automountServiceAccountToken"],
        Kind::ConfigMap => &["data", "binaryData", "immutable"],
        Kind::EndpointSlice => &["addressType", "endpoints", "ports"],
    }
}

const fn has_template(kind: Kind) -> bool {
    matches!(kind, Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Job)
}
