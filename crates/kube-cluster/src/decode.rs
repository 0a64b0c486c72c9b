//! From an object of the API to a typed one, with the field that is at fault.

use kube_types::resource::strip_nulls;
use kube_types::{Code, Kind, ObjectRef, Resource, wording};
use serde_json::Value;

use crate::answer::InvalidAnswer;

/// An annotation that repeats the whole object, and is often as large.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Key and version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key: ObjectRef,
    pub(crate) version: String,
}

/// Fault of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// uid of the object.
    pub(crate) uid: String,
    /// Path, as `spec.ports[0].port`; empty when it is about the object.
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) code: Code,
}

/// Key and version of an object. Without them the answer cannot be used.
pub(crate) fn head(kind: Kind, object: &Value) -> Result<Head, InvalidAnswer> {
    let text = |field| object["metadata"][field].as_str().filter(|text| !text.is_empty());
    let (Some(name), Some(version)) = (text("name"), text("resourceVersion")) else {
        return Err(InvalidAnswer::Nameless);
    };
    let namespace = match (kind.is_namespaced(), text("namespace")) {
        (true, Some(namespace)) => namespace,
        // An object without namespaces.
        (false, _) => "",
        (true, None) => return Err(InvalidAnswer::Nameless),
    };
    Ok(Head { key: ObjectRef::new(kind, namespace, name), version: version.to_owned() })
}

/// Reads the fields that are used and drops the others. In the specification of a strict kind a field that nobody knows is a
/// fault: a policy without one of its restrictions would allow more.
pub(crate) fn object(kind: Kind, mut value: Value) -> Result<Resource, Mistake> {
    let annotations = value.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(Value::Object(annotations)) = annotations {
        // Nobody reads it, and it would make every object twice as large in memory.
        annotations.remove(LAST_APPLIED);
    }
    // An API server writes `null` where nothing is set; for a typed field that is not the same as absent.
    strip_nulls(&mut value);
    Resource::complete(kind, &mut value);
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(display(&path));
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&value, &mut track);
    let read = Resource::read(kind, serde_ignored::Deserializer::new(tracked, &mut note));
    let resource = read.map_err(|error| {
        let path = track.path();
        let message = wording::in_words(&error.to_string(), at(&value, &path));
        // The path of an object that is not a mapping is a dot.
        let field = Some(path.to_string()).filter(|path| path != ".").unwrap_or_default();
        Mistake { uid: uid(&value), field, message, code: Code::InvalidValue }
    })?;
    // Only in the specification: an API server adds fields to metadata and status as it likes.
    let unknown = unknown.into_iter().find(|path| kind.is_strict() && path.starts_with("spec."));
    match unknown {
        Some(field) => {
            let message = "unknown field: without it the policy could allow more than was meant".to_owned();
            Err(Mistake { uid: uid(&value), field, message, code: Code::UnknownField })
        }
        None => Ok(resource),
    }
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// The path as `spec.rules[0].from`.
fn display(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", display(parent)),
        Path::Map { parent, key } => {
            let parent = display(parent);
            if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") }
        }
        // Layers of serde's types, not of the object.
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => display(parent),
    }
}

fn at<'a>(value: &'a Value, path: &serde_path_to_error::Path) -> Option<&'a Value> {
    use serde_path_to_error::Segment;
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => Some(value),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_is_named_with_its_field() {
        let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "ports": [{"containerPort": -1}]}]}});

        let mistake = object(Kind::Pod, pod).unwrap_err();

        assert_eq!(mistake.field, "spec.containers[0].ports[0].containerPort");
        assert_eq!(mistake.message, "expected an integer from 0 to 65535, found the number -1");
        assert_eq!(object(Kind::Pod, json!("text")).unwrap_err().field, "");
    }

    #[test]
    fn an_unknown_field_is_a_fault_of_a_policy_and_of_nothing_else() {
        let policy =
            json!({"metadata": {"name": "p", "managedFields": []}, "spec": {"selector": {"matchExpressions": []}}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"priority": 0}});

        let mistake = object(Kind::AuthorizationPolicy, policy).unwrap_err();

        assert_eq!((mistake.field.as_str(), mistake.code), ("spec.selector.matchExpressions", Code::UnknownField));
        assert!(object(Kind::Pod, pod).is_ok());
    }

    #[test]
    fn nothing_is_kept_of_the_copy_that_kubectl_leaves() {
        let pod = json!({"metadata": {"name": "p", "annotations": {LAST_APPLIED: "{}", "a": "b"}}});

        let resource = object(Kind::Pod, pod).unwrap();

        assert_eq!(resource.meta().annotations.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn an_object_has_a_key_and_a_version() {
        let of = |kind, metadata: Value| head(kind, &json!({ "metadata": metadata })).ok();

        let pod = of(Kind::Pod, json!({"name": "web", "namespace": "app", "resourceVersion": "7"})).unwrap();

        assert_eq!((pod.key, pod.version.as_str()), (ObjectRef::new(Kind::Pod, "app", "web"), "7"));
        assert_eq!(of(Kind::Pod, json!({"name": "web", "resourceVersion": "7"})), None);
        assert_eq!(of(Kind::Node, json!({"name": "n1"})), None);
        assert!(of(Kind::Node, json!({"name": "n1", "resourceVersion": "7"})).is_some());
    }
}
