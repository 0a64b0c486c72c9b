//! Lays a partial object over another.

use serde_json::Value;

/// Maps are merged recursively, lists and scalars replaced, `null` removes.
pub(crate) fn merge(base: &mut Value, overlay: &Value) {
    match (base, overlay) {
        (Value::Object(base), Value::Object(overlay)) => {
            for (name, value) in overlay {
                if value.is_null() {
                    base.remove(name);
                } else {
                    // RFC 7396: a member that is missing is merged with nothing, so that nulls inside it do not appear.
                    merge(base.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (base, Value::Object(overlay)) => {
            // Nothing to merge with: still, what is removed must not appear.
            let mut fresh = Value::Object(serde_json::Map::new());
            merge(&mut fresh, &Value::Object(overlay.clone()));
            *base = fresh;
        }
        (base, overlay) => *base = overlay.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn maps_are_merged_lists_replaced_and_null_removes() {
        let mut base = json!({"m": {"a": 1, "b": 2}, "l": [1, 2], "s": "x"});

        merge(&mut base, &json!({"m": {"a": null, "c": {"d": null, "e": 5}}, "l": [3], "n": {"o": null}}));

        assert_eq!(base, json!({"m": {"b": 2, "c": {"e": 5}}, "l": [3], "s": "x", "n": {}}));
    }
}
