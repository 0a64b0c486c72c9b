//! Overlays laid over objects: a subset of Kubernetes' strategic merge patch. Fields of maps are merged, `null` removes one,
//! lists are merged by the key that Kubernetes gives their elements or else replaced as a whole. Of the directives only
//! `$patch: delete` of a list's element is known.

use serde_json::{Map, Value};

/// Name of the directive in an element of a list.
const PATCH: &str = "$patch";

/// Lists whose elements have a key (`patchMergeKey` in the types of Kubernetes 1.34): name of the list, of the object that it
/// is a field of where that matters, and of the key.
const KEYED: &[(&str, &str, &str)] = &[
    ("containers", "", "name"),
    ("initContainers", "", "name"),
    ("env", "", "name"),
    ("volumes", "", "name"),
    ("volumeMounts", "", "mountPath"),
    ("imagePullSecrets", "", "name"),
    ("hostAliases", "", "ip"),
    ("topologySpreadConstraints", "", "topologyKey"),
    // Of a Service. The element of `containers` has no name in the path.
    ("ports", "spec", "port"),
    ("ports", "containers", "containerPort"),
    ("ports", "initContainers", "containerPort"),
];

/// Mistake in an overlay: the path of its field, and what is wrong there.
pub(crate) type Mistake = (String, String);

/// Lays `overlay` over `base`. What is wrong is left out and noted.
pub(crate) fn merge(base: &mut Value, overlay: &Value, mistakes: &mut Vec<Mistake>) {
    lay(base, overlay, &mut Vec::new(), mistakes);
}

fn lay(base: &mut Value, overlay: &Value, path: &mut Vec<String>, mistakes: &mut Vec<Mistake>) {
    match (base, overlay) {
        (base @ Value::Object(_), Value::Object(fields)) => {
            let Value::Object(target) = base else { return };
            lay_fields(target, fields, path, mistakes);
        }
        (Value::Array(elements), Value::Array(overlay)) if merge_key(path).is_some() => {
            let key = merge_key(path).unwrap_or_default();
            lay_elements(elements, overlay, key, path, mistakes);
        }
        (base, overlay) => *base = fresh(overlay, path, mistakes),
    }
}

fn lay_fields(
    target: &mut Map<String, Value>,
    fields: &Map<String, Value>,
    path: &mut Vec<String>,
    mistakes: &mut Vec<Mistake>,
) {
    for (name, value) in fields {
        path.push(name.clone());
        if name.starts_with('$') {
            mistakes.push((path.join("."), "unsupported directive, expected fields".to_owned()));
        } else if value.is_null() {
            target.remove(name);
        } else if let Some(present) = target.get_mut(name) {
            lay(present, value, path, mistakes);
        } else {
            target.insert(name.clone(), fresh(value, path, mistakes));
        }
        path.pop();
    }
}

fn lay_elements(
    elements: &mut Vec<Value>,
    overlay: &[Value],
    key: &str,
    path: &mut Vec<String>,
    mistakes: &mut Vec<Mistake>,
) {
    for element in overlay {
        let value = &element[key];
        if !value.is_string() && !value.is_number() {
            mistakes.push((path.join("."), format!("an element without {key}, which is the key of its elements")));
            continue;
        }
        let place = elements.iter().position(|present| present[key] == *value);
        match (element.get(PATCH).map(Value::as_str), place) {
            (Some(Some("delete")), Some(place)) => drop(elements.remove(place)),
            // What is not there need not be removed.
            (Some(Some("delete")), None) => {}
            (Some(_), _) => {
                let text = format!("unsupported {PATCH}: {}, expected delete", element[PATCH]);
                mistakes.push((path.join("."), text));
            }
            (None, Some(place)) => lay(&mut elements[place], element, path, mistakes),
            (None, None) => elements.push(fresh(element, path, mistakes)),
        }
    }
}

/// A value that there was none of: without the fields that are to be removed.
fn fresh(overlay: &Value, path: &mut Vec<String>, mistakes: &mut Vec<Mistake>) -> Value {
    match overlay {
        Value::Object(fields) => {
            let mut made = Map::new();
            lay_fields(&mut made, fields, path, mistakes);
            Value::Object(made)
        }
        Value::Array(elements) if merge_key(path).is_some() => {
            let mut made = Vec::new();
            lay_elements(&mut made, elements, merge_key(path).unwrap_or_default(), path, mistakes);
            Value::Array(made)
        }
        Value::Array(elements) => elements.iter().map(|element| fresh(element, path, mistakes)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => overlay.clone(),
    }
}

/// Key of the elements of the list at this path.
fn merge_key(path: &[String]) -> Option<&'static str> {
    let [before @ .., list] = path else { return None };
    let parent = before.last().map(String::as_str).unwrap_or_default();
    let matches = |(name, owner, _): &&(&str, &str, &str)| *name == list && (owner.is_empty() || *owner == parent);
    KEYED.iter().find(matches).map(|(_, _, key)| *key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut base: Value, overlay: Value) -> (Value, Vec<Mistake>) {
        let mut mistakes = Vec::new();
        merge(&mut base, &overlay, &mut mistakes);
        (base, mistakes)
    }

    fn deployment() -> Value {
        json!({"spec": {"template": {"spec": {
            "containers": [{"name": "waypoint", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"containerPort": 15008, "name": "mesh"}]}],
            "tolerations": [{"key": "a"}],
        }}}})
    }

    #[test]
    fn elements_with_a_key_are_merged_and_other_lists_replaced() {
        let overlay = json!({"spec": {"template": {"spec": {
            "containers": [
                {"name": "waypoint", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
                 "ports": [{"containerPort": 9, "name": "own"}]},
                {"name": "second", "image": "s", "args": null},
            ],
            "tolerations": [{"key": "b"}],
        }}}});

        let (found, mistakes) = merged(deployment(), overlay);

        assert_eq!(mistakes, []);
        let spec = &found["spec"]["template"]["spec"];
        let waypoint = &spec["containers"][0];
        let values: Vec<_> = waypoint["env"].as_array().unwrap().iter().map(|env| env["value"].clone()).collect();
        assert_eq!(values, ["1", "3", "4"]);
        assert_eq!(waypoint["image"], "i");
        assert_eq!(waypoint["ports"].as_array().map(Vec::len), Some(2));
        assert_eq!(spec["containers"][1], json!({"name": "second", "image": "s"}));
        assert_eq!(spec["tolerations"], json!([{"key": "b"}]));
    }

    #[test]
    fn null_removes_a_field_and_delete_an_element() {
        let overlay = json!({"spec": {"template": {"spec": {
            "tolerations": null,
            "containers": [{"name": "waypoint", "env": [{"name": "A", "$patch": "delete"}, {"name": "X", "$patch": "delete"}]}],
        }}}});

        let (found, mistakes) = merged(deployment(), overlay);

        assert_eq!(mistakes, []);
        let spec = &found["spec"]["template"]["spec"];
        assert_eq!(spec.get("tolerations"), None);
        assert_eq!(spec["containers"][0]["env"], json!([{"name": "B", "value": "2"}]));
    }

    #[test]
    fn ports_of_a_service_have_another_key_than_those_of_a_container() {
        let service = json!({"spec": {"ports": [{"name": "mesh", "port": 15008}]}});

        let (found, mistakes) = merged(service, json!({"spec": {"ports": [{"port": 15008, "nodePort": 30000}]}}));

        assert_eq!(mistakes, []);
        assert_eq!(found["spec"]["ports"], json!([{"name": "mesh", "port": 15008, "nodePort": 30000}]));
    }

    #[test]
    fn what_is_not_supported_is_named_with_its_path() {
        let overlay = json!({
            "spec": {"$retainKeys": ["a"], "template": {"spec": {
                "containers": [{"image": "x"}, {"name": "waypoint", "$patch": "replace"}],
            }}},
        });

        let (found, mistakes) = merged(deployment(), overlay);

        assert_eq!(found, deployment());
        let fields: Vec<_> = mistakes.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["spec.$retainKeys", "spec.template.spec.containers", "spec.template.spec.containers"]);
    }
}
