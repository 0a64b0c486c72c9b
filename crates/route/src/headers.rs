//! Changes of headers. The order is Envoy's: remove, set, add; those of the destination before those of the route.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::serialise;

/// Changes that one part of a route makes to the headers of a request or of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HeaderChanges {
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "serialise::names")]
    pub remove: Vec<HeaderName>,
    /// Replaces every line of the name.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "serialise::lines")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// A further line of the name.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "serialise::lines")]
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderChanges {
    /// Returns true if nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Applies the changes in order. A map that is full (32,768 lines) keeps what it has.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            // An error means that the map is full.
            let _ = headers.try_insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            let _ = headers.try_append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::headers;

    fn name(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }

    fn changes(remove: &[&'static str], set: &[(&'static str, &str)], add: &[(&'static str, &str)]) -> HeaderChanges {
        let lines = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(key, value)| (name(key), HeaderValue::from_str(value).unwrap())).collect()
        };
        HeaderChanges { remove: remove.iter().map(|key| name(key)).collect(), set: lines(set), add: lines(add) }
    }

    fn lines(headers: &HeaderMap, of: &'static str) -> Vec<String> {
        headers.get_all(name(of)).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_name_is_removed_then_set_then_added_to() {
        let mut map = headers(&[("x-a", "1"), ("x-a", "2"), ("x-b", "kept")]);
        changes(&["x-a"], &[("x-a", "set")], &[("x-a", "added")]).apply(&mut map);
        assert_eq!(lines(&map, "x-a"), ["set", "added"]);
        assert_eq!(lines(&map, "x-b"), ["kept"]);
    }

    #[test]
    fn what_is_set_replaces_every_line_and_what_is_added_none() {
        let mut map = headers(&[("x-a", "1"), ("x-a", "2"), ("x-b", "1")]);
        changes(&[], &[("x-a", "3")], &[("x-b", "2"), ("x-c", "1")]).apply(&mut map);
        assert_eq!(lines(&map, "x-a"), ["3"]);
        assert_eq!(lines(&map, "x-b"), ["1", "2"]);
        assert_eq!(lines(&map, "x-c"), ["1"]);
    }

    #[test]
    fn the_route_has_the_last_word_and_additions_accumulate() {
        let mut map = headers(&[]);
        changes(&[], &[("x-set", "destination")], &[("x-added", "one")]).apply(&mut map);
        changes(&[], &[("x-set", "route")], &[("x-added", "two")]).apply(&mut map);
        assert_eq!(lines(&map, "x-set"), ["route"]);
        assert_eq!(lines(&map, "x-added"), ["one", "two"]);
    }
}
