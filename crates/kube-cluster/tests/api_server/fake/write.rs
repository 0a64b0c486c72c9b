//! Writes: Leases with optimistic concurrency, and patches of statuses.

use kube_cluster::Verb;
use serde_json::{Value, json};

use super::request::Asked;
use super::state::State;

type Refused = (u16, &'static str, String);

pub(super) fn apply(state: &mut State, asked: &Asked, content_type: &str, body: Value) -> Result<Value, Refused> {
    let name = match asked.verb {
        Some(Verb::Create) => body["metadata"]["name"].as_str().expect("a name").to_owned(),
        _ => asked.name.clone(),
    };
    let current = state.get(&asked.resource, &asked.namespace, &name).cloned();
    let object = match (asked.verb, current) {
        (Some(Verb::Create), Some(_)) => return Err((409, "AlreadyExists", "already exists".to_owned())),
        (Some(Verb::Create), None) => body,
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

fn patched(asked: &Asked, content_type: &str, mut current: Value, patch: &Value) -> Result<Value, Refused> {
    assert_eq!(asked.subresource, "status", "nothing but a status is patched");
    assert!(asked.query.contains_key("fieldManager"), "a patch has a manager");
    let uid = &patch["metadata"]["uid"];
    if !uid.is_null() && *uid != current["metadata"]["uid"] {
        let message = format!("Pod \"web\" is invalid: metadata.uid: Invalid value: {uid}: field is immutable");
        return Err((422, "Invalid", message));
    }
    match content_type {
        "application/apply-patch+yaml" => {
            assert_eq!(asked.query.get("force").map(String::as_str), Some("true"));
            // One manager owns the whole status in these tests.
            current["status"] = patch.get("status").cloned().unwrap_or(json!({}));
        }
        "application/merge-patch+json" => {
            let annotations = patch["metadata"]["annotations"].as_object().expect("annotations");
            for (name, value) in annotations {
                if value.is_null() {
                    current["metadata"]["annotations"].as_object_mut().map(|all| all.remove(name));
                } else {
                    current["metadata"]["annotations"][name] = value.clone();
                }
            }
        }
        other => panic!("unexpected content type {other}"),
    }
    Ok(current)
}
