//! Index of selectors, which finds those that match a set of labels without trying them all.

use std::collections::{BTreeSet, HashMap};

use kube_types::{StringMap, is_subset};

/// Selectors by one of their pairs: labels that match must have that pair too. An empty selector is not kept and selects
/// nothing here.
#[derive(Debug, Default)]
pub(crate) struct Selectors {
    by_pair: HashMap<(String, String), BTreeSet<String>>,
    by_name: HashMap<String, StringMap>,
}

impl Selectors {
    /// Keeps (or replaces) the selector of `name`.
    pub(crate) fn insert(&mut self, name: &str, selector: &StringMap) {
        // The old selector may be filed under another pair.
        self.remove(name);
        // Any one of its pairs would do: the labels that it selects have all of them.
        let Some((key, value)) = selector.iter().next() else {
            return;
        };
        self.by_pair.entry((key.clone(), value.clone())).or_default().insert(name.to_owned());
        self.by_name.insert(name.to_owned(), selector.clone());
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let Some(selector) = self.by_name.remove(name) else {
            return;
        };
        // `insert` filed it under the first pair in the order of keys, which is the same here.
        let Some((key, value)) = selector.into_iter().next() else {
            return;
        };
        let pair = (key, value);
        if let Some(names) = self.by_pair.get_mut(&pair) {
            names.remove(name);
            if names.is_empty() {
                self.by_pair.remove(&pair);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&StringMap> {
        self.by_name.get(name)
    }

    /// Names whose selector matches, sorted.
    pub(crate) fn matching(&self, labels: &StringMap) -> BTreeSet<&str> {
        labels
            .iter()
            .filter_map(|(key, value)| self.by_pair.get(&(key.clone(), value.clone())))
            .flatten()
            .filter(|name| self.by_name.get(*name).is_some_and(|selector| is_subset(selector, labels)))
            .map(String::as_str)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_what_matches_in_all_pairs_is_found() {
        let mut selectors = Selectors::default();
        selectors.insert("one", &labels(&[("a", "1")]));
        selectors.insert("both", &labels(&[("a", "1"), ("b", "2")]));
        selectors.insert("empty", &labels(&[]));
        selectors.insert("gone", &labels(&[("a", "1")]));
        selectors.remove("gone");
        selectors.insert("moved", &labels(&[("a", "1")]));
        selectors.insert("moved", &labels(&[("b", "2")]));

        let found: Vec<_> = selectors.matching(&labels(&[("a", "1"), ("c", "3")])).into_iter().collect();
        assert_eq!(found, ["one"]);
        let found: Vec<_> = selectors.matching(&labels(&[("a", "1"), ("b", "2")])).into_iter().collect();
        assert_eq!(found, ["both", "moved", "one"]);
    }
}
