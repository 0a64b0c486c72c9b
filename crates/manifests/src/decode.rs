//! Decoding of a document to a typed object, with every mistake named by its field.

use serde_json::Value;

use crate::authorization_values;
use crate::document::{Data, Node, Step, display_path};
use crate::known_kinds::{self, Unread};
use crate::mistake::{Mistake, in_words};
use crate::pod_checks;
use crate::schema;
use kube_types::resource::strip_nulls;
use kube_types::{Code, Kind, ObjectRef, Resource};

/// Sort of object, as the head of a document names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Object(Kind),
    /// `kind: List`, as `kubectl get -o yaml` prints.
    List,
    /// A kind that is not supported here.
    Unread {
        api_version: String,
        kind: String,
        effect: Unread,
    },
}

/// An object in a document.
pub(crate) struct ObjectNode<'a> {
    pub(crate) kind: Kind,
    /// Path from the document; empty when it is the object itself.
    pub(crate) path: Vec<Step>,
    pub(crate) node: &'a Node,
}

/// The objects of a document: itself, or the items of a `kind: List`. Those with a mistake in their heads are left out.
pub(crate) fn objects(document: &Node) -> Vec<ObjectNode<'_>> {
    let mut found = Vec::new();
    collect_objects(document, Vec::new(), &mut found);
    found
}

fn collect_objects<'a>(node: &'a Node, path: Vec<Step>, found: &mut Vec<ObjectNode<'a>>) {
    match head(node) {
        Ok(Head::Object(kind)) => found.push(ObjectNode { kind, path, node }),
        Ok(Head::List) => {
            for (index, item) in items(node).unwrap_or_default().iter().enumerate() {
                let steps = [Step::Field("items".to_owned()), Step::Index(index)];
                collect_objects(item, path.iter().cloned().chain(steps).collect(), found);
            }
        }
        Ok(Head::Unread { .. }) | Err(_) => {}
    }
}

/// The items of a `kind: List`; `None` when they are not a list.
pub(crate) fn items(list: &Node) -> Option<&[Node]> {
    match list.entry("items").map(|entry| &entry.value.data) {
        Some(Data::List(items)) => Some(items),
        // A `List` without items is an empty one.
        Some(Data::Scalar(Value::Null)) | None => Some(&[]),
        Some(Data::Scalar(_) | Data::Map(_)) => None,
    }
}

/// A typed object, and the fields of it that nothing reads.
#[derive(Clone, Debug)]
pub(crate) struct Decoded {
    pub(crate) resource: Resource,
    /// Sorted, without the indexes of lists.
    pub(crate) unread: Vec<String>,
}

/// Reads `apiVersion` and `kind`.
pub(crate) fn head(node: &Node) -> Result<Head, Mistake> {
    if !matches!(node.data, Data::Map(_)) {
        return Err(Mistake::at(&[], Code::NoObject, "expected an object with apiVersion and kind"));
    }
    let api_version = text(node, "apiVersion")?;
    let kind = text(node, "kind")?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    match kind.parse::<Kind>() {
        // A kind's name alone does not decide: `Gateway` exists in Istio's group and in that of the Gateway API.
        Ok(known) if known.group() == group => {
            if known.has_version(version) {
                return Ok(Head::Object(known));
            }
            let message = format!("{kind} does not exist in {api_version}: expected {}", known.api_version());
            return Err(Mistake::at(&["apiVersion"], Code::WrongVersion, message));
        }
        Ok(known) if known_kinds::is_elsewhere(known, group) => {
            let message = format!("{kind} belongs to {}, not to {api_version}", known.api_version());
            return Err(Mistake::at(&["apiVersion"], Code::WrongVersion, message));
        }
        Ok(_) | Err(_) => {}
    }
    if kind == "List" && group.is_empty() {
        return Ok(Head::List);
    }
    match known_kinds::of(group, kind) {
        Ok(effect) => Ok(Head::Unread { api_version: api_version.to_owned(), kind: kind.to_owned(), effect }),
        Err(meant) => {
            let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            let message = format!("unknown kind {kind:?} in {api_version}{hint}");
            Err(Mistake::at(&["kind"], Code::UnknownKind, message))
        }
    }
}

fn text<'a>(node: &'a Node, field: &str) -> Result<&'a str, Mistake> {
    match node.entry(field).map(|entry| &entry.value.data) {
        Some(Data::Scalar(Value::String(text))) if !text.is_empty() => Ok(text),
        Some(_) => Err(Mistake::at(&[field], Code::NoObject, "expected a string")),
        None => Err(Mistake::at(&[field], Code::NoObject, "missing")),
    }
}

/// Completes and checks the key of an object of `kind`, writing the default namespace into `value`.
pub(crate) fn key(kind: Kind, value: &mut Value) -> Result<ObjectRef, Mistake> {
    let invalid = |field: &str, message: String| Mistake::at(&["metadata", field], Code::NoObject, message);
    let name = metadata_text(value, "name")?;
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(invalid("name", "missing".to_owned()));
    };
    if !is_dns_subdomain(&name) {
        let message = format!(
            "invalid name {name:?}: expected lower-case letters, digits, '-' and '.', with a letter or digit at both ends of each part"
        );
        return Err(invalid("name", message));
    }
    let namespace = metadata_text(value, "namespace")?.unwrap_or_default();
    let namespace = match (kind.is_namespaced(), namespace.as_str()) {
        // As kubectl where no namespace is configured.
        (true, "") => "default".to_owned(),
        // A namespace is an RFC 1123 label: 63 characters, no dots.
        (true, _) if is_dns_subdomain(&namespace) && !namespace.contains('.') && namespace.len() <= 63 => namespace,
        (false, "") => namespace,
        (true, _) => {
            let message = format!("invalid namespace {namespace:?}: expected lower-case letters, digits and '-'");
            return Err(invalid("namespace", message));
        }
        (false, _) => {
            // Most often a mistake of indentation, or of the kind.
            return Err(invalid("namespace", format!("a {kind} does not belong to a namespace: remove it")));
        }
    };
    if kind.is_namespaced() {
        value["metadata"]["namespace"] = namespace.as_str().into();
    }
    Ok(ObjectRef::new(kind, namespace, name))
}

fn metadata_text(value: &Value, field: &'static str) -> Result<Option<String>, Mistake> {
    match value.get("metadata") {
        None => Ok(None),
        Some(Value::Object(metadata)) => match metadata.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Mistake::at(&["metadata", field], Code::NoObject, "expected a string; put it in quotes")),
        },
        Some(_) => Err(Mistake::at(&["metadata"], Code::NoObject, "expected a mapping")),
    }
}

fn is_dns_subdomain(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(alphanumeric)
            && label.ends_with(alphanumeric)
            && label.chars().all(|c| alphanumeric(c) || c == '-')
    };
    // A part may be longer than the 63 characters of DNS: the API server allows it in names.
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Reads the typed object. Every field must be one that the kind has, with a value of its type, as for `kubectl apply`
/// with strict validation: without its labels a pod is not protected by the policy that selects it. For strict kinds no
/// field of the specification may be empty: an empty `from:` would otherwise widen a policy to everybody.
pub(crate) fn object(kind: Kind, value: &Value) -> Result<Decoded, Vec<Mistake>> {
    let mut mistakes = schema::check(kind, value);
    if let (true, Some(spec)) = (kind.is_strict(), value.get("spec")) {
        // Before nulls are stripped: afterwards an empty field looks like one that is absent.
        find_nulls(spec, &mut vec![Step::Field("spec".to_owned())], &mut mistakes);
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    // The caller keeps the value as it was written, for overlays and copies.
    let mut value = value.clone();
    strip_nulls(&mut value);
    Resource::complete(kind, &mut value);
    let mut unread = Vec::new();
    let mut collect = |path: serde_ignored::Path<'_>| unread.push(ignored_path(&path));
    let mut track = serde_path_to_error::Track::new();
    // Two layers: the inner one knows where an error is, the outer one which fields nothing read.
    let tracked = serde_path_to_error::Deserializer::new(&value, &mut track);
    let result = Resource::read(kind, serde_ignored::Deserializer::new(tracked, &mut collect));
    let resource = result.map_err(|error| {
        let path = tracked_path(&track.path());
        let message = in_words(&error.to_string(), at(&value, &path));
        vec![Mistake::value(path, message)]
    })?;
    let mut mistakes = pod_checks::mistakes(kind, &value);
    // Only now: these checks need the typed object.
    mistakes.extend(values(&resource));
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut unread: Vec<_> =
        unread.into_iter().filter(|path| has_effect(path, &value)).map(|path| general(&path)).collect();
    unread.sort();
    // One note for all containers of a pod.
    unread.dedup();
    Ok(Decoded { resource, unread })
}

/// Values whose type is right and that cannot match anything.
fn values(resource: &Resource) -> Vec<Mistake> {
    if let Resource::AuthorizationPolicy(policy) = resource {
        authorization_values::mistakes(policy)
    } else {
        Vec::new()
    }
}

fn find_nulls(value: &Value, path: &mut Vec<Step>, mistakes: &mut Vec<Mistake>) {
    match value {
        Value::Null => mistakes.push(Mistake::value(path.clone(), "is empty: give it a value or remove it")),
        Value::Object(fields) => {
            for (name, field) in fields {
                path.push(Step::Field(name.clone()));
                find_nulls(field, path, mistakes);
                path.pop();
            }
        }
        // The schema names an empty item of a list.
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.is_null()) {
                path.push(Step::Index(index));
                find_nulls(item, path, mistakes);
                path.pop();
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Value at a path.
fn at<'a>(value: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Index(index) => value.get(index),
    })
}

/// Returns true if the author should know that this field is ignored. Empty values and fields that an API server adds
/// are not reported.
fn has_effect(path: &[Step], value: &Value) -> bool {
    let is_spec = matches!(path.first(), Some(Step::Field(name)) if name == "spec");
    let is_metadata = path.iter().any(|step| matches!(step, Step::Field(name) if name == "metadata"));
    let is_empty = match at(value, path) {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        // `false` is the default of nearly every field of the API; a number, also 0, was chosen.
        Some(Value::Bool(true) | Value::Number(_)) => false,
    };
    is_spec && !is_metadata && !is_empty && !is_default(path, at(value, path))
}

/// Values that an API server fills in where a manifest has none: they ask for nothing.
const DEFAULTS: [(&str, &[&str]); 14] = [
    ("allocateLoadBalancerNodePorts", &["true"]),
    ("dnsPolicy", &["ClusterFirst"]),
    ("enableServiceLinks", &["true"]),
    ("externalTrafficPolicy", &["Cluster"]),
    ("imagePullPolicy", &["Always", "IfNotPresent"]),
    ("minReadySeconds", &["0"]),
    ("podManagementPolicy", &["OrderedReady"]),
    ("preemptionPolicy", &["PreemptLowerPriority"]),
    ("priority", &["0"]),
    ("progressDeadlineSeconds", &["600"]),
    ("revisionHistoryLimit", &["10"]),
    ("schedulerName", &["default-scheduler"]),
    ("terminationMessagePath", &["/dev/termination-log"]),
    ("terminationMessagePolicy", &["File"]),
];

fn is_default(path: &[Step], value: Option<&Value>) -> bool {
    let Some(Step::Field(name)) = path.last() else {
        return false;
    };
    let text = match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => return true,
    };
    DEFAULTS.iter().any(|(field, values)| field == name && values.contains(&text.as_str()))
}

/// The path without the indexes of lists: `spec.containers[].tty`.
fn general(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(_) => text.push_str("[]"),
            Step::Field(_) if text.is_empty() => text = display_path(std::slice::from_ref(step)),
            Step::Field(_) => {
                text.push('.');
                text.push_str(&display_path(std::slice::from_ref(step)));
            }
        }
    }
    text
}

fn ignored_path(path: &serde_ignored::Path<'_>) -> Vec<Step> {
    use serde_ignored::Path;
    match path {
        Path::Root => Vec::new(),
        Path::Seq { parent, index } => {
            let mut steps = ignored_path(parent);
            steps.push(Step::Index(*index));
            steps
        }
        Path::Map { parent, key } => {
            let mut steps = ignored_path(parent);
            steps.push(Step::Field(key.clone()));
            steps
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored_path(parent)
        }
    }
}

fn tracked_path(path: &serde_path_to_error::Path) -> Vec<Step> {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Field(key.clone())),
            // Neither is a step in the document.
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_name_begins_and_ends_with_a_letter_or_digit() {
        for name in ["a", "a.b", "web-1.shop", &"x".repeat(253)] {
            assert!(is_dns_subdomain(name), "{name}");
        }
        for name in ["", ".", "a..b", "-a", "a-", "a-.b", "a.-b", "A", "a_b", &"x".repeat(254)] {
            assert!(!is_dns_subdomain(name), "{name}");
        }
    }
}
