//! A status with one program's part replaced. Everything that others wrote stays, also what is not known here.
//!
//! The lists of conditions of Istio's kinds are atomic for the API server: server-side apply of one condition would drop those
//! of every other writer. So the whole list is written, on the condition that the object is still of the version that was read.

use serde_json::{Map, Value, json};

use crate::status::Owned;

/// Name of the list of conditions in a status.
const CONDITIONS: &str = "conditions";

/// Result of comparing an object with what should be in its status.
#[derive(Debug, PartialEq)]
pub(crate) enum Merged {
    /// The object says all of it already.
    Same,
    /// Its conditions are about a later generation than those to be written: another writer knows more.
    Superseded,
    /// A merge patch (RFC 7396) that the API server refuses when the object has changed since.
    Patch(Value),
}

/// Compares an object as read with the status that it should have; `None`: nothing of this program.
pub(crate) fn merge(object: &Value, wanted: Option<&Value>, owned: &Owned) -> Merged {
    let wanted = wanted.and_then(|wanted| wanted["status"].as_object());
    let (status, said) = (&object["status"], wanted.and_then(|wanted| wanted.get(CONDITIONS)));
    let (old, said) = (list(Some(&status[CONDITIONS])), list(said));
    if old.iter().any(|old| said.iter().any(|said| is_later(old, said, object))) {
        return Merged::Superseded;
    }
    let mut patch = Map::new();
    let conditions = conditions(old, said, owned);
    if conditions != old {
        patch.insert(CONDITIONS.to_owned(), or_null(conditions));
    }
    let others = wanted.into_iter().flat_map(Map::keys).filter(|field| *field != CONDITIONS);
    for field in owned.fields.iter().chain(others) {
        let new = wanted.and_then(|wanted| wanted.get(field)).unwrap_or(&Value::Null);
        if status[field] != *new {
            patch.insert(field.clone(), new.clone());
        }
    }
    if patch.is_empty() {
        return Merged::Same;
    }
    Merged::Patch(json!({
        "metadata": { "resourceVersion": object["metadata"]["resourceVersion"] },
        "status": patch,
    }))
}

/// The list with this program's conditions replaced, in the order that it has.
fn conditions(old: &[Value], said: &[Value], owned: &Owned) -> Vec<Value> {
    let mut new: Vec<Value> = said.to_vec();
    let mut merged = Vec::new();
    for condition in old {
        let place = new.iter().position(|new| new["type"] == condition["type"]);
        let is_ours = owned.conditions.iter().any(|own| condition["type"] == own.as_str());
        match place.map(|place| new.remove(place)) {
            Some(new) => merged.push(with_time_of(condition, new)),
            // Said before, and no longer.
            None if is_ours => {}
            None => merged.push(condition.clone()),
        }
    }
    merged.extend(new);
    merged
}

/// The time of a condition is that of the last change of its status.
fn with_time_of(old: &Value, mut new: Value) -> Value {
    const TIME: &str = "lastTransitionTime";
    if old["status"] == new["status"] && old[TIME].is_string() {
        new[TIME] = old[TIME].clone();
    }
    new
}

/// Returns true if `old` is about a later generation than `new`, and one that the object has reached.
fn is_later(old: &Value, new: &Value, object: &Value) -> bool {
    const OBSERVED: &str = "observedGeneration";
    let generations = (old[OBSERVED].as_i64(), new[OBSERVED].as_i64(), object["metadata"]["generation"].as_i64());
    old["type"] == new["type"]
        && matches!(generations, (Some(old), Some(new), Some(reached)) if new < old && old <= reached)
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// An empty list is left out: nothing is there that somebody could want to keep.
fn or_null(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { list.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned() -> Owned {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Owned { conditions: texts(&["Enforced", "Bound"]), fields: texts(&["addresses"]), ..Owned::default() }
    }

    fn condition(name: &str, status: &str, generation: i64, time: &str) -> Value {
        json!({"type": name, "status": status, "observedGeneration": generation, "lastTransitionTime": time})
    }

    fn object(generation: i64, status: Value) -> Value {
        json!({"metadata": {"generation": generation, "resourceVersion": "7"}, "status": status})
    }

    fn patched(object: &Value, wanted: Option<&Value>) -> Value {
        match merge(object, wanted, &owned()) {
            Merged::Patch(patch) => {
                assert_eq!(patch["metadata"], json!({"resourceVersion": "7"}));
                patch["status"].clone()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn conditions_of_other_writers_stay_as_they_are_and_where_they_are() {
        let theirs = json!({"type": "Theirs", "status": "True", "anything": {"at": "all"}});
        let before = object(2, json!({"conditions": [condition("Bound", "True", 1, "t1"), theirs], "other": 1}));
        let wanted = json!({"status": {"conditions": [condition("Enforced", "True", 2, "t2")]}});

        assert_eq!(
            patched(&before, Some(&wanted)),
            json!({"conditions": [theirs, condition("Enforced", "True", 2, "t2")]})
        );
        assert_eq!(patched(&before, None), json!({"conditions": [theirs]}));
        let only_ours = object(2, json!({"conditions": [condition("Bound", "True", 1, "t1")], "addresses": [1]}));
        assert_eq!(patched(&only_ours, None), json!({"conditions": null, "addresses": null}));
        assert_eq!(merge(&object(2, json!({"conditions": [theirs]})), None, &owned()), Merged::Same);
        assert_eq!(merge(&json!({"metadata": {}}), None, &owned()), Merged::Same);
    }

    #[test]
    fn nothing_is_written_when_only_the_time_would_differ() {
        let before = object(2, json!({"conditions": [condition("Enforced", "True", 2, "t1")], "addresses": [1]}));
        let wanted = |status: &str, addresses: Value| json!({"status": {"conditions": [condition("Enforced", status, 2, "t2")], "addresses": addresses}});

        assert_eq!(merge(&before, Some(&wanted("True", json!([1]))), &owned()), Merged::Same);
        assert_eq!(patched(&before, Some(&wanted("True", json!([2])))), json!({"addresses": [2]}));
        assert_eq!(
            patched(&before, Some(&wanted("False", json!([1])))),
            json!({"conditions": [condition("Enforced", "False", 2, "t2")]})
        );
    }

    #[test]
    fn what_is_about_a_later_generation_is_not_overwritten() {
        let of = |generation| json!({"status": {"conditions": [condition("Enforced", "False", generation, "t2")]}});
        let before = object(3, json!({"conditions": [condition("Enforced", "True", 3, "t1")]}));

        assert_eq!(merge(&before, Some(&of(2)), &owned()), Merged::Superseded);
        assert!(matches!(merge(&before, Some(&of(3)), &owned()), Merged::Patch(_)));
        // A number that the object never had is a mistake of somebody, and must not stay for ever.
        let invented = object(3, json!({"conditions": [condition("Enforced", "True", 99, "t1")]}));
        assert!(matches!(merge(&invented, Some(&of(3)), &owned()), Merged::Patch(_)));
    }
}
