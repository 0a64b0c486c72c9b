//! Writes: Leases with optimistic concurrency, patches of statuses, deletions. Server-side apply is in `apply`.

use kube_cluster::Verb;
use serde_json::{Value, json};

use super::apply;
use super::request::Asked;
use super::state::State;

pub(super) type Refused = (u16, &'static str, String);

pub(super) fn apply(state: &mut State, asked: &Asked, content_type: &str, body: Value) -> Result<Value, Refused> {
    let name = match asked.verb {
        Some(Verb::Create) => body["metadata"]["name"].as_str().expect("a name").to_owned(),
        _ => asked.name.clone(),
    };
    let current = state.get(&asked.resource, &asked.namespace, &name).cloned();
    let object = match (asked.verb, current) {
        (Some(Verb::Create), Some(_)) => return Err((409, "AlreadyExists", "already exists".to_owned())),
        (Some(Verb::Create), None) => body,
        (_, current) if content_type == apply::CONTENT_TYPE => apply::applied(asked, current, body)?,
        (_, None) => return Err((404, "NotFound", format!("{} \"{name}\" not found", asked.resource.plural))),
        (Some(Verb::Update), Some(current)) => {
            if body["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"] {
                return Err((409, "Conflict", "the object has been modified".to_owned()));
            }
            body
        }
        (_, Some(current)) => patched(asked, content_type, current, &body)?,
    };
    // What changes nothing is not stored.
    if state.get(&asked.resource, &asked.namespace, &name) != Some(&object) {
        state.put(&asked.resource, &asked.namespace, &name, object);
    }
    Ok(state.get(&asked.resource, &asked.namespace, &name).expect("just written").clone())
}

/// Deletes an object, if it is the one of the preconditions.
pub(super) fn delete(state: &mut State, asked: &Asked, options: &Value) -> Result<Value, Refused> {
    let Some(current) = state.get(&asked.resource, &asked.namespace, &asked.name).cloned() else {
        return Err((404, "NotFound", format!("{} \"{}\" not found", asked.resource.plural, asked.name)));
    };
    for field in ["uid", "resourceVersion"] {
        let wanted = &options["preconditions"][field];
        if !wanted.is_null() && *wanted != current["metadata"][field] {
            return Err((409, "Conflict", format!("Precondition failed: {field}")));
        }
    }
    state.delete(&asked.resource, &asked.namespace, &asked.name);
    Ok(current)
}

fn patched(asked: &Asked, content_type: &str, mut current: Value, patch: &Value) -> Result<Value, Refused> {
    assert_eq!(asked.subresource, "status", "nothing but a status is patched");
    assert!(asked.query.contains_key("fieldManager"), "a patch has a manager");
    let uid = &patch["metadata"]["uid"];
    if !uid.is_null() && *uid != current["metadata"]["uid"] {
        let message = format!("Pod \"web\" is invalid: metadata.uid: Invalid value: {uid}: field is immutable");
        return Err((422, "Invalid", message));
    }
    let version = &patch["metadata"]["resourceVersion"];
    if !version.is_null() && *version != current["metadata"]["resourceVersion"] {
        return Err((409, "Conflict", "the object has been modified".to_owned()));
    }
    assert_eq!(content_type, "application/merge-patch+json");
    // Of the metadata in a patch of a status the API server takes annotations of pods, and nothing of a custom resource.
    let mut taken = json!({});
    if let Some(status) = patch.get("status") {
        taken["status"] = status.clone();
    }
    if asked.resource.plural == "pods" {
        taken["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
    }
    merge(&mut current, &taken);
    Ok(current)
}

/// Merges a patch (RFC 7396).
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().map(|object| object.remove(name));
        } else {
            merge(&mut target[name], value);
        }
    }
}
