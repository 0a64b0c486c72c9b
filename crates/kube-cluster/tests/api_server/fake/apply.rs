//! Server-side apply: fields have managers, and a manager's fields that it no longer gives go. Lists are atomic here, and a
//! manager's entry in `managedFields` has the whole object that it applied.

use serde_json::{Value, json};

use super::request::Asked;
use super::write::{Refused, merge};

pub(super) const CONTENT_TYPE: &str = "application/apply-patch+yaml";

pub(super) fn applied(asked: &Asked, current: Option<Value>, mut body: Value) -> Result<Value, Refused> {
    assert!(asked.subresource.is_empty(), "specifications are applied, statuses are patched");
    let manager = asked.query.get("fieldManager").expect("an apply has a manager").clone();
    let is_forced = asked.query.get("force").is_some_and(|force| force == "true");
    let version = body["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    let conflict = |text: String| Err((409, "Conflict", text));
    let Some(mut current) = current else {
        if version.is_some() {
            return conflict("the object has been deleted".to_owned());
        }
        let entry = json!({"manager": manager, "operation": "Apply", "fieldsV1": body.clone()});
        body["metadata"]["managedFields"] = json!([entry]);
        return Ok(body);
    };
    if version.is_some_and(|version| version != current["metadata"]["resourceVersion"]) {
        return conflict("the object has been modified".to_owned());
    }
    // What tests put is somebody else's.
    let mut managers = match current["metadata"]["managedFields"].take() {
        Value::Array(managers) => managers,
        _ => vec![json!({"manager": "kubectl", "operation": "Update"})],
    };
    let place = managers.iter().position(|entry| entry["manager"] == manager.as_str());
    let before = place.map(|place| managers.remove(place)["fieldsV1"].take()).unwrap_or_default();
    if !is_forced && differs(&current, &body, &before) {
        return conflict(format!("Apply failed with a conflict: {manager} does not own every field"));
    }
    remove_absent(&mut current, &before, &body);
    merge(&mut current, &body);
    managers.push(json!({"manager": manager, "operation": "Apply", "fieldsV1": body}));
    current["metadata"]["managedFields"] = managers.into();
    Ok(current)
}

/// Is there a field of another manager with another value?
fn differs(current: &Value, wanted: &Value, own: &Value) -> bool {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => wanted.iter().any(|(name, value)| {
            current.get(name).is_some_and(|current| differs(current, value, own.get(name).unwrap_or(&Value::Null)))
        }),
        (current, wanted) => current != wanted && own.is_null(),
    }
}

/// Removes what the manager gave before and gives no more.
fn remove_absent(current: &mut Value, before: &Value, now: &Value) {
    let (Some(fields), Some(before)) = (current.as_object_mut(), before.as_object()) else { return };
    for (name, value) in before {
        match now.get(name) {
            Some(now) => {
                if let Some(current) = fields.get_mut(name) {
                    remove_absent(current, value, now);
                }
            }
            None if value.is_object() => {
                if let Some(current) = fields.get_mut(name) {
                    remove_absent(current, value, &json!({}));
                    if current.as_object().is_some_and(serde_json::Map::is_empty) {
                        fields.remove(name);
                    }
                }
            }
            None => drop(fields.remove(name)),
        }
    }
}
