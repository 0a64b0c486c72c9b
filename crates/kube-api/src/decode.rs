//! From a document to a typed object, with every mistake named by its field and line.

use serde_json::Value;

use crate::document::{Data, Node, Step};
use crate::fields;
use crate::istio;
use crate::kind::{Kind, ObjectRef};
use crate::mistake::Mistake;
use crate::resource::{Resource, strip_nulls};

/// What the head of a document says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Object(Kind),
    /// `kind: List`, as `kubectl get -o yaml` prints.
    List,
    /// A kind that is not read: what it asks for does not happen.
    Unread {
        api_version: String,
        kind: String,
    },
}

/// Groups in which a known kind's name cannot be anybody else's.
const KUBERNETES_GROUPS: [&str; 6] = ["", "apps", "batch", "discovery.k8s.io", "extensions", "security.istio.io"];

/// Reads `apiVersion` and `kind`.
pub(crate) fn head(node: &Node) -> Result<Head, Mistake> {
    if !matches!(node.data, Data::Map(_)) {
        return Err(Mistake::at(&[], "expected a mapping with apiVersion and kind"));
    }
    let api_version = text(node, "apiVersion")?;
    let kind = text(node, "kind")?;
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match kind.parse::<Kind>() {
        Ok(known) if known.group() == group => return Ok(Head::Object(known)),
        Ok(known) if KUBERNETES_GROUPS.contains(&group) => {
            return Err(Mistake::at(
                &["apiVersion"],
                format!("{kind} belongs to {}, not to {api_version}", known.api_version()),
            ));
        }
        Ok(_) | Err(_) => {}
    }
    if kind == "List" && group.is_empty() {
        return Ok(Head::List);
    }
    Ok(Head::Unread { api_version: api_version.to_owned(), kind: kind.to_owned() })
}

fn text<'a>(node: &'a Node, field: &str) -> Result<&'a str, Mistake> {
    match node.entry(field).map(|entry| &entry.value.data) {
        Some(Data::Scalar(Value::String(text))) if !text.is_empty() => Ok(text),
        Some(_) => Err(Mistake::at(&[field], "expected text")),
        None => Err(Mistake::at(&[field], "missing")),
    }
}

/// Completes and checks the key of an object of `kind`, writing the default namespace into `value`.
pub(crate) fn key(kind: Kind, value: &mut Value) -> Result<ObjectRef, Mistake> {
    let name = metadata_text(value, "name")?;
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(Mistake::at(&["metadata", "name"], "missing"));
    };
    if !is_dns_subdomain(&name) {
        return Err(Mistake::at(
            &["metadata", "name"],
            format!("{name:?} is no name: lower-case letters, digits, '-' and '.' are expected"),
        ));
    }
    let namespace = metadata_text(value, "namespace")?.unwrap_or_default();
    let namespace = match (kind.is_namespaced(), namespace.as_str()) {
        (true, "") => "default".to_owned(),
        (true, _) if is_dns_subdomain(&namespace) && !namespace.contains('.') => namespace,
        (false, "") => namespace,
        (true, _) => {
            return Err(Mistake::at(&["metadata", "namespace"], format!("{namespace:?} is no name of a namespace")));
        }
        (false, _) => {
            return Err(Mistake::at(&["metadata", "namespace"], format!("a {kind} is in no namespace")));
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
            Some(_) => Err(Mistake::at(&["metadata", field], "expected text")),
        },
        Some(_) => Err(Mistake::at(&["metadata"], "expected a mapping")),
    }
}

fn is_dns_subdomain(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
        && name.chars().all(|c| alphanumeric(c) || c == '-' || c == '.')
        && !name.contains("..")
}

/// Reads the typed object. Fields beside the specification and those of the metadata must be known: without its labels a
/// pod is not protected by the policy that selects it. For strict kinds this holds for every field of the specification,
/// and none may be empty: an empty `from:` would otherwise widen a policy to everybody.
pub(crate) fn object(kind: Kind, value: &Value) -> Result<Resource, Vec<Mistake>> {
    let mut mistakes = fields::mistakes(kind, value);
    if let (true, Some(spec)) = (kind.is_strict(), value.get("spec")) {
        find_nulls(spec, &mut vec![Step::Field("spec".to_owned())], &mut mistakes);
    }
    let mut value = value.clone();
    strip_nulls(&mut value);
    let mut unknown = Vec::new();
    let mut collect = |path: serde_ignored::Path<'_>| unknown.push(ignored_path(&path));
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&value, &mut track);
    let result = Resource::read(kind, serde_ignored::Deserializer::new(tracked, &mut collect));
    if kind.is_strict() {
        mistakes.extend(unknown.into_iter().filter(|path| is_in_specification(path)).map(Mistake::unknown_field));
    }
    match result {
        Ok(resource) if mistakes.is_empty() => match values(&resource) {
            mistakes if mistakes.is_empty() => Ok(resource),
            mistakes => Err(mistakes),
        },
        Ok(_) => Err(mistakes),
        Err(error) => {
            mistakes.push(Mistake { path: tracked_path(&track.path()), message: error.to_string() });
            Err(mistakes)
        }
    }
}

/// Values whose type is right and which nobody could match.
fn values(resource: &Resource) -> Vec<Mistake> {
    match resource {
        Resource::AuthorizationPolicy(policy) => istio::values::mistakes(policy),
        Resource::Namespace(_)
        | Resource::Node(_)
        | Resource::ServiceAccount(_)
        | Resource::ConfigMap(_)
        | Resource::PeerAuthentication(_)
        | Resource::Service(_)
        | Resource::Deployment(_)
        | Resource::StatefulSet(_)
        | Resource::DaemonSet(_)
        | Resource::Job(_)
        | Resource::Pod(_)
        | Resource::EndpointSlice(_) => Vec::new(),
    }
}

fn find_nulls(value: &Value, path: &mut Vec<Step>, mistakes: &mut Vec<Mistake>) {
    match value {
        Value::Null => mistakes
            .push(Mistake { path: path.clone(), message: "is empty: give it a value or leave it out".to_owned() }),
        Value::Object(fields) => {
            for (name, field) in fields {
                path.push(Step::Field(name.clone()));
                find_nulls(field, path, mistakes);
                path.pop();
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                find_nulls(item, path, mistakes);
                path.pop();
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Metadata and status have many fields that only an API server uses.
fn is_in_specification(path: &[Step]) -> bool {
    matches!(path.first(), Some(Step::Field(name)) if name == "spec")
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
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}
